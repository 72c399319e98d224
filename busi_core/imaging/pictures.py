"""PNG, JPEG, BMP, TIFF and WebP -> the chosen frame as the file shows it, through Pillow.

What each kind of pixel becomes (Pillow's mode, first column):

| mode                 | grey                                   | rgb                                          |
|----------------------|----------------------------------------|----------------------------------------------|
| 1                    | 0 or 255                               | grey three times                             |
| L                    | unchanged                              | grey three times                             |
| I;16, I, F           | own minimum to maximum -> 0 to 255     | grey three times                             |
| P                    | luma of rgb                            | the palette's colours                        |
| RGB, RGBX            | luma of rgb                            | unchanged                                    |
| CMYK, YCbCr          | luma of rgb                            | Pillow's plain conversion, no colour profile |
| CMYK of a JPEG without Adobe's mark | refused by name         | whether its inks are inverted cannot be told |
| LA, PA, RGBA, RGBa, other tRNS | luma of rgb                  | over black: colour x alpha / 255, rounded    |
| tRNS of 2, 4, 16 bits | refused where a pixel has its value   | else as without it                           |
| 16-bit LA of a PNG   | refused by name                        |                                              |
| others (LAB)         | refused by name                        |                                              |

More than 8 bits of grey are shown linearly from the image's own minimum to its maximum, rounded to the nearest value;
a TIFF whose zero is white is turned round. Colour of 16 bits a channel keeps its high byte.
"""

import io
import logging
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile

from busi_core.errors import InvalidImageError
from busi_core.imaging.jpeg_markers import SOI, require_few_scans, require_few_segments
from busi_core.imaging.limits import (
    DAMAGE_ERRORS,
    MAX_FRAMES,
    MAX_PIXELS,
    choose_frame,
    damage_refused,
    require_sensible_size,
)
from busi_core.imaging.png import raw_mode, require_few_chunks, require_settled_alpha
from busi_core.imaging.raw import RawPixels
from busi_core.imaging.tiff import is_unsigned, is_white_zero, prepare_tiff, require_few_entries
from busi_core.imaging.whole import require_whole
from busi_core.types import Rgb

ACCEPTED_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # never EPS, PDF, SVG: those run programs or fonts
KINDS = "PNG, JPEG, BMP, TIFF, WebP or DICOM"
MAX_STEPPED_PIXELS = 1_000_000_000  # decoded on the way to a frame of an animation: 10 s; a cine of 1,000 frames passes

WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
ALPHA_MODES = ("LA", "PA", "RGBA", "RGBa")
UPRIGHT = {  # EXIF 2.3, tag 0x0112: how the stored pixels must be turned
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# At DEBUG it writes the value of every EXIF and TIFF tag: names and dates of patients may be among them.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.INFO)


class Picture(NamedTuple):
    """One frame of a picture file.

    Attributes:
        pixels: Upright.
        format: 'PNG', 'JPEG', 'BMP', 'TIFF' or 'WEBP'.
        frames: How many the file holds.
    """

    pixels: RawPixels
    format: str
    frames: int


def read_picture(data: bytes, frame: int | None) -> Picture:
    """Read one frame of anything but DICOM; its content decides what it is. EXIF orientation is applied.

    Args:
        data: The whole file.
        frame: Which frame, from 0; None means the first.

    Raises:
        InvalidImageError: Not a picture of a kind read here, damaged, out of bounds, or without that frame.
    """
    image = _open(data)
    format_name = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a JPEG with further JPEGs inside
    with image:
        require_sensible_size(*image.size)
        if format_name == "JPEG":
            require_few_scans(data, image.width * image.height)
        with damage_refused(format_name):
            frames = _count_frames(image)
        chosen = choose_frame(frame, frames)
        _require_near_frame(image, chosen)
        with damage_refused(format_name):
            image.seek(chosen)
        require_sensible_size(*image.size)  # pages of one TIFF may differ
        _require_known_mode(image.mode)
        with damage_refused(format_name):
            pixels = _read_pixels(image)
            require_whole(data, image, frame=chosen)
    return Picture(pixels, format_name, frames)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header."""
    require_few_parts(data)
    try:
        return Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImageError(
            f"The image has more than {MAX_PIXELS / 1e6:.0f} megapixels.",
            remedy="Upload the scan at its original size.",
        ) from error
    except DAMAGE_ERRORS as error:
        raise InvalidImageError(
            "The file is not an image of a kind that this tool reads, or its beginning is damaged.",
            remedy=f"Export the image as {KINDS} and upload that file.",
        ) from error


def require_few_parts(data: bytes) -> None:
    """Refuse a JPEG, PNG or TIFF file of millions of parts, of which Pillow makes an object each; others pass.

    Raises:
        InvalidImageError: It has too many.
    """
    if data.startswith(SOI):
        require_few_segments(data)
    require_few_chunks(data)
    require_few_entries(data)


def _count_frames(image: ImageFile.ImageFile) -> int:
    """How many frames the file has; more than `MAX_FRAMES` are not counted on."""
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    for page in range(MAX_FRAMES + 1):  # pages are a chain through the file: walk it no further than the cap
        try:
            image.seek(page)
        except EOFError:
            return page
    return MAX_FRAMES + 1


def _require_near_frame(image: ImageFile.ImageFile, chosen: int) -> None:
    """Refuse a frame that hours lie before: APNG and WebP must decode every frame up to the one asked for."""
    if image.format in ("PNG", "WEBP") and chosen * image.width * image.height > MAX_STEPPED_PIXELS:
        raise InvalidImageError(
            f"Frame {chosen + 1} lies too far into this animation to be reached in good time.",
            remedy="Upload a shorter cine, or the frame as a single image.",
        )


def _require_known_mode(mode: str) -> None:
    if mode not in (*WIDE_MODES, *PLAIN_MODES, *ALPHA_MODES):
        raise InvalidImageError(
            f"The image's colours are stored as {mode}, which this tool does not read.",
            remedy="Save the image as grey or RGB.",
        )


def _read_pixels(image: ImageFile.ImageFile) -> RawPixels:
    """Decode the frame that `image` stands on, upright; the table above says what becomes of each mode."""
    require_known_inks(image)
    is_shortened = loses_low_byte(image)
    white_zero, unsigned = is_white_zero(image), is_unsigned(image)
    prepare_tiff(image)
    raw = raw_mode(image)
    image.load()
    require_settled_alpha(image, raw)
    turn = UPRIGHT.get(orientation(image))
    upright = image if turn is None else image.transpose(turn)
    if image.mode in WIDE_MODES:
        values = np.asarray(upright)
        if image.mode == "I" and unsigned:  # Pillow reads unsigned 32 bits into signed ones
            values = values.view(np.uint32)
        return RawPixels(-values.astype(np.float64) if white_zero else values, windowed=True)
    if image.mode in ALPHA_MODES or image.has_transparency_data:
        return RawPixels(_over_black(upright.convert("RGBA")), windowed=is_shortened)
    plain = upright.convert("L" if image.mode in ("1", "L") else "RGB")
    return RawPixels(np.array(plain), windowed=is_shortened)


def require_known_inks(image: ImageFile.ImageFile) -> None:
    """Refuse a JPEG of four components of which nothing says whether they are inverted; others pass."""
    if image.format in ("JPEG", "MPO") and image.mode == "CMYK" and "adobe" not in image.info:
        raise InvalidImageError(
            "The JPEG has four components without Adobe's mark, which says how they are to be read.",
            remedy="Save the image as grey or RGB.",
        )


def orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation, without EXIF that of XMP, else 1; one stored as BYTE, against EXIF, Pillow gives as bytes."""
    stated = image.getexif().get(ExifTags.Base.Orientation, 1)
    if isinstance(stated, bytes) and stated:
        return stated[0]
    return stated if isinstance(stated, int) else 1


def loses_low_byte(image: ImageFile.ImageFile) -> bool:
    """Whether an image, not yet loaded, has 16 bits a channel of which Pillow keeps the high 8: any but plain grey."""
    is_deep = image.format != "BMP" and any(";16" in str(tile) for tile in image.tile)  # a BMP's 16 are of a pixel
    return is_deep and image.mode not in WIDE_MODES


def _over_black(image: Image.Image) -> Rgb:
    """(height, width, 3): the colour where opaque, black where clear, colour x alpha / 255 rounded between."""
    red, green, blue, alpha = image.split()
    if alpha.getextrema() == (255, 255):
        return np.array(Image.merge("RGB", (red, green, blue)))
    black = Image.new("RGB", image.size)
    return np.array(Image.composite(Image.merge("RGB", (red, green, blue)), black, alpha))
