"""bus_data.csv -> the class and the case of each scan that it names, and what is wrong with it, in sentences.

BUS-BRA publishes one such table; a hospital may write its own, with the columns ID, Pathology and, if it has it, Case.
A table counts for its own folder and what lies below it; of several above a scan the nearest alone.

A wrong class is worse than none: of two rows that contradict each other neither counts, and nothing is left out in
silence.
"""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from busi_core.data.sources import SourceFile, path_of
from busi_core.errors import InvalidImageError
from busi_core.types import Diagnosis

TABLE_NAME = "bus_data.csv"
NAMED = 5  # lines or scans that a sentence about a table names


@dataclass(frozen=True)
class TableRow:
    """What a table says of one scan.

    Attributes:
        diagnosis: None where it gives two.
        patient: Its case, after the table's folder; None where it gives none, or two.
    """

    diagnosis: Diagnosis | None
    patient: str | None


@dataclass(frozen=True, eq=False)
class ClassTables:
    """What all tables of a batch say.

    Attributes:
        rows: By the parts of a table's folder, then by the file stem of a scan.
        names: Of those of which nothing is wrong in itself, by the same folder.
        problems: What is wrong with them, one sentence each.
    """

    rows: Mapping[tuple[str, ...], Mapping[str, TableRow]]
    names: Mapping[tuple[str, ...], str]
    problems: Sequence[str]

    def find(self, scan: PurePosixPath) -> TableRow | None:
        """What the nearest table above a scan says of it; None where that names it not, or there is none."""
        folder = self._nearest(scan)
        return None if folder is None else self.rows[folder].get(scan.stem)

    def silent(self, scans: Iterable[PurePosixPath]) -> tuple[str, ...]:
        """Which tables name none of these scans, a sentence each."""
        heard = {self._nearest(scan) for scan in scans if self.find(scan)}
        return tuple(
            f"The table {name!r} names no scan of its folder or below. Put it where its scans are, with their names "
            "without suffix under ID."
            for folder, name in self.names.items()
            if folder not in heard
        )

    @cached_property
    def _depths(self) -> list[int]:
        """How deep tables lie, the deepest first."""
        return sorted({len(folder) for folder in self.rows}, reverse=True)

    def _nearest(self, scan: PurePosixPath) -> tuple[str, ...] | None:
        """The folder of the nearest table above a scan."""
        above = scan.parent.parts
        for depth in self._depths:
            if above[:depth] in self.rows:
                return above[:depth]
        return None


def read_tables(files: Iterable[SourceFile]) -> ClassTables:
    """All tables among files; two of one folder count as one."""
    rows: dict[tuple[str, ...], dict[str, TableRow]] = {}
    names: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    for file in files:
        path = path_of(file.name)
        if path.name != TABLE_NAME:
            continue
        folder = path.parent.parts
        wrong = list(_read_table(file, "/".join(folder), rows.setdefault(folder, {})))
        problems += wrong
        if not wrong:
            names[folder] = file.name
    return ClassTables(rows, names, problems)


def _read_table(file: SourceFile, folder: str, rows: dict[str, TableRow]) -> Iterator[str]:
    """Add what one table says to `rows`, by file stem; yields what is wrong with it, a sentence each."""
    table = f"The table {file.name!r}"
    try:
        lines = _read_cells(file.read().decode("utf-8-sig"))
    except InvalidImageError as error:
        yield f"{table} gives no class: {error.problem} {error.remedy}"
        return
    except UnicodeDecodeError:
        yield f"{table} gives no class: it is no text in UTF-8. Save it as CSV, in UTF-8."
        return
    columns = [_plain(cell) for _, header in itertools.islice(lines, 1) for cell in header]
    if not {"id", "pathology"} <= set(columns):
        yield f"{table} gives no class: it has no columns ID and Pathology. Use the table as it was published."
        return
    bad: list[str] = []
    twice: dict[str, None] = {}
    for line, row_cells in lines:
        cells = dict(zip(columns, row_cells, strict=False))
        name, word, case = (cells.get(column, "").strip() for column in ("id", "pathology", "case"))
        if not any(map(str.strip, cells.values())):
            continue
        if not name or _plain(word) not in set(Diagnosis):
            bad.append(line)
            continue
        row = TableRow(Diagnosis(_plain(word)), (f"{folder}/{case}" if folder else case) if case else None)
        before = rows.setdefault(name, row)
        if before.diagnosis is not row.diagnosis:
            twice[name[:40]] = None
        rows[name] = TableRow(
            row.diagnosis if before.diagnosis is row.diagnosis else None,
            row.patient if before.patient == row.patient else None,
        )
    if bad:
        yield (
            f"{table} has rows without an ID or a known class, which are left out: line {_some(bad)}. Write normal, "
            "benign or malignant under Pathology."
        )
    if twice:
        yield f"{table} gives more than one class to {_some(list(twice))}: none is used. Keep one row of each scan."


def _read_cells(text: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a table, each with its line, as '3' or '3 to 5'; of one that cannot be read a cell alone."""
    lines = io.StringIO(text, newline=None)
    header = lines.readline()
    lines.seek(0)
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:  # a quote that is not closed, a cell without an end: the next line is a row again
            row = ["?"]
        yield (f"{first} to {reader.line_num}" if reader.line_num > first else str(first)), row


def _plain(word: str) -> str:
    """A word of a table for comparison: without the blanks around it, in lower case."""
    return word.strip().casefold()


def _some(names: Sequence[str]) -> str:
    """The first of many, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
