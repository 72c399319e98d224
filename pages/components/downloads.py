"""What a reader takes along of one scan: mask, overlay, JSON and a report under the name that was typed for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from busi_core import Analysis, Finding
from busi_core.batch import Truth
from busi_core.explain.gradcam import LESION
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.imaging.overlay import caption, draw_mask
from busi_core.imaging.preprocess import upsample
from busi_core.metrics.conformal import USUAL_COVERAGE
from busi_core.report import (
    MAX_SUBJECT,
    RESEARCH_USE,
    TAUGHT,
    Report,
    ReportPictures,
    ReportScan,
    cutoff_words,
    local_time,
    reading_record,
    record_json,
)
from busi_core.report_pdf import draw_report
from busi_core.report_pdf.fonts import font_files, printable
from busi_core.types import ImageWarning, Mask
from pages.components.page import NAME_IN_PIXELS, label, plain


@dataclass(frozen=True)
class ScanOnScreen:
    """What is known of the open scan beside its reading.

    Attributes:
        id: In this session.
        name: Of the file, as given: data.
        position: As in '3 of 12'.
        simulated: It was made by the phantom.
        taught: It, or a copy of it, taught the version that read it.
    """

    id: str
    name: str
    position: str
    simulated: bool
    taught: bool

    def title(self) -> list[str]:
        """What a reader must see of it wherever it is shown."""
        return [self.position, self.name, *(["SIMULATED"] if self.simulated else [])]


def show_downloads(
    analysis: Analysis,
    finding: Finding,
    scan: ScanOnScreen,
    subjects: dict[str, str],
    *,
    coverage: float,
    worth: Sequence[str],
) -> None:
    """Mask, overlay, JSON and report of one reading.

    Args:
        analysis: With the classes that cannot be ruled out at the coverage.
        finding: At the cut-off the reader chose.
        scan: As in `finding_panel.show_finding`.
        subjects: Likewise.
        coverage: That the reader chose.
        worth: What the version's answers were worth on test scans.
    """
    stem = f"{safe_stem(scan.name)} - {scan.position}"
    title = "   ".join(scan.title())
    below = f"{analysis.model_version}, {cutoff_words(finding.threshold, analysis.lesion_threshold)}. {RESEARCH_USE}"
    subject = typed_subject(scan.id, subjects)
    report = single_report(analysis, finding, scan, subject=subject, coverage=coverage, worth=worth)

    def make_overlay() -> bytes:
        said = (title, below, *cautions(analysis, finding, taught=scan.taught))
        picture = draw_mask(analysis.image.rgb, finding.lesion_mask)
        return encode_png(caption(picture, [printable(line) for line in said], font_files()[0]))

    def make_report() -> bytes:
        return draw_report(report)

    contents: tuple[bytes | Callable[[], bytes], ...] = (
        mask_png(finding.lesion_mask),
        make_overlay,
        record_json(report.scans[0].record),
        make_report,
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(label("Download"))
        ask_subject(scan.id, subjects)
    with st.container(horizontal=True, gap="small"):
        for text, content, file_name, kind in zip(
            ("Mask", "Overlay", "JSON", "Report (PDF)"),
            contents,
            (f"{stem} - mask.png", f"{stem} - overlay.png", f"{stem}.json", f"{stem}.pdf"),
            ("image/png", "image/png", "application/json", "application/pdf"),
            strict=True,
        ):
            st.download_button(text, content, file_name, kind, key=f"download-{text.lower()}", on_click="ignore")
    st.html(label(NAME_IN_PIXELS, css="fine"))


def cautions(analysis: Analysis, finding: Finding, *, taught: bool) -> list[str]:
    """What must stand beside the outline wherever it is shown."""
    said = [one.sentence for one in (ImageWarning.INSISTED, ImageWarning.UNLIKE) if one in analysis.warnings]
    said += [TAUGHT] if taught else []
    return said + ([f"Findings disagree. {finding.disagreement}"] if finding.disagreement else [])


def ask_subject(scan_id: str, subjects: dict[str, str]) -> None:
    """What stands on this scan's report as its name; nothing unless typed in, and never on another scan's.

    The field is told its text in every run: a browser that opens the popover later takes it from there, and reports it.
    """
    typed = typed_subject(scan_id, subjects)
    with st.popover(f"On the report: {plain(typed)}" if typed else "Name on the report", type="tertiary"):
        subjects[scan_id] = st.text_input(
            "Name or number",
            typed,
            key=_subject_key(scan_id),
            max_chars=MAX_SUBJECT,
            placeholder="nothing unless typed in",
        )


def typed_subject(scan_id: str, subjects: dict[str, str]) -> str:
    """What the reader typed in as the name on the report of this scan."""
    return str(st.session_state.get(_subject_key(scan_id), subjects.get(scan_id, "")))


def _subject_key(scan_id: str) -> str:
    return f"report-subject-{scan_id}"


def single_report(
    analysis: Analysis,
    finding: Finding,
    scan: ScanOnScreen,
    *,
    subject: str,
    truth: Truth | None = None,
    reference: Mask | None = None,
    coverage: float = USUAL_COVERAGE,
    worth: Sequence[str] = (),
) -> Report:
    """One reading as a report; its pictures are drawn when the file is asked for.

    Args:
        analysis: What the model said.
        finding: The same at the cut-off the reader chose.
        scan: Whose reading it is.
        subject: What the reader typed in; empty when nothing.
        truth: How the reading compares with its reference; None where nothing is known.
        reference: (height, width) bool, the reference mask; None where there is none.
        coverage: Of the classes that cannot be ruled out.
        worth: What the version's answers were worth on test scans.
    """
    diagnosis = analysis.prediction.diagnosis
    explains = diagnosis.value if diagnosis else LESION
    image = analysis.image

    def draw() -> ReportPictures:
        evidence = upsample(analysis.heatmaps[explains].evidence, image.height, image.width)
        return ReportPictures(image.rgb, finding.lesion_mask, reference, evidence, explains)

    record = reading_record(
        analysis,
        finding,
        file=scan.name,
        taught=scan.taught,
        position=scan.position,
        coverage=coverage,
        simulated=scan.simulated,
    )
    if truth is not None:
        record["truth"] = truth.record()
    return Report([ReportScan(record, draw)], analysis.model_version, local_time(), subject.strip(), worth=worth)


def safe_stem(name: str) -> str:
    """`safe_name` of a file name without its suffix."""
    return safe_name(name.rsplit(".", 1)[0] if "." in name else name)


def safe_name(text: str) -> str:
    """A name that is safe on every system: letters, digits and a few signs, at most 80 characters."""
    kept = "".join(c if c.isalnum() or c in " ()-_" else "_" for c in text).strip()
    return kept[:80] or "scan"
