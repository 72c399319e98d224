"""Simulated scans: repeatable, true to their class, and with the statistics of real speckle."""

from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from busi_core.imaging.phantom import (
    VIEW_DEPTH_CM,
    SimulatedScan,
    path_loss_db,
    simulate_scan,
    speckle_envelope,
)
from busi_core.types import Diagnosis

NORMAL, BENIGN, MALIGNANT = Diagnosis.NORMAL, Diagnosis.BENIGN, Diagnosis.MALIGNANT
SEEDS = range(24)


@cache
def small_scan(diagnosis: Diagnosis, seed: int) -> SimulatedScan:
    return simulate_scan(diagnosis, seed=seed, height=160, width=200)


def circularity(mask: np.ndarray) -> float:
    """4 pi area / perimeter^2: 1 for a disc, less for a ragged outline."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=cv2.contourArea)
    return 4 * np.pi * cv2.contourArea(outline) / cv2.arcLength(outline, True) ** 2


def grey_below_minus_beside(scan: SimulatedScan) -> float:
    """Mean grey just under the middle half of the lesion, minus that left and right of it at the same depth."""
    rows, columns = np.nonzero(scan.mask)
    height, width = scan.mask.shape
    band = scan.grey[rows.max() + 3 : rows.max() + 3 + height // 7].astype(float)
    left, right = columns.min(), columns.max()
    quarter, gap, reach = (right - left) // 4, width // 50, width // 7
    beside = [band[:, max(0, left - gap - reach) : max(0, left - gap)], band[:, right + gap : right + gap + reach]]
    return float(band[:, left + quarter : right - quarter].mean() - np.hstack(beside).mean())


@pytest.mark.parametrize("diagnosis", list(Diagnosis))
def test_the_same_seed_gives_the_same_pixels(diagnosis: Diagnosis) -> None:
    first, second = (simulate_scan(diagnosis, seed=3, height=160, width=200) for _ in range(2))
    assert np.array_equal(first.grey, second.grey)
    assert np.array_equal(first.mask, second.mask)


@pytest.mark.parametrize("diagnosis", list(Diagnosis))
def test_another_seed_gives_another_scan(diagnosis: Diagnosis) -> None:
    assert not np.array_equal(small_scan(diagnosis, 3).grey, small_scan(diagnosis, 4).grey)


def test_drawing_leaves_the_global_random_state_alone() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    simulate_scan(BENIGN, seed=0, height=160, width=200)
    assert np.random.random() == expected


def test_a_normal_breast_has_no_lesion_pixel() -> None:
    assert not any(small_scan(NORMAL, seed).mask.any() for seed in SEEDS)


@pytest.mark.parametrize(("diagnosis", "low", "high"), [(BENIGN, 0.005, 0.26), (MALIGNANT, 0.03, 0.36)])
def test_a_lesion_is_one_piece_of_a_plausible_size_inside_the_image(
    diagnosis: Diagnosis, low: float, high: float
) -> None:
    for seed in SEEDS:
        mask = small_scan(diagnosis, seed).mask
        pieces, _ = cv2.connectedComponents(mask.astype(np.uint8))
        assert pieces == 2, f"seed {seed}: {pieces - 1} pieces"
        assert low < mask.mean() < high, f"seed {seed}: {mask.mean():.3f} of the image"
        assert mask[1:-1, 1:-1].sum() == mask.sum(), f"seed {seed}: touches the edge of the image"


def test_the_same_seed_is_the_same_breast_with_or_without_a_lesion() -> None:
    scan, breast = simulate_scan(BENIGN, seed=5), simulate_scan(NORMAL, seed=5)
    above = np.nonzero(scan.mask)[0].min() - 12
    difference = np.abs(scan.grey[:above].astype(int) - breast.grey[:above].astype(int))
    assert difference.mean() < 2


@pytest.mark.parametrize("diagnosis", [BENIGN, MALIGNANT])
def test_a_lesion_is_darker_than_the_tissue_around_it(diagnosis: Diagnosis) -> None:
    for seed in SEEDS:
        scan = small_scan(diagnosis, seed)
        ring = cv2.dilate(scan.mask.astype(np.uint8), np.ones((13, 13))).astype(bool) & ~scan.mask
        assert scan.grey[scan.mask].mean() < scan.grey[ring].mean() - 10, f"seed {seed}"


def test_below_a_benign_lesion_is_brighter_and_below_a_malignant_one_darker_than_beside_it() -> None:
    benign = [grey_below_minus_beside(small_scan(BENIGN, seed)) for seed in SEEDS]
    malignant = [grey_below_minus_beside(small_scan(MALIGNANT, seed)) for seed in SEEDS]
    assert np.mean(benign) > 15
    assert np.mean(malignant) < -10
    assert np.mean(np.array(benign) > 0) >= 0.8
    assert np.mean(np.array(malignant) < 0) >= 0.8


def test_a_benign_outline_is_rounder_and_wider_than_a_malignant_one() -> None:
    masks = {diagnosis: [small_scan(diagnosis, seed).mask for seed in SEEDS] for diagnosis in (BENIGN, MALIGNANT)}
    roundness = {diagnosis: np.mean([circularity(mask) for mask in drawn]) for diagnosis, drawn in masks.items()}
    aspect = {
        diagnosis: np.mean([mask.any(axis=1).sum() / mask.any(axis=0).sum() for mask in drawn])
        for diagnosis, drawn in masks.items()
    }
    assert roundness[BENIGN] > roundness[MALIGNANT] + 0.1
    assert aspect[BENIGN] < aspect[MALIGNANT]


def test_homogeneous_tissue_shows_rayleigh_speckle_by_the_criterion_of_wagner() -> None:
    flat = np.ones((448, 560), np.float32)
    envelope = speckle_envelope(flat, np.zeros_like(flat), np.random.default_rng(0), angles=1)
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, rel=0.03)
    assert np.mean(envelope**4) / np.mean(envelope**2) ** 2 == pytest.approx(2.0, rel=0.04)


def test_compounding_angles_lowers_speckle_by_their_square_root() -> None:
    flat = np.ones((448, 560), np.float32)
    envelope = speckle_envelope(flat, np.zeros_like(flat), np.random.default_rng(0), angles=4)
    assert envelope.mean() / envelope.std() == pytest.approx(1.913 * 2, rel=0.03)


def test_a_surface_makes_the_echo_brighter_and_steadier_than_scatter_alone() -> None:
    flat = np.ones((448, 560), np.float32)
    envelope = speckle_envelope(flat, flat, np.random.default_rng(0), angles=1)
    assert envelope.mean() / envelope.std() > 3


def test_speckle_is_wider_than_high_and_widest_far_from_the_focus() -> None:
    flat = np.ones((448, 560), np.float32)
    envelope = speckle_envelope(flat, np.zeros_like(flat), np.random.default_rng(0), angles=1)

    def neighbour_correlation(rows: slice, down: int, across: int) -> float:
        tissue = envelope[rows]
        shifted = np.roll(tissue, (down, across), axis=(0, 1))[4:, 4:]
        return float(np.corrcoef(tissue[4:, 4:].ravel(), shifted.ravel())[0, 1])

    focus, far = slice(200, 250), slice(395, 445)
    assert neighbour_correlation(focus, 0, 3) > neighbour_correlation(focus, 3, 0) + 0.2
    assert neighbour_correlation(far, 0, 3) > neighbour_correlation(focus, 0, 3)


def test_path_loss_is_twice_frequency_times_attenuation_times_depth() -> None:
    one_db_per_cm_per_mhz = np.ones((100, 3), np.float32)
    assert path_loss_db(one_db_per_cm_per_mhz)[-1] == pytest.approx(2 * 10 * VIEW_DEPTH_CM)


def test_a_file_of_the_scan_decodes_to_the_same_pixels() -> None:
    scan = small_scan(MALIGNANT, 1)
    decoded = cv2.imdecode(np.frombuffer(scan.png(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded, scan.grey)


# Measured on 60 BUSI images of each class: 5th to 95th percentile of the mean and of the standard deviation of grey.
@pytest.mark.parametrize(
    ("diagnosis", "mean_grey", "std_grey"),
    [(NORMAL, (44, 113), (32, 64)), (BENIGN, (51, 121), (35, 64)), (MALIGNANT, (43, 110), (36, 65))],
)
def test_greys_lie_where_those_of_real_scans_lie(
    diagnosis: Diagnosis, mean_grey: tuple[int, int], std_grey: tuple[int, int]
) -> None:
    scans = [small_scan(diagnosis, seed).grey for seed in SEEDS]
    assert mean_grey[0] < np.median([grey.mean() for grey in scans]) < mean_grey[1]
    assert std_grey[0] < np.median([grey.std() for grey in scans]) < std_grey[1]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 333), (448, 560)])
def test_any_size_from_64_pixels_works(height: int, width: int) -> None:
    scan = simulate_scan(MALIGNANT, seed=0, height=height, width=width)
    assert scan.grey.shape == scan.mask.shape == (height, width)


@pytest.mark.parametrize("arguments", [{"seed": 0, "height": 63}, {"seed": 0, "width": 10}, {"seed": -1}])
def test_sizes_and_seeds_that_cannot_be_drawn_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 64|non-negative"):
        simulate_scan(BENIGN, **arguments)


def test_a_scan_whose_mask_contradicts_its_class_is_refused() -> None:
    grey = np.zeros((64, 64), np.uint8)
    with pytest.raises(ValueError, match="benign scan has 0 lesion pixels"):
        SimulatedScan(grey, np.zeros((64, 64), np.bool_), BENIGN, 0)
    with pytest.raises(ValueError, match="normal scan has 4096 lesion pixels"):
        SimulatedScan(grey, np.ones((64, 64), np.bool_), NORMAL, 0)
