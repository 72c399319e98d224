"""A version knows its limits, says so, and keeps its answer to itself on what is no breast ultrasound."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from files import save as save_picture
from pypdf import PdfReader
from safetensors.numpy import save
from versions import make_analyser, make_card, make_panel, make_weights, write_version

from busi_core.batch import read_cases, report_scan
from busi_core.batch_tables import rows_csv, summarise
from busi_core.data.pairing import pair_files
from busi_core.data.pixel_hash import pixel_hash
from busi_core.data.sources import list_uploads
from busi_core.errors import ModelUnavailableError, OutputError
from busi_core.explain.gradcam import LESION
from busi_core.findings import read_finding
from busi_core.folder import Outcome, analyse_plan, plan_paths
from busi_core.folder_compare import compare_cases, list_cases
from busi_core.imaging.decode import decode_image
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.limits import LIMITS_FILE, LIMITS_SCHEMA, Limits, _checksum, read_limits, write_limits
from busi_core.metrics.conformal import IN_DOUBT_BELOW, measure_nonconformity
from busi_core.models.familiarity import fit_familiarity
from busi_core.models.second_opinion import CLASS_BELOW
from busi_core.registry import put_into_service
from busi_core.report import Report, reading_record
from busi_core.report_pdf import draw_report
from busi_core.report_pdf.scan import truth_lines
from busi_core.service import Analyser, choose_device
from busi_core.serving import Serving
from busi_core.settings import PROJECT_ROOT
from busi_core.taught import KnownBy, write_taught
from busi_core.types import Diagnosis, ImageWarning, Likeness, Prediction
from pages.components.batch_view import NO_ANSWER, latest_strip, say_class


@pytest.fixture(scope="module")
def limits() -> Limits:
    """What the tiny model knows after looking at 120 simulated scans; its scores of the classes are made up."""
    analyser = make_analyser()
    scans = [
        simulate_scan(diagnosis, seed=seed, height=96, width=120).png()
        for seed in range(1, 41)
        for diagnosis in Diagnosis
    ]
    described = [analyser.describe(decode_image(scan)) for scan in scans]
    rng = np.random.default_rng(0)
    scores = rng.dirichlet((1, 1, 1), 60)
    return Limits(
        measure_nonconformity(scores, rng.integers(0, 3, 60)), fit_familiarity(described[:90], described[90:])
    )


@pytest.fixture(scope="module")
def knowing(limits: Limits) -> Analyser:
    plain = make_analyser()
    return Analyser(plain._network, plain.card, torch.device("cpu"), limits)


@pytest.fixture(scope="module")
def photograph() -> bytes:
    from skimage.data import astronaut

    return encode_png(astronaut())


@pytest.fixture(scope="module")
def scan() -> bytes:
    return simulate_scan(Diagnosis.BENIGN, seed=77, height=96, width=120).png()


# ---- On the road -----------------------------------------------------------------------------------------------


def test_a_scan_is_answered_as_before(knowing: Analyser, scan: bytes) -> None:
    with_limits, without = knowing.analyse(scan), make_analyser().analyse(scan)
    assert with_limits.likeness in (Likeness.KNOWN, Likeness.UNLIKE)
    assert without.likeness is None
    assert with_limits.prediction.probabilities == without.prediction.probabilities
    np.testing.assert_array_equal(with_limits.prediction.lesion_probability, without.prediction.lesion_probability)


def test_a_photograph_gets_no_class_no_lesion_and_no_evidence(knowing: Analyser, photograph: bytes) -> None:
    for read in (knowing.analyse, lambda data: knowing.analyse_for_batch(decode_image(data))):
        analysis = read(photograph)
        assert analysis.withheld
        assert analysis.likeness is Likeness.FOREIGN
        assert analysis.prediction.probabilities is None
        assert not read_finding(analysis).lesion_mask.any()
        assert list(analysis.heatmaps) == [LESION]
        assert not analysis.heatmaps[LESION].evidence.any()
        assert ImageWarning.WITHHELD in analysis.warnings


def test_for_an_answer_that_is_withheld_nobody_else_is_asked(limits: Limits, photograph: bytes, scan: bytes) -> None:
    panel = make_panel(limits=limits, class_below=1.0)
    withheld = panel.analyse(photograph)
    assert withheld.withheld
    assert withheld.opinions == ()
    assert ImageWarning.SECOND_OPINION not in withheld.warnings
    assert len(panel.analyse(scan).opinions) == len(panel.analyse(photograph, insist=True).opinions) == 3


def test_what_is_withheld_stands_in_the_record_with_its_reason(knowing: Analyser, photograph: bytes) -> None:
    analysis = knowing.analyse(photograph)
    record = reading_record(analysis, read_finding(analysis), file="holiday.png", taught=False)
    assert record["class"] is None
    assert record["probabilities"] is None
    assert record["flagged"] is None
    assert (record["not_ruled_out"], record["not_ruled_out_in"]) == (None, None)
    assert [record[key] for key in ("lesion_pixels", "regions", "size", "disagreement")] == [None] * 4
    assert ImageWarning.WITHHELD.value in json.dumps(record)


def test_record_table_and_pdf_name_the_classes_that_cannot_be_ruled_out(knowing: Analyser, scan: bytes) -> None:
    analysis = knowing.analyse(scan)
    assert knowing.limits is not None
    left = knowing.limits.classes_left(analysis.prediction, 0.9)
    assert left
    record = reading_record(analysis, read_finding(analysis), file="scan.png", taught=False)
    assert (record["not_ruled_out"], record["not_ruled_out_in"]) == ([str(name) for name in left], 0.9)
    (row,) = read_cases(knowing, pair_files(list_uploads([("scan.png", scan)]), keep_all=True).cases)
    (line,) = csv.DictReader(io.StringIO(rows_csv([row]).decode("utf-8-sig")))
    assert line["not_ruled_out"] == " or ".join(left)
    pdf = draw_report(
        Report([report_scan(row, pair_files(list_uploads([("scan.png", scan)])).cases[0])], "tiny", "now")
    )
    said = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    assert f"Cannot be ruled out (90% of cases): {' or '.join(left)}." in " ".join(said.split())


def test_an_image_without_contrast_is_withheld_for_that_reason_and_not_called_foreign(knowing: Analyser) -> None:
    analysis = knowing.analyse(save_picture(np.full((80, 100), 90, np.uint8), "PNG"))
    assert analysis.withheld
    record = reading_record(analysis, read_finding(analysis), file="grey.png", taught=False)
    assert record["withheld"]
    assert ImageWarning.NO_CONTRAST.value in record["warnings"]
    assert ImageWarning.WITHHELD.value not in record["warnings"]


def test_who_insists_gets_the_answer_with_a_warning(knowing: Analyser, photograph: bytes) -> None:
    analysis = knowing.analyse(photograph, insist=True)
    assert not analysis.withheld
    assert analysis.likeness is Likeness.FOREIGN
    assert analysis.prediction.probabilities == make_analyser().analyse(photograph).prediction.probabilities
    assert ImageWarning.INSISTED in analysis.warnings
    assert analysis.not_ruled_out is None


def test_a_photograph_that_comes_with_its_truth_is_measured_and_not_called_missed(
    knowing: Analyser, photograph: bytes
) -> None:
    """As `busi evaluate` does; without a truth its row has no answer."""
    height, width = decode_image(photograph).grey.shape
    whole = mask_png(np.ones((height, width), np.bool_))
    files = [("malignant/a.png", photograph), ("malignant/a_mask.png", whole), ("without.png", photograph)]
    known, unknown = read_cases(knowing, pair_files(list_uploads(files), keep_all=True).cases)
    outlined = read_finding(knowing.analyse(photograph, insist=True)).lesion_pixels
    assert known.reading is not None
    assert unknown.reading is not None
    assert known.truth.dice == pytest.approx(2 * outlined / (outlined + height * width))
    assert known.reading.scores is not None
    assert ImageWarning.INSISTED.value in known.reading.record["warnings"]
    assert unknown.reading.scores is None
    assert ImageWarning.WITHHELD.value in unknown.reading.record["warnings"]


def test_an_answer_withheld_is_nowhere_called_no_lesion(knowing: Analyser, photograph: bytes) -> None:
    cases = pair_files(list_uploads([("a.png", photograph)]), keep_all=True).cases
    (row,) = read_cases(knowing, cases)
    (line,) = csv.DictReader(io.StringIO(rows_csv([row]).decode("utf-8-sig")))
    assert {line[key] for key in ("class", "lesion_pixels", "lesion_share", "longest", "regions")} == {"n/a"}
    assert say_class(row) == NO_ANSWER
    assert ">no answer<" in latest_strip([row])
    report = Report([report_scan(row, cases[0])], "tiny", "2026-11-27 12:00 UTC")
    said = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(draw_report(report))).pages)
    assert "The answer is withheld: no class is given" in said
    assert "No lesion" not in said
    assert "lesion by the model" not in said
    assert "heat map" not in said
    table = draw_report(Report([report_scan(row, cases[0])] * 2, "tiny", "2026-11-27 12:00 UTC"))
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(table)).pages]
    assert "0.0%" not in pages[0]
    assert "2 without an answer" in pages[0]
    assert "no answer" in pages[0]
    assert "lesion by the model" not in " ".join(pages)


def test_an_answer_withheld_is_no_normal_without_a_mask(knowing: Analyser, photograph: bytes) -> None:
    """A row of a program that withheld the answer although a truth came with the scan."""
    (row,) = read_cases(knowing, pair_files(list_uploads([("a.png", photograph)]), keep_all=True).cases)
    truth = replace(row.truth, diagnosis=Diagnosis.NORMAL)
    assert row.reading is not None
    assert row.reading.withheld
    figures = {figure.name: figure for figure in summarise([replace(row, truth=truth)])[0].figures}
    assert figures["normals given a mask"].scans == 0
    (line,) = truth_lines(row.reading.record | {"truth": truth.record() | {"problem": None, "lesion_pixels": 0}})[1:]
    assert line == "No lesion in the reference. Dice n/a."


# ---- In folders ------------------------------------------------------------------------------------------------


def read_folder(analyser: Analyser, folder: Path, out: Path) -> list[Outcome]:
    return list(analyse_plan(analyser, plan_paths([folder], out)))


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.fixture
def holiday(tmp_path: Path, photograph: bytes) -> Path:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday/a.png").write_bytes(photograph)
    return tmp_path / "holiday"


def test_an_answer_withheld_leaves_a_record_with_its_reason_and_no_picture(
    knowing: Analyser, holiday: Path, tmp_path: Path
) -> None:
    (outcome,) = read_folder(knowing, holiday, tmp_path / "out")
    assert outcome.error is None
    assert outcome.summary == "answer withheld, not like a breast ultrasound as the model knows them"
    assert names_in(tmp_path / "out") == {"a.json"}
    record = json.loads((tmp_path / "out/a.json").read_text())
    assert record["lesion_pixels"] is None
    assert ImageWarning.WITHHELD.value in record["warnings"]
    (again,) = read_folder(knowing, holiday, tmp_path / "out")
    assert again.already_done


def test_the_empty_mask_of_an_earlier_program_goes(knowing: Analyser, holiday: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    read_folder(knowing, holiday, out)
    record = json.loads((out / "a.json").read_text()) | {"lesion_pixels": 0, "regions": 0}
    del record["input"]["read_by"]
    (out / "a.json").write_text(json.dumps(record))
    for kind in ("mask", "heatmap"):
        (out / f"a_{kind}.png").write_bytes(b"empty")
    (outcome,) = read_folder(knowing, holiday, out)
    assert not outcome.already_done
    assert names_in(out) == {"a.json"}


def test_a_mask_put_beside_an_answer_withheld_is_somebodys_and_stays(knowing: Analyser, holiday: Path) -> None:
    read_folder(knowing, holiday, holiday)
    assert names_in(holiday) == {"a.png", "a.json"}
    (holiday / "a_mask.png").write_bytes(b"somebody's work")
    with pytest.raises(OutputError, match="no result of this program"):
        read_folder(make_analyser(), holiday, holiday)
    assert (holiday / "a_mask.png").read_bytes() == b"somebody's work"


def test_scans_are_read_again_when_the_limits_were_made_anew(knowing: Analyser, holiday: Path, tmp_path: Path) -> None:
    """The weights are the same then, and what is answered is not."""
    read_folder(make_analyser(), holiday, tmp_path / "out")
    (outcome,) = read_folder(knowing, holiday, tmp_path / "out")
    assert outcome.summary.startswith("answer withheld")
    assert names_in(tmp_path / "out") == {"a.json"}


def test_a_comparison_reads_again_when_the_limits_were_made_anew(
    knowing: Analyser, holiday: Path, scan: bytes, tmp_path: Path
) -> None:
    (holiday / "b.png").write_bytes(scan)
    batch = list_cases(holiday, holiday)
    before = list(compare_cases(knowing, batch, tmp_path / "out"))
    assert [row.reading is not None and row.reading.withheld for row in before] == [True, False]
    without_limits = make_analyser()
    assert without_limits.card.sha256 == knowing.card.sha256
    after = list(compare_cases(without_limits, batch, tmp_path / "out"))
    assert [row.reading is not None and row.reading.withheld for row in after] == [False, False]
    assert after[0].reading is not None
    assert after[0].reading.record["lesion_pixels"] is not None


# ---- Sets of classes -------------------------------------------------------------------------------------------


def test_classes_that_cannot_be_ruled_out_are_named_in_order(limits: Limits) -> None:
    sure = Prediction(np.zeros((4, 4), np.float32), {d: float(d is Diagnosis.BENIGN) for d in Diagnosis})
    torn = Prediction(np.zeros((4, 4), np.float32), dict(zip(Diagnosis, (0.2, 0.4, 0.4), strict=True)))
    left = limits.classes_left(torn, 0.8)
    assert left is not None
    assert Diagnosis.BENIGN in (limits.classes_left(sure, 0.9) or ())
    assert list(left) == [d for d in Diagnosis if d in left]
    assert set(left) <= set(limits.classes_left(torn, 0.99) or ())


def test_without_a_class_there_is_no_set(limits: Limits) -> None:
    assert limits.classes_left(Prediction(np.zeros((4, 4), np.float32), None), 0.9) is None


# ---- On disk ---------------------------------------------------------------------------------------------------


def test_limits_come_back_as_they_were_written(tmp_path: Path, limits: Limits) -> None:
    card = make_card(make_weights())
    write_limits(tmp_path, limits, card)
    again = read_limits(tmp_path, card)
    assert again is not None
    assert again.nonconformity is not None
    assert limits.nonconformity is not None
    for one, other in zip(again.nonconformity.by_class, limits.nonconformity.by_class, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.nonconformity.in_doubt, limits.nonconformity.in_doubt)
    assert again.nonconformity.in_doubt_below == limits.nonconformity.in_doubt_below == IN_DOUBT_BELOW
    assert again.checksum() == limits.checksum()
    for name in ("mean", "scale", "precision"):
        np.testing.assert_array_equal(getattr(again.familiarity, name), getattr(limits.familiarity, name))
    assert again.familiarity.unlike_from == limits.familiarity.unlike_from
    assert again.familiarity.foreign_from == limits.familiarity.foreign_from


def test_the_version_in_service_is_in_doubt_by_one_rule() -> None:
    """It asks for a second opinion of the very scans that it compares with scans in doubt alone (ADR 24, 25)."""
    serving = Serving(PROJECT_ROOT / "weights", choose_device("cpu")).current()
    assert serving.limits is not None
    assert serving.limits.nonconformity is not None
    assert serving.card.second_opinion is not None
    assert serving.card.second_opinion.class_below == serving.limits.nonconformity.in_doubt_below == CLASS_BELOW
    assert CLASS_BELOW == IN_DOUBT_BELOW


def test_limits_from_before_scans_in_doubt_were_told_apart_are_read_as_they_were(
    tmp_path: Path, limits: Limits
) -> None:
    card = make_card(make_weights())
    before = {name: values for name, values in limits.tensors().items() if not name.startswith("doubt_")}
    about = {"schema": 1, "weights": card.sha256, "sha256": _checksum(before), "siblings": []}
    (tmp_path / LIMITS_FILE).write_bytes(save(before, {"about": json.dumps(about)}))
    again = read_limits(tmp_path, card)
    assert again is not None
    assert again.nonconformity is not None
    assert limits.nonconformity is not None
    assert not again.nonconformity.is_in_doubt((0.4, 0.3, 0.3))
    assert len(again.nonconformity.by_class[0]) == len(limits.nonconformity.by_class[0])


def flip_a_bit(content: bytes) -> bytes:
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


@pytest.mark.parametrize(
    "damage", [flip_a_bit, lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"{}"]
)
def test_damaged_limits_are_refused_and_the_version_with_them(
    tmp_path: Path, limits: Limits, damage: Callable[[bytes], bytes]
) -> None:
    """W2: a version that would refuse the wrong scans is not served."""
    card = write_version(tmp_path, "tiny")
    write_limits(tmp_path / "tiny", limits, card)
    Analyser.load(tmp_path / "tiny", torch.device("cpu"))
    path = tmp_path / "tiny" / LIMITS_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelUnavailableError, match="limits"):
        Analyser.load(tmp_path / "tiny", torch.device("cpu"))


def test_limits_of_other_weights_are_refused(tmp_path: Path, limits: Limits) -> None:
    write_limits(tmp_path, limits, make_card(make_weights(seed=1)))
    with pytest.raises(ModelUnavailableError, match="other weights"):
        read_limits(tmp_path, make_card(make_weights(seed=0)))


def test_limits_of_a_newer_program_are_not_called_damaged(tmp_path: Path, limits: Limits) -> None:
    """D1."""
    about = {"schema": LIMITS_SCHEMA + 1}
    (tmp_path / LIMITS_FILE).write_bytes(save(limits.tensors(), {"about": json.dumps(about)}))
    with pytest.raises(ModelUnavailableError, match=r"schema 3, this program reads up to 2\. Update the program"):
        read_limits(tmp_path, make_card(make_weights()))


def test_a_version_in_service_takes_up_a_list_of_what_taught_it(tmp_path: Path, scan: bytes) -> None:
    write_version(tmp_path, "tiny")
    put_into_service(tmp_path, "tiny")
    serving, grey = Serving(tmp_path, torch.device("cpu")), decode_image(scan).grey
    assert serving.current().taught.recognise(None, grey) is None
    write_taught(tmp_path / "tiny", [pixel_hash(grey)])
    assert serving.current().taught.recognise(None, grey) is KnownBy.PIXELS


def test_a_version_in_service_takes_up_new_limits(tmp_path: Path, limits: Limits, photograph: bytes) -> None:
    card = write_version(tmp_path, "tiny")
    put_into_service(tmp_path, "tiny")
    serving = Serving(tmp_path, torch.device("cpu"))
    assert not serving.current().analyse(photograph).withheld
    write_limits(tmp_path / "tiny", limits, card)
    assert serving.current().analyse(photograph).withheld
