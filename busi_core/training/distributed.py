"""Several processes that train one network together, a GPU each: torchrun sets WORLD_SIZE, and this joins them.

    torchrun --nproc-per-node 4 --no-python -- busi train 2026.12-a     (without -- torchrun takes --start for its own)

The batch stays as large as configured and is dealt out; gradients are averaged by DistributedDataParallel, so the run
is that of one process but for rounding. On GPUs batch normalisation looks at the whole batch (SyncBatchNorm, in timm's
form, which keeps the activation that its layers carry). PyTorch has none for the CPU: there each process normalises by
its own share, and the curves differ by that (docs/adr/0010). Everything on a disk is written by the first process.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from busi_core.errors import TrainingError
from busi_core.models.interface import Network

PATIENCE = timedelta(minutes=30)  # the others wait while the first reads scans, validates or writes


@dataclass(frozen=True)
class Group:
    """The processes that train together; rank 0 of size 1 when there is but this one."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, indices: Tensor) -> Tensor:
        """This process's part of a batch."""
        return indices[self.rank :: self.size]

    def mean(self, value: Tensor) -> float:
        """The average over all processes of a number that each has."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.size
        return float(value)

    def from_first(self, values: Sequence[float] | None) -> list[float]:
        """The first process's numbers, for all; the others hand in None."""
        if self.size == 1:
            return list(values or ())
        carried = [values]
        dist.broadcast_object_list(carried, src=0)
        return list(carried[0] or ())

    def decides(self, ask: Callable[[], bool]) -> bool:
        """The first process's answer, for all."""
        return bool(self.from_first([float(ask())] if self.writes else None)[0])

    def wait(self) -> None:
        """Until every process has come this far: what the first has written lies there for all."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, network: Network, device: torch.device) -> nn.Module:
        """The network to run in training; its parameters stay those of `network`."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def synchronise_norms(self, network: Network, device: torch.device) -> Network:
        """Let batch normalisation see the whole batch, where the device can; weights keep their names."""
        if self.size == 1 or device.type != "cuda":
            return network
        converted: Network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted

    def require_shares(self, batch_size: int) -> None:
        """Refuse a batch that cannot be dealt out evenly, two images a process at least.

        Raises:
            TrainingError: It cannot.
        """
        if batch_size % self.size or batch_size // self.size < 2:
            raise TrainingError(
                f"A batch of {batch_size} images cannot be dealt out to {self.size} processes.",
                remedy=f"Choose a --batch-size that {self.size} divides, with two images a process at least.",
            )


def current_group() -> Group:
    """The group that `join_group` made; this process alone without it."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group()


@contextmanager
def join_group() -> Iterator[Group]:
    """Join the processes that torchrun started; without torchrun there is but this one.

    Raises:
        TrainingError: The others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Group()
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise TrainingError(
            "The processes of this training could not find each other.",
            remedy="Start them with torchrun, and leave its variables as they are.",
        ) from error
    try:
        yield current_group()
    finally:
        dist.destroy_process_group()


def choose_training_device() -> torch.device:
    """The GPU of this process, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
