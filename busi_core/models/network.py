"""The product's network, and the table of all networks by name.

`LesionNet`: a U-Net for the lesion mask with a class head that looks where the lesion may be.
"""

from collections.abc import Callable, Sequence
from typing import cast

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.errors import ModelUnavailableError
from busi_core.models.doubling import DoublingBlock, is_plain_decoder
from busi_core.models.encnet import EncBody
from busi_core.models.fcn import Fcn
from busi_core.models.interface import Architecture as Architecture
from busi_core.models.interface import Network as Network
from busi_core.models.interface import Outputs as Outputs
from busi_core.models.interface import lesion_logits
from busi_core.models.msgrap import MsgrapBody
from busi_core.models.pixels import PixelNet
from busi_core.models.pspnet import PspBody
from busi_core.models.roi import RoiNet
from busi_core.models.segnet import SegnetBody
from busi_core.models.unet import UnetBody

DROPOUT = 0.2  # before the linear class head


class LesionNet(Network):
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
            decoder_attention_type=None if architecture.attention == "none" else architecture.attention,
            **({"pad_type": "same"} if architecture.padding == "same" else {}),
        )
        self.encoder, self.decoder, self.mask_head = unet.encoder, unet.decoder, unet.segmentation_head
        if architecture.pooling == "average":
            _average_instead(self.encoder)
        self.has_plain_decoder = is_plain_decoder(self.decoder, self.encoder)
        if self.has_plain_decoder:
            self.decoder.blocks = nn.ModuleList(map(DoublingBlock, self.decoder.blocks))
        self.is_lesion_aware = architecture.head == "lesion-aware"
        channels = self.encoder.out_channels[-1] * (2 if self.is_lesion_aware else 1)
        rate = architecture.dropout[0] if architecture.dropout else DROPOUT
        classes = len(architecture.image_classes)
        self.class_head = nn.Sequential(nn.Dropout(rate), nn.Linear(channels, classes)) if classes else None

    def encode(self, images: Tensor) -> list[Tensor]:
        """Feature maps of (batch, channels, side, side), finest first; the last is (batch, C, side/32, side/32)."""
        return list(self.encoder(images))

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """Mask and class logits from the feature maps."""
        mask_logits = self.mask_head(self.decoder(list(features)))
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """Class logits from the deepest feature map and the mask; None without a class head."""
        return classify_pooled(self.class_head, self.is_lesion_aware, deepest, mask_logits)

    def class_gradients(self, deepest: Tensor) -> Tensor | None:
        """(classes, channels), since the head is linear; None without one."""
        return pooled_gradients(self.class_head, self.is_lesion_aware, deepest)


def classify_pooled(
    head: nn.Module | None, is_lesion_aware: bool, deepest: Tensor, mask_logits: Tensor
) -> Tensor | None:
    """Class logits by a head on pooled features; None without a head."""
    if head is None:
        return None
    seen = _pool_twice(deepest, mask_logits.detach()) if is_lesion_aware else deepest.mean(dim=(2, 3))
    logits: Tensor = head(seen)
    return logits


def pooled_gradients(head: nn.Sequential | None, is_lesion_aware: bool, deepest: Tensor) -> Tensor | None:
    """What `classify_pooled` makes of a channel, in the mean over the cells: each average has weights that sum to 1."""
    if head is None:
        return None
    weight, channels = cast(Tensor, head[-1].weight), deepest.shape[1]
    both = weight[:, :channels] + weight[:, channels:] if is_lesion_aware else weight
    return both / (deepest.shape[-2] * deepest.shape[-1])


def _pool_twice(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Average features over the image, and over where the lesion may be: (batch, 2 * channels)."""
    attention = functional.adaptive_avg_pool2d(
        lesion_logits(mask_logits).sigmoid(), (features.shape[-2], features.shape[-1])
    )
    weights = attention + 1e-3  # an empty mask falls back to the whole image
    weights = weights / weights.sum(dim=(2, 3), keepdim=True)
    return torch.cat([features.mean(dim=(2, 3)), (features * weights).sum(dim=(2, 3))], dim=1)


def _average_instead(encoder: nn.Module) -> None:
    """Put average pooling in the place of every maximum, in place."""
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(parent, name, average)


def _make_lesion_net(architecture: Architecture) -> Network:
    network = LesionNet(architecture)
    if architecture.encoder == "tu-mobilenet_edgetpu_100":
        # The trained network has no activation after its first block's expansion; timm 1.0 adds one.
        network.encoder.model.blocks[0][0].bn1.act = nn.Identity()
    return network


KNOWN: dict[str, Callable[[Architecture], Network]] = {
    "unet": _make_lesion_net,
    "plain-unet": lambda a: PixelNet(a, UnetBody(a), a.filters[0]),
    "segnet": lambda a: PixelNet(a, SegnetBody(a.in_channels), SegnetBody.channels),
    "fcn": Fcn,
    "pspnet": lambda a: PixelNet(a, PspBody(a.in_channels), PspBody.channels),
    "encnet": lambda a: PixelNet(a, EncBody(a.in_channels), EncBody.channels),
    "msgrap": lambda a: PixelNet(a, MsgrapBody(a), a.filters[0]),
    "roi": RoiNet,
}


def build_network(architecture: Architecture) -> Network:
    """Make the network that an architecture names, with random weights.

    Raises:
        ModelUnavailableError: Unknown architecture or encoder, or its parts do not fit each other.
    """
    if architecture.name not in KNOWN:
        raise ModelUnavailableError(
            f"The architecture {architecture.name!r} is unknown.",
            remedy=f"Known here: {', '.join(KNOWN)}. Update the program.",
        )
    try:
        return KNOWN[architecture.name](architecture)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:  # of smp and timm
        raise ModelUnavailableError(
            f"The network {architecture.name!r} on the encoder {architecture.encoder!r} cannot be built.",
            remedy="Name an encoder that smp knows, and levels that fit each other.",
        ) from error
