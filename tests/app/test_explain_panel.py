"""'Explain in other ways' without a browser: nothing is made before it is asked, and it stays the session's."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from busi_core import Analyser
from busi_core.errors import ExplanationError
from busi_core.explain.catalogue import Method
from busi_core.explain.gradcam import LESION
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis
from pages.components.explain_panel import MAX_KEPT, Answer, Question, Shelf

PAGE = Path(__file__).parents[2] / "pages/reading/analyse.py"
TIMEOUT_SECONDS = 120

Calls = list[tuple[Method, str, str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """What the page asked of the core."""
    made: Calls = []
    explain = Analyser.explain

    def watched(self: Analyser, analysis: object, method: Method, *, of: str, layer: str, **rest: object) -> object:
        made.append((method, of, layer))
        return explain(self, analysis, method, of=of, layer=layer, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Analyser, "explain", watched)
    return made


@pytest.fixture
def page() -> AppTest:
    opened = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    scan = simulate_scan(Diagnosis.MALIGNANT, seed=5, height=200, width=260).png()
    opened.file_uploader[0].set_value([("left breast.png", scan, "image/png")])
    return opened.run()


def choose(
    page: AppTest, *, of: str | None = None, layer: str | None = None, methods: list[Method] | None = None
) -> None:
    """Set the widgets of the panel, one after the other, as a person does."""
    if of is not None:
        next(box for box in page.selectbox if box.label == "What").set_value(of).run()
    if layer is not None:
        next(box for box in page.selectbox if box.label.startswith("Where")).set_value(layer).run()
    if methods is not None:
        page.pills(key="explain-methods").set_value(methods).run()


def said(page: AppTest) -> str:
    return " ".join(str(block.value) for block in [*page.get("html"), *page.warning, *page.error])


def test_nothing_is_computed_until_it_is_asked(page: AppTest, calls: Calls) -> None:
    choose(page, methods=[Method.HIRES_CAM])
    assert not page.exception
    assert calls == []
    assert page.expander[0].label == "Explain in other ways"
    assert "trust none of them" in said(page)


def test_what_is_asked_is_shown_with_score_time_and_version(page: AppTest, calls: Calls) -> None:
    choose(page, of="malignant", methods=[Method.HIRES_CAM, Method.EIGEN_CAM])
    page.button(key="explain").click().run()
    assert not page.exception
    assert calls == [(Method.HIRES_CAM, "malignant", "deepest"), (Method.EIGEN_CAM, "malignant", "deepest")]
    deepest = r"The score of malignant · Deepest stage, which decides the class \((\d+) × \1\)"
    assert re.search(deepest, said(page))
    assert "Made in: HiResCAM" in said(page)
    assert "Model 2026" in said(page)


def test_what_was_made_is_not_made_again(page: AppTest, calls: Calls) -> None:
    choose(page, of="benign", methods=[Method.HIRES_CAM])
    page.button(key="explain").click().run()
    page.run()
    choose(page, methods=[Method.HIRES_CAM, Method.LAYER_CAM])
    page.button(key="explain").click().run()
    assert [method for method, _, _ in calls] == [Method.HIRES_CAM, Method.LAYER_CAM]


def test_the_decoder_is_offered_for_the_mask_alone(page: AppTest, calls: Calls) -> None:
    choose(page, of="malignant", methods=[Method.LAYER_CAM])
    where = next(box for box in page.selectbox if box.label.startswith("Where"))
    assert not any("decoder" in option for option in where.options)
    choose(page, of=LESION, layer="decoder")
    page.button(key="explain").click().run()
    assert not page.exception
    assert calls == [(Method.LAYER_CAM, LESION, "decoder")]


def test_a_method_that_does_not_apply_is_explained_and_the_others_are_shown(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain = Analyser.explain

    def refuse_one(self: Analyser, analysis: object, method: Method, **rest: object) -> object:
        if method is Method.LAYER_CAM:
            raise ExplanationError("This cannot be done here.", remedy="Choose another layer.")
        return explain(self, analysis, method, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Analyser, "explain", refuse_one)
    choose(page, methods=[Method.HIRES_CAM, Method.LAYER_CAM])
    page.button(key="explain").click().run()
    assert not page.exception
    assert any("LayerCAM" in error.value and "another layer" in error.value for error in page.error)
    assert "Made in: HiResCAM" in said(page)


def test_score_cam_says_how_often_it_will_read_the_scan(page: AppTest) -> None:
    choose(page, of=LESION, layer="encoder-1", methods=[Method.SCORE_CAM])
    assert "Score-CAM will read this scan 16 times at this layer." in said(page)
    page.button(key="explain").click().run()
    assert not page.exception
    assert "Made in: Score-CAM" in said(page)


def test_read_first_offers_no_explanation_before_it_is_revealed(page: AppTest) -> None:
    page.toggle(key="read-first").set_value(True).run()
    assert not page.exception
    assert not page.expander


def test_read_first_stays_on_when_the_scans_are_cleared_and_others_come(page: AppTest) -> None:
    page.toggle(key="read-first").set_value(True).run()
    page.button(key="clear").click().run()
    page.button(key="sample-benign").click().run()
    assert page.toggle(key="read-first").value
    assert "Model score" not in said(page)


def test_clear_forgets_the_explanations_too(page: AppTest) -> None:
    choose(page, methods=[Method.HIRES_CAM])
    page.button(key="explain").click().run()
    assert page.session_state["tray"].shelf.answers
    page.button(key="clear").click().run()
    assert not page.session_state["tray"].shelf.answers
    assert page.session_state["tray"].shelf.asked is None


def test_what_failed_is_tried_again_when_it_is_asked_for_again(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ExplanationError("The graphics card's memory is too full.", remedy="Try again later.")

    choose(page, methods=[Method.HIRES_CAM])
    with monkeypatch.context() as patch:
        patch.setattr(Analyser, "explain", fail)
        page.button(key="explain").click().run()
        assert "memory is too full" in said(page)
    page.button(key="explain").click().run()
    assert "memory is too full" not in said(page)
    assert page.session_state["tray"].shelf.answers


def test_another_session_sees_none_of_it(page: AppTest) -> None:
    """C5."""
    choose(page, methods=[Method.HIRES_CAM])
    page.button(key="explain").click().run()
    other = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    assert not other.session_state["tray"].shelf.answers


def test_a_session_keeps_a_bounded_number_of_maps() -> None:
    shelf = Shelf()
    for number in range(MAX_KEPT + 5):
        answer = Answer(ExplanationError("None.", remedy="None."), 0.0)
        shelf.keep(Question(f"scan {number}", LESION, "deepest"), Method.GRAD_CAM, answer)
    assert len(shelf.answers) == MAX_KEPT
    assert next(iter(shelf.answers))[0].scan_id == "scan 5"
