"""What is no breast ultrasound lies far from those that the model learned from."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from versions import SIDE_64, make_network

from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import fit_box, prepare
from busi_core.models.familiarity import (
    Familiarity,
    describe,
    fit_familiarity,
    fit_familiarity_across,
    shrunken_covariance,
)
from busi_core.types import Diagnosis, Grey, Likeness


@pytest.mark.parametrize(("count", "size"), [(40, 5), (60, 60), (30, 90), (500, 12)])
def test_the_covariance_is_that_of_scikit_learn(count: int, size: int) -> None:
    rng = np.random.default_rng(count)
    rows = rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3
    np.testing.assert_allclose(shrunken_covariance(rows), LedoitWolf().fit(rows).covariance_, rtol=1e-9, atol=1e-12)


def test_distances_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(200, 8)) * np.arange(1, 9)
    fitted = fit_familiarity(list(rows.astype(np.float32)), list(rows[:50].astype(np.float32)))
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    expected = np.sqrt(LedoitWolf().fit(scaled).mahalanobis(scaled) / 8)
    np.testing.assert_allclose([fitted.distance(row.astype(np.float32)) for row in rows], expected, rtol=1e-4)


def test_without_a_part_for_the_limits_each_scan_is_measured_against_the_other_parts() -> None:
    rng = np.random.default_rng(5)
    rows = list(rng.normal(size=(60, 4)).astype(np.float32))
    parts = [number % 3 for number in range(60)]
    expected = []
    for part in range(3):
        others = np.stack([row for row, own in zip(rows, parts, strict=True) if own != part]).astype(np.float64)
        mean, spread = others.mean(axis=0), others.std(axis=0)
        oracle = LedoitWolf().fit((others - mean) / spread)
        own = np.stack([(rows[n] - mean) / spread for n in range(60) if parts[n] == part])
        expected += np.sqrt(oracle.mahalanobis(own) / 4).tolist()
    fitted = fit_familiarity_across(rows, parts)
    assert fitted.unlike_from == pytest.approx(np.quantile(expected, 0.99), rel=1e-4)
    assert fitted.foreign_from == pytest.approx(1.5 * fitted.unlike_from)
    np.testing.assert_allclose(fitted.mean, np.mean(rows, axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="two of them"):
        fit_familiarity_across(rows, [0] * 60)


def grey_of(diagnosis: Diagnosis, seed: int) -> Grey:
    return simulate_scan(diagnosis, seed=seed, height=96, width=120).grey


one_network = cache(make_network)


def describe_grey(grey: Grey) -> NDArray[np.float32]:
    tensor, box = prepare(grey, SIDE_64)
    with torch.no_grad():
        return describe(one_network().encode(tensor), box, SIDE_64)


@pytest.fixture(scope="module")
def fitted() -> Familiarity:
    scans = [describe_grey(grey_of(diagnosis, seed)) for seed in range(1, 41) for diagnosis in Diagnosis]
    return fit_familiarity(scans[:90], scans[90:])


def test_scans_of_the_same_kind_are_known(fitted: Familiarity) -> None:
    new = [
        fitted.judge(describe_grey(grey_of(diagnosis, seed))) for seed in (51, 52, 53, 54) for diagnosis in Diagnosis
    ]
    assert new.count(Likeness.FOREIGN) == 0
    assert new.count(Likeness.KNOWN) >= 10


def test_noise_stripes_and_a_photograph_are_foreign(fitted: Familiarity) -> None:
    from skimage.data import astronaut, camera

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (96, 120), dtype=np.uint8)
    stripes = np.tile(np.where(np.arange(120) % 8 < 4, 255, 0).astype(np.uint8), (96, 1))
    for picture in (noise, stripes, camera(), astronaut()[:, :, 0]):
        assert fitted.judge(describe_grey(np.ascontiguousarray(picture))) is Likeness.FOREIGN


def test_the_padding_beside_a_narrow_scan_does_not_count() -> None:
    grey = grey_of(Diagnosis.BENIGN, 3)[:, :60]
    tensor, box = prepare(np.ascontiguousarray(grey), SIDE_64)
    with torch.no_grad():
        levels = [level * 0 + 1 for level in make_network().encode(tensor)]
    for level in levels[1:4]:  # what lies outside the box is not looked at
        level[..., -(-box.width * level.shape[-1] // 64) + 1 :] = 99
    assert box == fit_box(96, 60, SIDE_64)
    assert set(np.round(describe(levels, box, SIDE_64), 5).tolist()) == {0.0, 1.0}


def test_a_limit_needs_scans_to_stand_on() -> None:
    with pytest.raises(ValueError, match="validation"):
        fit_familiarity([np.zeros(3, np.float32)] * 3, [])
