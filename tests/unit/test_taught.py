"""A scan that taught a model is known again under any name, and a new one is not taken for it."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from versions import write_version

from busi_core.data.duplicates import pairs_within, read_published_scans
from busi_core.data.pixel_hash import HASH_BITS, SAME_SCAN_BITS, is_among, pack_hashes, pixel_hash
from busi_core.data.records import Record, read_bus_bra, read_busi
from busi_core.data.splits import split_bus_bra, split_busi
from busi_core.errors import ModelUnavailableError
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import simulate_scan
from busi_core.models.checkpoint import read_card
from busi_core.settings import PROJECT_ROOT
from busi_core.taught import TAUGHT_FILE, KnownBy, TaughtScans, hash_records, read_taught, write_taught
from busi_core.types import Diagnosis, Grey

SERVED = PROJECT_ROOT / "weights/2026.11-a"
BLANK = np.zeros((90, 100), np.uint8)
CHANGES: dict[str, Callable[[Grey], Grey]] = {
    "the same pixels": lambda grey: grey.copy(),
    "half the size": lambda grey: cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "other gain": lambda grey: np.clip(grey * 0.8 + 20, 0, 255).astype(np.uint8),
    "a poor JPEG": lambda grey: cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0),
    "a caliper": lambda grey: cv2.line(grey.copy(), (40, 50), (120, 90), 255, 2),
    "cropped by 2 %": lambda grey: grey[3:-3, 4:-4],
}


@pytest.fixture(scope="module")
def scans() -> list[Grey]:
    classes = list(Diagnosis)
    return [simulate_scan(classes[seed % 3], seed=seed, height=300, width=360).grey for seed in range(12)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_has_nearly_the_same_hash_and_another_scan_has_not(scans: list[Grey], change: str) -> None:
    """U17."""
    copies = [pixel_hash(np.ascontiguousarray(CHANGES[change](grey))) for grey in scans]
    for number, grey in enumerate(scans):
        assert is_among(copies[number], pack_hashes([pixel_hash(grey)]))
        assert not is_among(copies[number], pack_hashes(pixel_hash(one) for one in scans if one is not grey))


def test_a_hash_says_too_little_to_be_a_picture(scans: list[Grey]) -> None:
    for grey in scans:
        assert len(pixel_hash(grey)) == 2 * -(-HASH_BITS // 8) < 40
        ones = int.from_bytes(bytes.fromhex(pixel_hash(grey)), "big").bit_count()
        assert abs(ones - HASH_BITS / 2) < 1  # about the median: no grey value, no brightness


def test_a_constant_image_is_nobodys_copy(scans: list[Grey]) -> None:
    assert not is_among(pixel_hash(BLANK), pack_hashes(map(pixel_hash, scans)))
    assert not is_among(pixel_hash(scans[0]), pack_hashes([]))


@pytest.mark.parametrize(
    ("record", "known"),
    [
        ("busi/benign (1)", KnownBy.NAME),
        ("busi/malignant (1)", None),
        ("bus-bra/bus_0001-l", KnownBy.NAME),
        ("bus-bra/bus_0001-r", KnownBy.NAME),  # the other image of a case that taught
        ("bus-bra/bus_0002-l", None),
        (None, None),
    ],
)
def test_a_scan_is_known_by_its_name_also_by_its_case(record: str | None, known: KnownBy | None) -> None:
    assert TaughtScans(("busi/benign (1)", "bus-bra/bus_0001-l")).recognise(record, BLANK) is known


def test_a_copy_is_known_by_the_published_list() -> None:
    assert TaughtScans(("busi/benign (42)",)).recognise("busi/benign (131)", BLANK) is KnownBy.NAME


def test_hashes_are_written_sorted_and_read_back(tmp_path: Path, scans: list[Grey]) -> None:
    hashes = [pixel_hash(grey) for grey in scans]
    write_taught(tmp_path, hashes)
    taught = read_taught(tmp_path, ())
    assert taught.hashes == set(hashes)
    assert taught.recognise(None, scans[3]) is KnownBy.PIXELS
    text = (tmp_path / TAUGHT_FILE).read_text()
    assert [text.index(one) for one in sorted(hashes)] == sorted(text.index(one) for one in hashes)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 9, "hashes": []}', '{"schema": 1, "hashes": ["00"]}'])
def test_a_damaged_list_is_refused_rather_than_taken_for_empty(tmp_path: Path, content: str) -> None:
    write_version(tmp_path, "tiny")
    (tmp_path / "tiny" / TAUGHT_FILE).write_text(content)
    with pytest.raises(ModelUnavailableError, match="taught model 'tiny'"):
        read_taught(tmp_path / "tiny", ())


# ---- On the scans themselves ---------------------------------------------------------------------------------


def hashes_of(records: list[Record]) -> dict[str, str]:
    return {record.name: pixel_hash(decode_image(record.image.read_bytes()).grey) for record in records}


@pytest.mark.realdata
def test_the_version_in_service_knows_every_scan_that_taught_it_under_any_name(data_root: Path) -> None:
    card = read_card(SERVED)
    taught, names = read_taught(SERVED, ()), set(card.trained_on)
    split = split_busi(read_busi(data_root / "busi"))
    teachers = [record for record in split.train + split.validation if record.id in names]
    assert len(teachers) > 400
    assert hash_records(teachers) <= taught.hashes
    for record in teachers[::40]:
        grey = decode_image(record.image.read_bytes()).grey
        for change in ("half the size", "other gain", "a poor JPEG"):
            assert taught.recognise(None, CHANGES[change](grey)) is KnownBy.PIXELS, (record.name, change)


@pytest.mark.realdata
def test_no_scan_of_the_test_folds_is_taken_for_one_that_taught(data_root: Path) -> None:
    taught = read_taught(SERVED, ())
    test = [*split_busi(read_busi(data_root / "busi")).test, *split_bus_bra(read_bus_bra(data_root / "bus-bra")).test]
    assert len(test) > 400
    assert not [r.id for r in test if taught.recognise(None, decode_image(r.image.read_bytes()).grey)]


@pytest.mark.realdata
def test_the_hash_finds_86_of_100_published_copies_and_nearly_nothing_else(data_root: Path) -> None:
    hashes = hashes_of(read_busi(data_root / "busi"))
    published = read_published_scans(data_root / "busi/duplicates_pawlowska_2023.csv")
    pairs = pairs_within([[name for name in scan.files if name in hashes] for scan in published])
    packed = {name: pack_hashes([one]) for name, one in hashes.items()}
    found = {
        (a, b) if a < b else (b, a)
        for a, b in combinations(hashes, 2)
        if np.bitwise_count(packed[a] ^ packed[b]).sum() <= SAME_SCAN_BITS
    }
    assert len(found & pairs) / len(pairs) > 0.86
    assert len(found & pairs) / len(found) > 0.96
