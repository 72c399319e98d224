"""How large a marked lesion is: a mask -> longest diameter, the extent across it, area.

Convention: a pixel is measured to the middle of each of its four sides, so a bar of 10 by 1 pixels
is 10 long and 1 wide, and a single pixel is 1 by 1. Points are (column x, row y) from the top
left corner of the image, so the middle of the first pixel is (0.5, 0.5), as DICOM counts
(PS3.3 C.18.6.1.1, Graphic Data).
"""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_core.metrics.segmentation import find_border
from busi_core.types import Mask

Point: TypeAlias = tuple[float, float]  # (column x, row y) in pixels, whatever the unit of the lengths
Points: TypeAlias = NDArray[np.float64]  # (n, 2), columns x and y
SIDE_MIDDLES = np.array([[0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.0, 0.5]])  # of a pixel, from its top left corner


@dataclass(frozen=True)
class LesionSize:
    """Size of the largest connected region of one mask, in the unit of the pixel size it was measured with.

    Attributes:
        longest: Longest diameter: the largest distance between two points of the outline.
        perpendicular: Extent of the region at right angles to that diameter.
        area: Area of the region, in the unit squared.
        regions: How many connected regions the mask has; all but the largest are not measured.
        box: (left, top, right, bottom) of the measured one in pixels, right and bottom not included.
        longest_ends: Where the longest diameter starts and ends, on the outline; left one first.
        perpendicular_ends: A line across, half way between the two outermost points. Its length
            is `perpendicular`; where the outline is uneven it may end beyond it.
    """

    longest: float
    perpendicular: float
    area: float
    regions: int
    box: tuple[int, int, int, int]
    longest_ends: tuple[Point, Point]
    perpendicular_ends: tuple[Point, Point]

    def __post_init__(self) -> None:
        if not (self.longest > 0 and self.perpendicular > 0 and self.area > 0 and self.regions > 0):
            raise ValueError(f"a lesion must have a size, got {self}")


def measure_lesion(mask: Mask, *, column_mm: float = 1.0, row_mm: float = 1.0) -> LesionSize | None:
    """Measure the largest region of a mask; pixels that touch at a corner belong together.

    Of two regions with equally many pixels the one met first, from the top, is measured.

    Args:
        mask: (height, width) bool.
        column_mm: Width of one pixel; leave both at 1 to measure in pixels.
        row_mm: Height of one pixel, which may differ.

    Returns:
        The size, or None for an empty mask.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise TypeError(f"mask must be (height, width) bool, got {mask.shape} {mask.dtype}; threshold it first")
    if not (column_mm > 0 and row_mm > 0):
        raise ValueError(f"pixel size must be positive, got {column_mm} x {row_mm}")
    if not mask.any():
        return None
    region, box, pixels, regions = _largest_region(mask)
    pixel_size = np.array([column_mm, row_mm])
    outline = (_outline(region) + box[:2]) * pixel_size
    start, end = _farthest_pair(outline)
    along = (end - start) / np.linalg.norm(end - start)
    side, other_side = _extent_across(outline, along)
    return LesionSize(
        longest=float(np.linalg.norm(end - start)),
        perpendicular=float(np.linalg.norm(other_side - side)),
        area=pixels * column_mm * row_mm,
        regions=regions,
        box=box,
        longest_ends=_as_ends(start / pixel_size, end / pixel_size),
        perpendicular_ends=_as_ends(side / pixel_size, other_side / pixel_size),
    )


def _largest_region(mask: Mask) -> tuple[Mask, tuple[int, int, int, int], int, int]:
    """The region with the most pixels, cut out; its box; its pixels; how many regions there are."""
    marked_left, marked_top, width, height = cv2.boundingRect(mask.view(np.uint8))  # what lies outside costs time
    marked = mask[marked_top : marked_top + height, marked_left : marked_left + width]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(marked.astype(np.uint8), connectivity=8)
    label = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())  # label 0 is what lies outside
    left, top, width, height, pixels = (int(figure) for figure in stats[label])
    cut_out = labels[top : top + height, left : left + width] == label
    left, top = left + marked_left, top + marked_top
    return cut_out, (left, top, left + width, top + height), pixels, count - 1


def _outline(region: Mask) -> Points:
    """Corners of the convex hull around the side middles of every pixel, in pixels; diameters end on these."""
    corners = np.argwhere(find_border(region))[:, ::-1]  # (n, 2), (x, y) of each pixel's top left corner
    points = (corners[:, None] + SIDE_MIDDLES).reshape(-1, 2)
    hull = cv2.convexHull(points.astype(np.float32))  # halves of small whole numbers: exact in float32
    return np.asarray(hull, np.float64).reshape(-1, 2)


def _farthest_pair(outline: Points) -> tuple[Points, Points]:
    """The two corners of a hull that lie farthest apart; a hull has few corners, so all pairs are tried."""
    squared = ((outline[:, None] - outline[None]) ** 2).sum(axis=2)
    first, second = np.unravel_index(squared.argmax(), squared.shape)
    return outline[first], outline[second]


def _extent_across(outline: Points, along: Points) -> tuple[Points, Points]:
    """Ends of a line at right angles to the unit vector `along`, as wide as the outline, amid its outermost points."""
    across = np.array([-along[1], along[0]])
    offsets = outline @ across
    low, high = int(offsets.argmin()), int(offsets.argmax())
    middle = along * ((outline[low] + outline[high]) @ along / 2)
    return middle + across * offsets[low], middle + across * offsets[high]


def _as_ends(start: Points, end: Points) -> tuple[Point, Point]:
    first, second = sorted([(float(start[0]), float(start[1])), (float(end[0]), float(end[1]))])
    return first, second
