"""Bytes of one upload -> one upright frame as 8-bit pixels, or a refusal in plain words.

    bytes --content decides--> Pillow (PNG, JPEG, BMP, TIFF, WebP) or dicom.py, dicom_pixels.py --> DecodedImage

What each kind of pixel becomes (Pillow's mode, first column):

| mode                 | grey                                   | rgb                                          |
|----------------------|----------------------------------------|----------------------------------------------|
| 1                    | 0 or 255                               | grey three times                             |
| L                    | unchanged                              | grey three times                             |
| I;16, I, F           | own minimum to maximum -> 0 to 255     | grey three times                             |
| P                    | luma of rgb                            | the palette's colours                        |
| RGB, RGBX            | luma of rgb                            | unchanged                                    |
| CMYK, YCbCr          | luma of rgb                            | Pillow's plain conversion, no colour profile |
| LA, PA, RGBA, RGBa, tRNS | luma of rgb                        | over black: colour x alpha / 255, rounded    |
| others (LAB)         | refused by name                        |                                              |

Luma is Rec. 601 as Pillow's 'L' has it, (19595 R + 38470 G + 7471 B + 32768) >> 16: the weights sum to 65536, so
equal channels give back exactly their value. More than 8 bits of grey are shown linearly from the image's own
minimum to its maximum, rounded to the nearest value; a TIFF whose zero is white is turned round. Colour of 16 bits
a channel keeps its high byte. Each of these adds `ImageWarning.WINDOWED`.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TILELENGTH, TILEWIDTH
from pydicom.errors import BytesLengthException, InvalidDicomError

from busi_core.errors import InvalidImageError
from busi_core.imaging.dicom import DicomFile, is_dicom, open_dicom
from busi_core.imaging.dicom_pixels import RawPixels, read_frame
from busi_core.types import DecodedImage, Grey, ImageWarning, Rgb

ACCEPTED_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # never EPS, PDF, SVG: those run programs or fonts
MAX_FILE_BYTES = 200_000_000  # a cine of 200 RGB frames; a still is below 5 MB
MAX_PIXELS = 25_000_000  # 5000 x 5000; the largest of 1,760 BUSI and BUS-BRA scans has 0.7 megapixels
MIN_SIDE_PX = 64  # an icon or a line, not a scan; the smallest of those has 190
MAX_ASPECT = 8  # long side over short side; the longest of those has 2.1, and panoramas must pass
MAX_FRAMES = 10_000  # a cine of 5 minutes at 30 frames a second
COLOUR_SPREAD = 12  # grey levels between channels; JPEG leaves up to 6 on a grey scan (BUSI 'benign (173)')
COLOUR_SHARE = 1e-4  # of the pixels; in BUSI the smallest coloured mark covers 1.7e-4, grey files 0
MIN_CONTRAST_STD = 2.0  # grey levels; the flattest of those has 16

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
KINDS = "PNG, JPEG, BMP, TIFF, WebP or DICOM"


def decode_image(data: bytes, *, frame: int | None = None) -> DecodedImage:
    """Decode one frame of one upload; its content decides what it is, never a name.

    Sizes and counts are read from the header and checked before any pixel is decoded. EXIF orientation is applied.

    Args:
        data: The whole file.
        frame: Which frame, from 0. None means the only one; of several the first, with
            `ImageWarning.FIRST_FRAME`.

    Raises:
        InvalidImageError: Whatever is wrong with the bytes or the frame; no other exception leaves.
    """
    if not data:
        raise InvalidImageError("The file is empty.", remedy=f"Upload a {KINDS} file.")
    if len(data) > MAX_FILE_BYTES:
        raise InvalidImageError(
            f"The file has {len(data) / 1e6:.0f} MB; at most {MAX_FILE_BYTES / 1e6:.0f} MB are read.",
            remedy="Upload a single image or a shorter cine.",
        )
    if is_dicom(data):
        return _decode_dicom(data, frame)
    return _decode_picture(data, frame)


def _decode_dicom(data: bytes, frame: int | None) -> DecodedImage:
    with _damage_refused("DICOM"):
        file = open_dicom(data)
    _require_sensible_size(file.width, file.height)
    chosen = _choose_frame(frame, file.frames)
    with _damage_refused("DICOM"):
        pixels = read_frame(file, chosen)
    return _assemble(pixels, "DICOM", frame, file.frames, file)


def _decode_picture(data: bytes, frame: int | None) -> DecodedImage:
    image = _open_picture(data)
    format_name = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a JPEG with further JPEGs inside
    with image:
        _require_sensible_size(*image.size)
        with _damage_refused(format_name):
            frames = _count_frames(image)
        chosen = _choose_frame(frame, frames)
        with _damage_refused(format_name):
            image.seek(chosen)
        _require_sensible_size(*image.size)  # pages of one TIFF may differ
        _require_known_mode(image.mode)
        with _damage_refused(format_name):
            pixels = _read_pixels(image)
    return _assemble(pixels, format_name, frame, frames, None)


@contextmanager
def _damage_refused(format_name: str) -> Iterator[None]:
    """Turn what a library raises on damaged bytes into a refusal; our own refusals pass."""
    try:
        yield
    except DAMAGE_ERRORS as error:
        raise InvalidImageError(
            f"The {format_name} file is damaged or incomplete.",
            remedy="Export or copy the image again; if that fails, use another image.",
        ) from error


def _open_picture(data: bytes) -> ImageFile.ImageFile:
    """Read the header of anything but DICOM."""
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


def _require_sensible_size(width: int, height: int) -> None:
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


def _choose_frame(frame: int | None, frames: int) -> int:
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


def _require_known_mode(mode: str) -> None:
    if mode not in (*WIDE_MODES, *PLAIN_MODES, *ALPHA_MODES):
        raise InvalidImageError(
            f"The image's colours are stored as {mode}, which this tool does not read.",
            remedy="Save the image as grey or RGB.",
        )


def _read_pixels(image: ImageFile.ImageFile) -> RawPixels:
    """Decode the frame that `image` stands on, upright; the table above says what becomes of each mode."""
    stores_16_bits = any(";16" in str(tile) for tile in image.tile)  # Pillow keeps the high byte of 16-bit colour
    tags = getattr(image, "tag_v2", {})
    is_unsigned, is_white_zero = tags.get(SAMPLEFORMAT, (1,))[0] == 1, tags.get(PHOTOMETRIC_INTERPRETATION) == 0
    # libtiff unpacks whole tiles, however small the image.
    if tags.get(TILEWIDTH, 1) * tags.get(TILELENGTH, 1) > MAX_PIXELS:
        raise InvalidImageError("The TIFF file has tiles far larger than its image.", remedy="Save the image as PNG.")
    image.load()
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    upright = image if turn is None else image.transpose(turn)
    if image.mode in WIDE_MODES:
        values = np.asarray(upright)
        if image.mode == "I" and tags and is_unsigned:  # Pillow reads unsigned 32 bits into signed ones
            values = values.view(np.uint32)
        return RawPixels(-values.astype(np.float64) if is_white_zero else values, windowed=True)
    if image.mode in ALPHA_MODES or image.has_transparency_data:
        return RawPixels(_over_black(upright.convert("RGBA")), windowed=stores_16_bits)
    plain = upright.convert("L" if image.mode in ("1", "L") else "RGB")
    return RawPixels(np.array(plain), windowed=stores_16_bits)


def _over_black(image: Image.Image) -> Rgb:
    """(height, width, 3): the colour where opaque, black where clear, colour x alpha / 255 rounded between."""
    red, green, blue, alpha = image.split()
    if alpha.getextrema() == (255, 255):
        return np.array(Image.merge("RGB", (red, green, blue)))
    black = Image.new("RGB", image.size)
    return np.array(Image.composite(Image.merge("RGB", (red, green, blue)), black, alpha))


def window_to_8_bits(values: NDArray[np.generic]) -> Grey:
    """Show (height, width) numbers of any range as 0 to 255: linear from their minimum to their maximum, rounded.

    A constant image becomes black.

    Raises:
        InvalidImageError: Some value is not a finite number.
    """
    shown = values.astype(np.float64)
    low, high = float(shown.min()), float(shown.max())
    if not np.isfinite((high - low) * 255):  # NaN and infinity carry through all of it
        raise InvalidImageError(
            "The image has pixels that are not numbers (NaN or infinite).",
            remedy="Export the image again, as 8-bit PNG if possible.",
        )
    shown -= low
    if high > low:
        shown *= 255
        shown /= high - low
    return np.rint(shown, out=shown).astype(np.uint8)


def _assemble(
    pixels: RawPixels, format_name: str, frame: int | None, frames: int, dicom: DicomFile | None
) -> DecodedImage:
    """Bring pixels to 8 bits grey and RGB, and note what a reader must know."""
    values, regions = pixels.values, dicom.regions if dicom else ()
    if values.ndim == 3:
        rgb: Rgb = np.ascontiguousarray(values)
        grey: Grey = np.array(Image.fromarray(rgb).convert("L"))
    else:
        grey = values if values.dtype == np.uint8 else window_to_8_bits(values)
        rgb = np.repeat(grey[:, :, None], 3, axis=2)
    noticed = {
        ImageWarning.NO_CONTRAST: float(cv2.meanStdDev(grey)[1][0, 0]) < MIN_CONTRAST_STD,
        ImageWarning.COLOUR: values.ndim == 3 and _coloured_share(rgb) > COLOUR_SHARE,
        ImageWarning.NOT_CALIBRATED: not regions,
        ImageWarning.WINDOWED: pixels.windowed or values.dtype != np.uint8,
        ImageWarning.FIRST_FRAME: frame is None and frames > 1,
        ImageWarning.BURNED_IN: dicom is not None and dicom.has_burned_in_text,
    }
    warnings = tuple(warning for warning, applies in noticed.items() if applies)
    return DecodedImage(grey, rgb, format_name, frame or 0, frames, regions, warnings)


def _coloured_share(rgb: Rgb) -> float:
    """Share of the pixels of (height, width, 3) whose channels lie further apart than `COLOUR_SPREAD`."""
    red, green, blue = rgb[:, :, 0], rgb[:, :, 1], rgb[:, :, 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return np.count_nonzero(spread > COLOUR_SPREAD) / red.size
