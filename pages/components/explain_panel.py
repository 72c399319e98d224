"""'Explain in other ways': the reader chooses methods, class and layer; the heat maps come side by side when asked."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import streamlit as st

from busi_core import Analyser, Analysis, BusiError, ImageWarning
from busi_core.explain.agreement import least_agreement
from busi_core.explain.catalogue import WORDS, Method
from busi_core.explain.gradcam import LESION
from busi_core.explain.methods import Explanation
from pages.components.explain_viewer import pack_explanations, show_explanations
from pages.components.page import label, show_error

FIRST_CHOICE: Final = (Method.GRAD_CAM, Method.HIRES_CAM, Method.LAYER_CAM)  # quick, and answer the same question
AGREES: Final = 0.5  # share of the strongest fifth in common, from which two maps point to the same place
MAX_KEPT: Final = 48  # heat maps a session; 0.25 MB each at most


@dataclass(frozen=True)
class Question:
    """What was asked about one reading of one scan, at a layer, of a class or the mask."""

    scan_id: str
    of: str
    layer: str


@dataclass(frozen=True, eq=False)
class Answer:
    """One method's answer.

    Attributes:
        result: The explanation, or why there is none.
        seconds: It took.
    """

    result: Explanation | BusiError
    seconds: float


@dataclass
class Shelf:
    """The answers of one session, of patients' scans: held by its tray of scans, and emptied with it.

    Attributes:
        asked: The last question and its methods; None while nothing was asked.
        answers: The newest last.
    """

    asked: tuple[Question, tuple[Method, ...]] | None = None
    answers: dict[tuple[Question, Method], Answer] = field(default_factory=dict)

    def keep(self, question: Question, method: Method, answer: Answer) -> None:
        """Add one, and let the oldest go when there are too many."""
        self.answers[question, method] = answer
        while len(self.answers) > MAX_KEPT:
            del self.answers[next(iter(self.answers))]


def show_explain_panel(
    analysis: Analysis, analyser: Analyser, shelf: Shelf, *, scan_id: str, lesion_cutoff: float
) -> None:
    """Offer the methods, and show what was asked for this scan; nothing is computed before.

    Args:
        analysis: The reading on screen.
        analyser: That made it.
        shelf: Of the session.
        scan_id: Names scan, frame and model.
        lesion_cutoff: Where the lesion is outlined.
    """
    if ImageWarning.NO_CONTRAST in analysis.warnings or not analyser.layers():
        return
    with st.expander("Explain in other ways", icon=":material/compare:"):
        st.html(
            label(
                "Other methods answer 'where does this come from?' each in its own way. Where they disagree, trust "
                "none of them. No heat map is a diagnosis.",
                css="fine",
            )
        )
        of, layer, methods = _choose(analysis, analyser, scan_id)
        if st.button("Explain", key="explain", type="primary", disabled=not methods):
            shelf.asked = (Question(scan_id, of, layer), methods)
        if shelf.asked is None or shelf.asked[0].scan_id != scan_id:
            return
        question, asked = shelf.asked
        answers = [_answer(analysis, analyser, shelf, question, method) for method in asked]
        _show_answers(analysis, question, answers, asked, analyser, lesion_cutoff)


def _choose(analysis: Analysis, analyser: Analyser, scan_id: str) -> tuple[str, str, tuple[Method, ...]]:
    targets = list(analysis.heatmaps)
    likeliest = str(analysis.prediction.diagnosis or LESION)
    left, right = st.columns(2)
    of = left.selectbox("What", targets, targets.index(likeliest), key=f"explain-of-{scan_id}", format_func=_target)
    layers = {layer.name: layer for layer in analyser.layers() if layer.feeds_class or of == LESION}
    name = right.selectbox(
        "Where in the network",
        list(layers),
        key="explain-layer" if of == LESION else "explain-layer-of-class",
        format_func=lambda name: layers[name].title,
        help="Deep layers know what a thing is, on a coarse grid; early ones see edges and speckle, sharply placed.",
    )
    methods = tuple(
        st.pills(
            "Methods",
            list(Method),
            selection_mode="multi",
            default=FIRST_CHOICE,
            key="explain-methods",
            format_func=lambda method: WORDS[method].title,
        )
    )
    if Method.SCORE_CAM in methods:
        st.html(label(f"Score-CAM will read this scan {layers[name].channels} times at this layer.", css="fine"))
    return of, name, tuple(method for method in Method if method in methods)


def _target(of: str) -> str:
    return "the lesion mask" if of == LESION else f"the score of {of}"


def _answer(analysis: Analysis, analyser: Analyser, shelf: Shelf, question: Question, method: Method) -> Answer:
    known = shelf.answers.get((question, method))
    if known:
        return known
    title, start = WORDS[method].title, time.monotonic()
    bar = st.progress(0.0, f"{title}…")
    result: Explanation | BusiError
    try:
        result = analyser.explain(
            analysis, method, of=question.of, layer=question.layer, on_progress=_follow(bar.progress, title, start)
        )
    except BusiError as error:
        result = error
    finally:
        bar.empty()
    answer = Answer(result, time.monotonic() - start)
    if isinstance(result, Explanation):  # what failed is tried again when it is asked for again
        shelf.keep(question, method, answer)
    return answer


def _follow(say: Callable[[float, str], object], title: str, start: float) -> Callable[[int, int], None]:
    def follow(done: int, total: int) -> None:
        left = (time.monotonic() - start) / done * (total - done) if done else None
        rest = f", about {left:.0f} s left" if left is not None else ""
        say(done / total, f"{title}: {done} of {total} readings{rest}")

    return follow


def _show_answers(
    analysis: Analysis,
    question: Question,
    answers: Sequence[Answer],
    methods: Sequence[Method],
    analyser: Analyser,
    lesion_cutoff: float,
) -> None:
    for answer, method in zip(answers, methods, strict=True):
        if isinstance(answer.result, BusiError):
            show_error(answer.result, name=WORDS[method].title)
    made = [answer.result for answer in answers if isinstance(answer.result, Explanation)]
    if not made:
        return
    layer = next(layer for layer in analyser.layers() if layer.name == question.layer)
    took = ", ".join(
        f"{WORDS[method].title} {answer.seconds:.1f} s" for answer, method in zip(answers, methods, strict=True)
    )
    st.html(label(f"{_target(question.of).capitalize()} · {layer.title}", css="label spaced"))
    _show_agreement(made)
    message = pack_explanations(analysis, made, scan_id=question.scan_id, lesion_cutoff=lesion_cutoff)
    show_explanations(message, key="explanations")
    st.html(label(f"Made in: {took}. Model {analysis.model_version}.", css="fine"))


def _show_agreement(made: Sequence[Explanation]) -> None:
    """Say whether the maps that answer the question point to the same place."""
    asking = [one for one in made if WORDS[one.method].asks]
    least = least_agreement([one.heatmap.evidence for one in asking])
    if least is None:
        return
    one, other = (WORDS[asking[number].method].title for number in least.pair)
    said = f"{one} and {other} have {least.share:.0%} of their strongest fifth of the scan in common; chance gives 20%."
    if least.share < AGREES:
        st.warning(f"**These methods disagree: trust none of them here.** {said}")
    else:
        st.html(label(f"These methods point to the same place. Least alike: {said}", css="fine"))
