"""How many simulated scans a model reads right. Says that the samples suit a demonstration, nothing about patients."""

from collections.abc import Sequence
from dataclasses import dataclass

from busi_core.findings import read_finding
from busi_core.imaging.phantom import simulate_scan
from busi_core.metrics.segmentation import count_overlap
from busi_core.service import Analyser
from busi_core.types import Diagnosis

FOUND_FROM_DICE = 0.5


@dataclass(frozen=True)
class SimulatedRate:
    """What became of the simulated scans of one class.

    Attributes:
        diagnosis: Their class.
        scans: How many were read.
        class_right: How many got this class.
        mask_right: How many lesions were found with a Dice of at least 0.5; for normals, how many got no mask.
        both_right: How many were right in both.
    """

    diagnosis: Diagnosis
    scans: int
    class_right: int
    mask_right: int
    both_right: int


def read_simulated(analyser: Analyser, seeds: Sequence[int]) -> list[SimulatedRate]:
    """Read one simulated scan of each class for every seed."""
    rates = []
    for diagnosis in Diagnosis:
        answers = [_read(analyser, diagnosis, seed) for seed in seeds]
        rates.append(
            SimulatedRate(
                diagnosis,
                len(answers),
                sum(class_right for class_right, _ in answers),
                sum(mask_right for _, mask_right in answers),
                sum(class_right and mask_right for class_right, mask_right in answers),
            )
        )
    return rates


def _read(analyser: Analyser, diagnosis: Diagnosis, seed: int) -> tuple[bool, bool]:
    scan = simulate_scan(diagnosis, seed=seed)
    analysis = analyser.analyse(scan.png(), insist=True)
    mask = read_finding(analysis).lesion_mask
    if diagnosis is Diagnosis.NORMAL:
        return analysis.prediction.diagnosis is diagnosis, not mask.any()
    return analysis.prediction.diagnosis is diagnosis, count_overlap(mask, scan.mask).dice >= FOUND_FROM_DICE
