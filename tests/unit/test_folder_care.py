"""`busi analyse` takes care of what is not its own: files of others, corrected masks, results of another scan."""

import errno
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from versions import make_analyser

from busi_core.errors import BusiError, InvalidImageError, OutputError
from busi_core.files import write_atomically
from busi_core.folder import Outcome, analyse_plan, plan_paths
from busi_core.imaging.phantom import simulate_scan
from busi_core.regular import read_regular
from busi_core.service import Analyser
from busi_core.types import Analysis, DecodedImage, Diagnosis

RESULTS = {"a.json", "a_mask.png", "a_heatmap.png"}
THEIRS = b"somebody's work"


def make_scan(path: Path, seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120).png())
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return make_scan(tmp_path / "in/a.png")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(analyser: Analyser, *paths: Path, out: Path) -> list[Outcome]:
    return list(analyse_plan(analyser, plan_paths(paths, out)))


def refusal(analyser: Analyser, scan: Path, out: Path) -> str:
    """Why the one scan was refused."""
    (outcome,) = run(analyser, scan, out=out)
    assert isinstance(outcome.error, OutputError)
    return str(outcome.error)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- files of others -----------------------------------------------------------------------------------------


def test_a_mask_and_a_heat_map_without_a_record_are_somebodys(analyser: Analyser, scan: Path, out: Path) -> None:
    out.mkdir()
    for kind in ("mask", "heatmap"):
        (out / f"a_{kind}.png").write_bytes(THEIRS)
    with pytest.raises(OutputError, match="no result of this program"):
        run(analyser, scan, out=out)
    assert {path.read_bytes() for path in out.iterdir()} == {THEIRS}


def test_a_mask_corrected_by_hand_is_never_replaced(analyser: Analyser, scan: Path, out: Path) -> None:
    """Neither where it was written the last time nor by another model; once it is moved away, the scan is read."""
    other = make_scan(scan.with_name("b.png"), seed=2)
    run(analyser, scan, other, out=out)
    mask = out / "a_mask.png"
    mask.write_bytes(THEIRS)
    assert [outcome.already_done for outcome in run(analyser, scan, other, out=out)] == [True, True]
    refused, read = run(make_analyser(version="other"), scan, other, out=out)
    assert "a_mask.png was changed since it was written. Move it away, or choose another folder." in str(refused.error)
    assert read.error is None
    assert not read.already_done
    assert mask.read_bytes() == THEIRS
    assert json.loads((out / "a.json").read_text())["model"] == "tiny"
    mask.rename(out / "corrected.png")
    assert [outcome.error for outcome in run(make_analyser(version="other"), scan, out=out)] == [None]


def test_a_picture_put_beside_a_record_of_ours_stays(analyser: Analyser, scan: Path, out: Path) -> None:
    """Of a kind that this record has none of."""
    run(analyser, scan, out=out)
    (out / "a_heatmap_hirescam.png").write_bytes(THEIRS)
    assert "a_heatmap_hirescam.png is there already" in refusal(make_analyser(version="other"), scan, out)
    assert (out / "a_heatmap_hirescam.png").read_bytes() == THEIRS


def test_pictures_of_an_older_record_are_replaced(analyser: Analyser, scan: Path, out: Path) -> None:
    """Which does not know their digests."""
    run(analyser, scan, out=out)
    record = json.loads((out / "a.json").read_text())
    assert set(record["input"].pop("pictures")) == {"mask", "heatmap"}
    (out / "a.json").write_text(json.dumps(record))
    (out / "a_mask.png").write_bytes(b"of an older program")
    assert [outcome.error for outcome in run(make_analyser(version="other"), scan, out=out)] == [None]
    assert Image.open(out / "a_mask.png").size == (120, 96)


@pytest.mark.parametrize("name", ["a_mask.png", "a.json", "a_heatmap.png"])
def test_a_link_that_leads_nowhere_is_somebodys(analyser: Analyser, scan: Path, out: Path, name: str) -> None:
    """git-annex keeps pictures so, until they are fetched."""
    out.mkdir()
    (out / name).symlink_to("../.annex/KEY")
    with pytest.raises(OutputError, match="no result of this program"):
        run(analyser, scan, out=out)
    assert (out / name).is_symlink()


@pytest.mark.parametrize("claim", [b"", b"notes"])
def test_a_file_with_the_name_of_a_claim_makes_no_mask_ours(
    analyser: Analyser, scan: Path, out: Path, claim: bytes
) -> None:
    out.mkdir()
    (out / ".a.reading").write_bytes(claim)
    (out / "a_mask.png").write_bytes(THEIRS)
    with pytest.raises(OutputError, match="no result of this program"):
        run(analyser, scan, out=out)
    assert (out / "a_mask.png").read_bytes() == THEIRS
    assert (out / ".a.reading").read_bytes() == claim


@pytest.mark.parametrize("before", ["first reading", "a reading of another model"])
@pytest.mark.parametrize("last", ["a_mask.png", "a_heatmap.png", "a.json"])
def test_what_a_kill_left_half_written_is_taken_over(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch, last: str, before: str
) -> None:
    if before != "first reading":
        run(make_analyser(version="other", lesion_threshold=0.01), scan, out=out)

    def killed(path: Path, content: bytes) -> None:
        if path.name == last:
            raise KeyboardInterrupt
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("busi_core.folder_results.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            run(analyser, scan, out=out)
    assert "a.json" not in names_in(out)
    assert [outcome.error for outcome in run(analyser, scan, out=out)] == [None]
    assert names_in(out) == RESULTS


def test_a_kill_before_the_earlier_results_went_is_taken_over_too(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody corrected one of them since: that one stays."""
    run(analyser, scan, out=out)

    def killed(_target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("busi_core.folder_results._remove_earlier", killed)
        with pytest.raises(KeyboardInterrupt):
            run(make_analyser(version="other"), scan, out=out)
    written = (out / "a_mask.png").read_bytes()
    (out / "a_mask.png").write_bytes(THEIRS)
    assert "a_mask.png was changed since it was written" in refusal(analyser, scan, out)
    assert (out / "a_mask.png").read_bytes() == THEIRS
    (out / "a_mask.png").write_bytes(written)
    assert [outcome.error for outcome in run(analyser, scan, out=out)] == [None]
    assert names_in(out) == RESULTS


@pytest.mark.parametrize("name", ["a_mask.png", "a.json", "a_heatmap.png"])
def test_a_file_that_appears_during_the_run_is_not_written_over(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read = Analyser.analyse_for_batch

    def meanwhile(self: Analyser, image: DecodedImage) -> Analysis:
        (out / name).write_bytes(THEIRS)
        return read(self, image)

    monkeypatch.setattr(Analyser, "analyse_for_batch", meanwhile)
    assert f"{name} is there already and is no result of this program" in refusal(analyser, scan, out)
    assert names_in(out) == {name}
    assert (out / name).read_bytes() == THEIRS


def test_a_file_that_appears_while_the_results_are_written_is_not_written_over(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        if path.name == "a_mask.png":
            (out / "a_heatmap.png").write_bytes(THEIRS)

    monkeypatch.setattr("busi_core.folder_results.write_atomically", meanwhile)
    assert "a_heatmap.png is there already" in refusal(analyser, scan, out)
    assert names_in(out) == {"a_heatmap.png"}
    assert (out / "a_heatmap.png").read_bytes() == THEIRS


# ---- a full disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["a_mask.png", "a_heatmap.png", "a.json"])
def test_after_a_full_disk_no_old_record_lies_beside_new_pictures(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    run(make_analyser(version="other"), scan, out=out)

    def full(path: Path, content: bytes) -> None:
        if path.name == last:
            raise OutputError(f"{path.name!r} could not be written (No space left on device).", remedy="Free some.")
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("busi_core.folder_results.write_atomically", full)
        assert "No space left" in refusal(analyser, scan, out)
    assert names_in(out) == set()
    assert [outcome.error for outcome in run(analyser, scan, out=out)] == [None]
    assert names_in(out) == RESULTS


def test_a_disk_too_full_for_a_claim_leaves_the_earlier_results(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make_analyser(version="other"), scan, out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(path: Path, _content: bytes) -> None:
        raise OutputError(f"{path.name!r} could not be written (No space left on device).", remedy="Free some.")

    monkeypatch.setattr("busi_core.folder_results.write_atomically", full)
    refusal(analyser, scan, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# ---- another scan --------------------------------------------------------------------------------------------


def test_two_scans_of_one_size_and_time_that_change_places_are_read_again(
    analyser: Analyser, tmp_path: Path, out: Path
) -> None:
    """Scanners write pictures of one size, and a copy keeps the time."""
    first, second = tmp_path / "in/a.bmp", tmp_path / "in/b.bmp"
    first.parent.mkdir()
    for seed, path in enumerate((first, second)):
        Image.fromarray(simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120).grey).save(path)
        os.utime(path, (1, 1))
    run(analyser, tmp_path / "in", out=out)
    before = json.loads((out / "a.json").read_text())["input"]["blake2b"]
    assert [outcome.already_done for outcome in run(analyser, tmp_path / "in", out=out)] == [True, True]
    first.rename(tmp_path / "in/c")
    second.rename(first)
    (tmp_path / "in/c").rename(second)
    assert [outcome.already_done for outcome in run(analyser, tmp_path / "in", out=out)] == [False, False]
    assert json.loads((out / "b.json").read_text())["input"]["blake2b"] == before


def test_a_copy_of_a_scan_is_not_read_again(analyser: Analyser, scan: Path, out: Path) -> None:
    """Another file on the disk, of the same content."""
    run(analyser, scan, out=out)
    content, times = scan.read_bytes(), scan.stat()
    scan.unlink()
    scan.with_name("other").write_bytes(b"takes the first one's place on the disk")
    scan.write_bytes(content)
    os.utime(scan, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [outcome.already_done for outcome in run(analyser, scan, out=out)] == [True]


def test_the_results_of_another_scan_of_the_same_name_are_kept(
    analyser: Analyser, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where both are named the same from their own folders, and beside a record of an older program."""
    first, second = make_scan(tmp_path / "A/a.png", 1), make_scan(tmp_path / "B/a.png", 2)
    other = make_scan(tmp_path / "B/b.png", 3)
    monkeypatch.chdir(first.parent)
    run(analyser, Path("a.png"), out=out)
    written = {name: (out / name).read_bytes() for name in RESULTS}
    monkeypatch.chdir(second.parent)
    refused, read = run(analyser, Path("a.png"), other, out=out)
    assert f"{out / 'a.json'} is of another scan, a.png. Choose another folder" in str(refused.error)
    assert read.error is None
    assert {name: (out / name).read_bytes() for name in RESULTS} == written
    record = json.loads(written["a.json"]) | {"file": str(first)}
    del record["input"]["place"]
    (out / "a.json").write_text(json.dumps(record))
    assert f"a.json is of another scan, {first}." in refusal(analyser, second, out)


def test_a_scan_that_changed_is_read_again_from_whatever_folder_it_is_named(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose name is a link, as git-annex and DVC keep their files, and whose name is no text."""
    odd = make_scan(scan.with_name(os.fsdecode(b"caf\xe9.png")))
    (scan.parent / "link.png").symlink_to(make_scan(scan.parent.parent / "store/1.png"))
    run(analyser, scan, odd, scan.parent / "link.png", out=out)
    make_scan(scan, seed=2)
    make_scan(odd, seed=2)
    (scan.parent / "link.png").unlink()
    (scan.parent / "link.png").symlink_to(make_scan(scan.parent.parent / "store/2.png", seed=2))
    monkeypatch.chdir(scan.parent)
    outcomes = run(analyser, Path("a.png"), Path(odd.name), Path("link.png"), out=out)
    assert [(outcome.error, outcome.already_done) for outcome in outcomes] == [(None, False)] * 3


def test_a_copy_elsewhere_of_a_scan_that_was_read_is_done(analyser: Analyser, scan: Path, out: Path) -> None:
    run(analyser, scan, out=out)
    assert [outcome.already_done for outcome in run(analyser, make_scan(scan.parent / "copy/a.png"), out=out)] == [True]


# ---- pipes, devices, records without end ---------------------------------------------------------------------


@pytest.mark.parametrize("device", ["a pipe", "/dev/zero"])
def test_a_pipe_or_device_is_refused_and_the_others_are_read(
    analyser: Analyser, scan: Path, out: Path, device: str
) -> None:
    """Nobody may ever write into the pipe, and the device has no end."""
    odd = scan.with_name("odd.png")
    if device == "a pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(device)
    refused, read = run(analyser, odd, scan, out=out)
    assert isinstance(refused.error, InvalidImageError)
    assert "it is a pipe, a device or a folder" in refused.error.problem
    assert read.error is None


@pytest.mark.parametrize("name", ["a.json", "a_mask.png", ".a.reading"])
def test_a_pipe_with_the_name_of_a_result_is_somebodys(analyser: Analyser, scan: Path, out: Path, name: str) -> None:
    out.mkdir()
    os.mkfifo(out / name)
    with pytest.raises(OutputError, match="no result of this program"):
        run(analyser, scan, out=out)


def test_a_pipe_in_the_place_of_a_picture_stays(analyser: Analyser, scan: Path, out: Path) -> None:
    run(analyser, scan, out=out)
    (out / "a_mask.png").unlink()
    os.mkfifo(out / "a_mask.png")
    assert "a_mask.png was changed since it was written" in refusal(analyser, scan, out)
    assert (out / "a_mask.png").is_fifo()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"input": ' * 100_000, "{}" + " " * 6_000_000])
def test_a_record_nested_or_long_beyond_reason_is_somebodys(
    analyser: Analyser, scan: Path, out: Path, content: str
) -> None:
    out.mkdir()
    (out / "a.json").write_text(content)
    with pytest.raises(OutputError, match="no result of this program"):
        run(analyser, scan, out=out)
    assert (out / "a.json").read_text() == content


def test_only_so_much_of_a_file_is_read_as_may_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", 3) == b"1234"
    assert read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="folder"):
        read_regular(tmp_path, 5)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs a file that is longer than it says")
def test_a_file_longer_than_it_says_is_read_to_its_end() -> None:
    assert read_regular(Path("/proc/self/status"), 1_000_000).endswith(b"\n")
    assert len(read_regular(Path("/proc/self/status"), 20)) == 21


# ---- paths that the system refuses ---------------------------------------------------------------------------


def test_a_path_that_no_disk_can_hold_is_refused_in_words(analyser: Analyser, tmp_path: Path, out: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be looked at \(File name too long\)"):
        run(analyser, tmp_path / ("n" * 300 + ".png"), out=out)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("in", r"in cannot be read\. Check its permissions"),
        ("in/a.png", r"a\.png cannot be looked at \(Permission denied\)\. Check the path"),
    ],
)
def test_a_folder_that_may_not_be_searched_is_refused_in_words(
    analyser: Analyser, scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    """As the system says it to anybody but root: names may be listed, files may not be looked at."""
    look = os.stat

    def forbidden(path: Path, **options: bool) -> os.stat_result:
        if path == scan:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", forbidden)
    with pytest.raises(BusiError, match=said):
        plan_paths([scan.parent.parent / given], out)


@pytest.mark.parametrize("letter", ["n", "я"])
def test_a_name_too_long_for_one_of_its_results_writes_none(
    analyser: Analyser, scan: Path, out: Path, letter: str
) -> None:
    """The mask's name would fit, the heat map's not."""
    room = 255 - len("_heatmap.png")
    fits = make_scan(scan.with_name(letter * (room // len(letter.encode())) + ".png"))
    too_long = make_scan(scan.with_name(letter * (room // len(letter.encode()) + 1) + ".png"))
    outcomes = {outcome.path.name: outcome for outcome in run(analyser, scan.parent, out=out)}
    assert "Shorten the file's name by" in str(outcomes[too_long.name].error)
    assert outcomes[fits.name].error is None
    assert names_in(out) == RESULTS | {f"{fits.stem}{end}" for end in (".json", "_mask.png", "_heatmap.png")}
