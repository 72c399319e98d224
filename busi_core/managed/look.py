"""One case of an upload -> the pixels that would be stored, its mask, and what is wrong with either."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from busi_core.data.pairing import Case
from busi_core.data.truth import Reference, read_reference
from busi_core.imaging.decode import decode_image
from busi_core.types import DecodedImage, Diagnosis, Grey, ImageWarning, Mask


@dataclass(frozen=True, eq=False)
class ScanPixels:
    """What would be stored of one case.

    Attributes:
        image: The decoded frame.
        reference: Its mask, or why there is none.
    """

    image: DecodedImage
    reference: Reference

    @property
    def stored(self) -> NDArray[np.uint8]:
        """(height, width) grey, or (height, width, 3) where the scan has colour: all that is ever kept of it."""
        return self.image.rgb if ImageWarning.COLOUR in self.image.warnings else self.image.grey

    @property
    def grey(self) -> Grey:
        """(height, width), what the models read."""
        return self.image.grey

    @property
    def mask(self) -> Mask | None:
        """(height, width) bool; None where `reference` says why there is none."""
        return self.reference.mask

    @property
    def pixels_sha256(self) -> str:
        """Of shape and values of `stored`."""
        return _digest(self.stored)

    @property
    def mask_sha256(self) -> str:
        """Of shape and values of the mask; '' where there is none."""
        return "" if self.mask is None else _digest(self.mask.astype(np.uint8))


def read_scan(case: Case) -> ScanPixels:
    """Decode one case.

    Raises:
        InvalidImageError: The scan cannot be read; a mask that cannot be read is said in `reference`.
    """
    return decode_scan(case, case.scan.read())


def decode_scan(case: Case, data: bytes) -> ScanPixels:
    """The same from the scan's bytes, when they are at hand already."""
    image = decode_image(data)
    normal = case.diagnosis if case.diagnosis is Diagnosis.NORMAL else None  # a lesion not drawn has a flag of its own
    return ScanPixels(image, read_reference(case.masks, image.height, image.width, diagnosis=normal))


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
