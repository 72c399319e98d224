"""One scan against its reference: curve, lesions, heat maps, each held to an outside implementation."""

import math

import cv2
import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from busi_core.comparison import (
    MAX_LESIONS,
    compare_scan,
    fit_heatmap,
    index_by_cutoffs,
    match_lesions,
    mean_surface_distance,
    overlap_curve,
)
from busi_core.imaging.preprocess import upsample
from busi_core.types import Analysis, DecodedImage, Diagnosis, Heatmap, Mask, Prediction

CUTOFFS = tuple(round(0.01 * step, 2) for step in range(1, 100))


def mask(text: str) -> Mask:
    """Read a mask from a drawing: '#' is lesion, '.' is not."""
    return np.array([[cell == "#" for cell in row] for row in text.split()])


def blobs(seed: int, shape: tuple[int, int] = (60, 80)) -> Mask:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 5) > 0.05)


def probability_map(seed: int, shape: tuple[int, int] = (64, 60)) -> NDArray[np.float32]:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape), (0, 0), 4)
    return (1 / (1 + np.exp(-40 * noise))).astype(np.float32)


def analysis(seed: int = 0, height: int = 90, width: int = 85) -> Analysis:
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    image = DecodedImage(grey, np.repeat(grey[..., None], 3, axis=2), "PNG", 0, 1, (), ())
    scores = {Diagnosis.NORMAL: 0.1, Diagnosis.BENIGN: 0.2, Diagnosis.MALIGNANT: 0.7}
    heatmaps = {"malignant": Heatmap(np.random.default_rng(1).random((8, 8), np.float32), "malignant", 0.7, (8, 8))}
    return Analysis(image, Prediction(probability_map(seed), scores), heatmaps, 0.35, 0.3, "v1", ())


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_says_what_scikit_learn_says_at_every_cutoff(seed: int) -> None:
    probability, truth = upsample(probability_map(seed), 90, 85), blobs(seed + 50, (90, 85))
    curve = overlap_curve(probability, truth, CUTOFFS)
    for cutoff, counts in zip(CUTOFFS[::7], curve.counts[::7], strict=True):
        predicted = (probability >= cutoff).ravel()
        assert counts.dice == pytest.approx(f1_score(truth.ravel(), predicted))
        assert counts.iou == pytest.approx(jaccard_score(truth.ravel(), predicted))
        assert counts.precision == pytest.approx(precision_score(truth.ravel(), predicted))
        assert counts.recall == pytest.approx(recall_score(truth.ravel(), predicted))
        assert counts.pixels == truth.size


def test_one_byte_a_pixel_says_the_mask_at_every_cutoff_even_on_the_border() -> None:
    exact = np.array([[0.0, 0.01, 0.35, 0.3500001, 0.3499999, 0.99, 1.0]], np.float32)
    cutoffs = sorted({*CUTOFFS, 0.4371})
    index = index_by_cutoffs(exact, cutoffs)
    for place, cutoff in enumerate(cutoffs):
        assert np.array_equal(index > place, exact >= cutoff)


@pytest.mark.parametrize("cutoffs", [(), (0.5, 0.5), (0.6, 0.5), tuple(np.linspace(0.1, 0.9, 300))])
def test_cutoffs_must_ascend(cutoffs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        index_by_cutoffs(np.zeros((2, 2), np.float32), cutoffs)


def test_a_normal_breast_left_unmarked_has_no_overlap_rather_than_none() -> None:
    curve = overlap_curve(np.zeros((4, 4), np.float32), np.zeros((4, 4), np.bool_), (0.5,))
    assert math.isnan(curve.dice[0])
    assert math.isnan(curve.iou[0])


TWO_LESIONS = mask("""
    ##......##
    ##......##
    ##......##
    ..........
    ..........
""")


def test_each_lesion_is_looked_at_by_itself() -> None:
    predicted = mask("""
        ##........
        ##........
        ..........
        .....#....
        ..........
    """)
    matching = match_lesions(predicted, TWO_LESIONS)
    first, second = matching.lesions
    assert (first.found, first.counts.dice, first.counts.recall) == (True, pytest.approx(0.8), pytest.approx(2 / 3))
    assert (first.left, first.top, first.right, first.bottom) == (0, 0, 2, 3)
    assert first.hd95_px == pytest.approx(1.0, abs=0.1)
    assert (second.found, second.counts.dice) == (False, 0.0)
    assert math.isnan(second.hd95_px)
    assert math.isnan(second.mean_distance_px)
    assert (matching.extra_regions, matching.extra_pixels) == (1, 1)


@pytest.mark.parametrize(("predicted_pixels", "is_found"), [(100, True), (101, False)])
def test_a_lesion_is_found_from_a_dice_of_one_in_a_hundred_on(predicted_pixels: int, is_found: bool) -> None:
    """One pixel of 100 shared: 2 / (100 + 100) is a hundredth, 2 / (100 + 101) is less."""
    truth, predicted = np.zeros((60, 130), bool), np.zeros((60, 130), bool)
    truth[10:20, 10:20] = True
    predicted[19, 19 : 19 + predicted_pixels] = True
    (lesion,) = match_lesions(predicted, truth).lesions
    assert lesion.counts.true_positive == 1
    assert lesion.found is is_found


def test_of_a_region_that_spans_two_lesions_each_pixel_counts_for_the_nearest() -> None:
    matching = match_lesions(np.ones((5, 10), np.bool_), TWO_LESIONS)
    first, second = matching.lesions
    assert first.found
    assert second.found
    assert first.counts.precision == second.counts.precision == pytest.approx(6 / 25)
    assert first.counts.recall == second.counts.recall == 1.0
    assert matching.extra_regions == 0


def test_a_piece_of_a_spanning_region_never_counts_for_a_lesion_that_it_does_not_touch() -> None:
    truth = mask("""
        ##......##
        ..........
        ....##....
    """)
    spans_the_upper_two = mask("""
        ##########
        ..........
        ..........
    """)
    lesions = match_lesions(spans_the_upper_two, truth).lesions
    assert [lesion.found for lesion in sorted(lesions, key=lambda one: one.left)] == [True, False, True]
    assert sum(lesion.counts.true_positive + lesion.counts.false_positive for lesion in lesions) == 10


def test_lesions_that_touch_are_two_where_each_has_a_file_of_its_own() -> None:
    truth = mask("""
        ####....
        ####....
        ####....
    """)
    annotation = truth.astype(np.uint8)
    assert len(match_lesions(truth, truth, annotation).lesions) == 1
    annotation[:, 3] *= 2
    first, second = match_lesions(truth, truth, annotation).lesions
    assert (first.pixels, second.pixels) == (9, 3)
    assert first.counts.dice == second.counts.dice == 1.0  # one predicted region over both, shared out
    assert first.hd95_px == second.hd95_px == 0.0
    assert [annotation[lesion.middle[::-1]] for lesion in (first, second)] == [1, 2]


def test_an_annotation_of_other_pixels_than_the_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly where the truth is"):
        match_lesions(TWO_LESIONS, TWO_LESIONS, np.zeros(TWO_LESIONS.shape, np.uint8))


def test_no_lesion_in_the_reference_leaves_only_extra_regions() -> None:
    matching = match_lesions(TWO_LESIONS, np.zeros_like(TWO_LESIONS))
    assert (matching.lesions, matching.extra_regions, matching.extra_pixels) == ((), 2, 12)


def test_a_mask_of_speckle_is_bounded_and_what_is_left_out_is_counted() -> None:
    speckle = np.zeros((200, 200), np.bool_)
    speckle[::2, ::2] = True
    matching = match_lesions(speckle, speckle)
    assert len(matching.lesions) == MAX_LESIONS
    assert matching.unlisted_lesions == 100 * 100 - MAX_LESIONS
    assert matching.extra_regions == 0


@pytest.mark.parametrize("seed", range(4))
def test_lesions_are_those_that_scipy_labels(seed: int) -> None:
    predicted, truth = blobs(seed), blobs(seed + 100)
    labels, count = ndimage.label(truth, np.ones((3, 3)))
    matching = match_lesions(predicted, truth)
    lesions = matching.lesions
    assert sorted(lesion.pixels for lesion in lesions) == sorted(np.bincount(labels.ravel())[1:])
    assert [lesion.pixels for lesion in lesions] == sorted((lesion.pixels for lesion in lesions), reverse=True)
    missed = sum(not predicted[labels == label].any() for label in range(1, count + 1))
    assert sum(lesion.counts.true_positive == 0 for lesion in lesions) == missed
    regions, region_count = ndimage.label(predicted, np.ones((3, 3)))
    alone = sum(not truth[regions == label].any() for label in range(1, region_count + 1))
    assert matching.extra_regions == alone


@pytest.mark.parametrize("seed", range(6))
def test_mean_surface_distance_agrees_with_monai(seed: int) -> None:
    predicted, truth = blobs(seed), blobs(seed + 100)
    batch = [torch.from_numpy(one)[None, None].float() for one in (predicted, truth)]
    expected = float(compute_average_surface_distance(*batch, include_background=True, symmetric=True))
    assert mean_surface_distance(predicted, truth) == pytest.approx(expected, rel=1e-5)


def test_heat_map_energy_and_peak() -> None:
    evidence = np.zeros((4, 4), np.float32)
    evidence[1, 1] = 1.0
    truth = np.zeros((80, 80), np.bool_)
    truth[:40, :40] = True
    fit = fit_heatmap(Heatmap(evidence, "malignant", 0.7, (4, 4)), truth)
    full = torch.nn.functional.interpolate(
        torch.from_numpy(evidence)[None, None], size=(80, 80), mode="bilinear", align_corners=False
    )[0, 0]
    assert fit.energy_inside == pytest.approx(float(full[:40, :40].sum() / full.sum()), rel=1e-5)
    assert fit.peak_inside is True
    assert fit.peak is not None
    assert 20 <= fit.peak[0] < 40
    assert 20 <= fit.peak[1] < 40
    assert fit_heatmap(Heatmap(evidence, "malignant", 0.7, (4, 4)), ~truth).peak_inside is False


def test_a_heat_map_says_nothing_without_a_lesion_or_without_evidence() -> None:
    some, none = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
    empty, truth = np.zeros((40, 40), np.bool_), np.ones((40, 40), np.bool_)
    for evidence, reference in ((some, empty), (none, truth)):
        fit = fit_heatmap(Heatmap(evidence, "benign", 0.2, (4, 4)), reference)
        assert math.isnan(fit.energy_inside)
        assert fit.peak_inside is None


def test_a_comparison_names_cutoff_and_model() -> None:
    subject, truth = analysis(), blobs(9, (90, 85))
    own = compare_scan(subject, truth)
    assert (own.threshold, own.model_version) == (0.35, "v1")
    full = upsample(subject.prediction.lesion_probability, 90, 85)
    assert np.array_equal(own.predicted, full >= 0.35)
    other = compare_scan(subject, truth, threshold=0.8)
    assert other.counts.dice == pytest.approx(f1_score(truth.ravel(), (full >= 0.8).ravel()))
    assert [fit.of for fit in other.heatmaps] == ["malignant"]
