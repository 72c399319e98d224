"""The command line: busi analyse | compare | train | evaluate | card | serve | splits.

The only file of the core that prints.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from busi_core.errors import BusiError, TrainingError
from busi_core.settings import read_settings

if TYPE_CHECKING:
    from busi_core.service import Analyser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 when something was reported, 2 for wrong usage."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
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
    analyse.add_argument("--frame", type=int, metavar="N", help="frame of a file with several, from 0")
    analyse.add_argument("--model", metavar="VERSION", help="another version than the one in service")
    analyse.add_argument(
        "--jobs",
        type=_count,
        default=2,
        metavar="N",
        help="scans read side by side (default 2)",
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
        "--data", nargs="+", default=["busi", "bus-bra"], metavar="SET", help="busi, bus-bra (default both)"
    )
    train.add_argument(
        "--test-fold",
        type=int,
        choices=range(5),
        default=0,
        metavar="K",
        help="BUSI fold kept for the test, 0 to 4 (default 0)",
    )
    train.add_argument("--epochs", type=int, metavar="N")
    train.add_argument("--size", type=int, metavar="PX", help="side of the network's input, a multiple of 32")
    train.add_argument("--batch-size", type=int, metavar="N")
    train.add_argument("--learning-rate", type=float, metavar="R")
    train.add_argument("--seed", type=int, metavar="N")
    train.add_argument("--encoder", metavar="NAME", help="encoder of segmentation_models_pytorch")
    train.add_argument("--start", metavar="FROM", help="imagenet (default), random, or a model version to go on from")
    train.add_argument("--normal-repeats", type=int, metavar="N", help="how often an epoch shows each normal scan")
    train.add_argument("--precision", choices=("bf16", "fp32"))
    train.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where checkpoints and logs go")
    train.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="score a version on scans it never saw")
    evaluate.add_argument("--model", metavar="VERSION", help="default: the version in service")
    evaluate.add_argument(
        "--test-fold", type=int, choices=range(5), metavar="K", help="BUSI fold, 0 to 4; default: the one its card kept"
    )
    evaluate.add_argument("--no-bus-bra", action="store_true", help="leave out BUS-BRA's test fold")
    evaluate.add_argument(
        "--simulated", type=int, metavar="N", help="instead: how many of N simulated scans a class are read right"
    )
    evaluate.add_argument("--save", action="store_true", help="write evaluation.json beside the weights")
    evaluate.set_defaults(run=_evaluate)

    card = commands.add_parser("card", help="print the model card of a version as markdown")
    card.add_argument("--model", metavar="VERSION", help="default: the version in service")
    card.add_argument("--figures", action="store_true", help="only the table of figures, as in the README")
    card.set_defaults(run=_card)

    serve = commands.add_parser("serve", help="put a version into service")
    serve.add_argument("version")
    serve.set_defaults(run=_serve)

    splits = commands.add_parser("splits", help="check the committed folds against the scans at hand")
    splits.add_argument("--write", type=Path, metavar="FILE", help="make the folds anew into this file")
    splits.set_defaults(run=_splits)
    return parser


def _analyse(options: argparse.Namespace) -> int:
    from busi_core.folder import analyse_plan, plan_paths
    from busi_core.service import Serving, choose_device

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    analyser = serving.load(options.model) if options.model else serving.current()
    plan = plan_paths(options.paths, options.out)
    progress, failed, before = _Progress(len(plan.targets)), 0, 0
    for outcome in analyse_plan(analyser, plan, frame=options.frame, jobs=options.jobs):
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


def _train(options: argparse.Namespace) -> int:
    from busi_core.data.dataset import load_samples
    from busi_core.files import write_atomically
    from busi_core.recipes.product import PRODUCT, read_split
    from busi_core.registry import check_version_name
    from busi_core.release import choose_start, release
    from busi_core.training.loop import Epoch, fit
    from busi_core.training.state import CONFIG_FILE, require_same_config

    settings = read_settings()
    config = PRODUCT
    changes = {
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "precision": options.precision,
        "start": options.start,
        "normal_repeats": options.normal_repeats,
    }
    try:
        config = replace(config, **{key: value for key, value in changes.items() if value is not None})
        if options.size is not None:
            config = replace(config, preprocess=replace(config.preprocess, side=options.size))
    except ValueError as error:
        raise TrainingError(f"No run can have these options: {error}.", remedy="See 'busi train --help'.") from error
    if options.encoder:
        config = replace(config, architecture=replace(config.architecture, encoder=options.encoder))

    start = choose_start(config, encoder_dir=settings.encoder_dir, weights_dir=settings.weights_dir)
    split = read_split(settings, tuple(options.data), test_fold=options.test_fold)
    run = options.runs / check_version_name(options.version)
    print(f"{len(split.train)} images to train on, {len(split.validation)} to choose by; the test part stays closed.")
    train, validation = (load_samples(part, config.preprocess) for part in (split.train, split.validation))
    if options.resume:
        require_same_config(run, config)
    write_atomically(run / CONFIG_FILE, json.dumps(asdict(config), indent=1).encode())

    def report(epoch: Epoch) -> None:
        print(
            f"epoch {epoch.epoch}/{config.epochs}  loss {epoch.loss:.3f}  validation Dice {epoch.dice:.3f}  "
            f"normals with a mask {epoch.normals_with_mask:.0%}  macro-F1 {epoch.macro_f1:.3f}  "
            f"{epoch.seconds_left / 60:.0f} min left",
            flush=True,
        )

    progress = fit(config, train, validation, run, initialise=start.initialise, resume=options.resume, on_epoch=report)
    card = release(
        run,
        config,
        split,
        progress,
        version=options.version,
        weights_dir=settings.weights_dir,
        description={"data_sets": options.data, "test_fold": options.test_fold},
        start=start,
    )
    print(f"{settings.weights_dir / card.version}: best epoch {progress.best_epoch}, cut-off {card.lesion_threshold}.")
    print(f"Next: busi evaluate --model {card.version} --save")
    return 0


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
    fold = analyser.card.training.get("test_fold", 0) if options.test_fold is None else options.test_fold
    busi = read_busi(settings.data_root / "busi")
    tests = [(f"busi fold {fold}", split_busi(busi, test_fold=fold).test)]
    known = list(busi)
    if not options.no_bus_bra:
        bus_bra = read_bus_bra(settings.data_root / "bus-bra")
        known += bus_bra
        tests.append((f"bus-bra fold {BUS_BRA_TEST_FOLD}", split_bus_bra(bus_bra).test))
    reports = []
    for name, records in tests:
        report = evaluate(analyser, records, known, test_set=name, on_scan=_show_count)
        print(format_table(report), flush=True)
        reports.append(report)
    if options.save:
        folder = settings.weights_dir / analyser.card.version
        write_reports(folder, reports)
        print(f"written: {folder / 'evaluation.json'}")
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
    from busi_core.evaluation import read_reports
    from busi_core.model_card import format_figures, format_model_card
    from busi_core.models.checkpoint import read_card
    from busi_core.registry import check_version_name, read_registry

    weights_dir = read_settings().weights_dir
    version = check_version_name(options.model) if options.model else read_registry(weights_dir).in_service
    reports = read_reports(weights_dir / version)
    if options.figures:
        print(format_figures(reports))
    else:
        print(format_model_card(read_card(weights_dir / version), reports), end="")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from busi_core.models.checkpoint import load_version
    from busi_core.registry import check_version_name, put_into_service
    from busi_core.service import choose_device

    weights_dir = read_settings().weights_dir
    load_version(weights_dir / check_version_name(options.version), choose_device("cpu"))
    put_into_service(weights_dir, options.version)
    print(f"in service: {options.version}")
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
