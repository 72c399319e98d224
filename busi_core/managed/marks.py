"""Text and measuring marks burned into a scan, found in its pixels.

What a machine or a person writes into a scan is drawn: thin strokes of one grey, with an edge of one pixel. Speckle
and tissue have neither. So a letter is a small, flat, bright piece with a steep edge; text is two letters on one line;
a measuring mark is a plus sign, or dots at equal steps on a straight line.

Measured against the notes of Pawlowska et al. on BUSI, on scans it was not tuned on (docs/experiments.md, `RECALL`).
Not found: single letters, body-mark drawings, writing darker than its surroundings, handwriting on a photograph.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from busi_core.types import Grey, Mask

MAX_SIDE_PX = 1600  # larger scans are made smaller first: strokes keep their shape, and time its bound
STROKE_PX = 7  # thicker than a stroke of text in scans of 300 to 1600 pixels
FLAT_PART = 0.8  # of the brightest grey nearby: what belongs to one stroke
LETTER_RISE, DOT_RISE = 50, 25  # greys above the surroundings
MIN_GREY = 140  # of a letter or cross
LETTER_HEIGHT_PX, LETTER_AREA_PX = (6, 40), 8
LETTER_DROP, CROSS_DROP = 60, 45  # greys from what is drawn to what lies two pixels outside; a cross has dots beside
LETTER_SPREAD = 18  # greys from the median to the 90th percentile inside a letter
MIN_LETTER_GREY = 180
CROSS_SIDE_PX, ARM_PX = (6, 24), 4
DOT_SIDE_PX, DOT_AREA_PX, DOT_STEP_PX = 4, 9, (3.0, 9.0)
DOTS_IN_LINE = 7  # six also occur in speckle (1 of 245 scans without marks), eight miss short lines
CHANCE_LINES = 0.01  # how many lines may be expected where dots lie at random: fine speckle needs longer ones


@dataclass(frozen=True)
class Box:
    """Where something lies, in pixels of the scan; right and bottom not included."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Marks:
    """What was found.

    Attributes:
        text: Boxes around lines of text.
        measuring: Boxes around plus signs and dotted lines.
    """

    text: tuple[Box, ...]
    measuring: tuple[Box, ...]


@dataclass(frozen=True)
class _Piece:
    """A connected bright piece: its box, its grey (90th percentile) and its pixels inside the box."""

    left: int
    top: int
    width: int
    height: int
    grey: float
    shape: Mask


def find_marks(grey: Grey) -> Marks:
    """Look for burned-in text and measuring marks.

    Args:
        grey: (height, width) uint8.
    """
    scale = min(1.0, MAX_SIDE_PX / max(grey.shape))
    if scale < 1:
        grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    kernel = np.ones((STROKE_PX, STROKE_PX), np.uint8)
    rise = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel)
    flat = grey >= FLAT_PART * cv2.dilate(grey, kernel)
    drawn = (rise >= LETTER_RISE) & flat & (grey >= MIN_GREY)
    pieces = list(_split(drawn, grey))
    letters = [piece for piece in pieces if _is_letter(piece, grey)]
    crosses = [_box([piece]) for piece in pieces if _is_cross(piece, grey)]
    lines = _find_dotted_lines((rise >= DOT_RISE) & flat)
    return Marks(_rescale(_find_words(letters), scale), _rescale([*crosses, *lines], scale))


def _split(drawn: Mask, grey: Grey) -> Iterator[_Piece]:
    """Pieces of a size that letters and crosses have."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(drawn.astype(np.uint8), connectivity=8)
    low, high = LETTER_HEIGHT_PX
    fits = (stats[:, 3] >= low) & (stats[:, 3] <= high) & (stats[:, 2] <= 4 * high) & (stats[:, 4] >= LETTER_AREA_PX)
    for label in np.flatnonzero(fits):
        if label == 0:  # the background
            continue
        left, top, width, height = (int(value) for value in stats[label, :4])
        inside = np.s_[top : top + height, left : left + width]
        shape: Mask = labels[inside] == label
        yield _Piece(left, top, width, height, float(np.percentile(grey[inside][shape], 90)), shape)


def _is_letter(piece: _Piece, grey: Grey) -> bool:
    if piece.grey < MIN_LETTER_GREY:
        return False
    middle, outside = _measure_edge(piece, grey)
    return middle - outside >= LETTER_DROP and piece.grey - middle <= LETTER_SPREAD


def _measure_edge(piece: _Piece, grey: Grey) -> tuple[float, float]:
    """Grey inside a piece (median), and of the ring two pixels outside (75th percentile)."""
    margin = 3
    top, left = max(0, piece.top - margin), max(0, piece.left - margin)
    around = grey[top : piece.top + piece.height + margin, left : piece.left + piece.width + margin]
    own = np.zeros(around.shape, np.uint8)
    own[piece.top - top :, piece.left - left :][: piece.height, : piece.width] = piece.shape
    near = cv2.dilate(own, np.ones((3, 3), np.uint8))
    ring = around[(cv2.dilate(near, np.ones((3, 3), np.uint8)) > 0) & (near == 0)]
    middle = float(np.median(around[own > 0]))
    return middle, float(np.percentile(ring, 75)) if ring.size else middle


def _find_words(letters: list[_Piece]) -> list[Box]:
    """Boxes around letters that stand beside each other on one line."""
    ordered = sorted(letters, key=lambda piece: piece.left)
    words: list[list[_Piece]] = []
    for piece in ordered:
        beside = next((word for word in words if _stand_together(word[-1], piece)), None)
        if beside is None:
            words.append([piece])
        else:
            beside.append(piece)
    return [_box(word) for word in words if len(word) > 1]


def _stand_together(first: _Piece, second: _Piece) -> bool:
    """Whether two pieces could be letters of one word, the first left of the second."""
    tall, low = max(first.height, second.height), min(first.height, second.height)
    gap = second.left - first.left - first.width
    base = abs(first.top + first.height - second.top - second.height)
    return (
        -2 <= gap <= 0.9 * tall
        and low >= 0.6 * tall
        and base <= max(2, 0.2 * tall)
        and abs(first.grey - second.grey) <= 20
        and max(first.width, second.width) > 3  # two bare strokes are no text
        and first.width <= 2 * first.height
        and second.width <= 3 * second.height
    )


def _is_cross(piece: _Piece, grey: Grey) -> bool:
    """A plus sign: one full row and one full column that cross away from the ends, and little else."""
    low, high = CROSS_SIDE_PX
    width, height = piece.width, piece.height
    if not (low <= width <= high and low <= height <= high and 0.6 <= width / height <= 1.67):
        return False
    rows = np.flatnonzero(piece.shape.sum(axis=1) >= 0.75 * width)
    columns = np.flatnonzero(piece.shape.sum(axis=0) >= 0.75 * height)
    for full, length in ((rows, height), (columns, width)):
        if not full.size or full[-1] - full[0] >= ARM_PX or full[0] < 2 or length - full[-1] - 1 < 2:
            return False
    rest = piece.shape.copy()
    rest[rows[0] : rows[-1] + 1] = False
    rest[:, columns[0] : columns[-1] + 1] = False
    middle, outside = _measure_edge(piece, grey)
    return int(rest.sum()) <= 0.25 * int(piece.shape.sum()) and middle - outside >= CROSS_DROP


def _find_dotted_lines(bright: Mask) -> list[Box]:
    """Boxes around dots at equal steps on a straight line; overlapping runs of dots make one box."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(bright.astype(np.uint8), connectivity=8)
    small = (stats[:, 4] <= DOT_AREA_PX) & (stats[:, 2] <= DOT_SIDE_PX) & (stats[:, 3] <= DOT_SIDE_PX)
    small[0] = False
    dots = centres[small]
    if len(dots) < DOTS_IN_LINE:
        return []
    pairs = cKDTree(dots).query_pairs(DOT_STEP_PX[1], output_type="ndarray")
    steps = dots[pairs[:, 1]] - dots[pairs[:, 0]]
    wide = np.hypot(steps[:, 0], steps[:, 1]) >= DOT_STEP_PX[0]
    start, step = dots[pairs[wide, 0]], steps[wide]
    places = np.zeros(bright.shape, np.uint8)
    at = np.rint(dots).astype(np.intp)
    places[at[:, 1], at[:, 0]] = 1
    near_dot = cv2.dilate(places, np.ones((3, 3), np.uint8)) > 0
    needed = _count_needed(2 * len(start), float(near_dot.mean()))
    found: list[Box] = []
    for direction in (1, -1):  # a pair may lie at either end of its line
        path = start[:, None] + direction * step[:, None] * np.arange(needed)[None, :, None]
        x, y = np.rint(path[..., 0]).astype(np.intp), np.rint(path[..., 1]).astype(np.intp)
        inside = (x >= 0) & (y >= 0) & (x < bright.shape[1]) & (y < bright.shape[0])
        met = near_dot[np.where(inside, y, 0), np.where(inside, x, 0)] & inside
        for line in np.flatnonzero(met.all(axis=1)):
            box = Box(int(x[line].min()), int(y[line].min()), int(x[line].max()) + 1, int(y[line].max()) + 1)
            found = _merge(found, box)
    return found


def _count_needed(lines: int, density: float) -> int:
    """How many dots a line needs, so that among so many begun by two dots few go on by chance.

    Args:
        lines: Pairs of dots that could begin a line, in both directions.
        density: Share of the pixels that lie beside a dot.
    """
    if not lines or not 0 < density < 1:
        return DOTS_IN_LINE
    return max(DOTS_IN_LINE, 2 + math.ceil(math.log(CHANCE_LINES / lines) / math.log(density)))


def _merge(boxes: list[Box], new: Box) -> list[Box]:
    """The boxes with a new one; those that it touches become one with it."""
    apart = []
    for box in boxes:
        if box.left <= new.right and new.left <= box.right and box.top <= new.bottom and new.top <= box.bottom:
            new = Box(
                min(box.left, new.left), min(box.top, new.top), max(box.right, new.right), max(box.bottom, new.bottom)
            )
        else:
            apart.append(box)
    return [*apart, new]


def _box(pieces: list[_Piece]) -> Box:
    return Box(
        min(piece.left for piece in pieces),
        min(piece.top for piece in pieces),
        max(piece.left + piece.width for piece in pieces),
        max(piece.top + piece.height for piece in pieces),
    )


def _rescale(boxes: list[Box], scale: float) -> tuple[Box, ...]:
    """Back to the pixels of the scan."""
    return tuple(Box(*(round(side / scale) for side in (box.left, box.top, box.right, box.bottom))) for box in boxes)
