"""The command line: `busi COMMAND`, one function for each command.

The only file of the core that prints.
"""

import argparse
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busi_core.errors import BusiError, DatasetError, TrainingError
from busi_core.explain.catalogue import DEEPEST, Method
from busi_core.settings import read_settings

if TYPE_CHECKING:
    from busi_core.data.records import Record
    from busi_core.data.splits import Split
    from busi_core.evaluation import EvaluationReport
    from busi_core.imaging.preprocess import PreprocessSpec
    from busi_core.models.checkpoint import ModelCard
    from busi_core.recipes.recipe import Recipe
    from busi_core.service import Analyser
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
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 when something was reported, 2 for wrong usage."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(options.run(options))
    except BusiError as error:
        print(f"busi: {error.problem} {error.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("busi: stopped; what was finished is kept.", file=sys.stderr)
        return 130


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="busi", description="Read breast-ultrasound scans. Research use only, not a medical device."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    analyse = commands.add_parser("analyse", help="read scans: mask, class and heat map as files")
    analyse.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders; *_mask* are skipped")
    analyse.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    analyse.add_argument("--frame", type=_count_frame, metavar="N", help="frame of a file with several, from 1")
    analyse.add_argument("--model", metavar="VERSION", help="another version than the one in service")
    analyse.add_argument(
        "--jobs",
        type=_count,
        default=2,
        metavar="N",
        help="scans read side by side (default 2)",
    )
    analyse.add_argument(
        "--explain",
        nargs="+",
        choices=[method.value for method in Method],
        default=[],
        metavar="METHOD",
        help=f"more heat maps, as files of their own: {', '.join(Method)}",
    )
    analyse.add_argument(
        "--of", metavar="CLASS", help="explain this class, or 'lesion mask' (default: the likeliest class)"
    )
    analyse.add_argument(
        "--layer",
        default=DEEPEST,
        metavar="NAME",
        help="explain at this layer: deepest (default), encoder-4 and so on, or decoder (for the mask)",
    )
    analyse.set_defaults(run=_analyse)

    compare = commands.add_parser("compare", help="read scans and compare them with their reference masks")
    compare.add_argument("images", type=Path, metavar="IMAGES", help="folder of scans, as BUSI or BUS-BRA")
    compare.add_argument("masks", type=Path, metavar="MASKS", help="folder of their masks; may be the same")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR", help="compare.csv and summary.json go here")
    compare.add_argument("--model", metavar="VERSION", help="another version than the one in service")
    compare.add_argument("--jobs", type=_count, default=2, metavar="N", help="scans read side by side (default 2)")
    compare.set_defaults(run=_compare)

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
        "--padding", choices=("symmetric", "same"), help="of the encoder; 'same' as TensorFlow pads (timm's only)"
    )
    train.add_argument("--start", metavar="FROM", help="imagenet (default), random, or a model version to go on from")
    train.add_argument("--normal-repeats", type=int, metavar="N", help="how often an epoch shows each normal scan")
    train.add_argument(
        "--teachers",
        nargs="+",
        metavar="VERSION",
        help="versions whose joint answer is learned from beside the truth; what taught them taught this one too",
    )
    train.add_argument("--teacher-share", type=float, metavar="S", help="of the loss that is about their answer")
    train.add_argument("--augmentation", choices=("ultrasound", "ultrasound-wide", "none"), help="of training scans")
    train.add_argument("--precision", choices=("bf16", "fp32"))
    train.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where checkpoints and logs go")
    train.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    train.set_defaults(run=_train)

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
    reproduce.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    reproduce.add_argument(
        "--out", type=Path, default=Path("docs"), metavar="DIR", help="for reproduction.md and .json"
    )
    reproduce.set_defaults(run=_reproduce)

    sweep = commands.add_parser("sweep", help="the ablation of unet-roi-segnet: learning rates and filters")
    sweep.add_argument("--epochs", type=int, metavar="N", help="at most so many a stage")
    sweep.add_argument("--size", type=int, metavar="PX", help="side of the input, a multiple of 32")
    sweep.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    sweep.set_defaults(run=_sweep)

    worker = commands.add_parser("worker", help="run the trainings that were queued, on this machine, until stopped")
    worker.add_argument("--device", metavar="NAME", help="cpu, cuda:0, ...; default: a process for each device")
    worker.add_argument("--until-idle", type=float, metavar="SECONDS", help="end when nothing was queued for so long")
    worker.set_defaults(run=_worker)

    evaluate = commands.add_parser("evaluate", help="score a version on scans it never saw")
    evaluate.add_argument("--model", metavar="VERSION", help="default: the version in service")
    evaluate.add_argument(
        "--test-fold", type=int, choices=range(5), metavar="K", help="BUSI fold, 0 to 4; default: the one its card kept"
    )
    evaluate.add_argument("--no-bus-bra", action="store_true", help="leave out BUS-BRA's test fold")
    evaluate.add_argument(
        "--simulated", type=int, metavar="N", help="instead: how many of N simulated scans a class are read right"
    )
    evaluate.add_argument(
        "--all", action="store_true", help="also what it knows of its limits: sets, refusal, doubt, heat maps, marks"
    )
    evaluate.add_argument(
        "--save", action="store_true", help="write evaluation.json (with --all also assessment.json) beside the weights"
    )
    evaluate.add_argument(
        "--all-folds",
        nargs="+",
        metavar="VERSION",
        help="instead: versions of the same recipe, each scored on the fold of BUSI that it never saw, pooled",
    )
    evaluate.add_argument(
        "--elsewhere", metavar="VERSION", help="instead: a version of the same recipe taught by BUSI alone, on BUS-BRA"
    )
    evaluate.set_defaults(run=_evaluate)

    card = commands.add_parser("card", help="print the model card of a version as markdown")
    card.add_argument("--model", metavar="VERSION", help="default: the version in service")
    card.add_argument("--figures", action="store_true", help="only the table of figures, as in the README")
    card.set_defaults(run=_card)

    limits = commands.add_parser("limits", help="measure anew what a version knows of its limits, from its own data")
    limits.add_argument("version")
    limits.add_argument(
        "--siblings",
        nargs="+",
        default=(),
        metavar="VERSION",
        help="versions of the same recipe; the fold of BUSI that each kept counts for the sets of classes too",
    )
    limits.set_defaults(run=_limits)

    serve = commands.add_parser("serve", help="put a version into service without the gate (the machine's owner)")
    serve.add_argument("version")
    serve.add_argument("--comment", default="", metavar="TEXT", help="why; kept in the history")
    serve.set_defaults(run=_serve)

    judge = commands.add_parser(
        "judge", help="hold a version against the one in service by the rules of promotion.toml"
    )
    judge.add_argument("version")
    judge.set_defaults(run=_judge)

    promote = commands.add_parser("promote", help="put a judged version into service, if its verdict allows it")
    promote.add_argument("version")
    promote.add_argument("--comment", required=True, metavar="TEXT", help="why; kept in the record")
    promote.set_defaults(run=_promote)

    rollback = commands.add_parser("rollback", help="put a version back that was in service before")
    rollback.add_argument("version")
    rollback.add_argument("--comment", default="", metavar="TEXT", help="why; kept in the history")
    rollback.set_defaults(run=_rollback)

    splits = commands.add_parser("splits", help="check the committed folds against the scans at hand")
    splits.add_argument("--write", type=Path, metavar="FILE", help="make the folds anew into this file")
    splits.set_defaults(run=_splits)

    hashes = commands.add_parser("hashes", help="write hashes of the scans that taught a version beside its weights")
    hashes.add_argument("version")
    hashes.set_defaults(run=_hashes)

    datasets = commands.add_parser("datasets", help="list the accepted data sets; examine or add one")
    datasets.set_defaults(run=_datasets, source_path=None)
    parts = datasets.add_subparsers(metavar="examine|add", help="without: list them")
    examine = parts.add_parser("examine", help="print the report on a folder or zip; nothing is kept")
    add = parts.add_parser("add", help="print the report, then keep what can be kept as a new version")
    for part in (examine, add):
        part.add_argument("source_path", type=Path, metavar="FOLDER_OR_ZIP", help="as BUSI or BUS-BRA")
        part.set_defaults(name=None)
    add.add_argument("--name", required=True, help="of the data set; part of its id")
    add.add_argument("--source", required=True, help="where the scans come from")
    add.add_argument("--licence", required=True, help="on which terms they may be used")
    add.add_argument("--clean", action="store_true", help="keep only scans without a finding, of copies one")
    add.add_argument(
        "--no-patient-text",
        action="store_true",
        help="you looked: no scan with text or patient tags names a patient; without it such scans are left out",
    )

    hash_password = commands.add_parser(
        "hash-password", help="ask for a password and print its hash for the secrets of the server"
    )
    hash_password.set_defaults(run=_hash_password)
    return parser


def _analyse(options: argparse.Namespace) -> int:
    from busi_core.folder import Asked, analyse_plan, plan_paths
    from busi_core.service import Serving, choose_device

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    analyser = serving.load(options.model) if options.model else serving.current()
    plan = plan_paths(options.paths, options.out)
    progress, failed, before = _Progress(len(plan.targets)), 0, 0
    asked = Asked(tuple(dict.fromkeys(map(Method, options.explain))), options.of, options.layer)
    frame = None if options.frame is None else options.frame - 1  # people and DICOM count from 1
    for outcome in analyse_plan(analyser, plan, frame=frame, jobs=options.jobs, asked=asked):
        progress.clear()
        if outcome.error is not None:
            failed += 1
            print(f"{outcome.path}: {outcome.error.problem} {outcome.error.remedy}", file=sys.stderr)
        elif outcome.already_done:
            before += 1
        else:
            print(f"{outcome.path}: {outcome.summary}")
        progress.step(failed, counts=not outcome.already_done)
    if before:
        print(f"busi: {before} files were done before and left alone.", file=sys.stderr)
    if failed:
        print(f"busi: {failed} files could not be read.", file=sys.stderr)
    return 1 if failed else 0


def _compare(options: argparse.Namespace) -> int:
    from busi_core.folder_compare import compare_cases, list_cases, write_comparison
    from busi_core.service import Serving, choose_device

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    analyser = serving.load(options.model) if options.model else serving.current()
    batch = list_cases(options.images, options.masks)
    progress, failed, rows = _Progress(len(batch.cases)), 0, []
    for row in compare_cases(analyser, batch, options.out, jobs=options.jobs):
        rows.append(row)
        reason = row.problem or row.truth.problem
        if reason:
            failed += 1
            progress.clear()
            print(f"{row.name}: {reason}", file=sys.stderr)
        progress.step(failed)
    progress.clear()
    for mask in batch.lone_masks:
        print(f"{mask.name}: no scan came with this mask.", file=sys.stderr)
    for summary in write_comparison(analyser, rows, batch, options.out):
        print(f"{summary.title}: {summary.scans}, {summary.distinct} distinct. {summary.caution}")
        for figure in summary.figures:
            print(f"  {figure.name:<34} {figure!s:<24} ({figure.scans} scans)")
    print(f"written: {options.out / 'compare.csv'} and {options.out / 'summary.json'}")
    if failed:
        print(f"busi: {failed} of {len(rows)} scans could not be compared.", file=sys.stderr)
    return 1 if failed or batch.lone_masks else 0


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the options that were typed."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _train(options: argparse.Namespace) -> int:
    from busi_core.recipe_run import scaled_for
    from busi_core.recipes.catalogue import get_recipe
    from busi_core.registry import check_version_name
    from busi_core.training_run import Listener, train_version

    settings = read_settings()
    recipe = get_recipe(options.recipe)
    run = options.runs / check_version_name(options.version)
    recipe = scaled_for(recipe, _given(options, *TRAINING_OPTIONS))
    if options.size is not None:
        recipe = scaled_for(recipe, {"preprocess": _resized(recipe.final.preprocess, options.size)})
    if parts := _given(options, "encoder", "padding"):
        recipe = scaled_for(recipe, {"architecture": replace(recipe.final.architecture, **parts)})
    if recipe.is_tissue:
        return _train_tissue(options, recipe, run)

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
        listener=Listener(on_split=count, on_epoch=report),
    )
    if made is not None:
        card, progress = made
        folder = settings.weights_dir / card.version
        print(f"{folder}: best epoch {progress.best_epoch}, cut-off {card.lesion_threshold}.")
        print(f"Next: busi evaluate --model {card.version} --save")
    return 0


def _worker(options: argparse.Namespace) -> int:
    from busi_core.jobs.launch import run_workers

    if not run_workers(device=options.device, idle_seconds=options.until_idle):
        print("busi: another worker does this on this machine already.", file=sys.stderr)
        return 1
    return 0


def _resized(spec: "PreprocessSpec", side: int) -> "PreprocessSpec":
    try:
        return replace(spec, side=side)
    except ValueError as error:
        raise TrainingError(f"No run can have these options: {error}.", remedy="See 'busi train --help'.") from error


def _train_tissue(options: argparse.Namespace, recipe: "Recipe", run: Path) -> int:
    from busi_core.study.budget import Clock
    from busi_core.study.tissue import run_tissue

    done = run_tissue(recipe, run, clock=Clock(run, cap=None), say=_say, data=options.tissue)
    print(f"{recipe.name}, {done.extra['note']}:")
    for name, value in done.extra["figures"].items():
        print(f"  {name:<20} {value['estimate']:.3f}  [{value['low']:.3f} - {value['high']:.3f}]")
    print(f"written: {run / 'versions' / recipe.name}; it reads no scans and is never served")
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
    study = Study(read_settings(), budget, options.runs, options.out, _say)
    study.run(leak=options.only is None or "leak" in options.only, recipes=only, seeds=options.seeds)
    print(f"written: {options.out / 'reproduction.md'} and {options.out / 'reproduction.json'}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from busi_core.study.reproduce import run_sweep

    for name, figures in run_sweep(read_settings(), options.runs, _say, epochs=options.epochs, size=options.size):
        shown = ", ".join(
            f"{figure} {value.estimate:.3f} ({value.low:.3f}-{value.high:.3f})" for figure, value in figures
        )
        print(f"{name}: {shown}", flush=True)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _evaluate(options: argparse.Namespace) -> int:
    from busi_core.data.records import read_bus_bra, read_busi
    from busi_core.data.splits import BUS_BRA_TEST_FOLD, split_bus_bra, split_busi
    from busi_core.evaluation import evaluate, format_table, write_reports
    from busi_core.service import Serving, choose_device

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    analyser = serving.load(options.model) if options.model else serving.current()
    if options.simulated:
        return _print_simulated(analyser, options.simulated)
    if options.all_folds or options.elsewhere:
        return _cross_validate(options, analyser.card)
    fold = analyser.card.training.get("test_fold", 0) if options.test_fold is None else options.test_fold
    busi = read_busi(settings.data_root / "busi")
    tests = [] if fold is None else [(f"busi fold {fold}", split_busi(busi, test_fold=fold).test)]
    known = list(busi)
    if not options.no_bus_bra:
        bus_bra = read_bus_bra(settings.data_root / "bus-bra")
        known += bus_bra
        tests.append((f"bus-bra fold {BUS_BRA_TEST_FOLD}", split_bus_bra(bus_bra).test))
    if not tests:
        raise DatasetError(
            f"{analyser.card.version!r} kept no fold of BUSI for the test.", remedy="Leave out --no-bus-bra."
        )
    reports = []
    for name, records in tests:
        report = evaluate(analyser, records, known, test_set=name, on_scan=_show_count)
        print(format_table(report), flush=True)
        reports.append(report)
    if options.save:
        folder = settings.weights_dir / analyser.card.version
        write_reports(folder, reports)
        print(f"written: {folder / 'evaluation.json'}")
    if options.all:
        _assess(analyser, reports, dict(tests), save=options.save)
    return 0


def _cross_validate(options: argparse.Namespace, card: "ModelCard") -> int:
    from busi_core.cross_validation import CROSS_VALIDATION_FILE, ELSEWHERE, keep, pool, require_same_recipe
    from busi_core.data.records import read_bus_bra, read_busi
    from busi_core.data.splits import split_bus_bra, split_busi
    from busi_core.evaluation import evaluate, format_table
    from busi_core.service import Serving, choose_device

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    busi, bus_bra = read_busi(settings.data_root / "busi"), read_bus_bra(settings.data_root / "bus-bra")
    reports = []
    if options.all_folds:
        parts = []
        for name in options.all_folds:
            analyser = serving.load(name)
            require_same_recipe(card, [analyser.card])
            fold = analyser.card.training["test_fold"]
            test = split_busi(busi, test_fold=fold).test
            part = evaluate(analyser, test, [*busi, *bus_bra], test_set=f"busi fold {fold}", on_scan=_show_count)
            print(format_table(part), flush=True)
            parts.append(part)
        reports.append(pool(card, parts))
    if options.elsewhere:
        analyser = serving.load(options.elsewhere)
        require_same_recipe(card, [analyser.card])
        test = split_bus_bra(bus_bra).test
        part = evaluate(analyser, test, [*busi, *bus_bra], test_set=ELSEWHERE, on_scan=_show_count)
        reports.append(replace(part, model=card.version, sha256=card.sha256, flag=None, bands=()))
    for report in reports:
        print(format_table(report), flush=True)
    if options.save:
        keep(settings.weights_dir / card.version, reports)
        print(f"written: {settings.weights_dir / card.version / CROSS_VALIDATION_FILE}")
    return 0


def _assess(
    analyser: "Analyser", reports: list["EvaluationReport"], tests: "dict[str, Sequence[Record]]", *, save: bool
) -> None:
    from busi_core.assessment import assess, format_assessment, write_assessment

    folder = read_settings().weights_dir / analyser.card.version
    figures = assess(analyser, folder, reports, tests, on_step=lambda _, done, total: _show_count(done, total))
    print(format_assessment(figures))
    if save:
        write_assessment(folder, figures, sha256=analyser.card.sha256)
        print(f"written: {folder / 'assessment.json'}")


def _limits(options: argparse.Namespace) -> int:
    from busi_core.cross_validation import deal_kept_folds
    from busi_core.data.records import read_busi
    from busi_core.limits import write_limits
    from busi_core.recipes.product import read_split
    from busi_core.registry import check_version_name
    from busi_core.release import fit_limits
    from busi_core.service import Analyser, Serving, choose_device
    from busi_core.types import Diagnosis

    settings = read_settings()
    folder = settings.weights_dir / check_version_name(options.version)
    device = choose_device(settings.device)
    analyser = Analyser.load_without_limits(folder, device)
    training = analyser.card.training
    split = read_split(settings, tuple(training["data_sets"]), test_fold=training["test_fold"])
    load = Serving(settings.weights_dir, device).load
    busi = read_busi(settings.data_root / "busi") if options.siblings else []
    siblings = deal_kept_folds(analyser.card, split.train, [load(name) for name in options.siblings], busi)
    limits = fit_limits(analyser, split.train, split.validation, _show_count, siblings=siblings)
    write_limits(folder, limits, analyser.card)
    for diagnosis, scores in zip(Diagnosis, limits.class_scores, strict=False):
        print(f"{len(scores)} scans called {diagnosis.value} stand behind its sets of classes.")
    print(f"written: {folder / 'limits.safetensors'}")
    return 0


def _print_simulated(analyser: "Analyser", count: int) -> int:
    from busi_core.simulated import read_simulated

    print(f"{analyser.card.version} on simulated scans, seeds 1 to {count}; this says nothing about patients:")
    for rate in read_simulated(analyser, range(1, count + 1)):
        print(
            f"  {rate.diagnosis.value:<10} class right {rate.class_right}/{rate.scans}, "
            f"mask right {rate.mask_right}/{rate.scans}, both {rate.both_right}/{rate.scans}"
        )
    return 0


def _card(options: argparse.Namespace) -> int:
    from busi_core.assessment import read_assessment
    from busi_core.cross_validation import read_cross_validation
    from busi_core.evaluation import read_reports
    from busi_core.limits import read_limits
    from busi_core.model_card import format_figures, format_model_card
    from busi_core.models.checkpoint import read_card
    from busi_core.registry import check_version_name, read_registry

    weights_dir = read_settings().weights_dir
    version = check_version_name(options.model) if options.model else read_registry(weights_dir).in_service
    folder = weights_dir / version
    reports, crossed = read_reports(folder), read_cross_validation(folder)
    if options.figures:
        print(format_figures([*reports, *crossed]))
    else:
        found = read_card(folder)
        assessed = read_assessment(folder, sha256=found.sha256)
        print(format_model_card(found, reports, assessed, crossed, read_limits(folder, found)), end="")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from busi_core.audit import open_audit
    from busi_core.registry import put_into_service
    from busi_core.service import Serving, choose_device

    settings = read_settings()
    Serving(settings.weights_dir, choose_device("cpu")).load(options.version)  # refused where it could not answer
    audit = open_audit(settings) if settings.state_dir.is_dir() else None
    put_into_service(settings.weights_dir, options.version, comment=options.comment, audit=audit)
    print(f"in service: {options.version}")
    return 0


def _judge(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.promotion.judging import judge_on_record
    from busi_core.promotion.verdict import format_verdict

    verdict = judge_on_record(command_line().confirm(), options.version, read_settings(), _show_count)
    print(format_verdict(verdict))
    return 0 if verdict.may_be_promoted else 1


def _promote(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.audit import open_audit
    from busi_core.promotion.promote import promote
    from busi_core.promotion.protocol import read_protocol
    from busi_core.promotion.verdict import read_verdict
    from busi_core.registry import check_version_name, read_registry

    settings = read_settings()
    in_service = read_registry(settings.weights_dir).in_service
    folder = settings.weights_dir / check_version_name(options.version)
    registry = promote(
        command_line(),
        options.version,
        comment=options.comment,
        expected_in_service=in_service,
        verdict=read_verdict(folder, in_service, read_protocol(settings.promotion_protocol)),
        settings=settings,
        audit=open_audit(settings),
    )
    print(f"in service: {registry.in_service} (before: {in_service})")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.audit import open_audit
    from busi_core.promotion.promote import roll_back
    from busi_core.registry import read_registry

    settings = read_settings()
    in_service = read_registry(settings.weights_dir).in_service
    registry = roll_back(
        command_line(),
        options.version,
        comment=options.comment,
        expected_in_service=in_service,
        settings=settings,
        audit=open_audit(settings),
    )
    print(f"in service: {registry.in_service} (before: {in_service})")
    return 0


def _datasets(options: argparse.Namespace) -> int:
    from busi_core.access import command_line
    from busi_core.audit import open_audit
    from busi_core.managed.inspection import examine
    from busi_core.managed.intake import open_path
    from busi_core.managed.known import read_known
    from busi_core.managed.report import find_unclean, plan_acceptance
    from busi_core.managed.report_text import format_plan, format_report, format_sets
    from busi_core.managed.store import accept, find_damaged, list_sets

    settings = read_settings()
    if options.source_path is None:
        print(format_sets(list_sets(settings.state_dir)))
        damaged = find_damaged(settings.state_dir)
        for name in damaged:
            print(f"busi: the data set {name} is damaged. Restore its folder from a backup.", file=sys.stderr)
        return 1 if damaged else 0
    report = examine(open_path(options.source_path), read_known(settings, _show_count), _show_count)
    print(format_report(report))
    if options.name is None:
        return 0
    excluded = find_unclean(report) if options.clean else set()
    confirmed = {scan.id for scan in report.scans} if options.no_patient_text else set()
    print(f"kept: {format_plan(plan_acceptance(report, excluded, confirmed))}")
    managed = accept(
        command_line(),
        report,
        name=options.name,
        source=options.source,
        licence=options.licence,
        excluded=excluded,
        confirmed=confirmed,
        settings=settings,
        audit=open_audit(settings),
    )
    print(managed.id)
    return 0


def _hash_password(_: argparse.Namespace) -> int:
    from getpass import getpass

    from busi_core.access.password import hash_password
    from busi_core.errors import AccessDeniedError

    password = getpass("Password (it does not show): ")
    hashed = hash_password(password)
    if getpass("The same again: ") != password:
        raise AccessDeniedError("The two differ.", remedy="Run the command again.")
    print(hashed)
    return 0


def _splits(options: argparse.Namespace) -> int:
    import numpy as np

    from busi_core.data.duplicates import find_pairs, fingerprint, pairs_within, read_published_scans
    from busi_core.data.records import read_busi
    from busi_core.data.splits import make_folds, read_folds, write_folds
    from busi_core.imaging.decode import decode_image

    folder = read_settings().data_root / "busi"
    records = read_busi(folder)
    names = [record.name for record in records]
    found = find_pairs(names, np.stack([fingerprint(decode_image(r.image.read_bytes()).grey) for r in records]))
    published = read_published_scans(folder / "duplicates_pawlowska_2023.csv")
    true = pairs_within([[name for name in scan.files if name in set(names)] for scan in published])
    print(f"{len(records)} images; {len(true)} published pairs of copies, {len(found)} found from pixels:")
    print(f"  recall {len(found & true) / len(true):.3f}, precision {len(found & true) / max(1, len(found)):.3f}")
    made = make_folds(records, published, found)
    if options.write:
        write_folds(made, options.write)
        print(f"written: {options.write}")
        return 0
    committed = read_folds()
    for fold in [*range(5), None]:
        part = [scan for scan in committed if scan.fold == fold]
        title = "training only" if fold is None else f"fold {fold}"
        print(f"  {title}: {len(part)} scans, {sum(len(scan.files) for scan in part)} files")
    if made != committed:
        print("The committed folds are not those of these scans.", file=sys.stderr)
        return 1
    print("The committed folds are those of these scans.")
    return 0


def _hashes(options: argparse.Namespace) -> int:
    from busi_core.data.records import read_bus_bra, read_busi
    from busi_core.models.checkpoint import read_card
    from busi_core.registry import check_version_name
    from busi_core.taught import TAUGHT_FILE, hash_records, write_taught

    settings = read_settings()
    folder = settings.weights_dir / check_version_name(options.version)
    names = set(read_card(folder).trained_on)
    known = [*read_busi(settings.data_root / "busi"), *read_bus_bra(settings.data_root / "bus-bra")]
    found = [record for record in known if record.id in names]
    if len(found) < len(names):
        raise DatasetError(
            f"{len(names) - len(found)} of {len(names)} scans that taught {options.version!r} are not at hand.",
            remedy="Set BUSI_DATA_ROOT to the folder that holds them all.",
        )
    hashes = hash_records(found)
    write_taught(folder, hashes)
    print(f"written: {folder / TAUGHT_FILE}, {len(hashes)} hashes of {len(found)} scans")
    return 0


def _show_count(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)


class _Progress:
    """One line on a terminal: how many are done, how fast, how long still; nothing where the output is a file."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._counted = total, 0, 0
        self._start = time.monotonic()
        self._shown = sys.stderr.isatty()

    def clear(self) -> None:
        """Make room for another line."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def step(self, failed: int, *, counts: bool = True) -> None:
        """One more; `counts` when it took the time of a scan."""
        self._done += 1
        self._counted += counts
        if not self._shown:
            return
        seconds = max(time.monotonic() - self._start, 1e-6)
        rate = self._counted / seconds
        left = f", {(self._total - self._done) / rate / 60:.1f} min left" if rate else ""
        refused = f", {failed} refused" if failed else ""
        end = "" if self._done < self._total else "\n"
        line = f"\r{self._done}/{self._total}  {rate:.1f} scans/s{left}{refused}\033[K"
        print(line, end=end, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError(f"must be 1 to 64, got {text}")
    return number


def _fold_or_none(text: str) -> int | None:
    if text not in ("none", *map(str, range(5))):
        raise argparse.ArgumentTypeError(f"must be 0 to 4 or none, got {text}")
    return None if text == "none" else int(text)


def _count_frame(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"frames are counted from 1, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
