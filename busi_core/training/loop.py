"""The training loop, one page read from top to bottom.

samples -> fit(config) -> best.safetensors (the moving average at its best epoch), log.jsonl, checkpoint
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from busi_core.data.dataset import Samples
from busi_core.errors import TrainingError
from busi_core.files import write_atomically
from busi_core.imaging.preprocess import normalise
from busi_core.metrics.classification import confusion_matrix, macro_f1
from busi_core.models.network import LesionNet, build_network
from busi_core.training.augment import augment
from busi_core.training.config import TrainingConfig
from busi_core.training.losses import balanced_weights, class_loss, mask_loss
from busi_core.training.state import BEST_FILE, LOG_FILE, Progress, load_state, save_state
from busi_core.types import Diagnosis

WARM_UP_SHARE = 0.15  # of all steps, from a tenth of the peak rate
GRADIENT_NORM = 5.0


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


def fit(
    config: TrainingConfig,
    train: Samples,
    validation: Samples,
    folder: Path,
    *,
    initialise: Callable[[LesionNet], None] | None = None,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Progress:
    """Train until the epochs are done or `patience` epochs brought no better score.

    `initialise` puts the first weights into a new network, which otherwise are random.

    Writes into `folder`: best.safetensors, checkpoint.safetensors after every epoch, log.jsonl. With `resume`
    the run goes on from its checkpoint and ends with the weights of an undisturbed run (same machine).

    Raises:
        TrainingError: The loss is not a number (names the images of that batch), there are fewer images than a
            batch, or nothing to resume.
        OutputError: The disk is full; the last checkpoint stays.
    """
    shown = _repeat_normals(train.labels, config.normal_repeats)
    if len(shown) < config.batch_size:
        raise TrainingError(
            f"There are {len(shown)} images to train on, fewer than a batch of {config.batch_size}.",
            remedy="Add scans or lower --batch-size.",
        )
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(config.architecture)
    if initialise and not resume:
        initialise(network)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=_moving_average(config.average_decay), use_buffers=True)
    optimizer = _make_optimizer(network, config)
    progress = load_state(folder, network, average, optimizer) if resume else Progress()
    log = _read_log(folder, until=progress.epoch)

    weights = balanced_weights(train.labels, len(Diagnosis)).to(device)
    steps = config.epochs * (len(shown) // config.batch_size)
    started, first = time.monotonic(), progress.epoch
    while progress.epoch < config.epochs and progress.epoch - progress.best_epoch < config.patience:
        epoch_started = time.monotonic()
        network.train()
        losses: list[float] = []
        for indices in torch.split(shown[torch.randperm(len(shown))], config.batch_size):
            if len(indices) < config.batch_size:
                continue
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * one_cycle(progress.step / steps)
            losses.append(_train_step(network, optimizer, _make_batch(train, indices, config, device), weights, config))
            if not math.isfinite(losses[-1]):
                names = ", ".join(train.ids[index] for index in indices)
                raise TrainingError(
                    f"The loss is not a number in epoch {progress.epoch + 1}, on: {names}.",
                    remedy="Check these images, lower the learning rate or use --precision fp32.",
                )
            average.update_parameters(network)
            progress.step += 1
        progress.epoch += 1

        dice, false_masks, f1 = validate(average, validation, config, device)
        score = (np.nanmean([dice, 1 - false_masks]) + f1) / 2
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = float(score), progress.epoch
            best = {key: value.cpu().contiguous() for key, value in average.module.state_dict().items()}
            write_atomically(folder / BEST_FILE, save(best))
        now = time.monotonic()
        left = (config.epochs - progress.epoch) * (now - started) / (progress.epoch - first)
        line = Epoch(
            progress.epoch, sum(losses) / len(losses), dice, false_masks, f1, float(score), now - epoch_started, left
        )
        log.append(json.dumps(asdict(line)) + "\n")
        write_atomically(folder / LOG_FILE, "".join(log).encode())
        save_state(folder, network, average, optimizer, progress)  # after the log: a kill between repeats the epoch
        if on_epoch:
            on_epoch(line)
    return progress


def one_cycle(done: float) -> float:
    """Factor on the peak learning rate at a share of all steps: up linearly, down by a cosine (Smith 2017)."""
    if done < WARM_UP_SHARE:
        return 0.1 + 0.9 * done / WARM_UP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))) + 1e-3


@torch.no_grad()
def validate(
    network: nn.Module, samples: Samples, config: TrainingConfig, device: torch.device
) -> tuple[float, float, float]:
    """Mean lesion Dice, share of normals with a mask, and macro-F1, at the model's side and a threshold of 0.5."""
    network.eval()
    dice: list[float] = []
    false_masks: list[float] = []
    predicted: list[Tensor] = []
    for indices in torch.split(torch.arange(len(samples)), config.batch_size):
        images = normalise(samples.images[indices].float() / 255, config.preprocess)
        with _autocast(config, device):
            outputs = network(images.to(device, memory_format=torch.channels_last))
        masks = outputs.mask_logits.float().cpu()[:, 0] > 0
        truths = samples.masks[indices][:, 0].bool()
        for mask, truth in zip(masks, truths, strict=True):
            if truth.any():
                dice.append(2 * int((mask & truth).sum()) / int(mask.sum() + truth.sum()))
            else:
                false_masks.append(float(mask.any()))
        predicted.append(outputs.class_logits.float().cpu().argmax(dim=1))
    confusion = confusion_matrix(torch.cat(predicted).numpy(), samples.labels.numpy())
    return _mean(dice), _mean(false_masks), macro_f1(confusion)


def _train_step(
    network: LesionNet,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    class_weights: Tensor,
    config: TrainingConfig,
) -> float:
    images, masks, labels = batch
    with _autocast(config, images.device):
        outputs = network(images)
    loss = mask_loss(outputs.mask_logits.float(), masks)
    loss = loss + config.class_weight * class_loss(outputs.class_logits.float(), labels, class_weights)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
    optimizer.step()
    return float(loss.detach())


def _make_batch(
    samples: Samples, indices: Tensor, config: TrainingConfig, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = [augment(samples.images[index], samples.masks[index]) for index in indices]
    images = normalise(torch.stack([image for image, _ in pairs]), config.preprocess)
    masks = torch.stack([mask for _, mask in pairs])
    return (
        images.to(device, memory_format=torch.channels_last),
        masks.to(device),
        samples.labels[indices].to(device),
    )


def _make_optimizer(network: LesionNet, config: TrainingConfig) -> torch.optim.Optimizer:
    encoder = list(network.encoder.parameters())
    inside = {id(parameter) for parameter in encoder}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    rate = config.learning_rate
    groups = [{"params": encoder, "peak": rate * config.encoder_rate}, {"params": rest, "peak": rate}]
    return torch.optim.AdamW(groups, lr=rate, weight_decay=config.weight_decay, fused=True)


def _repeat_normals(labels: Tensor, repeats: int) -> Tensor:
    """Positions of the samples that an epoch shows, each normal `repeats` times."""
    times = torch.where(labels == list(Diagnosis).index(Diagnosis.NORMAL), repeats, 1)
    return torch.arange(len(labels)).repeat_interleave(times)


def _moving_average(decay: float) -> Callable[..., None]:
    average: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return average


def _autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def _read_log(folder: Path, *, until: int) -> list[str]:
    """The lines of the epochs that the checkpoint holds; what lies beyond, whole or torn, is run again."""
    path = folder / LOG_FILE
    return path.read_text(encoding="utf-8").splitlines(keepends=True)[:until] if path.is_file() else []


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
