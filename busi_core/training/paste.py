"""Lesions of other scans pasted onto normal ones: more lesions, in more surroundings, than a data set has.

    positions and seeds of a batch --choose--> which of them get a lesion, and whose --paste--> images, masks

After 'Simple Copy-Paste' (Ghiasi et al., arXiv:2012.07177), at the lesion's own place, with a soft seam. A lesion comes
from a scan of the same data set, so that the pasted pixels do not tell the machine apart.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from busi_core.data.dataset import Samples
from busi_core.training.augment import Chance
from busi_core.types import Diagnosis

SEAM_SHARE = 1 / 32  # of the side: how far around the lesion its scan comes along, and how soft its edge is


class Pasting:
    """Decides, image by image, on a lesion to paste.

    Args:
        samples: Of the training part, with masks of one pixel class.
        share: Of the normals shown that get a lesion, 0 to 1.
    """

    def __init__(self, samples: Samples, share: float) -> None:
        self._samples, self._share = samples, share
        self._is_normal = samples.labels == list(Diagnosis).index(Diagnosis.NORMAL)
        self._lesions: dict[str, list[int]] = {}
        for index, id in enumerate(samples.ids):
            if not self._is_normal[index]:
                self._lesions.setdefault(_data_set(id), []).append(index)

    def choose(self, indices: Tensor, seeds: Tensor) -> Tensor:
        """(batch,) positions of the scans whose lesion is pasted, -1 for none; one seed an image decides."""
        return torch.tensor(
            [self._choose_one(int(index), int(seed)) for index, seed in zip(indices, seeds, strict=True)]
        )

    def labels(self, indices: Tensor, lesions: Tensor) -> Tensor:
        """(batch,) classes: of the pasted lesion where there is one."""
        return self._samples.labels[torch.where(lesions < 0, indices, lesions)]

    def paste(self, indices: Tensor, lesions: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, planes, side, side) images and (batch, 1, side, side) masks, both uint8; the samples stay."""
        images, masks = self._samples.images[indices], self._samples.masks[torch.where(lesions < 0, indices, lesions)]
        for place, lesion in enumerate(lesions.tolist()):
            if lesion >= 0:
                images[place] = _join(images[place], self._samples.images[lesion], masks[place])
        return images, masks

    def _choose_one(self, index: int, seed: int) -> int:
        chance = Chance(f"paste {seed}")  # other numbers than what the augmentation makes of the seed
        lesions = self._lesions.get(_data_set(self._samples.ids[index]), ())
        if not lesions or not self._is_normal[index] or not chance.happens(self._share):
            return -1
        return chance.choice(lesions)


def _join(under: Tensor, over: Tensor, mask: Tensor) -> Tensor:
    """`over` where the mask is, `under` elsewhere, and a soft seam between."""
    reach = mask.shape[-1] * SEAM_SHARE
    size = 2 * round(reach) + 1
    around = cv2.dilate(mask[0].numpy(), np.ones((size, size), np.uint8)).astype(np.float32)
    share = torch.from_numpy(cv2.GaussianBlur(around, (0, 0), reach))
    return (share * over + (1 - share) * under).round().to(torch.uint8)


def _data_set(id: str) -> str:
    return id.split("/")[0]
