"""What a version knows of its limits is measured, counted right, and written so that it can be read again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from versions import make_analyser, make_card, make_panel, make_weights, write_version

from busi_core.assessment import assess as whole
from busi_core.assessment import counting, readings
from busi_core.assessment.assess import assess
from busi_core.assessment.class_sets import assess_sets, count_held, count_left_out
from busi_core.assessment.figures import (
    PEAK_INSIDE,
    Figure,
    format_assessment,
    keep_assessment,
    pool_figures,
    read_assessment,
    write_assessment,
)
from busi_core.assessment.heatmaps import assess_evidence, assess_heatmaps
from busi_core.assessment.readings import assess_doubt, assess_marks, assess_opinions, assess_refusal
from busi_core.data.records import Record, read_truth
from busi_core.data.splits import read_folds
from busi_core.errors import DatasetError
from busi_core.evaluation import ScanResult, summarise
from busi_core.foreign import foreign_pictures
from busi_core.imaging.decode import decode_image
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import upsample
from busi_core.limits import Limits, write_limits
from busi_core.metrics.bootstrap import Interval
from busi_core.metrics.conformal import measure_nonconformity
from busi_core.models.familiarity import fit_familiarity
from busi_core.service import Analyser
from busi_core.types import Diagnosis


def result(number: int, truth: Diagnosis, probabilities: tuple[float, float, float]) -> ScanResult:
    figures = (0.8, 0.7, 3.0, 0.8, 0.8, 0.9, 0.9)
    return ScanResult(f"scan {number}", f"scan {number}", truth.value, probabilities, *figures, True, 0.1)


@pytest.fixture(scope="module")
def limits() -> Limits:
    analyser = make_analyser()
    images = [
        decode_image(simulate_scan(diagnosis, seed=seed, height=64, width=80).png())
        for seed in range(1, 11)
        for diagnosis in Diagnosis
    ]
    described = [analyser.describe(image) for image in images]
    scores = np.tile(np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]), (20, 1))
    sets = measure_nonconformity(scores, np.tile([0, 1, 2], 20), in_doubt_below=0.45)
    return Limits(sets, fit_familiarity(described[:20], described[20:]))


def test_the_share_that_the_sets_hold_is_counted_by_class_and_in_doubt(limits: Limits) -> None:
    """The limits keep normal from 0.6, benign from 0.5, malignant from 0.7 on, and the likeliest class; nobody knows
    what to rule out where no class has 0.45."""
    results = [
        result(1, Diagnosis.NORMAL, (0.7, 0.2, 0.1)),
        result(2, Diagnosis.NORMAL, (0.3, 0.5, 0.2)),
        result(3, Diagnosis.BENIGN, (0.2, 0.6, 0.2)),
        result(4, Diagnosis.MALIGNANT, (0.1, 0.1, 0.8)),
        result(5, Diagnosis.MALIGNANT, (0.1, 0.6, 0.3)),
        result(6, Diagnosis.MALIGNANT, (0.0, 0.45, 0.55)),
        result(7, Diagnosis.NORMAL, (0.3, 0.3, 0.4)),
    ]
    report = summarise(make_card(make_weights()), results, test_set="made up")
    assert count_held([report, report], limits, 0.9, in_doubt=False) == {
        Diagnosis.NORMAL: (2, 4),
        Diagnosis.BENIGN: (2, 2),
        Diagnosis.MALIGNANT: (4, 6),
    }
    assert count_held([report, report], limits, 0.9, in_doubt=True) == {None: (2, 2)}
    figures = {figure.name: figure for figure in assess_sets([report], limits)}
    assert figures["90% set holds the truth, malignant"].estimate == pytest.approx(2 / 3)
    assert figures["90% set holds the truth, malignant"].cases == 3
    assert figures["90% set holds the truth, no class has 0.45"].estimate == 1
    assert figures["90% set holds the truth, no class has 0.45"].cases == 1
    assert figures["90% set, classes in it"].estimate == pytest.approx((6 + 3) / 7)
    assert figures["90% set of one class"].estimate == pytest.approx(6 / 7)


def test_a_share_that_all_few_scans_hold_is_no_certainty_and_a_size_is_no_share(limits: Limits) -> None:
    results = [result(number, Diagnosis.MALIGNANT, (0.0, 0.1, 0.9)) for number in range(4)]
    report = summarise(make_card(make_weights()), results, test_set="made up")
    figures = {figure.name: figure for figure in assess_sets([report], limits)}
    held, sizes = figures["90% set holds the truth, malignant"], figures["90% set, classes in it"]
    assert (held.estimate, held.high) == (1, 1)
    assert held.low == pytest.approx(0.51, abs=0.01)
    assert (sizes.low, sizes.high) == (1, 1)


def test_flagged_scans_whose_set_leaves_malignant_out_are_counted(limits: Limits) -> None:
    """The set keeps malignant from 0.7 on where another class is likely."""
    results = [
        result(1, Diagnosis.MALIGNANT, (0.1, 0.6, 0.3)),
        result(2, Diagnosis.BENIGN, (0.1, 0.7, 0.2)),
        result(3, Diagnosis.BENIGN, (0.0, 0.95, 0.05)),
        result(4, Diagnosis.MALIGNANT, (0.0, 0.1, 0.9)),
    ]
    report = summarise(make_card(make_weights()), results, test_set="made up")
    assert count_left_out([report], limits, 0.9, flag=0.1) == (1, 2)
    assert count_left_out([report, report], limits, 0.9, flag=0.01) == (2, 6)


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    found = []
    for number, diagnosis in enumerate([*Diagnosis] * 2):
        scan = simulate_scan(diagnosis, seed=20 + number, height=64, width=80)
        image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        image.write_bytes(encode_png(scan.grey))
        mask.write_bytes(mask_png(scan.mask))
        found.append(Record(f"busi/{number}", image, (mask,), diagnosis, None, None, None, None))
    return found


@pytest.fixture
def shared(records: list[Record]) -> list[Record]:
    """Six images of three cases, not side by side; those of the first show no lesion."""
    return [replace(record, group=f"case {number % 3}") for number, record in enumerate(records)]


def assess_all(part: str, analyser: Analyser, limits: Limits, records: Sequence[Record]) -> list[Figure]:
    if part == "refusal":
        return assess_refusal(analyser, limits, {"made up": records})
    if part == "second opinion":
        return assess_opinions(analyser, {"made up": records})
    if part == "marks":
        return assess_marks(analyser, "made up", records)
    if part == "doubt":
        return assess_doubt(analyser, "made up", records)
    if part == "evidence":
        return assess_evidence(analyser, {"made up": records})
    return assess_heatmaps(analyser, analyser._network, "made up", records)


def same_parting(groups: Sequence[int], others: Sequence[int]) -> bool:
    """Whether images are drawn together in both, whatever the groups are called."""
    pairs = set(zip(groups, others, strict=True))
    return len(pairs) == len(set(groups)) == len(set(others))


@pytest.mark.parametrize("part", ["refusal", "second opinion", "marks", "doubt", "heat maps", "evidence"])
def test_images_of_one_case_are_drawn_together(
    part: str, limits: Limits, shared: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By image an interval would be too narrow: two images of one case are not two cases."""
    drawn: list[tuple[list[int], int]] = []

    def spy(values: NDArray[np.float64], groups: NDArray[np.intp], *, is_share: bool) -> Interval:
        drawn.append((groups.tolist(), values.size))
        return Interval(0.0, 0.0, 0.0)

    monkeypatch.setattr(readings, "foreign_pictures", lambda _: [])
    monkeypatch.setattr(counting, "mean_interval", spy)
    analyser = make_panel(class_below=1.0) if part == "second opinion" else make_analyser()
    assert assess_all(part, analyser, limits, shared)
    cases = np.arange(6) % 3
    is_of = np.array([record.diagnosis for record in shared])
    parts = [cases, cases[is_of != Diagnosis.NORMAL], *(cases[is_of == one] for one in Diagnosis)]
    for groups, size in drawn:
        assert len(groups) == size
        assert any(size == part.size and same_parting(groups, part.tolist()) for part in parts)
    assert drawn


def test_images_of_one_published_scan_are_drawn_together(records: list[Record]) -> None:
    """The published list names BUSI's copies; a record that no list knows stands for itself."""
    copies = next(scan.files for scan in read_folds() if len(scan.files) == 2)
    ids = [f"busi/{copies[0]}", "made up", f"busi/{copies[1]}"]
    named = [replace(record, id=id) for record, id in zip(records[:3], ids, strict=True)]
    assert counting.number_scans(named).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("version", "sha256", "is_read"),
    [("f", "one", True), ("g", "one", False), ("f", "other", False)],
    ids=["its own", "of a version with the same first network", "of other weights"],
)
def test_figures_are_read_for_their_own_version_and_weights_only(
    tmp_path: Path, version: str, sha256: str, is_read: bool
) -> None:
    figure = Figure("doubt", "x", "made up", 3, 0.5, 0.25, 0.75)
    write_assessment(tmp_path, [figure], version="f", sha256="one")
    assert read_assessment(tmp_path, version=version, sha256=sha256) == ([figure] if is_read else [])


def test_figures_are_renewed_and_those_on_other_scans_stay(tmp_path: Path) -> None:
    old, other = (Figure("doubt", "x", on, 3, 0.5, 0.25, 0.75) for on in ("made up", "a hospital"))
    write_assessment(tmp_path, [old, other], version="f", sha256="one")
    new = replace(old, estimate=0.6)
    keep_assessment(tmp_path, [new], version="f", sha256="one")
    assert read_assessment(tmp_path, version="f", sha256="one") == [new, other]
    keep_assessment(tmp_path, [new], version="f", sha256="of other weights")
    assert read_assessment(tmp_path, version="f", sha256="of other weights") == [new]


def test_figures_that_name_no_version_are_not_taken_for_anybodys(tmp_path: Path) -> None:
    write_assessment(tmp_path, [Figure("doubt", "x", "made up", 3, 0.5, 0.25, 0.75)], version="f", sha256="one")
    file = tmp_path / "assessment.json"
    file.write_text(file.read_text().replace('"version": "f", ', ""))
    assert read_assessment(tmp_path, version="f", sha256="one") == []


@pytest.mark.slow
def test_everything_is_measured_in_one_go_and_read_again(tmp_path: Path, limits: Limits, records: list[Record]) -> None:
    card = write_version(tmp_path, "tiny")
    write_limits(tmp_path / "tiny", limits, card)
    assert make_panel().card.sha256 == card.sha256
    analyser = make_panel(limits=limits)
    seen: list[str] = []
    figures = assess(analyser, tmp_path / "tiny", [], {"made up": records}, on_step=lambda what, *_: seen.append(what))
    assert {figure.part for figure in figures} == {"refusal", "second opinion", "marks", "doubt", "heat maps"}
    for figure in figures:
        assert figure.cases > 0 or np.isnan(figure.estimate)
        assert np.isnan(figure.estimate) or figure.low <= figure.estimate <= figure.high
    assert {"heat maps on made up", "evidence on made up"} <= set(seen)
    write_assessment(tmp_path / "tiny", figures, version="tiny", sha256=card.sha256)
    again = read_assessment(tmp_path / "tiny", version="tiny", sha256=card.sha256)
    assert [repr(figure) for figure in again] == [repr(figure) for figure in figures]
    assert "### Marks" in format_assessment(again)


def test_heat_maps_are_looked_at_on_lesions_of_every_class(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: Limits, records: list[Record]
) -> None:
    """A data set lists its classes one after the other, so the first scans would be of one class alone."""
    in_order = sorted(records, key=lambda record: list(Diagnosis).index(record.diagnosis))
    seen: list[Diagnosis] = []

    def spy(*arguments: Any) -> list[Figure]:
        seen.extend(record.diagnosis for record in arguments[3])
        return []

    for name in ("refusal", "opinions", "marks", "doubt", "evidence"):
        monkeypatch.setattr(whole, f"assess_{name}", lambda *_: [])
    monkeypatch.setattr(whole, "assess_heatmaps", spy)
    monkeypatch.setattr(whole, "HEATMAP_SCANS", 2)
    write_version(tmp_path, "tiny")
    assess(make_panel(limits=limits), tmp_path / "tiny", [], {"made up": in_order})
    assert seen == [Diagnosis.BENIGN, Diagnosis.MALIGNANT]


def test_where_heat_maps_lie_is_measured_on_every_lesion_by_its_class_beside_an_even_map(records: list[Record]) -> None:
    """Class by class: an average over both would hide that of one of them no more lies inside than by chance."""
    analyser = make_analyser()
    figures = {(one.name, one.on): one for one in assess_evidence(analyser, {"first": records, "second": records[:3]})}
    for diagnosis, pair in ((Diagnosis.BENIGN, (1, 4)), (Diagnosis.MALIGNANT, (2, 5))):
        images = [decode_image(records[number].image.read_bytes()) for number in pair]
        truths = [read_truth(records[number], 64, 80) for number in pair]
        maps = []
        for image in images:
            analysis = analyser.analyse_image(image, insist=True)
            assert analysis.prediction.diagnosis is not None
            maps.append(upsample(analysis.heatmaps[analysis.prediction.diagnosis].evidence, 64, 80))
        inside = [one[truth].sum() / one.sum() for one, truth in zip(maps, truths, strict=True) if one.any()]
        found = figures["evidence inside the lesion, " + diagnosis.value, "first"]
        assert found.cases == len(inside)
        if inside:
            assert found.estimate == pytest.approx(np.mean(inside), abs=1e-4)
        even = figures["an even map has inside, " + diagnosis.value, "first"]
        assert even.estimate == pytest.approx(np.mean([truth.mean() for truth in truths]))
        assert figures["an even map has inside, " + diagnosis.value, "second"].cases == 1
    assert {on for name, on in figures if name == PEAK_INSIDE} == {"first", "second"}


def test_second_opinions_are_counted_apart_from_sure_readings(records: list[Record]) -> None:
    """Asked for where the first network is less sure than in the middle of these scans: of half of them."""
    images = [decode_image(record.image.read_bytes()) for record in records]
    first = [make_analyser().analyse_image(image).prediction for image in images]
    sure = [max((prediction.probabilities or {}).values()) for prediction in first]
    panel = make_panel(class_below=float(np.median(sure)), lesion_between=(1.0, 1.0))
    joint = [panel.analyse_image(image).prediction for image in images]
    asked = np.array(sure) < np.median(sure)
    right, alone = (
        np.array([one.diagnosis is record.diagnosis for one, record in zip(found, records, strict=True)])
        for found in (joint, first)
    )
    figures = {figure.name: figure for figure in assess_opinions(panel, {"made up": records})}
    assert figures["asked for"].estimate == pytest.approx(asked.mean())
    assert figures["class is right where it was asked for"].estimate == pytest.approx(right[asked].mean())
    assert figures["the same by the first network alone"].estimate == pytest.approx(alone[asked].mean())
    assert figures["class is right where it was not asked for"].estimate == pytest.approx(right[~asked].mean())
    assert figures["class is right where it was asked for"].cases == asked.sum()
    assert assess_opinions(make_analyser(), {"made up": records}) == []


def test_a_figure_of_several_test_sets_is_their_mean_by_case() -> None:
    sets = [Figure("sets", "held", "here", 30, 0.5, 0.4, 0.6), Figure("sets", "held", "there", 10, 0.9, 0.8, 1.0)]
    assert pool_figures([*sets, Figure("sets", "other", "here", 99, 0.0, 0.0, 0.0)], "held") == (pytest.approx(0.6), 40)
    assert pool_figures(sets, "never measured")[1] == 0


def test_a_version_without_limits_is_told_how_to_make_them(tmp_path: Path, records: list[Record]) -> None:
    write_version(tmp_path, "tiny")
    with pytest.raises(DatasetError, match="busi limits"):
        assess(make_analyser(), tmp_path / "tiny", [], {"made up": records})


@pytest.mark.slow
def test_foreign_pictures_are_many_and_the_same_each_time() -> None:
    first, second = list(foreign_pictures()), list(foreign_pictures())
    kinds = [kind for kind, _ in first]
    assert {"noise", "text", "simulated colour Doppler", "photograph or microscope", "DICOM CT"} <= set(kinds)
    assert kinds == [kind for kind, _ in second]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(first, second, strict=True))
    assert all(grey.dtype == np.uint8 and grey.ndim == 2 and min(grey.shape) >= 32 for _, grey in first)


def test_a_figure_without_a_value_is_not_a_number_in_words() -> None:
    nan = float("nan")
    assert "n/a" in format_assessment([Figure("doubt", "agreement", "made up", 0, nan, nan, nan)])
