"""A share of counted things and how far it could be off: counts -> share with its interval.

References:
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927 (one share).
    Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 1998,
    method 10 (two shares).
"""

from math import sqrt

import numpy as np

from busi_core.metrics.bootstrap import Groups, Interval, Values, bootstrap_interval

Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution


def share_interval(count: int, total: int) -> Interval:
    """Share and its 95 % interval by Wilson; useful for few things too. NaN all through when `total` is 0.

    Args:
        count: How many have it, 0 to `total`.
        total: How many there are.
    """
    if not 0 <= count <= total:
        raise ValueError(f"count must lie in 0 to total, got {count} of {total}")
    if total == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    share, z2 = count / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def mean_interval(values: Values, groups: Groups, *, is_share: bool) -> Interval:
    """Mean over images and its 95 % interval by bootstrap over groups; of a share that is 0 or 1, by Wilson.

    There all draws agree, and an interval of no width would claim certainty. A group counts once: its images say the
    same, and are no further evidence.

    Args:
        values: (images,) NaN where an image has none.
        groups: (images,) the scan or case of each image.
        is_share: The values are 0 or 1.
    """
    interval = bootstrap_interval(values, groups)
    if not (is_share and interval.low == interval.high and interval.estimate in (0.0, 1.0)):
        return interval
    distinct = np.unique(groups[~np.isnan(values)]).size
    return share_interval(round(interval.estimate) * distinct, distinct)


def share_difference(first: Interval, second: Interval) -> Interval:
    """First minus second share and its 95 % interval by Newcombe, of two samples without a thing in common.

    An interval that leaves out 0 says that the shares differ.

    Args:
        first: From `share_interval`.
        second: Likewise.
    """
    low = sqrt((first.estimate - first.low) ** 2 + (second.high - second.estimate) ** 2)
    high = sqrt((first.high - first.estimate) ** 2 + (second.estimate - second.low) ** 2)
    difference = first.estimate - second.estimate
    return Interval(difference, difference - low, difference + high)
