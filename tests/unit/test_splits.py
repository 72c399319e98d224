"""Folds without leaks: every file once, all copies on one side, and the committed lists are those of the rules."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from busi_core.data.duplicates import (
    PublishedScan,
    find_copies,
    find_pairs,
    fingerprint,
    pairs_within,
    read_published_scans,
)
from busi_core.data.records import Record, read_bus_bra, read_busi
from busi_core.data.splits import (
    FOLDS,
    Scan,
    Split,
    make_folds,
    read_folds,
    scan_groups,
    split_bus_bra,
    split_busi,
    write_folds,
)
from busi_core.errors import DatasetError
from busi_core.imaging.decode import decode_image
from busi_core.types import Diagnosis

CONTRADICTORY = [  # docs: DATA.md, the eight groups whose copies carry different classes
    {"benign (42)", "benign (131)", "malignant (51)"},
    {"benign (85)", "benign (164)", "malignant (52)"},
    {"benign (269)", "normal (1)"},
    {"benign (333)", "malignant (77)", "malignant (78)"},
    {"benign (399)", "malignant (93)"},
    {"benign (406)", "malignant (94)"},
    {"benign (433)", "malignant (145)"},
    {"benign (437)", "normal (34)"},
]


def class_of(name: str) -> Diagnosis:
    return Diagnosis(name.split()[0])


def busi_record(name: str) -> Record:
    """A record as `read_busi` makes it, of a file that need not be there."""
    return Record(f"busi/{name}", Path(f"{name}.png"), (), class_of(name))


@pytest.fixture(scope="module")
def committed() -> list[Scan]:
    return read_folds()


@pytest.fixture(scope="module")
def listed(committed: Sequence[Scan]) -> list[Record]:
    """A record for every file of the committed folds."""
    return [busi_record(name) for scan in committed for name in scan.files]


@pytest.fixture(scope="module")
def published(data_root: Path) -> list[PublishedScan]:
    return read_published_scans(data_root / "busi/duplicates_pawlowska_2023.csv")


@pytest.fixture(scope="module")
def fingerprints(data_root: Path) -> dict[str, np.ndarray]:
    """Of every BUSI image at hand, by name."""
    return {
        record.name: fingerprint(decode_image(record.image.read_bytes()).grey)
        for record in read_busi(data_root / "busi")
    }


def test_every_file_stands_in_exactly_one_committed_scan(committed: Sequence[Scan]) -> None:
    files = Counter(name for scan in committed for name in scan.files)
    assert set(files.values()) == {1}
    assert Counter(map(class_of, files)) == {Diagnosis.BENIGN: 354, Diagnosis.MALIGNANT: 170, Diagnosis.NORMAL: 109}


def test_every_fold_has_each_class_in_equal_measure(committed: Sequence[Scan]) -> None:
    assert {scan.fold for scan in committed} == {*range(FOLDS), None}
    for diagnosis in Diagnosis:
        counts = Counter(
            scan.fold for scan in committed if scan.fold is not None and class_of(scan.files[0]) is diagnosis
        )
        assert len(counts) == FOLDS
        assert max(counts.values()) - min(counts.values()) <= 1, f"{diagnosis}: {counts}"


def test_a_scored_file_is_one_of_its_scan_and_training_only_scans_have_none(committed: Sequence[Scan]) -> None:
    for scan in committed:
        assert (scan.scored is None) == (scan.fold is None)
        assert scan.scored is None or scan.scored in scan.files


def test_all_copies_in_a_fold_carry_one_class(committed: Sequence[Scan]) -> None:
    for scan in committed:
        assert scan.contradictory or len(set(map(class_of, scan.files))) == 1, scan


def test_scans_with_contradictory_labels_neither_score_nor_teach(
    committed: Sequence[Scan], listed: Sequence[Record]
) -> None:
    marked = {name for scan in committed if scan.contradictory for name in scan.files}
    known = {name for scan in committed for name in scan.files}
    assert marked >= set.union(*CONTRADICTORY) & known
    assert all(scan.fold is None for scan in committed if scan.contradictory)
    for fold in range(FOLDS):
        split = split_busi(listed, test_fold=fold)
        assert not marked & {record.name for record in split.train + split.validation + split.test}


@pytest.mark.parametrize("fold", range(FOLDS))
def test_no_scan_is_in_two_parts_of_a_split(listed: Sequence[Record], fold: int) -> None:
    groups, split = scan_groups(), split_busi(listed, test_fold=fold)
    parts = [{groups[record.id] for record in part} for part in (split.train, split.validation, split.test)]
    assert all(parts)
    for first, second in combinations(parts, 2):
        assert not first & second


@pytest.mark.parametrize("fold", range(FOLDS))
def test_one_file_a_scan_is_scored_and_all_copies_teach(listed: Sequence[Record], fold: int) -> None:
    groups, split = scan_groups(), split_busi(listed, test_fold=fold)
    for part in (split.validation, split.test):
        assert max(Counter(groups[record.id] for record in part).values()) == 1
    taught = {groups[record.id] for record in split.train}
    assert {record.id for record in split.train} == {record.id for record in listed if groups[record.id] in taught}


def test_over_the_five_folds_every_scored_scan_is_tested_once(
    committed: Sequence[Scan], listed: Sequence[Record]
) -> None:
    tested = Counter(record.name for fold in range(FOLDS) for record in split_busi(listed, test_fold=fold).test)
    assert tested == Counter(scan.scored for scan in committed if scan.scored)


def test_without_a_test_fold_one_fold_chooses_and_all_others_teach(listed: Sequence[Record]) -> None:
    groups, split = scan_groups(), split_busi(listed, test_fold=None)
    taught = {groups[record.id] for record in split.train}
    assert split.test == ()
    assert set(split.validation) == set(split_busi(listed, test_fold=0).test)
    assert not taught & {groups[record.id] for record in split.validation}
    assert taught == {groups[r.id] for fold in range(FOLDS) for r in split_busi(listed, test_fold=fold).train} - {
        groups[record.id] for record in split.validation
    }


@pytest.mark.parametrize("test_fold", range(FOLDS))
def test_siblings_share_a_test_part_and_keep_what_no_other_one_keeps(listed: Sequence[Record], test_fold: int) -> None:
    groups, whole = scan_groups(), split_busi(listed, test_fold=test_fold, kept="none")
    taught, kept = {groups[record.id] for record in whole.train}, set()
    assert whole.validation == ()
    for fold in set(range(FOLDS)) - {test_fold}:
        sibling = split_busi(listed, test_fold=test_fold, kept=fold)
        scans = {groups[record.id] for record in sibling.validation}
        assert sibling.test == whole.test
        assert scans
        assert not scans & ({groups[record.id] for record in sibling.train} | kept)
        assert scans < taught
        kept |= scans
    assert kept == {
        groups[r.id] for fold in range(FOLDS) if fold != test_fold for r in split_busi(listed, test_fold=fold).test
    }


@pytest.mark.parametrize("kept", [-1, FOLDS, 2])
def test_a_fold_that_cannot_validate_is_refused(listed: Sequence[Record], kept: int) -> None:
    with pytest.raises(ValueError, match="must be 0 to 4 and not the test fold"):
        split_busi(listed, test_fold=2, kept=kept)


@pytest.mark.parametrize("fold", [-1, FOLDS])
def test_a_fold_that_is_not_there_is_refused(listed: Sequence[Record], fold: int) -> None:
    with pytest.raises(ValueError, match="test_fold must be 0 to 4"):
        split_busi(listed, test_fold=fold)


def test_a_file_that_the_folds_do_not_know_is_refused_rather_than_put_anywhere(listed: Sequence[Record]) -> None:
    with pytest.raises(DatasetError, match=r"1 images stand in no committed fold.*'benign \(9999\)'"):
        split_busi([*listed, busi_record("benign (9999)")])


def test_folds_written_and_read_are_the_same(tmp_path: Path, committed: Sequence[Scan]) -> None:
    write_folds(committed, tmp_path / "folds.json")
    assert read_folds(tmp_path / "folds.json") == list(committed)
    assert len(json.loads((tmp_path / "folds.json").read_text())) == len(committed)


def test_copies_known_to_either_source_stay_together() -> None:
    records = [busi_record(f"benign ({number})") for number in range(1, 31)]
    published = [PublishedScan(("benign (1)", "benign (2)", "benign (700)"), "")]
    scans = make_folds(records, published, {("benign (2)", "benign (3)")})
    assert [scan.files for scan in scans if "benign (1)" in scan.files] == [("benign (1)", "benign (2)", "benign (3)")]
    assert len(scans) == 28


@pytest.mark.parametrize(
    ("files", "objection", "contradictory"),
    [
        (("benign (1)",), "axilla", False),
        (("benign (1)", "benign (2)"), "needle", False),
        (("benign (1)", "malignant (1)"), "", True),
        (("benign (1)", "malignant (999)"), "multiclass", True),
    ],
)
def test_objected_scans_never_score(files: tuple[str, ...], objection: str, contradictory: bool) -> None:
    names = ["benign (1)", "benign (2)", "malignant (1)", *(f"normal ({number})" for number in range(1, 11))]
    scans = make_folds([busi_record(name) for name in names], [PublishedScan(files, objection)], set())
    scan = next(scan for scan in scans if "benign (1)" in scan.files)
    assert (scan.fold, scan.scored, scan.contradictory) == (None, None, contradictory)


def test_dealing_is_repeatable_and_does_not_depend_on_the_order_of_files() -> None:
    records = [busi_record(f"{diagnosis} ({number})") for diagnosis in Diagnosis for number in range(1, 20)]
    assert make_folds(records, [], set()) == make_folds(records[::-1], [], set())


def bus_bra_record(name: str, case: int, fold: int) -> Record:
    return Record(f"bus-bra/{name}", Path(f"{name}.png"), (), Diagnosis.BENIGN, group=f"case {case}", fold=fold)


def test_bus_bra_keeps_cases_whole_and_fold_three_for_the_test() -> None:
    records = [
        bus_bra_record(f"bus_{case:04}-{side}", case, 1 + case % 3) for case in range(300) for side in ("l", "r")
    ]
    split = split_bus_bra(records)
    assert {record.fold for record in split.test} == {3}
    assert {record.fold for record in split.train + split.validation} == {1, 2}
    cases = [{record.group for record in part} for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in cases] == [180, 20, 100]
    for first, second in combinations(cases, 2):
        assert not first & second
    assert split == split_bus_bra(records)


@pytest.mark.parametrize("test_fold", range(FOLDS))
def test_siblings_keep_a_fifth_of_the_bus_bra_cases_each_and_never_the_same(test_fold: int) -> None:
    records = [bus_bra_record(f"bus_{case:04}", case, 1 + case % 3) for case in range(300)]
    whole = split_bus_bra(records, test_fold=test_fold, kept="none")
    assert (len(whole.train), whole.validation) == (200, ())
    splits = [split_bus_bra(records, test_fold=test_fold, kept=fold) for fold in set(range(FOLDS)) - {test_fold}]
    kept = [record for split in splits for record in split.validation]
    assert [len(split.validation) for split in splits] == [40] * 4
    assert len(set(kept)) == 160
    assert all(set(split.train + split.validation) == set(whole.train) for split in splits)
    assert all(split.test == whole.test for split in splits)


def test_splits_of_two_data_sets_add_part_by_part() -> None:
    a, b, c = (busi_record(f"normal ({number})") for number in (1, 2, 3))
    assert Split((a,), (), (b,)) + Split((c,), (b,), ()) == Split((a, c), (b,), (b,))


@pytest.mark.realdata
def test_the_committed_folds_are_those_that_the_rules_make(
    data_root: Path, committed: Sequence[Scan], published: Sequence[PublishedScan], fingerprints: dict[str, np.ndarray]
) -> None:
    found = find_pairs(list(fingerprints), np.stack(list(fingerprints.values())))
    assert make_folds(read_busi(data_root / "busi"), published, found) == committed


@pytest.mark.realdata
def test_the_detector_finds_and_means_what_its_description_says(
    published: Sequence[PublishedScan], fingerprints: dict[str, np.ndarray]
) -> None:
    found = find_pairs(list(fingerprints), np.stack(list(fingerprints.values())))
    true = pairs_within([[name for name in scan.files if name in fingerprints] for scan in published])
    assert len(found & true) / len(true) == pytest.approx(0.88, abs=0.01)
    assert len(found & true) / len(found) == pytest.approx(0.98, abs=0.01)


@pytest.mark.realdata
def test_published_copies_axillae_and_needles_are_where_they_may_be(
    committed: Sequence[Scan], published: Sequence[PublishedScan]
) -> None:
    scan_of = {name: scan for scan in committed for name in scan.files}
    for scan in published:
        homes = {scan_of[name].files for name in scan.files if name in scan_of}
        assert len(homes) <= 1, f"copies on two sides: {scan.files}"
        if scan.objection:
            assert all(scan_of[name].fold is None for name in scan.files if name in scan_of), scan


@pytest.mark.realdata
@pytest.mark.parametrize("fold", range(FOLDS))
def test_no_scored_scan_has_a_copy_that_taught_by_list_or_by_pixels(
    data_root: Path, published: Sequence[PublishedScan], fingerprints: dict[str, np.ndarray], fold: int
) -> None:
    split = split_busi(read_busi(data_root / "busi"), test_fold=fold)
    row_of = {name: row for row, scan in enumerate(published) for name in scan.files}
    for scored, teachers in ((split.test, split.train + split.validation), (split.validation, split.train)):
        taught = {row_of[record.name] for record in teachers}
        assert not [record.name for record in scored if row_of[record.name] in taught]
        prints = [np.stack([fingerprints[record.name] for record in part]) for part in (scored, teachers)]
        assert not find_copies(*prints).any()


@pytest.mark.realdata
def test_no_bus_bra_case_is_on_two_sides(data_root: Path) -> None:
    split = split_bus_bra(read_bus_bra(data_root / "bus-bra"))
    cases = [{record.group for record in part} for part in (split.train, split.validation, split.test)]
    for first, second in combinations(cases, 2):
        assert not first & second
