"""The public surface: what `busi_core` promises by name."""

import ast
import subprocess
import sys
from pathlib import Path

import busi_core


def test_every_public_name_can_be_imported() -> None:
    for name in busi_core.__all__:
        assert getattr(busi_core, name).__name__ == name


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(busi_core.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(busi_core.__all__)


def test_an_unknown_name_is_refused() -> None:
    assert not hasattr(busi_core, "predict")


def test_the_package_itself_loads_neither_torch_nor_streamlit() -> None:
    code = "import sys, busi_core, busi_core.cli; print([m for m in ('torch', 'streamlit') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
