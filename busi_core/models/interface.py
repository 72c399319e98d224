"""What every network offers and how one is named; the networks themselves stand beside this file.

    images (batch, channels, side, side) --encode--> feature maps --decode--> Outputs

The two halves are public because a heat map differentiates the second by the last feature map of the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

PADDINGS = ("symmetric", "same", "valid")
HEADS = ("lesion-aware", "global")
ATTENTIONS = ("none", "scse")
POOLINGS = ("max", "average")


class Outputs(NamedTuple):
    """What every network returns: always all three, heads always as logits."""

    mask_logits: Tensor  # (batch, K, side, side); K = 1 for lesion, or the recipe's pixel classes
    class_logits: Tensor | None  # (batch, C) in the order of the card's image classes; None without a class head
    features: Tensor  # (batch, channels, rows, columns), the feature map that heat maps are made from


class Network(nn.Module):
    """What training and the serving path ask of a network.

    Attributes:
        mask_level: Which of the feature maps the heat map of the mask is made from; class maps come from the last.
        class_from_mask: The class is read from the pixels' logits and not from the features themselves, so its
            heat map needs the way back through the mask.
        has_own_gradient: Nothing here can be differentiated by torch; `decode_and_return` goes the way back.
    """

    mask_level = -1
    class_from_mask = False
    has_own_gradient = False

    def encode(self, images: Tensor) -> list[Tensor]:
        """Feature maps of (batch, channels, side, side), finest first."""
        raise NotImplementedError

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """Heads on the feature maps; differentiable by the last of them."""
        raise NotImplementedError

    def decode_and_return(
        self, features: Sequence[Tensor], seed: Callable[[Outputs], Tensor]
    ) -> tuple[Outputs, Tensor]:
        """Decode one image's features and go back from the mask to the deepest of them, without torch's gradients.

        Args:
            features: Of `encode`.
            seed: From the outputs the gradient of a score by the mask logits, of their shape.

        Returns:
            The outputs, and the gradient of that score by the last feature map, of its shape.
        """
        raise NotImplementedError

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """Class logits alone, as `decode` gives them; differentiable by the last feature map."""
        raise NotImplementedError

    def class_gradients(self, deepest: Tensor) -> Tensor | None:
        """The gradient of each class logit by each channel of the last feature map, in the mean over its cells:
        (classes, channels); None where it has to be asked of torch."""
        del deepest
        return None

    def locate(self, raw_map: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Put a raw class map (rows, columns) onto a grid that covers the whole input.

        The same map, but for a network that classifies a part of the image.
        """
        del features
        return raw_map

    def forward(self, images: Tensor) -> Outputs:
        """Run a batch of prepared images, (batch, channels, side, side)."""
        return self.decode(self.encode(images))


@dataclass(frozen=True)
class Architecture:
    """Which network a checkpoint belongs to; saved in its card.

    The first six have no defaults on purpose. The others do, so that a card from before they existed still names the
    network that it was written for: a default means 'as it was before this field'.

    Attributes:
        name: As in `network.build_network`, which lists what it knows.
        encoder: Name in segmentation_models_pytorch; 'tu-...' are timm's; 'none' for networks drawn here.
        padding: Of the convolutions: 'symmetric'; 'same' as TensorFlow pads, for encoders whose first weights were
            trained so (timm's only); 'valid' none at all, as the first U-Net (plain U-Net only).
        in_channels: Of the prepared image.
        pixel_classes: Of the mask head. One is the lesion itself; several exclude each other, the first being what is
            no lesion.
        image_classes: In order; empty for a network that gives no class.
        head: What the class head of a 'unet' looks at: 'lesion-aware' the image and the lesion, 'global' the image.
        attention: In the decoder of a 'unet': 'scse' is channel and spatial squeeze-and-excitation.
        pooling: In the encoder of a 'unet': 'max', or 'average' in its place.
        filters: Channels of each level of a network drawn here, the bottleneck last.
        dropout: Rate of each of these levels, or of the class head alone; empty for the network's own.
        batch_norm: After each convolution of a network drawn here.
        class_filters: Channels of each level of the second stage of a 'roi'.
    """

    name: str
    encoder: str
    padding: str
    in_channels: int
    pixel_classes: tuple[str, ...]
    image_classes: tuple[str, ...]
    head: str = "lesion-aware"
    attention: str = "none"
    pooling: str = "max"
    filters: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()
    batch_norm: bool = False
    class_filters: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for known, value, field in (
            (PADDINGS, self.padding, "padding"),
            (HEADS, self.head, "head"),
            (ATTENTIONS, self.attention, "attention"),
            (POOLINGS, self.pooling, "pooling"),
        ):
            if value not in known:
                raise ValueError(f"{field} must be one of {known}, got {value!r}")
        if self.in_channels < 1 or not self.pixel_classes:
            raise ValueError(f"a network needs an input channel and a pixel class, got {self}")
        for names in (self.pixel_classes, self.image_classes):
            if len(set(names)) < len(names):
                raise ValueError(f"each class must be named once, got {names}")
        if any(width < 1 for width in (*self.filters, *self.class_filters)):
            raise ValueError(f"each level needs a channel, got {self.filters} and {self.class_filters}")
        if any(not 0 <= rate < 1 for rate in self.dropout):
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


def lesion_logits(mask_logits: Tensor) -> Tensor:
    """Log-odds of lesion against no lesion for each pixel: (batch, K, side, side) -> (batch, 1, side, side).

    One channel is that already. Several exclude each other: the sigmoid of what comes back is one minus the softmax
    of the first.
    """
    if mask_logits.shape[1] == 1:
        return mask_logits
    return torch.logsumexp(mask_logits[:, 1:], dim=1, keepdim=True) - mask_logits[:, :1]
