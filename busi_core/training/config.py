"""What a training run is made of; saved beside its checkpoint and in the card of the weights.

What only some recipes ask for has a default, which is the product's: a run from before a field was added resumes.
"""

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
        pasted_share: Share of a normal's showings in which another scan's lesion is pasted onto it (`training.paste`).
        class_weight: Weight of the class loss beside the mask loss.
        average_decay: Of the moving average of the weights; the average is what is kept.
        patience: Epochs without a better validation score before stopping, from the first lesion found on.
        precision: 'bf16' (autocast, on a device that calculates in it; fp32 elsewhere) or 'fp32'.
        seed: Of everything random.
        mask_loss, class_loss: By name, of `losses.MASK_LOSSES` and `losses.CLASS_LOSSES`.
        optimizer: 'adamw', or 'adam', whose weight decay is L2.
        schedule: Of the learning rate: 'one-cycle', 'constant', or 'exponential' (`loop.SCHEDULES`).
        augmentation: Of `augment.AUGMENTATIONS`.
        balance: Whether an epoch shows every class as often as the commonest, by repeating its scans.
        teachers: Model versions whose joint answer is learned from beside the truth; none of them may have seen the
            test part, and what taught them counts as having taught this one.
        teacher_share: Share of the loss that is about their answer.
        keeps: Whose epoch's weights are kept: 'best' by the validation part, or 'last', where nothing is chosen.
        trains: The part of the network that learns: 'all', or the name of a module whose neighbours stay as they are.
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
    mask_loss: str = "dice+bce"
    class_loss: str = "balanced"
    optimizer: str = "adamw"
    schedule: str = "one-cycle"
    augmentation: str = "ultrasound"
    balance: bool = False
    trains: str = "all"
    teachers: tuple[str, ...] = ()
    teacher_share: float = 0.5
    pasted_share: float = 0.0
    keeps: str = "best"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(f"epochs must be at least 1 and batch_size 2, got {self.epochs} and {self.batch_size}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.normal_repeats < 1:
            raise ValueError(f"normal_repeats must be at least 1, got {self.normal_repeats}")
        if self.optimizer not in ("adamw", "adam"):
            raise ValueError(f"optimizer must be adamw or adam, got {self.optimizer!r}")
        object.__setattr__(self, "teachers", tuple(self.teachers))  # the shell gives a list, and so does JSON
        if not 0 <= self.teacher_share <= 1:
            raise ValueError(f"teacher_share must lie in [0, 1], got {self.teacher_share}")
        if not 0 <= self.pasted_share <= 1:
            raise ValueError(f"pasted_share must lie in [0, 1], got {self.pasted_share}")
        if self.keeps not in ("best", "last"):
            raise ValueError(f"keeps must be best or last, got {self.keeps!r}")
        if self.precision not in ("bf16", "fp32"):
            raise ValueError(f"precision must be bf16 or fp32, got {self.precision!r}")
