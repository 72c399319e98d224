"""One training step: forward pass, loss, backward pass, clipping, update; on a GPU replayed as one CUDA graph.

A step of a network of a hundred layers is some thousand kernels, and starting them one by one from Python takes longer
than a fast card needs to run them. They are recorded once and then started together (PyTorch's notes on CUDA semantics,
"Whole-network capture"). That asks for batches of one shape, and for a network and losses that never wait for the card.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from busi_core.models.interface import Network
from busi_core.training.config import TrainingConfig
from busi_core.training.losses import CLASS_LOSSES, MASK_LOSSES, imitation_loss

GRADIENT_NORM = 5.0
WARM_UP = 3  # passes before recording, in which libraries choose their kernels and take their memory

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]  # images, masks, labels, a factor on the class loss


class TrainStep:
    """Moves the weights by one batch.

    Args:
        network: In training mode whenever it is called.
        optimizer: Over its parameters.
        class_weights: (classes,) of the class loss, on the device.
        config: Losses, precision.
        teachers: Frozen networks whose joint answer counts as well.
        may_record: False where hooks are to see every pass.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        class_weights: Tensor,
        config: TrainingConfig,
        teachers: Sequence[Network] = (),
        *,
        may_record: bool = True,
    ) -> None:
        self._network, self._optimizer, self._weights = network, optimizer, class_weights
        self._config, self._teachers = config, teachers
        is_alone = not isinstance(network, DistributedDataParallel)
        self._is_recorded = may_record and is_alone and class_weights.device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch
        self._loss: Tensor

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of the batch, before the update; a number that the next call overwrites on a GPU."""
        if not self._is_recorded:
            loss = self._find_gradients(batch)
        else:
            graph = self._graph or self._record(batch)
            for place, given in zip(self._batch, batch, strict=True):
                place.copy_(given)
            graph.replay()
            loss = self._loss
        self._optimizer.step()
        return loss

    def _find_gradients(self, batch: Batch) -> Tensor:
        images, masks, labels, share = batch
        config = self._config
        with autocast(config, images.device):
            outputs = self._network(images)
        loss = MASK_LOSSES[config.mask_loss](outputs.mask_logits.float(), masks)
        if config.class_weight and outputs.class_logits is not None:
            class_loss = CLASS_LOSSES[config.class_loss](outputs.class_logits.float(), labels, self._weights)
            loss = loss + config.class_weight * share * class_loss
        if self._teachers:
            with torch.no_grad(), autocast(config, images.device):
                answers = [teacher(images) for teacher in self._teachers]
            imitation = imitation_loss(outputs, answers, config.class_weight)
            loss = (1 - config.teacher_share) * loss + config.teacher_share * imitation
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_NORM)
        return loss.detach()

    def _record(self, batch: Batch) -> torch.cuda.CUDAGraph:
        """Record the passes; the warm-up leaves running statistics and random numbers as they were."""
        images, masks, labels, share = batch
        self._batch = images.clone(), masks.clone(), labels.clone(), share.clone()
        buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        random = torch.cuda.get_rng_state()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                self._find_gradients(self._batch)
        torch.cuda.current_stream().wait_stream(beside)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.cuda.set_rng_state(random)
        self._optimizer.zero_grad(set_to_none=True)  # the graph's own memory is to hold the gradients
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._loss = self._find_gradients(self._batch)
        self._graph = graph
        return graph


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """The context in which a pass runs in the configured precision, where the device calculates in it."""
    enabled = config.precision == "bf16" and computes_in_bf16(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 saves time there: on every GPU, and on processors for which PyTorch hands it to oneDNN.

    On others (AVX2 only) PyTorch falls back to loops of its own, eight times slower than fp32 (docs/experiments.md).
    """
    if device.type != "cpu":
        return True
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_library and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
