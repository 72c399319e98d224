"""Whether 80 % sure is right 80 % of the time: logits -> temperature -> probabilities -> how far off.

    class_logits, truth (validation) --fit_temperature--> T > 0
    class_logits, T --softmax--> probabilities (n, classes)
    probabilities, truth (scored) --reliability_curve--> bins --> expected_calibration_error
    probabilities --calibration_error_by_chance--> what that error would be were all of them true

References:
    Guo et al., "On calibration of modern neural networks", ICML 2017, arXiv:1706.04599.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.integer[Any]]  # (n,), a class as its column
ClassMatrix: TypeAlias = NDArray[np.floating[Any]]  # (n, classes)

CALIBRATION_ERROR = "expected calibration error"  # as tables name it
BINS = 15  # of equal mass
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0  # beyond these a network is broken, not miscalibrated
HALVINGS = 60  # of that range, on a log scale: finer than float64 can tell


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """How sure the model was, and how often it was right, from the least to the most sure bin.

    Attributes:
        count: (bins,) int64, images in each bin, at least 1.
        confidence: (bins,) their mean probability of the predicted class, in [0, 1], rising.
        right: (bins,) share of them whose predicted class is the true one, in [0, 1].
    """

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.count.shape == self.confidence.shape == self.right.shape:
            raise ValueError("count, confidence and right must have the same shape")


def softmax(logits: ClassMatrix, temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn logits into probabilities: exp(z / T), scaled to sum to 1.

    Args:
        logits: (n, classes), finite.
        temperature: T > 0. Above 1 makes the model less sure, below 1 surer; the order of the classes stays.

    Returns:
        (n, classes) float64 in [0, 1]; each row sums to 1.
    """
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise ValueError(f"logits must be (n, classes) and finite, got {logits.shape}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))  # the largest becomes 1: no overflow
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def fit_temperature(logits: ClassMatrix, truth: Labels) -> float:
    """Find the temperature that makes the true classes most likely (least mean negative log-likelihood).

    That loss is convex in 1 / T, so its slope, the mean of sum_c p_c z_c - z_true, changes sign once:
    at the best T, found by halving.

    Args:
        logits: (n, classes) finite, n > 0, from validation and never from the scored images.
        truth: (n,) integer, the true column of each row.

    Returns:
        T in [0.05, 20]; an end of that range when the best T lies beyond: 0.05 when every true class
        has the highest logit, 20 when the highest logits are no more often right than chance.
    """
    _require_labels(logits, truth)
    if truth.size == 0:
        raise ValueError("a temperature needs at least one image, got none")
    true_logits = np.take_along_axis(logits, truth[:, None], axis=1)[:, 0].astype(np.float64)
    low, high = np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected_logits = (softmax(logits, float(np.exp(middle))) * logits).sum(axis=1)
        is_too_sure = (expected_logits - true_logits).mean() > 0
        low, high = (middle, high) if is_too_sure else (low, middle)
    return float(np.exp((low + high) / 2))


def reliability_curve(probabilities: ClassMatrix, truth: Labels, bins: int = BINS) -> ReliabilityCurve:
    """Sort images by how sure the model was, into bins of equal mass.

    Equally sure images share a bin, so the order of the images changes nothing; with many of them,
    or with fewer images than bins, there are fewer bins than asked for. No images: no bins.

    Args:
        probabilities: (n, classes) in [0, 1].
        truth: (n,) integer, the true column of each row.
        bins: How many to make, at least 1.
    """
    _require_labels(probabilities, truth)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # also catches NaN
        raise ValueError("probabilities must lie in [0, 1]; take the softmax first")
    if bins < 1:
        raise ValueError(f"there must be at least 1 bin, got {bins}")
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = probabilities.argmax(axis=1) == truth
    bin_of, count = _deal_bins(confidence, bins)
    return ReliabilityCurve(
        count=count.astype(np.int64),
        confidence=np.bincount(bin_of, weights=confidence, minlength=count.size) / count,
        right=np.bincount(bin_of, weights=is_right, minlength=count.size) / count,
    )


def expected_calibration_error(probabilities: ClassMatrix, truth: Labels, bins: int = BINS) -> float:
    """Mean gap between how sure the model was and how often it was right, over equal-mass bins.

    Even a perfect model scores above 0 on few images (`calibration_error_by_chance`): compare only on the same images
    and bins.

    Args:
        probabilities: (n, classes) in [0, 1].
        truth: (n,) integer, the true column of each row.
        bins: How many to make, at least 1.

    Returns:
        A number in [0, 1], 0 is calibrated; NaN without images.

    References:
        Nixon et al., "Measuring calibration in deep learning", 2019, arXiv:1904.01685 (equal mass).
    """
    curve = reliability_curve(probabilities, truth, bins)
    if curve.count.size == 0:
        return float("nan")
    return float(np.average(np.abs(curve.right - curve.confidence), weights=curve.count))


def calibration_error_by_chance(
    probabilities: ClassMatrix, bins: int = BINS, *, draws: int = 1000, seed: int = 0
) -> float:
    """The expected calibration error of a model whose scores are all true, on images that it is as sure of.

    A share of a few images is seldom the chance behind it, and all such gaps add up: say it beside the error itself.

    Args:
        probabilities: (n, classes) in [0, 1].
        bins: As for the error.
        draws: How many times the images are drawn right or wrong, each by its own confidence.
        seed: Of the random numbers.

    Returns:
        The mean over the draws, in [0, 1]; NaN without images.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    if confidence.size == 0:
        return float("nan")
    bin_of, count = _deal_bins(confidence, bins)
    is_right = np.random.default_rng(seed).random((draws, confidence.size)) < confidence
    gaps = (is_right - confidence) @ np.eye(count.size)[bin_of]  # (draws, bins), each summed over its images
    return float(np.abs(gaps).sum(axis=1).mean() / confidence.size)


def _deal_bins(confidence: NDArray[np.float64], bins: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The bin of each image, from the least sure; and how many images each holds. Equally sure images share one."""
    less_sure = np.searchsorted(np.sort(confidence), confidence, side="left")  # rank from 0
    _, bin_of, count = np.unique(less_sure * bins // max(confidence.size, 1), return_inverse=True, return_counts=True)
    return bin_of, count


def _require_labels(rows: ClassMatrix, truth: Labels) -> None:
    if rows.ndim != 2 or truth.shape != rows.shape[:1]:
        raise ValueError(f"expected (n, classes) and (n,), got {rows.shape} and {truth.shape}")
    if not np.issubdtype(truth.dtype, np.integer):
        raise TypeError(f"truth must be integer, got {truth.dtype}")
    if truth.size and not (truth.min() >= 0 and truth.max() < rows.shape[1]):
        raise ValueError(f"truth must lie in 0 to {rows.shape[1] - 1}, got {truth.min()} to {truth.max()}")
