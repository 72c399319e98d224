"""The command line as a person uses it: what it prints, what it writes, and how it ends."""

import argparse
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from files import animated, dicom
from PIL import Image
from versions import write_version

from busi_core import evaluation
from busi_core.assessment import assess
from busi_core.assessment.figures import Figure, keep_assessment, read_assessment
from busi_core.cli import main, make_parser, measuring
from busi_core.data import sources
from busi_core.data.bcss import CODES
from busi_core.data.records import read_busi
from busi_core.data.splits import read_folds
from busi_core.errors import OutputError
from busi_core.evaluation import read_reports, write_reports
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.jobs.run_folder import LOCK_FILE
from busi_core.limits import read_limits
from busi_core.locks import ProcessLock
from busi_core.models.checkpoint import read_card
from busi_core.recipes.unet_roi_segnet import sweep_rows
from busi_core.registry import read_registry
from busi_core.settings import read_settings
from busi_core.study.runs import RESULT_FILE, Finished, name_data, write_finished
from busi_core.study.tissue import deal_regions
from busi_core.taught import read_taught
from busi_core.training.state import keep_data
from busi_core.types import Diagnosis

RECORD_KEYS = {
    *("file", "width", "height", "class", "probabilities", "threshold", "lesion_pixels", "model", "warnings"),
}
SMALL_RUN = (
    *("--data", "busi", "--epochs", "1", "--size", "64", "--batch-size", "4", "--learning-rate", "0.001"),
    *("--encoder", "tu-test_resnet", "--start", "random", "--precision", "fp32"),
)


def commands() -> list[str]:
    (action,) = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return list(action.choices)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "left breast.png"
    path.write_bytes(simulate_scan(Diagnosis.BENIGN, seed=3, height=96, width=120).png())
    return path


@pytest.fixture(scope="module")
def written_busi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with simulated scans under names that the committed folds know: two a class in each fold."""
    root = tmp_path_factory.mktemp("data")
    names = []
    for fold in range(5):
        for diagnosis in Diagnosis:
            scored = [s.scored for s in read_folds() if s.fold == fold and s.files[0].startswith(diagnosis.value)]
            names += scored[:2]
    for seed, name in enumerate(names):
        diagnosis = Diagnosis(name.split()[0])
        scan = simulate_scan(diagnosis, seed=seed, height=96, width=120)
        folder = root / "busi" / diagnosis.value
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(scan.png())
        Image.fromarray(scan.mask).save(folder / f"{name}_mask.png")
    return root


@pytest.fixture
def simulated_busi(written_busi: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, named to the program by the environment; nothing may change it."""
    monkeypatch.setenv("BUSI_DATA_ROOT", str(written_busi))
    return written_busi


@pytest.fixture(scope="module")
def written_siblings(written_weights: Path, written_busi: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with two small versions beside: 'a' kept its last epoch, 'best' the best; nothing may change it."""
    folder = tmp_path_factory.mktemp("siblings")
    shutil.copytree(written_weights, folder / "weights")
    small = (*SMALL_RUN, "--runs", str(folder / "runs"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BUSI_WEIGHTS_DIR", str(folder / "weights"))
        environment.setenv("BUSI_DATA_ROOT", str(written_busi))
        environment.setenv("BUSI_DEVICE", "cpu")
        assert main(["train", "a", *small, "--keeps", "last"]) == 0
        assert main(["train", "best", *small]) == 0
    return folder / "weights"


# ---- analyse -------------------------------------------------------------------------------------------------


def test_one_scan_gives_a_record_a_mask_and_a_heat_map(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out/left breast.json").read_text(encoding="utf-8"))
    assert record.keys() >= RECORD_KEYS
    assert record["file"] == str(scan)
    assert (record["width"], record["height"]) == (120, 96)
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    assert record["class"] == max(record["probabilities"], key=record["probabilities"].get)
    assert (record["model"], record["threshold"], record["model_threshold"]) == ("tiny", 0.5, 0.5)
    assert record["warnings"] == ["no calibration in the file: sizes are in pixels"]
    assert record["notice"] == "Research use only. Not a medical device."
    mask = np.array(Image.open(tmp_path / "out/left breast_mask.png"))
    assert mask.shape == (96, 120)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}
    assert int((mask == 255).sum()) == record["lesion_pixels"]
    assert Image.open(tmp_path / "out/left breast_heatmap.png").size == (120, 96)
    printed = capsys.readouterr()
    assert f"{scan}: {record['class']}" in printed.out
    assert not printed.err


def test_a_bad_file_is_named_on_stderr_the_rest_go_on_and_the_status_is_1(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("not an image")
    assert main(["analyse", str(bad), str(scan), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert str(scan) in printed.out
    assert str(bad) in printed.err
    assert "1 files could not be read" in printed.err
    assert "Traceback" not in printed.err
    assert (tmp_path / "out/left breast.json").is_file()
    assert not list((tmp_path / "out").glob("notes*"))


def test_a_full_disk_is_not_summed_up_as_files_that_could_not_be_read(
    weights_dir: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, _content: bytes) -> NoReturn:
        raise OutputError(f"{path.name!r} could not be written (No space left on device).", remedy="Free some.")

    (tmp_path / "bad.png").write_bytes(b"no picture")
    monkeypatch.setattr("busi_core.folder_results.write_atomically", full)
    assert main(["analyse", str(scan), str(tmp_path / "bad.png"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "busi: 1 files could not be read.\nbusi: the results of 1 files could not be written.\n" in said


def test_a_name_that_the_terminal_cannot_write_stops_nothing(
    weights_dir: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strict terminal, and a name from a system with another encoding."""
    odd = scan.with_name("caf\udce9.png")
    odd.write_bytes(scan.read_bytes())
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["analyse", str(odd), str(scan), "--out", str(tmp_path / "out")]) == 0
    terminal.flush()
    said = terminal.buffer.getvalue().decode("ascii").splitlines()  # type: ignore[attr-defined]
    assert [line.split(": ")[0] for line in said] == [str(odd).replace("\udce9", "\\udce9"), str(scan)]


def test_no_name_of_a_file_gives_the_terminal_orders(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of its own, a colour, a title; the record keeps the name as it is."""
    evil = "a\nFAKE: benign\x1b[31m\x1b]0;t\x07"
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / f"{evil}.png").write_bytes(scan.read_bytes())
    (folder / f"{evil}2.png").write_bytes(b"none")
    (folder / f"{evil}3_mask.png").write_bytes(b"none")
    assert main(["analyse", str(folder), "--out", str(tmp_path / "out")]) == 1
    assert main(["compare", str(folder), str(folder), "--out", str(tmp_path / "compared")]) == 1
    assert main(["analyse", str(folder / f"{evil}4.png"), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    for line in [*printed.out.split("\n"), *printed.err.split("\n")]:
        assert line.isprintable()
        assert not line.startswith("FAKE")
    assert r"a\nFAKE: benign\x1b[31m\x1b]0;t\x07.png: " in printed.out
    assert json.loads((tmp_path / f"out/{evil}.json").read_text())["file"] == str(folder / f"{evil}.png")


def test_compare_says_what_is_wrong_with_a_table_and_does_not_end_well(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    (folder / "a\nFAKE").mkdir(parents=True)
    (folder / "bus_0001-l.png").write_bytes(scan.read_bytes())
    (folder / "mask_0001-l.png").write_bytes(mask_png(np.ones((96, 120), np.bool_)))
    (folder / "bus_data.csv").write_text("ID;Pathology\nbus_0001-l;Malignant\n")
    assert main(["compare", str(folder), str(folder), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""
    (folder / "a\nFAKE/bus_data.csv").write_text("")
    assert main(["compare", str(folder), str(folder), "--out", str(tmp_path / "out")]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "FAKE/bus_data.csv' gives no class: it has no columns ID and Pathology." in said


def test_the_frame_of_a_cine_is_chosen_by_number(
    weights_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """U10."""
    frames = [simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120).grey for seed in (1, 2)]
    (tmp_path / "cine.tif").write_bytes(animated("TIFF", frames))
    arguments = ["analyse", str(tmp_path / "cine.tif"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--frame", "2"]) == 0
    record = json.loads((tmp_path / "out/cine.json").read_text())
    assert record["frame"] == 2  # from 1, as it was asked for
    assert not [warning for warning in record["warnings"] if "frames" in warning]
    assert main(arguments) == 0
    assert any("several frames" in w for w in json.loads((tmp_path / "out/cine.json").read_text())["warnings"])
    assert main([*arguments, "--frame", "3"]) == 1
    assert "Frame 3 was asked for, but the file has 2. Choose a frame from 1 to 2." in capsys.readouterr().err


def test_a_folder_without_scans_is_an_error_that_says_so(
    weights_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("none")
    assert main(["analyse", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert f"There is no scan in {tmp_path / 'empty'}" in said
    assert ".dcm" in said


def test_dicom_files_need_no_suffix(weights_dir: Path, tmp_path: Path) -> None:
    """As scanners export them: IM000001, 1.2.840.7; the list of files, DICOMDIR, is no scan."""
    scan = dicom(simulate_scan(Diagnosis.BENIGN, seed=1, height=96, width=120).grey)
    for name in ("IM000001", "1.2.840.7", "1.2.840.8", "DICOMDIR"):
        (tmp_path / name).write_bytes(scan)
    (tmp_path / "notes").write_bytes(b"no scan")
    assert main(["analyse", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == {"IM000001", "1.2.840.7", "1.2.840.8"}


def test_another_version_than_the_one_in_service_reads_on_request(
    weights_dir: Path, scan: Path, tmp_path: Path
) -> None:
    write_version(weights_dir, "other", seed=1)
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out"), "--model", "other"]) == 0
    assert json.loads((tmp_path / "out/left breast.json").read_text())["model"] == "other"
    assert read_registry(weights_dir).in_service == "tiny"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "none"], "no model version 'none'"),
        (["--model", "../tiny"], "cannot be the name of a model version"),
    ],
)
def test_a_version_that_is_not_there_is_said_without_a_traceback(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out"), *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_any_model_the_person_is_told_how_to_get_one(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path / "none"))
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out")]) == 1
    assert "busi train" in capsys.readouterr().err


def test_a_path_that_is_not_there_ends_with_1_before_anything_is_written(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", str(scan), str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- Usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: busi {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["read"],
        ["analyse"],
        ["analyse", "scan.png"],
        ["analyse", "scan.png", "--out", "x", "--frame", "first"],
        ["analyse", "scan.png", "--out", "x", "--frame", "0"],
        ["train"],
        ["train", "x", "--test-fold", "5"],
        ["train", "x", "--test-fold", "last"],
        ["train", "x", "--schedule", "none"],
        ["train", "x", "--precision", "fp16"],
        ["evaluate", "--test-fold", "-1"],
        ["serve"],
        ["worker", "--until-idle", "nan"],
        ["worker", "--until-idle", "-1"],
        ["worker", "--until-idle", "soon"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: busi" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "100"], "multiple of 32"),
        (["--epochs", "0"], "epochs"),
        (["--batch-size", "1"], "batch_size"),
        (["--learning-rate", "0"], "learning_rate"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--normal-repeats", "0"], "normal_repeats"),
        (["--data", "oasis"], "'oasis' is unknown"),
        (["--encoder", "resnet19"], "resnet19"),
        (["--start", "none"], "no model version 'none'"),
        (["--tissue", "tiles"], "from scans, not from tissue"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_that_cannot_be_is_refused_in_words(
    weights_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    simulated_busi: Path,
    arguments: list[str],
    said: str,
) -> None:
    assert main(["train", "x", *SMALL_RUN, "--runs", str(tmp_path / "runs"), *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_device_that_is_none_is_refused_in_words(
    weights_dir: Path,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BUSI_DEVICE", "tpu")
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out")]) == 1
    assert "'tpu'" in capsys.readouterr().err


def test_stopping_by_hand_is_no_traceback(
    weights_dir: Path,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("busi_core.service.Analyser.analyse_for_batch", stop)
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out")]) == 130
    assert "what was finished is kept" in capsys.readouterr().err


# ---- train, evaluate, card, serve ------------------------------------------------------------------------------


def test_from_scans_to_a_version_in_service(
    weights_dir: Path, simulated_busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole road: train, evaluate what it never saw, print its card, put it into service, go on from it."""
    runs = ("--runs", str(tmp_path / "runs"))
    assert main(["train", "first", *SMALL_RUN, *runs]) == 0
    printed = capsys.readouterr().out
    assert "18 images to train on, 6 to choose by" in printed
    assert "epoch 1/1" in printed
    card = read_card(weights_dir / "first")
    assert card.encoder_source == "random"
    assert len(card.trained_on) == len(set(card.trained_on)) == 24
    assert read_registry(weights_dir).in_service == "tiny"

    assert main(["evaluate", "--model", "first", "--no-bus-bra", "--save"]) == 0
    printed = capsys.readouterr().out
    assert "first on busi fold 0: 6 scans (2 normal, 2 benign, 2 malignant)" in printed
    assert "copies in training: 0" in printed
    (report,) = read_reports(weights_dir / "first")
    assert report.sha256 == card.sha256
    assert not {result.id for result in report.results} & set(card.trained_on)
    elsewhere = replace(report, test_set="elsewhere", results=(replace(report.results[0], id="elsewhere/1"),))
    write_reports(weights_dir / "first", [report, elsewhere])
    assert main(["evaluate", "--model", "first", "--no-bus-bra", "--save"]) == 0
    assert [one.test_set for one in read_reports(weights_dir / "first")] == ["busi fold 0", "elsewhere"]
    capsys.readouterr()

    assert main(["evaluate", "--model", "first", "--no-bus-bra", "--all-folds", "first"]) == 1
    assert "Not all folds: busi fold 1" in capsys.readouterr().err  # and no word of BUS-BRA, which is not at hand

    assert main(["card", "--model", "first"]) == 0
    assert "first" in capsys.readouterr().out
    assert main(["serve", "first"]) == 0
    assert read_registry(weights_dir).in_service == "first"

    assert main(["train", "second", *SMALL_RUN, *runs, "--start", "first", "--test-fold", "1"]) == 0
    assert set(read_card(weights_dir / "second").trained_on) >= set(card.trained_on)
    first, second = (read_taught(weights_dir / version, ()).hashes for version in ("first", "second"))
    assert 0 < len(first) <= 24
    assert second >= first  # what taught the version it started from counts as seen
    assert main(["evaluate", "--model", "second", "--no-bus-bra"]) == 1
    assert "have a copy among those that taught 'second'" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "expected"), [((), ["folds"]), (("--all",), ["own", "limits", "folds"])])
def test_one_command_measures_a_version_its_limits_and_its_recipe(
    weights_dir: Path, simulated_busi: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], expected: list[str]
) -> None:
    done: list[str] = []
    monkeypatch.setattr(evaluation, "format_table", lambda _: done.append("own") or "")
    monkeypatch.setattr(measuring, "_assess", lambda *_, **__: done.append("limits"))
    monkeypatch.setattr(measuring, "_cross_validate", lambda *_: done.append("folds") or 0)
    assert main(["evaluate", "--model", "tiny", "--no-bus-bra", "--all-folds", "tiny", *more]) == 0
    assert done == expected


def test_a_part_of_an_assessment_leaves_the_figures_on_other_scans(
    weights_dir: Path, simulated_busi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(weights_dir / "tiny")
    own, other = (Figure("doubt", "x", on, 3, 0.5, 0.25, 0.75) for on in ("busi fold 0", "bus-bra fold 3"))
    keep_assessment(weights_dir / "tiny", [own, other], version="tiny", sha256=card.sha256)
    newer = replace(own, estimate=0.6)
    monkeypatch.setattr(assess, "assess", lambda *_, **__: [newer])
    assert main(["evaluate", "--model", "tiny", "--no-bus-bra", "--all", "--save"]) == 0
    assert read_assessment(weights_dir / "tiny", version="tiny", sha256=card.sha256) == [newer, other]


def test_a_version_that_learned_from_all_but_the_test_part_is_chosen_by_its_siblings(
    weights_dir: Path, simulated_busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each sibling kept two scans of each class, which taught the version: twelve stand behind its limits."""
    small = (*SMALL_RUN, "--runs", str(tmp_path / "runs"), "--keeps", "last")
    for name, fold in (("a", "1"), ("b", "3")):
        assert main(["train", name, *small, "--validation-fold", fold]) == 0
    assert main(["train", "whole", *small, "--validation-fold", "none", "--siblings", "a", "b"]) == 0
    assert "24 images to train on, 0 to choose by" in capsys.readouterr().out
    card = read_card(weights_dir / "whole")
    limits = read_limits(weights_dir / "whole", card)
    assert card.training["images"] == {"train": 24, "validation": 12}
    assert (card.training["validation_fold"], card.training["siblings"]) == ("none", ["a", "b"])
    assert card.malignancy is not None
    assert card.malignancy.scans == 12
    assert limits is not None
    assert limits.nonconformity is not None
    assert [len(scores) for scores in limits.nonconformity.by_class] == [0, 0, 0]
    assert len(limits.nonconformity.in_doubt) == 12, "a network that has hardly learned anything is sure of nothing"
    assert limits.siblings == ("a", "b")

    assert main(["limits", "whole"]) == 0
    said = capsys.readouterr().out
    assert "0 benign scans stand behind its sets of classes" in said
    assert "12 more, of which no class has a score of 0.70, behind those in doubt" in said
    again = read_limits(weights_dir / "whole", card)
    assert again is not None
    assert again.checksum() == limits.checksum()
    assert main(["card", "--model", "whole"]) == 0
    assert (
        "24 images, 12 of them for choices, each read by a version that it did not teach (a, b); last epoch 1 of 1"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--siblings", "a"], "chosen by a validation part or"),
        (["--validation-fold", "none"], "chosen by a validation part or"),
        (["--validation-fold", "none", "--siblings", "a", "a"], "kept scans which another one kept"),
        (["--validation-fold", "none", "--siblings", "best"], "chose its epoch by them"),
        (["--validation-fold", "none", "--siblings", "a", "--test-fold", "4"], "kept another test part"),
        (["--validation-fold", "none", "--siblings", "nobody"], "'nobody'"),
        (["--validation-fold", "0"], "cannot be the test and choose as well"),
        (["--validation-fold", "none", "--siblings", "a", "--keeps", "best"], "Say --keeps last as well"),
    ],
)
def test_siblings_that_cannot_choose_are_refused_before_the_training(
    options: list[str],
    reason: str,
    written_siblings: Path,
    simulated_busi: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(written_siblings))
    capsys.readouterr()
    small = (*SMALL_RUN, "--runs", str(tmp_path / "runs"))
    assert main(["train", "whole", *small, "--keeps", "last", *options]) == 1
    printed = capsys.readouterr()
    assert reason in printed.err
    assert "epoch" not in printed.out


def test_a_version_for_another_hospital_learns_from_four_folds_and_chooses_by_one(
    weights_dir: Path, simulated_busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "away", *SMALL_RUN, "--runs", str(tmp_path / "runs"), "--test-fold", "none"]) == 0
    assert "24 images to train on, 6 to choose by" in capsys.readouterr().out
    assert main(["card", "--model", "away"]) == 0
    assert "Never seen: BUS-BRA\n" in capsys.readouterr().out
    assert main(["evaluate", "--model", "away", "--no-bus-bra"]) == 1
    assert "kept no fold of BUSI for the test" in capsys.readouterr().err
    assert main(["evaluate", "--model", "away", "--no-bus-bra", "--test-fold", "0"]) == 1
    assert "have a copy among those that taught 'away'" in capsys.readouterr().err


def test_a_run_is_resumed_only_with_the_options_it_was_started_with(
    weights_dir: Path, simulated_busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the card would name a configuration that did not make the weights."""
    runs = ("--runs", str(tmp_path / "runs"))
    assert main(["train", "first", *SMALL_RUN, *runs]) == 0
    assert main(["train", "first", *SMALL_RUN, *runs, "--resume", "--epochs", "3"]) == 1
    assert re.search(r"was started with other options: epochs", capsys.readouterr().err)
    assert main(["train", "first", *SMALL_RUN, *runs, "--resume"]) == 0
    assert main(["train", "none", *SMALL_RUN, *runs, "--resume"]) == 1
    assert "cannot be resumed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ((), "test fold"),
        (("--test-fold", "4"), "test fold"),
        (("--test-fold", "2", "--validation-fold", "0"), "validation fold"),
    ],
    ids=["forgotten", "test fold", "validation fold"],
)
def test_a_finished_run_resumed_for_another_fold_keeps_its_card(
    weights_dir: Path,
    simulated_busi: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    changed: str,
) -> None:
    """Else the card would name a test fold whose scans taught it."""
    runs = ("--runs", str(tmp_path / "runs"))
    assert main(["train", "first", *SMALL_RUN, *runs, "--test-fold", "2"]) == 0
    card = (weights_dir / "first/card.json").read_bytes()
    assert main(["train", "first", *SMALL_RUN, *runs, "--resume", *options]) == 1
    said = capsys.readouterr().err
    assert f"was started with other data: {changed}, scans to" in said
    assert "Go on with the same data sets, folds and siblings" in said
    assert (weights_dir / "first/card.json").read_bytes() == card
    assert main(["train", "first", *SMALL_RUN, *runs, "--resume", "--test-fold", "2"]) == 0


def test_a_run_is_not_resumed_with_other_scans_under_the_same_names_of_sets(
    weights_dir: Path,
    simulated_busi: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = ("--runs", str(tmp_path / "runs"))
    assert main(["train", "first", *SMALL_RUN, *runs]) == 0
    smaller = Path(shutil.copytree(simulated_busi, tmp_path / "data"))
    taught = next(
        scan.scored
        for scan in read_folds()
        if scan.fold == 3 and (smaller / f"busi/normal/{scan.scored}.png").is_file()
    )
    for path in (smaller / "busi/normal").glob(f"{taught}*.png"):
        path.unlink()
    monkeypatch.setenv("BUSI_DATA_ROOT", str(smaller))
    assert main(["train", "first", *SMALL_RUN, *runs, "--resume"]) == 1
    assert "was started with other data: scans to learn from." in capsys.readouterr().err


def test_a_folder_in_which_another_process_trains_is_left_to_it(
    weights_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's child, or another `busi train`; under torchrun the first process holds the folder for all."""
    command = ["train", "x", *SMALL_RUN, "--runs", str(tmp_path / "runs"), "--data", "oasis"]
    other = ProcessLock(tmp_path / "runs/x" / LOCK_FILE)
    assert other.acquire()
    try:
        for more in ([], ["--resume"], ["--recipe", "unet-resnet34-tissue"]):
            assert main([*command, *more]) == 1
            assert "Another process trains in the folder" in capsys.readouterr().err
        monkeypatch.setenv("RANK", "1")
        assert main(command) == 1
        assert "'oasis' is unknown" in capsys.readouterr().err
    finally:
        other.release()
    monkeypatch.delenv("RANK")
    assert main(command) == 1
    assert "'oasis' is unknown" in capsys.readouterr().err


def test_no_training_overwrites_a_version_that_is_there(
    weights_dir: Path, simulated_busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Least of all the one in service, which would read scans with other weights at once."""
    in_service = read_registry(weights_dir).in_service
    assert in_service is not None
    before = {path: path.read_bytes() for path in (weights_dir / in_service).iterdir()}
    for more in ([], ["--resume"]):
        assert main(["train", in_service, *SMALL_RUN, "--runs", str(tmp_path / "runs"), *more]) == 1
        assert f"There is a version {in_service!r} already." in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (weights_dir / in_service).iterdir()} == before


def test_a_damaged_version_does_not_go_into_service(weights_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """W2, J7."""
    write_version(weights_dir, "next", seed=1)
    with (weights_dir / "next/model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert main(["serve", "next"]) == 1
    assert "checksum" in capsys.readouterr().err
    assert read_registry(weights_dir).in_service == "tiny"


def test_folds_are_not_checked_against_a_folder_without_the_published_list(
    simulated_busi: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["splits"]) == 1
    assert "duplicates_pawlowska_2023.csv" in capsys.readouterr().err


@pytest.mark.parametrize("listed", ["benign (9998)&benign (9999)", "benign (9998)"], ids=["not at hand", "no pair"])
def test_folds_are_checked_and_made_also_where_no_published_pair_is_at_hand(
    written_busi: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    listed: str,
) -> None:
    shutil.copytree(written_busi, tmp_path / "data")
    (tmp_path / "data/busi/duplicates_pawlowska_2023.csv").write_text(f"Filename;Objection\n{{{listed}}};\n")
    monkeypatch.setenv("BUSI_DATA_ROOT", str(tmp_path / "data"))
    assert main(["splits"]) == 1
    said = capsys.readouterr()
    assert "30 images; 0 published pairs of copies, 0 found from pixels:\n  recall n/a, precision n/a\n" in said.out
    assert "fold 4: " in said.out
    assert said.err == "The committed folds are not those of these scans.\n"
    assert main(["splits", "--write", str(tmp_path / "folds.json")]) == 0
    made = json.loads((tmp_path / "folds.json").read_text())
    assert len({file for scan in made for file in scan["files"]}) == len(made) == 30


def test_hashes_need_only_the_collections_that_taught_the_version(weights_dir: Path, simulated_busi: Path) -> None:
    """BUS-BRA is not at hand here."""
    taught = tuple(record.id for record in read_busi(simulated_busi / "busi")[:4])
    write_version(weights_dir, "of-busi", trained_on=taught)
    assert main(["hashes", "of-busi"]) == 0
    assert len(read_taught(weights_dir / "of-busi", ()).hashes) == 4


def test_who_reads_only_the_first_lines_gets_no_traceback() -> None:
    """As `busi recipes | head -1`."""
    command = [sys.executable, "-m", "busi_core.cli", "recipes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
def test_where_lines_cannot_be_written_that_is_said_without_a_traceback() -> None:
    command = [sys.executable, "-m", "busi_core.cli", "recipes"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "busi: what is said here could not be written (the disk is full).\n"
    assert done.returncode == 1


@pytest.mark.parametrize("option", [["--of", "benign"], ["--layer", "encoder-4"]], ids=" ".join)
def test_what_says_how_to_explain_is_not_ignored_where_nothing_is_explained(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out"), *option]) == 1
    assert "Add --explain" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_set_that_is_not_there_is_told_from_one_that_is_damaged(
    weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUSI_DATA_ROOT", str(tmp_path / "elsewhere"))
    assert main(["splits"]) == 1
    said = capsys.readouterr().err
    assert f"There is no folder {tmp_path / 'elsewhere' / 'busi'}." in said
    assert "BUSI_DATA_ROOT" in said


@pytest.mark.parametrize("recipe", ["product", "unet-roi-segnet"])
@pytest.mark.parametrize("folder", ["x", "x/stage-1"])
def test_a_run_that_was_begun_is_not_begun_anew_by_mistake(
    weights_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    simulated_busi: Path,
    folder: str,
    recipe: str,
) -> None:
    """A recipe of two stages keeps the checkpoint of each in a folder of its own."""
    (tmp_path / "runs" / folder).mkdir(parents=True)
    checkpoint = tmp_path / "runs" / folder / "checkpoint.safetensors"
    checkpoint.write_bytes(b"of many hours")
    command = ["train", "x", "--recipe", recipe, "--epochs", "1", "--size", "64", "--runs", str(tmp_path / "runs")]
    assert main(command) == 1
    assert "Go on with it by --resume" in capsys.readouterr().err
    assert checkpoint.read_bytes() == b"of many hours"


@pytest.mark.parametrize(("option", "value"), [("--size", "33"), ("--epochs", "0")])
def test_a_sweep_that_cannot_be_is_refused_before_it_trains(
    weights_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert main(["sweep", "--runs", str(tmp_path / "runs"), option, value]) == 1
    assert option in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def finish(folder: Path, *, epochs: int, side: int) -> None:
    """Put the result of a run of the study there that was asked for so."""
    figures = {"pixel accuracy": {"estimate": 0.875, "low": 0.75, "high": 1.0}}
    extra = {"figures": figures, "tiles": 1, "note": "made for this test", "details": None}
    write_finished(folder, Finished(epochs, epochs, side, 1.0, "paper", (), (), extra))


def test_a_sweep_does_not_give_the_results_of_a_smaller_one_as_its_own(
    weights_dir: Path, simulated_busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "runs/sweep" / sweep_rows()[0].name
    finish(first, epochs=2, side=64)
    for more in (["--epochs", "50", "--size", "64"], ["--epochs", "1", "--size", "128"]):
        assert main(["sweep", "--runs", str(tmp_path / "runs"), *more]) == 1
        printed = capsys.readouterr()
        assert "2 epochs at 64 px were asked for" in printed.err
        assert "name another folder by --runs" in printed.err
        assert printed.out == ""
    assert {path.name for path in first.iterdir()} == {RESULT_FILE}


def test_a_sweep_does_not_give_the_results_of_other_scans_as_its_own(
    weights_dir: Path, simulated_busi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "runs/sweep" / sweep_rows()[0].name
    finish(first, epochs=2, side=64)
    keep_data(first, name_data(["busi/of another folder"], []))
    assert main(["sweep", "--runs", str(tmp_path / "runs"), "--epochs", "1", "--size", "64"]) == 1
    assert "was started with other data: scans to learn from, scans to choose by" in capsys.readouterr().err


def test_a_tissue_run_that_has_ended_is_given_again_only_for_what_it_was_asked_for(
    weights_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "t", "--recipe", "unet-resnet34-tissue", "--runs", str(tmp_path / "runs"), "--size", "64"]
    finish(tmp_path / "runs/t", epochs=1, side=64)
    keep_data(tmp_path / "runs/t", name_data([], [], data_set="simulated tiles", test_fold=None))
    assert main([*command, "--epochs", "1"]) == 0
    assert re.search(r"pixel accuracy +0\.875", capsys.readouterr().out)
    assert main([*command, "--epochs", "2"]) == 1
    assert "1 epochs at 64 px were asked for, now 2 at 64 px" in capsys.readouterr().err
    assert main([*command, "--epochs", "1", "--tissue", str(write_bcss(tmp_path / "bcss"))]) == 1
    assert "was started with other data: data sets, scans to learn from" in capsys.readouterr().err


@pytest.mark.parametrize("patients", [3, 4, 5, 6, 20])
def test_of_three_patients_of_tissue_and_more_each_part_has_its_own(tmp_path: Path, patients: int) -> None:
    folder = write_bcss(tmp_path, [f"TCGA-A1-{number:04d}" for number in range(patients)])
    parts = [{region.patient for region in part} for part in deal_regions(folder)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == patients


def write_bcss(folder: Path, patients: Sequence[str] = ("TCGA-A1-A0SK", "TCGA-A1-A0SP", "TCGA-A2-A04P")) -> Path:
    """A region of each patient, never to be opened."""
    rows = "".join(f"{code}\t{number}\n" for number, code in enumerate(CODES))
    for part in ("meta", "rgbs_colorNormalized", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "meta/gtruth_codes.tsv").write_text(f"label\tGT_code\n{rows}", encoding="utf-8")
    for patient in patients:
        for part in ("rgbs_colorNormalized", "masks"):
            (folder / part / f"{patient}-DX1.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--simulated", "0"],
        ["evaluate", "--simulated", "-3"],
        ["analyse", "x", "--out", "o", "--jobs", "abc"],
        ["analyse", "x", "--out", "o", "--frame", "0"],
    ],
)
def test_what_is_counted_is_counted_from_one(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "must be a whole number from 1 on" in capsys.readouterr().err


def test_the_figures_of_a_version_that_is_not_there_are_no_empty_table(
    weights_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", "--model", "nope", "--figures"]) == 1
    assert "no model version 'nope'" in capsys.readouterr().err


def test_a_setting_left_empty_is_one_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a compose file passes on what is not set: the folder where one stands must not become the state folder."""
    names = ("WEIGHTS_DIR", "STATE_DIR", "DATA_ROOT", "ENCODER_DIR", "PROMOTION_PROTOCOL", "DEVICE")
    for name in names:
        monkeypatch.delenv(f"BUSI_{name}", raising=False)
    usual = read_settings()
    for name in names:
        monkeypatch.setenv(f"BUSI_{name}", "")
    assert read_settings() == usual


def test_a_folder_that_cannot_be_read_is_named_and_the_others_go_on(
    weights_dir: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (scan.parent / "locked").mkdir()
    look = os.scandir

    def forbidden(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(sources.os, "scandir", forbidden)
    assert main(["analyse", str(scan.parent), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert f"{scan.name}: " in printed.out
    assert "locked: this folder cannot be read. Check its permissions." in printed.err
