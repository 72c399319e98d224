"""Has a version been taught by a copy of a locked scan? By name, by the lists of copies, and by pixels.

Other than `evaluation.count_copies`, which knows the public sets, this also looks through managed sets, and through
those whose scans were deleted since: their fingerprints stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from busi_core.data.duplicates import find_copies, fingerprint
from busi_core.data.records import Record
from busi_core.data.splits import scan_groups
from busi_core.errors import DatasetError
from busi_core.imaging.decode import decode_image
from busi_core.managed.known import PUBLIC_SETS
from busi_core.managed.store import read_set, read_set_fingerprints
from busi_core.models.checkpoint import ModelCard
from busi_core.promotion.locked import read_data_set
from busi_core.settings import Settings


@dataclass(frozen=True, eq=False)
class Teachers:
    """The scans that taught a version, as far as this server can tell.

    Attributes:
        names: Names of scans and groups: everything that counts as seen.
        fingerprints: (scans, 256) of those whose pixels are known.
        unknown: Ids of scans whose pixels are not at hand: nobody can say whether they are copies.
    """

    names: frozenset[str]
    fingerprints: NDArray[np.float32]
    unknown: tuple[str, ...]


class CopyFinder:
    """Looks for copies of the locked scans among those that taught a version; keeps fingerprints between versions."""

    def __init__(self, locked: Sequence[Record], settings: Settings) -> None:
        self._locked = locked
        self._settings = settings
        self._fingerprints: dict[str, NDArray[np.float32]] = {}
        self._scans = scan_groups()

    def find(self, teachers: Teachers) -> tuple[str, ...]:
        """Ids of locked scans that a version has seen, in their order."""
        own = np.stack([self._fingerprint(record) for record in self._locked])
        by_pixels = find_copies(own, teachers.fingerprints)
        return tuple(
            record.id
            for record, is_copy in zip(self._locked, by_pixels, strict=True)
            if is_copy or {record.id, self._scans.get(record.id, record.id), record.group} & teachers.names
        )

    def read_teachers(self, card: ModelCard) -> Teachers:
        """Everything that the card says it was taught by, validation included."""
        taught = set(card.trained_on)
        names = {self._scans.get(name, name) for name in taught} | taught
        known: dict[str, NDArray[np.float32]] = {}
        for data_set in sorted({name.partition("/")[0] for name in taught}):
            try:
                if data_set in PUBLIC_SETS:
                    records = [record for record in read_data_set(data_set, self._settings) if record.id in taught]
                    known |= {record.id: self._fingerprint(record) for record in records}
                    names |= {record.group for record in records if record.group}
                else:
                    names |= self._read_managed(data_set, taught, known)
            except DatasetError:
                continue  # its scans are reported as unknown
        fingerprints = np.stack(list(known.values())) if known else np.zeros((0, 0), np.float32)
        return Teachers(frozenset(names), fingerprints, tuple(sorted(taught - set(known))))

    def _read_managed(self, data_set: str, taught: set[str], known: dict[str, NDArray[np.float32]]) -> set[str]:
        """Add the fingerprints of a managed set's taught scans; returns what they are copies of."""
        managed = read_set(self._settings.state_dir, data_set)
        names: set[str] = set()
        stored = read_set_fingerprints(self._settings.state_dir, managed)
        for item, row in zip(managed.items, stored, strict=True):
            own = f"{managed.id}/{item.id}"
            if own in taught:
                known[own] = row
                names |= {f"{managed.id}/{item.group}", f"{managed.id}/{item.scan}"}
                names |= {self._scans.get(other, other) for other in item.copies_of}
        return names

    def _fingerprint(self, record: Record) -> NDArray[np.float32]:
        if record.id not in self._fingerprints:
            self._fingerprints[record.id] = fingerprint(decode_image(record.image.read_bytes()).grey)
        return self._fingerprints[record.id]
