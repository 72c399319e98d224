"""The store of corrected cases: what a reader drew in place of a model's mask, kept for retraining.

    <BUSI_CORRECTIONS_DIR>/<id>/scan.png          the scan's grey pixels and nothing else: no tags, no name
                                before.png        the model's mask when the reader began
                                after.png         the reader's mask
                                correction.json   who, when, which model version, cut-off, class, checksums

A case is written into a hidden folder and renamed, so that a reader, a kill or a full disk never meets half of one.
Its id is drawn at random; the upload's name is not kept. The folder is chosen by the server's owner; without it
nothing is ever kept.
"""

import hashlib
import json
import re
import secrets
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from busi_core.audit import AuditLog
from busi_core.errors import DatasetError, OutputError
from busi_core.files import flush_folder, write_atomically
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.types import Diagnosis, Grey, Mask

SCHEMA = 1
RECORD_FILE = "correction.json"
SCAN_FILE, BEFORE_FILE, AFTER_FILE = "scan.png", "before.png", "after.png"
ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
MAX_WHO = 80  # characters of a name or initials
UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Correction:
    """What is known about one corrected case, beside its three pictures.

    Attributes:
        id: Its folder: when it was kept, in UTC, and random digits.
        who: The reader, as typed or signed in.
        when: ISO 8601, UTC.
        model_version: Which weights drew the mask before.
        threshold: The cut-off that it was drawn at.
        diagnosis: Class of the image as the reader gives it; None where not given.
        height, width: Of all three pictures.
        pixels_before, pixels_after: Of the lesion.
        scan_pixels: SHA-256 of the grey pixels: cases of one scan belong on one side of a split.
        sha256: Of each picture file.
        no_patient_text: The reader confirmed that no name or number of a patient is burned into the scan.
    """

    id: str
    who: str
    when: str
    model_version: str
    threshold: float
    diagnosis: Diagnosis | None
    height: int
    width: int
    pixels_before: int
    pixels_after: int
    scan_pixels: str
    sha256: dict[str, str]
    no_patient_text: bool


def keep_correction(
    folder: Path | None,
    *,
    grey: Grey,
    before: Mask,
    after: Mask,
    who: str,
    model_version: str,
    threshold: float,
    diagnosis: Diagnosis | None,
    no_patient_text: bool,
    audit: AuditLog | None = None,
    now: datetime | None = None,
) -> Correction:
    """Keep one corrected case; whole, or not at all.

    Args:
        folder: Of the store; None when the server's owner has not set one.
        grey: The scan's pixels as the model read them.
        before: The model's mask, (height, width) bool.
        after: The reader's mask.
        who: Name or initials of the reader.
        model_version: Of the mask before.
        threshold: Of the mask before.
        diagnosis: Class of the image in the reader's opinion.
        no_patient_text: The reader looked, and no patient's name or number is burned into the pixels.
        audit: Gets an entry before the case is kept; None on a server that nobody administers.
        now: For tests.

    Raises:
        OutputError: The store is off, something needed is missing, the disk is full, or the audit log cannot be
            written; nothing was kept.
    """
    if folder is None:
        raise OutputError(
            "This server keeps no corrected cases.", remedy="Download the mask, or ask the owner of the server."
        )
    if not no_patient_text:
        raise OutputError(
            "Nobody confirmed that no patient text is burned into the scan.",
            remedy="Look at the whole scan and tick the box, or download the mask instead.",
        )
    name = " ".join(who.split())
    if not name or len(name) > MAX_WHO or not name.isprintable():
        raise OutputError(
            "A corrected case needs the reader's name or initials.", remedy=f"Type up to {MAX_WHO} characters."
        )
    if not (before.shape == after.shape == grey.shape and before.dtype == after.dtype == np.bool_):
        raise ValueError(f"both masks must be {grey.shape} bool, got {before.shape} and {after.shape}")
    moment = now or datetime.now(UTC)
    pictures = {SCAN_FILE: encode_png(grey), BEFORE_FILE: mask_png(before), AFTER_FILE: mask_png(after)}
    correction = Correction(
        id=f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}",
        who=name,
        when=moment.isoformat(timespec="seconds"),
        model_version=model_version,
        threshold=threshold,
        diagnosis=diagnosis,
        height=int(grey.shape[0]),
        width=int(grey.shape[1]),
        pixels_before=int(before.sum()),
        pixels_after=int(after.sum()),
        scan_pixels=hashlib.sha256(grey.tobytes()).hexdigest(),
        sha256={file: hashlib.sha256(content).hexdigest() for file, content in pictures.items()},
        no_patient_text=True,
    )
    if audit is not None:
        audit.append(
            f"{name} (reader, as typed)",
            "correction.kept",
            correction.id,
            model_version=model_version,
            pixels_before=correction.pixels_before,
            pixels_after=correction.pixels_after,
        )
    _write_case(folder, correction, pictures)
    return correction


def read_corrections(folder: Path) -> list[Correction]:
    """Every whole case of the store, oldest first; what a kill left unfinished is passed over.

    Raises:
        DatasetError: A case is damaged: its record or a picture is missing or was changed.
    """
    if not folder.is_dir():
        return []
    return [_read_case(case) for case in sorted(folder.iterdir()) if ID.fullmatch(case.name)]


def _write_case(folder: Path, correction: Correction, pictures: dict[str, bytes]) -> None:
    unfinished = folder / f"{UNFINISHED}{correction.id}"
    content = json.dumps({"schema": SCHEMA, **asdict(correction)}, indent=1, ensure_ascii=False) + "\n"
    try:
        for file, picture in pictures.items():
            write_atomically(unfinished / file, picture)
        write_atomically(unfinished / RECORD_FILE, content.encode())
        unfinished.rename(folder / correction.id)
        flush_folder(folder)
    except OSError as error:
        raise OutputError(
            f"The corrected case could not be kept ({error.strerror}).", remedy="Tell the owner of the server."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _read_case(case: Path) -> Correction:
    try:
        content: dict[str, Any] = json.loads((case / RECORD_FILE).read_text(encoding="utf-8"))
        schema = content.pop("schema")
        correction = Correction(
            **{**content, "diagnosis": Diagnosis(content["diagnosis"]) if content["diagnosis"] else None}
        )
        sound = all(
            hashlib.sha256((case / file).read_bytes()).hexdigest() == correction.sha256[file]
            for file in (SCAN_FILE, BEFORE_FILE, AFTER_FILE)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(case.name) from error
    if schema != SCHEMA or not sound or correction.id != case.name:
        raise _damaged(case.name)
    return correction


def _damaged(case: str) -> DatasetError:
    return DatasetError(
        f"The corrected case {case} is damaged: a file is missing or was changed.",
        remedy="Restore it from a backup, or move its folder out of the store.",
    )
