"""Grad-CAM without hooks (Selvaraju et al., arXiv:1610.02391), made while the network reads the scan.

The network hands out the features it classified, so only the part behind them is differentiated. Nothing in the
network changes; safe to call from many threads at once, which hooks on a shared network are not.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from busi_core.models.interface import Network, Outputs, lesion_logits

LESION = "lesion mask"  # what a heat map of the mask explains, beside the names of the classes


def explain_scan(
    network: Network, features: Sequence[Tensor], threshold: float | Callable[[Outputs], float]
) -> tuple[Outputs, list[Tensor], Tensor]:
    """Decode one image's features and explain each class and the mask in the same pass.

    Args:
        network: In eval mode, parameters frozen.
        features: Of `encode` for one image.
        threshold: Lesion probability; the heat map of the mask explains the pixels above it, or where there
            are none the most suspicious pixel. Where it depends on the outputs, a function of them.

    Returns:
        The outputs, one raw map (rows, columns) a class (empty without a class head), and the mask's raw map.
        Raw: the weighted sum of the features after ReLU, neither resized nor scaled.
    """
    if network.has_own_gradient:
        return _explain_by_own_gradient(network, features, threshold)
    with torch.enable_grad():
        explained = {len(features) - 1, network.mask_level % len(features)}
        features = [level.detach().requires_grad_(place in explained) for place, level in enumerate(features)]
        outputs = network.decode(features)
        class_maps = _explain_in_closed_form(network, outputs)
        if class_maps is None:
            scores: Sequence[Tensor] = [] if outputs.class_logits is None else list(outputs.class_logits[0])
            class_maps = [network.locate(raw_gradcam(score, features[-1]), features) for score in scores]
        lesion_score = _lesion_score(outputs.mask_logits, _cutoff(threshold, outputs))
        lesion_map = raw_gradcam(lesion_score, features[network.mask_level])
    return outputs, class_maps, lesion_map


def explain_classes(network: Network, features: Sequence[Tensor]) -> tuple[Outputs, list[Tensor]]:
    """As `explain_scan` without the map of the mask, for many scans: no pass back through the decoder.

    The class head looks at the deepest features and at a detached mask, so its maps need only the head again. Where
    the class is read from the mask itself they need the whole way, and this is `explain_scan`.
    """
    if network.class_from_mask:
        outputs, class_maps, _ = explain_scan(network, features, threshold=0.5)
        return outputs, class_maps
    with torch.no_grad():
        outputs = network.decode(features)
    return outputs, _explain_by_head(network, outputs, features)


def _explain_by_head(network: Network, outputs: Outputs, features: Sequence[Tensor]) -> list[Tensor]:
    """The map of each class, of a head that looks at the deepest features and at a detached mask."""
    class_maps = _explain_in_closed_form(network, outputs)
    if class_maps is not None:
        return class_maps
    with torch.enable_grad():
        deepest = outputs.features.detach().requires_grad_()
        logits = network.classify(deepest, outputs.mask_logits)
        scores: Sequence[Tensor] = [] if logits is None else list(logits[0])
        return [network.locate(raw_gradcam(score, deepest), features) for score in scores]


def _explain_in_closed_form(network: Network, outputs: Outputs) -> list[Tensor] | None:
    gradients = network.class_gradients(outputs.features)
    if gradients is None:
        return None
    return list(torch.einsum("kc,crw->krw", gradients, outputs.features[0].detach()).clamp(min=0))


def _explain_by_own_gradient(
    network: Network, features: Sequence[Tensor], threshold: float | Callable[[Outputs], float]
) -> tuple[Outputs, list[Tensor], Tensor]:
    """`explain_scan` where the network itself goes back through its decoder."""

    def seed(outputs: Outputs) -> Tensor:
        with torch.enable_grad():
            logits = outputs.mask_logits.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_lesion_score(logits, _cutoff(threshold, outputs)), logits)
        return gradient

    outputs, gradient = network.decode_and_return(features, seed)
    return outputs, _explain_by_head(network, outputs, features), _weigh(gradient, features[-1])


def raw_gradcam(score: Tensor, features: Tensor) -> Tensor:
    """ReLU of the features summed with the mean gradient of the score as weights: (rows, columns).

    Args:
        score: A scalar that depends on `features`.
        features: (1, channels, rows, columns), requiring a gradient.
    """
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
    return _weigh(gradient, features)


def relative(raw: Tensor) -> Tensor:
    """Scale a raw map so that its peak is 1; a map without evidence stays 0."""
    peak = raw.amax()
    return raw / peak if peak > 0 else raw


def lesion_pixels(mask_logits: Tensor, threshold: float) -> Tensor:
    """Which pixels a heat map of the mask explains: those from the cut-off on, or else the most suspicious one.

    Args:
        mask_logits: (1, pixel classes, side, side).
        threshold: Lesion probability; above 1 is above every pixel.

    Returns:
        (1, side, side) bool.
    """
    probabilities = lesion_logits(mask_logits.detach())[:, 0].sigmoid()
    return probabilities >= min(threshold, float(probabilities.amax()))


def _weigh(gradient: Tensor, features: Tensor) -> Tensor:
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * features.detach()).sum(dim=1).clamp(min=0)[0]


def _cutoff(threshold: float | Callable[[Outputs], float], outputs: Outputs) -> float:
    return threshold(outputs) if callable(threshold) else threshold


def _lesion_score(mask_logits: Tensor, threshold: float) -> Tensor:
    return lesion_logits(mask_logits)[:, 0][lesion_pixels(mask_logits, threshold)].sum()
