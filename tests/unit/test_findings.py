"""What is said about a scan at a cut-off: mask, size in the right unit, flag, and where class and mask disagree."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from busi_core.findings import read_finding, read_opinions
from busi_core.imaging.preprocess import upsample
from busi_core.types import Analysis, CalibratedRegion, DecodedImage, Diagnosis, FloatMap, Prediction

HEIGHT, WIDTH = 100, 120
LEFT_HALF = CalibratedRegion(0, 0, 60, HEIGHT, column_mm=0.2, row_mm=0.1)
WHOLE = CalibratedRegion(0, 0, WIDTH, HEIGHT, column_mm=0.2, row_mm=0.1)


def probability(*squares: tuple[int, int, int, float], background: float = 0.0) -> FloatMap:
    """(HEIGHT, WIDTH) with squares (left, top, side, probability) on a background."""
    values = np.full((HEIGHT, WIDTH), background, np.float32)
    for left, top, side, value in squares:
        values[top : top + side, left : left + side] = value
    return values


def analysis(
    lesion: FloatMap,
    scores: Sequence[float] | None = (0.1, 0.2, 0.7),
    *,
    regions: tuple[CalibratedRegion, ...] = (),
    malignancy_threshold: float | None = 0.3,
) -> Analysis:
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    image = DecodedImage(grey, np.dstack([grey] * 3), "DICOM", 0, 1, regions, ())
    probabilities = None if scores is None else dict(zip(Diagnosis, scores, strict=True))
    return Analysis(image, Prediction(lesion, probabilities), {}, 0.5, malignancy_threshold, "v1", ())


ONE_LESION = probability((20, 30, 10, 0.8), background=0.1)
NORMAL, BENIGN, MALIGNANT = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)


@pytest.mark.parametrize(
    ("scores", "threshold", "said"),
    [
        pytest.param(NORMAL, None, "The class says normal, but a lesion is outlined.", id="normal with a mask"),
        pytest.param(NORMAL, 0.9, None, id="normal, cut-off moved up until the mask is gone"),
        pytest.param(BENIGN, None, None, id="benign with a mask"),
        pytest.param(
            BENIGN, 0.9, "The class says benign, but no lesion is outlined at this cut-off.", id="benign without"
        ),
        pytest.param(MALIGNANT, 0.8, None, id="malignant with a mask at the very cut-off"),
        pytest.param(
            MALIGNANT,
            0.9,
            "The class says malignant, but no lesion is outlined at this cut-off.",
            id="malignant without",
        ),
        pytest.param(NORMAL, 0.05, "The class says normal, but a lesion is outlined.", id="moved down: all is lesion"),
        pytest.param(None, None, None, id="no class head"),
        pytest.param(None, 0.9, None, id="no class head, no mask"),
    ],
)
def test_class_and_mask_that_contradict_each_other_are_named_and_never_reconciled(
    scores: Sequence[float] | None, threshold: float | None, said: str | None
) -> None:
    finding = read_finding(analysis(ONE_LESION, scores), threshold)
    assert finding.disagreement == said


def test_the_models_own_cut_off_holds_unless_another_is_given() -> None:
    subject = analysis(probability((0, 0, 10, 0.5), (40, 40, 10, 0.4)))
    assert read_finding(subject).threshold == 0.5
    assert read_finding(subject).lesion_pixels == 100
    assert read_finding(subject, 0.4).lesion_pixels == 200
    assert read_finding(subject, 0.51).lesion_pixels == 0


def test_the_mask_is_the_probability_brought_to_the_images_pixels_and_cut() -> None:
    coarse = np.random.default_rng(0).random((12, 16), np.float32)
    finding = read_finding(analysis(coarse), 0.6)
    assert np.array_equal(finding.lesion_mask, upsample(coarse, HEIGHT, WIDTH) >= 0.6)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.2, float("nan")])
def test_a_cut_off_that_means_nothing_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        read_finding(analysis(ONE_LESION), threshold)


@pytest.mark.parametrize(
    ("score", "flagged"), [(0.29, False), (0.3, True), (0.31, True)], ids=["below", "at the cut-off", "above"]
)
def test_a_scan_is_flagged_from_the_cut_off_on(score: float, flagged: bool) -> None:
    assert read_finding(analysis(ONE_LESION, (1 - score - 0.1, 0.1, score))).flagged is flagged


def test_without_a_class_head_nothing_is_flagged_or_cleared() -> None:
    assert read_finding(analysis(ONE_LESION, None, malignancy_threshold=None)).flagged is None
    assert read_finding(analysis(ONE_LESION, None)).flagged is None


def test_moving_the_cut_off_leaves_the_flag_alone() -> None:
    """The flag stands on the score of malignant, the cut-off on the lesion probability."""
    subject = analysis(ONE_LESION, MALIGNANT)
    assert read_finding(subject, 0.9).flagged is read_finding(subject, 0.1).flagged is True


@pytest.mark.parametrize("peak", [0.9, 0.4])
def test_a_network_outlines_what_would_be_drawn_of_it_and_no_peak_between_two_pixels(peak: float) -> None:
    """Of a map on a finer grid than the scan's pixels some cells fall between them."""
    fine = np.zeros((2 * HEIGHT, 2 * WIDTH), np.float32)
    fine[81, 91], fine[20:40, 20:40] = 0.9, peak - 0.1
    one = analysis(fine, NORMAL)
    [opinion] = read_opinions(replace(one, opinions=(one.prediction,)), 0.5)
    assert opinion.outlines == bool(read_finding(one, 0.5).lesion_mask.any()) == (peak == 0.9)
    assert opinion.diagnosis is Diagnosis.NORMAL


def test_an_empty_mask_has_no_size_and_no_region() -> None:
    finding = read_finding(analysis(ONE_LESION), 0.9)
    assert (finding.size, finding.regions, finding.lesion_pixels, finding.unit) == (None, 0, 0, "px")


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_counted_as_scipy_counts_them(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((HEIGHT, WIDTH)), 4)
    lesion = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    finding = read_finding(analysis(lesion), 0.7)
    _, expected = ndimage.label(finding.lesion_mask, np.ones((3, 3)))
    assert finding.regions == expected > 1


def test_the_size_is_that_of_the_largest_region() -> None:
    finding = read_finding(analysis(probability((0, 0, 4, 0.9), (40, 40, 20, 0.9), (90, 80, 5, 0.9))))
    assert finding.regions == 3
    assert finding.size is not None
    assert finding.size.area == 400


@pytest.mark.parametrize(
    ("regions", "unit"),
    [
        pytest.param((), "px", id="no calibration"),
        pytest.param((WHOLE,), "mm", id="the whole image"),
        pytest.param((LEFT_HALF,), "mm", id="the lesion's half"),
        pytest.param((CalibratedRegion(20, 30, 30, 40, 0.2, 0.1),), "mm", id="exactly the lesion"),
        pytest.param((CalibratedRegion(21, 30, 40, 40, 0.2, 0.1),), "px", id="one column short"),
        pytest.param((CalibratedRegion(0, 0, 60, 39, 0.2, 0.1),), "px", id="one row short"),
        pytest.param((CalibratedRegion(60, 0, WIDTH, HEIGHT, 0.2, 0.1),), "px", id="the other half"),
        pytest.param((LEFT_HALF, CalibratedRegion(60, 0, WIDTH, HEIGHT, 0.3, 0.3)), "mm", id="two, the lesion in one"),
        pytest.param(
            (CalibratedRegion(0, 0, WIDTH, 40, 0.2, 0.1), CalibratedRegion(0, 40, WIDTH, HEIGHT, 0.3, 0.3)),
            "mm",
            id="two, one above the other, the lesion down to the very border",
        ),
        pytest.param(
            (CalibratedRegion(0, 0, 30, HEIGHT, 0.2, 0.1), CalibratedRegion(30, 0, WIDTH, HEIGHT, 0.3, 0.3)),
            "mm",
            id="two side by side, the lesion out to the very border",
        ),
        pytest.param((WHOLE, LEFT_HALF), "mm", id="two of one scale that both hold it"),
        pytest.param((WHOLE, CalibratedRegion(0, 0, 60, HEIGHT, 0.3, 0.3)), "px", id="two scales that both hold it"),
        pytest.param((WHOLE, CalibratedRegion(25, 0, WIDTH, HEIGHT, 0.3, 0.3)), "px", id="a second holds a part of it"),
        pytest.param((WHOLE, CalibratedRegion(15, 25, 40, 60, 0.2, 0.1)), "mm", id="a colour box of the same scale"),
        pytest.param(
            (LEFT_HALF, CalibratedRegion(25, 0, WIDTH, HEIGHT, 0.2, 0.1)), "mm", id="half in a second, same scale"
        ),
    ],
)
def test_millimetres_are_given_only_where_one_calibration_holds_for_all_that_is_measured(
    regions: tuple[CalibratedRegion, ...], unit: str
) -> None:
    """U15: pixels unless calibrated; never a guess."""
    finding = read_finding(analysis(ONE_LESION, regions=regions))
    assert finding.unit == unit
    assert finding.size is not None
    expected = 10 * 10 * (0.2 * 0.1 if unit == "mm" else 1)
    assert finding.size.area == pytest.approx(expected)
    assert finding.size.longest == pytest.approx(2.0 if unit == "mm" else 10 * 2**0.5, rel=0.15)


def test_on_a_split_screen_what_is_measured_decides_and_no_second_outline() -> None:
    """U15. Two halves of one scale, an outline in each: the larger is measured, and lies in one of them."""
    right_half = CalibratedRegion(60, 0, WIDTH, HEIGHT, 0.3, 0.3)
    subject = analysis(probability((20, 30, 10, 0.8), (90, 30, 14, 0.6)), regions=(LEFT_HALF, right_half))
    finding = read_finding(subject, 0.5)
    assert (finding.unit, finding.regions) == ("mm", 2)
    assert finding.size is not None
    assert finding.size.area == pytest.approx(14 * 14 * 0.3 * 0.3)


def test_an_outline_of_another_part_that_is_measured_takes_the_millimetres_away() -> None:
    """U15. Moving the cut-off changes the unit with the mask."""
    lesion = probability((20, 30, 10, 0.8), (90, 30, 14, 0.6))
    subject = analysis(lesion, regions=(LEFT_HALF,))
    assert read_finding(subject, 0.5).unit == "px"
    assert read_finding(subject, 0.7).unit == "mm"
