"""The log of a run, one JSON line an epoch; read by screens that need no network.

log.jsonl is replaced as a whole after every epoch, before the checkpoint.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

LOG_FILE = "log.jsonl"


@dataclass(frozen=True)
class Epoch:
    """One line of the log."""

    epoch: int
    loss: float
    dice: float  # validation, lesion images, at a threshold of 0.5
    normals_with_mask: float  # validation, share
    macro_f1: float  # validation
    score: float  # what the best epoch is chosen by
    seconds: float
    seconds_left: float

    def describe(self, epochs: int) -> str:
        """The line that a person reads while it runs; `epochs` is how many there will be at most.

        What cannot be is left out: normals where none are chosen by, macro-F1 of a network that gives no class, all
        three where nothing is chosen by.
        """
        said = [f"epoch {self.epoch}/{epochs}", f"loss {self.loss:.3f}"]
        if not math.isnan(self.dice):
            said.append(f"validation Dice {self.dice:.3f}")
        if not math.isnan(self.normals_with_mask):
            said.append(f"normals with a mask {self.normals_with_mask:.0%}")
        if not math.isnan(self.macro_f1):
            said.append(f"macro-F1 {self.macro_f1:.3f}")
        return "  ".join([*said, f"{self.seconds_left / 60:.0f} min left"])


def read_epochs(run: Path) -> list[Epoch]:
    """The epochs that a run has finished so far; empty before the first, and a damaged line ends the list."""
    epochs: list[Epoch] = []
    try:
        lines = (run / LOG_FILE).read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            epochs.append(Epoch(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return epochs
