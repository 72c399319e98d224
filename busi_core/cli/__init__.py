"""The command line: `busi COMMAND`. The files beside this one hold the commands by subject, a function for each.

The only room of the core that prints.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence

from busi_core.cli import data, measuring, reading, server, service, training
from busi_core.cli.terminal import shown
from busi_core.errors import BusiError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 when something was reported, 2 for wrong usage."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush fails no more
        if error.errno == errno.ENOSPC:  # a closed pipe is no fault: who read the lines has ended, as `head` does
            print("busi: what is said here could not be written (the disk is full).", file=sys.stderr)
        return 1
    except BusiError as error:
        print(f"busi: {shown(error.problem)} {shown(error.remedy)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("busi: stopped; what was finished is kept.", file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="busi", description="Read breast-ultrasound scans. Research use only, not a medical device."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for subject in (reading, training, measuring, service, data, server):
        subject.add_commands(commands)
    return parser
