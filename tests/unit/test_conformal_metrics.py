"""Sets of classes that hold the truth as often as they promise."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from busi_core.metrics.conformal import class_scores, class_set, highest_score, scans_needed


class FixedScores:
    """A classifier, as mapie asks for one, whose scores are the features themselves."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)
        self.fitted_ = True

    def fit(self, *_: object) -> "FixedScores":
        return self

    def predict_proba(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return features

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.int64]:
        return features.argmax(axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def some_scores(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores of three classes, the true class more likely than the others."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[truth]
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [400, 601])
@pytest.mark.filterwarnings("ignore:WARNING. your conformalization:UserWarning")
def test_sets_are_those_of_mapie(coverage: float, count: int) -> None:
    """Class by class: mapie, given the scans of one class alone, keeps that class for the same scans."""
    from mapie.classification import SplitConformalClassifier

    known, truth = some_scores(count)
    new, _ = some_scores(200, seed=1)
    ours = np.array([class_set(row, class_scores(known, truth), coverage) for row in new.tolist()])
    for column in range(3):
        mine = truth == column
        oracle = SplitConformalClassifier(
            FixedScores(3), confidence_level=coverage, prefit=True, conformity_score="lac"
        )
        oracle.conformalize(known[mine], truth[mine])
        _, sets = oracle.predict_set(new)
        np.testing.assert_array_equal(ours[:, column], sets[:, column, 0])


def test_each_class_is_covered_as_often_as_promised() -> None:
    """Averaged over 300 draws of validation and new scans; the promise is on that average."""
    covered: list[list[float]] = [[], [], []]
    for seed in range(300):
        known, truth = some_scores(120, seed=2 * seed)
        new, new_truth = some_scores(60, seed=2 * seed + 1)
        scores = class_scores(known, truth)
        for row, column in zip(new.tolist(), new_truth.tolist(), strict=True):
            covered[column].append(class_set(row, scores, 0.9)[column])
    for share in covered:
        assert 0.9 <= np.mean(share) < 0.94


def test_too_few_scans_of_a_class_rule_nothing_out() -> None:
    scores = np.array([0.1] * 8)
    assert highest_score(scores, 0.9) == float("inf")
    assert highest_score(np.append(scores, 0.2), 0.9) == 0.2
    assert scans_needed(0.9) == 9


def test_as_many_scans_as_needed_are_enough_and_one_less_is_not() -> None:
    for coverage in (0.8, 0.85, 0.9, 0.95, 0.99):
        needed = scans_needed(coverage)
        assert np.isfinite(highest_score(np.zeros(needed), coverage))
        assert np.isinf(highest_score(np.zeros(needed - 1), coverage))


def test_a_higher_coverage_never_drops_a_class() -> None:
    known, truth = some_scores(100)
    scores = class_scores(known, truth)
    for row in some_scores(50, seed=5)[0].tolist():
        sets = [class_set(row, scores, coverage) for coverage in (0.8, 0.85, 0.9, 0.95, 0.99)]
        for smaller, larger in pairwise(sets):
            assert all(later or not earlier for earlier, later in zip(smaller, larger, strict=True))


def test_a_scan_that_suits_no_class_has_an_empty_set() -> None:
    sure = np.array([0.01] * 20)
    assert class_set((0.34, 0.33, 0.33), (sure, sure, sure), 0.9) == (False, False, False)


@pytest.mark.parametrize("coverage", [0.5, 1.0, float("nan")])
def test_a_coverage_that_cannot_be_kept_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage"):
        highest_score(np.zeros(10), coverage)
