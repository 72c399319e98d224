"""Two versions of the real model side by side on a real scan: each has its own figures, and they are the library's.

The second is another version of the repository where there is one, else the one in service with its weights disturbed.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest
from versions import copy_two_real_versions

from busi_core import Analyser
from busi_core.comparison import compare_scan
from busi_core.data.records import Record, read_busi, read_truth
from busi_core.settings import PROJECT_ROOT
from pages.components.serving import get_serving

pytestmark = pytest.mark.realdata

PAGE = PROJECT_ROOT / "pages/reading/compare.py"


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str, str]]:
    """A weights folder of its own with two versions, the first in service."""
    folder = tmp_path / "weights"
    first, second = copy_two_real_versions(folder)
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(folder))
    monkeypatch.setenv("BUSI_DEVICE", "cpu")
    get_serving.clear()
    yield folder, first, second
    get_serving.clear()


def find_scan(data_root: Path, name: str) -> Record:
    return next(record for record in read_busi(data_root / "busi") if record.name == name)


def test_two_versions_of_the_real_model_have_each_their_own_figures(
    two: tuple[Path, str, str], data_root: Path
) -> None:
    folder, *versions = two
    record = find_scan(data_root, "malignant (12)")
    data = record.image.read_bytes()
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    scans, masks = page.file_uploader[0], page.file_uploader[1]
    scans.set_value([(record.image.name, data, "image/png")])
    masks.set_value([(mask.name, mask.read_bytes(), "image/png") for mask in record.masks])
    page = next(button for button in page.button if button.label == "Compare").click().run()
    page = page.selectbox(key="compare-second").select(versions[1]).run()
    assert not page.exception
    said = " ".join(str(block.value) for block in page.get("html"))
    dices = []
    for version in versions:
        assert f"Model {version}" in said
        analysis = Analyser.load(folder / version, torch.device("cpu")).analyse(data)
        truth = read_truth(record, *analysis.image.grey.shape)
        comparison = compare_scan(analysis, truth)
        dices.append(comparison.counts.dice)
        if comparison.lesions and not math.isnan(comparison.lesions[0].counts.dice):
            assert f"<td>{comparison.lesions[0].counts.dice:.3f}</td>" in said
    assert dices[0] != dices[1]
    assert all(dice > 0.3 for dice in dices)
