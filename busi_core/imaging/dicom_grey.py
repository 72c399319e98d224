"""Stored grey values of a DICOM frame -> values as the file shows them: rescale, grey window or table, MONOCHROME1.

What is applied, in this order; of functional groups, what is said of the frame or else of all frames:

| the file has                                       | grey                                              |
|----------------------------------------------------|---------------------------------------------------|
| Modality LUT, or Rescale Slope or Intercept        | applied; of slope and intercept one may be absent |
| Window Center and Width that can be applied        | the first window                                  |
| no such window, but a VOI LUT                      | the first table, from 0 to its highest value      |
| neither, 8 bits and not rescaled                   | unchanged; of fewer bits stretched to 255         |
| neither, all else                                  | numbers; padding as black as the darkest of them  |
| MONOCHROME1                                        | inverted                                          |
| Presentation LUT Shape against the photometric     | refused: viewers disagree (dicom.py)              |
| grey values that a palette shows in colour         | refused (dicom.py)                                |
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from busi_core.imaging.palette import read_words
from busi_core.imaging.raw import RawPixels

FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")  # PS3.3 C.7.6.16.2.9 and 10


def clear_unused_bits(stored: NDArray[Any], attributes: Dataset) -> NDArray[Any]:
    """Drop what old scanners keep above Bits Stored (overlays), and extend the sign into it (PS3.5 8.1.1)."""
    unused = attributes.BitsAllocated - attributes.get("BitsStored", attributes.BitsAllocated)
    return (stored << unused) >> unused if unused else stored


def of_frame(attributes: Dataset, index: int) -> Dataset:
    """The attributes, and over them those that functional groups give all frames or this one (PS3.3 C.7.6.16)."""
    shared = attributes.get("SharedFunctionalGroupsSequence") or []
    own = (attributes.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    groups = [group for group in (*shared[:1], *own) if any(keyword in group for keyword in FRAME_GROUPS)]
    if not groups:
        return attributes
    merged = Dataset({element.tag: element for element in attributes})
    merged.set_original_encoding(*attributes.original_encoding)
    for group in groups:
        for keyword in FRAME_GROUPS:
            for item in (group.get(keyword) or [])[:1]:
                merged.update({element.tag: element for element in item})
    return merged


def show_grey(stored: NDArray[Any], attributes: Dataset) -> RawPixels:
    """Stored values to shown values, as the table above says; `attributes` as `of_frame` gives them."""
    values = _rescale(stored, attributes)
    window, tables = _first_window(attributes), attributes.get("VOILUTSequence")
    if window is not None:
        values = _apply_window(values, *window)
    elif tables:
        values = _apply_table(values, tables[0], attributes)
    elif values is stored and values.dtype == np.uint8:
        values = _stretch(values, attributes.get("BitsStored", 8))
    else:
        values = _blacken_padding(values, stored, attributes)
    if attributes.PhotometricInterpretation == "MONOCHROME1":
        values = 255 - values if values.dtype == np.uint8 else _negate(values)
        stored = 255 - stored if stored.dtype == np.uint8 else stored
    return RawPixels(values, windowed=not np.array_equal(values, stored))


def _rescale(stored: NDArray[Any], attributes: Dataset) -> NDArray[Any]:
    """Modality LUT or rescale (PS3.3 C.11.1); the stored array itself where there is nothing to do."""
    if attributes.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, attributes))
    slope, intercept = attributes.get("RescaleSlope"), attributes.get("RescaleIntercept")
    slope = 1.0 if slope is None else float(slope)
    intercept = 0.0 if intercept is None else float(intercept)
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ValueError("Rescale Slope or Intercept is no number")
    if (slope, intercept) == (1, 0):
        return stored
    values = stored.astype(np.float64)
    values *= slope
    values += intercept
    return values


def _negate(values: NDArray[Any]) -> NDArray[np.float64]:
    shown = values.astype(np.float64, copy=False)
    return np.negative(shown, out=shown)


def _stretch(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Fewer than 8 bits to 0 to 255, so that the highest value is white (PS3.3 C.7.6.3.1.2)."""
    return values if bits >= 8 else np.asarray(np.rint(values * (255 / (2**bits - 1))), np.uint8)


def _blacken_padding(values: NDArray[Any], stored: NDArray[Any], attributes: Dataset) -> NDArray[Any]:
    """Pixel Padding Value, or its range (PS3.3 C.7.5.1.1.2), as black as the darkest pixel of the image itself."""
    padding = attributes.get("PixelPaddingValue")
    if not isinstance(padding, int):
        return values
    limit = attributes.get("PixelPaddingRangeLimit")
    first, last = sorted((padding, limit if isinstance(limit, int) else padding))
    is_padding = (stored >= first) & (stored <= last)
    if is_padding.all() or not is_padding.any():
        return values
    is_inverted = attributes.PhotometricInterpretation == "MONOCHROME1"
    low, high = values.min(), values.max()
    black = values.max(initial=low, where=~is_padding) if is_inverted else values.min(initial=high, where=~is_padding)
    values = values.copy() if values is stored else values
    values[is_padding] = black
    return values


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


def _apply_table(values: NDArray[Any], item: Dataset, attributes: Dataset) -> NDArray[np.uint8]:
    """PS3.3 C.11.2.1.1: beyond the table its ends hold on; shown as 0 to 255."""
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    if not 8 <= bits <= 16:
        raise ValueError("a table has 8 to 16 bits")
    if first > 2**15 - 1 and values.min() < 0:  # PS3.3 C.11.2.1.1: signed where values are; a file may call it unsigned
        first -= 2**16
    words = read_words(item["LUTData"].value, entries, bits, is_little_endian=bool(attributes.original_encoding[1]))
    shown = np.rint(words.clip(0, 2**bits - 1) * (255 / (2**bits - 1))).astype(np.uint8)
    index = np.subtract(values, first, dtype=np.float64)
    index.clip(0, len(shown) - 1, out=index)
    return np.asarray(shown[np.rint(index, out=index).astype(np.uint16)])


def _apply_window(values: NDArray[Any], centre: float, width: float, function: str) -> NDArray[np.uint8]:
    """PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT), shown as 0 to 255.

    In place, since an image of 25 megapixels takes 200 MB as numbers; `values` are lost where they are floats already.
    """
    shown = values.astype(np.float64, copy=False)
    shown -= centre - 0.5 if function == "LINEAR" else centre
    if function == "SIGMOID":  # 1 / (1 + exp(-4 x / width))
        shown *= -4
        shown /= width
        with np.errstate(over="ignore"):
            np.exp(shown, out=shown)
        shown += 1
        np.divide(1, shown, out=shown)
    elif function == "LINEAR" and width == 1:
        shown[...] = shown > 0
    else:
        shown /= width - 1 if function == "LINEAR" else width
        shown += 0.5
    shown.clip(0, 1, out=shown)
    shown *= 255
    return np.asarray(np.rint(shown, out=shown), np.uint8)
