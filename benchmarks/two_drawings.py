"""How well two outlines of one lesion agree: the ceiling of any lesion Dice on BUSI.

    uv run python -m benchmarks.two_drawings

BUSI holds some 220 pairs of files that show one scan, each file with a mask of its own. The two are laid over each
other by an affine transform found on their grey pixels (Evangelidis and Psarakis' ECC, in OpenCV); pairs that do not
fit are left out, so that what is measured is the drawing. Beside it: what the recipe of the version in service reaches
on those of these scans that are scored, each read by a version that never saw it.
"""

import itertools
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import table
from busi_core import Diagnosis, decode_image, read_settings
from busi_core.cross_validation import POOLED, read_cross_validation
from busi_core.data.records import Record, read_busi, read_truth
from busi_core.data.splits import read_folds
from busi_core.metrics.bootstrap import bootstrap_interval
from busi_core.metrics.segmentation import count_overlap
from busi_core.registry import read_registry
from busi_core.types import Grey, Mask

FITS = 0.98  # correlation of the pixels from which on two files are laid over each other well
MISSED = 0.01  # Dice below which one drawing does not find the other
BLUR_PX = 2.0  # before the fit: speckle and burned-in marks are not to steer it
STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)


class Pair(NamedTuple):
    """Two files of one scan."""

    scan: str
    correlation: float
    dice: float


def main() -> None:
    settings = read_settings()
    records = {record.name: record for record in read_busi(settings.data_root / "busi")}
    pairs, others = [], 0
    for scan in read_folds():
        found = [compare(scan.files[0], *two) for two in itertools.combinations(present(scan.files, records), 2)]
        pairs += [pair for pair in found if pair is not None]
        others += sum(pair is None for pair in found)
    print(f"{len(pairs)} pairs with two outlines; {others} more without a lesion in one of them or of two classes\n")
    in_service = settings.weights_dir / read_registry(settings.weights_dir).in_service
    (pooled,) = [report for report in read_cross_validation(in_service) if report.test_set == POOLED]
    of_model = {result.id: result.dice for result in pooled.results if result.truth != Diagnosis.NORMAL}
    files_of = {scan.files[0]: scan.files for scan in read_folds()}
    rows = []
    for least in (0.0, 0.9, FITS):
        by_scan: dict[str, list[float]] = {}
        for pair in pairs:
            if pair.correlation >= least:
                by_scan.setdefault(pair.scan, []).append(pair.dice)
        drawn = np.array([np.mean(dices) for dices in by_scan.values()])
        read = np.array([of_model[f"busi/{n}"] for scan in by_scan for n in files_of[scan] if f"busi/{n}" in of_model])
        rows += [[f"two drawings, fit {least:.2f} or more", *describe(drawn)], ["the model on these", *describe(read)]]
    rows.append([f"the model on all {len(of_model)}", *describe(np.array(list(of_model.values())))])
    print(table(["Dice, mean of each scan's pairs", "scans", "mean (95 %)", "median", "below .5", "missed"], rows))


def present(names: tuple[str, ...], records: dict[str, Record]) -> list[Record]:
    return [records[name] for name in names if name in records]


def compare(scan: str, first: Record, second: Record) -> Pair | None:
    """None where one of them has no outline, or their classes contradict each other."""
    one, other = (decode_image(record.image.read_bytes()).grey for record in (first, second))
    drawn, again = (read_truth(record, *grey.shape) for record, grey in ((first, one), (second, other)))
    if first.diagnosis is not second.diagnosis or not (drawn.any() and again.any()):
        return None
    correlation, transform = lay_over(one, other)
    return Pair(scan, correlation, count_overlap(move(again, transform, drawn.shape), drawn).dice)


def lay_over(one: Grey, other: Grey) -> tuple[float, NDArray[np.float32]]:
    """The correlation of two scans where they fit best, and the (2, 3) matrix from a place in one to that in other."""
    (height, width), (rows, columns) = one.shape, other.shape
    stretched = np.array([[columns / width, 0, 0], [0, rows / height, 0]], np.float32)
    centred = np.array([[1, 0, (columns - width) / 2], [0, 1, (rows - height) / 2]], np.float32)
    best: tuple[float, NDArray[np.float32]] = (-1.0, stretched)
    for start in (stretched, centred, np.eye(2, 3, dtype=np.float32)):
        try:
            found, matrix = cv2.findTransformECC(soften(one), soften(other), start.copy(), cv2.MOTION_AFFINE, STEPS)
        except cv2.error:  # it does not converge from there
            continue
        best = max(best, (found, matrix.astype(np.float32)), key=lambda fit: fit[0])
    return best


def soften(grey: Grey) -> NDArray[np.float32]:
    return cv2.GaussianBlur(grey, (0, 0), BLUR_PX).astype(np.float32) / np.float32(255)


def move(mask: Mask, transform: NDArray[np.float32], shape: tuple[int, ...]) -> Mask:
    """A mask of the second scan in the pixels of the first."""
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(mask.astype(np.uint8), transform, (shape[1], shape[0]), flags=flags) > 0


def describe(dices: NDArray[np.float64]) -> list[str]:
    mean = bootstrap_interval(dices, np.arange(len(dices)))
    shares = [f"{(dices < least).mean():.3f}" for least in (0.5, MISSED)]
    return [
        str(len(dices)),
        f"{mean.estimate:.3f} ({mean.low:.3f} to {mean.high:.3f})",
        f"{np.median(dices):.3f}",
        *shares,
    ]


if __name__ == "__main__":
    main()
