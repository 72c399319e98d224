"""One frame of a DICOM file -> pixels as the file shows them.

    native, RLE --pydicom--------------------------+
    JPEG of 8 bits --jpeg_frame.py (Pillow)--------+--> stored values --> colour, palette.py or dicom_grey.py
    JPEG-LS, JPEG 2000, wide JPEG --sandbox.py-----+

Before a frame is decoded, what it says of itself is held against the header of the file.
"""

import io
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pixel_array

from busi_core.errors import InvalidImageError
from busi_core.imaging import jpeg_markers
from busi_core.imaging.dicom import (
    ENCAPSULATED_SYNTAXES,
    GREY,
    JPEG_2000_SYNTAXES,
    JPEG_LS_SYNTAXES,
    JPEG_SYNTAXES,
    NATIVE_SYNTAXES,
    REEXPORT,
    TRANSFORMED,
    DicomFile,
)
from busi_core.imaging.dicom_grey import clear_unused_bits, of_frame, show_grey
from busi_core.imaging.jpeg2000_header import read_codestream_header, unwrap_jp2
from busi_core.imaging.jpeg_frame import read_jpeg
from busi_core.imaging.jpeg_markers import FrameHeader, read_frame_header, read_segments, require_few_scans
from busi_core.imaging.palette import apply_palette
from busi_core.imaging.raw import RawPixels
from busi_core.imaging.sandbox import decode_confined

FRAME_BEGINS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # JPEG and JPEG-LS, JPEG 2000, the same as JP2
RLE_HEADER_BYTES = 64  # PS3.5 G.5
RLE_SLACK_BYTES = 64  # a segment is padded to even length, some encoders pad a little more
UNDEFINED_LENGTH = 0xFFFFFFFF  # PS3.5 A.4: how encapsulated pixel data states its length
FRAGMENT_TAG = b"\xfe\xff\x00\xe0"  # PS3.5 A.4: (FFFE,E000) begins a fragment of encapsulated pixel data
LAST_FRAGMENT_TAG = b"\xfe\xff\xdd\xe0"  # (FFFE,E0DD) closes it
MAX_FRAGMENTS = 200_000  # twenty for each frame that is read at most; pydicom lists them all

MARKERS = {  # SOFn that a transfer syntax allows, PS3.5 A.4.1 to A.4.3
    uid.JPEGBaseline8Bit: (jpeg_markers.BASELINE,),
    uid.JPEGExtended12Bit: (jpeg_markers.BASELINE, jpeg_markers.EXTENDED),
    uid.JPEGLossless: (jpeg_markers.LOSSLESS,),
    uid.JPEGLosslessSV1: (jpeg_markers.LOSSLESS,),
    uid.JPEGLSLossless: (jpeg_markers.JPEG_LS,),
    uid.JPEGLSNearLossless: (jpeg_markers.JPEG_LS,),
}


def read_frame(file: DicomFile, index: int) -> RawPixels:
    """Decode one frame; the caller has checked that its size is sensible and that `index` exists.

    Colour and palettes become RGB (16-bit palettes by their high byte). What becomes of grey values, the table of
    dicom_grey.py says; white is always the high value.

    Raises:
        InvalidImageError: Pixels cut off, or a frame that is not what the header says or expands past it.
        Exception: Others, as pydicom and Pillow raise them on damaged bytes; the caller turns them into a refusal.
    """
    _require_all_bytes(file)
    photometric = file.attributes.PhotometricInterpretation
    stored = _read_stored(file, index)
    if photometric in GREY:
        return show_grey(clear_unused_bits(stored, file.attributes), of_frame(file.attributes, index))
    if photometric == "PALETTE COLOR":
        return RawPixels(apply_palette(clear_unused_bits(stored, file.attributes), file.attributes), windowed=False)
    return RawPixels(stored, windowed=False)


def _require_all_bytes(file: DicomFile) -> None:
    """Native pixel data must be there for every frame that the header claims, and not for half a frame more: then it
    is not what the header says (PS3.5 8.1.1). Encapsulated data must be there up to its end mark."""
    header_bytes = 8 if file.syntax.is_implicit_VR else 12  # PS3.5 7.1.2 and 7.1.3
    present = len(file.content) - file.pixels_at - header_bytes
    if file.syntax in ENCAPSULATED_SYNTAXES:
        complete = file.pixel_bytes == UNDEFINED_LENGTH and file.content.rfind(LAST_FRAGMENT_TAG) > file.pixels_at
    else:
        samples = 2 if file.attributes.PhotometricInterpretation == "YBR_FULL_422" else file.attributes.SamplesPerPixel
        needed = file.frames * file.height * file.width * samples * (file.attributes.BitsAllocated // 8)
        complete = needed <= file.pixel_bytes <= present
        if complete and file.pixel_bytes - needed >= max(2, needed // file.frames // 2):
            raise InvalidImageError("The DICOM file holds more pixels than its header says.", remedy=REEXPORT)
    if not complete:
        raise InvalidImageError("The DICOM file is damaged: pixels are missing.", remedy=REEXPORT)


def _read_stored(file: DicomFile, index: int) -> NDArray[Any]:
    """Values as stored, (height, width) in the type that the header states, or (height, width, 3) uint8 RGB."""
    if file.syntax in NATIVE_SYNTAXES:
        return pixel_array(io.BytesIO(file.content), index=index, transfer_syntax_uid=file.syntax)
    frame = _encoded_frame(file, index)
    if file.syntax == uid.RLELossless:
        _require_bounded_rle(file, frame)
        return pixel_array(
            io.BytesIO(file.content), index=index, transfer_syntax_uid=file.syntax, decoding_plugin="pydicom"
        )
    photometric = file.attributes.PhotometricInterpretation
    values, is_rgb = _read_compressed(file, frame, photometric)
    if values.ndim == 3:
        return values if is_rgb else convert_color_space(values, "YBR_FULL", "RGB")
    _require_stored_bits(file, values)
    kind = "i" if file.attributes.get("PixelRepresentation", 0) else "u"
    return values.astype(f"{kind}{file.attributes.BitsAllocated // 8}")


def _require_stored_bits(file: DicomFile, values: NDArray[Any]) -> None:
    """Refuse compressed values that Bits Stored cannot hold: in a compressed frame nothing lies above it but errors.

    JPEG and JPEG-LS know no sign, so that signed values come as the bits of unsigned ones.
    """
    bits = file.attributes.get("BitsStored", file.attributes.BitsAllocated)
    if values.max() >= 2**bits or values.min() < -(2 ** (bits - 1)):
        raise InvalidImageError(
            f"The DICOM header states pixels of {bits} bits, but the frame itself holds larger values.", remedy=REEXPORT
        )


def _encoded_frame(file: DicomFile, index: int) -> bytes:
    """The bytes of one encapsulated frame, its fragments joined (PS3.5 A.4)."""
    if file.content.count(FRAGMENT_TAG, file.pixels_at) > MAX_FRAGMENTS:
        raise InvalidImageError(f"The DICOM file has more than {MAX_FRAGMENTS} fragments of pixels.", remedy=REEXPORT)
    stream = io.BytesIO(file.content)
    stream.seek(file.pixels_at + 12)
    offsets = tuple(
        file.attributes[keyword].value
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        if keyword in file.attributes
    )
    found = _count_in_tables(*offsets) if len(offsets) == 2 else _count_frames(file)
    if found > file.frames:
        raise InvalidImageError(
            f"The DICOM header states {file.frames} frame{'s' if file.frames > 1 else ''}, but the file holds {found}.",
            remedy=REEXPORT,
        )
    return get_frame(
        stream,
        index,
        number_of_frames=file.frames,
        extended_offsets=cast(tuple[bytes, bytes], offsets) if len(offsets) == 2 else None,
    )


def _count_in_tables(offsets: bytes, lengths: bytes) -> int:
    """How many frames the extended tables place: one after the other, each after an item tag and its length of 8 bytes
    (PS3.3 C.7.6.3.1.8)."""
    starts, sizes = np.frombuffer(offsets, "<u8").tolist(), np.frombuffer(lengths, "<u8").tolist()
    ends = [start + 8 + size for start, size in zip(starts, sizes, strict=True)]
    _require_order(starts, ends)
    return len(starts)


def _require_order(starts: Sequence[int], ends: Sequence[int]) -> None:
    """Refuse places of frames of which one begins before another ends: some frame would be shown for another."""
    if starts[0] != 0 or any(end > start for end, start in zip(ends, starts[1:], strict=False)):
        raise InvalidImageError("The DICOM file is damaged: its table of frames contradicts itself.", remedy=REEXPORT)


def _count_frames(file: DicomFile) -> int:
    """How many frames encapsulated pixel data hold: by their offset table, else by how their fragments begin."""
    stream = io.BytesIO(file.content)
    stream.seek(file.pixels_at + 12)
    table = parse_basic_offsets(stream)
    if table:
        _require_order(table, [start + 1 for start in table])
        return len(table)
    count, places = parse_fragments(stream)
    if file.syntax == uid.RLELossless:
        return count  # PS3.5 A.4.2: each frame is one fragment
    return sum(file.content.startswith(FRAME_BEGINS, at + 8) for at in places)


def _require_bounded_rle(file: DicomFile, frame: bytes) -> None:
    """Refuse a frame whose RLE segments are not those of its pixels (PS3.5 G.2), are out of order (G.5), or expand past
    the frame (G.3); pydicom only looks afterwards."""
    count = int.from_bytes(frame[:4], "little")
    starts = [int.from_bytes(frame[at : at + 4], "little") for at in range(4, 4 + 4 * min(count, 15), 4)]
    ends = [*starts[1:], len(frame)]
    planned = file.attributes.SamplesPerPixel * file.attributes.BitsAllocated // 8
    if count != planned or any(not RLE_HEADER_BYTES <= start < end for start, end in zip(starts, ends, strict=True)):
        raise _not_as_stated("RLE")
    for start, end in zip(starts, ends, strict=True):
        if not _fits_when_expanded(frame[start:end], file.height * file.width + RLE_SLACK_BYTES):
            raise InvalidImageError("The DICOM file is damaged: a frame unpacks to too many pixels.", remedy=REEXPORT)


def _fits_when_expanded(segment: bytes, limit: int) -> bool:
    """Whether one RLE segment (PS3.5 G.3.2) expands to at most `limit` bytes."""
    if len(segment) > 2 * limit:  # an encoder needs two bytes for one at the worst
        return False
    at = expanded = idle = 0
    while at < len(segment) and expanded <= limit and idle <= RLE_SLACK_BYTES:
        control = segment[at]
        expanded += control + 1 if control < 128 else 257 - control if control > 128 else 0
        idle += control == 128  # means nothing
        at += control + 2 if control < 128 else 2 if control > 128 else 1
    return expanded <= limit and idle <= RLE_SLACK_BYTES


def _read_compressed(file: DicomFile, frame: bytes, photometric: str) -> tuple[NDArray[Any], bool]:
    """Samples of a JPEG, JPEG-LS or JPEG 2000 frame, and whether three of them are RGB already."""
    if file.syntax in JPEG_2000_SYNTAXES:
        frame = unwrap_jp2(frame)
        header = read_codestream_header(frame)
        if header is None:
            raise _not_as_stated("JPEG 2000")
        _require_same_frame(file, header)
        if header.samples == 3 and header.is_transformed != (photometric in TRANSFORMED) and photometric != "RGB":
            raise InvalidImageError(
                f"The DICOM header states {photometric}, but the frame itself is stored otherwise.", remedy=REEXPORT
            )
        return decode_confined("jpeg-2000", frame, header), photometric in (*TRANSFORMED, "RGB")

    kinds = MARKERS[file.syntax]
    segments = read_segments(frame, kinds)
    if segments is None:
        raise _not_as_stated("JPEG-LS" if file.syntax in JPEG_LS_SYNTAXES else "JPEG")
    marker, header = read_frame_header(segments, kinds)
    _require_same_frame(file, header)
    require_few_scans(frame, header.width * header.height)
    if file.syntax in JPEG_LS_SYNTAXES:
        return decode_confined("jpeg-ls", frame, header), photometric == "RGB"
    if header.bits == 8:
        is_lossy = marker != jpeg_markers.LOSSLESS
        return read_jpeg(frame, segments, header, marker, photometric), is_lossy or photometric == "RGB"
    return decode_confined(file.syntax, frame, header), False


def _not_as_stated(kind: str) -> InvalidImageError:
    return InvalidImageError(f"The DICOM file is damaged: a frame is not the {kind} that it states.", remedy=REEXPORT)


def _require_same_frame(file: DicomFile, header: FrameHeader) -> None:
    """Refuse a frame that is larger, of other samples or more bits than the header of the file says."""
    samples, allocated = file.attributes.SamplesPerPixel, file.attributes.BitsAllocated
    is_signed = bool(file.attributes.get("PixelRepresentation", 0))
    fits = header.bits == 8 if samples == 3 else header.bits <= allocated and is_signed >= header.is_signed
    if (header.height, header.width, header.samples) != (file.height, file.width, samples) or not fits:
        raise InvalidImageError(
            f"The DICOM header states {file.width} x {file.height} pixels of {samples} x {allocated} bits, but the "
            f"frame itself has {header.width} x {header.height} of {header.samples} x {header.bits}.",
            remedy=REEXPORT,
        )
    if header.is_subsampled and file.syntax not in JPEG_SYNTAXES[:2]:
        raise InvalidImageError(
            "The DICOM file stores fewer colours than pixels in a way that this tool does not read.", remedy=REEXPORT
        )
