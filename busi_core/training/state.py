"""Where a run stands, on disk after every epoch: tensors as safetensors, the rest as JSON in its header.

No pickle is written or read. The file is replaced atomically; a kill leaves the last whole epoch.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from busi_core.errors import TrainingError
from busi_core.files import write_atomically

CHECKPOINT_FILE = "checkpoint.safetensors"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"
CONFIG_FILE = "config.json"


@dataclass
class Progress:
    """How far a run has come; the numbers of its checkpoint."""

    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0


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
    write_atomically(folder / CHECKPOINT_FILE, save(whole, {"progress": json.dumps(asdict(at))}))


def load_state(folder: Path, network: nn.Module, average: AveragedModel, optimizer: Optimizer) -> Progress:
    """Put a run back where its last checkpoint left it, in place.

    Raises:
        TrainingError: There is no checkpoint, it is damaged, or belongs to another network.
    """
    path = folder / CHECKPOINT_FILE
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}, "random": {}}
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            for key in file.keys():  # noqa: SIM118  (safe_open is no dictionary)
                part, _, rest = key.partition(".")
                parts[part][rest] = file.get_tensor(key)
        network.load_state_dict(parts["network"])
        average.load_state_dict(parts["average"])
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            index, _, name = key.partition(".")
            states.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"The run in {folder.name!r} cannot be resumed: its checkpoint is missing, damaged or of another network.",
            remedy="Start it again without --resume.",
        ) from error
    torch.set_rng_state(parts["random"]["cpu"])
    if torch.cuda.is_available() and "cuda" in parts["random"]:
        torch.cuda.set_rng_state(parts["random"]["cuda"])
    return progress
