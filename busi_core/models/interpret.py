"""Outputs of a network -> Prediction: sigmoid, temperature, presence, and the padding cut off. The one place for it."""

from collections.abc import Mapping

import torch

from busi_core.imaging.preprocess import Box, crop_to_box
from busi_core.models.checkpoint import ModelCard
from busi_core.models.interface import Outputs, lesion_logits
from busi_core.types import Diagnosis, Prediction

LEAST_PRESENCE = 1e-6  # below it no pixel is lesion at any cut-off


def interpret(outputs: Outputs, box: Box, card: ModelCard) -> Prediction:
    """Read the outputs for one image, (1, ...) each.

    The lesion probability is kept at the model's side; `imaging.preprocess.upsample` takes it to the image.
    """
    lesion = crop_to_box(lesion_logits(outputs.mask_logits.detach().float()).sigmoid()[:, 0], box, card.preprocess)[0]
    probabilities = class_scores(outputs, card)
    lesion = lesion * presence(probabilities, card)
    return Prediction(lesion.clamp(0, 1).cpu().contiguous().numpy(), probabilities)


def presence(probabilities: Mapping[Diagnosis, float] | None, card: ModelCard) -> float:
    """The factor on each pixel's lesion probability: the chance of a lesion where the card weighs by it, else 1."""
    return 1 - probabilities[Diagnosis.NORMAL] if card.weighs_presence and probabilities else 1.0


def pixel_cutoff(probabilities: Mapping[Diagnosis, float] | None, card: ModelCard) -> float:
    """The lesion threshold on what the network says of a pixel alone, before it is weighed; may lie above 1."""
    return card.lesion_threshold / max(presence(probabilities, card), LEAST_PRESENCE)


def class_scores(outputs: Outputs, card: ModelCard) -> dict[Diagnosis, float] | None:
    """Of one image, their sum 1; None from a network without a class head."""
    if outputs.class_logits is None:
        return None
    scores = torch.softmax(outputs.class_logits.detach().double()[0] / card.temperature, dim=0)
    named = dict(zip(card.architecture.image_classes, scores.tolist(), strict=True))
    return {diagnosis: named.get(diagnosis.value, 0.0) for diagnosis in Diagnosis}
