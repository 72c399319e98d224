"""What the model does not know about the open scan: classes not ruled out, no answer, how firm the reading is."""

import math
from collections.abc import Callable, Sequence
from html import escape

import streamlit as st

from busi_core import Analyser, Analysis, Diagnosis, EvaluationReport, ImageWarning
from busi_core.assessment.class_sets import count_held, count_left_out
from busi_core.assessment.figures import AREA_HELD, Figure
from busi_core.doubt import READINGS, Doubt, measure_doubt, outline_doubt
from busi_core.findings import Finding
from busi_core.imaging.overlay import draw_doubt
from busi_core.limits import Limits
from busi_core.metrics.conformal import HIGHEST_COVERAGE, LOWEST_COVERAGE, USUAL_COVERAGE, is_broken
from busi_core.models.checkpoint import ModelCard
from busi_core.report import score_words
from busi_core.types import DecodedImage
from pages.components.page import label
from pages.components.serving import get_assessment, identify

_COVERAGE = "class-set-percent"  # what the reader chose; not the slider's key: that is lost where no slider is drawn


def show_withheld(on_insist: Callable[[], None]) -> None:
    """Why there is no answer, and the way to it for who knows better."""
    st.error(
        "**No answer.** This image does not look like the breast ultrasound scans that the model learned from. "
        "A photograph, another organ or another kind of image would be given a class all the same, so none is shown.",
        icon=":material/block:",
    )
    st.button(
        "Show the answer all the same",
        key="insist",
        on_click=on_insist,
        help="For a breast ultrasound from a machine that the model does not know. Its measured figures do not hold.",
        width="stretch",
    )


def show_class_set(analysis: Analysis, limits: Limits, reports: Sequence[EvaluationReport]) -> None:
    """The classes that cannot be ruled out at the coverage the reader chose, and how often that held."""
    coverage = chosen_coverage()
    left = limits.classes_left(analysis.prediction, coverage)
    if left is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        promise = label(f"Cannot be ruled out ({coverage:.0%} of cases)")
        st.html(f'{promise}<div class="set">{" or ".join(left)}</div>')
        with st.popover("Change", type="tertiary", help="How sure the set of classes should be."):
            st.session_state[_COVERAGE] = st.slider(
                "The set holds the true class in … % of cases",
                round(100 * LOWEST_COVERAGE),
                round(100 * HIGHEST_COVERAGE),
                round(100 * coverage),
                key="coverage",
                format="%d %%",
                help="Promised for each class, and for scans of which no class is likely, on scans like those of the "
                "validation part. More means larger sets.",
            )
    st.html(_held_line(analysis, limits, reports, coverage) or "<span></span>")


def say_left_out(analysis: Analysis, analyser: Analyser, reports: Sequence[EvaluationReport]) -> str:
    """Beside a flag, where the set of classes leaves malignant out: that both are meant, and what such scans were."""
    flag, limits, coverage = analyser.card.malignancy, analyser.limits, chosen_coverage()
    left = limits.classes_left(analysis.prediction, coverage) if limits else None
    if flag is None or limits is None or left is None or Diagnosis.MALIGNANT in left:
        return ""
    malignant, scans = count_left_out(reports, limits, coverage, flag.threshold)
    counted = f": of {scans:,} test scans like that {malignant:,} were malignant" if scans else ""
    return f" <b>The set above leaves malignant out, the flag does not{counted}.</b>"


def chosen_coverage() -> float:
    """In which share of cases the set of classes should hold the true one: the reader's choice, kept in the session."""
    kept = st.session_state.get(_COVERAGE, 100 * USUAL_COVERAGE)
    return float(st.session_state.get("coverage", kept)) / 100


def show_doubt(analysis: Analysis, finding: Finding, analyser: Analyser, asked: set[str], *, scan_key: str) -> None:
    """Six readings of the scan, once asked for: outline with its band, area and scores as intervals.

    Args:
        analysis: The reading on screen.
        finding: At the reader's cut-off.
        analyser: That made it.
        asked: The readings for which it was asked; this one is added when the reader asks.
        scan_key: Names scan, frame and model.
    """
    if scan_key not in asked:
        if st.button(
            "How firm is this reading?",
            key="doubt",
            icon=":material/rule:",
            help=f"Reads the scan {READINGS} times: mirrored, brighter and darker. Takes a few seconds.",
            width="stretch",
        ):
            asked.add(scan_key)
            st.rerun()
        return
    image = analysis.image
    doubt = measure_firmness(scan_key, analyser, image)
    outline = outline_doubt(doubt, image.height, image.width, finding.threshold)
    st.html(label(f"{READINGS} readings of this scan: mirrored, brighter, darker", css="label spaced"))
    picture = draw_doubt(image.rgb, outline.certain, outline.possible)
    st.image(
        picture,
        caption="Solid: lesion in every reading. Amber: in some of them.",
        alt="The scan; what is lesion in every reading is outlined, what is so in some readings is amber",
        width="stretch",
    )
    measured = "" if ImageWarning.INSISTED in analysis.warnings else _area_line(analyser.card)
    st.html(_doubt_lines(doubt, outline.smallest, outline.largest, image) + measured)


@st.cache_data(
    show_spinner="Reading the scan six times…", max_entries=2, scope="session", hash_funcs={Analyser: identify}
)
def measure_firmness(scan_key: str, analyser: Analyser, _image: DecodedImage) -> Doubt:
    """Six readings of one scan, for this session only: they hold patient data."""
    del scan_key  # stands for the image in the key
    return measure_doubt(analyser, _image)


def _doubt_lines(doubt: Doubt, smallest: int, largest: int, image: DecodedImage) -> str:
    pixels = image.height * image.width
    lines = []
    if largest:
        lines.append(f"Area {smallest / pixels:.1%} to {largest / pixels:.1%} of the image")
        if not smallest:
            lines.append("<b>In at least one reading no lesion was found.</b>")
    else:
        lines.append("No reading finds a lesion at this cut-off.")
    if doubt.scores:
        low, high = doubt.scores[Diagnosis.MALIGNANT]
        lines.append(f"Score of malignant {escape(score_words(low))} to {escape(score_words(high))}")
        if len(doubt.diagnoses) > 1:
            lines.append("<b>The class is not the same in every reading.</b>")
    if not math.isnan(doubt.evidence_agreement):
        lines.append(f"Heat maps agree to {doubt.evidence_agreement:.2f} (1 = the same place every time)")
    lines.append("Readings that agree prove nothing: they share the model's blind spots.")
    return "".join(f'<div class="fine">{line}</div>' for line in lines)


def _area_line(card: ModelCard) -> str:
    """How often such an interval held the true area on test scans: a width that is not measured says nothing."""
    held = _find_figure(card, AREA_HELD)
    if held is None:
        return ""
    return (
        f'<div class="fine">The range of the area is no interval of confidence: on {held.cases:,} test scans the true '
        f"area lay in it for {held.estimate:.0%}.</div>"
    )


def _find_figure(card: ModelCard, name: str) -> Figure | None:
    return next((one for one in get_assessment(card.version, card.sha256) if one.name == name), None)


def _held_line(analysis: Analysis, limits: Limits, reports: Sequence[EvaluationReport], coverage: float) -> str:
    """How often such a set held the true class of test scans that are as clear as this one, or as little."""
    sets, scores = limits.nonconformity, analysis.prediction.probabilities
    if sets is None or scores is None:
        return ""
    in_doubt = sets.is_in_doubt(list(scores.values()))
    held = count_held(reports, limits, coverage, in_doubt=in_doubt)
    if not held:
        return ""
    counts = ", ".join(_count_words(right, of, name, coverage) for name, (right, of) in held.items())
    if sets.in_doubt_below:
        share = f"a score of {sets.in_doubt_below:.2f}"
        where = f"On test scans of which {f'no class has {share}' if in_doubt else f'one class has {share} or more'}"
    else:
        where = "On test scans"
    return f'<div class="fine">{where}, such sets held the true class of {counts}.</div>'


def _count_words(right: int, of: int, name: Diagnosis | None, coverage: float) -> str:
    said = f"{right:,} of {of:,}{f' {name}' if name else ''} ({_share(right, of)}"
    return f"<b>{said}, fewer than promised)</b>" if is_broken(right, of, coverage) else f"{said})"


def _share(part: int, whole: int) -> str:
    """In percent, never rounded to all or none of them."""
    said = f"{part / whole:.0%}"
    if part < whole and said == "100%":
        return "> 99%"
    return "< 1%" if part and said == "0%" else said
