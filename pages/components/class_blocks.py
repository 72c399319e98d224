"""The class of an image as pieces of HTML, the same on Analyse and Compare: scores as bars, and the flag."""

from collections.abc import Mapping
from html import escape

from busi_core import Diagnosis
from busi_core.report import score_beside, score_words

CLASS_COLOURS = {Diagnosis.NORMAL: "#8b949e", Diagnosis.BENIGN: "#58a6ff", Diagnosis.MALIGNANT: "#ff7b72"}


def score_rows(scores: Mapping[Diagnosis, float]) -> str:
    """A bar for each class."""
    return "".join(
        f'<div class="score-row"><span>{d.value}</span>'
        f'<span class="bar"><i style="width:{scores[d]:.1%};background:{CLASS_COLOURS[d]}"></i></span>'
        f"<b>{escape(score_words(scores[d]))}</b></div>"
        for d in Diagnosis
    )


def flag_block(score: float, threshold: float, diagnosis: Diagnosis | None, worth: str = "") -> str:
    """Whether a scan is flagged: it may be beside any class, and is amber then.

    Args:
        score: Of malignant.
        threshold: From which on scans are flagged.
        diagnosis: The class that the model gives.
        worth: HTML: what such flags were worth on test scans.
    """
    said, cutoff = score_beside(score, threshold)
    flagged, is_class = score >= threshold, diagnosis is Diagnosis.MALIGNANT
    mark = "⚑ Flagged for malignancy" if flagged else "Not flagged for malignancy"
    though = f", though the class is {diagnosis}" if flagged and not is_class else ""
    tone = "off" if not flagged else "on" if is_class else "on beside"
    return (
        f'<div class="flag {tone}"><b>{mark}{though}</b>'
        f"<span>Score of malignant {escape(said)}; flagged from {cutoff} on. {worth}</span></div>"
    )
