"""A second opinion, as a reader meets it: said beside the finding, and found among many scans."""

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from versions import make_card, make_panel, make_weights, opinion_of

from busi_core.assessment.figures import RIGHT_ELSEWHERE, RIGHT_IN_DOUBT, Figure, write_assessment
from busi_core.imaging.phantom import simulate_scan
from busi_core.models.checkpoint import pack_readers, save_version
from busi_core.registry import put_into_service
from busi_core.types import Diagnosis, ImageWarning
from pages.components.batch_queue import BatchQueue
from pages.components.batch_view import Filters, filter_rows, make_frame
from pages.components.serving import get_assessment, get_serving

PAGES = Path(__file__).parents[2] / "pages/reading"
TIMEOUT_SECONDS = 90
SCAN = simulate_scan(Diagnosis.BENIGN, seed=1, height=96, width=120).png()
ALL: dict[str, Any] = {"classes": (), "score": (0.0, 1.0), "area": (0.0, 100.0), "dice": (0.0, 1.0)}


def read_on_analyse(folder: Path, monkeypatch: pytest.MonkeyPatch, **when: Any) -> AppTest:
    packed = pack_readers([make_weights(1), make_weights(2)])
    save_version(
        folder / "tiny", make_weights(), make_card(make_weights(), second_opinion=opinion_of(1, 2, **when)), packed
    )
    put_into_service(folder, "tiny")
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(folder))
    get_serving.clear()
    page = AppTest.from_file(str(PAGES / "analyse.py"), default_timeout=TIMEOUT_SECONDS).run()
    page.file_uploader[0].set_value([("scan.png", SCAN, "image/png")])
    page = page.run()
    assert not page.exception
    return page


def test_the_finding_says_that_two_more_networks_read_and_what_each_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = read_on_analyse(tmp_path, monkeypatch, class_below=1.0)
    (said,) = [str(block.value) for block in page.info if "Second opinion" in str(block.value)]
    analysis = make_panel(class_below=1.0).analyse(SCAN)
    each = ", ".join(str(opinion.diagnosis) for opinion in analysis.opinions)
    outlining = sum(float(opinion.lesion_probability.max()) >= 0.5 for opinion in analysis.opinions)
    assert "so 2 more read the scan" in said
    assert f"One by one they say {each}, and {outlining} of 3 outline" in said
    assert not [block for block in page.warning if "in doubt" in str(block.value)], "it is said once"


def test_the_finding_says_how_often_such_readings_were_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = [
        Figure("second opinion", name, test_set, cases, share, 0.0, 1.0)
        for name, test_set, cases, share in (
            (RIGHT_IN_DOUBT, "here", 30, 0.5),
            (RIGHT_IN_DOUBT, "there", 10, 0.9),
            (RIGHT_ELSEWHERE, "here", 200, 0.92),
        )
    ]
    write_assessment(tmp_path / "tiny", figures, version="tiny", sha256=make_card(make_weights()).sha256)
    get_assessment.clear()
    page = read_on_analyse(tmp_path, monkeypatch, class_below=1.0)
    said = " ".join(str(block.value) for block in page.info)
    assert "On the 40 test scans read like this the class was right for 60%, on the other 200 for 92%." in said


def test_a_finding_of_one_network_does_not_speak_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = read_on_analyse(tmp_path, monkeypatch, class_below=0.0, lesion_between=(1.0, 1.0))
    assert "Second opinion" not in " ".join(str(block.value) for block in page.info)


@pytest.mark.parametrize("asks", [True, False])
def test_among_many_scans_those_with_a_second_opinion_are_found(asks: bool) -> None:
    queue = BatchQueue()
    queue.add_uploads([("scan.png", SCAN)])
    when = {"class_below": 1.0} if asks else {"class_below": 0.0, "lesion_between": (1.0, 1.0)}
    queue.advance(make_panel(**when), seconds=60, on_row=lambda: None)
    found = filter_rows(queue.rows, Filters(marks=("asked",), **ALL), {})
    assert [row.name for row in found] == (["scan.png"] if asks else [])
    assert filter_rows(queue.rows, Filters(marks=("warned",), **ALL), {}) == [], "it is no warning about the image"
    notes = make_frame(queue.rows, {}, with_truth=False)["notes"][0]
    assert (ImageWarning.SECOND_OPINION.value[1:] in notes) is asks
