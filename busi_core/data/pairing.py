"""Files of one batch -> scans, each with the mask files and the class that its layout gives it.

| layout  | scan                    | masks                                | class                                |
|---------|-------------------------|--------------------------------------|--------------------------------------|
| BUSI    | benign/benign (4).png   | benign (4)_mask.png, _mask_1.png ..  | its folder, or its name 'benign (4)' |
| BUS-BRA | Images/bus_0001-l.png   | Masks/mask_0001-l.png, or beside it  | Pathology in bus_data.csv            |
| any     | a/scan.png              | a/scan_mask.png, scan_mask_1.png ..  | folder normal, benign or malignant   |

A file without one of the usual suffixes is a scan where it is DICOM by its first bytes: 'IM000001', '1.2.840.7'.

The words of a mask's name may be in upper or lower case, and its scan's in another, where that scan is the only one;
likewise an accent may be a sign of its own, as macOS writes it, or not.

Nothing is decoded here. Every file becomes a scan, a mask of a scan, a mask without its scan, or is left out and
counted: none vanishes. Where a name came twice no mask is given by it: another patient's lesion would be the truth.
Names are one where they say the same of a mask: 'a/x.png', 'a\\x.png', 'a//x.png' and 'a/x.jpg' all have a/x_mask.png.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath

from busi_core.data.class_table import TABLE_NAME, ClassTables, read_tables
from busi_core.data.own_results import without_own_results
from busi_core.data.records import is_mask_name, natural_key, stem_of_scan
from busi_core.data.sources import FolderFiles, SourceFile, path_of
from busi_core.imaging.dicom import MARK_END, is_dicom
from busi_core.types import Diagnosis

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom")
TABLES = (".csv", ".txt", ".md")  # what data sets bring along, and nobody misses
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
        problems: What is wrong with a table of classes, could not be read of a folder, or is a picture of an earlier
            reading and no mask; one sentence with a remedy each.
    """

    cases: tuple[Case, ...]
    lone_masks: tuple[SourceFile, ...]
    left_out: tuple[str, ...]
    doubtful_masks: tuple[SourceFile, ...] = ()
    problems: tuple[str, ...] = ()


def pair_files(files: Sequence[SourceFile], *, keep_all: bool = False) -> Batch:
    """Find the scans among files and give each its masks and class.

    Args:
        files: From `data.sources`.
        keep_all: Take files of any suffix for scans, so that each gets its row: for files chosen one by one.
    """
    tables = read_tables(files)
    given, own = without_own_results(files)
    pictures, others = _divide(given)
    masks = _by_scan(file for file in pictures if _is_mask(file))
    scans = [file for file in pictures if not _is_mask(file)]
    maskless: set[int] = set()
    if keep_all:
        pictured = {_scan_key(file.name) for file in scans}
        kept = [file for file in others if path_of(file.name).name not in (TABLE_NAME, "5-fold-cv.csv")]
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
    problems = (*_problems_of(files), *own, *_problems_of_tables(tables, cases))
    return Batch(tuple(cases), tuple(lone), tuple(file.name for file in others), doubtful, problems)


def pair_folders(images: Sequence[SourceFile], masks: Sequence[SourceFile]) -> Batch:
    """Give scans of one folder the masks of another: scan.png, scan_mask.png, scan_mask_1.png or BUS-BRA's names.

    A mask is looked for at its scan's path below the other folder, then by its file name anywhere in it, when that name
    occurs once there and among the scans: 'IM0001' of two patients says nothing of whose the only mask is. Masks that
    lie among the scans count where the other folder has none for their scan.
    """
    tables = read_tables([*images, *masks])
    given, own = without_own_results(images)
    given_masks, own_masks = without_own_results(masks)
    pictures, others = _divide(given)
    mask_pictures, other_masks = _divide(given_masks)
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
    found_wrong = (*_problems_of(images), *_problems_of(masks), *own, *own_masks)
    problems = tuple(dict.fromkeys((*found_wrong, *_problems_of_tables(tables, cases))))
    return Batch(tuple(cases), lone, left_out, doubtful, problems)


def _problems_of(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """What could not be read of the folder that they came from."""
    return files.problems if isinstance(files, FolderFiles) else ()


def _problems_of_tables(tables: ClassTables, cases: Sequence[Case]) -> tuple[str, ...]:
    """What is wrong with the tables, and, where a scan has no class, which of them name no scan."""
    wanting = not cases or any(case.diagnosis is None for case in cases)
    return (*tables.problems, *(tables.silent(path_of(case.name) for case in cases) if wanting else ()))


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
        by_name.setdefault(_alike(path_of(key).name), []).append(key)
    bearers = Counter(_alike(path_of(key).name) for key in keys)
    return {
        key: [key] if key in masks else by_name.get(name, []) if bearers[name] == 1 else []
        for key in keys
        for name in [_alike(path_of(key).name)]
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
    return len({_alike(path_of(file.name).name) for file in masks}) < len(masks)


def _divide(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[SourceFile]]:
    """Pictures, by their suffix or as DICOM by their content, and the others."""
    pictures: list[SourceFile] = []
    others: list[SourceFile] = []
    for file in files:
        named = path_of(file.name).suffix.lower() in SUFFIXES
        (pictures if named or is_nameless_dicom(path_of(file.name).name, file.begin) else others).append(file)
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
    stem = stem_of(path_of(file.name))
    return is_mask_name(stem) or re.fullmatch(r"mask_.+", stem) is not None


def _make_case(number: int, file: SourceFile, masks: Mapping[str, Sequence[SourceFile]], tables: ClassTables) -> Case:
    path = path_of(file.name)
    group = sorted(masks.get(_scan_key(file.name), ()), key=lambda mask: natural_key(mask.name))
    row = tables.find(path)
    diagnosis = row.diagnosis if row else _class_of(path)
    patient = row.patient if row else None
    return Case(f"scan-{number}", file.name, file, tuple(group), diagnosis, record_id_of(file.name), patient)


def record_id_of(name: str) -> str | None:
    """What `data.records` calls a file of BUSI or BUS-BRA by its name, as in 'busi/benign (4)'; None for any other."""
    stem = path_of(name).stem
    if BUSI_STEM.fullmatch(stem):
        return f"busi/{stem}"
    return f"bus-bra/{stem}" if stem.startswith("bus_") else None


def _class_of(path: PurePosixPath) -> Diagnosis | None:
    named = BUSI_STEM.fullmatch(path.stem)
    word = named[1] if named else path.parent.name.lower()
    return Diagnosis(word) if word in set(Diagnosis) else None


def _scan_key(name: str) -> str:
    """What a scan and its masks share: the path without suffix; BUS-BRA's two folders and prefixes made one."""
    path = path_of(name)
    if path.stem.startswith("bus_"):
        parent = path.parent.parent if path.parent.name == "Images" else path.parent
        return str(parent / path.stem.removeprefix("bus_"))
    return str(path.parent / stem_of(path))


def _scan_key_of_mask(name: str) -> str:
    path = path_of(name)
    if path.stem.startswith("mask_"):
        parent = path.parent.parent if path.parent.name == "Masks" else path.parent
        return str(parent / path.stem.removeprefix("mask_"))
    if path.stem.startswith("bus_"):
        return _scan_key(name)
    return str(path.parent / stem_of_scan(path.stem))
