"""The markers of a JPEG or JPEG-LS stream before its first scan, read strictly, and bounds on segments and scans.

ISO 10918-1 annex B (JPEG), ISO 14495-1 annex C (JPEG-LS). Strict where the frame is of a DICOM file, so that no decoder
behind it, which may skip what it does not know, finds another size than is found here.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from busi_core.errors import InvalidImageError
from busi_core.imaging.limits import MAX_PIXELS

# The second byte of a marker, after 0xFF: ISO 10918-1 table B.1, ISO 14495-1 table C.1.
BASELINE, EXTENDED, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC3, 0xF7  # SOF0, SOF1, SOF3, SOF55
START, SCAN, JFIF, ADOBE = 0xD8, 0xDA, 0xE0, 0xEE  # SOI, SOS, APP0, APP14
TABLES = (0xC4, 0xDB, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0))  # DHT, DQT, DRI, LSE, COM and APPn

SOI = b"\xff\xd8\xff"  # how a JPEG begins: the SOI marker and the first byte of the next
PLAIN = (0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE))  # markers that Pillow takes for such without a segment
EXIF = b"Exif\0\0"  # how the content of an APP1 segment of it begins
MULTI_PICTURE = b"MPF\0"  # CIPA DC-007: the APP2 segment of an MPO, which lists where further JPEGs begin

MAX_SEGMENTS = 1000  # before the first scan; a camera writes 20, the longest colour profile takes 255
MAX_EXIF_SEGMENTS = 100  # of these; Pillow copies all before for each, and 900 took 37 s
MAX_STRAY_BYTES = 1_000_000  # between segments: fill bytes and what a wrong length left; Pillow steps over each
MAX_SCANS = 100  # a progressive JPEG has about 10; each pass over 25 megapixels takes up to a second
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # scans times pixels


class FrameHeader(NamedTuple):
    """What a compressed frame says of itself.

    Attributes:
        width, height: Pixels.
        samples: Components of a pixel.
        bits: Of a sample.
        is_signed: Samples may be negative; JPEG and JPEG-LS know no sign.
        is_transformed: The decoder itself turns luma and chroma into RGB (JPEG 2000 only).
        is_subsampled: Some component has fewer samples than there are pixels.
    """

    width: int
    height: int
    samples: int
    bits: int
    is_signed: bool = False
    is_transformed: bool = False
    is_subsampled: bool = False


class Segment(NamedTuple):
    """One marker segment: the marker's second byte, and what follows the length."""

    code: int
    content: bytes


def read_segments(stream: bytes, kinds: Collection[int]) -> list[Segment] | None:
    """All segments before the first scan; None where the stream is not one of these kinds, or has too many of them.

    Args:
        stream: From the SOI marker on.
        kinds: Accepted frame markers (SOFn); there must be exactly one of them.

    Raises:
        InvalidImageError: More than `MAX_SEGMENTS` of them.
    """
    segments: list[Segment] = []
    at = 2
    while stream[at : at + 2] != bytes((0xFF, SCAN)):
        if len(segments) == MAX_SEGMENTS:
            raise _too_many_segments()
        code, length = stream[at + 1 : at + 2], int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at : at + 1] != b"\xff" or length < 2 or code[0] not in (*kinds, *TABLES):
            return None
        segments.append(Segment(code[0], stream[at + 4 : at + 2 + length]))
        at += 2 + length
    headers = [segment.content for segment in segments if segment.code in kinds]
    if stream[:2] != bytes((0xFF, START)) or len(headers) != 1:
        return None
    return segments if len(headers[0]) >= 6 and len(headers[0]) == 6 + 3 * headers[0][5] else None


def read_frame_header(segments: list[Segment], kinds: Collection[int]) -> tuple[int, FrameHeader]:
    """The frame marker and what it says (ISO 10918-1 B.2.2); `segments` as `read_segments` gives them."""
    [(code, content)] = [segment for segment in segments if segment.code in kinds]
    factors = set(content[7::3])
    header = FrameHeader(
        width=int.from_bytes(content[3:5], "big"),
        height=int.from_bytes(content[1:3], "big"),
        samples=content[5],
        bits=content[0],
        is_subsampled=len(factors) > 1,
    )
    return code, header


def require_few_segments(stream: bytes) -> None:
    """Refuse a JPEG file whose beginning would keep Pillow busy: it keeps each segment, and one may have four bytes.

    Goes over the markers as Pillow does, which is more tolerant than the standard: what is no marker is stepped over.
    The further pictures of a multi-picture file may begin anywhere, and all count together.

    Args:
        stream: The whole file.

    Raises:
        InvalidImageError: More than `MAX_SEGMENTS` segments before a first scan, `MAX_EXIF_SEGMENTS` of Exif, or
            `MAX_STRAY_BYTES` between them.
    """
    if stream.count(EXIF) > MAX_EXIF_SEGMENTS:
        raise _too_many_segments()
    segments = stray = 0
    for start in _pictures(stream):
        for has_segment, skipped in _steps(stream, start):
            segments += has_segment
            stray += skipped
            if segments > MAX_SEGMENTS or stray > MAX_STRAY_BYTES:
                raise _too_many_segments()


def _pictures(stream: bytes) -> Iterator[int]:
    """Where Pillow may begin to read a picture: at the start, in a multi-picture file at any later SOI marker too."""
    yield 0
    if MULTI_PICTURE in stream:
        at = 0
        while (at := stream.find(SOI, at + 1)) > 0:
            yield at


def _steps(stream: bytes, start: int) -> Iterator[tuple[bool, int]]:
    """How Pillow goes from an SOI marker to the first scan: at each step, is it a segment, and bytes stepped over."""
    yield True, 0
    at = start + 2
    while at < len(stream):
        marker = stream.find(b"\xff", at)
        if marker < 0 or marker == len(stream) - 1:
            yield False, len(stream) - at
            return
        code = stream[marker + 1]
        if 0 < code < 0xC0:  # Pillow gives up
            return
        if code in (0, 0xFF, *PLAIN):
            after = marker + (1 if code == 0xFF else 2)
            yield False, after - at
            at = after
        else:
            yield True, marker - at
            at = marker + 2 + max(2, int.from_bytes(stream[marker + 2 : marker + 4], "big"))
        if code == SCAN:
            return


def _too_many_segments() -> InvalidImageError:
    return InvalidImageError(
        "The JPEG has far more segments or stray bytes before its pixels than any camera or scanner writes.",
        remedy="Save the image again as plain JPEG or PNG.",
    )


def require_few_scans(stream: bytes, pixels: int) -> None:
    """Refuse a JPEG that makes its decoder go over the image again and again.

    Ten bytes ask for one more pass over all pixels, so 200 MB of them would keep a decoder busy for days. Entropy-coded
    data never hold an SOS marker (each 0xFF is followed by a zero); thumbnails may, and are counted too.

    Raises:
        InvalidImageError: More than `MAX_SCANS` scans, or `MAX_SCANNED_PIXELS` pixels in all of them.
    """
    scans = stream.count(bytes((0xFF, SCAN)))
    if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
        raise InvalidImageError(
            f"The JPEG is stored in {scans} passes over its {pixels / 1e6:.1f} megapixels: too long to read.",
            remedy="Save the image again as plain JPEG or PNG.",
        )
