"""One JPEG frame of a DICOM file -> samples, through Pillow: Baseline, Extended and Lossless, 8 bits a sample.

Pillow's libjpeg-turbo reads all three. It guesses colours from marks that DICOM writers set at will; here the header of
the file has the last word, and lossless samples pass unconverted.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from busi_core.imaging.jpeg_markers import ADOBE, JFIF, LOSSLESS, FrameHeader, Segment
from busi_core.imaging.whole import require_whole

RGB_COMPONENTS = b"RGB"  # component identifiers by which libjpeg knows plain RGB
ADOBE_MARK = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4)  # APP14; one byte follows, 0 for RGB and 1 for YCbCr


def read_jpeg(
    stream: bytes, segments: Sequence[Segment], header: FrameHeader, marker: int, photometric: str
) -> NDArray[np.uint8]:
    """Decode a frame whose header has been checked against that of the file.

    Args:
        stream: The frame.
        segments: Of `stream`, as `read_segments` gives them.
        header: As the frame says.
        marker: SOFn.
        photometric: Photometric Interpretation of the file.

    Returns:
        (height, width), or (height, width, 3): RGB from a lossy frame, the samples as stored from a lossless one.

    Raises:
        Exception: As Pillow and `require_whole` raise them on damaged bytes.
    """
    if header.samples == 3:
        stream = _strip_marks(stream, segments) if marker == LOSSLESS else _mark_colours(stream, segments, photometric)
    with Image.open(io.BytesIO(stream), formats=("JPEG",)) as image:
        values = np.array(image)
        require_whole(stream, image)
        return values


def _mark_colours(stream: bytes, segments: Sequence[Segment], photometric: str) -> bytes:
    """The lossy colour frame, marked (Adobe) where it has no mark: then its colours are what the file says."""
    if _find_adobe(segments):
        return stream
    is_jfif = any(code == JFIF and content.startswith(b"JFIF") for code, content in segments)
    components = next(content for code, content in segments if 0xC0 <= code <= 0xC3)[6:15:3]
    is_rgb = not is_jfif and (photometric == "RGB" or components == RGB_COMPONENTS)
    return stream[:2] + ADOBE_MARK + bytes([0 if is_rgb else 1]) + stream[2:]


def _find_adobe(segments: Sequence[Segment]) -> bool:
    return any(code == ADOBE and len(content) >= 12 and content.startswith(b"Adobe") for code, content in segments)


def _strip_marks(stream: bytes, segments: Sequence[Segment]) -> bytes:
    """The lossless colour frame marked as RGB, so that libjpeg converts nothing; other marks are taken out."""
    end = 2 + sum(4 + len(segment.content) for segment in segments)
    kept = [segment for segment in segments if not 0xE0 <= segment.code <= 0xEF]
    tables = b"".join(
        b"\xff" + bytes([code]) + (len(content) + 2).to_bytes(2, "big") + content for code, content in kept
    )
    return stream[:2] + ADOBE_MARK + b"\0" + tables + stream[end:]
