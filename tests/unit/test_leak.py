"""The two arms of the leak experiment differ in the copies alone, and their difference is measured right."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from busi_core.data.records import Record
from busi_core.data.splits import read_folds, scan_groups
from busi_core.evaluation import ScanResult
from busi_core.study.leak import BEYOND, SUBSETS, LeakPair, LeakSplit, make_leak_split, measure_leak
from busi_core.types import Diagnosis


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """A record for every file of the committed folds; none is opened."""
    names = [name for scan in read_folds() for name in scan.files]
    return [Record(f"busi/{n}", Path(f"{n}.png"), (), Diagnosis(n.split(" ")[0])) for n in names]


@pytest.fixture(scope="module", params=range(3))
def split(records: list[Record], request: pytest.FixtureRequest) -> LeakSplit:
    return make_leak_split(records, seed=request.param)


def scans(records: tuple[Record, ...]) -> set[str]:
    groups = scan_groups()
    return {groups[record.id] for record in records}


def classes(records: tuple[Record, ...]) -> Counter[Diagnosis]:
    return Counter(record.diagnosis for record in records)


def test_both_arms_train_on_as_many_images_of_each_class(split: LeakSplit) -> None:
    assert classes(split.by_scan) == classes(split.random)
    assert len({record.id for record in split.random}) == len(split.random)


def test_only_the_random_arm_holds_copies_of_test_scans(split: LeakSplit) -> None:
    assert not scans(split.by_scan) & scans(split.test)
    assert not {record.id for record in split.random} & {record.id for record in split.test}
    with_copy = {r.id for r in split.test if scan_groups()[r.id] in scans(split.random)}
    assert with_copy == split.leaked
    assert 0.3 < len(split.leaked) / len(split.test) < 0.45


def test_the_arms_differ_by_the_copies_alone(split: LeakSplit) -> None:
    clean, leaky = ({record.id for record in part} for part in (split.by_scan, split.random))
    groups = scan_groups()
    assert all(groups[name] in scans(split.test) for name in leaky - clean)
    assert len(leaky - clean) == len(clean - leaky)


def test_no_validation_scan_has_a_copy_anywhere_else(split: LeakSplit) -> None:
    for part in (split.by_scan, split.random, split.test):
        assert not scans(split.validation) & scans(part)


def test_seeds_test_different_files_and_the_same_seed_the_same(records: list[Record]) -> None:
    tests = [{r.id for r in make_leak_split(records, seed=seed).test} for seed in range(3)]
    assert not tests[0] & tests[1]
    assert not tests[1] & tests[2]
    assert make_leak_split(records, seed=1) == make_leak_split(records, seed=1)


def result(number: int, dice: float, malignant: float = 0.5) -> ScanResult:
    truth = ("benign", "malignant")[number % 2]
    probabilities = (0.0, 1 - malignant, malignant)
    return ScanResult(
        f"busi/{number}",
        f"busi/{number // 2}",
        truth,
        probabilities,
        dice,
        dice / 2,
        1.0,
        1.0,
        1.0,
        0.9,
        0.9,
        True,
        0.1,
    )


def pairs(gain: float, *, seeds: int = 3) -> list[LeakPair]:
    """Sixty files a seed; those with a copy gain, the others do not."""
    random = np.random.default_rng(0)
    made = []
    for seed in range(seeds):
        for number in range(60):
            before = float(random.uniform(0.2, 0.6))
            after = before + (gain if number % 3 == 0 else 0.0)
            name = 1000 * seed + number
            made.append(LeakPair(seed, number % 3 == 0, result(name, before), result(name, after)))
    return made


@pytest.mark.slow
def test_what_a_leak_buys_is_found_where_it_is_and_nowhere_else() -> None:
    effects = {(effect.figure, effect.subset): effect for effect in measure_leak(pairs(0.3))}
    everywhere, leaked, control = (effects["lesion Dice", subset].difference for subset in SUBSETS)
    assert leaked.estimate == pytest.approx(0.3)
    assert everywhere.estimate == pytest.approx(0.1)
    assert (control.estimate, control.low, control.high) == (0, 0, 0)
    assert everywhere.low < 0.1 < everywhere.high
    assert effects["lesion Dice", SUBSETS[1]].files == 60


@pytest.mark.slow
def test_the_interval_counts_the_chance_of_training_too() -> None:
    """Seeds that disagree widen it, however many files each has."""
    same = pairs(0.3)
    shifted = [replace(p, random=replace(p.random, dice=p.random.dice + 0.1 * (p.seed - 1))) for p in same]
    narrow, wide = (
        next(e for e in measure_leak(made) if e.figure == "lesion Dice").difference for made in (same, shifted)
    )
    assert wide.estimate == pytest.approx(narrow.estimate)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_two_trainings_that_differ_by_chance_alone_show_no_leak_beyond_the_control() -> None:
    """One arm came out worse on every file, as a short training may: no copy helped it."""
    lucky = [replace(p, random=replace(p.random, dice=p.random.dice + 0.27)) for p in pairs(0.0, seeds=1)]
    effects = {e.subset: e.difference for e in measure_leak(lucky) if e.figure == "lesion Dice"}
    assert effects[SUBSETS[0]].estimate == pytest.approx(0.27)
    assert [effects[BEYOND].estimate, effects[BEYOND].low, effects[BEYOND].high] == pytest.approx([0, 0, 0], abs=1e-9)
    leaky = [replace(p, random=replace(p.random, dice=p.random.dice + 0.27)) for p in pairs(0.3, seeds=1)]
    beyond = next(e for e in measure_leak(leaky) if (e.figure, e.subset) == ("lesion Dice", BEYOND))
    assert beyond.difference.estimate == pytest.approx(0.3)
    assert beyond.files == 20


def test_auc_is_compared_within_a_seed() -> None:
    made = []
    for seed in range(2):
        for number in range(40):
            truth = number % 2
            offset = 0.4 * seed  # the second seed's model scores everything higher
            clean = 0.3 + offset
            leaky = 0.3 + offset + 0.1 * truth
            made.append(LeakPair(seed, True, result(number, 0.5, clean), result(number, 0.5, leaky)))
    effect = next(e for e in measure_leak(made) if e.figure.startswith("AUC"))
    assert effect.by_scan == pytest.approx(0.5)
    assert effect.random == pytest.approx(1.0)
    assert effect.per_seed == pytest.approx((0.5, 0.5))


def test_models_without_a_class_are_compared_on_their_masks_alone() -> None:
    bare = [
        replace(p, by_scan=replace(p.by_scan, probabilities=None), random=replace(p.random, probabilities=None))
        for p in pairs(0.1)
    ]
    assert {effect.figure for effect in measure_leak(bare)} == {"lesion Dice", "lesion IoU", "pixel accuracy"}
