"""Two models on the same scans -> by how much the candidate gains on each figure, paired, with an interval.

    ScanResults of candidate and version in service, in one order -> Paired -> Gain for each figure and each part

A gain is counted so that above 0 the candidate is the better one: candidate minus version in service, or the other
way round for figures of which less is better.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busi_core.evaluation import CLASSES, ScanResult
from busi_core.metrics.bootstrap import Groups, Indices, Interval, paired_difference_interval
from busi_core.metrics.calibration import CALIBRATION_ERROR, expected_calibration_error
from busi_core.metrics.classification import malignancy_score, roc_auc, sensitivity_at_specificity
from busi_core.metrics.segmentation import MISSED_BELOW_DICE
from busi_core.promotion.protocol import Bootstrap
from busi_core.types import Diagnosis

LESION_DICE = "lesion Dice"
AUC = "AUC malignant against benign"
NORMALS = "normals given a mask"
MISSED = "lesions missed"
SENSITIVITY = "sensitivity at fixed specificity"
FLAG_SENSITIVITY = "sensitivity of the flag"
FLAG_SPECIFICITY = "specificity of the flag"

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Measure = Callable[["Reading", Indices], float]


@dataclass(frozen=True, eq=False)
class Reading:
    """What one version said about the locked scans, as arrays in their order.

    Attributes:
        dice: (scans,) NaN for normals.
        has_mask: (scans,) whether anything was outlined.
        scores: (scans, 3) in the order of `Diagnosis`.
        flagged: (scans,) whether its own malignancy flag was up.
    """

    dice: FloatArray
    has_mask: BoolArray
    scores: FloatArray
    flagged: BoolArray


@dataclass(frozen=True, eq=False)
class Paired:
    """Both versions on the same scans.

    Attributes:
        candidate, in_service: Their readings.
        truth: (scans,) columns of `Diagnosis`.
        groups: (scans,) what is resampled.
        lesion_share: (scans,) share of the image that the truth outlines.
    """

    candidate: Reading
    in_service: Reading
    truth: NDArray[np.int64]
    groups: Groups
    lesion_share: FloatArray

    def of(self, diagnosis: Diagnosis) -> BoolArray:
        """Which scans are of a class."""
        return np.asarray(self.truth == CLASSES.index(diagnosis))

    @property
    def lesions(self) -> BoolArray:
        """Which scans show a lesion."""
        return ~self.of(Diagnosis.NORMAL)


@dataclass(frozen=True)
class Gain:
    """One figure of both versions, and by how much the candidate gains.

    Attributes:
        figure: Its name.
        part: 'all', or a part of the locked scans, as in 'large lesions'.
        candidate, in_service: The figure itself; NaN where it is not defined.
        gain: Above 0 the candidate is better, with the 95 % interval of the paired difference.
        scans: How many carry the figure.
    """

    figure: str
    part: str
    candidate: float
    in_service: float
    gain: Interval
    scans: int


def pair(
    candidate: Sequence[ScanResult],
    in_service: Sequence[ScanResult],
    *,
    candidate_flag: float,
    in_service_flag: float,
) -> Paired:
    """Put the results of both versions side by side.

    Args:
        candidate: In any order.
        in_service: Of the same scans.
        candidate_flag: Score of malignant from which the candidate flags a scan.
        in_service_flag: The same of the version in service.
    """
    first = sorted(candidate, key=lambda result: result.id)
    second = sorted(in_service, key=lambda result: result.id)
    if [(one.id, one.truth, one.group) for one in first] != [(one.id, one.truth, one.group) for one in second]:
        raise ValueError("both versions must be measured on the same scans")
    return Paired(
        candidate=_reading(first, candidate_flag),
        in_service=_reading(second, in_service_flag),
        truth=np.array([CLASSES.index(Diagnosis(one.truth)) for one in first], np.int64),
        groups=np.array([one.group for one in first]),
        lesion_share=np.array([one.lesion_share for one in first]),
    )


def measure_gains(paired: Paired, specificity: float, bootstrap: Bootstrap) -> dict[str, Gain]:
    """Every figure of the gate, on all locked scans.

    Args:
        paired: Both readings.
        specificity: At which the sensitivity is read off.
        bootstrap: Draws and seed.
    """
    lesions, normals = paired.lesions, paired.of(Diagnosis.NORMAL)
    malignant = paired.of(Diagnosis.MALIGNANT)
    every = np.ones(paired.truth.size, np.bool_)

    def sensitivity(reading: Reading, drawn: Indices) -> float:
        return _sensitivity(reading, malignant, drawn, specificity)

    figures: Mapping[str, tuple[Measure, BoolArray, bool]] = {  # measure, scans that carry it, more is better
        LESION_DICE: (_mean_dice, lesions, True),
        AUC: (_auc_of(malignant), lesions, True),
        NORMALS: (lambda reading, drawn: _share(reading.has_mask, drawn), normals, False),
        MISSED: (lambda reading, drawn: _share(reading.dice < MISSED_BELOW_DICE, drawn), lesions, False),
        SENSITIVITY: (sensitivity, lesions, True),
        FLAG_SENSITIVITY: (lambda reading, drawn: _share(reading.flagged, drawn), malignant, True),
        FLAG_SPECIFICITY: (lambda reading, drawn: _share(~reading.flagged, drawn), ~malignant, True),
        CALIBRATION_ERROR: (
            lambda reading, drawn: expected_calibration_error(reading.scores[drawn], paired.truth[drawn]),
            every,
            False,
        ),
    }
    return {
        name: _gain(paired, name, "all", measure, kept, bootstrap, more_is_better=better)
        for name, (measure, kept, better) in figures.items()
    }


def measure_part(paired: Paired, part: str, inside: BoolArray, bootstrap: Bootstrap) -> list[Gain]:
    """Dice and AUC on a part of the lesions; the AUC only where both classes are in it.

    Args:
        paired: Both readings.
        part: Its name.
        inside: (scans,) which scans belong to it.
        bootstrap: Draws and seed.
    """
    kept = inside & paired.lesions
    malignant = paired.of(Diagnosis.MALIGNANT)
    gains = [_gain(paired, LESION_DICE, part, _mean_dice, kept, bootstrap, more_is_better=True)]
    if malignant[kept].any() and not malignant[kept].all():
        gains.append(_gain(paired, AUC, part, _auc_of(malignant), kept, bootstrap, more_is_better=True))
    return gains


def _gain(
    paired: Paired,
    figure: str,
    part: str,
    measure: Measure,
    kept: BoolArray,
    bootstrap: Bootstrap,
    *,
    more_is_better: bool,
) -> Gain:
    """Measure one figure on the kept scans of both; groups outside them are not drawn."""
    positions = np.flatnonzero(kept)
    if not positions.size:
        nan = math.nan
        return Gain(figure, part, nan, nan, Interval(nan, nan, nan, bootstrap.draws), 0)

    def of(reading: Reading) -> Callable[[Indices], float]:
        return lambda drawn: measure(reading, positions[drawn])

    ends = [of(paired.candidate), of(paired.in_service)]
    better, worse = ends if more_is_better else ends[::-1]
    gain = paired_difference_interval(
        better, worse, paired.groups[positions], draws=bootstrap.draws, seed=bootstrap.seed
    )
    everywhere = np.arange(positions.size, dtype=np.intp)
    return Gain(figure, part, ends[0](everywhere), ends[1](everywhere), gain, int(positions.size))


def _mean_dice(reading: Reading, drawn: Indices) -> float:
    return float(reading.dice[drawn].mean())  # a lesion always has one: NaN here is a fault, and must show


def _share(statements: BoolArray, drawn: Indices) -> float:
    return float(statements[drawn].mean())


def _auc_of(malignant: BoolArray) -> Measure:
    return lambda reading, drawn: roc_auc(malignancy_score(reading.scores[drawn]), malignant[drawn])


def _sensitivity(reading: Reading, malignant: BoolArray, drawn: Indices, specificity: float) -> float:
    truth = malignant[drawn]
    if truth.all() or not truth.any():
        return math.nan
    return sensitivity_at_specificity(malignancy_score(reading.scores[drawn]), truth, specificity).sensitivity


def _reading(results: Sequence[ScanResult], flag: float) -> Reading:
    scores = np.array([one.probabilities for one in results], np.float64)
    values: dict[str, Any] = {
        "dice": np.array([one.dice for one in results], np.float64),
        "has_mask": np.array([one.has_mask for one in results], np.bool_),
    }
    return Reading(**values, scores=scores, flagged=scores[:, CLASSES.index(Diagnosis.MALIGNANT)] >= flag)
