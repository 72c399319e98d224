"""Pictures that `busi analyse` wrote, known by their record, so that no outline of a model is taken for the truth.

A mask that somebody corrected is another file than its record names, and counts as any other.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from busi_core.data.sources import SourceFile
from busi_core.errors import InvalidImageError

RECORD_KEYS = {"input", "lesion_pixels"}  # of every record, as `report.reading_record` and `folder` write it
USUAL = ("mask", "heatmap")  # pictures of every answer; explanations on request have others beside them
MAX_RECORD_BYTES = 5_000_000  # one of ours has a few thousand


def digest(data: bytes) -> str:
    """Names a content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def without_own_results(files: Sequence[SourceFile]) -> tuple[list[SourceFile], tuple[str, ...]]:
    """The files without pictures of an earlier reading, and what must be said of those that were left out."""
    by_name: dict[str, list[SourceFile]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    own = {id(picture): picture.name for file in files for picture in _pictures_of(file, by_name)}
    if not own:
        return list(files), ()
    first, *others = sorted(own.values())
    named = f"{first} and {len(others)} more are pictures" if others else f"{first} is a picture"
    said = f"{named} of an earlier reading, no reference: left out. A mask that was corrected counts."
    return [file for file in files if id(file) not in own], (said,)


def _pictures_of(file: SourceFile, by_name: Mapping[str, Sequence[SourceFile]]) -> Iterator[SourceFile]:
    """Those that a record names, as they were written; of a record that names none the usual ones."""
    stem, is_json = file.name.removesuffix(".json"), file.name.endswith(".json")
    if not is_json or not any(f"{stem}_{kind}.png" in by_name for kind in USUAL):
        return
    record = _read_record(file)
    if record is None:
        return
    stamp = record["input"]
    known = stamp.get("pictures") if isinstance(stamp, dict) else None
    for kind in known if isinstance(known, dict) else USUAL:
        for picture in by_name.get(f"{stem}_{kind}.png", ()):
            if not isinstance(known, dict) or _digest_of(picture) == known[kind]:
                yield picture


def _read_record(file: SourceFile) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read()) if file.size <= MAX_RECORD_BYTES else None
    except (InvalidImageError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and set(content) >= RECORD_KEYS else None


def _digest_of(file: SourceFile) -> str | None:
    try:
        return digest(file.read())
    except InvalidImageError:
        return None
