"""The values that travel between rooms: a decoded image, a prediction, an analysis.

All are frozen and checked when made. Shapes are (height, width) unless stated otherwise; a
point is (column x, row y) in pixels from the top left corner, as DICOM counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isclose
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Grey: TypeAlias = NDArray[np.uint8]  # (height, width), 0 black to 255 white
Rgb: TypeAlias = NDArray[np.uint8]  # (height, width, 3)
Mask: TypeAlias = NDArray[np.bool_]  # (height, width), True inside the lesion
FloatMap: TypeAlias = NDArray[np.float32]  # (height, width), a probability or relative evidence in [0, 1]


class Diagnosis(StrEnum):
    """The class of a whole image, in the order of the columns of every class head here."""

    NORMAL = "normal"
    BENIGN = "benign"
    MALIGNANT = "malignant"


class ImageWarning(StrEnum):
    """What a reader must know about an image before believing a result on it."""

    NO_CONTRAST = "no contrast: every pixel has nearly the same grey"
    COLOUR = "colour in the image (Doppler or marks): the model reads its grey values only"
    NOT_CALIBRATED = "no calibration in the file: sizes are in pixels"
    WINDOWED = "not plain 8-bit grey: shown through a grey window"
    FIRST_FRAME = "several frames: the first one is shown, none was chosen"
    NOT_SQUARE = "the file says that its pixels are not square: shapes are stretched here, and the model reads them so"
    BURNED_IN = "the file says that patient text is burned into the image"
    UNLIKE = "unlike the scans that the model learned from: its measured figures may not hold here"
    INSISTED = (
        "not like a breast ultrasound as the model knows them, and answered all the same: its measured figures do not "
        "hold here"
    )
    WITHHELD = "not like a breast ultrasound as the model knows them: its answer is withheld"
    SECOND_OPINION = (
        "the first network was in doubt, so two more read the scan: outlined is what most of them agree on, "
        "and each score is their mean"
    )
    READ_ON_CPU = "the graphics card's memory was full: this scan was read on the CPU"

    @property
    def sentence(self) -> str:
        """As a sentence of its own; names in it keep their capitals."""
        return f"{self.value[:1].upper()}{self.value[1:]}."


class Likeness(StrEnum):
    """How a scan compares with those that the model learned from."""

    KNOWN = "known"
    UNLIKE = "unlike"  # further out than 99 % of the validation scans
    FOREIGN = "foreign"  # so far out that no answer is given unless asked for


@dataclass(frozen=True)
class CalibratedRegion:
    """A part of an ultrasound image in which a pixel has a known size.

    DICOM PS3.3 C.8.5.5, Sequence of Ultrasound Regions (0018,6011), units 3 = cm, given here in mm.

    Attributes:
        left, top, right, bottom: Pixels, right and bottom not included.
        column_mm: Width of one pixel.
        row_mm: Height of one pixel.
    """

    left: int
    top: int
    right: int
    bottom: int
    column_mm: float
    row_mm: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right and 0 <= self.top < self.bottom):
            raise ValueError(f"region must have area, got {self}")
        if not (0 < self.column_mm < 10 and 0 < self.row_mm < 10):
            raise ValueError(f"pixel size must lie in (0, 10) mm, got {self.column_mm} x {self.row_mm}")

    def contains(self, left: int, top: int, right: int, bottom: int) -> bool:
        """Whether a box of pixels (right and bottom not included) lies wholly inside."""
        return self.left <= left and self.top <= top and right <= self.right and bottom <= self.bottom


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One frame of one upload, upright, as pixels; knows nothing of the patient.

    Attributes:
        grey: (height, width) uint8, what the models read.
        rgb: (height, width, 3) uint8, what the screen shows; equal channels for a grey image.
        format: 'PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP' or 'DICOM'.
        frame: Index of this frame, from 0.
        frames: How many the file holds.
        regions: Where a pixel has a known size; empty when the file does not say.
        warnings: What was noticed while decoding.
    """

    grey: Grey
    rgb: Rgb
    format: str
    frame: int
    frames: int
    regions: tuple[CalibratedRegion, ...]
    warnings: tuple[ImageWarning, ...]

    def __post_init__(self) -> None:
        if self.grey.dtype != np.uint8 or self.grey.ndim != 2:
            raise ValueError(f"grey must be (height, width) uint8, got {self.grey.shape} {self.grey.dtype}")
        if self.rgb.dtype != np.uint8 or self.rgb.shape != (*self.grey.shape, 3):
            raise ValueError(f"rgb must be {(*self.grey.shape, 3)} uint8, got {self.rgb.shape} {self.rgb.dtype}")
        if not 0 <= self.frame < self.frames:
            raise ValueError(f"frame {self.frame} is not one of {self.frames}")

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.grey.shape[0])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.grey.shape[1])


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image, at the model's side (not yet in the image's pixels).

    Attributes:
        lesion_probability: (rows, columns) float32 in [0, 1], covering exactly the image. Take it
            to the image's pixels with `imaging.preprocess.upsample`.
        probabilities: Calibrated score of each class, summing to 1; None for a model without a class head.
    """

    lesion_probability: FloatMap
    probabilities: Mapping[Diagnosis, float] | None

    def __post_init__(self) -> None:
        _require_map(self.lesion_probability, "lesion_probability")
        if self.probabilities is None:
            return
        if set(self.probabilities) != set(Diagnosis):
            raise ValueError(f"probabilities must name every class, got {sorted(self.probabilities)}")
        total = sum(self.probabilities.values())
        if not isclose(total, 1.0, abs_tol=1e-4):
            raise ValueError(f"probabilities must sum to 1, got {total:.6f}")

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The class with the highest score; None for a model without a class head."""
        if self.probabilities is None:
            return None
        return max(Diagnosis, key=self.probabilities.__getitem__)


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Where the evidence for one thing lies, by Grad-CAM: relative, not a probability.

    Attributes:
        evidence: (rows, columns) float32 in [0, 1] on the model's coarse grid, covering exactly the
            image; the peak is 1 unless there is no evidence at all.
        of: The class it explains, or 'lesion mask'.
        score: The score of that class (its probability), or the mean lesion probability inside the mask, by the network
            that is explained: the first one, also where others were asked.
        grid: (rows, columns) of the feature map that it comes from, before the padding was cut off.
    """

    evidence: FloatMap
    of: str
    score: float
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        _require_map(self.evidence, "evidence")


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that one model version says about one image.

    Attributes:
        image: The decoded frame.
        prediction: Lesion probability and class scores.
        heatmaps: By what they explain: the classes, and 'lesion mask'.
        lesion_threshold: The model's own cut-off on the lesion probability.
        malignancy_threshold: Score of malignant from which the image is flagged; None without a class head.
        model_version: Which weights said so.
        warnings: From decoding and from reading.
        likeness: Whether the model knows scans like this; None where the version does not know its limits.
        withheld: The scan is foreign and nobody insisted, or has no contrast: no class, an empty mask, no evidence.
        not_ruled_out: The classes that cannot be ruled out in 90 % of cases (`metrics.conformal.USUAL_COVERAGE`); None
            for a scan that is foreign, without a class head, or where the version does not know its limits.
        opinions: What each network said by itself, where a second opinion was asked for; the first is the one that
            the heat maps explain.
    """

    image: DecodedImage
    prediction: Prediction
    heatmaps: Mapping[str, Heatmap]
    lesion_threshold: float
    malignancy_threshold: float | None
    model_version: str
    warnings: tuple[ImageWarning, ...]
    likeness: Likeness | None = None
    withheld: bool = False
    not_ruled_out: tuple[Diagnosis, ...] | None = None
    opinions: tuple[Prediction, ...] = ()


def _require_map(values: FloatMap, name: str) -> None:
    if values.dtype != np.float32 or values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} must be (rows, columns) float32, got {values.shape} {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise ValueError(f"{name} must lie in [0, 1], got {low} to {high}")
