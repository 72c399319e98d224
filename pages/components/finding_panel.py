"""What the model says about one scan, beside the viewer: class, flag, size, disagreement, downloads."""

from collections.abc import Callable
from datetime import datetime
from html import escape

import streamlit as st

from busi_core import Analysis, Diagnosis, EvaluationReport, Finding, ImageWarning
from busi_core.batch import Truth
from busi_core.explain.gradcam import LESION
from busi_core.imaging.overlay import caption, draw_mask, encode_png, mask_png
from busi_core.imaging.preprocess import upsample
from busi_core.limits import Limits
from busi_core.models.checkpoint import MalignancyFlag
from busi_core.report import (
    MAX_SUBJECT,
    RESEARCH_USE,
    Report,
    ReportPictures,
    ReportScan,
    reading_json,
    reading_record,
    score_words,
)
from busi_core.report_pdf import draw_report
from busi_core.types import Mask
from pages.components.limits_panel import show_class_set, show_withheld
from pages.components.page import label, plain

CLASS_COLOURS = {Diagnosis.NORMAL: "#8b949e", Diagnosis.BENIGN: "#58a6ff", Diagnosis.MALIGNANT: "#ff7b72"}


def show_finding(
    analysis: Analysis,
    finding: Finding,
    *,
    name: str,
    scan_id: str,
    position: str,
    simulated: bool,
    flag: MalignancyFlag | None,
    report: EvaluationReport | None,
    limits: Limits | None,
    taught: bool,
    subjects: dict[str, str],
    on_insist: Callable[[], None],
) -> None:
    """Draw the finding of one scan.

    Args:
        analysis: What the model said.
        finding: The same at the cut-off the reader chose.
        name: File name, shown as plain text.
        scan_id: Of the scan in this session.
        position: As in '3 of 12'.
        simulated: The scan was made by the phantom.
        flag: The model's operating point and what it reached on validation.
        report: The version's evaluation on scans it never saw; None when there is none.
        limits: What the version knows of its limits; None when nothing.
        taught: This scan, or a copy of it, taught the version.
        subjects: The names on the reports of this session's scans, by the scan's id; what is typed goes in.
        on_insist: Called when the reader wants an answer that was withheld.
    """
    st.html(label(f"{position} · {name}{' · SIMULATED' if simulated else ''}", css="finding-name"))
    if ImageWarning.NO_CONTRAST in analysis.warnings:
        st.error("No contrast: every pixel has nearly the same grey. The model's answer is not shown; check the file.")
        return
    if analysis.withheld:
        show_withheld(on_insist)
        return
    if analysis.prediction.probabilities is None:
        st.info("This model outlines lesions only; it gives no class.", icon=":material/info:")
    else:
        st.html(_class_block(analysis))
        if limits is not None:
            show_class_set(analysis, limits, report)
        _show_flag(analysis, finding, flag, report)
    if finding.disagreement:
        st.warning(f"**Findings disagree.** {finding.disagreement} Look again; neither is corrected.")
    st.html(_lesion_block(analysis, finding))
    show_warnings(analysis)
    _show_downloads(
        analysis,
        finding,
        name=name,
        scan_id=scan_id,
        position=position,
        simulated=simulated,
        taught=taught,
        subjects=subjects,
    )
    st.html(label(f"Model {analysis.model_version}", css="fine"))


def show_warnings(analysis: Analysis) -> None:
    """What a reader must know about the image before believing the result."""
    for warning in analysis.warnings:
        if warning is not ImageWarning.NOT_CALIBRATED:  # said beside the size
            st.warning(f"{warning.value.capitalize()}.")


def _class_block(analysis: Analysis) -> str:
    probabilities, diagnosis = analysis.prediction.probabilities or {}, analysis.prediction.diagnosis
    rows = "".join(
        f'<div class="score-row"><span>{d.value}</span>'
        f'<span class="bar"><i style="width:{probabilities[d]:.1%};background:{CLASS_COLOURS[d]}"></i></span>'
        f"<b>{score_text(probabilities[d])}</b></div>"
        for d in Diagnosis
    )
    hint = (
        "Of the whole image, not of one region. Scaled on validation scans; not the chance of cancer for this patient."
    )
    return (
        f'<div class="label">Class of the image</div>'
        f'<div class="diagnosis" style="color:{CLASS_COLOURS[diagnosis or Diagnosis.NORMAL]}">{diagnosis}</div>'
        f'<div class="label" title="{escape(hint)}">Model score '
        f'<span class="hint" aria-label="{escape(hint)}">?</span></div>{rows}'
    )


def _show_flag(
    analysis: Analysis, finding: Finding, flag: MalignancyFlag | None, report: EvaluationReport | None
) -> None:
    score = (analysis.prediction.probabilities or {})[Diagnosis.MALIGNANT]
    lines = []
    if flag is not None:
        mark = "⚑ Flagged for malignancy" if finding.flagged else "Not flagged for malignancy"
        sign = "≥" if finding.flagged else "<"
        lines.append(
            f'<div class="flag {"on" if finding.flagged else "off"}"><b>{mark}</b>'
            f"<span>Score of malignant {score_text(score)} {sign} {flag.threshold:.2f}. "
            f"On {flag.scans} validation scans this cut-off flagged {flag.sensitivity:.0%} of the malignant ones "
            f"and left {flag.specificity:.0%} of the others alone.</span></div>"
        )
    if report is not None:
        band = report.band_of(score)
        said = (
            f"Of the {report.scans} test scans, {band.scans} were scored like this "
            f"(malignant {band.low:.2f}–{band.high:.2f}): <b>{band.malignant} of {band.scans} were malignant</b>."
            if band.scans
            else f"None of the {report.scans} test scans was scored like this."
        )
        lines.append(f'<div class="fine">{said}</div>')
    st.html("".join(lines) or "<span></span>")


def _lesion_block(analysis: Analysis, finding: Finding) -> str:
    image, size = analysis.image, finding.size
    if size is None:
        return f'<div class="label">Lesion</div><div class="size">none at cut-off {finding.threshold:.2f}</div>'
    share = finding.lesion_pixels / (image.height * image.width)
    unit = finding.unit
    digits = 1 if unit == "mm" else 0
    several = ""
    if size.regions > 1:
        several = (
            f'<div class="fine">{size.regions} separate regions; the largest is measured. '
            f"The class is of the whole image, not of one region.</div>"
        )
    uncalibrated = (
        "" if unit == "mm" else '<div class="fine">In pixels: the file does not say how large a pixel is.</div>'
    )
    return (
        f'<div class="label">Lesion, longest diameter × perpendicular</div>'
        f'<div class="size">{size.longest:.{digits}f} × {size.perpendicular:.{digits}f} {unit}</div>'
        f'<div class="fine">{share:.1%} of the image, cut-off {finding.threshold:.2f}</div>{uncalibrated}{several}'
    )


def _show_downloads(
    analysis: Analysis,
    finding: Finding,
    *,
    name: str,
    scan_id: str,
    position: str,
    simulated: bool,
    taught: bool,
    subjects: dict[str, str],
) -> None:
    stem = f"{safe_stem(name)} - {position}"
    title = f"{name}   {position}{'   SIMULATED' if simulated else ''}"
    below = f"{analysis.model_version}, cut-off {finding.threshold:.2f}. {RESEARCH_USE}"
    overlay = caption(draw_mask(analysis.image.rgb, finding.lesion_mask), (title, below))
    record = reading_json(analysis, finding, file=name, taught=taught, position=position)
    subject = typed_subject(scan_id, subjects)

    def make_report() -> bytes:
        report = single_report(
            analysis, finding, name=name, position=position, simulated=simulated, taught=taught, subject=subject
        )
        return draw_report(report)

    contents: tuple[bytes | Callable[[], bytes], ...] = (
        mask_png(finding.lesion_mask),
        encode_png(overlay),
        record,
        make_report,
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(label("Download"))
        ask_subject(scan_id, subjects)
    with st.container(horizontal=True, gap="small"):
        for text, content, file_name, kind in zip(
            ("Mask", "Overlay", "JSON", "Report (PDF)"),
            contents,
            (f"{stem} - mask.png", f"{stem} - overlay.png", f"{stem}.json", f"{stem}.pdf"),
            ("image/png", "image/png", "application/json", "application/pdf"),
            strict=True,
        ):
            st.download_button(text, content, file_name, kind, key=f"download-{text.lower()}", on_click="ignore")


def ask_subject(scan_id: str, subjects: dict[str, str]) -> None:
    """What stands on this scan's report as its name; nothing unless typed in, and never on another scan's."""
    typed, key = typed_subject(scan_id, subjects), _subject_key(scan_id)
    if key not in st.session_state:  # Streamlit forgets a field that was not on screen
        st.session_state[key] = typed
    with st.popover(f"On the report: {plain(typed)}" if typed else "Name on the report", type="tertiary"):
        subjects[scan_id] = st.text_input(
            "Name or number", key=key, max_chars=MAX_SUBJECT, placeholder="nothing unless typed in"
        )


def typed_subject(scan_id: str, subjects: dict[str, str]) -> str:
    """What the reader typed in as the name on the report of this scan."""
    return str(st.session_state.get(_subject_key(scan_id), subjects.get(scan_id, "")))


def _subject_key(scan_id: str) -> str:
    return f"report-subject-{scan_id}"


def single_report(
    analysis: Analysis,
    finding: Finding,
    *,
    name: str,
    position: str,
    simulated: bool,
    taught: bool,
    subject: str,
    truth: Truth | None = None,
    reference: Mask | None = None,
) -> Report:
    """One reading as a report; its pictures are drawn when the file is asked for.

    Args:
        analysis: What the model said.
        finding: The same at the cut-off the reader chose.
        name: The file's name.
        position: As in '3 of 12'.
        simulated: The scan was made by the phantom.
        taught: It, or a copy of it, taught the version that read it.
        subject: What the reader typed in; empty when nothing.
        truth: How the reading compares with its reference; None where nothing is known.
        reference: (height, width) bool, the reference mask; None where there is none.
    """
    diagnosis = analysis.prediction.diagnosis
    explains = diagnosis.value if diagnosis else LESION
    image = analysis.image

    def draw() -> ReportPictures:
        evidence = upsample(analysis.heatmaps[explains].evidence, image.height, image.width)
        return ReportPictures(image.rgb, finding.lesion_mask, reference, evidence, explains)

    record = reading_record(analysis, finding, file=name, taught=taught, position=position) | {"simulated": simulated}
    if truth is not None:
        record["truth"] = truth.record()
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return Report([ReportScan(record, draw)], analysis.model_version, created, subject.strip())


def score_text(score: float) -> str:
    """A score in words, as HTML."""
    return escape(score_words(score))


def safe_stem(name: str) -> str:
    """A file name's stem that is safe on every system: letters, digits and a few signs, at most 80 characters."""
    stem = name.rsplit(".", 1)[0] if "." in name else name
    kept = "".join(c if c.isalnum() or c in " ()-_" else "_" for c in stem).strip()
    return kept[:80] or "scan"
