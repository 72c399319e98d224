"""A PNG file (ISO 15948): its chunks, counted before Pillow keeps them, and transparency that Pillow reads wrongly."""

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from busi_core.errors import InvalidImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")  # an animation has the last two for each frame
DEPTHS = {  # by raw mode: the bits of a stored value that count, those that Pillow drops, how it spreads the rest
    "L;2": (3, 0, 85),
    "L;4": (15, 0, 17),
    "I;16B": (0xFFFF, 0, 1),
    "RGB;16B": (0xFFFF, 8, 1),
}
MAX_CHUNKS = 100_000  # in all; of the 8 KB that libpng writes a file of 200 MB has 25,000
MAX_SIDE_CHUNKS = 10_000  # beside the pixels; Pillow keeps each, and one may have twelve bytes


def require_few_chunks(data: bytes) -> None:
    """Refuse a PNG file of so many chunks that going over them, or keeping them, is the work; others pass.

    Args:
        data: The whole file. Only the headers of its chunks are looked at.

    Raises:
        InvalidImageError: More than `MAX_CHUNKS` chunks, or `MAX_SIDE_CHUNKS` without pixels.
    """
    if not data.startswith(SIGNATURE):
        return
    chunks = beside = 0
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        name = data[at + 4 : at + 8]
        if name == b"IEND":
            return
        chunks += 1
        beside += name not in PIXEL_CHUNKS
        if chunks > MAX_CHUNKS or beside > MAX_SIDE_CHUNKS:
            raise InvalidImageError(
                f"The PNG has more than {MAX_SIDE_CHUNKS if beside > MAX_SIDE_CHUNKS else MAX_CHUNKS} chunks.",
                remedy="Save the image again as plain PNG.",
            )
        at += 12 + int.from_bytes(data[at : at + 4], "big")  # length, name, content, checksum


def raw_mode(image: Image.Image) -> str | None:
    """How Pillow will unpack the pixels of a PNG, not yet loaded: its colour type and depth; None for other formats."""
    return str(image.tile[0].args) if isinstance(image, PngImageFile) and image.tile else None


def require_settled_alpha(image: Image.Image, raw: str | None) -> None:
    """Refuse transparency that Pillow reads wrongly; forget the value of a tRNS chunk that no pixel has.

    Of 1 and 8 bits, and of palettes, Pillow makes the right of it. Of 2 and 4 bits it compares the value as stored with
    pixels spread to 8 bits, of 16-bit colour with high bytes, and of 16-bit grey it forgets it. Of 16-bit grey with an
    alpha channel it keeps the high byte, so that no window can be applied any more.

    Args:
        image: Loaded.
        raw: As `raw_mode` gave it before.

    Raises:
        InvalidImageError: Some pixel is transparent, or may be: earlier frames can have been drawn through it.
    """
    if raw == "LA;16B":
        raise InvalidImageError(
            "The PNG holds 16 bits of grey with an alpha channel, which this tool does not read.",
            remedy="Save the image as grey without alpha.",
        )
    if raw not in DEPTHS or "transparency" not in image.info:
        return
    stored, shift, spread = DEPTHS[raw]
    value = ((np.array(image.info["transparency"]) & stored) >> shift) * spread
    is_transparent = (np.atleast_3d(np.asarray(image)) == value).all(axis=2)
    if getattr(image, "n_frames", 1) > 1 or is_transparent.any():
        raise InvalidImageError(
            "The PNG calls one of its values transparent, at a number of bits at which this tool does not read that.",
            remedy="Save the image with 8 bits a channel, or without transparency.",
        )
    del image.info["transparency"]
