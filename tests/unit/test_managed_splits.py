"""Managed sets in a split: copies and patients on one side, whatever set they came with."""

from dataclasses import replace
from pathlib import Path

import pytest
from permits import Allowed
from uploads import known_scans, report_on, scan_files, settings_in, three_classes
from versions import make_card

from busi_core.audit import open_audit
from busi_core.data.records import Record
from busi_core.data.splits import Split, read_folds
from busi_core.managed.known import KnownScans
from busi_core.managed.sets import ManagedSet
from busi_core.managed.splits import split_sets
from busi_core.managed.store import accept
from busi_core.promotion import leaks
from busi_core.promotion.leaks import CopyFinder
from busi_core.promotion.locked import read_known_scans
from busi_core.settings import Settings
from busi_core.types import Diagnosis

NOTHING = Split((), (), ())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def keep(settings: Settings, files: dict[str, bytes], name: str, known: KnownScans | None = None) -> ManagedSet:
    return accept(
        Allowed(), report_on(files, known), name=name, source="s", licence="l", excluded=set(),
        settings=settings, audit=open_audit(settings),
    )  # fmt: skip


def ids(records: tuple[Record, ...]) -> set[str]:
    return {record.id for record in records}


def test_the_same_sets_and_seed_give_the_same_split_by_class(settings: Settings) -> None:
    managed = keep(settings, three_classes(5), "a")
    first, again = (split_sets(settings.state_dir, [managed], NOTHING, share=0.2) for _ in range(2))
    assert first == again
    assert [record.diagnosis for record in first.validation] == list(Diagnosis)
    assert len(first.train) == 12
    assert not ids(first.train) & ids(first.validation)
    assert first.test == ()
    other = split_sets(settings.state_dir, [managed], NOTHING, share=0.2, seed=1)
    assert ids(other.validation) != ids(first.validation)


def test_copies_stay_on_one_side_and_one_of_them_validates(settings: Settings) -> None:
    files = three_classes(2)
    for seed in (50, 60):
        files |= scan_files("benign", seed) | scan_files("benign", seed, name=f"copy{seed}")
    managed = keep(settings, files, "a")
    scan_of = {f"{managed.id}/{item.id}": item.scan for item in managed.items}
    for seed in range(8):
        split = split_sets(settings.state_dir, [managed], NOTHING, share=0.5, seed=seed)
        taught, chosen = ({scan_of[id] for id in ids(part)} for part in (split.train, split.validation))
        assert not taught & chosen
        assert len(chosen) == len(split.validation)


def test_a_copy_in_a_later_set_goes_with_the_first(settings: Settings) -> None:
    first = keep(settings, three_classes(3), "a")
    second = keep(settings, scan_files("benign", 4) | three_classes(1, first=40), "b", read_known_here(settings))
    (copy,) = [item for item in second.items if item.copies_of]
    for seed in range(8):
        split = split_sets(settings.state_dir, [first, second], NOTHING, share=0.5, seed=seed)
        together = {copy.copies_of[0], f"{second.id}/{copy.id}"}
        assert len(together & ids(split.train)) in (0, 2)
        assert len(together & ids(split.validation)) in (0, 1)


def read_known_here(settings: Settings) -> KnownScans:
    """What the server knows, as if the public test set were there."""
    return replace(read_known_scans(settings), test_parts_missing=())


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_a_copy_of_a_public_scan_follows_it_into_training_and_nowhere_else(settings: Settings, side: str) -> None:
    files = three_classes(2) | scan_files("benign", 50)
    known = known_scans([("bus-bra/bus_1", Diagnosis.BENIGN, files["benign/b50.png"])])
    managed = keep(settings, files, "a", known)
    (copy,) = [f"{managed.id}/{item.id}" for item in managed.items if item.copies_of]
    base = replace(NOTHING, **{side: (Record("bus-bra/bus_1", Path("x"), (), Diagnosis.BENIGN),)})
    for seed in range(6):
        split = split_sets(settings.state_dir, [managed], base, share=0.4, seed=seed)
        assert copy not in ids(split.validation)
        assert (copy in ids(split.train)) == (side == "train")
        assert getattr(split, side)[0].id == "bus-bra/bus_1"


def test_a_copy_of_a_busi_file_that_is_on_no_side_follows_its_scan(settings: Settings) -> None:
    """Of BUSI's copies one validates; a copy of another one would teach the same scan."""
    scan = next(scan for scan in read_folds() if scan.scored and len(scan.files) > 1)
    unscored = next(name for name in scan.files if name != scan.scored)
    files = three_classes(1) | scan_files("benign", 50)
    known = known_scans([(f"busi/{unscored}", Diagnosis.BENIGN, files["benign/b50.png"])])
    managed = keep(settings, files, "a", known)
    (copy,) = [f"{managed.id}/{item.id}" for item in managed.items if item.copies_of]
    base = Split((), (Record(f"busi/{scan.scored}", Path("x"), (), Diagnosis.BENIGN),), ())
    split = split_sets(settings.state_dir, [managed], base)
    assert copy not in ids(split.train) | ids(split.validation)


def test_of_a_scan_with_another_class_in_a_public_set_nothing_is_used(settings: Settings) -> None:
    files = three_classes(1) | scan_files("benign", 50)
    known = known_scans([("bus-bra/bus_1", Diagnosis.MALIGNANT, files["benign/b50.png"])])
    managed = keep(settings, files, "a", known)
    (copy,) = [f"{managed.id}/{item.id}" for item in managed.items if item.copies_of]
    base = Split((Record("bus-bra/bus_1", Path("x"), (), Diagnosis.MALIGNANT),), (), ())
    assert copy not in ids(split_sets(settings.state_dir, [managed], base).train)


# ---- What of all this the gate finds again --------------------------------------------------------------------------


def seen(locked: Record, taught: str, settings: Settings) -> bool:
    """Whether the gate says that a version taught by one scan has seen a locked one."""
    finder = CopyFinder([locked], settings)
    teachers = finder.read_teachers(make_card(b"", trained_on=(taught,)))
    assert teachers.unknown == ()
    return finder.find(teachers) == (locked.id,)


@pytest.mark.parametrize("case", ["bus-bra/bus_0001", "bus-bra/bus_0002"])
def test_another_image_of_a_patient_who_taught_a_version_counts_as_seen(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The left and the right breast look nothing alike; the same patient is in both."""
    records = []
    for side, seed in (("l", 1), ("r", 2)):
        (tmp_path / f"{side}.png").write_bytes(scan_files("benign", seed)[f"benign/b{seed}.png"])
        group = "bus-bra/bus_0001" if side == "l" else case
        records.append(Record(f"{group}-{side}", tmp_path / f"{side}.png", (), Diagnosis.BENIGN, group=group))
    monkeypatch.setattr(leaks, "read_data_set", lambda *_: records)
    left, right = records
    assert seen(right, left.id, settings) == (case == left.group)


def test_a_kept_copy_of_a_public_scan_counts_as_that_scan_whichever_of_its_files_is_locked(
    settings: Settings, tmp_path: Path
) -> None:
    """The published list knows that two files show one scan where their pixels no longer tell."""
    scan = next(scan for scan in read_folds() if scan.scored and len(scan.files) > 1)
    unscored = next(name for name in scan.files if name != scan.scored)
    files = three_classes(1) | scan_files("benign", 50)
    managed = keep(settings, files, "a", known_scans([(f"busi/{unscored}", Diagnosis.BENIGN, files["benign/b50.png"])]))
    (copy,) = [f"{managed.id}/{item.id}" for item in managed.items if item.copies_of]
    other = next(f"{managed.id}/{item.id}" for item in managed.items if not item.copies_of)
    (tmp_path / "locked.png").write_bytes(scan_files("benign", 77)["benign/b77.png"])
    locked = Record(f"busi/{scan.scored}", tmp_path / "locked.png", (), Diagnosis.BENIGN)
    assert seen(locked, copy, settings)
    assert not seen(locked, other, settings)
