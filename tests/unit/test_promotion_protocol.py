"""The rules of the gate: all of them or none, and the locked scans are the ones that were locked."""

import json
from pathlib import Path

import pytest
from gate import RULES, Gate, scored
from PIL import Image

from busi_core.errors import DatasetError, PromotionError
from busi_core.promotion.locked import checksum, read_locked, select
from busi_core.promotion.protocol import read_protocol
from busi_core.settings import read_settings
from busi_core.types import Diagnosis


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_rules_of_this_repository_hold_the_margins_that_were_agreed() -> None:
    protocol = read_protocol()
    assert (protocol.non_inferior.lesion_dice, protocol.non_inferior.auc) == (0.03, 0.04)
    assert [(part.data_set, part.fold, part.scans) for part in protocol.test_sets] == [
        ("busi", 0, 86),
        ("bus-bra", 3, 366),
    ]


def test_every_rule_says_why() -> None:
    lines = [line for line in RULES.splitlines() if "=" in line.split("#")[0]]
    unexplained = [line for line in lines if "#" not in line and not line.startswith(("name", "data_set"))]
    named = [line for line in lines if line.startswith("name")]
    assert len(lines) > 25
    assert not unexplained
    assert all("#" in line for line in named)


def test_another_byte_is_another_protocol(tmp_path: Path) -> None:
    assert read_protocol(written(tmp_path, RULES)).sha256 == read_protocol().sha256
    assert read_protocol(written(tmp_path, RULES + "\n")).sha256 != read_protocol().sha256


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("auc = 0.04", "auk = 0.04", "unknown key 'auk'"),
        ("auc = 0.04", "", "lacks the key 'auc'"),
        ("[bootstrap]", "[bootstraps]", "unknown key 'bootstraps'"),
        ("schema = 1 ", "schema = 2 ", "schema 2"),
        ("schema = 1 ", "", "lacks the key 'schema'"),
        ("lesion_dice = 0.03", "lesion_dice = -0.03", "between 0 and 1"),
        ("lesion_dice = 0.03", "lesion_dice = nan", "between 0 and 1"),
        ("lesion_dice = 0.03", 'lesion_dice = "0.03"', "must be float"),
        ("draws = 2000", "draws = 20", "fewer than 100"),
        ("draws = 2000", "draws = true", "must be int"),
        ("normal = 10", "normal = 0", "at least one scan"),
        ("power = 0.8", "power = 1.0", "power"),
        ("large_from = 0.10", "large_from = 0.01", "small_below"),
        ('sha256 = "db47', 'sha256 = "xx47', "sha256"),
        ('name = "bus-bra fold 3"', 'name = "busi fold 0"', "name of its own"),
        ("scans = 86", "scans = 0", "must hold scans"),
        ("[non_inferior]", "[[non_inferior]]", "must be a table"),
        ("power = 0.8", "power = ", "make no sense"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_its_name(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in RULES
    with pytest.raises(PromotionError, match=said):
        read_protocol(written(tmp_path, RULES.replace(before, after, 1)))


def test_without_rules_nothing_goes_into_service(tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match="cannot be read"):
        read_protocol(tmp_path / "none.toml")
    with pytest.raises(PromotionError, match="larger"):
        read_protocol(written(tmp_path, RULES + "#" * 200_000))


# ---- The locked scans ------------------------------------------------------------------------------------------


def test_the_locked_scans_are_the_scored_ones_of_the_fold(gate: Gate) -> None:
    locked = read_locked(gate.protocol, gate.settings)
    expected = {f"busi/{name}" for diagnosis in Diagnosis for name in scored(0, diagnosis)[:4]}
    assert {record.id for record in locked.records} == expected == set(locked.set_of)


def test_a_scan_that_is_missing_is_said(gate: Gate) -> None:
    name = scored(0, Diagnosis.BENIGN)[0]
    for path in (gate.settings.data_root / "busi/benign").glob(f"{name}*"):
        path.unlink()
    with pytest.raises(PromotionError, match="should hold 12 scans, but 11"):
        read_locked(gate.protocol, gate.settings)


def test_one_pixel_of_one_mask_is_noticed(gate: Gate) -> None:
    path = gate.settings.data_root / "busi/benign" / f"{scored(0, Diagnosis.BENIGN)[0]}_mask.png"
    mask = Image.open(path)
    mask.load()
    mask.putpixel((0, 0), 255 if mask.mode == "L" else 1)
    mask.save(path)
    with pytest.raises(PromotionError, match="was changed"):
        read_locked(gate.protocol, gate.settings)


def test_without_the_data_the_person_is_told_so(gate: Gate, tmp_path: Path) -> None:
    (gate.settings.data_root / "busi").rename(tmp_path / "gone")
    with pytest.raises(DatasetError, match="busi"):
        read_locked(gate.protocol, gate.settings)


@pytest.mark.parametrize(("data_set", "fold"), [("busi", 7), ("busi", -1), ("none", -1)])
def test_a_test_set_that_does_not_exist_is_said(gate: Gate, data_set: str, fold: int) -> None:
    with pytest.raises(DatasetError):
        select(data_set, fold, gate.settings)


@pytest.mark.realdata
def test_the_scans_on_this_machine_are_the_locked_ones(data_root: Path) -> None:
    """And none of them taught the version in service (its evaluation names exactly these scans)."""
    settings = read_settings()
    locked = read_locked(read_protocol(), settings)
    evaluated = json.loads((settings.weights_dir / "2026.11-a/evaluation.json").read_text())["reports"]
    assert {record.id for record in locked.records} == {row["id"] for part in evaluated for row in part["results"]}
    assert checksum(reversed(locked.records)) == checksum(locked.records)
