"""The house rules that no linter knows: what starts without what, and how the core speaks."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from busi_core import errors
from busi_core.errors import BusiError

CORE = Path(errors.__file__).parent
FILES = sorted(CORE.rglob("*.py"))
PUBLIC_ERRORS = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds in the core, with its place."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                yield f"{file.relative_to(CORE)}:{getattr(node, 'lineno', 0)}", node


def called_name(node: ast.AST) -> str:
    """'print' of print(...), 'torch.load' of torch.load(...)."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# ---- What starts without what --------------------------------------------------------------------------------


def test_the_whole_core_starts_without_streamlit_and_without_the_heavy_explainer() -> None:
    """grad-cam pulls matplotlib, scikit-learn and scipy: 190 MB that the server does not need."""
    code = """
import importlib, pkgutil, sys
for name in ("streamlit", "pages", "pytorch_grad_cam", "matplotlib", "sklearn"):
    sys.modules[name] = None  # importing it now raises
import busi_core
for module in pkgutil.walk_packages(busi_core.__path__, "busi_core."):
    importlib.import_module(module.name)
    print(module.name)
"""
    assert len(run_python(code).split()) >= len(FILES) - 1


def test_help_is_there_before_torch_would_be() -> None:
    code = """
import contextlib, io, sys
from busi_core.cli import main
for arguments in (["--help"], ["analyse", "--help"], ["train", "--help"]):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main(arguments)
    assert "usage: busi" in said.getvalue()
print([name for name in ("torch", "numpy", "cv2", "PIL", "streamlit") if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"


# ---- How the core speaks -------------------------------------------------------------------------------------


def test_only_the_command_line_prints() -> None:
    printing = {place for place, node in nodes(ast.Call) if called_name(node) in ("print", "sys.stdout.write")}
    assert {place.split("/")[0] for place in printing} == {"cli"}


def test_nothing_that_runs_code_from_a_file_is_called() -> None:
    """W1."""
    forbidden = {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "np.load", "numpy.load", "os.system"}
    assert not [place for place, node in nodes(ast.Call) if called_name(node) in forbidden]
    imported = [
        place
        for place, node in nodes(ast.Import, ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name in ("pickle", "shelve", "marshal", "joblib", "dill")
    ]
    assert not imported


def test_no_error_is_swallowed_whole() -> None:
    broad = [
        place
        for place, node in nodes(ast.ExceptHandler)
        if node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
    ]
    assert not broad


def test_arguments_are_checked_by_what_stays_under_optimisation() -> None:
    """`assert` is for tests: it vanishes under python -O."""
    assert not [place for place, _ in nodes(ast.Assert)]


def test_no_module_is_a_drawer_for_leftovers() -> None:
    assert not {file.stem for file in FILES} & {"utils", "util", "helpers", "common", "misc", "tools"}


def test_no_module_silences_warnings_or_sets_up_logging_for_its_host() -> None:
    """But for those of pydicom, which repeat what a file holds: a name in a log is worse than a warning less."""
    meddling = ("logging.basicConfig", "warnings.filterwarnings", "warnings.simplefilter", "logging.disable")
    found = [
        (place.partition(":")[0], ast.unparse(node)) for place, node in nodes(ast.Call) if called_name(node) in meddling
    ]
    assert found == [("imaging/dicom.py", "warnings.filterwarnings('ignore', module='pydicom')")]


# ---- Errors --------------------------------------------------------------------------------------------------


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^ *[*+] (\w+)", inspect.getdoc(errors) or "", re.MULTILINE)
    assert set(drawn) == set(PUBLIC_ERRORS)
    assert drawn[0] == "BusiError"
    assert all(kind.__bases__ == (BusiError,) for name, kind in PUBLIC_ERRORS.items() if name != "BusiError")
    assert BusiError.__bases__ == (Exception,)


@pytest.mark.parametrize("name", PUBLIC_ERRORS)
def test_every_error_carries_its_problem_and_its_remedy(name: str) -> None:
    error = PUBLIC_ERRORS[name]("The file is empty.", remedy="Choose another.")
    assert (error.problem, error.remedy) == ("The file is empty.", "Choose another.")
    assert str(error) == "The file is empty. Choose another."
    with pytest.raises(TypeError):
        PUBLIC_ERRORS[name]("a problem without a remedy")


def test_every_error_that_is_raised_says_what_to_do_in_whole_sentences() -> None:
    raised = [(place, node) for place, node in nodes(ast.Call) if called_name(node) in PUBLIC_ERRORS]
    assert len(raised) > 40
    for place, node in raised:
        assert isinstance(node, ast.Call)
        assert [keyword.arg for keyword in node.keywords] == ["remedy"], place
        for part in (*node.args, node.keywords[0].value):
            assert last_text(part).endswith("."), f"{place}: {ast.unparse(part)}"


def last_text(part: ast.AST) -> str:
    """What a message ends with; a full stop where it ends with a value, which nobody can know here."""
    if isinstance(part, ast.JoinedStr):
        return last_text(part.values[-1])
    return str(part.value) if isinstance(part, ast.Constant) else "."
