"""The viewer in a real browser: what moves without the server, what the server hears, what stays covered."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from shown import Shown

from busi_core.imaging.preprocess import upsample
from busi_core.report import score_words

pytestmark = pytest.mark.browser

HARNESS = Path(__file__).with_name("viewer_harness.py")
MAPS = Path(__file__).parents[2] / "pages/components/viewer/maps.js"


class Harness(Shown):
    """The harness page, ready, with nothing counted yet."""

    def __init__(self, page: Page, address: str, **asked: str) -> None:
        super().__init__(page, address, **asked)
        self.wait_for_scan(0)
        self.settle()
        self.sent = 0

    def wait_for_scan(self, index: int) -> None:
        self.page.wait_for_selector(f'[data-testid="viewer"][data-ready="scan-{index}"]', timeout=30_000)

    def said(self) -> str:
        """What the page itself got to know."""
        return self.page.get_by_text("runs=").inner_text()


@pytest.fixture
def show(chromium_page: Callable[..., Page], streamlit_server: Callable[[Path], str]) -> Callable[..., Harness]:
    """Open the harness: `show(count="3", viewport=(390, 844))`."""

    def open_viewer(*, viewport: tuple[int, int] = (1440, 900), touch: bool = False, **asked: str) -> Harness:
        return Harness(chromium_page(viewport, touch=touch), streamlit_server(HARNESS), **asked)

    return open_viewer


def test_dragging_the_lesion_cutoff_redraws_without_the_server_and_reports_once(show: Callable[..., Harness]) -> None:
    shown = show()
    area = shown.page.get_by_test_id("area")
    before, area_before = shown.overlay(), area.inner_text()
    release = shown.drag(shown.slider("[data-cutoff=lesion]"), [0.43, 0.6, 0.85])
    # While the button is down: other pixels, another area, and nothing on the wire.
    assert shown.overlay() != before
    assert area.inner_text() != area_before
    shown.settle()
    assert shown.sent == 0
    assert "runs=1 " in shown.said()
    # On release: one report, one run, and the page knows the number that the viewer shows.
    release()
    shown.settle()
    assert shown.sent == 1
    value = float(shown.viewer.locator("[data-part=lesion-value]").inner_text())
    assert f"lesion_cutoff={value}, heat_cutoff=None" in shown.said()
    assert "runs=2 " in shown.said()


def test_nothing_jumps_when_the_page_runs_again(show: Callable[..., Harness]) -> None:
    shown = show()
    shown.page.get_by_test_id("stage-model").hover()
    shown.page.mouse.wheel(0, -600)
    shown.page.keyboard.press("2")
    shown.settle()
    release = shown.drag(shown.slider("[data-cutoff=lesion]"), [0.43, 0.7])
    before, zoom = shown.overlay(), shown.viewer.locator("[data-part=zoom]").inner_text()
    release()
    shown.settle()
    assert "runs=2 " in shown.said()
    assert shown.overlay() == before
    assert shown.viewer.locator("[data-part=zoom]").inner_text() == zoom != "100 %"
    assert shown.viewer.locator("[data-of=benign]").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("pref", ["fillOpacity", "outlineOpacity", "brightness", "contrast"])
def test_opacity_and_grey_sliders_never_talk_to_the_server(show: Callable[..., Harness], pref: str) -> None:
    shown = show()
    stage = shown.page.get_by_test_id("stage-model")
    before = stage.screenshot()
    release = shown.drag(shown.slider(f"[data-pref={pref}]"), [0.3, 0.9, 0.6])
    assert stage.screenshot() != before
    release()
    shown.settle()
    assert shown.sent == 0


def test_zoom_and_pan_act_on_both_panes_without_the_server(show: Callable[..., Harness]) -> None:
    shown = show()
    scan, model = (shown.page.get_by_test_id(f"stage-{one}") for one in ("scan", "model"))
    before = scan.screenshot(), model.screenshot()
    scan.hover()
    shown.page.mouse.wheel(0, -500)
    shown.settle()
    zoomed = scan.screenshot(), model.screenshot()
    assert zoomed[0] != before[0]
    assert zoomed[1] != before[1]
    shown.page.mouse.down()
    shown.page.mouse.move(300, 300, steps=5)
    shown.page.mouse.up()
    shown.settle()
    assert scan.screenshot() != zoomed[0]
    assert model.screenshot() != zoomed[1]
    scan.dblclick()
    expect(shown.viewer.locator("[data-part=zoom]")).to_have_text("100 %")
    assert shown.sent == 0


def test_heat_map_cutoff_leaves_out_weak_evidence_and_reports_once(show: Callable[..., Harness]) -> None:
    shown = show()
    shown.page.keyboard.press("3")
    all_of_it = shown.painted()
    release = shown.drag(shown.slider("[data-cutoff=heat]"), [0.3, 0.8])
    assert shown.painted() < all_of_it
    assert shown.sent == 0
    release()
    shown.settle()
    assert shown.sent == 1
    assert "lesion_cutoff=None, heat_cutoff=0.8" in shown.said()


def test_heat_map_says_that_it_is_relative_and_shows_the_score_beside_it(show: Callable[..., Harness]) -> None:
    shown = show()
    shown.page.keyboard.press("3")
    expect(shown.viewer).to_contain_text("relative, coarse grid (8 × 8), not a probability")
    expect(shown.viewer).to_contain_text("malignant: model score 0.82")
    expect(shown.viewer).not_to_contain_text("dimmed")
    shown.page.keyboard.press("1")
    expect(shown.viewer).to_contain_text("normal: model score 0.03")
    expect(shown.viewer).to_contain_text("score under 5 %: dimmed")


def test_two_colour_scales_are_never_mixed(show: Callable[..., Harness]) -> None:
    shown = show()
    heat, probability = (shown.viewer.locator(f"[data-toggle={layer}]") for layer in ("heat", "probability"))
    probability.check()
    shown.page.keyboard.press("3")
    expect(heat).to_be_checked()
    expect(probability).not_to_be_checked()
    probability.check()
    expect(heat).not_to_be_checked()
    assert shown.sent == 0


def test_h_hides_everything_the_model_drew_and_brings_it_back(show: Callable[..., Harness]) -> None:
    shown = show()
    shown.page.keyboard.press("3")
    before = shown.overlay()
    shown.page.keyboard.press("h")
    assert shown.painted() == 0
    expect(shown.viewer.locator("[data-part=hidden-note]")).to_be_visible()
    shown.page.keyboard.press("h")
    assert shown.overlay() == before


def test_letters_can_be_kept_to_the_scans_and_this_browser_remembers_it(show: Callable[..., Harness]) -> None:
    """WCAG 2.2, 2.1.4: a word that is dictated to the computer is a row of letters."""
    shown = show(count="2")
    shown.page.keyboard.press("?")
    choice = shown.viewer.get_by_role("checkbox", name="Letters, digits and signs act wherever the focus is")
    expect(choice).to_be_checked()
    choice.uncheck()
    shown.page.reload()
    shown.wait_for_scan(0)
    shown.settle()
    before = shown.overlay()
    shown.page.keyboard.press("h")
    assert shown.overlay() == before
    shown.viewer.focus()
    shown.page.keyboard.press("h")
    assert shown.painted() == 0
    shown.page.locator("body").evaluate("() => document.activeElement.blur()")
    shown.page.keyboard.press("ArrowRight")
    shown.wait_for_scan(1)


def test_reset_goes_back_to_the_models_exact_cutoff(show: Callable[..., Harness]) -> None:
    shown = show()
    before = shown.overlay()
    shown.drag(shown.slider("[data-cutoff=lesion]"), [0.43, 0.9])()
    shown.settle()
    shown.viewer.get_by_text("Reset to model's cut-off").click()
    shown.settle()
    assert shown.overlay() == before
    assert "lesion_cutoff=0.437" in shown.said()


def test_arrow_keys_step_through_scans_and_stop_at_the_ends(show: Callable[..., Harness]) -> None:
    shown = show(count="2")
    shown.page.keyboard.press("ArrowLeft")
    shown.settle()
    assert shown.sent == 0
    # A mouse on a slider must not capture the arrows for good.
    shown.drag(shown.slider("[data-pref=fillOpacity]"), [0.2, 0.4])()
    shown.settle()
    shown.page.keyboard.press("ArrowRight")
    shown.wait_for_scan(1)
    expect(shown.viewer.locator("[data-part=position]")).to_have_text("2 of 2")
    # Preferences stay, the cut-off is this scan's own.
    expect(shown.viewer.locator("[data-layer=fill] output")).to_have_text("40 %")
    assert "lesion_cutoff=None" in shown.said()
    shown.page.keyboard.press("ArrowLeft")
    shown.wait_for_scan(0)


def test_quick_presses_of_an_arrow_add_up(show: Callable[..., Harness]) -> None:
    shown = show(count="6")
    for _ in range(3):
        shown.page.keyboard.press("ArrowRight", delay=10)
    shown.wait_for_scan(3)
    shown.settle()
    expect(shown.viewer.locator("[data-part=position]")).to_have_text("4 of 6")
    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight"):
        shown.page.keyboard.press(key)
        shown.page.wait_for_timeout(100)
    shown.settle()
    expect(shown.viewer.locator("[data-part=position]")).to_have_text("3 of 6")
    for _ in range(9):  # no further than the last
        shown.page.keyboard.press("ArrowRight")
    shown.wait_for_scan(5)


@pytest.mark.parametrize("name", ["<script>window.hurt = 1</script>.png", "![x](https://example.org/x.png).png"])
def test_a_file_name_is_shown_as_text(show: Callable[..., Harness], name: str) -> None:
    shown = show(name=name)
    expect(shown.viewer.locator("[data-part=name]")).to_have_text(name)
    assert shown.viewer.locator("script, img").count() == 0
    assert shown.page.evaluate("window.hurt") is None


def test_read_first_covers_the_finding_until_it_is_asked_for(show: Callable[..., Harness]) -> None:
    shown = show(read_first="1")
    cover = shown.page.get_by_test_id("cover")
    expect(cover).to_be_visible()
    shown.page.keyboard.press("3")
    assert shown.painted() == 0
    expect(shown.viewer).not_to_contain_text("Lesion area")
    expect(shown.viewer).not_to_contain_text("model score")
    shown.page.get_by_text("Show what the model sees").click()
    expect(cover).to_be_hidden()
    shown.settle()
    assert shown.painted() > 0
    assert "revealed=True" in shown.said()
    assert shown.sent == 1


def test_a_slider_says_what_stands_beside_it(show: Callable[..., Harness]) -> None:
    """A screen reader says '55 %' and not '0.55', and the words beside are not said again."""
    shown = show()
    rows = shown.viewer.locator(".row:has(input[type=range])")
    assert rows.count() == 8
    for row in rows.all():
        slider, words = row.locator("input[type=range]"), row.locator("output")
        slider.focus()
        shown.page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == words.inner_text() != ""
        assert slider.get_attribute("aria-label")
        assert words.get_attribute("aria-live") == "off"


def test_what_is_read_out_is_read_out_once(show: Callable[..., Harness]) -> None:
    """The scan's name and the lesion's area are live; another layer writes neither of them again."""
    shown = show(count="2")
    live = shown.viewer.locator("[aria-live=polite], [role=status]")
    assert live.count() == 2
    live.evaluate_all(
        """places => {
            window.heard = [];
            const hear = (changes) => window.heard.push(...changes.map(({ target }) => target.textContent));
            const watch = new MutationObserver(hear);
            for (const place of places) watch.observe(place, { childList: true, characterData: true, subtree: true });
        }"""
    )
    shown.slider("[data-pref=fillOpacity]").focus()
    shown.page.keyboard.press("ArrowRight")
    shown.settle()
    assert shown.page.evaluate("window.heard") == []
    shown.slider("[data-cutoff=lesion]").focus()
    for _ in range(20):
        shown.page.keyboard.press("ArrowRight")
    shown.settle()
    assert all(words.startswith("Lesion area ") for words in shown.page.evaluate("window.heard"))
    shown.page.evaluate("window.heard = []")
    shown.viewer.focus()
    shown.page.keyboard.press("ArrowRight")
    shown.wait_for_scan(1)
    assert {"2 of 2", "benign (2).png"} <= set(shown.page.evaluate("window.heard"))


def test_class_and_flag_are_read_out_once_they_are_no_longer_covered(show: Callable[..., Harness]) -> None:
    shown = show(read_first="1")
    said = shown.viewer.locator("[aria-live=polite] [data-part=said]")
    expect(said).to_have_text("")
    shown.viewer.get_by_role("button", name="Show what the model sees").click()
    expect(said).to_have_text("malignant, flagged for malignancy")


def test_names_hold_the_words_that_are_seen_and_no_control_lies_in_another(show: Callable[..., Harness]) -> None:
    """WCAG 2.2, 2.5.3 and 4.1.2."""
    shown = show(viewport=(390, 844), touch=True)
    assert shown.viewer.locator("summary button, summary input").count() == 0
    shown.viewer.get_by_text("Image", exact=True).click()
    shown.slider("[data-pref=brightness]").fill("2")
    shown.viewer.get_by_role("button", name="Reset", exact=True).click()
    expect(shown.slider("[data-pref=brightness]")).to_have_value("1")
    wide = show()
    wide.viewer.get_by_role("button", name="Zoom in").click()
    expect(wide.viewer.get_by_role("button", name="125 % show the whole scan")).to_be_visible()


def test_a_double_click_zooms_in_and_out_again(show: Callable[..., Harness]) -> None:
    """A finger alone has no other way to come nearer on a phone (WCAG 2.2, 2.5.1)."""
    shown = show(viewport=(390, 844), touch=True)
    zoom, stage = shown.viewer.locator("[data-part=zoom]"), shown.page.get_by_test_id("stage-scan")
    for expected in ("250 %", "100 %"):
        stage.dblclick()
        expect(zoom).to_have_text(expected)


def test_the_list_of_keys_takes_the_focus_and_gives_it_back(show: Callable[..., Harness]) -> None:
    shown = show()
    button, keys = shown.viewer.get_by_role("button", name="Keys"), shown.viewer.get_by_role("dialog", name="Keys")
    button.focus()
    shown.page.keyboard.press("Enter")
    expect(keys).to_be_focused()
    shown.page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    expect(button).to_be_focused()


@pytest.mark.parametrize("width", [320, 720, 1000], ids="{} px".format)
def test_at_every_width_the_head_names_the_scan_and_offers_every_button(
    show: Callable[..., Harness], width: int
) -> None:
    """320 px are a screen of 1280 at 400 %."""
    shown = show(viewport=(width, 800), count="3")
    name, viewer = shown.viewer.locator("[data-part=name]"), shown.viewer.bounding_box()
    assert viewer is not None
    assert name.evaluate("name => name.clientWidth > 60 && name.scrollWidth <= name.clientWidth")
    for button in shown.viewer.locator(".bar button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert viewer["x"] <= box["x"]
        assert box["x"] + box["width"] <= viewer["x"] + viewer["width"]


def test_where_the_system_chooses_the_colours_what_is_chosen_is_seen(show: Callable[..., Harness]) -> None:
    shown = show()
    shown.page.emulate_media(forced_colors="active")
    colour = "button => getComputedStyle(button).backgroundColor"
    both, scan = (shown.viewer.get_by_role("button", name=name, exact=True) for name in ("Both", "Scan"))
    assert both.evaluate(colour) != scan.evaluate(colour)
    for kept in (".ramp", ".tick", ".stage"):
        assert shown.viewer.locator(kept).first.evaluate("one => getComputedStyle(one).forcedColorAdjust") == "none"


def test_made_up_scans_are_tagged_and_panes_are_named(show: Callable[..., Harness]) -> None:
    shown = show(simulated="1")
    expect(shown.viewer.get_by_text("SIMULATED")).to_be_visible()
    expect(shown.viewer).to_contain_text("2026.1-test")
    label = "Ultrasound scan benign (1).png, 563 by 471 pixels"
    assert shown.page.get_by_role("img", name=label).count() == 2


def test_on_a_phone_the_panes_stack_and_touch_targets_are_large(show: Callable[..., Harness]) -> None:
    shown = show(viewport=(390, 844), touch=True)
    boxes = [shown.page.get_by_test_id(f"stage-{one}").bounding_box() for one in ("scan", "model")]
    assert all(box is not None and box["width"] > 330 for box in boxes)
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    for button in shown.viewer.locator(".tools button:visible, .steps button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 36
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_two_fingers_zoom_and_one_moves_the_zoomed_scan_instead_of_the_page(show: Callable[..., Harness]) -> None:
    shown = show(viewport=(390, 844), touch=True)
    stage = shown.page.get_by_test_id("stage-scan")
    box = stage.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = shown.page.context.new_cdp_session(shown.page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": left, "y": top, "id": number} for number, (left, top) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (x - 30, y), (x + 30, y))
    for spread in range(30, 91, 6):
        fingers("touchMove", (x - spread, y), (x + spread, y))
    fingers("touchEnd")
    expect(shown.viewer.locator("[data-part=zoom]")).to_have_text("300 %")
    before = stage.screenshot()
    fingers("touchStart", (x, y))
    for way in range(10, 60, 10):
        fingers("touchMove", (x, y - way))
    fingers("touchEnd")
    shown.settle()
    assert stage.screenshot() != before
    assert shown.page.get_by_test_id("stMain").evaluate("main => main.scrollTop") == 0


def load_maps(page: Page) -> None:
    """Put the viewer's arithmetic on an empty page."""
    names = "upsample, makeField, outlines, countAbove"
    page.set_content(f"<script type=module>{MAPS.read_text('utf-8')}\nObject.assign(window, {{{names}}})</script>")


def test_a_cutoff_is_redrawn_in_less_than_a_frame_at_fifty_a_second(chromium_page: Callable[..., Page]) -> None:
    page = chromium_page()
    load_maps(page)
    median = page.evaluate(
        """() => {
            const small = Float32Array.from({ length: 65536 }, (_, i) =>
                1 / (1 + Math.exp(Math.hypot((i % 256) - 128, (i >> 8) - 128) / 6 - 8)));
            const full = upsample(small, 256, 256, 1024, 1024);
            const field = makeField(full, 1024, 1024);
            const times = [];
            for (let cutoff = 0.05; cutoff < 0.95; cutoff += 0.01) {
                const start = performance.now();
                outlines(field, cutoff);
                countAbove(full, cutoff);
                times.push(performance.now() - start);
            }
            return times.sort((a, b) => a - b)[times.length >> 1];
        }"""
    )
    assert median < 20


def test_the_browser_upsamples_as_python_does(chromium_page: Callable[..., Page]) -> None:
    page = chromium_page()
    load_maps(page)
    values = np.random.default_rng(0).random((7, 8), dtype=np.float32)
    full = page.evaluate(f"[...upsample(Float32Array.from({json.dumps(values.ravel().tolist())}), 7, 8, 471, 563)]")
    assert np.abs(np.reshape(full, (471, 563)) - upsample(values, 471, 563)).max() < 1e-5


def test_the_browser_says_a_score_as_python_does(chromium_page: Callable[..., Page]) -> None:
    """Neither rounds to certainty."""
    page = chromium_page()
    keys = MAPS.with_name("keys.js").read_text("utf-8")
    page.set_content(f"<script type=module>{keys}\nwindow.scoreWords = scoreWords</script>")
    scores = [0.0, 0.009, 0.0101, 0.37, 0.9899, 0.9951, 0.9999, 1.0]
    assert page.evaluate("scores => scores.map(scoreWords)", scores) == [score_words(score) for score in scores]
