"""Pieces of the Batch page: progress, the table with its filters, the summary, the downloads."""

import base64
import io
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from busi_core import Diagnosis, ImageWarning
from busi_core.batch import ScanRow, report_scan
from busi_core.batch_tables import rows_csv
from busi_core.report import MAX_SUBJECT, Report, Summary, local_time, report_json, score_figure
from busi_core.report_pdf import MAX_PICTURED, draw_report
from pages.components.batch_queue import BatchQueue
from pages.components.class_blocks import CLASS_COLOURS
from pages.components.downloads import safe_stem
from pages.components.page import NAME_IN_PIXELS, label
from pages.components.serving import worth_of

ROW_HEIGHT_PX = 72
TABLE_HEIGHT_PX = 620
LATEST = 8  # thumbnails beside the progress bar
NOT_READ, NO_ANSWER, NO_CONTRAST, NO_CLASS = "not read", "no answer", "no contrast", "none"
FLAG = "⚑"
NO_FILTER: dict[str, Any] = {
    "batch-classes": [],
    "batch-marks": [],
    "batch-score": (0.0, 1.0),
    "batch-area": (0.0, 100.0),
    "batch-dice": (0.0, 1.0),
}
RANGES = {  # title, highest, step
    "batch-score": ("Score of malignant", 1.0, 0.01),
    "batch-area": ("Lesion, % of the image", 100.0, 0.5),
    "batch-dice": ("Dice", 1.0, 0.01),
}
FILTERS_CLEARED = "batch-filters-cleared"  # how often, in this session
MARKS: dict[str, str] = {
    "flagged": "flagged for malignancy",
    "disagree": "findings disagree",
    "warned": "has warnings",
    "asked": "second opinion asked for",
    "other class": "class differs from the reference",
    "missed": "lesion missed (Dice below .01)",
    "copy": "same pixels as another file",
}


@dataclass(frozen=True)
class Filters:
    """What the reader wants to see; ranges are (low, high) in the table's own units."""

    classes: tuple[str, ...]
    marks: tuple[str, ...]
    score: tuple[float, float]
    area: tuple[float, float]
    dice: tuple[float, float]


def progress_text(queue: BatchQueue) -> str:
    """One line: how many, how fast, how long still, by which model."""
    done, total = len(queue.rows), len(queue.cases)
    refused = sum(row.problem is not None for row in queue.rows)
    parts = [f"{done} of {total} read" if not refused else f"{done} of {total} done, {refused} could not be read"]
    left = queue.seconds_left
    if queue.running and left is not None:
        parts += [f"{done / max(queue.seconds, 1e-6):.1f} scans a second", f"{say_time(left)} left"]
    elif not queue.is_done:
        parts.append("stopped")
    else:
        parts.append(f"in {say_time(queue.seconds)}")
    if queue.version is not None:
        parts.append(f"model {queue.version}")
    return " · ".join(parts)


def say_time(seconds: float) -> str:
    """Seconds below a minute and a half, one at least; then minutes."""
    return f"{max(1, seconds):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def latest_strip(rows: Sequence[ScanRow]) -> str:
    """The last rows as thumbnails with their class, the newest first."""
    tiles = []
    for row in reversed(rows[-LATEST:]):
        picture = row.reading.pictures if row.reading else None
        said = say_class(row)
        colour = CLASS_COLOURS.get(said, "#d29922") if isinstance(said, Diagnosis) else "#d29922"
        image = f'<img src="{data_url(picture.thumbnail)}" alt="">' if picture else '<span class="no-scan"></span>'
        tiles.append(
            f'<figure>{image}<figcaption style="color:{colour}">{escape(said)}{flag_of(row)}</figcaption></figure>'
        )
    return f'<div class="latest">{"".join(tiles)}</div>'


def say_class(row: ScanRow) -> str:
    """The class of a row, or why it has none."""
    if row.reading is None:
        return NOT_READ
    if ImageWarning.NO_CONTRAST.value in row.reading.record["warnings"]:
        return NO_CONTRAST
    return NO_ANSWER if row.reading.withheld else row.reading.diagnosis or NO_CLASS


def flag_of(row: ScanRow) -> str:
    """Behind a class: the sign of a scan that is flagged for malignancy, which may be beside any class."""
    return f" {FLAG}" if row.reading and row.reading.record["flagged"] else ""


def data_url(picture: bytes, *, kind: str = "jpeg") -> str:
    """A small picture that travels inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def show_filters(queue: BatchQueue) -> Filters:
    """Class, marks, and ranges of score, area and Dice; kept for this batch.

    Each widget is told its value in every run: a browser that opens the popover later takes it from there.
    """
    names = [name for name in NO_FILTER if name != "batch-dice" or has_truth(queue.rows)]
    keys = {name: filter_key(name) for name in names}
    chosen = {name: st.session_state.get(keys[name], queue.filters.get(name, NO_FILTER[name])) for name in names}
    active = [name for name in names if chosen[name] != NO_FILTER[name]]
    hidden = [name for name in active if name != "batch-classes"]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.pills(
            "Class", [*(d.value for d in Diagnosis), NO_ANSWER, NOT_READ], selection_mode="multi",
            default=chosen["batch-classes"], key=keys["batch-classes"], label_visibility="collapsed",
        )  # fmt: skip
        count = f" ({len(hidden)} set)" if hidden else ""
        with st.popover(f"More filters{count}", icon=":material/filter_alt:"):
            st.pills(
                "Only rows that are or have", list(MARKS.values()), selection_mode="multi",
                default=chosen["batch-marks"], key=keys["batch-marks"],
            )  # fmt: skip
            for name in names[2:]:
                title, high, step = RANGES[name]
                st.slider(title, 0.0, high, chosen[name], step, key=keys[name])
        if hidden:
            st.html(label("Only rows with: " + "; ".join(say_filter(one, chosen[one]) for one in hidden), css="fine"))
        if active:
            st.button("Clear filters", "batch-clear-filters", on_click=clear_filters, args=(queue,), type="tertiary")
    queue.filters = chosen
    classes, marks, score, area, dice = (NO_FILTER | chosen).values()
    return Filters(tuple(classes), tuple(name for name, words in MARKS.items() if words in marks), score, area, dice)


def filter_key(name: str) -> str:
    """A filter's key as a widget; another one after each clearing, or a closed popover would keep what was cleared."""
    return f"{name}-{st.session_state.get(FILTERS_CLEARED, 0)}"


def clear_filters(queue: BatchQueue) -> None:
    """Every row again."""
    queue.filters = {}
    st.session_state[FILTERS_CLEARED] = st.session_state.get(FILTERS_CLEARED, 0) + 1


def say_filter(name: str, value: Any) -> str:
    """What one filter of the popover lets through, in words."""
    if name == "batch-marks":
        return " or ".join(value)
    title, most, _ = RANGES[name]
    digits = 1 if most > 1 else 2
    return f"{title} {value[0]:.{digits}f} to {value[1]:.{digits}f}"


def filter_rows(rows: Sequence[ScanRow], filters: Filters, copies: dict[str, str]) -> list[ScanRow]:
    """The rows that pass every filter; a range that is set leaves out rows that have no such number."""
    return [row for row in rows if _passes(row, filters, copies)]


def marks_of(row: ScanRow, copies: dict[str, str]) -> set[str]:
    """Which of `MARKS` a row bears."""
    found = {"copy"} if row.id in copies else set()
    if row.reading is None:
        return found
    record, truth = row.reading.record, row.truth
    found |= {"flagged"} if record["flagged"] else set()
    found |= {"disagree"} if record["disagreement"] else set()
    asked = ImageWarning.SECOND_OPINION.value
    found |= {"asked"} if asked in record["warnings"] else set()
    found |= {"warned"} if set(warnings_of(row)) - {asked} else set()
    found |= {"other class"} if truth.diagnosis and truth.diagnosis is not row.reading.diagnosis else set()
    found |= {"missed"} if truth.dice < 0.01 else set()  # NaN is not
    return found


def warnings_of(row: ScanRow) -> list[str]:
    """Warnings worth a cell: that a size is in pixels is true of nearly every file and said beside the size."""
    if row.reading is None:
        return []
    return [text for text in row.reading.record["warnings"] if text != ImageWarning.NOT_CALIBRATED.value]


def has_truth(rows: Sequence[ScanRow]) -> bool:
    """Whether anything is known about any of the rows."""
    return any(row.truth.diagnosis is not None or not row.truth.missing for row in rows if row.reading)


def show_table(rows: Sequence[ScanRow], copies: dict[str, str], *, key: str, with_truth: bool) -> ScanRow | None:
    """The table; returns the row that the reader picked."""
    picked = st.dataframe(
        make_frame(rows, copies, with_truth=with_truth),
        key=key,
        hide_index=True,
        height=min(TABLE_HEIGHT_PX, ROW_HEIGHT_PX * max(1, len(rows)) + 40),
        row_height=ROW_HEIGHT_PX,
        on_select="rerun",
        selection_mode="single-row",
        placeholder="n/a",
        column_config={
            "scan": st.column_config.ImageColumn(
                "Scan", width=96, help="The lesion outlined; double-click to enlarge."
            ),
            "file": st.column_config.TextColumn("File", width=140),
            "class": st.column_config.TextColumn("Class", width=104, help=f"{FLAG} is flagged for malignancy."),
            "score": st.column_config.TextColumn(
                "Malignant", width=84, alignment="right", help="The model's score of malignant."
            ),
            "area": st.column_config.NumberColumn("Lesion", format="%.1f %%", width=84, help="Share of the image."),
            "reference": st.column_config.TextColumn("Reference", width=92),
            "dice": st.column_config.NumberColumn("Dice", format="%.3f", width=72),
            "hd95": st.column_config.NumberColumn("HD95", format="%.1f px", width=84),
            "notes": st.column_config.TextColumn("Warnings and reasons", width="large"),
        },
    )
    chosen = picked["selection"]["rows"]
    return rows[chosen[0]] if chosen and chosen[0] < len(rows) else None


def make_frame(rows: Sequence[ScanRow], copies: dict[str, str], *, with_truth: bool) -> dict[str, list[object]]:
    """Columns with a cell for each row; what is not defined is None and shown as 'n/a'."""
    cells = [_cells(row, copies) for row in rows]
    frame = {name: [line[place] for line in cells] for place, name in enumerate(_COLUMNS)}
    return {name: column for name, column in frame.items() if with_truth or name not in ("reference", "dice", "hd95")}


def show_summary(queue: BatchQueue) -> None:
    """Counts of the whole set, and figures where a reference is known."""
    rows = [row for row in queue.rows if row.reading]
    counts = {d.value: sum(row.reading is not None and row.reading.diagnosis is d for row in rows) for d in Diagnosis}
    flagged = sum(bool(row.reading and row.reading.record["flagged"]) for row in rows)
    said = [f"<b>{count}</b> read as {name}" for name, count in counts.items()]
    said.append(f"<b>{flagged}</b> flagged for malignancy")
    withheld = sum(bool(row.reading and row.reading.withheld) for row in rows)
    said += [f"<b>{withheld}</b> without an answer"] if withheld else []
    said.append(f"<b>{len(queue.rows) - len(rows)}</b> not read")
    if queue.copies():
        said.append(f"<b>{len(queue.copies())}</b> with the same pixels as another file")
    st.html(f'<div class="fine">{" · ".join(said)}</div>')
    if not has_truth(queue.rows):
        st.html(label("No reference came with these scans, so there is nothing to measure against.", css="fine"))
        return
    with st.spinner("Drawing 1,000 samples for the intervals…"):
        summaries = queue.summaries()
    for column, summary in zip(st.columns(max(2, len(summaries))), summaries, strict=False):
        column.html(summary_html(summary))


def summary_html(summary: Summary) -> str:
    """One summary as a table: figure, value, interval, on how many scans."""
    counts = ", ".join(f"{count} {escape(name)}" for name, count in summary.counts.items())
    lines = "".join(
        f"<tr><td>{escape(figure.name)}</td><td>{escape(str(figure))}</td><td>{figure.scans}</td></tr>"
        for figure in summary.figures
    )
    confusion = ""
    if summary.confusion:
        heads = "".join(f"<th>{d.value}</th>" for d in Diagnosis)
        body = "".join(
            f"<tr><td>{d.value}</td>{''.join(f'<td>{n}</td>' for n in line)}</tr>"
            for d, line in zip(Diagnosis, summary.confusion, strict=True)
        )
        confusion = f'<table class="plain"><tr><th>reference \\ model</th>{heads}</tr>{body}</table>'
    return (
        f"<h4>{escape(summary.title)}</h4>"
        f'<div class="fine">{summary.scans} scans, {summary.distinct} distinct ({counts})</div>'
        '<table class="plain wrapped"><tr><th>figure</th><th>value [95 % interval]</th><th>scans</th></tr>'
        f"{lines}</table>"
        f'{confusion}<div class="fine">{escape(summary.caution)}</div>'
    )


def show_downloads(queue: BatchQueue, rows: Sequence[ScanRow]) -> None:
    """CSV, masks, PDF and JSON of the rows on screen; each is made when it is asked for."""
    queue.subject = subject = st.text_input(
        "Name or number on the report",
        queue.subject,
        key="batch-subject",
        max_chars=MAX_SUBJECT,
        placeholder="nothing unless typed in",
        width=420,
    )
    created = local_time()
    everything = len(rows) == len(queue.rows)

    def make_report() -> Report:
        by_id, copies = {case.id: case for case in queue.cases}, queue.copies()
        return Report(
            scans=[
                report_scan(row, by_id[row.id], simulated=row.id in queue.simulated, same_as=copies.get(row.id))
                for row in rows
            ],
            model_version=queue.version or "",
            created=created,
            subject=subject.strip(),
            summaries=queue.summaries() if everything else (),
            worth=worth_of(queue.version) if queue.version else (),
        )

    files: tuple[tuple[str, Callable[[], bytes], str, str, str], ...] = (
        ("CSV", lambda: rows_csv(rows, of=queue.rows), "batch.csv", "text/csv", "Every figure of every row."),
        ("Masks", lambda: masks_zip(rows, queue.rows), "masks.zip", "application/zip",
         "A PNG for each scan, and a list."),
        ("Report (PDF)", lambda: draw_report(make_report()), "report.pdf", "application/pdf",
         f"Summary, table, and pictures of the first {MAX_PICTURED} scans."),
        ("JSON", lambda: report_json(make_report()), "report.json", "application/json", "The report as data."),
    )  # fmt: skip
    with st.container(horizontal=True, gap="small"):
        for text, make, name, kind, help_text in files:
            st.download_button(
                text, make, name, kind, key=f"batch-{name}", icon=":material/download:", on_click="ignore",
                help=help_text,
            )  # fmt: skip
    which = "all rows" if everything else f"the {len(rows)} rows that pass the filters"
    st.html(label(f"Of {which}. {NAME_IN_PIXELS}", css="fine"))


def masks_zip(rows: Sequence[ScanRow], of: Sequence[ScanRow]) -> bytes:
    """The masks under safe names that begin with the row's number, and a list of what they are of, among all rows."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, row in enumerate(rows, start=1):
            if row.reading and row.reading.pictures and not row.reading.withheld:
                stem = safe_stem(row.name.replace("\\", "/").rsplit("/", 1)[-1])
                archive.writestr(f"{number:04d} {stem}_mask.png", row.reading.pictures.mask)
        archive.writestr("batch.csv", rows_csv(rows, of=of))
    return buffer.getvalue()


_COLUMNS = ("scan", "file", "class", "score", "area", "reference", "dice", "hd95", "notes")


def _cells(row: ScanRow, copies: dict[str, str]) -> tuple[object, ...]:
    notes = [f"Same pixels as {copies[row.id]}."] if row.id in copies else []
    if row.reading is None:
        return (None, row.name, NOT_READ, None, None, row.truth.diagnosis, None, None, str(row.problem))
    reading, truth = row.reading, row.truth
    notes += ["Taught the model: it may remember the answer."] if truth.taught else []
    notes += [f"{text[:1].upper()}{text[1:]}." for text in warnings_of(row)]
    if reading.record["disagreement"]:
        notes.append(f"Findings disagree. {reading.record['disagreement']}")
    if truth.problem and not truth.missing:
        notes.append(f"No reference: {truth.problem}")
    notes += truth.notes
    said = say_class(row)
    return (
        data_url(reading.pictures.thumbnail) if reading.pictures else None,
        row.name,
        said + flag_of(row),
        score_figure(reading.scores[2], reading.record["malignancy_threshold"]) if reading.scores else None,
        None if reading.withheld else 100 * reading.lesion_share,
        truth.diagnosis,
        None if math.isnan(truth.dice) else truth.dice,
        None if math.isnan(truth.hd95_px) else truth.hd95_px,
        " ".join(notes),
    )


def _passes(row: ScanRow, filters: Filters, copies: dict[str, str]) -> bool:
    said = say_class(row)
    if filters.classes and (NO_ANSWER if said == NO_CONTRAST else said) not in filters.classes:
        return False
    if filters.marks and not set(filters.marks) & marks_of(row, copies):
        return False
    scores = row.reading.scores if row.reading else None
    ranges = (
        (filters.score, (0.0, 1.0), scores[2] if scores else None),
        (filters.area, (0.0, 100.0), 100 * row.reading.lesion_share if row.reading else None),
        (filters.dice, (0.0, 1.0), row.truth.dice),
    )
    return all(
        chosen == whole or (value is not None and chosen[0] <= value <= chosen[1]) for chosen, whole, value in ranges
    )
