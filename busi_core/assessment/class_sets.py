"""How often the sets of classes hold the truth, and how large they are."""

from collections.abc import Sequence

import numpy as np

from busi_core.assessment.counting import make_figure
from busi_core.assessment.figures import Figure
from busi_core.evaluation import EvaluationReport
from busi_core.limits import Limits
from busi_core.metrics.conformal import class_set
from busi_core.types import Diagnosis

COVERAGES = (0.8, 0.9, 0.95, 0.99)
CLASSES = list(Diagnosis)


def count_held(
    reports: Sequence[EvaluationReport], limits: Limits, coverage: float, *, in_doubt: bool
) -> dict[Diagnosis | None, tuple[int, int]]:
    """For how many test scans the set at this coverage holds the true class, and of how many.

    Args:
        reports: Whose scans are counted.
        limits: Of the version that read them.
        coverage: 0.8 to 0.99.
        in_doubt: Count those of which no class is likely, in one; or else the others, by class.
    """
    held: dict[Diagnosis | None, list[bool]] = {}
    for one in (result for report in reports for result in report.results):
        sets = limits.nonconformity
        if sets and one.probabilities and sets.is_in_doubt(one.probabilities) is in_doubt:
            truth = Diagnosis(one.truth)
            kept = class_set(one.probabilities, sets, coverage)[CLASSES.index(truth)]
            held.setdefault(None if in_doubt else truth, []).append(kept)
    return {name: (sum(held[name]), len(held[name])) for name in (*CLASSES, None) if name in held}


def count_left_out(
    reports: Sequence[EvaluationReport], limits: Limits, coverage: float, flag: float
) -> tuple[int, int]:
    """Of the test scans that are flagged at this score of malignant, and whose set leaves malignant out: how many are
    malignant, and how many there are."""
    column = CLASSES.index(Diagnosis.MALIGNANT)
    found = [
        one.truth == Diagnosis.MALIGNANT
        for one in (result for report in reports for result in report.results)
        if limits.nonconformity and one.probabilities and one.probabilities[column] >= flag
        if not class_set(one.probabilities, limits.nonconformity, coverage)[column]
    ]
    return sum(found), len(found)


def assess_sets(reports: Sequence[EvaluationReport], limits: Limits) -> list[Figure]:
    """How often the set of classes holds the truth, by class and in doubt, and how large it is."""
    sets = limits.nonconformity
    if sets is None:
        return []
    figures: list[Figure] = []
    for report in reports:
        groups = np.array([result.group for result in report.results])
        truth = np.array([CLASSES.index(Diagnosis(result.truth)) for result in report.results])
        scores = [result.probabilities for result in report.results if result.probabilities]
        doubted = np.array([sets.is_in_doubt(each) for each in scores])
        parts = {str(diagnosis): truth == column for column, diagnosis in enumerate(CLASSES)}
        parts[f"no class has {sets.in_doubt_below:.2f}"] = doubted
        for coverage in COVERAGES:
            kept = np.array([class_set(each, sets, coverage) for each in scores])
            held, sizes = kept[np.arange(truth.size), truth].astype(float), kept.sum(axis=1).astype(float)
            name = f"{coverage:.0%} set"
            for part, mine in parts.items():
                if mine.any():
                    said = f"{name} holds the truth, {part}"
                    figures.append(make_figure("sets", said, report.test_set, held[mine], groups[mine]))
            figures.append(
                make_figure("sets", f"{name}, classes in it", report.test_set, sizes, groups, is_share=False)
            )
            alone = (sizes == 1).astype(float)
            figures.append(make_figure("sets", f"{name} of one class", report.test_set, alone, groups))
    return figures
