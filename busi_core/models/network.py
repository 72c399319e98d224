"""The product's network: a U-Net for the lesion mask with a class head that looks where the lesion may be.

    images (batch, channels, side, side) --encode--> feature maps --decode--> Outputs

The two halves are public because a heat map differentiates the second by the last feature map of the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.errors import ModelUnavailableError

DROPOUT = 0.2  # before the linear class head


class Outputs(NamedTuple):
    """What every network returns: always all three, heads always as logits."""

    mask_logits: Tensor  # (batch, K, side, side); K = 1 for lesion, or the recipe's pixel classes
    class_logits: Tensor | None  # (batch, C) in the order of the card's image classes; None without a class head
    features: Tensor  # (batch, channels, rows, columns), the last feature map of the encoder


class Network(Protocol):
    """What the serving path asks of a network."""

    def encode(self, images: Tensor) -> list[Tensor]:
        """Feature maps of (batch, channels, side, side), finest first."""
        ...

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """Heads on the feature maps; differentiable by the last of them."""
        ...

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """Class logits alone, as `decode` gives them; differentiable by the last feature map."""
        ...


@dataclass(frozen=True)
class Architecture:
    """Which network a checkpoint belongs to; saved in its card, has no defaults on purpose.

    Attributes:
        name: 'unet', the only one here so far; `build_network` lists what it knows.
        encoder: Name in segmentation_models_pytorch; 'tu-...' are timm's.
        padding: Of the encoder's convolutions: 'symmetric', or 'same' as TensorFlow pads, for encoders whose first
            weights were trained so (timm's only).
        in_channels: Of the prepared image.
        pixel_classes: Of the mask head, without background.
        image_classes: Of the class head, in order; empty for none.
    """

    name: str
    encoder: str
    padding: str
    in_channels: int
    pixel_classes: tuple[str, ...]
    image_classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.padding not in ("symmetric", "same"):
            raise ValueError(f"padding must be symmetric or same, got {self.padding!r}")
        if self.in_channels < 1 or not self.pixel_classes:
            raise ValueError(f"a network needs an input channel and a pixel class, got {self}")
        for names in (self.pixel_classes, self.image_classes):
            if len(set(names)) < len(names):
                raise ValueError(f"each class must be named once, got {names}")


class LesionNet(nn.Module):
    """U-Net (Ronneberger et al., arXiv:1505.04597) with a lesion-aware class head.

    The class head sees two averages of the deepest features: over the whole image, and weighted by the
    predicted lesion probability. The mask is detached there: the class loss does not move the mask, and a
    heat map of a class is about the features alone.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        unet = smp.Unet(
            architecture.encoder,
            encoder_weights=None,
            in_channels=architecture.in_channels,
            classes=len(architecture.pixel_classes),
            **({"pad_type": "same"} if architecture.padding == "same" else {}),
        )
        self.encoder, self.decoder, self.mask_head = unet.encoder, unet.decoder, unet.segmentation_head
        channels = self.encoder.out_channels[-1]
        classes = len(architecture.image_classes)
        self.class_head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(2 * channels, classes)) if classes else None

    def encode(self, images: Tensor) -> list[Tensor]:
        """Feature maps of (batch, channels, side, side), finest first; the last is (batch, C, side/32, side/32)."""
        return list(self.encoder(images))

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """Mask and class logits from the feature maps."""
        mask_logits = self.mask_head(self.decoder(list(features)))
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """Class logits from the deepest feature map and the mask; None without a class head."""
        if self.class_head is None:
            return None
        logits: Tensor = self.class_head(_pool_twice(deepest, mask_logits.detach()))
        return logits

    def forward(self, images: Tensor) -> Outputs:
        """Run a batch of prepared images, (batch, channels, side, side)."""
        return self.decode(self.encode(images))


def _pool_twice(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Average features over the image, and over where the lesion may be: (batch, 2 * channels)."""
    attention = functional.adaptive_avg_pool2d(
        mask_logits.sigmoid().amax(dim=1, keepdim=True), (features.shape[-2], features.shape[-1])
    )
    weights = attention + 1e-3  # an empty mask falls back to the whole image
    weights = weights / weights.sum(dim=(2, 3), keepdim=True)
    return torch.cat([features.mean(dim=(2, 3)), (features * weights).sum(dim=(2, 3))], dim=1)


def build_network(architecture: Architecture) -> LesionNet:
    """Make the network that an architecture names, with random weights.

    Raises:
        ModelUnavailableError: Unknown architecture or encoder.
    """
    if architecture.name != "unet":
        raise ModelUnavailableError(
            f"The architecture {architecture.name!r} is unknown.", remedy="Known here: 'unet'. Update the program."
        )
    try:
        network = LesionNet(architecture)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:  # of smp and timm
        raise ModelUnavailableError(
            f"The encoder {architecture.encoder!r} cannot be built.", remedy="Name an encoder that smp knows."
        ) from error
    if architecture.encoder == "tu-mobilenet_edgetpu_100":
        # The trained network has no activation after its first block's expansion; timm 1.0 adds one.
        network.encoder.model.blocks[0][0].bn1.act = nn.Identity()
    return network
