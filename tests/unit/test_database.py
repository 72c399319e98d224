"""Small SQLite files: all of a transaction or nothing, the newest schema or untouched (D1)."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from busi_core.database import transaction
from busi_core.errors import OutputError

FIRST = ("CREATE TABLE notes (text TEXT NOT NULL)",)
SECOND = ("ALTER TABLE notes ADD COLUMN who TEXT NOT NULL DEFAULT 'nobody'", "CREATE INDEX by_who ON notes (who)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "notes.sqlite"


def write_note(path: Path, migrations: tuple[tuple[str, ...], ...] = (FIRST,)) -> None:
    with transaction(path, migrations) as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('kept')")


def schema_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_a_file_is_made_with_its_folder_in_the_newest_schema(path: Path) -> None:
    write_note(path, (FIRST, SECOND))
    assert schema_of(path) == 2


def test_an_old_schema_is_brought_up_with_what_it_holds(path: Path) -> None:
    """D1."""
    write_note(path)
    with transaction(path, (FIRST, SECOND)) as connection:
        assert connection.execute("SELECT text, who FROM notes").fetchall() == [("kept", "nobody")]
    assert schema_of(path) == 2


def test_a_migration_that_fails_half_way_leaves_the_old_schema(path: Path) -> None:
    """D1."""
    write_note(path)
    with pytest.raises(OutputError), transaction(path, (FIRST, (*SECOND, "CREATE NONSENSE"))):
        pass
    with transaction(path, (FIRST,)) as connection:
        assert [name for _, name, *_ in connection.execute("PRAGMA table_info(notes)")] == ["text"]


@pytest.mark.parametrize("statement", [1, 2, 3])
def test_a_migration_that_is_killed_leaves_the_old_schema(path: Path, statement: int) -> None:
    """D1: kill -9 before the nth statement of the second migration; the third stands before the commit."""
    write_note(path)
    code = f"""
import os, signal, sys
from pathlib import Path
from busi_core.database import transaction

class Killing(tuple):
    def __iter__(self):
        for number, statement in enumerate(tuple.__iter__(self), start=1):
            if number == {statement}:
                os.kill(os.getpid(), signal.SIGKILL)
            yield statement

second = Killing((*{SECOND!r}, "SELECT 1"))
with transaction(Path(sys.argv[1]), ({FIRST!r}, second)):
    pass
"""
    ended = subprocess.run([sys.executable, "-c", code, str(path)], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert schema_of(path) == 1
    with transaction(path, (FIRST, SECOND)) as connection:
        assert connection.execute("SELECT text, who FROM notes").fetchall() == [("kept", "nobody")]


def test_a_file_of_a_newer_program_is_refused_and_not_touched(path: Path) -> None:
    """D1."""
    write_note(path, (FIRST, SECOND))
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"has schema 2, this program knows 1. Update the program\."):
        write_note(path)
    assert path.read_bytes() == before


def test_a_transaction_that_is_left_by_an_error_leaves_nothing(path: Path) -> None:
    def write_and_fail() -> None:
        with transaction(path, (FIRST,)) as connection:
            connection.execute("INSERT INTO notes VALUES ('lost')")
            raise RuntimeError

    write_note(path)
    with pytest.raises(RuntimeError):
        write_and_fail()
    with transaction(path, (FIRST,)) as connection:
        assert connection.execute("SELECT text FROM notes").fetchall() == [("kept",)]


def test_a_damaged_file_is_named_in_words(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, and long enough to be looked at as one" * 20)
    with pytest.raises(OutputError, match=r"notes\.sqlite could not be read or written"):
        write_note(path)


def test_a_folder_that_cannot_be_made_is_named_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_note(tmp_path / "file" / "notes.sqlite")
