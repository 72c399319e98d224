"""The size of a marked lesion, against shapes whose size is known."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from busi_core.metrics.segmentation import find_border
from busi_core.metrics.size import SIDE_MIDDLES, LesionSize, measure_lesion
from busi_core.types import Mask


def mask(text: str) -> Mask:
    """Read a mask from a drawing: '#' is lesion, '.' is not."""
    return np.array([[cell == "#" for cell in row] for row in text.split()])


def ellipse(half_length: float, half_width: float, degrees: float) -> Mask:
    """An ellipse in the middle of an image; its length points `degrees` down from the horizontal."""
    rows, columns = np.mgrid[:161, :161] - 80.0
    angle = math.radians(degrees)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    return (along / half_length) ** 2 + (across / half_width) ** 2 <= 1


def measure(lesion: Mask, *, column_mm: float = 1.0, row_mm: float = 1.0) -> LesionSize:
    size = measure_lesion(lesion, column_mm=column_mm, row_mm=row_mm)
    assert size is not None
    return size


@pytest.mark.parametrize(
    ("drawing", "longest", "perpendicular", "area", "regions"),
    [
        pytest.param("... .#. ...", 1, 1, 1, 1, id="one pixel"),
        pytest.param("..... #####", 5, 1, 5, 1, id="bar across"),
        pytest.param("#. #. #.", 3, 1, 3, 1, id="bar down"),
        pytest.param("#.. .#. ..#", math.sqrt(13), 5 / math.sqrt(13), 3, 1, id="corners that touch are one region"),
        pytest.param("##... ....# ##..#", 2, 1, 2, 3, id="of equals, the one met first"),
        pytest.param("#.... ..### #....", 3, 1, 3, 3, id="only the largest is measured"),
    ],
)
def test_size_of_a_drawing(drawing: str, longest: float, perpendicular: float, area: float, regions: int) -> None:
    size = measure(mask(drawing))
    assert size.longest == pytest.approx(longest)
    assert size.perpendicular == pytest.approx(perpendicular)
    assert (size.area, size.regions) == (area, regions)


def test_size_of_a_rectangle_is_its_diagonal_and_the_extent_across_it() -> None:
    size = measure(np.ones((4, 10), dtype=bool))
    # From the left side's first or last middle to the right side's opposite one: 10 across, 3 down.
    assert size.longest == pytest.approx(math.hypot(10, 3))
    # Along (-3, 10) / |(10, 3)|: from the last top middle (9.5, 0) to the first bottom middle (0.5, 4).
    assert size.perpendicular == pytest.approx((-3 * (0.5 - 9.5) + 10 * 4) / math.hypot(10, 3))
    assert size.area == 40


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 130])
@pytest.mark.parametrize(("half_length", "half_width"), [(60, 20), (40, 30), (15, 6)])
def test_axes_of_an_ellipse_are_found_to_a_pixel_at_any_angle(
    half_length: float, half_width: float, degrees: float
) -> None:
    size = measure(ellipse(half_length, half_width, degrees))
    assert size.longest == pytest.approx(2 * half_length, abs=1.0)
    assert size.perpendicular == pytest.approx(2 * half_width, abs=1.5)
    assert size.area == pytest.approx(math.pi * half_length * half_width, rel=0.03)


def test_longest_is_the_largest_distance_of_all_outline_points() -> None:
    for seed in range(10):
        lesion = np.random.default_rng(seed).random((12, 15)) > 0.1
        size = measure(lesion, column_mm=0.2, row_mm=0.3)
        assert size.regions == 1, "a scattered mask would need its largest region picked here"
        corners = np.argwhere(find_border(lesion))[:, ::-1]
        points = (corners[:, None] + SIDE_MIDDLES).reshape(-1, 2) * (0.2, 0.3)
        assert size.longest == pytest.approx(pdist(points).max())


@pytest.mark.parametrize(
    ("drawing", "longest", "perpendicular", "area"),
    [
        pytest.param("#", 0.3, 0.1, 0.03, id="a pixel taller than wide"),
        pytest.param("###########", 1.1, 0.3, 0.33, id="a bar across"),
        pytest.param("# # #", 0.9, 0.1, 0.09, id="a bar down"),
    ],
)
def test_rows_and_columns_count_by_their_own_size(
    drawing: str, longest: float, perpendicular: float, area: float
) -> None:
    size = measure(mask(drawing), column_mm=0.1, row_mm=0.3)
    assert (size.longest, size.perpendicular, size.area) == pytest.approx((longest, perpendicular, area))


def test_ends_are_points_of_the_image_as_dicom_counts() -> None:
    size = measure(mask(".............. .############. .............."), column_mm=0.1, row_mm=0.3)
    assert np.asarray(size.longest_ends) == pytest.approx(np.array([(1.0, 1.5), (13.0, 1.5)]))
    assert np.ptp(np.asarray(size.perpendicular_ends), axis=0) == pytest.approx(np.array([0.0, 1.0]))


def test_the_two_lines_cross_at_right_angles_and_are_as_long_as_said() -> None:
    pixel_mm = np.array([0.2, 0.5])
    size = measure(ellipse(50, 20, 30), column_mm=0.2, row_mm=0.5)
    longest, across = (np.diff(ends, axis=0)[0] * pixel_mm for ends in (size.longest_ends, size.perpendicular_ends))
    assert longest @ across == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(longest) == pytest.approx(size.longest)
    assert np.linalg.norm(across) == pytest.approx(size.perpendicular)


def test_an_empty_mask_has_no_size() -> None:
    assert measure_lesion(mask("... ...")) is None


def test_probabilities_are_refused_rather_than_thresholded_in_silence() -> None:
    with pytest.raises(TypeError, match="threshold it first"):
        measure_lesion(np.full((2, 2), 0.7))


def test_a_pixel_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel size"):
        measure_lesion(mask("#"), column_mm=0.0)


def test_a_lesion_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="must have a size"):
        LesionSize(0.0, 1.0, 1.0, 1, (0, 0, 1, 1), ((0, 0), (0, 0)), ((0, 0), (0, 0)))
