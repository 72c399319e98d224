"""How fast this machine trains, measured in a process of its own: python -m busi_core.jobs.measure SIDE

A few steps of the product's recipe on noise, through the same loop as a real run; the figure goes into speed.json.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from busi_core.data.dataset import Samples
from busi_core.errors import JobError
from busi_core.jobs.lifeline import end_with_parent, start_child, stop_child
from busi_core.jobs.speed import write_speed
from busi_core.recipes.product import PRODUCT
from busi_core.settings import Settings, read_settings
from busi_core.training.log import Epoch
from busi_core.training.loop import fit
from busi_core.types import Diagnosis

BATCHES = 3
PATIENCE_S = 180.0


def measure_speed(settings: Settings, side: int, environment: dict[str, str]) -> None:
    """Measure in a child process and keep the figure; takes a quarter of a minute, most of it the start.

    Raises:
        JobError: It did not work, or took longer than three minutes.
    """
    child = start_child(
        "busi_core.jobs.measure", [str(side)], settings.state_dir / "measure.log", environment=environment
    )
    try:
        failed = child.wait(PATIENCE_S) != 0
    except subprocess.TimeoutExpired:
        failed = True
    finally:
        stop_child(child)
    if failed:
        raise JobError("The machine could not be measured.", remedy="See measure.log in the state folder.")


def main(arguments: list[str]) -> int:
    """Train two epochs on noise; the second counts."""
    end_with_parent()
    side, count = int(arguments[0]), BATCHES * PRODUCT.batch_size
    config = replace(PRODUCT, preprocess=replace(PRODUCT.preprocess, side=side), start="random", epochs=2)
    noise = Samples(
        images=torch.randint(256, (count, 1, side, side), dtype=torch.uint8),
        masks=torch.randint(2, (count, 1, side, side), dtype=torch.uint8),
        labels=torch.arange(count) % len(Diagnosis),
        ids=tuple(map(str, range(count))),
    )
    epochs: list[Epoch] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(config, noise, noise, Path(folder), on_epoch=epochs.append)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    write_speed(read_settings().state_dir, device, side, epochs[-1].seconds / count)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
