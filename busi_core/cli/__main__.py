"""`python -m busi_core.cli`, as `busi`."""

import sys

from busi_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
