"""The set of classes that holds the truth in, say, 90 % of cases: split conformal prediction, class by class.

    probabilities, truth (validation) --class_scores--> nonconformity of each class' own scans
    probabilities of one scan, scores, coverage --class_set--> the classes that cannot be ruled out

A class stays in the set unless the scan suits it worse than all but a small share (1 - coverage) of the validation
scans of that very class. The promise, for scans like those of the validation part: of the scans of *each* class, at
least that share has its class in its set. Machines, hospitals and patients that differ break the promise; the
evaluation says by how much.

References:
    Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, 4.5 (class-conditional, 'Mondrian').
    Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers", JASA 2019, arXiv:1609.00451 (1 - score).
"""

from collections.abc import Sequence
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from busi_core.metrics.calibration import ClassMatrix, Labels

LOWEST_COVERAGE, HIGHEST_COVERAGE = 0.8, 0.99
ROUNDING = 1e-9  # (n + 1) * coverage is a whole number more often than floats know


def class_scores(probabilities: ClassMatrix, truth: Labels) -> tuple[NDArray[np.float64], ...]:
    """How little each validation scan suits its own class: 1 - its score, sorted, one array a class.

    Args:
        probabilities: (n, classes) in [0, 1], calibrated.
        truth: (n,) integer, the true column of each row.
    """
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        raise ValueError(f"expected (n, classes) and (n,), got {probabilities.shape} and {truth.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # also catches NaN
        raise ValueError("probabilities must lie in [0, 1]; take the softmax first")
    own = 1 - probabilities[np.arange(truth.size), truth].astype(np.float64)
    return tuple(np.sort(own[truth == column]) for column in range(probabilities.shape[1]))


def highest_score(scores: NDArray[np.float64], coverage: float) -> float:
    """The nonconformity up to which a class stays in the set; infinite when there are too few scans to rule it out.

    The smallest value that the ceil((n + 1) coverage)-th of n sorted scores stays within.

    Args:
        scores: (n,) sorted, of validation scans of one class.
        coverage: The share of its scans that must keep the class, 0.8 to 0.99.
    """
    if not LOWEST_COVERAGE <= coverage <= HIGHEST_COVERAGE:
        raise ValueError(f"coverage must lie in [{LOWEST_COVERAGE}, {HIGHEST_COVERAGE}], got {coverage}")
    rank = ceil((scores.size + 1) * coverage - ROUNDING)
    return float(scores[rank - 1]) if rank <= scores.size else inf


def class_set(
    probabilities: Sequence[float], scores: Sequence[NDArray[np.float64]], coverage: float
) -> tuple[bool, ...]:
    """Which classes cannot be ruled out for one scan; none at all when it suits every class badly.

    Args:
        probabilities: One score a class, calibrated.
        scores: Of `class_scores`.
        coverage: 0.8 to 0.99.
    """
    return tuple(
        1 - probability <= highest_score(own, coverage) for probability, own in zip(probabilities, scores, strict=True)
    )


def scans_needed(coverage: float) -> int:
    """How many validation scans of a class it takes before that class can be ruled out at all."""
    return ceil(coverage / (1 - coverage) - ROUNDING)
