"""Pictures of mask and heat map: one colour for one value, pixels and nothing else in the file."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from busi_core.imaging.overlay import (
    DOUBT_OPACITY,
    DOUBT_RGB,
    FILL_OPACITY,
    HEAT_STOPS,
    LESION_RGB,
    caption,
    draw_doubt,
    draw_heatmap,
    draw_mask,
)
from busi_core.report_pdf.fonts import font_files, printable
from busi_core.types import Mask, Rgb

MAPS = Path(__file__).parents[2] / "pages/components/viewer/maps.js"
FONT, _ = font_files()


@pytest.fixture
def scan() -> Rgb:
    return np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)


@pytest.fixture
def lesion() -> Mask:
    mask = np.zeros((80, 100), np.bool_)
    mask[20:50, 30:70] = True
    return mask


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_an_outline_leaves_the_scan_around_it_alone_and_tints_the_inside(scan: Rgb, lesion: Mask) -> None:
    drawn = draw_mask(scan, lesion)
    assert np.array_equal(drawn[:18], scan[:18])
    assert np.array_equal(drawn[:, 72:], scan[:, 72:])
    inside = np.s_[24:46, 34:66]
    expected = scan[inside] * (1 - FILL_OPACITY) + np.array(LESION_RGB) * FILL_OPACITY
    np.testing.assert_allclose(drawn[inside], expected, atol=0.51)
    assert (drawn[20, 30:70] == LESION_RGB).all()
    assert (drawn[20:50, 69] == LESION_RGB).all()


def test_a_heat_map_is_half_scan_and_half_colour_to_the_last_bit(scan: Rgb) -> None:
    evidence = np.random.default_rng(1).random(scan.shape[:2], dtype=np.float32)
    evidence[:20] = 0
    drawn = draw_heatmap(scan, evidence)
    assert np.array_equal(drawn[:20], scan[:20])
    colours = judge_colours()[np.rint(evidence[20:] * np.float32(255)).astype(np.uint8)]
    assert np.array_equal(drawn[20:], np.rint((scan[20:].astype(np.float64) + colours) / 2))


def judge_colours() -> Rgb:
    """(256, 3) colours between the stops, as numpy puts them there."""
    stops = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in HEAT_STOPS], np.float64)
    places = np.linspace(0, 255, len(stops))
    return np.stack([np.rint(np.interp(np.arange(256), places, stops[:, c])) for c in range(3)], 1).astype(np.uint8)


def test_a_hole_is_outlined_and_not_tinted(scan: Rgb, lesion: Mask) -> None:
    lesion[30:40, 45:55] = False
    drawn = draw_mask(scan, lesion)
    assert np.array_equal(drawn[33:37, 48:52], scan[33:37, 48:52])


def test_an_empty_mask_draws_nothing(scan: Rgb) -> None:
    assert np.array_equal(draw_mask(scan, np.zeros((80, 100), np.bool_)), scan)


def test_what_only_some_readings_call_lesion_is_amber_and_only_what_all_do_is_outlined(scan: Rgb, lesion: Mask) -> None:
    possible = np.zeros_like(lesion)
    possible[10:60, 20:80] = True
    drawn = draw_doubt(scan, lesion, possible)
    assert np.array_equal(drawn[:10], scan[:10])
    assert np.array_equal(drawn[:, 80:], scan[:, 80:])
    for around in (np.s_[10:18, 20:80], np.s_[52:60, 20:80], np.s_[18:52, 72:80]):
        expected = scan[around] * (1 - DOUBT_OPACITY) + np.array(DOUBT_RGB) * DOUBT_OPACITY
        np.testing.assert_allclose(drawn[around], expected, atol=0.51)
    assert np.array_equal(drawn[20:50, 30:70], draw_mask(scan, lesion)[20:50, 30:70])


def test_drawing_leaves_the_scan_it_was_given_unchanged(scan: Rgb, lesion: Mask) -> None:
    before = scan.copy()
    draw_mask(scan, lesion)
    draw_heatmap(scan, lesion.astype(np.float32))
    assert np.array_equal(scan, before)


def test_without_evidence_the_scan_is_left_as_it_is(scan: Rgb) -> None:
    evidence = np.zeros((80, 100), np.float32)
    evidence[40:, :] = 0.7
    drawn = draw_heatmap(scan, evidence)
    assert np.array_equal(drawn[:40], scan[:40])
    assert not np.array_equal(drawn[40:], scan[40:])


def test_one_value_is_one_colour_whatever_lies_beside_it(scan: Rgb) -> None:
    """Unlike grad-cam's own overlay, which scales each picture by its brightest pixel."""
    scan[:] = 90
    quiet, loud = np.full((80, 100), 0.3, np.float32), np.full((80, 100), 0.3, np.float32)
    loud[0, 0] = 1
    assert np.array_equal(draw_heatmap(scan, quiet)[5, 5], draw_heatmap(scan, loud)[5, 5])


def test_the_colours_are_those_that_matplotlib_puts_between_the_stops() -> None:
    judge = LinearSegmentedColormap.from_list("heat", list(zip(np.linspace(0, 1, 8), HEAT_STOPS, strict=True)), 256)
    evidence = np.linspace(1 / 255, 1, 255, dtype=np.float32)[None]
    black = np.zeros((1, 255, 3), np.uint8)
    drawn = draw_heatmap(black, evidence)[0]
    expected = judge(np.arange(1, 256))[:, :3] * 255 / 2
    np.testing.assert_allclose(drawn, expected, atol=1.01)


def test_the_colours_are_those_of_the_viewer() -> None:
    source = MAPS.read_text(encoding="utf-8")
    (listed,) = re.findall(r"INFERNO = \[([^\]]+)\]", source)
    assert tuple(re.findall(r'"(#[0-9a-f]{6})"', listed)) == HEAT_STOPS


@pytest.mark.parametrize(
    "lines",
    [("one",), ("one", "two", "three"), ("a line far too long for so small a scan " * 4,), ("a name\nwith a break",)],
)
def test_a_caption_stands_below_the_scan_and_covers_none_of_it(scan: Rgb, lines: tuple[str, ...]) -> None:
    captioned = caption(scan, lines, FONT)
    assert captioned.dtype == np.uint8
    assert captioned.shape[1:] == scan.shape[1:]
    assert np.array_equal(captioned[: scan.shape[0]], scan)
    strip = captioned[scan.shape[0] :]
    assert len(strip) >= 12 * len(lines)
    assert strip.any(), "no letter was drawn"


def test_no_part_of_a_long_name_is_lost_below_the_scan(scan: Rgb) -> None:
    """Its end tells scan A from scan B; a word of letters without a space is broken too."""
    begun = "patient " * 6 + "x" * 60
    one, other = (caption(scan, (f"{begun} scan {end}.png",), FONT) for end in "AB")
    assert len(one) == len(other) > len(caption(scan, (begun[:50],), FONT))
    assert (one != other).any()
    assert not one[scan.shape[0] :, -2:].any(), "nothing runs off the edge"


def test_letters_beyond_english_are_drawn_and_not_boxes(scan: Rgb) -> None:
    drawn = [caption(scan, (printable(letter),), FONT)[scan.shape[0] :].tobytes() for letter in "ßÄçéøшΩא"]
    assert len(set(drawn)) == len(drawn)
