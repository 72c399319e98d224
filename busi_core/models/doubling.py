"""A decoder block doubles the side of its map, each value four times, and convolves it 3 x 3: the same for less work.

Three rows of doubled pixels hold two rows of the small map, so this is a transposed convolution of it, 4 x 4 with
stride 2: 4 products a pixel and channel in place of 9, on the way back too, and no doubled map in memory.

`reading.py` reads on such blocks; `LesionNet` learns on them where that is faster.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def is_plain_decoder(decoder: Any, encoder: Any) -> bool:
    """Whether smp's decoder is five blocks of doubling, convolution, normalisation and ReLU twice, and nothing else."""
    blocks = decoder.blocks
    steps = [step for block in blocks for step in (block.conv1, block.conv2)]
    below = [encoder.out_channels[-1], *(block.conv2[0].out_channels for block in blocks[:-1])]
    skips = [*reversed(encoder.out_channels[1:-1]), 0]
    return (
        len(blocks) == len(encoder.out_channels) - 1 == 5
        and encoder.output_stride == 32
        and isinstance(decoder.center, nn.Identity)
        and all(block.interpolation_mode == "nearest" for block in blocks)
        and all(isinstance(block.attention1.attention, nn.Identity) for block in blocks)
        and all([type(part) for part in step] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] for step in steps)
        and [block.conv1[0].in_channels for block in blocks] == [b + s for b, s in zip(below, skips, strict=True)]
    )


def doubling_kernel(weight: Tensor) -> Tensor:
    """(out, in, 3, 3) to be used after doubling the side -> (in, out, 4, 4) to be used in its place, transposed."""
    rows, columns = weight.shape[:2]
    ones = torch.ones(1, 1, 2, 2, dtype=weight.dtype, device=weight.device)
    wide = functional.conv2d(weight.reshape(rows * columns, 1, 3, 3), ones, padding=1)
    return wide.reshape(rows, columns, 4, 4).flip(2, 3).transpose(0, 1)


class DoublingBlock(nn.Module):
    """A plain decoder block of smp's with the same weights under the same names.

    It learns on the transposed convolution on the CPU in fp32, where that is faster (docs/benchmarks.md), and else does
    as smp's block does, to the bit.
    """

    rearranges = True  # may be set to False, to compare

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = block.conv1, block.conv2

    def forward(self, below: Tensor, height: int, width: int, skip_connection: Tensor | None = None) -> Tensor:
        """(batch, channels, height / 2, width / 2) and a skip of the full size, or none -> the full size."""
        on_cpu_in_fp32 = not below.is_cuda and not torch.is_autocast_enabled("cpu")
        if self.rearranges and self.training and on_cpu_in_fp32:
            grown = self._grow(below, skip_connection)
        else:
            doubled = functional.interpolate(below, size=(height, width), mode="nearest")
            joined = doubled if skip_connection is None else torch.cat([doubled, skip_connection], dim=1)
            grown = self.conv1(joined)
        out: Tensor = self.conv2(grown)
        return out

    def _grow(self, below: Tensor, skip: Tensor | None) -> Tensor:
        convolution, norm, relu = self.conv1
        weight, channels = convolution.weight, below.shape[1]
        kernel = doubling_kernel(weight[:, :channels]).contiguous(memory_format=torch.channels_last)
        grown = functional.conv_transpose2d(below, kernel, convolution.bias, stride=2, padding=1)
        if skip is not None:
            beside = weight[:, channels:].contiguous(memory_format=torch.channels_last)
            grown = grown + functional.conv2d(skip, beside, padding=1)
        out: Tensor = relu(norm(grown))
        return out
