"""The whole road of one run: data sets -> split -> a recipe's stages -> a version; for the shell and for jobs.

Started again in the same folder, with the same options and data, it goes on from the last checkpoint and ends with the
same version.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from busi_core.data.dataset import Samples
from busi_core.data.splits import Kept, Split
from busi_core.errors import TrainingError
from busi_core.models.checkpoint import ModelCard, read_card
from busi_core.recipe_run import release_recipe, train_on
from busi_core.recipes.product import read_split
from busi_core.recipes.recipe import Recipe
from busi_core.registry import check_version_name, list_versions
from busi_core.release import choose_start, require_chooser
from busi_core.settings import Settings
from busi_core.siblings import read_siblings
from busi_core.training.distributed import join_group
from busi_core.training.log import Epoch
from busi_core.training.state import BEST_FILE, Progress, RunData, digest_ids, keep_data, require_same_data

STARTS = ("in-service", "imagenet", "random")  # what an order may start from beside versions; names of no version


@dataclass(frozen=True)
class Listener:
    """Who is told of a run as it goes; only the first of several processes tells.

    Attributes:
        on_split: Of the records, before any is decoded.
        on_samples: Of the samples to train on and to choose by, before the first step of a stage.
        on_epoch: Of each epoch that lies on the disk.
        on_release: Before the version is made from the best weights.
    """

    on_split: Callable[[Split], None] = field(default=lambda _split: None)
    on_samples: Callable[[Samples, Samples], None] = field(default=lambda _train, _validation: None)
    on_epoch: Callable[[Epoch], None] = field(default=lambda _epoch: None)
    on_release: Callable[[], None] = field(default=lambda: None)


def train_version(
    version: str,
    recipe: Recipe,
    *,
    data_sets: tuple[str, ...],
    test_fold: int | None,
    run: Path,
    settings: Settings,
    resume: bool,
    kept: Kept = "next",
    siblings: Sequence[str] = (),
    description: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> tuple[ModelCard, Progress] | None:
    """Train and make `weights/<version>/`, a candidate; no version that is there is touched, in service or not.

    Args:
        version: Name of the new version. One of that name may be there if this run made it, as after a kill between
            its files.
        recipe: What the run is made of; one for scans.
        data_sets: Names that `read_split` knows.
        test_fold: BUSI fold that stays closed, 0 to 4; None: none does, for a version that another hospital judges.
        run: Folder of the run, its own.
        settings: Where things lie.
        resume: Go on from the run's last checkpoint, with the same data as before.
        kept: What validates in the public sets: the fold after the test fold, this one, or none.
        siblings: Versions that choose cut-offs and limits where nothing validates (`siblings`).
        description: Further plain values for the card's `training`.
        listener: Who is told.

    Returns:
        The card and where the run ended; None in all but the first of several processes.

    Raises:
        ModelUnavailableError: The name cannot be a version's, or there are no weights to start from.
        DatasetError: A data set is unknown, damaged, or too small to learn and choose from.
        TrainingError: The name is taken or that of a start, there is nothing to choose by, the run was started with
            other options or data, or it cannot start or go on; the last checkpoint stays.
        OutputError: The disk is full; the last checkpoint stays.
    """
    told = listener or Listener()
    require_no_start(version)
    _require_free(version, run if resume else None, settings.weights_dir)
    _require_sense(recipe, test_fold, kept)
    start = choose_start(recipe.stages[0], encoder_dir=settings.encoder_dir, weights_dir=settings.weights_dir)
    split = read_split(settings, data_sets, test_fold=test_fold, kept=kept)
    choosing = read_siblings(siblings, recipe.final, data_sets=data_sets, test_fold=test_fold, settings=settings)
    require_chooser(split, choosing)
    data = RunData(
        data_sets=tuple(sorted(data_sets)),
        test_fold=test_fold,
        validation_fold=kept,
        siblings=tuple(sorted(siblings)),
        train=digest_ids(record.id for record in split.train),
        validation=digest_ids(record.id for record in split.validation),
    )
    if resume:
        require_same_data(run, data)
    with join_group() as group:
        if group.writes:
            if not resume:
                keep_data(run, data)
            told.on_split(split)
        progress, folder = train_on(
            *(recipe, split, run),
            initialise=start.initialise,
            teachers=start.teachers,
            resume=resume,
            on_samples=told.on_samples,
            on_epoch=told.on_epoch,
        )
        if not group.writes:
            return None
        _require_free(version, run, settings.weights_dir)  # hours have passed
        told.on_release()
        card = release_recipe(
            *(recipe, split, folder, progress),
            version=version,
            weights_dir=settings.weights_dir,
            start=start,
            description={
                "data_sets": list(data_sets),
                "test_fold": test_fold,
                "validation_fold": kept,
                "siblings": list(siblings),
                **(description or {}),
            },
            siblings=choosing,
        )
        return card, progress


def require_no_start(version: str) -> None:
    """Refuse a name under which a version could never be started from.

    Raises:
        TrainingError: It is one of `STARTS`.
    """
    if version in STARTS:
        raise TrainingError(
            f"{version!r} already stands for something else that a run can start from.", remedy="Choose another name."
        )


def _require_sense(recipe: Recipe, test_fold: int | None, kept: Kept) -> None:
    if kept == test_fold:
        raise TrainingError(
            f"Fold {kept} cannot be the test and choose as well.", remedy="Name another one with --validation-fold."
        )
    if kept == "none" and recipe.final.keeps != "last":
        raise TrainingError("Without a validation part no epoch can be the best.", remedy="Say --keeps last as well.")


def _require_free(version: str, run: Path | None, weights_dir: Path) -> None:
    """Refuse a name whose version has other weights than the best of `run`; None for a run that is to begin."""
    if check_version_name(version) not in list_versions(weights_dir):
        return
    own = {hashlib.sha256(best.read_bytes()).hexdigest() for best in run.rglob(BEST_FILE)} if run else set()
    if read_card(weights_dir / version).sha256 not in own:
        raise TrainingError(f"There is a version {version!r} already.", remedy="Choose another name.")
