"""The price of a leak: the same test files read by two models, one of which trained on copies of them.

    records, seed --make_leak_split--> by_scan, random (as many images of each class), validation, test
    scored test files of all seeds --measure_leak--> difference of each figure, with an interval

How the comparison is made fair:
* Test files are a random fifth of all files, as a paper's random split draws them; three seeds take three different
  fifths, so that no file is scored twice.
* Both arms train on the same number of images of each class, from the same first weights, for as many epochs, and
  choose their epoch on the same validation scans, of which neither arm nor the test part holds a copy.
* They differ in one thing: the arm 'random' has every copy of a test scan that the split put outside the test part;
  in the arm 'by scan' these are replaced by other images of the same class.
* Files without a copy are the control: there the two arms differ by the chance of training alone. What the leak buys
  beyond that chance is the gain on files with a copy less the gain on the control (a difference of differences).

The interval draws seeds first and scans within them (a two-level bootstrap): training is as much chance as the choice
of scans. With three seeds the first level is coarse, so each seed's own difference is kept beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from busi_core.data.records import Record
from busi_core.data.splits import read_folds
from busi_core.errors import DatasetError
from busi_core.evaluation import ScanResult
from busi_core.metrics.bootstrap import Interval
from busi_core.metrics.classification import malignancy_score, roc_auc
from busi_core.types import Diagnosis

PARTS = 5  # a seed tests one fifth of the files
VALIDATION_SHARE = 0.12  # of the scans outside the test part
DRAWS = 1000
ARMS = ("by-scan", "random")
SUBSETS = ("all test files", "files with a copy in training", "files without one")
BEYOND = "copies beyond the control"
Figure: TypeAlias = Callable[[Sequence[ScanResult]], float]


@dataclass(frozen=True)
class LeakSplit:
    """One seed's files.

    Attributes:
        by_scan: To train on; no copy of a test scan.
        random: As many of each class, with every copy of a test scan that lies outside the test part.
        validation: Scans that neither arm nor the test part holds.
        test: Scored files.
        leaked: Ids of the test files that have a copy in `random`.
    """

    by_scan: tuple[Record, ...]
    random: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    leaked: frozenset[str]

    def train(self, arm: str) -> tuple[Record, ...]:
        """The training part of an arm of `ARMS`."""
        return {"by-scan": self.by_scan, "random": self.random}[arm]


def make_leak_split(records: Sequence[Record], *, seed: int) -> LeakSplit:
    """Deal the files of BUSI for one seed; files with contradictory labels are left out of everything.

    Raises:
        DatasetError: A class has too few files outside the test part to replace the copies.
    """
    if not 0 <= seed < PARTS:
        raise ValueError(f"seed must be 0 to {PARTS - 1}: each tests another part, got {seed}")
    scans = [scan for scan in read_folds() if not scan.contradictory]
    group_of = {f"busi/{name}": f"busi/{scan.files[0]}" for scan in scans for name in scan.files}
    usable = [record for record in records if record.id in group_of]
    test = _deal(usable, seed)
    tested_ids = {record.id for record in test}
    tested_scans = {group_of[record.id] for record in test}
    rest = [record for record in usable if record.id not in tested_ids]
    copies = [record for record in rest if group_of[record.id] in tested_scans]
    others = [record for record in rest if group_of[record.id] not in tested_scans]
    random = np.random.default_rng([seed, 1])
    held = _draw_scans(others, group_of, random)
    validation = [record for record in others if group_of[record.id] in held]
    pool = [record for record in others if group_of[record.id] not in held]
    replaced = _draw_like(copies, pool, random)
    leaky = [*copies, *(record for record in pool if record.id not in replaced)]
    with_copy = {group_of[record.id] for record in copies}
    return LeakSplit(
        by_scan=tuple(pool),
        random=tuple(leaky),
        validation=tuple(validation),
        test=tuple(test),
        leaked=frozenset(record.id for record in test if group_of[record.id] in with_copy),
    )


@dataclass(frozen=True)
class LeakPair:
    """One test file, read by both arms of one seed."""

    seed: int
    leaked: bool
    by_scan: ScanResult
    random: ScanResult


Gain: TypeAlias = Callable[[Sequence[LeakPair]], float]


@dataclass(frozen=True)
class LeakEffect:
    """What a leak did to one figure.

    Attributes:
        figure: Its name.
        subset: Of `SUBSETS`, or `BEYOND`.
        files: How many test files it is of.
        by_scan: The figure without the leak; NaN for `BEYOND`.
        random: With it; NaN for `BEYOND`.
        difference: random minus by_scan, with its interval; for `BEYOND` that of the copies less that of the control.
        per_seed: The difference in each seed alone.
    """

    figure: str
    subset: str
    files: int
    by_scan: float
    random: float
    difference: Interval
    per_seed: tuple[float, ...]


def measure_leak(pairs: Sequence[LeakPair]) -> list[LeakEffect]:
    """The effect on Dice, IoU, pixel accuracy, class accuracy and AUC, over all files, those with a copy, the others,
    and on those with a copy beyond the others.

    Overlap is of lesion files; AUC is of malignant against benign, within each seed and then averaged, since scores of
    different models do not compare. Figures that the models do not give are left out.
    """
    if not pairs:
        raise ValueError("there is no pair to compare")
    gives_class = all(p.by_scan.probabilities and p.random.probabilities for p in pairs)
    figures = FIGURES if gives_class else {name: FIGURES[name] for name in MASK_FIGURES}
    effects = []
    for subset in SUBSETS:
        kept = [pair for pair in pairs if subset == SUBSETS[0] or pair.leaked == (subset == SUBSETS[1])]
        for name, figure in figures.items():
            if kept:
                effects.append(_measure(kept, subset, name, _gain(figure), figure))
    if {pair.leaked for pair in pairs} == {True, False}:
        effects += [_measure(pairs, BEYOND, name, _gain_beyond(figure), None) for name, figure in figures.items()]
    return effects


def _gain(figure: Figure) -> Gain:
    return lambda pairs: figure([pair.random for pair in pairs]) - figure([pair.by_scan for pair in pairs])


def _gain_beyond(figure: Figure) -> Gain:
    gain = _gain(figure)
    return lambda pairs: gain([p for p in pairs if p.leaked]) - gain([p for p in pairs if not p.leaked])


def _measure(pairs: Sequence[LeakPair], subset: str, name: str, difference: Gain, figure: Figure | None) -> LeakEffect:
    """`figure` gives the two arms' own values, where these are shown."""
    seeds = sorted({pair.seed for pair in pairs})
    of_seed = {seed: [pair for pair in pairs if pair.seed == seed] for seed in seeds}
    per_seed = tuple(difference(of_seed[seed]) for seed in seeds)
    random = np.random.default_rng(0)
    by_scan = {seed: _group(of_seed[seed]) for seed in seeds}
    draws = np.empty(DRAWS)
    for draw in range(DRAWS):
        values = []
        for seed in random.choice(seeds, size=len(seeds)):
            groups = by_scan[int(seed)]
            picked = random.integers(len(groups), size=len(groups))
            values.append(difference([pair for index in picked for pair in groups[index]]))
        draws[draw] = _mean(values)
    defined = draws[~np.isnan(draws)]
    low, high = np.quantile(defined, [0.025, 0.975]) if defined.size else (nan, nan)
    return LeakEffect(
        figure=name,
        subset=subset,
        files=sum(pair.leaked for pair in pairs) if subset == BEYOND else len(pairs),
        by_scan=_mean([figure([pair.by_scan for pair in of_seed[seed]]) for seed in seeds]) if figure else nan,
        random=_mean([figure([pair.random for pair in of_seed[seed]]) for seed in seeds]) if figure else nan,
        difference=Interval(_mean(per_seed), float(low), float(high), DRAWS - defined.size),
        per_seed=per_seed,
    )


def _group(pairs: Sequence[LeakPair]) -> list[list[LeakPair]]:
    groups: dict[str, list[LeakPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.by_scan.group, []).append(pair)
    return list(groups.values())


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if value == value]
    return sum(defined) / len(defined) if defined else nan


def _class_accuracy(results: Sequence[ScanResult]) -> float:
    names = [diagnosis.value for diagnosis in Diagnosis]
    right = [names[int(np.argmax(r.probabilities))] == r.truth for r in results if r.probabilities]
    return _mean([float(value) for value in right])


def _auc(results: Sequence[ScanResult]) -> float:
    lesions = [r for r in results if r.truth != Diagnosis.NORMAL.value and r.probabilities]
    if not lesions:
        return nan
    scores = malignancy_score(np.array([r.probabilities for r in lesions]))
    return roc_auc(scores, np.array([r.truth == Diagnosis.MALIGNANT.value for r in lesions]))


def _of_lesions(field: str) -> Figure:
    return lambda results: _mean([getattr(r, field) for r in results if r.truth != Diagnosis.NORMAL.value])


MASK_FIGURES = ("lesion Dice", "lesion IoU", "pixel accuracy")
FIGURES: dict[str, Figure] = {
    "lesion Dice": _of_lesions("dice"),
    "lesion IoU": _of_lesions("iou"),
    "pixel accuracy": lambda results: _mean([r.pixel_accuracy for r in results]),
    "accuracy (3 classes)": _class_accuracy,
    "AUC malignant against benign": _auc,
}


def _deal(records: Sequence[Record], seed: int) -> list[Record]:
    """The seed's fifth of the files, class by class, by one shuffle of all files that is the same for every seed."""
    random = np.random.default_rng(0)
    chosen: list[Record] = []
    for diagnosis in Diagnosis:
        of_class = [record for record in records if record.diagnosis is diagnosis]
        order = random.permutation(len(of_class))
        chosen += [of_class[index] for place, index in enumerate(order) if place % PARTS == seed]
    return chosen


def _draw_scans(records: Sequence[Record], group_of: dict[str, str], random: np.random.Generator) -> set[str]:
    """A share of the scans of each class, for validation."""
    held: set[str] = set()
    for diagnosis in Diagnosis:
        names = sorted({group_of[record.id] for record in records if record.diagnosis is diagnosis})
        held |= {names[index] for index in random.permutation(len(names))[: round(VALIDATION_SHARE * len(names))]}
    return held


def _draw_like(copies: Sequence[Record], pool: Sequence[Record], random: np.random.Generator) -> set[str]:
    """Ids of as many files of the pool as there are copies of each class, for the copies to take their places."""
    replaced: set[str] = set()
    for diagnosis in Diagnosis:
        wanted = sum(record.diagnosis is diagnosis for record in copies)
        names: NDArray[np.str_] = np.array([record.id for record in pool if record.diagnosis is diagnosis])
        if wanted > len(names):
            raise DatasetError(
                f"There are only {len(names)} {diagnosis.value} files to take the places of {wanted} copies.",
                remedy="Use the whole development part of BUSI.",
            )
        replaced |= {str(name) for name in random.permutation(names)[:wanted]}
    return replaced
