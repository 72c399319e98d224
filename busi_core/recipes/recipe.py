"""What a recipe is: one published system as numbers, and where it must differ."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from busi_core.training.config import TrainingConfig

LESION_CLASSES = ("background", "benign", "malignant")  # of pixels
IMAGE_CLASSES = ("normal", "benign", "malignant")


@dataclass(frozen=True)
class Recipe:
    """One system of one paper, or the product's own.

    Attributes:
        name: As in `busi train --recipe NAME`.
        paper: Number of its text in the folder of papers; empty for the product.
        title: Of the paper.
        summary: The system in one line.
        stages: What is trained, one after the other, each going on from the weights before; most have one.
        stage_shares: Share of the training scans that each stage learns from; their sum is 1.
        data_sets: 'busi', 'bus-bra', or 'bcss' for tissue.
        printed: Figures as printed, by our name of the same metric; in [0, 1].
        weighs_presence: As in the card of its versions.
        printed_start: 'random', or 'ImageNet' where the paper starts there and no such weights are at hand.
    """

    name: str
    paper: str
    title: str
    summary: str
    stages: tuple[TrainingConfig, ...]
    data_sets: tuple[str, ...]
    printed: Mapping[str, float]
    printed_start: str
    stage_shares: tuple[float, ...] = (1.0,)
    weighs_presence: bool = False

    def __post_init__(self) -> None:
        if not self.stages or len(self.stages) != len(self.stage_shares):
            raise ValueError(f"each stage needs its share of the scans, got {self.stage_shares}")
        if len({(stage.architecture, stage.preprocess) for stage in self.stages}) > 1:
            raise ValueError("all stages must train one network on one input")

    @property
    def final(self) -> TrainingConfig:
        """The last stage: its network and input are the version's."""
        return self.stages[-1]

    @property
    def is_tissue(self) -> bool:
        """Whether it reads stained tissue and never a scan."""
        return "bcss" in self.data_sets

    def scaled(
        self,
        *,
        epochs: int | None = None,
        size: int | None = None,
        precision: str | None = None,
        seed: int | None = None,
    ) -> "Recipe":
        """The same recipe under a budget: at most so many epochs a stage, another side, precision or seed."""
        stages = []
        for stage in self.stages:
            side = size or stage.preprocess.side
            stages.append(
                replace(
                    stage,
                    preprocess=replace(stage.preprocess, side=side),
                    epochs=min(stage.epochs, epochs or stage.epochs),
                    precision=precision or stage.precision,
                    seed=stage.seed if seed is None else seed,
                )
            )
        return replace(self, stages=tuple(stages))
