"""Which scans taught a model version: by the names on its card, and by hashes of their pixels beside its weights.

    weights/<version>/card.json (names) + taught.json (hashes) --read_taught--> TaughtScans --recognise--> how, or None

A figure on such a scan says nothing about new ones. The hashes are sorted, so that none can be told from its place.
"""

import json
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from busi_core.data.pixel_hash import is_among, pack_hashes, pixel_hash
from busi_core.data.records import Record
from busi_core.data.splits import scan_groups
from busi_core.errors import ModelUnavailableError
from busi_core.files import write_atomically
from busi_core.imaging.decode import decode_image
from busi_core.types import Grey

TAUGHT_FILE = "taught.json"
TAUGHT_SCHEMA = 1


class KnownBy(StrEnum):
    """What gave a scan away."""

    NAME = "name"
    PIXELS = "pixels"


class TaughtScans:
    """The scans that taught one version or chose its thresholds.

    BUSI's copies of one scan go by the published list, BUS-BRA's images of one case by their names, which begin with
    it ('bus_0001-l').
    """

    def __init__(self, names: Iterable[str], hashes: Iterable[str] = ()) -> None:
        """Args:
        names: Record ids, as in 'busi/benign (4)'.
        hashes: From `pixel_hash`; none for a version that came without them.
        """
        self.hashes = frozenset(hashes)
        self._group_of = scan_groups()
        self._groups = frozenset(self.group(name) for name in names)
        self._packed = pack_hashes(sorted(self.hashes))

    def group(self, record_id: str) -> str:
        """The scan or case that a record shows, by its name."""
        if record_id.startswith("bus-bra/"):
            return re.sub(r"-[a-z]$", "", record_id)
        return self._group_of.get(record_id, record_id)

    def recognise(self, record_id: str | None, grey: Grey) -> KnownBy | None:
        """How a scan is known to be among them, or a copy of one; None when it is not.

        Args:
            record_id: As in 'busi/benign (4)'; None for a file whose name says nothing.
            grey: (height, width) uint8.
        """
        if record_id is not None and self.group(record_id) in self._groups:
            return KnownBy.NAME
        return KnownBy.PIXELS if is_among(pixel_hash(grey), self._packed) else None


def hash_records(records: Sequence[Record]) -> frozenset[str]:
    """The hashes of some records' scans.

    Raises:
        InvalidImageError: One of them cannot be read.
    """
    return frozenset(pixel_hash(decode_image(record.image.read_bytes()).grey) for record in records)


def write_taught(folder: Path, hashes: Iterable[str]) -> None:
    """Write a version's hashes, sorted.

    Raises:
        OutputError: The folder cannot be written.
    """
    content = {"schema": TAUGHT_SCHEMA, "hashes": sorted(hashes)}
    write_atomically(folder / TAUGHT_FILE, (json.dumps(content, indent=0) + "\n").encode())


def read_taught(folder: Path, names: Iterable[str]) -> TaughtScans:
    """What is known of the scans that taught a version.

    Args:
        folder: Of the version; one that came without hashes is known by names alone.
        names: Of its card.

    Raises:
        ModelUnavailableError: The hashes are there and cannot be read.
    """
    path = folder / TAUGHT_FILE
    if not path.is_file():
        return TaughtScans(names)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != TAUGHT_SCHEMA:
            raise ValueError("another schema")
        return TaughtScans(names, content["hashes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"The list of scans that taught model {folder.name!r} is damaged or of another program.",
            remedy="Restore the folder from the repository.",
        ) from error
