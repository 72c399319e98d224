"""What an ultrasound scan may look like otherwise: position, gain, gamma, time-gain, speckle, blur, shadow, marks.

Random numbers come from torch's global generator alone, which draws a seed an image, so that a run is repeated by its
seed, resumed by its generator's state, and the same in one process or several.
"""

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

Augmentation: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

GEOMETRY = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.8, 1.3), shear=5),
    ]
)
BLUR = v2.GaussianBlur(5, sigma=(0.3, 1.2))
TURN_SHIFT_ZOOM = v2.Compose(  # recipes.unet_roi_segnet
    [v2.RandomHorizontalFlip(), v2.RandomAffine(degrees=20, translate=(0.2, 0.2), scale=(0.8, 1.2))]
)
FLIPS = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])  # tissue has no up


def augment(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Vary one sample.

    Args:
        image: (1, side, side) uint8.
        mask: (1, side, side) uint8, 0 or 1.

    Returns:
        (1, side, side) float32 in [0, 1], and the mask as float32.
    """
    if _chance(0.25):
        image = draw_marks(image)
    scan, truth = GEOMETRY(tv_tensors.Image(image), tv_tensors.Mask(mask))
    pixels = scan.as_subclass(Tensor).float() / 255
    side = pixels.shape[-1]
    pixels = pixels.pow(_uniform(0.7, 1.4))
    pixels = (pixels - 0.3) * _uniform(0.75, 1.3) + 0.3 + _uniform(-0.1, 0.1)
    if _chance(0.4):  # time-gain: depth is brighter or darker
        pixels = pixels * torch.linspace(_uniform(0.7, 1.2), _uniform(0.7, 1.2), side)[None, :, None]
    if _chance(0.2):  # shadow: a soft dark column
        columns = torch.arange(side) / side
        pixels = pixels * (
            1 - _uniform(0.3, 0.7) * torch.exp(-(((columns - _uniform(0, 1)) / _uniform(0.04, 0.1)) ** 2))
        )
    if _chance(0.3):
        pixels = BLUR(pixels)
    if _chance(0.4):  # speckle multiplies
        pixels = pixels * (1 + _uniform(0.02, 0.15) * torch.randn_like(pixels))
    return pixels.clamp(0, 1), truth.as_subclass(Tensor).float()


def leave(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """No augmentation: the sample as floats; shapes as in `augment`, with one plane or three."""
    return image.float() / 255, mask.float()


def turn_shift_zoom(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Flip, turn by up to 20 degrees, shift by up to a fifth, zoom by up to a fifth."""
    return _move(TURN_SHIFT_ZOOM, image, mask)


def flip_both_ways(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Flip left-right and up-down, each half of the time."""
    return _move(FLIPS, image, mask)


def _move(geometry: v2.Compose, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    scan, truth = geometry(tv_tensors.Image(image), tv_tensors.Mask(mask))
    return scan.as_subclass(Tensor).float() / 255, truth.as_subclass(Tensor).float()


AUGMENTATIONS: dict[str, Augmentation] = {
    "ultrasound": augment,
    "none": leave,
    "turn-shift-zoom": turn_shift_zoom,
    "flips": flip_both_ways,
}


def augment_by_seed(augmentation: Augmentation, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Vary one sample with random numbers of its own; torch's global generator stays as it was.

    Several processes that share a batch then vary each image as one process would.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        return augmentation(image, mask)
    finally:
        torch.set_rng_state(state)


def draw_marks(image: Tensor) -> Tensor:
    """Draw caliper crosses, a dotted line between them and sometimes text, so that marks carry no class.

    In BUSI calipers stand on benign scans three times as often as on malignant ones and never on normals.

    Args:
        image: (1, height, width) uint8; stays as it is.
    """
    canvas = image[0].numpy().copy()  # the sample itself stays as it is for the next epoch
    height, width = canvas.shape
    scale = max(1, round(max(height, width) / 256))  # as large on a whole scan as on the network's input
    grey = int(_uniform(150, 256))
    first, second = [(int(_uniform(0.1, 0.9) * width), int(_uniform(0.1, 0.9) * height)) for _ in range(2)]
    arm = scale * int(_uniform(2, 5))
    for column, row in (first, second):
        cv2.line(canvas, (column - arm, row), (column + arm, row), grey, scale)
        cv2.line(canvas, (column, row - arm), (column, row + arm), grey, scale)
    for step in np.linspace(0, 1, int(_uniform(10, 40))):
        column, row = (round(a + step * (b - a)) for a, b in zip(first, second, strict=True))
        canvas[row : row + scale, column : column + scale] = grey
    if _chance(0.4):
        letters = "".join(chr(int(_uniform(65, 91))) for _ in range(int(_uniform(2, 7))))
        place = (int(_uniform(0, 0.8) * width), int(_uniform(0.1, 1) * height))
        cv2.putText(canvas, letters, place, cv2.FONT_HERSHEY_SIMPLEX, scale * _uniform(0.3, 0.5), grey, scale)
    return torch.from_numpy(canvas)[None]


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability
