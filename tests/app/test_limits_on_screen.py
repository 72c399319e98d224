"""What the model does not know, as a reader meets it on Analyse."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from skimage.data import astronaut
from streamlit.testing.v1 import AppTest
from versions import write_version

from busi_core.assessment.figures import read_assessment
from busi_core.data.records import read_busi
from busi_core.data.splits import split_busi
from busi_core.findings import read_finding
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.limits import LIMITS_FILE
from busi_core.models.checkpoint import CARD_FILE, MODEL_FILE
from busi_core.registry import REGISTRY_FILE, put_into_service, read_registry
from busi_core.report import TAUGHT
from busi_core.service import choose_device
from busi_core.serving import Serving
from busi_core.settings import PROJECT_ROOT
from busi_core.types import Diagnosis, ImageWarning
from busi_core.worth import say_peaks
from pages.components import downloads, viewer
from pages.components.viewer import pack_scene

PAGE = Path(__file__).parents[2] / "pages/reading/analyse.py"
COMPARE = PAGE.parent / "compare.py"
TIMEOUT_SECONDS = 120


@pytest.fixture
def page() -> AppTest:
    st.cache_resource.clear()
    return AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()


def upload(page: AppTest, name: str, data: bytes) -> AppTest:
    page.file_uploader[0].set_value([(name, data, "image/png")])
    return page.run()


def texts(page: AppTest) -> str:
    return " ".join(str(block.value) for block in [*page.get("html"), *page.markdown, *page.error, *page.warning])


def test_a_photograph_is_refused_with_the_reason_and_without_a_class(page: AppTest) -> None:
    page = upload(page, "holiday.png", encode_png(astronaut()))
    assert not page.exception
    said = texts(page)
    assert "No answer." in said
    assert "Model score" not in said
    assert "malignan" not in said.replace("normal, benign or malignant", "").lower()
    assert not page.get("download_button")


def test_who_insists_sees_the_answer_and_is_warned(page: AppTest) -> None:
    page = upload(page, "new machine.png", encode_png(astronaut()))
    page = page.button(key="insist").click().run()
    assert not page.exception
    said = texts(page)
    assert "Model score" in said
    assert "Not like a breast ultrasound as the model knows them, and answered all the same" in page.error[0].value
    assert "test scans" not in said, "what held on them says nothing here"
    assert "Cannot be ruled out" not in said, "nothing is promised for such an image"


def test_who_insists_meets_no_figure_of_test_scans_in_a_reading_that_is_in_doubt(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither beside the second opinion, nor below the six readings, nor beside the heat map."""
    worths = list[str]()

    def note_worth(*values: Any, heat_worth: str, **named: Any) -> Any:
        worths.append(heat_worth)
        return pack_scene(*values, heat_worth=heat_worth, **named)

    monkeypatch.setattr(viewer, "pack_scene", note_worth)
    page = upload(page, "new machine.png", encode_png(astronaut()[:256, :256].copy()))
    page = page.button(key="insist").click().run()
    page = page.button(key="doubt").click().run()
    assert not page.exception
    said = " ".join([texts(page), *(str(info.value) for info in page.info)])
    assert "Second opinion" in said
    assert "6 readings of this scan" in said
    assert "test scans" not in said
    assert worths[-1] == ""


def test_the_coverage_that_a_reader_chose_holds_after_a_scan_without_a_set_and_after_another_page() -> None:
    app = AppTest.from_file(str(PROJECT_ROOT / "app.py"), default_timeout=TIMEOUT_SECONDS).run()
    page = upload(app, "scan.png", simulate_scan(Diagnosis.MALIGNANT, seed=5).png())
    page = page.slider(key="coverage").set_value(80).run()
    page = upload(page, "flat.png", encode_png(np.full((200, 300), 90, np.uint8)))
    assert not page.slider
    page.session_state["tray"].step(-1)
    page = page.run()
    assert "Cannot be ruled out (80% of cases)" in texts(page)
    assert page.slider(key="coverage").value == 80
    page.switch_page("pages/evidence/about.py").run()
    page = page.switch_page("pages/reading/analyse.py").run()
    assert "Cannot be ruled out (80% of cases)" in texts(page)
    assert page.slider(key="coverage").value == 80


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_chosen_version_with_damaged_weights_says_so_and_leaves_the_way_back(
    is_gone: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version, seed in (("sound", 0), ("damaged", 1)):
        write_version(tmp_path, version, seed=seed)
    put_into_service(tmp_path, "sound")
    weights = tmp_path / "damaged" / MODEL_FILE
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path))
    st.cache_resource.clear()
    page = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    page = upload(page, "scan.png", simulate_scan(Diagnosis.BENIGN, seed=5).png())
    page = page.selectbox(key="analyse-version-sound").select("damaged").run()
    assert not page.exception
    assert "Model score" not in texts(page)
    (said,) = page.error
    assert "damaged" in said.value
    if is_gone:  # its card too: what is in service reads
        (tmp_path / "damaged" / CARD_FILE).unlink()
        st.cache_data.clear()
        page = page.run()
    else:
        assert page.selectbox(key="analyse-version-damaged").value == "damaged"
        page = page.selectbox(key="analyse-version-damaged").select("sound").run()
    assert not page.exception
    assert not page.error
    assert "Model sound" in texts(page)
    monkeypatch.undo()
    st.cache_resource.clear()


def test_an_open_scan_is_judged_anew_when_the_limits_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = PROJECT_ROOT / "weights"
    version = read_registry(weights).in_service
    shutil.copytree(weights / version, tmp_path / version, ignore=shutil.ignore_patterns(LIMITS_FILE))
    shutil.copy(weights / REGISTRY_FILE, tmp_path)
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path))
    st.cache_resource.clear()
    page = upload(AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run(), "a.png", encode_png(astronaut()))
    assert "Model score" in texts(page)
    shutil.copy(weights / version / LIMITS_FILE, tmp_path / version)
    page = page.run()
    assert not page.exception
    assert "No answer." in texts(page)
    monkeypatch.undo()
    st.cache_resource.clear()


def test_compare_answers_all_the_same_and_warns(page: AppTest) -> None:
    """Who brings the truth asks how wrong the model is; an answer withheld would count as a lesion missed."""
    photograph = astronaut()
    mask = np.zeros(photograph.shape[:2], np.bool_)
    mask[100:300, 100:300] = True
    page = AppTest.from_file(str(COMPARE), default_timeout=TIMEOUT_SECONDS).run()
    page.file_uploader[0].set_value([("new machine.png", encode_png(photograph), "image/png")])
    page.file_uploader[1].set_value([("new machine_mask.png", mask_png(mask), "image/png")])
    page = next(button for button in page.button if button.label == "Compare").click().run()
    assert not page.exception
    assert "Model score" in texts(page)
    assert "gives no class" not in texts(page)
    assert "answered all the same: its measured figures do not hold here" in texts(page)


def test_compare_withholds_what_nobody_insisted_on_where_no_truth_came_with_it() -> None:
    """As Analyse and Batch do."""
    page = AppTest.from_file(str(COMPARE), default_timeout=TIMEOUT_SECONDS).run()
    page.file_uploader[0].set_value([("holiday.png", encode_png(astronaut()), "image/png")])
    page = next(button for button in page.button if button.label == "Compare").click().run()
    assert not page.exception
    assert "The model gives no answer" in texts(page)
    assert "Model score" not in texts(page)
    assert "answered all the same" not in texts(page)


def test_a_scan_shows_the_classes_that_cannot_be_ruled_out(page: AppTest) -> None:
    page = upload(page, "scan.png", simulate_scan(Diagnosis.MALIGNANT, seed=5).png())
    said = texts(page)
    assert "Cannot be ruled out (90% of cases)" in said
    assert "one class has a score of 0.70 or more, such sets held the true class of" in said
    page = page.slider(key="coverage").set_value(80).run()
    assert "Cannot be ruled out (80% of cases)" in texts(page)


def test_an_overlay_says_what_the_screen_warns_of() -> None:
    analyser = Serving(PROJECT_ROOT / "weights", choose_device("cpu")).current()
    analysis = analyser.analyse(encode_png(astronaut()), insist=True)
    finding = replace(read_finding(analysis), disagreement="The class says benign, but no lesion is outlined.")
    said = downloads.cautions(analysis, finding, taught=True)
    assert said == [ImageWarning.INSISTED.sentence, TAUGHT, f"Findings disagree. {finding.disagreement}"]


def test_what_is_taken_along_names_the_classes_that_the_screen_names(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paper that rules out what the reader's own screen did not would be read as the model's word."""
    taken = list[Mapping[str, Any]]()

    def take(record: Mapping[str, Any]) -> bytes:
        taken.append(record)
        return b"{}"

    monkeypatch.setattr(downloads, "record_json", take)
    page = upload(page, "scan.png", simulate_scan(Diagnosis.MALIGNANT, seed=5).png())
    for percent in (90, 99):
        page = page.slider(key="coverage").set_value(percent).run()
        record = taken[-1]
        assert record["not_ruled_out_in"] == percent / 100
        assert f'<div class="set">{" or ".join(record["not_ruled_out"])}</div>' in texts(page)
    assert len(taken[-1]["not_ruled_out"]) > 1


def test_where_no_class_is_likely_the_set_is_larger_and_measured_on_such_scans(page: AppTest) -> None:
    """A set of one class beside a score of 0.5 would rule out what the next line calls as likely."""
    analyser = Serving(PROJECT_ROOT / "weights", choose_device("cpu")).current()
    scans = (simulate_scan(diagnosis, seed=seed).png() for seed in range(1, 40) for diagnosis in Diagnosis)
    torn = next(scan for scan in scans if max((analyser.analyse(scan).prediction.probabilities or {}).values()) < 0.6)
    said = texts(upload(page, "torn.png", torn))
    assert re.search(r'class="set">\w+ or \w+', said)
    assert "no class has a score of 0.70, such sets held the true class of" in said


def test_beside_the_heat_map_stands_how_often_such_maps_led_to_the_lesion() -> None:
    """Nine of ten peaks of the version in service lie outside it: 'evidence' alone would promise more."""
    card = Serving(PROJECT_ROOT / "weights", choose_device("cpu")).current().card
    figures = read_assessment(PROJECT_ROOT / "weights" / card.version, version=card.version, sha256=card.sha256)
    said = re.fullmatch(r"peak inside the lesion on (\d+)% of (\d+) test scans", say_peaks(figures))
    assert said
    assert int(said[1]) < 50
    assert int(said[2]) > 400  # every lesion of both hospitals


def test_six_readings_are_made_when_asked_for_and_not_before(page: AppTest) -> None:
    page = upload(page, "scan.png", simulate_scan(Diagnosis.BENIGN, seed=5).png())
    assert "readings of this scan" not in texts(page)
    page = page.button(key="doubt").click().run()
    assert not page.exception
    said = texts(page)
    assert "6 readings of this scan" in said
    assert "of the image" in said
    assert "Score of malignant" in said


@pytest.mark.realdata
def test_a_scan_that_taught_the_model_is_said_to_whatever_its_name(page: AppTest, data_root: Path) -> None:
    split = split_busi(read_busi(data_root / "busi"))
    taught, unseen = split.train[0], split.test[0]
    page = upload(page, "renamed.png", taught.image.read_bytes())
    assert TAUGHT in [info.value for info in page.info]
    page = upload(page, "another.png", unseen.image.read_bytes())
    assert "another.png" in texts(page)
    assert TAUGHT not in [info.value for info in page.info]
