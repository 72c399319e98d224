"""Image -> network input and back: the one place where pixels are resized, for training, evaluation and the app.

    grey (height, width) uint8 --prepare--> tensor (1, channels, side, side) + Box --network--> map (side, side)
    map --crop_to_box--> (rows, columns), covering exactly the image --upsample--> (height, width)

`upsample` is bilinear with half-pixel centres and clamped edges (torch's `align_corners=False`); the viewer
does the same in JavaScript, and a test holds the two equal.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from busi_core.types import FloatMap, Grey

FITS = ("pad", "squash")
FINER = 4  # a moved heat map is kept this much finer than its grid, so that moving does not blur it


@dataclass(frozen=True)
class PreprocessSpec:
    """How pixels must be prepared for one checkpoint. Saved in its card; has no defaults on purpose.

    Attributes:
        side: Height and width of the network's input, in pixels.
        fit: 'pad' keeps the aspect and fills the rest with black; 'squash' stretches to the square.
        channels: 1 for grey, 3 for grey repeated (encoders trained on RGB).
        mean: Subtracted after scaling pixels to [0, 1].
        std: Divided by after the subtraction.
    """

    side: int
    fit: str
    channels: int
    mean: float
    std: float

    def __post_init__(self) -> None:
        if self.side < 32 or self.side % 32:
            raise ValueError(f"side must be a multiple of 32, got {self.side}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {FITS}, got {self.fit!r}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if not self.std > 0:
            raise ValueError(f"std must be positive, got {self.std}")


@dataclass(frozen=True)
class Box:
    """Where the image lies inside the square input: rows [0, height), columns [0, width)."""

    height: int
    width: int


def fit_box(height: int, width: int, spec: PreprocessSpec) -> Box:
    """The part of the square input that an image of this size fills."""
    if spec.fit == "squash":
        return Box(spec.side, spec.side)
    scale = spec.side / max(height, width)
    return Box(max(1, round(height * scale)), max(1, round(width * scale)))


def fit_to_square(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize (height, width) uint8 to (side, side) as `spec` says.

    Shrinking averages over areas, so that speckle does not alias; enlarging is bilinear.
    """
    box = fit_box(pixels.shape[0], pixels.shape[1], spec)
    shrinks = box.height * box.width < pixels.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    square = np.zeros((spec.side, spec.side), np.uint8)
    square[: box.height, : box.width] = cv2.resize(pixels, (box.width, box.height), interpolation=method)
    return square


def normalise(square: Tensor, spec: PreprocessSpec) -> Tensor:
    """Scale (batch, 1, side, side) floats in [0, 1] to what the network expects: (batch, channels, side, side)."""
    return ((square - spec.mean) / spec.std).expand(-1, spec.channels, -1, -1)


def prepare(grey: Grey, spec: PreprocessSpec) -> tuple[Tensor, Box]:
    """Make the network's input from a grey image.

    Returns:
        (1, channels, side, side) float32, and the box that the image fills in it.
    """
    square = torch.from_numpy(fit_to_square(grey, spec)).float().div_(255)
    return normalise(square[None, None], spec).contiguous(), fit_box(grey.shape[0], grey.shape[1], spec)


def crop_to_box(values: Tensor, box: Box, spec: PreprocessSpec) -> Tensor:
    """Cut the padding from maps (..., rows, columns) of any grid that covers the square input.

    Where the box ends inside a cell the map is resampled so that it covers exactly the image, at the same number
    of cells (rounded up).
    """
    rows, columns = values.shape[-2:]
    height, width = box.height * rows / spec.side, box.width * columns / spec.side
    if height.is_integer() and width.is_integer():
        return values[..., : int(height), : int(width)]
    return _resample(values, box, spec, (0.0, 0.0), -int(-height // 1), -int(-width // 1))


def place_on_box(values: Tensor, box: Box, spec: PreprocessSpec, offset_px: tuple[float, float]) -> Tensor:
    """Put a coarse map (..., rows, columns) where its cells really look, on a grid four times as fine.

    Args:
        values: On a grid that covers the square input.
        box: What the image fills of it.
        spec: How the input was prepared.
        offset_px: (rows, columns) in pixels of the input from a cell's own place to what it looks at
            (`explain.alignment.measure_offset`). Beyond the outermost cells their values go on.
    """
    rows, columns = (FINER * count for count in values.shape[-2:])
    out_rows, out_columns = -(-rows * box.height // spec.side), -(-columns * box.width // spec.side)
    return _resample(values, box, spec, offset_px, out_rows, out_columns)


def _resample(
    values: Tensor, box: Box, spec: PreprocessSpec, offset_px: tuple[float, float], out_rows: int, out_columns: int
) -> Tensor:
    rows, columns = values.shape[-2:]
    height, width = box.height / spec.side, box.width / spec.side
    down, right = (2 * pixels / spec.side for pixels in offset_px)
    theta = torch.tensor([[[width, 0, width - 1 - right], [0, height, height - 1 - down]]])
    flat = values.reshape(1, -1, rows, columns)
    grid = functional.affine_grid(theta.to(flat), [1, flat.shape[1], out_rows, out_columns], align_corners=False)
    cut = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.reshape(*values.shape[:-2], out_rows, out_columns)


def upsample(values: FloatMap, height: int, width: int) -> FloatMap:
    """Take a map that covers exactly the image to the image's pixels: (rows, columns) -> (height, width)."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    full = functional.interpolate(tensor, size=(height, width), mode="bilinear", align_corners=False)
    return full[0, 0].numpy()
