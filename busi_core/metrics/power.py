"""How many scans it would take to tell: the width of an interval now -> the number that makes it narrow enough."""

import math
from statistics import NormalDist

from busi_core.metrics.bootstrap import Interval


def scans_to_tell(interval: Interval, scans: int, distance: float, *, power: float = 0.8, level: float = 0.95) -> int:
    """Scans at which the interval's nearer end would clear a bound that lies `distance` from the true value.

    The standard error is read off the interval (a bootstrap over scans or cases, so that scans of one case stay
    together) and shrinks with the square root of their number: n' = n * ((z_level + z_power) * se / distance)^2.

    Args:
        interval: Of a paired difference, at this `level`.
        scans: How many it was measured on, at least 1.
        distance: From the true difference to the bound, above 0: for a margin m and models that are alike, m.
        power: Chance of telling, in [0.5, 1).
        level: Of the interval, in (0, 1).

    Returns:
        At least `scans`: fewer were not enough, or the question would not arise.

    References:
        Julious, "Sample sizes for clinical trials with normal data", Statistics in Medicine 2004,
        doi:10.1002/sim.1783 (non-inferiority, section 5).
    """
    if scans < 1 or not distance > 0:
        raise ValueError(f"scans and distance must be above 0, got {scans} and {distance}")
    bound, chance = NormalDist().inv_cdf((1 + level) / 2), NormalDist().inv_cdf(power)
    standard_error = (interval.high - interval.low) / (2 * bound)
    if not math.isfinite(standard_error):
        raise ValueError(f"the interval must have two ends, got {interval}")
    return max(scans, math.ceil(scans * ((bound + chance) * standard_error / distance) ** 2))
