"""The malignancy flag beside the class: red where they agree, amber and in words where they do not."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from versions import TINY, make_analyser, write_version

from busi_core.evaluation import read_reports
from busi_core.imaging.phantom import simulate_scan
from busi_core.models.checkpoint import MalignancyFlag, read_card
from busi_core.registry import put_into_service, read_registry
from busi_core.settings import PROJECT_ROOT
from busi_core.types import Diagnosis
from pages.components.serving import get_serving

PAGE = Path(__file__).parents[2] / "pages/reading/analyse.py"
TIMEOUT_SECONDS = 90
SCAN = simulate_scan(Diagnosis.BENIGN, seed=1, height=96, width=120).png()


def classes_that_name(diagnosis: Diagnosis) -> tuple[str, ...]:
    """An order of the classes in which the network of the tests names this one."""
    for order in permutations(d.value for d in Diagnosis):
        analyser = make_analyser(architecture=replace(TINY, image_classes=order))
        if analyser.analyse(SCAN).prediction.diagnosis is diagnosis:
            return order
    raise AssertionError(f"never {diagnosis}")


@pytest.mark.parametrize(
    ("named", "cutoff", "expected"),
    [
        (Diagnosis.MALIGNANT, 0.001, '<div class="flag on"><b>⚑ Flagged for malignancy</b>'),
        (
            Diagnosis.BENIGN,
            0.001,
            '<div class="flag on beside"><b>⚑ Flagged for malignancy, though the class is benign</b>',
        ),
        (
            Diagnosis.NORMAL,
            0.001,
            '<div class="flag on beside"><b>⚑ Flagged for malignancy, though the class is normal</b>',
        ),
        (Diagnosis.BENIGN, 0.999, '<div class="flag off"><b>Not flagged for malignancy</b>'),
    ],
    ids=["they agree", "beside benign", "beside normal", "not flagged"],
)
def test_a_flag_beside_another_class_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: Diagnosis, cutoff: float, expected: str
) -> None:
    architecture = replace(TINY, image_classes=classes_that_name(named))
    write_version(tmp_path, architecture=architecture, malignancy=MalignancyFlag(cutoff, 0.95, 0.5, 40))
    put_into_service(tmp_path, "tiny")
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path))
    get_serving.clear()
    page = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    page.file_uploader[0].set_value([("scan.png", SCAN, "image/png")])
    page = page.run()
    assert not page.exception
    said = " ".join(str(block.value) for block in page.get("html"))
    assert expected in said
    assert "On 40 validation scans, which chose this cut-off, it flagged 95% of the malignant ones" in said


def test_the_flag_is_worth_what_it_was_on_scans_that_chose_nothing() -> None:
    """Counted anew from every test scan of the version in service; on validation scans it looks better than it is."""
    get_serving.clear()
    version = read_registry(PROJECT_ROOT / "weights").in_service
    card = read_card(PROJECT_ROOT / "weights" / version)
    assert card.malignancy is not None
    results = [one for report in read_reports(PROJECT_ROOT / "weights" / version) for one in report.results]
    malignant = [one.probabilities[2] for one in results if one.truth == "malignant" and one.probabilities]
    found = sum(score >= card.malignancy.threshold for score in malignant)
    page = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    page.file_uploader[0].set_value([("scan.png", SCAN, "image/png")])
    said = " ".join(str(block.value) for block in page.run().get("html"))
    assert f"It flags {found} of {len(malignant)} malignant test scans, and" in said
    assert "which chose this cut-off" not in said


def test_how_many_scans_like_this_were_malignant_stands_beside_how_many_of_all_were() -> None:
    """A share among test scans is no chance of cancer: it falls with the share of cancers where the tool is used."""
    get_serving.clear()
    version = read_registry(PROJECT_ROOT / "weights").in_service
    results = [one for report in read_reports(PROJECT_ROOT / "weights" / version) for one in report.results]
    malignant = sum(one.truth == "malignant" for one in results)
    page = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    page.file_uploader[0].set_value([("scan.png", SCAN, "image/png")])
    said = " ".join(str(block.value) for block in page.run().get("html"))
    assert "were scored like this" in said
    assert f"Of all {len(results)} it is {malignant} ({malignant / len(results):.0%})" in said
    assert "where fewer scans are malignant, so are fewer of those like this" in said
