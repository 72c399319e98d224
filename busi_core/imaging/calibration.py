"""Where a pixel of an ultrasound image has a known size: the Sequence of Ultrasound Regions, DICOM PS3.3 C.8.5.5.

Calibration comes from there alone. Pixel Spacing (0028,0030) is ignored: it is no part of the ultrasound image
modules, and on a screen capture it describes the print, not the breast.
"""

import math
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from busi_core.types import CalibratedRegion

REGION_TAG = BaseTag(0x00186011)
TWO_DIMENSIONAL = 1  # C.8.5.5.1.1, Region Spatial Format: an image, not an M-mode, a spectrum, a trace or graphics
TISSUE_OR_FLOW = (1, 2)  # C.8.5.5.1.2, Region Data Type: what lies in the plane, not a spectrum, a trace or graphics
CENTIMETRES = 3  # C.8.5.5.1.15, Physical Units X and Y Direction
MM_PER_CM = 10


class _Box(NamedTuple):
    """Pixels; right and bottom are not included."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: "_Box") -> bool:
        """Whether the two share a pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def read_regions(attributes: Dataset, height: int, width: int) -> tuple[CalibratedRegion, ...]:
    """The regions of an image in centimetres both ways, cut to the image.

    Region Location Max is the last pixel inside. A negative delta only says which way the axis runs. A region of
    another kind, with other units or a missing value is left out, and so is a calibrated one that it overlaps: which
    of the two a pixel belongs to would be a guess, and pixels are better than a wrong millimetre. One of
    another kind that does not say where it lies may lie anywhere.
    """
    element = attributes.get(REGION_TAG)
    if element is None or element.VR != "SQ":
        return ()
    calibrated: list[tuple[_Box, float, float]] = []
    others: list[_Box] = []
    for item in element.value:
        box, size = _read_box(item, height, width), _read_pixel_size(item)
        if box is not None and size is not None:
            calibrated.append((box, *size))
        elif size is None and not _is_outside(item, height, width):
            others.append(box or _Box(0, 0, width, height))
    return tuple(
        CalibratedRegion(*box, column_mm, row_mm)
        for box, column_mm, row_mm in calibrated
        if not any(box.overlaps(other) for other in others)
    )


def _read_box(item: Dataset, height: int, width: int) -> _Box | None:
    """Where a region lies; None where it says nothing, or lies outside the image."""
    corners = [item.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    if not all(isinstance(value, int) for value in corners):
        return None
    box = _Box(corners[0], corners[1], min(corners[2] + 1, width), min(corners[3] + 1, height))
    return box if 0 <= box.left < box.right and 0 <= box.top < box.bottom else None


def _is_outside(item: Dataset, height: int, width: int) -> bool:
    """Whether a region says that it begins right of the image or below it."""
    begins = ((item.get("RegionLocationMinX0"), width), (item.get("RegionLocationMinY0"), height))
    return any(isinstance(value, int) and value >= side for value, side in begins)


def _read_pixel_size(item: Dataset) -> tuple[float, float] | None:
    """Width and height of a pixel in mm; None where the region is no image of tissue or flow in centimetres."""
    units = item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")
    kind = item.get("RegionSpatialFormat"), item.get("RegionDataType", TISSUE_OR_FLOW[0]) in TISSUE_OR_FLOW
    if units != (CENTIMETRES, CENTIMETRES) or kind != (TWO_DIMENSIONAL, True):
        return None
    deltas = [item.get(f"PhysicalDelta{axis}") for axis in "XY"]
    if not all(isinstance(value, float) and math.isfinite(value) for value in deltas):
        return None
    column_mm, row_mm = (abs(delta) * MM_PER_CM for delta in deltas)
    return (column_mm, row_mm) if 0 < column_mm < 10 and 0 < row_mm < 10 else None
