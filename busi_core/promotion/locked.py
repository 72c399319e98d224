"""The locked test set: which scans it holds, and whether they are still the ones that were locked.

Protocol.test_sets, Settings -> LockedScans: records, each with its test set; refused when one byte changed
Settings -> KnownScans, what an examination compares new scans with: the scans that the rules in force lock among them
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from busi_core.data.records import Record, read_bus_bra, read_busi
from busi_core.data.splits import FOLDS, split_busi
from busi_core.errors import DatasetError, PromotionError
from busi_core.managed.known import WHOLE, KnownScans, LockedPart, Progress, read_known
from busi_core.managed.store import as_records, read_set
from busi_core.promotion.protocol import Protocol, TestSet, read_protocol
from busi_core.settings import Settings


@dataclass(frozen=True)
class LockedScans:
    """Attributes:
    records: Every locked scan, set after set.
    set_of: The name of the test set, by record id.
    """

    records: tuple[Record, ...]
    set_of: dict[str, str]


def read_locked(protocol: Protocol, settings: Settings) -> LockedScans:
    """Find the locked scans and make sure that they are the ones that the protocol locked.

    Raises:
        DatasetError: Their folder is missing or not sound.
        PromotionError: A scan was added, removed, or changed: image, mask or class.
    """
    records: list[Record] = []
    set_of: dict[str, str] = {}
    for part in protocol.test_sets:
        found = select(part.data_set, part.fold, settings)
        _require_unchanged(part, found)
        records += found
        set_of |= {record.id: part.name for record in found}
    return LockedScans(tuple(records), set_of)


def read_known_scans(settings: Settings, on_image: Progress | None = None) -> KnownScans:
    """What an examination compares new scans with; its test scans are those that the rules of the gate lock.

    Where the rules cannot be read nobody can say what they lock. Copies of the parts that are always locked are still
    found then, but the list counts as missing, so that the report says so and nothing is accepted.

    Args:
        settings: Says where the sets and the rules are.
        on_image: Told of every image of a public set that had to be decoded.

    Raises:
        DatasetError: A public set is there but not sound, or a managed one is damaged.
        OutputError: The numbers of the known sets cannot be kept.
    """
    try:
        test_sets = read_protocol(settings.promotion_protocol).test_sets
    except PromotionError:
        known = read_known(settings, (), on_image)
        unread = f"the list of locked scans in a readable {settings.promotion_protocol.name!r}"
        return replace(known, test_parts_missing=(*known.test_parts_missing, unread))
    return read_known(settings, [LockedPart(part.name, part.data_set, part.fold) for part in test_sets], on_image)


def select(data_set: str, fold: int, settings: Settings) -> list[Record]:
    """The records that a test set names: a fold of BUSI (one file a scan) or BUS-BRA, or a whole managed set.

    Raises:
        DatasetError: The folder is missing or not sound, or the fold does not exist.
    """
    records = read_data_set(data_set, settings)
    if data_set == "busi" and 0 <= fold < FOLDS:
        return list(split_busi(records, test_fold=fold).test)
    if data_set == "bus-bra":
        return [record for record in records if record.fold == fold]
    if fold != WHOLE or data_set == "busi":
        raise DatasetError(f"The data set {data_set!r} has no fold {fold}.", remedy="Correct promotion.toml.")
    return records


def checksum(records: Iterable[Record]) -> str:
    """SHA-256 over id, class, image and masks of every record, in the order of ids.

    Not over who a scan is of, nor its device: whoever changes those in a table changes how wide the intervals of a
    verdict are, unseen here.
    """
    whole = hashlib.sha256()
    for record in sorted(records, key=lambda record: record.id):
        files = " ".join(_file_checksum(path) for path in (record.image, *record.masks))
        whole.update(f"{record.id}\t{record.diagnosis.value}\t{files}\n".encode())
    return whole.hexdigest()


def read_data_set(name: str, settings: Settings) -> list[Record]:
    """All records of 'busi', 'bus-bra' or a managed set.

    Raises:
        DatasetError: There is no such set, or it is not sound.
    """
    if name == "busi":
        return read_busi(settings.data_root / "busi")
    if name == "bus-bra":
        return read_bus_bra(settings.data_root / "bus-bra")
    return as_records(settings.state_dir, read_set(settings.state_dir, name))


def _require_unchanged(part: TestSet, found: Sequence[Record]) -> None:
    if len(found) != part.scans:
        raise PromotionError(
            f"The locked test set {part.name!r} should hold {part.scans} scans, but {len(found)} are there.",
            remedy="Restore the data set; a candidate is judged on all of its scans or not at all.",
        )
    if checksum(found) != part.sha256:
        raise PromotionError(
            f"The locked test set {part.name!r} was changed: a scan, a mask or a class is not the one that was locked.",
            remedy="Restore the data set; verdicts on different scans cannot be compared.",
        )


def _file_checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DatasetError(f"The file {path.name!r} cannot be read.", remedy="Restore the data set.") from error
