"""FCN-8s on VGG16 (Long et al., arXiv:1411.4038): scores at strides 8, 16 and 32, added from coarse to fine.

images -> VGG16 -> two convolutions in place of its dense layers -> scores x 2 + scores of pool4, x 2 + of pool3,
x 8 -> (batch, K, side, side)
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg16_bn

from busi_core.models.interface import Architecture, Network, Outputs
from busi_core.models.pixels import class_from_pixels, require_matching_classes

POOLS = (23, 33, 43)  # positions of pool3, pool4 and pool5 in torchvision's vgg16_bn
DENSE = 4096  # channels of the two convolutions that were VGG16's dense layers
DROPOUT = 0.5


class Fcn(Network):
    """Fully convolutional network, '8s'; heat maps are made at its deepest map, stride 32.

    Batch normalisation, which the paper of 2015 had not: without ImageNet weights it does not train otherwise. The
    first paper pads 100 px and crops; here convolutions pad to keep their size.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        require_matching_classes(architecture)
        self.class_from_mask = bool(architecture.image_classes)
        layers = vgg16_bn(weights=None).features
        layers[0] = nn.Conv2d(architecture.in_channels, 64, 3, padding=1)
        cuts = (0, *(place + 1 for place in POOLS))
        self.stages = nn.ModuleList(layers[start:end] for start, end in pairwise(cuts))
        self.dense = nn.Sequential(
            *(nn.Conv2d(512, DENSE, 7, padding=3), nn.BatchNorm2d(DENSE), nn.ReLU(inplace=True), nn.Dropout2d(DROPOUT)),
            *(nn.Conv2d(DENSE, DENSE, 1), nn.BatchNorm2d(DENSE), nn.ReLU(inplace=True), nn.Dropout2d(DROPOUT)),
        )
        classes = len(architecture.pixel_classes)
        self.scores = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in (256, 512, DENSE))

    def encode(self, images: Tensor) -> list[Tensor]:
        """Feature maps at strides 8, 16 and 32; the last is (batch, 4096, side / 32, side / 32)."""
        features: list[Tensor] = []
        for stage in self.stages:
            features.append(stage(features[-1] if features else images))
        return [*features[:-1], self.dense(features[-1])]

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """The three scores, added; the class from the pixels."""
        fine, middle, coarse = (score(level) for score, level in zip(self.scores, features, strict=True))
        mask_logits = _enlarge(_enlarge(_enlarge(coarse, 2) + middle, 2) + fine, 8)
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """The class read from the pixels; None where the card names no image classes."""
        del deepest
        return class_from_pixels(mask_logits) if self.class_from_mask else None


def _enlarge(scores: Tensor, factor: int) -> Tensor:
    """Bilinear, as the paper starts its transposed convolutions; here they stay so."""
    return functional.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
