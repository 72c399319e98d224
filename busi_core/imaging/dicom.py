"""DICOM file -> pixels of one frame and the calibrated ultrasound regions; nothing else leaves this module.

Read: Implicit and Explicit VR Little Endian, Explicit VR Big Endian, Deflated and RLE Lossless. Every other
transfer syntax is refused by its name. Only the technical attributes in `READ_KEYWORDS` are ever parsed: names,
identifiers and dates stay in the file as unread bytes, so they can reach neither a log nor a message.

Calibration comes from the Sequence of Ultrasound Regions alone. Pixel Spacing (0028,0030) is ignored: it is no
part of the ultrasound image modules, and on a screen capture it describes the print, not the breast.
"""

import io
import math
import re
import zlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag

from busi_core.errors import InvalidImageError
from busi_core.types import CalibratedRegion

PREAMBLE_BYTES = 128  # PS3.10 7.1: 128 free bytes, then the letters DICM
MAX_HEADER_BYTES = 4_000_000  # everything before the pixels; palettes and icons need less than 1 MB
MAX_INFLATED_BYTES = 80_000_000  # one RGB frame of 25 megapixels (75 MB) and its header
INFLATE_STEP_BYTES = 1_000_000  # how much a bomb may grow between two looks at the bound
MAX_HEADER_ITEMS = 20_000  # a 3D cine has some thousands; half a million cost pydicom 16 s and 600 MB
RLE_SLACK_BYTES = 64  # a segment is padded to even length, some encoders pad a little more
UNDEFINED_LENGTH = 0xFFFFFFFF  # PS3.5 A.4: how encapsulated pixel data states its length
ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # PS3.5 7.5: (FFFE,E000), little and big endian
LAST_FRAGMENT_TAG = b"\xfe\xff\xdd\xe0"  # PS3.5 A.4: (FFFE,E0DD) closes encapsulated pixel data
CENTIMETRES = 3  # PS3.3 C.8.5.5.1.15, Physical Units X and Y Direction
MM_PER_CM = 10

NATIVE_SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422")
READ_KEYWORDS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SequenceOfUltrasoundRegions"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
READ_TAGS: Final = [BaseTag(cast(int, tag_for_keyword(keyword))) for keyword in READ_KEYWORDS]
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float and integer pixel data
REGION_TAG = BaseTag(0x00186011)

REEXPORT = "Export the image from the scanner or archive again, uncompressed or as PNG."


class RawPixels(NamedTuple):
    """Pixels as a file shows them.

    Attributes:
        values: (height, width) uint8, (height, width, 3) uint8, or (height, width) of any other real dtype,
            which still has to be brought to 8 bits.
        windowed: A grey window was applied, or bits were left out, on the way to uint8.
    """

    values: NDArray[Any]
    windowed: bool


@dataclass(frozen=True, eq=False)
class DicomFile:
    """The header of one DICOM file, checked, with its pixels not yet decoded.

    Attributes:
        height, width, frames: As the header claims; at least 1 each.
        regions: Calibrated parts of every frame.
        content: The whole file, inflated where it was deflated.
        syntax: Transfer syntax of `content`.
        attributes: The elements of `READ_KEYWORDS` that the file has.
        pixels_at: Offset of the Pixel Data element in `content`.
        pixel_bytes: Its stated length, or `UNDEFINED_LENGTH`.
    """

    height: int
    width: int
    frames: int
    regions: tuple[CalibratedRegion, ...]
    content: bytes
    syntax: uid.UID
    attributes: Dataset
    pixels_at: int
    pixel_bytes: int


def is_dicom(data: bytes) -> bool:
    """Whether the bytes carry the DICOM mark after the preamble (PS3.10 7.1)."""
    return data[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM"


def open_dicom(data: bytes) -> DicomFile:
    """Read the technical header of a DICOM file; no pixel is decoded.

    Raises:
        InvalidImageError: Transfer syntax not read here, inflates past the bound, no image inside, or a header
            that no image can have.
        Exception: Others, as pydicom raises them on damaged bytes; the caller turns them into a refusal.
    """
    syntax, start = _read_transfer_syntax(data)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data = data[:start] + _inflate(data[start:])
        syntax = uid.ExplicitVRLittleEndian

    pixels: list[tuple[int, int]] = []

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            pixels.append((tag, length))
        return tag in PIXEL_TAGS

    header_bytes = data[: start + MAX_HEADER_BYTES]
    if sum(header_bytes.count(tag) for tag in ITEM_TAGS) > MAX_HEADER_ITEMS:
        raise InvalidImageError(f"The DICOM header has more than {MAX_HEADER_ITEMS} items.", remedy=REEXPORT)
    header = io.BytesIO(header_bytes)
    header.seek(start)
    attributes = read_dataset(
        header, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=at_pixels, specific_tags=list(READ_TAGS)
    )
    if not pixels:
        raise InvalidImageError("The DICOM file holds no image, or is cut off before it.", remedy=REEXPORT)
    if attributes.original_encoding[0] != syntax.is_implicit_VR:  # pydicom reads on; the pixels would shift
        raise InvalidImageError("The DICOM header is not written in the way that it states.", remedy=REEXPORT)
    tag, pixel_bytes = pixels[0]
    if tag != 0x7FE00010:
        raise InvalidImageError("The DICOM file holds floating-point pixels, which no scanner shows.", remedy=REEXPORT)

    _require_known_pixels(attributes)
    height, width = _integer(attributes, "Rows"), _integer(attributes, "Columns")
    return DicomFile(
        height=height,
        width=width,
        frames=_integer(attributes, "NumberOfFrames", absent=1),
        regions=_read_regions(attributes, height, width),
        content=data,
        syntax=syntax,
        attributes=attributes,
        pixels_at=header.tell(),
        pixel_bytes=pixel_bytes,
    )


def read_frame(file: DicomFile, index: int) -> RawPixels:
    """Decode one frame; the caller has checked that its size is sensible and that `index` exists.

    Colour and palettes become RGB (16-bit palettes by their high byte). Grey values go through the Modality LUT
    or rescale, then through the first VOI window (PS3.3 C.11.2.1.2, linear, linear exact or sigmoid). Unsigned
    8-bit values without either pass unchanged; wider ones come back as numbers. MONOCHROME1 is inverted, so that
    white is always the high value. VOI LUT sequences are not used.

    Raises:
        InvalidImageError: Pixels cut off, or RLE that expands past the frame.
        Exception: Others, as pydicom raises them on damaged bytes; the caller turns them into a refusal.
    """
    _require_all_bytes(file)
    if file.syntax == uid.RLELossless:
        _require_bounded_rle(file, index)
    stored = pixel_array(io.BytesIO(file.content), index=index, transfer_syntax_uid=file.syntax)
    photometric = file.attributes.PhotometricInterpretation
    if photometric in COLOURS:
        return RawPixels(stored, windowed=False)
    if photometric == "PALETTE COLOR":
        return RawPixels(_apply_palette(stored, file.attributes), windowed=False)
    return _show_grey(_clear_unused_bits(stored, file.attributes), file.attributes)


def _read_transfer_syntax(data: bytes) -> tuple[uid.UID, int]:
    """The transfer syntax, and where the data set starts (PS3.10 7.1)."""
    meta_file = io.BytesIO(data[: PREAMBLE_BYTES + 4 + MAX_HEADER_BYTES])
    meta_file.seek(PREAMBLE_BYTES + 4)
    meta = read_dataset(
        meta_file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
        specific_tags=[BaseTag(0x00020010)],
    )
    text = str(meta.get("TransferSyntaxUID", ""))
    if not re.fullmatch(r"[0-9.]{1,64}", text):
        raise InvalidImageError("The DICOM file does not say how its pixels are stored.", remedy=REEXPORT)
    syntax = uid.UID(text)
    if syntax in (*NATIVE_SYNTAXES, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless):
        return syntax, meta_file.tell()
    if any(word in syntax.name for word in ("MPEG", "HEVC", "H.264", "H.265")):
        raise InvalidImageError(
            f"The DICOM file is a video ({syntax.name}), which this tool does not read.",
            remedy="Export the one frame to be read as a still image.",
        )
    raise InvalidImageError(
        f"The DICOM file is stored as {syntax.name} ({text}), which this tool does not read."
        if syntax.name != text
        else f"The DICOM file is stored in an unknown way (transfer syntax {text}).",
        remedy=REEXPORT,
    )


def _inflate(deflated: bytes) -> bytes:
    """Undo the deflated transfer syntax (PS3.5 A.5, raw RFC 1951) without ever holding more than the bound."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    for start in range(0, len(deflated), INFLATE_STEP_BYTES):
        waiting = deflated[start : start + INFLATE_STEP_BYTES]
        while waiting and not inflater.eof:
            inflated += inflater.decompress(waiting, INFLATE_STEP_BYTES)
            waiting = inflater.unconsumed_tail
            if len(inflated) > MAX_INFLATED_BYTES:
                raise InvalidImageError(
                    f"The compressed DICOM file unpacks to more than {MAX_INFLATED_BYTES // 10**6} MB.", remedy=REEXPORT
                )
    while not inflater.eof:  # all is read in, but the last steps may still wait inside zlib
        rest = inflater.decompress(b"", INFLATE_STEP_BYTES)
        if not rest:
            raise InvalidImageError("The compressed DICOM file is cut off.", remedy=REEXPORT)
        inflated += rest
    return bytes(inflated)


def _integer(attributes: Dataset, keyword: str, *, absent: int | None = None) -> int:
    """A count of the header, at least 1."""
    value = attributes.get(keyword)
    if value is None and absent is not None:
        return absent
    if not isinstance(value, int) or value < 1:
        raise InvalidImageError(f"The DICOM header gives no usable {keyword}.", remedy=REEXPORT)
    return int(value)


def _require_known_pixels(attributes: Dataset) -> None:
    """PS3.3 C.7.6.3: only the combinations that ultrasound uses."""
    photometric = str(attributes.get("PhotometricInterpretation", "none"))
    if photometric not in (*GREY, *COLOURS, "PALETTE COLOR"):
        raise InvalidImageError(
            f"The DICOM file has pixels of kind {photometric[:16]!r}, which this tool does not read.", remedy=REEXPORT
        )
    samples, bits = _integer(attributes, "SamplesPerPixel"), _integer(attributes, "BitsAllocated")
    stored = _integer(attributes, "BitsStored", absent=bits)
    if samples != (3 if photometric in COLOURS else 1) or bits not in (8, 16) or (photometric in COLOURS and bits != 8):
        raise InvalidImageError(
            f"The DICOM file has {samples} x {bits} bits a pixel as {photometric}, which this tool does not read.",
            remedy=REEXPORT,
        )
    if stored > bits or _integer(attributes, "HighBit", absent=stored - 1 or None) != stored - 1:
        raise InvalidImageError("The DICOM header contradicts itself about the bits of a pixel.", remedy=REEXPORT)


def _read_regions(attributes: Dataset, height: int, width: int) -> tuple[CalibratedRegion, ...]:
    """Sequence of Ultrasound Regions, PS3.3 C.8.5.5: those in centimetres both ways, cut to the image.

    Region Location Max is the last pixel inside. A negative delta only says which way the axis runs. A region
    with other units, a missing value or no area is left out: pixels are better than a wrong millimetre.
    """
    element = attributes.get(REGION_TAG)
    if element is None or element.VR != "SQ":
        return ()
    found = []
    for item in element.value:
        units = item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")
        corners = [item.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        deltas = [item.get(f"PhysicalDelta{axis}") for axis in "XY"]
        if units != (CENTIMETRES, CENTIMETRES) or not all(isinstance(value, int) for value in corners):
            continue
        if not all(isinstance(value, float) and math.isfinite(value) for value in deltas):
            continue
        left, top, right, bottom = corners[0], corners[1], min(corners[2] + 1, width), min(corners[3] + 1, height)
        column_mm, row_mm = (abs(delta) * MM_PER_CM for delta in deltas)
        if left < right and top < bottom and 0 < column_mm < 10 and 0 < row_mm < 10:
            found.append(CalibratedRegion(left, top, right, bottom, column_mm, row_mm))
    return tuple(found)


def _require_all_bytes(file: DicomFile) -> None:
    """Native pixel data must be there for every frame that the header claims; encapsulated, up to its end mark."""
    header_bytes = 8 if file.syntax.is_implicit_VR else 12  # PS3.5 7.1.2 and 7.1.3
    present = len(file.content) - file.pixels_at - header_bytes
    if file.syntax == uid.RLELossless:
        complete = file.pixel_bytes == UNDEFINED_LENGTH and file.content.rfind(LAST_FRAGMENT_TAG) > file.pixels_at
    else:
        samples = 2 if file.attributes.PhotometricInterpretation == "YBR_FULL_422" else file.attributes.SamplesPerPixel
        needed = file.frames * file.height * file.width * samples * (file.attributes.BitsAllocated // 8)
        complete = needed <= file.pixel_bytes <= present
    if not complete:
        raise InvalidImageError("The DICOM file is damaged: pixels are missing.", remedy=REEXPORT)


def _require_bounded_rle(file: DicomFile, index: int) -> None:
    """Refuse a frame whose RLE segments expand past the frame (PS3.5 G.3); pydicom only looks afterwards."""
    stream = io.BytesIO(file.content)
    stream.seek(file.pixels_at + 12)
    offsets = tuple(
        file.attributes[keyword].value
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        if keyword in file.attributes
    )
    frame = get_frame(
        stream,
        index,
        number_of_frames=file.frames,
        extended_offsets=cast(tuple[bytes, bytes], offsets) if len(offsets) == 2 else None,
    )
    count = int.from_bytes(frame[:4], "little")
    starts = [int.from_bytes(frame[at : at + 4], "little") for at in range(4, 4 + 4 * min(count, 15), 4)]
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        if not _fits_when_expanded(frame[start:end], file.height * file.width + RLE_SLACK_BYTES):
            raise InvalidImageError("The DICOM file is damaged: a frame unpacks to too many pixels.", remedy=REEXPORT)


def _fits_when_expanded(segment: bytes, limit: int) -> bool:
    """Whether one RLE segment (PS3.5 G.3.2) expands to at most `limit` bytes."""
    at = expanded = 0
    while at < len(segment) and expanded <= limit:
        control = segment[at]
        expanded += control + 1 if control < 128 else 257 - control if control > 128 else 0
        at += control + 2 if control < 128 else 2 if control > 128 else 1
    return expanded <= limit


def _apply_palette(stored: NDArray[Any], attributes: Dataset) -> NDArray[np.uint8]:
    """Palette Color Lookup Tables, PS3.3 C.7.6.3.1.5: (height, width) indices to (height, width, 3) uint8."""
    if "RedPaletteColorLookupTableData" not in attributes:
        raise InvalidImageError("The DICOM file's colour palette is of a kind not read here.", remedy=REEXPORT)
    colours = apply_color_lut(stored, attributes)
    return np.asarray(colours >> 8 if colours.dtype == np.uint16 else colours, np.uint8)


def _clear_unused_bits(stored: NDArray[Any], attributes: Dataset) -> NDArray[Any]:
    """Drop what old scanners keep above Bits Stored (overlays), and extend the sign into it (PS3.5 8.1.1)."""
    unused = attributes.BitsAllocated - attributes.get("BitsStored", attributes.BitsAllocated)
    return (stored << unused) >> unused if unused else stored


def _show_grey(stored: NDArray[Any], attributes: Dataset) -> RawPixels:
    """Stored values to shown values: Modality LUT or rescale, first VOI window, MONOCHROME1 inverted."""
    values = stored
    is_rescaled = (attributes.get("RescaleSlope", 1), attributes.get("RescaleIntercept", 0)) != (1, 0)
    if is_rescaled or "ModalityLUTSequence" in attributes:
        values = apply_modality_lut(stored, attributes)
    window = _first_window(attributes)
    if window is not None:
        values = _apply_window(values, *window)
    if attributes.PhotometricInterpretation == "MONOCHROME1":
        values = 255 - values if values.dtype == np.uint8 else -values.astype(np.float64)
        stored = 255 - stored if stored.dtype == np.uint8 else stored
    return RawPixels(values, windowed=not np.array_equal(values, stored))


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
