"""Rows of a batch -> what is said about the whole: copies, figures with intervals, a CSV.

    rows --find_copies_of--> name of the first row that shows the same scan
    rows --summarise--> [Summary]    scans that taught the model apart from those that it never saw
    rows --rows_csv--> CSV           what is not defined is 'n/a', never 0; no cell can become a formula

Figures are those of `evaluation.py`, so far as the reference says enough for them.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busi_core.batch import ScanRow
from busi_core.data.duplicates import SAME_SCAN_CORRELATION, group_scans
from busi_core.metrics.bootstrap import bootstrap_interval
from busi_core.metrics.calibration import CALIBRATION_ERROR, expected_calibration_error
from busi_core.metrics.classification import (
    confusion_matrix,
    macro_f1,
    malignancy_score,
    roc_auc,
    sensitivity_at_specificity,
)
from busi_core.metrics.proportion import share_interval
from busi_core.metrics.segmentation import MISSED_BELOW_DICE
from busi_core.report import RESEARCH_USE, Figure, Summary
from busi_core.types import Diagnosis

CLASSES = list(Diagnosis)
NORMAL, MALIGNANT = CLASSES.index(Diagnosis.NORMAL), CLASSES.index(Diagnosis.MALIGNANT)
BLOCK = 1024  # rows correlated at a time: 10,000 thumbnails in 40 MB
NOT_AVAILABLE = "n/a"
FORMULA_BEGINS = "=+-@|%＝＋－＠"
_FORMULA_BEHIND_SEMICOLON = re.compile(rf"(;\s*)(?=[{re.escape(FORMULA_BEGINS)}])")
FEWEST_SCANS = 10  # distinct ones, below which draws from them say little about others
TOO_FEW, NO_SPREAD = "too few scans for an interval", "no interval: all draws agree"
SEEN_CAUTION = (
    "These scans, or copies of them, taught the model or chose its thresholds. The figures say nothing about new scans."
)
NEW_CAUTION = (
    "Whether a scan taught the model is told by its name and by a hash of its pixels; of renamed copies with another "
    "crop or other marks, about one in eight would pass for new."
)
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def same_pixels(rows: Sequence[ScanRow]) -> dict[str, str]:
    """For each row id whose pixels came before, the id of the first row that has them."""
    first: dict[str, str] = {}
    copies: dict[str, str] = {}
    for row in rows:
        if row.reading is None:
            continue
        original = first.setdefault(row.reading.digest, row.id)
        if original != row.id:
            copies[row.id] = original
    return copies


def distinct_scans(rows: Sequence[ScanRow]) -> NDArray[np.int64]:
    """(rows,) number of the unit of independence of each row.

    Rows belong together when they show nearly the same pixels (marks, crop, gain), or when their names say so: copies
    of one BUSI scan by the published list, images of one BUS-BRA case.
    """
    if not rows:
        return np.zeros(0, np.int64)
    prints = np.stack([row.reading.fingerprint if row.reading else np.zeros(256, np.float32) for row in rows])
    ids = [row.id for row in rows]
    pairs = [(copy, original) for copy, original in same_pixels(rows).items()]
    first_of: dict[str, str] = {}
    pairs += [(row.id, first_of.setdefault(row.group, row.id)) for row in rows if row.group is not None]
    for start in range(0, len(rows), BLOCK):
        block = prints[start : start + BLOCK] @ prints[start:].T
        for first, second in np.argwhere(block > SAME_SCAN_CORRELATION):
            if first < second:
                pairs.append((ids[start + first], ids[start + second]))
    number_of = {name: number for number, scan in enumerate(group_scans(ids, pairs)) for name in scan}
    return np.array([number_of[name] for name in ids], np.int64)


def summarise(rows: Sequence[ScanRow]) -> list[Summary]:
    """Figures over the rows that have a reference; empty where none has.

    Scans that taught the model and scans that it never saw are never mixed.
    """
    known = [row for row in rows if row.reading is not None and row.truth.has_lesion is not None]
    parts = (
        ("Scans not known to have taught the model", [row for row in known if not row.truth.taught], NEW_CAUTION),
        ("Scans that taught the model", [row for row in known if row.truth.taught], SEEN_CAUTION),
    )
    return [_summarise(title, part, caution) for title, part, caution in parts if part]


def rows_csv(rows: Sequence[ScanRow], *, of: Sequence[ScanRow] | None = None) -> bytes:
    """One line a row, UTF-8 with a byte-order mark for spreadsheets.

    Args:
        rows: In this order.
        of: All rows, where those are some of them: a copy is one also of a scan that is not among them.
    """
    copies = same_pixels(rows if of is None else of)
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        cells = _csv_cells(row, copies.get(row.id, ""))
        if writer is None:
            writer = csv.DictWriter(buffer, list(cells), lineterminator="\r\n")
            writer.writeheader()
        writer.writerow({key: safe_cell(value) for key, value in cells.items()})
    return buffer.getvalue().encode("utf-8-sig", "replace")


def safe_cell(value: Any) -> str:
    """Text for a cell that no spreadsheet takes for a formula (OWASP, CSV injection); numbers stay as they are.

    Where the comma is a decimal sign a spreadsheet cuts at semicolons, so what follows one is a cell too.
    """
    if isinstance(value, float):
        return NOT_AVAILABLE if math.isnan(value) else f"{value:.6g}"
    if not isinstance(value, str):
        return str(value)
    text = value.replace("\0", "")
    text = _FORMULA_BEHIND_SEMICOLON.sub(r"\1'", text)
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") or text.lstrip()[:1] in tuple(FORMULA_BEGINS) else text


def _csv_cells(row: ScanRow, same_as: str) -> dict[str, Any]:
    reading, truth = row.reading, row.truth
    record = reading.record if reading else {}
    size = record.get("size") or {}
    scores = (reading.scores if reading else None) or (math.nan,) * 3
    none = math.nan
    return {
        "id": row.id,
        "file": row.name,
        "problem": row.problem or "",
        "frame": record.get("frame", none),
        "frames": record.get("frames", none),
        "class": record.get("class") or NOT_AVAILABLE,
        **{f"score_{diagnosis}": score for diagnosis, score in zip(CLASSES, scores, strict=True)},
        "not_ruled_out": " or ".join(record.get("not_ruled_out") or ()) or NOT_AVAILABLE,
        "flagged": NOT_AVAILABLE if record.get("flagged") is None else record["flagged"],
        "lesion_pixels": none if record.get("lesion_pixels") is None else record["lesion_pixels"],
        "lesion_share": reading.lesion_share if reading else none,
        "longest": size.get("longest", none),
        "perpendicular": size.get("perpendicular", none),
        "unit": size.get("unit", NOT_AVAILABLE),
        "regions": none if record.get("regions") is None else record["regions"],
        "disagreement": record.get("disagreement") or "",
        "warnings": "; ".join(record.get("warnings", ())),
        "same_pixels_as": same_as,
        "reference_class": truth.diagnosis or NOT_AVAILABLE,
        "reference_pixels": none if truth.lesion_pixels is None else truth.lesion_pixels,
        "dice": truth.dice,
        "iou": truth.iou,
        "precision": truth.precision,
        "recall": truth.recall,
        "hd95_px": truth.hd95_px,
        "reference_problem": truth.problem or "",
        "reference_notes": " ".join(truth.notes),
        "taught_the_model": truth.taught,
        "cutoff": record.get("threshold", none),
        "model": record.get("model", NOT_AVAILABLE),
        "notice": RESEARCH_USE,
    }


def _summarise(title: str, rows: Sequence[ScanRow], caution: str) -> Summary:
    groups = distinct_scans(rows)
    lesion = np.array([bool(row.truth.has_lesion) for row in rows])
    has_mask = np.sign([row.reading.lesion_share if row.reading else math.nan for row in rows])
    dice = np.array([row.truth.dice for row in rows])
    figures = [
        _figure("lesion Dice", dice, groups),
        _figure("lesion IoU", np.array([row.truth.iou for row in rows]), groups),
        _figure("HD95 (px)", np.array([row.truth.hd95_px for row in rows]), groups, is_share=False),
        _figure("pixel precision", np.array([row.truth.precision for row in rows]), groups),
        _figure("pixel recall", np.array([row.truth.recall for row in rows]), groups),
        _figure("lesions missed", np.where(np.isnan(dice), math.nan, dice < MISSED_BELOW_DICE), groups),
        _figure("normals given a mask", np.where(lesion, math.nan, has_mask), groups),
    ]
    truth = np.array([CLASSES.index(row.truth.diagnosis) if row.truth.diagnosis else -1 for row in rows])
    scored = np.array([row.reading is not None and row.reading.scores is not None for row in rows]) & (truth >= 0)
    confusion = None
    if scored.any():
        scores = np.array([row.reading.scores for row, kept in zip(rows, scored, strict=True) if kept and row.reading])
        truth, groups = truth[scored], groups[scored]
        flags = [row.reading.record["flagged"] for row, kept in zip(rows, scored, strict=True) if kept and row.reading]
        figures += _class_figures(scores, truth, groups, flags)
        confusion = tuple(tuple(int(n) for n in line) for line in confusion_matrix(scores.argmax(axis=1), truth))
    counts = {d.value: sum(row.truth.diagnosis is d for row in rows) for d in CLASSES}
    unnamed = sum(row.truth.diagnosis is None for row in rows)
    return Summary(
        title=title,
        scans=len(rows),
        distinct=len(set(distinct_scans(rows).tolist())),
        counts=counts | ({"without a class": unnamed} if unnamed else {}),
        figures=tuple(figures),
        confusion=confusion,
        caution=caution,
        taught=all(row.truth.taught for row in rows),
    )


def _class_figures(scores: FloatArray, truth: IntArray, groups: IntArray, flags: Sequence[bool | None]) -> list[Figure]:
    malignant, lesion = truth == MALIGNANT, truth != NORMAL
    suspicion = malignancy_score(scores)
    predicted = scores.argmax(axis=1)

    def auc(indices: IntArray) -> float:
        kept = indices[lesion[indices]]
        return roc_auc(suspicion[kept], malignant[kept]) if _both(malignant[kept]) else math.nan

    def sensitivity(indices: IntArray) -> float:
        kept = indices[lesion[indices]]
        if not _both(malignant[kept]):
            return math.nan
        return sensitivity_at_specificity(suspicion[kept], malignant[kept]).sensitivity

    figures = [
        _figure("accuracy (3 classes)", (predicted == truth).astype(float), groups),
        _figure("macro-F1", lambda i: macro_f1(confusion_matrix(predicted[i], truth[i])), groups),
        _figure("AUC malignant against benign", auc, groups, scans=int(lesion.sum())),
        _figure("sensitivity at 90 % specificity", sensitivity, groups, scans=int(lesion.sum())),
        _figure(CALIBRATION_ERROR, lambda i: expected_calibration_error(scores[i], truth[i]), groups),
    ]
    if all(flag is not None for flag in flags):
        flagged = np.array(flags, float)
        figures += [
            _figure("sensitivity of the flag", np.where(malignant, flagged, math.nan), groups),
            _figure("specificity of the flag", np.where(malignant, math.nan, 1 - flagged), groups),
        ]
    return figures


def _both(truth: NDArray[np.bool_]) -> bool:
    return bool(truth.any() and not truth.all())


def _figure(
    name: str,
    measured: FloatArray | Callable[[IntArray], float],
    groups: IntArray,
    *,
    scans: int | None = None,
    is_share: bool = True,
) -> Figure:
    """A figure with its interval; where the draws cannot tell how far it could be off, none is given, and why.

    Of a handful of scans every draw is much the same, and of a share that is 0 or 1 all are: an interval of no width
    would claim certainty. A share has one by Wilson then.
    """
    if scans is None:
        scans = len(groups) if callable(measured) else int((~np.isnan(measured)).sum())
    interval = bootstrap_interval(measured, groups, is_distance=name == CALIBRATION_ERROR)
    low, high = interval.low, interval.high
    distinct = len(set(groups.tolist())) if callable(measured) else len(set(groups[~np.isnan(measured)].tolist()))
    if low == high and is_share and not callable(measured) and interval.estimate in (0.0, 1.0):
        share = share_interval(round(interval.estimate * distinct), distinct)
        low, high = share.low, share.high
    elif low == high or distinct < FEWEST_SCANS:
        low = high = math.nan
    reason = "" if not math.isnan(low) else TOO_FEW if distinct < FEWEST_SCANS else NO_SPREAD
    return Figure(name, interval.estimate, low, high, scans, reason)
