"""The loops that a benchmark compares can still be run: they use the training's inner parts."""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from versions import SIDE_64, TINY

from benchmarks.training_step import our_step, plain_step
from benchmarks.two_drawings import lay_over, move
from busi_core.data.simulated_set import split_simulated
from busi_core.imaging.phantom import simulate_scan
from busi_core.recipes.product import PRODUCT
from busi_core.types import Diagnosis


@pytest.mark.parametrize("make_step", [plain_step, our_step])
def test_both_loops_of_a_training_step_take_one(make_step: object, tmp_path: Path) -> None:
    config = replace(PRODUCT, architecture=TINY, preprocess=SIDE_64, start="random", precision="fp32", batch_size=3)
    records = split_simulated(tmp_path / "simulated", test_fold=0).train[:3]
    assert callable(make_step)
    assert math.isfinite(make_step(records, config, torch.device("cpu"))())


def test_two_files_of_one_scan_are_laid_over_each_other_before_their_outlines_are_compared() -> None:
    scan = simulate_scan(Diagnosis.BENIGN, seed=7, height=300, width=400)
    there = np.array([[0.95, 0.0, 12.0], [0.0, 0.95, -6.0]], np.float32)  # cropped and saved at another size
    size = (390, 280)
    other = cv2.warpAffine(scan.grey, there, size)
    drawn = cv2.warpAffine(scan.mask.astype(np.uint8), there, size, flags=cv2.INTER_NEAREST) > 0
    correlation, transform = lay_over(scan.grey, other)
    assert correlation > 0.98
    np.testing.assert_allclose(transform, there, atol=2)  # the black beside the scan draws it a little
    back = move(drawn, transform, scan.mask.shape)
    assert 2 * (back & scan.mask).sum() / (back.sum() + scan.mask.sum()) > 0.98
