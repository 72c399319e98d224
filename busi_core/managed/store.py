"""The store of accepted data sets: whole or not at all, never changed after, under ids and not under names.

    <BUSI_STATE_DIR>/datasets/<id>/manifest.json       numbers, classes, checksums, source, licence, who, when
                                   fingerprints.json   256 numbers a scan, by which copies are found
                                   images/0001.png     pixels and nothing else
                                   masks/0001.png      0 or 255
                                   removed.json        only once it was taken out of use; images and masks are gone

A set is written into a hidden folder and renamed, so that a reader, a kill or a full disk never meets half of one.
What a kill left behind is deleted when the next set is accepted.
"""

import hashlib
import json
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from busi_core.access import Permit
from busi_core.audit import AuditLog
from busi_core.data.records import Record
from busi_core.database import transaction
from busi_core.errors import DatasetError, InvalidImageError, OutputError
from busi_core.files import flush_folder, write_atomically
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.managed.fingerprints import Fingerprints, encode_fingerprints, read_fingerprints
from busi_core.managed.look import read_scan
from busi_core.managed.removal import DATASETS_DIR, REMOVED_FILE
from busi_core.managed.report import AcceptancePlan, InspectionReport, ScanReport, plan_acceptance
from busi_core.managed.sets import ManagedItem, ManagedSet, content_key, read_manifest, write_manifest
from busi_core.registry import VERSION_NAME
from busi_core.settings import Settings

MANIFEST_FILE, FINGERPRINTS_FILE = "manifest.json", "fingerprints.json"
UNFINISHED = ".unfinished-"
LOCK_FILE = "lock.sqlite"
KNOWN_NAMES = ("busi", "bus-bra", "simulated")  # taken by sets that are no managed ones
MAX_NAME = 40  # characters; the folder adds 13
MAX_WORDS = 300  # characters of source and licence


def accept(
    permit: Permit,
    report: InspectionReport,
    *,
    name: str,
    source: str,
    licence: str,
    excluded: Set[str],
    settings: Settings,
    audit: AuditLog,
    confirmed: Set[str] = frozenset(),
    on_scan: Callable[[int, int], object] | None = None,
) -> ManagedSet:
    """Keep the scans of a report as a new version; what they are is settled by `plan_acceptance`, whatever is asked.

    The same content under the same name is the version that is there already: it is returned, nothing is written.

    Args:
        permit: Asked before anything else.
        report: From `inspection`.
        name: Letters, digits, '.', '_' and '-'; part of the id.
        source: Where the scans come from.
        licence: On which terms they may be used.
        excluded: Ids of rows to leave out.
        settings: Says where the state folder is.
        audit: Gets its entry before the set can be used.
        confirmed: Ids of rows with text or tags that somebody looked at: no patient can be told from the pixels.
        on_scan: Told how many scans are written, and of how many.

    Raises:
        AccessDeniedError: No administrator (any more).
        DatasetError: Nothing to keep, a name or word that cannot be, a source that changed since it was examined, a
            locked test set that is not at hand, a version that was removed or is damaged, or somebody else is
            accepting or removing.
        OutputError: The disk is full, or the lock or the log cannot be opened; nothing was kept.
    """
    who = permit.confirm()
    _require_words(name, source, licence)
    if report.test_parts_missing:
        raise DatasetError(
            f"Copies of test scans cannot be found, as these are not at hand: {', '.join(report.test_parts_missing)}.",
            remedy="Put the public sets into the folder that BUSI_DATA_ROOT names, let the rules of the gate lock only "
            "what is here, and examine again.",
        )
    plan = plan_acceptance(report, excluded, confirmed)
    if not plan.kept:
        raise DatasetError("No scan would be kept.", remedy="Exclude fewer, or repair the files named in the report.")
    managed, order = _describe(plan, name.strip(), source.strip(), licence.strip(), who)
    root = settings.state_dir / DATASETS_DIR
    with _locked(root):
        existing = _find_same_content(root, managed)
        if existing is not None:
            return existing
        if (root / managed.id).exists():
            raise _damaged(managed.id)
        unfinished = root / f"{UNFINISHED}{secrets.token_hex(6)}"
        try:
            for number, (item, scan) in enumerate(zip(managed.items, order, strict=True), start=1):
                _write_pictures(unfinished, item, scan, report)
                if on_scan is not None:
                    on_scan(number, len(order))
            known = np.stack([report.fingerprints[scan.id] for scan in order])
            write_atomically(unfinished / FINGERPRINTS_FILE, json.dumps(encode_fingerprints(known)).encode())
            write_atomically(unfinished / MANIFEST_FILE, write_manifest(managed))
            audit.append(
                permit.confirm(),
                "dataset.accepted",
                managed.id,
                scans=managed.count(),
                distinct=managed.distinct,
                left_out=dict(managed.left_out),
                text_confirmed=sum(scan.id in confirmed for scan in order),
                source=managed.source,
                licence=managed.licence,
                content_sha256=managed.content_sha256,
            )
            unfinished.rename(root / managed.id)
            flush_folder(root)
        except OSError as error:
            raise OutputError(
                f"The data set could not be kept ({error.strerror}).", remedy="Free some space and accept it again."
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return managed


def list_sets(state_dir: Path, *, with_removed: bool = False) -> list[ManagedSet]:
    """Every set that can be trained on, newest first; those taken out of use only when asked for.

    A set whose manifest is missing or damaged is passed over here; `find_damaged` names it.

    Raises:
        DatasetError: The folder of the administration is none.
    """
    found = [managed for managed in _read_all(state_dir) if managed is not None]
    usable = [managed for managed in found if with_removed or managed.removed is None]
    return sorted(usable, key=lambda managed: (managed.created, managed.id), reverse=True)


def find_damaged(state_dir: Path) -> list[str]:
    """Ids of sets whose manifest is missing or cannot be read."""
    folders = _list_folders(state_dir / DATASETS_DIR)
    return [folder.name for folder, managed in zip(folders, _read_all(state_dir), strict=True) if managed is None]


def read_set(state_dir: Path, id: str) -> ManagedSet:
    """One set by its id, also when it was taken out of use.

    Raises:
        DatasetError: There is none of this id, or its manifest is missing or damaged.
    """
    folder = state_dir / DATASETS_DIR / id
    if not VERSION_NAME.fullmatch(id) or not folder.is_dir():
        raise DatasetError(f"There is no data set {id!r}.", remedy="Choose one of those that 'busi datasets' lists.")
    return _read_folder(folder)


def as_records(state_dir: Path, managed: ManagedSet) -> list[Record]:
    """Its scans as training and evaluation read any data set; `group` keeps copies and patients together.

    Raises:
        DatasetError: It was taken out of use, or a file is missing.
    """
    if managed.removed is not None:
        raise DatasetError(f"The data set {managed.id} was removed on {managed.removed}.", remedy="Choose another one.")
    folder = state_dir / DATASETS_DIR / managed.id
    records = [
        Record(
            id=f"{managed.id}/{item.id}",
            image=folder / "images" / f"{item.id}.png",
            masks=(folder / "masks" / f"{item.id}.png",),
            diagnosis=item.diagnosis,
            group=f"{managed.id}/{item.group}",
        )
        for item in managed.items
    ]
    missing = [path.name for record in records for path in (record.image, *record.masks) if not path.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} files of the data set {managed.id} are missing.", remedy="Restore it from a backup."
        )
    return records


def read_set_fingerprints(state_dir: Path, managed: ManagedSet) -> Fingerprints:
    """(scans, 256) float32 in the order of its items; there also after it was taken out of use.

    Raises:
        DatasetError: The file is missing or damaged.
    """
    return read_fingerprints(state_dir / DATASETS_DIR / managed.id / FINGERPRINTS_FILE)


def remove(permit: Permit, id: str, *, comment: str, settings: Settings, audit: AuditLog) -> ManagedSet:
    """Take a set out of use: its scans and masks are deleted, its manifest and fingerprints stay.

    What a model version was trained on can still be read afterwards; the scans are gone, as a withdrawn consent asks.

    Raises:
        AccessDeniedError: No administrator (any more).
        DatasetError: There is no such set.
        OutputError: The disk refuses. Either the set stays as it was, or it is out of use and scans of it are left; the
            message says which. Removing it again goes on.
    """
    who = permit.confirm()
    root = settings.state_dir / DATASETS_DIR
    with _locked(root):
        managed = read_set(settings.state_dir, id)
        if managed.removed is None:
            when = _now()
            audit.append(who, "dataset.removed", managed.id, comment=comment, scans=managed.count())
            content = {"removed": when, "who": who}
            write_atomically(root / id / REMOVED_FILE, (json.dumps(content, ensure_ascii=False) + "\n").encode())
            managed = replace(managed, removed=when)
        try:
            _delete_pictures(root / id)
        except OSError as error:
            raise OutputError(
                f"{id} is out of use, but its scans could not be deleted and are still on the disk ({error.strerror}).",
                remedy=f"Delete the folders images and masks of {id} by hand, or give this server the right to them.",
            ) from error
    return managed


def _require_words(name: str, source: str, licence: str) -> None:
    if not VERSION_NAME.fullmatch(name.strip()) or len(name.strip()) > MAX_NAME or name.strip() in KNOWN_NAMES:
        raise DatasetError(
            f"{name!r} cannot be the name of a data set.",
            remedy=f"Use up to {MAX_NAME} letters, digits, '.', '_' and '-', and none of {', '.join(KNOWN_NAMES)}.",
        )
    for what, words in (("source", source), ("licence", licence)):
        if not words.strip() or len(words) > MAX_WORDS or not words.strip().isprintable():
            raise DatasetError(f"A data set needs its {what}.", remedy=f"Write one line of up to {MAX_WORDS} letters.")


def _describe(
    plan: AcceptancePlan, name: str, source: str, licence: str, who: str
) -> tuple[ManagedSet, list[ScanReport]]:
    """The set that the plan makes, and its rows in the order of the items.

    Items are ordered by their pixels, so that the same scans make the same set whatever their files are called.
    """
    order = sorted(plan.kept, key=lambda scan: (scan.pixels, scan.mask, str(scan.diagnosis)))
    ids = {scan.id: f"{number:04d}" for number, scan in enumerate(order, start=1)}
    first_of: dict[tuple[str, str], str] = {}
    for scan in order:  # the row that names a scan or group may be left out itself
        first_of.setdefault(("scan", scan.scan), ids[scan.id])
        first_of.setdefault(("group", scan.group), ids[scan.id])
    items = tuple(_make_item(scan, ids[scan.id], first_of) for scan in order)
    content = hashlib.sha256("\n".join(content_key(items)).encode()).hexdigest()
    reasons = tuple(plan.reasons().items())
    managed = ManagedSet(f"{name}-{content[:12]}", name, source, licence, _now(), who, content, items, reasons)
    return managed, order


def _make_item(scan: ScanReport, id: str, first_of: dict[tuple[str, str], str]) -> ManagedItem:
    if scan.diagnosis is None or scan.lesion_pixels is None:
        raise ValueError(f"row {scan.id} has no class or no mask and cannot be kept")
    return ManagedItem(
        id=id,
        diagnosis=scan.diagnosis,
        scan=first_of["scan", scan.scan],
        group=first_of["group", scan.group],
        height=scan.height,
        width=scan.width,
        lesion_pixels=scan.lesion_pixels,
        pixels=scan.pixels,
        mask=scan.mask,
        copies_of=scan.copies_of,
    )


def _write_pictures(folder: Path, item: ManagedItem, scan: ScanReport, report: InspectionReport) -> None:
    """Read the files once more and write their pixels; refused when they are not those that were examined."""
    changed = DatasetError(
        f"{scan.name!r} changed since it was examined.", remedy="Examine the data set again, then accept it."
    )
    try:
        picture = read_scan(report.cases[scan.id])
    except InvalidImageError as error:
        raise changed from error
    if picture.mask is None or (picture.pixels_sha256, picture.mask_sha256) != (item.pixels, item.mask):
        raise changed
    write_atomically(folder / "images" / f"{item.id}.png", encode_png(picture.stored))
    write_atomically(folder / "masks" / f"{item.id}.png", mask_png(picture.mask))


def _find_same_content(root: Path, managed: ManagedSet) -> ManagedSet | None:
    """The version with this content and name; None when there is no set with this content."""
    for folder in _list_folders(root):
        try:
            existing = _read_folder(folder)
        except DatasetError:
            continue
        if existing.content_sha256 != managed.content_sha256:
            continue
        if existing.id == managed.id and existing.removed is None:
            return existing
        if existing.removed is None:
            raise DatasetError(
                f"These very scans are the data set {existing.id} already.", remedy="Use that one; nothing was kept."
            )
        if existing.id == managed.id:
            raise DatasetError(
                f"The data set {existing.id} was removed on {existing.removed}.",
                remedy="If its scans may be used again, accept them under another name.",
            )
    return None


def _list_folders(root: Path) -> list[Path]:
    """Folders of versions; none where nothing was accepted yet.

    Raises:
        DatasetError: The folder of the administration is none.
    """
    if root.parent.exists() and not root.parent.is_dir():
        raise DatasetError(f"{root.parent} is no folder.", remedy="Set BUSI_STATE_DIR to a folder.")
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if VERSION_NAME.fullmatch(path.name) and path.is_dir())


def _read_all(state_dir: Path) -> Iterator[ManagedSet | None]:
    for folder in _list_folders(state_dir / DATASETS_DIR):
        try:
            yield _read_folder(folder)
        except DatasetError:
            yield None


def _read_folder(folder: Path) -> ManagedSet:
    try:
        removed = folder / REMOVED_FILE
        when = json.loads(removed.read_bytes())["removed"] if removed.is_file() else None
        managed = read_manifest((folder / MANIFEST_FILE).read_bytes(), removed=when)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder.name) from error
    content = hashlib.sha256("\n".join(content_key(managed.items)).encode()).hexdigest()
    if managed.id != folder.name or managed.content_sha256 != content:
        raise _damaged(folder.name)
    return managed


def _damaged(id: str) -> DatasetError:
    return DatasetError(
        f"The data set {id} is damaged.", remedy="Restore its folder from a backup, or remove the folder."
    )


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One writer at a time over all processes; what an earlier one left half done is deleted first.

    The lock is SQLite's own: the system lets go of it when the process ends, however it ends.
    """
    with ExitStack() as held:
        try:
            held.enter_context(transaction(root / LOCK_FILE, ()))
        except OutputError as error:
            if not _is_busy(error.__cause__):
                raise
            raise DatasetError(
                "Somebody else is accepting or removing a data set at this moment.", remedy="Try again in a minute."
            ) from error
        _sweep(root)
        yield


def _is_busy(cause: BaseException | None) -> bool:
    """Whether SQLite says that another process holds the file; the lower byte of its code is the kind of trouble."""
    return getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF == sqlite3.SQLITE_BUSY


def _sweep(root: Path) -> None:
    for left_behind in root.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    for folder in _list_folders(root):
        if (folder / REMOVED_FILE).is_file():
            with suppress(OSError):  # whoever removes it is told
                _delete_pictures(folder)


def _delete_pictures(folder: Path) -> None:
    for part in ("images", "masks"):
        with suppress(FileNotFoundError):
            shutil.rmtree(folder / part)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
