"""Analysis + a cut-off on the lesion probability -> what is said about the scan: mask, size, flag, disagreement."""

from dataclasses import dataclass

from busi_core.imaging.preprocess import upsample
from busi_core.metrics.size import LesionSize, measure_lesion
from busi_core.types import Analysis, CalibratedRegion, DecodedImage, Diagnosis, Mask

NOT_IN_ONE_REGION = "In pixels: what is measured does not lie within one calibrated region."


@dataclass(frozen=True, eq=False)
class Finding:
    """What one analysis says at one cut-off.

    Attributes:
        threshold: A pixel is lesion from this probability on.
        lesion_mask: (height, width) bool, in the image's own pixels.
        size: Of the largest region, in `unit`; None for an empty mask.
        unit: 'mm' where what is measured lies whole in one calibrated region, else 'px'.
        flagged: The score of malignant reaches the model's flag; None without a class head.
        disagreement: One sentence when class and mask contradict each other, else None. Never reconciled.
    """

    threshold: float
    lesion_mask: Mask
    size: LesionSize | None
    unit: str
    flagged: bool | None
    disagreement: str | None

    @property
    def lesion_pixels(self) -> int:
        """Pixels inside the mask."""
        return int(self.lesion_mask.sum())

    @property
    def regions(self) -> int:
        """How many separate regions the mask has."""
        return self.size.regions if self.size else 0


@dataclass(frozen=True)
class Opinion:
    """What one network of a second opinion says by itself.

    Attributes:
        diagnosis: None without a class head.
        outlines: It outlines something at the cut-off.
    """

    diagnosis: Diagnosis | None
    outlines: bool


def read_opinions(analysis: Analysis, threshold: float) -> tuple[Opinion, ...]:
    """One by one what the networks of a second opinion say at a cut-off; empty where the first was not in doubt."""
    height, width = analysis.image.height, analysis.image.width
    return tuple(
        Opinion(one.diagnosis, bool((upsample(one.lesion_probability, height, width) >= threshold).any()))
        for one in analysis.opinions
    )


def read_finding(analysis: Analysis, threshold: float | None = None) -> Finding:
    """Apply a cut-off, the model's own unless given.

    Args:
        analysis: Of one scan.
        threshold: Lesion probability in (0, 1).
    """
    cutoff = analysis.lesion_threshold if threshold is None else threshold
    if not 0 < cutoff < 1:
        raise ValueError(f"threshold must lie in (0, 1), got {cutoff}")
    image = analysis.image
    mask = upsample(analysis.prediction.lesion_probability, image.height, image.width) >= cutoff
    size = measure_lesion(mask)
    region = _calibration_of(image, size) if size else None
    if region:
        size = measure_lesion(mask, column_mm=region.column_mm, row_mm=region.row_mm)
    disagreement = _find_disagreement(analysis.prediction.diagnosis, has_mask=bool(mask.any()))
    return Finding(cutoff, mask, size, "mm" if region else "px", is_flagged(analysis), disagreement)


def is_flagged(analysis: Analysis) -> bool | None:
    """Whether the score of malignant reaches the model's flag; None without a class head."""
    probabilities = analysis.prediction.probabilities
    if probabilities is None or analysis.malignancy_threshold is None:
        return None
    return probabilities[Diagnosis.MALIGNANT] >= analysis.malignancy_threshold


def _calibration_of(image: DecodedImage, size: LesionSize) -> CalibratedRegion | None:
    """A calibrated region that holds all that is measured; None where there is none, or where
    another touches it that differs.

    A colour box lies inside the region of its B-mode image, with the same pixel size.
    """
    left, top, right, bottom = size.box
    touching = [r for r in image.regions if r.left < right and left < r.right and r.top < bottom and top < r.bottom]
    holding = [region for region in touching if region.contains(left, top, right, bottom)]
    sizes = {(region.column_mm, region.row_mm) for region in touching}
    return holding[0] if holding and len(sizes) == 1 else None


def _find_disagreement(diagnosis: Diagnosis | None, *, has_mask: bool) -> str | None:
    if diagnosis is Diagnosis.NORMAL and has_mask:
        return "The class says normal, but a lesion is outlined."
    if diagnosis in (Diagnosis.BENIGN, Diagnosis.MALIGNANT) and not has_mask:
        return f"The class says {diagnosis}, but no lesion is outlined at this cut-off."
    return None
