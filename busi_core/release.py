"""A finished run -> a model version: temperature and thresholds from validation, card, files.

Everything here is chosen on the validation part, read through the front door, and never on the test part; only what
scans look like (`fit_limits`) is learned from the training part too. A version without a validation part is chosen by
its siblings, which kept one each.
"""

import hashlib
import math
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from busi_core.data.splits import FOLDS, Split, scan_groups
from busi_core.errors import DatasetError, ModelUnavailableError, TrainingError
from busi_core.explain.alignment import measure_offset
from busi_core.imaging.decode import decode_image
from busi_core.imaging.preprocess import PreprocessSpec, prepare_image, upsample
from busi_core.limits import LIMITS_FILE, Limits, write_limits
from busi_core.metrics.calibration import fit_temperature, softmax
from busi_core.metrics.classification import threshold_for_sensitivity
from busi_core.metrics.conformal import measure_nonconformity
from busi_core.metrics.segmentation import count_overlap
from busi_core.models.checkpoint import MalignancyFlag, ModelCard, load_version, save_version
from busi_core.models.familiarity import Description, fit_familiarity, fit_familiarity_across
from busi_core.models.network import LesionNet, Network, build_network
from busi_core.models.pretrained import encoder_source, start_encoder
from busi_core.registry import check_version_name
from busi_core.service import Analyser
from busi_core.settings import PROJECT_ROOT
from busi_core.siblings import Sibling
from busi_core.taught import hash_records, read_taught, write_taught
from busi_core.training.config import TrainingConfig
from busi_core.training.distributed import choose_training_device
from busi_core.training.state import BEST_FILE, Progress
from busi_core.types import Diagnosis

CUTOFFS = tuple(round(float(cutoff), 2) for cutoff in np.arange(0.2, 0.96, 0.05))
SPARED_DICE = 0.005  # half a hundredth: a sixth of what the gate calls no worse
FLAG_SENSITIVITY, FLAG_CONFIDENCE = 0.95, 0.8  # a flag chosen to find 95 % of these very scans finds fewer of others


@dataclass(frozen=True)
class Start:
    """Where a network's first weights come from.

    Attributes:
        initialise: Puts them into a new network; None leaves it random.
        source: Of the encoder's very first weights, with licence.
        trained_on: Records that taught these weights or the teachers; they count as seen by what grows from them.
        hashes: Of those records' scans.
        teachers: Networks whose answers are learned from, frozen.
    """

    initialise: Callable[[Network], None] | None
    source: str
    trained_on: tuple[str, ...]
    hashes: frozenset[str] = frozenset()
    teachers: tuple[Network, ...] = ()


def choose_start(config: TrainingConfig, *, encoder_dir: Path, weights_dir: Path) -> Start:
    """What `config.start` asks for: ImageNet weights of the encoder, random weights, or a model version; and the
    versions that `config.teachers` names.

    Raises:
        ModelUnavailableError: No such weights or version, or they do not fit the network.
    """
    start = _choose_first_weights(config, encoder_dir=encoder_dir, weights_dir=weights_dir)
    for name in config.teachers:
        folder = weights_dir / check_version_name(name)
        teacher, card = load_version(folder, torch.device("cpu"))
        if card.preprocess != config.preprocess or len(card.architecture.pixel_classes) > 1:
            raise ModelUnavailableError(
                f"The version {name!r} cannot teach: it prepares its images in another way.",
                remedy="Choose teachers of the same side and fit, with one pixel class.",
            )
        start = replace(
            start,
            trained_on=tuple(dict.fromkeys([*start.trained_on, *card.trained_on])),
            hashes=start.hashes | read_taught(folder, card.trained_on).hashes,
            teachers=(*start.teachers, teacher),
        )
    return start


def _choose_first_weights(config: TrainingConfig, *, encoder_dir: Path, weights_dir: Path) -> Start:
    if config.start == "random":
        return Start(None, "random", ())
    if config.start == "imagenet":
        encoder = config.architecture.encoder
        source = encoder_source(encoder)
        return Start(lambda network: start_encoder(network, encoder, encoder_dir), source, ())
    folder = weights_dir / check_version_name(config.start)
    before, card = load_version(folder, torch.device("cpu"))
    if card.architecture != config.architecture:
        raise ModelUnavailableError(
            f"The version {config.start!r} has another network than the one to be trained.",
            remedy="Start from a version of the same architecture, or from 'imagenet'.",
        )
    weights = before.state_dict()
    hashes = read_taught(folder, card.trained_on).hashes
    return Start(lambda network: _copy_weights(network, weights), card.encoder_source, card.trained_on, hashes)


def read_best(run: Path, config: TrainingConfig) -> tuple[bytes, Network]:
    """A run's best weights, as the file that they are and in a network.

    Raises:
        TrainingError: The run has no best weights, or they do not fit.
    """
    try:
        weights = (run / BEST_FILE).read_bytes()
        network = build_network(config.architecture)
        network.load_state_dict(load(weights), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(
            f"The run {run.name!r} has no usable weights.", remedy="Train for at least one epoch first."
        ) from error
    return weights, network


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
    siblings: Sequence[Sibling] = (),
    weighs_presence: bool = False,
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
        siblings: Choose in the place of a validation part, where the split has none.
        weighs_presence: As in the card.

    Raises:
        TrainingError: The run has no best weights, they do not fit, or there is nothing to choose by.
        OutputError: The version cannot be written.
    """
    require_chooser(split, siblings)
    weights, network = read_best(run, config)
    network.requires_grad_(False).eval()
    draft = ModelCard(
        version=version,
        task="lesion-and-class" if config.architecture.image_classes else "lesion",
        architecture=config.architecture,
        preprocess=config.preprocess,
        temperature=1.0,
        lesion_threshold=0.5,
        weighs_presence=weighs_presence,
        malignancy=None,
        heatmap_offset_px=_measure_offset(network, split.validation or split.train, config.preprocess),
        training={
            **description,
            "config": asdict(config),
            "best_epoch": progress.best_epoch,
            "epochs_run": progress.epoch,
            "images": {
                "train": len(split.train),
                "validation": len(split.validation) or sum(len(sibling.kept) for sibling in siblings),
            },
        },
        trained_on=tuple(dict.fromkeys([*start.trained_on, *(r.id for r in split.train + split.validation)])),
        encoder_source=start.source,
        commit=current_commit(),
        created=datetime.now(UTC).date().isoformat(),
        sha256=hashlib.sha256(weights).hexdigest(),
        second_opinion=None,
    )
    device = choose_training_device()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def read_as(card: ModelCard) -> Sequence[tuple[Analyser, Sequence[Record]]]:
        readers = [(sibling.reader(device, reads_as=card), sibling.kept) for sibling in siblings]
        return readers or [(Analyser(network, card, device), split.validation)]

    card = _choose(read_as, draft)
    analyser = Analyser(network, card, device)
    is_without = bool(_why_without_limits(analyser, split.train, split.validation, siblings))
    limits = None if is_without else fit_limits(analyser, split.train, split.validation, siblings=siblings)
    folder = weights_dir / version
    write_taught(folder, start.hashes | hash_records(split.train + split.validation))
    if limits is None:
        (folder / LIMITS_FILE).unlink(missing_ok=True)  # of weights that lay there before
    else:
        write_limits(folder, limits, card)
    save_version(folder, weights, card)  # last: its card is what lists a version
    return card


def require_chooser(split: Split, siblings: Sequence[Sibling]) -> None:
    """Refuse a version that nothing can be chosen by, or that two would choose for.

    Raises:
        TrainingError: There is neither a validation part nor a sibling, or both.
    """
    if bool(split.validation) == bool(siblings):
        raise TrainingError(
            "Cut-offs are chosen by a validation part or, where there is none, by siblings.",
            remedy="Name --siblings together with --validation-fold none, and only then.",
        )


def _why_without_limits(
    analyser: Analyser, training: Sequence[Record], validation: Sequence[Record], siblings: Sequence[Sibling]
) -> str:
    """Why `fit_limits` cannot be; empty when it can."""
    if not analyser.can_describe:
        return "The network has no encoder whose early layers tell how a scan is textured"
    if len(training) < 2 or not (validation or siblings):
        return f"There are {len(training)} scans of training and {len(validation)} of validation"
    return ""


def _measure_offset(network: Network, records: Sequence[Record], spec: PreprocessSpec) -> tuple[float, float]:
    """Only encoders that step by padded convolutions look beside their cells; other networks look where they are."""
    return measure_offset(network, _some_inputs(records, spec)) if isinstance(network, LesionNet) else (0.0, 0.0)


def fit_limits(
    analyser: Analyser,
    training: Sequence[Record],
    validation: Sequence[Record],
    on_scan: Callable[[int, int], None] | None = None,
    *,
    siblings: Sequence[Sibling] = (),
) -> Limits:
    """Measure what a version knows of its limits.

    Args:
        analyser: Of the version, with its final temperature.
        training: What scans look like is learned from these.
        validation: Limits and the scores of the classes come from these.
        on_scan: Called with how many scans are done, of how many.
        siblings: In the place of a validation part: they read the scans that they kept.

    Raises:
        DatasetError: The network has no such limits, or there are too few scans.
    """
    reason = _why_without_limits(analyser, training, validation, siblings)
    if reason:
        raise DatasetError(
            f"{reason}, so {analyser.card.version} cannot know its limits.",
            remedy="It reads scans all the same, without sets of classes and without refusal.",
        )
    described: list[Description] = []
    scores: list[list[float]] = []
    records = [*training, *validation]
    readers = [sibling.reader(analyser.device, reads_as=analyser.card) for sibling in siblings]
    scored = [(analyser, validation), *zip(readers, (sibling.kept for sibling in siblings), strict=True)]
    count = len(records) + sum(len(part) for _, part in scored)
    for number, record in enumerate(records, start=1):
        described.append(analyser.describe(decode_image(record.image.read_bytes())))
        if on_scan:
            on_scan(number, count)
    for reader, part in scored:
        for record in part:
            image = decode_image(record.image.read_bytes())
            probabilities = reader.analyse_for_batch(image, insist=True).prediction.probabilities
            scores.append([probabilities[diagnosis] for diagnosis in Diagnosis] if probabilities else [])
            if on_scan:
                on_scan(len(records) + len(scores), count)
    truths = np.array([list(Diagnosis).index(record.diagnosis) for _, part in scored for record in part])
    nonconformity = measure_nonconformity(np.array(scores), truths) if scores and scores[0] else None
    if validation:
        familiarity = fit_familiarity(described[: len(training)], described[len(training) :])
    else:
        familiarity = fit_familiarity_across(described, _deal_scans(training))
    return Limits(nonconformity, familiarity, tuple(sibling.card.version for sibling in siblings))


def _deal_scans(records: Sequence[Record]) -> list[int]:
    """The part of each record, 0 to 4, all copies of a scan (BUS-BRA: images of a case) in one."""
    copies = scan_groups()
    scans = [copies.get(record.id, record.group or record.id) for record in records]
    part_of = {scan: number % FOLDS for number, scan in enumerate(dict.fromkeys(scans))}
    return [part_of[scan] for scan in scans]


def _some_inputs(records: Sequence[Record], spec: PreprocessSpec) -> list[Tensor]:
    """A dozen prepared scans, evenly from the list."""
    chosen = records[:: max(1, len(records) // 12)]
    return [prepare_image(decode_image(record.image.read_bytes()), spec)[0] for record in chosen]


def _copy_weights(network: Network, weights: Mapping[str, Tensor]) -> None:
    network.load_state_dict(weights, strict=True)


def _choose(read_as: Callable[[ModelCard], Sequence[tuple[Analyser, Sequence[Record]]]], draft: ModelCard) -> ModelCard:
    """Fill in the lesion threshold, and with a class the temperature and the flag, from the scans that each reads.

    The temperature first: where the chance of a lesion weighs, the lesion threshold depends on it.
    """
    card = _choose_for_class(read_as(draft), draft) if draft.architecture.image_classes else draft
    overlaps: list[list[float]] = []
    normal: list[bool] = []
    for analyser, record in _each(read_as(card)):
        image = decode_image(record.image.read_bytes())
        prediction = analyser.analyse_for_batch(image).prediction
        truth = read_truth(record, image.height, image.width)
        probability = upsample(prediction.lesion_probability, image.height, image.width)
        overlaps.append([_overlap(probability >= cutoff, truth) for cutoff in CUTOFFS])
        normal.append(record.diagnosis is Diagnosis.NORMAL)
    return replace(card, lesion_threshold=_best_cutoff(np.array(overlaps), np.array(normal)))


def _choose_for_class(readers: Sequence[tuple[Analyser, Sequence[Record]]], draft: ModelCard) -> ModelCard:
    scores: list[list[float]] = []
    truths: list[int] = []
    for analyser, record in _each(readers):
        prediction = analyser.analyse_for_batch(decode_image(record.image.read_bytes())).prediction
        scores.append([(prediction.probabilities or {}).get(diagnosis, math.nan) for diagnosis in Diagnosis])
        truths.append(list(Diagnosis).index(record.diagnosis))
    logits, truth = np.log(np.clip(np.array(scores), 1e-12, 1)), np.array(truths)
    temperature = fit_temperature(logits, truth)
    malignant = list(Diagnosis).index(Diagnosis.MALIGNANT)
    suspicion = softmax(logits, temperature)[:, malignant]
    point = threshold_for_sensitivity(suspicion, truth == malignant, FLAG_SENSITIVITY, confidence=FLAG_CONFIDENCE)
    flag = MalignancyFlag(point.threshold, point.sensitivity, point.specificity, len(truths))
    return replace(draft, temperature=temperature, malignancy=flag)


def _each(readers: Sequence[tuple[Analyser, Sequence[Record]]]) -> Iterator[tuple[Analyser, Record]]:
    return ((analyser, record) for analyser, records in readers for record in records)


def _overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice; for a normal 1 when nothing is outlined, else 0."""
    if not truth.any():
        return float(not mask.any())
    return count_overlap(mask, truth).dice


def _best_cutoff(overlaps: NDArray[np.float64], normal: NDArray[np.bool_]) -> float:
    """The highest cut-off that costs no more than `SPARED_DICE` of the best mean lesion Dice.

    Over a wide range of cut-offs lesions are outlined alike, and only the lower ones outline something in normals too.
    The lesions draw the line, for there are many: of normals a validation part has a dozen, and the best for these
    would be chance.
    """
    lesions = overlaps[~normal].mean(axis=0)
    return CUTOFFS[int(np.flatnonzero(lesions >= lesions.max() - SPARED_DICE)[-1])]


def current_commit() -> str:
    """The code's commit, shortened; 'unknown' outside a repository."""
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
