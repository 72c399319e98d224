"""Folders of scans in, folders of results out: mirrored, whole, and never over anything that is not a result."""

import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_core.errors import BusiError, InvalidImageError, OutputError
from busi_core.files import write_atomically
from busi_core.findings import read_finding
from busi_core.folder import Outcome, analyse_plan, plan_paths
from busi_core.imaging.overlay import draw_heatmap
from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import upsample
from busi_core.service import Analyser
from busi_core.types import Diagnosis

MASK = np.zeros((96, 120), np.uint8)


@pytest.fixture(scope="module")
def scan() -> bytes:
    return simulate_scan(Diagnosis.MALIGNANT, seed=5, height=96, width=120).png()


@pytest.fixture
def scans(tmp_path: Path, scan: bytes) -> Path:
    """A folder in BUSI's layout with two scans, a mask and a note."""
    folder = tmp_path / "scans"
    for name in ("benign/benign (2).png", "benign/benign (10).png", "malignant/malignant (1).png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(scan)
    Image.fromarray(MASK).save(folder / "benign/benign (2)_mask.png")
    (folder / "notes.txt").write_text("not a scan")
    return folder


def files_under(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def read(analyser: Analyser, *paths: Path, out: Path) -> list[Outcome]:
    return list(analyse_plan(analyser, plan_paths(paths, out)))


def three(stem: str) -> set[str]:
    return {f"{stem}.json", f"{stem}_mask.png", f"{stem}_heatmap.png"}


def test_folders_are_mirrored_and_masks_and_other_files_are_left_out(
    analyser: Analyser, scans: Path, tmp_path: Path
) -> None:
    outcomes = read(analyser, scans, out=tmp_path / "out")
    assert [outcome.path.name for outcome in outcomes] == [*("benign (2).png", "benign (10).png", "malignant (1).png")]
    assert not [outcome for outcome in outcomes if outcome.error]
    stems = ("benign/benign (2)", "benign/benign (10)", "malignant/malignant (1)")
    assert files_under(tmp_path / "out") == set.union(*map(three, stems))


def test_a_single_file_is_written_by_its_name_and_read_whatever_it_is_called(
    analyser: Analyser, tmp_path: Path, scan: bytes
) -> None:
    odd = tmp_path / "U18 скан_mask.bin"
    odd.write_bytes(scan)
    (outcome,) = read(analyser, odd, out=tmp_path / "out")
    assert outcome.error is None
    assert files_under(tmp_path / "out") == three("U18 скан_mask")


def test_the_files_hold_what_the_analysis_says(analyser: Analyser, tmp_path: Path, scan: bytes) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(scan)
    (outcome,) = read(analyser, path, out=tmp_path)
    analysis = analyser.analyse(scan)
    finding = read_finding(analysis)
    mask = Image.open(tmp_path / "scan_mask.png")
    assert (mask.mode, mask.size) == ("L", (120, 96))
    assert np.array_equal(np.array(mask), np.where(finding.lesion_mask, 255, 0))
    heat = analysis.heatmaps[analysis.prediction.diagnosis]
    picture = np.array(Image.open(tmp_path / "scan_heatmap.png"))
    assert np.array_equal(picture, draw_heatmap(analysis.image.rgb, upsample(heat.evidence, 96, 120)))
    record = json.loads((tmp_path / "scan.json").read_text(encoding="utf-8"))
    assert record["lesion_pixels"] == finding.lesion_pixels == int((np.array(mask) == 255).sum())
    assert record["class"] == analysis.prediction.diagnosis
    assert record["probabilities"] == {d.value: analysis.prediction.probabilities[d] for d in Diagnosis}
    assert record["class"] in outcome.summary
    assert f"{finding.lesion_pixels} px" in outcome.summary


def test_a_bad_file_is_reported_and_the_others_are_read(
    analyser: Analyser, scans: Path, tmp_path: Path, scan: bytes
) -> None:
    """U20."""
    (scans / "benign/benign (3).png").write_bytes(scan[:2000])
    (scans / "benign/benign (4).png").write_bytes(b"")
    outcomes = read(analyser, scans, out=tmp_path / "out")
    failed = {outcome.path.name: outcome.error for outcome in outcomes if outcome.error}
    assert set(failed) == {"benign (3).png", "benign (4).png"}
    assert all(isinstance(error, InvalidImageError) for error in failed.values())
    assert sum(outcome.error is None for outcome in outcomes) == 3
    assert not any("benign (3)" in name or "benign (4)" in name for name in files_under(tmp_path / "out"))


def test_a_scan_that_cannot_be_opened_is_reported_and_the_others_are_read(
    analyser: Analyser, scans: Path, tmp_path: Path
) -> None:
    (scans / "benign/benign (3).png").mkdir()
    (scans / "benign/benign (4).png").symlink_to(tmp_path / "nowhere.png")
    outcomes = read(analyser, scans, out=tmp_path / "out")
    failed = {outcome.path.name: outcome.error.problem for outcome in outcomes if outcome.error}
    assert set(failed) == {"benign (4).png"}
    assert "cannot be opened" in failed["benign (4).png"]
    assert sum(outcome.error is None for outcome in outcomes) == 3


def test_a_file_too_large_to_be_read_is_refused_unread(analyser: Analyser, tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(300_000_000)  # takes no room on the disk
    tracemalloc.start()
    (outcome,) = read(analyser, tmp_path / "huge.png", out=tmp_path / "out")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(outcome.error, InvalidImageError)
    assert "300 MB" in outcome.error.problem
    assert most < 50_000_000


def test_two_inputs_with_one_result_are_refused_before_anything_is_read(
    analyser: Analyser, scans: Path, tmp_path: Path, scan: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U17."""
    (scans / "benign/benign (2).jpg").write_bytes(scan)
    monkeypatch.setattr(
        Analyser, "analyse_for_batch", lambda *_arguments, **_options: pytest.fail("something was read")
    )
    with pytest.raises(OutputError, match=r"benign \(2\)\.jpg.*benign \(2\)\.png|benign \(2\)\.png.*\.jpg"):
        read(analyser, scans, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_name_from_two_folders_is_refused_when_given_as_files(
    analyser: Analyser, tmp_path: Path, scan: bytes
) -> None:
    """U17."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scan.png").write_bytes(scan)
    with pytest.raises(OutputError, match="would both write"):
        read(analyser, tmp_path / "a/scan.png", tmp_path / "b/scan.png", out=tmp_path / "out")


def test_the_same_file_given_twice_is_read_once(analyser: Analyser, scans: Path, tmp_path: Path) -> None:
    path = scans / "benign/benign (2).png"
    assert len(read(analyser, path, path, out=tmp_path / "out")) == 1


def test_a_path_that_is_not_there_is_refused_before_anything_is_read(
    analyser: Analyser, scans: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"nowhere does not exist"):
        read(analyser, scans, tmp_path / "nowhere", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["scans", "scans/results"], ids=["among the scans", "below them"])
def test_a_second_run_reads_the_scans_and_not_the_results_of_the_first(
    analyser: Analyser, scans: Path, tmp_path: Path, out: str
) -> None:
    (scans / "benign/benign (2)_mask.png").unlink()
    first = read(analyser, scans, out=tmp_path / out)
    written = files_under(scans)
    second = read(analyser, scans, out=tmp_path / out)
    assert [outcome.path for outcome in second] == [outcome.path for outcome in first]
    assert not [outcome for outcome in second if outcome.error]
    assert files_under(scans) == written


def test_a_reference_mask_beside_a_scan_is_never_overwritten(analyser: Analyser, scans: Path) -> None:
    """BUSI's own masks have the very names that results have."""
    reference = scans / "benign/benign (2)_mask.png"
    before = reference.read_bytes()
    with pytest.raises(OutputError, match=r"benign \(2\)_mask\.png"):
        read(analyser, scans, out=scans)
    with pytest.raises(OutputError, match=r"benign \(2\)_mask\.png"):
        read(analyser, scans / "benign/benign (2).png", out=scans / "benign")
    assert reference.read_bytes() == before
    assert not list(scans.rglob("*.json"))


def test_a_full_disk_is_reported_for_each_file_and_leaves_no_record_without_its_pictures(
    analyser: Analyser, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J4."""

    def write_while_there_is_room(path: Path, content: bytes) -> None:
        if path.suffix == ".json" or "(10)" in path.name:
            raise OutputError(f"{path.name!r} could not be written (No space left on device).", remedy="Free some.")
        write_atomically(path, content)

    monkeypatch.setattr("busi_core.folder_results.write_atomically", write_while_there_is_room)
    outcomes = read(analyser, scans, out=tmp_path / "out")
    assert all(isinstance(outcome.error, OutputError) for outcome in outcomes)
    assert len(outcomes) == 3
    assert not list((tmp_path / "out").rglob("*.json"))


def test_the_chosen_frame_is_read_from_every_file(analyser: Analyser, tmp_path: Path) -> None:
    """U10."""
    frames = [Image.fromarray(simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120).grey) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    (tmp_path / "cine.tif").write_bytes(buffer.getvalue())
    plan = plan_paths([tmp_path / "cine.tif"], tmp_path / "out")
    list(analyse_plan(analyser, plan, frame=1))
    record = json.loads((tmp_path / "out/cine.json").read_text())
    assert (record["frame"], record["frames"]) == (2, 2)
    (outcome,) = analyse_plan(analyser, plan, frame=2)
    assert isinstance(outcome.error, BusiError)
    assert "Frame 3" in outcome.error.problem
