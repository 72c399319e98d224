"""Performance and Systems in a real browser, on the evaluation files and the study that are shipped."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from busi_core.imaging.phantom import simulate_scan
from busi_core.settings import PROJECT_ROOT
from busi_core.types import Diagnosis

pytestmark = pytest.mark.browser
WAIT_MS = 120_000  # a page of many charts comes piece by piece, and slowly on a busy machine

APP = PROJECT_ROOT / "app.py"
STUDY = json.loads((PROJECT_ROOT / "docs/reproduction.json").read_text(encoding="utf-8"))
SIZES = [pytest.param((1440, 900), id="desktop"), pytest.param((390, 844), id="phone")]


@pytest.fixture(params=SIZES)
def open_evidence(
    request: pytest.FixtureRequest,
    chromium_page: Callable[..., Page],
    streamlit_server: Callable[[Path], str],
) -> Callable[[str], Page]:
    def open_page(name: str) -> Page:
        page = chromium_page(request.param)
        page.goto(streamlit_server(APP))
        page.get_by_text("Research use only. Not a medical device.").first.wait_for(timeout=WAIT_MS)
        page.goto(f"{streamlit_server(APP)}/{name}")
        page.get_by_text("Research use only. Not a medical device.").first.wait_for(timeout=WAIT_MS)
        return page

    return open_page


def check_sound(page: Page) -> None:
    """Nothing failed, and no block is wider than the window."""
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_systems_shows_the_leak_the_table_and_opens_a_system_in_analyse(open_evidence: Callable[[str], Page]) -> None:
    page = open_evidence("systems")
    expect(page.get_by_role("heading", name="What cannot be true, or is missing")).to_be_visible(timeout=WAIT_MS)
    for leak in STUDY["leak"]:
        gain = next(e for e in leak["effects"] if e["figure"] == "lesion Dice" and e["subset"] == "all test files")
        said = f"{gain['by_scan']:.3f} split by scan, {gain['random']:.3f} split at random"
        expect(page.get_by_text(said)).to_be_visible(timeout=WAIT_MS)
    charts = len(STUDY["leak"]) + 3  # the leaks, the intervals, and two of curves
    expect(page.get_by_test_id("stPlotlyChart")).to_have_count(charts, timeout=WAIT_MS)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=WAIT_MS)
    check_sound(page)
    page.get_by_role("button", name="Open unet-dropout in Analyse").click()
    scan = {"name": "scan.png", "mimeType": "image/png", "buffer": simulate_scan(Diagnosis.BENIGN, seed=3).png()}
    page.locator("input[type=file]").first.set_input_files([scan])
    expect(page.get_by_text("Model unet-dropout").last).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("This model outlines lesions only; it gives no class.")).to_be_visible(timeout=WAIT_MS)


def test_performance_draws_the_figures_of_the_version_in_service(open_evidence: Callable[[str], Page]) -> None:
    page = open_evidence("performance")
    in_service = json.loads((PROJECT_ROOT / "weights/registry.json").read_text(encoding="utf-8"))["in_service"]
    expect(page.get_by_role("combobox").first).to_have_value(f"{in_service} (in service)", timeout=WAIT_MS)
    for said in ("lesion Dice", "lesions missed", "normals given a mask", "copies in training: 0"):
        expect(page.get_by_text(said).first).to_be_visible(timeout=WAIT_MS)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=WAIT_MS)
    check_sound(page)
    page.get_by_role("combobox").nth(1).click()
    page.get_by_role("option", name="busi, all folds").click()
    expect(page.get_by_text("each on scans that it never saw: 423 scans")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("Show scans of the test")).to_have_count(0)  # most of them taught this version
    check_sound(page)
