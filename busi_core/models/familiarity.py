"""How far a scan lies from those that the model learned from: is it a breast ultrasound as the model knows them?

    feature maps of the encoder -describe-> (d,) texture statistics -Mahalanobis-> distance -> known, unlike, foreign

A class head gives every picture a class, also a photograph. Mean and spread of the encoder's early feature maps say
how a picture is textured, and a photograph, a CT slice or noise differs there from every scan of the training part.
The distance knows nothing of medicine: another organ scanned with the same machine may pass.

References:
    Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018,
        arXiv:1807.03888 (Mahalanobis distance in feature space).
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J Multivariate
        Analysis 88 (2004) 365-411.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from busi_core.imaging.preprocess import Box, PreprocessSpec
from busi_core.types import Likeness

Description: TypeAlias = NDArray[np.float32]  # (d,)

STAGES = slice(1, 4)  # the encoder's first three downsamplings; deeper ones know classes, not textures
FALSE_ALARMS = 0.01  # share of validation scans that count as unlike
FOREIGN_FACTOR = 1.5  # of that distance; see docs/experiments.md for what lies beyond it
SMALLEST_SPREAD = 1e-6  # of a statistic that is the same on every scan


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What the training scans look like, and from where on a scan is not one of them.

    Attributes:
        mean, scale: (d,) of each statistic over the training scans.
        precision: (d, d) inverse of the shrunken covariance of the scaled statistics.
        unlike_from: Distance that 99 % of the validation scans stay within.
        foreign_from: Distance from which no answer is given.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    precision: NDArray[np.float32]
    unlike_from: float
    foreign_from: float

    def distance(self, description: Description) -> float:
        """Mahalanobis distance divided by the square root of d: about 1 for a scan of the training part."""
        centred = ((description - self.mean) / self.scale).astype(np.float64)
        squared = float(centred @ self.precision.astype(np.float64) @ centred)
        return math.sqrt(max(squared, 0.0) / centred.size)

    def judge(self, description: Description) -> Likeness:
        """Known, unlike or foreign."""
        distance = self.distance(description)
        if distance > self.foreign_from:
            return Likeness.FOREIGN
        return Likeness.UNLIKE if distance > self.unlike_from else Likeness.KNOWN


def describe(features: Sequence[Tensor], box: Box, spec: PreprocessSpec) -> Description:
    """Mean and standard deviation of every channel of the early feature maps, over what the image fills.

    Args:
        features: Of `encode` for one image, finest first.
        box: What the image fills of the square input.
        spec: How the input was prepared.
    """
    parts: list[Tensor] = []
    for level in features[STAGES]:
        rows = max(1, round(box.height * level.shape[-2] / spec.side))
        columns = max(1, round(box.width * level.shape[-1] / spec.side))
        inside = level.detach()[0, :, :rows, :columns].flatten(1).double()  # (channels, pixels)
        mean = inside.mean(dim=1)
        parts += [mean, inside.sub_(mean[:, None]).square_().mean(dim=1).sqrt()]
    return torch.cat(parts).float().cpu().numpy()


def fit_familiarity(training: Sequence[Description], validation: Sequence[Description]) -> Familiarity:
    """Learn what scans look like from the training part, and set the limits on the validation part.

    Args:
        training: One description a scan, at least two.
        validation: Of scans that taught nothing.
    """
    if len(training) < 2 or not len(validation):
        raise ValueError(f"need two training scans and one of validation, got {len(training)} and {len(validation)}")
    reference = _fit_reference(training)
    return _limited(reference, [reference.distance(description) for description in validation])


def fit_familiarity_across(training: Sequence[Description], parts: Sequence[int]) -> Familiarity:
    """As `fit_familiarity` where no part is kept for the limits: each scan is measured against the scans of the other
    parts, part by part, so that no scan is among those that it is compared with.

    Args:
        training: One description a scan.
        parts: The part of each, from 0; at least two parts. All copies of a scan belong in one.
    """
    numbers = np.array(parts)
    if len(set(parts)) < 2 or len(parts) != len(training):
        raise ValueError(f"need a part for each scan, and two of them, got {len(training)} scans, parts {set(parts)}")
    distances: list[float] = []
    for part in sorted(set(parts)):
        reference = _fit_reference([training[index] for index in (numbers != part).nonzero()[0]])
        distances += [reference.distance(training[index]) for index in (numbers == part).nonzero()[0]]
    return _limited(_fit_reference(training), distances)


def _fit_reference(training: Sequence[Description]) -> Familiarity:
    """What scans look like, without limits."""
    known = np.stack(training).astype(np.float64)
    mean, scale = known.mean(axis=0), np.maximum(known.std(axis=0), SMALLEST_SPREAD)
    precision = np.linalg.inv(shrunken_covariance((known - mean) / scale))
    return Familiarity(mean.astype(np.float32), scale.astype(np.float32), precision.astype(np.float32), np.inf, np.inf)


def _limited(reference: Familiarity, distances: Sequence[float]) -> Familiarity:
    """With the limits that these distances, of scans that it was not learned from, ask for."""
    limit = float(np.quantile(distances, 1 - FALSE_ALARMS))
    return replace(reference, unlike_from=limit, foreign_from=FOREIGN_FACTOR * limit)


def shrunken_covariance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of (n, d) rows, drawn towards a multiple of the identity as far as Ledoit and Wolf advise.

    With about as many scans as statistics the plain covariance cannot be inverted in a way that means anything.
    """
    count, size = rows.shape
    centred = rows - rows.mean(axis=0)
    plain = centred.T @ centred / count
    target = float(plain.diagonal().mean())
    squared = centred**2
    spread = (squared.T @ squared).sum() / count - (plain**2).sum()  # of the entries of the covariance itself
    distance = (plain**2).sum() - size * target**2
    share = 0.0 if distance == 0 else min(max(spread / count, 0.0), distance) / distance
    return np.asarray((1 - share) * plain + share * target * np.eye(size), np.float64)
