"""Do heat maps point to the same place: the least of all pairs, without those that show nothing."""

import numpy as np
import pytest

from busi_core.explain.agreement import Agreement, least_agreement


def spot(row: float, column: float, *, side: int = 32) -> np.ndarray:
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 0.05).astype(np.float32)


def test_a_map_agrees_with_itself_on_any_grid() -> None:
    found = least_agreement([spot(0.4, 0.6), spot(0.4, 0.6, side=128)])
    assert found is not None
    assert found.share > 0.97


def test_the_pair_that_agrees_least_is_named() -> None:
    found = least_agreement([spot(0.2, 0.2), spot(0.25, 0.2), spot(0.8, 0.8)])
    assert found == Agreement(pair=(0, 2), share=0.0)


def test_maps_without_relation_share_a_fifth() -> None:
    rng = np.random.default_rng(0)
    found = least_agreement([rng.random((128, 128), np.float32), rng.random((128, 128), np.float32)])
    assert found is not None
    assert found.share == pytest.approx(0.2, abs=0.02)


def test_places_without_evidence_count_for_nothing() -> None:
    small = np.zeros((32, 32), np.float32)
    small[4:8, 4:8] = 1
    beside = np.zeros((32, 32), np.float32)
    beside[20:24, 4:8] = 1
    found = least_agreement([small, beside])
    assert found is not None
    assert found.share == 0


def test_one_map_or_maps_without_evidence_cannot_disagree() -> None:
    nothing = np.zeros((8, 8), np.float32)
    assert least_agreement([]) is None
    assert least_agreement([spot(0.5, 0.5)]) is None
    assert least_agreement([spot(0.5, 0.5), nothing, nothing]) is None
