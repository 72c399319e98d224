"""Managed sets -> train and validation, beside the split of the public sets: no scan and no patient on two sides."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from busi_core.data.duplicates import group_scans
from busi_core.data.records import Record
from busi_core.data.splits import Split, scan_groups
from busi_core.managed.sets import ManagedSet
from busi_core.managed.store import as_records
from busi_core.types import Diagnosis

VALIDATION_SHARE = 0.15  # of the groups of each class


def split_sets(
    state_dir: Path, sets: Sequence[ManagedSet], base: Split, *, seed: int = 0, share: float = VALIDATION_SHARE
) -> Split:
    """Deal the scans of managed sets into train and validation and add them to a split of the public sets.

    Scans that copies or patients join, also across sets, stay together. The same sets, base, seed and share give the
    same split. Training holds all copies of its scans, validation one. A scan that repeats one of `base` follows it:
    into training, or nowhere when that one validates or tests. Of a scan with several classes nothing is used.

    Args:
        state_dir: Where the sets lie.
        sets: Without those taken out of use.
        base: Of the public sets; its test part stays as it is. `Split((), (), ())` where none is used.
        seed: Of the draw.
        share: Part of each class's groups that validates, in (0, 1).

    Raises:
        DatasetError: A set was taken out of use, or files of it are missing.
    """
    records = {record.id: record for managed in sets for record in as_records(state_dir, managed)}
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    side = {record.id: part for part in ("train", "validation", "test") for record in getattr(base, part)}
    published = scan_groups()  # a scan that validates stands for copies of it that are on no side
    same_scan = [(published[name], name) for name in side if name in published]
    same_group: list[tuple[str, str]] = []
    for managed in sets:
        for item in managed.items:
            own = f"{managed.id}/{item.id}"
            same_group.append((f"{managed.id}/{item.group}", own))
            same_scan.append((f"{managed.id}/{item.scan}", own))
            same_scan += [(own, published.get(other, other)) for other in item.copies_of]
    names = [*records, *side]
    names += dict.fromkeys(name for pair in same_scan for name in pair if name not in records and name not in side)
    scan_of = {name: scan[0] for scan in group_scans(names, same_scan) for name in scan}
    contradictory = _find_contradictory(records, base, scan_of)
    train: list[Record] = []
    by_class: dict[Diagnosis, list[list[Record]]] = {diagnosis: [] for diagnosis in Diagnosis}
    for group in group_scans(names, [*same_group, *same_scan]):
        members = [records[name] for name in group if name in records and scan_of[name] not in contradictory]
        sides = {side[name] for name in group if name in side}
        if not members or sides & {"validation", "test"}:
            continue
        if sides:
            train += members
        else:
            by_class[_rarest_first(members)].append(members)
    validation: list[Record] = []
    rng = np.random.default_rng(seed)
    for groups in by_class.values():
        held = set(rng.permutation(len(groups))[: round(len(groups) * share)].tolist())
        for position, members in enumerate(groups):
            if position in held:
                validation += list({scan_of[record.id]: record for record in reversed(members)}.values())[::-1]
            else:
                train += members
    return base + Split(tuple(train), tuple(validation), ())


def _find_contradictory(records: dict[str, Record], base: Split, scan_of: dict[str, str]) -> set[str]:
    """Scans whose copies, over all sets, carry more than one class."""
    classes: dict[str, set[Diagnosis]] = {}
    for record in (*records.values(), *base.train, *base.validation, *base.test):
        classes.setdefault(scan_of[record.id], set()).add(record.diagnosis)
    return {scan for scan, named in classes.items() if len(named) > 1}


def _rarest_first(members: Sequence[Record]) -> Diagnosis:
    """The class that a group is dealt by: malignant before benign before normal."""
    present = {record.diagnosis for record in members}
    return next(diagnosis for diagnosis in reversed(Diagnosis) if diagnosis in present)
