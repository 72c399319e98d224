"""The tissue recipe: tiles of BCSS, or of the generator where it is not at hand -> figures of each class.

    tiles --fit--> weights --predict--> confusion matrix (21, 21) of pixels --> precision, recall, F1, IoU of a class

Its version carries the task 'tissue' and is never served. On simulated tiles the figures say that the network learns,
and nothing about tissue; every row says so.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from busi_core.data.bcss import CLASSES, TissueRecord, load_tiles, read_bcss, simulate_tiles
from busi_core.data.dataset import Samples
from busi_core.errors import DatasetError
from busi_core.imaging.preprocess import normalise
from busi_core.metrics.bootstrap import Interval, bootstrap_interval
from busi_core.models.checkpoint import save_version
from busi_core.models.interface import Network
from busi_core.models.network import build_network
from busi_core.recipe_run import has_started, train_stages
from busi_core.recipes.recipe import Recipe
from busi_core.study.budget import Clock, describe_hardware
from busi_core.study.runs import Finished, begin, name_data, plain_card, read_curve, write_finished
from busi_core.training.config import TrainingConfig
from busi_core.training.log import Epoch
from busi_core.training.state import BEST_FILE, RunData

SIMULATED = "tiles made by a generator: says nothing about tissue"
SIMULATED_COUNTS = (160, 32, 48)  # to train on, to choose by, to test on
SHARES = (0.70, 0.15)  # of the patients, to train on and to choose by; the rest is the test
TUMOUR = 1
Matrix = NDArray[np.int64]  # (classes, classes), rows the truth, columns the prediction


def pixel_confusion(predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> Matrix:
    """Count pixels by true and predicted class."""
    cells = truth.ravel() * CLASSES + predicted.ravel()
    return np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES).astype(np.int64)


def class_table(matrix: Matrix) -> dict[str, NDArray[np.float64]]:
    """Precision, recall, F1 and IoU of each class, (classes,) each, NaN where a class is neither true nor predicted."""
    right = matrix.diagonal().astype(np.float64)
    named, true = matrix.sum(axis=0), matrix.sum(axis=1)

    def ratio(part: NDArray[np.float64], whole: NDArray[Any]) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), math.nan), where=whole > 0)
        return shares

    return {
        "precision": ratio(right, named),
        "recall": ratio(right, true),
        "F1": ratio(2 * right, named + true),
        "IoU": ratio(right, named + true - right),
    }


@torch.no_grad()
def confuse_tiles(network: nn.Module, samples: Samples, config: TrainingConfig) -> list[Matrix]:
    """One confusion matrix a tile."""
    network.eval()
    device = next(network.parameters()).device
    matrices: list[Matrix] = []
    for indices in torch.split(torch.arange(len(samples)), config.batch_size):
        images = normalise(samples.images[indices].float() / 255, config.preprocess)
        logits: Tensor = network(images.to(device, memory_format=torch.channels_last)).mask_logits
        for predicted, truth in zip(logits.argmax(dim=1).cpu().numpy(), samples.masks[indices, 0].numpy(), strict=True):
            matrices.append(pixel_confusion(predicted, truth.astype(np.int64)))
    return matrices


def judge_tissue(
    network: nn.Module, samples: Samples, config: TrainingConfig, device: torch.device
) -> tuple[float, float, float]:
    """What chooses the epoch: mean F1 over the classes that are there; nothing else is defined for tissue."""
    del device
    table = class_table(np.sum(confuse_tiles(network, samples, config), axis=0))
    return float(np.nanmean(table["F1"])), math.nan, math.nan


def deal_regions(folder: Path) -> list[list[TissueRecord]]:
    """Regions of BCSS to train on, to choose by and to test on; no patient is in two parts.

    Raises:
        DatasetError: The folder is not sound, or holds fewer than three patients.
    """
    records = read_bcss(folder)
    patients = sorted({record.patient for record in records})
    if len(patients) < 3:
        raise DatasetError(
            f"{folder} holds {len(patients)} patients; three parts need three.", remedy="Use the whole data set."
        )
    order = np.random.default_rng(0).permutation(len(patients))
    edges = [max(1, round(sum(SHARES[: n + 1]) * len(patients))) for n in range(len(SHARES))]
    edges[0] = min(edges[0], len(patients) - 2)  # one at least to choose by, one for the test
    edges[1] = min(max(edges[1], edges[0] + 1), len(patients) - 1)
    parts = np.split(order, edges)
    chosen = [{patients[index] for index in part} for part in parts]
    return [[record for record in records if record.patient in part] for part in chosen]


def load_tissue(parts: Sequence[Sequence[TissueRecord]] | None, side: int) -> list[Samples]:
    """Tiles to train on, to choose by and to test on: of the parts of `deal_regions`, or of the generator without them.

    Raises:
        DatasetError: A mask does not fit its image, or no tile fits into a part.
    """
    if parts is None:
        return [simulate_tiles(count, side, seed=seed) for seed, count in enumerate(SIMULATED_COUNTS)]
    return [load_tiles(records, side) for records in parts]


def run_tissue(
    recipe: Recipe, folder: Path, *, clock: Clock, say: Callable[[str], None], data: Path | None = None
) -> Finished:
    """Train on tiles, score the test tiles, and make a version in `folder`/versions that is never served.

    Args:
        recipe: The tissue recipe, scaled.
        folder: Of the run.
        clock: Of the run.
        say: Told a line an epoch.
        data: Folder of BCSS; None makes tiles.

    Raises:
        TrainingError, DatasetError, OutputError: As for any run, and as `begin`.
    """
    parts = None if data is None else deal_regions(data)
    if before := begin(recipe, folder, _name_tissue(parts)):
        return before
    config = recipe.final
    train, validation, test = load_tissue(parts, config.preprocess.side)

    def note(epoch: Epoch) -> None:
        clock.keep()
        say(f"{recipe.name}: epoch {epoch.epoch}/{config.epochs}, loss {epoch.loss:.3f}, mean F1 {epoch.dice:.3f}")

    progress, trained = train_stages(
        recipe,
        lambda _: (train, validation),
        folder,
        resume=has_started(recipe, folder),
        on_epoch=note,
        is_over=lambda _: clock.is_over(),
        judge=judge_tissue,
    )
    weights = (trained / BEST_FILE).read_bytes()
    network = build_network(config.architecture)
    network.load_state_dict(load(weights), strict=True)
    matrices = confuse_tiles(network.to(memory_format=torch.channels_last), test, config)  # type: ignore[call-overload]
    note_text = SIMULATED if data is None else "BCSS"
    _save(recipe, weights, network, folder, note_text, (len(train), len(validation)))
    clock.keep()
    extra = {
        "figures": {
            name: {"estimate": v.estimate, "low": v.low, "high": v.high} for name, v in measure_tiles(matrices).items()
        },
        "tiles": len(test),
        "note": note_text,
        "details": _details(matrices, config.architecture.pixel_classes),
    }
    finished = Finished(
        epochs=progress.epoch,
        epochs_asked=config.epochs,
        side=config.preprocess.side,
        seconds=clock.seconds,
        hardware=describe_hardware(),
        curve=read_curve(trained),
        results=(),
        extra=extra,
    )
    write_finished(folder, finished)
    return finished


def measure_tiles(matrices: Sequence[Matrix]) -> dict[str, Interval]:
    """Accuracy of all pixels, and precision, recall and F1 of tumour, with intervals over tiles."""
    stack = np.stack(matrices)
    groups = np.arange(len(stack))

    def accuracy(indices: NDArray[np.intp]) -> float:
        total = stack[indices].sum(axis=0)
        return float(total.trace() / total.sum())

    def of_tumour(name: str) -> Callable[[NDArray[np.intp]], float]:
        return lambda indices: float(class_table(stack[indices].sum(axis=0))[name][TUMOUR])

    figures = {"pixel accuracy": bootstrap_interval(accuracy, groups)}
    for name in ("precision", "recall", "F1"):
        figures[f"{name} of tumor"] = bootstrap_interval(of_tumour(name), groups)
    return figures


def _name_tissue(parts: Sequence[Sequence[TissueRecord]] | None) -> RunData:
    """What a run learns from: regions of BCSS by name, or the generator."""
    if parts is None:
        return name_data((), (), data_set="simulated tiles", test_fold=None)
    train, validation, _ = ([record.image.stem for record in part] for part in parts)
    return name_data(train, validation, data_set="bcss", test_fold=None)


def _details(matrices: Sequence[Matrix], names: Sequence[str]) -> dict[str, Any]:
    """Per-class figures and the confusion matrix, of the classes that are there."""
    matrix = np.sum(matrices, axis=0)
    table = class_table(matrix)
    present = [n for n in range(len(names)) if matrix[n].sum() or matrix[:, n].sum()]
    return {
        "classes": [names[n] for n in present],
        "confusion": [[int(matrix[row, column]) for column in present] for row in present],
        **{name: [float(values[n]) for n in present] for name, values in table.items()},
    }


def _save(recipe: Recipe, weights: bytes, network: Network, folder: Path, note: str, counts: tuple[int, int]) -> None:
    card = replace(
        plain_card(recipe.name, recipe.final, sha256=hashlib.sha256(weights).hexdigest()),
        task="tissue",
        training={
            "data_sets": ["bcss"],
            "recipe": recipe.name,
            "note": note,
            "config": asdict(recipe.final),
            "images": {"train": counts[0], "validation": counts[1]},
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
        commit="unknown",
        created=datetime.now(UTC).date().isoformat(),
    )
    save_version(folder / "versions" / recipe.name, weights, card)
