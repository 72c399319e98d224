"""Shares and their intervals, held to an outside implementation and to a published table."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from busi_core.metrics.bootstrap import bootstrap_interval
from busi_core.metrics.proportion import mean_interval, share_difference, share_interval


@pytest.mark.parametrize(("count", "total"), [(0, 10), (1, 10), (5, 10), (10, 10), (81, 263), (0, 1), (3, 1000)])
def test_the_interval_of_a_share_is_scipys_wilson_interval(count: int, total: int) -> None:
    own = share_interval(count, total)
    other = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert (own.estimate, own.low, own.high) == pytest.approx((count / total, other.low, other.high), abs=1e-12)


def test_of_nothing_there_is_no_share() -> None:
    assert math.isnan(share_interval(0, 0).estimate)
    with pytest.raises(ValueError, match="0 to total"):
        share_interval(3, 2)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_the_interval_of_a_difference_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    difference = share_difference(share_interval(*first), share_interval(*second))
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("held", [0, 1])
def test_a_share_of_all_or_none_has_an_interval_as_wide_as_its_cases_are_few(held: int) -> None:
    """Six images of four cases, one image without a value: a bootstrap would say that nothing else can be."""
    values, cases = np.array([held] * 5 + [math.nan]), np.array([0, 0, 1, 2, 3, 4])
    found = mean_interval(values, cases, is_share=True)
    assert found == share_interval(4 * held, 4)
    assert found.high - found.low > 0.4
    assert mean_interval(values, cases, is_share=False) == bootstrap_interval(values, cases)


def test_of_other_shares_and_of_nothing_the_interval_is_the_bootstraps() -> None:
    values, cases = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0, 0, 1, 2])
    assert mean_interval(values, cases, is_share=True) == bootstrap_interval(values, cases)
    assert math.isnan(mean_interval(np.full(2, math.nan), np.arange(2), is_share=True).low)
