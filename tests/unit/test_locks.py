"""A folder is held by one run alone, and what lies under the lock's name but is no lock stays as it is."""

import os
from pathlib import Path

import pytest

from busi_core.errors import OutputError
from busi_core.files import write_atomically
from busi_core.locks import FOLDER_LOCK, ProcessLock, hold_folder, is_held


def test_a_link_under_the_name_of_a_lock_is_refused_and_its_target_left_alone(tmp_path: Path) -> None:
    notes, lock = tmp_path / "notes.txt", tmp_path / "out" / FOLDER_LOCK
    lock.parent.mkdir()
    for content in (b"somebody's work", b""):
        notes.write_bytes(content)
        lock.symlink_to(notes)
        with pytest.raises(OutputError, match=r"is no lock of this program\. Move it away"), hold_folder(lock.parent):
            pass
        assert not is_held(lock)
        assert lock.is_symlink()
        assert notes.read_bytes() == content
        lock.unlink()


@pytest.mark.parametrize("content", [b"somebody's work", b"12 apples\n", b"12\n13\n", b"7" * 500, b"\n"])
def test_a_file_under_the_name_of_a_lock_that_is_none_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FOLDER_LOCK).write_bytes(content)
    with pytest.raises(OutputError, match="is no lock of this program"), hold_folder(tmp_path):
        pass
    assert (tmp_path / FOLDER_LOCK).read_bytes() == content


def test_a_pipe_under_the_name_of_a_lock_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OutputError, match="is no lock of this program"):
        ProcessLock(tmp_path / "lock").acquire()


@pytest.mark.parametrize("content", [b"", b"123\n", b"12"])
def test_what_a_killed_run_left_is_taken(tmp_path: Path, content: bytes) -> None:
    """Its number, whole or cut short by a full disk."""
    (tmp_path / FOLDER_LOCK).write_bytes(content)
    with hold_folder(tmp_path):
        assert (tmp_path / FOLDER_LOCK).read_text() == f"{os.getpid()}\n"
    assert not list(tmp_path.iterdir())


def test_what_killed_writers_left_is_taken_away_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for folder in (tmp_path, out, out / "below", out / "other"):
        folder.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", killed)
            with pytest.raises(KeyboardInterrupt):
                write_atomically(folder / "record.json", b"half")
        for name in (".notes.new", ".busi-notes.new", ".1-2.new", "busi-1-2.new"):
            (folder / name).touch()
    with hold_folder(out, [out / "below", out / "none"]):
        left = {path.parent.name for path in tmp_path.rglob(".busi-[0-9]*")}
    assert left == {tmp_path.name, "other"}
    assert len(list(tmp_path.rglob("*.new"))) == 4 * 4 + 2


def killed(_handle: int) -> None:
    raise KeyboardInterrupt


def test_while_another_run_holds_the_folder_nothing_is_taken_away(tmp_path: Path) -> None:
    rest = tmp_path / ".busi-1-2.new"
    with hold_folder(tmp_path):
        rest.touch()
        with pytest.raises(OutputError, match="Another run"), hold_folder(tmp_path):
            pass
        assert rest.exists()


def test_a_folder_that_is_a_link_to_itself_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for folder, within in ((tmp_path / "loop", []), (tmp_path / "out", [tmp_path / "loop" / "below"])):
        with pytest.raises(OutputError, match="leads back to itself"), hold_folder(folder, within):
            pass
    assert not list(tmp_path.rglob(FOLDER_LOCK))
