"""A file is there whole or as it was before: not half, whatever fails, and whoever writes at the same time."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from busi_core.errors import OutputError
from busi_core.files import write_atomically


def test_content_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "record.json"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize("name", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_disk_leaves_what_was_there_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """J4."""
    path = tmp_path / "record.json"
    path.write_bytes(b"before")

    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(name, fail)
        with pytest.raises(OutputError, match=r"'record\.json' could not be written") as caught:
            write_atomically(path, b"after")
    assert os.strerror(number) in caught.value.problem
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_is_really_full_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """J4: the kernel's own answer, by way of /dev/full."""
    path = tmp_path / "record.json"
    path.write_bytes(b"before")
    open_file = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda _path, _mode: open_file(Path("/dev/full"), "wb"))
        with pytest.raises(OutputError, match=r"No space left.*Free some space"):
            write_atomically(path, b"after")
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("file/record.json", id="the folder is a file"),
        pytest.param("file/below/record.json", id="its parent is a file"),
        pytest.param("folder", id="the target is a folder"),
        pytest.param("x" * 300, id="a name too long"),
    ],
)
def test_a_target_that_cannot_be_written_is_an_output_error(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="permissions, or choose another"):
        write_atomically(tmp_path / target, b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize("name", ["record.json", "beside"])
def test_what_a_link_leads_to_is_left_alone(tmp_path: Path, name: str) -> None:
    """Of the target's name, or of the name that is written first."""
    notes, folder = tmp_path / "notes.txt", tmp_path / "folder"
    notes.write_bytes(b"somebody's work")
    folder.mkdir()
    beside = f".busi-{os.getpid()}-{threading.get_ident()}.new"
    (folder / (beside if name == "beside" else name)).symlink_to(notes)
    write_atomically(folder / "record.json", b"after")
    assert notes.read_bytes() == b"somebody's work"
    assert [(file.name, file.is_symlink(), file.read_bytes()) for file in folder.iterdir()] == [
        ("record.json", False, b"after")
    ]


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path) -> None:
    """U18."""
    path = tmp_path / ("x" * 251 + ".png")
    write_atomically(path, b"after")
    assert path.read_bytes() == b"after"


def test_writers_at_once_leave_one_of_their_contents_whole(tmp_path: Path) -> None:
    """J3: two sessions of one server share a process id."""
    path, together = tmp_path / "registry.json", threading.Barrier(8)
    contents = [bytes([65 + number]) * 200_000 for number in range(8)]

    def write(content: bytes) -> None:
        together.wait()
        for _ in range(5):
            write_atomically(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, contents))
    assert path.read_bytes() in contents
    assert [file.name for file in tmp_path.iterdir()] == ["registry.json"]
