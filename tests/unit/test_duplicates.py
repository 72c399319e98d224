"""Repeated scans are found from their pixels, and different scans are not taken for one."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from busi_core.data.duplicates import (
    PublishedScan,
    find_copies,
    find_pairs,
    fingerprint,
    group_scans,
    pairs_within,
    read_published_scans,
)
from busi_core.errors import DatasetError
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis, Grey

HEADER = "\ufeffFilename;Objection\n"


@pytest.fixture(scope="module")
def scans() -> list[Grey]:
    """Twelve different simulated scans."""
    classes = list(Diagnosis)
    return [simulate_scan(classes[seed % 3], seed=seed, height=160, width=200).grey for seed in range(12)]


def draw_calipers(grey: Grey) -> Grey:
    marked = grey.copy()
    for place in ((60, 50), (130, 100)):
        cv2.drawMarker(marked, place, 255, cv2.MARKER_CROSS, 9)
    cv2.line(marked, (60, 50), (130, 100), 255)
    cv2.putText(marked, "1.2 cm", (10, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255)
    return marked


def change_gain(grey: Grey) -> Grey:
    return np.clip(grey * 0.8 + 20, 0, 255).astype(np.uint8)


def compress(grey: Grey) -> Grey:
    return cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda grey: grey.copy(), id="same pixels"),  # U17
        pytest.param(lambda grey: cv2.resize(grey, (140, 96), interpolation=cv2.INTER_AREA), id="resized"),
        pytest.param(change_gain, id="other gain"),
        pytest.param(lambda grey: (255 * (grey / 255) ** 1.15).astype(np.uint8), id="other gamma"),
        pytest.param(draw_calipers, id="calipers and text"),
        pytest.param(lambda grey: grey[3:-3, 4:-4], id="cropped by 2 %"),
        pytest.param(compress, id="JPEG"),
    ],
)
def test_a_changed_copy_of_every_scan_is_found_and_nothing_else(
    scans: list[Grey], change: Callable[[Grey], Grey]
) -> None:
    names = [f"scan {number}" for number in range(12)] + [f"copy {number}" for number in range(12)]
    prints = np.stack([fingerprint(grey) for grey in [*scans, *map(change, scans)]])
    assert find_pairs(names, prints) == {(f"copy {number}", f"scan {number}") for number in range(12)}
    assert find_copies(prints[12:], prints[:12]).all()


def test_different_scans_are_not_taken_for_one(scans: list[Grey]) -> None:
    prints = np.stack([fingerprint(grey) for grey in scans])
    assert find_pairs([str(number) for number in range(12)], prints) == set()
    assert not find_copies(prints[:6], prints[6:]).any()


@pytest.mark.parametrize("rows", [1, 5, 24])
def test_pairs_do_not_depend_on_how_many_are_compared_at_once(
    scans: list[Grey], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busi_core.data.duplicates.ROWS_AT_ONCE", rows)
    prints = np.stack([fingerprint(grey) for grey in (*scans, *map(draw_calipers, scans))])
    names = [f"{kind} {number}" for kind in ("scan", "copy") for number in range(12)]
    assert find_pairs(names, prints) == {(f"copy {number}", f"scan {number}") for number in range(12)}


def test_a_mirrored_scan_is_another_scan(scans: list[Grey]) -> None:
    assert not find_copies(np.stack([fingerprint(scans[0][:, ::-1])]), np.stack([fingerprint(scans[0])])).any()


def test_fingerprints_multiply_to_the_correlation_that_numpy_gives(scans: list[Grey]) -> None:
    first, second = (
        cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).ravel().astype(float) for grey in scans[:2]
    )
    expected = np.corrcoef(first, second)[0, 1]
    assert float(fingerprint(scans[0]) @ fingerprint(scans[1])) == pytest.approx(expected, abs=1e-5)


def test_a_constant_image_is_no_copy_of_anything() -> None:
    """U8: no division by zero."""
    flat = fingerprint(np.full((80, 90), 7, np.uint8))
    assert np.isfinite(flat).all()
    assert not find_copies(flat[None], flat[None]).any()


def test_without_known_scans_nothing_is_a_copy(scans: list[Grey]) -> None:
    nothing = np.zeros((0, 0), np.float32)
    assert find_copies(np.stack([fingerprint(scans[0])]), nothing).tolist() == [False]


def test_pairs_are_all_twos_of_a_group_smaller_name_first() -> None:
    assert pairs_within([["b", "a"], ["x"], ["p", "r", "q"]]) == {("a", "b"), ("p", "r"), ("p", "q"), ("q", "r")}


def test_a_chain_of_pairs_makes_one_scan_and_the_order_stays() -> None:
    assert group_scans(["a", "b", "c", "d", "e"], [("b", "d"), ("d", "e")]) == [("a",), ("b", "d", "e"), ("c",)]


@pytest.mark.parametrize("seed", range(5))
def test_grouping_agrees_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 60, (2, 45))
    _, labels = connected_components(coo_array((np.ones(45), (first, second)), shape=(60, 60)), directed=False)
    pairs = [(str(a), str(b)) for a, b in zip(first, second, strict=True)]
    groups = group_scans([str(number) for number in range(60)], pairs)
    expected = {frozenset(map(str, np.flatnonzero(labels == label))) for label in set(labels)}
    assert {frozenset(group) for group in groups} == expected


def test_the_published_list_is_read_with_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(HEADER + "{benign (1)&benign (7)};\n{normal (3)};axilla\n", encoding="utf-8")
    assert read_published_scans(path) == [
        PublishedScan(("benign (1)", "benign (7)"), ""),
        PublishedScan(("normal (3)",), "axilla"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"Filename,Objection\n{a},\n", id="commas"),
        pytest.param(b"Name;Objection\n{a};\n", id="other columns"),
        pytest.param(b"Filename;Objection\n\xff\xfe;\n", id="not UTF-8"),
        pytest.param(b"Filename;Objection\n{a}\n", id="row cut short"),
        pytest.param(b"Filename;Objection\n", id="no rows, which would hide every copy"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"list\.csv"):
        read_published_scans(path)


@pytest.mark.realdata
def test_the_published_list_holds_587_scans_of_780_files(data_root: Path) -> None:
    published = read_published_scans(data_root / "busi/duplicates_pawlowska_2023.csv")
    assert len(published) == 587
    files = [name for scan in published for name in scan.files]
    assert len(files) == len(set(files)) == 780
    assert {scan.objection for scan in published} == {"", "axilla", "needle", "multiclass"}
