"""What Pillow would read wrongly in a TIFF file, and in silence: put right or refused before a pixel is decoded.

TIFF 6.0. Pillow takes the sign off 8-bit samples; uncompressed planes it reads as plain bytes, whatever their depth,
order of bits or meaning of zero; and the big-endian numbers of compressed pages, which libtiff has put into the
machine's order already, it turns once more. A page of which all this is right is left as it is.
"""

from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    FILLORDER,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from busi_core.errors import InvalidImageError
from busi_core.imaging.limits import MAX_PIXELS

WHITE_IS_ZERO, SEPARATE_PLANES, UNSIGNED = 0, 2, 1  # Photometric, PlanarConfiguration, SampleFormat
AS_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}  # Pillow's raw modes, big-endian to native
RESAVE = "Save the image as PNG."


def prepare_tiff(image: Image.Image) -> None:
    """See to it that the page on which `image` stands is read as it is meant; other formats pass.

    Args:
        image: Opened and not yet loaded; how its bytes are unpacked may be set anew.

    Raises:
        InvalidImageError: Tiles far larger than an image may be, signed samples of 8 bits, or uncompressed planes of
            another kind than plain bytes.
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
