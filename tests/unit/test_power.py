"""How many scans would tell: against the closed formula, and against experiments that are played through."""

import math

import numpy as np
import pytest
from scipy import stats

from busi_core.metrics.bootstrap import Interval, bootstrap_interval
from busi_core.metrics.power import scans_to_tell


def normal_interval(mean: float, deviation: float, scans: int, level: float = 0.95) -> Interval:
    reach = stats.norm.ppf((1 + level) / 2) * deviation / math.sqrt(scans)
    return Interval(mean, mean - reach, mean + reach)


@pytest.mark.parametrize("deviation", [0.1, 0.25])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_it_is_the_textbooks_number_of_pairs(deviation: float, power: float) -> None:
    """n = ((z_.975 + z_power) * sd / distance)^2, as for any one-sample z-test on paired differences."""
    z = stats.norm.ppf(0.975) + stats.norm.ppf(power)
    expected = math.ceil((z * deviation / 0.01) ** 2)
    found = scans_to_tell(normal_interval(0, deviation, 50), 50, 0.01, power=power)
    assert found == pytest.approx(expected, abs=1)


def test_so_many_scans_tell_in_eight_of_ten_experiments() -> None:
    """Played through: from the interval of 80 scans to a number, then that many scans, 2,000 times."""
    rng = np.random.default_rng(0)
    deviation, margin = 0.15, 0.03
    first = rng.normal(0, deviation, 80)
    first = (first - first.mean()) / first.std() * deviation
    needed = scans_to_tell(bootstrap_interval(first, np.arange(80)), 80, margin)
    gains = rng.normal(0, deviation, (2000, needed))
    low = gains.mean(axis=1) - 1.96 * gains.std(axis=1, ddof=1) / math.sqrt(needed)
    assert (low > -margin).mean() == pytest.approx(0.8, abs=0.04)


def test_it_is_never_fewer_than_there_are() -> None:
    assert scans_to_tell(normal_interval(0, 0.01, 50), 50, 0.5) == 50
    assert scans_to_tell(Interval(0.0, 0.0, 0.0), 50, 0.1) == 50


@pytest.mark.parametrize(
    ("interval", "scans", "distance"),
    [
        (Interval(0, -1, 1), 0, 0.1),
        (Interval(0, -1, 1), 10, 0.0),
        (Interval(0, -1, 1), 10, math.nan),
        (Interval(0, math.nan, math.nan), 10, 0.1),
    ],
)
def test_what_cannot_be_asked_is_refused(interval: Interval, scans: int, distance: float) -> None:
    with pytest.raises(ValueError, match="must"):
        scans_to_tell(interval, scans, distance)
