"""Where a data set comes from -> its files, paired: a zip in memory, a folder of the server, the corrected cases."""

from collections.abc import Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from busi_core.corrections import AFTER_FILE, SCAN_FILE, read_corrections
from busi_core.data.pairing import Batch, Case, pair_files
from busi_core.data.sources import SourceFile, is_zip, list_folder, list_zip, read_path, resolve_below
from busi_core.errors import DatasetError, InvalidImageError
from busi_core.settings import Settings

MAX_SCANS = 10_000  # of one examination; a row keeps 2 KB, and copies are searched among all pairs
MAX_ZIP_BYTES = 2_000_000_000  # read into memory whole


@dataclass(frozen=True, eq=False)
class Intake:
    """What is to be examined.

    Attributes:
        kind: 'zip', 'folder' or 'corrections'.
        batch: Scans with their masks and classes.
        confirmed: Ids of scans of which somebody said before that no patient text is burned in.
    """

    kind: str
    batch: Batch
    confirmed: Set[str]


def open_zip(data: bytes) -> Intake:
    """A zip in memory, in BUSI's or BUS-BRA's layout; nothing is unpacked to a disk.

    Raises:
        DatasetError: It is no zip, damaged, claims too much, or holds no scan.
    """
    if not is_zip(data):
        raise DatasetError("The file is not a zip.", remedy="Pack the folder of the data set into one zip.")
    try:
        files = list_zip(data)
    except InvalidImageError as error:
        raise DatasetError(error.problem, remedy=error.remedy) from error
    return _require_scans(Intake("zip", pair_files(files), frozenset()))


def open_folder(root: Path, relative: str) -> Intake:
    """A folder below a root that the server's owner named; see `list_roots`.

    Raises:
        DatasetError: It lies elsewhere, does not exist, or holds no scan.
    """
    return _require_scans(Intake("folder", pair_files(list_folder(resolve_below(root, relative))), frozenset()))


def list_roots(settings: Settings) -> list[Path]:
    """Folders below which an administrator may name one."""
    return [settings.data_root, *([settings.batch_root] if settings.batch_root else [])]


def open_path(path: Path) -> Intake:
    """A folder or a zip that the owner of the machine names at a shell.

    Raises:
        DatasetError: There is neither, or it holds no scan.
    """
    if path.is_dir():
        return open_folder(path, ".")
    try:
        if path.stat().st_size > MAX_ZIP_BYTES:
            raise DatasetError(
                f"{path.name!r} has more than {MAX_ZIP_BYTES // 1_000_000_000} GB.", remedy="Name the unpacked folder."
            )
        return open_zip(path.read_bytes())
    except OSError as error:
        raise DatasetError(
            f"{path.name!r} cannot be opened ({error.strerror}).", remedy="Name a folder or a zip that exists."
        ) from error


def open_corrections(settings: Settings) -> Intake:
    """The corrected cases that readers kept: the scan with the reader's mask and class.

    Raises:
        DatasetError: The store is off, empty, or a case of it is damaged.
    """
    folder = settings.corrections_dir
    if folder is None:
        raise DatasetError(
            "This server keeps no corrected cases.", remedy="Set BUSI_CORRECTIONS_DIR and start the server again."
        )
    cases = [
        Case(
            id=f"scan-{number}",
            name=correction.id,
            scan=_open_file(folder / correction.id / SCAN_FILE),
            masks=(_open_file(folder / correction.id / AFTER_FILE),),
            diagnosis=correction.diagnosis,
            record_id=None,
        )
        for number, correction in enumerate(read_corrections(folder), start=1)
    ]
    if not cases:
        raise DatasetError("No reader has kept a corrected case yet.", remedy="Readers keep them on the page Compare.")
    confirmed = frozenset(case.id for case in cases)  # `keep_correction` keeps nothing that is not confirmed
    return _require_scans(Intake("corrections", Batch(tuple(cases), (), ()), confirmed))


def _open_file(path: Path) -> SourceFile:
    return SourceFile(path.name, path.stat().st_size, partial(read_path, path))


def _require_scans(intake: Intake) -> Intake:
    count = len(intake.batch.cases)
    if not count:
        raise DatasetError("There is no scan in it.", remedy="Use the folders of BUSI or BUS-BRA; see docs/admin.md.")
    if count > MAX_SCANS:
        raise DatasetError(f"It holds {count} scans; at most {MAX_SCANS} are examined.", remedy="Split it into parts.")
    return intake
