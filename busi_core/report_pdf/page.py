"""A4 pages with head, foot and numbers, and what is written on them from the top down."""

import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph

from busi_core.report import RESEARCH_USE, Report
from busi_core.report_pdf.fonts import fit, printable, register_fonts
from busi_core.report_pdf.pictures import Caption, pack_jpeg
from busi_core.types import Rgb

DOTS_PER_MM = 8  # of a picture in the file: 200 an inch
WIDTH, HEIGHT = A4
MARGIN = 15 * mm
INNER = WIDTH - 2 * MARGIN
TOP = HEIGHT - 26 * mm
BOTTOM = 18 * mm
GAP = 4 * mm
PARAGRAPH_GAP: float = 0.8 * mm
INK, FAINT, LINE, PALE = (HexColor(colour) for colour in ("#1f2328", "#59636e", "#d1d9e0", "#f6f8fa"))
CLASS_INK = {
    "normal": HexColor("#59636e"),
    "benign": HexColor("#0969da"),
    "malignant": HexColor("#cf222e"),
}


class Pages(Canvas):  # type: ignore[misc]
    """A canvas that writes head and foot when the number of pages is known, and knows how far down it is."""

    def __init__(self, buffer: io.BytesIO, report: Report) -> None:
        super().__init__(buffer, pagesize=A4, pageCompression=1, invariant=1)
        self._report = report
        self._pages: list[dict[str, Any]] = []
        self.regular, self.bold = register_fonts()
        self.setTitle("Breast ultrasound reading")
        self.setSubject(RESEARCH_USE)
        self.setCreator(f"BUSI reader, model {report.model_version}")
        self.setAuthor("")
        self.y = TOP

    def next_page(self) -> None:
        """Keep this page for later and begin another."""
        self._pages.append(dict(self.__dict__))
        self._startPage()
        self.y = TOP

    def finish(self) -> None:
        """Write all pages."""
        self._pages.append(dict(self.__dict__))
        for number, state in enumerate(self._pages, start=1):
            self.__dict__.update(state)
            self._draw_frame(number, len(self._pages))
            super().showPage()
        super().save()

    def _draw_frame(self, number: int, pages: int) -> None:
        self.setFillColor(INK)
        self.setFont(self.bold, 12)
        self.drawString(MARGIN, HEIGHT - 15 * mm, "Breast ultrasound reading")
        self.setFillColor(FAINT)
        self.setFont(self.regular, 8)
        self.drawRightString(WIDTH - MARGIN, HEIGHT - 15 * mm, printable(self._report.created))
        self.setStrokeColor(LINE)
        self.line(MARGIN, HEIGHT - 18 * mm, WIDTH - MARGIN, HEIGHT - 18 * mm)
        self.line(MARGIN, 14 * mm, WIDTH - MARGIN, 14 * mm)
        self.setFillColor(CLASS_INK["malignant"])
        self.setFont(self.bold, 8)
        self.drawString(MARGIN, 9.5 * mm, RESEARCH_USE)
        self.setFillColor(FAINT)
        self.setFont(self.regular, 8)
        self.drawCentredString(WIDTH / 2 + 10 * mm, 9.5 * mm, printable(f"Model {self._report.model_version}")[:60])
        self.drawRightString(WIDTH - MARGIN, 9.5 * mm, f"Page {number} of {pages}")
        if self._report.subject:
            self.setFillColor(INK)
            self.setFont(self.regular, 8)
            shown = fit(f"Typed in by the reader: {printable(self._report.subject)}", self.regular, 8, INNER)
            self.drawString(MARGIN, HEIGHT - 22 * mm, shown)

    def text(
        self, words: str, x: float, width: float, *, size: float = 9, colour: Any = INK, bold: bool = False
    ) -> None:
        """A paragraph of plain text at x, below what was drawn last."""
        paragraph, height = self._set(words, width, size, colour, bold)
        paragraph.drawOn(self, x, self.y - height)
        self.y -= height + PARAGRAPH_GAP

    def measure(self, words: str, width: float, *, size: float = 9, bold: bool = False) -> float:
        """How far down `text` would go with this paragraph."""
        _, height = self._set(words, width, size, INK, bold)
        return height + PARAGRAPH_GAP

    def _set(self, words: str, width: float, size: float, colour: Any, bold: bool) -> tuple[Paragraph, float]:
        """The paragraph and its height."""
        style = ParagraphStyle(
            "plain",
            fontName=self.bold if bold else self.regular,
            fontSize=size,
            leading=size * 1.3,
            textColor=colour,
            splitLongWords=1,
            wordWrap=None,
        )
        paragraph = Paragraph(escape(printable(words)), style)
        _, height = paragraph.wrap(width, HEIGHT)
        return paragraph, height

    def picture(self, rgb: Rgb, caption: Caption, x: float, top: float, width: float, height: float) -> None:
        """A picture fitted into a box with its caption, words and their colours, above."""
        self.setFont(self.regular, 7.5)
        end = x
        for words, colour in caption:
            self.setFillColor(HexColor(colour))
            shown = fit(printable(words), self.regular, 7.5, x + width - end)
            self.drawString(end, top - 3 * mm, shown)
            end += pdfmetrics.stringWidth(shown, self.regular, 7.5) + 1.5 * mm
        top, height = top - 4 * mm, height - 4 * mm
        self.setFillColor(HexColor("#000000"))
        self.rect(x, top - height, width, height, stroke=0, fill=1)
        scale = min(width / rgb.shape[1], height / rgb.shape[0])
        wide, high = rgb.shape[1] * scale, rgb.shape[0] * scale
        self.drawImage(
            pack_jpeg(rgb, max(wide, high) / mm * DOTS_PER_MM),
            x + (width - wide) / 2,
            top - (height + high) / 2,
            wide,
            high,
        )

    def row(self, cells: Sequence[str], widths: Sequence[float], number: int) -> None:
        """One line of a table below what was drawn last; number 0 is its head, every second one is shaded."""
        self.y -= 4.6 * mm
        if number % 2 == 0:
            self.setFillColor(PALE)
            self.rect(MARGIN, self.y - 1.3 * mm, sum(widths), 4.6 * mm, stroke=0, fill=1)
        font, x = (self.bold if number == 0 else self.regular), MARGIN + 1 * mm
        self.setFont(font, 8)
        self.setFillColor(INK)
        for cell, width in zip(cells, widths, strict=True):
            self.drawString(x, self.y, fit(printable(cell), font, 8, width - 2 * mm))
            x += width
