"""Scans and their reference masks in; compare.csv, summary.json and rows.jsonl out; goes on after a kill.

    IMAGES, MASKS -pair_folders-> cases -read_cases-> rows -> rows.jsonl as they come -> compare.csv, summary.json

A finished row stays in rows.jsonl with the sizes and times of its files and a checksum: it is read again only when one
of those, or the model or its limits, changed, when its line is damaged, and when it could not be read. It stays also
when a run asks for other scans, as while a share is away; the tables are of the scans that were asked for alone.
"""

import base64
import csv
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from busi_core.batch import Reading, ScanRow, Truth, read_cases
from busi_core.batch_tables import distinct_scans, rows_csv, same_pixels, summarise
from busi_core.data.pairing import Batch, Case, pair_files, pair_folders
from busi_core.data.sources import list_folder
from busi_core.errors import DatasetError, OutputError
from busi_core.files import write_atomically
from busi_core.report import RESEARCH_USE, Summary, read_by
from busi_core.service import Analyser
from busi_core.side_by_side import share_cores
from busi_core.types import Diagnosis

ROWS_FILE, CSV_FILE, SUMMARY_FILE = "rows.jsonl", "compare.csv", "summary.json"
COLUMNS = {"id", "file", "dice", "notice"}  # some of those that every compare.csv of ours had
ENTRIES = {"schema", "notice", "scans", "summaries"}  # and of summary.json
MAX_HEADER = 10_000  # characters of its first line, which may be a whole foreign file
ROWS_BEGIN = b'{"key": "[\\"'  # as `_line` writes it; a full disk may cut the first line short
CHECKSUM = "blake2b"  # of all else in a line
DAMAGE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
FIGURES = ("dice", "iou", "precision", "recall", "hd95_px")


def list_cases(images: Path, masks: Path) -> Batch:
    """Pair the scans of one folder with the masks of another, or of the same.

    Raises:
        DatasetError: A folder is missing, or there is no scan.
    """
    files = list_folder(images)
    batch = pair_files(files) if _are_one(images, masks) else pair_folders(files, list_folder(masks))
    if not batch.cases:
        raise DatasetError(f"There is no scan in {images}.", remedy="Name the folder that holds the images.")
    return batch


def _are_one(images: Path, masks: Path) -> bool:
    try:
        return images.samefile(masks)
    except OSError:  # `list_folder` says what is wrong with it
        return False


def compare_cases(analyser: Analyser, batch: Batch, out: Path, *, jobs: int = 2) -> Iterator[ScanRow]:
    """Read every case and compare; rows in order, those of an earlier run first taken from `out`.

    Unless they are of just these rows, an old compare.csv and summary.json go before anything is written: if this run
    is stopped they would say something else than it was asked for. Call it, and `write_comparison` after it, inside
    one `hold_folder(out)`.

    Raises:
        OutputError: `out` cannot be written, or what would be written over is not ours.
    """
    _require_ours(out)
    before = _read_rows(out / ROWS_FILE)
    keys = {case.id: _key(case, read_by(analyser.identity)) for case in batch.cases}
    todo = [case for case in batch.cases if keys[case.id] not in before]
    rows = read_cases(analyser, todo, jobs=jobs, with_pictures=False)
    fresh = share_cores(rows, analyser, jobs)
    kept = {case.id: replace(before[keys[case.id]], id=case.id) for case in batch.cases if keys[case.id] in before}
    if todo or not _is_table_of(list(kept.values()), out):
        _remove_tables(out)
    lines = b"".join(_line(key, row) for key, row in before.items())
    write_atomically(out / ROWS_FILE, lines)  # drops what is torn, damaged or was not read
    try:
        with closing(fresh), (out / ROWS_FILE).open("ab") as file:
            for case in batch.cases:
                if case.id in kept:
                    yield kept[case.id]
                    continue
                row = next(fresh)
                file.write(_line(keys[case.id], row))
                file.flush()
                yield row
    except OSError as error:
        raise OutputError(
            f"{ROWS_FILE!r} could not be written ({error.strerror}).", remedy="Free some space; what was done is kept."
        ) from error


def _is_table_of(rows: list[ScanRow], out: Path) -> bool:
    """Whether compare.csv is of these rows; so is the summary.json beside it then, which is written after it."""
    try:
        return (out / CSV_FILE).read_bytes() == rows_csv(rows)
    except OSError:
        return False


def _remove_tables(out: Path) -> None:
    for name in (CSV_FILE, SUMMARY_FILE):
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"The {name!r} of an earlier run could not be removed ({error.strerror}).",
                remedy="Remove it, or choose another folder.",
            ) from error


def _require_ours(out: Path) -> None:
    """Refuse to write over a table, a summary or rows of another program."""
    for name, is_ours in ((ROWS_FILE, _are_our_rows), (CSV_FILE, _is_our_table), (SUMMARY_FILE, _is_our_summary)):
        file = out / name
        try:
            ours = not os.path.lexists(file) or (file.is_file() and is_ours(file))
        except (OSError, ValueError, RecursionError, csv.Error):
            ours = False
        if not ours:
            raise OutputError(
                f"{file} is there already and is no result of this program.",
                remedy="Move it away, or choose another folder.",
            )


def _are_our_rows(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(len(ROWS_BEGIN))
    return begin == ROWS_BEGIN[: len(begin)]


def _is_our_table(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return set(next(csv.reader([file.readline(MAX_HEADER)]), ())) >= COLUMNS


def _is_our_summary(path: Path) -> bool:
    content = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(content, dict) and set(content) >= ENTRIES


def write_comparison(analyser: Analyser, rows: list[ScanRow], batch: Batch, out: Path) -> list[Summary]:
    """Write compare.csv and summary.json, inside the same `hold_folder` as `compare_cases`.

    Raises:
        OutputError: They cannot be written.
    """
    summaries = summarise(rows)
    content = {
        "schema": 1,
        "notice": RESEARCH_USE,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": analyser.card.version,
        "sha256": analyser.card.sha256,
        "cutoff": analyser.card.lesion_threshold,
        "scans": len(rows),
        "distinct_scans": len(set(distinct_scans(rows).tolist())),
        "same_pixels": len(same_pixels(rows)),
        "not_read": sum(row.problem is not None for row in rows),
        "without_reference_mask": sum(row.problem is None and row.truth.problem is not None for row in rows),
        "masks_without_a_scan": [file.name for file in batch.lone_masks],
        "masks_in_doubt": [file.name for file in batch.doubtful_masks],
        "left_out": list(batch.left_out),
        "problems": list(batch.problems),
        "summaries": [summary.record() for summary in summaries],
    }
    write_atomically(out / CSV_FILE, rows_csv(rows))
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(out / SUMMARY_FILE, text.encode("utf-8", "replace"))  # names as the disk has them
    return summaries


def _key(case: Case, reader: str) -> str:
    """What a row depends on: names, sizes, times and inodes of its files, class, case, model.

    The time that a copy or a swap of names can keep is not enough.
    """
    files = [[file.name, file.size, file.modified_ns, *file.stamp] for file in (case.scan, *case.masks)]
    return json.dumps([reader, case.diagnosis, case.patient, files])


def _line(key: str, row: ScanRow) -> bytes:
    reading = None
    if row.reading is not None:
        packed = base64.b64encode(row.reading.fingerprint.astype(np.float32).tobytes()).decode()
        reading = {"record": dict(row.reading.record), "digest": row.reading.digest, "fingerprint": packed}
    content = {
        "key": key,
        "id": row.id,
        "name": row.name,
        "problem": row.problem,
        "group": row.group,
        "reading": reading,
        "truth": row.truth.record(),
    }
    return (json.dumps(content | {CHECKSUM: _checksum(content)}) + "\n").encode()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _read_rows(path: Path) -> dict[str, ScanRow]:
    """Rows that an earlier run finished, by key.

    A line that is torn, damaged or of an older form is left out, and a scan or mask that could not be read: it may be
    readable now.
    """
    rows: dict[str, ScanRow] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return rows
    for line in lines:
        try:
            content = json.loads(line)
            if content.pop(CHECKSUM) != _checksum(content):
                continue
            row = _read_row(content)
            if row.reading is not None and (row.truth.problem is None or row.truth.missing):
                rows[content["key"]] = row
        except DAMAGE_ERRORS:
            continue
    return rows


def _read_row(content: dict[str, Any]) -> ScanRow:
    truth, reading = content["truth"], content["reading"]
    figures = {name: math.nan if truth[name] is None else float(truth[name]) for name in FIGURES}
    return ScanRow(
        id=content["id"],
        name=content["name"],
        problem=content["problem"],
        reading=None
        if reading is None
        else Reading(
            reading["record"],
            reading["digest"],
            np.frombuffer(base64.b64decode(reading["fingerprint"]), np.float32),
            None,
        ),
        truth=Truth(
            diagnosis=Diagnosis(truth["class"]) if truth["class"] else None,
            lesion_pixels=truth["lesion_pixels"],
            problem=truth["problem"],
            missing=truth["missing"],
            notes=tuple(truth["notes"]),
            taught=truth["taught_the_model"],
            **figures,
        ),
        group=content["group"],
    )
