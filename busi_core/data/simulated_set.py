"""Simulated scans as a data set: to rehearse a retraining without patients, never to make a model for them."""

import shutil
import tempfile
from pathlib import Path

from busi_core.data.records import Record
from busi_core.data.splits import FOLDS, Split
from busi_core.errors import OutputError
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis

SCANS_PER_CLASS = 12
HEIGHT_PX, WIDTH_PX = 160, 200


def split_simulated(folder: Path, *, test_fold: int | None) -> Split:
    """Three fifths to train on, one to choose by, one to test; dealt class by class.

    The scans are drawn and written into `folder` when it is not there; the same seeds give the same pixels.

    Args:
        folder: Of their own; made with all its files at once or not at all.
        test_fold: 0 to 4; None for none: fold 0 chooses and the other four teach.

    Raises:
        OutputError: The folder cannot be written.
    """
    if not folder.is_dir():
        _write_scans(folder)
    validation_fold = 0 if test_fold is None else (test_fold + 1) % FOLDS
    parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for diagnosis in Diagnosis:
        for number in range(SCANS_PER_CLASS):
            fold = number % FOLDS
            part = "test" if fold == test_fold else "validation" if fold == validation_fold else "train"
            stem = f"{diagnosis.value}-{number}"
            masks = () if diagnosis is Diagnosis.NORMAL else (folder / f"{stem}_mask.png",)
            parts[part].append(Record(f"simulated/{stem}", folder / f"{stem}.png", masks, diagnosis))
    return Split(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]))


def _write_scans(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        try:
            for diagnosis in Diagnosis:
                for number in range(SCANS_PER_CLASS):
                    scan = simulate_scan(diagnosis, seed=number, height=HEIGHT_PX, width=WIDTH_PX)
                    (unfinished / f"{diagnosis.value}-{number}.png").write_bytes(scan.png())
                    if diagnosis is not Diagnosis.NORMAL:
                        (unfinished / f"{diagnosis.value}-{number}_mask.png").write_bytes(mask_png(scan.mask))
            if not folder.is_dir():  # else another run was faster
                unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"The simulated scans could not be written ({error.strerror}).", remedy="Free some space and try again."
        ) from error
