"""What the recipe of a version reaches where that version itself cannot be asked: on all folds, and elsewhere.

    one version for each fold, scored on the fold that it never saw   --pool--> one report on every scan of BUSI
    a version taught by BUSI alone, scored on BUS-BRA                        --> what another hospital costs

Both stand beside the version's own evaluation, in cross_validation.json: one fold holds under a hundred scans and a
dozen normals, and pooled over five there are enough to tell a few per cent. At most one fold is scored by the version
itself, where it is named among the others, so these are figures of the recipe, and nothing on the screen that is about
one scan is made from them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from busi_core.data.splits import FOLDS
from busi_core.errors import DatasetError
from busi_core.evaluation import EvaluationReport, read_reports, summarise, write_reports
from busi_core.models.checkpoint import ModelCard

CROSS_VALIDATION_FILE = "cross_validation.json"
POOLED = "busi, all folds"
ELSEWHERE = "bus-bra fold 3, taught by busi alone"
READ_BY = {  # how a page begins to say what was reached there
    POOLED: "By versions of the same network, not by these weights alone, each on scans that it never saw",
    ELSEWHERE: "By other weights of the same network, taught by BUSI alone, on scans that they never saw",
}


def require_same_recipe(card: ModelCard, others: Sequence[ModelCard], *, reads_alike: bool = False) -> None:
    """Refuse versions that are not the same network on the same input.

    Args:
        card: Of the version that the figures are to lie beside.
        others: Those that reach them.
        reads_alike: Refuse also what reads otherwise: weighs no presence, or asks for another second opinion.

    Raises:
        DatasetError: One differs; says which.
    """
    for other in others:
        if (other.architecture, other.preprocess) != (card.architecture, card.preprocess):
            raise DatasetError(
                f"{other.version!r} is another network, or reads another input, than {card.version!r}.",
                remedy="Name versions of the same recipe.",
            )
        if reads_alike and _way_of_reading(other) != _way_of_reading(card):
            raise DatasetError(
                f"{other.version!r} reads in another way than {card.version!r}: it weighs otherwise by the chance of a "
                "lesion, or asks for another second opinion or for none.",
                remedy="Name versions that were made in the same way, as by 'busi second-opinion'.",
            )


def require_taught_by_busi_alone(card: ModelCard) -> None:
    """Refuse a version that scans of another collection taught or chose anything for: it has been in that hospital.

    Raises:
        DatasetError: They did.
    """
    if any(not name.startswith("busi/") for name in card.trained_on):
        raise DatasetError(
            f"{card.version!r} was taught by other scans than BUSI's, so it does not tell what another hospital costs.",
            remedy="Name a version that was trained with --data busi alone.",
        )


def _way_of_reading(card: ModelCard) -> tuple[object, ...]:
    asked = card.second_opinion
    if asked is None:
        return (card.weighs_presence,)
    return card.weighs_presence, len(asked.readers), asked.class_below, asked.lesion_between


def pool(card: ModelCard, reports: Sequence[EvaluationReport]) -> EvaluationReport:
    """One report over the scans of several, each read by the version that never saw it.

    Args:
        card: Of the version that the report is to lie beside.
        reports: Of versions of its recipe, on test sets that share no scan.

    Raises:
        DatasetError: A scan was scored twice, or a fold is missing.
    """
    results = [result for report in reports for result in report.results]
    if len({result.id for result in results}) < len(results):
        raise DatasetError("A scan was scored twice.", remedy="Name one version for each test fold.")
    missing = {f"busi fold {fold}" for fold in range(FOLDS)} - {report.test_set for report in reports}
    if missing:
        raise DatasetError(
            f"Not all folds: {', '.join(sorted(missing))} is missing.", remedy="Name a version for each."
        )
    report = summarise(card, results, test_set=POOLED)
    return replace(report, flag=None, bands=())  # each version has a flag of its own


def keep(folder: Path, reports: Sequence[EvaluationReport]) -> None:
    """Write reports beside the weights; those of other test sets that lie there already stay.

    Raises:
        OutputError: The folder cannot be written.
    """
    new = {report.test_set for report in reports}
    before = [report for report in read_cross_validation(folder) if report.test_set not in new]
    order = [POOLED, ELSEWHERE]
    kept = sorted([*before, *reports], key=lambda report: order.index(report.test_set))
    write_reports(folder, kept, file_name=CROSS_VALIDATION_FILE)


def read_cross_validation(folder: Path) -> list[EvaluationReport]:
    """What lies beside these weights; empty when nothing does or it cannot be read."""
    return read_reports(folder, file_name=CROSS_VALIDATION_FILE)
