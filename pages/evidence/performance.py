"""How well any evaluated version reads scans that it never saw: figures, curves, and the cases at either end."""

import math

import numpy as np
import streamlit as st

from busi_core import BusiError, Diagnosis, EvaluationReport, read_settings
from busi_core.cross_validation import READ_BY
from busi_core.data.records import Record, read_bus_bra, read_busi, read_truth
from busi_core.evaluation import count_flagged
from busi_core.findings import read_finding
from busi_core.imaging.overlay import draw_mask
from busi_core.metrics.classification import malignancy_score, roc_curve
from busi_core.metrics.proportion import share_interval
from pages.components.charts import CONFIG, draw_dice_by_size, draw_reliability, draw_roc
from pages.components.evidence_table import show_figures
from pages.components.page import label, show_error, start_page
from pages.components.serving import (
    analyse,
    current_analyser,
    get_analyser,
    get_cross_validation,
    get_reports,
    servable_versions,
)

CASES = 3  # at either end
TWO_DRAWINGS = (  # python -m benchmarks.two_drawings, docs/experiments.md
    "What is possible here: BUSI holds 94 of its scans twice, each time with its own outline. Two outlines of one scan "
    "reach a Dice of 0.82 (0.77 – 0.87); in 3 of the 94 they do not meet at all."
)


def show_table(report: EvaluationReport) -> None:
    """Each figure with its interval, and the confusion matrix."""
    figures, confusion = st.columns([3, 2], gap="large")
    show_figures(report, figures)
    with confusion:
        if not report.confusion:
            st.info("This model outlines lesions only; it gives no class.", icon=":material/info:")
            return
        st.html(label("Confusion matrix: rows truth, columns model"))
        names = [diagnosis.value for diagnosis in Diagnosis]
        rows = [
            {"truth": name, **dict(zip(names, line, strict=True))}
            for name, line in zip(names, report.confusion, strict=True)
        ]
        st.table(rows, hide_index=True, width="content")


def show_class_curves(report: EvaluationReport) -> None:
    """ROC of malignant against benign, and whether the scores are as sure as right."""
    lesions = [r for r in report.results if r.truth != Diagnosis.NORMAL.value and r.probabilities]
    truth = np.array([r.truth == Diagnosis.MALIGNANT.value for r in lesions])
    if not lesions or truth.all() or not truth.any():
        return
    left, right = st.columns(2)
    curve = roc_curve(malignancy_score(np.array([r.probabilities for r in lesions])), truth)
    with left:
        st.header("Malignant against benign")
        st.plotly_chart(
            draw_roc(curve.sensitivity.tolist(), curve.specificity.tolist(), None), config=CONFIG, key="roc"
        )
    with right:
        st.header("As sure as right?")
        st.plotly_chart(draw_reliability(report.reliability), config=CONFIG, key="reliability")


def say_flag(report: EvaluationReport) -> str:
    """What the malignancy flag reached at its own cut-off; its score is another than that of the curve."""
    threshold = report.flag["threshold"] if report.flag else math.nan
    counted = None if math.isnan(threshold) else count_flagged([report], threshold)
    if counted is None:
        return ""
    (found, malignant), (marked, others) = counted
    shares = (("sensitivity", found, malignant, "malignant"), ("specificity", others - marked, others, "other"))
    said = [
        f"{name} {share.estimate:.3f} ({share.low:.3f} – {share.high:.3f}), {count:,} of {of:,} {kind} scans"
        for name, count, of, kind in shares
        if not math.isnan((share := share_interval(count, of)).estimate)
    ]
    return (
        f"The malignancy flag, from a score of malignant of {threshold:.3f} on: {'; '.join(said)}. Intervals of 95 % "
        "by Wilson. The curve of malignant against benign is over another score."
    )


def show_dice(report: EvaluationReport) -> None:
    """Dice over the lesion's size."""
    st.header("Dice and the size of the lesion")
    points = [
        (r.lesion_share, r.dice, r.truth, r.id) for r in report.results if not math.isnan(r.dice) and r.lesion_share
    ]
    st.plotly_chart(draw_dice_by_size(points), config=CONFIG, key="dice-by-size")


@st.cache_data(show_spinner=False, ttl=600)
def find_records() -> dict[str, Record]:
    """Records of the data folder by id; empty where there is none."""
    root = read_settings().data_root
    found: dict[str, Record] = {}
    for folder, read in (("busi", read_busi), ("bus-bra", read_bus_bra)):
        try:
            found |= {record.id: record for record in read(root / folder)} if (root / folder).is_dir() else {}
        except BusiError:
            continue  # a folder that is not sound shows no cases
    return found


def show_cases(report: EvaluationReport, version: str) -> None:
    """The best and the worst lesions, read again from the data folder; never kept in the project."""
    st.header("The worst and the best")
    records = find_records()
    lesions = sorted(
        (r for r in report.results if not math.isnan(r.dice) and r.lesion_share and r.id in records),
        key=lambda result: result.dice,
    )
    if not lesions:
        st.html(label("The scans of this test are not on this server.", css="fine"))
        return
    if not st.toggle("Show scans of the test", key="show-cases", help="They are read from the server's data folder."):
        return
    for title, chosen in (("Worst", lesions[:CASES]), ("Best", lesions[: -CASES - 1 : -1])):
        st.html(label(title))
        for column, result in zip(st.columns(CASES), chosen, strict=False):
            record = records[result.id]
            try:
                data = record.image.read_bytes()
            except OSError:
                column.html(label(f"{result.id}: its file is no longer there.", css="fine"))
                continue
            analysis = analyse(data, None, get_analyser(version), insist=True, _counted=False)  # as it was scored
            truth = read_truth(record, analysis.image.height, analysis.image.width)
            shown = draw_mask(analysis.image.rgb, read_finding(analysis).lesion_mask)
            column.image(shown, caption=f"{result.id}: Dice {result.dice:.2f}, {truth.mean():.1%} lesion")


start_page()
st.title("Performance")
try:
    current = current_analyser().card.version
    evaluated = [version for version in servable_versions() if get_reports(version)]
    if not evaluated:
        st.info("No version has been evaluated. Command: `busi evaluate --save`", icon=":material/terminal:")
        st.stop()
    pick, test = st.columns(2)
    version = pick.selectbox(
        "Model version",
        evaluated,
        index=evaluated.index(current) if current in evaluated else 0,
        format_func=lambda name: f"{name} (in service)" if name == current else name,
        key="performance-version",
    )
    own = {one.test_set: one for one in get_reports(version)}
    crossed = {one.test_set: one for one in get_cross_validation(version)}
    tests = own | crossed
    name = test.selectbox(
        "Test",
        tests,
        format_func=lambda name: f"{name} ({tests[name].scans:,} scans)",
        key=f"performance-test-{version}",
    )
    report = tests[name]
    counts = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
    who = READ_BY[name] if name in crossed else "On scans that it never saw"
    st.caption(f"{who}: {report.scans:,} scans ({counts}); copies in training: {report.copies_in_training:,}.")
    show_table(report)
    if flag := say_flag(report):
        st.caption(flag)
    if report.test_set.startswith("busi"):
        st.caption(TWO_DRAWINGS)
    show_class_curves(report)
    show_dice(report)
    if name not in crossed:
        show_cases(report, version)
except BusiError as error:
    show_error(error)
