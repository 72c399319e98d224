"""The chunks of a PNG file, counted before Pillow keeps them (ISO 15948)."""

from busi_core.errors import InvalidImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")  # an animation has the last two for each frame
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
