"""Stored grey values of a DICOM frame -> values as the file shows them: rescale, grey window, MONOCHROME1."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from busi_core.imaging.raw import RawPixels


def clear_unused_bits(stored: NDArray[Any], attributes: Dataset) -> NDArray[Any]:
    """Drop what old scanners keep above Bits Stored (overlays), and extend the sign into it (PS3.5 8.1.1)."""
    unused = attributes.BitsAllocated - attributes.get("BitsStored", attributes.BitsAllocated)
    return (stored << unused) >> unused if unused else stored


def show_grey(stored: NDArray[Any], attributes: Dataset) -> RawPixels:
    """Stored values to shown values: Modality LUT or rescale, first VOI window, MONOCHROME1 inverted."""
    values = stored
    is_rescaled = (attributes.get("RescaleSlope", 1), attributes.get("RescaleIntercept", 0)) != (1, 0)
    if is_rescaled or "ModalityLUTSequence" in attributes:
        values = apply_modality_lut(stored, attributes)
    window = _first_window(attributes)
    if window is not None:
        values = _apply_window(values, *window)
    elif values is stored and values.dtype == np.uint8:
        values = _stretch(values, attributes.get("BitsStored", 8))
    if attributes.PhotometricInterpretation == "MONOCHROME1":
        values = 255 - values if values.dtype == np.uint8 else -values.astype(np.float64)
        stored = 255 - stored if stored.dtype == np.uint8 else stored
    return RawPixels(values, windowed=not np.array_equal(values, stored))


def _stretch(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Fewer than 8 bits to 0 to 255, so that the highest value is white (PS3.3 C.7.6.3.1.2)."""
    return values if bits >= 8 else np.asarray(np.rint(values * (255 / (2**bits - 1))), np.uint8)


def _first_window(attributes: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first VOI window; None where there is none that can be applied."""
    values = [attributes.get("WindowCenter"), attributes.get("WindowWidth")]
    first = [value[0] if isinstance(value, list | tuple) or hasattr(value, "insert") else value for value in values]
    if any(value is None or value == "" for value in first):
        return None
    centre, width = (float(value) for value in first)
    function = str(attributes.get("VOILUTFunction") or "LINEAR")
    is_usable = math.isfinite(centre) and math.isfinite(width) and width >= (1 if function == "LINEAR" else 1e-6)
    return (centre, width, function) if is_usable and function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else None


def _apply_window(values: NDArray[Any], centre: float, width: float, function: str) -> NDArray[np.uint8]:
    """PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT), shown as 0 to 255."""
    x = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            shown = 1 / (1 + np.exp(-4 * (x - centre) / width))
    elif function == "LINEAR_EXACT":
        shown = (x - centre) / width + 0.5
    elif width == 1:
        shown = (x > centre - 0.5).astype(np.float64)
    else:
        shown = (x - (centre - 0.5)) / (width - 1) + 0.5
    return np.asarray(np.rint(shown.clip(0, 1) * 255), np.uint8)
