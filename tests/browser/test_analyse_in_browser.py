"""The whole road in a real browser: upload a scan, see the overlay, drag, download; against the command line."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from shown import Shown

from busi_core.cli import main
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis

pytestmark = pytest.mark.browser

APP = Path(__file__).parents[2] / "app.py"
DESKTOP, PHONE = (1440, 900), (390, 844)
UPRIGHT, TABLET, LYING = (700, 900), (820, 1180), (1000, 800)  # between a phone and a desktop
OTHER_VERSION = "unet-dropout"  # shipped, and of the longest name


class Reading(Shown):
    """The Analyse page with scans on it."""

    def upload(self, *files: Path) -> None:
        self.page.locator("input[type=file]").first.set_input_files([str(file) for file in files])
        self.wait()

    def wait(self) -> None:
        self.page.wait_for_selector('[data-testid="viewer"][data-ready]', timeout=60_000)
        self.page.wait_for_selector(".finding-name", timeout=60_000)
        self.settle()

    def download(self, name: str) -> Path:
        with self.page.expect_download() as caught:
            self.page.get_by_role("button", name=name, exact=True).click()
        return Path(caught.value.path())


@pytest.fixture
def open_app(chromium_page: Callable[..., Page], streamlit_server: Callable[[Path], str]) -> Callable[..., Reading]:
    def open_page(viewport: tuple[int, int] = DESKTOP) -> Reading:
        reading = Reading(chromium_page(viewport), streamlit_server(APP))
        reading.page.get_by_text("Research use only. Not a medical device.").first.wait_for(timeout=60_000)
        return reading

    return open_page


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    path = tmp_path / "simulated benign.png"
    path.write_bytes(simulate_scan(Diagnosis.BENIGN, seed=3).png())
    return path


def read_mask(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def check_whole_road(reading: Reading, scan: Path, tmp_path: Path) -> None:
    reading.upload(scan)
    assert reading.painted() > 0

    # Opacity: other pixels, nothing on the wire, neither while dragging nor after.
    before, sent = reading.overlay(), reading.sent
    release = reading.drag(reading.slider("[data-pref=fillOpacity]"), [0.15, 0.6])
    assert reading.overlay() != before
    release()
    reading.settle()
    assert reading.sent == sent

    # The mask that is downloaded is the command line's, pixel by pixel.
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out")]) == 0
    of_command_line = read_mask(tmp_path / "out" / f"{scan.stem}_mask.png")
    assert set(np.unique(of_command_line)) <= {0, 255}
    np.testing.assert_array_equal(read_mask(reading.download("Mask")), of_command_line)

    # Cut-off: other pixels while dragging with nothing sent, one report on release, and the numbers follow.
    before, sent = reading.overlay(), reading.sent
    release = reading.drag(reading.slider("[data-cutoff=lesion]"), [0.5, 0.7, 0.93])
    assert reading.overlay() != before
    reading.settle()
    assert reading.sent == sent
    release()
    reading.settle()
    assert reading.sent == sent + 1
    chosen = float(reading.viewer.locator("[data-part=lesion-value]").inner_text())
    expect(reading.page.get_by_text(f"cut-off {chosen:.2f}").first).to_be_visible(timeout=10_000)
    record = json.loads(reading.download("JSON").read_text())
    assert record["threshold"] == pytest.approx(chosen)
    assert record["file"] == scan.name
    assert record["position"] == "1 of 1"
    smaller = read_mask(reading.download("Mask")) > 0
    assert smaller.sum() == record["lesion_pixels"]
    assert smaller.sum() < (of_command_line > 0).sum()

    # The overlay has the scan's own pixels, its outline at the chosen cut-off, and a strip of words below.
    overlay, shown = read_mask(reading.download("Overlay")), decode_image(scan.read_bytes()).rgb
    height = shown.shape[0]
    assert overlay.shape[0] > height
    changed = (overlay[:height] != shown).any(axis=2)
    assert changed[smaller].mean() > 0.95  # the outline's dark edge changes no black pixel
    assert not changed[~cv2.dilate(smaller.astype(np.uint8), np.ones((9, 9))).astype(bool)].any()


def test_a_simulated_scan_is_read_cut_off_and_downloaded(
    open_app: Callable[..., Reading], simulated: Path, tmp_path: Path
) -> None:
    check_whole_road(open_app(), simulated, tmp_path)


@pytest.mark.realdata
def test_a_real_scan_is_read_cut_off_and_downloaded(
    open_app: Callable[..., Reading], data_root: Path, tmp_path: Path
) -> None:
    check_whole_road(open_app(), data_root / "busi/malignant/malignant (101).png", tmp_path)


def simulate_files(folder: Path, count: int) -> list[Path]:
    files = [folder / f"scan {number}.png" for number in range(1, count + 1)]
    for number, file in enumerate(files):
        file.write_bytes(simulate_scan(list(Diagnosis)[number % 3], seed=number).png())
    return files


def test_arrow_keys_and_filmstrip_step_through_the_scans(open_app: Callable[..., Reading], tmp_path: Path) -> None:
    reading = open_app()
    files = []
    for seed, diagnosis in enumerate(Diagnosis):
        files.append(tmp_path / f"scan {diagnosis}.png")
        files[-1].write_bytes(simulate_scan(diagnosis, seed=seed).png())
    reading.upload(*files)
    name = reading.page.locator(".finding-name")
    expect(name).to_have_text("1 of 3 · scan normal.png")
    reading.page.keyboard.press("ArrowRight")
    expect(name).to_have_text("2 of 3 · scan benign.png", timeout=15_000)
    reading.page.get_by_role("option", name="3 of 3: scan malignant.png").click()
    expect(name).to_have_text("3 of 3 · scan malignant.png", timeout=15_000)


def test_the_filmstrip_gives_back_every_picture_that_it_showed(
    open_app: Callable[..., Reading], tmp_path: Path
) -> None:
    reading = open_app()
    reading.page.evaluate(
        """() => {
            const [make, end] = [URL.createObjectURL, URL.revokeObjectURL];
            window.held = new Set();
            URL.createObjectURL = (blob) => {
                const url = make.call(URL, blob);
                if (blob.type === "image/jpeg") window.held.add(url);
                return url;
            };
            URL.revokeObjectURL = (url) => { window.held.delete(url); end.call(URL, url); };
        }"""
    )
    files = [tmp_path / f"{seed}.png" for seed in (1, 2)]
    for seed, file in enumerate(files):
        file.write_bytes(simulate_scan(Diagnosis.BENIGN, seed=seed).png())
    reading.upload(*files)
    assert reading.page.evaluate("window.held.size") == 2
    reading.page.get_by_role("option", name="2 of 2: 2.png").click()
    expect(reading.page.locator(".finding-name")).to_have_text("2 of 2 · 2.png", timeout=15_000)
    reading.settle()
    assert reading.page.evaluate("window.held.size") == 2
    reading.page.get_by_role("button", name="Clear").click()
    reading.page.get_by_role("button", name="Forget all").click()
    reading.page.get_by_text("Read a breast ultrasound scan").wait_for(timeout=15_000)
    reading.page.wait_for_function("window.held.size === 0", timeout=15_000)


def test_read_first_shows_nothing_of_the_model_until_asked(open_app: Callable[..., Reading], simulated: Path) -> None:
    reading = open_app()
    reading.upload(simulated)
    expect(reading.page.locator(".diagnosis")).to_be_visible()
    reading.page.get_by_test_id("stCheckbox").get_by_text("Read first").click()
    expect(reading.page.locator(".diagnosis")).to_have_count(0, timeout=15_000)
    reading.settle()
    reading.page.get_by_role("button", name="Show what the model sees").click()
    expect(reading.page.locator(".diagnosis")).to_be_visible(timeout=15_000)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>.png", "![x](http://127.0.0.1:9/x.png).png", "$x^2$ :smile: `a`.png"]
)
def test_a_hostile_file_name_is_shown_as_text_and_asks_for_nothing(
    open_app: Callable[..., Reading], simulated: Path, name: str
) -> None:
    """U18, U19."""
    reading = open_app()
    asked: list[str] = []
    reading.page.on("request", lambda request: asked.append(request.url))
    for content in (simulated.read_bytes(), b"not an image"):
        reading.page.locator("input[type=file]").first.set_input_files(
            [{"name": name, "mimeType": "image/png", "buffer": content}]
        )
        expect(reading.page.get_by_text(name.split("](")[-1], exact=False).first).to_be_visible(timeout=60_000)
        reading.settle()
        reading.page.get_by_role("button", name="Clear").click()
        reading.page.get_by_role("button", name="Forget all").click()
        reading.page.get_by_text("Read a breast ultrasound scan").wait_for(timeout=15_000)
        reading.settle()  # until this run has ended the browser keeps for "Clear" that it is open
    assert not [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:")) or ":9/" in url]


def test_a_bad_file_is_explained_and_the_others_are_read(
    open_app: Callable[..., Reading], simulated: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("not an image")
    reading = open_app()
    reading.upload(simulated, bad)
    reading.page.get_by_role("option", name="2 of 2: notes.png, not readable").click()
    expect(reading.page.get_by_test_id("stAlert").filter(has_text="notes.png")).to_be_visible(timeout=15_000)
    expect(reading.page.get_by_text("Traceback")).to_have_count(0)
    reading.page.keyboard.press("ArrowLeft")
    expect(reading.page.locator(".diagnosis")).to_be_visible(timeout=15_000)


def test_a_photograph_gets_no_answer_anywhere_until_the_reader_insists(
    open_app: Callable[..., Reading], tmp_path: Path
) -> None:
    from skimage.data import astronaut

    photograph = tmp_path / "holiday.png"
    Image.fromarray(astronaut()).save(photograph)
    reading = open_app()
    reading.upload(photograph)
    expect(reading.page.get_by_text("No answer.")).to_be_visible()
    expect(reading.page.get_by_test_id("area")).to_have_text("no answer")
    read_first = reading.page.get_by_test_id("stCheckbox").get_by_text("Read first")
    read_first.click()
    expect(reading.page.get_by_test_id("area")).to_have_text("")  # that there is no answer is one
    read_first.click()
    expect(reading.page.get_by_test_id("area")).to_have_text("no answer")
    reading.viewer.locator(".stage").last.hover()
    expect(reading.viewer.locator("[data-part=pointer]")).to_have_text("")  # a 0.00 would say 'no lesion here'
    expect(reading.page.get_by_text("Model score")).to_have_count(0)
    reading.page.get_by_role("button", name="Show the answer all the same").click()
    expect(reading.page.get_by_text("Model score").first).to_be_visible(timeout=60_000)
    expect(reading.page.get_by_text("answered all the same: its measured figures do not hold").first).to_be_visible()
    expect(reading.page.get_by_test_id("area")).to_contain_text("Lesion area")


def test_a_cutoff_chosen_by_the_reader_is_there_again_after_another_page(
    open_app: Callable[..., Reading], simulated: Path
) -> None:
    reading = open_app()
    reading.upload(simulated)
    reading.drag(reading.slider("[data-cutoff=lesion]"), [0.5, 0.8])()
    reading.settle()
    chosen = float(reading.viewer.locator("[data-part=lesion-value]").inner_text())
    expect(reading.page.get_by_text(f"cut-off {chosen:.2f}").first).to_be_visible(timeout=10_000)
    heat = reading.slider("[data-cutoff=heat]")
    reading.drag(heat, [0.3, 0.6])()
    reading.settle()
    of_heat = heat.input_value()
    assert float(of_heat) == pytest.approx(0.6, abs=0.05)
    for page in ("Compare", "Analyse"):
        reading.page.get_by_test_id("stTopNavSection").first.click()
        reading.page.get_by_test_id("stTopNavDropdownLink").filter(has_text=page).click()
        reading.settle()
    reading.wait()
    expect(reading.page.get_by_text(f"cut-off {chosen:.2f}").first).to_be_visible(timeout=10_000)
    assert float(reading.viewer.locator("[data-part=lesion-value]").inner_text()) == chosen
    expect(heat).to_have_value(of_heat)
    reading.viewer.get_by_role("button", name="Reset to model's cut-off").click()
    expect(reading.page.get_by_text(f"cut-off {chosen:.2f}")).to_have_count(0, timeout=10_000)


def test_the_finding_of_a_scan_never_stands_beside_the_next(open_app: Callable[..., Reading], tmp_path: Path) -> None:
    """Looked at in every frame that the browser draws while the reader steps on."""
    reading = open_app()
    files = []
    for seed, diagnosis in enumerate((*Diagnosis, *Diagnosis)):
        files.append(tmp_path / f"scan {seed}.png")
        files[-1].write_bytes(simulate_scan(diagnosis, seed=seed).png())
    reading.upload(*files)
    reading.page.evaluate(
        """() => {
            window.pairs = new Set();
            const look = () => {
                const find = (root, selector) => {
                    const found = root.querySelector(selector);
                    if (found) return found;
                    for (const one of root.querySelectorAll("*")) {
                        const inner = one.shadowRoot && find(one.shadowRoot, selector);
                        if (inner) return inner;
                    }
                };
                window.name_ ??= find(document, "[data-part=name]");
                const finding = document.querySelector(".finding-name");
                if (finding && window.name_) window.pairs.add(`${window.name_.textContent}|${finding.textContent}`);
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    for number in range(1, len(files)):
        reading.page.keyboard.press("ArrowRight")
        expect(reading.page.locator(".finding-name")).to_have_text(
            f"{number + 1} of {len(files)} · scan {number}.png", timeout=15_000
        )
        reading.settle()
    seen = [re.findall(r"scan (\d)", pair) for pair in reading.page.evaluate("() => [...window.pairs]")]
    assert len(seen) >= len(files)
    assert [(scan, finding) for scan, finding in seen if finding < scan] == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_reading_is_repeated_when_asked_and_its_range_is_called_what_it_is(
    open_app: Callable[..., Reading], simulated: Path, viewport: tuple[int, int]
) -> None:
    reading = open_app(viewport)
    reading.upload(simulated)
    reading.page.get_by_role("button", name="How firm is this reading?").click()
    expect(reading.page.get_by_text("6 readings of this scan")).to_be_visible(timeout=60_000)
    expect(reading.page.get_by_role("img", name="what is lesion in every reading is outlined")).to_be_visible()
    expect(reading.page.get_by_text("no interval of confidence")).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("turned", [(DESKTOP, LYING, TABLET), (PHONE, UPRIGHT)], ids=["from a desktop", "from a phone"])
def test_at_every_width_the_finding_is_readable_the_image_large_and_nothing_wider(
    open_app: Callable[..., Reading], tmp_path: Path, turned: Sequence[tuple[int, int]]
) -> None:
    """Opened at the first width, then made narrower or turned."""
    reading = open_app(turned[0])
    reading.upload(*simulate_files(tmp_path, 2))
    for width, height in turned:
        reading.page.set_viewport_size({"width": width, "height": height})
        reading.settle()
        finding = reading.page.locator(".finding-name").bounding_box()
        stages = [reading.page.get_by_test_id(f"stage-{one}").bounding_box() for one in ("scan", "model")]
        assert finding is not None
        assert finding["width"] >= 350, width
        for stage in stages:
            assert stage is not None
            assert min(stage["width"], 4 / 3 * stage["height"]) >= 350, width  # across a scan of 4 by 3
        assert reading.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scans", [1, 2])
def test_choosing_another_version_moves_nothing_and_its_name_is_readable(
    open_app: Callable[..., Reading], tmp_path: Path, scans: int
) -> None:
    reading = open_app(DESKTOP)
    reading.upload(*simulate_files(tmp_path, scans))
    version = reading.page.get_by_role("combobox", name="Model version")
    in_service = version.input_value()
    fits = "input => input.scrollWidth <= input.clientWidth"
    for width, height in (DESKTOP, TABLET, PHONE):
        reading.page.set_viewport_size({"width": width, "height": height})
        reading.settle()
        assert reading.page.evaluate("document.documentElement.scrollWidth") <= width
        before = reading.viewer.bounding_box()
        for name, chosen in ((OTHER_VERSION, OTHER_VERSION), (in_service, in_service.split()[0])):
            assert version.evaluate(fits)
            version.click()
            reading.page.get_by_role("option", name=name, exact=True).click()
            expect(reading.page.get_by_text(f"Model {chosen}").last).to_be_visible(timeout=60_000)
            reading.settle()
            expect(version).to_have_value(name)
            assert version.evaluate(fits)
            assert reading.viewer.bounding_box() == before, (width, name)


CONTRAST = """element => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], below) => [r, g, b].map((value, i) => a * value + (1 - a) * below[i]);
    const ground = one => {
        if (!one) return [255, 255, 255];
        return over(numbers(getComputedStyle(one).backgroundColor), ground(one.parentElement));
    };
    const light = colour => {
        const [r, g, b] = colour.map(v => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const below = ground(element);
    const [one, other] = [light(over(numbers(getComputedStyle(element).color), below)), light(below)];
    return Math.max(one, other) / Math.min(one, other);
}"""  # WCAG 2.2, relative luminance


def test_what_is_chosen_and_the_main_button_can_be_read(open_app: Callable[..., Reading], simulated: Path) -> None:
    reading = open_app()
    reading.upload(simulated)
    reading.page.get_by_text("Explain in other ways").click()
    for name in ("Grad-CAM", "Grad-CAM++", "Explain"):
        button = reading.page.get_by_role("button", name=name, exact=True)
        for hovered in (False, True):
            if hovered:
                button.hover()
                reading.page.wait_for_timeout(400)  # colours fade
            assert button.locator("p").evaluate(CONTRAST) >= 4.5, (name, hovered)
    change = reading.page.get_by_role("button", name="Change")
    change.click()
    reading.page.wait_for_timeout(400)
    assert change.locator("p").evaluate(CONTRAST) >= 4.5


def test_what_a_score_is_can_be_read_without_a_mouse(open_app: Callable[..., Reading], simulated: Path) -> None:
    reading = open_app(PHONE)
    reading.upload(simulated)
    said = reading.page.get_by_text("not the chance of cancer for this patient")
    expect(said).to_be_hidden()
    reading.page.get_by_text("Model score ?").focus()
    reading.page.keyboard.press("Enter")
    expect(said).to_be_visible()


def test_the_filmstrip_is_one_tab_stop_and_arrows_go_through_it(
    open_app: Callable[..., Reading], tmp_path: Path
) -> None:
    reading = open_app()
    reading.upload(*simulate_files(tmp_path, 5))
    tiles, name = reading.page.get_by_role("option"), reading.page.locator(".finding-name")
    stops = "tiles => tiles.flatMap((tile, place) => (tile.tabIndex === 0 ? [place + 1] : []))"
    assert tiles.evaluate_all(stops) == [1]
    # The page's own arrows go on, and the Tab stop goes along.
    reading.page.keyboard.press("ArrowRight")
    expect(name).to_have_text("2 of 5 · scan 2.png", timeout=15_000)
    reading.settle()
    assert tiles.evaluate_all(stops) == [2]
    # In the strip an arrow opens the next scan, quick ones add up, and the focus is there.
    tiles.nth(1).focus()
    reading.page.keyboard.press("ArrowRight")
    reading.page.keyboard.press("ArrowRight")
    expect(name).to_have_text("4 of 5 · scan 4.png", timeout=15_000)
    reading.settle()
    expect(tiles.nth(3)).to_be_focused()
    expect(tiles.nth(3)).to_have_attribute("aria-selected", "true")
    assert tiles.evaluate_all(stops) == [4]
    reading.page.keyboard.press("Home")
    expect(name).to_have_text("1 of 5 · scan 1.png", timeout=15_000)
    reading.page.keyboard.press("End")
    expect(name).to_have_text("5 of 5 · scan 5.png", timeout=15_000)
    reading.settle()
    reading.page.keyboard.press("Tab")
    assert not any(tiles.evaluate_all("tiles => tiles.map(tile => tile.matches(':focus'))"))
