"""A model version over the test part of a split, through the front door: file bytes in, EvaluationReport out.

    test records -Analyser.analyse_for_batch-> ScanResult each -metrics, bootstrap-> EvaluationReport -> evaluation.json

A report is refused when a scored scan has a copy among those that taught the model.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busi_core.data.duplicates import find_copies, fingerprint
from busi_core.data.records import Record, read_truth
from busi_core.data.splits import scan_groups
from busi_core.errors import DatasetError, ModelUnavailableError
from busi_core.files import write_atomically
from busi_core.findings import read_finding
from busi_core.imaging.decode import decode_image
from busi_core.metrics.bootstrap import Interval, bootstrap_interval
from busi_core.metrics.calibration import CALIBRATION_ERROR, expected_calibration_error, reliability_curve
from busi_core.metrics.classification import (
    confusion_matrix,
    macro_f1,
    malignancy_score,
    operating_point,
    roc_auc,
    sensitivity_at_specificity,
)
from busi_core.metrics.proportion import mean_interval
from busi_core.metrics.segmentation import MISSED_BELOW_DICE, count_overlap, hd95
from busi_core.models.checkpoint import EVALUATION_FILE, ModelCard, read_card
from busi_core.service import Analyser
from busi_core.types import Diagnosis

SCHEMA = 1
CLASSES = list(Diagnosis)
SHARES = ("lesions missed", "normals given a mask", "accuracy (3 classes)")  # a scan has it, or has it not
SCORE_BANDS = (0.0, 0.05, 0.2, 0.5, 0.8, 1.0)  # 'scored like this': bands of the score of malignant
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ScanResult:
    """One scored scan. Overlap figures are NaN where they are not defined, as for a normal.

    Attributes:
        id: Of the record.
        group: What is resampled: the scan, or the case of BUS-BRA.
        truth: Its class.
        probabilities: Scores in the order of `Diagnosis`; None from a model that gives no class.
        dice, iou, hd95_px, precision, recall, pixel_accuracy, empty_mask_accuracy: Of the mask in the image's pixels.
        has_mask: Whether any pixel was called lesion.
        lesion_share: Share of the image that the truth outlines.
    """

    id: str
    group: str
    truth: str
    probabilities: tuple[float, float, float] | None
    dice: float
    iou: float
    hd95_px: float
    precision: float
    recall: float
    pixel_accuracy: float
    empty_mask_accuracy: float
    has_mask: bool
    lesion_share: float


@dataclass(frozen=True)
class ScoreBand:
    """How many test scans had a score of malignant in [low, high), and how many of them were malignant."""

    low: float
    high: float
    scans: int
    malignant: int


@dataclass(frozen=True)
class EvaluationReport:
    """What one model version reached on one test set that it never saw.

    Attributes:
        model: Version.
        sha256: Of the weights.
        test_set: As in 'busi fold 0'.
        copies_in_training: Scored scans with a copy among those that taught the model: always 0.
        scans: How many were scored.
        counts: Scans by true class.
        table: Each figure with its 95 % interval.
        confusion: (3, 3) rows truth, columns prediction; empty, as are reliability and bands, without a class.
        reliability: Bins as (count, mean confidence, share right).
        flag: Sensitivity and specificity of the flag in service at its own threshold.
        bands: 'Scored like this' counts.
        results: Every scan.
    """

    model: str
    sha256: str
    test_set: str
    copies_in_training: int
    scans: int
    counts: Mapping[str, int]
    table: Mapping[str, Interval]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[tuple[int, float, float], ...]
    flag: Mapping[str, float] | None
    bands: tuple[ScoreBand, ...]
    results: tuple[ScanResult, ...]


def band_of(reports: Sequence[EvaluationReport], malignant_score: float, *, flag: float | None) -> ScoreBand | None:
    """How many scans of these test sets were scored like this, and how many of them were malignant.

    Args:
        reports: Whose scans are counted.
        malignant_score: Of the scan that is compared.
        flag: The score from which scans are flagged: no band holds scans on both sides of it.

    Returns:
        None where no test scan was given a class.
    """
    scored = _malignant_scores(reports)
    edges = sorted({*SCORE_BANDS, *(() if flag is None else (flag,))})
    for low, high in itertools.pairwise(edges):
        if malignant_score < high or high == edges[-1]:
            end = high if high < edges[-1] else math.inf
            inside = [is_malignant for score, is_malignant in scored if low <= score < end]
            return ScoreBand(low, high, len(inside), sum(inside)) if scored else None
    raise AssertionError("the last band has no end")


def _malignant_scores(reports: Sequence[EvaluationReport]) -> list[tuple[float, bool]]:
    """The score of malignant of every test scan that was given a class, and whether it is malignant."""
    column = CLASSES.index(Diagnosis.MALIGNANT)
    results = [result for report in reports for result in report.results]
    return [(one.probabilities[column], one.truth == Diagnosis.MALIGNANT) for one in results if one.probabilities]


def count_flagged(
    reports: Sequence[EvaluationReport], threshold: float
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """How many malignant test scans a flag at this score of malignant would mark, and of how many; the same of the
    others. None where no test scan was given a class."""
    scored = _malignant_scores(reports)
    malignant = [score >= threshold for score, is_malignant in scored if is_malignant]
    others = [score >= threshold for score, is_malignant in scored if not is_malignant]
    return ((sum(malignant), len(malignant)), (sum(others), len(others))) if scored else None


def score_record(analyser: Analyser, record: Record) -> ScanResult:
    """Read one file through the front door and compare it with its truth.

    Raises:
        InvalidImageError: The file is no image we accept.
        DatasetError: Its mask cannot be read or does not fit.
    """
    analysis = analyser.analyse_for_batch(decode_image(record.image.read_bytes()), insist=True)
    truth = read_truth(record, analysis.image.height, analysis.image.width)
    mask = read_finding(analysis).lesion_mask
    counts = count_overlap(mask, truth)
    probabilities = analysis.prediction.probabilities
    return ScanResult(
        id=record.id,
        group=record.group or scan_groups().get(record.id, record.id),
        truth=record.diagnosis.value,
        probabilities=None
        if probabilities is None
        else (probabilities[Diagnosis.NORMAL], probabilities[Diagnosis.BENIGN], probabilities[Diagnosis.MALIGNANT]),
        dice=counts.dice,
        iou=counts.iou,
        hd95_px=hd95(mask, truth),
        precision=counts.precision,
        recall=counts.recall,
        pixel_accuracy=counts.pixel_accuracy,
        empty_mask_accuracy=counts.empty_mask_accuracy,
        has_mask=bool(mask.any()),
        lesion_share=float(truth.mean()),
    )


def count_copies(card: ModelCard, test: Sequence[Record], known: Sequence[Record]) -> int:
    """How many test scans have a copy among the records that taught the model: by name, by list and by pixels.

    Args:
        card: Names the records that taught or chose anything.
        test: To be scored.
        known: Records at hand; those the card names are compared with the test scans pixel by pixel.
    """
    taught = set(card.trained_on)
    groups = scan_groups()
    teachers = [record for record in known if record.id in taught]
    taught_groups = {groups.get(name, name) for name in taught} | {record.group for record in teachers if record.group}
    by_name = np.array([bool({groups.get(r.id, r.id), r.group} & taught_groups) for r in test])
    by_pixels = find_copies(_fingerprints(test), _fingerprints(teachers))
    return int((by_name | by_pixels).sum())


def evaluate(
    analyser: Analyser,
    test: Sequence[Record],
    known: Sequence[Record],
    *,
    test_set: str,
    on_scan: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Score every test record and summarise.

    Raises:
        DatasetError: A test scan has a copy in training, or there is nothing to score.
    """
    if not test:
        raise DatasetError("There is no scan to score.", remedy="Name a data set that has a test part.")
    copies = count_copies(analyser.card, test, known)
    if copies:
        raise DatasetError(
            f"{copies} of {len(test)} scored scans have a copy among those that taught {analyser.card.version!r}.",
            remedy="Evaluate on scans that it never saw; a figure with a leak is not printed.",
        )
    results = []
    for number, record in enumerate(test, start=1):
        results.append(score_record(analyser, record))
        if on_scan:
            on_scan(number, len(test))
    return summarise(analyser.card, results, test_set=test_set)


def summarise(card: ModelCard, results: Sequence[ScanResult], *, test_set: str) -> EvaluationReport:
    """The table of figures from single results: each figure with a bootstrap interval over groups.

    The figures of the class are NaN for a model that gives none.
    """
    gives_class = all(result.probabilities is not None for result in results)
    groups = np.array([result.group for result in results])
    truth = np.array([CLASSES.index(Diagnosis(result.truth)) for result in results])
    scores = np.array([result.probabilities or (1 / 3, 1 / 3, 1 / 3) for result in results])
    has_mask = np.array([result.has_mask for result in results], float)
    lesion = truth != CLASSES.index(Diagnosis.NORMAL)
    malignant = truth == CLASSES.index(Diagnosis.MALIGNANT)
    suspicion = malignancy_score(scores)
    predicted = scores.argmax(axis=1)

    def of_lesions(values: Sequence[float]) -> NDArray[np.float64]:
        return np.where(lesion, np.array(values, float), np.nan)

    def auc(indices: IntArray) -> float:
        kept = indices[lesion[indices]]
        return roc_auc(suspicion[kept], malignant[kept])

    def sensitivity(indices: IntArray) -> float:
        kept = indices[lesion[indices]]
        both = malignant[kept].any() and not malignant[kept].all()
        return sensitivity_at_specificity(suspicion[kept], malignant[kept]).sensitivity if both else math.nan

    dice = of_lesions([result.dice for result in results])
    measured: dict[str, Any] = {
        "lesion Dice": dice,
        "lesion IoU": of_lesions([result.iou for result in results]),
        "HD95 (px)": of_lesions([result.hd95_px for result in results]),
        "pixel precision": of_lesions([result.precision for result in results]),
        "pixel recall": of_lesions([result.recall for result in results]),
        "lesions missed": np.where(lesion, (dice < MISSED_BELOW_DICE).astype(float), np.nan),
        "normals given a mask": np.where(lesion, np.nan, has_mask),
        "pixel accuracy": np.array([result.pixel_accuracy for result in results]),
        "pixel accuracy of the empty mask": np.array([result.empty_mask_accuracy for result in results]),
    }
    of_class: dict[str, Any] = {
        "accuracy (3 classes)": (predicted == truth).astype(float),
        "macro-F1": lambda i: macro_f1(confusion_matrix(predicted[i], truth[i])),
        "AUC malignant against benign": auc,
        "sensitivity at 90 % specificity": sensitivity,
        CALIBRATION_ERROR: lambda i: expected_calibration_error(scores[i], truth[i]),
    }
    table = {name: mean_interval(values, groups, is_share=name in SHARES) for name, values in measured.items()}
    undefined = Interval(math.nan, math.nan, math.nan)
    for name, values in of_class.items():
        if not gives_class:
            table[name] = undefined
        elif callable(values):
            table[name] = bootstrap_interval(values, groups, is_distance=name == CALIBRATION_ERROR)
        else:
            table[name] = mean_interval(values, groups, is_share=name in SHARES)
    flag = None
    if card.malignancy and gives_class:
        point = operating_point(scores[:, CLASSES.index(Diagnosis.MALIGNANT)], malignant, card.malignancy.threshold)
        flag = {"threshold": point.threshold, "sensitivity": point.sensitivity, "specificity": point.specificity}
    curve = reliability_curve(scores, truth)
    return EvaluationReport(
        model=card.version,
        sha256=card.sha256,
        test_set=test_set,
        copies_in_training=0,
        scans=len(results),
        counts={d.value: int((truth == column).sum()) for column, d in enumerate(CLASSES)},
        table=table,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion_matrix(predicted, truth))
        if gives_class
        else (),
        reliability=tuple(
            (int(n), float(sure), float(right))
            for n, sure, right in zip(curve.count, curve.confidence, curve.right, strict=True)
        )
        if gives_class
        else (),
        flag=flag,
        bands=_count_bands(scores[:, CLASSES.index(Diagnosis.MALIGNANT)], malignant) if gives_class else (),
        results=tuple(results),
    )


def write_reports(folder: Path, reports: Sequence[EvaluationReport], *, file_name: str = EVALUATION_FILE) -> None:
    """Write evaluation.json beside the weights; NaN is written as null.

    Raises:
        OutputError: The folder cannot be written.
    """
    content = {"schema": SCHEMA, "reports": [without_nan(asdict(report)) for report in reports]}
    write_atomically(folder / file_name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def keep_reports(folder: Path, reports: Sequence[EvaluationReport]) -> None:
    """Write evaluation.json beside the weights; reports on these weights that lie there already stay, where they are
    of another test set and share no scan with the new ones.

    Raises:
        OutputError: The folder cannot be written.
    """
    names = {report.test_set for report in reports}
    scans = {result.id for report in reports for result in report.results}
    others = [
        report
        for report in read_reports(folder)
        if report.test_set not in names and scans.isdisjoint(result.id for result in report.results)
    ]
    write_reports(folder, [*reports, *others])


def read_reports(folder: Path, *, file_name: str = EVALUATION_FILE) -> list[EvaluationReport]:
    """The reports in evaluation.json, or another such file, on the version beside it.

    By name and weights: versions that differ in their second opinion alone share the checksum of the first network.
    Empty when there are none or they cannot be read.
    """
    try:
        card = read_card(folder)
        content = json.loads((folder / file_name).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            return []
        reports = [_read_report(report) for report in content["reports"]]
    except (ModelUnavailableError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [report for report in reports if (report.model, report.sha256) == (card.version, card.sha256)]


def format_table(report: EvaluationReport) -> str:
    """The report as the lines that `busi evaluate` prints."""
    by_class = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    lines = [
        f"{report.model} on {report.test_set}: {report.scans} scans ({by_class})",
        f"copies in training: {report.copies_in_training}",
    ]
    for name, value in report.table.items():
        lines.append(f"  {name:<34} {value.estimate:7.3f}  [{value.low:.3f} - {value.high:.3f}]")
    if report.flag:
        lines.append(
            f"  flag at score {report.flag['threshold']:.3f}: sensitivity {report.flag['sensitivity']:.3f}, "
            f"specificity {report.flag['specificity']:.3f}"
        )
    if report.confusion:
        lines.append("  confusion (rows truth; columns normal, benign, malignant):")
        lines += [f"    {d.value:<10} {row}" for d, row in zip(CLASSES, report.confusion, strict=True)]
    return "\n".join(lines)


def _count_bands(score: NDArray[np.float64], malignant: NDArray[np.bool_]) -> tuple[ScoreBand, ...]:
    column = np.clip(np.digitize(score, SCORE_BANDS[1:-1]), 0, len(SCORE_BANDS) - 2)
    edges = itertools.pairwise(SCORE_BANDS)
    return tuple(
        ScoreBand(low, high, int((column == band).sum()), int(malignant[column == band].sum()))
        for band, (low, high) in enumerate(edges)
    )


def _fingerprints(records: Sequence[Record]) -> NDArray[np.float32]:
    if not records:
        return np.zeros((0, 0), np.float32)
    return np.stack([fingerprint(decode_image(record.image.read_bytes()).grey) for record in records])


def _read_report(content: dict[str, Any]) -> EvaluationReport:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return EvaluationReport(
        **{
            **content,
            "table": {
                name: Interval(number(row["estimate"]), number(row["low"]), number(row["high"]), row["undefined_draws"])
                for name, row in content["table"].items()
            },
            "flag": content["flag"] and {name: number(value) for name, value in content["flag"].items()},
            "confusion": tuple(tuple(row) for row in content["confusion"]),
            "reliability": tuple((row[0], row[1], row[2]) for row in content["reliability"]),
            "bands": tuple(ScoreBand(**band) for band in content["bands"]),
            "results": tuple(read_result(row) for row in content["results"]),
        }
    )


def read_result(row: Mapping[str, Any]) -> ScanResult:
    """One scored scan from JSON, where null stands for NaN.

    Raises:
        TypeError: It has other fields.
    """
    return ScanResult(**{key: _read_value(key, value) for key, value in row.items()})


def _read_value(key: str, value: Any) -> Any:
    if key == "probabilities":
        return value and tuple(value)
    return math.nan if value is None else value


def without_nan(value: Any) -> Any:
    """Plain values in which what is no finite number is None, for JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value
