"""The audit log of the administration: who did what, when, to which subject. It is only ever added to.

Each entry carries the SHA-256 of itself and of the one before it, so that an entry that was changed, removed, added
or moved breaks the chain and `AuditLog.verify` names the first that does not fit. The file refuses to change or delete
(triggers), and holds the number and hash of the last entry apart, so that entries missing at the end are found too.

**What this cannot see.** Nobody holds a secret key here: whoever may write the file and knows this program can drop
the triggers, cut the end off and set the kept number back, or write a whole new chain. A file restored from a backup
is an old whole. Only a witness outside the file shows that: an export. Keep exports where the server cannot write;
`AuditLog.find_difference` holds the log against one and names the first entry that differs from it or is missing.

**Write first, then act.** A function that changes something appends its entry before it changes it. When the log
cannot be written (disk full), `append` raises OutputError and the action does not happen.

No patient data: no pixels, no file names of scans, no tags. Ids, versions, counts and reasons only.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from busi_core.database import transaction
from busi_core.errors import OutputError
from busi_core.settings import Settings

ACTIONS = (
    "sign-in",
    "sign-in.refused",
    "sign-out",
    "dataset.accepted",
    "dataset.removed",
    "job.queued",
    "job.paused",
    "job.resumed",
    "job.cancelled",
    "job.done",
    "job.failed",
    "promotion.judged",
    "promotion.done",
    "promotion.refused",
    "rollback.done",
    "correction.kept",
)
AUDIT_FILE = "audit.sqlite"
START = "0" * 64  # what stands before the first entry
MAX_ENTRY = 100_000  # characters of one entry's texts together
MAX_LEVELS = 20  # lists and objects inside each other; anything deeper would end a reader by its recursion
COLUMNS = "number, moment, who, action, subject, details, before, hash"

Row = tuple[Any, ...]  # of the table, in the order of Entry

_MIGRATIONS = (
    (
        """CREATE TABLE entries (
            number INTEGER PRIMARY KEY, moment TEXT NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
            subject TEXT NOT NULL, details TEXT NOT NULL, before TEXT NOT NULL, hash TEXT NOT NULL
        )""",
        "CREATE TABLE head (only INTEGER PRIMARY KEY CHECK (only = 1), number INTEGER NOT NULL, hash TEXT NOT NULL)",
        "INSERT INTO head VALUES (1, 0, printf('%064d', 0))",  # START
        """CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
            BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END""",
        """CREATE TRIGGER entries_remain BEFORE DELETE ON entries
            BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END""",
        # Also stops INSERT OR REPLACE, which deletes without asking the trigger above.
        """CREATE TRIGGER entries_follow BEFORE INSERT ON entries
            WHEN NEW.number IS NOT (SELECT number + 1 FROM head) OR NEW.before IS NOT (SELECT hash FROM head)
            BEGIN SELECT RAISE(ABORT, 'an entry follows the last one'); END""",
        """CREATE TRIGGER entries_move_the_head AFTER INSERT ON entries
            BEGIN UPDATE head SET number = NEW.number, hash = NEW.hash; END""",
        """CREATE TRIGGER head_remains BEFORE DELETE ON head
            BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END""",
        """CREATE TRIGGER head_is_one BEFORE INSERT ON head
            BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END""",
        """CREATE TRIGGER head_moves_on BEFORE UPDATE ON head
            WHEN NEW.number IS NOT OLD.number + 1 BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END""",
    ),
)


@dataclass(frozen=True)
class Entry:
    """One line of the log.

    Attributes:
        number: From 1, without gaps.
        when: ISO 8601, UTC, with milliseconds.
        who: An administrator's name or mail address, or what was typed at a refused sign-in.
        action: One of `ACTIONS`.
        subject: What it was done to: the id of a job, data set or version; may be empty.
        details: Plain JSON values.
        before: Hash of the entry before; `START` for the first.
        hash: SHA-256, in hex, of all of the above as canonical JSON.
    """

    number: int
    when: str
    who: str
    action: str
    subject: str
    details: Mapping[str, Any]
    before: str
    hash: str


class AuditLog:
    """The log in one SQLite file; every call opens it anew, so threads and processes may share the path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, who: str, action: str, subject: str, **details: Any) -> Entry:
        """Add one entry; it lies on the disk when this returns. Call it before the action that it tells of.

        Args:
            who: What `Permit.confirm` returned.
            action: One of `ACTIONS`.
            subject: Id of what it is done to.
            details: Plain JSON values: str, int, finite float, bool, None, lists and dicts of these. Never patient
                data.

        Raises:
            OutputError: It cannot be written; do not go on with the action.
            ValueError: An action that is not in the list, a number that is not finite, or values nested too deep.
            TypeError: A detail that JSON does not know.
        """
        if action not in ACTIONS:
            raise ValueError(f"{action!r} is no action of the audit log; add it to ACTIONS")
        if not _is_shallow(details):
            raise ValueError(f"details of the audit log are nested at most {MAX_LEVELS} levels deep")
        texts = [clean_text(text) for text in (who, action, subject)]
        written = _canonical(_readable(details))
        if sum(map(len, texts)) + len(written) > MAX_ENTRY:
            raise OutputError("This is too long for the audit log.", remedy="Shorten the text and try again.")
        with transaction(self.path, _MIGRATIONS) as connection:
            head = _read_head(connection)
            if head is None:
                raise OutputError(
                    "The end of the audit log was changed behind the program's back.",
                    remedy="Keep the file as it is for whoever looks into it, and restore one from a backup.",
                )
            last, before = head
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            own = _hash((last + 1, moment, *texts, json.loads(written), before))
            row = (last + 1, moment, *texts, written, before, own)
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return _entry(row)

    def read(self) -> list[Entry]:
        """Every entry, oldest first, as it stands in the file, also when the chain is broken.

        Raises:
            OutputError: The file is damaged or of a newer program.
        """
        return [_entry(row) for row in self._rows()[0]]

    def verify(self) -> int | None:
        """Number of the first entry that was changed, added, moved or is missing; None when the chain is whole.

        Raises:
            OutputError: The file is damaged as a whole or of a newer program.
        """
        rows, head = self._rows()
        before = START
        for number, row in enumerate(rows, start=1):
            entry = _entry(row)
            if entry.number != number or entry.before != before or entry.hash != _row_hash(row):
                return number
            before = entry.hash
        if head == (len(rows), before):
            return None
        if head is None or head[0] > len(rows):
            return len(rows) + 1  # cut off at the end, or nobody can say where that was
        return max(1, head[0] + (head[0] < len(rows)))  # added behind the program's back, or its end replaced

    def find_difference(self, exported: str) -> int | None:
        """Hold the log against an export of JSON lines made earlier, wherever that was kept.

        Returns:
            Number of the first exported entry that the log lacks or holds otherwise; None when it holds them all.

        Raises:
            OutputError: This is no export of an audit log, or the log cannot be read.
        """
        held = {entry.number: asdict(entry) for entry in self.read()}
        try:
            lines = [json.loads(line) for line in exported.split("\n") if line.strip()]
            numbers = [int(line["number"]) for line in lines]
            if not lines:
                raise ValueError("it is empty")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise OutputError(
                "This is no export of an audit log.", remedy="Choose a .jsonl file that was downloaded here."
            ) from error
        return next((number for number, line in zip(numbers, lines, strict=True) if held.get(number) != line), None)

    def _rows(self) -> tuple[list[Row], tuple[int, str] | None]:
        with transaction(self.path, _MIGRATIONS) as connection:
            rows = connection.execute(f"SELECT {COLUMNS} FROM entries ORDER BY number").fetchall()  # noqa: S608
            return rows, _read_head(connection)


def open_audit(settings: Settings) -> AuditLog:
    """The log of this server, in the state folder."""
    return AuditLog(settings.state_dir / AUDIT_FILE)


def export_jsonl(entries: Iterable[Entry]) -> bytes:
    """One JSON object a line, UTF-8; what `AuditLog.find_difference` reads."""
    lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
    return lines.encode("utf-8", errors="backslashreplace")  # half a character in JSON: its escape, read as it was


def _read_head(connection: sqlite3.Connection) -> tuple[int, str] | None:
    """Number and hash of the last entry, as they are kept apart; None when they are gone or of another kind."""
    head = connection.execute("SELECT number, hash FROM head").fetchone()
    return head if head and isinstance(head[0], int) and isinstance(head[1], str) else None


def _entry(row: Row) -> Entry:
    number, when, who, action, subject, written, before, own = row
    details = _read_details(written)
    if details is None:
        details = {"unreadable": str(written)}
    return Entry(number, str(when), str(who), str(action), str(subject), details, str(before), str(own))


def _read_details(written: Any) -> dict[str, Any] | None:
    """What a row holds as details; None where `append` cannot have written it."""
    try:
        details = json.loads(written)
        if not isinstance(details, dict) or not _is_shallow(details):
            return None
        _canonical(details)  # refuses numbers that are not finite
    except (ValueError, TypeError, RecursionError):
        return None
    return details


def _is_shallow(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether lists and objects lie inside each other at most so deep."""
    if not isinstance(value, dict | list | tuple):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


def _row_hash(row: Row) -> str | None:
    """What the hash of a row must be; None when its texts or details are not as this program writes them."""
    if not all(isinstance(text, str) for text in row[1:]):
        return None
    details = _entry(row).details
    return _hash((*row[:5], details, row[6])) if _canonical(details) == row[5] else None


def _hash(parts: Sequence[Any]) -> str:
    return hashlib.sha256(_canonical(list(parts)).encode()).hexdigest()


def _canonical(value: Any) -> str:
    """JSON with one spelling for one value, in ASCII.

    Raises:
        ValueError: A number is not finite.
        TypeError: JSON does not know a value.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def clean_text(text: str) -> str:
    """Text that UTF-8 can hold, whatever a browser or a shell in another encoding sent."""
    return text.encode("utf-8", errors="backslashreplace").decode()


def _readable(value: Any) -> Any:
    """`clean_text` for every string in plain JSON values."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {_readable(key): _readable(part) for key, part in value.items()}
    return [_readable(part) for part in value] if isinstance(value, list | tuple) else value
