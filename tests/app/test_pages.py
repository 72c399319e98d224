"""Every page as a person meets it, without a browser: notice first, errors explained, findings in words."""

import gc
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from files import dicom
from streamlit.testing.v1 import AppTest

from busi_core import Analyser, Analysis
from busi_core.imaging.encode import encode_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis
from pages.components import serving

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120  # the first page loads torch and the weights


def page_files() -> list[Path]:
    found = sorted(file for room in ("reading", "evidence", "admin") for file in (ROOT / "pages" / room).glob("*.py"))
    assert found
    return found


def open_page(file: Path) -> AppTest:
    return AppTest.from_file(str(file), default_timeout=TIMEOUT_SECONDS).run()


def texts(page: AppTest) -> str:
    return " ".join(str(block.value) for block in [*page.get("html"), *page.markdown, *page.error, *page.warning])


@pytest.fixture
def analyse_page() -> AppTest:
    return open_page(ROOT / "pages/reading/analyse.py")


def upload(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    page.file_uploader[0].set_value([(name, data, "image/png") for name, data in files])
    return page.run()


@pytest.mark.parametrize("file", page_files(), ids=lambda file: file.stem)
def test_every_page_opens_with_the_research_notice(file: Path) -> None:
    page = open_page(file)
    assert not page.exception
    assert "Research use only. Not a medical device." in page.warning[0].value


@pytest.mark.parametrize("file", page_files(), ids=lambda file: file.stem)
def test_a_setting_that_cannot_be_is_named_with_its_remedy(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_DEVICE", "gpu")
    page = open_page(file)
    assert not page.exception
    said = page.error[0].value.replace("\\", "")
    assert "BUSI_DEVICE is 'gpu'. Set it to auto, cpu or cuda." in said


def test_a_name_typed_for_one_scan_stands_on_no_other_scans_report(analyse_page: AppTest) -> None:
    scans = [(f"{seed}.png", simulate_scan(Diagnosis.BENIGN, seed=seed).png()) for seed in (1, 2)]
    page = upload(analyse_page, *scans)
    (field,) = page.text_input
    page = field.set_value("PATIENT-A").run()
    assert page.text_input[0].value == "PATIENT-A"
    page.session_state["tray"].open(1)
    page = page.run()
    assert "2 of 2 · 2.png" in texts(page)
    assert page.text_input[0].value == ""
    page = page.text_input[0].set_value("PATIENT-B").run()
    page.session_state["tray"].open(0)
    page = page.run()
    assert page.text_input[0].value == "PATIENT-A", "kept while another scan is open"
    page = page.button(key="clear").click().run()
    assert page.session_state["tray"].subjects == {}
    page = upload(page, *scans)
    assert page.text_input[0].value == ""
    assert set(page.session_state["tray"].subjects.values()) == {""}


def test_a_name_typed_for_a_scan_outlasts_a_popover_that_is_opened_and_left_alone(analyse_page: AppTest) -> None:
    """A closed one has no field in the browser: opened, it takes the text that the page named last, and reports it."""
    page = upload(analyse_page, *[(f"{n}.png", simulate_scan(Diagnosis.BENIGN, seed=n).png()) for n in (1, 2)])
    page = page.text_input[0].set_value("Case 17").run()
    for place in (1, 0):
        page.session_state["tray"].open(place)
        page = page.run()
    page = page.run()  # as after another cut-off
    field = page.text_input[0].proto
    page = page.text_input[0].set_value(field.value if field.set_value else field.default).run()
    assert page.text_input[0].value == "Case 17"
    assert "Case 17" in page.session_state["tray"].subjects.values()


def test_every_page_lies_in_a_subfolder_so_that_none_is_discovered_without_app() -> None:
    assert not list((ROOT / "pages").glob("*.py"))


def test_the_app_opens_on_analyse() -> None:
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=TIMEOUT_SECONDS).run()
    assert not page.exception
    assert "Read a breast ultrasound scan" in page.title[0].value


def test_an_uploaded_scan_is_read(analyse_page: AppTest) -> None:
    page = upload(analyse_page, ("left breast.png", simulate_scan(Diagnosis.MALIGNANT, seed=5).png()))
    assert not page.exception
    said = texts(page)
    assert "1 of 1 · left breast.png" in said
    assert "Model score" in said
    assert "Class of the image" in said


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="U1 empty"),
        pytest.param(b"not an image", id="U1 text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="U1 SVG"),
        pytest.param(b"%PDF-1.7", id="U1 PDF"),
        pytest.param(simulate_scan(Diagnosis.NORMAL, seed=1).png()[:5000], id="U2 truncated"),
    ],
)
def test_a_bad_upload_is_explained_without_a_traceback(analyse_page: AppTest, content: bytes) -> None:
    page = upload(analyse_page, ("notes.png", content))
    assert not page.exception
    assert len(page.error) == 1
    assert "notes" in page.error[0].value
    assert not page.get("download_button")


def test_a_good_file_beside_a_bad_one_is_read(analyse_page: AppTest) -> None:
    page = upload(analyse_page, ("scan.png", simulate_scan(Diagnosis.BENIGN, seed=2).png()), ("notes.png", b"text"))
    assert not page.exception
    assert not page.error
    assert "1 of 2 · scan.png" in texts(page)


def test_more_than_200_scans_are_capped_and_the_rest_is_said(analyse_page: AppTest) -> None:
    """U20, for one page."""
    data = simulate_scan(Diagnosis.BENIGN, seed=2, height=96, width=96).png()
    page = upload(analyse_page, *[(f"scan {number}.png", data) for number in range(205)])
    assert not page.exception
    assert any("5 files found no room" in warning.value for warning in page.warning)
    assert "1 of 200 · scan 0.png" in texts(page)


def test_a_simulated_scan_says_so(analyse_page: AppTest) -> None:
    page = analyse_page.button(key="sample-malignant").click().run()
    assert not page.exception
    assert "SIMULATED" in texts(page)


def test_clear_asks_and_then_forgets_every_scan(analyse_page: AppTest) -> None:
    page = analyse_page.button(key="sample-benign").click().run()
    assert not [button for button in page.button if button.label == "Clear"], "one tap forgets nothing"
    assert [str(one.proto.popover.label) for one in page.get("popover")].count("Clear") == 1
    page = page.button(key="clear").click().run()
    assert not page.exception
    assert "Read a breast ultrasound scan" in page.title[0].value
    assert page.session_state["tray"].scans == []


def test_what_was_forgotten_is_read_anew(analyse_page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the decoded scan nor its answer is kept, and no thumbnail."""
    read: list[bytes] = []
    analyse = Analyser.analyse

    def watched(self: Analyser, data: bytes, **asked: Any) -> Analysis:
        read.append(data)
        return analyse(self, data, **asked)

    monkeypatch.setattr(Analyser, "analyse", watched)
    scan = simulate_scan(Diagnosis.BENIGN, seed=77).png()
    page = upload(analyse_page, ("a.png", scan)).run()
    assert read == [scan], "once, however often the page runs"
    page = page.button(key="clear").click().run()
    upload(page, ("a.png", scan))
    assert read == [scan, scan]


def test_libraries_are_not_searched_for_garbage_after_every_run_of_a_page_and_sessions_are() -> None:
    """Streamlit searches all objects after each run; most are of libraries, and no session goes on meanwhile."""
    gc.unfreeze()
    serving._spare_libraries.clear()
    serving.get_serving.clear()
    loaded = len(gc.get_objects())
    serving.get_serving()
    assert len(gc.get_objects()) < loaded / 20
    spared = gc.get_freeze_count()
    of_a_session = [[number] for number in range(10_000)]
    serving.get_serving.clear()
    serving.get_serving()
    assert gc.get_freeze_count() <= spared, "what is made later would be kept for good"
    del of_a_session


def test_a_loaded_model_reads_on_when_its_files_are_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A volume that is no longer mounted: the banner says so, and the answer stands below it."""
    weights = Path(shutil.copytree(ROOT / "weights", tmp_path / "weights"))
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(weights))
    st.cache_resource.clear()
    page = open_page(ROOT / "pages/reading/analyse.py").button(key="sample-benign").click().run()
    weights.rename(tmp_path / "elsewhere")
    st.cache_data.clear()
    page = page.run()
    assert not page.exception
    assert "the one before is still reading" in texts(page)
    assert "Model score" in texts(page)
    st.cache_resource.clear()


def test_two_sessions_never_share_a_scan() -> None:
    """C5."""
    first, second = (open_page(ROOT / "pages/reading/analyse.py") for _ in range(2))
    first = upload(first, ("of patient A.png", simulate_scan(Diagnosis.BENIGN, seed=7).png()))
    second = second.run()
    assert "of patient A" in texts(first)
    assert "of patient A" not in texts(second)
    assert "tray" not in second.session_state or second.session_state["tray"].scans == []


def test_without_a_model_the_page_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path))
    from pages.components.serving import get_serving

    get_serving.clear()
    try:
        page = open_page(ROOT / "pages/reading/analyse.py").button(key="sample-benign").click().run()
        assert not page.exception
        assert "No model is in service" in page.error[0].value
    finally:
        get_serving.clear()


def test_an_image_without_contrast_gets_no_class() -> None:
    """U8."""
    page = open_page(ROOT / "pages/reading/analyse.py")
    page = upload(page, ("flat.png", encode_png(np.full((200, 300), 90, np.uint8))))
    assert not page.exception
    assert "No contrast" in page.error[0].value
    assert "Model score" not in texts(page)
    assert not page.get("download_button")


def test_the_frame_of_a_cine_is_chosen_and_named() -> None:
    """U10."""
    frames = np.stack([simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=128).grey for seed in range(3)])
    page = upload(open_page(ROOT / "pages/reading/analyse.py"), ("cine.dcm", dicom(frames, NumberOfFrames=3)))
    assert "frame 1 of 3 · cine.dcm" in texts(page)
    page = page.slider[0].set_value(3).run()
    assert not page.exception
    assert "frame 3 of 3 · cine.dcm" in texts(page)
    tray = page.session_state["tray"]
    tray.add([("other.dcm", dicom(frames[0]))], simulated=False)
    page = page.run()
    assert "other.dcm" in texts(page)
    assert not [slider for slider in page.slider if str(slider.key).startswith("frame-")]
    tray.step(-1)
    assert "frame 3 of 3 · cine.dcm" in texts(page.run()), "the chosen frame is kept while another scan is open"


def test_the_app_opens_and_reads_without_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """W3."""
    from pages.components.serving import get_serving

    def refuse(*_: object) -> None:
        raise AssertionError("the app asked for the network")

    get_serving.clear()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=TIMEOUT_SECONDS).run()
    page = page.button(key="sample-benign").click().run()
    assert not page.exception
    assert "Model score" in texts(page)
