"""The comparison in a real browser: figures that follow the slider, the split line, blinking, correcting a mask."""

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_server import REPOSITORY, start_server
from files import read_grey
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from shown import Shown
from versions import write_version

from busi_core import Diagnosis, simulate_scan
from busi_core.corrections import AFTER_FILE, SCAN_FILE, read_corrections
from busi_core.data.records import read_busi, read_truth
from busi_core.metrics.segmentation import count_overlap
from busi_core.registry import put_into_service

pytestmark = pytest.mark.browser

HARNESS = Path(__file__).with_name("compare_harness.py")
PAGE = Path(__file__).with_name("compare_page.py")
FIGURES = ("dice", "iou", "precision", "recall")
HEAR_MODULES = """
    window.modules = [];
    const create = URL.createObjectURL;
    URL.createObjectURL = (blob) => {
        const url = create(blob);
        if (blob.type === "text/javascript") window.modules.push(url);
        return url;
    };
"""
REAL_SCANS = ("benign/benign (195).png", "benign/benign (54).png", "malignant/malignant (12).png")


class Compared(Shown):
    """One page with the comparison on it."""

    def ready(self) -> "Compared":
        self.page.wait_for_selector('[data-testid="compare"][data-ready]', timeout=60_000)
        self.settle()
        self.sent = 0
        return self

    @property
    def viewer(self) -> Locator:
        return self.page.get_by_test_id("compare")

    def said(self) -> dict[str, Any]:
        """What the page knows and what the library measures at its cut-off."""
        text = self.page.get_by_text("said {").inner_text()
        answer: dict[str, Any] = json.loads(text.removeprefix("said "))
        return answer

    def shown_figures(self, reading: int = 0, names: tuple[str, ...] = (*FIGURES, "hd95")) -> dict[str, float | None]:
        block = self.viewer.locator(".reading").nth(reading)
        values = {name: block.locator(f"[data-figure={name}]").get_attribute("data-value") for name in names}
        return {name: float(value) if value not in (None, "", "null") else None for name, value in values.items()}

    def canvas(self, pane: str) -> bytes:
        return self.page.get_by_test_id(f"stage-{pane}").screenshot()

    def point(self, pane: str, across: float, down: float) -> tuple[float, float]:
        """A place of a pane, in shares of it."""
        box = self.page.get_by_test_id(f"stage-{pane}").bounding_box()
        assert box is not None
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*self.point("edit", *start))
        mouse.down()
        mouse.move(*self.point("edit", *end), steps=12)
        mouse.up()

    def saved_mask(self) -> tuple[str, NDArray[np.uint8]]:
        with self.page.expect_download() as caught:
            self.viewer.get_by_role("button", name="Save PNG").click()
        content = Path(caught.value.path()).read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.format, picture.mode, picture.info) == ("PNG", "L", {})
            return caught.value.suggested_filename, np.array(picture)

    @property
    def unsaved(self) -> Locator:
        return self.viewer.locator("[data-part=edit-unsaved]")

    def own_pixels(self) -> int:
        return int("".join(filter(str.isdigit, self.viewer.locator("[data-figure=pixels]").inner_text())))


@pytest.fixture
def show(chromium_page: Callable[..., Page], streamlit_server: Callable[[Path], str]) -> Callable[..., Compared]:
    def open_case(*, viewport: tuple[int, int] = (1440, 900), touch: bool = False, **asked: str) -> Compared:
        return Compared(chromium_page(viewport, touch=touch), streamlit_server(HARNESS), **asked).ready()

    return open_case


def assert_equal_to_the_library(shown: Compared, reading: int = 0) -> None:
    expected = shown.said()["figures"][reading]
    for name, value in shown.shown_figures(reading).items():
        assert value == pytest.approx(expected[name], abs=1e-6), name


def check_live_figures(shown: Compared) -> None:
    """Drag: other figures and nothing on the wire. Let go: one message, and the library says the same."""
    assert_equal_to_the_library(shown)
    before = shown.shown_figures()
    for share in (0.2, 0.65, 0.9):
        release = shown.drag(shown.slider("[data-cutoff='0']"), [0.43, share])
        shown.page.wait_for_timeout(200)
        held = shown.shown_figures()
        assert held != before
        assert held["hd95"] is None  # on release
        sent = shown.sent
        release()
        shown.settle()
        assert shown.sent == sent + 1
        after = shown.shown_figures()
        assert {name: after[name] for name in FIGURES} == {name: held[name] for name in FIGURES}
        assert_equal_to_the_library(shown)
        before = after


def test_figures_follow_the_slider_and_are_the_librarys(show: Callable[..., Compared]) -> None:
    shown = show()
    check_live_figures(shown)
    shown.viewer.get_by_text("Model's cut-off").click()
    shown.settle()
    assert shown.said()["figures"][0]["cutoff"] == 0.437
    assert_equal_to_the_library(shown)


@pytest.mark.realdata
@pytest.mark.parametrize("case", REAL_SCANS)
def test_figures_on_real_scans_are_the_librarys(show: Callable[..., Compared], data_root: Path, case: str) -> None:
    if not (data_root / "busi" / case).is_file():
        pytest.skip(f"{case} is not among the scans at hand")
    check_live_figures(show(case=case))


def test_figures_above_four_megapixels_are_those_of_all_pixels(show: Callable[..., Compared]) -> None:
    shown = show(side="1800")
    assert_equal_to_the_library(shown)
    expect(shown.viewer.locator("button[data-mode=edit]")).to_be_disabled()
    shown.drag(shown.slider("[data-cutoff='0']"), [0.43, 0.7])()
    shown.settle()
    expect(shown.viewer.locator("[data-figure=hd95]").first).not_to_have_class("stale", timeout=30_000)
    assert shown.said()["figures"][0]["cutoff"] > 0.5
    assert_equal_to_the_library(shown)


def test_a_normal_breast_has_no_figures_rather_than_zeros(show: Callable[..., Compared]) -> None:
    shown = show(case="normal")
    assert shown.shown_figures()["recall"] is None
    assert shown.shown_figures()["hd95"] is None
    expect(shown.viewer.locator(".reading [data-figure=recall]").first).to_have_text("n/a")


def test_the_split_line_is_dragged_and_moved_by_keys(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("3")
    divider = shown.page.get_by_test_id("divider")
    start = int(divider.get_attribute("aria-valuenow") or 0)
    box = divider.bounding_box()
    assert box is not None
    before = shown.canvas("split")
    mouse = shown.page.mouse
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(*shown.point("split", 0.25, 0.5), steps=10)
    mouse.up()
    assert int(divider.get_attribute("aria-valuenow") or 0) == 25 != start
    assert shown.canvas("split") != before
    divider.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "27"
    assert shown.viewer.locator("[data-part=zoom]").inner_text() == "100 %"
    assert shown.sent == 0


def test_b_blinks_between_truth_and_prediction_and_stops(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("b")
    side = shown.viewer.locator("[data-part=side-left]")
    expect(side).to_have_text("Truth")
    truth = shown.canvas("split")
    expect(side).to_have_text("Prediction", timeout=3000)
    until = time.monotonic() + 20  # a busy machine may take the picture after the next swing
    while shown.canvas("split") == truth:
        assert time.monotonic() < until
    expect(side).to_have_text("Truth", timeout=3000)
    shown.page.keyboard.press("b")
    expect(shown.viewer).to_have_attribute("data-mode", "panels")
    assert shown.sent == 0


def test_h_hides_every_mask_and_says_so(show: Callable[..., Compared]) -> None:
    """Four bare panes would look like 'nothing outlined'."""
    shown = show()
    note = shown.viewer.get_by_text("MASKS HIDDEN")
    expect(note).to_be_hidden()
    shown.viewer.press("h")
    expect(note).to_be_visible()
    shown.settle()
    bare = shown.canvas("prediction")
    shown.page.keyboard.press("h")
    expect(note).to_be_hidden()
    shown.settle()
    assert shown.canvas("prediction") != bare


def test_who_wants_less_motion_turns_by_hand(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.page.emulate_media(reduced_motion="reduce")
    side = shown.viewer.locator("[data-part=side-left]")
    shown.viewer.press("b")
    shown.page.wait_for_timeout(1600)
    expect(side).to_have_text("Truth")
    shown.page.keyboard.press("b")
    expect(side).to_have_text("Prediction")
    shown.page.keyboard.press("b")
    expect(shown.viewer).to_have_attribute("data-mode", "panels")


def test_zoom_and_pan_act_on_all_panels(show: Callable[..., Compared]) -> None:
    shown = show()
    panes = ("scan", "truth", "prediction", "heat")
    before = [shown.canvas(pane) for pane in panes]
    shown.page.get_by_test_id("stage-truth").hover()
    shown.page.mouse.wheel(0, -600)
    shown.settle()
    zoomed = [shown.canvas(pane) for pane in panes]
    assert all(one != other for one, other in zip(before, zoomed, strict=True))
    shown.page.mouse.down()
    shown.page.mouse.move(*shown.point("truth", 0.3, 0.3), steps=6)
    shown.page.mouse.up()
    assert all(one != other for one, other in zip(zoomed, [shown.canvas(pane) for pane in panes], strict=True))
    shown.page.keyboard.press("0")
    expect(shown.viewer.locator("[data-part=zoom]")).to_have_text("100 %")
    assert shown.sent == 0


def test_a_click_on_the_curve_sets_the_cutoff(show: Callable[..., Compared]) -> None:
    shown = show()
    curve = shown.page.get_by_test_id("curve")
    assert "highest Dice" in (curve.get_attribute("aria-label") or "")
    box = curve.bounding_box()
    assert box is not None
    shown.page.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 20)
    shown.settle()
    assert shown.said()["figures"][0]["cutoff"] == pytest.approx(0.7, abs=0.02)
    assert_equal_to_the_library(shown)


def test_two_versions_have_their_own_cutoffs_and_figures(show: Callable[..., Compared]) -> None:
    shown = show(versions="2")
    shown.viewer.press("4")
    for reading in (0, 1):
        assert_equal_to_the_library(shown, reading)
    first = shown.shown_figures(0)
    shown.drag(shown.slider("[data-cutoff='1']"), [0.5, 0.8])()
    shown.settle()
    assert shown.shown_figures(0) == first
    assert_equal_to_the_library(shown, 1)
    assert shown.canvas("prediction") != shown.canvas("other")


def test_brush_undo_redo_and_save_give_the_pixels_that_are_seen(show: Callable[..., Compared]) -> None:
    shown = show()
    truth = simulate_scan(Diagnosis.MALIGNANT, seed=4, height=448, width=560).mask
    shown.viewer.press("e")
    shown.viewer.get_by_role("button", name="From truth").click()
    name, start = shown.saved_mask()
    assert name == "benign (1)_mask.png"
    assert np.array_equal(start > 0, truth)
    assert set(np.unique(start)) <= {0, 255}
    # A stroke adds; its undo takes exactly that away; its redo brings it back.
    shown.stroke((0.4, 0.2), (0.6, 0.25))
    _, painted = shown.saved_mask()
    assert (painted > 0).sum() > (start > 0).sum()
    assert not ((start > 0) & (painted == 0)).any()
    assert shown.own_pixels() == (painted > 0).sum()
    shown.page.keyboard.press("Control+z")
    assert np.array_equal(shown.saved_mask()[1], start)
    shown.page.keyboard.press("Control+Shift+z")
    assert np.array_equal(shown.saved_mask()[1], painted)
    # The figures of the reader's mask are the library's.
    counts = count_overlap(painted > 0, truth)
    own = shown.shown_figures(1, FIGURES)
    for figure in FIGURES:
        assert own[figure] == pytest.approx(getattr(counts, figure), abs=1e-6)
    assert shown.sent == 0


def test_eraser_and_polygon(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("e")
    shown.viewer.get_by_role("button", name="From nothing").click()
    assert shown.own_pixels() == 0
    shown.page.keyboard.press("3")
    corners = [(0.4, 0.3), (0.6, 0.3), (0.6, 0.6), (0.4, 0.6)]
    for corner in corners:
        shown.page.mouse.click(*shown.point("edit", *corner))
        shown.page.wait_for_timeout(350)  # two clicks in a hurry are a double click
    shown.page.keyboard.press("Enter")
    _, square = shown.saved_mask()
    rows, columns = np.flatnonzero((square > 0).any(axis=1)), np.flatnonzero((square > 0).any(axis=0))
    assert (square > 0).sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    box = shown.page.get_by_test_id("stage-edit").bounding_box()
    assert box is not None
    scale = min(box["width"] / 560, box["height"] / 448)
    assert len(columns) == pytest.approx(0.2 * box["width"] / scale, abs=2)
    assert len(rows) == pytest.approx(0.3 * box["height"] / scale, abs=2)
    shown.page.keyboard.press("2")
    shown.stroke((0.45, 0.45), (0.55, 0.45))
    _, erased = shown.saved_mask()
    assert (erased > 0).sum() < (square > 0).sum()
    assert not ((erased > 0) & (square == 0)).any()


def test_the_brush_is_moved_put_down_and_lifted_by_keys_alone(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("e")
    shown.viewer.get_by_role("button", name="From nothing").click()
    hand = shown.page.get_by_test_id("hand")
    hand.focus()
    assert "column 280 of 560, row 224 of 448: lifted" in (hand.get_attribute("aria-label") or "")
    for key in (" ", "ArrowRight", "ArrowRight", " "):
        hand.press(key)
    _, painted = shown.saved_mask()
    rows, columns = np.flatnonzero((painted > 0).any(axis=1)), np.flatnonzero((painted > 0).any(axis=0))
    assert (rows[0], rows[-1], columns[0]) == (215, 233, 271)  # a brush of 18 pixels about the middle
    assert columns[-1] == 271 + 18 + 2 * 5  # two steps of half its radius, rounded up
    hand.focus()
    hand.press("ArrowDown")  # lifted: paints nothing
    shown.page.keyboard.press("Control+z")
    assert shown.own_pixels() == 0
    # With the polygon, Space sets corners.
    shown.page.keyboard.press("3")
    for key in (" ", *["ArrowRight"] * 8, " ", *["ArrowDown"] * 8, " ", "Enter"):
        hand.press(key)
    assert shown.own_pixels() > 0
    assert shown.sent == 0


def test_the_brush_of_the_keys_begins_anew_in_the_middle_of_another_scan(show: Callable[..., Compared]) -> None:
    """Left where it was, it lay outside a smaller scan."""
    shown = show(side="448,96")
    shown.viewer.press("e")
    hand = shown.page.get_by_test_id("hand")
    hand.focus()
    for key in (" ", *["ArrowRight"] * 6, " "):
        hand.press(key)
    drawn = shown.own_pixels()
    assert "column 310 of 560" in (hand.get_attribute("aria-label") or "")
    shown.page.get_by_text("of side 96").click()
    shown.settle()
    begun = shown.own_pixels()
    hand.focus()
    assert "column 60 of 120, row 48 of 96: lifted" in (hand.get_attribute("aria-label") or "")
    hand.press("ArrowRight")
    assert shown.own_pixels() == begun
    shown.page.get_by_text("of side 448").click()
    shown.settle()
    assert shown.own_pixels() == drawn


def test_a_stroke_of_the_keys_ends_when_the_mask_is_left(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("e")
    shown.viewer.get_by_role("button", name="From nothing").click()
    errors: list[str] = []
    shown.page.on("pageerror", lambda error: errors.append(str(error)))
    hand = shown.page.get_by_test_id("hand")
    hand.focus()
    for key in (" ", "ArrowRight", "e"):
        hand.press(key)
    shown.page.keyboard.press("e")
    drawn = shown.own_pixels()
    assert drawn > 0
    shown.page.keyboard.press("Control+z")
    assert shown.own_pixels() == 0
    assert not errors


def test_a_correction_begins_from_the_prediction_that_is_seen_and_says_its_cutoff(
    show: Callable[..., Compared],
) -> None:
    """An untouched draft of another cut-off would be kept as a correction that nobody drew."""
    shown = show()
    shown.viewer.press("e")
    first = shown.own_pixels()
    shown.viewer.press("e")
    shown.drag(shown.slider("[data-cutoff='0']"), [0.43, 0.9])()
    shown.settle()
    shown.viewer.press("e")
    begun = shown.own_pixels()
    assert begun != first
    shown.stroke((0.4, 0.2), (0.6, 0.25))
    drawn = shown.own_pixels()
    assert drawn != begun
    shown.viewer.press("e")
    shown.drag(shown.slider("[data-cutoff='0']"), [0.9, 0.43])()
    shown.settle()
    shown.viewer.press("e")
    assert shown.own_pixels() == drawn  # what was drawn stays
    shown.viewer.get_by_role("button", name="Keep for retraining…").click()
    shown.settle()
    assert shown.said()["edited"]["pixels"] == drawn
    assert shown.said()["edited"]["cutoff"] > 0.7  # where it began, not where the slider stands now


def test_space_works_a_checkbox_while_a_mask_is_corrected(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("e")
    box = shown.viewer.get_by_label("Fill the masks")
    before = box.is_checked()
    box.focus()
    shown.page.keyboard.press("Space")
    assert box.is_checked() != before


def test_a_mask_handed_over_reaches_the_page_whole(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("e")
    shown.stroke((0.4, 0.2), (0.6, 0.25))
    pixels = shown.own_pixels()
    shown.viewer.get_by_role("button", name="Keep for retraining…").click()
    shown.settle()
    assert shown.said()["edited"] == {"pixels": pixels, "cutoff": 0.437}


@pytest.mark.realdata
def test_a_corrected_mask_of_a_real_scan_has_its_size_and_its_truth(
    show: Callable[..., Compared], data_root: Path
) -> None:
    record = next(one for one in read_busi(data_root / "busi") if len(one.masks) > 1)
    with Image.open(record.image) as picture:
        width, height = picture.size
    shown = show(case=f"{record.diagnosis.value}/{record.image.name}")
    shown.viewer.press("e")
    shown.viewer.get_by_role("button", name="From truth").click()
    _, saved = shown.saved_mask()
    assert np.array_equal(saved > 0, read_truth(record, height, width))


def test_a_correction_that_is_not_saved_outlasts_many_others(show: Callable[..., Compared]) -> None:
    sides = [str(side) for side in range(96, 106)]
    shown = show(side=",".join(sides))
    shown.viewer.press("e")
    drawn = {}
    for side in sides:
        shown.page.get_by_text(f"of side {side}").click()
        shown.settle()
        shown.stroke((0.45, 0.2), (0.55, 0.25))
        drawn[side] = shown.own_pixels()
    for side in sides:
        shown.page.get_by_text(f"of side {side}").click()
        shown.settle()
        assert shown.own_pixels() == drawn[side]
        expect(shown.unsaved).to_have_text("not saved yet")


def test_a_mask_is_called_unsaved_exactly_while_it_is_another_than_begun_or_saved(
    show: Callable[..., Compared],
) -> None:
    shown = show()
    tag = shown.viewer.get_by_text("CORRECTION NOT SAVED")
    shown.viewer.press("e")
    expect(shown.unsaved).to_have_text("")
    expect(shown.viewer.get_by_role("button", name="Discard")).to_be_disabled()
    begun = shown.own_pixels()
    shown.stroke((0.4, 0.2), (0.6, 0.25))
    drawn = shown.own_pixels()
    expect(shown.unsaved).to_have_text("not saved yet")
    expect(tag).to_be_hidden()
    shown.viewer.press("e")
    expect(tag).to_be_visible()
    shown.viewer.press("e")
    for keys, said in (("Control+z", ""), ("Control+Shift+z", "not saved yet")):
        shown.page.keyboard.press(keys)
        expect(shown.unsaved).to_have_text(said)
    shown.saved_mask()
    expect(shown.unsaved).to_have_text("")
    shown.page.keyboard.press("Control+z")
    expect(shown.unsaved).to_have_text("not saved yet")  # what was saved is another mask
    shown.page.keyboard.press("Control+Shift+z")
    shown.stroke((0.4, 0.1), (0.6, 0.1))
    shown.viewer.get_by_role("button", name="Discard").click()
    expect(shown.unsaved).to_have_text("")
    assert shown.own_pixels() == begun
    for _ in range(2):
        shown.page.keyboard.press("Control+z")
    assert shown.own_pixels() == drawn
    # More strokes than can be undone: undone to the end, it is still not the mask that it began from.
    shown.viewer.get_by_role("button", name="From nothing").click()
    for place in range(101):
        shown.page.mouse.click(*shown.point("edit", 0.3 + 0.004 * place, 0.3 + 0.002 * place))
    for _ in range(101):
        shown.page.keyboard.press("Control+z")
    expect(shown.viewer.get_by_role("button", name="Undo")).to_be_disabled()
    expect(shown.unsaved).to_have_text("not saved yet")
    assert shown.sent == 0


def test_the_browser_asks_before_a_correction_that_is_not_saved_is_lost_with_the_tab(
    show: Callable[..., Compared],
) -> None:
    shown = show()
    asked: list[str] = []
    shown.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))  # stay
    shown.viewer.press("e")
    shown.stroke((0.4, 0.2), (0.6, 0.25))
    drawn = shown.own_pixels()
    shown.page.close(run_before_unload=True)
    shown.page.wait_for_timeout(500)
    assert asked == ["beforeunload"]
    assert shown.own_pixels() == drawn
    shown.saved_mask()
    shown.page.close(run_before_unload=True)
    shown.page.wait_for_event("close")
    assert asked == ["beforeunload"]


def test_a_discarded_correction_begins_anew_from_the_prediction_that_is_seen(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.viewer.press("e")
    shown.stroke((0.4, 0.2), (0.6, 0.25))
    shown.viewer.get_by_role("button", name="Discard").click()
    first = shown.own_pixels()
    shown.viewer.press("e")
    shown.drag(shown.slider("[data-cutoff='0']"), [0.43, 0.9])()
    shown.settle()
    shown.viewer.press("e")
    assert shown.own_pixels() != first
    expect(shown.unsaved).to_have_text("")


@pytest.mark.parametrize("name", ["<script>window.hurt = 1</script>.png", "![x](https://example.org/x.png).png"])
def test_a_file_name_is_shown_as_text(show: Callable[..., Compared], name: str) -> None:
    shown = show(name=name)
    expect(shown.viewer.locator("[data-part=name]")).to_have_text(name)
    assert shown.viewer.locator("script, img").count() == 0
    assert shown.page.evaluate("window.hurt") is None


@pytest.mark.parametrize("width", [320, 720, 1000], ids="{} px".format)
def test_at_every_width_the_head_names_the_scan_and_says_what_it_taught(
    show: Callable[..., Compared], width: int
) -> None:
    """720 px are a screen of 1440 at 200 %."""
    shown = show(viewport=(width, 800), taught="2026.1-test")
    expect(shown.viewer.get_by_text("TAUGHT THE MODEL")).to_be_visible()
    for part in ("[data-part=name]", "[data-part=taught]"):
        words = shown.viewer.locator(part)
        box, head = words.bounding_box(), shown.viewer.locator(".who").bounding_box()
        assert box is not None
        assert head is not None
        assert box["width"] > 60, part
        assert box["x"] + box["width"] <= head["x"] + head["width"] + 1, part


def test_handing_a_mask_over_leaves_the_full_screen_behind_which_the_page_would_ask(
    show: Callable[..., Compared],
) -> None:
    shown = show()
    shown.page.keyboard.press("e")
    shown.viewer.get_by_role("button", name="Full screen").click()
    shown.page.wait_for_function("document.fullscreenElement")
    shown.viewer.get_by_role("button", name="Keep for retraining…").click()
    shown.settle()
    assert shown.said()["edited"]
    assert shown.page.evaluate("document.fullscreenElement") is None


def test_the_split_line_and_the_brush_say_where_they_are(show: Callable[..., Compared]) -> None:
    shown = show()
    shown.page.keyboard.press("3")
    divider = shown.page.get_by_test_id("divider")
    divider.focus()
    shown.page.keyboard.press("Home")
    expect(divider).to_have_attribute("aria-valuetext", "truth on the left 0 %")
    shown.page.keyboard.press("e")
    expect(shown.viewer.locator("[data-brush]")).to_have_attribute("aria-valuetext", "18 px")
    assert shown.viewer.get_by_role("toolbar").count() == 0  # its arrows would be its own, and here they step


def test_every_picture_says_what_it_shows(show: Callable[..., Compared]) -> None:
    shown = show()
    labels = shown.viewer.locator("canvas").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    assert len(labels) == len(set(labels)) == 8
    assert all(labels)


def test_on_a_phone_the_figures_come_first_and_touch_targets_are_large(show: Callable[..., Compared]) -> None:
    shown = show(viewport=(390, 844), touch=True)
    slider, scan = (
        shown.slider("[data-cutoff='0']").bounding_box(),
        shown.page.get_by_test_id("stage-scan").bounding_box(),
    )
    assert slider is not None
    assert scan is not None
    assert slider["y"] < scan["y"]
    assert scan["width"] > 330
    for button in shown.viewer.locator(".tools button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 36
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_a_phone_the_difference_comes_before_what_it_is_of(show: Callable[..., Compared]) -> None:
    shown = show(viewport=(390, 844), touch=True)
    shown.viewer.get_by_role("button", name="Difference").click()
    panes = ("difference", "truth", "prediction")
    boxes = [shown.page.get_by_test_id(f"stage-{pane}").bounding_box() for pane in panes]
    down = [box["y"] for box in boxes if box]
    assert len(down) == 3
    assert down == sorted(down)


def test_a_screen_reader_hears_the_class_that_each_version_gives(show: Callable[..., Compared]) -> None:
    heard = show(versions="2").viewer.locator(".who[aria-live=polite] [data-part=said]")
    class_and_flag = "malignant, flagged for malignancy"
    expect(heard).to_have_text(f"2026.1-test: {class_and_flag}; 2026.2-test: {class_and_flag}")


@pytest.mark.parametrize(
    ("versions", "taught", "said"),
    [
        ("1", "2026.1-test", "TAUGHT THE MODEL"),
        ("2", "2026.2-test", "TAUGHT 2026.2-test"),
        ("2", "2026.1-test,2026.2-test", "TAUGHT BOTH MODELS"),
        ("2", "another", ""),
    ],
)
def test_the_head_says_which_model_the_scan_taught(
    show: Callable[..., Compared], versions: str, taught: str, said: str
) -> None:
    tag = show(versions=versions, taught=taught).viewer.locator("[data-part=taught]")
    if said:
        expect(tag).to_have_text(said)
    expect(tag).to_be_visible(visible=bool(said))


def test_an_answer_withheld_is_no_lesion_of_no_size(show: Callable[..., Compared]) -> None:
    shown = show(withheld="1")
    expect(shown.viewer.locator("[data-part=prediction-fact]")).to_have_text("no answer")
    expect(shown.viewer.locator("[data-part=heat-of]")).to_have_text("none")


def test_an_answer_withheld_is_not_held_against_the_reference(show: Callable[..., Compared]) -> None:
    """U22."""
    shown = show(withheld="1", truth="1")
    expect(shown.viewer.locator("[data-part=prediction-fact]")).to_have_text("no answer")
    for name in (*FIGURES, "hd95"):
        expect(shown.viewer.locator(f"[data-figure={name}]").first).to_have_text("n/a")
    expect(shown.viewer.locator("[data-part=curve-block]")).to_be_hidden()
    expect(shown.viewer.locator("[data-part=legend]")).to_be_hidden()


@pytest.mark.parametrize("viewport", [(1440, 900), (390, 844)], ids=["desk", "phone"])
def test_nothing_in_the_head_lies_over_another_when_the_scan_taught_the_model(
    show: Callable[..., Compared], viewport: tuple[int, int]
) -> None:
    shown = show(
        viewport=viewport,
        taught="2026.1-test,2026.2-test",
        versions="2",
        name="a name that is much longer than any head is.png",
    )
    expect(shown.viewer.get_by_text("TAUGHT BOTH MODELS")).to_be_visible()
    parts = shown.viewer.locator(".bar button:visible, .bar .tag:visible, .bar .position:visible")
    boxes = [box for part in parts.all() if (box := part.bounding_box())]
    assert len(boxes) > 8
    for number, one in enumerate(boxes):
        assert one["x"] >= 0
        assert one["x"] + one["width"] <= viewport[0]
        for other in boxes[number + 1 :]:
            across = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
            down = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
            assert min(across, down) <= 1, (one, other)


def correct_on_a_phone(show: Callable[..., Compared]) -> tuple[Compared, Callable[..., None]]:
    """A mask begun from nothing, and fingers for it: what they do, and where each of them is."""
    shown = show(viewport=(390, 844), touch=True)
    shown.viewer.locator("button[data-mode=edit]").click()
    shown.viewer.get_by_role("button", name="From nothing").click()
    shown.page.get_by_test_id("stage-edit").scroll_into_view_if_needed()
    touch = shown.page.context.new_cdp_session(shown.page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    return shown, fingers


def test_two_fingers_that_move_the_view_set_no_corner(show: Callable[..., Compared]) -> None:
    shown, fingers = correct_on_a_phone(show)
    shown.viewer.locator("button[data-tool=polygon]").click()
    x, y = shown.point("edit", 0.5, 0.5)

    def draw_triangle() -> int:
        for corner in ((x, y - 40), (x + 40, y + 30), (x - 40, y + 30), (x, y - 40)):
            fingers("touchStart", corner)
            fingers("touchEnd")
            shown.page.wait_for_timeout(400)  # two taps in a hurry are a double tap
        return shown.own_pixels()

    drawn = draw_triangle()
    assert drawn > 0
    shown.viewer.get_by_role("button", name="Undo").click()
    assert shown.own_pixels() == 0
    fingers("touchStart", (x + 90, y))
    fingers("touchStart", (x + 90, y), (x + 20, y + 60))
    fingers("touchEnd")
    assert draw_triangle() == drawn


def test_a_finger_paints_and_two_fingers_move_the_view(show: Callable[..., Compared]) -> None:
    shown, fingers = correct_on_a_phone(show)
    x, y = shown.point("edit", 0.5, 0.5)
    fingers("touchStart", (x - 40, y))
    for by in range(0, 80, 8):
        fingers("touchMove", (x - 40 + by, y))
    fingers("touchEnd")
    painted = shown.own_pixels()
    assert painted > 0
    fingers("touchStart", (x - 30, y))
    fingers("touchStart", (x - 30, y), (x + 30, y))
    for spread in range(30, 91, 6):
        fingers("touchMove", (x - spread, y), (x + spread, y))
    fingers("touchEnd")
    shown.settle()
    assert shown.own_pixels() == painted
    expect(shown.viewer.locator("[data-part=zoom]")).not_to_have_text("100 %")


class App(Compared):
    """The whole app, opened at Compare."""

    def __init__(self, page: Page, address: str) -> None:
        page.add_init_script(HEAR_MODULES)
        super().__init__(page, address)
        page.get_by_text("Read a breast ultrasound scan").wait_for(timeout=120_000)
        self.go_to("Compare")
        page.get_by_role("tab", name="Simulated").click(timeout=60_000)
        self.take("Malignant")

    def take(self, simulated: str) -> None:
        self.page.get_by_role("button", name=simulated, exact=True).click()
        self.ready()

    def go_to(self, name: str) -> None:
        self.page.get_by_test_id("stTopNavSection").first.click()
        self.page.get_by_test_id("stTopNavDropdownLink").filter(has_text=name).click()
        self.settle()

    def leave_and_come_back(self) -> None:
        self.go_to("Batch")
        expect(self.page.get_by_text("Read many scans at once")).to_be_visible(timeout=60_000)
        expect(self.viewer).to_have_count(0)
        self.go_to("Compare")
        self.ready()

    def erase(self) -> None:
        """The untrained model outlines nearly the whole scan."""
        self.viewer.press("2")
        self.stroke((0.4, 0.2), (0.6, 0.25))

    def held(self) -> int:
        """How many drawings the tab's memory holds."""
        count: int = self.page.evaluate(
            """async () => {
                const modules = await Promise.all(window.modules.map((url) => import(url)));
                return modules.find((one) => one.drafts).drafts.size;
            }"""
        )
        return count


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Every page, an untrained model in service, and a store of corrected cases."""
    folder = tmp_path_factory.mktemp("app")
    write_version(folder / "weights", "tiny")
    put_into_service(folder / "weights", "tiny")
    server = start_server(
        REPOSITORY / "app.py",
        settings={
            "BUSI_WEIGHTS_DIR": str(folder / "weights"),
            "BUSI_CORRECTIONS_DIR": str(folder / "corrections"),
            "BUSI_DEVICE": "cpu",
        },
    )
    yield server.address
    server.stop()


def test_a_correction_that_is_not_saved_is_there_again_after_another_page(
    chromium_page: Callable[..., Page], app: str
) -> None:
    """It was gone without a word. Beside another scan, or in another tab, it never stands."""
    shown = App(chromium_page(), app)
    shown.viewer.press("e")
    begun = shown.own_pixels()
    shown.erase()
    drawn = shown.own_pixels()
    assert drawn != begun
    shown.leave_and_come_back()
    expect(shown.unsaved).to_have_text("not saved yet")
    assert shown.own_pixels() == drawn
    # The next scan, of the same class and size, has none of it.
    shown.page.get_by_role("button", name="Add").click()
    shown.page.get_by_role("tab", name="Simulated").click()
    shown.take("Malignant")
    shown.page.keyboard.press("Escape")
    expect(shown.viewer.locator("[data-part=position]")).to_have_text("2 of 2")
    expect(shown.unsaved).to_have_text("")
    shown.leave_and_come_back()
    expect(shown.unsaved).to_have_text("")
    shown.viewer.get_by_role("button", name="Previous scan").click()
    expect(shown.viewer.locator("[data-part=position]")).to_have_text("1 of 2")
    expect(shown.unsaved).to_have_text("not saved yet")
    assert shown.own_pixels() == drawn
    shown.page.keyboard.press("Control+z")
    assert shown.own_pixels() == begun
    shown.page.keyboard.press("Control+Shift+z")
    # Another tab of the same browser, with the very same scan.
    other = App(shown.page.context.new_page(), app)
    other.viewer.press("e")
    expect(other.unsaved).to_have_text("")
    assert other.own_pixels() == begun
    # Cleared, the scan takes its correction along, at once; opened anew, it has none.
    assert shown.held() > 0
    shown.page.get_by_role("button", name="Clear").click()
    expect(shown.page.get_by_text("each correction of a mask that was not saved")).to_be_visible()
    shown.page.get_by_role("button", name="Forget all").click()
    expect(shown.page.get_by_text("Compare with the ground truth")).to_be_visible(timeout=60_000)
    shown.settle()
    assert shown.held() == 0
    shown.page.get_by_role("tab", name="Simulated").click()
    shown.take("Malignant")
    expect(shown.unsaved).to_have_text("")
    assert shown.own_pixels() == begun


def test_a_correction_that_was_saved_kept_or_discarded_is_over(chromium_page: Callable[..., Page], app: str) -> None:
    shown = App(chromium_page(), app)
    page = shown.page
    shown.viewer.press("e")
    begun = shown.own_pixels()
    keep = shown.viewer.get_by_role("button", name="Keep for retraining…")
    for way in ("saved", "discarded", "kept"):
        shown.erase()
        expect(shown.unsaved).to_have_text("not saved yet")
        if way == "saved":
            shown.saved_mask()
        elif way == "discarded":
            shown.viewer.get_by_role("button", name="Discard").click()
        else:
            keep.click()
            page.get_by_label("Your name or initials").wait_for(timeout=60_000)
            page.get_by_role("button", name="Close").click()
            shown.settle()
            expect(shown.unsaved).to_have_text("not saved yet")  # nobody said 'Keep it'
            keep.click()
            page.get_by_label("Your name or initials").fill("A. Reader")
            page.get_by_text("I looked at the whole scan").click()
            page.get_by_role("button", name="Keep it").click()
            expect(page.get_by_text("Kept as case")).to_be_visible(timeout=60_000)
            page.get_by_role("button", name="Close").click()
        expect(shown.unsaved).to_have_text("", timeout=30_000)
        shown.leave_and_come_back()
        assert shown.own_pixels() == begun, way
        expect(shown.unsaved).to_have_text("")


@pytest.fixture(scope="module")
def kept_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of corrected cases, and an untrained model in service, for the server that is started next."""
    folder = tmp_path_factory.mktemp("compare")
    write_version(folder / "weights", "tiny")
    put_into_service(folder / "weights", "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUSI_WEIGHTS_DIR", str(folder / "weights"))
        patch.setenv("BUSI_CORRECTIONS_DIR", str(folder / "corrections"))
        patch.setenv("BUSI_DEVICE", "cpu")
        yield folder / "corrections"


@pytest.mark.slow
def test_a_corrected_case_is_kept_once_somebody_looked_for_patient_text(
    chromium_page: Callable[..., Page], streamlit_server: Callable[[Path], str], kept_in: Path
) -> None:
    shown = Compared(chromium_page(), streamlit_server(PAGE))
    page = shown.page
    page.get_by_role("tab", name="Simulated").click(timeout=60_000)
    page.get_by_role("button", name="Malignant").click()
    shown.ready()
    shown.viewer.press("e")
    shown.viewer.get_by_role("button", name="From truth").click()
    shown.stroke((0.4, 0.2), (0.6, 0.25))
    _, drawn = shown.saved_mask()
    shown.viewer.get_by_role("button", name="Keep for retraining…").click()
    page.get_by_label("Your name or initials").fill("A. Reader")
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_text("Nobody confirmed that no patient text")).to_be_visible()
    assert not kept_in.exists()
    page.get_by_text("I looked at the whole scan").click()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_text("Kept as case")).to_be_visible()
    expect(page.get_by_role("button", name="Keep it")).to_have_count(0)  # or a second press would keep it twice
    (case,) = read_corrections(kept_in)
    assert (case.who, case.model_version, case.diagnosis) == ("A. Reader", "tiny", Diagnosis.MALIGNANT)
    grey, after = (read_grey(kept_in / case.id / file) for file in (SCAN_FILE, AFTER_FILE))
    assert np.array_equal(grey, simulate_scan(Diagnosis.MALIGNANT, seed=1).grey)
    assert np.array_equal(after > 0, drawn > 0)
