"""The U-Net from scratch, as Ronneberger's figure draws it (arXiv:1505.04597, figure 1).

    (batch, in, side, side) -> levels of two 3 x 3 convolutions and a 2 x 2 maximum -> bottleneck
    -> transposed convolution, the level's own map beside it, two 3 x 3 convolutions -> (batch, filters[0], side, side)

Three of the published systems are this drawing with other numbers: channels, batch normalisation, dropout.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.models.interface import Architecture


def double_convolution(before: int, after: int, *, padding: int, batch_norm: bool, dropout: float) -> nn.Sequential:
    """3 x 3 convolution, ReLU, dropout, 3 x 3 convolution, ReLU; batch normalisation before each ReLU if asked for."""

    def convolution(channels: int) -> list[nn.Module]:
        layer: nn.Module = nn.Conv2d(channels, after, 3, padding=padding)
        return [layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True)] if batch_norm else [layer, nn.ReLU(inplace=True)]

    between: list[nn.Module] = [nn.Dropout2d(dropout)] if dropout else []
    return nn.Sequential(*convolution(before), *between, *convolution(after))


class UnetBody(nn.Module):
    """Contracting and expanding path; the head is `pixels.PixelNet`'s.

    With padding 'valid' no convolution pads: the input is mirrored beyond its border first, so wide that what comes
    back covers the image itself (the overlap-tile of figure 2, with one tile: 256 px need no more).

    Args:
        architecture: `filters` from the first level to the bottleneck; `dropout` as many, or none.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        filters = architecture.filters
        if len(filters) < 2:
            raise ValueError(f"a U-Net needs a level and a bottleneck, got filters {filters}")
        rates = architecture.dropout or (0.0,) * len(filters)
        if len(rates) != len(filters):
            raise ValueError(f"each level needs its dropout, got {rates} for {filters}")
        self.is_valid = architecture.padding == "valid"
        padding, norm = 0 if self.is_valid else 1, architecture.batch_norm

        def block(before: int, after: int, rate: float) -> nn.Sequential:
            return double_convolution(before, after, padding=padding, batch_norm=norm, dropout=rate)

        widths = (architecture.in_channels, *filters)
        self.down = nn.ModuleList(
            block(before, after, rate) for (before, after), rate in zip(pairwise(widths), rates, strict=True)
        )
        rising = list(pairwise(reversed(filters)))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(below, above, 2, stride=2) for below, above in rising)
        self.up = nn.ModuleList(
            block(2 * above, above, rate) for (_, above), rate in zip(rising, reversed(rates[:-1]), strict=True)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, in, side, side) -> (batch, filters[0], side, side); side a multiple of 2 ** levels."""
        side = images.shape[-1]
        current = self._mirror(images) if self.is_valid else images
        skips: list[Tensor] = []
        for level in self.down[:-1]:
            skips.append(level(current))
            current = self.pool(skips[-1])
        current = self.down[-1](current)
        for rise, level in zip(self.rise, self.up, strict=True):
            higher = rise(current)
            skip = _cut_middle(skips.pop(), higher.shape[-1])
            current = level(torch.cat([skip, higher], dim=1))
        return _cut_middle(current, side)

    def _mirror(self, images: Tensor) -> Tensor:
        """Mirror the border so far that every size on the way down is even and the output covers the image."""
        side, levels = images.shape[-1], len(self.rise)
        deepest = 1
        while _side_above(deepest, levels)[1] < side:
            deepest += 1
        wide = _side_above(deepest, levels)[0]
        before = (wide - side) // 2
        current = images
        while before or wide > current.shape[-1]:  # a mirror reaches no further than the image itself
            step = min(before, current.shape[-1] - 1)
            after = min(wide - current.shape[-1] - before, current.shape[-1] - 1)
            current = functional.pad(current, (step, after, step, after), mode="reflect")
            before -= step
        return current


def _side_above(deepest: int, levels: int) -> tuple[int, int]:
    """Sides of the input and of the output of a valid U-Net whose bottleneck comes out at this side."""
    into, out = deepest + 4, deepest
    for _ in range(levels):
        into, out = 2 * into + 4, 2 * out - 4
    return into, out


def _cut_middle(values: Tensor, side: int) -> Tensor:
    start = (values.shape[-1] - side) // 2
    return values[..., start : start + side, start : start + side]
