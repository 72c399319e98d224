"""How far a number could be off by the luck of the draw: values or a statistic, and groups -> an interval.

Whole groups are drawn, never single images: images of one scan (of one case, for BUS-BRA) are not
independent, and taking them for it makes intervals too narrow.

References:
    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13 (percentile interval).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.floating[Any]]  # (images,), one number an image, NaN where it has none
Indices: TypeAlias = NDArray[np.intp]  # positions of images, some more than once, some not at all
Statistic: TypeAlias = Callable[[Indices], float]  # NaN where it is not defined on these images
Groups: TypeAlias = NDArray[Any]  # (images,), the name or number of each image's scan or case


@dataclass(frozen=True)
class Interval:
    """A number and where it could as well have been.

    Attributes:
        estimate: On all images, each once.
        low: Lower end; NaN where no draw has a value.
        high: Upper end; NaN likewise.
        undefined_draws: How many draws had no value (an AUC of one class) and were left out.
    """

    estimate: float
    low: float
    high: float
    undefined_draws: int = 0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got {self}")


def bootstrap_interval(
    measured: Values | Statistic,
    groups: Groups,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    is_distance: bool = False,
) -> Interval:
    """Percentile interval over resampled groups.

    The same groups, draws and seed give the same resamples, whatever is measured on them.

    Args:
        measured: (images,) values, whose mean is meant (over those that are not NaN), or a function
            from the positions of images to a number, for what is no mean: AUC, macro-F1.
        groups: (images,) the scan or case of each image. Any order.
        draws: How many resamples.
        seed: Of the random numbers.
        level: Share of the draws inside, in (0, 1).
        is_distance: What is measured is a distance from 0 that chance alone makes larger, as the calibration error.
            A draw adds its own chance to that of the sample, so all draws lie higher; they are moved back until their
            mean is the estimate, and none goes below 0. The estimate is still too high by the sample's own chance.

    Returns:
        The estimate on all images, and the ends of the interval.
    """
    statistic = measured if callable(measured) else _mean_of(measured, groups)
    _require_sampling(groups, draws, level)
    members = _split_by_group(groups)
    generator = np.random.default_rng(seed)
    results = np.empty(draws)
    for draw in range(draws):
        picked = generator.integers(len(members), size=len(members))
        results[draw] = statistic(np.concatenate([members[group] for group in picked]))
    defined = results[~np.isnan(results)]
    tail = (1 - level) / 2
    estimate = statistic(np.arange(groups.size, dtype=np.intp))
    if is_distance and defined.size:
        defined = np.maximum(defined - (defined.mean() - estimate), 0.0)
    low, high = np.quantile(defined, [tail, 1 - tail]) if defined.size else (np.nan, np.nan)
    return Interval(float(estimate), float(low), float(high), draws - defined.size)


def paired_difference_interval(
    first: Values | Statistic,
    second: Values | Statistic,
    groups: Groups,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of first minus second, both measured on the same images: what makes a scan hard cancels out.

    An interval that leaves out 0 says that the models differ on scans like these.

    Args:
        first: (images,) values or a statistic, as in `bootstrap_interval`.
        second: The same kind, of the other model. Of values, images that are NaN for either are left out.
        groups: (images,) the scan or case of each image.
        draws: How many resamples.
        seed: Of the random numbers.
        level: Share of the draws inside, in (0, 1).
    """
    if callable(first) and callable(second):
        one, other = first, second  # bound here, so that their type stays known inside the function below

        def difference(indices: Indices) -> float:
            return one(indices) - other(indices)

        return bootstrap_interval(difference, groups, draws=draws, seed=seed, level=level)
    if callable(first) or callable(second):
        raise TypeError("first and second must both be values or both be statistics")
    if first.shape != second.shape:
        raise ValueError(f"both models must be measured on the same images, got {first.shape} and {second.shape}")
    return bootstrap_interval(first - second, groups, draws=draws, seed=seed, level=level)


def _mean_of(values: Values, groups: Groups) -> Statistic:
    """Mean of the values at given positions, leaving out NaN; NaN where all are."""
    if values.shape != groups.shape:
        raise ValueError(f"every value needs a group, got {values.shape} and {groups.shape}")
    exact = values.astype(np.float64)

    def mean(indices: Indices) -> float:
        drawn = exact[indices]
        drawn = drawn[~np.isnan(drawn)]
        return float(drawn.mean()) if drawn.size else float("nan")

    return mean


def _split_by_group(groups: Groups) -> list[Indices]:
    """Positions of the images of each group, groups in sorted order."""
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.split(np.argsort(group_of, kind="stable"), sizes.cumsum()[:-1])


def _require_sampling(groups: Groups, draws: int, level: float) -> None:
    if groups.ndim != 1 or groups.size == 0:
        raise ValueError(f"groups must be (images,) with at least one image, got {groups.shape}")
    if draws < 1:
        raise ValueError(f"there must be at least one draw, got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
