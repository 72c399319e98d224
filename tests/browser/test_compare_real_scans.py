"""Compare with the model in service on real scans: figures, split line, blinking, a mask corrected and read back."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from app_server import REPOSITORY, start_server
from files import read_grey
from PIL import Image
from playwright.sync_api import Page, expect
from test_compare_in_browser import FIGURES, PAGE, Compared
from versions import copy_two_real_versions

from busi_core import Analyser, read_finding
from busi_core.comparison import compare_scan
from busi_core.corrections import AFTER_FILE, BEFORE_FILE, SCAN_FILE, read_corrections
from busi_core.data.records import Record, read_busi, read_truth
from busi_core.metrics.segmentation import count_overlap
from busi_core.registry import read_registry

pytestmark = [pytest.mark.browser, pytest.mark.realdata]

WEIGHTS = REPOSITORY / "weights"
SIZES = [pytest.param((1440, 900), "malignant (12)", id="desk"), pytest.param((390, 844), "benign (54)", id="phone")]


@pytest.fixture(scope="module")
def analyser() -> Analyser:
    return Analyser.load(WEIGHTS / read_registry(WEIGHTS).in_service, torch.device("cpu"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrections")


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    """The Compare page with the model in service and a store for corrected masks."""
    settings = {"BUSI_WEIGHTS_DIR": str(WEIGHTS), "BUSI_CORRECTIONS_DIR": str(store), "BUSI_DEVICE": "cpu"}
    server = start_server(PAGE, settings=settings)
    yield server.address
    server.stop()


def upload(shown: Compared, record: Record) -> None:
    scans, masks = shown.page.locator("input[type=file]").nth(0), shown.page.locator("input[type=file]").nth(1)
    scans.set_input_files(str(record.image), timeout=120_000)
    masks.set_input_files([str(mask) for mask in record.masks])
    for file in (record.image, *record.masks):
        expect(shown.page.get_by_role("button", name=f"Remove {file.name}", exact=True)).to_be_visible(timeout=60_000)
    shown.page.get_by_role("button", name="Compare", exact=True).first.click()
    shown.page.wait_for_selector('[data-testid="compare"][data-ready]', timeout=120_000)
    shown.settle()


@pytest.mark.parametrize(("viewport", "name"), SIZES)
def test_a_real_scan_is_compared_corrected_saved_and_kept(
    chromium_page: Callable[..., Page], address: str, store: Path, analyser: Analyser, data_root: Path,
    viewport: tuple[int, int], name: str,
) -> None:  # fmt: skip
    record = next(one for one in read_busi(data_root / "busi") if one.name == name)
    data = record.image.read_bytes()
    analysis = analyser.analyse(data)
    height, width = analysis.image.grey.shape
    truth = read_truth(record, height, width)
    shown = Compared(chromium_page(viewport), address)
    upload(shown, record)

    # The figures are the library's while the cut-off is dragged, before and after it is let go.
    for share in (0.75, 0.3):
        release = shown.drag(shown.slider("[data-cutoff='0']"), [0.5, share])
        cutoff = float(shown.viewer.locator(".reading output").first.inner_text())
        expected = compare_scan(analysis, truth, threshold=cutoff)
        held = shown.shown_figures(names=FIGURES)
        for figure in FIGURES:
            assert held[figure] == pytest.approx(getattr(expected.counts, figure), abs=1e-6), (figure, cutoff)
        release()
        distance = shown.viewer.locator("[data-figure=hd95]").first
        expect(distance).not_to_have_class("stale", timeout=60_000)
        assert float(distance.get_attribute("data-value") or "nan") == pytest.approx(expected.hd95_px, abs=1e-6)
        assert shown.shown_figures(names=FIGURES) == held

    # Split line and blinking.
    shown.viewer.press("3")
    divider = shown.page.get_by_test_id("divider")
    before = shown.canvas("split")
    divider.press("Home")
    assert shown.canvas("split") != before
    shown.viewer.press("b")
    expect(shown.viewer.locator("[data-part=side-left]")).to_have_text("Prediction", timeout=10_000)
    shown.viewer.press("b")

    # Correcting begins with what the model outlines at the cut-off on screen. A stroke, undone and done again; what is
    # saved is what is seen, of the scan's size, named as BUSI names it.
    predicted = read_finding(analysis, cutoff).lesion_mask
    shown.viewer.press("e")
    shown.page.get_by_test_id("stage-edit").scroll_into_view_if_needed()
    assert np.array_equal(shown.saved_mask()[1] > 0, predicted)
    shown.stroke((0.4, 0.12), (0.6, 0.14))
    file_name, drawn = shown.saved_mask()
    assert file_name == f"{name}_mask.png"
    assert drawn.shape == (height, width)
    assert set(np.unique(drawn)) == {0, 255}
    assert ((drawn > 0) >= predicted).all()
    assert (drawn > 0).sum() > predicted.sum()
    counts = count_overlap(drawn > 0, truth)
    own = shown.shown_figures(1, FIGURES)
    assert own == {figure: pytest.approx(getattr(counts, figure), abs=1e-6) for figure in FIGURES}
    shown.page.keyboard.press("Control+z")
    assert np.array_equal(shown.saved_mask()[1] > 0, predicted)
    shown.page.keyboard.press("Control+Shift+z")
    assert np.array_equal(shown.saved_mask()[1], drawn)

    # Kept, with the scan's own pixels.
    kept_before = len(read_corrections(store)) if any(store.iterdir()) else 0
    shown.viewer.get_by_role("button", name="Keep for retraining…").click()
    shown.page.get_by_label("Your name or initials").fill("A. Reader")
    shown.page.get_by_text("I looked at the whole scan").click()
    shown.page.get_by_role("button", name="Keep it").click()
    expect(shown.page.get_by_text("Kept as case")).to_be_visible(timeout=60_000)
    cases = read_corrections(store)
    assert len(cases) == kept_before + 1
    grey, before_it, after = (read_grey(store / cases[-1].id / file) for file in (SCAN_FILE, BEFORE_FILE, AFTER_FILE))
    with Image.open(io.BytesIO(data)) as picture:
        assert np.array_equal(grey, np.array(picture.convert("L")))
    assert np.array_equal(before_it > 0, predicted)
    assert np.array_equal(after > 0, drawn > 0)


@pytest.mark.slow
def test_two_versions_of_the_model_read_one_real_scan_beside_each_other(
    chromium_page: Callable[..., Page], tmp_path: Path, data_root: Path
) -> None:
    versions = copy_two_real_versions(tmp_path)
    record = next(one for one in read_busi(data_root / "busi") if one.name == "malignant (12)")
    analyses = [
        Analyser.load(tmp_path / version, torch.device("cpu")).analyse(record.image.read_bytes())
        for version in versions
    ]
    truth = read_truth(record, *analyses[0].image.grey.shape)
    server = start_server(PAGE, settings={"BUSI_WEIGHTS_DIR": str(tmp_path), "BUSI_DEVICE": "cpu"})
    try:
        shown = Compared(chromium_page(), server.address)
        upload(shown, record)
        shown.page.get_by_role("button", name="Versions").first.click()
        shown.page.get_by_role("combobox", name="Beside it").click()
        shown.page.get_by_role("option", name=versions[1]).click()
        expect(shown.viewer.locator(".reading:visible")).to_have_count(2, timeout=60_000)
        shown.page.keyboard.press("Escape")
        shown.viewer.press("4")
        expected = [compare_scan(analysis, truth) for analysis in analyses]
        for place, comparison in enumerate(expected):
            figures = shown.shown_figures(place)
            for figure in FIGURES:
                assert figures[figure] == pytest.approx(getattr(comparison.counts, figure), abs=1e-6), versions[place]
            assert figures["hd95"] == pytest.approx(comparison.hd95_px, abs=1e-6)
        assert expected[0].counts != expected[1].counts
        assert shown.canvas("prediction") != shown.canvas("other")
        # Each has its own cut-off.
        shown.drag(shown.slider("[data-cutoff='1']"), [0.5, 0.25])()
        cutoff = float(shown.viewer.locator(".reading output").nth(1).inner_text())
        second = compare_scan(analyses[1], truth, threshold=cutoff).counts
        for figure in FIGURES:
            assert shown.shown_figures(1)[figure] == pytest.approx(getattr(second, figure), abs=1e-6)
            assert shown.shown_figures(0)[figure] == pytest.approx(getattr(expected[0].counts, figure), abs=1e-6)
    finally:
        server.stop()
