"""PALETTE COLOR frames of DICOM -> RGB: lookup tables of 8 or 16 bits, plain or segmented (PS3.3 C.7.6.3.1.5, C.7.9.2).

Looked up here and not by pydicom 3.0.2, which indexes in the type of the table's entries, so that 16-bit pixels wrap in
a table of 8 bits, and which expands a segmented table however long it claims to be.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from busi_core.errors import InvalidImageError
from busi_core.types import Rgb

COLOURS = ("Red", "Green", "Blue")
MAX_ENTRIES = 65_536  # PS3.3 C.7.6.3.1.5: the number of entries has 16 bits, and 0 means 2^16
DISCRETE, LINEAR = 0, 1  # opcodes, PS3.3 C.7.9.2; an indirect segment, 2, is not read


def apply_palette(stored: NDArray[Any], attributes: Dataset) -> Rgb:
    """(height, width) indices to (height, width, 3): tables of 16 bits by their high byte.

    Raises:
        InvalidImageError: No palette, or one that this tool does not read.
        Exception: Others, as damaged values raise them; the caller turns them into a refusal.
    """
    tables = [_read_table(attributes, colour) for colour in COLOURS]
    first, entries = int(attributes.RedPaletteColorLookupTableDescriptor[1]), len(tables[0])
    if any(len(table) != entries for table in tables):
        raise _refusal()
    index = np.clip(stored.astype(np.int32) - first, 0, entries - 1)  # beyond the table its ends hold on
    return np.stack([table[index] for table in tables], axis=2)


def _read_table(attributes: Dataset, colour: str) -> NDArray[np.uint8]:
    """One table of 8 bits."""
    name = f"{colour}PaletteColorLookupTable"
    if f"{name}Descriptor" not in attributes:
        raise _refusal()
    entries, _, bits = (int(value) for value in attributes[f"{name}Descriptor"].value)
    entries = _count(entries)
    is_little_endian = bool(attributes.original_encoding[1])
    if bits not in (8, 16):
        raise _refusal()
    if f"{name}Data" in attributes:
        words = read_words(attributes[f"{name}Data"].value, entries, bits, is_little_endian=is_little_endian)
    elif f"Segmented{name}Data" in attributes:
        data = bytes(attributes[f"Segmented{name}Data"].value)
        words = _expand(_split(data, bits // 8, is_little_endian=is_little_endian).tolist(), entries)
    else:
        raise _refusal()
    return np.asarray(words >> 8 if bits == 16 and words.dtype.itemsize == 2 else words, np.uint8)


def read_words(value: Any, entries: int, bits: int, *, is_little_endian: bool) -> NDArray[np.unsignedinteger[Any]]:
    """The entries of a lookup table.

    Args:
        value: As pydicom gives it: bytes, or numbers.
        entries: As the descriptor of the table says.
        bits: Of an entry, likewise.
        is_little_endian: Byte order of the file.

    Raises:
        Exception: As numpy raises it where there are too few.
    """
    entries = _count(entries)
    if not isinstance(value, bytes):
        return np.array(value, np.uint16)[:entries]
    is_wide = bits > 8 or len(value) >= 2 * entries  # 8 bits may stand in words of 16
    words = _split(value, 2 if is_wide else 1, is_little_endian=is_little_endian)[:entries]
    if len(words) < entries:
        raise ValueError("the table is cut short")
    return words


def _count(entries: int) -> int:
    """0 means 2^16; -1 and less stands where the file calls the number signed."""
    return entries % MAX_ENTRIES or MAX_ENTRIES


def _split(data: bytes, size: int, *, is_little_endian: bool) -> NDArray[np.unsignedinteger[Any]]:
    """Bytes of VR OW as numbers of `size` bytes. PS3.5 8.1.2: two of one byte are a word, whose order is the file's."""
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if is_little_endian else ">u2")
    return words if size == 2 else words.astype("<u2").view(np.uint8)


def _expand(segments: list[int], entries: int) -> NDArray[np.uint16]:
    """A segmented table written out: runs of values, and straight lines from the value before to one given."""
    table: list[int] = []
    at = 0
    while len(table) < entries:
        opcode, length = segments[at], segments[at + 1]
        if len(table) + length > entries or not length:
            raise _refusal()
        if opcode == DISCRETE:
            table += segments[at + 2 : at + 2 + length]
            at += 2 + length
        elif opcode == LINEAR and table:
            line = np.linspace(table[-1], segments[at + 2], length + 1)[1:]
            table += np.rint(line).astype(int).tolist()
            at += 3
        else:
            raise _refusal()
    return np.array(table, np.uint16)


def _refusal() -> InvalidImageError:
    return InvalidImageError(
        "The DICOM file's colour palette is missing, damaged or of a kind not read here.",
        remedy="Export the image from the scanner or archive again, uncompressed or as PNG.",
    )
