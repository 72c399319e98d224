"""The Batch page in a real browser: results as they come, stop, sort and open, downloads read back, caps."""

import csv
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from pypdf import PdfReader

from busi_core.data.records import read_busi
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.settings import read_settings
from busi_core.types import Diagnosis

pytestmark = pytest.mark.browser

APP = Path(__file__).parents[2] / "app.py"
SIZES = [pytest.param((1440, 900), id="desk"), pytest.param((390, 844), id="phone")]
READ_MS = 240_000  # a batch on a busy machine


@pytest.fixture(scope="session")
def has_model() -> None:
    if not (read_settings().weights_dir / "registry.json").is_file():
        pytest.skip("no model in service; set BUSI_WEIGHTS_DIR")


@pytest.fixture
def batch_page(
    chromium_page: Callable[..., Page], streamlit_server: Callable[[Path], str], has_model: None
) -> Callable[..., Page]:
    def open_page(viewport: tuple[int, int] = (1440, 900)) -> Page:
        page = chromium_page(viewport)
        address = streamlit_server(APP)
        page.goto(address)  # the first session of a server must not begin on a deep link
        page.get_by_text("Read a breast ultrasound scan").wait_for(timeout=120_000)
        page.goto(f"{address}/batch")
        page.get_by_text("Read many scans at once").wait_for(timeout=60_000)
        return page

    return open_page


@pytest.fixture(scope="session")
def simulated_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve simulated scans with masks, one bad file, one copy."""
    path = tmp_path_factory.mktemp("batch") / "simulated.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for seed, diagnosis in enumerate(list(Diagnosis) * 4):
            scan = simulate_scan(diagnosis, seed=seed)
            archive.writestr(f"{diagnosis}/{seed}.png", scan.png())
            archive.writestr(f"{diagnosis}/{seed}_mask.png", mask_png(scan.mask))
        archive.writestr("a copy.png", simulate_scan(Diagnosis.BENIGN, seed=1).png())
        archive.writestr("broken.png", b"text")
    return path


@pytest.fixture(scope="session")
def many_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 small simulated scans: work for more than one run of the page."""
    path = tmp_path_factory.mktemp("batch") / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for seed in range(150):
            archive.writestr(f"{seed}.png", simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120).png())
    return path


def upload(page: Page, *files: Path) -> None:
    page.locator("input[type=file]").first.set_input_files([str(file) for file in files])


def wait_until_read(page: Page, text: str) -> None:
    expect(page.get_by_text(text)).to_be_visible(timeout=READ_MS)
    expect(page.get_by_role("tab", name="Summary")).to_be_visible()
    page.wait_for_timeout(1500)  # the table is painted on a canvas


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def download(page: Page, name: str) -> bytes:
    page.wait_for_timeout(1500)  # a file that is made when asked for belongs to the page's last run: let that end
    with page.expect_download(timeout=READ_MS) as found:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(found.value.path()).read_bytes()


def go_to(page: Page, name: str) -> None:
    page.get_by_test_id("stTopNavSection").first.click()
    page.get_by_test_id("stTopNavDropdownLink").filter(has_text=name).click()


def pick_row(page: Page, number: int) -> None:
    box = page.locator('[data-testid="stDataFrame"] canvas').first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 16, box["y"] + 36 + 72 * number + 36)


@pytest.mark.parametrize("viewport", SIZES)
def test_a_zip_is_read_measured_and_downloaded(
    batch_page: Callable[..., Page], simulated_zip: Path, viewport: tuple[int, int]
) -> None:
    page = batch_page(viewport)
    upload(page, simulated_zip)
    wait_until_read(page, "14 of 14 done, 1 could not be read")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tab(page, "Summary")
    expect(page.get_by_text("lesion Dice")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("with the same pixels as another file")).to_be_visible()
    tab(page, "Downloads")
    lines = list(csv.DictReader(io.StringIO(download(page, "CSV").decode("utf-8-sig"))))
    assert len(lines) == 14
    assert sum(line["dice"] != "n/a" for line in lines) == 8
    assert len(zipfile.ZipFile(io.BytesIO(download(page, "Masks"))).namelist()) == 13 + 1
    page.get_by_label("Name or number on the report").fill("Case 17")
    page.get_by_label("Name or number on the report").press("Enter")
    report = PdfReader(io.BytesIO(download(page, "Report (PDF)")))
    texts = [sheet.extract_text() for sheet in report.pages]
    assert all("Research use only. Not a medical device." in text and "Case 17" in text for text in texts)
    content = json.loads(download(page, "JSON"))
    assert [scan["file"] for scan in content["scans"]] == [line["file"] for line in lines]
    assert content["subject"] == "Case 17"


def test_on_a_phone_figures_and_why_they_have_no_interval_are_read_whole(
    batch_page: Callable[..., Page], tmp_path: Path
) -> None:
    """Of three scans most figures say that there are too few."""
    page, files = batch_page((390, 844)), []
    for diagnosis in Diagnosis:
        scan = simulate_scan(diagnosis, seed=1)
        for name, data in (
            (f"{diagnosis} (9999).png", scan.png()),
            (f"{diagnosis} (9999)_mask.png", mask_png(scan.mask)),
        ):
            (tmp_path / name).write_bytes(data)
            files.append(tmp_path / name)
    upload(page, *files)
    wait_until_read(page, "3 of 3 read")
    tab(page, "Summary")
    tables = page.locator("table.plain", has_text="too few scans for an interval")
    expect(tables).to_be_visible()
    box = tables.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390


def test_a_row_opens_in_analyse_and_in_compare(batch_page: Callable[..., Page], simulated_zip: Path) -> None:
    page = batch_page()
    upload(page, simulated_zip)
    wait_until_read(page, "14 of 14 done")
    pick_row(page, 1)
    page.get_by_role("button", name="Open in Analyse").click()
    expect(page.get_by_test_id("viewer")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("1 of 1 · benign/1.png")).to_be_visible(timeout=60_000)
    go_to(page, "Batch")
    expect(page.get_by_text("14 of 14 done")).to_be_visible(timeout=60_000)  # the batch is still there
    page.wait_for_timeout(1500)
    pick_row(page, 1)
    page.get_by_role("button", name="Open in Compare").click()
    expect(page.get_by_text("benign/1.png").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Dice").first).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("viewport", SIZES)
def test_nothing_moves_when_a_row_is_picked_and_the_line_of_rows_stays(
    batch_page: Callable[..., Page], simulated_zip: Path, viewport: tuple[int, int]
) -> None:
    page = batch_page(viewport)
    upload(page, simulated_zip)
    wait_until_read(page, "14 of 14 done")
    expect(page.locator(".latest")).to_have_count(0)
    table, line = page.get_by_test_id("stDataFrame").first, page.get_by_text("14 of 14 rows pass the filters.")
    before = (table.bounding_box(), line.bounding_box())
    pick_row(page, 1)
    expect(page.get_by_role("button", name="Open in Compare")).to_be_enabled()
    assert (table.bounding_box(), line.bounding_box()) == before


@pytest.mark.slow
def test_a_filter_narrows_the_table_and_the_downloads(batch_page: Callable[..., Page], simulated_zip: Path) -> None:
    page = batch_page()
    upload(page, simulated_zip)
    wait_until_read(page, "14 of 14 done")
    pick_row(page, 1)
    expect(page.get_by_role("button", name="Open in Analyse")).to_be_enabled()
    page.get_by_role("button", name="not read").click()
    expect(page.get_by_role("button", name="Open in Analyse")).to_be_disabled()  # it would open another scan
    expect(page.get_by_text("1 of 14 rows pass the filters.")).to_be_visible(timeout=30_000)
    tab(page, "Downloads")
    (line,) = csv.DictReader(io.StringIO(download(page, "CSV").decode("utf-8-sig")))
    assert line["file"] == "broken.png"


@pytest.mark.slow
def test_stop_stops_at_once_and_go_on_finishes(batch_page: Callable[..., Page], many_zip: Path) -> None:
    page = batch_page()
    upload(page, many_zip)
    expect(page.locator(".latest img").first).to_be_visible(timeout=READ_MS)  # results as they come
    page.get_by_role("button", name="Stop").click()
    stopped = page.get_by_text(" · stopped")
    expect(stopped).to_be_visible(timeout=10_000)
    said = stopped.inner_text()
    page.wait_for_timeout(3000)
    assert stopped.inner_text() == said
    assert 0 < int(said.split(" of ")[0]) < 150
    page.get_by_role("button", name="Go on").click()
    wait_until_read(page, "150 of 150 read")


@pytest.mark.slow
def test_the_batch_waits_while_another_page_is_open(batch_page: Callable[..., Page], many_zip: Path) -> None:
    page = batch_page()
    upload(page, many_zip)
    expect(page.locator(".latest img").first).to_be_visible(timeout=READ_MS)
    go_to(page, "Analyse")
    expect(page.get_by_text("Read a breast ultrasound scan")).to_be_visible(timeout=30_000)
    go_to(page, "Batch")
    wait_until_read(page, "150 of 150 read")


def test_names_never_become_part_of_the_page(batch_page: Callable[..., Page], tmp_path: Path) -> None:
    """U18, U19: no script runs, and no request leaves the page."""
    path = tmp_path / "names.zip"
    scan = simulate_scan(Diagnosis.BENIGN, seed=1, height=96, width=120).png()
    with zipfile.ZipFile(path, "w") as archive:
        for name in (
            "<img src=http://127.0.0.2/x onerror=alert(1)>.png",
            "![x](http://127.0.0.2/y.png).png",
            "../../z.png",
        ):
            archive.writestr(name, scan)
        archive.writestr("<script>alert(2)</script>.txt", b"")
    page, asked, alerts = batch_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: alerts.append(dialog.message) or dialog.dismiss())
    upload(page, path)
    wait_until_read(page, "3 of 3 read")
    pick_row(page, 0)
    page.wait_for_timeout(1500)
    assert not alerts
    assert not [url for url in asked if "127.0.0.2" in url]


@pytest.mark.slow
def test_a_thousand_files_at_once_are_taken_and_the_good_ones_read(
    batch_page: Callable[..., Page], tmp_path: Path
) -> None:
    """U20: the cap that the page names is one that the browser's uploader can do; what lies beyond it is said."""
    good = simulate_scan(Diagnosis.BENIGN, seed=1, height=96, width=120).png()
    for number in range(1001):
        (tmp_path / f"{number:04d}.png").write_bytes(good if number % 100 == 0 else b"no image")
    page = batch_page()
    upload(page, *sorted(tmp_path.iterdir()))
    wait_until_read(page, "1000 of 1000 done, 990 could not be read")
    expect(page.get_by_text("1,000 files are taken at once: 1 more were left out.")).to_be_visible()


def test_a_body_over_the_limit_is_answered_with_413(
    streamlit_server: Callable[[Path], str], batch_page: Callable[..., Page]
) -> None:
    """U21: refused by the server, whatever the page says."""
    page, found = batch_page(), []
    page.on("request", lambda request: found.append(request.url) if "/upload_file/" in request.url else None)
    page.locator("input[type=file]").first.set_input_files(
        [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"small"}]
    )
    expect(page.get_by_text("1 of 1 done, 1 could not be read")).to_be_visible(timeout=READ_MS)
    assert found
    status = page.evaluate(
        """async url => {
            const body = new FormData();
            body.append("file", new Blob([new Uint8Array(230 * 1024 * 1024)]), "big.zip");
            const token = document.cookie.split("; ").find(part => part.startsWith("_streamlit_xsrf="));
            const headers = token ? { "X-Xsrftoken": token.split("=")[1] } : {};
            try { return (await fetch(url, { method: "PUT", body, headers })).status; } catch { return 413; }
        }""",
        found[0],
    )
    assert status == 413


@pytest.mark.slow
@pytest.mark.realdata
def test_forty_real_scans_in_a_zip(batch_page: Callable[..., Page], data_root: Path, tmp_path: Path) -> None:
    records = random.Random(1).sample(read_busi(data_root / "busi"), 40)  # noqa: S311
    path = tmp_path / "busi.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for record in records:
            for file in (record.image, *record.masks):
                archive.write(file, f"{record.diagnosis}/{file.name}")
    page = batch_page()
    upload(page, path)
    wait_until_read(page, "40 of 40 read")
    tab(page, "Summary")
    expect(page.get_by_text("lesion Dice").first).to_be_visible(timeout=60_000)
    tab(page, "Downloads")
    lines = list(csv.DictReader(io.StringIO(download(page, "CSV").decode("utf-8-sig"))))
    by_name = {record.name: record for record in records}
    for line in lines:
        record = by_name[Path(line["file"]).stem]
        assert line["reference_class"] == record.diagnosis
        assert (line["dice"] == "n/a") == (record.diagnosis is Diagnosis.NORMAL)
