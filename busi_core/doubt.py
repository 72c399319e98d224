"""How firm one reading is: the same scan mirrored, brighter and darker, read again, and where the answers part.

    DecodedImage -six variants-> Analyser -> lesion probability, scores and evidence of each, brought back in place
    Doubt + a cut-off -> the lesion in every reading, the lesion in any, the area as an interval

A change that leaves the anatomy alone should leave the answer alone. What moves is doubt; what stays is no proof: six
readings by one model share its blind spots.

References:
    Wang et al., "Aleatoric uncertainty estimation with test-time augmentation for medical image segmentation with
        convolutional neural networks", Neurocomputing 338 (2019), arXiv:1807.07356.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from busi_core.explain.gradcam import LESION
from busi_core.imaging.preprocess import upsample
from busi_core.service import Analyser
from busi_core.types import DecodedImage, Diagnosis, FloatMap, Grey, Mask

GAMMAS = (1.0, 0.8, 1.25)  # as it is, brighter, darker: about what turning the gain knob a little does
READINGS = 2 * len(GAMMAS)


@dataclass(frozen=True, eq=False)
class Doubt:
    """Several readings of one scan.

    Attributes:
        probabilities: (readings, rows, columns) float32, the lesion probability of each at the model's side; the
            first is of the scan as it is.
        scores: Lowest and highest score of each class; None for a model without a class head.
        diagnoses: The classes that a reading named.
        evidence_agreement: Mean correlation, -1 to 1, of the shown heat map with those of the other readings; NaN
            where one of them is flat.
    """

    probabilities: NDArray[np.float32]
    scores: Mapping[Diagnosis, tuple[float, float]] | None
    diagnoses: frozenset[Diagnosis]
    evidence_agreement: float


@dataclass(frozen=True, eq=False)
class DoubtfulOutline:
    """What several readings make of the lesion at one cut-off.

    Attributes:
        certain: (height, width) bool, lesion in every reading.
        possible: (height, width) bool, lesion in at least one.
        smallest, largest: Area over the readings, in pixels of the scan.
    """

    certain: Mask
    possible: Mask
    smallest: int
    largest: int


def measure_doubt(analyser: Analyser, image: DecodedImage) -> Doubt:
    """Read one scan six times: as it is, brighter and darker, each also mirrored."""
    variants = list(product((False, True), GAMMAS))
    readings = [
        analyser.analyse_for_batch(replace(image, grey=_change(image.grey, gamma, mirrored)), insist=True)
        for mirrored, gamma in variants
    ]
    named = readings[0].prediction.diagnosis
    explains = named.value if named else LESION
    maps = [
        _put_back(reading.heatmaps[explains].evidence, mirrored)
        for reading, (mirrored, _) in zip(readings, variants, strict=True)
    ]
    each = [reading.prediction.probabilities for reading in readings if reading.prediction.probabilities]
    return Doubt(
        probabilities=np.stack(
            [
                _put_back(reading.prediction.lesion_probability, mirrored)
                for reading, (mirrored, _) in zip(readings, variants, strict=True)
            ]
        ),
        scores={d: (min(p[d] for p in each), max(p[d] for p in each)) for d in Diagnosis} if each else None,
        diagnoses=frozenset(r.prediction.diagnosis for r in readings if r.prediction.diagnosis),
        evidence_agreement=float(np.mean([_correlate(maps[0], other) for other in maps[1:]])),
    )


def outline_doubt(doubt: Doubt, height: int, width: int, cutoff: float) -> DoubtfulOutline:
    """Apply a cut-off to every reading, in the scan's own pixels.

    Args:
        doubt: Of one scan.
        height: Of the scan, in pixels.
        width: Of the scan, in pixels.
        cutoff: Lesion probability in (0, 1).
    """
    certain, possible = np.ones((height, width), np.bool_), np.zeros((height, width), np.bool_)
    areas: list[int] = []
    for probability in doubt.probabilities:
        mask = upsample(probability, height, width) >= cutoff
        certain &= mask
        possible |= mask
        areas.append(int(mask.sum()))
    return DoubtfulOutline(certain, possible, min(areas), max(areas))


def _put_back(values: FloatMap, mirrored: bool) -> FloatMap:
    return values[:, ::-1] if mirrored else values


def _change(grey: Grey, gamma: float, mirrored: bool) -> Grey:
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    changed = table[grey]
    return np.ascontiguousarray(changed[:, ::-1] if mirrored else changed)


def _correlate(one: FloatMap, other: FloatMap) -> float:
    if one.std() == 0 or other.std() == 0:
        return float("nan")
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
