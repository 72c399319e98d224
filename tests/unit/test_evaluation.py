"""A report says what single results add up to, is refused where training leaked into the test, and is read back."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score
from versions import TINY, make_analyser, make_card, make_weights, write_version

from busi_core.data.records import Record
from busi_core.data.splits import read_folds
from busi_core.errors import DatasetError
from busi_core.evaluation import (
    EvaluationReport,
    ScanResult,
    ScoreBand,
    band_of,
    count_copies,
    count_flagged,
    evaluate,
    format_table,
    keep_reports,
    read_reports,
    score_record,
    summarise,
    write_reports,
)
from busi_core.findings import read_finding
from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.metrics.segmentation import count_overlap, hd95
from busi_core.models.checkpoint import read_card
from busi_core.service import Analyser
from busi_core.types import Diagnosis

NAN = math.nan
CARD = make_card(make_weights())
CLASSES = [diagnosis.value for diagnosis in Diagnosis]


def result(name: str, truth: str, scores: tuple[float, float, float], **changes: Any) -> ScanResult:
    """One scored scan; overlap figures as they are for a normal left unmarked, unless given."""
    values: dict[str, Any] = {
        **dict.fromkeys(("dice", "iou", "hd95_px", "precision", "recall"), NAN),
        **{"pixel_accuracy": 1.0, "empty_mask_accuracy": 1.0, "has_mask": False, "lesion_share": 0.0},
    }
    return ScanResult(id=name, group=name, truth=truth, probabilities=scores, **(values | changes))


def lesion(name: str, truth: str, scores: tuple[float, float, float], dice: float) -> ScanResult:
    overlap = {"dice": dice, "iou": dice / (2 - dice), "precision": dice or NAN, "recall": dice}
    distance = 4.0 if dice else NAN
    return result(name, truth, scores, **overlap, hd95_px=distance, has_mask=dice > 0, lesion_share=0.1)


RESULTS = [
    result("n1", "normal", (0.8, 0.1, 0.1)),
    result("n2", "normal", (0.2, 0.5, 0.3), has_mask=True, dice=0.0, iou=0.0, precision=0.0, pixel_accuracy=0.9),
    lesion("b1", "benign", (0.1, 0.8, 0.1), 0.9),
    lesion("b2", "benign", (0.2, 0.6, 0.2), 0.8),
    lesion("b3", "benign", (0.1, 0.3, 0.6), 0.0),
    lesion("b4", "benign", (0.5, 0.4, 0.1), 0.5),
    lesion("m1", "malignant", (0.0, 0.1, 0.9), 0.7),
    lesion("m2", "malignant", (0.1, 0.4, 0.5), 0.6),
    lesion("m3", "malignant", (0.1, 0.7, 0.2), 0.005),
]
TRUTH = [CLASSES.index(one.truth) for one in RESULTS]
PREDICTED = [int(np.argmax(one.probabilities)) for one in RESULTS]


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return summarise(CARD, RESULTS, test_set="by hand")


# ---- Figures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ("lesion Dice", (0.9 + 0.8 + 0 + 0.5 + 0.7 + 0.6 + 0.005) / 7),
        ("lesions missed", 2 / 7),
        ("normals given a mask", 1 / 2),
        ("HD95 (px)", 4.0),
        ("pixel precision", (0.9 + 0.8 + 0.5 + 0.7 + 0.6 + 0.005) / 6),
        ("pixel recall", (0.9 + 0.8 + 0 + 0.5 + 0.7 + 0.6 + 0.005) / 7),
        ("pixel accuracy", (8 * 1 + 0.9) / 9),
        ("pixel accuracy of the empty mask", 1.0),
        ("accuracy (3 classes)", accuracy_score(TRUTH, PREDICTED)),
        ("macro-F1", f1_score(TRUTH, PREDICTED, average="macro")),
    ],
)
def test_each_figure_is_that_done_by_hand_or_by_scikit_learn(
    report: EvaluationReport, figure: str, expected: float
) -> None:
    assert report.table[figure].estimate == pytest.approx(expected)


def test_malignant_is_told_from_benign_on_lesions_alone(report: EvaluationReport) -> None:
    lesions = [one for one in RESULTS if one.truth != "normal"]
    scores = [one.probabilities[2] / (one.probabilities[1] + one.probabilities[2]) for one in lesions]
    expected = roc_auc_score([one.truth == "malignant" for one in lesions], scores)
    assert report.table["AUC malignant against benign"].estimate == pytest.approx(expected)


def test_the_confusion_matrix_is_scikit_learns_and_the_counts_are_its_rows(report: EvaluationReport) -> None:
    expected = confusion_matrix(TRUTH, PREDICTED)
    assert np.array_equal(report.confusion, expected)
    assert report.counts == dict(zip(CLASSES, expected.sum(axis=1).tolist(), strict=True))
    assert report.scans == len(RESULTS)


def test_every_figure_lies_in_its_interval(report: EvaluationReport) -> None:
    for name, interval in report.table.items():
        assert interval.low <= interval.estimate <= interval.high, name


def test_that_no_lesion_was_missed_is_no_certainty() -> None:
    """All draws of a share that is 0 agree, and so few scans prove nothing."""
    found = summarise(CARD, [one for one in RESULTS if one.dice > 0.01], test_set="x").table["lesions missed"]
    assert (found.estimate, found.low) == (0, 0)
    assert found.high > 0.3


def test_the_flag_is_scored_at_its_own_threshold(report: EvaluationReport) -> None:
    assert report.flag == {
        "threshold": 0.3,
        "sensitivity": pytest.approx(2 / 3),  # m3 scores 0.2
        "specificity": pytest.approx(4 / 6),  # n2 and b3 are flagged
    }


def test_images_of_one_case_are_drawn_together() -> None:
    """A case whose images all agree makes the interval as wide as one image would."""
    alone = summarise(CARD, RESULTS, test_set="x").table["lesion Dice"]
    twice = [replace(one, id=f"{one.id} {n}", group=one.group) for one in RESULTS for n in range(4)]
    together = summarise(CARD, twice, test_set="x").table["lesion Dice"]
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    apart = [replace(one, group=one.id) for one in twice]
    narrower = summarise(CARD, apart, test_set="x").table["lesion Dice"]
    assert narrower.high - narrower.low < 0.8 * (alone.high - alone.low)


def test_a_test_set_without_normals_has_no_figure_on_normals() -> None:
    """BUS-BRA: n/a, never 0."""
    report = summarise(CARD, [one for one in RESULTS if one.truth != "normal"], test_set="x")
    assert math.isnan(report.table["normals given a mask"].estimate)
    assert report.counts["normal"] == 0
    assert report.table["lesion Dice"].estimate > 0


def test_a_test_set_without_malignant_scans_has_no_auc_and_still_reports() -> None:
    report = summarise(CARD, [one for one in RESULTS if one.truth != "malignant"], test_set="x")
    assert math.isnan(report.table["AUC malignant against benign"].estimate)
    assert math.isnan(report.table["sensitivity at 90 % specificity"].estimate)
    assert report.flag is not None
    assert math.isnan(report.flag["sensitivity"])


@pytest.mark.parametrize(
    ("score", "low", "high"),
    [(0.0, 0.0, 0.05), (0.049, 0.0, 0.05), (0.05, 0.05, 0.2), (0.2, 0.2, 0.5), (0.79, 0.5, 0.8), (1.0, 0.8, 1.0)],
)
def test_a_score_falls_into_the_band_that_it_was_counted_in(
    report: EvaluationReport, score: float, low: float, high: float
) -> None:
    band = band_of([report], score, flag=None)
    assert band is not None
    assert (band.low, band.high) == (low, high)


def test_the_bands_count_every_scan_once(report: EvaluationReport) -> None:
    assert [(band.scans, band.malignant) for band in report.bands] == [(0, 0), (3, 0), (3, 1), (2, 1), (1, 1)]
    for band in report.bands:
        assert band_of([report], band.low, flag=None) == band


def test_a_flagged_scan_is_not_counted_with_those_that_are_not_flagged(report: EvaluationReport) -> None:
    """Else one line would say of both that as many were malignant, and deny the flag beside it."""
    below, above = (band_of([report], score, flag=0.1) for score in (0.099, 0.1))
    assert below is not None
    assert above is not None
    assert (below.low, below.high, above.low, above.high) == (0.05, 0.1, 0.1, 0.2)
    scores = [one.probabilities[2] for one in RESULTS]
    assert (below.scans, above.scans) == (sum(0.05 <= s < 0.1 for s in scores), sum(0.1 <= s < 0.2 for s in scores))


def test_scans_of_several_test_sets_are_counted_together(report: EvaluationReport) -> None:
    outlines_only = replace(report, results=tuple(replace(one, probabilities=None) for one in RESULTS))
    assert band_of([report, outlines_only, report], 0.3, flag=None) == ScoreBand(0.2, 0.5, 6, 2)
    assert band_of([outlines_only], 0.3, flag=None) is None


def test_what_a_flag_is_worth_is_counted_on_all_test_scans_with_a_class(report: EvaluationReport) -> None:
    cutoff = 0.3
    truth = np.array([one.truth == "malignant" for one in RESULTS])
    marked = np.array([one.probabilities[2] >= cutoff for one in RESULTS])
    (_, false_alarms), (_, found) = confusion_matrix(truth, marked)
    outlines_only = replace(report, results=tuple(replace(one, probabilities=None) for one in RESULTS))
    counted = ((2 * found, 2 * truth.sum()), (2 * false_alarms, 2 * (~truth).sum()))
    assert count_flagged([report, outlines_only, report], cutoff) == counted
    assert count_flagged([outlines_only], cutoff) is None


def test_the_printed_table_has_every_figure_and_says_that_nothing_leaked(report: EvaluationReport) -> None:
    text = format_table(report)
    assert "tiny on by hand: 9 scans (2 normal, 4 benign, 3 malignant)" in text
    assert "copies in training: 0" in text
    for name in report.table:
        assert name in text
    assert "[1, 2, 1]" in text or "(1, 2, 1)" in text


# ---- One scan through the front door ---------------------------------------------------------------------------


@pytest.fixture
def make_record(tmp_path: Path) -> Callable[..., Record]:
    """Write a simulated scan and its truth, and make its record."""

    def make(name: str, scan: SimulatedScan, **changes: Any) -> Record:
        (tmp_path / f"{name}.png").write_bytes(scan.png())
        Image.fromarray(scan.mask).save(tmp_path / f"{name}_mask.png")
        record = Record(f"busi/{name}", tmp_path / f"{name}.png", (tmp_path / f"{name}_mask.png",), scan.diagnosis)
        return replace(record, **changes)

    return make


def simulate(seed: int, diagnosis: Diagnosis = Diagnosis.BENIGN) -> SimulatedScan:
    return simulate_scan(diagnosis, seed=seed, height=96, width=120)


def test_a_scan_is_scored_at_its_own_pixels(analyser: Analyser, make_record: Callable[..., Record]) -> None:
    scan = simulate(4, Diagnosis.MALIGNANT)
    scored = score_record(analyser, make_record("x", scan))
    analysis = analyser.analyse(scan.png())
    mask = read_finding(analysis).lesion_mask
    counts = count_overlap(mask, scan.mask)
    assert scored.truth == "malignant"
    assert (scored.dice, scored.iou, scored.hd95_px) == (counts.dice, counts.iou, hd95(mask, scan.mask))
    assert scored.lesion_share == scan.mask.mean()
    assert scored.has_mask == mask.any()
    assert analysis.prediction.probabilities is not None
    assert scored.probabilities == tuple(analysis.prediction.probabilities[d] for d in Diagnosis)


def test_a_mask_of_another_size_is_an_error_and_no_zero(analyser: Analyser, make_record: Callable[..., Record]) -> None:
    """U22."""
    record = make_record("x", simulate(4))
    Image.fromarray(np.zeros((96, 121), np.uint8)).save(record.masks[0])
    with pytest.raises(DatasetError, match="121 x 96"):
        score_record(analyser, record)


def test_a_model_without_a_class_head_is_scored_on_its_masks_alone(
    make_record: Callable[..., Record], tmp_path: Path
) -> None:
    analyser = make_analyser(architecture=replace(TINY, image_classes=()), malignancy=None)
    scored = score_record(analyser, make_record("x", simulate(4)))
    assert scored.probabilities is None
    report = summarise(analyser.card, [scored], test_set="simulated")
    assert 0 <= report.table["lesion Dice"].estimate <= 1
    assert math.isnan(report.table["macro-F1"].estimate)
    assert (report.confusion, report.reliability, report.bands, report.flag) == ((), (), (), None)
    write_version(tmp_path, "masks", architecture=replace(TINY, image_classes=()), malignancy=None)
    kept = replace(report, model="masks", sha256=read_card(tmp_path / "masks").sha256)
    write_reports(tmp_path / "masks", [kept])
    (again,) = read_reports(tmp_path / "masks")
    assert again.results[0].probabilities is None
    assert "confusion" not in format_table(again)


def test_images_are_grouped_by_case_and_by_scan(analyser: Analyser, make_record: Callable[..., Record]) -> None:
    first, second = next(scan.files for scan in read_folds() if len(scan.files) == 2)
    scored = score_record(analyser, make_record(second, simulate(1)))
    assert scored.group == f"busi/{first}"
    scored = score_record(analyser, make_record("y", simulate(1), group="bus-bra/case 7"))
    assert scored.group == "bus-bra/case 7"
    assert score_record(analyser, make_record("z", simulate(1))).group == "busi/z"


# ---- Leaks ---------------------------------------------------------------------------------------------------


def test_a_model_that_saw_other_scans_is_evaluated(make_record: Callable[..., Record]) -> None:
    taught, test = make_record("taught", simulate(1)), [make_record(f"t{n}", simulate(n)) for n in (2, 3)]
    counted: list[tuple[int, int]] = []
    analyser = make_analyser(trained_on=(taught.id,))
    report = evaluate(
        analyser, test, [taught, *test], test_set="x", on_scan=lambda done, of: counted.append((done, of))
    )
    assert report.copies_in_training == 0
    assert [one.id for one in report.results] == ["busi/t2", "busi/t3"]
    assert counted == [(1, 2), (2, 2)]


def paired_names() -> tuple[str, str]:
    """Two files of one scan that is in a fold."""
    return next((s.files[0], s.files[1]) for s in read_folds() if len(s.files) > 1 and s.fold is not None)


def brighten(scan: SimulatedScan) -> SimulatedScan:
    """The same scan as it might be saved again: other gain, a caliper."""
    grey = np.clip(scan.grey * 0.9 + 10, 0, 255).astype(np.uint8)
    cv2.drawMarker(grey, (40, 40), 255, cv2.MARKER_CROSS, 7)
    return replace(scan, grey=grey)


@pytest.mark.parametrize("kind", ["name", "list", "case", "pixels"])
def test_a_report_with_a_leak_is_refused(make_record: Callable[..., Record], kind: str) -> None:
    """J7."""
    first, second = paired_names()
    scored, taught = {
        "name": (make_record("a", simulate(1)), make_record("a", simulate(1))),
        "list": (make_record(first, simulate(1)), make_record(second, simulate(2))),
        "case": (make_record("l", simulate(1), group="case 7"), make_record("r", simulate(2), group="case 7")),
        "pixels": (make_record("a", simulate(1)), make_record("b", brighten(simulate(1)))),
    }[kind]
    clean = make_record("clean", simulate(9))
    analyser = make_analyser(trained_on=(taught.id,))
    assert count_copies(analyser.card, [clean, scored], [clean, scored, taught]) == 1
    with pytest.raises(DatasetError, match="1 of 2 scored scans have a copy among those that taught 'tiny'"):
        evaluate(analyser, [clean, scored], [clean, scored, taught], test_set="x")


def test_a_leak_by_list_is_found_even_where_the_teachers_files_are_not_at_hand(
    make_record: Callable[..., Record],
) -> None:
    first, second = paired_names()
    card = replace(CARD, trained_on=(f"busi/{second}",))
    assert count_copies(card, [make_record(first, simulate(1))], []) == 1


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DatasetError, match="no scan to score"):
        evaluate(make_analyser(), [], [], test_set="x")


# ---- On disk -------------------------------------------------------------------------------------------------


def same(first: Any, second: Any) -> bool:
    """Equal, where NaN equals NaN."""
    return repr(first) == repr(second)


def test_reports_are_read_as_they_were_written(tmp_path: Path, report: EvaluationReport) -> None:
    card = write_version(tmp_path, "tiny")
    assert card.sha256 == report.sha256
    others = summarise(card, [one for one in RESULTS if one.truth == "benign"], test_set="benign alone")
    write_reports(tmp_path / "tiny", [report, others])
    read = read_reports(tmp_path / "tiny")
    assert same(read, [report, others])
    for one in read:
        assert format_table(one) == format_table(report if one.test_set == "by hand" else others)


def test_reports_on_a_version_with_the_same_first_network_are_not_taken_for_its_own(
    tmp_path: Path, report: EvaluationReport
) -> None:
    write_version(tmp_path, "tiny")
    write_reports(tmp_path / "tiny", [replace(report, model="another"), replace(report, sha256="0" * 64)])
    assert read_reports(tmp_path / "tiny") == []


def test_one_report_is_renewed_and_that_of_another_test_set_stays(tmp_path: Path, report: EvaluationReport) -> None:
    card = write_version(tmp_path, "tiny")
    hospital = summarise(card, [lesion("of a hospital", "benign", (0.1, 0.8, 0.1), 0.5)], test_set="a hospital")
    write_reports(tmp_path / "tiny", [report, hospital])
    newer = summarise(card, RESULTS[:4], test_set="by hand")
    keep_reports(tmp_path / "tiny", [newer])
    assert same(read_reports(tmp_path / "tiny"), [newer, hospital])


def test_no_scan_is_kept_in_two_reports(tmp_path: Path, report: EvaluationReport) -> None:
    """As where promotion.toml has another name for a fold: what was scored like a scan would be counted twice."""
    write_version(tmp_path, "tiny")
    renamed = replace(report, test_set="another name")
    write_reports(tmp_path / "tiny", [report])
    keep_reports(tmp_path / "tiny", [renamed])
    assert same(read_reports(tmp_path / "tiny"), [renamed])


def test_reports_on_other_weights_are_not_kept(tmp_path: Path, report: EvaluationReport) -> None:
    write_version(tmp_path, "tiny")
    write_reports(tmp_path / "tiny", [replace(report, sha256="0" * 64)])
    own = replace(report, test_set="another", results=())
    keep_reports(tmp_path / "tiny", [own])
    assert [one["test_set"] for one in json.loads((tmp_path / "tiny/evaluation.json").read_text())["reports"]] == [
        "another"
    ]


def test_what_is_no_number_is_written_as_null(tmp_path: Path, report: EvaluationReport) -> None:
    write_reports(tmp_path, [report])
    text = (tmp_path / "evaluation.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert json.loads(text)["reports"][0]["results"][0]["dice"] is None


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(Path.unlink, id="missing"),
        pytest.param(lambda path: path.write_text(""), id="empty"),
        pytest.param(lambda path: path.write_text(path.read_text()[:-40]), id="cut off"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe"), id="not text"),
        pytest.param(lambda path: path.write_text("[]"), id="a list"),
        pytest.param(lambda path: path.write_text('{"schema": 1, "reports": [{}]}'), id="an empty report"),
        pytest.param(lambda path: path.write_text('{"schema": 1, "reports": 5}'), id="no reports"),
        pytest.param(lambda path: path.write_text('{"schema": 1, "reports": [[1]]}'), id="no report"),
        pytest.param(lambda path: path.write_text(path.read_text().replace('"schema": 1', '"schema": 2')), id="newer"),
    ],
)
def test_reports_that_cannot_be_read_are_none(
    tmp_path: Path, report: EvaluationReport, spoil: Callable[[Path], object]
) -> None:
    """D1 for a newer one."""
    write_version(tmp_path, "tiny")
    write_reports(tmp_path / "tiny", [report])
    assert len(read_reports(tmp_path / "tiny")) == 1
    spoil(tmp_path / "tiny/evaluation.json")
    assert read_reports(tmp_path / "tiny") == []


def test_reports_on_other_weights_are_not_shown_beside_these(tmp_path: Path, report: EvaluationReport) -> None:
    write_version(tmp_path, "tiny")
    write_reports(tmp_path / "tiny", [report, replace(report, sha256="0" * 64)])
    assert [one.sha256 for one in read_reports(tmp_path / "tiny")] == [report.sha256]
    write_version(tmp_path, "tiny", seed=1)
    assert read_reports(tmp_path / "tiny") == []
