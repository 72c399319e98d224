"""What a version's answers were worth on test scans, in plain sentences: said beside them on the screen and on paper.

card + evaluation reports + assessment -> sentences; none where nothing was measured
"""

from collections.abc import Sequence

from busi_core.assessment.figures import PEAK_INSIDE, RIGHT_ELSEWHERE, RIGHT_IN_DOUBT, Figure, pool_figures
from busi_core.evaluation import EvaluationReport, count_flagged
from busi_core.models.checkpoint import MalignancyFlag, ModelCard


def say_worth(card: ModelCard, reports: Sequence[EvaluationReport], figures: Sequence[Figure]) -> tuple[str, ...]:
    """All of it, for a report on paper.

    Args:
        card: Of the version.
        reports: Its evaluations on scans that it never saw.
        figures: Its assessment.
    """
    flag = f"The flag for malignancy: {say_flagged(card.malignancy, reports)}" if card.malignancy else ""
    peaks = say_peaks(figures)
    heat = f"Heat maps are relative and no outline: {peaks}." if peaks else ""
    in_doubt = say_in_doubt(figures)
    return tuple(said for said in (flag, heat, f"Second opinions: {in_doubt}" if in_doubt else "") if said)


def say_flagged(flag: MalignancyFlag, reports: Sequence[EvaluationReport]) -> str:
    """What the flag is worth: on scans that chose nothing where there are some."""
    counted = count_flagged(reports, flag.threshold)
    if counted is None:
        return (
            f"On {flag.scans:,} validation scans, which chose this cut-off, it flagged {flag.sensitivity:.0%} of the "
            f"malignant ones and left {flag.specificity:.0%} of the others alone."
        )
    (found, malignant), (marked, others) = counted
    return f"It flags {found:,} of {malignant:,} malignant test scans, and {marked:,} of the {others:,} others too."


def say_peaks(figures: Sequence[Figure]) -> str:
    """How often the peak of the heat map of the likeliest class lay inside the lesion on test scans; '' if unknown."""
    peaks, of_lesions = pool_figures(figures, PEAK_INSIDE)
    return f"peak inside the lesion on {peaks:.0%} of {of_lesions:,} test scans" if of_lesions else ""


def say_in_doubt(figures: Sequence[Figure]) -> str:
    """How often the class was right where a second opinion was asked for, and elsewhere; '' if unknown."""
    doubted, of_doubted = pool_figures(figures, RIGHT_IN_DOUBT)
    sure, of_sure = pool_figures(figures, RIGHT_ELSEWHERE)
    if not of_doubted or not of_sure:
        return ""
    return (
        f"On the {of_doubted:,} test scans read like this the class was right for {doubted:.0%}, on the other "
        f"{of_sure:,} for {sure:.0%}."
    )
