"""The results of one scan in an output folder: a record and its pictures, and whose they are.

    pictures, record -write_results-> a claim, `x_mask.png`, `x_heatmap.png`, ..., `x.json`, no claim

While results are written a small file claims their names; the record comes last. So a record without a claim always has
its pictures. Claim and record keep the digests of our pictures: what matches none of them is somebody else's, or was
corrected by hand, and is never written over.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from busi_core.data.own_results import MAX_RECORD_BYTES, RECORD_KEYS, USUAL, digest
from busi_core.errors import OutputError
from busi_core.explain.catalogue import Method
from busi_core.files import write_atomically
from busi_core.imaging.limits import MAX_FILE_BYTES
from busi_core.regular import read_regular

_KINDS = (*USUAL, *(f"heatmap_{method}" for method in Method))
_RECORD_BEGINS = '{\n "file": '  # as `reading_record` does
_CLAIM_BEGINS = "busi "
_MAX_NAME_BYTES = 255  # of one name, on the disks that Linux and macOS use
_HEATMAP_NAME = re.compile(f"_heatmap(_({'|'.join(Method)}))?$")


def is_our_heatmap(file: Path) -> bool:
    """Whether a picture has the name of a heat map beside results of ours; beside a mask whose record was lost, too."""
    scan = file.with_name(_HEATMAP_NAME.sub("", file.stem))
    if scan.name == file.stem:
        return False
    lost_its_record = not _exists(_record_of(scan)) and _exists(beside(scan, "mask"))
    return lost_its_record or _known_pictures(scan) != {}


def read_finished(target: Path, methods: Sequence[Method]) -> dict[str, Any] | None:
    """The record of results that are complete; None where there are none.

    Args:
        target: The stem.
        methods: Of the explanations that must be among them.
    """
    record = _our_record(target)
    if not record or _exists(_claim_of(target)):
        return None
    kinds = () if _is_withheld(record) else _kinds_of(methods)
    return record if all(beside(target, kind).is_file() for kind in kinds) else None


def write_results(target: Path, pictures: Mapping[str, bytes], digests: Mapping[str, str], record: bytes) -> None:
    """Write them in the place of those of an earlier reading.

    Args:
        target: The stem.
        pictures: PNG files by their kind; none of an answer withheld.
        digests: Of the same, as `digest` gives them.
        record: JSON that names their digests.

    Raises:
        OutputError: The disk is full, or what would be written over is not ours; no picture of this reading stays.
    """
    require_free(target, closely=True)  # again: somebody may have put a file there since
    _write_claim(target, digests)
    _replace(target, pictures, record)
    _claim_of(target).unlink(missing_ok=True)


def require_free(target: Path, *, closely: bool = False) -> None:
    """Refuse to write over a reference mask, a picture corrected by hand, notes of another program or another scan.

    Args:
        target: The stem.
        closely: Compare the pictures with what we wrote, as is done for each scan before it is read and written; else
            those beside a record of ours are taken for ours.
    """
    if _exists(_record_of(target)) and _our_record(target) is None:
        raise _taken(_record_of(target))
    if _exists(_claim_of(target)) and _read_claim(target) is None and _read_text(_claim_of(target)) != "":
        raise _taken(_claim_of(target))
    known = _known_pictures(target)
    if known is None or (known and not closely):
        return
    for kind in _KINDS:
        file = beside(target, kind)
        if not _exists(file):
            continue
        if kind not in known:
            raise _taken(file)
        if _digest_of(file) not in known[kind]:
            raise OutputError(
                f"{file} was changed since it was written.", remedy="Move it away, or choose another folder."
            )


def require_short_names(target: Path, methods: Sequence[Method]) -> None:
    """Refuse a stem whose results could not all be written, before one of them is."""
    files = (_record_of(target), _claim_of(target), *(beside(target, kind) for kind in _kinds_of(methods)))
    longest = max(len(os.fsencode(file.name)) for file in files)
    if longest > _MAX_NAME_BYTES:
        raise OutputError(
            f"The name of a result would have {longest} bytes; the system takes {_MAX_NAME_BYTES}.",
            remedy=f"Shorten the file's name by {longest - _MAX_NAME_BYTES} bytes.",
        )


def require_same_scan(target: Path, stamp: Mapping[str, Any]) -> None:
    """Refuse to replace the results of a scan that lies elsewhere and is another; a copy of it, or it anew, may."""
    record = _our_record(target) or {}
    before, file = _stamp_of(record), record.get("file")
    if not isinstance(file, str) or before.get("blake2b") in (None, stamp["blake2b"]):
        return
    try:
        place = before["place"] if "place" in before else place_of(Path(file))
    except ValueError:  # no name of a file
        return
    if place != stamp["place"]:
        raise OutputError(
            f"{_record_of(target)} is of another scan, {file}.",
            remedy="Choose another folder, or move the results of that scan away.",
        )


def place_of(file: Path) -> str:
    """A digest of where a file lies, from whatever folder it is named; a link lies where it is, not where it leads."""
    return digest(os.fsencode(Path(os.path.realpath(file.parent)) / file.name))


def beside(target: Path, kind: str) -> Path:
    """Where a picture goes: 'mask', 'heatmap', or 'heatmap_' and the name of a method."""
    return target.with_name(f"{target.name}_{kind}.png")


def _replace(target: Path, pictures: Mapping[str, bytes], record: bytes) -> None:
    """Under a claim: what an earlier reading left goes, its record first, and the new record comes last.

    Raises:
        OutputError: Something could not be written or removed; no picture of this reading stays, and no record.
    """
    written: list[Path] = []
    _remove_earlier(target)
    try:
        for kind, picture in pictures.items():
            _write_new(beside(target, kind), picture)
            written.append(beside(target, kind))
        _write_new(_record_of(target), record)
    except OutputError:
        with suppress(OSError):
            for path in (*written, _claim_of(target)):  # the claim stays where one of ours does
                path.unlink(missing_ok=True)
        raise


def _write_new(path: Path, content: bytes) -> None:
    if _exists(path):
        raise _taken(path)
    write_atomically(path, content)


def _remove_earlier(target: Path) -> None:
    """Record and pictures of an earlier reading: what is not written anew must not stand beside another record."""
    try:
        for path in (_record_of(target), *(beside(target, kind) for kind in _KINDS)):
            if _exists(path):  # the names of some kinds may be too long to be asked for
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"The results of an earlier reading of {target.name!r} could not be removed ({error.strerror}).",
            remedy="Remove them, or choose another folder.",
        ) from error


def _kinds_of(methods: Sequence[Method]) -> tuple[str, ...]:
    return (*USUAL, *(f"heatmap_{method}" for method in methods))


def _taken(file: Path) -> OutputError:
    return OutputError(
        f"{file} is there already and is no result of this program.", remedy="Move it away, or choose another folder."
    )


def _known_pictures(target: Path) -> dict[str, set[str]] | None:
    """The digests that pictures of ours may have under this stem, by their kind; None where each of them is ours.

    From the claim of a reading that was killed while it was written, else from the record. Beside the record of an
    answer withheld there are none of ours. An older record does not know its pictures: they are taken for ours.
    """
    claimed = _read_claim(target)
    if claimed is not None:
        return claimed
    record = _our_record(target)
    if record is None or _is_withheld(record):
        return {}
    pictures = _stamp_of(record).get("pictures")
    return {kind: {str(digest)} for kind, digest in pictures.items()} if isinstance(pictures, dict) else None


def _our_record(target: Path) -> dict[str, Any] | None:
    """The record of a reading; empty where it was cut short on its way, None where there is none of ours."""
    text = _read_text(_record_of(target))
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return {} if text.startswith(_RECORD_BEGINS) else None
    except RecursionError:  # brackets in brackets without end
        return None
    return content if isinstance(content, dict) and set(content) >= RECORD_KEYS else None


def _stamp_of(record: Mapping[str, Any]) -> dict[str, Any]:
    stamp = record.get("input")
    return stamp if isinstance(stamp, dict) else {}


def _is_withheld(record: Mapping[str, Any]) -> bool:
    return "lesion_pixels" in record and record["lesion_pixels"] is None


def _read_text(path: Path) -> str | None:
    """None of a file that cannot be opened, is too long, or is no text."""
    try:
        data = read_regular(path, MAX_RECORD_BYTES)
        return data.decode() if len(data) <= MAX_RECORD_BYTES else None
    except (OSError, ValueError):
        return None


def _digest_of(file: Path) -> str | None:
    """None of a file that cannot be read, which is none of ours then."""
    try:
        return digest(read_regular(file, MAX_FILE_BYTES))
    except OSError:
        return None


def _exists(path: Path) -> bool:
    """Also for a link that leads nowhere. False for a name too long for the disk: that scan alone is refused."""
    return os.path.lexists(path)


def _record_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _claim_of(target: Path) -> Path:
    """Says that what lies under this stem is being written by us."""
    return target.with_name(f".{target.name}.reading")


def _read_claim(target: Path) -> dict[str, set[str]] | None:
    """The digests that a claim of ours names, by the kind of picture; None where there is no claim of ours."""
    first, _, rest = (_read_text(_claim_of(target)) or "").partition("\n")
    if not first.startswith(_CLAIM_BEGINS):
        return None
    known: dict[str, set[str]] = {}
    for line in rest.splitlines():
        kind, _, digest = line.partition(" ")
        known.setdefault(kind, set()).add(digest)
    return known


def _write_claim(target: Path, digests: Mapping[str, str]) -> None:
    """Of the pictures of an earlier reading, which are about to go, and of those to come."""
    known = _known_pictures(target)
    if known is None:
        known = {kind: {_digest_of(beside(target, kind)) or ""} for kind in _KINDS if _exists(beside(target, kind))}
    lines = {f"{kind} {digest}" for kind, earlier in known.items() for digest in earlier}
    lines |= {f"{kind} {digest}" for kind, digest in digests.items()}
    text = "\n".join([f"{_CLAIM_BEGINS}{os.getpid()}", *sorted(lines)]) + "\n"
    write_atomically(_claim_of(target), text.encode())
