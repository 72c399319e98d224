"""Figures of one table of counts are never refused, and impossible ones are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busi_core.metrics.consistency import Claim, Range, check_claim, f1_of, iou_of, may_be_means, share_of_first
from busi_core.metrics.segmentation import OverlapCounts
from busi_core.recipes.contradictions import TABLE_003, TABLE_1, claim_of, find_contradictions

COUNT = st.integers(1, 10_000)


@settings(max_examples=200, deadline=None)
@given(COUNT, COUNT, COUNT, COUNT, st.integers(1, 4))
def test_no_true_table_is_ever_refused(hit: int, invented: int, missed: int, rest: int, digits: int) -> None:
    counts = OverlapCounts(hit, invented, missed, rest)
    figures = (counts.precision, counts.recall, counts.dice, counts.iou, counts.pixel_accuracy)
    precision, recall, f1, iou, accuracy = (max(round(value, digits), 1e-9) for value in figures)
    claim = Claim(0.5 * 10**-digits + 1e-9, precision=precision, recall=recall, f1=f1, iou=iou, accuracy=accuracy)
    share = (hit + missed) / counts.pixels
    verdict = check_claim(claim, positive_share=Range(share, share))
    assert verdict.is_possible, verdict.conflicts


@settings(max_examples=100, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(0.02, 0.5))
def test_a_figure_that_is_moved_is_found(precision: float, recall: float, by: float) -> None:
    f1 = f1_of(precision, recall)
    moved = f1 + by if f1 + by <= 1 else f1 - by
    if moved > 0.001 and abs(moved - f1) > 0.01:
        assert not check_claim(Claim(0.0005, precision=precision, recall=recall, f1=moved)).is_possible
    iou = min(1.0, iou_of(f1) + by)
    if iou - iou_of(f1) > 0.01:
        assert not check_claim(Claim(0.0005, f1=f1, iou=iou)).is_possible


def test_without_recall_f1_is_bounded_by_precision() -> None:
    assert check_claim(Claim(0.005, precision=0.5, f1=0.66)).is_possible
    assert not check_claim(Claim(0.005, precision=0.5, f1=0.70)).is_possible


def test_an_accuracy_says_how_much_is_positive() -> None:
    share = check_claim(Claim(0.00005, precision=0.813, recall=0.862, accuracy=0.9937)).positive_share
    assert share is not None
    assert share.low < 0.0187 < share.high
    assert share.high - share.low < 0.001
    claim = Claim(0.00005, precision=0.813, recall=0.862, accuracy=0.9937)
    assert not check_claim(claim, positive_share=Range(0.075, 0.075)).is_possible


def test_two_precisions_and_an_accuracy_say_how_common_a_class_is() -> None:
    """Against counts: of 34 called benign 30 are, of 46 called malignant 40 are."""
    exact = share_of_first(*(Range(v, v) for v in (70 / 80, 30 / 34, 40 / 46)))
    assert exact is not None
    assert exact.low == pytest.approx(36 / 80)
    impossible = share_of_first(Range(0.99, 0.99), Range(0.5, 0.5), Range(0.6, 0.6))
    assert impossible is None


def test_means_over_images_may_part_from_the_curve_but_never_pass_f1() -> None:
    random = np.random.default_rng(0)
    f1 = random.uniform(0, 1, 500)
    assert may_be_means(float(f1.mean()), float((f1 / (2 - f1)).mean()))
    assert not may_be_means(0.8370, 0.8460)


def test_the_arithmetic_of_the_papers_is_that_of_the_notes() -> None:
    verdict = check_claim(claim_of(TABLE_1["Our Model"]))
    assert verdict.f1 is not None
    assert verdict.iou is not None
    assert 100 * verdict.f1.low == pytest.approx(83.68, abs=0.01)
    assert 100 * verdict.iou.low == pytest.approx(71.94, abs=0.02)
    assert all(check_claim(Claim(0.005, f1=dice, iou=iou)).is_possible for iou, dice in TABLE_003.values())
    said = " ".join(f"{point.printed} {point.arithmetic}" for point in find_contradictions())
    for figure in ("93.13", "0.625", "+6.71", "+22.34", "+7.12", "1.86 to 1.89 %", "780", "647"):
        assert figure in said


def test_every_paper_has_its_points_and_the_first_is_impossible_under_any_average() -> None:
    points = find_contradictions()
    assert {point.paper for point in points} == {"000", "001", "002", "003", "004", "all"}
    (ours,) = [p for p in points if p.printed.startswith("Our Model")]
    assert ours.kind == "impossible"
    assert "no image has an IoU above its F1" in ours.arithmetic
    assert {p.kind for p in points if p.printed.startswith(("MSGRAP", "SegNet"))} == {"unlikely"}


@pytest.mark.parametrize("bad", [{"f1": 1.2}, {"iou": 0.0}, {"precision": float("nan")}])
def test_a_figure_outside_its_range_is_no_claim(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        Claim(0.005, **bad)
