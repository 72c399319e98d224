"""Bytes of one upload -> one upright frame as 8-bit pixels, or a refusal in plain words.

    bytes --content decides--> pictures.py (PNG, JPEG, BMP, TIFF, WebP) or dicom.py, dicom_pixels.py --> DecodedImage

Luma of a colour image is Rec. 601 as Pillow's 'L' has it, (19595 R + 38470 G + 7471 B + 32768) >> 16: the weights
sum to 65536, so equal channels give back exactly their value. Whatever was more than 8 bits adds
`ImageWarning.WINDOWED`.
"""

from functools import reduce

import cv2
import numpy as np
from PIL import Image

from busi_core.errors import InvalidImageError
from busi_core.imaging.dicom import DicomFile, is_dicom, open_dicom
from busi_core.imaging.dicom_pixels import read_frame
from busi_core.imaging.limits import choose_frame, damage_refused, require_sensible_bytes, require_sensible_size
from busi_core.imaging.pictures import KINDS, read_picture
from busi_core.imaging.raw import RawPixels, window_to_8_bits
from busi_core.types import DecodedImage, Grey, ImageWarning, Rgb

COLOUR_SPREAD = 12  # grey levels between channels; JPEG leaves up to 6 on a grey scan (BUSI 'benign (173)')
COLOUR_SHARE = 1e-4  # of the pixels; in BUSI the smallest coloured mark covers 1.7e-4, grey files 0
MIN_CONTRAST_STD = 2.0  # grey levels; the flattest of those has 16


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
    require_sensible_bytes(len(data))
    if is_dicom(data):
        return _decode_dicom(data, frame)
    picture = read_picture(data, frame)
    return _assemble(picture.pixels, picture.format, frame, picture.frames, None)


def _decode_dicom(data: bytes, frame: int | None) -> DecodedImage:
    with damage_refused("DICOM"):
        file = open_dicom(data)
    require_sensible_size(file.width, file.height)
    chosen = choose_frame(frame, file.frames)
    with damage_refused("DICOM"):
        pixels = read_frame(file, chosen)
    return _assemble(pixels, "DICOM", frame, file.frames, file)


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
        rgb = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    noticed = {
        ImageWarning.NO_CONTRAST: float(cv2.meanStdDev(grey)[1][0, 0]) < MIN_CONTRAST_STD,
        ImageWarning.COLOUR: values.ndim == 3 and _coloured_share(rgb) > COLOUR_SHARE,
        ImageWarning.NOT_CALIBRATED: not regions,
        ImageWarning.WINDOWED: pixels.windowed or values.dtype != np.uint8,
        ImageWarning.FIRST_FRAME: frame is None and frames > 1,
        ImageWarning.NOT_SQUARE: dicom is not None and not dicom.has_square_pixels,
        ImageWarning.BURNED_IN: dicom is not None and dicom.has_burned_in_text,
    }
    warnings = tuple(warning for warning, applies in noticed.items() if applies)
    return DecodedImage(grey, rgb, format_name, frame or 0, frames, regions, warnings)


def _coloured_share(rgb: Rgb) -> float:
    """Share of the pixels of (height, width, 3) whose channels lie further apart than `COLOUR_SPREAD`."""
    channels = cv2.split(rgb)
    spread = cv2.subtract(reduce(cv2.max, channels), reduce(cv2.min, channels))
    return np.count_nonzero(spread > COLOUR_SPREAD) / spread.size
