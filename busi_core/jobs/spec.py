"""What a job is: what was ordered, and where it stands."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

QUEUED, RUNNING, PAUSED, CANCELLED, FAILED, DONE = STATES = (
    *("queued", "running", "paused", "cancelled", "failed", "done"),
)
OPEN_STATES = (QUEUED, RUNNING, PAUSED, FAILED)  # may still become a version; its name is taken
RUNS_DIR = "runs"


@dataclass(frozen=True)
class JobSpec:
    """One order for a new model version. Plain values: it lies as JSON in the database and in the run folder.

    Attributes:
        version: Name of the candidate, a folder under weights/.
        recipe: What it is trained with; 'product' is the one there is.
        data_sets: Ids of managed sets, and 'busi', 'bus-bra' or 'simulated'.
        test_fold: BUSI's fold that stays closed, 0 to 4.
        start: 'in-service', 'imagenet', 'random' or a model version; `submit` puts a version's name for the first.
        epochs: At most; training stops earlier when nothing gets better.
        size: Side of the network's input in pixels, a multiple of 32.
        learning_rate: Peak.
        batch_size: Images a step.
        patience: Epochs without a better score before it stops.
        seed: Of everything random.
    """

    version: str
    recipe: str = "product"
    data_sets: tuple[str, ...] = ("busi", "bus-bra")
    test_fold: int = 0
    start: str = "in-service"
    epochs: int = 20
    size: int = 256
    learning_rate: float = 1e-3
    batch_size: int = 16
    patience: int = 12
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `from_json` reads them."""
        return {**asdict(self), "data_sets": list(self.data_sets)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "JobSpec":
        """Read `as_json` back; values of a newer program that are unknown here are left out."""
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        return cls(**{**known, "data_sets": tuple(known["data_sets"])})


@dataclass(frozen=True)
class Job:
    """Where an order stands.

    Attributes:
        id: Also the name of its run folder.
        spec: What was ordered.
        state: One of `STATES`.
        who: The administrator who ordered it.
        created: When, ISO 8601 in UTC.
        started: When it last began to run; None before.
        ended: When it was paused, cancelled, failed or done; None before.
        problem: Why it failed and what to do about it, in a person's words; None unless it failed.
        device: 'cpu', 'cuda:0', ... while and after it ran; None before.
        run_dir: Its log, checkpoint and pictures.
        attempt: From 1; each resuming is another.
    """

    id: str
    spec: JobSpec
    state: str
    who: str
    created: str
    started: str | None
    ended: str | None
    problem: str | None
    device: str | None
    run_dir: Path
    attempt: int
