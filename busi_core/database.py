"""Open a small SQLite database of this machine: the newest schema, or untouched.

A schema is a list of migrations, each a list of statements. The number of those applied stands in the file
(`PRAGMA user_version`) and moves in the same transaction as the tables, so that a migration killed half-way leaves
the schema from before. A file of a newer program is refused and not touched.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from busi_core.errors import OutputError

BUSY_SECONDS = 30.0  # how long to wait for another process; a transaction here takes milliseconds

Migration = Sequence[str]


@contextmanager
def transaction(path: Path, migrations: Sequence[Migration]) -> Iterator[sqlite3.Connection]:
    """One transaction that holds the right to write from its first statement on; safe between processes.

    Left by an exception, nothing of it remains. Left otherwise, all of it lies on the disk.

    Args:
        path: Of the database; made, with its folder, when it is not there.
        migrations: All of them, oldest first; those that the file lacks are applied.

    Raises:
        OutputError: The disk is full, the file is damaged, of a newer program, or cannot be opened; nothing was
            written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.text_factory = _decode
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                _migrate(connection, path.name, migrations)
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
    except (sqlite3.Error, OSError) as error:
        raise OutputError(
            f"{path.name} could not be read or written ({error}).",
            remedy="Free some space, or restore the file from a backup; nothing was changed.",
        ) from error


def _migrate(connection: sqlite3.Connection, name: str, migrations: Sequence[Migration]) -> None:
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if schema > len(migrations):
        raise OutputError(
            f"{name} has schema {schema}, this program knows {len(migrations)}.", remedy="Update the program."
        )
    for number, statements in enumerate(migrations[schema:], start=schema + 1):
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")


def _decode(data: bytes) -> str:
    """Text that somebody damaged must be shown and named, not end the reading."""
    return data.decode("utf-8", errors="backslashreplace")
