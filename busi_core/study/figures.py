"""Scored scans -> the figures that papers print, each by its own definition, with intervals over scans."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from busi_core.evaluation import EvaluationReport, ScanResult
from busi_core.metrics.bootstrap import Interval, bootstrap_interval
from busi_core.types import Diagnosis

KEPT = (  # of an evaluation's own table
    "lesion Dice",
    "lesion IoU",
    "pixel accuracy",
    "normals given a mask",
    "accuracy (3 classes)",
    "AUC malignant against benign",
)
NAMES = [diagnosis.value for diagnosis in Diagnosis]
Indices = NDArray[np.intp]


def measure_figures(report: EvaluationReport) -> dict[str, Interval]:
    """The figures of one report by name; what is not defined for the model is left out."""
    found = {name: report.table[name] for name in KEPT}
    results = report.results
    groups = np.array([result.group for result in results])
    for name, statistic in {**pooled_statistics(results), **class_statistics(results)}.items():
        found[name] = bootstrap_interval(statistic, groups)
    return {name: value for name, value in found.items() if value.estimate == value.estimate}


def pooled_statistics(results: Sequence[ScanResult]) -> dict[str, Callable[[Indices], float]]:
    """Overlap of all images' pixels together, each image weighing the same, as after resizing to one size.

    A scan's own figures say its counts: TP is recall times the lesion's share of the image, FN the rest of that share,
    and FP what accuracy still lacks.
    """
    share = np.array([result.lesion_share for result in results])
    recall = np.nan_to_num(np.array([result.recall for result in results], float))
    accuracy = np.array([result.pixel_accuracy for result in results])
    hit = recall * share
    missed = share - hit
    invented = np.clip(1 - accuracy - missed, 0, 1)

    def ratio(part: NDArray[np.float64], *whole: NDArray[np.float64]) -> Callable[[Indices], float]:
        def statistic(indices: Indices) -> float:
            total = sum(float(values[indices].sum()) for values in whole)
            return float(part[indices].sum()) / total if total else float("nan")

        return statistic

    return {
        "pooled Dice": ratio(2 * hit, 2 * hit, missed, invented),
        "pooled IoU": ratio(hit, hit, missed, invented),
        "pooled precision": ratio(hit, hit, invented),
        "pooled recall": ratio(hit, hit, missed),
    }


def class_statistics(results: Sequence[ScanResult]) -> dict[str, Callable[[Indices], float]]:
    """Weighted F1 over three classes; accuracy and precisions of benign against malignant, over lesion images.

    Empty for a model that gives no class.
    """
    if any(result.probabilities is None for result in results):
        return {}
    scores = np.array([result.probabilities for result in results])
    truth = np.array([NAMES.index(result.truth) for result in results])
    predicted, of_two = scores.argmax(axis=1), 1 + scores[:, 1:].argmax(axis=1)
    is_lesion = truth > 0

    def of_lesions(kept_column: int | None) -> Callable[[Indices], float]:
        def statistic(indices: Indices) -> float:
            kept = indices[is_lesion[indices]]
            if kept_column is not None:
                kept = kept[of_two[kept] == kept_column]
            return float((of_two[kept] == truth[kept]).mean()) if kept.size else float("nan")

        return statistic

    return {
        "weighted F1": lambda indices: weighted_f1(predicted[indices], truth[indices]),
        "accuracy, benign or malignant": of_lesions(None),
        "precision of benign": of_lesions(1),
        "precision of malignant": of_lesions(2),
    }


def weighted_f1(predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """F1 of each class, weighted by how often it is true (scikit-learn's 'weighted'); NaN without images."""
    if not truth.size:
        return float("nan")
    total = 0.0
    for column in np.unique(truth):
        right = int(((predicted == column) & (truth == column)).sum())
        named = int((predicted == column).sum()) + int((truth == column).sum())
        total += 2 * right / named * float((truth == column).mean())
    return total


def empty_mask_figures(report: EvaluationReport) -> dict[str, Interval]:
    """What a mask without a single lesion pixel reaches on the same scans."""
    zero = Interval(0.0, 0.0, 0.0)
    names = ("lesion Dice", "lesion IoU", "pooled Dice", "pooled IoU", "pooled recall", "normals given a mask")
    return {"pixel accuracy": report.table["pixel accuracy of the empty mask"], **dict.fromkeys(names, zero)}
