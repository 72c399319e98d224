"""Whether heat maps of one reading point to the same place."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from busi_core.imaging.preprocess import upsample
from busi_core.types import FloatMap, Mask

STRONGEST: Final = 0.2  # the share of the scan that is compared; two maps without relation share as much of it
_SIDE: Final = 128  # of the common grid


@dataclass(frozen=True)
class Agreement:
    """The two maps that agree least.

    Attributes:
        pair: Their positions in what was compared.
        share: How much of their strongest fifths they have in common: 1 is the same place, 0.2 is chance.
    """

    pair: tuple[int, int]
    share: float


def least_agreement(maps: Sequence[FloatMap]) -> Agreement | None:
    """Compare the strongest fifth of the scan under each map with that under each other.

    Args:
        maps: (rows, columns) each, on any grids that cover the same scan; those without evidence are left out.

    Returns:
        The least, or None where fewer than two maps show evidence.
    """
    strongest = {number: _strongest_fifth(values) for number, values in enumerate(maps) if values.any()}
    found = [
        Agreement((one, other), _common_share(strongest[one], strongest[other]))
        for one, other in combinations(strongest, 2)
    ]
    return min(found, key=lambda agreement: agreement.share, default=None)


def _common_share(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / min(one.sum(), other.sum()))


def _strongest_fifth(values: FloatMap) -> Mask:
    """(128, 128) bool: the cells with the most evidence, a fifth of them, or fewer where there is none in the rest."""
    full = upsample(values, _SIDE, _SIDE)
    return (full >= np.quantile(full, 1 - STRONGEST)) & (full > 0)
