"""All runs of the study in their order, and the one file that holds what they found.

    leak experiment (two recipes, three seeds, two arms) -> one recipe of each paper -> the rest -> reproduction.json

After every finished run the file is written anew from the results in the runs' folders. What does not fit into the
budget stands as 'not trained here' with its command. Rows of other machines or budgets are kept.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from busi_core.data.records import Record, read_busi
from busi_core.data.splits import split_busi
from busi_core.errors import ModelUnavailableError, OutputError, TrainingError
from busi_core.evaluation import EvaluationReport, read_reports, summarise, without_nan
from busi_core.files import write_atomically
from busi_core.metrics.bootstrap import Interval
from busi_core.models.checkpoint import read_card
from busi_core.recipes.catalogue import RECIPES
from busi_core.recipes.recipe import Recipe
from busi_core.recipes.unet_roi_segnet import sweep_rows
from busi_core.registry import read_registry
from busi_core.settings import Settings
from busi_core.study.budget import Budget, Clock, describe_hardware
from busi_core.study.document import format_reproduction
from busi_core.study.figures import empty_mask_figures, measure_figures
from busi_core.study.leak import ARMS, LeakPair, make_leak_split, measure_leak
from busi_core.study.runs import Finished, Say, plain_card, read_finished, run_leak_arm, run_recipe
from busi_core.study.tissue import run_tissue

SCHEMA = 1
LEAK_RECIPES = ("unet-dropout", "unet-se-dpn68")
SEEDS = (0, 1, 2)
ONE_OF_EACH_PAPER = ("unet-gradcam", "unet-resnet34-tissue", "unet-dropout", "unet-se-dpn68", "unet-roi-segnet")
JSON_FILE, PAGE_FILE = "reproduction.json", "reproduction.md"
TRAINED, ABSENT = "trained", "not trained here"


def recipe_order() -> tuple[str, ...]:
    """One recipe of each paper, then the rest; the product is not trained here."""
    rest = [name for name in RECIPES if name not in ONE_OF_EACH_PAPER and name != "product"]
    return (*ONE_OF_EACH_PAPER, *rest)


class Study:
    """One budget's runs under one folder."""

    def __init__(self, settings: Settings, budget: Budget, runs: Path, docs: Path, say: Say) -> None:
        self._settings, self._budget, self._say = settings, budget, say
        self._folder, self._docs = runs / f"reproduce-{budget.name}", docs
        cap = None if budget.hours is None else budget.hours * 3600
        self._whole = Clock(self._folder, cap=cap)
        self._problems: dict[str, str] = {}

    def run(self, *, leak: bool = True, recipes: Sequence[str] | None = None, seeds: Sequence[int] = SEEDS) -> None:
        """Train what is not trained yet, in order, until the time is up; write the file after each run.

        Args:
            leak: Whether to run the leak experiment.
            recipes: Which recipes for the table, in this order; all by default.
            seeds: Of the leak experiment.

        Raises:
            DatasetError: BUSI is not at hand or not sound.
            OutputError: The disk is full; what is finished stays.
        """
        records = read_busi(self._settings.data_root / "busi")
        if leak:
            self._run_leak(records, seeds)
        for name in recipe_order() if recipes is None else recipes:
            folder = self._folder / name
            if not read_finished(folder) and self._whole.is_over():
                self._say(f"{name}: not trained here, the time is up")
                continue
            self._try(name, partial(self._run_recipe, name, records, folder))
            self.write()
        self.write()

    def _run_leak(self, records: Sequence[Record], seeds: Sequence[int]) -> None:
        cap = self._budget.leak_seconds(len(LEAK_RECIPES) * len(seeds) * len(ARMS))
        for seed in seeds:
            split = make_leak_split(records, seed=seed)
            for name in LEAK_RECIPES:
                recipe = self._scaled(RECIPES[name], seed=seed)
                epochs: int | None = None
                for arm in ARMS:  # the second arm runs exactly as many epochs as the first had
                    folder = self._folder / "leak" / name / f"seed-{seed}-{arm}"
                    if not read_finished(folder) and self._whole.is_over():
                        return
                    clock = Clock(folder, cap=cap, whole=self._whole)
                    done = run_leak_arm(recipe, split, arm, folder, clock=clock, epochs=epochs, say=self._say)
                    epochs = done.epochs
                self.write()

    def _run_recipe(self, name: str, records: Sequence[Record], folder: Path) -> None:
        recipe = self._scaled(RECIPES[name], seed=None)
        cap = self._budget.recipe_seconds(len(recipe_order()))
        clock = Clock(folder, cap=cap, whole=self._whole)
        if recipe.is_tissue:
            run_tissue(recipe, folder, clock=clock, say=self._say)
            return
        run_recipe(recipe, split_busi(records, test_fold=0), records, folder, clock=clock, say=self._say)

    def _scaled(self, recipe: Recipe, *, seed: int | None) -> Recipe:
        budget = self._budget
        return recipe.scaled(epochs=budget.epochs, size=budget.size, precision=budget.precision, seed=seed)

    def _try(self, name: str, run: Callable[[], None]) -> None:
        """Run, and go on with the next when this one cannot be trained; a full disk stops the study."""
        try:
            run()
        except OutputError:
            raise
        except TrainingError as error:
            self._problems[name] = error.problem
            self._say(f"{name}: {error.problem} {error.remedy}")

    def write(self) -> None:
        """Write reproduction.json and reproduction.md from all results there are.

        Raises:
            OutputError: They cannot be written.
        """
        content = self._collect(read_study(self._docs / JSON_FILE))
        text = json.dumps(without_nan(content), indent=1, ensure_ascii=False) + "\n"
        write_atomically(self._docs / JSON_FILE, text.encode())
        write_atomically(self._docs / PAGE_FILE, format_reproduction(json.loads(text)).encode())

    def _collect(self, before: Mapping[str, Any]) -> dict[str, Any]:
        product = _product_report(self._settings.weights_dir)
        leaks = {entry["recipe"] + entry["budget"]: entry for entry in before.get("leak", [])}
        leaks |= {entry["recipe"] + entry["budget"]: entry for entry in self._leaks()}
        rows = {row["recipe"] + row["budget"]: row for row in before.get("rows", []) if row["state"] == TRAINED}
        for name in recipe_order():
            finished = read_finished(self._folder / name)
            if finished:
                rows[name + self._budget.name] = self._row(RECIPES[name], finished)
        known = {row["recipe"] for row in rows.values()}
        absent = [self._absent_row(RECIPES[name]) for name in recipe_order() if name not in known]
        order = list(RECIPES)
        return {
            "schema": SCHEMA,
            "leak": list(leaks.values()),
            "rows": sorted([*rows.values(), *absent], key=lambda row: order.index(row["recipe"])),
            "empty_mask": _plain(empty_mask_figures(product)) if product else before.get("empty_mask", {}),
            "product": self._product_row(product) if product else before.get("product", {}),
        }

    def _leaks(self) -> list[dict[str, Any]]:
        found = []
        for name in LEAK_RECIPES:
            pairs: list[LeakPair] = []
            finished: list[Finished] = []
            for seed in range(5):
                folder = self._folder / "leak" / name
                arms = [read_finished(folder / f"seed-{seed}-{arm}") for arm in ARMS]
                if arms[0] is None or arms[1] is None:
                    continue
                finished += [arm for arm in arms if arm]
                split_leaked = self._leaked_ids(seed)
                for clean, leaky in zip(arms[0].results, arms[1].results, strict=True):
                    pairs.append(LeakPair(seed, clean.id in split_leaked, clean, leaky))
            if not pairs:
                continue
            found.append(
                {
                    "recipe": name,
                    "budget": self._budget.name,
                    "seeds": sorted({pair.seed for pair in pairs}),
                    "epochs": [run.epochs for run in finished],
                    "size": finished[0].side,
                    "hours": sum(run.seconds for run in finished) / 3600,
                    "hardware": finished[0].hardware,
                    "files": len(pairs),
                    "files_with_copy": sum(pair.leaked for pair in pairs),
                    "effects": [asdict(effect) for effect in measure_leak(pairs)],
                    "curves": [list(run.curve) for run in finished],
                    "note": finished[0].extra.get("note", ""),
                }
            )
        return found

    def _leaked_ids(self, seed: int) -> frozenset[str]:
        return make_leak_split(read_busi(self._settings.data_root / "busi"), seed=seed).leaked

    def _row(self, recipe: Recipe, done: Finished) -> dict[str, Any]:
        if recipe.is_tissue:
            figures: Mapping[str, Any] = done.extra["figures"]
            scans = done.extra["tiles"]
        else:
            report = summarise(plain_card(recipe.name, recipe.final), done.results, test_set="busi fold 0")
            figures, scans = _plain(measure_figures(report)), len(done.results)
        return {
            **_said(recipe, self._budget),
            "state": TRAINED,
            "epochs": done.epochs,
            "epochs_asked": done.epochs_asked,
            "size": done.side,
            "hours": done.seconds / 3600,
            "hardware": done.hardware,
            "scans": scans,
            "figures": figures,
            "curve": list(done.curve),
            "note": done.extra.get("note", ""),
            "details": done.extra.get("details"),
        }

    def _absent_row(self, recipe: Recipe) -> dict[str, Any]:
        return {**_said(recipe, self._budget), "state": ABSENT, "note": self._problems.get(recipe.name, "")}

    def _product_row(self, report: EvaluationReport) -> dict[str, Any]:
        card = read_card(self._settings.weights_dir / report.model)
        return {
            "recipe": "product",
            "version": report.model,
            "scans": report.scans,
            "figures": _plain(measure_figures(report)),
            "epochs": card.training.get("epochs_run"),
            "size": card.preprocess.side,
            "data_sets": card.training.get("data_sets", []),
        }


def run_sweep(
    settings: Settings, runs: Path, say: Say, *, epochs: int | None, size: int | None
) -> Iterator[tuple[str, list[tuple[str, Interval]]]]:
    """Train the seven rows of paper 004's ablation, and give the figures that it prints of each; goes on where it was.

    Raises:
        DatasetError: BUSI is not at hand or not sound.
    """
    records = read_busi(settings.data_root / "busi")
    split = split_busi(records, test_fold=0)
    for row in sweep_rows():
        recipe = row.scaled(epochs=epochs, size=size)
        folder = runs / "sweep" / recipe.name
        finished, _ = run_recipe(recipe, split, records, folder, clock=Clock(folder, cap=None), say=say)
        report = summarise(plain_card(recipe.name, recipe.final), finished.results, test_set="busi fold 0")
        yield recipe.name, [(name, value) for name, value in measure_figures(report).items() if name in row.printed]


def read_study(path: Path) -> dict[str, Any]:
    """What reproduction.json holds; empty where there is none, or it is of a newer program.

    Values as written by `Study.write`: figures as {estimate, low, high}, null where not defined.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.get("schema") == SCHEMA else {}


def _said(recipe: Recipe, budget: Budget) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "paper": recipe.paper,
        "summary": recipe.summary,
        "budget": budget.name,
        "printed": dict(recipe.printed),
        "printed_start": recipe.printed_start,
        "command": f"busi train {recipe.name} --recipe {recipe.name}",
        "hardware": describe_hardware(),
    }


def _plain(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: {"estimate": v.estimate, "low": v.low, "high": v.high} for name, v in figures.items()}


def _product_report(weights_dir: Path) -> EvaluationReport | None:
    """The evaluation of the version in service on BUSI; None when there is none."""
    try:
        reports = read_reports(weights_dir / read_registry(weights_dir).in_service)
    except ModelUnavailableError:
        return None
    return next((report for report in reports if report.test_set.startswith("busi")), None)
