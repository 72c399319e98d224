"""What must outlive the process about sign-ins: which are open, and how many passwords were wrong.

One SQLite file in the state folder. A sign-in is closed for every tab that holds it; a restart of the server does not
give an attacker new tries.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from busi_core.database import transaction
from busi_core.errors import AccessDeniedError
from busi_core.settings import Settings

ACCESS_FILE = "access.sqlite"
MAX_AGE = timedelta(hours=12)  # of a sign-in: a working day
FREE_TRIES = 5  # wrong passwords before anybody has to wait
FIRST_WAIT = timedelta(seconds=30)  # doubles with each wrong password after that
LONGEST_WAIT = timedelta(minutes=15)  # so that at most some 100 passwords a day can be tried
FORGET_AFTER = timedelta(days=1)  # without a try

_MIGRATIONS = (
    (
        """CREATE TABLE sign_ins (
            id TEXT NOT NULL, admitted INTEGER NOT NULL, opened TEXT NOT NULL, closed TEXT, PRIMARY KEY (id, admitted)
        )""",
        "CREATE TABLE tries (only INTEGER PRIMARY KEY CHECK (only = 1), failed INTEGER NOT NULL, last TEXT NOT NULL)",
    ),
)


@dataclass(frozen=True)
class Ledger:
    """The file at `path`; every call is one transaction, so threads and processes may share it."""

    path: Path

    def is_open(self, sign_in: str) -> bool:
        """Whether this sign-in was admitted and not closed since.

        Raises:
            OutputError: The file cannot be read.
        """
        with transaction(self.path, _MIGRATIONS) as connection:
            query = "SELECT 1 FROM sign_ins WHERE id = ? AND admitted AND closed IS NULL"
            return connection.execute(query, (sign_in,)).fetchone() is not None

    def knows(self, sign_in: str, *, admitted: bool) -> bool:
        """Whether it was written down already that this sign-in was admitted, or refused; open or closed.

        Raises:
            OutputError: The file cannot be read.
        """
        with transaction(self.path, _MIGRATIONS) as connection:
            query = "SELECT 1 FROM sign_ins WHERE id = ? AND admitted = ?"
            return connection.execute(query, (sign_in, admitted)).fetchone() is not None

    def write(self, sign_in: str, *, admitted: bool) -> None:
        """Write a sign-in down, admitted or refused; those too old to be of use are forgotten.

        Raises:
            OutputError: The file cannot be written.
        """
        now = datetime.now(UTC)
        with transaction(self.path, _MIGRATIONS) as connection:
            connection.execute("DELETE FROM sign_ins WHERE opened < ?", ((now - 4 * MAX_AGE).isoformat(),))
            connection.execute(
                "INSERT OR IGNORE INTO sign_ins VALUES (?, ?, ?, NULL)", (sign_in, admitted, now.isoformat())
            )

    def close(self, sign_in: str) -> None:
        """End a sign-in in every tab; it never opens again.

        Raises:
            OutputError: The file cannot be written.
        """
        with transaction(self.path, _MIGRATIONS) as connection:
            connection.execute(
                "UPDATE sign_ins SET closed = ? WHERE id = ? AND closed IS NULL",
                (datetime.now(UTC).isoformat(), sign_in),
            )

    def take_try(self, now: datetime | None = None) -> int:
        """Take one try at a password. It counts as wrong until `forgive`, so that tries side by side, and one cut off
        by a kill, count as well.

        Args:
            now: For tests.

        Returns:
            Wrong tries so far, this one included.

        Raises:
            AccessDeniedError: Too many were wrong; nobody may try before the time it names.
            OutputError: The file cannot be written.
        """
        now = now or datetime.now(UTC)
        with transaction(self.path, _MIGRATIONS) as connection:
            row = connection.execute("SELECT failed, last FROM tries").fetchone()
            failed, last = (row[0], datetime.fromisoformat(row[1])) if row else (0, now)
            if now - last > FORGET_AFTER:
                failed = 0
            last = min(last, now)  # the clock was ahead at the last try: it counts as now, also for the tries to come
            left = last + wait_after(failed) - now
            tries = (failed, last) if left > timedelta(0) else (failed + 1, now)
            connection.execute("INSERT OR REPLACE INTO tries VALUES (1, ?, ?)", (tries[0], tries[1].isoformat()))
        if left > timedelta(0):  # outside: inside, it would undo what was written
            raise AccessDeniedError(
                "Too many wrong passwords.", remedy=f"Nobody can sign in for another {_say(left)}; then try again."
            )
        return int(tries[0])

    def forgive(self) -> None:
        """Forget the wrong tries: somebody knew the password.

        Raises:
            OutputError: The file cannot be written.
        """
        with transaction(self.path, _MIGRATIONS) as connection:
            connection.execute("DELETE FROM tries")


def open_ledger(settings: Settings) -> Ledger:
    """The ledger of this server, in the state folder."""
    return Ledger(settings.state_dir / ACCESS_FILE)


def wait_after(failed: int) -> timedelta:
    """How long nobody may try after so many wrong passwords in a row: nothing, then 30 s, doubling to 15 min."""
    if failed < FREE_TRIES:
        return timedelta(0)
    return min(FIRST_WAIT * (1 << min(failed - FREE_TRIES, 16)), LONGEST_WAIT)


def _say(left: timedelta) -> str:
    seconds = math.ceil(left.total_seconds())
    if seconds >= 90:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{seconds} seconds" if seconds > 1 else "second"
