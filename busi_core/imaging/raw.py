"""Pixels as a file shows them, and how those of more than 8 bits become 8."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from busi_core.errors import InvalidImageError
from busi_core.types import Grey


class RawPixels(NamedTuple):
    """Pixels as a file shows them.

    Attributes:
        values: (height, width) uint8, (height, width, 3) uint8, or (height, width) of any other real dtype,
            which still has to be brought to 8 bits.
        windowed: A grey window was applied, or bits were left out, on the way to uint8.
    """

    values: NDArray[Any]
    windowed: bool


def window_to_8_bits(values: NDArray[np.generic]) -> Grey:
    """Show (height, width) numbers of any range as 0 to 255: linear from their minimum to their maximum, rounded.

    A constant image becomes black.

    Raises:
        InvalidImageError: Some value is not a finite number.
    """
    shown = values.astype(np.float64)
    low, high = float(shown.min()), float(shown.max())
    if not np.isfinite((high - low) * 255):  # NaN and infinity carry through all of it
        raise InvalidImageError(
            "The image has pixels that are not numbers (NaN or infinite).",
            remedy="Export the image again, as 8-bit PNG if possible.",
        )
    shown -= low
    if high > low:
        shown *= 255
        shown /= high - low
    return np.rint(shown, out=shown).astype(np.uint8)
