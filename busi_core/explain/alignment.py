"""Where a cell of an encoder's feature map really looks, against where it would be drawn.

A cell of a stride-32 grid is drawn over the 32 x 32 pixels in its place. What it responds to may lie elsewhere: every
stride-2 convolution with symmetric padding looks half a pixel of its own input up and to the left, and weights that
were trained with TensorFlow's asymmetric padding add as much again. Over five strides that is about a whole cell, and
every heat map drawn without it is shifted down and to the right.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from busi_core.models.interface import Network

INNER_CELLS = 2  # a side of the block of middle cells that is measured; their fields are not cut by the border


def measure_offset(network: Network, inputs: Sequence[Tensor], *, index: int = -1) -> tuple[float, float]:
    """How far a middle cell's effective receptive field lies from the cell's own place.

    The centre of the squared gradient of a cell by the input (Luo et al., arXiv:1701.04128), median over the
    inputs and the middle cells.

    Args:
        network: In eval mode, on the CPU.
        inputs: Prepared scans, (1, channels, side, side) each.
        index: Which of the maps that `encode` returns; the deepest unless another is asked for.

    Returns:
        (rows, columns) in pixels of the network's input; negative is up and left.
    """
    offsets = [offset for images in inputs for offset in _offsets_of_middle_cells(network, images, index)]
    if not offsets:
        return 0.0, 0.0
    rows, columns = np.median(np.array(offsets), axis=0)
    return float(rows), float(columns)


def _offsets_of_middle_cells(network: Network, images: Tensor, index: int) -> list[tuple[float, float]]:
    side = images.shape[-1]
    inputs = images.clone().requires_grad_()
    with torch.enable_grad():
        features = network.encode(inputs)[index]
        grid = features.shape[-1]
        first = (grid - INNER_CELLS) // 2
        middle = range(first, first + INNER_CELLS)
        offsets = []
        for row in middle:
            for column in middle:
                (gradient,) = torch.autograd.grad(features[0, :, row, column].sum(), inputs, retain_graph=True)
                weight = gradient[0].square().sum(dim=0)
                if not weight.sum() > 0:  # a dead cell looks nowhere
                    continue
                weight = weight / weight.sum()
                places = torch.arange(side, dtype=weight.dtype) + 0.5
                cell = side / grid
                offsets.append(
                    (
                        float((weight.sum(dim=1) * places).sum()) - (row + 0.5) * cell,
                        float((weight.sum(dim=0) * places).sum()) - (column + 0.5) * cell,
                    )
                )
    return offsets
