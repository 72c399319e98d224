"""The main header of a JPEG 2000 codestream (ISO 15444-1 annex A, HTJ2K in 15444-15): what it is going to unpack to."""

from collections.abc import Iterator

from busi_core.imaging.jpeg_markers import FrameHeader

SOC_SIZ = b"\xff\x4f\xff\x51"  # A.4.1, A.5.1: the first two markers, always
SOT, COD, SIZ = 0x90, 0x52, 0x51  # A.4.2, A.6.1, A.5.1
JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"  # I.5.1; DICOM wants the bare codestream, some writers wrap it
MAX_TILES = 4_096  # a decoder keeps kilobytes a tile; 5000 x 5000 in tiles of 128 has 1,600
MAX_LAYERS = 1_000  # quality layers; usual is 1, and a decoder keeps tables for each
MAX_HEADER_BYTES = 1_000_000


def unwrap_jp2(stream: bytes) -> bytes:
    """The codestream inside a JP2 file (I.4), or the stream itself; what JP2 says of colours is left behind."""
    if not stream.startswith(JP2_SIGNATURE):
        return stream
    at = 0
    while at + 8 <= len(stream):
        length, kind = int.from_bytes(stream[at : at + 4], "big"), stream[at + 4 : at + 8]
        start = at + 8
        if length == 1:  # the true length follows, in 8 bytes
            length, start = int.from_bytes(stream[at + 8 : at + 16], "big"), at + 16
        end = at + length if length else len(stream)
        if kind == b"jp2c":
            return stream[start:end]
        if end <= start - 1:
            break
        at = end
    return b""


def read_codestream_header(stream: bytes) -> FrameHeader | None:
    """Size, samples, bits and colour transform; None where this is no codestream whose cost is bounded.

    Args:
        stream: From the SOC marker on.
    """
    segments = dict(_read_segments(stream))
    size, style = segments.get(SIZ, b""), segments.get(COD, b"")
    if len(size) < 36 or len(style) < 5 or len(size) != 36 + 3 * int.from_bytes(size[34:36], "big"):
        return None
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = (
        int.from_bytes(size[at : at + 4], "big") for at in range(2, 34, 4)
    )
    kinds = {size[at : at + 3] for at in range(36, len(size), 3)}
    if left >= right or top >= bottom or not tile_width or not tile_height or len(kinds) != 1:
        return None
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if not 0 < tiles <= MAX_TILES or not 0 < int.from_bytes(style[2:4], "big") <= MAX_LAYERS:
        return None
    [(precision, step_x, step_y)] = kinds
    return FrameHeader(
        width=right - left,
        height=bottom - top,
        samples=int.from_bytes(size[34:36], "big"),
        bits=(precision & 0x7F) + 1,
        is_signed=precision >= 0x80,
        is_transformed=style[4] == 1,
        is_subsampled=(step_x, step_y) != (1, 1),
    )


def _read_segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of the main header, up to the first tile; nothing where it is broken."""
    at = 2
    if not stream.startswith(SOC_SIZ):
        return
    while at < min(len(stream), MAX_HEADER_BYTES) and stream[at : at + 2] != bytes((0xFF, SOT)):
        code, length = stream[at + 1 : at + 2], int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at : at + 1] != b"\xff" or length < 2:
            return
        yield code[0], stream[at + 4 : at + 2 + length]
        at += 2 + length
