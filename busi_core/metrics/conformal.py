"""The set of classes that holds the truth in, say, 90 % of cases: split conformal prediction, class by class.

    probabilities, truth (validation) --measure_nonconformity--> nonconformity of each class' own scans
    probabilities of one scan, nonconformity, coverage --class_set--> the classes that cannot be ruled out

A class stays in the set unless the scan suits it worse than all but a small share (1 - coverage) of the validation
scans of that very class. The likeliest class always stays. The promise, for scans like those of the validation part:
of the scans of *each* class, at least that share has its class in its set. Scans of which no class is likely are a
group of their own, compared with one another whatever their class: the promise for each class would be kept by the
many clear scans alone, and broken where a reader needs it (docs/adr/0025). Machines, hospitals and patients that
differ break the promise; the evaluation says by how much.

References:
    Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, 4.5 (class-conditional, 'Mondrian').
    Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers", JASA 2019, arXiv:1609.00451 (1 - score).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from busi_core.metrics.calibration import ClassMatrix, Labels

LOWEST_COVERAGE, USUAL_COVERAGE, HIGHEST_COVERAGE = 0.8, 0.9, 0.99
IN_DOUBT_BELOW = 0.7  # the highest score below which no class is likely: `second_opinion.CLASS_BELOW`
CHANCE = 0.05  # a count below the promise that is less likely than this breaks it
ROUNDING = 1e-9  # (n + 1) * coverage is a whole number more often than floats know


@dataclass(frozen=True, eq=False)
class Nonconformity:
    """How little validation scans suit their own class: 1 - its score, sorted.

    Attributes:
        by_class: One array a class, of the scans that are not in doubt.
        in_doubt: Of the others, all classes together.
        in_doubt_below: A scan is in doubt when no class has this score; at 0 none is.
    """

    by_class: tuple[NDArray[np.float64], ...]
    in_doubt: NDArray[np.float64]
    in_doubt_below: float

    def is_in_doubt(self, probabilities: Sequence[float]) -> bool:
        """Whether no class is likely."""
        return max(probabilities) < self.in_doubt_below


def measure_nonconformity(
    probabilities: ClassMatrix, truth: Labels, *, in_doubt_below: float = IN_DOUBT_BELOW
) -> Nonconformity:
    """From the validation scans.

    Args:
        probabilities: (n, classes) in [0, 1], calibrated.
        truth: (n,) integer, the true column of each row.
        in_doubt_below: As in `Nonconformity`.
    """
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        raise ValueError(f"expected (n, classes) and (n,), got {probabilities.shape} and {truth.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # also catches NaN
        raise ValueError("probabilities must lie in [0, 1]; take the softmax first")
    own = 1 - probabilities[np.arange(truth.size), truth].astype(np.float64)
    in_doubt = probabilities.max(axis=1) < in_doubt_below
    by_class = tuple(np.sort(own[~in_doubt & (truth == column)]) for column in range(probabilities.shape[1]))
    return Nonconformity(by_class, np.sort(own[in_doubt]), in_doubt_below)


def highest_score(scores: NDArray[np.float64], coverage: float) -> float:
    """The nonconformity up to which a class stays in the set; infinite when there are too few scans to rule it out.

    The smallest value that the ceil((n + 1) coverage)-th of n sorted scores stays within.

    Args:
        scores: (n,) sorted, of validation scans of one class, or in doubt.
        coverage: The share of these scans that must keep their class, 0.8 to 0.99.
    """
    if not LOWEST_COVERAGE <= coverage <= HIGHEST_COVERAGE:
        raise ValueError(f"coverage must lie in [{LOWEST_COVERAGE}, {HIGHEST_COVERAGE}], got {coverage}")
    rank = ceil((scores.size + 1) * coverage - ROUNDING)
    return float(scores[rank - 1]) if rank <= scores.size else inf


def class_set(probabilities: Sequence[float], known: Nonconformity, coverage: float) -> tuple[bool, ...]:
    """Which classes cannot be ruled out for one scan; the likeliest is always among them.

    Args:
        probabilities: One score a class, calibrated.
        known: Of the validation scans.
        coverage: 0.8 to 0.99.
    """
    is_in_doubt, likeliest = known.is_in_doubt(probabilities), max(probabilities)
    return tuple(
        probability == likeliest or 1 - probability <= highest_score(known.in_doubt if is_in_doubt else own, coverage)
        for probability, own in zip(probabilities, known.by_class, strict=True)
    )


def is_broken(held: int, of: int, coverage: float) -> bool:
    """Whether a promise was kept for so few scans that chance does not explain it (binomial test, one-sided, 5 %)."""
    return bool(bdtr(held, of, coverage) < CHANCE)


def scans_needed(coverage: float) -> int:
    """How many validation scans of a class (or in doubt) it takes before a class can be ruled out at all."""
    return ceil(coverage / (1 - coverage) - ROUNDING)
