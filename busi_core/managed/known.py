"""What every new scan is compared with: the public sets, the managed sets, and the locked test set among them.

Which parts are locked the caller says, from the rules of the gate (`promotion.locked.read_known_scans`); the parts of
the gate as published, BUSI's fold 0 and BUS-BRA's fold 3, are always among them. Of each known image 256 numbers are
kept in the state folder (`<BUSI_STATE_DIR>/known/<set>.json`), so that only the first examination decodes them all;
they are made anew when a file of the set was changed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from busi_core.data.duplicates import SAME_SCAN_CORRELATION, fingerprint, group_scans
from busi_core.data.records import Record, read_bus_bra, read_busi
from busi_core.data.splits import BUS_BRA_TEST_FOLD, read_folds, scan_groups
from busi_core.errors import DatasetError, InvalidImageError
from busi_core.files import write_atomically
from busi_core.imaging.decode import decode_image
from busi_core.managed.fingerprints import LENGTH, Fingerprints, decode_fingerprints, encode_fingerprints
from busi_core.managed.sets import ManagedSet
from busi_core.managed.store import list_sets, read_set_fingerprints
from busi_core.settings import Settings
from busi_core.types import Diagnosis

KNOWN_DIR = "known"
BUSI_TEST_FOLD = 0
BUSI, BUS_BRA = "busi", "bus-bra"
PUBLIC_SETS = (BUSI, BUS_BRA)
WHOLE = -1  # 'fold' of a locked part that is a whole managed set

Progress = Callable[[int, int], object]  # images done, of how many


@dataclass(frozen=True)
class LockedPart:
    """A part of the locked test set.

    Attributes:
        name: As a person knows it, 'busi fold 0'.
        data_set: 'busi', 'bus-bra', or the id of a managed set.
        fold: Its part that is locked; `WHOLE` for the whole of a managed set.
    """

    name: str
    data_set: str
    fold: int


ALWAYS_LOCKED = (
    LockedPart(f"busi fold {BUSI_TEST_FOLD}", BUSI, BUSI_TEST_FOLD),
    LockedPart(f"bus-bra fold {BUS_BRA_TEST_FOLD}", BUS_BRA, BUS_BRA_TEST_FOLD),
)


@dataclass(frozen=True, eq=False)
class KnownScans:
    """Every image that is known already.

    Attributes:
        ids: Record ids.
        fingerprints: (images, 256) float32, in the same order.
        diagnoses: Their classes, in the same order.
        test_ids: Record ids of the locked test set, all copies of its scans.
        sets: Names of the sets, and how many images each has.
        test_parts_missing: Parts of the locked test set that are not at hand, in words; nothing is accepted then.
    """

    ids: tuple[str, ...]
    fingerprints: Fingerprints
    diagnoses: tuple[Diagnosis, ...]
    test_ids: frozenset[str]
    sets: tuple[tuple[str, int], ...]
    test_parts_missing: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.diagnoses) == len(self.fingerprints):
            raise ValueError(f"{len(self.ids)} ids, {len(self.diagnoses)} classes, {len(self.fingerprints)} prints")

    def find_copies(self, fingerprints: Fingerprints) -> Iterator[NDArray[np.intp]]:
        """For each of (n, 256) fingerprints the positions of the known images that show the same scan."""
        for one in fingerprints:
            yield np.flatnonzero(self.fingerprints @ one > SAME_SCAN_CORRELATION)


def read_known(settings: Settings, locked: Sequence[LockedPart], on_image: Progress | None = None) -> KnownScans:
    """Read the public sets that are there and all managed ones.

    Args:
        settings: Says where they are.
        locked: The parts that the rules of the gate lock; those of `ALWAYS_LOCKED` need not be named.
        on_image: Told of every image of a public set that had to be decoded.

    Raises:
        DatasetError: A public set is there but not sound, or a managed one is damaged.
        OutputError: The numbers cannot be kept.
    """
    ids: list[str] = []
    diagnoses: list[Diagnosis] = []
    parts: list[Fingerprints] = [np.empty((0, LENGTH), np.float32)]
    sets: list[tuple[str, int]] = []
    public = {name: records for name in PUBLIC_SETS if (records := _read_public(settings, name))}
    for name, records in public.items():
        ids += [record.id for record in records]
        diagnoses += [record.diagnosis for record in records]
        parts.append(_fingerprint_public(settings, name, records, on_image))
        sets.append((name, len(records)))
    managed_sets = list_sets(settings.state_dir)
    for managed in managed_sets:
        ids += [f"{managed.id}/{item.id}" for item in managed.items]
        diagnoses += [item.diagnosis for item in managed.items]
        parts.append(read_set_fingerprints(settings.state_dir, managed))
        sets.append((managed.id, len(managed.items)))
    every_part = {(part.data_set, part.fold): part for part in (*ALWAYS_LOCKED, *locked)}.values()
    found = [(part.name, _find_locked(part, public, managed_sets)) for part in every_part]
    return KnownScans(
        ids=tuple(ids),
        fingerprints=np.concatenate(parts),
        diagnoses=tuple(diagnoses),
        test_ids=_add_copies({id for _, locked_ids in found for id in locked_ids or ()}, ids, managed_sets),
        sets=tuple(sets),
        test_parts_missing=tuple(name for name, locked_ids in found if locked_ids is None),
    )


def _read_public(settings: Settings, name: str) -> list[Record]:
    folder = settings.data_root / name
    if not folder.is_dir():
        return []
    return read_busi(folder) if name == BUSI else read_bus_bra(folder)


def _find_locked(
    part: LockedPart, public: Mapping[str, Sequence[Record]], managed_sets: Sequence[ManagedSet]
) -> set[str] | None:
    """Record ids of one locked part; None where it is not at hand: its set is absent, or has no such fold."""
    if part.data_set == BUSI:
        names = {name for scan in read_folds() if scan.fold == part.fold for name in scan.files}
        is_there = BUSI in public and bool(names)
        return {record.id for record in public[BUSI] if record.name in names} if is_there else None
    if part.data_set == BUS_BRA:
        return {record.id for record in public.get(BUS_BRA, ()) if record.fold == part.fold} or None
    whole = [managed for managed in managed_sets if managed.id == part.data_set and part.fold == WHOLE]
    return {f"{managed.id}/{item.id}" for managed in whole for item in managed.items} or None


def _add_copies(locked: set[str], ids: Sequence[str], managed_sets: Sequence[ManagedSet]) -> frozenset[str]:
    """The locked ids and all known copies of them: by BUSI's committed scans, and as the managed sets tell."""
    scans = scan_groups()
    pairs = [(scans[name], name) for name in ids if name in scans]
    for managed in managed_sets:
        for item in managed.items:
            own = f"{managed.id}/{item.id}"
            pairs += [(f"{managed.id}/{item.scan}", own), *((own, other) for other in item.copies_of)]
    names = dict.fromkeys([*ids, *(name for pair in pairs for name in pair)])
    groups = group_scans(list(names), pairs)
    return frozenset(name for group in groups if locked & set(group) for name in group) & frozenset(ids)


def _fingerprint_public(
    settings: Settings, name: str, records: Sequence[Record], on_image: Progress | None
) -> Fingerprints:
    path = settings.state_dir / KNOWN_DIR / f"{name}.json"
    stamp = _stamp(records)
    kept = _read_kept(path, stamp, len(records))
    if kept is not None:
        return kept
    made = np.empty((len(records), LENGTH), np.float32)
    for number, record in enumerate(records):
        try:
            made[number] = fingerprint(decode_image(record.image.read_bytes()).grey)
        except (OSError, InvalidImageError) as error:
            raise DatasetError(
                f"{record.id} of the known sets cannot be read.", remedy="Restore the data set as it was published."
            ) from error
        if on_image is not None:
            on_image(number + 1, len(records))
    content = {"files": stamp, **encode_fingerprints(made)}
    write_atomically(path, (json.dumps(content) + "\n").encode())
    return made


def _read_kept(path: Path, stamp: str, count: int) -> Fingerprints | None:
    """None where nothing is kept, or it is of other files or damaged: then it is made anew."""
    try:
        content = json.loads(path.read_bytes())
        kept = decode_fingerprints(content) if content["files"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if kept is not None and kept.shape == (count, LENGTH) else None


def _stamp(records: Sequence[Record]) -> str:
    """Changes when a file is replaced, added or removed."""
    lines = []
    for record in records:
        status = record.image.stat()
        lines.append(f"{record.id} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
