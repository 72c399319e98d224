"""The audit log as people read it: chosen entries, one line of details, CSV."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from busi_core.audit import Entry
from busi_core.batch_tables import safe_cell

COLUMNS = ("number", "when", "who", "action", "subject", "details", "before", "hash")


def select_entries(
    entries: Iterable[Entry],
    *,
    who: Collection[str] = (),
    actions: Collection[str] = (),
    first: date | None = None,
    last: date | None = None,
    text: str = "",
) -> list[Entry]:
    """The entries that pass every filter; an empty filter lets all through.

    Args:
        entries: In any order, which is kept.
        who: Names, exactly.
        actions: Of `busi_core.audit.ACTIONS`.
        first: Day in UTC; it counts itself.
        last: Day in UTC; it counts itself.
        text: Found in subject or details, in any case.
    """
    wanted = text.strip().casefold()
    return [
        entry
        for entry in entries
        if (not who or entry.who in who)
        and (not actions or entry.action in actions)
        and _within(entry, first, last)
        and wanted in f"{entry.subject} {say_details(entry.details)}".casefold()
    ]


def say_details(details: Mapping[str, Any]) -> str:
    """'data sets: busi, bus-bra · epochs: 30': details on one line, by name."""
    return " · ".join(f"{name.replace('_', ' ')}: {_say(value)}" for name, value in sorted(details.items()))


def export_csv(entries: Iterable[Entry]) -> bytes:
    """One line an entry, UTF-8 with a byte-order mark for spreadsheets; details as JSON; no cell is a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        details = json.dumps(entry.details, ensure_ascii=False)
        cells = (entry.number, entry.when, entry.who, entry.action, entry.subject, details, entry.before, entry.hash)
        writer.writerow(map(safe_cell, cells))
    return buffer.getvalue().encode("utf-8-sig", "replace")


def _within(entry: Entry, first: date | None, last: date | None) -> bool:
    try:
        day = datetime.fromisoformat(entry.when).date()
    except ValueError:
        return True  # a time that somebody damaged is never filtered away
    return (first is None or first <= day) and (last is None or day <= last)


def _say(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(_say, value))
    return json.dumps(value, ensure_ascii=False)
