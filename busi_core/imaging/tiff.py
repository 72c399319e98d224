"""A TIFF file: its directories, counted before Pillow goes over them, and what Pillow would read wrongly in silence.

TIFF 6.0. Pillow takes the sign off 8-bit samples; uncompressed planes it reads as plain bytes, whatever their depth,
order of bits or meaning of zero; differences that a predictor left it shows as pixels, unless the compression is one
that knows predictors; and the big-endian numbers of compressed pages, which libtiff has put into the machine's order
already, it turns once more. That is put right or refused before a pixel is decoded; a page of which all this is right
is left as it is.
"""

from typing import Any, Literal

from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    FILLORDER,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    PREDICTOR,
    PREFIXES,
    SAMPLEFORMAT,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from busi_core.errors import InvalidImageError
from busi_core.imaging.limits import MAX_FRAMES, MAX_PIXELS

BIG = 43  # the number behind the byte order, of BigTIFF; 42 of the classic one
MAX_ENTRIES = 4000  # of one directory; a page has about 20, libtiff reads at most 4096
MAX_ALL_ENTRIES = 30 * MAX_FRAMES  # Pillow goes over each twice: 2 microseconds
WHITE_IS_ZERO, SEPARATE_PLANES, UNSIGNED = 0, 2, 1  # Photometric, PlanarConfiguration, SampleFormat
PREDICTED = (5, 8, 32946, 34925, 50000)  # Compression that takes a Predictor: LZW, Deflate (both numbers), LZMA, ZSTD
AS_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}  # Pillow's raw modes, big-endian to native
RESAVE = "Save the image as PNG."


def require_few_entries(data: bytes) -> None:
    """Refuse a TIFF file whose directories (IFDs) would keep Pillow busy; other files pass.

    Directories may lie over each other, so that a few bytes make one more of 65,535 entries.

    Args:
        data: The whole file. Only the number of entries of each directory is looked at, and where the next one is.

    Raises:
        InvalidImageError: One has more than `MAX_ENTRIES`, or all up to the last that is counted `MAX_ALL_ENTRIES`.
    """
    if not data.startswith(tuple(PREFIXES)):
        return
    if data[2] != BIG:  # Pillow takes a big-endian BigTIFF for a classic one
        _require_few_entries(data, is_big=False)
    if BIG in data[2:4]:
        _require_few_entries(data, is_big=True)


def _require_few_entries(data: bytes, *, is_big: bool) -> None:
    """Go through the chain, in numbers of the classic or the big kind (TIFF 6.0 section 2); past the end all are 0."""
    order: Literal["big", "little"] = "big" if data.startswith(b"MM") else "little"
    count_bytes, entry_bytes, next_bytes = (8, 20, 8) if is_big else (2, 12, 4)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    total, seen, at = 0, set[int](), number(next_bytes, next_bytes)
    while at and at not in seen and len(seen) <= MAX_FRAMES:
        seen.add(at)
        entries = number(at, count_bytes)
        total += entries
        if entries > MAX_ENTRIES or total > MAX_ALL_ENTRIES:
            raise InvalidImageError(
                "The TIFF file has far more entries in its directories than any program writes.", remedy=RESAVE
            )
        at = number(at + count_bytes + entry_bytes * entries, next_bytes)


def prepare_tiff(image: Image.Image) -> None:
    """See to it that the page on which `image` stands is read as it is meant; other formats pass.

    Args:
        image: Opened and not yet loaded; how its bytes are unpacked may be set anew.

    Raises:
        InvalidImageError: Tiles far larger than an image may be, signed samples of 8 bits, differences under a
            compression that libtiff does not undo them for, or uncompressed planes of another kind than plain bytes.
    """
    if not isinstance(image, TiffImageFile):
        return
    tags = image.tag_v2
    if tags.get(TILEWIDTH, 1) * tags.get(TILELENGTH, 1) > MAX_PIXELS:  # libtiff unpacks whole tiles
        raise InvalidImageError("The TIFF file has tiles far larger than its image.", remedy=RESAVE)
    bits = max(tags.get(BITSPERSAMPLE, (1,)))
    if bits <= 8 and set(tags.get(SAMPLEFORMAT, (UNSIGNED,))) != {UNSIGNED}:
        raise InvalidImageError(
            f"The TIFF file holds signed numbers of {bits} bits, which this tool does not read.", remedy=RESAVE
        )
    if tags.get(PREDICTOR, 1) != 1 and tags.get(COMPRESSION, 1) not in PREDICTED:
        raise InvalidImageError(
            "The TIFF file holds differences between pixels (a predictor) under a compression for which this tool does "
            "not read them.",
            remedy=RESAVE,
        )
    is_compressed = all(tile.codec_name == "libtiff" for tile in image.tile)
    if tags.get(PLANAR_CONFIGURATION) == SEPARATE_PLANES and not is_compressed:
        is_plain = bits == 8 and tags.get(FILLORDER, 1) == 1
        if not is_plain or tags.get(PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO) == WHITE_IS_ZERO:
            raise InvalidImageError(
                f"The TIFF file keeps its samples of {bits} bits in separate planes, in a way that this tool does not "
                "read.",
                remedy=RESAVE,
            )
    if is_compressed:
        image.tile = [tile._replace(args=_in_native_order(tile.args)) for tile in image.tile]


def _in_native_order(args: tuple[Any, ...] | str | None) -> tuple[Any, ...] | str | None:
    """How Pillow shall unpack what libtiff hands over; the raw mode comes first."""
    return (AS_NATIVE.get(args[0], args[0]), *args[1:]) if isinstance(args, tuple) else args


def is_white_zero(image: Image.Image) -> bool:
    """Whether a TIFF says that its zero is white; Pillow turns round 8 bits and fewer, but nothing wider."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO


def is_unsigned(image: Image.Image) -> bool:
    """Whether an image is a TIFF of unsigned samples."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(SAMPLEFORMAT, (UNSIGNED,))[0] == UNSIGNED
