"""Overlap counts, their ratios, and the distance between borders."""

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from sklearn.metrics import accuracy_score, precision_score, recall_score

from busi_core.metrics.segmentation import OverlapCounts, count_overlap, find_border, hd95
from busi_core.types import Mask


def mask(text: str) -> Mask:
    """Read a mask from a drawing: '#' is lesion, '.' is not."""
    return np.array([[cell == "#" for cell in row] for row in text.split()])


def random_blobs(seed: int, shape: tuple[int, int] = (48, 64)) -> Mask:
    """A few smooth regions, some cut off by the edge of the image."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    return cv2.GaussianBlur(noise, (0, 0), 5) > 0.04


def pairs_of_blobs() -> Iterator[tuple[Mask, Mask]]:
    for seed in range(12):
        predicted, truth = random_blobs(seed), random_blobs(seed + 1000)
        assert predicted.any()
        assert truth.any()
        yield predicted, truth


def as_batch(image: Mask) -> torch.Tensor:
    return torch.from_numpy(image)[None, None].float()


NAN = float("nan")


@pytest.mark.parametrize(
    ("predicted", "truth", "dice", "iou", "precision", "recall", "pixel_accuracy"),
    [
        pytest.param("##.. ....", "##.. ....", 1, 1, 1, 1, 1, id="identical"),
        pytest.param("##.. ....", "#... ....", 2 / 3, 1 / 2, 1 / 2, 1, 7 / 8, id="one extra pixel"),
        pytest.param("#... ....", "##.. ....", 2 / 3, 1 / 2, 1, 1 / 2, 7 / 8, id="one pixel short"),
        pytest.param("#... ....", "...# ....", 0, 0, 0, 0, 6 / 8, id="beside the lesion"),
        pytest.param(".... ....", "#... ....", 0, 0, NAN, 0, 7 / 8, id="missed lesion"),
        pytest.param("#... ....", ".... ....", 0, 0, 0, NAN, 7 / 8, id="false alarm on a normal breast"),
        pytest.param(".... ....", ".... ....", NAN, NAN, NAN, NAN, 1, id="normal breast left unmarked"),
        pytest.param("#### ####", "#### ####", 1, 1, 1, 1, 1, id="lesion everywhere"),
    ],
)
def test_ratios_of_a_drawing(
    predicted: str, truth: str, dice: float, iou: float, precision: float, recall: float, pixel_accuracy: float
) -> None:
    counts = count_overlap(mask(predicted), mask(truth))
    measured = (counts.dice, counts.iou, counts.precision, counts.recall, counts.pixel_accuracy)
    assert measured == pytest.approx((dice, iou, precision, recall, pixel_accuracy), nan_ok=True)


def test_counts_of_a_drawing() -> None:
    counts = count_overlap(mask("##.. #..."), mask("#.## #..."))
    assert counts == OverlapCounts(true_positive=2, false_positive=1, false_negative=2, true_negative=3)
    assert counts.pixels == 8


def test_empty_mask_accuracy_is_the_pixel_accuracy_of_an_empty_mask() -> None:
    truth = random_blobs(0)
    of_nothing = count_overlap(np.zeros_like(truth), truth).pixel_accuracy
    assert count_overlap(random_blobs(1), truth).empty_mask_accuracy == of_nothing


def test_dice_and_iou_agree_with_monai() -> None:
    for predicted, truth in pairs_of_blobs():
        counts = count_overlap(predicted, truth)
        assert counts.dice == pytest.approx(compute_dice(as_batch(predicted), as_batch(truth)).item())
        assert counts.iou == pytest.approx(compute_iou(as_batch(predicted), as_batch(truth)).item())


def test_precision_recall_and_pixel_accuracy_agree_with_scikit_learn() -> None:
    for predicted, truth in pairs_of_blobs():
        counts = count_overlap(predicted, truth)
        assert counts.precision == pytest.approx(precision_score(truth.ravel(), predicted.ravel()))
        assert counts.recall == pytest.approx(recall_score(truth.ravel(), predicted.ravel()))
        assert counts.pixel_accuracy == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))


@pytest.mark.parametrize(
    ("drawing", "border"),
    [
        pytest.param("..... .###. .###. .###. .....", "..... .###. .#.#. .###. .....", id="inner pixel is no border"),
        pytest.param("### ### ###", "### #.# ###", id="beyond the image is outside"),
        pytest.param("... ... ...", "... ... ...", id="empty"),
        pytest.param("..#.. .###. ##### .###. ..#..", "..#.. .#.#. #...# .#.#. ..#..", id="corners do not count"),
    ],
)
def test_border_of_a_drawing(drawing: str, border: str) -> None:
    np.testing.assert_array_equal(find_border(mask(drawing)), mask(border))


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        pytest.param(".##. .##.", ".##. .##.", 0.0, id="identical"),
        pytest.param("#...", "...#", 3.0, id="three columns apart"),
        pytest.param("#... .... .... ....", ".... .... .... ...#", math.sqrt(18), id="across the diagonal"),
        # distances 0, 0, 0, 0, 1 one way and 0, 0, 0, 0 back: 95 % of the way through five ranks is 0.8
        pytest.param("#####", "####.", 0.8, id="one extra pixel in five, between two ranks"),
    ],
)
def test_hd95_of_a_drawing(predicted: str, truth: str, expected: float) -> None:
    assert hd95(mask(predicted), mask(truth)) == pytest.approx(expected)


def test_hd95_counts_rows_and_columns_by_their_own_size() -> None:
    assert hd95(mask("#. .. .#"), mask(".. .. .#"), spacing=(2.0, 3.0)) == pytest.approx(0.95 * 5.0)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own, about itself
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.2)])
def test_hd95_agrees_with_monai(spacing: tuple[float, float]) -> None:
    for predicted, truth in pairs_of_blobs():
        theirs = compute_hausdorff_distance(
            as_batch(predicted), as_batch(truth), include_background=True, percentile=95, spacing=list(spacing)
        )
        assert hd95(predicted, truth, spacing) == pytest.approx(theirs.item(), rel=1e-5)


def test_hd95_is_the_same_both_ways() -> None:
    for predicted, truth in pairs_of_blobs():
        assert hd95(predicted, truth) == hd95(truth, predicted)


@pytest.mark.parametrize(("predicted", "truth"), [("...", "#.."), ("#..", "..."), ("...", "...")])
def test_hd95_of_an_empty_mask_is_not_a_number(predicted: str, truth: str) -> None:
    assert math.isnan(hd95(mask(predicted), mask(truth)))


@pytest.mark.parametrize("measure", [count_overlap, hd95])
def test_probabilities_are_refused_rather_than_thresholded_in_silence(measure: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="threshold them first"):
        measure(np.full((2, 2), 0.7), mask("## ##"))


@pytest.mark.parametrize("measure", [count_overlap, hd95])
@pytest.mark.parametrize(("predicted", "truth"), [("##", "###"), ("##", "# #")])
def test_masks_of_other_shapes_are_refused(measure: Callable[..., object], predicted: str, truth: str) -> None:
    with pytest.raises(ValueError, match="both the same"):
        measure(mask(predicted), mask(truth))


def test_a_pixel_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="spacing"):
        hd95(mask("#"), mask("#"), spacing=(0.0, 1.0))


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        OverlapCounts(1, -1, 0, 0)
