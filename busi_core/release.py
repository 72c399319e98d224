"""A finished run -> a model version: temperature and thresholds from validation, card, files.

Everything here is chosen on the validation part, read through the front door, and never on the test part.
"""

import hashlib
import math
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from busi_core.data.records import Record, read_truth
from busi_core.data.splits import Split
from busi_core.errors import ModelUnavailableError, TrainingError
from busi_core.explain.alignment import measure_offset
from busi_core.imaging.decode import decode_image
from busi_core.imaging.preprocess import PreprocessSpec, prepare, upsample
from busi_core.metrics.calibration import fit_temperature, softmax
from busi_core.metrics.classification import threshold_for_sensitivity
from busi_core.metrics.segmentation import count_overlap
from busi_core.models.checkpoint import MalignancyFlag, ModelCard, load_version, save_version
from busi_core.models.network import LesionNet, build_network
from busi_core.models.pretrained import encoder_source, start_encoder
from busi_core.registry import check_version_name
from busi_core.service import Analyser
from busi_core.settings import PROJECT_ROOT
from busi_core.training.config import TrainingConfig
from busi_core.training.state import BEST_FILE, Progress
from busi_core.types import Diagnosis

CUTOFFS = tuple(round(float(cutoff), 2) for cutoff in np.arange(0.2, 0.96, 0.05))
FLAG_SENSITIVITY = 0.95


@dataclass(frozen=True)
class Start:
    """Where a network's first weights come from.

    Attributes:
        initialise: Puts them into a new network; None leaves it random.
        source: Of the encoder's very first weights, with licence.
        trained_on: Records that taught these weights; they count as seen by what grows from them.
    """

    initialise: Callable[[LesionNet], None] | None
    source: str
    trained_on: tuple[str, ...]


def choose_start(config: TrainingConfig, *, encoder_dir: Path, weights_dir: Path) -> Start:
    """What `config.start` asks for: ImageNet weights of the encoder, random weights, or a model version.

    Raises:
        ModelUnavailableError: No such weights or version, or they do not fit the network.
    """
    if config.start == "random":
        return Start(None, "random", ())
    if config.start == "imagenet":
        encoder = config.architecture.encoder
        source = encoder_source(encoder)
        return Start(lambda network: start_encoder(network, encoder, encoder_dir), source, ())
    before, card = load_version(weights_dir / check_version_name(config.start), torch.device("cpu"))
    if card.architecture != config.architecture:
        raise ModelUnavailableError(
            f"The version {config.start!r} has another network than the one to be trained.",
            remedy="Start from a version of the same architecture, or from 'imagenet'.",
        )
    weights = before.state_dict()
    return Start(lambda network: _copy_weights(network, weights), card.encoder_source, card.trained_on)


def release(
    run: Path,
    config: TrainingConfig,
    split: Split,
    progress: Progress,
    *,
    version: str,
    weights_dir: Path,
    description: Mapping[str, Any],
    start: Start,
) -> ModelCard:
    """Make `weights/<version>/` from a run's best weights.

    Args:
        run: Folder with best.safetensors.
        config: What the run was made of.
        split: What it was trained and validated on.
        progress: Where it ended.
        version: Name of the new version.
        weights_dir: Where versions lie.
        description: Further plain values for the card's `training`, such as data sets and test fold.
        start: Where its first weights came from.

    Raises:
        TrainingError: The run has no best weights, or they do not fit.
        OutputError: The version cannot be written.
    """
    try:
        weights = (run / BEST_FILE).read_bytes()
        network = build_network(config.architecture)
        network.load_state_dict(load(weights), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(
            f"The run {run.name!r} has no usable weights.", remedy="Train for at least one epoch first."
        ) from error
    network.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    draft = ModelCard(
        version=version,
        task="lesion-and-class",
        architecture=config.architecture,
        preprocess=config.preprocess,
        temperature=1.0,
        lesion_threshold=0.5,
        malignancy=None,
        heatmap_offset_px=measure_offset(network, _some_inputs(split.validation, config.preprocess)),
        training={
            **description,
            "config": asdict(config),
            "best_epoch": progress.best_epoch,
            "epochs_run": progress.epoch,
            "images": {"train": len(split.train), "validation": len(split.validation)},
        },
        trained_on=tuple(dict.fromkeys([*start.trained_on, *(r.id for r in split.train + split.validation)])),
        encoder_source=start.source,
        commit=_current_commit(),
        created=datetime.now(UTC).date().isoformat(),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    card = _choose(Analyser(network, draft, torch.device("cpu")), draft, split.validation)
    save_version(weights_dir / version, weights, card)
    return card


def _some_inputs(records: Sequence[Record], spec: PreprocessSpec) -> list[Tensor]:
    """A dozen prepared scans, evenly from the list."""
    chosen = records[:: max(1, len(records) // 12)]
    return [prepare(decode_image(record.image.read_bytes()).grey, spec)[0] for record in chosen]


def _copy_weights(network: LesionNet, weights: Mapping[str, Tensor]) -> None:
    network.load_state_dict(weights, strict=True)


def _choose(analyser: Analyser, draft: ModelCard, validation: Sequence[Record]) -> ModelCard:
    """Fill in temperature, lesion threshold and malignancy flag from the validation part."""
    overlaps: list[list[float]] = []
    scores: list[list[float]] = []
    for record in validation:
        analysis = analyser.analyse(record.image.read_bytes())
        image, prediction = analysis.image, analysis.prediction
        truth = read_truth(record, image.height, image.width)
        probability = upsample(prediction.lesion_probability, image.height, image.width)
        overlaps.append([_overlap(probability >= cutoff, truth) for cutoff in CUTOFFS])
        scores.append([(prediction.probabilities or {}).get(diagnosis, math.nan) for diagnosis in Diagnosis])
    truths = np.array([list(Diagnosis).index(record.diagnosis) for record in validation])
    logits = np.log(np.clip(np.array(scores), 1e-12, 1))
    temperature = fit_temperature(logits, truths)
    malignant = list(Diagnosis).index(Diagnosis.MALIGNANT)
    point = threshold_for_sensitivity(softmax(logits, temperature)[:, malignant], truths == malignant, FLAG_SENSITIVITY)
    return replace(
        draft,
        temperature=temperature,
        lesion_threshold=_best_cutoff(np.array(overlaps), truths == list(Diagnosis).index(Diagnosis.NORMAL)),
        malignancy=MalignancyFlag(point.threshold, point.sensitivity, point.specificity, len(validation)),
    )


def _overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice; for a normal 1 when nothing is outlined, else 0."""
    if not truth.any():
        return float(not mask.any())
    return count_overlap(mask, truth).dice


def _best_cutoff(overlaps: NDArray[np.float64], normal: NDArray[np.bool_]) -> float:
    """The cut-off with the best mean of lesion Dice and share of clean normals, both weighing the same as in
    the validation part of BUSI: one normal in eight scans."""
    lesions = overlaps[~normal].mean(axis=0)
    clean = overlaps[normal].mean(axis=0) if normal.any() else np.zeros_like(lesions)
    return CUTOFFS[int((7 * lesions + clean).argmax())]


def _current_commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607  (git of the user's path)
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
