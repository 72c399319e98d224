"""The loops that a benchmark compares can still be run: they use the training's inner parts."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from versions import SIDE_64, TINY

from benchmarks.training_step import our_step, plain_step
from busi_core.data.simulated_set import split_simulated
from busi_core.recipes.product import PRODUCT


@pytest.mark.parametrize("make_step", [plain_step, our_step])
def test_both_loops_of_a_training_step_take_one(make_step: object, tmp_path: Path) -> None:
    config = replace(PRODUCT, architecture=TINY, preprocess=SIDE_64, start="random", precision="fp32", batch_size=3)
    records = split_simulated(tmp_path / "simulated", test_fold=0).train[:3]
    assert callable(make_step)
    assert math.isfinite(make_step(records, config, torch.device("cpu"))())
