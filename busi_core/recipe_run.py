"""A recipe -> a model version: its stages one after the other, each resumable, then the card.

Recipe, Split --deal_stages--> parts --fit, fit--> runs/<version>/stage-N --release--> weights/<version>/

`training_run` adds the names of data sets and of versions to it; the study, which has a split already, comes here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from busi_core.data.dataset import Samples, load_samples, name_pixels, none_like
from busi_core.data.records import Record
from busi_core.data.splits import Split, scan_groups
from busi_core.errors import DatasetError, TrainingError
from busi_core.files import write_atomically
from busi_core.models.checkpoint import ModelCard
from busi_core.models.interface import Network
from busi_core.recipes.recipe import Recipe
from busi_core.release import Start, release
from busi_core.siblings import Sibling
from busi_core.training.config import TrainingConfig
from busi_core.training.distributed import current_group
from busi_core.training.log import Epoch
from busi_core.training.loop import Judge, fit
from busi_core.training.state import BEST_FILE, CHECKPOINT_FILE, CONFIG_FILE, Progress, require_same_config
from busi_core.types import Diagnosis

Part: TypeAlias = tuple[Samples, Samples]  # to learn from, and to choose by


def deal_stages(recipe: Recipe, split: Split) -> list[tuple[Sequence[Record], Sequence[Record]]]:
    """Records that each stage learns from and chooses by; no scan is in two stages.

    A recipe that trains on lesions alone ('benign or malignant') leaves normals out of learning and choosing.

    Raises:
        DatasetError: A class is missing, or there is no lesion at all.
    """
    _require_classes(split, validates=recipe.final.keeps == "best" or bool(split.validation))
    if len(recipe.stages) == 1:
        return [(split.train, split.validation)]
    groups = scan_groups()
    random = np.random.default_rng(recipe.final.seed)
    parts = []
    for records in (split.train, split.validation):
        lesions = [record for record in records if record.diagnosis is not Diagnosis.NORMAL]
        names = sorted({groups.get(record.id, record.id) for record in lesions})
        order = {names[index]: place for place, index in enumerate(random.permutation(len(names)))}
        edges = np.cumsum(recipe.stage_shares) * len(names)
        stage_of = [int(np.searchsorted(edges, order[groups.get(r.id, r.id)], side="right")) for r in lesions]
        last = len(recipe.stages) - 1
        parts.append(
            [
                [record for record, stage in zip(lesions, stage_of, strict=True) if min(stage, last) == number]
                for number in range(len(recipe.stages))
            ]
        )
    return list(zip(*parts, strict=True))


def load_part(records: Sequence[Record], config: TrainingConfig) -> Samples:
    """Decoded, resized, and with the masks that this network learns from."""
    return name_pixels(load_samples(records, config.preprocess), config.architecture.pixel_classes)


def has_started(recipe: Recipe, run: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return ((run / "stage-1" if len(recipe.stages) > 1 else run) / CHECKPOINT_FILE).is_file()


def train_stages(
    recipe: Recipe,
    load: Callable[[int], Part],
    run: Path,
    *,
    initialise: Callable[[Network], None] | None = None,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    is_over: Callable[[int], bool] | None = None,
    judge: Judge | None = None,
    teachers: Sequence[Network] = (),
) -> tuple[Progress, Path]:
    """Train stage after stage; a stage that has ended is not run again on `resume`.

    Args:
        recipe: What to train.
        load: Gives the samples of a stage, asked for only when the stage still has to run.
        run: Folder of the run; each stage has a folder of its own in it.
        initialise: Puts first weights into the first stage's network.
        resume: Go on from what is there; the first stage must have been started (`has_started`).
        on_epoch: Told of every epoch.
        is_over: Asked before each epoch but the first of a stage, with the number of the stage from 0.
        judge: Scores on the validation part, in place of the loop's own.
        teachers: Of every stage; frozen.

    Returns:
        Where the last stage ended, and its folder.

    Raises:
        TrainingError: As `fit`, or other options than the run was started with.
    """
    progress, folder = Progress(), run
    for number, config in enumerate(recipe.stages):
        before = folder / BEST_FILE if number else None
        folder = run / f"stage-{number + 1}" if len(recipe.stages) > 1 else run
        current_group().wait()  # for the weights of the stage before
        goes_on = resume and (number == 0 or (folder / CHECKPOINT_FILE).is_file())
        if goes_on:
            require_same_config(folder, config)
        if current_group().writes:
            write_atomically(folder / CONFIG_FILE, json.dumps(asdict(config), indent=1).encode())
        train, validation = load(number)
        progress = fit(
            config,
            train,
            validation,
            folder,
            initialise=_load_weights(before) if before else initialise,
            resume=goes_on,
            on_epoch=on_epoch,
            is_over=partial(is_over, number) if is_over else None,
            judge=judge,
            teachers=teachers,
        )
    return progress, folder


def train_on(
    recipe: Recipe,
    split: Split,
    run: Path,
    *,
    initialise: Callable[[Network], None] | None,
    teachers: Sequence[Network] = (),
    resume: bool = False,
    on_samples: Callable[[Samples, Samples], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    is_over: Callable[[int], bool] | None = None,
) -> tuple[Progress, Path]:
    """`train_stages` on a split; `on_samples` is told what a stage learns from and is chosen by.

    Raises:
        TrainingError, DatasetError, OutputError: As `deal_stages`, `load_samples` and `fit`.
    """
    dealt = deal_stages(recipe, split)

    def load(number: int) -> Part:
        config = recipe.stages[number]
        train_records, validation_records = dealt[number]
        train = load_part(train_records, config)
        validation = load_part(validation_records, config) if validation_records else none_like(train)
        if on_samples and current_group().writes:
            on_samples(train, validation)
        return train, validation

    return train_stages(
        *(recipe, load, run),
        initialise=initialise,
        resume=resume,
        on_epoch=on_epoch,
        is_over=is_over,
        teachers=teachers,
    )


def release_recipe(
    recipe: Recipe,
    split: Split,
    folder: Path,
    progress: Progress,
    *,
    version: str,
    weights_dir: Path,
    start: Start,
    description: Mapping[str, Any],
    siblings: Sequence[Sibling] = (),
) -> ModelCard:
    """Make a version of what `train_on` left in `folder`; the card names the recipe and its stages.

    Raises:
        TrainingError, OutputError: As `release`.
    """
    said = {**description, "recipe": recipe.name, "printed_start": recipe.printed_start}
    if len(recipe.stages) > 1:
        said["stages"] = [asdict(stage) for stage in recipe.stages]
    return release(
        *(folder, recipe.final, split, progress),
        version=version,
        weights_dir=weights_dir,
        description=said,
        start=start,
        siblings=siblings,
        weighs_presence=recipe.weighs_presence,
    )


def scaled_for(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some values of every stage's configuration changed.

    Raises:
        TrainingError: They make no sense.
    """
    try:
        return replace(recipe, stages=tuple(replace(stage, **changes) for stage in recipe.stages))
    except ValueError as error:
        raise TrainingError(f"No run can have these options: {error}.", remedy="See 'busi train --help'.") from error


def _load_weights(path: Path) -> Callable[[Network], None]:
    def put_in(network: Network) -> None:
        try:
            network.load_state_dict(load_file(path), strict=True)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise TrainingError(
                f"The stage before left no usable weights in {path.parent.name!r}.",
                remedy="Start the run again without --resume.",
            ) from error

    return put_in


def _require_classes(split: Split, *, validates: bool) -> None:
    parts = [("train on", split.train)]
    if validates:
        parts.append(("choose by", split.validation))
    for name, records in parts:
        found = {record.diagnosis for record in records}
        lesions = [diagnosis for diagnosis in Diagnosis if diagnosis is not Diagnosis.NORMAL]
        missing = [diagnosis.value for diagnosis in lesions if diagnosis not in found]
        if len(missing) == len(lesions):
            raise DatasetError(f"There is no lesion at all to {name}.", remedy="Name a data set that holds lesions.")
        if missing:
            raise DatasetError(
                f"No scan to {name} is {' or '.join(missing)}.", remedy="Add scans of that class, or another data set."
            )
