"""Performance and Systems as a person meets them: with a whole study, a partial one, and none."""

import json
import re
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_leak import pairs

from busi_core.cross_validation import ELSEWHERE, POOLED
from busi_core.evaluation import EvaluationReport, read_reports, without_nan
from busi_core.recipes.catalogue import RECIPES
from busi_core.registry import read_registry
from busi_core.study import reproduce
from busi_core.study.document import format_reproduction
from busi_core.study.leak import measure_leak
from pages.components import serving
from pages.components.charts import draw_curves, draw_dice_by_size

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120


def open_systems() -> AppTest:
    page = AppTest.from_file(str(ROOT / "pages/evidence/systems.py"), default_timeout=TIMEOUT_SECONDS).run()
    assert not page.exception
    return page


def texts(page: AppTest) -> str:
    blocks = [*page.get("html"), *page.markdown, *page.info, *page.header, *page.warning]
    return " ".join(str(block.value) for block in blocks)


def systems_table(page: AppTest) -> Any:
    (table,) = [frame.value for frame in page.dataframe if "system" in frame.value]
    return table


def figure(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.05, "high": estimate + 0.04}


@cache
def make_study() -> dict[str, Any]:
    """One recipe trained, the others not; the leak measured on made-up figures, as `Study.write` keeps it."""
    rows = []
    for recipe in RECIPES.values():
        if recipe.name == "product":
            continue
        row: dict[str, Any] = {
            "recipe": recipe.name,
            "paper": recipe.paper,
            "summary": recipe.summary,
            "budget": "cpu",
            "printed": dict(recipe.printed),
            "printed_start": recipe.printed_start,
            "command": f"busi train {recipe.name} --recipe {recipe.name}",
            "hardware": "2 CPU cores",
            "state": "not trained here",
            "note": "",
        }
        if recipe.name == "unet-se-dpn68":
            row |= {"state": "trained", "epochs": 9, "epochs_asked": 30, "size": 128, "hours": 0.2, "scans": 86}
            row |= {"figures": {"lesion Dice": figure(0.61), "pooled IoU": figure(0.5)}, "details": None}
            row |= {"curve": [{"epoch": n, "loss": 1 / n, "dice": n / 20, "macro_f1": 0.5} for n in range(1, 10)]}
        rows.append(row)
    leak = {
        "recipe": "unet-se-dpn68",
        "budget": "cpu",
        "seeds": [0, 1, 2],
        "epochs": [9] * 6,
        "size": 128,
        "hours": 1.2,
        "hardware": "2 CPU cores",
        "files": 180,
        "files_with_copy": 60,
        "effects": [asdict(effect) for effect in measure_leak(pairs(0.3))],
        "curves": [],
    }
    study = {
        "schema": 1,
        "leak": [leak],
        "rows": rows,
        "empty_mask": {"lesion Dice": figure(0.0), "pixel accuracy": figure(0.917)},
        "product": {
            "recipe": "product",
            "version": "2026.11-a",
            "scans": 86,
            "figures": {"lesion Dice": figure(0.769)},
            "epochs": 20,
            "size": 256,
            "data_sets": ["busi", "bus-bra"],
        },
    }
    kept: dict[str, Any] = without_nan(study)
    return kept


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    made = deepcopy(make_study())
    monkeypatch.setattr(reproduce, "read_study", lambda _path: made)
    return made


def test_without_a_study_the_page_names_the_command_and_still_shows_the_contradictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reproduce, "read_study", lambda _path: {})
    page = open_systems()
    assert "busi reproduce --budget cpu" in texts(page)
    assert "impossible" in set(page.dataframe[-1].value["verdict"])


def test_the_table_says_what_was_trained_here_and_what_was_not(study: dict[str, Any]) -> None:
    table = systems_table(open_systems())
    lines = {row["system"]: row for row in table.to_dict("records")}
    assert lines["unet-se-dpn68"]["ours (95 % interval)"] == "0.610 (0.560-0.650)"
    whole = sum(stage.epochs for stage in RECIPES["unet-se-dpn68"].stages)
    assert f"9 of {whole} epochs" in lines["unet-se-dpn68"]["how"]
    assert "printed: ImageNet, here: random" in lines["unet-se-dpn68"]["how"]
    assert lines["unet-dropout"]["ours (95 % interval)"] == "not trained here"
    assert "busi train unet-dropout" in lines["unet-dropout"]["how"]
    assert list(lines)[-2:] == ["a mask that is always empty", "this project, 2026.11-a"]


def test_a_paper_can_be_picked_and_a_figure(study: dict[str, Any]) -> None:
    page = open_systems()
    page.pills(key="papers").set_value(["002"]).run()
    page.selectbox(key="system-figure").set_value("pooled IoU").run()
    assert not page.exception
    table = systems_table(page)
    assert table["system"].iloc[0] == "unet-dropout"
    assert not set(table["system"]) & (set(RECIPES) - {"unet-dropout"})
    assert table["printed"].iloc[0] == "0.454"


def test_the_leak_says_its_figures_and_how_it_was_measured(study: dict[str, Any]) -> None:
    said = texts(open_systems())
    effect = study["leak"][0]["effects"][0]
    assert f"{effect['by_scan']:.3f} split by scan, {effect['random']:.3f} split at random" in said
    assert "60 of 180 test files have a copy" in said
    assert "the printed length may well buy more than what is shown here" in said, "9 epochs are not the printed number"


def test_a_row_with_weights_opens_in_analyse(study: dict[str, Any]) -> None:
    page = open_systems()
    assert [button.label for button in page.button] == ["Open unet-dropout in Analyse"]


def test_the_page_of_the_study_is_whole_with_and_without_results() -> None:
    whole = format_reproduction(make_study())
    assert "| lesion Dice | files with a copy in training (60) |" in whole
    assert "| unet-se-dpn68 | 003 | 0.610 (0.560-0.650) |" in whole
    assert "a mask that is always empty" in whole
    assert "**this project, 2026.11-a**" in whole
    assert "Not run here" in format_reproduction({})


def test_performance_shows_the_version_in_service_with_its_tests() -> None:
    page = AppTest.from_file(str(ROOT / "pages/evidence/performance.py"), default_timeout=TIMEOUT_SECONDS).run()
    assert not page.exception
    versions = page.selectbox(key="performance-version")
    assert "in service" in versions.options[versions.index or 0]
    assert "copies in training: 0" in page.caption[0].value
    assert "lesion Dice" in list(page.table[0].value["figure"])
    assert any("Two outlines of one scan" in caption.value for caption in page.caption)
    assert page.get("plotly_chart")


def test_performance_says_what_the_flag_reached_and_what_the_curve_is_of() -> None:
    page = AppTest.from_file(str(ROOT / "pages/evidence/performance.py"), default_timeout=TIMEOUT_SECONDS).run()
    weights = ROOT / "weights"
    (report, *_) = read_reports(weights / read_registry(weights).in_service)
    assert report.flag is not None
    (said,) = [one for one in captions(page) if one.startswith("The malignancy flag")]
    assert f"from a score of malignant of {report.flag['threshold']:.3f} on" in said
    assert f"sensitivity {report.flag['sensitivity']:.3f} (" in said
    assert f"specificity {report.flag['specificity']:.3f} (" in said
    layout = json.loads(page.get("plotly_chart")[0].proto.spec)["layout"]
    assert layout["xaxis"]["title"]["text"] == "share of benign above the threshold"
    assert layout["yaxis"]["title"]["text"] == "share of malignant above it"


def captions(page: AppTest) -> list[str]:
    assert not page.exception
    return [caption.value for caption in page.caption]


def test_each_figure_of_the_recipe_says_whose_weights_read_the_scans() -> None:
    about = AppTest.from_file(str(ROOT / "pages/evidence/about.py"), default_timeout=TIMEOUT_SECONDS).run()
    (folds,) = [said for said in captions(about) if POOLED in said]
    (elsewhere,) = [said for said in captions(about) if ELSEWHERE in said]
    performance = AppTest.from_file(str(ROOT / "pages/evidence/performance.py"), default_timeout=TIMEOUT_SECONDS).run()
    said = {}
    for name in (POOLED, ELSEWHERE):
        next(box for box in performance.selectbox if box.label == "Test").set_value(name).run()
        said[name] = captions(performance)[0]
    for text in (folds, said[POOLED]):
        assert "By versions of the same network, not by these weights alone, each on scans that it never saw" in text
    for text in (elsewhere, said[ELSEWHERE]):
        assert "By other weights of the same network, taught by BUSI alone, on scans that they never saw" in text
        assert "these weights alone" not in text


@pytest.mark.parametrize("name", ["about", "performance"])
def test_every_figure_of_a_table_is_said_in_words(name: str) -> None:
    page = AppTest.from_file(str(ROOT / f"pages/evidence/{name}.py"), default_timeout=TIMEOUT_SECONDS).run()
    figures = [figure for table in page.table if "figure" in table.value for figure in table.value["figure"]]
    assert len(figures) > 10
    assert all(f"**{figure}**: " in texts(page) for figure in figures)


def test_what_flatters_a_figure_or_is_left_out_of_it_is_said_in_words() -> None:
    page = AppTest.from_file(str(ROOT / "pages/evidence/performance.py"), default_timeout=TIMEOUT_SECONDS).run()
    (said,) = [block.value for block in page.markdown if "**lesion Dice**" in block.value]
    assert "without the lesions on which nothing is outlined" in said
    assert "at a cut-off that is read off these very scans, which is a little too kind" in said
    assert re.search(r"on so few scans 0\.0\d\d where every score is true", said)


@pytest.mark.parametrize("name", ["about", "performance"])
def test_a_thousand_scans_are_written_with_a_comma(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    known = serving.get_reports

    def of_many(version: str) -> list[EvaluationReport]:
        return [replace(report, scans=1875, counts={"benign": 1234}) for report in known(version)]

    monkeypatch.setattr(serving, "get_reports", of_many)
    page = AppTest.from_file(str(ROOT / f"pages/evidence/{name}.py"), default_timeout=TIMEOUT_SECONDS).run()
    assert "1,875 scans (1,234 benign)" in captions(page)[0]


@pytest.mark.realdata
def test_the_worst_and_best_cases_are_shown_only_when_asked_for(data_root: Path) -> None:
    page = AppTest.from_file(str(ROOT / "pages/evidence/performance.py"), default_timeout=TIMEOUT_SECONDS).run()
    assert "Worst" not in texts(page)
    page.toggle(key="show-cases").set_value(True).run()
    assert not page.exception
    assert "Worst" in texts(page)
    assert "Best" in texts(page)


@pytest.mark.parametrize("page", ["about", "performance", "systems"])
def test_headings_go_down_one_step_at_a_time(page: str) -> None:
    """Who reads by ear goes from heading to heading: below the title (h1) comes a header (h2), not a subheader (h3)."""
    shown = AppTest.from_file(str(ROOT / f"pages/evidence/{page}.py"), default_timeout=TIMEOUT_SECONDS).run()
    assert not shown.exception
    assert shown.title
    assert shown.header
    assert not shown.subheader


def test_classes_and_runs_are_told_apart_without_colours() -> None:
    points = [(0.1, 0.9, "benign", "1"), (0.1, 0.9, "malignant", "2")]
    curves = {name: [{"epoch": 1, "dice": 0.5}] for name in ("one", "another", "a third")}
    for figure in (draw_dice_by_size(points), draw_curves(curves, "dice", "Dice")):
        symbols = [trace.marker.symbol for trace in figure.data]
        assert None not in symbols
        assert len(set(symbols)) == len(symbols)
