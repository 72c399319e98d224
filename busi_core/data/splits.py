"""Folds without leaks: all copies of a scan on one side, committed as names, never made anew in silence.

`busi_folds.json` beside this file holds one line a scan: its files, its fold (null: training only) and the one
file that is scored. For test fold k the next fold validates (thresholds, stopping) and the other three train;
without one, for a version that another hospital judges, fold 0 validates and the other four train.
BUS-BRA brings its own folds by case: 1 and 2 train (a tenth of their cases validates), 3 tests.

A version may also learn from all but the test part. Then its siblings choose for it: versions with the same test part,
each of which keeps another fold of BUSI and another fifth of BUS-BRA's cases as its validation part.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from busi_core.data.duplicates import PublishedScan, group_scans, pairs_within
from busi_core.data.records import Record, natural_key
from busi_core.errors import DatasetError
from busi_core.files import write_atomically
from busi_core.types import Diagnosis

FOLDS = 5
SEED = 0
FOLDS_FILE = Path(__file__).with_name("busi_folds.json")
BUS_BRA_TEST_FOLD = 3
BUS_BRA_VALIDATION_SHARE = 0.1

Kept: TypeAlias = int | Literal["next", "none"]
"""The fold of BUSI that validates: the one after the test fold, none at all, or, for a sibling, this one."""


@dataclass(frozen=True)
class Scan:
    """One distinct scan of BUSI.

    Attributes:
        files: Stems of all its copies.
        fold: 0 to 4, or None: for training only.
        scored: The one copy that is scored in its fold; None for training only.
        contradictory: Its copies carry different classes; left out of training too.
    """

    files: tuple[str, ...]
    fold: int | None
    scored: str | None
    contradictory: bool


@dataclass(frozen=True)
class Split:
    """Records to train on, to choose thresholds and epochs on, and to test on; no scan is in two of them."""

    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]

    def __add__(self, other: "Split") -> "Split":
        return Split(self.train + other.train, self.validation + other.validation, self.test + other.test)


def make_folds(
    records: Sequence[Record], published: Sequence[PublishedScan], found: set[tuple[str, str]]
) -> list[Scan]:
    """Deal the scans of BUSI into five folds, class by class, with seed 0.

    Args:
        records: All BUSI records at hand.
        published: The published list; its pairs count together with the found ones.
        found: Pairs of names that the project's own detector found.
    """
    classes = {record.name: record.diagnosis for record in records}
    names = sorted(classes, key=natural_key)
    known = pairs_within([[name for name in scan.files if name in classes] for scan in published])
    objected = {name for scan in published if scan.objection for name in scan.files}
    multiclass = {name for scan in published if scan.objection == "multiclass" for name in scan.files}
    rng = np.random.default_rng(SEED)
    scans: list[Scan] = []
    by_class: dict[Diagnosis, list[tuple[str, ...]]] = {diagnosis: [] for diagnosis in Diagnosis}
    for group in group_scans(names, sorted(known | found)):
        contradictory = bool(multiclass & set(group)) or len({classes[name] for name in group}) > 1
        if contradictory or objected & set(group):
            scans.append(Scan(group, None, None, contradictory))
        else:
            by_class[classes[group[0]]].append(group)
    for groups in by_class.values():
        for position, index in enumerate(rng.permutation(len(groups))):
            group = groups[index]
            scans.append(Scan(group, position % FOLDS, group[0], False))
    return sorted(scans, key=lambda scan: natural_key(scan.files[0]))


def write_folds(scans: Sequence[Scan], path: Path = FOLDS_FILE) -> None:
    """Write one line a scan.

    Raises:
        OutputError: It cannot be written.
    """
    lines = ",\n".join(json.dumps(asdict(scan)) for scan in scans)
    write_atomically(path, f"[\n{lines}\n]\n".encode())


def read_folds(path: Path = FOLDS_FILE) -> list[Scan]:
    """Read the committed folds."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Scan(tuple(row["files"]), row["fold"], row["scored"], row["contradictory"]) for row in rows]


def split_busi(records: Sequence[Record], *, test_fold: int | None = 0, kept: Kept = "next") -> Split:
    """Train, validation and test records of BUSI for one test fold; None keeps none for the test.

    Validation and test hold one file a scan; training holds all copies of its scans.

    Raises:
        DatasetError: A record that the committed folds do not know.
        ValueError: No such fold, or the test fold is to validate.
    """
    if test_fold is not None and not 0 <= test_fold < FOLDS:
        raise ValueError(f"test_fold must be 0 to {FOLDS - 1}, got {test_fold}")
    scan_of = {name: scan for scan in read_folds() for name in scan.files}
    unknown = [record.name for record in records if record.name not in scan_of]
    if unknown:
        raise DatasetError(
            f"{len(unknown)} images stand in no committed fold, the first is {unknown[0]!r}.",
            remedy="Use the development part of BUSI as published, or make folds for these files with 'busi splits'.",
        )
    validation_fold = find_validation_fold(test_fold, kept)
    held = {test_fold, validation_fold} - {None}
    scored = {fold: [r for r in records if _is_scored(r, scan_of[r.name], fold)] for fold in range(FOLDS)}
    train = [
        record for record in records if scan_of[record.name].fold not in held and not scan_of[record.name].contradictory
    ]
    validation = [] if validation_fold is None else scored[validation_fold]
    test = [] if test_fold is None else scored[test_fold]
    return Split(tuple(train), tuple(validation), tuple(test))


def find_validation_fold(test_fold: int | None, kept: Kept) -> int | None:
    """The fold that validates, None for none.

    Raises:
        ValueError: It is no fold, or the test fold.
    """
    if kept == "none":
        return None
    if kept == "next":
        return 0 if test_fold is None else (test_fold + 1) % FOLDS
    if not 0 <= kept < FOLDS or kept == test_fold:
        raise ValueError(f"the fold that validates must be 0 to {FOLDS - 1} and not the test fold, got {kept}")
    return kept


def split_bus_bra(records: Sequence[Record], *, test_fold: int | None = 0, kept: Kept = "next") -> Split:
    """Folds 1 and 2 for training, fold 3 for the test; of the cases for training a tenth validates.

    A sibling keeps a fifth of them instead, and no two siblings of one test fold the same.
    """
    test = [record for record in records if record.fold == BUS_BRA_TEST_FOLD]
    rest = [record for record in records if record.fold != BUS_BRA_TEST_FOLD]
    cases = sorted({_group(record) for record in rest}, key=natural_key)
    order = [cases[index] for index in np.random.default_rng(SEED).permutation(len(cases))]
    if kept == "next":
        held = set(order[: round(len(cases) * BUS_BRA_VALIDATION_SHARE)])
    else:
        held = set() if kept == "none" else set(order[((test_fold or 0) + kept) % FOLDS :: FOLDS])
    validation = [record for record in rest if _group(record) in held]
    train = [record for record in rest if _group(record) not in held]
    return Split(tuple(train), tuple(validation), tuple(test))


def scan_groups() -> dict[str, str]:
    """For each BUSI record id the name of its scan (its first file), to count copies and to resample by."""
    return {f"busi/{name}": f"busi/{scan.files[0]}" for scan in read_folds() for name in scan.files}


def _is_scored(record: Record, scan: Scan, fold: int) -> bool:
    return scan.fold == fold and scan.scored == record.name


def _group(record: Record) -> str:
    return record.group or record.id
