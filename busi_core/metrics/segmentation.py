"""Overlap and distance between a predicted and a true lesion mask, one image at a time.

    two masks (height, width) bool --count_overlap--> OverlapCounts -> dice, iou, precision, recall, pixel_accuracy
    two masks (height, width) bool --hd95--> distance between their borders

What is not defined is NaN: average with `np.nanmean`, and report how many images were left out.

References:
    Maier-Hein et al., "Metrics reloaded", Nature Methods 2024, doi:10.1038/s41592-023-02151-z.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from busi_core.types import Mask

MISSED_BELOW_DICE = 0.01  # a lesion with less overlap than this counts as missed
NEIGHBOURS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)  # a pixel, and the four that share a side with it


@dataclass(frozen=True)
class OverlapCounts:
    """How the pixels of one image agree; every ratio below follows from these four numbers.

    Attributes:
        true_positive: Pixels that are lesion in both masks.
        false_positive: Pixels that only the prediction calls lesion.
        false_negative: Pixels that only the truth calls lesion.
        true_negative: Pixels that neither calls lesion.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def __post_init__(self) -> None:
        if min(self.true_positive, self.false_positive, self.false_negative, self.true_negative) < 0:
            raise ValueError(f"counts must not be negative, got {self}")

    @property
    def pixels(self) -> int:
        """All pixels of the image."""
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    @property
    def dice(self) -> float:
        """Share of lesion pixels on which the masks agree, 2|P and T| / (|P| + |T|), in [0, 1].

        Two empty masks score NaN, not 1: a normal breast correctly left unmarked says nothing about overlap.
        """
        both = 2 * self.true_positive
        return _ratio(both, both + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """Intersection over union, |P and T| / |P or T|, in [0, 1]; NaN when both masks are empty."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def precision(self) -> float:
        """Share of the predicted lesion that is lesion, in [0, 1].

        An empty prediction has none, and scores NaN even where a lesion is there: a missed lesion
        lowers recall and Dice, and is left out of the mean precision. Say how many were.
        """
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of the true lesion that was found, in [0, 1]; NaN where there is no lesion."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def pixel_accuracy(self) -> float:
        """Share of pixels called right, in [0, 1]. High for any small lesion: show it beside `empty_mask_accuracy`."""
        return _ratio(self.true_positive + self.true_negative, self.pixels)

    @property
    def empty_mask_accuracy(self) -> float:
        """The pixel accuracy that a mask without a single lesion pixel would have had on this image."""
        return _ratio(self.false_positive + self.true_negative, self.pixels)


def count_overlap(predicted: Mask, truth: Mask) -> OverlapCounts:
    """Count how the pixels of two masks agree.

    Args:
        predicted: (height, width) bool.
        truth: (height, width) bool, same shape.
    """
    _require_masks(predicted, truth)
    both = int((predicted & truth).sum())
    only_predicted = int(predicted.sum()) - both
    only_truth = int(truth.sum()) - both
    return OverlapCounts(both, only_predicted, only_truth, predicted.size - both - only_predicted - only_truth)


def hd95(predicted: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """How far apart two borders lie, leaving out the farthest 5 %: the 95 % Hausdorff distance.

    From every border pixel to the nearest border pixel of the other mask; the 95th percentile
    (linear between ranks) of each direction, and the larger of the two, as MONAI computes it.

    Args:
        predicted: (height, width) bool.
        truth: (height, width) bool, same shape.
        spacing: Height and width of a pixel; with (1, 1) the answer is in pixels.

    Returns:
        A distance of at least 0, where 0 is perfect; NaN when one mask or both are empty, since the
        distance to nothing has no size. Count those images apart: a missed lesion does not raise the mean.
    """
    _require_masks(predicted, truth)
    if not (len(spacing) == 2 and min(spacing) > 0):
        raise ValueError(f"spacing must be a positive (height, width) of one pixel, got {spacing}")
    if not (predicted.any() and truth.any()):
        return float("nan")
    predicted_border = np.argwhere(find_border(predicted)) * np.asarray(spacing)
    true_border = np.argwhere(find_border(truth)) * np.asarray(spacing)
    return max(_reach95(predicted_border, true_border), _reach95(true_border, predicted_border))


def find_border(mask: Mask) -> Mask:
    """Mark the pixels of a mask that share a side with a pixel outside; beyond the image is outside.

    Args:
        mask: (height, width) bool.

    Returns:
        (height, width) bool: the mask without its erosion by a cross. Empty for an empty mask.
    """
    inside = cv2.erode(mask.astype(np.uint8), NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & np.asarray(inside == 0, np.bool_)


def _reach95(points: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Distance to the nearest of `others` within which 95 % of `points` lie; both (n, 2)."""
    # A search tree, and not cv2.distanceTransform: that one knows only square pixels.
    distances, _ = KDTree(others).query(points)
    return float(np.percentile(distances, 95))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _require_masks(predicted: Mask, truth: Mask) -> None:
    if predicted.dtype != np.bool_ or truth.dtype != np.bool_:
        raise TypeError(f"masks must be bool, got {predicted.dtype} and {truth.dtype}; threshold them first")
    if predicted.shape != truth.shape or predicted.ndim != 2:
        raise ValueError(f"masks must be (height, width), both the same, got {predicted.shape} and {truth.shape}")
