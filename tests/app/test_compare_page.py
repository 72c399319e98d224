"""The Compare page as a person meets it, without a browser: what came in, what is explained, what is kept."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from files import dicom
from numpy.typing import NDArray
from PIL import Image
from pypdf import PdfReader
from streamlit.testing.v1 import AppTest
from versions import make_analyser, write_version

from busi_core import Diagnosis, read_finding, simulate_scan
from busi_core.batch import measure_truth
from busi_core.data.pairing import Batch
from busi_core.data.pixel_hash import pixel_hash
from busi_core.data.sources import list_uploads
from busi_core.data.truth import read_reference
from busi_core.metrics.segmentation import count_overlap
from busi_core.models.checkpoint import MalignancyFlag
from busi_core.registry import put_into_service
from busi_core.report import report_json
from busi_core.report_pdf import draw_report
from busi_core.settings import read_settings
from busi_core.taught import write_taught
from pages.components import compare_viewer
from pages.components.cases import CaseList
from pages.components.comparison_panel import class_block
from pages.components.downloads import ScanOnScreen, single_report
from pages.components.serving import get_serving
from pages.components.uploads import say_left_over

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pages/reading/compare.py"
SCAN = simulate_scan(Diagnosis.BENIGN, seed=3, height=120, width=150)
FRAMES = np.stack([SCAN.grey, 255 - SCAN.grey])


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


MASK = png(SCAN.mask.astype(np.uint8) * 255)


@pytest.fixture(autouse=True)
def two_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two tiny untrained versions, one in service, and no data set on the server."""
    folder = tmp_path / "weights"
    write_version(folder, "tiny-a", trained_on=("busi/benign (4)",))
    write_version(folder, "tiny-b", seed=1, lesion_threshold=0.437)
    put_into_service(folder, "tiny-a")
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(folder))
    monkeypatch.setenv("BUSI_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("BUSI_DEVICE", "cpu")
    monkeypatch.delenv("BUSI_CORRECTIONS_DIR", raising=False)
    get_serving.clear()
    yield
    get_serving.clear()


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(str(PAGE), default_timeout=120).run()


def texts(page: AppTest) -> str:
    blocks = [*page.get("html"), *page.markdown, *page.error, *page.warning, *page.info]
    return " ".join(str(block.value) for block in blocks)


def compare(page: AppTest, scans: list[tuple[str, bytes]], masks: list[tuple[str, bytes]] | None = None) -> AppTest:
    """Put files into the two uploaders and press Compare."""
    for key, files in (("scans-", scans), ("masks-", masks or [])):
        if files:
            uploader = next(one for one in page.file_uploader if str(one.key).startswith(key))
            uploader.set_value([(name, data, "image/png") for name, data in files])
    return next(button for button in page.button if button.label == "Compare").click().run()


def test_after_a_roll_back_an_open_session_reads_with_the_version_in_service(page: AppTest) -> None:
    """It errs, so nobody goes on with it."""
    page = compare(page, [("a.png", SCAN.png())], [("a_mask.png", MASK)])
    assert page.selectbox(key="compare-version-tiny-a").value == "tiny-a"
    put_into_service(read_settings().weights_dir, "tiny-b")
    page = page.run()
    assert not page.exception
    assert page.selectbox(key="compare-version-tiny-b").value == "tiny-b"
    assert "cut-off 0.44" in texts(page)


def test_a_scan_and_its_mask_are_compared(page: AppTest) -> None:
    page = compare(page, [("benign (7).png", SCAN.png()), ("benign (7)_mask.png", MASK)])
    assert not page.exception
    said = texts(page)
    assert "Each lesion of the reference" in said
    assert f"{int(SCAN.mask.sum()):,}" in said
    assert "Reference</td><td><b>benign" in said


@pytest.mark.parametrize(
    ("cutoff", "said"), [(0.001, "⚑ Flagged for malignancy"), (0.999, "Not flagged for malignancy")]
)
def test_whether_a_scan_is_flagged_stands_beside_its_scores(tmp_path: Path, cutoff: float, said: str) -> None:
    write_version(tmp_path / "weights", "flagging", malignancy=MalignancyFlag(cutoff, 0.95, 0.5, 40))
    put_into_service(tmp_path / "weights", "flagging")
    get_serving.clear()
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    page = compare(page, [("a.png", SCAN.png()), ("a_mask.png", MASK)])
    assert re.search(rf'<div class="flag (on|on beside|off)"><b>{said}', texts(page))
    assert f"flagged from {cutoff} on" in texts(page)


def test_a_flag_beside_another_class_is_amber_and_what_cannot_be_ruled_out_is_named() -> None:
    """As on Analyse and in the report."""
    analysis = make_analyser(malignancy=MalignancyFlag(0.001, 0.95, 0.5, 40)).analyse(SCAN.png())
    scores = {Diagnosis.NORMAL: 0.1, Diagnosis.BENIGN: 0.8, Diagnosis.MALIGNANT: 0.1}
    shown = replace(
        analysis,
        prediction=replace(analysis.prediction, probabilities=scores),
        not_ruled_out=(Diagnosis.BENIGN, Diagnosis.MALIGNANT),
    )
    said = class_block(shown, None)
    assert '<div class="flag on beside"><b>⚑ Flagged for malignancy, though the class is benign</b>' in said
    assert '<div class="set">benign or malignant</div>' in said


def test_a_name_typed_for_one_scan_stays_with_it_until_the_scans_are_cleared(page: AppTest) -> None:
    page = compare(page, [("a.png", SCAN.png()), ("b.png", png(255 - SCAN.grey))])
    page = page.text_input[0].set_value("PATIENT-A").run()
    cases = page.session_state["cases"]
    cases.open(1)
    page = page.run()
    assert page.text_input[0].value == ""
    cases.open(0)
    page = page.run()
    assert page.text_input[0].value == "PATIENT-A"
    page.button(key="clear-cases").click().run()
    assert cases.subjects == {}


def test_an_addition_without_a_scan_leaves_the_open_case_open() -> None:
    cases = CaseList()
    cases.add_uploads([(f"{n}.png", SCAN.png()) for n in range(3)])
    cases.open(1)
    cases.add_uploads([("notes.zip", b"PK\x03\x04 no")])
    assert cases.notes
    assert cases.index == 1


def test_masks_of_any_name_belong_to_the_only_scan_and_each_is_a_lesion(page: AppTest) -> None:
    half = SCAN.mask.copy()
    half[:, : int(np.flatnonzero(SCAN.mask.any(axis=0)).mean())] = False
    other = SCAN.mask & ~half
    masks = [(f"drawn {n}.png", png(one.astype(np.uint8) * 255)) for n, one in enumerate((half, other))]
    page = compare(page, [("scan.png", SCAN.png())], masks)
    assert not page.exception
    assert "2 mask files, merged." in texts(page)
    for part in (half, other):
        assert f"<td>{int(part.sum()):,}</td>" in texts(page)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        pytest.param(png(SCAN.mask.astype(np.uint8)[1:] * 255), "The mask is 150 x 119 pixels", id="U22 size"),
        pytest.param(b"no picture", "cannot be read as a picture", id="U22 no picture"),
    ],
)
def test_a_bad_mask_is_explained_and_gives_no_figures(page: AppTest, mask: bytes, said: str) -> None:
    page = compare(page, [("scan.png", SCAN.png()), ("scan_mask.png", mask)])
    assert not page.exception
    assert "No reference for this scan" in texts(page)
    assert said.replace(" ", "") in texts(page).replace("\\", "").replace(" ", "")
    assert "No reference mask." in texts(page)


def test_a_mask_that_is_not_black_and_white_says_how_it_was_read(page: AppTest) -> None:
    page = compare(page, [("scan.png", SCAN.png()), ("scan_mask.png", png(SCAN.mask.astype(np.uint8)))])
    assert "value 1 was read as lesion" in texts(page)
    assert f"{int(SCAN.mask.sum()):,}" in texts(page)


def test_a_bad_scan_in_a_zip_is_one_message_and_the_rest_goes_on(page: AppTest) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("benign/benign (1).png", b"broken")
        archive.writestr("benign/benign (1)_mask.png", MASK)
        archive.writestr("benign/benign (2).png", SCAN.png())
        archive.writestr("benign/benign (2)_mask.png", MASK)
        archive.writestr("malignant/malignant (9)_mask.png", MASK)
        archive.writestr("../../evil.txt", "not opened, not written")
    page = compare(page, [("set.zip", buffer.getvalue())])
    assert not page.exception
    assert "Masks without their scan" in texts(page)
    assert len(page.error) == 1
    assert [case.name for case in page.session_state["cases"].cases] == [
        "benign/benign (1).png",
        "benign/benign (2).png",
    ]
    page.session_state["cases"].open(1)
    page = page.run()
    assert not page.exception
    assert not page.error
    assert "found" in texts(page) or "missed" in texts(page)


def test_a_name_twice_stays_two_cases_and_the_same_pixels_are_pointed_out(page: AppTest) -> None:
    """U17."""
    other = simulate_scan(Diagnosis.BENIGN, seed=9, height=120, width=150).png()
    page = compare(page, [("scan.png", SCAN.png()), ("scan.png", other), ("copy.png", SCAN.png())])
    cases = page.session_state["cases"].cases
    assert [case.name for case in cases] == ["copy.png", "scan.png", "scan.png"]
    assert len({case.id for case in cases}) == 3
    page.session_state["cases"].open(1)
    page = page.run()
    assert not page.exception
    assert "The same pixels as copy" in page.info[0].value
    page.session_state["cases"].open(2)
    assert not page.run().info


def test_a_name_is_shown_letter_by_letter(page: AppTest) -> None:
    """U19."""
    name = "![x](http://example.org/x.png) <script>alert(1)</script>"
    page = compare(page, [(f"{name}.png", b"broken")])
    assert not page.exception
    assert "\\!\\[x\\]" in page.error[0].value
    assert "\\<script\\>" in page.error[0].value


def test_without_a_mask_nothing_is_scored(page: AppTest) -> None:
    page = compare(page, [("scan.png", SCAN.png())])
    assert not page.exception
    assert "No reference mask." in texts(page)
    assert "0.000" not in texts(page)


@pytest.mark.parametrize("diagnosis", list(Diagnosis))
def test_a_simulated_scan_brings_its_mask(page: AppTest, diagnosis: Diagnosis) -> None:
    page = page.button(key=f"compare-sample-{diagnosis.value}").click().run()
    assert not page.exception
    expected = "No lesion in the reference." if diagnosis is Diagnosis.NORMAL else "<td>1</td>"
    assert expected in texts(page)


def test_two_versions_stand_beside_each_other(page: AppTest) -> None:
    page = page.button(key="compare-sample-benign").click().run()
    page = page.selectbox(key="compare-second").select("tiny-b").run()
    assert not page.exception
    assert "Model tiny-a" in texts(page)
    assert "Model tiny-b" in texts(page)
    assert "cut-off 0.44" in texts(page)


def open_app() -> AppTest:
    """Compare among the other pages, so that a reader can leave it."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    return app.switch_page("pages/reading/compare.py").run()


def leave_and_come_back(page: AppTest) -> AppTest:
    """By another page: what Streamlit keeps of a widget goes with the page that it stood on."""
    page.switch_page("pages/evidence/about.py").run()
    return page.switch_page("pages/reading/compare.py").run()


def test_the_versions_and_the_frame_that_were_chosen_are_there_again_after_another_page() -> None:
    page = compare(open_app(), [("cine.dcm", dicom(FRAMES, NumberOfFrames=2))])
    page = page.selectbox(key="compare-version-tiny-a").select("tiny-b").run()
    page = page.selectbox(key="compare-second").select("tiny-a").run()
    page = page.slider[0].set_value(2).run()
    page = leave_and_come_back(page)
    assert not page.exception
    assert page.selectbox(key="compare-version-tiny-a").value == "tiny-b"
    assert page.selectbox(key="compare-second").value == "tiny-a"
    assert "Model tiny-a" in texts(page)
    assert "Model tiny-b" in texts(page)
    assert page.slider[0].value == 2


def test_a_cut_off_is_there_again_after_another_page_until_the_scans_are_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the browser reports goes with the page; as here, where it is asked once and says nothing afterwards."""
    reported = iter([{"tiny-a": 0.37}])
    monkeypatch.setattr(compare_viewer, "chosen_cutoffs", lambda *_: next(reported, {}))
    page = open_app().button(key="compare-sample-benign").click().run()
    assert "0.37" in texts(page)
    page = leave_and_come_back(page)
    assert not page.exception
    assert "0.37" in texts(page)
    page.button(key="clear-cases").click().run()
    page = page.button(key="compare-sample-benign").click().run()
    assert "0.37" not in texts(page)


def mount(page: AppTest, key: str) -> AppTest:
    """Open the popover that holds a choice, and touch nothing: the browser reports what the page named last."""
    proto = page.selectbox(key=key).proto
    taken = proto.raw_value if proto.set_value else proto.options[proto.default]
    return page.selectbox(key=key).set_value(taken).run()


def test_whoever_opens_the_versions_and_touches_nothing_reads_on_with_the_same(page: AppTest) -> None:
    put_into_service(read_settings().weights_dir, "tiny-b")  # the second of the list
    page = compare(page, [("a.png", SCAN.png()), ("b.png", png(255 - SCAN.grey))])
    page = page.selectbox(key="compare-second").select("tiny-a").run()
    cases = page.session_state["cases"]
    for place in (1, 0):  # step, look at the versions, step back
        cases.open(place)
        page = mount(mount(page.run(), "compare-version-tiny-b"), "compare-second")
    assert not page.exception
    assert page.selectbox(key="compare-version-tiny-b").value == "tiny-b"
    assert page.selectbox(key="compare-second").value == "tiny-a"


def test_in_the_place_of_a_chosen_version_that_is_gone_the_one_in_service_reads(tmp_path: Path) -> None:
    write_version(tmp_path / "weights", "tiny-c")
    put_into_service(tmp_path / "weights", "tiny-b")
    page = open_app().button(key="compare-sample-benign").click().run()
    page = page.selectbox(key="compare-version-tiny-b").select("tiny-c").run()
    page.switch_page("pages/evidence/about.py").run()
    shutil.rmtree(tmp_path / "weights" / "tiny-c")
    page = page.switch_page("pages/reading/compare.py").run()
    assert not page.exception
    assert page.selectbox(key="compare-version-tiny-b").value == "tiny-b"


def test_cleared_scans_take_their_drawings_along(page: AppTest) -> None:
    """The browser keeps what is drawn by this name, and forgets what bears another."""
    page = page.button(key="compare-sample-benign").click().run()
    cases = page.session_state["cases"]
    before = cases.session
    cases.kept.add(1)
    page.button(key="clear-cases").click().run()
    assert cases.session != before
    assert not cases.kept
    assert CaseList().session != CaseList().session  # two visitors, or a visitor who comes again


def test_a_scan_that_taught_the_model_is_named_as_such(page: AppTest) -> None:
    page = compare(page, [("benign (4).png", SCAN.png()), ("benign (4)_mask.png", MASK)])
    assert any("By its name this scan, or a copy of it, taught tiny" in info.value for info in page.info)
    page = page.button(key="clear-cases").click().run()
    page = compare(page, [("benign (5).png", SCAN.png()), ("benign (5)_mask.png", MASK)])
    assert not page.info


def test_a_renamed_scan_that_taught_the_model_is_known_by_its_pixels(tmp_path: Path) -> None:
    write_taught(tmp_path / "weights" / "tiny-a", [pixel_hash(SCAN.grey)])
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    page = compare(page, [("of patient X.png", SCAN.png()), ("of patient X_mask.png", MASK)])
    assert any("By its pixels this scan, or a copy of it, taught tiny" in info.value for info in page.info)


def test_a_data_set_of_the_server_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "clinic" / "malignant"
    folder.mkdir(parents=True)
    (folder / "malignant (3).png").write_bytes(SCAN.png())
    (folder / "malignant (3)_mask.png").write_bytes(MASK)
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    assert page.selectbox(key="known-set").options == ["clinic"]
    page = page.button(key="open-known-set").click().run()
    assert not page.exception
    assert "Reference</td><td><b>malignant" in texts(page)


def test_a_report_of_the_open_case_is_offered_for_each_version(page: AppTest) -> None:
    page = page.button(key="compare-sample-malignant").click().run()
    page = page.selectbox(key="compare-second").select("tiny-b").run()
    offered = [button.proto.id for button in page.get("download_button")]
    assert len(offered) == 4
    for version in ("tiny-a", "tiny-b"):
        for kind in ("pdf", "json"):
            assert any(one.endswith(f"compare-{kind}-{version}") for one in offered)


def test_the_report_of_a_compared_scan_holds_the_reference_and_its_figures() -> None:
    analysis = make_analyser().analyse(SCAN.png())
    finding = read_finding(analysis, 0.3)
    reference = read_reference(list_uploads([("a_mask.png", MASK)]), *SCAN.mask.shape)
    truth = measure_truth(Diagnosis.BENIGN, reference, finding, taught=True)
    scan = ScanOnScreen("a", "a.png", "1 of 1", simulated=False, taught=True)
    report = single_report(analysis, finding, scan, subject="", truth=truth, reference=reference.mask)
    (page,) = PdfReader(io.BytesIO(draw_report(report))).pages
    said = " ".join(page.extract_text().split())
    dice = count_overlap(finding.lesion_mask, SCAN.mask).dice
    assert f"Dice {dice:.3f}" in said
    assert "Reference class: benign" in said
    assert "taught the model" in said
    assert len(page.images) == 4  # scan, lesion, heat map, difference
    assert json.loads(report_json(report))["scans"][0]["truth"]["dice"] == pytest.approx(dice)


def test_clear_forgets_every_case(page: AppTest) -> None:
    page = page.button(key="compare-sample-benign").click().run()
    page = page.button(key="clear-cases").click().run()
    assert not page.exception
    assert page.session_state["cases"].cases == []
    assert "Compare with the ground truth" in page.title[0].value


def test_without_a_model_the_page_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path / "none"))
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    page = page.button(key="compare-sample-benign").click().run()
    assert not page.exception
    assert "No model is in service" in page.error[0].value


def test_what_is_wrong_with_a_table_of_an_upload_is_among_its_notes() -> None:
    """One who reads on believes that all classes came; of many problems some are said and the others counted."""
    cases = CaseList()
    cases.add_uploads([("bus_0001-l.png", SCAN.png()), ("bus_data.csv", b"")])
    (note,) = cases.notes
    assert "'bus_data.csv' gives no class" in note
    assert say_left_over(Batch((), (), (), problems=tuple("abcdefgh"))) == [*"abcde", "3 more problems of this kind."]
