"""A small picture of one examined scan with what was found in it drawn on it, and its text cut out to be read."""

import cv2
import numpy as np

from busi_core.data.pairing import Case
from busi_core.errors import InvalidImageError
from busi_core.imaging.encode import encode_png
from busi_core.imaging.overlay import draw_mask
from busi_core.managed.look import read_scan
from busi_core.managed.marks import Box, find_marks
from busi_core.types import Rgb

TEXT_RGB, MARK_RGB = (255, 176, 0), (255, 123, 114)  # the page's amber and red
JPEG_QUALITY = 88
MARGIN_PX = 4


def draw_scan(case: Case, *, width: int) -> bytes | None:
    """A JPEG with mask, text and measuring marks outlined; None where the scan cannot be read.

    Args:
        case: Its files are read anew.
        width: Of the picture in pixels; a smaller scan keeps its size.
    """
    try:
        scan = read_scan(case)
    except InvalidImageError:
        return None
    marks = find_marks(scan.grey)
    drawn = scan.image.rgb if scan.mask is None else draw_mask(scan.image.rgb, scan.mask)
    scale = min(1.0, width / drawn.shape[1])
    small = np.asarray(cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    _draw_boxes(small, marks.text, TEXT_RGB, scale)
    _draw_boxes(small, marks.measuring, MARK_RGB, scale)
    return cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def cut_text(case: Case) -> tuple[bytes, ...]:
    """Each text that was found, as a PNG of its own pixels with nothing drawn on it; empty where nothing can be read.

    Args:
        case: Its files are read anew.
    """
    try:
        scan = read_scan(case)
    except InvalidImageError:
        return ()
    return tuple(encode_png(_cut(scan.image.rgb, box)) for box in find_marks(scan.grey).text)


def _cut(rgb: Rgb, box: Box) -> Rgb:
    """A line of text with room beside it, as the search may miss its first and last letters."""
    height = box.bottom - box.top
    beside, above = 2 * height, max(MARGIN_PX, height // 2)
    return rgb[max(0, box.top - above) : box.bottom + above, max(0, box.left - beside) : box.right + beside]


def _draw_boxes(rgb: Rgb, boxes: tuple[Box, ...], colour: tuple[int, int, int], scale: float) -> None:
    for box in boxes:
        left, top, right, bottom = (round(side * scale) for side in (box.left, box.top, box.right, box.bottom))
        cv2.rectangle(rgb, (left - MARGIN_PX, top - MARGIN_PX), (right + MARGIN_PX, bottom + MARGIN_PX), colour, 1)
