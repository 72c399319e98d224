"""What a training run is made of; saved beside its checkpoint and in the card of the weights."""

import math
from dataclasses import dataclass

from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.network import Architecture


@dataclass(frozen=True)
class TrainingConfig:
    """All that decides the weights, besides the data.

    Attributes:
        architecture: The network.
        preprocess: How pixels are prepared.
        start: 'imagenet' (the encoder's weights), 'random', or the model version to go on from.
        epochs: Passes over the training part.
        batch_size: Images a step.
        learning_rate: Peak, for the decoder and heads.
        encoder_rate: Factor on it for the encoder.
        weight_decay: Of AdamW.
        normal_repeats: How often an epoch shows each normal scan; they are few, and a false mask on one is the
            error a reader forgives least.
        class_weight: Weight of the class loss beside the mask loss.
        average_decay: Of the moving average of the weights; the average is what is kept.
        patience: Epochs without a better validation score before stopping.
        precision: 'bf16' (autocast) or 'fp32'.
        seed: Of everything random.
    """

    architecture: Architecture
    preprocess: PreprocessSpec
    start: str
    epochs: int
    batch_size: int
    learning_rate: float
    encoder_rate: float
    weight_decay: float
    normal_repeats: int
    class_weight: float
    average_decay: float
    patience: int
    precision: str
    seed: int

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(f"epochs must be at least 1 and batch_size 2, got {self.epochs} and {self.batch_size}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.normal_repeats < 1:
            raise ValueError(f"normal_repeats must be at least 1, got {self.normal_repeats}")
        if self.precision not in ("bf16", "fp32"):
            raise ValueError(f"precision must be bf16 or fp32, got {self.precision!r}")
