"""The report on a data set, drawn: what is in it, what to beware of, the scans of each finding."""

import math
from html import escape

import streamlit as st

from busi_core import BusiError, Diagnosis
from busi_core.access import Permit
from busi_core.managed.report import Flag, InspectionReport, ScanReport, Weight
from busi_core.managed.summary import MARK_FLAGS, count_classes, count_findings, find_cautions, measure_sizes
from busi_core.metrics.bootstrap import Interval
from pages.components.batch_view import data_url
from pages.components.examination import Examination
from pages.components.page import label, plain, show_error, wide

PER_PAGE = 12
DETECTOR = (
    "How good is this? On 222 scans of BUSI that the search for text and marks was not tuned on it found 27 of the 27 "
    "listed texts and 32 of 33 measuring marks; of 81 scans said to hold text all did, of 33 said to hold marks 32. "
    "It does not see single letters, body-mark drawings and writing darker than its surroundings. Copies are found by "
    "comparing the pixels: all exact ones, and 88 % of those with another crop or other marks (docs/experiments.md)."
)


def show_report(permit: Permit, examination: Examination, report: InspectionReport) -> None:
    """All of it but the decision."""
    for caution in find_cautions(report):
        st.warning(plain(caution), icon=":material/warning:")
    _show_tables(report)
    with st.container(border=True):
        _show_flagged(permit, examination, report)


def _show_tables(report: InspectionReport) -> None:
    left, right = st.columns([3, 2], gap="medium")
    with left:
        st.html(_class_table(report))
        st.html(_size_line(report))
    with right:
        st.html(_finding_table(report))
    st.html(label(DETECTOR, css="fine"))


def _class_table(report: InspectionReport) -> str:
    """Scans by class; the shares of marks stand per distinct scan, with their intervals."""
    heads = "".join(f"<th>{escape(flag.value)}</th>" for flag in MARK_FLAGS)
    rows = "".join(
        f"<tr><td>{row.diagnosis or 'class unknown'}</td><td>{row.scans:,}</td><td>{row.distinct:,}</td>"
        f"<td>{row.usable:,}</td><td>{row.masks:,}</td><td>{row.empty:,}</td>"
        + "".join(f"<td>{_share(share)}</td>" for _, share in row.marked)
        + "</tr>"
        for row in count_classes(report)
    )
    table = (
        "<table class='plain'><thead><tr><th>class</th><th>scans</th><th>distinct</th><th>usable</th>"
        f"<th>mask files</th><th>empty masks</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )
    title = "By class. Shares are of distinct scans, with 95 % intervals"
    return f"{label(title)}{wide(table, title)}"


def _share(share: Interval) -> str:
    if math.isnan(share.estimate):
        return "n/a"
    return f"{share.estimate:.0%} <span class='fine'>({share.low:.0%}-{share.high:.0%})</span>"


def _size_line(report: InspectionReport) -> str:
    sizes = measure_sizes(report)
    parts = []
    if sizes:
        (small, middle, large) = (
            f"{width} x {height}" for width, height in (sizes.smallest, sizes.median, sizes.largest)
        )
        parts.append(f"Sizes in pixels: {small} to {large}, in the median {middle}.")
    compared = ", ".join(f"{name} ({images:,} images)" for name, images in report.compared)
    parts.append(f"Compared with {compared}." if compared else "There is no known set here to compare with.")
    if report.left_out:
        parts.append(f"Left out, no images by their names: {len(report.left_out):,}.")
    return label(" ".join(parts), css="fine")


def _finding_table(report: InspectionReport) -> str:
    found = count_findings(report)
    if not found:
        return '<div class="label">Findings</div><div class="fine">None. Every scan is clean.</div>'
    rows = "".join(
        f"<tr><td>{escape(flag.value)}</td><td>{count:,}</td><td class='{_css(flag)}'>{flag.weight.value}</td></tr>"
        for flag, count in found
    )
    return (
        "<div class='label'>Findings</div><table class='plain wrapped'>"
        f"<thead><tr><th>finding</th><th>scans</th><th>what it means</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _css(flag: Flag) -> str:
    return "missed" if flag.weight in (Weight.NEVER, Weight.RESOLVE, Weight.CONFIRM) else "quiet"


@st.fragment
def _show_flagged(permit: Permit, examination: Examination, report: InspectionReport) -> None:
    """Thumbnails of the scans with one finding, a page at a time."""
    try:
        permit.confirm()  # turning a page runs this alone
    except BusiError as error:
        show_error(error)
        return
    generation = examination.generation
    choices: list[Flag | None] = [flag for flag, _ in count_findings(report)]
    choices.append(None)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        flag = st.selectbox(
            "Scans to look at",
            choices,
            format_func=lambda one: f"{one.value} ({len(report.with_flag(one)):,})" if one else _all(report),
            key=f"dataset-flag-{generation}",
            width=420,
        )
        scans = report.with_flag(flag) if flag else list(report.scans)
        pages = max(1, math.ceil(len(scans) / PER_PAGE))
        page = st.number_input(f"Page of {pages}", 1, pages, key=f"dataset-page-{generation}-{flag}", width=160)
    shown = scans[(int(page) - 1) * PER_PAGE : int(page) * PER_PAGE]
    st.html(f'<div class="contact">{"".join(_tile(examination, scan, flag) for scan in shown)}</div>')
    below = " Below each scan: its text at its own pixels, without the mask." if flag is Flag.TEXT else ""
    st.html(label(f"Drawn: mask in blue, text in amber, measuring marks in red.{below}", css="fine"))


def _all(report: InspectionReport) -> str:
    return f"all scans ({len(report.scans):,})"


def _tile(examination: Examination, scan: ScanReport, flag: Flag | None) -> str:
    picture = examination.picture(scan.id)
    image = f'<img src="{data_url(picture)}" alt="">' if picture else '<div class="no-picture">no picture</div>'
    details = [one.detail for one in scan.findings if one.detail and flag in (None, one.flag)]
    said = f"<span>{escape(' '.join(details))}</span>" if details else ""
    caption = f"<figcaption><b>{escape(scan.name)}</b> {class_name(scan.diagnosis)}{said}</figcaption>"
    return f"<figure>{image}{_texts(examination, scan) if flag is Flag.TEXT else ''}{caption}</figure>"


def _texts(examination: Examination, scan: ScanReport) -> str:
    """What is written in the scan, large enough to be read."""
    cuts = "".join(
        f'<img src="{data_url(text, kind="png")}" alt="Text that is written in this scan, cut out">'
        for text in examination.read_texts(scan.id)
    )
    return f'<div class="texts">{cuts}</div>'


def class_name(diagnosis: Diagnosis | None) -> str:
    """The class in words."""
    return diagnosis.value if diagnosis else "class unknown"
