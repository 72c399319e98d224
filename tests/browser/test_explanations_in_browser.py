"""Explanations in a real browser: side by side, linked, alone with the browser once they are there."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, TimeoutError, expect
from shown import Shown

from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis

pytestmark = pytest.mark.browser

APP = Path(__file__).parents[2] / "app.py"
DESKTOP, PHONE = (1440, 900), (390, 844)
PATIENT_MS = 240_000  # the package is imported when it is first asked for


class Explained(Shown):
    """The Analyse page with one scan on it and the panel open."""

    def __init__(self, page: Page, address: str, scan: Path) -> None:
        super().__init__(page, address)
        page.get_by_text("Research use only. Not a medical device.").first.wait_for(timeout=PATIENT_MS)
        page.locator("input[type=file]").first.set_input_files(str(scan))
        page.wait_for_selector('[data-testid="viewer"][data-ready]', timeout=PATIENT_MS)
        page.get_by_text("Explain in other ways").click(timeout=PATIENT_MS)
        page.get_by_role("button", name="Explain", exact=True).wait_for(timeout=PATIENT_MS)

    @property
    def multiples(self) -> Locator:
        return self.page.get_by_test_id("explanations")

    def switch(self, method: str, *, on: bool) -> None:
        """Choose a method or leave it out, and once more where the press missed a pill that was being redrawn."""
        pill = self.page.get_by_test_id("stExpander").get_by_role("button", name=method, exact=True)
        for _ in range(2):
            if pill.get_attribute("aria-pressed") != str(on).lower():
                pill.click()
                self.settle()
        expect(pill).to_have_attribute("aria-pressed", str(on).lower(), timeout=PATIENT_MS)

    def explain(self, maps: int) -> None:
        """Ask, and once more when nothing came of it: on a busy machine the button may be redrawn under the click."""
        shown = self.page.locator(f'[data-testid="explanations"][data-maps="{maps}"]')
        button = self.page.get_by_role("button", name="Explain", exact=True)
        button.click()
        with suppress(TimeoutError):
            shown.wait_for(timeout=PATIENT_MS / 3)
        if not shown.is_visible():
            button.click()
        shown.wait_for(timeout=PATIENT_MS)
        self.settle()

    def stage(self, name: str) -> Locator:
        return self.page.get_by_test_id(f"stage-{name}")

    def coloured(self, name: str) -> int:
        """How many pixels of a pane carry a colour."""
        count: int = (
            self.stage(name)
            .locator("canvas.drawn")
            .evaluate(
                """canvas => new Promise(done => requestAnimationFrame(() => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let count = 0;
                for (let i = 3; i < data.length; i += 4) count += data[i] > 0 ? 1 : 0;
                done(count);
            }))"""
            )
        )
        return count


@pytest.fixture
def open_panel(
    chromium_page: Callable[..., Page], streamlit_server: Callable[[Path], str], tmp_path: Path
) -> Callable[..., Explained]:
    scan = tmp_path / "simulated malignant.png"
    scan.write_bytes(simulate_scan(Diagnosis.MALIGNANT, seed=1).png())

    def open_page(viewport: tuple[int, int] = DESKTOP) -> Explained:
        return Explained(chromium_page(viewport), streamlit_server(APP), scan)

    return open_page


def test_methods_stand_side_by_side_each_with_score_and_words(open_panel: Callable[..., Explained]) -> None:
    shown = open_panel()
    assert shown.multiples.count() == 0  # nothing before it is asked
    shown.explain(3)
    figures = shown.multiples.locator("figure")
    expect(figures).to_have_count(4)
    for name, words in (
        ("Grad-CAM", "on average over the scan"),
        ("HiResCAM", "that very place"),
        ("LayerCAM", "what lowers the score is left out"),
    ):
        figure = figures.filter(has=shown.page.get_by_text(name, exact=True))
        expect(figure).to_contain_text(words)
        expect(figure).to_contain_text("model score 0.")
        label = figure.get_by_role("img").get_attribute("aria-label") or ""
        assert label.startswith(f"{name} of malignant: strongest ")
        assert label.endswith("% of the height from the top")
        assert shown.coloured(name) > 0
    tops = {round(box["y"]) for box in (figure.bounding_box() for figure in figures.all()) if box}
    assert len(tops) == 1


@pytest.mark.slow
def test_one_zoom_one_cutoff_and_one_opacity_act_on_all_without_the_server(
    open_panel: Callable[..., Explained],
) -> None:
    shown = open_panel()
    shown.explain(3)
    panes = [shown.stage(name) for name in ("scan-alone", "Grad-CAM", "HiResCAM", "LayerCAM")]
    sent = shown.sent
    before = [pane.screenshot() for pane in panes]
    panes[2].hover()
    shown.page.mouse.wheel(0, -500)
    shown.settle()
    zoomed = [pane.screenshot() for pane in panes]
    assert all(one != other for one, other in zip(before, zoomed, strict=True))
    shown.multiples.get_by_role("button", name="Show the whole scan").click()
    expect(shown.multiples.locator("[data-part=zoom]")).to_have_text("100 %")
    shown.multiples.get_by_text("Lesion outline").click()
    painted = [shown.coloured(name) for name in ("Grad-CAM", "HiResCAM", "LayerCAM")]
    assert shown.coloured("scan-alone") == 0
    shown.drag(shown.multiples.locator("[data-setting=cutoff]"), [0.3, 0.8])()
    fewer = [shown.coloured(name) for name in ("Grad-CAM", "HiResCAM", "LayerCAM")]
    assert all(0 < less < more for less, more in zip(fewer, painted, strict=True))
    shown.drag(shown.multiples.locator("[data-setting=opacity]"), [0.5, 0.0])()
    assert [shown.coloured(name) for name in ("Grad-CAM", "HiResCAM")] == [0, 0]
    shown.settle()
    assert shown.sent == sent


def test_eigencam_claims_no_class_and_no_score(open_panel: Callable[..., Explained]) -> None:
    shown = open_panel()
    for name in ("Grad-CAM", "HiResCAM", "LayerCAM"):
        shown.switch(name, on=False)
    shown.switch("EigenCAM", on=True)
    shown.explain(1)
    figure = shown.multiples.locator("figure").nth(1)
    expect(figure).to_contain_text("of no class")
    expect(figure).not_to_contain_text("model score")


@pytest.mark.slow
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(open_panel: Callable[..., Explained], viewport: tuple[int, int]) -> None:
    shown = open_panel(viewport)
    shown.explain(3)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= viewport[0]
    box = shown.multiples.bounding_box()
    assert box is not None
    assert box["width"] <= viewport[0]
