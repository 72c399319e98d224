"""Pictures for downloads and the command line: the mask's outline and the heat map drawn on the scan.

Fixed colours and one opacity for every pixel, the same as the viewer's, so that a colour always means one value.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from busi_core.types import FloatMap, Mask, Rgb

LESION_RGB = (79, 216, 255)  # the viewer's light blue; stands apart from grey and from the heat map's colours
OUTLINE_HALO_RGB = (0, 0, 0)
DOUBT_RGB = (255, 176, 0)  # amber: apart from blue for colour-blind readers too
FILL_OPACITY = 0.2
DOUBT_OPACITY = 0.4
HEAT_STOPS = ("#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4")  # inferno


def draw_mask(rgb: Rgb, mask: Mask) -> Rgb:
    """The scan with the lesion filled lightly and outlined, at the scan's own pixels."""
    drawn = _blend(rgb, np.broadcast_to(np.array(LESION_RGB, np.uint8), rgb.shape), mask * np.float32(FILL_OPACITY))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(mask.shape) / 500))
    cv2.drawContours(drawn, contours, -1, OUTLINE_HALO_RGB, thickness + 2)
    cv2.drawContours(drawn, contours, -1, LESION_RGB, thickness)
    return drawn


def draw_doubt(rgb: Rgb, certain: Mask, possible: Mask) -> Rgb:
    """The scan with what is lesion in every reading outlined, and what is so in some of them in amber."""
    band = possible & ~certain
    amber = np.broadcast_to(np.array(DOUBT_RGB, np.uint8), rgb.shape)
    return draw_mask(_blend(rgb, amber, band * np.float32(DOUBT_OPACITY)), certain)


def draw_heatmap(rgb: Rgb, evidence: FloatMap) -> Rgb:
    """The scan under a heat map of the same size, half of each; where there is no evidence the scan is left as it is.

    Halves are rounded to the even neighbour, as `numpy.rint` does.
    """
    levels = np.rint(evidence * np.float32(255)).astype(np.uint8)
    coloured = cv2.applyColorMap(levels, _heat_table()[:, None])
    drawn = np.array(rgb)
    cv2.copyTo(cv2.addWeighted(rgb, 0.5, coloured, 0.5, 0), (evidence > 0).astype(np.uint8), drawn)
    return drawn


def _blend(rgb: Rgb, colours: NDArray[np.uint8], opacity: NDArray[np.float32]) -> Rgb:
    share = opacity[..., None]
    return np.rint(rgb * (1 - share) + colours * share).astype(np.uint8)


@cache
def _heat_table() -> NDArray[np.uint8]:
    """(256, 3) colours between the stops, linearly."""
    stops = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in HEAT_STOPS], np.float64)
    places = np.linspace(0, 255, len(stops))
    return np.stack([np.rint(np.interp(np.arange(256), places, stops[:, c])) for c in range(3)], 1).astype(np.uint8)


def caption(rgb: Rgb, lines: Sequence[str], font_file: Path) -> Rgb:
    """The picture with lines of text on a black strip below it; what is too wide goes on in a further line.

    Args:
        rgb: (height, width, 3).
        lines: With no character that the font lacks.
        font_file: TrueType.
    """
    width = rgb.shape[1]
    font_px = max(12, round(width / 48))
    line_px = round(font_px * 1.5)
    font = ImageFont.truetype(font_file, font_px, layout_engine=ImageFont.Layout.BASIC)  # draws in the order given
    rows = [row for line in lines for row in _wrap(" ".join(line.split()), font, width - 8)]
    strip = Image.new("RGB", (width, line_px * len(rows) + font_px // 2))
    pen = ImageDraw.Draw(strip)
    for number, row in enumerate(rows):
        pen.text((4, number * line_px + font_px // 4), row, font=font, fill=(200, 210, 220))
    return np.concatenate([rgb, np.asarray(strip, np.uint8)])


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Rows that fit, broken at spaces where there are some: no part of a file's name is lost."""
    while text:
        ends = range(len(text) + 1)
        fits = bisect_right(ends, width, key=lambda end: math.ceil(font.getlength(text[:end]))) - 1
        end = max(1, fits)
        if end < len(text) and (space := text.rfind(" ", 1, end + 1)) > 0:
            end = space
        yield text[:end]
        text = text[end:].lstrip()
