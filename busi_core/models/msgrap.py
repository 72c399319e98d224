"""Channel attention with multiscale grid average pooling (Lee et al., IEEE TUFFC 2020, doi:10.1109/TUFFC.2020.2972573).

Squeeze-and-excitation weighs a channel by its mean over the image. Here the means are also taken over the cells of
finer grids, so a channel may count in one corner and not in another. The full text of that paper is not at hand: grids
and places of the modules are ours, `recipes.unet_gradcam` says so.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.models.interface import Architecture
from busi_core.models.unet import UnetBody

GRIDS = (1, 2, 4)  # cells a side
REDUCTION = 16  # of the channels between the two layers, as in squeeze-and-excitation (arXiv:1709.01507)


class GridAttention(nn.Module):
    """Weigh channels by their means over the cells of several grids; the grid (1,) is squeeze-and-excitation."""

    def __init__(self, channels: int, grids: tuple[int, ...] = GRIDS) -> None:
        super().__init__()
        self.grids = grids
        narrow = max(1, channels // REDUCTION)
        self.excite = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.ReLU(inplace=True), nn.Conv2d(narrow, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> the same."""
        size = (features.shape[-2], features.shape[-1])
        weights = [
            functional.interpolate(self.excite(functional.adaptive_avg_pool2d(features, grid)), size=size)
            for grid in self.grids
        ]
        return features * torch.stack(weights).mean(dim=0)


class MsgrapBody(UnetBody):
    """A U-Net with such a module after every level of both paths."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        for levels, widths in ((self.down, architecture.filters), (self.up, architecture.filters[-2::-1])):
            for level, width in zip(levels, widths, strict=True):
                level.append(GridAttention(width))  # type: ignore[operator]
