"""Commands that make versions: train, second-opinion, recipes, reproduce, sweep."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busi_core.cli.terminal import Commands, say
from busi_core.errors import TrainingError
from busi_core.settings import read_settings

if TYPE_CHECKING:
    from busi_core.data.splits import Split
    from busi_core.imaging.preprocess import PreprocessSpec
    from busi_core.recipes.recipe import Recipe
    from busi_core.training.log import Epoch

TRAINING_OPTIONS = (  # of `busi train`, named as in TrainingConfig
    "epochs",
    "patience",
    "batch_size",
    "learning_rate",
    "schedule",
    "average_decay",
    "seed",
    "precision",
    "start",
    "normal_repeats",
    "teachers",
    "teacher_share",
    "augmentation",
    "pasted_share",
    "keeps",
)


def add_commands(commands: Commands) -> None:
    """Add them to the parser."""
    train = commands.add_parser("train", help="train a model version; resumes with --resume")
    train.add_argument("version", help="name of the new version, a folder under weights/")
    train.add_argument(
        "--data",
        nargs="+",
        metavar="SET",
        help="busi, bus-bra, or the id of a data set that was accepted here (default: the recipe's own)",
    )
    train.add_argument(
        "--recipe", default="product", metavar="NAME", help="a published system, see 'busi recipes' (default product)"
    )
    train.add_argument("--tissue", type=Path, metavar="DIR", help="BCSS, for the tissue recipe; else tiles are made")
    train.add_argument(
        "--test-fold",
        type=_fold_or_none,
        default=0,
        metavar="K",
        help="BUSI fold kept for the test, 0 to 4 (default 0), or none: another hospital is the test, fold 0 chooses",
    )
    train.add_argument(
        "--validation-fold",
        type=_kept,
        default="next",
        metavar="K",
        help="BUSI fold to choose by, 0 to 4 (default the one after the test fold), or none, with --siblings",
    )
    train.add_argument(
        "--siblings",
        nargs="+",
        default=(),
        metavar="VERSION",
        help="with --validation-fold none: versions of the same options that choose for this one, each kept a fold",
    )
    train.add_argument("--keeps", choices=("best", "last"), help="weights of the best epoch by validation, or the last")
    train.add_argument("--epochs", type=int, metavar="N")
    train.add_argument("--patience", type=int, metavar="N", help="epochs without a better validation score")
    train.add_argument("--size", type=int, metavar="PX", help="side of the network's input, a multiple of 32")
    train.add_argument("--batch-size", type=int, metavar="N")
    train.add_argument("--learning-rate", type=float, metavar="R")
    train.add_argument("--schedule", choices=("one-cycle", "constant", "exponential"), help="of the learning rate")
    train.add_argument("--average-decay", type=float, metavar="D", help="of the moving average of the weights")
    train.add_argument("--seed", type=int, metavar="N")
    train.add_argument("--encoder", metavar="NAME", help="encoder of segmentation_models_pytorch")
    train.add_argument(
        "--padding",
        choices=("symmetric", "same"),
        help="of the encoder; 'same' as TensorFlow pads (timm's only); of another encoder: symmetric",
    )
    train.add_argument("--start", metavar="FROM", help="imagenet (default), random, or a model version to go on from")
    train.add_argument("--normal-repeats", type=int, metavar="N", help="how often an epoch shows each normal scan")
    train.add_argument(
        "--pasted-share",
        type=float,
        metavar="S",
        help="of a normal's showings, with a lesion of another scan in it",
    )
    train.add_argument(
        "--teachers",
        nargs="+",
        metavar="VERSION",
        help="versions whose joint answer is learned from beside the truth; what taught them taught this one too",
    )
    train.add_argument("--teacher-share", type=float, metavar="S", help="of the loss that is about their answer")
    train.add_argument("--augmentation", choices=("ultrasound", "ultrasound-wide", "none"), help="of training scans")
    train.add_argument("--precision", choices=("bf16", "fp32"))
    _add_runs(train)
    train.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    train.set_defaults(run=_train)

    joined = commands.add_parser("second-opinion", help="make a version that asks others of its recipe in doubt")
    joined.add_argument("version", help="name of the new version, a folder under weights/")
    joined.add_argument("--of", required=True, metavar="VERSION", help="whose network reads first; its cut-offs stay")
    joined.add_argument(
        "--readers",
        nargs="+",
        required=True,
        metavar="VERSION",
        help="an even number, of the same recipe and test fold, such as its siblings",
    )
    joined.set_defaults(run=_join)

    recipes = commands.add_parser("recipes", help="list the published systems that can be trained")
    recipes.set_defaults(run=_recipes)

    reproduce = commands.add_parser(
        "reproduce", help="train the published systems under a budget; goes on where it was"
    )
    reproduce.add_argument(
        "--budget", choices=("full", "cpu"), default="cpu", help="full as printed; cpu (default) small"
    )
    reproduce.add_argument("--epochs", type=int, metavar="N", help="at most so many a stage")
    reproduce.add_argument("--size", type=int, metavar="PX", help="side of the input, a multiple of 32")
    reproduce.add_argument("--hours", type=float, metavar="H", help="wall-clock of all runs together")
    reproduce.add_argument("--only", nargs="+", metavar="NAME", help="'leak' or recipes, in this order; default all")
    reproduce.add_argument(
        "--seeds", type=int, nargs="+", choices=range(5), default=[0, 1, 2], metavar="K", help="of leak"
    )
    _add_runs(reproduce)
    reproduce.add_argument(
        "--out",
        type=Path,
        default=Path("docs"),
        metavar="DIR",
        help="for reproduction.md and .json (default: docs, here)",
    )
    reproduce.set_defaults(run=_reproduce)

    sweep = commands.add_parser("sweep", help="the ablation of unet-roi-segnet: learning rates and filters")
    sweep.add_argument("--epochs", type=int, metavar="N", help="at most so many a stage")
    sweep.add_argument("--size", type=int, metavar="PX", help="side of the input, a multiple of 32")
    _add_runs(sweep)
    sweep.set_defaults(run=_sweep)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where checkpoints and logs go (default: runs, here)",
    )


def recipe_of(options: argparse.Namespace) -> "Recipe":
    """What `busi train` with these options trains."""
    from busi_core.recipe_run import scaled_for
    from busi_core.recipes.catalogue import get_recipe

    recipe = scaled_for(get_recipe(options.recipe), _given(options, *TRAINING_OPTIONS))
    if options.size is not None:
        recipe = scaled_for(recipe, {"preprocess": _resized(recipe.final.preprocess, options.size)})
    if parts := _given(options, "encoder", "padding"):
        own = recipe.final.architecture
        if parts.get("encoder", own.encoder) != own.encoder:
            parts.setdefault("padding", "symmetric")  # every encoder's; 'same' goes with the recipe's own
        recipe = scaled_for(recipe, {"architecture": replace(own, **parts)})
    return recipe


def _train(options: argparse.Namespace) -> int:
    from busi_core.registry import check_version_name

    recipe = recipe_of(options)
    run = options.runs / check_version_name(options.version)
    if options.tissue and not recipe.is_tissue:
        raise TrainingError(
            f"The recipe {recipe.name} learns from scans, not from tissue.",
            remedy="Leave --tissue out, or take the recipe for tissue; 'busi recipes' lists them.",
        )
    with _hold_run(run):
        return _train_tissue(options, recipe, run) if recipe.is_tissue else _train_scans(options, recipe, run)


@contextmanager
def _hold_run(run: Path) -> Iterator[None]:
    """The right to train in this folder, the one that a job's child holds; under torchrun the first process has it.

    Raises:
        TrainingError: Another process trains there.
        OutputError: The folder cannot be written, or knows no locks.
    """
    from busi_core.jobs.run_folder import LOCK_FILE
    from busi_core.locks import ProcessLock

    lock = ProcessLock(run / LOCK_FILE)
    if int(os.environ.get("RANK", "0")) == 0 and not lock.acquire():
        raise TrainingError(
            f"Another process trains in the folder {run}.", remedy="Wait until it is done, or take another name."
        )
    try:
        yield
    finally:
        lock.release()


def _train_scans(options: argparse.Namespace, recipe: "Recipe", run: Path) -> int:
    from busi_core.training.state import CHECKPOINT_FILE
    from busi_core.training_run import Listener, train_version

    settings = read_settings()
    if not options.resume and any(run.rglob(CHECKPOINT_FILE)):  # in the folder itself, or of a stage, of any recipe
        raise TrainingError(
            f"There is a run of the name {options.version!r} already.",
            remedy="Go on with it by --resume, take another name, or remove its folder.",
        )

    def count(split: "Split") -> None:
        print(
            f"{len(split.train)} images to train on, {len(split.validation)} to choose by; the test part stays closed."
        )

    def report(epoch: "Epoch") -> None:
        print(epoch.describe(recipe.final.epochs), flush=True)

    made = train_version(
        options.version,
        recipe,
        data_sets=tuple(options.data or recipe.data_sets),
        test_fold=options.test_fold,
        run=run,
        settings=settings,
        resume=options.resume,
        kept=options.validation_fold,
        siblings=options.siblings,
        listener=Listener(on_split=count, on_epoch=report),
    )
    if made is not None:
        card, progress = made
        folder = settings.weights_dir / card.version
        print(f"{folder}: {recipe.final.keeps} epoch {progress.best_epoch}, cut-off {card.lesion_threshold}.")
        print(f"Next: busi evaluate --model {card.version} --save")
    return 0


def _train_tissue(options: argparse.Namespace, recipe: "Recipe", run: Path) -> int:
    from busi_core.study.budget import Clock
    from busi_core.study.tissue import run_tissue

    done = run_tissue(recipe, run, clock=Clock(run, cap=None), say=say, data=options.tissue)
    print(f"{recipe.name}, {done.extra['note']}:")
    for name, value in done.extra["figures"].items():
        print(f"  {name:<20} {value['estimate']:.3f}  [{value['low']:.3f} - {value['high']:.3f}]")
    print(f"written: {run / 'versions' / recipe.name}; it reads no scans and is never served")
    return 0


def _resized(spec: "PreprocessSpec", side: int) -> "PreprocessSpec":
    try:
        return replace(spec, side=side)
    except ValueError as error:
        raise TrainingError(f"No run can have these options: {error}.", remedy="See 'busi train --help'.") from error


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the options that were typed."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _fold_or_none(text: str) -> int | None:
    if text not in ("none", *map(str, range(5))):
        raise argparse.ArgumentTypeError(f"must be 0 to 4 or none, got {text}")
    return None if text == "none" else int(text)


def _kept(text: str) -> int | str:
    if text not in ("next", "none", *map(str, range(5))):
        raise argparse.ArgumentTypeError(f"must be 0 to 4 or none, got {text}")
    return int(text) if text.isdigit() else text


def _join(options: argparse.Namespace) -> int:
    from busi_core.double_reading import join

    card = join(options.version, of=options.of, readers=options.readers, settings=read_settings())
    say(f"{card.version} reads as {options.of} does, and asks {' and '.join(options.readers)} in doubt.")
    return 0


def _recipes(_options: argparse.Namespace) -> int:
    from busi_core.recipes.catalogue import RECIPES

    for recipe in RECIPES.values():
        paper = f"paper {recipe.paper}" if recipe.paper else "the product"
        print(f"{recipe.name:<22} {paper:<11} {recipe.summary}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from busi_core.recipes.catalogue import get_recipe
    from busi_core.study.budget import BUDGETS
    from busi_core.study.reproduce import Study

    budget = replace(BUDGETS[options.budget], **_given(options, "epochs", "size", "hours"))
    only = None if options.only is None else [get_recipe(name).name for name in options.only if name != "leak"]
    study = Study(read_settings(), budget, options.runs, options.out, say)
    study.run(leak=options.only is None or "leak" in options.only, recipes=only, seeds=options.seeds)
    print(f"written: {options.out / 'reproduction.md'} and {options.out / 'reproduction.json'}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from busi_core.study.budget import BUDGETS
    from busi_core.study.reproduce import run_sweep

    replace(BUDGETS["full"], **_given(options, "epochs", "size"))  # refuses what no run can have
    for name, figures in run_sweep(read_settings(), options.runs, say, epochs=options.epochs, size=options.size):
        shown = ", ".join(
            f"{figure} {value.estimate:.3f} ({value.low:.3f}-{value.high:.3f})" for figure, value in figures
        )
        print(f"{name}: {shown}", flush=True)
    return 0
