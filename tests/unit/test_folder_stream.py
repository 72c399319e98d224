"""`busi analyse` and `busi compare` on folders: mirrored, streamed, resumed, each result written once."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from versions import make_analyser

from busi_core import batch, folder_compare, folder_results
from busi_core.cli import main
from busi_core.data.pixel_hash import pixel_hash
from busi_core.data.truth import Reference
from busi_core.errors import InvalidImageError, OutputError
from busi_core.folder import Outcome, analyse_plan, plan_paths
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.report import RECORD_SCHEMA, read_by
from busi_core.service import Analyser
from busi_core.taught import TaughtScans
from busi_core.types import Analysis, DecodedImage, Diagnosis


@pytest.fixture
def scans(tmp_path: Path, simulated: dict[Diagnosis, SimulatedScan]) -> Path:
    """A folder in BUSI's layout: one scan a class, each with its mask."""
    folder = tmp_path / "scans"
    for diagnosis, scan in simulated.items():
        (folder / diagnosis.value).mkdir(parents=True)
        (folder / diagnosis.value / f"{diagnosis} (1).png").write_bytes(scan.png())
        (folder / diagnosis.value / f"{diagnosis} (1)_mask.png").write_bytes(mask_png(scan.mask))
    return folder


def run(analyser: Analyser, paths: Path | list[Path], out: Path) -> list[Outcome]:
    return list(analyse_plan(analyser, plan_paths(paths if isinstance(paths, list) else [paths], out)))


def written(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file()}


def test_results_are_mirrored_and_masks_skipped(analyser: Analyser, scans: Path, tmp_path: Path) -> None:
    outcomes = run(analyser, scans, tmp_path / "out")
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert set(written(tmp_path / "out")) == {
        f"{d}/{d} (1){end}" for d in Diagnosis for end in (".json", "_mask.png", "_heatmap.png")
    }


def test_a_scan_that_taught_the_model_is_named_in_its_record_and_on_its_line(scans: Path, tmp_path: Path) -> None:
    other = simulate_scan(Diagnosis.BENIGN, seed=40)  # of another breast
    (scans / "benign" / "renamed.png").write_bytes(other.png())
    analyser = make_analyser()
    analyser.taught = TaughtScans((), [pixel_hash(other.grey)])
    outcomes = run(analyser, scans, tmp_path / "out")
    assert len(outcomes) == 4
    for outcome in outcomes:
        taught = outcome.path.stem == "renamed"
        record = json.loads((tmp_path / "out" / outcome.path.parent.name / f"{outcome.path.stem}.json").read_text())
        assert record["taught_the_model"] is taught
        assert outcome.summary.endswith("; taught the model") is taught


def test_masks_of_bus_bra_are_skipped_too(tmp_path: Path) -> None:
    for name in ("Images/bus_0001-l.png", "Masks/mask_0001-l.png", "mask_of_fear.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    plan = plan_paths([tmp_path], tmp_path / "out")
    assert {source.name for source, _ in plan.targets} == {"bus_0001-l.png", "mask_of_fear.png"}


def test_two_inputs_for_one_result_are_refused_before_anything_is_read(scans: Path, tmp_path: Path) -> None:
    shutil.copy(scans / "benign/benign (1).png", scans / "benign/benign (1).jpg")
    with pytest.raises(OutputError, match="would both write"):
        plan_paths([scans], tmp_path / "out")
    with pytest.raises(OutputError, match="does not exist"):
        plan_paths([scans / "none"], tmp_path / "out")


def test_what_is_done_is_not_read_again(analyser: Analyser, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(analyser, scans, out)
    before = written(out)
    assert [outcome.already_done for outcome in run(analyser, scans, out)] == [True] * 3
    assert written(out) == before


def test_a_touched_file_is_left_alone_and_a_changed_one_read_again(
    analyser: Analyser, scans: Path, tmp_path: Path
) -> None:
    out, touched, changed = tmp_path / "out", scans / "benign/benign (1).png", scans / "normal/normal (1).png"
    run(analyser, scans, out)
    os.utime(touched, (1, 1))
    changed.write_bytes(simulate_scan(Diagnosis.NORMAL, seed=77, height=96, width=120).png())
    assert [outcome.already_done for outcome in run(analyser, scans, out)] == [True, True, False]


@pytest.mark.parametrize("gone", ["benign/benign (1)_mask.png", "benign/benign (1)_heatmap.png"])
def test_a_result_that_lost_a_picture_is_made_again(analyser: Analyser, scans: Path, tmp_path: Path, gone: str) -> None:
    out = tmp_path / "out"
    run(analyser, scans, out)
    (out / gone).unlink()
    assert [outcome.already_done for outcome in run(analyser, scans, out)] == [False, True, True]
    assert (out / gone).is_file()


def test_another_model_or_a_torn_record_is_read_again(
    analyser: Analyser, scans: Path, tmp_path: Path, weights_dir: Path
) -> None:
    from versions import make_analyser

    out = tmp_path / "out"
    run(analyser, scans, out)
    record = out / "benign/benign (1).json"
    record.write_text(record.read_text()[:100])
    assert [o.already_done for o in run(analyser, scans, out)] == [False, True, True]
    assert not any(o.already_done for o in run(make_analyser(version="other"), scans, out))


def test_a_record_of_an_older_form_is_made_anew(analyser: Analyser, scans: Path, tmp_path: Path) -> None:
    """Of the same model; fields may be missing in it, or mean something else."""
    out = tmp_path / "out"
    run(analyser, scans, out)
    record = out / "benign/benign (1).json"
    whole = record.read_text()
    record.write_text(whole.replace(read_by(analyser.identity), f"{RECORD_SCHEMA - 1}-{analyser.identity}"))
    assert record.read_text() != whole
    assert [outcome.already_done for outcome in run(analyser, scans, out)] == [False, True, True]
    assert json.loads(record.read_text())["input"]["read_by"] == read_by(analyser.identity)


def test_a_bad_file_is_reported_the_rest_goes_on_and_the_exit_status_says_so(
    weights_dir: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scans / "broken.png").write_bytes(b"text")
    assert main(["analyse", str(scans), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert "broken.png: The file is not an image" in said.err
    (scans / "broken.png").unlink()
    assert main(["analyse", str(scans), "--out", str(tmp_path / "out")]) == 0
    assert "3 files were done before" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["0", "65", "x"])
def test_a_senseless_number_of_jobs_is_wrong_usage(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["analyse", ".", "--out", "x", "--jobs", jobs])


@pytest.mark.parametrize(
    ("first", "second"),
    [((".", "out"), (".", "out")), ((".", "out"), ("benign", "out/benign")), (("benign", "out/benign"), (".", "out"))],
    ids=["the same folder", "one below", "one above"],
)
def test_while_a_run_writes_into_a_folder_another_is_refused(
    analyser: Analyser, scans: Path, tmp_path: Path, first: tuple[str, str], second: tuple[str, str]
) -> None:
    """Else a record may stand beside the pictures of the other run."""
    shutil.copy(scans / "benign/benign (1).png", scans / "benign/benign (2).png")
    outcomes = analyse_plan(analyser, plan_paths([scans / first[0]], tmp_path / first[1]), jobs=1)
    assert next(outcomes).error is None
    with pytest.raises(OutputError, match=r"Another run is writing into the folder .* Wait until it is done"):
        run(analyser, scans / second[0], tmp_path / second[1])
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert all(outcome.already_done for outcome in run(analyser, scans / first[0], tmp_path / first[1]))
    assert not [outcome.error for outcome in run(analyser, scans / second[0], tmp_path / second[1]) if outcome.error]
    assert not list(tmp_path.rglob(".*"))


def test_a_run_that_nobody_sees_to_its_end_gives_the_folder_back(
    analyser: Analyser, scans: Path, tmp_path: Path
) -> None:
    outcomes = analyse_plan(analyser, plan_paths([scans], tmp_path / "out"), jobs=1)
    next(outcomes)
    outcomes.close()
    assert len(run(analyser, scans, tmp_path / "out")) == 3


def test_a_folder_whose_run_was_killed_is_free(analyser: Analyser, scans: Path, tmp_path: Path) -> None:
    """kill -9: the system lets go of the lock, whose file stays until the next run is over."""
    out = tmp_path / "out"
    code = "import sys, pathlib, busi_core.locks as locks, time\n"
    code += "with locks.hold_folder(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(OutputError, match="Another run"):
            run(analyser, scans, out)
        process.kill()
    assert list(out.glob(".*"))
    assert [outcome.error for outcome in run(analyser, scans, out)] == [None] * 3
    assert not list(out.rglob(".*"))


def test_of_two_comparisons_into_one_folder_the_second_is_refused(
    weights_dir: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While the rows come, and until the tables of these rows are written."""
    codes: list[int] = []
    arguments = ["compare", str(scans), str(scans), "--out", str(tmp_path / "out"), "--jobs", "1"]

    def meanwhile(name: str) -> None:
        first = getattr(folder_compare, name)

        def another_run(*args: Any, **options: Any) -> object:
            monkeypatch.setattr(folder_compare, name, first)
            codes.append(main(arguments))
            return first(*args, **options)

        monkeypatch.setattr(folder_compare, name, another_run)

    for name in ("read_cases", "summarise"):
        meanwhile(name)
    assert main(arguments) == 0
    assert codes == [1, 1]
    assert capsys.readouterr().err.count("Another run is writing into the folder") == 2
    assert main(arguments) == 0
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(weights_dir: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: every record that is there has its pictures, and none of them is written again."""
    folder, out = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    for seed in range(24):
        scan = simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120)
        (folder / f"{seed}.png").write_bytes(scan.png())
    code = "import sys; from busi_core.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "analyse", str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(out.glob("*.json"))) < 5 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(done) >= 5
    for name in done:
        record = json.loads((out / name).read_text())  # whole
        assert record["model"] == "tiny"
        assert all((out / name.replace(".json", end)).is_file() for end in ("_mask.png", "_heatmap.png"))
    assert main(["analyse", str(folder), "--out", str(out)]) == 0
    assert len(list(out.glob("*.json"))) == 24
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc to see a process's memory")
def test_memory_is_flat_over_ten_thousand_files(
    weights_dir: Path, tmp_path: Path, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """A scan kept after it was written would show: decoded it holds 46 KB, which is 220 MB in half the run.

    Pages of libraries are not counted: those that take the process down are read in at its end.
    """
    (tmp_path / "scans").mkdir()
    for number, scan in enumerate(simulated.values()):
        (tmp_path / f"{number}.png").write_bytes(scan.png())
    for number in range(10_000):
        os.link(tmp_path / f"{number % len(simulated)}.png", tmp_path / f"scans/{number:05}.png")
    command = [sys.executable, "-m", "busi_core.cli", "analyse", str(tmp_path / "scans"), "--jobs", "2"]
    held_mb: list[float] = []
    with subprocess.Popen([*command, "--out", str(tmp_path / "out")], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            resident, of_files = map(int, Path(f"/proc/{process.pid}/statm").read_text().split()[1:3])
            held_mb.append((resident - of_files) * os.sysconf("SC_PAGE_SIZE") / 2**20)
            time.sleep(1)
    assert process.returncode == 0
    assert sum(1 for path in (tmp_path / "out").iterdir() if path.suffix == ".json") == 10_000
    middle, end = held_mb[len(held_mb) // 2], max(held_mb[-10:])
    print(f"{held_mb[len(held_mb) // 8]:.0f} MB, half way {middle:.0f}, at the end {end:.0f}")  # noqa: T201
    assert end - middle < 20


def test_a_reading_among_the_scans_that_was_killed_is_made_again(
    analyser: Analyser, tmp_path: Path, simulated: dict[Diagnosis, SimulatedScan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures without a record are someone's reference masks, unless our claim lies beside them."""
    (tmp_path / "a.png").write_bytes(simulated[Diagnosis.BENIGN].png())
    write = folder_results.write_atomically

    def killed(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(folder_results, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        run(analyser, tmp_path, tmp_path)
    monkeypatch.setattr(folder_results, "write_atomically", write)
    assert [outcome.error for outcome in run(analyser, tmp_path, tmp_path)] == [None]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.json", "a_mask.png", "a_heatmap.png"}


def killed_while(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process were killed when it is about to write a file that ends so."""
    write = folder_results.write_atomically

    def killed(path: Path, content: bytes) -> None:
        if path.name.endswith(written):
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(folder_results, "write_atomically", killed)


def test_pictures_of_a_killed_reading_are_no_scans(
    analyser: Analyser, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the results below the scans."""
    with monkeypatch.context() as patch:
        killed_while(".json", patch)
        with pytest.raises(KeyboardInterrupt):
            run(analyser, scans, scans / "results")
    assert len(run(analyser, scans, scans / "results")) == 3
    assert not list(scans.rglob(".*"))


def test_a_record_never_stands_beside_pictures_of_another_reading(
    analyser: Analyser, tmp_path: Path, simulated: dict[Diagnosis, SimulatedScan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model was tried, its run killed before the record, and the model before it put back."""
    (tmp_path / "a.png").write_bytes(simulated[Diagnosis.BENIGN].png())
    out = tmp_path / "out"
    run(analyser, tmp_path / "a.png", out)
    mask = (out / "a_mask.png").read_bytes()
    with monkeypatch.context() as patch:
        killed_while(".json", patch)
        with pytest.raises(KeyboardInterrupt):
            run(make_analyser(version="other", lesion_threshold=0.01), tmp_path / "a.png", out)
    assert (out / "a_mask.png").read_bytes() != mask
    assert [outcome.already_done for outcome in run(analyser, tmp_path / "a.png", out)] == [False]
    assert (out / "a_mask.png").read_bytes() == mask


@pytest.mark.parametrize("place", ["beside the scans", "elsewhere"])
@pytest.mark.parametrize(
    ("name", "content"), [("a_mask.png", b"somebody's mask"), ("a.json", b'{"shapes": []}'), ("a.json", b"[1]")]
)
def test_what_is_no_result_is_never_written_over(
    analyser: Analyser,
    tmp_path: Path,
    simulated: dict[Diagnosis, SimulatedScan],
    place: str,
    name: str,
    content: bytes,
) -> None:
    """Masks in BUSI's naming, outlines of an annotation program: whatever folder the results are sent to."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/a.png").write_bytes(simulated[Diagnosis.BENIGN].png())
    out = tmp_path / ("scans" if place == "beside the scans" else "masks")
    out.mkdir(exist_ok=True)
    (out / name).write_bytes(content)
    with pytest.raises(OutputError, match="no result of this program"):
        run(analyser, tmp_path / "scans", out)
    assert (out / name).read_bytes() == content


def test_a_name_that_gives_no_result_file_stops_no_other(
    analyser: Analyser, tmp_path: Path, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    too_long = f"{'n' * 251}.png"
    for name in (too_long, "b.png"):
        (tmp_path / name).write_bytes(simulated[Diagnosis.BENIGN].png())
    outcomes = {outcome.path.name: outcome for outcome in run(analyser, tmp_path, tmp_path)}
    assert outcomes["b.png"].error is None
    assert outcomes[too_long].error is not None


def test_what_is_hidden_and_what_is_no_file_is_no_scan(
    analyser: Analyser, tmp_path: Path, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """macOS leaves '._a.png' beside each file that it copies to another kind of disk, and __MACOSX in its zips."""
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "series.png").mkdir()
    for name in ("a.png", "._a.png", "__MACOSX/._a.png", "..png", "series.png/b.png"):
        (tmp_path / name).write_bytes(simulated[Diagnosis.BENIGN].png())
    found = [str(outcome.path.relative_to(tmp_path)) for outcome in run(analyser, tmp_path, tmp_path / "out")]
    assert found == ["a.png", "series.png/b.png"]


def test_compare_writes_a_line_a_scan_and_figures_with_intervals(
    weights_dir: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(scans), str(scans), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "lesion Dice" in said
    lines = list(csv.DictReader((out / "compare.csv").open(encoding="utf-8-sig")))
    assert [line["reference_class"] for line in lines] == ["benign", "malignant", "normal"]
    assert [line["dice"] == "n/a" for line in lines] == [False, False, True]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["scans"] == 3
    assert set(summary["summaries"][0]["figures"]["lesion Dice"]) == {"estimate", "low", "high", "scans"}


def test_compare_names_a_missing_and_a_wrong_mask_and_goes_on(
    weights_dir: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """U22 at the command line."""
    (scans / "benign/benign (1)_mask.png").unlink()
    (scans / "malignant/malignant (1)_mask.png").write_bytes(b"text")
    (scans / "lone_mask.png").write_bytes(b"")
    out = tmp_path / "out"
    assert main(["compare", str(scans), str(scans), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "benign (1).png: No mask came" in said
    assert "malignant (1)_mask.png" in said
    assert "lone_mask.png: no scan came with this mask" in said
    lines = list(csv.DictReader((out / "compare.csv").open(encoding="utf-8-sig")))
    assert [line["dice"] for line in lines] == ["n/a"] * 3


def test_compare_names_a_mask_that_two_scans_have_a_claim_to(
    weights_dir: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """U17."""
    shutil.copy(scans / "benign/benign (1).png", scans / "benign/benign (1).jpg")
    assert main(["compare", str(scans), str(scans), "--out", str(tmp_path / "out")]) == 1
    assert "benign/benign (1)_mask.png: whose mask this is cannot be told" in capsys.readouterr().err
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["masks_in_doubt"] == ["benign/benign (1)_mask.png"]


def test_compare_takes_finished_rows_from_an_earlier_run_and_drops_a_torn_one(
    weights_dir: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(scans), str(scans), "--out", str(out)]) == 0
    first = (out / "compare.csv").read_bytes()
    rows = out / "rows.jsonl"
    rows.write_bytes(rows.read_bytes()[:-300])
    read: list[int] = []
    analyse = Analyser.analyse_for_batch
    monkeypatch.setattr(Analyser, "analyse_for_batch", lambda self, *a, **k: read.append(1) or analyse(self, *a, **k))
    assert main(["compare", str(scans), str(scans), "--out", str(out)]) == 0
    assert len(read) == 1
    assert (out / "compare.csv").read_bytes() == first


def test_compare_tries_again_what_could_not_be_read(
    weights_dir: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network share that was away, or a decoder that has been installed since."""

    def fail(_data: bytes) -> DecodedImage:
        raise InvalidImageError("The file cannot be opened.", remedy="Check its permissions.")

    arguments = ["compare", str(scans), str(scans), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(batch, "decode_image", fail)
        assert main(arguments) == 1
    assert main(arguments) == 0
    lines = list(csv.DictReader((tmp_path / "out/compare.csv").open(encoding="utf-8-sig")))
    assert [line["problem"] for line in lines] == [""] * 3


def test_compare_tries_again_a_mask_that_could_not_be_opened(
    weights_dir: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_masks: object, height: int, width: int, **_: object) -> Reference:
        del height, width
        return Reference(None, (), "The file cannot be opened.")

    arguments = ["compare", str(scans / "benign"), str(scans / "benign"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(batch, "read_reference", fail)
        assert main(arguments) == 1
    assert main(arguments) == 0


def test_a_lone_mask_of_any_name_is_listed(weights_dir: Path, scans: Path, tmp_path: Path) -> None:
    """Names on a disk are bytes, not always text."""
    (scans / "benign/benign (1)_mask.png").rename(scans / os.fsdecode(b"b\xe9_mask.png"))
    assert main(["compare", str(scans), str(scans), "--out", str(tmp_path / "out")]) == 1
    assert len(json.loads((tmp_path / "out/summary.json").read_text())["masks_without_a_scan"]) == 1


def test_compare_refuses_a_folder_without_scans(weights_dir: Path, tmp_path: Path) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert main(["compare", str(tmp_path / "none"), str(tmp_path), "--out", str(tmp_path / "out")]) == 1


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_scans_side_by_side_share_the_cores_and_give_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """Also when nobody asks for the rest."""
    seen: list[int] = []
    read = Analyser.analyse_for_batch

    def note(self: Analyser, image: DecodedImage) -> Analysis:
        seen.append(torch.get_num_threads())
        return read(self, image)

    monkeypatch.setattr(Analyser, "analyse_for_batch", note)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(
            simulate_scan(Diagnosis.BENIGN, seed=number, height=64, width=80).png()
        )
    plan = plan_paths([tmp_path], tmp_path / "out")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        outcomes = analyse_plan(make_analyser(), plan, jobs=jobs)
        assert next(outcomes).error is None
        outcomes.close()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {max(1, 4 // jobs)}
