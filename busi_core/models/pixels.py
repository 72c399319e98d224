"""Networks that sort pixels, and the class of an image read from its pixels.

    last feature map --1 x 1 convolution--> mask_logits (batch, K, side, side) --class_from_pixels--> class_logits

Such a network hands out its last feature map, so its heat maps are made 'at the last layer', as the paper of
`recipes.unet_gradcam` prints.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.models.interface import Architecture, Network, Outputs

CORE_SHARE = 0.01  # of the image's pixels: a lesion is there as surely as its surest hundredth; 1 % is a small lesion


def class_from_pixels(mask_logits: Tensor) -> Tensor:
    """Log-probabilities of (normal, then each lesion class), read from the pixels: (batch, K) for K pixel classes.

    A lesion is there with the mean probability of the surest hundredth of the pixels; of which class it is, the
    pixels vote, each with its probability of lesion. The exponentials sum to 1.

    Args:
        mask_logits: (batch, K, side, side); the first channel is what is no lesion.
    """
    flat = mask_logits.flatten(start_dim=2).softmax(dim=1)
    lesion = flat[:, 1:].sum(dim=1)
    core = lesion.topk(max(1, round(CORE_SHARE * lesion.shape[1])), dim=1).values.mean(dim=1, keepdim=True)
    votes = (flat[:, 1:] * lesion[:, None]).sum(dim=2)
    shares = votes / votes.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.cat([1 - core, core * shares], dim=1).clamp(min=1e-7).log()


def require_matching_classes(architecture: Architecture) -> None:
    """Refuse, with a ValueError, image classes that the pixels' classes cannot say."""
    pixels, images = architecture.pixel_classes, architecture.image_classes
    if images and (pixels[0], images[0]) != ("background", "normal"):
        raise ValueError(f"a class from pixels needs background and normal first, got {pixels} and {images}")
    if images and pixels[1:] != images[1:]:
        raise ValueError(f"pixel and image classes must be the same lesions, got {pixels} and {images}")


class PixelNet(Network):
    """A body that ends in one feature map, a 1 x 1 convolution on it, and the class from the pixels if asked for."""

    def __init__(self, architecture: Architecture, body: nn.Module, channels: int) -> None:
        super().__init__()
        require_matching_classes(architecture)
        self.body = body
        self.mask_head = nn.Conv2d(channels, len(architecture.pixel_classes), 1)
        self.class_from_mask = bool(architecture.image_classes)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The last feature map alone, behind the size of the input: [(0, 1, side, side), (batch, C, rows, columns)]."""
        return [images[:0, :1], self.body(images)]

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """The pixels' logits at the input's size, and the class from them."""
        size = (features[0].shape[-2], features[0].shape[-1])
        mask_logits = self.mask_head(features[-1])
        if mask_logits.shape[-2:] != size:
            mask_logits = functional.interpolate(mask_logits, size=size, mode="bilinear", align_corners=False)
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """The class read from the pixels; None where the card names no image classes."""
        del deepest
        return class_from_pixels(mask_logits) if self.class_from_mask else None
