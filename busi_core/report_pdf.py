"""A report as PDF, by reportlab: A4, one scan a page or two, drawn from the same record as the JSON.

    Report --draw_report--> PDF bytes

Every page carries the research notice, the model version and its number. Names are escaped: nothing in a file name
can become markup, and what the font cannot show is written as its code point, as in [U+4E2D].
"""

import importlib.util
import io
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import cv2
import numpy as np
from reportlab import rl_config
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph

from busi_core.errors import BusiError
from busi_core.imaging.overlay import draw_heatmap, draw_mask
from busi_core.report import RESEARCH_USE, Report, ReportPictures, ReportScan, Summary
from busi_core.types import Diagnosis, ImageWarning, Mask, Rgb

MAX_PICTURED = 300  # scans drawn with pictures, 60 KB each; of a larger set the rest stand in its table
DOTS_PER_MM = 8  # of a picture in the file: 200 an inch
PICTURE_QUALITY = 82  # JPEG
WIDTH, HEIGHT = A4
MARGIN = 15 * mm
INNER = WIDTH - 2 * MARGIN
TOP = HEIGHT - 26 * mm
BOTTOM = 18 * mm
GAP = 4 * mm
INK, FAINT, LINE, PALE = (HexColor(colour) for colour in ("#1f2328", "#59636e", "#d1d9e0", "#f6f8fa"))
CLASS_INK = {
    "normal": HexColor("#59636e"),
    "benign": HexColor("#0969da"),
    "malignant": HexColor("#cf222e"),
}
AGREED_RGB, MISSED_RGB, EXTRA_RGB = (100, 143, 255), (255, 176, 0), (220, 38, 127)  # as the Compare page's viewer
DIFFERENCE_OPACITY = 0.55
HEAT_CUTOFF = 0.3  # evidence below it is mostly the map's floor; as the viewer's
FIGURES_OF_SCAN = (("Dice", "dice"), ("IoU", "iou"), ("precision", "precision"), ("recall", "recall"))

Caption: TypeAlias = tuple[tuple[str, str], ...]  # words, each with its colour

_registering = threading.Lock()


def draw_report(report: Report) -> bytes:
    """Draw a report.

    Args:
        report: One scan is drawn large on a page of its own; several follow a summary and a table, two a page.
    """
    buffer = io.BytesIO()
    canvas = _NumberedCanvas(buffer, report)
    if len(report.scans) == 1:
        _draw_single(canvas, report.scans[0])
    else:
        _draw_overview(canvas, report)
        _draw_pairs(canvas, report.scans[:MAX_PICTURED])
    canvas.finish()
    return buffer.getvalue()


class _NumberedCanvas(Canvas):  # type: ignore[misc]
    """A canvas that writes head and foot when the number of pages is known, and knows how far down it is."""

    def __init__(self, buffer: io.BytesIO, report: Report) -> None:
        super().__init__(buffer, pagesize=A4, pageCompression=1, invariant=1)
        self._report = report
        self._pages: list[dict[str, Any]] = []
        self.regular, self.bold = _fonts()
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
            shown = _fit(f"Typed in by the reader: {printable(self._report.subject)}", self.regular, 8, INNER)
            self.drawString(MARGIN, HEIGHT - 22 * mm, shown)

    def text(
        self, words: str, x: float, width: float, *, size: float = 9, colour: Any = INK, bold: bool = False
    ) -> None:
        """A paragraph of plain text at x, below what was drawn last."""
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
        paragraph.drawOn(self, x, self.y - height)
        self.y -= height + 0.8 * mm

    def picture(self, rgb: Rgb, caption: Caption, x: float, top: float, width: float, height: float) -> None:
        """A picture fitted into a box with its caption, words and their colours, above."""
        self.setFont(self.regular, 7.5)
        end = x
        for words, colour in caption:
            self.setFillColor(HexColor(colour))
            shown = _fit(printable(words), self.regular, 7.5, x + width - end)
            self.drawString(end, top - 3 * mm, shown)
            end += pdfmetrics.stringWidth(shown, self.regular, 7.5) + 1.5 * mm
        top, height = top - 4 * mm, height - 4 * mm
        self.setFillColor(HexColor("#000000"))
        self.rect(x, top - height, width, height, stroke=0, fill=1)
        scale = min(width / rgb.shape[1], height / rgb.shape[0])
        wide, high = rgb.shape[1] * scale, rgb.shape[0] * scale
        self.drawImage(
            _jpeg(rgb, max(wide, high) / mm * DOTS_PER_MM),
            x + (width - wide) / 2,
            top - (height + high) / 2,
            wide,
            high,
        )


def _draw_single(canvas: _NumberedCanvas, scan: ReportScan) -> None:
    _draw_title(canvas, scan.record, 12)
    drawn = _try_draw(canvas, scan)
    if drawn is not None:
        shown = _captioned(drawn)
        width, height = (INNER - GAP) / 2, 72 * mm
        for start in range(0, len(shown), 2):
            for column, (rgb, caption) in enumerate(shown[start : start + 2]):
                canvas.picture(rgb, caption, MARGIN + column * (width + GAP), canvas.y, width, height)
            canvas.y -= height + 3 * mm
    _draw_facts(canvas, scan.record)


def _draw_pairs(canvas: _NumberedCanvas, scans: Sequence[ReportScan]) -> None:
    half = (TOP - BOTTOM) / 2
    upper = True
    for scan in scans:
        if "problem" in scan.record:
            continue  # it has its row in the table, and no picture
        if upper:
            canvas.next_page()
        canvas.y = TOP if upper else TOP - half
        _draw_title(canvas, scan.record, 10)
        drawn = _try_draw(canvas, scan)
        if drawn is not None:
            shown = _captioned(drawn)
            width = (INNER - (len(shown) - 1) * 2 * mm) / len(shown)
            height = 4 * mm + min(52 * mm, width * 0.9)
            for column, (rgb, caption) in enumerate(shown):
                canvas.picture(rgb, caption, MARGIN + column * (width + 2 * mm), canvas.y, width, height)
            canvas.y -= height + 2 * mm
        _draw_facts(canvas, scan.record)
        upper = not upper


def _draw_title(canvas: _NumberedCanvas, record: Mapping[str, Any], size: float) -> None:
    simulated = "   SIMULATED" if record.get("simulated") else ""
    position = f"   ({record['position']})" if "position" in record else ""
    canvas.text(f"{_shorten(record['file'])}{position}{simulated}", MARGIN, INNER, size=size, bold=True)


def _try_draw(canvas: _NumberedCanvas, scan: ReportScan) -> ReportPictures | None:
    try:
        return scan.draw()
    except BusiError as error:
        canvas.text(f"Its pictures cannot be drawn: {error.problem} {error.remedy}", MARGIN, INNER, colour=FAINT)
        return None


def _draw_facts(canvas: _NumberedCanvas, record: Mapping[str, Any]) -> None:
    """What was found, on the left, and the reference and the warnings, on the right."""
    if "problem" in record:
        canvas.text(f"Not read. {record['problem']}", MARGIN, INNER, colour=CLASS_INK["malignant"])
        return
    width, top = (INNER - 8 * mm) / 2, canvas.y
    _draw_class(canvas, record, MARGIN, width)
    for line in _finding_lines(record):
        canvas.text(line, MARGIN, width, size=8.5)
    left_end, canvas.y = canvas.y, top
    x = MARGIN + width + 8 * mm
    for line in truth_lines(record):
        canvas.text(line, x, width, size=8.5)
    for warning in record["warnings"]:
        canvas.text(f"Warning: {warning}.", x, width, size=8.5, colour=CLASS_INK["malignant"])
    if record["disagreement"]:
        canvas.text(f"Findings disagree. {record['disagreement']}", x, width, size=8.5, bold=True)
    canvas.text(f"Model {record['model']}", x, width, size=7.5, colour=FAINT)
    canvas.y = min(left_end, canvas.y)


def _draw_class(canvas: _NumberedCanvas, record: Mapping[str, Any], x: float, width: float) -> None:
    if ImageWarning.NO_CONTRAST.value in record["warnings"]:
        canvas.text("No contrast in the image: the class is not shown.", x, width)
        return
    if not record["probabilities"]:
        canvas.text("This model gives no class.", x, width)
        return
    canvas.text(
        f"Class of the image: {record['class']}", x, width, size=11, bold=True, colour=CLASS_INK[record["class"]]
    )
    for diagnosis in Diagnosis:
        score = float(record["probabilities"][diagnosis.value])
        canvas.y -= 4 * mm
        canvas.setFont(canvas.regular, 8.5)
        canvas.setFillColor(INK)
        canvas.drawString(x, canvas.y, diagnosis.value)
        canvas.drawRightString(x + width, canvas.y, _score(score))
        canvas.setFillColor(LINE)
        canvas.rect(x + 20 * mm, canvas.y, width - 30 * mm, 2 * mm, stroke=0, fill=1)
        canvas.setFillColor(CLASS_INK[diagnosis.value])
        canvas.rect(x + 20 * mm, canvas.y, (width - 30 * mm) * score, 2 * mm, stroke=0, fill=1)
    canvas.y -= 2 * mm


def _finding_lines(record: Mapping[str, Any]) -> Iterator[str]:
    if record["flagged"] is not None:
        said = "Flagged" if record["flagged"] else "Not flagged"
        yield f"{said} for malignancy (flag from a score of {record['malignancy_threshold']:.2f})."
    size = record["size"]
    share = record["lesion_pixels"] / (record["width"] * record["height"])
    if size is None:
        yield f"No lesion at cut-off {record['threshold']:.2f}."
    else:
        digits = 1 if size["unit"] == "mm" else 0
        yield (
            f"Lesion {size['longest']:.{digits}f} x {size['perpendicular']:.{digits}f} {size['unit']} "
            f"(longest diameter x perpendicular), {share:.1%} of the image, cut-off {record['threshold']:.2f}."
        )
        if record["regions"] > 1:
            yield f"{record['regions']} separate regions; the largest is measured."
    frame = f", frame {record['frame'] + 1} of {record['frames']}" if record["frames"] > 1 else ""
    yield f"Scan of {record['width']} x {record['height']} pixels{frame}."


def truth_lines(record: Mapping[str, Any]) -> list[str]:
    """The reference and how the reading compares with it, in words; empty where nothing is known."""
    truth = record.get("truth")
    if truth is None:
        return []
    lines = []
    if truth["class"]:
        agrees = "" if record["class"] is None else (" (agrees)" if truth["class"] == record["class"] else " (differs)")
        lines.append(f"Reference class: {truth['class']}{agrees}.")
    if truth["problem"]:
        lines.append(f"Reference mask: {truth['problem']}")
    elif truth["lesion_pixels"] == 0:
        outlined = (
            f"{record['lesion_pixels']} pixels were outlined." if record["lesion_pixels"] else "None was outlined."
        )
        lines.append(f"No lesion in the reference. {outlined} Dice n/a.")
    else:
        figures = ", ".join(f"{name} {_figure(truth[key], 3)}" for name, key in FIGURES_OF_SCAN)
        lines.append(f"Against the reference: {figures}, HD95 {_figure(truth['hd95_px'], 1)} px.")
    lines += truth["notes"]
    if truth["taught_the_model"]:
        lines.append("By its name, this scan taught the model: the figures say nothing about new scans.")
    return lines


def _draw_overview(canvas: _NumberedCanvas, report: Report) -> None:
    read = [scan for scan in report.scans if "problem" not in scan.record]
    canvas.text(f"{len(report.scans)} scans", MARGIN, INNER, size=15, bold=True)
    by_class = {d.value: sum(scan.record["class"] == d.value for scan in read) for d in Diagnosis}
    flagged = sum(bool(scan.record["flagged"]) for scan in read)
    classes = ", ".join(f"{count} read as {name}" for name, count in by_class.items())
    canvas.text(
        f"{classes}; {flagged} flagged for malignancy; {len(report.scans) - len(read)} could not be read.",
        MARGIN,
        INNER,
    )
    for summary in report.summaries:
        _draw_summary(canvas, summary)
    canvas.y -= 3 * mm
    if len(report.scans) > MAX_PICTURED:
        canvas.text(f"Pictures follow for the first {MAX_PICTURED} scans; the table holds all.", MARGIN, INNER)
    _draw_table(canvas, report.scans)


def _draw_summary(canvas: _NumberedCanvas, summary: Summary) -> None:
    needed = (len(summary.figures) * 4.6 + 30) * mm
    if canvas.y - needed < BOTTOM:
        canvas.next_page()
    canvas.y -= 3 * mm
    canvas.text(summary.title, MARGIN, INNER, size=11, bold=True)
    counts = ", ".join(f"{count} {name}" for name, count in summary.counts.items())
    canvas.text(
        f"{summary.scans} scans, {summary.distinct} distinct ({counts}).", MARGIN, INNER, size=8.5, colour=FAINT
    )
    if summary.caution:
        canvas.text(summary.caution, MARGIN, INNER, size=8.5, colour=CLASS_INK["malignant"])
    rows = [("figure", "value [95 % interval]", "scans"), *((f.name, str(f), str(f.scans)) for f in summary.figures)]
    for number, row in enumerate(rows):
        _draw_row(canvas, row, (80 * mm, 60 * mm, 20 * mm), number)


def _draw_table(canvas: _NumberedCanvas, scans: Sequence[ReportScan]) -> None:
    widths = (82 * mm, 22 * mm, 20 * mm, 16 * mm, 22 * mm, 18 * mm)
    head = ("file", "class", "malignant", "lesion", "reference", "Dice")
    _draw_row(canvas, head, widths, 0)
    for number, scan in enumerate(scans, start=1):
        if canvas.y - 5 * mm < BOTTOM:
            canvas.next_page()
            _draw_row(canvas, head, widths, 0)
        _draw_row(canvas, _table_cells(scan.record), widths, number)
    refused = [scan.record for scan in scans if "problem" in scan.record]
    canvas.y -= 5 * mm
    for record in refused:
        if canvas.y - 12 * mm < BOTTOM:
            canvas.next_page()
        canvas.text(f"Not read: {_shorten(record['file'])}. {record['problem']}", MARGIN, INNER, size=8)


def _table_cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    if "problem" in record:
        return record["file"], "not read", "n/a", "n/a", "", "n/a"
    scores, truth = record["probabilities"], record.get("truth") or {}
    share = record["lesion_pixels"] / (record["width"] * record["height"])
    return (
        record["file"],
        record["class"] or "none",
        _score(scores["malignant"]) if scores else "n/a",
        f"{share:.1%}",
        truth.get("class") or "",
        _figure(truth.get("dice"), 3),
    )


def _draw_row(canvas: _NumberedCanvas, cells: Sequence[str], widths: Sequence[float], number: int) -> None:
    canvas.y -= 4.6 * mm
    if number % 2 == 0:
        canvas.setFillColor(PALE)
        canvas.rect(MARGIN, canvas.y - 1.3 * mm, sum(widths), 4.6 * mm, stroke=0, fill=1)
    font, x = (canvas.bold if number == 0 else canvas.regular), MARGIN + 1 * mm
    canvas.setFont(font, 8)
    canvas.setFillColor(INK)
    for cell, width in zip(cells, widths, strict=True):
        canvas.drawString(x, canvas.y, _fit(printable(cell), font, 8, width - 2 * mm))
        x += width


def _captioned(drawn: ReportPictures) -> list[tuple[Rgb, Caption]]:
    faint = "#59636e"
    pictures: list[tuple[Rgb, Caption]] = [
        (drawn.rgb, (("scan", faint),)),
        (draw_mask(drawn.rgb, drawn.mask), (("lesion by the model", faint),)),
        (
            draw_heatmap(drawn.rgb, np.where(drawn.evidence >= HEAT_CUTOFF, drawn.evidence, np.float32(0))),
            ((f"heat map of {drawn.explains}", faint),),
        ),
    ]
    if drawn.truth is not None:
        difference = draw_difference(drawn.rgb, drawn.mask, drawn.truth)
        pictures.append((difference, (("agreed", "#3d6fe0"), ("missed", "#b37b00"), ("extra", "#dc267f"))))
    return pictures


def draw_difference(rgb: Rgb, mask: Mask, truth: Mask) -> Rgb:
    """The scan with what both masks, only the truth and only the model call lesion, in three colours."""
    drawn = rgb.astype(np.float32)
    for part, colour in ((mask & truth, AGREED_RGB), (truth & ~mask, MISSED_RGB), (mask & ~truth, EXTRA_RGB)):
        drawn[part] = drawn[part] * (1 - DIFFERENCE_OPACITY) + np.array(colour, np.float32) * DIFFERENCE_OPACITY
    return np.rint(drawn).astype(np.uint8)


def _jpeg(rgb: Rgb, side_px: float) -> ImageReader:
    scale = min(1.0, side_px / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return ImageReader(io.BytesIO(encoded.tobytes()))


def printable(text: str) -> str:
    """Text that the report's font can show: other characters, and those that steer text, as their code points.

    Runs written from right to left are turned round, as reportlab draws in the order it is given.
    """
    glyphs = _glyphs()
    shown: list[str] = []
    for character in text:
        steers = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        if steers or ord(character) not in glyphs:
            shown.append(f"[U+{ord(character):04X}]")
        else:
            shown.append(character)
    return _turn_round("".join(shown))


def _turn_round(text: str) -> str:
    """Reverse each run of right-to-left letters with the spaces between them, so that it reads right on paper."""
    turned: list[str] = []
    run: list[str] = []
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("R", "AL", "NSM") or (run and direction in ("WS", "CS")):
            run.append(character)
            continue
        turned += [*_reversed_run(run), character]
        run = []
    return "".join(turned + _reversed_run(run))


def _reversed_run(run: list[str]) -> list[str]:
    end = max((i for i, c in enumerate(run, start=1) if unicodedata.bidirectional(c) not in ("WS", "CS")), default=0)
    return [*reversed(run[:end]), *run[end:]]


def _shorten(name: str) -> str:
    return name if len(name) <= 400 else f"{name[:390]} ... {name[-6:]}"


def _fit(text: str, font: str, size: float, width: float) -> str:
    """Cut a line in the middle until it fits: both ends of a file name matter."""
    if pdfmetrics.stringWidth(text, font, size) <= width:
        return text
    kept = min(len(text), int(width / size * 3))
    while kept > 4:
        kept -= 1
        cut = f"{text[: kept - kept // 2]}...{text[-(kept // 2) :]}"
        if pdfmetrics.stringWidth(cut, font, size) <= width:
            return cut
    return ""


def _score(score: float) -> str:
    """A score in two digits, never rounded to certainty."""
    return "< 0.01" if score < 0.01 else "> 0.99" if score > 0.99 else f"{score:.2f}"


def _figure(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


@cache
def _font_files() -> tuple[Path, Path]:
    """DejaVu Sans (Latin, Greek, Cyrillic, Hebrew, Arabic) of matplotlib, else reportlab's own Vera (Latin)."""
    for package, folder, names in (
        ("matplotlib", "mpl-data/fonts/ttf", ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")),
        ("reportlab", "fonts", ("Vera.ttf", "VeraBd.ttf")),
    ):
        found = importlib.util.find_spec(package)  # finds matplotlib without loading it
        if found is None or found.origin is None:
            continue
        regular, bold = (Path(found.origin).parent / folder / name for name in names)
        if regular.is_file() and bold.is_file():
            return regular, bold
    raise RuntimeError("reportlab lacks its own fonts; install it again")


def _fonts() -> tuple[str, str]:
    """Names of the regular and the bold face, registered once."""
    with _registering:
        rl_config.useA85 = 0  # pictures as bytes: as text they are a quarter larger
        for name, file in zip(("Report", "Report-Bold"), _font_files(), strict=True):
            if name not in pdfmetrics.getRegisteredFontNames():
                pdfmetrics.registerFont(TTFont(name, str(file)))
    return "Report", "Report-Bold"


@cache
def _glyphs() -> frozenset[int]:
    """Code points that both faces can show."""
    return frozenset.intersection(*(frozenset(pdfmetrics.getFont(name).face.charToGlyph) for name in _fonts()))
