"""Confusion matrix, AUC, ROC curve and operating points."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics
from scipy.stats import binomtest, norm

from busi_core.metrics.classification import (
    OperatingPoint,
    RocCurve,
    accuracy,
    confusion_matrix,
    macro_f1,
    malignancy_score,
    operating_point,
    roc_auc,
    roc_curve,
    sensitivity_at_specificity,
    threshold_for_sensitivity,
)


def labels(text: str) -> np.ndarray:
    """Read classes from letters: n normal, b benign, m malignant."""
    return np.array(["nbm".index(letter) for letter in text], dtype=np.int64)


def ranked(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth from a drawing, most suspicious first: '+' malignant, '-' not, brackets hold equals.

    The last scores 1, the next above it 2, and so on: '+[+-]-' scores 3, 2, 2, 1.
    """
    levels = [level.strip("[]") for level in re.findall(r"\[[+-]+\]|[+-]", text)]
    scores = [float(len(levels) - rank) for rank, level in enumerate(levels) for _ in level]
    return np.array(scores), np.array([sign == "+" for level in levels for sign in level])


def random_scores(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.random(200) < 0.3
    scores = generator.standard_normal(200) + truth
    return (scores.round(1) if ties else scores), truth


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    matrix = confusion_matrix(predicted=labels("nbbmm"), truth=labels("nbmmb"))
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 1, 1], [0, 1, 1]])


@pytest.mark.parametrize(
    ("predicted", "truth", "right", "f1"),
    [
        pytest.param("nbm", "nbm", 1, 1, id="all right"),
        pytest.param("bmn", "nbm", 0, 0, id="all wrong"),
        pytest.param("bbbb", "nbbm", 1 / 2, (0 + 2 / 3 + 0) / 3, id="always benign"),
        pytest.param("bbmm", "bbmm", 1, 1, id="a class that is nowhere is left out"),
        pytest.param("nbm", "bbm", 2 / 3, (2 / 3 + 1) / 2, id="a class that is only predicted is left out"),
        pytest.param("", "", float("nan"), float("nan"), id="no images"),
    ],
)
def test_accuracy_and_macro_f1(predicted: str, truth: str, right: float, f1: float) -> None:
    matrix = confusion_matrix(labels(predicted), labels(truth))
    assert accuracy(matrix) == pytest.approx(right, nan_ok=True)
    assert macro_f1(matrix) == pytest.approx(f1, nan_ok=True)


def test_confusion_accuracy_and_f1_agree_with_scikit_learn() -> None:
    for seed in range(10):
        predicted, truth = np.random.default_rng(seed).integers(3, size=(2, 40))
        matrix = confusion_matrix(predicted, truth)
        np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(truth, predicted))
        assert accuracy(matrix) == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
        assert macro_f1(matrix) == pytest.approx(sklearn.metrics.f1_score(truth, predicted, average="macro"))
        lesions = truth > 0
        matrix = confusion_matrix(predicted[lesions], truth[lesions])
        expected = sklearn.metrics.f1_score(truth[lesions], predicted[lesions], labels=[1, 2], average="macro")
        assert macro_f1(matrix) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("drawing", "expected"),
    [
        pytest.param("++--", 1.0, id="perfect"),
        pytest.param("--++", 0.0, id="upside down"),
        pytest.param("+-+-", 3 / 4, id="one pair of four the wrong way round"),
        pytest.param("[++--]", 0.5, id="all equal"),
        pytest.param("+[+-]-", 3.5 / 4, id="a tie counts half"),
    ],
)
def test_roc_auc_of_a_ranking(drawing: str, expected: float) -> None:
    assert roc_auc(*ranked(drawing)) == pytest.approx(expected)


@pytest.mark.parametrize("drawing", ["+++", "---"])
def test_roc_auc_of_one_class_is_not_a_number(drawing: str) -> None:
    assert math.isnan(roc_auc(*ranked(drawing)))


@pytest.mark.parametrize("ties", [False, True])
def test_auc_and_curve_agree_with_scikit_learn(ties: bool) -> None:
    for seed in range(10):
        scores, truth = random_scores(seed, ties=ties)
        assert roc_auc(scores, truth) == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores))
        false_alarms, found, thresholds = sklearn.metrics.roc_curve(truth, scores, drop_intermediate=False)
        curve = roc_curve(scores, truth)
        np.testing.assert_allclose(curve.sensitivity, found)
        np.testing.assert_allclose(1 - curve.specificity, false_alarms, atol=1e-12)
        np.testing.assert_allclose(curve.thresholds, thresholds)


def test_every_point_of_the_curve_is_what_its_threshold_does() -> None:
    scores, truth = random_scores(0, ties=True)
    curve = roc_curve(scores, truth)
    for index, threshold in enumerate(curve.thresholds):
        assert curve.at(index) == pytest.approx(operating_point(scores, truth, float(threshold)))


@pytest.mark.parametrize(
    ("drawing", "specificity", "expected"),
    [
        pytest.param("++--", 0.9, OperatingPoint(3, 1, 1), id="perfect: the lowest malignant score"),
        pytest.param("+-+---------", 0.9, OperatingPoint(10, 1, 9 / 10), id="one false alarm in ten is allowed"),
        pytest.param(
            "+--+--------", 0.9, OperatingPoint(12, 1 / 2, 1), id="two are not; the strictest that is as good"
        ),
        pytest.param("-+++", 0.9, OperatingPoint(math.inf, 0, 1), id="top score benign: nothing may be flagged"),
        pytest.param("[+-]+--", 0.9, OperatingPoint(math.inf, 0, 1), id="equals are flagged together"),
        pytest.param("--++", 0.0, OperatingPoint(1, 1, 0), id="anything goes"),
    ],
)
def test_sensitivity_at_specificity(drawing: str, specificity: float, expected: OperatingPoint) -> None:
    assert sensitivity_at_specificity(*ranked(drawing), specificity=specificity) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("drawing", "sensitivity", "expected"),
    [
        pytest.param("++--", 0.95, OperatingPoint(3, 1, 1), id="perfect: no lower than needed"),
        pytest.param("+-+-", 0.95, OperatingPoint(2, 1, 1 / 2), id="all must be found"),
        pytest.param("+-+-", 0.5, OperatingPoint(4, 1 / 2, 1), id="half is enough"),
        pytest.param("+[+-]-", 0.95, OperatingPoint(2, 1, 1 / 2), id="equals are flagged together"),
        pytest.param("+-+-", 0.0, OperatingPoint(math.inf, 0, 1), id="none need be found"),
    ],
)
def test_threshold_for_sensitivity(drawing: str, sensitivity: float, expected: OperatingPoint) -> None:
    assert threshold_for_sensitivity(*ranked(drawing), sensitivity=sensitivity) == pytest.approx(expected)


@pytest.mark.parametrize("positives", [20, 44, 45, 59, 126, 147, 289, 3000])
@pytest.mark.parametrize(("sensitivity", "confidence"), [(0.95, 0.9), (0.95, 0.95), (0.8, 0.5)])
def test_a_confident_threshold_misses_as_many_as_scipys_exact_interval_allows(
    positives: int, sensitivity: float, confidence: float
) -> None:
    """Each score is its own: the k-th lowest positive is the threshold that misses k."""
    scores, truth = np.arange(positives + 1.0), np.arange(positives + 1) > 0
    point = threshold_for_sensitivity(scores, truth, sensitivity, confidence=confidence)
    missed = round((1 - point.sensitivity) * positives)
    assert point.threshold == missed + 1

    def surely(missed: int) -> float:
        tested = binomtest(positives - missed, positives, alternative="greater")
        return float(tested.proportion_ci(confidence, method="exact").low)

    assert surely(missed) >= sensitivity or (missed == 0 and surely(0) < sensitivity)
    assert surely(missed + 1) < sensitivity


def test_the_confident_threshold_keeps_its_promise_on_scans_that_it_has_not_seen() -> None:
    """In nine draws of ten; the one chosen without confidence in about half of them."""
    generator = np.random.default_rng(0)
    kept = {None: 0, 0.9: 0}
    for _ in range(400):
        scores = np.concatenate([generator.normal(1.0, 1.0, 150), generator.normal(-1.0, 1.0, 150)])
        truth = np.arange(300) < 150
        for confidence in kept:
            point = threshold_for_sensitivity(scores, truth, 0.95, confidence=confidence)
            kept[confidence] += norm.sf(point.threshold, loc=1.0) >= 0.95
    assert kept[0.9] / 400 >= 0.9 - 0.03
    assert kept[None] / 400 < 0.6


def test_a_confidence_that_nothing_can_have_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        threshold_for_sensitivity(*ranked("+-"), confidence=1.0)


def test_no_threshold_does_better_than_the_chosen_ones() -> None:
    for seed in range(10):
        scores, truth = random_scores(seed, ties=True)
        points = [operating_point(scores, truth, float(score)) for score in scores]
        best = max(point.sensitivity for point in points if point.specificity >= 0.9)
        assert sensitivity_at_specificity(scores, truth).sensitivity == best
        best = max(point.specificity for point in points if point.sensitivity >= 0.95)
        assert threshold_for_sensitivity(scores, truth).specificity == best


def test_a_score_at_the_threshold_is_flagged() -> None:
    assert operating_point(np.array([0.5, 0.4]), np.array([True, False]), 0.5) == OperatingPoint(0.5, 1.0, 1.0)


def test_a_share_of_a_class_that_is_not_there_is_not_a_number() -> None:
    point = operating_point(np.array([0.5]), np.array([True]), 0.4)
    assert point.sensitivity == 1.0
    assert math.isnan(point.specificity)


def test_malignancy_score_leaves_normal_out() -> None:
    probabilities = np.array([[0.0, 0.5, 0.5], [0.6, 0.1, 0.3], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(malignancy_score(probabilities), [0.5, 0.75, 0.0, 0.5])


@pytest.mark.parametrize("find", [roc_curve, sensitivity_at_specificity, threshold_for_sensitivity])
@pytest.mark.parametrize("drawing", ["+++", "---"])
def test_a_curve_of_one_class_is_refused(find: Callable[..., object], drawing: str) -> None:
    with pytest.raises(ValueError, match="both classes"):
        find(*ranked(drawing))


@pytest.mark.parametrize(
    ("scores", "truth", "error"),
    [
        pytest.param(np.array([0.1, 0.2]), np.array([0, 1]), TypeError, id="labels for truth"),
        pytest.param(np.array([0.1]), np.array([True, False]), ValueError, id="other lengths"),
        pytest.param(np.array([[0.1]]), np.array([[True]]), ValueError, id="a table"),
        pytest.param(np.array([0.1, math.nan]), np.array([True, False]), ValueError, id="not a number"),
    ],
)
def test_scores_that_make_no_sense_are_refused(scores: np.ndarray, truth: np.ndarray, error: type) -> None:
    with pytest.raises(error):
        roc_auc(scores, truth)


@pytest.mark.parametrize(
    ("predicted", "truth", "error"),
    [
        pytest.param(np.array([0.2, 0.7]), labels("nb"), TypeError, id="probabilities for labels"),
        pytest.param(np.array([3]), labels("n"), ValueError, id="a fourth class"),
        pytest.param(labels("n"), np.array([-1]), ValueError, id="a class below 0"),
        pytest.param(labels("nb"), labels("n"), ValueError, id="other lengths"),
    ],
)
def test_labels_that_make_no_sense_are_refused(predicted: np.ndarray, truth: np.ndarray, error: type) -> None:
    with pytest.raises(error):
        confusion_matrix(predicted, truth)


@pytest.mark.parametrize("probabilities", [np.zeros((2, 2)), np.array([[0.0, 2.0, -1.0]]), np.full((1, 3), math.nan)])
def test_logits_and_other_tables_are_no_probabilities(probabilities: np.ndarray) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        malignancy_score(probabilities)


@pytest.mark.parametrize("share", [-0.1, 90.0, math.nan])
def test_a_share_in_percent_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        sensitivity_at_specificity(*ranked("+-"), specificity=share)
    with pytest.raises(ValueError, match="must lie in"):
        threshold_for_sensitivity(*ranked("+-"), sensitivity=share)


def test_a_threshold_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        operating_point(*ranked("+-"), threshold=math.nan)


def test_a_curve_with_parts_of_other_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        RocCurve(np.zeros(3), np.zeros(3), np.zeros(2))
