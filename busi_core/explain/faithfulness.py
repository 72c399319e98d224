"""Does a heat map mean anything? Asked once of a model version, on many scans.

    deletion: blur the scan where the map is hottest first; a map that means something makes the score fall fast
    insertion: start from the blurred scan and bring back the hottest parts first; the score should rise fast
    sanity: give the network's last layers random weights; a map that stays the same never looked at them

Each is held against the same number of random orders of the same cells: only the difference says something.

References:
    Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", BMVC 2018,
        arXiv:1806.07421 (deletion and insertion).
    Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, arXiv:1810.03292.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from busi_core.models.network import LesionNet, Network

Curve: TypeAlias = NDArray[np.float64]  # (steps + 1,) score of a class, from untouched to wholly changed
Score: TypeAlias = Callable[[Tensor], Tensor]  # images (batch, channels, side, side) -> (batch,) score of one class

CELLS = 16  # a side: each cell of the order is 16 px of a 256 px input, half a cell of the heat map's own grid
STEPS = 16
BLUR = v2.GaussianBlur(63, sigma=16.0)  # leaves brightness, takes away every structure


def order_cells(evidence: Tensor, generator: torch.Generator) -> Tensor:
    """Cells from the hottest to the coldest; those that are equally hot in a random order.

    Args:
        evidence: (rows, columns), covering the network's square input.
        generator: Of the random order; a constant map is ordered by it alone.

    Returns:
        (CELLS * CELLS,) int64, a cell as row * CELLS + column.
    """
    cells = functional.interpolate(evidence[None, None].float(), (CELLS, CELLS), mode="bilinear", antialias=True)
    shuffled = torch.randperm(CELLS * CELLS, generator=generator)
    return shuffled[cells.flatten()[shuffled].argsort(descending=True, stable=True)]


def deletion_curve(score: Score, image: Tensor, order: Tensor) -> Curve:
    """The score while more and more cells are blurred, in this order; (1, channels, side, side) in."""
    return _walk(score, image, BLUR(image), order)


def insertion_curve(score: Score, image: Tensor, order: Tensor) -> Curve:
    """The score while more and more cells of the blurred image get their detail back, in this order."""
    return _walk(score, BLUR(image), image, order)


def area_under(curve: Curve) -> float:
    """Mean height of a curve over the share of changed cells, by trapezes, in [0, 1]."""
    return float(np.trapezoid(curve, dx=1 / (curve.size - 1)))


def randomise_head(network: Network, generator: torch.Generator) -> None:
    """Give the class head random weights as large as its own, in place: what it had learned is gone."""
    if not isinstance(network, LesionNet) or network.class_head is None:
        raise ValueError("the network has no class head")
    for layer in network.class_head.modules():
        if isinstance(layer, nn.Linear):
            spread = float(layer.weight.std())
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * spread)


def _walk(score: Score, start: Tensor, end: Tensor, order: Tensor) -> Curve:
    side = start.shape[-1]
    images = []
    for step in range(STEPS + 1):
        cells = torch.zeros(CELLS * CELLS)
        cells[order[: round(step * order.numel() / STEPS)]] = 1
        share = functional.interpolate(cells.view(1, 1, CELLS, CELLS), (side, side), mode="nearest")
        images.append(start * (1 - share) + end * share)
    with torch.no_grad():
        return score(torch.cat(images)).double().numpy()
