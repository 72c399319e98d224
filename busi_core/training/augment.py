"""What an ultrasound scan may look like otherwise: position, gain, gamma, time-gain, speckle, blur, shadow, marks.

    images, masks, one seed an image --augmentation--> float images and masks on the device, varied all at once

Every image draws from a generator of its own, so what it becomes does not depend on its batch, on the device, or on
how many processes share the work; torch's global generator is left alone.
"""

import math
import random
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Augmentation: TypeAlias = Callable[[Tensor, Tensor, Tensor, torch.device], tuple[Tensor, Tensor]]
"""(batch, planes, side, side) uint8 images, (batch, 1, side, side) uint8 masks, (batch,) seeds, device ->
float32 images in [0, 1] and float32 masks on the device, same shapes."""

BLUR_RADIUS = 2  # pixels of a 5 x 5 kernel


class Chance(random.Random):
    """The random numbers of one image."""

    def happens(self, probability: float) -> bool:
        """True in that share of the calls."""
        return self.random() < probability

    def noise(self, *shape: int) -> Tensor:
        """Normal numbers of this shape."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.getrandbits(62)))


def augment(
    images: Tensor,
    masks: Tensor,
    seeds: Tensor,
    device: torch.device,
    *,
    zoom: tuple[float, float] = (0.8, 1.3),
    gamma: tuple[float, float] = (0.7, 1.4),
    contrast: tuple[float, float] = (0.75, 1.3),
) -> tuple[Tensor, Tensor]:
    """Vary a batch of scans; shapes as in `Augmentation`, one plane.

    Each is drawn on (a quarter), flipped, turned, moved, zoomed, sheared, and changed in gamma, gain and contrast; some
    get a time-gain, a shadow, a blur, speckle. `zoom`, `gamma` and `contrast` are factors, from and to.
    """
    chances = [Chance(int(seed)) for seed in seeds]
    side = images.shape[-1]
    marked = [draw_marks(image, c) if c.happens(0.25) else image for image, c in zip(images, chances, strict=True)]
    thetas = [move(c, flips=(0.5, 0), degrees=10, shift=0.08, zoom=zoom, shear_degrees=5) for c in chances]
    pixels, truth = _move_all(torch.stack(marked), masks, thetas, device)
    per_image = torch.tensor(
        [[c.uniform(*gamma), c.uniform(*contrast), c.uniform(-0.1, 0.1)] for c in chances], device=device
    )
    powers, factors, gains = per_image.T[..., None, None, None]
    pixels = (pixels.pow(powers) - 0.3) * factors + 0.3 + gains
    rows = torch.stack([_time_gain(c, side) if c.happens(0.4) else torch.ones(side) for c in chances])
    columns = torch.stack([_shadow(c, side) if c.happens(0.2) else torch.ones(side) for c in chances])
    pixels = pixels * rows.to(device)[:, None, :, None] * columns.to(device)[:, None, None, :]
    pixels = _blur(pixels, [c.uniform(0.3, 1.2) if c.happens(0.3) else 0.0 for c in chances])
    pixels = pixels * torch.stack([_speckle(c, side) for c in chances]).to(device)  # speckle multiplies
    return pixels.clamp(0, 1), truth


def leave(images: Tensor, masks: Tensor, seeds: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """No augmentation: the samples as floats."""
    del seeds
    return images.to(device).float() / 255, masks.to(device).float()


def turn_shift_zoom(images: Tensor, masks: Tensor, seeds: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flip, turn by up to 20 degrees, shift by up to a fifth, zoom by up to a fifth (`recipes.unet_roi_segnet`)."""
    thetas = [
        move(Chance(int(s)), flips=(0.5, 0), degrees=20, shift=0.2, zoom=(0.8, 1.2), shear_degrees=0) for s in seeds
    ]
    return _move_all(images, masks, thetas, device)


def flip_both_ways(images: Tensor, masks: Tensor, seeds: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flip left-right and up-down, each half of the time: tissue has no up."""
    thetas = [move(Chance(int(s)), flips=(0.5, 0.5), degrees=0, shift=0, zoom=(1, 1), shear_degrees=0) for s in seeds]
    return _move_all(images, masks, thetas, device)


AUGMENTATIONS: dict[str, Augmentation] = {
    "ultrasound": augment,
    "ultrasound-wide": partial(augment, zoom=(0.65, 1.6), gamma=(0.6, 1.7), contrast=(0.65, 1.5)),  # other machines
    "none": leave,
    "turn-shift-zoom": turn_shift_zoom,
    "flips": flip_both_ways,
}


def move(
    chance: Chance,
    *,
    flips: tuple[float, float],
    degrees: float,
    shift: float,
    zoom: tuple[float, float],
    shear_degrees: float,
) -> Tensor:
    """(2, 3) matrix from a place in the new square to its place in the old one, both from -1 to 1.

    Args:
        chance: Random numbers.
        flips: Probability of left-right and of up-down.
        degrees: Turned by up to so much either way.
        shift: Moved by up to this share of the side, along and across.
        zoom: Factor, from and to; above 1 the lesion grows.
        shear_degrees: Rows slide sideways by up to this angle.
    """
    flip_x, flip_y = (-1.0 if chance.happens(probability) else 1.0 for probability in flips)
    angle = math.radians(chance.uniform(-degrees, degrees))
    shear = math.tan(math.radians(chance.uniform(-shear_degrees, shear_degrees)))
    factor = chance.uniform(*zoom)
    right, down = (2 * chance.uniform(-shift, shift) for _ in range(2))
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    slide = torch.tensor([[1.0, shear], [0.0, 1.0]])
    matrix = torch.diag(torch.tensor([flip_x, flip_y])) @ turn @ slide / factor
    return torch.cat([matrix, -matrix @ torch.tensor([[right], [down]])], dim=1)


def _move_all(images: Tensor, masks: Tensor, thetas: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images bilinear, masks by the nearest pixel; black comes in from outside."""
    pixels, truth = images.to(device).float() / 255, masks.to(device).float()
    grid = functional.affine_grid(torch.stack(thetas).to(device), list(pixels.shape), align_corners=False)
    return (
        functional.grid_sample(pixels, grid, mode="bilinear", align_corners=False),
        functional.grid_sample(truth, grid, mode="nearest", align_corners=False),
    )


def _time_gain(chance: Chance, side: int) -> Tensor:
    """(side,) factors: depth is brighter or darker."""
    return torch.linspace(chance.uniform(0.7, 1.2), chance.uniform(0.7, 1.2), side)


def _shadow(chance: Chance, side: int) -> Tensor:
    """(side,) factors: a soft dark column."""
    depth, middle, width = chance.uniform(0.3, 0.7), chance.uniform(0, 1), chance.uniform(0.04, 0.1)
    return 1 - depth * torch.exp(-(((torch.arange(side) / side - middle) / width) ** 2))


def _speckle(chance: Chance, side: int) -> Tensor:
    """(1, side, side) factors around 1; exactly 1 for six images of ten."""
    if not chance.happens(0.4):
        return torch.ones(1, side, side)
    return 1 + chance.uniform(0.02, 0.15) * chance.noise(1, side, side)


def _blur(pixels: Tensor, sigmas: list[float]) -> Tensor:
    """Blur each image of (batch, 1, side, side) by a Gaussian of its own; 0 leaves it as it is."""
    places = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernels = torch.stack([torch.exp(-((places / max(sigma, 1e-3)) ** 2) / 2) for sigma in sigmas]).to(pixels)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    flat = functional.pad(pixels.transpose(0, 1), (BLUR_RADIUS,) * 4, mode="reflect")
    count = len(sigmas)
    flat = functional.conv2d(flat, kernels[:, None, :, None], groups=count)
    return functional.conv2d(flat, kernels[:, None, None, :], groups=count).transpose(0, 1)


def draw_marks(image: Tensor, chance: Chance) -> Tensor:
    """Draw caliper crosses, a dotted line between them and sometimes text, so that marks carry no class.

    In BUSI calipers stand on benign scans three times as often as on malignant ones and never on normals.

    Args:
        image: (1, height, width) uint8; stays as it is.
        chance: Random numbers.
    """
    canvas = image[0].numpy().copy()  # the sample itself stays as it is for the next epoch
    height, width = canvas.shape
    scale = max(1, round(max(height, width) / 256))  # as large on a whole scan as on the network's input
    grey = int(chance.uniform(150, 256))
    first, second = [(int(chance.uniform(0.1, 0.9) * width), int(chance.uniform(0.1, 0.9) * height)) for _ in range(2)]
    arm = scale * int(chance.uniform(2, 5))
    for column, row in (first, second):
        cv2.line(canvas, (column - arm, row), (column + arm, row), grey, scale)
        cv2.line(canvas, (column, row - arm), (column, row + arm), grey, scale)
    for step in np.linspace(0, 1, int(chance.uniform(10, 40))):
        column, row = (round(a + step * (b - a)) for a, b in zip(first, second, strict=True))
        canvas[row : row + scale, column : column + scale] = grey
    if chance.happens(0.4):
        letters = "".join(chr(int(chance.uniform(65, 91))) for _ in range(int(chance.uniform(2, 7))))
        place = (int(chance.uniform(0, 0.8) * width), int(chance.uniform(0.1, 1) * height))
        cv2.putText(canvas, letters, place, cv2.FONT_HERSHEY_SIMPLEX, scale * chance.uniform(0.3, 0.5), grey, scale)
    return torch.from_numpy(canvas)[None]
