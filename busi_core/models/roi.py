"""Two stages as one network: a U-Net finds the region, SegNet's encoder says what it is (recipe unet-roi-segnet).

    images --segmenter--> mask_logits --region_of--> boxes --cut_out--> regions --classifier--> class_logits

An empty mask is a normal breast: nothing is cut out, and the class says so. The class comes from the region alone, so
its heat map is laid back where the region was cut (`locate`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.models.interface import Architecture, Network, Outputs
from busi_core.models.pixels import PixelNet
from busi_core.models.segnet import SegnetEncoder
from busi_core.models.unet import UnetBody

MARGIN = 0.1  # of the region's size on each side: the border of a lesion says much about it (we chose)
CERTAIN = 20.0  # a logit: the mask alone decides between normal and not
IMAGE_CLASSES = ("normal", "benign", "malignant")


def regions_of(mask_logits: Tensor) -> Tensor:
    """The box around each predicted mask, with its margin: (batch, 4) as left, top, right, bottom in [0, 1].

    All zero where no pixel reaches a probability of 0.5.
    """
    found = mask_logits.detach()[:, 0] > 0
    left, right = _ends(found.any(dim=1))
    top, bottom = _ends(found.any(dim=2))
    across, down = MARGIN * (right - left), MARGIN * (bottom - top)
    boxes = torch.stack([left - across, top - down, right + across, bottom + down], dim=1).clamp(0, 1)
    return boxes * found.flatten(start_dim=1).any(dim=1, keepdim=True)


def _ends(hits: Tensor) -> tuple[Tensor, Tensor]:
    """Where the hits of each row of (batch, length) begin and end, in [0, 1]; without waiting for a GPU."""
    length = hits.shape[1]
    first = hits.float().argmax(dim=1)
    last = length - hits.flip(1).float().argmax(dim=1)
    return first / length, last / length


def cut_out(images: Tensor, boxes: Tensor) -> Tensor:
    """Each box of its image, stretched to the image's size, bilinear; an empty box gives its top left corner."""
    left, top, right, bottom = boxes.to(images).unbind(dim=1)
    zero = torch.zeros_like(left)
    theta = torch.stack(
        [
            torch.stack([right - left, zero, left + right - 1], dim=1),
            torch.stack([zero, bottom - top, top + bottom - 1], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


class RoiNet(Network):
    """The two stages. `features` are the segmenter's last map, the boxes, and the classifier's last map."""

    mask_level = 1

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if architecture.image_classes != IMAGE_CLASSES:
            raise ValueError(f"the two stages sort into {IMAGE_CLASSES}, got {architecture.image_classes}")
        filters, rate = architecture.class_filters, architecture.dropout[0] if architecture.dropout else 0.0
        plain = Architecture(
            "plain-unet", "none", "symmetric", architecture.in_channels, ("lesion",), (), filters=architecture.filters
        )
        self.segmenter = PixelNet(plain, UnetBody(plain), architecture.filters[0])
        self.classifier = nn.ModuleDict(
            {
                "encoder": SegnetEncoder(architecture.in_channels, filters, rate),
                "head": nn.Linear(filters[-1], len(IMAGE_CLASSES) - 1),
            }
        )

    def encode(self, images: Tensor) -> list[Tensor]:
        """The segmenter's maps, the boxes (batch, 4), the classifier's map of what they cut out."""
        maps = self.segmenter.encode(images)
        boxes = regions_of(self.segmenter.decode(maps).mask_logits)
        return [*maps, boxes, self.classifier["encoder"](cut_out(images, boxes))]

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """Mask logits from the first stage, class logits from the second."""
        mask_logits = self.segmenter.decode(features[:2]).mask_logits
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """Logits of normal, benign, malignant; normal exactly where the mask is empty."""
        lesions: Tensor = self.classifier["head"](deepest.mean(dim=(2, 3)))
        is_empty = ~(mask_logits.detach() > 0).flatten(start_dim=1).any(dim=1, keepdim=True)
        return torch.cat([torch.where(is_empty, CERTAIN, -CERTAIN).to(lesions), lesions], dim=1)

    def locate(self, raw_map: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Lay the map of the region back onto the whole image, nearest; nothing outside, nothing for an empty box."""
        rows, columns = raw_map.shape
        side = max(rows, columns) * 4  # four cells of the image's grid to one of the region's: it is smaller than that
        whole = raw_map.new_zeros(side, side)
        left, top, right, bottom = (round(float(edge) * side) for edge in features[-2][0])
        if right > left and bottom > top:
            region = functional.interpolate(raw_map[None, None], size=(bottom - top, right - left), mode="nearest")
            whole[top:bottom, left:right] = region[0, 0]
        return whole
