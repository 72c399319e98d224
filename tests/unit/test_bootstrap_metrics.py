"""Bootstrap intervals over scans."""

import math

import numpy as np
import pytest
from scipy import stats

from busi_core.metrics.bootstrap import Interval, bootstrap_interval, paired_difference_interval
from busi_core.metrics.calibration import expected_calibration_error
from busi_core.metrics.classification import roc_auc

ONE_EACH = np.arange(80)  # every image is its own scan


def dice_like(seed: int, images: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).beta(4, 1, images)


def width(interval: Interval) -> float:
    return interval.high - interval.low


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_of_a_mean_agrees_with_scipy(level: float) -> None:
    values = dice_like(0)
    ours = bootstrap_interval(values, ONE_EACH, draws=5000, seed=1, level=level)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=5000, confidence_level=level, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width(ours))
    assert ours.estimate == values.mean()


def test_interval_of_an_auc_agrees_with_scipy() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(80) < 0.4
    scores = generator.standard_normal(80) + 1.5 * truth
    ours = bootstrap_interval(lambda i: roc_auc(scores[i], truth[i]), ONE_EACH, draws=3000)
    theirs = stats.bootstrap(
        (scores, truth),
        lambda drawn_scores, drawn_truth: roc_auc(drawn_scores, drawn_truth > 0),  # scipy hands truth on as floats
        n_resamples=3000,
        paired=True,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.08 * width(ours))


def test_values_and_the_statistic_that_averages_them_give_the_same_interval() -> None:
    values, scans = dice_like(0), np.random.default_rng(1).integers(30, size=80)
    assert bootstrap_interval(values, scans) == bootstrap_interval(lambda i: float(values[i].mean()), scans)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = dice_like(0)
    first = bootstrap_interval(values, ONE_EACH)
    assert bootstrap_interval(values, ONE_EACH) == first
    assert bootstrap_interval(values, ONE_EACH, seed=1) != first


def test_copies_of_a_scan_do_not_narrow_the_interval() -> None:
    values = dice_like(0)
    alone = bootstrap_interval(values, ONE_EACH)
    copied = bootstrap_interval(np.tile(values, 3), np.tile(ONE_EACH, 3))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert width(bootstrap_interval(np.tile(values, 3), np.arange(240))) < 0.7 * width(alone)


def test_images_of_a_case_are_drawn_together_wherever_they_stand() -> None:
    cases = np.array(["b", "a", "b", "c", "a", "b"])
    members = {"a": [1, 4], "b": [0, 2, 5], "c": [3]}
    seen: list[list[int]] = []

    def remember(indices: np.ndarray) -> float:
        seen.append(indices.tolist())
        return 0.0

    bootstrap_interval(remember, cases, draws=50)
    *draws, everything = seen
    assert everything == [0, 1, 2, 3, 4, 5]
    for draw in draws:
        times = {case: draw.count(images[0]) for case, images in members.items()}
        assert sum(times.values()) == 3, "as many cases are drawn as there are"
        expected = [image for case, images in members.items() for image in images * times[case]]
        assert sorted(draw) == sorted(expected)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    intervals = [bootstrap_interval(generator.normal(5, 1, 60), np.arange(60), draws=200) for _ in range(200)]
    assert np.mean([interval.low <= 5 <= interval.high for interval in intervals]) == pytest.approx(0.95, abs=0.05)


def test_an_interval_of_the_calibration_error_holds_its_estimate_and_no_negative_error() -> None:
    """Of well calibrated models too, where resampling makes the error larger than it is in three draws of four."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scores = rng.dirichlet([0.4, 0.4, 0.4], 200)
        truth = np.array([rng.choice(3, p=row) for row in scores])

        def error(drawn: np.ndarray, scores: np.ndarray = scores, truth: np.ndarray = truth) -> float:
            return expected_calibration_error(scores[drawn], truth[drawn])

        plain, moved = (bootstrap_interval(error, np.arange(200), draws=200, is_distance=way) for way in (False, True))
        assert 0 <= moved.low <= moved.estimate <= moved.high
        assert moved.high < plain.high


def test_an_image_without_a_value_is_left_out_of_the_mean() -> None:
    interval = bootstrap_interval(np.array([1.0, math.nan, 3.0]), np.arange(3), draws=500)
    assert interval.estimate == 2.0
    assert (interval.low, interval.high) == (1.0, 3.0)


def test_draws_without_a_value_are_counted_and_left_out() -> None:
    interval = bootstrap_interval(np.array([2.0, math.nan]), np.arange(2), draws=1000)
    assert (interval.estimate, interval.low, interval.high) == (2.0, 2.0, 2.0)
    assert interval.undefined_draws == pytest.approx(250, abs=60)  # both draws hit the second image: a quarter


def test_nothing_defined_gives_an_interval_that_is_not_a_number() -> None:
    interval = bootstrap_interval(np.full(3, math.nan), np.arange(3), draws=10)
    assert all(math.isnan(value) for value in (interval.estimate, interval.low, interval.high))
    assert interval.undefined_draws == 10


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    hard_or_easy = dice_like(0) * 0.8
    better = hard_or_easy + 0.02 + np.random.default_rng(1).normal(0, 0.01, 80)
    alone, other = bootstrap_interval(better, ONE_EACH), bootstrap_interval(hard_or_easy, ONE_EACH)
    assert alone.low < other.high, "the two intervals overlap"
    difference = paired_difference_interval(better, hard_or_easy, ONE_EACH)
    assert 0.01 < difference.low < difference.estimate < difference.high < 0.03


def test_a_model_does_not_differ_from_itself() -> None:
    assert paired_difference_interval(dice_like(0), dice_like(0), ONE_EACH) == Interval(0.0, 0.0, 0.0)


def test_swapping_the_models_turns_the_difference_round() -> None:
    one, other = dice_like(0), dice_like(1)
    there, back = paired_difference_interval(one, other, ONE_EACH), paired_difference_interval(other, one, ONE_EACH)
    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))


def test_paired_values_and_paired_statistics_give_the_same_interval() -> None:
    one, other = dice_like(0), dice_like(1)
    values = paired_difference_interval(one, other, ONE_EACH)
    statistics = paired_difference_interval(lambda i: float(one[i].mean()), lambda i: float(other[i].mean()), ONE_EACH)
    assert (statistics.low, statistics.high) == pytest.approx((values.low, values.high))


def test_a_paired_difference_leaves_out_images_that_one_model_has_no_value_for() -> None:
    difference = paired_difference_interval(
        np.array([1.0, 9.0, math.nan]), np.array([0.5, math.nan, 9.0]), np.arange(3)
    )
    assert difference.estimate == 0.5


def test_values_paired_with_a_statistic_are_refused() -> None:
    with pytest.raises(TypeError, match="both"):
        paired_difference_interval(dice_like(0), lambda i: float(i.size), ONE_EACH)


def test_models_measured_on_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired_difference_interval(dice_like(0), dice_like(0, images=1), ONE_EACH)


@pytest.mark.parametrize("groups", [np.arange(79), np.zeros((80, 1))])
def test_a_value_without_a_group_is_refused(groups: np.ndarray) -> None:
    with pytest.raises(ValueError, match="every value needs a group"):
        bootstrap_interval(dice_like(0), groups)


@pytest.mark.parametrize("groups", [np.zeros(0), np.zeros((2, 2))])
def test_groups_that_are_no_list_are_refused(groups: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        bootstrap_interval(lambda i: float(i.size), groups)


@pytest.mark.parametrize("sampling", [{"draws": 0}, {"level": 0.0}, {"level": 95.0}, {"level": math.nan}])
def test_sampling_that_makes_no_sense_is_refused(sampling: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least one draw|must lie in"):
        bootstrap_interval(dice_like(0), ONE_EACH, **sampling)


def test_an_interval_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed"):
        Interval(0.5, 0.6, 0.4)
