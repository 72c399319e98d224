"""Commands that measure a version: evaluate, card, limits."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from busi_core.cli.terminal import Commands, count_from_one, show_count
from busi_core.errors import DatasetError
from busi_core.settings import read_settings

if TYPE_CHECKING:
    from busi_core.data.records import Record
    from busi_core.evaluation import EvaluationReport
    from busi_core.models.checkpoint import ModelCard
    from busi_core.service import Analyser


def add_commands(commands: Commands) -> None:
    """Add them to the parser."""
    evaluate = commands.add_parser("evaluate", help="score a version on scans it never saw")
    evaluate.add_argument("--model", metavar="VERSION", help="default: the version in service")
    evaluate.add_argument(
        "--test-fold", type=int, choices=range(5), metavar="K", help="BUSI fold, 0 to 4; default: the one its card kept"
    )
    evaluate.add_argument("--no-bus-bra", action="store_true", help="leave out BUS-BRA's test fold")
    evaluate.add_argument(
        "--simulated",
        type=count_from_one,
        metavar="N",
        help="instead: how many of N simulated scans a class are read right",
    )
    evaluate.add_argument(
        "--all", action="store_true", help="also what it knows of its limits: sets, refusal, doubt, heat maps, marks"
    )
    evaluate.add_argument(
        "--save",
        action="store_true",
        help="write evaluation.json (with --all also assessment.json) beside the weights; what it holds on other test "
        "sets stays",
    )
    evaluate.add_argument(
        "--all-folds",
        nargs="+",
        metavar="VERSION",
        help="instead (with --all: as well): versions of the same recipe, each scored on the fold of BUSI that it "
        "never saw, pooled",
    )
    evaluate.add_argument(
        "--elsewhere", metavar="VERSION", help="likewise: a version of the same recipe taught by BUSI alone, on BUS-BRA"
    )
    evaluate.set_defaults(run=_evaluate)

    card = commands.add_parser("card", help="print the model card of a version as markdown")
    card.add_argument("--model", metavar="VERSION", help="default: the version in service")
    card.add_argument("--figures", action="store_true", help="only the table of figures, as in the README")
    card.set_defaults(run=_card)

    limits = commands.add_parser("limits", help="measure anew what a version knows of its limits, from its own data")
    limits.add_argument("version")
    limits.set_defaults(run=_limits)


def _evaluate(options: argparse.Namespace) -> int:
    from busi_core.data.records import read_bus_bra, read_busi
    from busi_core.data.splits import BUS_BRA_TEST_FOLD, split_bus_bra, split_busi
    from busi_core.evaluation import evaluate, format_table, keep_reports
    from busi_core.service import choose_device
    from busi_core.serving import Serving

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    analyser = serving.load(options.model) if options.model else serving.current()
    if options.simulated:
        return _print_simulated(analyser, options.simulated)
    is_crossed = options.all_folds or options.elsewhere
    if is_crossed and not options.all:
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
        report = evaluate(analyser, records, known, test_set=name, on_scan=show_count)
        print(format_table(report), flush=True)
        reports.append(report)
    if options.save:
        folder = settings.weights_dir / analyser.card.version
        keep_reports(folder, reports)
        print(f"written: {folder / 'evaluation.json'}")
    if options.all:
        _assess(analyser, reports, dict(tests), save=options.save)
    return _cross_validate(options, analyser.card) if is_crossed else 0


def _cross_validate(options: argparse.Namespace, card: "ModelCard") -> int:
    from busi_core.cross_validation import (
        CROSS_VALIDATION_FILE,
        ELSEWHERE,
        keep,
        pool,
        require_same_recipe,
        require_taught_by_busi_alone,
    )
    from busi_core.data.records import read_bus_bra, read_busi
    from busi_core.data.splits import split_bus_bra, split_busi
    from busi_core.evaluation import evaluate, format_table
    from busi_core.service import choose_device
    from busi_core.serving import Serving

    settings = read_settings()
    serving = Serving(settings.weights_dir, choose_device(settings.device))
    busi = read_busi(settings.data_root / "busi")
    asks_bus_bra = options.elsewhere or not options.no_bus_bra
    bus_bra = read_bus_bra(settings.data_root / "bus-bra") if asks_bus_bra else []
    reports = []
    if options.all_folds:
        parts = []
        for name in options.all_folds:
            analyser = serving.load(name)
            require_same_recipe(card, [analyser.card], reads_alike=True)
            fold = analyser.card.training["test_fold"]
            test = split_busi(busi, test_fold=fold).test
            part = evaluate(analyser, test, [*busi, *bus_bra], test_set=f"busi fold {fold}", on_scan=show_count)
            print(format_table(part), flush=True)
            parts.append(part)
        reports.append(pool(card, parts))
    if options.elsewhere:
        analyser = serving.load(options.elsewhere)
        require_same_recipe(card, [analyser.card])
        require_taught_by_busi_alone(analyser.card)
        test = split_bus_bra(bus_bra).test
        part = evaluate(analyser, test, [*busi, *bus_bra], test_set=ELSEWHERE, on_scan=show_count)
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
    from busi_core.assessment.assess import assess
    from busi_core.assessment.figures import format_assessment, keep_assessment

    folder = read_settings().weights_dir / analyser.card.version
    figures = assess(analyser, folder, reports, tests, on_step=lambda _, done, total: show_count(done, total))
    print(format_assessment(figures))
    if save:
        keep_assessment(folder, figures, version=analyser.card.version, sha256=analyser.card.sha256)
        print(f"written: {folder / 'assessment.json'}")


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
    from busi_core.assessment.figures import read_assessment
    from busi_core.cross_validation import read_cross_validation
    from busi_core.evaluation import read_reports
    from busi_core.limits import read_limits
    from busi_core.model_card import format_figures, format_model_card
    from busi_core.models.checkpoint import read_card
    from busi_core.registry import check_version_name, read_registry

    weights_dir = read_settings().weights_dir
    version = check_version_name(options.model) if options.model else read_registry(weights_dir).in_service
    folder = weights_dir / version
    found = read_card(folder)
    reports, crossed = read_reports(folder), read_cross_validation(folder)
    if options.figures:
        print(format_figures([*reports, *crossed]))
    else:
        assessed = read_assessment(folder, version=found.version, sha256=found.sha256)
        print(format_model_card(found, reports, assessed, crossed, read_limits(folder, found)), end="")
    return 0


def _limits(options: argparse.Namespace) -> int:
    from busi_core.limits import write_limits
    from busi_core.recipes.product import read_split
    from busi_core.registry import check_version_name
    from busi_core.release import fit_limits
    from busi_core.service import Analyser, choose_device
    from busi_core.siblings import read_siblings
    from busi_core.types import Diagnosis

    settings = read_settings()
    folder = settings.weights_dir / check_version_name(options.version)
    analyser = Analyser.load_without_limits(folder, choose_device(settings.device))
    training = analyser.card.training
    dealt = {"data_sets": tuple(training["data_sets"]), "test_fold": training["test_fold"]}
    split = read_split(settings, **dealt, kept=training.get("validation_fold", "next"))
    siblings = read_siblings(training.get("siblings", ()), analyser.card, settings=settings, **dealt)
    limits = fit_limits(analyser, split.train, split.validation, show_count, siblings=siblings)
    write_limits(folder, limits, analyser.card)
    if sets := limits.nonconformity:
        for diagnosis, scores in zip(Diagnosis, sets.by_class, strict=True):
            print(f"{len(scores)} {diagnosis.value} scans stand behind its sets of classes.")
        doubt = f"no class has a score of {sets.in_doubt_below:.2f}"
        print(f"{len(sets.in_doubt)} more, of which {doubt}, behind those in doubt.")
    print(f"written: {folder / 'limits.safetensors'}")
    return 0
