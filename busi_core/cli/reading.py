"""Commands that read scans: analyse, compare."""

import argparse
import sys
from pathlib import Path

from busi_core.cli.terminal import Commands, Progress, count_from_one, shown
from busi_core.errors import ExplanationError, InvalidImageError
from busi_core.explain.catalogue import DEEPEST, Method
from busi_core.settings import read_settings

MAX_JOBS = 64


def add_commands(commands: Commands) -> None:
    """Add them to the parser."""
    analyse = commands.add_parser("analyse", help="read scans: mask, class and heat map as files")
    analyse.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders; *_mask* are skipped")
    analyse.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    analyse.add_argument("--frame", type=count_from_one, metavar="N", help="frame of a file with several, from 1")
    analyse.add_argument("--model", metavar="VERSION", help="another version than the one in service")
    analyse.add_argument(
        "--jobs",
        type=_count_jobs,
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
        metavar="NAME",
        help="explain at this layer: deepest (default), encoder-4 and so on, or decoder (for the mask)",
    )
    analyse.set_defaults(run=_analyse)

    compare = commands.add_parser("compare", help="read scans and compare them with their reference masks")
    compare.add_argument("images", type=Path, metavar="IMAGES", help="folder of scans, as BUSI or BUS-BRA")
    compare.add_argument("masks", type=Path, metavar="MASKS", help="folder of their masks; may be the same")
    compare.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="compare.csv, summary.json and rows.jsonl, from which a stopped run goes on, go here",
    )
    compare.add_argument("--model", metavar="VERSION", help="another version than the one in service")
    compare.add_argument("--jobs", type=_count_jobs, default=2, metavar="N", help="scans read side by side (default 2)")
    compare.set_defaults(run=_compare)


def _analyse(options: argparse.Namespace) -> int:
    from busi_core.folder import Asked, analyse_plan, plan_paths
    from busi_core.service import choose_device
    from busi_core.serving import Serving

    if (options.of or options.layer) and not options.explain:
        raise ExplanationError(
            "--of and --layer say what is explained, and where; nothing is to be explained.",
            remedy="Add --explain with a method, or leave them out.",
        )
    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    analyser = serving.load(options.model) if options.model else serving.current()
    plan = plan_paths(options.paths, options.out)
    progress, unread, unwritten, before = Progress(len(plan.targets)), 0, 0, 0
    asked = Asked(tuple(dict.fromkeys(map(Method, options.explain))), options.of, options.layer or DEEPEST)
    frame = None if options.frame is None else options.frame - 1  # people and DICOM count from 1
    for outcome in analyse_plan(analyser, plan, frame=frame, jobs=options.jobs, asked=asked):
        progress.clear()
        if outcome.error is not None:
            is_unread = isinstance(outcome.error, InvalidImageError)
            unread, unwritten = unread + is_unread, unwritten + (not is_unread)
            print(
                f"{shown(outcome.path)}: {shown(outcome.error.problem)} {shown(outcome.error.remedy)}", file=sys.stderr
            )
        elif outcome.already_done:
            before += 1
        else:
            print(f"{shown(outcome.path)}: {outcome.summary}")
        progress.step(unread + unwritten, counts=not outcome.already_done)
    for folder in plan.unread:
        print(f"{shown(folder)}: this folder cannot be read. Check its permissions.", file=sys.stderr)
    if before:
        print(f"busi: {before} files were done before and left alone.", file=sys.stderr)
    if unread:
        print(f"busi: {unread} files could not be read.", file=sys.stderr)
    if unwritten:
        print(f"busi: the results of {unwritten} files could not be written.", file=sys.stderr)
    return 1 if unread or unwritten or plan.unread else 0


def _compare(options: argparse.Namespace) -> int:
    from busi_core.data.pairing import TABLES
    from busi_core.folder_compare import compare_cases, list_cases, write_comparison
    from busi_core.locks import hold_folder
    from busi_core.service import choose_device
    from busi_core.serving import Serving

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    analyser = serving.load(options.model) if options.model else serving.current()
    batch = list_cases(options.images, options.masks)
    progress, failed, rows = Progress(len(batch.cases)), 0, []
    with hold_folder(options.out):  # until the tables are of these rows
        for row in compare_cases(analyser, batch, options.out, jobs=options.jobs):
            rows.append(row)
            reason = row.problem or row.truth.problem
            if reason:
                failed += 1
                progress.clear()
                print(f"{shown(row.name)}: {shown(reason)}", file=sys.stderr)
            progress.step(failed)
        progress.clear()
        summaries = write_comparison(analyser, rows, batch, options.out)
    for mask in batch.lone_masks:
        print(f"{shown(mask.name)}: no scan came with this mask.", file=sys.stderr)
    for mask in batch.doubtful_masks:
        print(f"{shown(mask.name)}: whose mask this is cannot be told, since names say it of several.", file=sys.stderr)
    for problem in batch.problems:
        print(shown(problem), file=sys.stderr)
    for name in (name for name in batch.left_out if not name.endswith(TABLES)):
        print(f"{shown(name)}: left out, no image by its name or first bytes.", file=sys.stderr)
    for summary in summaries:
        print(f"{summary.title}: {summary.scans}, {summary.distinct} distinct. {summary.caution}")
        for figure in summary.figures:
            print(f"  {figure.name:<34} {figure!s:<24} ({figure.scans} scans)")
    print(f"written: {shown(options.out / 'compare.csv')} and {shown(options.out / 'summary.json')}")
    if failed:
        print(f"busi: {failed} of {len(rows)} scans could not be compared.", file=sys.stderr)
    return 1 if failed or batch.lone_masks or batch.doubtful_masks or batch.problems else 0


def _count_jobs(text: str) -> int:
    number = count_from_one(text)
    if number > MAX_JOBS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_JOBS}, got {text}")
    return number
