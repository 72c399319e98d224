"""Losses on the mask and on the class, by the names that recipes use; the parts come from smp and torch."""

from collections.abc import Callable, Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.nn import functional

from busi_core.models.interface import Outputs

LABEL_SMOOTHING = 0.05


def mask_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice of each image, averaged, plus binary cross-entropy.

    Dice per image rather than per batch, and smoothed by one pixel, so that a normal breast counts: any
    lesion probability on it costs (Milletari et al., V-Net, arXiv:1606.04797; smp.losses).

    Args:
        mask_logits: (batch, 1, side, side).
        masks: (batch, 1, side, side) floats, 0 or 1.
    """
    dice: Tensor = smp.losses._functional.soft_dice_score(mask_logits.sigmoid(), masks, smooth=1.0, dims=(1, 2, 3))
    return (1 - dice).mean() + functional.binary_cross_entropy_with_logits(mask_logits, masks)


def class_loss(class_logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy weighted by class, with label smoothing, for (batch, C) logits and (batch,) columns.

    As torch's `cross_entropy` with both, which waits for a GPU there, so that a step could not be recorded.
    """
    logs = class_logits.log_softmax(dim=1)
    of_labels = class_weights[labels]
    hits = of_labels * logs.gather(1, labels[:, None])[:, 0]
    spread = (logs * class_weights).mean(dim=1)
    return -((1 - LABEL_SMOOTHING) * hits + LABEL_SMOOTHING * spread).sum() / of_labels.sum()


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,) weights inverse to the square root of the counts, averaging 1 over the samples.

    The square root lies between no weight (the rare class is missed) and full balance (it is over-called).
    """
    counts = torch.bincount(labels, minlength=classes).float()
    weights = counts.clamp(min=1).rsqrt()
    return weights * len(labels) / (weights * counts).sum()


def plain_mask_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy of each pixel, averaged; shapes as in `mask_loss`."""
    return functional.binary_cross_entropy_with_logits(mask_logits, masks)


def pixel_class_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of each pixel over (batch, K, side, side) logits; (batch, 1, ...) masks number the classes."""
    return functional.cross_entropy(mask_logits, masks[:, 0].long())


def plain_class_loss(class_logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy without weights and without smoothing."""
    del class_weights
    return functional.cross_entropy(class_logits, labels)


def lesion_class_loss(class_logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy of benign against malignant, over the lesions whose region was found; 0 where none was.

    For a network whose mask alone decides on 'normal': the first logit is negative where a region was found. Over two
    classes this is binary cross-entropy.
    """
    del class_weights
    found = ((class_logits[:, 0] < 0) & (labels > 0)).float()
    losses = functional.cross_entropy(class_logits[:, 1:], (labels - 1).clamp(min=0), reduction="none")
    return (found * losses).sum() / found.sum().clamp(min=1)


def imitation_loss(outputs: Outputs, answers: Sequence[Outputs], class_weight: float) -> Tensor:
    """How far an answer lies from what several teachers say together (Hinton et al., arXiv:1503.02531).

    Cross-entropy of each pixel against the teachers' mean lesion probability, plus `class_weight` times that of the
    class against their mean class probabilities. Least where both are equal, also where the teachers are in doubt.

    Args:
        outputs: Of the network that learns; one pixel class.
        answers: Of the teachers, on the same images.
        class_weight: As in `TrainingConfig`.
    """
    masks = torch.stack([answer.mask_logits.float().sigmoid() for answer in answers]).mean(dim=0)
    loss = functional.binary_cross_entropy_with_logits(outputs.mask_logits.float(), masks)
    classes = [answer.class_logits.float().softmax(dim=1) for answer in answers if answer.class_logits is not None]
    if classes and class_weight and outputs.class_logits is not None:
        expected = torch.stack(classes).mean(dim=0)
        loss = loss + class_weight * functional.cross_entropy(outputs.class_logits.float(), expected)
    return loss


MASK_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice+bce": mask_loss,
    "bce": plain_mask_loss,
    "cross-entropy": pixel_class_loss,
}
CLASS_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "balanced": class_loss,
    "plain": plain_class_loss,
    "lesions": lesion_class_loss,
}
