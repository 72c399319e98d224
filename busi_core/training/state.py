"""Where a run stands, on disk after every epoch: tensors as safetensors, the rest as JSON in its header.

No pickle is written or read. The file is replaced atomically; a kill leaves the last whole epoch. Beside it lie the
options of the run (config.json) and what it learns from (data.json): it goes on with the same ones alone.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from busi_core.data.splits import Kept
from busi_core.errors import TrainingError
from busi_core.files import write_atomically
from busi_core.training.config import TrainingConfig

CHECKPOINT_FILE = "checkpoint.safetensors"
BEST_FILE = "best.safetensors"
CONFIG_FILE = "config.json"
DATA_FILE = "data.json"


DATA_WORDS = {  # fields of `RunData`, for a person
    "data_sets": "data sets",
    "test_fold": "test fold",
    "validation_fold": "validation fold",
    "siblings": "siblings",
    "train": "scans to learn from",
    "validation": "scans to choose by",
}


@dataclass
class Progress:
    """How far a run has come; the numbers of its checkpoint."""

    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0


@dataclass(frozen=True)
class RunData:
    """What a run learns from and is kept from; of two equal ones neither taught a test scan of the other.

    Attributes:
        data_sets: Their names, sorted.
        test_fold: BUSI fold that stays closed; None for none.
        validation_fold: What validates in the public sets, as it was asked for.
        siblings: Versions that choose where nothing validates, sorted.
        train: `digest_ids` of what it learns from.
        validation: `digest_ids` of what chooses its epoch and its cut-off.
    """

    data_sets: tuple[str, ...]
    test_fold: int | None
    validation_fold: Kept
    siblings: tuple[str, ...]
    train: str
    validation: str


def digest_ids(ids: Iterable[str]) -> str:
    """SHA-256 of these ids, in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def keep_data(folder: Path, data: RunData) -> None:
    """Write down what a run that begins now learns from.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_atomically(folder / DATA_FILE, json.dumps(asdict(data), indent=1).encode())


def require_same_data(folder: Path, data: RunData) -> None:
    """Refuse to go on with other data than a run was started with: scans kept for its test would have taught it.

    Nothing is compared for a run from before this was written down.

    Raises:
        TrainingError: Some of it differs, or what was written down cannot be read.
    """
    try:
        before: dict[str, Any] = dict(json.loads((folder / DATA_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(
            f"What the run in {folder.name!r} learns from cannot be read any more ({DATA_FILE}).",
            remedy="Start another run in another folder.",
        ) from error
    now = json.loads(json.dumps(asdict(data)))
    changed = [DATA_WORDS[name] for name, value in now.items() if before.get(name, value) != value]
    if changed:
        raise TrainingError(
            f"The run in {folder.name!r} was started with other data: {', '.join(changed)}.",
            remedy="Go on with the same data sets, folds and siblings, or start another run in another folder.",
        )


def require_same_config(folder: Path, config: TrainingConfig) -> None:
    """Refuse to go on with other options than a run was started with: its card would name what did not make it.

    Raises:
        TrainingError: Some option differs.
    """
    try:
        before = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # nothing to compare with; `load_state` says whether there is anything to go on from
    now = json.loads(json.dumps(asdict(config)))
    changed = [name for name, value in now.items() if not _agrees(before.get(name, value), value)]
    if changed:
        raise TrainingError(
            f"The run in {folder.name!r} was started with other options: {', '.join(changed)}.",
            remedy="Go on with the same ones, or start another run in another folder.",
        )


def _agrees(before: object, now: object) -> bool:
    """Whether two values of a configuration are the same; what an older one does not name yet is its default."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(_agrees(before.get(name, value), value) for name, value in now.items())
    return before == now


def save_state(folder: Path, network: nn.Module, average: AveragedModel, optimizer: Optimizer, at: Progress) -> None:
    """Write weights, moving average, optimiser and random state of a run."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    progress = json.dumps({**asdict(at), "sha256": _checksum(whole, at)})
    write_atomically(folder / CHECKPOINT_FILE, save(whole, {"progress": progress}))


def load_state(folder: Path, network: nn.Module, average: AveragedModel, optimizer: Optimizer) -> Progress:
    """Put a run back where its last checkpoint left it, in place.

    Raises:
        TrainingError: There is no checkpoint, it is damaged, or belongs to another network.
    """
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}, "random": {}}
    try:
        tensors, progress = _read_whole(folder / CHECKPOINT_FILE)
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            parts[part][rest] = value
        network.load_state_dict(parts["network"])
        average.load_state_dict(parts["average"])
        optimizer.load_state_dict(
            {
                "state": _read_moments(parts["optimizer"], optimizer),
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )
        torch.set_rng_state(parts["random"]["cpu"])
        if torch.cuda.is_available() and "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"])
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"The run in {folder.name!r} cannot be resumed: its checkpoint is missing, damaged or of another network.",
            remedy="Start it again from the beginning.",
        ) from error
    return progress


def _read_whole(path: Path) -> tuple[dict[str, Tensor], Progress]:
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["progress"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no dictionary)
    written = content.pop("sha256", None)
    progress = Progress(**content)
    if written not in (None, _checksum(tensors, progress)):
        raise ValueError("the checksum is wrong")
    return tensors, progress


def _read_moments(stored: Mapping[str, Tensor], optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
    """The optimiser's moments, each laid out in memory as its parameter is.

    A fused AdamW walks over both in the order of memory: plain moments beside a channels-last parameter would be
    applied to the wrong weights without an error.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        laid_out = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        states.setdefault(int(index), {})[name] = laid_out
    return states


def _checksum(tensors: Mapping[str, Tensor], at: Progress) -> str:
    """SHA-256 over progress, names and numbers; safetensors would load a flipped bit in silence."""
    digest = hashlib.sha256(json.dumps(asdict(at)).encode())
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].numpy().tobytes())
    return digest.hexdigest()
