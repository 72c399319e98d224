"""One training run of the study: resumed where it stopped, scored through the front door, kept as one file.

    recipe + split --fit--> best weights --Analyser.analyse(bytes)--> ScanResults --> result.json in the run's folder

A run whose result.json is there is finished and is not run again. A folder holds one run: who asks there for other
options or other data is refused, finished or not.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from busi_core.data.records import Record
from busi_core.data.splits import Split
from busi_core.errors import TrainingError
from busi_core.evaluation import EvaluationReport, ScanResult, evaluate, read_result, score_record, without_nan
from busi_core.files import write_atomically
from busi_core.models.checkpoint import ModelCard
from busi_core.recipe_run import has_started, load_part, release_recipe, train_on, train_stages
from busi_core.recipes.recipe import Recipe
from busi_core.release import Start, read_best
from busi_core.service import Analyser
from busi_core.study.budget import Clock, describe_hardware
from busi_core.study.leak import LeakSplit
from busi_core.training.config import TrainingConfig
from busi_core.training.distributed import choose_training_device
from busi_core.training.log import LOG_FILE, Epoch
from busi_core.training.state import RunData, digest_ids, keep_data, require_same_config, require_same_data

RESULT_FILE = "result.json"
CUTOFF = 0.5  # of the leak experiment: nothing is chosen on validation but the epoch
CURVE = ("epoch", "loss", "dice", "macro_f1")  # what is kept of each line of a log
Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Attributes:
        epochs: Run, over all stages.
        epochs_asked: What the recipe or budget asked for.
        side: Of the input, in pixels.
        seconds: Wall-clock, training and scoring, over all resumptions.
        hardware: In words.
        curve: For each epoch its number, loss, validation Dice and macro-F1.
        results: Every scored scan.
        extra: Further plain values of this kind of run.
    """

    epochs: int
    epochs_asked: int
    side: int
    seconds: float
    hardware: str
    curve: tuple[Mapping[str, Any], ...]
    results: tuple[ScanResult, ...]
    extra: Mapping[str, Any]


def read_finished(folder: Path) -> Finished | None:
    """The result in a run's folder; None when the run has not ended, or its file cannot be read."""
    try:
        content = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
        results = tuple(read_result(row) for row in content.pop("results"))
        return Finished(**{**content, "curve": tuple(content["curve"]), "results": results})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_finished(folder: Path, finished: Finished) -> None:
    """Keep a result.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_atomically(folder / RESULT_FILE, (json.dumps(without_nan(asdict(finished))) + "\n").encode())


def begin(recipe: Recipe, folder: Path, data: RunData) -> Finished | None:
    """The result of this very run where it has ended; else None, and what is in its folder may be gone on with.

    Raises:
        TrainingError: The folder's run was asked for with other options, or learned from other data.
        OutputError: The folder cannot be written.
    """
    before = read_finished(folder)
    if before:
        _require_same_options(recipe, folder, before)
    if before or has_started(recipe, folder):
        require_same_data(folder, data)
    else:
        keep_data(folder, data)
    return before


def name_data(
    train: Iterable[str], validation: Iterable[str], *, data_set: str = "busi", test_fold: int | None = 0
) -> RunData:
    """What a run of the study learns from and chooses by, of ids."""
    return RunData((data_set,), test_fold, "next", (), digest_ids(train), digest_ids(validation))


def run_leak_arm(
    recipe: Recipe, split: LeakSplit, arm: str, folder: Path, *, clock: Clock, epochs: int | None, say: Say
) -> Finished:
    """Train one arm of one seed and score the test files.

    Args:
        recipe: Of one stage, already scaled to the budget and the seed.
        split: The seed's files.
        arm: Of `leak.ARMS`.
        folder: Of the run.
        clock: Of the run.
        epochs: Exactly so many, as the other arm had; None trains until the recipe or the clock says so.
        say: Told a line an epoch.

    Raises:
        TrainingError: As `begin`, or as for any run.
    """
    asked = recipe if epochs is None else recipe.scaled(epochs=epochs)
    config = asked.final
    data = name_data(_ids(split.train(arm)), _ids(split.validation), test_fold=None)
    if before := begin(asked, folder, data):
        return before

    def note(epoch: Epoch) -> None:
        clock.keep()
        say(_line(f"leak {recipe.name} {folder.name}", epoch, config))

    progress, trained = train_stages(
        asked,
        lambda _: (load_part(split.train(arm), config), load_part(split.validation, config)),
        folder,
        resume=has_started(asked, folder),
        on_epoch=note,
        is_over=None if epochs is not None else lambda _: clock.is_over(),
    )
    analyser = open_run(trained, config)
    results = tuple(score_record(analyser, record) for record in split.test)
    clock.keep()
    finished = _finish(progress.epoch, config.epochs, config, clock, trained, results, {"arm": arm})
    write_finished(folder, finished)
    return finished


def run_recipe(
    recipe: Recipe, split: Split, known: Sequence[Record], folder: Path, *, clock: Clock, say: Say
) -> tuple[Finished, EvaluationReport | None]:
    """Train a recipe, make its version in `folder`/versions, and score the test part.

    Returns:
        The result, and the report where it was made just now; a run that had ended before gives None for it.

    Raises:
        DatasetError: A test scan has a copy in training.
        TrainingError: As `begin`, or as for any run.
    """
    if before := begin(recipe, folder, name_data(_ids(split.train), _ids(split.validation))):
        return before, None
    stages = len(recipe.stages)

    def note(epoch: Epoch) -> None:
        clock.keep()
        say(_line(recipe.name, epoch, recipe.final))

    progress, last = train_on(
        *(recipe, split, folder),
        initialise=None,
        resume=has_started(recipe, folder),
        on_epoch=note,
        is_over=lambda stage: clock.is_over((stage + 1) / stages),
    )
    card = release_recipe(
        *(recipe, split, last, progress),
        version=recipe.name,
        weights_dir=folder / "versions",
        start=Start(None, "random", ()),
        description={"data_sets": ["busi"], "test_fold": 0},
    )
    analyser = Analyser.load(folder / "versions" / card.version, choose_training_device())
    report = evaluate(analyser, split.test, known, test_set="busi fold 0")
    clock.keep()
    run = sum(_epochs_in(stage) for stage in _stage_folders(recipe, folder))
    finished = _finish(run, _epochs_of(recipe), recipe.final, clock, last, report.results, {"sha256": card.sha256})
    write_finished(folder, finished)
    return finished, report


def open_run(folder: Path, config: TrainingConfig) -> Analyser:
    """An analyser on a run's best weights that was never a version: cut-off 0.5, nothing calibrated.

    Raises:
        TrainingError: The run has no usable weights.
    """
    weights, network = read_best(folder, config)
    card = plain_card(folder.name, config, sha256=hashlib.sha256(weights).hexdigest())
    network.requires_grad_(False).eval()
    device = choose_training_device()
    return Analyser(network.to(device, memory_format=torch.channels_last), card, device)  # type: ignore[call-overload]


def plain_card(version: str, config: TrainingConfig, *, sha256: str = "") -> ModelCard:
    """The card of weights that were never released: cut-off 0.5, nothing calibrated."""
    return ModelCard(
        version=version,
        task="lesion-and-class" if config.architecture.image_classes else "lesion",
        architecture=config.architecture,
        preprocess=config.preprocess,
        temperature=1.0,
        lesion_threshold=CUTOFF,
        weighs_presence=False,
        malignancy=None,
        heatmap_offset_px=(0.0, 0.0),
        training={},
        trained_on=(),
        encoder_source="random",
        commit="",
        created="",
        sha256=sha256,
        second_opinion=None,
    )


def read_curve(folder: Path) -> tuple[dict[str, Any], ...]:
    """The kept columns of a run's log; empty where there is none."""
    try:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
        return tuple({name: json.loads(line)[name] for name in CURVE} for line in lines)
    except (OSError, ValueError, KeyError):
        return ()


def _finish(
    run: int,
    asked: int,
    config: TrainingConfig,
    clock: Clock,
    folder: Path,
    results: tuple[ScanResult, ...],
    extra: Mapping[str, Any],
) -> Finished:
    side = config.preprocess.side
    return Finished(run, asked, side, clock.seconds, describe_hardware(), read_curve(folder), results, extra)


def _require_same_options(recipe: Recipe, folder: Path, before: Finished) -> None:
    """Refuse to hand out a result for a run that was not asked for."""
    asked, side = _epochs_of(recipe), recipe.final.preprocess.side
    if (before.epochs_asked, before.side) != (asked, side):
        raise TrainingError(
            f"The run in {folder} has ended with other options: {before.epochs_asked} epochs at {before.side} px were "
            f"asked for, now {asked} at {side} px.",
            remedy="Ask for the same as then, or name another folder by --runs.",
        )
    for stage, config in zip(_stage_folders(recipe, folder), recipe.stages, strict=True):
        require_same_config(stage, config)


def _epochs_of(recipe: Recipe) -> int:
    """What a recipe asks for, over all its stages."""
    return sum(stage.epochs for stage in recipe.stages)


def _stage_folders(recipe: Recipe, folder: Path) -> list[Path]:
    """Where `train_stages` keeps each stage."""
    stages = len(recipe.stages)
    return [folder / f"stage-{number + 1}" for number in range(stages)] if stages > 1 else [folder]


def _ids(records: Iterable[Record]) -> list[str]:
    return [record.id for record in records]


def _epochs_in(folder: Path) -> int:
    return len(read_curve(folder))


def _line(name: str, epoch: Epoch, config: TrainingConfig) -> str:
    return f"{name}: epoch {epoch.epoch}/{config.epochs}, loss {epoch.loss:.3f}, validation Dice {epoch.dice:.3f}"
