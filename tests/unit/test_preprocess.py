"""Pixels into the network's square and maps back out of it, to where they were."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from busi_core.imaging.preprocess import (
    Box,
    PreprocessSpec,
    crop_to_box,
    fit_box,
    fit_to_square,
    normalise,
    place_on_box,
    prepare,
    upsample,
)
from busi_core.types import FloatMap, Mask

PAD = PreprocessSpec(side=256, fit="pad", channels=1, mean=0.5, std=0.5)
SQUASH = replace(PAD, fit="squash")
SHAPES = [(448, 560), (560, 448), (64, 512), (512, 64), (200, 200), (97, 331), (1024, 130), (300, 301)]


def ellipse(height: int, width: int) -> Mask:
    """A lesion off the middle, a fifth as high and as wide as the image."""
    canvas = np.zeros((height, width), np.uint8)
    cv2.ellipse(canvas, (width * 6 // 10, height * 4 // 10), (width // 5, height // 5), 20, 0, 360, 1, -1)
    return canvas.astype(bool)


def smooth_map(rows: int, columns: int, *, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    return torch.from_numpy(cv2.GaussianBlur(noise, (0, 0), 2))


def interpolate_by_hand(values: FloatMap, height: int, width: int) -> np.ndarray:
    """Bilinear, one axis after the other: pixel i of n lies at (i + 1/2) * cells / n - 1/2, ends repeated."""

    def places(cells: int, pixels: int) -> np.ndarray:
        return (np.arange(pixels) + 0.5) * cells / pixels - 0.5

    rows, columns = values.shape
    wide = np.stack([np.interp(places(columns, width), np.arange(columns), row) for row in values])
    return np.stack([np.interp(places(rows, height), np.arange(rows), column) for column in wide.T], axis=1)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("side", 100, "multiple of 32"),
        ("side", 0, "multiple of 32"),
        ("side", -256, "multiple of 32"),
        ("fit", "crop", "pad"),
        ("channels", 2, "channels"),
        ("std", 0.0, "std"),
        ("std", -1.0, "std"),
        ("std", float("nan"), "std"),
    ],
)
def test_a_spec_refuses_what_no_network_can_use(field: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(PAD, **{field: value})


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_padding_keeps_the_aspect_to_the_nearest_pixel(height: int, width: int) -> None:
    box = fit_box(height, width, PAD)
    assert max(box.height, box.width) == PAD.side
    assert box.height == pytest.approx(PAD.side * height / max(height, width), abs=0.5)
    assert box.width == pytest.approx(PAD.side * width / max(height, width), abs=0.5)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_squashing_fills_the_square(height: int, width: int) -> None:
    assert fit_box(height, width, SQUASH) == Box(256, 256)
    white = np.full((height, width), 255, np.uint8)
    assert (fit_to_square(white, SQUASH) == 255).all()


def test_a_scan_smaller_than_the_input_is_enlarged_between_its_pixels_and_not_in_blocks() -> None:
    """numpy is the judge; OpenCV works in 11 bits of a level."""
    small = np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8)
    enlarged = fit_to_square(small, PAD)[:192]
    np.testing.assert_allclose(enlarged, interpolate_by_hand(small.astype(np.float32), 192, 256), atol=1)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_what_padding_adds_is_black_and_lies_right_and_below(height: int, width: int) -> None:
    square, box = fit_to_square(np.full((height, width), 255, np.uint8), PAD), fit_box(height, width, PAD)
    assert (square[: box.height, : box.width] == 255).all()
    assert int((square == 255).sum()) == box.height * box.width
    assert int((square == 0).sum()) == square.size - box.height * box.width


def test_shrinking_averages_over_areas_so_that_speckle_does_not_alias() -> None:
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert set(np.unique(fit_to_square(board, PAD))) <= {127, 128}


def test_prepared_values_are_scaled_then_shifted_and_divided() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    tensor, box = prepare(grey, replace(PAD, mean=0.25, std=0.5))
    assert box == Box(256, 256)
    assert tensor.shape == (1, 1, 256, 256)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor[0, 0].numpy(), (grey / 255 - 0.25) / 0.5, atol=1e-6)


def test_three_channels_are_the_grey_repeated() -> None:
    tensor, _ = prepare(np.arange(80 * 96, dtype=np.uint8).reshape(80, 96), replace(PAD, channels=3))
    assert tensor.shape == (1, 3, 256, 256)
    assert torch.equal(tensor[:, 0], tensor[:, 1])
    assert torch.equal(tensor[:, 0], tensor[:, 2])


def test_training_and_serving_prepare_the_same_pixels() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (90, 140), dtype=np.uint8)
    in_training = normalise(torch.from_numpy(fit_to_square(grey, PAD))[None, None].float() / 255, PAD)
    assert torch.equal(in_training, prepare(grey, PAD)[0])


@pytest.mark.parametrize("spec", [PAD, SQUASH], ids=["pad", "squash"])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_mask_prepared_then_cropped_and_upsampled_lies_back_where_it_was(
    height: int, width: int, spec: PreprocessSpec
) -> None:
    truth = ellipse(height, width)
    square = torch.from_numpy(fit_to_square(truth.astype(np.uint8) * 255, spec)).float() / 255
    cut = crop_to_box(square, fit_box(height, width, spec), spec)
    back = upsample(cut.numpy(), height, width) >= 0.5
    assert back.shape == truth.shape
    assert (back & truth).sum() / (back | truth).sum() > 0.95
    for axis in (0, 1):
        middle, expected = (np.nonzero(mask)[axis].mean() for mask in (back, truth))
        assert middle == pytest.approx(expected, abs=max(0.5, max(height, width) / spec.side / 4))


@pytest.mark.parametrize("grid", [8, 16, 64])
@pytest.mark.parametrize("box", [Box(256, 192), Box(128, 256), Box(256, 256)])
def test_a_box_that_ends_between_cells_is_a_plain_cut(grid: int, box: Box) -> None:
    values = smooth_map(grid, grid)
    cut = crop_to_box(values, box, PAD)
    assert torch.equal(cut, values[: box.height * grid // 256, : box.width * grid // 256])


@pytest.mark.parametrize("grid", [8, 16, 32])
@pytest.mark.parametrize("box", [Box(205, 256), Box(256, 101), Box(175, 256), Box(256, 131)])
def test_a_ramp_cut_inside_a_cell_keeps_its_place(grid: int, box: Box) -> None:
    """Bilinear interpolation of a ramp is exact away from the ends, so a shift of a tenth of a pixel would show."""
    pixels = (torch.arange(grid) + 0.5) * PAD.side / grid  # where each cell's middle lies
    ramp = 0.001 * pixels[None, :].expand(grid, grid) + 0.002 * pixels[:, None]
    shown = upsample(crop_to_box(ramp, box, PAD).numpy(), box.height, box.width)
    rows, columns = np.arange(box.height) + 0.5, np.arange(box.width) + 0.5
    expected = 0.001 * columns[None, :] + 0.002 * rows[:, None]
    edge = 3 * PAD.side // (2 * grid) + 1  # beyond the middle of the outermost cells the map is held, not continued
    inside = np.s_[edge : box.height - edge, edge : box.width - edge]
    assert shown[inside].size
    np.testing.assert_allclose(shown[inside], expected[inside], atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 512), (512, 64), (65, 512), (100, 560)])
@pytest.mark.parametrize("grid", [2, 8])
def test_a_strip_keeps_at_least_one_cell_of_a_coarse_map(height: int, width: int, grid: int) -> None:
    box = fit_box(height, width, PAD)
    cut = crop_to_box(smooth_map(grid, grid), box, PAD)
    assert min(cut.shape) >= 1
    assert max(cut.shape) == grid
    assert torch.isfinite(cut).all()


@pytest.mark.parametrize("box", [Box(205, 256), Box(256, 101), Box(175, 256)])
def test_cutting_a_coarse_map_equals_cutting_the_same_map_made_fine(box: Box) -> None:
    coarse = smooth_map(16, 16)
    fine = torch.from_numpy(upsample(coarse.numpy(), 256, 256))
    first = upsample(crop_to_box(coarse, box, PAD).numpy(), box.height, box.width)
    second = crop_to_box(fine, box, PAD).numpy()
    assert np.abs(first - second).max() < 0.15 * float(coarse.max() - coarse.min())
    assert np.abs(first - second).mean() < 0.02 * float(coarse.max() - coarse.min())


def test_a_stack_of_maps_is_cut_as_each_alone() -> None:
    maps, box = torch.stack([smooth_map(8, 8, seed=seed) for seed in range(3)])[None], Box(205, 256)
    together = crop_to_box(maps, box, PAD)
    assert together.shape == (1, 3, 7, 8)
    for alone, cut in zip(maps[0], together[0], strict=True):
        assert torch.allclose(crop_to_box(alone, box, PAD), cut)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (-17.0, -20.5), (9.0, 0.0)])
@pytest.mark.parametrize("box", [Box(256, 256), Box(205, 256), Box(256, 175)])
def test_a_coarse_map_is_shown_where_its_cells_really_look(box: Box, offset: tuple[float, float]) -> None:
    """A ramp moves by exactly the offset, away from the ends where values are held."""
    pixels = (torch.arange(16) + 0.5) * PAD.side / 16
    ramp = 0.001 * pixels[None, :].expand(16, 16) + 0.002 * pixels[:, None]
    shown = upsample(place_on_box(ramp, box, PAD, offset).numpy(), box.height, box.width)
    rows, columns = np.arange(box.height) + 0.5 - offset[0], np.arange(box.width) + 0.5 - offset[1]
    expected = 0.001 * columns[None, :] + 0.002 * rows[:, None]
    inside = np.s_[40 : box.height - 40, 40 : box.width - 40]
    np.testing.assert_allclose(shown[inside], expected[inside], atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(448, 560), (64, 512), (20, 31), (7, 9)])
def test_upsampling_agrees_with_opencv_and_with_the_formula(height: int, width: int) -> None:
    values = np.random.default_rng(0).random((7, 9), np.float32)
    shown = upsample(values, height, width)
    np.testing.assert_allclose(shown, interpolate_by_hand(values, height, width), atol=1e-5)
    np.testing.assert_allclose(shown, cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), atol=1e-4)


def test_upsampling_stays_within_the_values_it_was_given() -> None:
    values = np.random.default_rng(0).random((8, 8), np.float32)
    shown = upsample(values, 333, 77)
    assert shown.dtype == np.float32
    assert values.min() <= shown.min()
    assert shown.max() <= values.max()
