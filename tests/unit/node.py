"""The viewers' own JavaScript, asked outside a browser."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

COMPONENTS = Path(__file__).parents[2] / "pages/components"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")


def in_node(script: Path, expression: str) -> Any:
    """What an expression gives after the script, as JSON."""
    code = f"{script.read_text('utf-8')}\nprocess.stdout.write(JSON.stringify({expression}));"
    done = subprocess.run(["node", "--input-type=module"], input=code, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
