"""Sets of classes that hold the truth as often as they promise."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from busi_core.metrics.conformal import (
    IN_DOUBT_BELOW,
    Nonconformity,
    class_set,
    highest_score,
    is_broken,
    measure_nonconformity,
    scans_needed,
)


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


def some_scores(count: int, seed: int = 0, *, clearness: float = 1.5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores of three classes, the true class more likely than the others."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3)) + clearness * np.eye(3)[truth]
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), truth


def sets_of_mapie(
    known: NDArray[np.float64], truth: NDArray[np.int64], new: NDArray[np.float64], coverage: float
) -> NDArray[np.bool_]:
    from mapie.classification import SplitConformalClassifier

    oracle = SplitConformalClassifier(FixedScores(3), confidence_level=coverage, prefit=True, conformity_score="lac")
    oracle.conformalize(known, truth)
    return np.asarray(oracle.predict_set(new)[1][:, :, 0], np.bool_)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [900, 1201])
@pytest.mark.filterwarnings("ignore:WARNING. your conformalization:UserWarning")
def test_sets_are_those_of_mapie(coverage: float, count: int) -> None:
    """Class by class mapie, given the clear scans of one class alone, keeps that class for the same clear scans; given
    all scans in doubt it keeps the same classes for those in doubt. The likeliest class we keep beside."""
    known, truth = some_scores(count)
    new, _ = some_scores(200, seed=1)
    doubted, new_doubted = (scores.max(axis=1) < IN_DOUBT_BELOW for scores in (known, new))
    ours = np.array([class_set(row, measure_nonconformity(known, truth), coverage) for row in new.tolist()])
    likeliest = new == new.max(axis=1, keepdims=True)
    for column in range(3):
        mine = ~doubted & (truth == column)
        theirs = sets_of_mapie(known[mine], truth[mine], new, coverage)[:, column] | likeliest[:, column]
        np.testing.assert_array_equal(ours[~new_doubted, column], theirs[~new_doubted])
    theirs = sets_of_mapie(known[doubted], truth[doubted], new, coverage) | likeliest
    np.testing.assert_array_equal(ours[new_doubted], theirs[new_doubted])
    assert 40 < new_doubted.sum() < 160


def average_coverage(in_doubt_below: float) -> dict[str, float]:
    """At 90 %, over 300 draws of validation and new scans: of each class, of the clear scans, of those in doubt."""
    covered: dict[str, list[bool]] = {}
    for seed in range(300):
        known, truth = some_scores(240, seed=2 * seed, clearness=3.5)
        new, new_truth = some_scores(60, seed=2 * seed + 1, clearness=3.5)
        scores = measure_nonconformity(known, truth, in_doubt_below=in_doubt_below)
        for row, column in zip(new.tolist(), new_truth.tolist(), strict=True):
            held = class_set(row, scores, 0.9)[column]
            is_clear = max(row) >= IN_DOUBT_BELOW
            for group in (f"class {column}", f"clear {column}" if is_clear else "in doubt"):
                covered.setdefault(group, []).append(held)
    return {group: float(np.mean(held)) for group, held in covered.items()}


def test_each_class_and_the_scans_in_doubt_are_covered_as_often_as_promised() -> None:
    """The promise is on the average over draws; the likeliest class, which always stays, adds to it."""
    found = average_coverage(IN_DOUBT_BELOW)
    assert found.keys() == {*(f"{kind} {c}" for kind in ("class", "clear") for c in range(3)), "in doubt"}
    assert all(share >= 0.9 for share in found.values())
    assert found["in doubt"] < 0.95


def test_a_scan_with_a_class_at_the_very_limit_is_not_in_doubt_on_either_side() -> None:
    """Neither among those that are compared, nor when it is read: the second opinion draws the line there too."""
    at, below = [0.2, IN_DOUBT_BELOW, 0.1], [0.21, IN_DOUBT_BELOW - 0.01, 0.1]
    known = measure_nonconformity(np.array([at, below]), np.array([1, 1]))
    assert [scores.tolist() for scores in known.by_class] == [[], [pytest.approx(1 - IN_DOUBT_BELOW)], []]
    assert known.in_doubt.tolist() == [pytest.approx(1.01 - IN_DOUBT_BELOW)]
    assert not known.is_in_doubt(at)
    assert known.is_in_doubt(below)


def test_without_a_group_of_their_own_the_scans_in_doubt_would_be_let_down() -> None:
    """By class the promise is kept, by the clear scans alone."""
    found = average_coverage(in_doubt_below=0)
    assert all(found[f"class {column}"] >= 0.9 for column in range(3))
    assert found["in doubt"] < 0.87


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
    scores = measure_nonconformity(known, truth)
    for row in some_scores(50, seed=5)[0].tolist():
        sets = [class_set(row, scores, coverage) for coverage in (0.8, 0.85, 0.9, 0.95, 0.99)]
        for smaller, larger in pairwise(sets):
            assert all(later or not earlier for earlier, later in zip(smaller, larger, strict=True))


def test_the_likeliest_class_is_never_ruled_out() -> None:
    """A set without a class would tell a reader nothing, least of all that the scan is clear."""
    sure = np.array([0.01] * 20)
    assert class_set((0.8, 0.1, 0.1), Nonconformity((sure, sure, sure), sure, 0.7), 0.9) == (True, False, False)
    assert class_set((0.3, 0.4, 0.3), Nonconformity((sure, sure, sure), sure, 0.7), 0.9) == (False, True, False)


@pytest.mark.parametrize(
    ("held", "of", "broken"), [(24, 27, False), (124, 147, True), (9, 10, False), (0, 1, False), (0, 2, True)]
)
def test_a_promise_is_broken_only_where_chance_does_not_explain_it(held: int, of: int, broken: bool) -> None:
    p_value = binomtest(held, of, 0.9, alternative="less").pvalue
    assert is_broken(held, of, 0.9) is broken is bool(p_value < 0.05)


@pytest.mark.parametrize("coverage", [0.5, 1.0, float("nan")])
def test_a_coverage_that_cannot_be_kept_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage"):
        highest_score(np.zeros(10), coverage)
