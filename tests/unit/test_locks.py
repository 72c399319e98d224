"""A folder is held by one run alone, and what lies under the lock's name but is no lock stays as it is."""

import os
from pathlib import Path

import pytest

from busi_core.errors import OutputError
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
