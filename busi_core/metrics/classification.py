"""How well images are sorted: labels -> confusion matrix -> ratios; scores -> AUC, curve, operating points.

    predicted, truth (n,) integer --confusion_matrix--> (3, 3) counts --> accuracy, macro_f1
    scores (n,) float, truth (n,) bool --> roc_auc, roc_curve, operating points

Convention throughout: an image is flagged if its score >= threshold. Sensitivity is the share of
the positives (truth True: malignant) that is flagged, specificity the share of the others that is not.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from busi_core.types import Diagnosis

Labels: TypeAlias = NDArray[np.integer[Any]]  # (n,), a class as its column: 0 normal, 1 benign, 2 malignant
Scores: TypeAlias = NDArray[np.floating[Any]]  # (n,), higher is more suspicious
Truth: TypeAlias = NDArray[np.bool_]  # (n,), True for what a high score should find
Counts: TypeAlias = NDArray[np.int64]  # (3, 3), rows the truth, columns the prediction

ROUNDING = 1e-12  # of a share that a whole number of images makes
BENIGN, MALIGNANT = (list(Diagnosis).index(diagnosis) for diagnosis in (Diagnosis.BENIGN, Diagnosis.MALIGNANT))


class OperatingPoint(NamedTuple):
    """One threshold and what it does; `threshold` is inf where nothing is flagged."""

    threshold: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True, eq=False)
class RocCurve:
    """What every threshold would do, from the strictest to the most lenient.

    Attributes:
        thresholds: (points,) falling: inf, where nothing is flagged, then each distinct score.
        sensitivity: (points,) rising from 0 to 1.
        specificity: (points,) falling from 1 to 0.
    """

    thresholds: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.thresholds.shape == self.sensitivity.shape == self.specificity.shape:
            raise ValueError("thresholds, sensitivity and specificity must have the same shape")

    def at(self, index: int) -> OperatingPoint:
        """One point of the curve."""
        return OperatingPoint(
            float(self.thresholds[index]), float(self.sensitivity[index]), float(self.specificity[index])
        )


def confusion_matrix(predicted: Labels, truth: Labels) -> Counts:
    """Count images by true and by predicted class.

    Args:
        predicted: (n,) integer, columns in the order of Diagnosis; n may be 0.
        truth: (n,) integer, same.

    Returns:
        (3, 3) int64: row = truth, column = prediction.
    """
    classes = len(Diagnosis)
    for labels, name in ((predicted, "predicted"), (truth, "truth")):
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"{name} must be (n,) integer, got {labels.shape} {labels.dtype}; take the argmax first")
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(f"{name} must lie in 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted and truth must have the same length, got {predicted.size} and {truth.size}")
    cells = truth.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def accuracy(confusion: Counts) -> float:
    """Share of images given their true class, in [0, 1]; NaN without images."""
    total = int(confusion.sum())
    return int(confusion.trace()) / total if total else float("nan")


def macro_f1(confusion: Counts) -> float:
    """Mean over the classes of F1 = 2 TP / (2 TP + FP + FN), in [0, 1]: each class weighs the same.

    A class that is true nowhere is left out, as BUS-BRA's normals: its F1 would be 0 or undefined, whatever was right,
    by whether a single scan was called so. That scan counts as missed in its own class. NaN without images.
    """
    right = 2.0 * confusion.diagonal()
    named = confusion.sum(axis=0) + confusion.sum(axis=1)  # 2 TP + FP + FN
    present = confusion.sum(axis=1) > 0
    return float((right[present] / named[present]).mean()) if present.any() else float("nan")


def malignancy_score(probabilities: Scores) -> NDArray[np.float64]:
    """How malignant rather than benign: p_malignant / (p_benign + p_malignant).

    Args:
        probabilities: (n, 3), columns in the order of Diagnosis, each in [0, 1].

    Returns:
        (n,) float64 in [0, 1]. Where both are exactly 0 there is no preference: 0.5.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != len(Diagnosis):
        raise ValueError(f"probabilities must be (n, {len(Diagnosis)}), got {probabilities.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # also catches NaN
        raise ValueError("probabilities must lie in [0, 1]; take the softmax first")
    benign = probabilities[:, BENIGN].astype(np.float64)
    malignant = probabilities[:, MALIGNANT].astype(np.float64)
    either = benign + malignant
    return np.divide(malignant, either, out=np.full_like(either, 0.5), where=either > 0)


def roc_auc(scores: Scores, truth: Truth) -> float:
    """Chance that a positive outscores a negative, ties counting half (Mann-Whitney).

    Args:
        scores: (n,) finite.
        truth: (n,) bool.

    Returns:
        A number in [0, 1], 0.5 is guessing; NaN where only one class is there.

    References:
        Hanley and McNeil, Radiology 1982, doi:10.1148/radiology.143.1.7063747.
    """
    _require_scores(scores, truth)
    positives, negatives = scores[truth], np.sort(scores[~truth])
    if not (positives.size and negatives.size):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left").sum()
    below_or_equal = np.searchsorted(negatives, positives, side="right").sum()
    return float((below + below_or_equal) / (2 * positives.size * negatives.size))


def roc_curve(scores: Scores, truth: Truth) -> RocCurve:
    """What every threshold would do. Needs positives and negatives, else ValueError.

    Args:
        scores: (n,) finite.
        truth: (n,) bool.
    """
    _require_scores(scores, truth)
    if truth.all() or not truth.any():
        raise ValueError(f"both classes must be there, got {int(truth.sum())} positives among {truth.size}")
    distinct, column = np.unique(scores, return_inverse=True)
    flagged_positives = np.bincount(column[truth], minlength=distinct.size)[::-1].cumsum()
    flagged_negatives = np.bincount(column[~truth], minlength=distinct.size)[::-1].cumsum()
    spared_negatives = flagged_negatives[-1] - flagged_negatives
    return RocCurve(
        thresholds=np.concatenate([[np.inf], distinct[::-1].astype(np.float64)]),
        sensitivity=np.concatenate([[0.0], flagged_positives / flagged_positives[-1]]),
        specificity=np.concatenate([[1.0], spared_negatives / flagged_negatives[-1]]),
    )


def sensitivity_at_specificity(scores: Scores, truth: Truth, specificity: float = 0.9) -> OperatingPoint:
    """The best sensitivity that leaves at least this share of the negatives alone.

    Only thresholds at a score count, nothing between points is interpolated; of several with that
    sensitivity, the strictest. Where even the top score is a negative's, that may be to flag nothing.
    Describes these very scores: a threshold for service comes from validation.

    Args:
        scores: (n,) finite.
        truth: (n,) bool, with both classes.
        specificity: Asked for, in [0, 1].
    """
    _require_share(specificity, "specificity")
    curve = roc_curve(scores, truth)
    allowed = curve.sensitivity[curve.specificity >= specificity]  # the curve's start: specificity only falls
    return curve.at(int(allowed.argmax()))


def threshold_for_sensitivity(
    scores: Scores, truth: Truth, sensitivity: float = 0.95, *, confidence: float | None = None
) -> OperatingPoint:
    """The strictest threshold that still finds at least this share of the positives.

    Args:
        scores: (n,) finite.
        truth: (n,) bool, with both classes.
        sensitivity: Asked for, in [0, 1].
        confidence: In [0, 1). None asks for the share among these very positives. A number asks for it among all
            positives like them, and as surely: so few of these are missed that a threshold which misses more than
            its share would look as good in at most `1 - confidence` of such samples. Where they are too few to be
            as sure of anything, the strictest threshold that misses none of them.

    References:
        Clopper and Pearson, Biometrika 1934, doi:10.1093/biomet/26.4.404 (the exact binomial bound).
        Bates et al., "Distribution-free, risk-controlling prediction sets", arXiv:2101.02703 (that the bound holds
        for a threshold chosen by the same scans).
    """
    _require_share(sensitivity, "sensitivity")
    curve = roc_curve(scores, truth)
    if confidence is not None:
        positives = int(truth.sum())
        sensitivity = 1 - _most_missed(positives, 1 - sensitivity, confidence) / positives
    return curve.at(int((curve.sensitivity >= sensitivity - ROUNDING).argmax()))


def _most_missed(count: int, share: float, confidence: float) -> int:
    """The most that `count` may miss to show with this confidence that no more than `share` is missed; at least 0."""
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence must lie in [0, 1), got {confidence}")
    if not 0 < share < 1:
        return round(share) * count
    chance, missed = 0.0, 0
    for missed in range(count + 1):
        ways = math.lgamma(count + 1) - math.lgamma(missed + 1) - math.lgamma(count - missed + 1)
        chance += math.exp(ways + missed * math.log(share) + (count - missed) * math.log1p(-share))
        if chance > 1 - confidence:
            break
    return max(missed - 1, 0)


def operating_point(scores: Scores, truth: Truth, threshold: float) -> OperatingPoint:
    """What one given threshold does; a share is NaN where its class is not there.

    Args:
        scores: (n,) finite.
        truth: (n,) bool.
        threshold: Chosen elsewhere, as on validation.
    """
    _require_scores(scores, truth)
    if np.isnan(threshold):
        raise ValueError("threshold must be a number, got NaN")
    flagged = scores >= threshold
    return OperatingPoint(threshold, _share(flagged[truth]), _share(~flagged[~truth]))


def _share(statements: Truth) -> float:
    return float(statements.mean()) if statements.size else float("nan")


def _require_scores(scores: Scores, truth: Truth) -> None:
    if truth.dtype != np.bool_:
        raise TypeError(f"truth must be bool, got {truth.dtype}; compare the labels with one class first")
    if scores.shape != truth.shape or scores.ndim != 1:
        raise ValueError(f"scores and truth must be (n,), both the same, got {scores.shape} and {truth.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, got NaN or infinity")


def _require_share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
