"""How large and how long the study's runs may be, and a clock that a kill does not set back."""

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from busi_core.errors import TrainingError
from busi_core.files import write_atomically

CLOCK_FILE = "clock.json"
LEAK_SHARE = 0.55  # of the hours: the figure that no paper gives comes first


@dataclass(frozen=True)
class Budget:
    """Attributes:
    name: 'full' as printed, for a GPU; 'cpu' smaller and capped.
    size: Side of the input in pixels; None as printed.
    epochs: At most so many a stage; None as printed.
    hours: Wall-clock of the whole study; None without end.
    precision: Of training; None as the recipe has it.
    """

    name: str
    size: int | None
    epochs: int | None
    hours: float | None
    precision: str | None

    def __post_init__(self) -> None:
        if self.size is not None and (self.size < 32 or self.size % 32):
            raise TrainingError(f"{self.size} px cannot be a side.", remedy="Use a multiple of 32, as --size 128.")
        if self.epochs is not None and self.epochs < 1:
            raise TrainingError(f"{self.epochs} epochs are none.", remedy="Use --epochs 1 or more.")
        if self.hours is not None and not self.hours > 0:
            raise TrainingError(f"{self.hours} hours are none.", remedy="Use --hours above 0.")

    def leak_seconds(self, runs: int) -> float | None:
        """Cap of one run of the leak experiment when there are so many."""
        return None if self.hours is None else self.hours * 3600 * LEAK_SHARE / runs

    def recipe_seconds(self, runs: int) -> float | None:
        """Cap of one recipe's run."""
        return None if self.hours is None else self.hours * 3600 * (1 - LEAK_SHARE) / runs


BUDGETS = {
    "full": Budget("full", None, None, None, None),
    "cpu": Budget("cpu", 128, 30, 3.0, "bf16"),
}


class Clock:
    """Seconds that a run has had, over all its resumptions; kept in its folder after every epoch.

    `is_over` is what `training.loop.fit` asks. A run of several stages gives each its share of the time.
    """

    def __init__(self, folder: Path, *, cap: float | None, whole: "Clock | None" = None) -> None:
        self._path = folder / CLOCK_FILE
        self._cap, self._whole = cap, whole
        try:
            self._before = float(json.loads(self._path.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            self._before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return self._before + time.monotonic() - self._started

    def keep(self) -> None:
        """Write the time down."""
        write_atomically(self._path, json.dumps({"seconds": self.seconds}).encode())
        if self._whole:
            self._whole.keep()

    def is_over(self, share: float = 1.0) -> bool:
        """Whether this share of the cap is used up, or the whole study's time is."""
        spent = self._cap is not None and self.seconds >= self._cap * share
        return spent or (self._whole is not None and self._whole.is_over())


def describe_hardware() -> str:
    """What the runs were made on, as in '2 CPU cores (x86_64)' or a GPU's name."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
