"""One frame of a DICOM file -> pixels as the file shows them: RLE and JPEG, palettes, rescale and grey windows."""

import io
import math
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array

from busi_core.errors import InvalidImageError
from busi_core.imaging.dicom import COLOURS, ENCAPSULATED_SYNTAXES, REEXPORT, DicomFile

RLE_SLACK_BYTES = 64  # a segment is padded to even length, some encoders pad a little more
UNDEFINED_LENGTH = 0xFFFFFFFF  # PS3.5 A.4: how encapsulated pixel data states its length
LAST_FRAGMENT_TAG = b"\xfe\xff\xdd\xe0"  # PS3.5 A.4: (FFFE,E0DD) closes encapsulated pixel data

# Markers of ISO 10918-1, table B.1: the second byte, after 0xFF.
JPEG_SIZE, JPEG_SCAN, JPEG_JFIF, JPEG_ADOBE = 0xC0, 0xDA, 0xE0, 0xEE  # SOF0 (Baseline), SOS, APP0, APP14
JPEG_OTHERS = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))  # DHT, DQT, DRI, COM and APPn
RGB_COMPONENTS = b"RGB"  # component identifiers by which libjpeg knows plain RGB
ADOBE_MARK = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4)  # APP14; one byte follows, 0 for RGB and 1 for YCbCr


class RawPixels(NamedTuple):
    """Pixels as a file shows them.

    Attributes:
        values: (height, width) uint8, (height, width, 3) uint8, or (height, width) of any other real dtype,
            which still has to be brought to 8 bits.
        windowed: A grey window was applied, or bits were left out, on the way to uint8.
    """

    values: NDArray[Any]
    windowed: bool


def read_frame(file: DicomFile, index: int) -> RawPixels:
    """Decode one frame; the caller has checked that its size is sensible and that `index` exists.

    Colour and palettes become RGB (16-bit palettes by their high byte). Grey values go through the Modality LUT
    or rescale, then through the first VOI window (PS3.3 C.11.2.1.2, linear, linear exact or sigmoid). Unsigned
    8-bit values without either pass unchanged; wider ones come back as numbers. MONOCHROME1 is inverted, so that
    white is always the high value. VOI LUT sequences are not used.

    Raises:
        InvalidImageError: Pixels cut off, RLE that expands past the frame, or JPEG that is not the frame of the header.
        Exception: Others, as pydicom raises them on damaged bytes; the caller turns them into a refusal.
    """
    _require_all_bytes(file)
    if file.syntax == uid.JPEGBaseline8Bit:
        stored = _read_jpeg(file, _encoded_frame(file, index))
    else:
        if file.syntax == uid.RLELossless:
            _require_bounded_rle(file, _encoded_frame(file, index))
        stored = pixel_array(io.BytesIO(file.content), index=index, transfer_syntax_uid=file.syntax)
    photometric = file.attributes.PhotometricInterpretation
    if photometric in COLOURS:
        return RawPixels(stored, windowed=False)
    if photometric == "PALETTE COLOR":
        return RawPixels(_apply_palette(stored, file.attributes), windowed=False)
    return _show_grey(_clear_unused_bits(stored, file.attributes), file.attributes)


def _require_all_bytes(file: DicomFile) -> None:
    """Native pixel data must be there for every frame that the header claims; encapsulated, up to its end mark."""
    header_bytes = 8 if file.syntax.is_implicit_VR else 12  # PS3.5 7.1.2 and 7.1.3
    present = len(file.content) - file.pixels_at - header_bytes
    if file.syntax in ENCAPSULATED_SYNTAXES:
        complete = file.pixel_bytes == UNDEFINED_LENGTH and file.content.rfind(LAST_FRAGMENT_TAG) > file.pixels_at
    else:
        samples = 2 if file.attributes.PhotometricInterpretation == "YBR_FULL_422" else file.attributes.SamplesPerPixel
        needed = file.frames * file.height * file.width * samples * (file.attributes.BitsAllocated // 8)
        complete = needed <= file.pixel_bytes <= present
    if not complete:
        raise InvalidImageError("The DICOM file is damaged: pixels are missing.", remedy=REEXPORT)


def _encoded_frame(file: DicomFile, index: int) -> bytes:
    """The bytes of one encapsulated frame, its fragments joined (PS3.5 A.4)."""
    stream = io.BytesIO(file.content)
    stream.seek(file.pixels_at + 12)
    offsets = tuple(
        file.attributes[keyword].value
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        if keyword in file.attributes
    )
    return get_frame(
        stream,
        index,
        number_of_frames=file.frames,
        extended_offsets=cast(tuple[bytes, bytes], offsets) if len(offsets) == 2 else None,
    )


def _require_bounded_rle(file: DicomFile, frame: bytes) -> None:
    """Refuse a frame whose RLE segments expand past the frame (PS3.5 G.3); pydicom only looks afterwards."""
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


def _read_jpeg(file: DicomFile, frame: bytes) -> NDArray[np.uint8]:
    """Decode one JPEG Baseline frame that is what the header says: (height, width) or (height, width, 3) RGB."""
    segments = _read_jpeg_segments(frame)
    [size] = [content for code, content in segments if code == JPEG_SIZE]
    height, width = int.from_bytes(size[1:3], "big"), int.from_bytes(size[3:5], "big")
    samples = file.attributes.SamplesPerPixel
    if (height, width, size[5], size[0]) != (file.height, file.width, samples, 8):
        raise InvalidImageError(
            f"The DICOM header states {file.width} x {file.height} pixels of {samples} x 8 bits, "
            f"but the frame itself has {width} x {height} of {size[5]} x {size[0]}.",
            remedy=REEXPORT,
        )
    photometric = file.attributes.PhotometricInterpretation
    if samples == 3:
        frame, photometric = _with_marked_colours(frame, segments, photometric)
    options: dict[str, Any] = {
        "rows": height,
        "columns": width,
        "number_of_frames": 1,
        "samples_per_pixel": samples,
        "photometric_interpretation": photometric,
        "bits_allocated": 8,
        "bits_stored": 8,
        "pixel_representation": 0,
        "planar_configuration": 0,  # JPEG interleaves, whatever the header says
    }
    decoder = get_decoder(uid.JPEGBaseline8Bit)
    stored, _ = decoder.as_array(
        encapsulate([frame]), index=0, validate=False, raw=True, decoding_plugin="pillow", **options
    )
    return np.asarray(stored, np.uint8)


def _with_marked_colours(frame: bytes, segments: list[tuple[int, bytes]], photometric: str) -> tuple[bytes, str]:
    """The colour JPEG with an Adobe mark, and what pydicom is to be told of it.

    pydicom lets Pillow turn a frame with an Adobe mark into RGB, and other frames not; then it goes by the header,
    and so converts a marked YBR_FULL_422 frame twice. With every frame marked and none converted afterwards (`raw`),
    the colours are Pillow's own. Where a frame says nothing of its colours, the header decides.
    """
    is_jfif = any(code == JPEG_JFIF and content.startswith(b"JFIF") for code, content in segments)
    if not any(code == JPEG_ADOBE and len(it) >= 12 and it.startswith(b"Adobe") for code, it in segments):
        [size] = [content for code, content in segments if code == JPEG_SIZE]
        is_rgb = not is_jfif and (photometric == "RGB" or size[6:15:3] == RGB_COMPONENTS)
        frame = frame[:2] + ADOBE_MARK + bytes([0 if is_rgb else 1]) + frame[2:]
    return frame, "YBR_FULL_422" if is_jfif else "RGB"  # JFIF knows no other colours; anything else makes pydicom warn


def _read_jpeg_segments(frame: bytes) -> list[tuple[int, bytes]]:
    """Marker and content of everything before the first scan (ISO 10918-1 B.2.1); exactly one SOF0 among them.

    Strict, so that Pillow, which skips what it does not know, cannot find another size than is found here.
    """
    segments: list[tuple[int, bytes]] = []
    at = 2
    while frame[at : at + 2] != bytes((0xFF, JPEG_SCAN)):
        code, length = frame[at + 1 : at + 2], int.from_bytes(frame[at + 2 : at + 4], "big")
        if frame[at : at + 1] != b"\xff" or length < 2 or code[0] not in (JPEG_SIZE, *JPEG_OTHERS):
            break
        segments.append((code[0], frame[at + 4 : at + 2 + length]))
        at += 2 + length
    sizes = [content for code, content in segments if code == JPEG_SIZE]
    is_baseline = frame[:2] == b"\xff\xd8" and frame[at : at + 2] == bytes((0xFF, JPEG_SCAN))
    if not is_baseline or len(sizes) != 1 or len(sizes[0]) < 6 or len(sizes[0]) != 6 + 3 * sizes[0][5]:
        raise InvalidImageError("The DICOM file is damaged: a frame is not the JPEG that it states.", remedy=REEXPORT)
    return segments


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
