"""Where in a network an explanation can be made: its feature maps by name, and a private copy that hooks may hold."""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from busi_core.explain.catalogue import DEEPEST
from busi_core.models.interface import lesion_logits
from busi_core.models.network import LesionNet

DECODER = "decoder"
CLASS_HEAD, MASK_HEAD = "class", "mask"


@dataclass(frozen=True)
class Layer:
    """One feature map of a network.

    Attributes:
        name: 'deepest', 'encoder-4' and so on (a higher number is deeper), or 'decoder'.
        grid: (rows, columns) of its cells over the network's input.
        channels: How many findings it holds for each cell.
        index: Which of the maps that `encode` returns; None for the decoder's last.
        feeds_class: Whether the class is decided by it; the decoder's says nothing about a class.
    """

    name: str
    grid: tuple[int, int]
    channels: int
    index: int | None
    feeds_class: bool

    @property
    def title(self) -> str:
        """In plain words, with the grid."""
        rows, columns = self.grid
        if self.index is None:
            where = "Last decoder block, which draws the outline"
        elif self.name == DEEPEST:
            where = "Deepest stage, which decides the class"
        else:
            where = f"Encoder stage {self.index}"
        return f"{where} ({rows} × {columns})"


def list_layers(network: LesionNet, images: Tensor) -> list[Layer]:
    """Every feature map of a network at which a heat map says something, deepest first, the decoder's last.

    Args:
        network: In eval mode.
        images: (1, channels, side, side); only its size counts.
    """
    with torch.no_grad():
        features = network.encode(images)
        drawn = network.decoder(features)
    layers = []
    for index, feature in enumerate(features):
        # The first map is the image itself, and some encoders have an empty one at half its side.
        if feature.shape[1] and feature.shape[-1] < images.shape[-1]:
            name = DEEPEST if index == len(features) - 1 else f"encoder-{index}"
            layers.append(Layer(name, (feature.shape[-2], feature.shape[-1]), feature.shape[1], index, True))
    last = Layer(DECODER, (drawn.shape[-2], drawn.shape[-1]), drawn.shape[1], None, feeds_class=False)
    return [*reversed(layers), last]


class Watched(nn.Module):
    """A network for one explanation: modules of its own, which hooks may hold, on the frozen weights of the other.

    grad-cam's hooks race where a network is shared, and so does what it sets on the modules. Weights are only read,
    so they need no copy. The image must require a gradient, since no weight does.
    """

    def __init__(self, network: LesionNet, head: str) -> None:
        super().__init__()
        tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        self.network: LesionNet = copy.deepcopy(network, tensors)  # the memo hands out each tensor as it is
        self.head = head
        self.places = nn.ModuleList(nn.Identity() for _ in range(len(network.encoder.out_channels)))

    def place(self, layer: Layer) -> nn.Module:
        """The module whose output is the layer's feature map.

        An identity hands on the very tensor that the encoder goes on with, so a gradient hook on it gathers all paths.
        """
        return cast(nn.Module, self.network.decoder if layer.index is None else self.places[layer.index])

    def forward(self, images: Tensor) -> Tensor:
        """(batch, classes), or (batch, side, side) logits of lesion."""
        features = [place(feature) for place, feature in zip(self.places, self.network.encode(images), strict=True)]
        outputs = self.network.decode(features)
        logits = outputs.class_logits if self.head == CLASS_HEAD else lesion_logits(outputs.mask_logits)[:, 0]
        if logits is None:
            raise ValueError("this network has no class head; explain the mask")
        return logits
