"""Temperature, reliability curve and expected calibration error."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as their_softmax
from sklearn.metrics import log_loss

from busi_core.metrics.calibration import (
    ReliabilityCurve,
    calibration_error_by_chance,
    expected_calibration_error,
    fit_temperature,
    reliability_curve,
    softmax,
)


def sure(confidence: list[float]) -> np.ndarray:
    """Probabilities of two classes that predict column 0 with the given confidence, at least one half."""
    return np.stack([confidence, 1 - np.asarray(confidence)], axis=1)


def right(text: str) -> np.ndarray:
    """The truth for predictions of column 0: '+' they are right, '-' they are wrong."""
    return np.array([0 if sign == "+" else 1 for sign in text], dtype=np.int64)


def sampled(seed: int, *, stretch: float, images: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Logits `stretch` times as large as the ones that the labels were really drawn from."""
    generator = np.random.default_rng(seed)
    honest = generator.standard_normal((images, 3)) * 2
    truth = (honest + generator.gumbel(size=honest.shape)).argmax(axis=1)
    return honest * stretch, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_softmax_agrees_with_scipy(temperature: float) -> None:
    logits = np.random.default_rng(0).standard_normal((20, 3)) * 10
    np.testing.assert_allclose(softmax(logits, temperature), their_softmax(logits / temperature, axis=1))


def test_softmax_of_huge_logits_does_not_overflow() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0, -1e4]], dtype=np.float32)), [[1, 0, 0]])


def test_temperature_is_as_sure_as_the_share_that_is_right() -> None:
    # Logits (6, 0), right three times in four: sigmoid(6 / T) = 3 / 4, so T = 6 / ln 3.
    assert fit_temperature(np.tile([6.0, 0.0], (4, 1)), right("+++-")) == pytest.approx(6 / math.log(3))


@pytest.mark.parametrize("stretch", [0.3, 1.0, 2.5])
def test_temperature_undoes_a_stretch_of_the_logits(stretch: float) -> None:
    logits, truth = sampled(0, stretch=stretch)
    temperature = fit_temperature(logits, truth)
    assert temperature == pytest.approx(stretch, rel=0.1)
    assert expected_calibration_error(softmax(logits, temperature), truth) < 0.025


def test_temperature_is_the_one_that_scipy_finds() -> None:
    for seed in range(5):
        logits, truth = sampled(seed, stretch=2.0, images=60)

        def loss(log_temperature: float, logits: np.ndarray = logits, truth: np.ndarray = truth) -> float:
            likelihood = log_softmax(logits / math.exp(log_temperature), axis=1)
            return float(-likelihood[np.arange(truth.size), truth].mean())

        theirs = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded", options={"xatol": 1e-8})
        assert fit_temperature(logits, truth) == pytest.approx(math.exp(theirs.x), rel=1e-4)


def test_temperature_never_raises_the_log_loss_on_what_it_was_fitted_to() -> None:
    for seed in range(5):
        logits, truth = sampled(seed, stretch=1.3, images=60)
        before = log_loss(truth, softmax(logits), labels=[0, 1, 2])
        assert log_loss(truth, softmax(logits, fit_temperature(logits, truth)), labels=[0, 1, 2]) <= before


@pytest.mark.parametrize(
    ("signs", "expected"), [pytest.param("++++", 0.05, id="all right"), pytest.param("+---", 20.0, id="mostly wrong")]
)
def test_temperature_without_a_best_value_stops_at_an_end(signs: str, expected: float) -> None:
    assert fit_temperature(np.tile([1.0, 0.0], (4, 1)), right(signs)) == pytest.approx(expected)


def test_bins_hold_equally_many_and_rise_in_confidence() -> None:
    curve = reliability_curve(sure([0.9, 0.6, 0.8, 0.55, 0.95, 0.7]), right("++-++-"), bins=3)
    np.testing.assert_array_equal(curve.count, [2, 2, 2])
    np.testing.assert_allclose(curve.confidence, [0.575, 0.75, 0.925])
    np.testing.assert_allclose(curve.right, [1.0, 0.0, 1.0])


def test_calibration_error_of_a_worked_example() -> None:
    # The bins above are off by 0.425, 0.75 and 0.075; each holds a third of the images.
    probabilities, truth = sure([0.9, 0.6, 0.8, 0.55, 0.95, 0.7]), right("++-++-")
    assert expected_calibration_error(probabilities, truth, bins=3) == pytest.approx((0.425 + 0.75 + 0.075) / 3)


@pytest.mark.parametrize(
    ("confidence", "signs", "expected"),
    [
        pytest.param(0.75, "+++-", 0.0, id="right as often as sure"),
        pytest.param(1.0, "----", 1.0, id="always sure and wrong"),
        pytest.param(0.75, "++++", 0.25, id="too modest"),
    ],
)
def test_calibration_error_of_equally_sure_predictions(confidence: float, signs: str, expected: float) -> None:
    assert expected_calibration_error(sure([confidence] * 4), right(signs)) == pytest.approx(expected)


def test_calibration_error_agrees_with_sorting_and_cutting() -> None:
    logits, truth = sampled(1, stretch=2.0, images=1500)  # 15 bins of exactly 100, no two equally sure
    probabilities = softmax(logits)
    order = probabilities.max(axis=1).argsort()
    confidence, is_right = probabilities.max(axis=1)[order], (probabilities.argmax(axis=1) == truth)[order]
    gaps = np.abs(confidence.reshape(15, 100).mean(axis=1) - is_right.reshape(15, 100).mean(axis=1))
    assert expected_calibration_error(probabilities, truth) == pytest.approx(gaps.mean())


def test_bins_differ_by_at_most_one_image() -> None:
    logits, truth = sampled(2, stretch=1.0, images=647)
    curve = reliability_curve(softmax(logits), truth)
    assert curve.count.sum() == 647
    assert set(curve.count.tolist()) == {43, 44}


def test_the_order_of_equally_sure_images_changes_nothing() -> None:
    probabilities, truth = sure([0.6] * 5 + [0.9] * 5), right("+-+-+" + "++++-")
    order = np.random.default_rng(0).permutation(10)
    expected = expected_calibration_error(probabilities, truth, bins=4)
    assert expected_calibration_error(probabilities[order], truth[order], bins=4) == pytest.approx(expected)
    np.testing.assert_array_equal(reliability_curve(probabilities, truth, bins=4).count, [5, 5])


def test_a_bin_weighs_as_much_as_it_holds_images() -> None:
    # One image 0.4 too modest; three that share a bin, sure 0.9 and right 2 times in 3.
    error = expected_calibration_error(sure([0.6, 0.9, 0.9, 0.9]), right("+++-"), bins=4)
    assert error == pytest.approx((1 * 0.4 + 3 * (0.9 - 2 / 3)) / 4)


def test_no_images_have_no_bins_and_no_calibration_error() -> None:
    nothing = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    assert reliability_curve(*nothing).count.size == 0
    assert math.isnan(expected_calibration_error(*nothing))


@pytest.mark.parametrize("images", [86, 366])
def test_scores_that_are_true_show_the_error_that_chance_makes_of_so_many(images: int) -> None:
    generator = np.random.default_rng(1)
    probabilities = softmax(generator.standard_normal((images, 3)) * 2)
    shown = [
        expected_calibration_error(probabilities, (row[:, None] > probabilities.cumsum(axis=1)).sum(axis=1))
        for row in generator.random((400, images))
    ]
    assert calibration_error_by_chance(probabilities) == pytest.approx(np.mean(shown), abs=0.003)


def test_the_more_images_the_less_chance_makes_and_of_none_it_makes_nothing() -> None:
    probabilities = softmax(np.random.default_rng(2).standard_normal((50, 3)))
    few, many = calibration_error_by_chance(probabilities), calibration_error_by_chance(np.tile(probabilities, (20, 1)))
    assert 0 < many < few / 3
    assert math.isnan(calibration_error_by_chance(np.zeros((0, 3))))


def test_a_temperature_from_no_images_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize("logits", [np.zeros(3), np.array([[0.0, math.nan]]), np.array([[0.0, math.inf]])])
def test_logits_that_are_not_a_finite_table_are_refused(logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        softmax(logits)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        softmax(np.zeros((1, 3)), temperature)


def test_logits_are_refused_where_probabilities_belong() -> None:
    with pytest.raises(ValueError, match="softmax first"):
        expected_calibration_error(np.array([[2.0, -1.0]]), right("+"))


@pytest.mark.parametrize(
    ("truth", "error"),
    [
        pytest.param(np.array([0.0]), TypeError, id="not whole numbers"),
        pytest.param(np.array([2]), ValueError, id="a column that is not there"),
        pytest.param(np.array([-1]), ValueError, id="a column below 0"),
        pytest.param(np.array([0, 0]), ValueError, id="more labels than rows"),
    ],
)
def test_labels_that_make_no_sense_are_refused(truth: np.ndarray, error: type) -> None:
    with pytest.raises(error):
        reliability_curve(sure([0.7]), truth)


def test_no_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 bin"):
        reliability_curve(sure([0.7]), right("+"), bins=0)


def test_a_curve_with_parts_of_other_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        ReliabilityCurve(np.zeros(2, dtype=np.int64), np.zeros(2), np.zeros(3))
