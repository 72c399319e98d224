"""What the documents say is what the program does."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest

from busi_core.assessment.figures import ASSESSMENT_FILE, read_assessment
from busi_core.cli import make_parser
from busi_core.cross_validation import CROSS_VALIDATION_FILE, read_cross_validation
from busi_core.data.splits import read_folds
from busi_core.evaluation import read_reports
from busi_core.limits import read_limits
from busi_core.metrics.calibration import calibration_error_by_chance
from busi_core.metrics.proportion import share_interval
from busi_core.model_card import LIMITS, format_figures, format_model_card
from busi_core.models.checkpoint import EVALUATION_FILE, read_card
from busi_core.recipes.catalogue import RECIPES
from busi_core.registry import read_registry
from busi_core.study.document import format_reproduction
from busi_core.study.reproduce import JSON_FILE, PAGE_FILE, read_study
from busi_core.worth import say_peaks

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"
README = (ROOT / "README.md").read_text(encoding="utf-8")
DESCRIPTION_COLUMN = 30  # of the README's tree; a line that begins further left begins with a name


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.fixture(scope="module")
def version() -> Path:
    return WEIGHTS / read_registry(WEIGHTS).in_service


def test_the_readme_shows_the_figures_of_the_version_in_service(version: Path) -> None:
    shown = README.split("<!-- figures -->")[1].split("<!-- /figures -->")[0].strip()
    assert shown == format_figures([*read_reports(version), *read_cross_validation(version)])


def test_the_model_card_is_that_of_the_version_in_service(version: Path) -> None:
    card = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    found = read_card(version)
    assessed = read_assessment(version, version=found.version, sha256=found.sha256)
    limits, crossed = read_limits(version, found), read_cross_validation(version)
    assert card == format_model_card(found, read_reports(version), assessed, crossed, limits)


def test_the_readme_says_of_how_many_lesions_and_what_chance_makes_of_the_calibration_error(version: Path) -> None:
    reports = [*read_reports(version), *read_cross_validation(version)]
    beside = " ".join(README.split("<!-- /figures -->")[1].split("**Another hospital**")[0].split())
    lesions = [[one for one in report.results if one.truth != "normal"] for report in reports]
    assert ", ".join(f"{sum(one.has_mask for one in some)} of {len(some)}" for some in lesions) in beside
    for report in reports:
        chance = calibration_error_by_chance(np.array([one.probabilities for one in report.results]))
        assert f"{chance:.3f}".removeprefix("0") in beside


def test_the_readme_says_how_little_is_known_of_normals(version: Path) -> None:
    normals = README.split("**Normals**")[1].split("**What is possible**")[0]
    for report in [*read_reports(version), *read_cross_validation(version)]:
        given = [one.has_mask for one in report.results if one.truth == "normal"]
        share = share_interval(sum(given), len(given))
        assert not given or f"{share.low:.3f} to {share.high:.3f}".replace("0.", ".") in normals


def test_the_readme_says_how_seldom_a_heat_map_leads_to_a_lesion(version: Path) -> None:
    card = read_card(version)
    assessed = read_assessment(version, version=card.version, sha256=card.sha256)
    assert say_peaks(assessed) in " ".join(README.split())


def test_the_card_counts_the_scans_that_are_in_no_test() -> None:
    scans = read_folds()
    assert f"({sum(scan.fold is None for scan in scans)} of {len(scans)} scans)" in " ".join(LIMITS)


@pytest.mark.parametrize("folder", [card.parent for card in sorted(WEIGHTS.glob("*/card.json"))], ids=lambda p: p.name)
def test_the_evaluation_is_of_the_weights_beside_it(folder: Path) -> None:
    """Of the version by name and of its weights: two versions share those of their first network."""
    card = read_card(folder)
    reports = [*read_reports(folder), *read_cross_validation(folder)]
    assert {(report.model, report.sha256) for report in reports} == {(card.version, card.sha256)}
    assert {report.copies_in_training for report in reports} == {0}
    files = [folder / name for name in (EVALUATION_FILE, CROSS_VALIDATION_FILE) if (folder / name).exists()]
    assert len(reports) == sum(len(json.loads(file.read_text(encoding="utf-8"))["reports"]) for file in files)
    assessed = read_assessment(folder, version=card.version, sha256=card.sha256)
    assert bool(assessed) == (folder / ASSESSMENT_FILE).exists()


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    assert f"busi {name}" in README
    for action in commands()[name]._actions:
        assert action.help or action.dest in {"epochs", "batch_size", "learning_rate", "seed", "precision", "version"}


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_of_the_readme_leads_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("file", "picture"),
    [
        (file.name, picture)
        for file in sorted((ROOT / "docs").glob("*.md"))
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", file.read_text(encoding="utf-8"))
    ],
)
def test_every_picture_of_the_documents_is_there(file: str, picture: str) -> None:
    assert (ROOT / "docs" / picture).is_file(), f"{file} shows it; tests/browser/make_pictures.py makes it"


def modules_in_the_tree() -> set[str]:
    """Paths of all files in Python that the README's tree lists, each in the folder under which it stands."""
    folders, found, parent, folder = {0: ""}, set(), "", ""
    for line in README.split("## The house")[1].split("```")[1].splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent < DESCRIPTION_COLUMN:
            first = line.split()[0]
            parent = folders[indent]
            folder = parent + first[: first.rfind("/") + 1]
            folders[indent + 2] = folder
        found |= {(parent if "/" in name else folder) + name for name in re.findall(r"[\w/]+\.py\b", line)}
    return found


@pytest.mark.parametrize("package", ["busi_core", "pages", "benchmarks"])
def test_every_module_stands_in_the_readmes_tree(package: str) -> None:
    there = {file.relative_to(ROOT).as_posix() for file in (ROOT / package).rglob("*.py")}
    listed = {path for path in modules_in_the_tree() if path.startswith(f"{package}/")}
    assert {path for path in there - listed if not path.endswith("/__init__.py")} == set(), "not in the tree"
    assert listed - there == set(), "in the tree only"


def test_the_page_of_the_study_is_made_from_its_figures() -> None:
    study = read_study(ROOT / "docs" / JSON_FILE)
    assert study
    assert (ROOT / "docs" / PAGE_FILE).read_text(encoding="utf-8") == format_reproduction(study)


@pytest.mark.parametrize("paper", sorted({recipe.paper for recipe in RECIPES.values() if recipe.paper}))
def test_the_page_of_the_study_says_once_which_paper_a_number_means(paper: str) -> None:
    (title,) = {recipe.title for recipe in RECIPES.values() if recipe.paper == paper}
    page = (ROOT / "docs" / PAGE_FILE).read_text(encoding="utf-8")
    assert page.count(f"| {paper} | {title} |") == 1
