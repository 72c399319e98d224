"""A second opinion: where one network is in doubt, others read the scan too, and the majority decides.

    prediction of the first --is_asked_for--> predictions of all --agree--> one prediction

Networks of one recipe miss other lesions and outline other normal tissue, by the chance of their training; what two
of three find is seldom chance (docs/adr/0024). Asked in doubt alone, it costs a fraction of reading all three times.

References:
    Taylor-Phillips and Stinton, "Double reading in breast cancer screening: considerations for policy-making", British
        Journal of Radiology 93 (2020): where two readers differ, a third one arbitrates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from busi_core.types import Diagnosis, Prediction

CLASS_BELOW = 0.7
LESION_BETWEEN = (0.1, 0.9)


@dataclass(frozen=True)
class SecondOpinion:
    """When it is asked for, and of whom.

    Attributes:
        readers: The versions whose networks read as well; an even number, so that with the first one there is always
            a majority.
        sha256: Of the file with their weights.
        class_below: Asked for where no class has this score,
        lesion_between: or where the highest lesion probability lies between these two: neither surely a lesion, nor
            surely none.
    """

    readers: tuple[str, ...]
    sha256: str
    class_below: float = CLASS_BELOW
    lesion_between: tuple[float, float] = LESION_BETWEEN

    def __post_init__(self) -> None:
        if not self.readers or len(self.readers) % 2:
            raise ValueError(f"a second opinion needs an even number of readers, got {len(self.readers)}")
        if not 0 <= self.class_below <= 1 or not 0 <= self.lesion_between[0] <= self.lesion_between[1] <= 1:
            raise ValueError(f"limits of doubt must lie in [0, 1], got {self.class_below} and {self.lesion_between}")

    def is_asked_for(self, first: Prediction) -> bool:
        """Whether the first network is in doubt."""
        low, high = self.lesion_between
        has_no_class = first.probabilities is not None and max(first.probabilities.values()) < self.class_below
        return has_no_class or low < float(first.lesion_probability.max()) < high


def agree(opinions: Sequence[Prediction]) -> Prediction:
    """The joint answer of an odd number of networks about one image.

    The lesion probability of each pixel is the median: at every cut-off, lesion is what most of them call lesion, so
    that a cut-off chosen for one network keeps its meaning. The score of a class is the mean.
    """
    lesion = np.median([opinion.lesion_probability for opinion in opinions], axis=0).astype(np.float32)
    scores = [opinion.probabilities for opinion in opinions if opinion.probabilities is not None]
    if not scores:
        return Prediction(lesion, None)
    return Prediction(lesion, {d: sum(score[d] for score in scores) / len(scores) for d in Diagnosis})
