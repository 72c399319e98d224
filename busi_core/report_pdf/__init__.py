"""A report as PDF, by reportlab: A4, one scan a page or two, drawn from the same record as the JSON.

    Report --draw_report--> PDF bytes

Every page carries the research notice, the model version and its number. Names are escaped: nothing in a file name
can become markup, and what the font cannot show is written as its code point, as in [U+4E2D].
"""

import io

from busi_core.report import Report
from busi_core.report_pdf.overview import MAX_PICTURED, draw_overview
from busi_core.report_pdf.page import Pages
from busi_core.report_pdf.scan import draw_pairs, draw_single

__all__ = ["MAX_PICTURED", "draw_report"]


def draw_report(report: Report) -> bytes:
    """Draw a report.

    Args:
        report: One scan is drawn large on a page of its own; several follow a summary and a table, two a page.
    """
    buffer = io.BytesIO()
    pages = Pages(buffer, report)
    if len(report.scans) == 1:
        draw_single(pages, report.scans[0], report.worth)
    else:
        draw_overview(pages, report)
        draw_pairs(pages, report.scans[:MAX_PICTURED])
    pages.finish()
    return buffer.getvalue()
