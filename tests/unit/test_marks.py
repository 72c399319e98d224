"""Text and measuring marks burned into scans: found where they are drawn, not where tissue is bright."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from uploads import texture

from busi_core.data.splits import read_folds
from busi_core.imaging.phantom import simulate_scan
from busi_core.managed.marks import Marks, find_marks
from busi_core.types import Diagnosis

HELD_OUT_FOLDS = (3, 4)  # the search was tuned on folds 1 and 2 and the training-only scans


def with_words(words: str, at: tuple[int, int], *, size: int = 16, grey: int = 225) -> NDArray[np.uint8]:
    image = Image.fromarray(texture(300, 400))
    ImageDraw.Draw(image).text(at, words, fill=grey, font=ImageFont.load_default(size))
    return np.asarray(image)


@pytest.mark.parametrize("size", [12, 16, 24])
@pytest.mark.parametrize("words", ["RT UOQ", "Anna Meier 12.03.1961", "LT 5"])
def test_text_is_found_where_it_stands(words: str, size: int) -> None:
    boxes = find_marks(with_words(words, (120, 200), size=size)).text
    assert boxes
    assert min(box.left for box in boxes) >= 120 - size  # of small thin letters only some are found
    assert all(box.top >= 195 and box.bottom <= 205 + 1.3 * size for box in boxes)


def test_text_of_a_large_screenshot_is_found_at_its_own_pixels() -> None:
    large = np.zeros((1800, 2400), np.uint8)
    large[1200:1500, 1000:1400] = with_words("LEFT BREAST", (20, 100), size=48)
    (box,) = find_marks(large).text
    assert box.left == pytest.approx(1020, abs=20)
    assert box.top == pytest.approx(1300, abs=30)


def test_plus_signs_are_found() -> None:
    grey = texture(300, 400)
    for x, y in ((100, 100), (300, 180)):
        grey[y, x - 6 : x + 7] = grey[y - 6 : y + 7, x] = 220
    boxes = find_marks(grey).measuring
    assert sorted((box.left, box.top) for box in boxes) == [(94, 94), (294, 174)]


@pytest.mark.parametrize("step", [(4, 0), (0, 5), (4, 2), (3, -4)])
def test_dots_at_equal_steps_on_a_straight_line_are_found(step: tuple[int, int]) -> None:
    grey = texture(300, 400)
    for number in range(12):
        grey[150 + step[1] * number, 200 + step[0] * number] = 220
    (box,) = find_marks(grey).measuring
    assert box.left == pytest.approx(200, abs=1)
    assert box.right - box.left == pytest.approx(11 * step[0] + 1, abs=3)


@pytest.mark.parametrize("diagnosis", Diagnosis)
def test_a_scan_without_marks_has_none(diagnosis: Diagnosis) -> None:
    assert find_marks(simulate_scan(diagnosis, seed=2).grey) == Marks((), ())


def test_a_constant_image_and_the_smallest_one_have_none() -> None:
    assert find_marks(np.full((64, 64), 255, np.uint8)) == Marks((), ())
    assert find_marks(np.zeros((64, 64), np.uint8)) == Marks((), ())


@pytest.mark.realdata
def test_on_scans_that_it_was_not_tuned_on_it_is_as_good_as_the_screen_says(data_root: Path) -> None:
    """The published list notes 'text', 'overlay' (text over tissue) and 'measurement'; logos it does not note."""
    notes = read_notes(data_root / "busi" / "duplicates_pawlowska_2023.csv")
    held = [name for scan in read_folds() if scan.fold in HELD_OUT_FOLDS for name in scan.files]
    found: dict[str, Marks] = {}
    for name in held:
        path = data_root / "busi" / name.split(" ")[0] / f"{name}.png"
        if path.is_file():
            found[name] = find_marks(np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8))
    text = [name for name in found if "text" in notes[name] or notes[name] == "overlay"]
    measured = [name for name in found if "measurement" in notes[name]]
    assert (len(found), len(text), len(measured)) == (222, 27, 33)
    assert sum(bool(found[name].text) for name in text) == 27
    assert sum(bool(found[name].measuring) for name in measured) == 32
    assert sum(bool(marks.text) for marks in found.values()) == 81  # by eye all of these hold text
    assert sum(bool(found[name].measuring) for name in found if name not in measured) == 1


def read_notes(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    return {name: row["Annotation"] for row in rows for name in row["Filename"].strip("{}").split("&")}
