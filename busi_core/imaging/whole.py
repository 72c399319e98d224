"""Is a picture all there? PNG and JPEG that end too early and still have an end mark, which Pillow reads in silence.

PNG    inflated once more, and the bytes counted: Pillow leaves rows black whose pixels never came
JPEG   decoded once more with bytes before its end mark that mean nothing: of a whole picture a decoder never
       reads them, of one cut short it takes them for what is missing, where libjpeg else makes that up
"""

import io
import re
import struct
from collections.abc import Iterator, Sequence

from isal import isal_zlib
from PIL import Image

from busi_core.imaging.jpeg_markers import SCAN
from busi_core.imaging.limits import MAX_PIXELS
from busi_core.imaging.png import SIGNATURE

STEP_BYTES = 1_000_000  # inflated at once
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type, PNG (ISO 15948) clause 11.2.1
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # clause 8.2

END_OF_IMAGE = 0xD9  # ISO 10918-1 table B.1
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # neither a stuffed zero nor a restart
_NO_SEGMENT = (0x01, 0xD8)  # TEM and SOI
_MEANINGLESS = bytes(range(1, 241, 3))  # 80 bytes, no marker among them
MAX_MARKERS = 10_000  # of one JPEG; a file of more is read without this look
MAX_LOOKED_AT = 4 * MAX_PIXELS  # pixels times scans: what takes longer is not decoded twice


def require_whole(data: bytes, image: Image.Image, *, frame: int = 0) -> None:
    """Refuse a PNG or JPEG that lacks some of its pixels; other formats pass.

    Args:
        data: The whole file.
        image: Of it, loaded.
        frame: The one that was loaded; further pictures of a multi-picture JPEG are not looked at.

    Raises:
        EOFError: Pixels are missing. Pillow raises others where a file is damaged.
    """
    if image.format == "PNG":
        is_whole = all(_has_all_rows(*stream) for stream in _png_streams(data, frame))
    elif image.format in ("JPEG", "MPO") and frame == 0:
        is_whole = _has_all_blocks(data, image)
    else:
        return
    if not is_whole:
        raise EOFError("pixels are missing before the end mark")


def _png_streams(data: bytes, frame: int) -> Iterator[tuple[Sequence[bytes], int]]:
    """What each picture up to the frame is compressed in, and how many bytes it must give."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits, size = CHANNELS[colour] * depth, (width, height)
    parts: list[bytes] = []
    found, at = 0, len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        if kind in (b"fcTL", b"IEND") and parts:
            yield parts, _bytes_of(*size, bits, is_interlaced=bool(interlaced))
            parts, found = [], found + 1
        if kind == b"IEND" or found > frame:
            return
        if kind == b"fcTL":
            size = struct.unpack(">II", content[4:12])
        elif kind == b"IDAT":
            parts.append(content)
        elif kind == b"fdAT":
            parts.append(content[4:])
        at += 12 + length
    if parts:  # without an end mark
        yield parts, _bytes_of(*size, bits, is_interlaced=bool(interlaced))


def _bytes_of(width: int, height: int, bits: int, *, is_interlaced: bool) -> int:
    """Of a picture before it is compressed: each row follows the number of its filter (clause 9.2)."""
    passes = ADAM7 if is_interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - left) // across), -(-(height - top) // down)) for left, top, across, down in passes]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def _has_all_rows(parts: Sequence[bytes], needed: int) -> bool:
    inflater, found = isal_zlib.decompressobj(), 0
    try:
        for part in (*parts, b""):
            waiting = part
            while found < needed and not inflater.eof:
                inflated = inflater.decompress(waiting, STEP_BYTES)
                found, waiting = found + len(inflated), inflater.unconsumed_tail
                if not inflated and not waiting:
                    break
    except isal_zlib.error:  # type: ignore[misc]  # an exception, though its stub says otherwise
        pass
    return found >= needed


def _has_all_blocks(stream: bytes, image: Image.Image) -> bool:
    end = _find_end(stream)
    scans = stream.count(bytes((0xFF, SCAN)))
    if end is None or scans * image.width * image.height > MAX_LOOKED_AT:
        return True
    probe = stream[:end] + _MEANINGLESS + stream[end:]
    with Image.open(io.BytesIO(probe), formats=("JPEG",)) as again:
        return again.tobytes() == image.tobytes()


def _find_end(stream: bytes) -> int | None:
    """Where the end mark of the first picture is, past the thumbnails in its segments; None where it is not found."""
    at = 2
    for _ in range(MAX_MARKERS):
        marker = _MARKER.search(stream, at)
        if marker is None:
            return None
        code = marker[1][0]
        if code == END_OF_IMAGE:
            return marker.start()
        at = marker.end() + (
            0 if code in _NO_SEGMENT else int.from_bytes(stream[marker.end() : marker.end() + 2], "big")
        )
    return None
