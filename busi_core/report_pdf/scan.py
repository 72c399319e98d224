"""One scan on paper: its pictures, what was found, the reference, the warnings.

Notes on the mask can be as many as there are mask files: those for which there is no room are counted, so that the
warnings, the disagreement and the model always stand on the page.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from reportlab.lib.units import mm

from busi_core.errors import BusiError
from busi_core.findings import NOT_IN_ONE_REGION
from busi_core.metrics.conformal import USUAL_COVERAGE
from busi_core.report import TAUGHT, ReportPictures, ReportScan, cutoff_words, score_beside, score_words
from busi_core.report_pdf.page import BOTTOM, CLASS_INK, FAINT, GAP, INK, INNER, LINE, MARGIN, TOP, Pages
from busi_core.report_pdf.pictures import caption_pictures
from busi_core.types import Diagnosis, ImageWarning

SMALL, SMALL_HIGH = 57 * mm, 54 * mm  # of a picture where two scans share a page, its caption included
PICTURES_HIGH: float = 2 * SMALL_HIGH + 2 * mm  # two rows of them
NARROW = INNER - 2 * SMALL - 2 * mm - GAP  # what is left beside these pictures
BETWEEN: float = 2 * mm  # what was found and the reference, in the narrow column
CLASS_HIGH: float = 25 * mm  # of the class with its three bars, its words on two lines
FIGURES_OF_SCAN = (("Dice", "dice"), ("IoU", "iou"), ("precision", "precision"), ("recall", "recall"))


class Line(NamedTuple):
    """A paragraph of the facts, and how it is set."""

    words: str
    size: float = 8.5
    colour: Any = INK
    bold: bool = False


def draw_single(pages: Pages, scan: ReportScan, worth: Sequence[str] = ()) -> None:
    """The only scan of a report, large, and what such answers were worth on test scans."""
    _draw_title(pages, scan.record, 12)
    drawn = _try_draw(pages, scan)
    if drawn is not None:
        shown = caption_pictures(drawn, scan.record)
        width, height = (INNER - GAP) / 2, 72 * mm
        for start in range(0, len(shown), 2):
            for column, (rgb, caption) in enumerate(shown[start : start + 2]):
                pages.picture(rgb, caption, MARGIN + column * (width + GAP), pages.y, width, height)
            pages.y -= height + 3 * mm
    _draw_facts_in_two(pages, scan.record)
    if "problem" not in scan.record and not _is_withheld(scan.record):
        draw_worth(pages, worth)


def draw_worth(pages: Pages, worth: Sequence[str]) -> None:
    """What answers like these were worth on test scans, as one block."""
    lines = [Line("On test scans", size=8.5, bold=True), *(Line(said, size=8, colour=FAINT) for said in worth)]
    if not worth:
        return
    if pages.y - BETWEEN - _height(pages, lines, INNER) < BOTTOM:
        pages.next_page()
    pages.y -= BETWEEN
    _write(pages, lines, MARGIN, INNER)


def draw_pairs(pages: Pages, scans: Sequence[ReportScan]) -> None:
    """Two scans a page, pictures on the left and facts on the right; those that could not be read are left out."""
    middle = TOP - (TOP - BOTTOM) / 2
    upper = True
    for scan in scans:
        if "problem" in scan.record:
            continue  # it has its row in the table, and no picture
        upper = upper or _least_height(pages, scan.record) > middle - BOTTOM
        if upper:
            pages.next_page()
        pages.y = TOP if upper else middle
        _draw_title(pages, scan.record, 10)
        top = pages.y
        drawn = _try_draw(pages, scan)
        if drawn is not None:
            for place, (rgb, caption) in enumerate(caption_pictures(drawn, scan.record)):
                row, column = divmod(place, 2)
                left, upper_edge = MARGIN + column * (SMALL + 2 * mm), top - row * (SMALL_HIGH + 2 * mm)
                pages.picture(rgb, caption, left, upper_edge, SMALL, SMALL_HIGH)
            pages.y = top
        _draw_facts_in_one(pages, scan.record, MARGIN + INNER - NARROW)
        end = pages.y if drawn is None else min(pages.y, top - PICTURES_HIGH)
        upper = not (upper and end >= middle)  # what has too much to say has the page to itself


def _draw_title(pages: Pages, record: Mapping[str, Any], size: float) -> None:
    _write(pages, list(_title_lines(record, size)), MARGIN, INNER)


def _title_lines(record: Mapping[str, Any], size: float) -> Iterator[Line]:
    """The file, and of an answer that was insisted on what must be known before it is read."""
    simulated = "   SIMULATED" if record["simulated"] else ""
    position = f"   ({record['position']})" if "position" in record else ""
    yield Line(f"{shorten(record['file'])}{position}{simulated}", size=size, bold=True)
    if ImageWarning.INSISTED.value in record.get("warnings", ()):
        yield _warn(ImageWarning.INSISTED)


def _warn(warning: str) -> Line:
    return Line(f"Warning: {warning}.", colour=CLASS_INK["malignant"])


def _try_draw(pages: Pages, scan: ReportScan) -> ReportPictures | None:
    try:
        return scan.draw()
    except BusiError as error:
        pages.text(f"Its pictures cannot be drawn: {error.problem} {error.remedy}", MARGIN, INNER, colour=FAINT)
        return None


def _draw_facts_in_two(pages: Pages, record: Mapping[str, Any]) -> None:
    """What was found, on the left, and the reference and the warnings, on the right."""
    if "problem" in record:
        pages.text(f"Not read. {record['problem']}", MARGIN, INNER, colour=CLASS_INK["malignant"])
        return
    width = (INNER - 8 * mm) / 2
    least = max(_finding_height(pages, record, width), _least_truth_height(pages, record, width))
    if pages.y - least < BOTTOM:
        pages.next_page()
    top = pages.y
    _draw_finding(pages, record, MARGIN, width)
    left_end, pages.y = pages.y, top
    _draw_truth(pages, record, MARGIN + width + 8 * mm, width)
    pages.y = min(left_end, pages.y)


def _draw_facts_in_one(pages: Pages, record: Mapping[str, Any], x: float) -> None:
    """The same below each other, in a narrow column."""
    width = MARGIN + INNER - x
    _draw_finding(pages, record, x, width)
    pages.y -= BETWEEN
    _draw_truth(pages, record, x, width)


def _draw_finding(pages: Pages, record: Mapping[str, Any], x: float, width: float) -> None:
    _draw_class(pages, record, x, width)
    _write(pages, [Line(words) for words in _finding_lines(record)], x, width)


def _draw_truth(pages: Pages, record: Mapping[str, Any], x: float, width: float) -> None:
    """The reference, as many notes on its mask as there is room for, the warnings, and which model read the scan."""
    (reference, notes), closing = _split_truth(record), list(_closing_lines(record))
    _write(pages, reference, x, width)
    room = pages.y - BOTTOM - _height(pages, closing, width)
    _write(pages, _cut_to_fit(pages, notes, width, room), x, width)
    _write(pages, closing, x, width)


def _split_truth(record: Mapping[str, Any]) -> tuple[list[Line], list[Line]]:
    """`truth_lines` without the notes, and the notes."""
    lines = [Line(words) for words in truth_lines(record)]
    first_note = len(lines) - len((record.get("truth") or {"notes": ()})["notes"])
    return lines[:first_note], lines[first_note:]


def _closing_lines(record: Mapping[str, Any]) -> Iterator[Line]:
    """What must not be missing at the end: the warnings, whether findings disagree, and the model."""
    if record["taught_the_model"]:
        yield Line(TAUGHT, colour=CLASS_INK["malignant"])
    for warning in record["warnings"]:
        if warning == ImageWarning.INSISTED.value:
            continue  # stands below the title
        if warning == ImageWarning.NOT_CALIBRATED.value:  # true of nearly every file; what warns must be rare
            yield Line(f"{warning[:1].upper()}{warning[1:]}.", colour=FAINT)
        else:
            yield _warn(warning)
    if record["disagreement"]:
        yield Line(f"Findings disagree. {record['disagreement']}", bold=True)
    yield Line(f"Model {record['model']}", size=7.5, colour=FAINT)


def _cut_to_fit(pages: Pages, lines: Sequence[Line], width: float, room: float) -> list[Line]:
    """The first lines that the room holds, and how many more there are."""
    ends = list(accumulate(_height(pages, [line], width) for line in lines))
    if not ends or ends[-1] <= room:
        return list(lines)
    room -= _height(pages, [_count_notes(len(lines))], width)
    kept = sum(end <= room for end in ends)
    return [*lines[:kept], _count_notes(len(lines) - kept)]


def _count_notes(count: int) -> Line:
    return Line(f"and {count} more note{'s' if count > 1 else ''} on the mask.")


def _least_height(pages: Pages, record: Mapping[str, Any]) -> float:
    """Of the title, and of the pictures or the narrow column beside them, with no note on the mask but their count."""
    title = _height(pages, list(_title_lines(record, 10)), INNER)
    facts = _finding_height(pages, record, NARROW) + BETWEEN + _least_truth_height(pages, record, NARROW)
    return title + max(PICTURES_HIGH, facts)


def _finding_height(pages: Pages, record: Mapping[str, Any], width: float) -> float:
    return CLASS_HIGH + _height(pages, [Line(words) for words in _finding_lines(record)], width)


def _least_truth_height(pages: Pages, record: Mapping[str, Any], width: float) -> float:
    reference, notes = _split_truth(record)
    count = [_count_notes(len(notes))] if notes else []
    return _height(pages, [*reference, *count, *_closing_lines(record)], width)


def _height(pages: Pages, lines: Sequence[Line], width: float) -> float:
    return sum(pages.measure(line.words, width, size=line.size, bold=line.bold) for line in lines)


def _write(pages: Pages, lines: Sequence[Line], x: float, width: float) -> None:
    for line in lines:
        pages.text(line.words, x, width, size=line.size, colour=line.colour, bold=line.bold)


def _is_withheld(record: Mapping[str, Any]) -> bool:
    return bool(record["withheld"])


def _draw_class(pages: Pages, record: Mapping[str, Any], x: float, width: float) -> None:
    if ImageWarning.NO_CONTRAST.value in record["warnings"]:
        pages.text("No contrast in the image: the class is not shown.", x, width)
        return
    if _is_withheld(record):
        pages.text("The answer is withheld: no class is given.", x, width)
        return
    if not record["probabilities"]:
        pages.text("This model gives no class.", x, width)
        return
    pages.text(
        f"Class of the image: {record['class']}", x, width, size=11, bold=True, colour=CLASS_INK[record["class"]]
    )
    for diagnosis in Diagnosis:
        score = float(record["probabilities"][diagnosis.value])
        pages.y -= 4 * mm
        pages.setFont(pages.regular, 8.5)
        pages.setFillColor(INK)
        pages.drawString(x, pages.y, diagnosis.value)
        pages.drawRightString(x + width, pages.y, score_words(score))
        pages.setFillColor(LINE)
        pages.rect(x + 20 * mm, pages.y, width - 30 * mm, 2 * mm, stroke=0, fill=1)
        pages.setFillColor(CLASS_INK[diagnosis.value])
        pages.rect(x + 20 * mm, pages.y, (width - 30 * mm) * score, 2 * mm, stroke=0, fill=1)
    pages.y -= 2 * mm


def _finding_lines(record: Mapping[str, Any]) -> Iterator[str]:
    if record["opinions"]:
        each = ", ".join(one["class"] or "no class" for one in record["opinions"])
        outlining = sum(one["outlines"] for one in record["opinions"])
        yield f"One by one the networks say {each}; {outlining} of {len(record['opinions'])} outline something."
    if record["not_ruled_out"]:
        classes, coverage = " or ".join(record["not_ruled_out"]), record["not_ruled_out_in"]
        chosen = "" if math.isclose(coverage, USUAL_COVERAGE) else ", chosen by the reader"
        yield f"Cannot be ruled out ({coverage:.0%} of cases{chosen}): {classes}."
    if record["flagged"] is not None:
        said = "Flagged" if record["flagged"] else "Not flagged"
        score, cutoff_of_flag = score_beside(record["probabilities"]["malignant"], record["malignancy_threshold"])
        yield f"{said} for malignancy: score {score}, flagged from {cutoff_of_flag} on."
        if record["flagged"] and record["not_ruled_out"] and Diagnosis.MALIGNANT not in record["not_ruled_out"]:
            yield "The classes above leave malignant out, the flag does not: some scans like that were malignant."
    size, cutoff = record["size"], cutoff_words(record["threshold"], record["model_threshold"])
    if _is_withheld(record):
        yield "Whether there is a lesion is not said either."
    elif size is None:
        yield f"No lesion at {cutoff}."
    else:
        digits = 1 if size["unit"] == "mm" else 0
        share = record["lesion_pixels"] / (record["width"] * record["height"])
        together = f"all {record['regions']} regions together " if record["regions"] > 1 else ""
        yield (
            f"Lesion {size['longest']:.{digits}f} x {size['perpendicular']:.{digits}f} {size['unit']} "
            f"(longest diameter x perpendicular), {together}{share:.1%} of the image, {cutoff}."
        )
        if record["regions"] > 1:
            yield f"{record['regions']} separate regions; the largest is measured."
        if size["unit"] == "px" and ImageWarning.NOT_CALIBRATED.value not in record["warnings"]:
            yield NOT_IN_ONE_REGION
    frame = f", frame {record['frame']} of {record['frames']}" if record["frames"] > 1 else ""
    yield f"Scan of {record['width']} x {record['height']} pixels{frame}."
    if "same_pixels_as" in record:
        yield f"The same pixels as {shorten(record['same_pixels_as'])}."


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
        pixels = record["lesion_pixels"]  # None of an answer withheld
        outlined = f" {pixels} pixels were outlined." if pixels else "" if pixels is None else " None was outlined."
        lines.append(f"No lesion in the reference.{outlined} Dice n/a.")
    elif record["withheld"]:
        lines.append("No answer, so there is nothing to compare with the reference.")
    else:
        figures = ", ".join(f"{name} {figure_words(truth[key], 3)}" for name, key in FIGURES_OF_SCAN)
        lines.append(f"Against the reference: {figures}, HD95 {figure_words(truth['hd95_px'], 1)} px.")
    return lines + list(truth["notes"])


def shorten(name: str) -> str:
    """A file name of a few lines at most, with its ending."""
    return name if len(name) <= 400 else f"{name[:390]} ... {name[-6:]}"


def figure_words(value: float | None, digits: int) -> str:
    """A figure, or that it is not defined."""
    return "n/a" if value is None else f"{value:.{digits}f}"
