"""One scan beside its reference mask: where, and by how much, a reading and the truth differ.

    Analysis + truth (height, width) bool + cut-off --compare_scan--> Comparison
    probability map in the scan's pixels + truth + cut-offs --overlap_curve--> Dice and IoU against the cut-off

What is not defined is NaN, never 0: a normal breast has no overlap, a missed lesion no distance. All distances
are in pixels of the scan.

References:
    Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, doi:10.1007/s11263-017-1059-x:
        the pointing game.
    Wang et al., "Score-CAM", CVPRW 2020, arXiv:1910.01279: the energy-based pointing game.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from busi_core.findings import read_finding
from busi_core.imaging.preprocess import upsample
from busi_core.metrics.segmentation import MISSED_BELOW_DICE, OverlapCounts, count_overlap, find_border, hd95
from busi_core.types import Analysis, FloatMap, Heatmap, Mask

MAX_LESIONS = 50  # looked at one by one; BUSI's most is 3, and a mask of speckle would have thousands


@dataclass(frozen=True)
class LesionMatch:
    """One lesion of the reference: a connected region of one mask file; pixels that touch at a corner belong together.

    Attributes:
        number: From 1, the largest first.
        pixels: Of the reference lesion.
        left, top, right, bottom: Its box in pixels, right and bottom not included.
        middle: (column, row) of its pixel that lies deepest inside; where its number is written.
        found: Its Dice reaches `MISSED_BELOW_DICE`.
        counts: Of this lesion against all predicted regions that touch it; where one region touches several lesions,
            each of its pixels counts for the nearest of them.
        hd95_px: 95 % Hausdorff distance between the two borders; NaN for a lesion that nothing touches.
        mean_distance_px: Average distance between the two borders, both directions; NaN likewise.
    """

    number: int
    pixels: int
    left: int
    top: int
    right: int
    bottom: int
    middle: tuple[int, int]
    found: bool
    counts: OverlapCounts
    hd95_px: float
    mean_distance_px: float


@dataclass(frozen=True)
class Matching:
    """The lesions of a reference, each with the predicted regions that touch it.

    Attributes:
        lesions: The largest first, at most `MAX_LESIONS`.
        unlisted_lesions: Smaller ones beyond those.
        extra_regions: Predicted regions that touch no lesion of the reference.
        extra_pixels: Their pixels.
    """

    lesions: tuple[LesionMatch, ...]
    unlisted_lesions: int
    extra_regions: int
    extra_pixels: int


@dataclass(frozen=True)
class HeatmapFit:
    """How one heat map lies to the reference lesion.

    Attributes:
        of: What the heat map explains.
        energy_inside: Share of the map's sum that lies inside the reference, in [0, 1]; NaN without a lesion in
            the reference or without evidence in the map.
        peak: (column, row) of the strongest pixel; None for a map without evidence.
        peak_inside: Whether the peak lies inside the reference (the pointing game); None where that says nothing.
        lesion_share: Share of the image that the reference covers: what an even map would have inside.
    """

    of: str
    energy_inside: float
    peak: tuple[int, int] | None
    peak_inside: bool | None
    lesion_share: float


@dataclass(frozen=True)
class OverlapCurve:
    """Counts of one scan at many cut-offs, in their order.

    Attributes:
        cutoffs: Lesion probabilities, ascending.
        counts: At each of them.
    """

    cutoffs: tuple[float, ...]
    counts: tuple[OverlapCounts, ...]

    @property
    def dice(self) -> tuple[float, ...]:
        """Dice at each cut-off."""
        return tuple(counts.dice for counts in self.counts)

    @property
    def iou(self) -> tuple[float, ...]:
        """IoU at each cut-off."""
        return tuple(counts.iou for counts in self.counts)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One reading against the reference, at one cut-off.

    Attributes:
        model_version: Which weights read the scan.
        threshold: A pixel is lesion from this probability on.
        predicted: (height, width) bool.
        counts: Over all pixels of the scan.
        hd95_px: 95 % Hausdorff distance between the borders of the whole masks.
        lesions: Each lesion of the reference, the largest first and at most `MAX_LESIONS`; empty for a normal breast.
        unlisted_lesions: Smaller ones beyond those.
        extra_regions: Predicted regions that touch no lesion of the reference.
        extra_pixels: Their pixels.
        heatmaps: Each heat map of the analysis.
    """

    model_version: str
    threshold: float
    predicted: Mask
    counts: OverlapCounts
    hd95_px: float
    lesions: tuple[LesionMatch, ...]
    unlisted_lesions: int
    extra_regions: int
    extra_pixels: int
    heatmaps: tuple[HeatmapFit, ...]


def compare_scan(
    analysis: Analysis,
    truth: Mask,
    *,
    threshold: float | None = None,
    annotation: NDArray[np.uint8] | None = None,
) -> Comparison:
    """Compare one reading with its reference.

    Args:
        analysis: Of one scan by one model version.
        truth: (height, width) bool in the scan's pixels; all False says that there is no lesion.
        threshold: Cut-off on the lesion probability; the model's own when None.
        annotation: (height, width) which mask file each pixel of the truth comes from, from 1: lesions of two files
            are two where they touch. None takes the truth as one file.
    """
    finding = read_finding(analysis, threshold)
    predicted = finding.lesion_mask
    matching = match_lesions(predicted, truth, annotation)
    return Comparison(
        model_version=analysis.model_version,
        threshold=finding.threshold,
        predicted=predicted,
        counts=count_overlap(predicted, truth),
        hd95_px=hd95(predicted, truth),
        lesions=matching.lesions,
        unlisted_lesions=matching.unlisted_lesions,
        extra_regions=matching.extra_regions,
        extra_pixels=matching.extra_pixels,
        heatmaps=tuple(fit_heatmap(heatmap, truth) for heatmap in analysis.heatmaps.values()),
    )


def index_by_cutoffs(probability: FloatMap, cutoffs: Sequence[float]) -> NDArray[np.uint8]:
    """For each pixel, how many of the cut-offs it reaches.

    A pixel belongs to the mask at `cutoffs[k]` exactly when its index is above k: one byte a pixel says the mask at
    every cut-off, exactly as `probability >= cutoff` does. The browser is sent this instead of the probabilities.

    Args:
        probability: (height, width) float32.
        cutoffs: At most 255, ascending, no two the same in float32.
    """
    limits = np.asarray(cutoffs, np.float32)  # numpy compares float32 with a Python number in float32
    if not 0 < limits.size <= 255 or not (np.diff(limits) > 0).all():
        raise ValueError(f"cutoffs must be 1 to 255 ascending numbers, got {len(cutoffs)}")
    return np.searchsorted(limits, probability.ravel(), side="right").astype(np.uint8).reshape(probability.shape)


def overlap_curve(probability: FloatMap, truth: Mask, cutoffs: Sequence[float]) -> OverlapCurve:
    """Count the overlap at every cut-off in one pass over the pixels.

    Args:
        probability: (height, width) float32 in the scan's pixels.
        truth: (height, width) bool, same shape.
        cutoffs: Ascending, at most 255.
    """
    if truth.dtype != np.bool_ or truth.shape != probability.shape:
        raise ValueError(f"truth must be {probability.shape} bool, got {truth.shape} {truth.dtype}")
    index = index_by_cutoffs(probability, cutoffs)
    bins = len(cutoffs) + 1
    inside = np.bincount(index[truth], minlength=bins)
    outside = np.bincount(index[~truth], minlength=bins)
    reached_inside = inside[::-1].cumsum()[::-1][1:]  # at cut-off k: pixels with an index above k
    reached_outside = outside[::-1].cumsum()[::-1][1:]
    lesion, rest = int(inside.sum()), int(outside.sum())
    counts = tuple(
        OverlapCounts(int(hit), int(extra), lesion - int(hit), rest - int(extra))
        for hit, extra in zip(reached_inside, reached_outside, strict=True)
    )
    return OverlapCurve(tuple(cutoffs), counts)


def match_lesions(predicted: Mask, truth: Mask, annotation: NDArray[np.uint8] | None = None) -> Matching:
    """Look at each lesion of the reference by itself.

    Args:
        predicted: (height, width) bool.
        truth: (height, width) bool, same shape.
        annotation: As `compare_scan`.
    """
    region_count, region_of, areas, _ = cv2.connectedComponentsWithStats(predicted.astype(np.uint8), connectivity=8)
    lesion_of, lesion_count = _number_lesions(truth, annotation)
    listed = min(lesion_count, MAX_LESIONS)
    counts_for = _share_regions(np.asarray(region_of, np.int32), region_count, lesion_of, listed)
    matches = []
    for number in range(1, listed + 1):
        lesion: Mask = np.asarray(lesion_of == number, np.bool_)
        matched: Mask = np.asarray(counts_for == number, np.bool_)
        counts = count_overlap(matched, lesion)
        rows, columns = np.flatnonzero(lesion.any(axis=1)), np.flatnonzero(lesion.any(axis=0))
        matches.append(
            LesionMatch(
                number=number,
                pixels=int(lesion.sum()),
                left=int(columns[0]),
                top=int(rows[0]),
                right=int(columns[-1]) + 1,
                bottom=int(rows[-1]) + 1,
                middle=_middle(lesion),
                found=counts.dice >= MISSED_BELOW_DICE,
                counts=counts,
                hd95_px=hd95(matched, lesion),
                mean_distance_px=mean_surface_distance(matched, lesion),
            )
        )
    extra = np.setdiff1d(np.arange(1, region_count), region_of[truth])
    return Matching(
        lesions=tuple(matches),
        unlisted_lesions=lesion_count - listed,
        extra_regions=int(extra.size),
        extra_pixels=int(areas[extra, cv2.CC_STAT_AREA].sum()),
    )


def _number_lesions(truth: Mask, annotation: NDArray[np.uint8] | None) -> tuple[NDArray[np.int32], int]:
    """(height, width) number of the lesion of each pixel, the largest is 1, 0 outside; and how many there are."""
    files = truth.astype(np.uint8) if annotation is None else annotation
    if files.shape != truth.shape or not np.array_equal(files > 0, truth):
        raise ValueError("an annotation must be above 0 exactly where the truth is")
    lesion_of: NDArray[np.int32] = np.zeros(truth.shape, np.int32)
    areas = [0]
    for file in np.unique(files[truth]):
        count, found, stats, _ = cv2.connectedComponentsWithStats((files == file).astype(np.uint8), connectivity=8)
        lesion_of = np.where(found > 0, found + len(areas) - 1, lesion_of).astype(np.int32)
        areas += [int(area) for area in stats[1:count, cv2.CC_STAT_AREA]]
    order = sorted(range(1, len(areas)), key=lambda label: (-areas[label], label))
    number_of = np.zeros(len(areas), np.int32)
    number_of[order] = np.arange(1, len(areas))
    return number_of[lesion_of], len(order)


def _share_regions(
    region_of: NDArray[np.int32], region_count: int, lesion_of: NDArray[np.int32], listed: int
) -> NDArray[np.int32]:
    """(height, width) the lesion that each predicted pixel counts for; 0 for none.

    A region counts for the lesion that it touches. Of a region that touches several, each pixel counts for the lesion
    nearest to it.
    """
    both = (region_of > 0) & (lesion_of > 0) & (lesion_of <= listed)
    pairs = np.unique(np.stack([region_of[both], lesion_of[both]], axis=1), axis=0)
    only = np.zeros(region_count, np.int32)
    only[pairs[:, 0]] = pairs[:, 1]
    counts_for = only[region_of]
    regions, touched = np.unique(pairs[:, 0], return_counts=True)
    for region in regions[touched > 1]:
        here = region_of == region
        lesions = np.isin(lesion_of, pairs[pairs[:, 0] == region, 1])
        rows, columns = np.flatnonzero((here | lesions).any(axis=1)), np.flatnonzero((here | lesions).any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        nearest = distance_transform_edt(~lesions[box], return_distances=False, return_indices=True)
        counts_for[box][here[box]] = lesion_of[box][tuple(nearest)][here[box]]
    return counts_for


def _middle(lesion: Mask) -> tuple[int, int]:
    depth = cv2.distanceTransform(np.pad(lesion.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(column), int(row)


def mean_surface_distance(predicted: Mask, truth: Mask) -> float:
    """How far apart two borders lie on average: over all border pixels of both masks, to the nearest of the other.

    The average symmetric surface distance, as MONAI computes it.

    Returns:
        Pixels, 0 is perfect; NaN when one mask or both are empty.
    """
    if not (predicted.any() and truth.any()):
        return float("nan")
    one, other = np.argwhere(find_border(predicted)), np.argwhere(find_border(truth))
    there, back = KDTree(other).query(one)[0], KDTree(one).query(other)[0]
    return float((there.sum() + back.sum()) / (len(there) + len(back)))


def fit_heatmap(heatmap: Heatmap, truth: Mask) -> HeatmapFit:
    """Where a heat map's evidence lies: the share of it inside the reference, and its peak.

    The map is taken to the scan's pixels first, as it is drawn. Several pixels may share the highest value (at the
    image's edge the map is flat); the one nearest to their middle is the peak.
    """
    evidence = upsample(heatmap.evidence, *truth.shape)
    total = float(evidence.sum(dtype=np.float64))
    share = float(truth.mean())
    if total <= 0:
        return HeatmapFit(heatmap.of, float("nan"), None, None, share)
    places = np.argwhere(evidence == evidence.max())
    row, column = places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    inside = bool(truth[row, column]) if truth.any() else None
    energy = float(evidence[truth].sum(dtype=np.float64)) / total if truth.any() else float("nan")
    return HeatmapFit(heatmap.of, energy, (int(column), int(row)), inside, share)
