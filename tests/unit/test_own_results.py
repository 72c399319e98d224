"""What `busi analyse` outlined is never taken for a reference mask, wherever its results lie."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from versions import make_analyser

from busi_core.data.pairing import Batch, pair_files
from busi_core.data.sources import list_folder, list_uploads
from busi_core.folder import analyse_plan, plan_paths
from busi_core.folder_compare import list_cases
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis

NAMES = ("left", "right")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        scan = simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120)
        (folder / f"{name}.png").write_bytes(scan.png())
    return folder


def analyse(scans: Path, out: Path) -> None:
    outcomes = list(analyse_plan(make_analyser(), plan_paths([scans], out)))
    assert [outcome.error for outcome in outcomes] == [None] * len(NAMES)


def truth(seed: int) -> bytes:
    return mask_png(simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120).mask)


def masks_of(batch: Batch) -> dict[str, list[str]]:
    return {Path(case.name).stem: [mask.name for mask in case.masks] for case in batch.cases}


def test_results_among_the_scans_are_no_reference_and_no_scans(scans: Path) -> None:
    analyse(scans, scans)
    batch = list_cases(scans, scans)
    assert masks_of(batch) == {"left": [], "right": []}
    (said,) = batch.problems
    assert "of an earlier reading, no reference" in said
    assert "left_heatmap.png" in said


def test_a_mask_that_is_missing_is_not_replaced_by_what_the_model_outlined(scans: Path, tmp_path: Path) -> None:
    analyse(scans, scans)
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "left_mask.png").write_bytes(truth(0))
    batch = list_cases(scans, masks)
    assert masks_of(batch) == {"left": ["left_mask.png"], "right": []}
    assert batch.cases[0].masks[0].read() == truth(0)


def test_the_results_folder_is_no_folder_of_masks(scans: Path, tmp_path: Path) -> None:
    analyse(scans, tmp_path / "results")
    assert masks_of(list_cases(scans, tmp_path / "results")) == {"left": [], "right": []}


def test_nor_are_they_when_uploaded(scans: Path) -> None:
    analyse(scans, scans)
    uploads = list_uploads((file.name, file.read()) for file in list_folder(scans))
    assert masks_of(pair_files(uploads)) == {"left": [], "right": []}


def test_a_mask_that_somebody_corrected_counts(scans: Path) -> None:
    analyse(scans, scans)
    mask = scans / "left_mask.png"
    pixels = np.array(Image.open(mask))
    pixels[40:60, 40:60] = 255 - pixels[40:60, 40:60]
    Image.fromarray(pixels).save(mask)
    assert masks_of(list_cases(scans, scans)) == {"left": ["left_mask.png"], "right": []}


def test_masks_of_the_records_of_an_older_program_are_no_reference_either(scans: Path) -> None:
    """It kept no digests, so none of them can be told from a corrected one."""
    analyse(scans, scans)
    for name in NAMES:
        record = json.loads((scans / f"{name}.json").read_text("utf-8"))
        del record["input"]["pictures"]
        (scans / f"{name}.json").write_text(json.dumps(record), "utf-8")
    assert masks_of(list_cases(scans, scans)) == {"left": [], "right": []}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"input": 3}', "[" * 100_000, '{"input": {"pictures": 5}}'])
def test_a_record_of_somebody_else_says_nothing_of_the_masks_beside_it(scans: Path, text: str) -> None:
    for seed, name in enumerate(NAMES):
        (scans / f"{name}_mask.png").write_bytes(truth(seed))
        (scans / f"{name}.json").write_text(text, "utf-8")
    batch = list_cases(scans, scans)
    assert masks_of(batch) == {"left": ["left_mask.png"], "right": ["right_mask.png"]}
    assert batch.problems == ()
