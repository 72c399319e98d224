"""What a managed data set is: its manifest as values, and as JSON on the disk.

A manifest holds numbers, classes and checksums. No file name, tag or other word of the upload is in it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from busi_core.errors import DatasetError
from busi_core.types import Diagnosis

SCHEMA = 1


@dataclass(frozen=True)
class ManagedItem:
    """One scan of a managed set.

    Attributes:
        id: '0001', its place in the set; never made from a name.
        diagnosis: Class of the image.
        scan: Id of the first item that shows the same scan: copies share it.
        group: Id of the first item of the same patient or scan: what belongs on one side of a split.
        height, width: Of scan and mask, in pixels.
        lesion_pixels: Of the mask; 0 only for a normal.
        pixels: SHA-256 of the stored scan's pixels.
        mask: SHA-256 of the mask's pixels.
        copies_of: Record ids of other known sets that show the same scan, as in 'busi/benign (4)'.
    """

    id: str
    diagnosis: Diagnosis
    scan: str
    group: str
    height: int
    width: int
    lesion_pixels: int
    pixels: str
    mask: str
    copies_of: tuple[str, ...]


@dataclass(frozen=True)
class ManagedSet:
    """One accepted version of a data set; its content never changes.

    Attributes:
        id: '<name>-<first 12 digits of content_sha256>', also its folder.
        name: As the administrator called it.
        source: Where the scans come from, in the administrator's words.
        licence: On which terms they may be used, likewise.
        created: When it was accepted, ISO 8601 in UTC.
        who: Who accepted it.
        content_sha256: Of all pixels, masks, classes and groups.
        items: Its scans, in order of their ids.
        left_out: How many scans of the upload are not in it, by reason.
        removed: When it was taken out of use, ISO 8601 in UTC; None while it can be trained on.
    """

    id: str
    name: str
    source: str
    licence: str
    created: str
    who: str
    content_sha256: str
    items: tuple[ManagedItem, ...]
    left_out: tuple[tuple[str, int], ...] = ()
    removed: str | None = None

    def count(self, diagnosis: Diagnosis | None = None) -> int:
        """How many scans it holds, of one class or of all."""
        return sum(diagnosis in (None, item.diagnosis) for item in self.items)

    @property
    def distinct(self) -> int:
        """How many different scans, copies counted once."""
        return len({item.scan for item in self.items})


def write_manifest(managed: ManagedSet) -> bytes:
    """As JSON; `removed` lies in a file of its own, so that a manifest is written once."""
    content = {"schema": SCHEMA, **asdict(managed)}
    del content["removed"]
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(data: bytes, *, removed: str | None = None) -> ManagedSet:
    """The set that `write_manifest` wrote.

    Raises:
        DatasetError: It is damaged or of a newer program.
    """
    try:
        content: dict[str, Any] = json.loads(data)
        schema = content.pop("schema")
        if schema != SCHEMA:
            raise DatasetError(
                f"The data set's manifest has schema {schema}, this program reads {SCHEMA}.",
                remedy="Update the program.",
            )
        items = tuple(_read_item(item) for item in content.pop("items"))
        left_out = tuple((str(reason), int(count)) for reason, count in content.pop("left_out"))
        return ManagedSet(**content, items=items, left_out=left_out, removed=removed)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            "The manifest of a data set is damaged.", remedy="Restore its folder from a backup, or remove it."
        ) from error


def content_key(items: Sequence[ManagedItem]) -> list[str]:
    """What the content hash is made over: one line for each item, in order."""
    return [f"{item.pixels} {item.mask} {item.diagnosis.value} {item.scan} {item.group}" for item in items]


def _read_item(content: dict[str, Any]) -> ManagedItem:
    return ManagedItem(
        **{**content, "diagnosis": Diagnosis(content["diagnosis"]), "copies_of": tuple(content["copies_of"])}
    )
