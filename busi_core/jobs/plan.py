"""An order -> what exactly is trained, or why it cannot be."""

from dataclasses import replace

import torch

from busi_core.errors import JobError, TrainingError
from busi_core.jobs.spec import JobSpec
from busi_core.models.checkpoint import load_version, read_card
from busi_core.recipes.catalogue import PRODUCT_RECIPE
from busi_core.recipes.product import list_data_sets
from busi_core.recipes.recipe import Recipe
from busi_core.registry import check_version_name, list_versions, read_registry
from busi_core.settings import Settings
from busi_core.training.config import TrainingConfig
from busi_core.training_run import require_no_start

RECIPES = {PRODUCT_RECIPE.name: PRODUCT_RECIPE}
IN_SERVICE = "in-service"
NEW_STARTS = ("imagenet", "random")
MAX_EPOCHS = 500
SIZES = range(32, 1025, 32)  # the encoder halves five times


def settle(spec: JobSpec, settings: Settings) -> JobSpec:
    """The order with everything named that may change later, once all of it is known to work.

    Raises:
        JobError: Something in it cannot be; the message says what.
        ModelUnavailableError: No such version to start from, or the name cannot be a version's.
        TrainingError: The name is that of a start, or no run can have these values.
    """
    check_version_name(spec.version)
    require_no_start(spec.version)
    if spec.version in list_versions(settings.weights_dir):
        raise JobError(f"There is a version {spec.version!r} already.", remedy="Choose another name.")
    lies_there = settings.weights_dir / spec.version
    if lies_there.exists() and not lies_there.is_dir():
        raise JobError(f"{spec.version!r} is the name of a file among the versions.", remedy="Choose another name.")
    if spec.recipe not in RECIPES:
        raise JobError(f"The recipe {spec.recipe!r} is unknown.", remedy=f"Known: {', '.join(RECIPES)}.")
    known = list_data_sets(settings)
    missing = [name for name in spec.data_sets if name not in known]
    if missing or not spec.data_sets:
        raise JobError(
            f"The data sets {', '.join(missing)} are not here." if missing else "No data set was chosen.",
            remedy=f"Choose among: {', '.join(known)}.",
        )
    if len(set(spec.data_sets)) < len(spec.data_sets):
        raise JobError("A data set was named twice.", remedy="Name each once.")
    counts = (spec.epochs, spec.patience)
    if (
        spec.size not in SIZES
        or not all(1 <= count <= MAX_EPOCHS for count in counts)
        or spec.test_fold not in range(5)
    ):
        raise JobError(
            f"No run can have {spec.epochs} epochs ({spec.patience} without getting better), size {spec.size} and test "
            f"fold {spec.test_fold}.",
            remedy=f"Epochs go from 1 to {MAX_EPOCHS}, sizes from 32 to 1024 in steps of 32, test folds from 0 to 4.",
        )
    start = read_registry(settings.weights_dir).in_service if spec.start == IN_SERVICE else spec.start
    if start not in NEW_STARTS:
        load_version(settings.weights_dir / check_version_name(start), torch.device("cpu"))  # whole, not only there
    settled = replace(spec, start=start)
    plan_config(settled, settings)
    return settled


def plan_config(spec: JobSpec, settings: Settings) -> TrainingConfig:
    """All that decides the weights. A run that goes on from a version keeps its network and its preparation.

    Raises:
        ModelUnavailableError: The version to start from cannot be read.
        TrainingError: No run can have these values, or go on from that version's network.
    """
    recipe = RECIPES[spec.recipe].final
    known = recipe.architecture
    architecture, preprocess = known, recipe.preprocess
    if spec.start not in NEW_STARTS:
        card = read_card(settings.weights_dir / check_version_name(spec.start))
        architecture, preprocess = card.architecture, card.preprocess
        if (architecture.name, architecture.pixel_classes) != (known.name, known.pixel_classes):
            raise TrainingError(
                f"The network of {spec.start!r} is not one that the recipe {spec.recipe!r} trains.",
                remedy="Start from another version, or train it with 'busi train --recipe'.",
            )
    try:
        return replace(
            recipe,
            architecture=architecture,
            preprocess=replace(preprocess, side=spec.size),
            start=spec.start,
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            patience=spec.patience,
            seed=spec.seed,
        )
    except ValueError as error:
        raise TrainingError(f"No run can have these values: {error}.", remedy="Change them and try again.") from error


def plan_recipe(spec: JobSpec, settings: Settings) -> Recipe:
    """`plan_config` as the recipe that `train_version` takes.

    Raises:
        ModelUnavailableError, TrainingError: As `plan_config`.
    """
    return replace(RECIPES[spec.recipe], stages=(plan_config(spec, settings),))
