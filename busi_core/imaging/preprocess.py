"""Image -> network input and back: the one place where pixels are resized, for training, evaluation and the app.

    grey (height, width) uint8 --prepare--> tensor (1, channels, side, side) + Box --network--> map (side, side)
    map --crop_to_box--> (rows, columns), covering exactly the image --upsample--> (height, width)

`upsample` is bilinear with half-pixel centres and clamped edges (torch's `align_corners=False`); the viewer
does the same in JavaScript, and a test holds the two equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from busi_core.types import DecodedImage, FloatMap, Mask

FITS = ("pad", "squash")
SOURCES = ("grey", "colour")
INTERPOLATIONS = ("area", "bilinear")
FILTERS: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    # Sizes and limits are the usual first choices (OpenCV's manual); the papers that use them name none.
    "clahe": lambda grey: cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(grey),
    "median": lambda grey: cv2.medianBlur(grey, 3),
    "gaussian": lambda grey: cv2.GaussianBlur(grey, (3, 3), 0),
}
FINER = 4  # a moved heat map is kept this much finer than its grid, so that moving does not blur it
MASK_LEVEL = 128  # of 255, after averaging over areas: a pixel is lesion when at least half of it is


@dataclass(frozen=True)
class PreprocessSpec:
    """How pixels must be prepared for one checkpoint. Saved in its card.

    The first five have no defaults on purpose; the others do, so that cards from before them mean what they meant.

    Attributes:
        side: Height and width of the network's input, in pixels.
        fit: 'pad' keeps the aspect and fills the rest with black; 'squash' stretches to the square.
        channels: 1 for grey, 3 for grey repeated (encoders trained on RGB) or for colour.
        mean: Subtracted after scaling pixels to [0, 1].
        std: Divided by after the subtraction.
        source: 'grey', or 'colour' for a network that reads RGB.
        filters: Of `FILTERS`, applied in this order to the resized grey image.
        interpolation: 'area' averages when shrinking and is bilinear when enlarging; 'bilinear' always, as printed in
            some papers, with the nearest pixel for masks.
    """

    side: int
    fit: str
    channels: int
    mean: float
    std: float
    source: str = "grey"
    filters: tuple[str, ...] = ()
    interpolation: str = "area"

    def __post_init__(self) -> None:
        if self.side < 32 or self.side % 32:
            raise ValueError(f"side must be a multiple of 32, got {self.side}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {FITS}, got {self.fit!r}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if not self.std > 0:
            raise ValueError(f"std must be positive, got {self.std}")
        if self.source not in SOURCES or (self.source == "colour" and (self.channels != 3 or self.filters)):
            raise ValueError(f"colour needs three channels and no filter, got {self}")
        if not set(self.filters) <= set(FILTERS):
            raise ValueError(f"filters must be among {tuple(FILTERS)}, got {self.filters}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {INTERPOLATIONS}, got {self.interpolation!r}")


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
    """Resize (height, width) or (height, width, 3) uint8 to (side, side) or (side, side, 3) as `spec` says.

    Shrinking averages over areas, so that speckle does not alias, unless the recipe prints otherwise; enlarging is
    bilinear. No filter is applied here: `prepare_square` does that.
    """
    shrinks = _shrinks(pixels, spec)
    return _resize(pixels, spec, cv2.INTER_AREA if shrinks and spec.interpolation == "area" else cv2.INTER_LINEAR)


def fit_mask(mask: Mask, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize a reference mask (height, width) bool to (side, side) uint8, 0 or 1, for training.

    A pixel is lesion when at least half of it is; with bilinear images the nearest pixel decides, as printed.
    """
    if spec.interpolation == "bilinear":
        return _resize(mask.astype(np.uint8), spec, cv2.INTER_NEAREST)
    return np.asarray(fit_to_square(mask.astype(np.uint8) * 255, spec) >= MASK_LEVEL, np.uint8)


def prepare_square(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize as `fit_to_square`, then apply the filters: all that happens before numbers become floats."""
    square = fit_to_square(pixels, spec)
    if spec.filters:
        box = fit_box(pixels.shape[0], pixels.shape[1], spec)
        inside = np.ascontiguousarray(square[: box.height, : box.width])
        for name in spec.filters:
            inside = FILTERS[name](inside)
        square[: box.height, : box.width] = inside
    return square


def _shrinks(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> bool:
    box = fit_box(pixels.shape[0], pixels.shape[1], spec)
    return bool(box.height * box.width < pixels.shape[0] * pixels.shape[1])


def _resize(pixels: NDArray[np.uint8], spec: PreprocessSpec, method: int) -> NDArray[np.uint8]:
    box = fit_box(pixels.shape[0], pixels.shape[1], spec)
    square = np.zeros((spec.side, spec.side, *pixels.shape[2:]), np.uint8)
    square[: box.height, : box.width] = cv2.resize(pixels, (box.width, box.height), interpolation=method)
    return square


def to_planes(square: NDArray[np.uint8]) -> Tensor:
    """(side, side) or (side, side, 3) uint8 -> (1 or 3, side, side) uint8."""
    planes = torch.from_numpy(square)
    return planes[None] if planes.ndim == 2 else planes.permute(2, 0, 1).contiguous()


def normalise(square: Tensor, spec: PreprocessSpec) -> Tensor:
    """Scale (batch, 1 or channels, side, side) floats in [0, 1] to what the network expects, with all its channels."""
    return ((square - spec.mean) / spec.std).expand(-1, spec.channels, -1, -1)


def prepare(pixels: NDArray[np.uint8], spec: PreprocessSpec) -> tuple[Tensor, Box]:
    """Make the network's input from an image.

    Args:
        pixels: (height, width) grey, or (height, width, 3) where `spec.source` is 'colour'.
        spec: How.

    Returns:
        (1, channels, side, side) float32, and the box that the image fills in it.
    """
    if (pixels.ndim == 3) != (spec.source == "colour"):
        raise ValueError(f"the network reads {spec.source}, got pixels of shape {pixels.shape}")
    square = to_planes(prepare_square(pixels, spec)).float().div_(255)
    return normalise(square[None], spec).contiguous(), fit_box(pixels.shape[0], pixels.shape[1], spec)


def prepare_image(image: DecodedImage, spec: PreprocessSpec) -> tuple[Tensor, Box]:
    """As `prepare`, from the grey or the colours of a decoded image, whichever the network reads."""
    return prepare(image.rgb if spec.source == "colour" else image.grey, spec)


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
    """Put a coarse map (..., rows, columns) where its cells really look, on a grid four times as fine (or the input's).

    Args:
        values: On a grid that covers the square input.
        box: What the image fills of it.
        spec: How the input was prepared.
        offset_px: (rows, columns) in pixels of the input from a cell's own place to what it looks at
            (`explain.alignment.measure_offset`). Beyond the outermost cells their values go on.
    """
    finer = max(1, min(FINER, spec.side // max(values.shape[-2:])))
    rows, columns = (finer * count for count in values.shape[-2:])
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
