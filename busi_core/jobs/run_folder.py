"""The files of one run, which worker, training child and screen share: state/runs/<job id>/.

order.json     what the child shall do          status.json    what it does now: phase, device, memory
log.jsonl      one line an epoch                train.log      what it said
examples/      its predictions on fixed validation scans, a picture each time it got better
checkpoint.safetensors, best.safetensors, config.json, data.json   of `busi_core.training`
lock           held by who trains, a child or `busi train`: a second one waits or is refused
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from busi_core.errors import JobError
from busi_core.files import write_atomically
from busi_core.jobs.spec import Job, JobSpec
from busi_core.training.log import Epoch, read_epochs

ORDER_FILE = "order.json"
STATUS_FILE = "status.json"
TEXT_FILE = "train.log"
EXAMPLES_DIR = "examples"
LOCK_FILE = "lock"
TAIL_BYTES = 8_000  # of the log that a screen shows


@dataclass(frozen=True)
class Order:
    """What a training child is told: the job, and who and where it is."""

    job: str
    attempt: int
    who: str
    spec: JobSpec

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `from_json` reads them."""
        return {**asdict(self), "spec": self.spec.as_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Order":
        """Read `as_json` back."""
        spec = JobSpec.from_json(content["spec"])
        return cls(str(content["job"]), int(content["attempt"]), str(content["who"]), spec)


@dataclass(frozen=True)
class Status:
    """What a training child does now.

    Attributes:
        phase: 'reading scans', 'training', 'making the version'.
        device: 'cpu', 'cuda:0', ...
        images: Images that an epoch shows; 0 before they are read.
        memory_mb: Largest memory of the process so far.
        gpu_memory_mb: Largest memory on the GPU so far; None without one.
        validation: Images that the best epoch is chosen by; 0 before they are read.
    """

    phase: str
    device: str
    images: int = 0
    memory_mb: float = 0.0
    gpu_memory_mb: float | None = None
    validation: int = 0


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: in a version, or in a problem with what to do about it, in a person's words."""

    done: bool
    problem: str | None = None


def write_order(run: Path, order: Order) -> None:
    """Put down what the child shall do."""
    _write(run / ORDER_FILE, order.as_json())


def read_order(run: Path) -> Order:
    """What the child shall do.

    Raises:
        JobError: The file is missing or damaged.
    """
    try:
        return Order.from_json(json.loads((run / ORDER_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"The order of the run {run.name!r} cannot be read.", remedy="Queue the job again.") from error


def write_status(run: Path, status: Status) -> None:
    """Say what is being done."""
    _write(run / STATUS_FILE, asdict(status))


def read_status(run: Path) -> Status | None:
    """What is being done; None before the first word."""
    try:
        return Status(**json.loads((run / STATUS_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def read_curves(job: Job) -> list[Epoch]:
    """The epochs so far; a line that is being written is left out."""
    return read_epochs(job.run_dir)


def read_text(run: Path) -> str:
    """The end of what the child said."""
    try:
        with (run / TEXT_FILE).open("rb") as file:
            file.seek(max(0, (run / TEXT_FILE).stat().st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def list_examples(run: Path) -> list[tuple[int, Path]]:
    """The pictures of predictions, one a best epoch so far, by epoch."""
    found = [(int(path.stem.split("-")[-1]), path) for path in (run / EXAMPLES_DIR).glob("epoch-*.png")]
    return sorted(found)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1).encode())
