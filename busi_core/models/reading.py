"""The product's network rearranged for reading: the same answers to rounding, for a fifth less arithmetic.

    LesionNet, frozen --arrange_for_reading--> ReadingNet: encode, decode, classify as before

- A normalisation in eval mode is a scale and a shift, which the convolution before it can do.
- A decoder block that doubles its map and convolves it is one transposed convolution (doubling.py).

The explanations on request use the network as it was written.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.models.doubling import doubling_kernel
from busi_core.models.interface import Network, Outputs
from busi_core.models.network import LesionNet, classify_pooled, pooled_gradients

PROBE_SIDE = 64  # pixels of the noise on which both arrangements of an encoder must agree, in double precision
AGREEMENT = 1e-4  # of the largest value; the weights' own rounding stays below 1e-6


def arrange_for_reading(network: Network) -> Network:
    """The network in its fastest form here.

    Args:
        network: In eval mode, parameters frozen; stays as it is. Its heads are shared, weights of the rest are copied.

    Returns:
        A `ReadingNet`, or the network itself when it is not built as one can be.
    """
    return ReadingNet(network) if isinstance(network, LesionNet) and network.has_plain_decoder else network


class ReadingNet(Network):
    """A `LesionNet` with its normalisations and its doublings inside the convolutions; for eval mode alone."""

    def __init__(self, network: LesionNet) -> None:
        super().__init__()
        self.encoder = _fold_encoder(network.encoder)
        self.blocks = nn.ModuleList()
        below = network.encoder.out_channels[-1]
        for block in network.decoder.blocks:
            self.blocks.append(FoldedBlock(block, below))
            below = block.conv2[0].out_channels
        self.mask_head, self.class_head = network.mask_head, network.class_head
        self._is_lesion_aware = network.is_lesion_aware
        self.eval()

    def encode(self, images: Tensor) -> list[Tensor]:
        """As `LesionNet.encode`."""
        return list(self.encoder(images))

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """As `LesionNet.decode`."""
        current = features[-1]
        for block, skip in zip(self.blocks, [*reversed(features[1:-1]), None], strict=True):
            current = block(current, skip)
        mask_logits = self.mask_head(current)
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """As `LesionNet.classify`."""
        return classify_pooled(self.class_head, self._is_lesion_aware, deepest, mask_logits)

    def class_gradients(self, deepest: Tensor) -> Tensor | None:
        """As `LesionNet.class_gradients`."""
        return pooled_gradients(self.class_head, self._is_lesion_aware, deepest)


class FoldedBlock(nn.Module):
    """A decoder block: (1, below, s, s) and a skip (1, skip, 2s, 2s) or None -> (1, out, 2s, 2s)."""

    def __init__(self, block: Any, below: int) -> None:
        super().__init__()
        weight, first_bias = _folded(block.conv1[0], block.conv1[1])
        second, second_bias = _folded(block.conv2[0], block.conv2[1])
        kind = block.conv1[0].weight.dtype
        self.below = _parameter(doubling_kernel(weight[:, :below]), kind)
        self.beside = _parameter(weight[:, below:], kind) if weight.shape[1] > below else None
        self.first_bias = _parameter(first_bias, kind)
        self.second, self.second_bias = _parameter(second, kind), _parameter(second_bias, kind)

    def forward(self, current: Tensor, skip: Tensor | None) -> Tensor:
        grown = functional.conv_transpose2d(current, self.below, self.first_bias, stride=2, padding=1)
        if skip is not None and self.beside is not None:
            grown = grown + functional.conv2d(skip, self.beside, padding=1)
        return functional.conv2d(grown.relu(), self.second, self.second_bias, padding=1).relu()


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, in double precision, of a convolution and the normalisation after it in eval mode."""
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
    bias = 0 if convolution.bias is None else convolution.bias.double()
    return convolution.weight.double() * scale[:, None, None, None], norm.bias.double() + (bias - mean) * scale


def _parameter(values: Tensor, kind: torch.dtype) -> nn.Parameter:
    values = values.to(kind).contiguous()
    if values.ndim == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(values, requires_grad=False)


def _fold_encoder(encoder: nn.Module) -> nn.Module:
    """A copy with each normalisation folded into the convolution listed before it; or the encoder itself where that is
    no longer the same, as where a normalisation is listed behind a convolution that it does not follow."""
    folded = copy.deepcopy(encoder).eval().requires_grad_(False)
    for parent in list(folded.modules()):
        children = list(parent.named_children())
        for (_, first), (name, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and _is_foldable(second) and first.out_channels == second.num_features:
                weight, bias = _folded(first, cast(nn.BatchNorm2d, second))
                kind = first.weight.dtype
                first.weight, first.bias = _parameter(weight, kind), _parameter(bias, kind)
                setattr(parent, name, getattr(second, "act", nn.Identity()))  # timm's norms hold the activation
    return folded if _agree(encoder, folded) else encoder


def _is_foldable(module: nn.Module) -> Any:
    return isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats


@torch.no_grad()
def _agree(one: nn.Module, other: nn.Module) -> bool:
    first = next(module for module in one.modules() if isinstance(module, nn.Conv2d))
    noise = torch.randn(1, first.in_channels, PROBE_SIDE, PROBE_SIDE, generator=torch.Generator().manual_seed(0))
    found = [copy.deepcopy(encoder).double()(noise.to(first.weight.device).double()) for encoder in (one, other)]
    return all(bool((a - b).abs().amax() <= AGREEMENT * a.abs().amax()) for a, b in zip(*found, strict=True))
