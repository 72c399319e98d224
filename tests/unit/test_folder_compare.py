"""`busi compare` into a folder: nothing foreign is written over, no row is believed that is not of these files."""

import csv
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from busi_core import folder_compare
from busi_core.cli import main
from busi_core.folder_compare import CSV_FILE, ROWS_FILE, SUMMARY_FILE, compare_cases, list_cases
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import SimulatedScan
from busi_core.service import Analyser
from busi_core.types import Analysis, Diagnosis

RESULTS = (ROWS_FILE, CSV_FILE, SUMMARY_FILE)


@pytest.fixture
def scans(tmp_path: Path, simulated: dict[Diagnosis, SimulatedScan], weights_dir: Path) -> Path:
    """A benign and a malignant scan, each with its mask."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for diagnosis in (Diagnosis.BENIGN, Diagnosis.MALIGNANT):
        (folder / f"{diagnosis} (1).png").write_bytes(simulated[diagnosis].png())
        (folder / f"{diagnosis} (1)_mask.png").write_bytes(mask_png(simulated[diagnosis].mask))
    return folder


def compare(scans: Path, out: Path, masks: Path | None = None) -> int:
    return main(["compare", str(scans), str(masks or scans), "--out", str(out), "--jobs", "1"])


def dice_of(out: Path) -> list[str]:
    return [line["dice"] for line in csv.DictReader((out / CSV_FILE).open(encoding="utf-8-sig"))]


def read_again(scans: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many scans another run reads."""
    read: list[str] = []
    analyse = Analyser.analyse_for_batch
    with monkeypatch.context() as patch:
        patch.setattr(Analyser, "analyse_for_batch", lambda *a, **k: read.append("a scan") or analyse(*a, **k))
        assert compare(scans, out) == 0
    return len(read)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"somebody's work\n", id="text"),
        pytest.param(b"file;dice\r\na.png;0.9\r\n", id="another table"),
        pytest.param(b'{"scans": 3}\n', id="another summary"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"\xff\xfe\0", id="bytes"),
        pytest.param(b"\n", id="an empty line"),
    ],
)
def test_what_is_no_result_is_never_written_over(
    scans: Path, tmp_path: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(content)
    assert compare(scans, out) == 1
    assert f"{name} is there already and is no result of this program. Move it away" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {name: content}


@pytest.mark.parametrize("name", RESULTS)
def test_a_folder_and_a_link_to_nothing_are_no_results_either(scans: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / name).mkdir(parents=True)
    (tmp_path / "a" / name).symlink_to("../elsewhere")
    assert compare(scans, tmp_path / "a") == compare(scans, tmp_path / "b") == 1
    assert (tmp_path / "a" / name).is_symlink()
    assert (tmp_path / "b" / name).is_dir()


@pytest.mark.parametrize("left", [0, 3, 100])
def test_rows_that_a_full_disk_cut_in_their_first_line_are_ours(scans: Path, tmp_path: Path, left: int) -> None:
    out = tmp_path / "out"
    assert compare(scans, out) == 0
    before = dice_of(out)
    (out / ROWS_FILE).write_bytes((out / ROWS_FILE).read_bytes()[:left])
    assert compare(scans, out) == 0
    assert dice_of(out) == before
    assert len((out / ROWS_FILE).read_text().splitlines()) == json.loads((out / SUMMARY_FILE).read_text())["scans"] == 2


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the run were killed when its rows are there and its tables are not."""
    monkeypatch.setattr(folder_compare, "summarise", killed)


def test_a_run_that_is_stopped_leaves_no_table_of_other_rows(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert compare(scans, out) == 0
    (scans / "benign (1)_mask.png").write_bytes((scans / "malignant (1)_mask.png").read_bytes())
    with monkeypatch.context() as patch:
        stop(patch)
        assert compare(scans, out) == 130
    assert [path.name for path in out.iterdir()] == [ROWS_FILE]
    assert compare(scans, out) == 0
    assert len(dice_of(out)) == 2


def test_a_run_with_nothing_to_do_that_is_stopped_leaves_the_tables(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert compare(scans, out) == 0
    before = {name: (out / name).read_bytes() for name in RESULTS}
    stop(monkeypatch)
    assert compare(scans, out) == 130
    assert {name: (out / name).read_bytes() for name in RESULTS} == before


@pytest.mark.parametrize(
    ("is_read", "owner", "step"),
    [
        pytest.param(False, Analyser, "analyse_for_batch", id="before its first row"),
        pytest.param(False, folder_compare, "summarise", id="after its last row"),
        pytest.param(True, folder_compare, "summarise", id="with nothing to read"),
    ],
)
def test_a_run_on_other_scans_that_is_stopped_loses_no_row_and_leaves_no_table_of_the_first(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_read: bool, owner: object, step: str
) -> None:
    out, part = tmp_path / "out", scans / "part"
    part.mkdir()
    for name in ("benign (1).png", "benign (1)_mask.png"):
        (part / name).write_bytes((scans / name).read_bytes())
    if is_read:
        assert compare(part, out) == 0
    assert compare(scans, out) == 0
    rows = (out / ROWS_FILE).read_text().splitlines()
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        assert compare(part, out) == 130
    assert not (out / CSV_FILE).exists()
    assert not (out / SUMMARY_FILE).exists()
    assert set((out / ROWS_FILE).read_text().splitlines()) >= set(rows)
    assert compare(part, out) == 0
    assert len(dice_of(out)) == json.loads((out / SUMMARY_FILE).read_text())["scans"] == 1
    assert read_again(scans, out, monkeypatch) == 0
    assert len(dice_of(out)) == json.loads((out / SUMMARY_FILE).read_text())["scans"] == 3


def test_a_folder_that_was_away_is_not_read_again(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a share that was not mounted, or that nobody was allowed to read."""
    out, share = tmp_path / "out", scans / "share"
    share.mkdir()
    for name in ("benign (1).png", "benign (1)_mask.png"):
        (scans / name).rename(share / name)
    assert compare(scans, out) == 0
    before = (out / CSV_FILE).read_bytes()
    (tmp_path / "elsewhere").mkdir()
    share.rename(tmp_path / "elsewhere/share")
    assert compare(scans, out) == 0
    assert len(dice_of(out)) == 1
    (tmp_path / "elsewhere/share").rename(share)
    assert read_again(scans, out, monkeypatch) == 0
    assert (out / CSV_FILE).read_bytes() == before


def damage(line: str, *keys: str, value: object) -> str:
    """A line of rows.jsonl with another value at one place."""
    content = json.loads(line)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(lambda line: damage(line, "truth", "dice", value=-7), id="a wrong figure"),
        pytest.param(lambda line: damage(line, "truth", "dice", value=10**400), id="400 digits"),
        pytest.param(lambda line: damage(line, "truth", "class", value=[]), id="a wrong class"),
        pytest.param(lambda line: damage(line, "reading", "fingerprint", value="AAAAAA=="), id="a short fingerprint"),
        pytest.param(lambda line: damage(line, "reading", "record", value=[]), id="a wrong type"),
        pytest.param(lambda line: damage(line, "reading", "record", "probabilities", value=[1]), id="a wrong score"),
        pytest.param(lambda line: damage(line, "blake2b", value=0), id="a wrong checksum"),
        pytest.param(lambda line: line.replace(', "blake2b"', ', "other"'), id="an older form"),
        pytest.param(lambda _line: '{"key": "' + "9" * 5000, id="torn"),
        pytest.param(lambda _line: "[" * 100_000, id="deep"),
        pytest.param(lambda _line: '{"blake2b": ' * 100_000, id="deep as an object"),
        pytest.param(lambda _line: "9" * 5000, id="a long number"),
        pytest.param(lambda _line: "null", id="nothing"),
        pytest.param(lambda _line: "[]", id="a list"),
        pytest.param(lambda _line: "\0\udcff", id="no text"),
    ],
)
def test_a_damaged_row_is_read_anew_and_never_believed(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Callable[[str], str]
) -> None:
    out = tmp_path / "out"
    assert compare(scans, out) == 0
    rows, table = (out / ROWS_FILE).read_text(), (out / CSV_FILE).read_bytes()
    first, second = rows.splitlines()
    (out / ROWS_FILE).write_text(f"{first}\n{line(second)}\n", errors="surrogateescape")
    assert read_again(scans, out, monkeypatch) == 1
    assert (out / CSV_FILE).read_bytes() == table
    assert (out / ROWS_FILE).read_text() == rows


@pytest.mark.parametrize("kind", ["scan", "mask"])
@pytest.mark.parametrize("way", ["swapped names", "written over"])
def test_another_file_of_equal_size_and_time_is_read_again(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, way: str
) -> None:
    """As `cp -p` and `mv` leave them."""
    out = tmp_path / "out"
    end = ".png" if kind == "scan" else "_mask.png"
    benign, malignant = (scans / f"{diagnosis} (1){end}" for diagnosis in ("benign", "malignant"))
    size = max(path.stat().st_size for path in (benign, malignant))
    for path in (benign, malignant):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (10**9, 10**9))
    assert compare(scans, out) == 0
    assert read_again(scans, out, monkeypatch) == 0
    if way == "swapped names":
        benign.rename(scans / "kept")
        malignant.rename(benign)
        (scans / "kept").rename(malignant)
    else:
        benign.write_bytes(malignant.read_bytes())
        os.utime(benign, (10**9, 10**9))
    assert read_again(scans, out, monkeypatch) == (2 if way == "swapped names" else 1)
    assert compare(scans, tmp_path / "fresh") == 0
    assert (tmp_path / "fresh" / CSV_FILE).read_bytes() == (out / CSV_FILE).read_bytes()


@pytest.mark.parametrize("which", ["images", "masks", "out"])
def test_a_link_to_itself_is_refused_in_words(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    folders = {"images": scans, "masks": scans, "out": tmp_path / "out"} | {which: loop}
    assert compare(folders["images"], folders["out"], folders["masks"]) == 1
    said = capsys.readouterr().err
    assert ("leads back to itself" if which == "out" else "There is no folder 'loop'") in said
    assert loop.is_symlink()


def test_a_folder_of_masks_that_is_a_link_to_the_scans_is_the_same_folder(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").symlink_to(scans)
    assert compare(scans, tmp_path / "out", tmp_path / "masks") == 0
    assert "n/a" not in dice_of(tmp_path / "out")


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_scans_side_by_side_share_the_cores_and_give_them_back(
    scans: Path, tmp_path: Path, analyser: Analyser, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """As in `busi analyse`; also when nobody asks for the rest."""
    seen: list[int] = []
    read = Analyser.analyse_for_batch

    def note(*args: Any, **options: Any) -> Analysis:
        seen.append(torch.get_num_threads())
        return read(*args, **options)

    monkeypatch.setattr(Analyser, "analyse_for_batch", note)
    (tmp_path / "out").mkdir()
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        rows = compare_cases(analyser, list_cases(scans, scans), tmp_path / "out", jobs=jobs)
        assert isinstance(rows, Generator)
        assert next(rows).problem is None
        rows.close()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {max(1, 4 // jobs)}
