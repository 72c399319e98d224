"""The Batch page without a browser: rows as they come, caps, filters, stop and go on, downloads."""

import io
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from uploads import pack
from versions import make_analyser, write_version

from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.models.checkpoint import MalignancyFlag
from busi_core.registry import put_into_service
from busi_core.report import score_figure
from busi_core.types import Diagnosis
from pages.components import batch_queue, batch_view, budget
from pages.components.batch_queue import BatchQueue, list_server_folders
from pages.components.batch_view import Filters, filter_rows, latest_strip, make_frame, masks_zip
from pages.components.cases import CaseList
from pages.components.serving import get_serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pages/reading/batch.py"
TIMEOUT_SECONDS = 90
ALL = Filters((), (), (0.0, 1.0), (0.0, 100.0), (0.0, 1.0))


@pytest.fixture(autouse=True)
def tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(tmp_path / "weights", "tiny")
    put_into_service(tmp_path / "weights", "tiny")
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("BUSI_DEVICE", "cpu")
    get_serving.clear()


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()


def scan(diagnosis: Diagnosis = Diagnosis.BENIGN, seed: int = 1) -> bytes:
    return simulate_scan(diagnosis, seed=seed, height=96, width=120).png()


def upload(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    page.file_uploader[0].set_value([(name, data, "application/octet-stream") for name, data in files])
    return page.run()


def queue_of(page: AppTest) -> BatchQueue:
    queue: BatchQueue = page.session_state["batch-queue"]
    return queue


def texts(page: AppTest) -> str:
    """What is on screen, without the marks that keep markdown from reading a name."""
    blocks = [*page.get("html"), *page.markdown, *page.info, *page.error]
    return " ".join(str(block.value) for block in blocks).replace("\\", "")


def test_files_become_rows_and_a_bad_one_says_why(page: AppTest) -> None:
    page = upload(page, ("a.png", scan()), ("notes.txt", b"text"), ("b.png", scan(seed=2)))
    assert not page.exception
    rows = queue_of(page).rows
    assert [(row.name, row.problem is None) for row in rows] == [("a.png", True), ("b.png", True), ("notes.txt", False)]
    table = page.run().dataframe[0].value
    assert list(table["class"])[2] == "not read"
    assert "not an image" in list(table["notes"])[2]
    assert "dice" not in table  # nothing to compare with
    assert re.search(r"3 of 3 done, 1 could not be read · in [1-9]\d* s", texts(page)), "nothing is read in 0 s"
    assert re.search(r" · in \d+ s · model tiny<", texts(page))


def test_nothing_of_a_batch_that_was_cleared_goes_into_the_next(page: AppTest) -> None:
    """Neither the name typed for its report nor a filter that nobody sees any more."""
    page = upload(page, ("a.png", scan()), ("b.png", scan(seed=2))).run()
    page.text_input(key="batch-subject").set_value("PATIENT-A").run()
    page.slider(key="batch-score-0").set_value((0.99, 1.0)).run()
    assert "0 of 2 rows pass the filters" in texts(page)
    page.button(key="batch-clear").click().run()
    page = upload(page, ("c.png", scan(seed=3))).run()
    assert page.text_input(key="batch-subject").value == ""
    assert len(page.dataframe[0].value["class"]) == 1


def test_filters_and_the_reports_name_are_there_again_after_another_page_and_the_button_tells_those_inside_it() -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=TIMEOUT_SECONDS).run()
    page = upload(app.switch_page("pages/reading/batch.py").run(), ("a.png", scan()), ("b.txt", b"text")).run()
    assert label_of_filters(page) == "More filters"
    page.pills(key="batch-classes-0").set_value(["not read"]).run()
    assert label_of_filters(page) == "More filters"  # the classes stand beside it for everybody to see
    page.pills(key="batch-marks-0").set_value(["has warnings"]).run()
    page.slider(key="batch-score-0").set_value((0.25, 1.0)).run()
    page.slider(key="batch-area-0").set_value((0.0, 50.0)).run()
    page.text_input(key="batch-subject").set_value("Case 7").run()
    assert label_of_filters(page) == "More filters (3 set)"
    page.switch_page("pages/evidence/about.py").run()
    page = page.switch_page("pages/reading/batch.py").run()
    assert not page.exception
    assert page.pills(key="batch-classes-0").value == ["not read"]
    assert page.pills(key="batch-marks-0").value == ["has warnings"]
    assert page.slider(key="batch-score-0").value == (0.25, 1.0)
    assert page.slider(key="batch-area-0").value == (0.0, 50.0)
    assert page.text_input(key="batch-subject").value == "Case 7"
    assert label_of_filters(page) == "More filters (3 set)"
    assert "0 of 2 rows pass the filters." in texts(page)


def test_filters_are_told_to_a_browser_that_opens_them_later_and_are_named_and_cleared(page: AppTest) -> None:
    """A closed popover has no widgets there: opened, it takes what the page names last, and reports that."""
    page = upload(page, ("a.png", scan()), ("b.txt", b"text")).run()
    assert not [button for button in page.button if button.label == "Clear filters"]
    page.pills(key="batch-marks-0").set_value(["has warnings", "findings disagree"]).run()
    page.slider(key="batch-score-0").set_value((0.25, 1.0)).run()
    page = page.run()
    marks, score = page.pills(key="batch-marks-0").proto, page.slider(key="batch-score-0").proto
    assert [marks.options[place].content for place in marks.default] == ["has warnings", "findings disagree"]
    assert list(score.default) == [0.25, 1.0]
    assert "Only rows with: has warnings or findings disagree; Score of malignant 0.25 to 1.00" in texts(page)
    page = page.button(key="batch-clear-filters").click().run()
    assert label_of_filters(page) == "More filters"
    assert page.pills(key="batch-marks-1").value == []
    assert page.slider(key="batch-score-1").value == (0.0, 1.0)
    assert "2 of 2 rows pass the filters." in texts(page)


def label_of_filters(page: AppTest) -> str:
    labels = [str(block.proto.popover.label) for block in page.get("popover")]
    return next(label for label in labels if label.startswith("More filters"))


def test_a_scan_opened_in_compare_twice_is_there_once(page: AppTest) -> None:
    """What was drawn on it the first time would be missing on the second."""
    page = upload(page, ("a.png", scan()), ("b.png", scan(seed=2))).run()
    first, second = queue_of(page).cases
    cases = CaseList()
    for case in (first, second, first):
        cases.take(case, simulated=False)
    assert (len(cases.cases), cases.index) == (2, 0)


@pytest.mark.parametrize("where", ["analyse", "compare"])
def test_a_scan_that_finds_no_room_on_another_page_leaves_the_reader_here_with_the_reason(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There another patient's scan would be open."""
    monkeypatch.setattr(batch_view, "show_table", lambda rows, *_, **__: rows[0])  # AppTest cannot pick a row
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=TIMEOUT_SECONDS).run()
    page = upload(app.switch_page("pages/reading/batch.py").run(), ("a.png", scan())).run()
    monkeypatch.setattr(budget, "MAX_BYTES", 1000)
    page = page.button(key=f"batch-open-{where}").click().run()
    assert not page.exception
    assert "1 of 1 rows pass the filters" in texts(page)
    assert any("Clear a batch, cases or scans" in warning.value for warning in page.warning)
    monkeypatch.setattr(budget, "MAX_BYTES", 10**9)
    page = page.button(key=f"batch-open-{where}").click().run()
    assert not page.exception
    assert "rows pass the filters" not in texts(page)
    assert page.session_state["tray" if where == "analyse" else "cases"].held == len(scan())


def test_a_batch_is_not_read_on_when_what_the_model_answers_was_changed(page: AppTest) -> None:
    """Else one table would hold two readers under one name."""
    page = upload(page, ("a.png", scan()))
    queue_of(page).reader = "as it was before 'busi limits'"
    page = upload(page, ("b.png", scan(seed=2)))
    assert not page.exception
    assert [row.name for row in queue_of(page).rows] == ["a.png"]
    assert "Clear, and read again" in page.error[0].value


def test_a_batch_whose_model_goes_away_stops_with_the_reason(page: AppTest, tmp_path: Path) -> None:
    page = upload(page, ("a.png", scan()))
    shutil.rmtree(tmp_path / "weights")
    get_serving.clear()
    page = upload(page, ("b.png", scan(seed=2)))
    assert not page.exception
    assert [row.name for row in queue_of(page).rows] == ["a.png"]
    assert "No model is in service" in page.error[0].value


def test_a_zip_with_masks_gets_figures(page: AppTest) -> None:
    files = {}
    for seed in range(3):
        made = simulate_scan(Diagnosis.MALIGNANT, seed=seed, height=96, width=120)
        files[f"set/malignant/{seed}.png"] = made.png()
        files[f"set/malignant/{seed}_mask.png"] = mask_png(made.mask)
    page = upload(page, ("set.zip", pack(files)), ("broken.zip", b"PK\x03\x04 no")).run()
    assert not page.exception
    assert "broken.zip" in texts(page)
    assert "lesion Dice" in texts(page)
    assert re.search(r"<td>lesion Dice</td><td>0\.\d{3} \(too few scans for an interval\)</td>", texts(page))
    assert list(page.dataframe[0].value["reference"]) == ["malignant"] * 3


def test_the_summary_counts_scans_without_an_answer_so_that_all_are_accounted_for(page: AppTest) -> None:
    flat = mask_png(np.zeros((96, 120), bool))  # no contrast
    page = upload(page, ("a.png", scan()), ("flat.png", flat), ("c.txt", b"")).run()
    assert not page.exception
    assert "<b>1</b> without an answer · <b>1</b> not read" in texts(page)


def test_a_folder_of_the_readers_machine_is_read_and_what_is_no_scan_in_it_left_out(page: AppTest) -> None:
    made = simulate_scan(Diagnosis.BENIGN, seed=1, height=96, width=120)
    folder = next(one for one in page.file_uploader if str(one.key).startswith("batch-folder-files"))
    folder.set_value([
        ("set/benign/a.png", made.png(), "image/png"),
        ("set/benign/a_mask.png", mask_png(made.mask), "image/png"),
        ("set/benign/report.doc", b"text", "text/plain"),
        ("set/readme.txt", b"text", "text/plain"),
    ])  # fmt: skip
    page = page.run()
    assert not page.exception
    (row,) = queue_of(page).rows
    assert (row.name, row.truth.diagnosis) == ("set/benign/a.png", Diagnosis.BENIGN)
    assert "Left out, no images by their names: set/benign/report.doc." in texts(page)


def test_the_same_name_and_the_same_pixels_are_kept_and_flagged(page: AppTest) -> None:
    """U17."""
    page = upload(page, ("same.png", scan()), ("same.png", scan()), ("other.png", scan(seed=2))).run()
    rows = queue_of(page).rows
    assert len({row.id for row in rows}) == 3
    assert sum("Same pixels as same.png" in note for note in page.dataframe[0].value["notes"]) == 1


def test_more_scans_than_the_cap_are_counted_and_the_rest_goes_on(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U20: the cap is one number; here a small one."""
    monkeypatch.setattr(batch_queue, "MAX_CASES", 3)
    page = upload(page, ("set.zip", pack({f"{n}.png": scan(seed=n) for n in range(5)}))).run()
    assert not page.exception
    assert len(queue_of(page).rows) == 3
    assert "2 found no room" in texts(page)


def test_more_bytes_than_a_session_holds_are_refused(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_BYTES", 1000)
    page = upload(page, ("a.png", scan()))
    assert not page.exception
    assert not queue_of(page).cases
    assert "Clear a batch" in page.warning[1].value


def test_stop_keeps_what_was_read_and_go_on_reads_the_rest_once(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_queue, "CHUNK_SECONDS", 0.0)
    page = upload(page, *[(f"{n}.png", scan(seed=n)) for n in range(4)])
    read = len(queue_of(page).rows)
    assert 0 < read < 4
    page = page.button(key="batch-stop").click().run()
    stopped = len(queue_of(page).rows)
    assert len(queue_of(page.run()).rows) == stopped
    assert "stopped" in texts(page)
    page = page.button(key="batch-go-on").click().run()
    while queue_of(page).running:
        page = page.run()
    assert [row.name for row in queue_of(page).rows] == [f"{n}.png" for n in range(4)]


def test_clear_asks_and_then_forgets_the_batch(page: AppTest) -> None:
    page = upload(page, ("a.png", scan())).run()
    assert not [button for button in page.button if button.label == "Clear"], "one tap forgets nothing"
    assert [str(one.proto.popover.label) for one in page.get("popover")].count("Clear") == 1
    page = page.button(key="batch-clear").click().run()
    assert not page.exception
    assert queue_of(page).cases == []
    assert "Read many scans at once" in page.title[0].value


def test_names_are_shown_as_text(page: AppTest) -> None:
    """U19."""
    page = upload(
        page, ("<script>alert(1)</script>.txt", b""), ("![x](http://example.org/x.png).zip", b"PK\x03\x04")
    ).run()
    assert not page.exception
    assert not any("example.org" in str(block.value) for block in page.markdown)
    assert "<script>" not in texts(page)


def test_two_sessions_never_share_a_batch(page: AppTest) -> None:
    """C5."""
    upload(page, ("of patient A.png", scan()))
    other = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    assert queue_of(other).cases == []


def test_a_batch_is_read_by_one_model_to_its_end(
    tmp_path: Path, page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3."""
    monkeypatch.setattr(batch_queue, "CHUNK_SECONDS", 0.0)
    page = upload(page, *[(f"{n}.png", scan(seed=n)) for n in range(3)])
    write_version(tmp_path / "weights", "newer", seed=1)
    put_into_service(tmp_path / "weights", "newer")
    while queue_of(page).running:
        page = page.run()
    assert {row.reading.record["model"] for row in queue_of(page).rows if row.reading} == {"tiny"}


def test_without_a_model_the_batch_stops_and_says_so(
    tmp_path: Path, page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path / "none"))
    get_serving.clear()
    page = upload(page, ("a.png", scan()))
    assert not page.exception
    assert "No model is in service" in page.error[0].value
    assert not queue_of(page).running


def test_only_folders_below_the_roots_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "clinic"
    (root / "set" / "benign").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / "set" / "benign" / "a.png").write_bytes(scan())
    assert [relative for _, relative in list_server_folders([root, tmp_path / "none"])] == ["set", "set/benign"]
    monkeypatch.setenv("BUSI_DATA_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("BUSI_BATCH_ROOT", str(root))
    page = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    page = page.button(key="batch-read-folder").click().run()
    assert [row.name for row in queue_of(page).rows] == ["benign/a.png"]


def make_queue(*files: tuple[str, bytes], **card: object) -> BatchQueue:
    queue = BatchQueue()
    queue.add_uploads(files)
    queue.advance(make_analyser(**card), seconds=60, on_row=lambda: None)
    return queue


def test_filters_let_through_what_they_say() -> None:
    made = simulate_scan(Diagnosis.MALIGNANT, seed=4, height=96, width=120)
    queue = make_queue(
        ("malignant/a.png", made.png()), ("malignant/a_mask.png", mask_png(made.mask)),
        ("b.png", made.png()), ("c.txt", b""), lesion_threshold=0.45,
    )  # fmt: skip
    copies = queue.copies()

    def names(**changes: object) -> list[str]:
        return [row.name for row in filter_rows(queue.rows, replace(ALL, **changes), copies)]

    assert len(names()) == 3
    assert names(classes=("not read",)) == ["c.txt"]
    assert names(marks=("copy",)) == ["malignant/a.png"]
    assert names(dice=(0.0, 0.99)) == ["malignant/a.png"]  # a set range leaves out what has no Dice
    assert "c.txt" not in names(score=(0.0, 0.999))


def test_a_table_cell_that_is_not_defined_is_empty_rather_than_zero() -> None:
    queue = make_queue(("normal/a.png", scan()), ("b.txt", b""))
    frame = make_frame(queue.rows, {}, with_truth=True)
    assert frame["dice"] == [None, None]
    assert frame["score"][0] is None or frame["score"][1] is None


def test_a_score_in_the_table_is_never_certainty_nor_the_cut_off_it_is_beside_and_sorts_as_text() -> None:
    cutoff = 0.027
    scores = [1e-9, 0.0003, 0.004, 0.0268, 0.0269, 0.0272, 0.031, 0.5, 0.9994, 0.99962, 0.99999991]
    cells = [score_figure(score, cutoff) for score in scores]
    assert cells == sorted(cells)
    assert cells == [
        "0.000001", "0.0003", "0.004", "0.0268", "0.0269", "0.0272", "0.031", "0.500", "0.999", "0.9996", "0.999999",
    ]  # fmt: skip
    assert score_figure(0.0269, None) == "0.027"


@pytest.mark.parametrize(("cutoff", "flagged"), [(0.001, True), (0.999, False)])
def test_a_flag_stands_behind_the_class_in_the_table_and_while_it_is_read(cutoff: float, flagged: bool) -> None:
    """A narrow screen ends behind the class, and a flagged scan may be called benign."""
    queue = make_queue(("a.png", scan()), malignancy=MalignancyFlag(cutoff, 0.95, 0.5, 40))
    (said,) = make_frame(queue.rows, {}, with_truth=False)["class"]
    assert str(said).endswith(" ⚑") is flagged
    assert (" ⚑</figcaption>" in latest_strip(queue.rows)) is flagged


def test_a_row_says_that_its_scan_taught_the_model() -> None:
    files = (("benign/benign (2).png", scan()), ("benign/other.png", scan(seed=2)))
    queue = make_queue(*files, trained_on=("busi/benign (2)",))
    notes = make_frame(queue.rows, {}, with_truth=True)["notes"]
    assert ["Taught the model" in str(note) for note in notes] == [True, False]


def test_masks_of_equal_names_do_not_overwrite_each_other() -> None:
    queue = make_queue(("a/same.png", scan()), ("b/same.png", scan(seed=2)), ("../../x.png", scan(seed=3)))
    names = zipfile.ZipFile(io.BytesIO(masks_zip(queue.rows, queue.rows))).namelist()
    assert len(names) == len(set(names)) == 4
    assert not any("/" in name or "\\" in name or name.startswith(".") for name in names)


def test_what_a_row_keeps_is_small() -> None:
    """C4: 2,000 rows of 10 KB."""
    full = simulate_scan(Diagnosis.BENIGN, seed=1)
    queue = make_queue(("a.png", full.png()))
    (row,) = queue.rows
    assert row.reading is not None
    kept = row.reading.pictures
    assert kept is not None
    assert len(kept.thumbnail) + len(kept.mask) + kept.evidence.nbytes + row.reading.fingerprint.nbytes < 12_000


def test_nothing_is_read_twice_between_two_runs() -> None:
    queue = BatchQueue()
    queue.add_uploads([(f"{n}.png", scan(seed=n)) for n in range(6)])
    analyser = make_analyser()
    calls: list[int] = []
    analyse = analyser.analyse_for_batch
    analyser.analyse_for_batch = lambda *a, **k: calls.append(1) or analyse(*a, **k)  # type: ignore[method-assign]
    while queue.running:
        queue.advance(analyser, seconds=0.0, on_row=lambda: None)
    assert len(calls) == 6
    assert len(queue.rows) == 6
