"""Many scans: every file has its row, figures are the library's, memory and threads stay bounded."""

import csv
import io
import itertools
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from files import save, speckle
from scipy.stats import binomtest
from versions import TINY, WEIGHTS, make_analyser

from busi_core.batch import ScanRow, read_cases, report_scan
from busi_core.batch_tables import distinct_scans, rows_csv, safe_cell, same_pixels, summarise
from busi_core.data.pairing import Case, pair_files
from busi_core.data.pixel_hash import pixel_hash
from busi_core.data.sources import list_uploads
from busi_core.explain.gradcam import LESION
from busi_core.findings import read_finding
from busi_core.imaging.decode import decode_image
from busi_core.imaging.encode import mask_png
from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.metrics.bootstrap import bootstrap_interval
from busi_core.metrics.segmentation import count_overlap, hd95
from busi_core.registry import read_registry
from busi_core.service import Analyser
from busi_core.side_by_side import map_in_order
from busi_core.taught import TaughtScans
from busi_core.types import Diagnosis


def cases_of(*files: tuple[str, bytes]) -> tuple[Case, ...]:
    return pair_files(list_uploads(files), keep_all=True).cases


def with_mask(name: str, scan: SimulatedScan) -> list[tuple[str, bytes]]:
    return [(f"{name}.png", scan.png()), (f"{name}_mask.png", mask_png(scan.mask))]


def read(analyser: Analyser, *files: tuple[str, bytes]) -> list[ScanRow]:
    return list(read_cases(analyser, cases_of(*files)))


def test_a_row_says_what_the_front_door_says(analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]) -> None:
    scan = simulated[Diagnosis.MALIGNANT]
    (row,) = read(analyser, *with_mask("malignant/scan", scan))
    analysis = analyser.analyse(scan.png())
    mask = read_finding(analysis).lesion_mask
    counts = count_overlap(mask, scan.mask)
    assert row.reading is not None
    assert row.reading.record["probabilities"] == {
        d.value: p for d, p in (analysis.prediction.probabilities or {}).items()
    }
    assert row.reading.record["lesion_pixels"] == mask.sum()
    assert (row.truth.dice, row.truth.iou, row.truth.precision) == pytest.approx(
        (counts.dice, counts.iou, counts.precision), nan_ok=True
    )
    assert row.truth.hd95_px == pytest.approx(hd95(mask, scan.mask), nan_ok=True)
    assert row.truth.diagnosis is Diagnosis.MALIGNANT


def test_pictures_of_a_row_are_those_of_the_analysis(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    scan = simulated[Diagnosis.BENIGN]
    (case,) = cases_of(*with_mask("a", scan))
    (row,) = read_cases(analyser, [case])
    drawn = report_scan(row, case).draw()
    assert drawn is not None
    assert (drawn.mask == read_finding(analyser.analyse(scan.png())).lesion_mask).all()
    assert drawn.truth is not None
    assert (drawn.truth == scan.mask).all()


def test_a_bad_file_is_a_row_with_its_reason_and_the_rest_goes_on(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    scan = simulated[Diagnosis.BENIGN].png()
    rows = read(analyser, ("1.png", scan), ("2.png", b"text"), ("3.png", scan[:500]), ("4.png", scan))
    assert [row.problem is None for row in rows] == [True, False, False, True]
    assert "not an image" in str(rows[1].problem)
    assert "damaged" in str(rows[2].problem)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        pytest.param(None, "No mask came", id="missing"),
        pytest.param(mask_png(np.ones((64, 64), np.bool_)), "64 x 64", id="of another size"),
        pytest.param(b"text", "cannot be read", id="no picture"),
    ],
)
def test_without_a_sound_mask_figures_are_not_available_rather_than_zero(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan], mask: bytes | None, said: str
) -> None:
    """U22."""
    files = [("a.png", simulated[Diagnosis.BENIGN].png())] + ([("a_mask.png", mask)] if mask else [])
    (row,) = read(analyser, *files)
    assert said in str(row.truth.problem)
    assert math.isnan(row.truth.dice)
    (line,) = csv.DictReader(io.StringIO(rows_csv([row]).decode("utf-8-sig")))
    assert {line[key] for key in ("dice", "iou", "precision", "recall", "hd95_px", "reference_pixels")} == {"n/a"}


def test_an_answer_withheld_is_neither_a_hit_nor_a_miss(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """U22. Of a scan without contrast there is none, whoever brings the reference."""
    scan = simulated[Diagnosis.MALIGNANT]
    flat = save(np.full(scan.mask.shape, 90, np.uint8), "PNG")
    files = [*with_mask("a", scan), ("flat.png", flat), ("flat_mask.png", mask_png(scan.mask))]
    read_one, withheld = read(analyser, *files)
    assert withheld.reading is not None
    assert withheld.reading.withheld
    assert withheld.truth.lesion_pixels == scan.mask.sum()
    assert math.isnan(withheld.truth.dice)
    assert withheld.truth.record()["dice"] is None
    both, alone = summarise([read_one, withheld])[0], summarise([read_one])[0]
    for name in ("lesion Dice", "lesions missed"):
        (measured,) = (figure for figure in both.figures if figure.name == name)
        (expected,) = (figure for figure in alone.figures if figure.name == name)
        assert (measured.estimate, measured.scans) == (expected.estimate, 1)


def test_a_copy_is_called_one_in_the_csv_also_where_its_original_is_filtered_out(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    scan = simulated[Diagnosis.BENIGN].png()
    rows = read(analyser, ("a.png", scan), ("b.png", scan))
    (line,) = csv.DictReader(io.StringIO(rows_csv(rows[1:], of=rows).decode("utf-8-sig")))
    assert line["same_pixels_as"] == rows[0].id


def test_a_normal_scan_has_no_dice_even_when_something_is_outlined(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    (row,) = read(make_analyser(lesion_threshold=0.01), *with_mask("normal/a", simulated[Diagnosis.NORMAL]))
    assert row.reading is not None
    assert row.reading.record["lesion_pixels"] > 0
    assert math.isnan(row.truth.dice)
    figures = {figure.name: figure for figure in summarise([row])[0].figures}
    assert figures["normals given a mask"].estimate == 1
    assert math.isnan(figures["lesion Dice"].estimate)


def test_two_mask_files_are_merged(analyser: Analyser) -> None:
    scan = save(speckle(), "PNG")
    left, right = np.zeros((2, 72, 96), np.bool_)
    left[10:20, 10:20] = right[10:20, 50:60] = True
    (row,) = read(analyser, ("a.png", scan), ("a_mask.png", mask_png(left)), ("a_mask_1.png", mask_png(right)))
    assert row.truth.lesion_pixels == 200
    assert row.truth.notes == ("2 mask files, merged.",)


def test_the_same_pixels_under_two_names_are_both_kept_and_the_second_is_flagged(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """U17."""
    scan = simulated[Diagnosis.BENIGN]
    again = save(scan.grey, "BMP")  # another file, the same pixels
    rows = read(analyser, ("a.png", scan.png()), ("b.bmp", again), ("a.png", simulated[Diagnosis.MALIGNANT].png()))
    assert len({row.id for row in rows}) == 3
    by_name = {row.name: row for row in rows}
    assert list(same_pixels(rows)) == [by_name["b.bmp"].id]


def test_copies_and_images_of_one_case_are_one_unit_when_intervals_are_drawn(analyser: Analyser) -> None:
    scans = [simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120) for seed in range(4)]
    brighter = save(np.clip(scans[0].grey.astype(int) + 9, 0, 255).astype(np.uint8), "PNG")
    names = ["x.png", "brighter.png", "Images/bus_0001-l.png", "Images/bus_0001-r.png", "benign (7).png"]
    data = [scans[0].png(), brighter, scans[1].png(), scans[2].png(), scans[3].png()]
    rows = read(analyser, *zip(names, data, strict=True))
    unit = dict(zip([row.name for row in rows], distinct_scans(rows).tolist(), strict=True))
    assert unit["x.png"] == unit["brighter.png"]
    assert unit["Images/bus_0001-l.png"] == unit["Images/bus_0001-r.png"]
    assert len(set(unit.values())) == 3


def test_scans_of_one_case_of_their_table_are_one_unit_of_independence(analyser: Analyser) -> None:
    """12 images of one patient are no 12 draws; of another table the same number is another patient."""
    table = b"ID,Case,Pathology\nbus_9001-l,77,benign\nbus_9002-l,77,benign\nview 3,77,benign\nbus_9004-l,,benign\n"
    names = [f"{folder}/{name}.png" for folder in "AB" for name in ("bus_9001-l", "bus_9002-l", "view 3")]
    names += ["A/bus_9004-l.png", "B/bus_9004-r.png", "B/benign (7).png"]
    scans = [simulate_scan(Diagnosis.MALIGNANT, seed=seed, height=96, width=120).png() for seed in range(len(names))]
    rows = read(analyser, ("A/bus_data.csv", table), ("B/bus_data.csv", table), *zip(names, scans, strict=True))
    unit = dict(zip([row.name for row in rows], distinct_scans(rows).tolist(), strict=True))
    assert len(set(map(unit.get, names[:3]))) == len(set(map(unit.get, names[3:6]))) == 1
    assert unit["A/bus_9004-l.png"] == unit["B/bus_9004-r.png"]
    assert len(set(unit.values())) == 4


def test_scans_that_taught_the_model_are_summed_up_apart(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    """By the published list, 'benign (1)' may have copies: naming one of a group names them all."""
    analyser = make_analyser(trained_on=("busi/benign (2)", "bus-bra/bus_0001-l"))
    scan = simulated[Diagnosis.BENIGN]
    rows = read(analyser, *with_mask("benign/benign (2)", scan), *with_mask("benign/benign (9999)", scan))
    assert {row.name: row.truth.taught for row in rows} == {
        "benign/benign (2).png": True,
        "benign/benign (9999).png": False,
    }
    new, taught = summarise(rows)
    assert (new.scans, taught.scans) == (1, 1)
    assert "say nothing about new scans" in taught.caution


def test_a_renamed_copy_of_a_scan_that_taught_is_not_counted_as_new(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    analyser = make_analyser()
    scan, other = simulated[Diagnosis.BENIGN], simulated[Diagnosis.MALIGNANT]
    analyser.taught = TaughtScans((), [pixel_hash(scan.grey)])
    rows = read(analyser, *with_mask("benign/of A", scan), *with_mask("malignant/of B", other))
    assert [row.truth.taught for row in rows] == [True, False]
    assert [summary.scans for summary in summarise(rows)] == [1, 1]


def test_the_summary_is_the_bootstrap_of_the_library(analyser: Analyser) -> None:
    files = []
    for seed in range(10):
        files += with_mask(f"{'malignant' if seed % 2 else 'benign'}/{seed}", simulate_scan(
            Diagnosis.MALIGNANT if seed % 2 else Diagnosis.BENIGN, seed=seed, height=96, width=120))  # fmt: skip
    rows = read(analyser, *files)
    (summary,) = summarise(rows)
    dice = next(figure for figure in summary.figures if figure.name == "lesion Dice")
    expected = bootstrap_interval(np.array([row.truth.dice for row in rows]), distinct_scans(rows))
    assert (dice.estimate, dice.low, dice.high) == pytest.approx((expected.estimate, expected.low, expected.high))
    assert summary.counts == {"normal": 0, "benign": 5, "malignant": 5}
    assert sum(map(sum, summary.confusion or ())) == 10


def test_a_handful_of_scans_claims_no_certainty(analyser: Analyser) -> None:
    """Every draw from one scan is that scan: of 'all of one' the interval by Wilson begins at a fifth."""
    scans = [simulate_scan(Diagnosis.NORMAL, seed=seed, height=96, width=120) for seed in (1, 2)]
    lesion = simulate_scan(Diagnosis.BENIGN, seed=3, height=96, width=120)
    files = [(f"normal/{number}.png", scan.png()) for number, scan in enumerate(scans)]
    (summary,) = summarise(read(analyser, *files, *with_mask("benign/a", lesion)))
    figures = {figure.name: figure for figure in summary.figures}
    assert math.isnan(figures["lesion Dice"].low)
    assert math.isnan(figures["macro-F1"].low)
    given = figures["normals given a mask"]
    assert given.estimate in (0.0, 1.0)
    low, high = binomtest(round(2 * given.estimate), 2).proportion_ci(method="wilson")
    assert (given.low, given.high) == pytest.approx((low, high))
    assert high - low > 0.6


def test_copies_narrow_no_interval_where_all_scans_agree(analyser: Analyser) -> None:
    """Two normals, each under three names: what is known of two is known."""
    scans = [simulate_scan(Diagnosis.NORMAL, seed=seed, height=96, width=120).png() for seed in (1, 2)]
    files = [(f"normal/{number}-{copy}.png", scan) for number, scan in enumerate(scans) for copy in "abc"]
    (summary,) = summarise(read(analyser, *files))
    given = next(figure for figure in summary.figures if figure.name == "normals given a mask")
    assert (summary.scans, summary.distinct, given.scans) == (6, 2, 6)
    assert given.estimate in (0.0, 1.0)
    low, high = binomtest(round(2 * given.estimate), 2).proportion_ci(method="wilson")
    assert (given.low, given.high) == pytest.approx((low, high))


def test_a_distance_of_one_pixel_is_no_share_of_scans(analyser: Analyser) -> None:
    """By Wilson it would lie between 0.6 and 1.0 pixels."""
    rows = read(analyser, *with_mask("benign/a", simulate_scan(Diagnosis.BENIGN, seed=3, height=96, width=120)))
    rows = [replace(row, truth=replace(row.truth, hd95_px=1.0)) for row in rows]
    (distance,) = [figure for figure in summarise(rows)[0].figures if figure.name == "HD95 (px)"]
    assert distance.estimate == 1.0
    assert math.isnan(distance.low)


def test_without_any_reference_there_is_no_summary(analyser: Analyser) -> None:
    assert summarise(read(analyser, ("a.png", save(speckle(), "PNG")))) == []


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        (" \t@SUM(A1)", "' \t@SUM(A1)"),
        ("-2.png", "'-2.png"),
        ("\r=x", "'\r=x"),
        ("\0=1+1", "'=1+1"),
        ("a;=1+1; @x;b.png", "a;'=1+1; '@x;b.png"),
        ("＝1+1.png", "'＝1+1.png"),
        ("a;b=c.png", "a;b=c.png"),
        ("scan = 1.png", "scan = 1.png"),
        ("", ""),
        (math.nan, "n/a"),
        (0.5, "0.5"),
        (-0.5, "-0.5"),
        (True, "True"),
    ],
)
def test_no_cell_becomes_a_formula(value: object, cell: str) -> None:
    assert safe_cell(value) == cell


def test_names_survive_the_csv(analyser: Analyser) -> None:
    """U18, U19."""
    names = ['a,"b"\n.png', "<script>alert(1)</script>.png", "שלום 🦠.png", "=HYPERLINK(0).png"]
    rows = read(analyser, *[(name, save(speckle(), "PNG")) for name in names])
    lines = list(csv.DictReader(io.StringIO(rows_csv(rows).decode("utf-8-sig"), newline="")))
    assert {line["file"].removeprefix("'") for line in lines} == set(names)


def test_results_keep_their_order_and_reading_never_runs_far_ahead() -> None:
    taken, given, most = 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal taken, most
        for number in range(200):
            taken += 1
            most = max(most, taken - given)
            yield number

    def read(number: int) -> int:
        time.sleep(0.002 if number % 3 else 0)
        return number

    for expected, number in enumerate(map_in_order(read, items(), jobs=2)):
        assert number == expected
        given += 1
    assert given == 200
    assert most <= 2 * 2 + 1


def test_closing_stops_reading_and_leaves_no_thread() -> None:
    before, started = threading.active_count(), []

    def read(number: int) -> int:
        started.append(number)
        return number

    rows = map_in_order(read, range(1000), jobs=2)
    assert next(rows) == 0
    rows.close()
    assert len(started) < 20
    assert threading.active_count() == before


def test_a_mistake_of_our_own_is_not_swallowed() -> None:
    def broken(number: int) -> int:
        raise KeyError(number)

    with pytest.raises(KeyError):
        list(map_in_order(broken, range(3), jobs=1))


def test_a_row_of_a_bad_file_has_no_truth_and_its_record_says_why(analyser: Analyser) -> None:
    (row,) = read(analyser, ("benign/x.png", b""))
    assert row.record() == {"id": row.id, "file": "benign/x.png", "problem": row.problem}
    assert summarise([replace(row)]) == []


def test_a_batch_reads_bit_for_bit_what_one_scan_alone_gives(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """Without the mask's heat map, and else the same; in torch, and by ncnn as the version in service."""
    carried = Analyser.load(WEIGHTS / read_registry(WEIGHTS).in_service, torch.device("cpu"))
    for scan, reader in itertools.product(simulated.values(), (analyser, carried)):
        image = decode_image(scan.png())
        alone, many = reader.analyse_image(image), reader.analyse_for_batch(image)
        assert many.prediction.probabilities == alone.prediction.probabilities
        assert (many.prediction.lesion_probability == alone.prediction.lesion_probability).all()
        assert set(many.heatmaps) == set(alone.heatmaps) - {LESION}
        assert all((many.heatmaps[name].evidence == alone.heatmaps[name].evidence).all() for name in many.heatmaps)


def test_a_model_without_a_class_head_keeps_the_map_of_its_mask(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    outlines_only = make_analyser(architecture=replace(TINY, image_classes=()), task="lesion", malignancy=None)
    (row,) = read(outlines_only, ("a.png", simulated[Diagnosis.BENIGN].png()))
    assert row.reading is not None
    assert row.reading.scores is None
    assert row.reading.pictures is not None
    assert row.reading.pictures.explains == LESION
