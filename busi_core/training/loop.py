"""The training loop, one page read from top to bottom.

samples -> fit(config) -> best.safetensors (the moving average at its best epoch), log.jsonl, checkpoint
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

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
from busi_core.models.interface import Network, lesion_logits
from busi_core.models.network import LesionNet, build_network
from busi_core.training.augment import AUGMENTATIONS
from busi_core.training.config import TrainingConfig
from busi_core.training.distributed import Group, choose_training_device, current_group
from busi_core.training.log import LOG_FILE, Epoch
from busi_core.training.losses import balanced_weights
from busi_core.training.paste import Pasting
from busi_core.training.state import BEST_FILE, Progress, load_state, save_state
from busi_core.training.step import Batch, TrainStep, autocast
from busi_core.types import Diagnosis

WARM_UP_SHARE = 0.15  # of all steps, from a tenth of the peak rate
DECAY_AN_EPOCH = 0.96  # of the exponential schedule
NOTHING_SCORED = (math.nan, math.nan, math.nan)  # Dice, share of normals with a mask, macro-F1


Judge: TypeAlias = Callable[[nn.Module, Samples, TrainingConfig, torch.device], tuple[float, float, float]]


def fit(
    config: TrainingConfig,
    train: Samples,
    validation: Samples,
    folder: Path,
    *,
    initialise: Callable[[Network], None] | None = None,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    is_over: Callable[[], bool] | None = None,
    judge: Judge | None = None,
    teachers: Sequence[Network] = (),
) -> Progress:
    """Train until the epochs are done or `patience` epochs brought no better score.

    `initialise` puts the first weights into a new network, which otherwise are random. `is_over` is asked before each
    epoch but the first: when it says so the run ends there in good order. `judge` scores the network on the validation
    part in place of `validate`. `teachers` are the frozen networks that `config.teachers` names. Where the last epoch
    is kept the validation part may be empty: then nothing is scored.

    Writes into `folder`: best.safetensors, checkpoint.safetensors after every epoch, log.jsonl. With `resume`
    the run goes on from its checkpoint and ends with the weights of an undisturbed run (same machine).
    Under `join_group` the batches are dealt out to several processes; all return the same, the first one writes.

    Raises:
        TrainingError: The loss is not a number (names the images of that batch), there are fewer images than a
            batch, a batch that the processes cannot share, or nothing to resume.
        OutputError: The disk is full; the last checkpoint stays.
    """
    shown = _choose_shown(train.labels, config)
    if len(shown) < config.batch_size:
        raise TrainingError(
            f"There are {len(shown)} images to train on, fewer than a batch of {config.batch_size}.",
            remedy="Add scans or lower --batch-size.",
        )
    group, device = current_group(), choose_training_device()
    group.require_shares(config.batch_size)
    torch.manual_seed(config.seed)
    network = build_network(config.architecture)
    if initialise and not resume:
        initialise(network)
    network = group.synchronise_norms(network, device)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen = _freeze_others(network, config.trains)
    parallel = group.wrap(network, device)
    teachers = [teacher.to(device, memory_format=torch.channels_last) for teacher in teachers]  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=_moving_average(config.average_decay), use_buffers=True)
    optimizer = _make_optimizer(network, config)
    progress = load_state(folder, network, average, optimizer) if resume else Progress()
    log = _read_log(folder, until=progress.epoch)

    weights = balanced_weights(train.labels, len(Diagnosis)).to(device)
    pasting = Pasting(train, config.pasted_share)
    step = TrainStep(parallel, optimizer, weights, config, teachers)
    steps = config.epochs * (len(shown) // config.batch_size)
    started, first = time.monotonic(), progress.epoch
    while progress.epoch < config.epochs and progress.epoch - progress.best_epoch < config.patience:
        if progress.epoch and is_over and group.decides(is_over):
            break
        epoch_started = time.monotonic()
        parallel.train()
        for part in frozen:
            part.eval()
        losses: list[float] = []
        for indices in torch.split(shown[torch.randperm(len(shown))], config.batch_size):
            if len(indices) < config.batch_size:
                continue
            for parameters in optimizer.param_groups:
                parameters["lr"] = parameters["peak"] * SCHEDULES[config.schedule](
                    progress.step / steps, progress.epoch
                )
            batch = make_batch(pasting, indices, weights, group, config, device)
            losses.append(group.mean(step(batch)))
            if not math.isfinite(losses[-1]):
                names = ", ".join(train.ids[index] for index in indices)
                raise TrainingError(
                    f"The loss is not a number in epoch {progress.epoch + 1}, on: {names}.",
                    remedy="Check these images, lower the learning rate or use --precision fp32.",
                )
            average.update_parameters(network)
            progress.step += 1
        progress.epoch += 1

        figures = None
        if group.writes:
            figures = (judge or validate)(average, validation, config, device) if len(validation) else NOTHING_SCORED
        dice, false_masks, f1 = group.from_first(figures)
        score = np.nanmean([dice, 1 - false_masks]) if len(validation) else 0.0
        if config.class_weight and not math.isnan(f1):
            score = (score + f1) / 2
        finds_nothing_yet = score == progress.best_score == 0  # no plateau: patience has not begun
        if score > progress.best_score or finds_nothing_yet or config.keeps == "last":
            progress.best_score, progress.best_epoch = float(score), progress.epoch
            if group.writes:
                best = {key: value.cpu().contiguous() for key, value in average.module.state_dict().items()}
                write_atomically(folder / BEST_FILE, save(best))
        now = time.monotonic()
        left = (config.epochs - progress.epoch) * (now - started) / (progress.epoch - first)
        line = Epoch(
            progress.epoch, sum(losses) / len(losses), dice, false_masks, f1, float(score), now - epoch_started, left
        )
        log.append(json.dumps(asdict(line)) + "\n")
        if group.writes:
            write_atomically(folder / LOG_FILE, "".join(log).encode())
            save_state(folder, network, average, optimizer, progress)  # after the log: a kill between repeats the epoch
            if on_epoch:
                on_epoch(line)
    return progress


SCHEDULES: dict[str, Callable[[float, int], float]] = {  # share of all steps done, epochs done -> factor on the rate
    "one-cycle": lambda done, _: one_cycle(done),
    "constant": lambda *_: 1.0,
    "exponential": lambda _, epochs: DECAY_AN_EPOCH**epochs,
}


def one_cycle(done: float) -> float:
    """Factor on the peak learning rate at a share of all steps: up linearly, down by a cosine (Smith 2017)."""
    if done < WARM_UP_SHARE:
        return 0.1 + 0.9 * done / WARM_UP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))) + 1e-3


@torch.no_grad()
def validate(
    network: nn.Module, samples: Samples, config: TrainingConfig, device: torch.device
) -> tuple[float, float, float]:
    """Mean lesion Dice, share of normals with a mask, and macro-F1, at the model's side and a threshold of 0.5.

    NaN for what is not there: macro-F1 of a network that gives no class, a share of no normals.
    """
    network.eval()
    dice: list[float] = []
    false_masks: list[float] = []
    predicted: list[Tensor] = []
    for indices in torch.split(torch.arange(len(samples)), config.batch_size):
        images = normalise(samples.images[indices].float() / 255, config.preprocess)
        with autocast(config, device):
            outputs = network(images.to(device, memory_format=torch.channels_last))
        masks = lesion_logits(outputs.mask_logits.float()).cpu()[:, 0] > 0
        truths = samples.masks[indices][:, 0].bool()
        for mask, truth in zip(masks, truths, strict=True):
            if truth.any():
                dice.append(2 * int((mask & truth).sum()) / int(mask.sum() + truth.sum()))
            else:
                false_masks.append(float(mask.any()))
        if outputs.class_logits is not None:
            predicted.append(outputs.class_logits.float().cpu().argmax(dim=1))
    f1 = math.nan
    if predicted:
        f1 = macro_f1(confusion_matrix(torch.cat(predicted).numpy(), samples.labels.numpy()))
    return _mean(dice), _mean(false_masks), f1


def make_batch(
    pasting: Pasting, indices: Tensor, class_weights: Tensor, group: Group, config: TrainingConfig, device: torch.device
) -> Batch:
    """This process's share of a batch: images, masks, labels, and a factor on its class loss, which is a weighted
    average: with it the average over the processes is that of the whole batch. 1 for one process, and for a loss that
    weighs every image alike."""
    seeds = torch.randint(2**62, (len(indices),))  # one an image: what it looks like does not depend on who draws it
    lesions = pasting.choose(indices, seeds)
    all_labels = pasting.labels(indices, lesions)
    images, masks = AUGMENTATIONS[config.augmentation](
        *pasting.paste(group.share(indices), group.share(lesions)), group.share(seeds), device
    )
    labels = group.share(all_labels).to(device)
    share = torch.ones((), device=device)
    if config.class_loss == "balanced":
        whole = class_weights[all_labels.to(device)].sum()
        share = class_weights[labels].sum() * group.size / whole
    images = normalise(images, config.preprocess).contiguous(memory_format=torch.channels_last)
    return images, masks, labels, share


def _make_optimizer(network: Network, config: TrainingConfig) -> torch.optim.Optimizer:
    """Two groups for a network with an encoder of its own, else one, of what learns."""
    rate = config.learning_rate
    encoder = list(network.encoder.parameters()) if isinstance(network, LesionNet) else []
    inside = {id(parameter) for parameter in encoder}
    rest = [p for p in network.parameters() if id(p) not in inside and p.requires_grad]
    groups = [{"params": encoder, "peak": rate * config.encoder_rate}] if encoder else []
    groups.append({"params": rest, "peak": rate})
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, weight_decay=config.weight_decay, fused=True)


def _freeze_others(network: Network, trains: str) -> list[nn.Module]:
    """Let one part of the network learn and return the others, which stay in eval mode; none for 'all'."""
    if trains == "all":
        return []
    others = [child for name, child in network.named_children() if name != trains]
    for child in others:
        child.requires_grad_(False)
    return others


def _choose_shown(labels: Tensor, config: TrainingConfig) -> Tensor:
    """Positions of the samples that an epoch shows; those of rare classes several times where the recipe says so."""
    shown = _repeat_normals(labels, config.normal_repeats)
    if not config.balance:
        return shown
    of_class = [shown[labels[shown] == column] for column in torch.bincount(labels).nonzero()[:, 0]]
    most = max(len(indices) for indices in of_class)
    return torch.cat([indices.repeat(-(-most // len(indices)))[:most] for indices in of_class])


def _repeat_normals(labels: Tensor, repeats: int) -> Tensor:
    """Positions of the samples that an epoch shows, each normal `repeats` times."""
    times = torch.where(labels == list(Diagnosis).index(Diagnosis.NORMAL), repeats, 1)
    return torch.arange(len(labels)).repeat_interleave(times)


def _moving_average(decay: float) -> Callable[..., None]:
    average: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return average


def _read_log(folder: Path, *, until: int) -> list[str]:
    """The lines of the epochs that the checkpoint holds; what lies beyond, whole or torn, is run again."""
    path = folder / LOG_FILE
    return path.read_text(encoding="utf-8").splitlines(keepends=True)[:until] if path.is_file() else []


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
