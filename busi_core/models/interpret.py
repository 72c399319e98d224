"""Outputs of a network -> Prediction: sigmoid, temperature, and the padding cut off. The one place for it."""

import torch

from busi_core.imaging.preprocess import Box, crop_to_box
from busi_core.models.checkpoint import ModelCard
from busi_core.models.interface import Outputs, lesion_logits
from busi_core.types import Diagnosis, Prediction


def interpret(outputs: Outputs, box: Box, card: ModelCard) -> Prediction:
    """Read the outputs for one image, (1, ...) each.

    The lesion probability is kept at the model's side; `imaging.preprocess.upsample` takes it to the image.
    """
    lesion = crop_to_box(lesion_logits(outputs.mask_logits.detach().float()).sigmoid()[:, 0], box, card.preprocess)[0]
    probabilities = None
    if outputs.class_logits is not None:
        scores = torch.softmax(outputs.class_logits.detach().double()[0] / card.temperature, dim=0)
        named = dict(zip(card.architecture.image_classes, scores.tolist(), strict=True))
        probabilities = {diagnosis: named.get(diagnosis.value, 0.0) for diagnosis in Diagnosis}
    return Prediction(lesion.clamp(0, 1).cpu().contiguous().numpy(), probabilities)
