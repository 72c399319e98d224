"""Grad-CAM without hooks (Selvaraju et al., arXiv:1610.02391), made while the network reads the scan.

The network hands out the features it classified, so only the part behind them is differentiated. Nothing in the
network changes; safe to call from many threads at once, which hooks on a shared network are not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from busi_core.models.network import Network, Outputs

LESION = "lesion mask"  # what a heat map of the mask explains, beside the names of the classes


def explain_scan(network: Network, images: Tensor, threshold: float) -> tuple[Outputs, list[Tensor], Tensor]:
    """Run one image and explain each class and the mask in the same pass.

    Args:
        network: In eval mode, parameters frozen.
        images: (1, channels, side, side), prepared.
        threshold: Lesion probability; the heat map of the mask explains the pixels above it, or where there
            are none the most suspicious pixel.

    Returns:
        The outputs, one raw map (rows, columns) a class (empty without a class head), and the mask's raw map.
        Raw: the weighted sum of the features after ReLU, neither resized nor scaled.
    """
    with torch.no_grad():
        features = network.encode(images)
    with torch.enable_grad():
        deepest = features[-1].detach().requires_grad_()
        outputs = network.decode([*features[:-1], deepest])
        scores: Sequence[Tensor] = [] if outputs.class_logits is None else list(outputs.class_logits[0])
        class_maps = [raw_gradcam(score, deepest) for score in scores]
        lesion_map = raw_gradcam(_lesion_score(outputs.mask_logits, threshold), deepest)
    return outputs, class_maps, lesion_map


def explain_classes(network: Network, images: Tensor) -> tuple[Outputs, list[Tensor]]:
    """As `explain_scan` without the map of the mask, for many scans: no pass back through the decoder.

    The class head looks at the deepest features and at a detached mask, so its maps need only the head again.
    """
    with torch.no_grad():
        outputs = network.decode(network.encode(images))
    with torch.enable_grad():
        deepest = outputs.features.detach().requires_grad_()
        logits = network.classify(deepest, outputs.mask_logits)
        scores: Sequence[Tensor] = [] if logits is None else list(logits[0])
        return outputs, [raw_gradcam(score, deepest) for score in scores]


def raw_gradcam(score: Tensor, features: Tensor) -> Tensor:
    """ReLU of the features summed with the mean gradient of the score as weights: (rows, columns).

    Args:
        score: A scalar that depends on `features`.
        features: (1, channels, rows, columns), requiring a gradient.
    """
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * features.detach()).sum(dim=1).clamp(min=0)[0]


def relative(raw: Tensor) -> Tensor:
    """Scale a raw map so that its peak is 1; a map without evidence stays 0."""
    peak = raw.amax()
    return raw / peak if peak > 0 else raw


def _lesion_score(mask_logits: Tensor, threshold: float) -> Tensor:
    logits = mask_logits.amax(dim=1)
    probabilities = logits.detach().sigmoid()
    chosen = probabilities >= min(threshold, float(probabilities.amax()))
    return logits[chosen].sum()
