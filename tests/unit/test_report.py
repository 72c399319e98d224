"""A report is opened and read back: all that the record says stands in it, on every page the notice."""

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from files import save, speckle
from pypdf import PageObject, PdfReader
from reportlab.lib.units import mm
from versions import make_analyser

from busi_core.batch import read_cases, report_scan
from busi_core.batch_tables import summarise
from busi_core.data.pairing import pair_files
from busi_core.data.sources import list_uploads
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.models.checkpoint import MalignancyFlag
from busi_core.report import (
    RESEARCH_USE,
    Figure,
    Report,
    ReportScan,
    cutoff_words,
    report_json,
    score_beside,
    score_words,
)
from busi_core.report_pdf import draw_report
from busi_core.report_pdf.fonts import printable
from busi_core.report_pdf.page import BOTTOM, TOP, Pages
from busi_core.report_pdf.pictures import draw_difference
from busi_core.types import Diagnosis, ImageWarning

CREATED = "2026-11-20 12:00 UTC"


def make_report(files: Sequence[tuple[str, bytes]], *, subject: str = "", repeat: int = 1, **card: Any) -> Report:
    analyser = make_analyser(lesion_threshold=0.45, **card)
    cases = pair_files(list_uploads(files), keep_all=True).cases
    rows = list(read_cases(analyser, cases))
    scans = [report_scan(row, case) for row, case in zip(rows, cases, strict=True)]
    return Report(scans * repeat, analyser.card.version, CREATED, subject, summarise(rows))


def pages(report: Report) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(draw_report(report))).pages]


def with_mask(name: str, scan: SimulatedScan) -> list[tuple[str, bytes]]:
    return [(f"{name}.png", scan.png()), (f"{name}_mask.png", mask_png(scan.mask))]


def plain(text: str) -> str:
    return "".join(text.split())


def test_one_scan_is_one_page_with_everything_on_it(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    report = make_report(with_mask("malignant/left breast", simulated[Diagnosis.MALIGNANT]))
    (text,) = pages(report)
    record = report.scans[0].record
    said = plain(text)
    for words in (
        "malignant/left breast.png",
        RESEARCH_USE,
        "Page 1 of 1",
        "Model tiny",
        CREATED,
        f"Class of the image: {record['class']}",
        *(f"{d.value}{record['probabilities'][d.value]:.2f}" for d in Diagnosis),
        f"Dice {record['truth']['dice']:.3f}",
        f"HD95 {record['truth']['hd95_px']:.1f} px",
        "Reference class: malignant",
        f"{record['size']['longest']:.0f} x {record['size']['perpendicular']:.0f} px",
        "No calibration in the file: sizes are in pixels.",
    ):
        assert plain(words) in said


def test_one_scan_shows_scan_overlay_heat_map_and_difference(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    report = make_report(with_mask("a", simulated[Diagnosis.BENIGN]))
    (page,) = PdfReader(io.BytesIO(draw_report(report))).pages
    assert len(page.images) == 4
    assert all(image.image is not None and min(image.image.size) > 60 for image in page.images)


def test_every_page_of_many_bears_the_notice_the_model_and_its_number(
    simulated: dict[Diagnosis, SimulatedScan],
) -> None:
    files = [pair for d, scan in simulated.items() for pair in with_mask(f"{d}/{d}", scan)]
    texts = pages(make_report([*files, ("broken.png", b"text")]))
    assert len(texts) == 3  # summary and table, then two scans a page
    for number, text in enumerate(texts, start=1):
        assert RESEARCH_USE in text
        assert "Model tiny" in text
        assert f"Page {number} of 3" in text
    assert "lesion Dice" in texts[0]
    assert "not an image" in texts[0]
    assert "1 could not be read" in texts[0]


def test_a_long_table_goes_on_over_pages_with_its_head(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    scan = make_report([("a.png", simulated[Diagnosis.BENIGN].png())]).scans[0]
    bare = ReportScan(scan.record, lambda: None)
    texts = pages(Report([bare] * 120, "tiny", CREATED))
    assert sum("reference" in text and "Dice" in text for text in texts) >= 3


def test_json_says_the_same_as_the_pdf(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    report = make_report(with_mask("benign/a", simulated[Diagnosis.BENIGN]))
    content = json.loads(report_json(report))
    assert content["scans"] == [json.loads(json.dumps(dict(scan.record))) for scan in report.scans]
    assert content["notice"] == RESEARCH_USE
    assert content["summaries"][0]["figures"]["lesion Dice"]["scans"] == 1


def test_nobody_is_named_unless_typed_in(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    files = with_mask("a", simulated[Diagnosis.BENIGN])
    assert "Typed in" not in pages(make_report(files))[0]
    assert "subject" not in json.loads(report_json(make_report(files)))
    named = make_report(files, subject="Case 17 <b>")
    assert "Typed in by the reader: Case 17 <b>" in pages(named)[0]
    assert json.loads(report_json(named))["subject"] == "Case 17 <b>"
    with pytest.raises(ValueError, match="200"):
        replace(named, subject="x" * 201)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("<b>bold</b> & <font size=99>x.png", "<b>bold</b>&<fontsize=99>x.png", id="markup"),
        pytest.param("<img src='http://example.org/x.png'>.png", "<imgsrc='http://example.org/x.png'>.png", id="image"),
        pytest.param("<para", "<para", id="torn markup"),
        pytest.param("x" * 300 + ".png", "x" * 300 + ".png", id="300 characters"),
        pytest.param("a\0b\x1b[31m.png", "a[U+0000]b[U+001B][31m.png", id="control characters"),
        pytest.param("photo\u202egnp.exe", "photo[U+202E]gnp.exe", id="turned round to deceive"),
        pytest.param("🦠 中.png", "[U+1F9A0][U+4E2D].png", id="outside the font"),
        pytest.param("naïve Grüße.png", "naïveGrüße.png", id="Latin"),
    ],
)
def test_a_name_is_shown_and_never_obeyed(simulated: dict[Diagnosis, SimulatedScan], name: str, shown: str) -> None:
    """U18, U19."""
    report = make_report([(name, simulated[Diagnosis.BENIGN].png())])
    assert shown in plain(pages(report)[0])
    assert json.loads(report_json(report))["scans"][0]["file"] == name


def test_right_to_left_names_survive(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    (text,) = pages(make_report([("שלום.png", simulated[Diagnosis.BENIGN].png())]))
    assert set("שלום") <= set(text)
    assert printable("a שלום עולם.png") == "a םלוע םולש.png"  # in the order of the paper, not of the keyboard


def note(number: int) -> str:
    return f"benign/benign (4)_mask_{number}.png: not black and white (5 values): above 127 was read as lesion."


def wordy(report: Report, *, notes: int, warnings: Sequence[str], scans: int) -> Report:
    """The first scan of a report, so many times, with much more said of it."""
    record = report.scans[0].record
    truth = record["truth"] | {"notes": [note(number) for number in range(notes)]}
    said = {"truth": truth, "warnings": warnings, "disagreement": "One says this.", "taught_the_model": True}
    return replace(report, scans=[ReportScan({**record, **said}, report.scans[0].draw)] * scans)


def heights(page: PageObject) -> list[float]:
    """Where the lines of text stand above the lower edge of the paper, in points."""
    found: list[float] = []

    def look(text: str, around: list[float], within: list[float], *_: object) -> None:
        if text.strip():
            found.append(around[5] + within[5])

    page.extract_text(visitor_text=look)
    return found


@pytest.mark.parametrize("scans", [1, 3])
@pytest.mark.parametrize("notes", [0, 5, 12, 63])
@pytest.mark.parametrize("warned", [False, True], ids=["no warning", "many warnings"])
def test_however_much_is_said_of_a_mask_the_warnings_and_the_model_stand_on_the_paper(
    simulated: dict[Diagnosis, SimulatedScan], scans: int, notes: int, warned: bool
) -> None:
    unanswered = (ImageWarning.WITHHELD, ImageWarning.NO_CONTRAST)  # these make room
    warnings = [one.value for one in ImageWarning if one not in unanswered] if warned else []
    short = make_report(with_mask("a", simulated[Diagnosis.BENIGN]))
    report = wordy(short, notes=notes, warnings=warnings, scans=scans)
    drawn = PdfReader(io.BytesIO(draw_report(report))).pages
    foot, foot_line = 9.5 * mm, 14 * mm
    assert all(y > foot_line or y == pytest.approx(foot, abs=0.1) for page in drawn for y in heights(page))
    said = "".join(plain(page.extract_text()) for page in drawn)
    for words in ("Findings disagree. One says this.", *(warning[1:] for warning in warnings)):
        assert said.count(plain(words)) == scans
    assert said.count("Modeltiny") == len(drawn) + scans
    left_out = sum(int(count) for count in re.findall(r"and(\d+)morenote", said))
    assert said.count("_mask_") + left_out == notes * scans


@pytest.mark.parametrize("scans", [1, 3])
def test_of_an_answer_that_was_insisted_on_the_warning_stands_before_the_answer(
    simulated: dict[Diagnosis, SimulatedScan], scans: int
) -> None:
    short = make_report([("a.png", simulated[Diagnosis.BENIGN].png())])
    insisted = {**short.scans[0].record, "warnings": [ImageWarning.INSISTED.value]}
    report = replace(short, scans=[ReportScan(insisted, short.scans[0].draw)] * scans)
    said = plain("".join(pages(report)))
    answers = [part.split("Classoftheimage")[0] for part in said.split("a.png")[-scans:]]
    assert [plain(ImageWarning.INSISTED.value) in before for before in answers] == [True] * scans


@pytest.mark.parametrize("letters", [5, 200, 390])
@pytest.mark.parametrize("warned", [False, True], ids=["no warning", "insisted"])
def test_pictures_of_two_scans_on_a_page_never_lie_over_each_other(
    simulated: dict[Diagnosis, SimulatedScan], monkeypatch: pytest.MonkeyPatch, letters: int, warned: bool
) -> None:
    short = make_report(with_mask("a", simulated[Diagnosis.BENIGN]))
    warnings = [ImageWarning.INSISTED.value] if warned else []
    long = {**short.scans[0].record, "file": "scan " * (letters // 5), "warnings": warnings}
    boxes: dict[int, list[tuple[float, float]]] = {}
    draw = Pages.picture

    def watched(self: Pages, *given: Any) -> None:
        boxes.setdefault(self.getPageNumber(), []).append((given[3] - given[5], given[3]))
        draw(self, *given)

    monkeypatch.setattr(Pages, "picture", watched)
    draw_report(replace(short, scans=[ReportScan(long, short.scans[0].draw)] * 3))
    assert sum(map(len, boxes.values())) == 12
    middle = TOP - (TOP - BOTTOM) / 2
    for page in boxes.values():
        assert min(bottom for bottom, _ in page[:4]) >= (middle if len(page) > 4 else BOTTOM)
        assert all(BOTTOM <= bottom < top <= middle for bottom, top in page[4:])


def test_no_contrast_shows_no_class() -> None:
    (text,) = pages(make_report([("flat.png", save(np.full((72, 96), 90, np.uint8), "PNG"))]))
    assert "No contrast" in text
    assert "Class of the image" not in text


def test_a_scan_that_can_no_longer_be_read_keeps_its_page(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    report = make_report([("a.png", simulated[Diagnosis.BENIGN].png())])
    from busi_core.errors import InvalidImageError

    def gone() -> None:
        raise InvalidImageError("The file cannot be opened.", remedy="Check its permissions.")

    (text,) = pages(replace(report, scans=[ReportScan(report.scans[0].record, gone)]))
    assert "cannot be drawn" in text


def test_metrics_that_are_not_defined_are_not_zero() -> None:
    scan = simulate_scan(Diagnosis.NORMAL, seed=3, height=96, width=120)
    (text,) = pages(make_report(with_mask("normal/a", scan)))
    assert "Dice n/a" in text
    assert str(Figure("lesion Dice", math.nan, math.nan, math.nan, 0)) == "n/a"


def test_the_three_colours_lie_where_the_masks_say() -> None:
    rgb = np.repeat(speckle()[..., None], 3, axis=2)
    mask, truth = np.zeros((2, 72, 96), np.bool_)
    mask[10:30], truth[20:40] = True, True
    drawn = draw_difference(rgb, mask, truth)
    assert (drawn[45:] == rgb[45:]).all()
    hues = {tuple((drawn[row].astype(int) - rgb[row] * 0.45).mean(axis=0).round(-1)) for row in (15, 25, 35)}
    assert len(hues) == 3


def test_the_same_report_is_the_same_bytes(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    report = make_report([("a.png", simulated[Diagnosis.BENIGN].png())])
    assert draw_report(report) == draw_report(report)


@pytest.mark.parametrize(
    ("cutoff", "said"),
    [
        (0.45, "cut-off 0.45"),
        (0.453, "cut-off 0.45"),
        (0.3, "cut-off 0.30, chosen by the reader (the model's own: 0.45)"),
        (0.46, "cut-off 0.46, chosen by the reader (the model's own: 0.45)"),
    ],
    ids=["the model's", "no other in two digits", "the reader's", "the reader's, one step of the slider away"],
)
def test_a_cut_off_that_the_reader_chose_is_named_as_such(cutoff: float, said: str) -> None:
    assert cutoff_words(cutoff, 0.45) == said


@pytest.mark.parametrize(("cutoff", "flagged"), [(0.001, 2), (0.999, 0)])
def test_the_table_of_many_scans_says_which_are_flagged(
    simulated: dict[Diagnosis, SimulatedScan], cutoff: float, flagged: int
) -> None:
    files = [(f"{place}.png", simulated[Diagnosis.MALIGNANT].png()) for place in "ab"]
    report = make_report(files, malignancy=MalignancyFlag(cutoff, 0.95, 0.5, 40))
    first = pages(report)[0]
    assert f"{flagged} flagged for malignancy" in first
    assert first.splitlines().count("yes") == flagged


@pytest.mark.parametrize(
    ("score", "cutoff", "said"),
    [
        (0.94, 0.0269, ("0.940", "0.027")),
        (0.0268, 0.0272, ("0.0268", "0.0272")),
        (0.02685, 0.02684, ("0.02685", "0.02684")),
        (0.0002, 0.0269, ("< 0.001", "0.027")),
        (0.99991, 0.0269, ("> 0.999", "0.027")),
        (0.3, 0.3, ("0.300000", "0.300000")),
    ],
)
def test_a_score_and_its_cut_off_are_never_written_alike_where_they_differ(
    score: float, cutoff: float, said: tuple[str, str]
) -> None:
    """It read '0.03 < 0.03'."""
    assert score_beside(score, cutoff) == said


@pytest.mark.parametrize(
    ("score", "said"),
    [(0.0, "< 0.01"), (0.0099, "< 0.01"), (0.01, "0.01"), (0.99, "0.99"), (0.991, "> 0.99"), (1.0, "> 0.99")],
)
def test_a_score_is_never_rounded_to_certainty(score: float, said: str) -> None:
    assert score_words(score) == said


def test_a_report_says_what_such_answers_were_worth_on_test_scans(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    worth = ("The flag for malignancy: It flags 9 of 10 malignant test scans.", "Heat maps are relative.")
    files = with_mask("a", simulated[Diagnosis.BENIGN])
    for report in (make_report(files), make_report(files, repeat=2)):
        said = "".join(map(plain, pages(replace(report, worth=worth))))
        assert all(said.count(plain(words)) == 1 for words in worth)
        assert json.loads(report_json(replace(report, worth=worth)))["on_test_scans"] == list(worth)


def test_of_an_answer_withheld_nothing_is_said_to_be_worth_anything(
    simulated: dict[Diagnosis, SimulatedScan],
) -> None:
    report = make_report([("a.png", simulated[Diagnosis.BENIGN].png())])
    withheld = dict(report.scans[0].record) | {"withheld": True, "probabilities": None, "flagged": None, "class": None}
    scans = [ReportScan(withheld, lambda: None)]
    assert "On test scans" not in "".join(pages(replace(report, scans=scans, worth=("It flags 9 of 10.",))))


def test_scans_with_the_same_pixels_and_simulated_ones_are_counted(
    simulated: dict[Diagnosis, SimulatedScan],
) -> None:
    files = [(f"{name}.png", simulated[Diagnosis.BENIGN].png()) for name in "ab"]
    report = make_report(files)
    second = ReportScan(dict(report.scans[1].record) | {"same_pixels_as": "a.png", "simulated": True}, lambda: None)
    said = "".join(map(plain, pages(replace(report, scans=[report.scans[0], second]))))
    for words in (
        "1 with the same pixels as another file",
        "1 SIMULATED",
        "The same pixels as a.png.",
        "b.png SIMULATED",
    ):
        assert plain(words) in said


def test_the_matrix_of_classes_stands_on_the_paper(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    files = [
        file for diagnosis in Diagnosis for file in with_mask(f"{diagnosis}/{diagnosis} (1)", simulated[diagnosis])
    ]
    report = make_report(files)
    (summary,) = report.summaries
    assert summary.confusion is not None
    said = "".join(map(plain, pages(report)))
    for diagnosis, line in zip(Diagnosis, summary.confusion, strict=True):
        assert f"{diagnosis}{''.join(map(str, line))}" in said


def test_a_score_that_rounds_to_the_flags_cut_off_is_told_from_it_on_paper(
    simulated: dict[Diagnosis, SimulatedScan],
) -> None:
    report = make_report([("a.png", simulated[Diagnosis.BENIGN].png())])
    scores = {"normal": 0.5, "benign": 0.4733, "malignant": 0.0267}
    near = {"probabilities": scores, "flagged": False, "malignancy_threshold": 0.0269}
    scan = ReportScan(dict(report.scans[0].record) | near, lambda: None)
    (single,) = pages(replace(report, scans=[scan]))
    assert "Not flagged for malignancy: score 0.0267, flagged from 0.0269 on." in " ".join(single.split())
    assert "0.0267" in pages(replace(report, scans=[scan, scan]))[0]
