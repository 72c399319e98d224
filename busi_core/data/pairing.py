"""Files of one batch -> scans, each with the mask files and the class that its layout gives it.

| layout  | scan                    | masks                                | class                                |
|---------|-------------------------|--------------------------------------|--------------------------------------|
| BUSI    | benign/benign (4).png   | benign (4)_mask.png, _mask_1.png ..  | its folder, or its name 'benign (4)' |
| BUS-BRA | Images/bus_0001-l.png   | Masks/mask_0001-l.png, or beside it  | Pathology in bus_data.csv            |
| any     | a/scan.png              | a/scan_mask.png, scan_mask_1.png ..  | folder normal, benign or malignant   |

A table counts for its own folder and what lies below it; of several above a scan the nearest alone.

A file without one of the usual suffixes is a scan where it is DICOM by its first bytes: 'IM000001', '1.2.840.7'.

The words of a mask's name may be in upper or lower case, and its scan's in another, where that scan is the only one;
likewise an accent may be a sign of its own, as macOS writes it, or not.

Nothing is decoded here. Every file becomes a scan, a mask of a scan, a mask without its scan, or is left out and
counted: none vanishes. Where a name came twice no mask is given by it: another patient's lesion would be the truth.
Names are one where they say the same of a mask: 'a/x.png', 'a\\x.png', 'a//x.png' and 'a/x.jpg' all have a/x_mask.png.
"""

import csv
import io
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath, PurePosixPath

from busi_core.data.records import is_mask_name, natural_key, stem_of_scan
from busi_core.data.sources import FolderFiles, SourceFile
from busi_core.errors import InvalidImageError
from busi_core.imaging.dicom import MARK_END, is_dicom
from busi_core.types import Diagnosis

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom")
TABLES = (".csv", ".txt", ".md")  # what data sets bring along, and nobody misses
BUS_BRA_TABLE = "bus_data.csv"
NAMED = 5  # lines or scans that a sentence about a table names
BUSI_STEM = re.compile(r"(normal|benign|malignant) \(\d+\)")


@dataclass(frozen=True, eq=False)
class Case:
    """One scan of a batch and what is known about it.

    Attributes:
        id: Unique in the batch and never made from a name: two files of one name stay two.
        name: As given.
        scan: The file.
        masks: Its reference masks, to be merged; empty when none came.
        diagnosis: Its reference class; None where the layout names none.
        record_id: What `data.records` calls it if it is of BUSI or BUS-BRA by its name, as in 'busi/benign (4)'.
        patient: The case that BUS-BRA's table gives it, after the table's folder; None where there is no such table.
    """

    id: str
    name: str
    scan: SourceFile
    masks: tuple[SourceFile, ...]
    diagnosis: Diagnosis | None
    record_id: str | None
    patient: str | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """What a heap of files holds.

    Attributes:
        cases: Scans in natural order of their names.
        lone_masks: Mask files whose scan did not come.
        left_out: Names of files that are no images by their suffix or first bytes.
        doubtful_masks: Mask files of a name that several files have, or whose scans do, so that whose each is cannot be
            told; no scan has them.
        problems: What is wrong with a table of classes, or could not be read of a folder, one sentence with a remedy
            each.
    """

    cases: tuple[Case, ...]
    lone_masks: tuple[SourceFile, ...]
    left_out: tuple[str, ...]
    doubtful_masks: tuple[SourceFile, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """What BUS-BRA's table says of one scan; no class where it gives two."""

    diagnosis: Diagnosis | None
    patient: str | None


@dataclass(frozen=True, eq=False)
class _Tables:
    """What all such tables say.

    Attributes:
        rows: By the parts of a table's folder, then by the file stem of a scan.
        names: Of those of which nothing is wrong in itself, by the same folder.
        problems: What is wrong with them, one sentence each.
    """

    rows: Mapping[tuple[str, ...], Mapping[str, _Row]]
    names: Mapping[tuple[str, ...], str]
    problems: Sequence[str]

    def find(self, scan: PurePosixPath) -> _Row | None:
        """What the nearest table above a scan says of it; None where that names it not, or there is none."""
        folder = self._nearest(scan)
        return None if folder is None else self.rows[folder].get(scan.stem)

    def say(self, cases: Sequence[Case]) -> tuple[str, ...]:
        """What is wrong with the tables, and which of them says nothing where a scan has no class."""
        silent: list[str] = []
        if not cases or any(case.diagnosis is None for case in cases):
            scans = [_path(case.name) for case in cases]
            heard = {self._nearest(scan) for scan in scans if self.find(scan)}
            silent = [
                f"The table {name!r} names no scan of its folder or below. Put it where its scans are, with their "
                "names without suffix under ID."
                for folder, name in self.names.items()
                if folder not in heard
            ]
        return (*self.problems, *silent)

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


def pair_files(files: Sequence[SourceFile], *, keep_all: bool = False) -> Batch:
    """Find the scans among files and give each its masks and class.

    Args:
        files: From `data.sources`.
        keep_all: Take files of any suffix for scans, so that each gets its row: for files chosen one by one.
    """
    tables = _read_tables(files)
    pictures, others = _divide(files)
    masks = _by_scan(file for file in pictures if _is_mask(file))
    scans = [file for file in pictures if not _is_mask(file)]
    maskless: set[int] = set()
    if keep_all:
        pictured = {_scan_key(file.name) for file in scans}
        kept = [file for file in others if _path(file.name).name not in (BUS_BRA_TABLE, "5-fold-cv.csv")]
        others = [file for file in others if file not in kept]
        maskless = {id(file) for file in kept if _scan_key(file.name) in pictured}  # the notes of a picture
        scans += kept
    scans.sort(key=lambda file: natural_key(file.name))
    found = {_scan_key(file.name) for file in scans}
    _match_case(found, masks)
    doubtful = _take_doubtful([file for file in scans if id(file) not in maskless], masks)
    cases = [
        _make_case(number, file, {} if id(file) in maskless else masks, tables)
        for number, file in enumerate(scans, start=1)
    ]
    lone = [file for key, group in masks.items() if key not in found for file in group]
    problems = (*_problems_of(files), *tables.say(cases))
    return Batch(tuple(cases), tuple(lone), tuple(file.name for file in others), doubtful, problems)


def pair_folders(images: Sequence[SourceFile], masks: Sequence[SourceFile]) -> Batch:
    """Give scans of one folder the masks of another: scan.png, scan_mask.png, scan_mask_1.png or BUS-BRA's names.

    A mask is looked for at its scan's path below the other folder, then by its file name anywhere in it, when that name
    occurs once there and among the scans: 'IM0001' of two patients says nothing of whose the only mask is. Masks that
    lie among the scans count where the other folder has none for their scan.
    """
    tables = _read_tables([*images, *masks])
    pictures, others = _divide(images)
    mask_pictures, other_masks = _divide(masks)
    scans = sorted((file for file in pictures if not _is_mask(file)), key=lambda file: natural_key(file.name))
    by_path, beside = _by_scan(mask_pictures), _by_scan([file for file in pictures if _is_mask(file)])
    keys = [_scan_key(file.name) for file in scans]
    for masks_of in (by_path, beside):
        _match_case(set(keys), masks_of)
    places = _find_places(keys, by_path)
    by_path |= {key: beside.pop(key) for key in keys if key in beside and not places[key]}
    doubtful = _take_doubtful(scans, by_path)
    cases: list[Case] = []
    used: set[int] = set()
    for number, (key, file) in enumerate(zip(keys, scans, strict=True), start=1):
        place = places[key] or [key]
        group = by_path.get(place[0], []) if len(place) == 1 else []
        used.update(map(id, group))
        cases.append(_make_case(number, file, {key: group}, tables))
    rest = [*by_path.values(), *(group for key, group in beside.items() if key not in places)]
    lone = tuple(file for group in rest for file in group if id(file) not in used)
    left_out = tuple(file.name for file in (*others, *other_masks))
    problems = tuple(dict.fromkeys((*_problems_of(images), *_problems_of(masks), *tables.say(cases))))
    return Batch(tuple(cases), lone, left_out, doubtful, problems)


def _problems_of(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """What could not be read of the folder that they came from."""
    return files.problems if isinstance(files, FolderFiles) else ()


def _by_scan(masks: Iterable[SourceFile]) -> dict[str, list[SourceFile]]:
    """Masks by the key of the scan that they name."""
    groups: dict[str, list[SourceFile]] = {}
    for file in masks:
        groups.setdefault(_scan_key_of_mask(file.name), []).append(file)
    return groups


def _find_places(keys: Sequence[str], masks: Mapping[str, object]) -> dict[str, list[str]]:
    """For each scan's key those of the masks that may be its own: that one, else all of its file name if it is alone
    among the scans in having it."""
    by_name: dict[str, list[str]] = {}
    for key in masks:
        by_name.setdefault(_alike(_path(key).name), []).append(key)
    bearers = Counter(_alike(_path(key).name) for key in keys)
    return {
        key: [key] if key in masks else by_name.get(name, []) if bearers[name] == 1 else []
        for key in keys
        for name in [_alike(_path(key).name)]
    }


def _match_case(scans: Set[str], masks: dict[str, list[SourceFile]]) -> None:
    """Move masks that only case, or Unicode's way of writing accents, keeps from a scan to its key, where it is one
    scan alone."""
    alike: dict[str, list[str]] = {}
    for key in scans:
        alike.setdefault(_alike(key), []).append(key)
    for key in [key for key in masks if key not in scans]:
        meant = alike.get(_alike(key), [])
        if len(meant) == 1:
            masks.setdefault(meant[0], []).extend(masks.pop(key))


def _alike(text: str) -> str:
    """The same for texts that only upper and lower case, or composed and decomposed accents, tell apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _take_doubtful(scans: Sequence[SourceFile], masks: dict[str, list[SourceFile]]) -> tuple[SourceFile, ...]:
    """Take out, and return, the masks that a name gives to several scans, or several of which have one name."""
    twice = {key for key, count in Counter(_scan_key(file.name) for file in scans).items() if count > 1}
    doubted = [key for key, group in masks.items() if key in twice or _has_one_name_twice(group)]
    return tuple(file for key in doubted for file in masks.pop(key))


def _has_one_name_twice(masks: Sequence[SourceFile]) -> bool:
    """Of masks that name one scan: its folder is theirs, but for BUS-BRA's."""
    return len({_alike(_path(file.name).name) for file in masks}) < len(masks)


def _divide(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[SourceFile]]:
    """Pictures, by their suffix or as DICOM by their content, and the others."""
    pictures: list[SourceFile] = []
    others: list[SourceFile] = []
    for file in files:
        named = _path(file.name).suffix.lower() in SUFFIXES
        (pictures if named or is_nameless_dicom(_path(file.name).name, file.begin) else others).append(file)
    return pictures, others


def is_nameless_dicom(name: str, begin: Callable[[int], bytes]) -> bool:
    """Whether a file whose suffix says nothing is DICOM by its content: scanners export 'IM000001' or '1.2.840.7'.

    Args:
        name: Without folders. 'DICOMDIR' only lists other files.
        begin: Gives the first so many bytes.
    """
    return name != "DICOMDIR" and is_dicom(begin(MARK_END))


def stem_of(path: PurePath) -> str:
    """What masks and results are named after: the name without its suffix; in '1.2.840.7' the last part is none."""
    return path.name if path.suffix[1:].isdigit() or not path.stem.strip(".") else path.stem


def _is_mask(file: SourceFile) -> bool:
    """Whether a picture is a mask by its name, as BUSI or BUS-BRA names them."""
    stem = stem_of(_path(file.name))
    return is_mask_name(stem) or re.fullmatch(r"mask_.+", stem) is not None


def _make_case(number: int, file: SourceFile, masks: Mapping[str, Sequence[SourceFile]], tables: _Tables) -> Case:
    path = _path(file.name)
    group = sorted(masks.get(_scan_key(file.name), ()), key=lambda mask: natural_key(mask.name))
    row = tables.find(path)
    diagnosis = row.diagnosis if row else _class_of(path)
    patient = row.patient if row else None
    return Case(f"scan-{number}", file.name, file, tuple(group), diagnosis, record_id_of(file.name), patient)


def record_id_of(name: str) -> str | None:
    """What `data.records` calls a file of BUSI or BUS-BRA by its name, as in 'busi/benign (4)'; None for any other."""
    stem = _path(name).stem
    if BUSI_STEM.fullmatch(stem):
        return f"busi/{stem}"
    return f"bus-bra/{stem}" if stem.startswith("bus_") else None


def _class_of(path: PurePosixPath) -> Diagnosis | None:
    named = BUSI_STEM.fullmatch(path.stem)
    word = named[1] if named else path.parent.name.lower()
    return Diagnosis(word) if word in set(Diagnosis) else None


def _scan_key(name: str) -> str:
    """What a scan and its masks share: the path without suffix; BUS-BRA's two folders and prefixes made one."""
    path = _path(name)
    if path.stem.startswith("bus_"):
        parent = path.parent.parent if path.parent.name == "Images" else path.parent
        return str(parent / path.stem.removeprefix("bus_"))
    return str(path.parent / stem_of(path))


def _scan_key_of_mask(name: str) -> str:
    path = _path(name)
    if path.stem.startswith("mask_"):
        parent = path.parent.parent if path.parent.name == "Masks" else path.parent
        return str(parent / path.stem.removeprefix("mask_"))
    if path.stem.startswith("bus_"):
        return _scan_key(name)
    return str(path.parent / stem_of_scan(path.stem))


def _read_tables(files: Iterable[SourceFile]) -> _Tables:
    """All of BUS-BRA's tables among files; two of one folder count as one."""
    rows: dict[tuple[str, ...], dict[str, _Row]] = {}
    names: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    for file in files:
        path = _path(file.name)
        if path.name != BUS_BRA_TABLE:
            continue
        folder = path.parent.parts
        wrong = list(_read_table(file, "/".join(folder), rows.setdefault(folder, {})))
        problems += wrong
        if not wrong:
            names[folder] = file.name
    return _Tables(rows, names, problems)


def _read_table(file: SourceFile, folder: str, rows: dict[str, _Row]) -> Iterator[str]:
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
        row = _Row(Diagnosis(_plain(word)), (f"{folder}/{case}" if folder else case) if case else None)
        before = rows.setdefault(name, row)
        if before.diagnosis is not row.diagnosis:
            twice[name[:40]] = None
        rows[name] = _Row(
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


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/").replace("\0", "_"))
