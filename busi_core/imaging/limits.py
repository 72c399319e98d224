"""What one upload may cost, and how it is refused: the bounds that pictures and DICOM share.

Every bound is checked from a header, before the pixels behind it are decoded.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image
from pydicom.errors import BytesLengthException, InvalidDicomError

from busi_core.errors import InvalidImageError

MAX_FILE_BYTES = 200_000_000  # a cine of 200 RGB frames; a still is below 5 MB
MAX_PIXELS = 25_000_000  # 5000 x 5000; the largest of 1,760 BUSI and BUS-BRA scans has 0.7 megapixels
MIN_SIDE_PX = 64  # an icon or a line, not a scan; the smallest of those has 190
MAX_ASPECT = 8  # long side over short side; the longest of those has 2.1, and panoramas must pass
MAX_FRAMES = 10_000  # a cine of 5 minutes at 30 frames a second

DAMAGE_ERRORS = (
    # What Pillow and pydicom were seen to raise, or document, on hostile or damaged bytes. Caught only around
    # calls into them, with the cause kept, so that a mistake of our own elsewhere still shows as itself.
    ArithmeticError,  # overflow and division by a zero taken from the file
    AssertionError,  # both check their own state with assert
    AttributeError,  # an element that should be there is not
    BytesLengthException,  # pydicom: a value whose length does not fit its type
    EOFError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # only where warnings are errors, as in tests
    InvalidDicomError,
    LookupError,  # missing keys, short lists, unknown text encodings
    MemoryError,  # a length taken from the file
    OSError,  # most of Pillow, libtiff, truncated files
    RuntimeError,  # also NotImplementedError and RecursionError
    SyntaxError,  # Pillow's word for a broken header
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@contextmanager
def damage_refused(format_name: str) -> Iterator[None]:
    """Turn what a library raises on damaged bytes into a refusal; our own refusals pass."""
    try:
        yield
    except DAMAGE_ERRORS as error:
        raise InvalidImageError(
            f"The {format_name} file is damaged or incomplete.",
            remedy="Export or copy the image again; if that fails, use another image.",
        ) from error


def require_sensible_bytes(size: int) -> None:
    """Refuse a file that is too large to be read as a whole, before it is.

    Raises:
        InvalidImageError: It is.
    """
    if size > MAX_FILE_BYTES:
        raise InvalidImageError(
            f"The file has {size / 1e6:.0f} MB; at most {MAX_FILE_BYTES / 1e6:.0f} MB are read.",
            remedy="Use a single image or a shorter cine.",
        )


def require_sensible_size(width: int, height: int) -> None:
    """Refuse an image with too many pixels, a side that is too short, or a shape that no scan has.

    Raises:
        InvalidImageError: With the size and the limit in words.
    """
    size = f"The image has {width} x {height} pixels"
    original = "Upload the scan at its original size."
    if width * height > MAX_PIXELS:
        raise InvalidImageError(
            f"{size}, {width * height / 1e6:.1f} megapixels; at most {MAX_PIXELS / 1e6:.0f} are read.", remedy=original
        )
    if min(width, height) < MIN_SIDE_PX:
        raise InvalidImageError(f"{size}; each side needs at least {MIN_SIDE_PX}.", remedy=original)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidImageError(
            f"{size}; the long side may be at most {MAX_ASPECT} times the short one.",
            remedy="Upload the scan itself, not a strip of it.",
        )


def choose_frame(frame: int | None, frames: int) -> int:
    """The index of the frame to read, from 0: the one asked for, else the first.

    Raises:
        InvalidImageError: The file has no such frame, or claims more than `MAX_FRAMES`.
    """
    if frames > MAX_FRAMES:
        raise InvalidImageError(
            f"The file claims more frames than the {MAX_FRAMES} that are read at most.",
            remedy="Upload a single image or a shorter cine.",
        )
    if frame is not None and not 0 <= frame < frames:
        raise InvalidImageError(
            f"Frame {frame + 1} was asked for, but the file has {frames}.",
            remedy=f"Choose a frame from 1 to {frames}." if frames > 1 else "Choose frame 1.",
        )
    return frame or 0
