"""The store of corrected cases: whole or not at all, pixels only, under an id."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import read_grey
from PIL import Image

from busi_core import corrections
from busi_core.audit import AuditLog
from busi_core.corrections import AFTER_FILE, BEFORE_FILE, SCAN_FILE, Correction, keep_correction, read_corrections
from busi_core.errors import DatasetError, OutputError
from busi_core.settings import read_settings
from busi_core.types import Diagnosis

GREY = np.random.default_rng(0).integers(0, 256, (80, 100), dtype=np.uint8)
BEFORE = np.zeros((80, 100), np.bool_)
BEFORE[10:30, 10:40] = True
AFTER = np.zeros((80, 100), np.bool_)
AFTER[12:36, 10:44] = True


def keep(folder: Path | None, **changes: Any) -> Correction:
    arguments: dict[str, Any] = {
        "grey": GREY,
        "before": BEFORE,
        "after": AFTER,
        "who": "A. Reader",
        "model_version": "2026.1",
        "threshold": 0.45,
        "diagnosis": Diagnosis.BENIGN,
        "no_patient_text": True,
    }
    return keep_correction(folder, **(arguments | changes))


def test_a_kept_case_says_who_when_which_model_before_and_after(tmp_path: Path) -> None:
    kept = keep(tmp_path, now=datetime(2026, 11, 20, 19, 30, 5, tzinfo=UTC))
    assert kept.id.startswith("20261120T193005Z-")
    (read,) = read_corrections(tmp_path)
    assert read == kept
    assert (read.who, read.when, read.model_version) == ("A. Reader", "2026-11-20T19:30:05+00:00", "2026.1")
    assert (read.pixels_before, read.pixels_after, read.diagnosis) == (600, 816, Diagnosis.BENIGN)
    assert np.array_equal(read_grey(tmp_path / read.id / SCAN_FILE), GREY)
    assert np.array_equal(read_grey(tmp_path / read.id / BEFORE_FILE), BEFORE * 255)
    assert np.array_equal(read_grey(tmp_path / read.id / AFTER_FILE), AFTER * 255)


def test_only_pixels_are_kept(tmp_path: Path) -> None:
    kept = keep(tmp_path)
    files = sorted(path.name for path in (tmp_path / kept.id).iterdir())
    assert files == ["after.png", "before.png", "correction.json", "scan.png"]
    for name in files[:2] + files[3:]:
        with Image.open(tmp_path / kept.id / name) as picture:
            assert picture.mode == "L"
            assert picture.info == {}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"no_patient_text": False}, "patient text"),
        ({"who": "  "}, "name or initials"),
        ({"who": "x" * 81}, "name or initials"),
        ({"who": "a\x00b"}, "name or initials"),
    ],
)
def test_nothing_is_kept_without_a_name_and_a_look_for_patient_text(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(OutputError, match=problem):
        keep(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_ever_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUSI_CORRECTIONS_DIR", raising=False)
    assert read_settings().corrections_dir is None
    with pytest.raises(OutputError, match="keeps no corrected cases"):
        keep(read_settings().corrections_dir)


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_full_disk_leaves_no_half_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    keep(tmp_path)
    written = 0
    write = corrections.write_atomically

    def full(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == fails_at:
            raise OutputError("full", remedy="")
        write(path, content)

    monkeypatch.setattr(corrections, "write_atomically", full)
    with pytest.raises(OutputError):
        keep(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(read_corrections(tmp_path)) == 1


def test_what_a_kill_left_behind_is_passed_over(tmp_path: Path) -> None:
    kept = keep(tmp_path)
    unfinished = tmp_path / f".unfinished-{kept.id}"
    unfinished.mkdir()
    (unfinished / "scan.png").write_bytes(b"half")
    assert [one.id for one in read_corrections(tmp_path)] == [kept.id]


@pytest.mark.parametrize("file", ["after.png", "scan.png", "correction.json"])
def test_a_changed_case_is_refused(tmp_path: Path, file: str) -> None:
    kept = keep(tmp_path)
    path = tmp_path / kept.id / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if file == "correction.json":
        record = json.loads(content)
        path.write_text(json.dumps(record | {"sha256": {}}))
    with pytest.raises(DatasetError, match="damaged"):
        read_corrections(tmp_path)


def test_two_cases_of_one_scan_can_be_told_to_be_one_scan(tmp_path: Path) -> None:
    assert keep(tmp_path).scan_pixels == keep(tmp_path, after=BEFORE).scan_pixels
    assert len(read_corrections(tmp_path)) == 2


def test_where_somebody_administers_the_audit_log_tells_of_it_without_the_scan(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.sqlite")
    kept = keep(tmp_path / "store", audit=log)
    (entry,) = log.read()
    assert (entry.action, entry.subject, entry.who) == ("correction.kept", kept.id, "A. Reader (reader, as typed)")
    assert entry.details == {"model_version": "2026.1", "pixels_before": 600, "pixels_after": 816}


def test_a_case_that_the_audit_log_cannot_tell_of_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError):
        keep(tmp_path / "store", audit=AuditLog(tmp_path / "file" / "audit.sqlite"))
    assert read_corrections(tmp_path / "store") == []
