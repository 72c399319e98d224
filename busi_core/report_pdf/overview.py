"""The first pages of a report of many scans: counts, figures with their intervals, and a row for each scan."""

from collections.abc import Mapping, Sequence
from typing import Any

from reportlab.lib.units import mm

from busi_core.report import Report, ReportScan, Summary, score_figure
from busi_core.report_pdf.page import BOTTOM, CLASS_INK, FAINT, INNER, MARGIN, Pages
from busi_core.report_pdf.scan import draw_worth, figure_words, shorten
from busi_core.types import Diagnosis

MAX_PICTURED = 300  # scans drawn with pictures, 60 KB each; of a larger set the rest stand in its table


def draw_overview(pages: Pages, report: Report) -> None:
    """Counts, figures and the table."""
    read = [scan for scan in report.scans if "problem" not in scan.record]
    pages.text(f"{len(report.scans)} scans", MARGIN, INNER, size=15, bold=True)
    by_class = {d.value: sum(scan.record["class"] == d.value for scan in read) for d in Diagnosis}
    flagged = sum(bool(scan.record["flagged"]) for scan in read)
    withheld = sum(scan.record["lesion_pixels"] is None for scan in read)
    classes = ", ".join(f"{count} read as {name}" for name, count in by_class.items())
    unanswered = f"{withheld} without an answer; " if withheld else ""
    copies = sum("same_pixels_as" in scan.record for scan in read)
    repeated = f" {copies} with the same pixels as another file." if copies else ""
    simulated = sum(scan.record["simulated"] for scan in read)
    made_up = f" {simulated} SIMULATED: figures of them say nothing about patients." if simulated else ""
    pages.text(
        f"{classes}; {flagged} flagged for malignancy; {unanswered}{len(report.scans) - len(read)} could not be read."
        f"{repeated}{made_up}",
        MARGIN,
        INNER,
    )
    for summary in report.summaries:
        _draw_summary(pages, summary)
    draw_worth(pages, report.worth)
    pages.y -= 3 * mm
    if len(report.scans) > MAX_PICTURED:
        pages.text(f"Pictures follow for the first {MAX_PICTURED} scans; the table holds all.", MARGIN, INNER)
    _draw_table(pages, report.scans)


def _draw_summary(pages: Pages, summary: Summary) -> None:
    needed = (len(summary.figures) * 4.6 + 30 + (0 if summary.confusion is None else 4 * 4.6 + 2)) * mm
    if pages.y - needed < BOTTOM:
        pages.next_page()
    pages.y -= 3 * mm
    pages.text(summary.title, MARGIN, INNER, size=11, bold=True)
    counts = ", ".join(f"{count} {name}" for name, count in summary.counts.items())
    pages.text(f"{summary.scans} scans, {summary.distinct} distinct ({counts}).", MARGIN, INNER, size=8.5, colour=FAINT)
    if summary.caution:
        ink = CLASS_INK["malignant"] if summary.taught else FAINT
        pages.text(summary.caution, MARGIN, INNER, size=8.5, colour=ink)
    rows = [("figure", "value [95 % interval]", "scans"), *((f.name, str(f), str(f.scans)) for f in summary.figures)]
    for number, row in enumerate(rows):
        pages.row(row, (80 * mm, 60 * mm, 20 * mm), number)
    if summary.confusion is not None:
        _draw_confusion(pages, summary.confusion)


def _draw_confusion(pages: Pages, confusion: Sequence[Sequence[int]]) -> None:
    """Rows are what the reference says, columns what the model read."""
    pages.y -= 2 * mm
    head = ("reference, read as", *(d.value for d in Diagnosis))
    rows = [head, *((d.value, *map(str, line)) for d, line in zip(Diagnosis, confusion, strict=True))]
    for number, row in enumerate(rows):
        pages.row(row, (80 * mm, *(20 * mm,) * 3), number)


def _draw_table(pages: Pages, scans: Sequence[ReportScan]) -> None:
    widths = (72 * mm, 22 * mm, 20 * mm, 12 * mm, 16 * mm, 22 * mm, 16 * mm)
    head = ("file", "class", "malignant", "flag", "lesion", "reference", "Dice")
    pages.row(head, widths, 0)
    for number, scan in enumerate(scans, start=1):
        if pages.y - 5 * mm < BOTTOM:
            pages.next_page()
            pages.row(head, widths, 0)
        pages.row(_table_cells(scan.record), widths, number)
    refused = [scan.record for scan in scans if "problem" in scan.record]
    pages.y -= 5 * mm
    for record in refused:
        if pages.y - 12 * mm < BOTTOM:
            pages.next_page()
        pages.text(f"Not read: {shorten(record['file'])}. {record['problem']}", MARGIN, INNER, size=8)


def _table_cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    if "problem" in record:
        return record["file"], "not read", "n/a", "", "n/a", "", "n/a"
    scores, truth = record["probabilities"], record.get("truth") or {}
    pixels = record["lesion_pixels"]  # None of an answer withheld
    return (
        record["file"],
        record["class"] or ("no answer" if pixels is None else "none"),
        score_figure(scores["malignant"], record["malignancy_threshold"]) if scores else "n/a",
        "yes" if record["flagged"] else "",
        "n/a" if pixels is None else f"{pixels / (record['width'] * record['height']):.1%}",
        truth.get("class") or "",
        figure_words(truth.get("dice"), 3),
    )
