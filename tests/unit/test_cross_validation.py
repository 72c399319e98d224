"""Versions of one recipe, a fold each: every scan counts once, and a recipe's figures are kept from a version's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluation import CARD, RESULTS, same
from versions import make_card, make_weights, opinion_of, write_version

from busi_core.cross_validation import (
    ELSEWHERE,
    POOLED,
    keep,
    pool,
    read_cross_validation,
    require_same_recipe,
    require_taught_by_busi_alone,
)
from busi_core.errors import DatasetError
from busi_core.evaluation import EvaluationReport, read_reports, summarise, write_reports

PARTS = (RESULTS[:3], RESULTS[3:5], RESULTS[5:6], RESULTS[6:8], RESULTS[8:])
FOLDS = [summarise(CARD, part, test_set=f"busi fold {fold}") for fold, part in enumerate(PARTS)]


def test_pooled_figures_are_those_of_all_scans_together_and_no_mean_of_folds() -> None:
    pooled, together = pool(CARD, FOLDS), summarise(CARD, RESULTS, test_set=POOLED)
    assert same(pooled.table, together.table)
    assert pooled.scans == sum(fold.scans for fold in FOLDS)
    assert pooled.table["lesion Dice"].estimate != sum(f.table["lesion Dice"].estimate for f in FOLDS) / 5


def test_a_pooled_report_has_no_flag_and_no_bands_of_its_own() -> None:
    """They would be the cut-off and the scores of other weights than those that read the scan on the screen."""
    pooled = pool(CARD, FOLDS)
    assert pooled.flag is None
    assert pooled.bands == ()


def test_a_scan_that_two_versions_scored_is_refused() -> None:
    with pytest.raises(DatasetError, match="scored twice"):
        pool(CARD, [FOLDS[0], FOLDS[0]])


def test_a_part_of_the_folds_is_not_called_all_of_them() -> None:
    with pytest.raises(DatasetError, match="Not all folds: busi fold 4 is missing"):
        pool(CARD, FOLDS[:4])


def test_who_has_been_in_a_hospital_does_not_tell_what_an_unseen_one_costs() -> None:
    require_taught_by_busi_alone(replace(CARD, trained_on=("busi/benign (4)",)))
    with pytest.raises(DatasetError, match="taught by other scans than BUSI's"):
        require_taught_by_busi_alone(replace(CARD, trained_on=("busi/benign (4)", "bus-bra/bus_0001-l")))


def test_versions_of_another_network_are_refused_by_name() -> None:
    other = replace(make_card(make_weights(), version="odd"), preprocess=replace(CARD.preprocess, fit="squash"))
    require_same_recipe(CARD, [CARD])
    with pytest.raises(DatasetError, match="'odd'"):
        require_same_recipe(CARD, [CARD, other])


@pytest.mark.parametrize(
    "change",
    [{"weighs_presence": True}, {"second_opinion": opinion_of(1, 2)}],
    ids=["weighs by the chance of a lesion", "asks others in doubt"],
)
def test_figures_of_a_fold_that_reads_in_another_way_are_not_pooled(change: dict[str, Any]) -> None:
    other = replace(CARD, version="odd", **change)
    require_same_recipe(CARD, [other])
    require_same_recipe(other, [replace(other, version="its like")], reads_alike=True)
    with pytest.raises(DatasetError, match="'odd' reads in another way"):
        require_same_recipe(CARD, [CARD, other], reads_alike=True)


def test_a_recipes_figures_never_stand_among_a_versions_own(tmp_path: Path) -> None:
    """The gate pairs a candidate with what the version in service said of a scan, by the scan's id."""
    write_version(tmp_path, "tiny")
    own, pooled = FOLDS[0], pool(CARD, FOLDS)
    write_reports(tmp_path / "tiny", [own])
    keep(tmp_path / "tiny", [pooled])
    assert same(read_reports(tmp_path / "tiny"), [own])
    assert same(read_cross_validation(tmp_path / "tiny"), [pooled])


def test_one_report_is_renewed_and_the_other_stays(tmp_path: Path) -> None:
    write_version(tmp_path, "tiny")
    pooled, elsewhere = pool(CARD, FOLDS), replace(FOLDS[1], test_set=ELSEWHERE)
    keep(tmp_path / "tiny", [elsewhere])
    keep(tmp_path / "tiny", [pooled])
    newer = pool(CARD, [replace(FOLDS[0], results=FOLDS[0].results[:1]), *FOLDS[1:]])
    keep(tmp_path / "tiny", [newer])
    kept: list[EvaluationReport] = read_cross_validation(tmp_path / "tiny")
    assert same(kept, [newer, elsewhere])


def test_what_other_weights_reached_is_not_shown(tmp_path: Path) -> None:
    write_version(tmp_path, "tiny")
    keep(tmp_path / "tiny", [pool(CARD, FOLDS)])
    write_version(tmp_path, "tiny", seed=1)
    assert read_cross_validation(tmp_path / "tiny") == []
