"""A heat map is held against random ones: does the score follow what it points at?"""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import auc
from torch import Tensor
from versions import make_network

from busi_core.explain.faithfulness import (
    CELLS,
    STEPS,
    area_under,
    deletion_curve,
    insertion_curve,
    order_cells,
    randomise_head,
)

SIDE = 64


def ordered(evidence: Tensor) -> Tensor:
    return order_cells(evidence, torch.Generator().manual_seed(0))


def spot(row: int, column: int) -> Tensor:
    """A map that is hot in one quarter of the grid."""
    evidence = torch.zeros(8, 8)
    evidence[row : row + 4, column : column + 4] = 1
    return evidence


def image_with_detail() -> Tensor:
    """Stripes in the upper left quarter, plain grey elsewhere."""
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[..., : SIDE // 2, : SIDE // 2] = torch.where(torch.arange(SIDE // 2) % 2 == 0, 1.0, -1.0)
    return image


def detail(images: Tensor) -> Tensor:
    """How striped the pictures are: 1 for the image above, 0 for a blurred one."""
    return (images[..., 1:] - images[..., :-1]).abs().mean(dim=(1, 2, 3)) * 4 * 63 / 64 / 2


def test_cells_are_ordered_from_the_hottest() -> None:
    order = ordered(spot(0, 0))
    assert order.shape == (CELLS * CELLS,)
    assert sorted(order.tolist()) == list(range(CELLS * CELLS))
    assert set(order[:4].tolist()) <= {row * CELLS + column for row in range(8) for column in range(8)}


def test_a_map_that_says_nothing_is_a_random_order() -> None:
    flat = ordered(torch.zeros(8, 8))
    assert sorted(flat.tolist()) == list(range(CELLS * CELLS))
    assert flat.tolist() != sorted(flat.tolist())


def test_blurring_what_matters_first_makes_the_score_fall_faster() -> None:
    image = image_with_detail()
    true, false = (ordered(spot(*place)) for place in ((0, 0), (4, 4)))
    assert area_under(deletion_curve(detail, image, true)) < area_under(deletion_curve(detail, image, false)) - 0.3
    assert area_under(insertion_curve(detail, image, true)) > area_under(insertion_curve(detail, image, false)) + 0.3


def test_both_curves_run_between_the_scan_and_its_blur() -> None:
    image, order = image_with_detail(), ordered(spot(0, 0))
    deleted, inserted = deletion_curve(detail, image, order), insertion_curve(detail, image, order)
    assert deleted.shape == inserted.shape == (STEPS + 1,)
    assert deleted[0] == pytest.approx(inserted[-1])
    assert deleted[-1] == pytest.approx(inserted[0])
    assert deleted[0] > 0.9
    assert deleted[-1] < 0.1


def test_the_area_is_that_of_scikit_learn() -> None:
    curve = np.random.default_rng(0).random(STEPS + 1)
    assert area_under(curve) == pytest.approx(auc(np.linspace(0, 1, STEPS + 1), curve))


def test_random_weights_leave_the_rest_of_the_network_alone() -> None:
    network = make_network()
    changed = copy.deepcopy(network)
    randomise_head(changed, torch.Generator().manual_seed(1))
    different = {k for k, v in changed.state_dict().items() if not torch.equal(v, network.state_dict()[k])}
    assert different == {"class_head.1.weight"}
    before, after = network.class_head[1].weight, changed.class_head[1].weight
    assert float(after.std()) == pytest.approx(float(before.std()), rel=0.2)
