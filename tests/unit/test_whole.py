"""A PNG or JPEG that lacks pixels and still has its end mark is refused; one that is whole never is (U2)."""

import io
import struct
import zlib

import numpy as np
import pytest
from encoders import compressed, lossless_jpeg
from files import png, png_chunk, save, speckle
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit, JPEGLosslessSV1

from busi_core.data.records import read_bus_bra, read_busi
from busi_core.data.truth import read_mask
from busi_core.errors import InvalidImageError
from busi_core.imaging.decode import decode_image
from busi_core.settings import read_settings

SCAN = speckle(144, 192)
COLOURS = np.stack([speckle(144, 192, seed=seed) for seed in range(3)], axis=2)
HEIGHT, WIDTH = SCAN.shape
END = b"\xff\xd9"
CUTS = np.linspace(0.3, 0.95, 8)
KINDS = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "every colour": {"subsampling": 0},
    "fine": {"quality": 95},
}


def is_refused(data: bytes) -> bool:
    try:
        decode_image(data)
    except InvalidImageError as error:
        return "damaged or incomplete" in error.problem
    return False


def rows_of(pixels: np.ndarray, count: int) -> bytes:
    """The first rows of a PNG, unfiltered."""
    return b"".join(b"\0" + row.tobytes() for row in pixels[:count])


@pytest.mark.parametrize("rows", [1, HEIGHT // 2, HEIGHT - 1, HEIGHT])
@pytest.mark.parametrize(
    ("pixels", "bits", "colour_type"),
    [(SCAN, 8, 0), (COLOURS, 8, 2), (SCAN.astype(">u2") * 257, 16, 0)],
    ids=["grey", "RGB", "16 bits"],
)
def test_a_png_must_hold_every_row(pixels: np.ndarray, bits: int, colour_type: int, rows: int) -> None:
    """U2. Checksums and end mark are right, and the pixels end with a row: Pillow leaves the rest black."""
    data = png(WIDTH, HEIGHT, bits=bits, colour_type=colour_type, rows=rows_of(pixels, rows))
    assert is_refused(data) == (rows < HEIGHT)
    without_end_mark = data[:-12]
    assert is_refused(without_end_mark) == (rows < HEIGHT)


def test_an_interlaced_png_must_hold_every_pass() -> None:
    """U2."""
    image = Image.fromarray(SCAN)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [rows_of(SCAN[top::down, left::across], HEIGHT) for left, top, across, down in passes]
    plain = png(WIDTH, HEIGHT)
    header = bytearray(plain[16:29])
    header[-1] = 1

    def made(count: int) -> bytes:
        pixels = png_chunk(b"IDAT", zlib.compress(b"".join(parts[:count])))
        return plain[:8] + png_chunk(b"IHDR", bytes(header)) + pixels + png_chunk(b"IEND", b"")

    assert np.array_equal(decode_image(made(7)).grey, np.asarray(image))
    assert [is_refused(made(count)) for count in range(1, 7)] == [True] * 6


def test_a_frame_of_an_animated_png_must_hold_every_row() -> None:
    """U2, U10."""

    def made(rows: int) -> bytes:
        """Three frames; of the second one so many rows."""
        plain, chunks = png(WIDTH, HEIGHT), png_chunk(b"acTL", struct.pack(">II", 3, 0))
        for frame, count in enumerate((HEIGHT, rows, HEIGHT)):
            number = max(0, 2 * frame - 1)
            place = struct.pack(">IIIIIHHBB", number, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
            packed = zlib.compress(rows_of(np.roll(SCAN, frame, axis=1), count))
            pixels = png_chunk(b"fdAT", struct.pack(">I", number + 1) + packed) if frame else png_chunk(b"IDAT", packed)
            chunks += png_chunk(b"fcTL", place) + pixels
        return plain[:33] + chunks + png_chunk(b"IEND", b"")

    for frame in range(3):
        assert np.array_equal(decode_image(made(HEIGHT), frame=frame).grey, np.roll(SCAN, frame, axis=1))
    decode_image(made(HEIGHT // 2), frame=0)
    for frame in (1, 2):  # the third is drawn over the second
        with pytest.raises(InvalidImageError, match="damaged or incomplete"):
            decode_image(made(HEIGHT // 2), frame=frame)


@pytest.mark.parametrize("pixels", [SCAN, COLOURS], ids=["grey", "RGB"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_cut_short_is_refused_also_with_an_end_mark(pixels: np.ndarray, kind: str) -> None:
    """U2. libjpeg makes up what is missing, and its warning reaches nobody."""
    data = save(pixels, "JPEG", **KINDS[kind])
    assert not is_refused(data)
    assert all(is_refused(data[: int(len(data) * cut)] + END) for cut in CUTS)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save(SCAN, "JPEG") + b"of another program" + END, id="something behind it"),
        pytest.param(save(SCAN, "JPEG", exif=b"Exif\0\0" + save(speckle(), "JPEG")), id="a thumbnail before it"),
        pytest.param(save(SCAN, "JPEG", restart_marker_rows=1), id="restarts"),
        pytest.param(save(SCAN, "JPEG")[:-2] + bytes(30) + END, id="bytes between pixels and end mark"),
        pytest.param(save(Image.fromarray(SCAN).convert("CMYK"), "JPEG"), id="four inks"),
    ],
)
def test_a_whole_jpeg_is_read_whatever_stands_around_its_pixels(data: bytes) -> None:
    assert not is_refused(data)


@pytest.mark.parametrize("cut", CUTS)
def test_a_jpeg_frame_of_a_dicom_file_likewise(cut: float) -> None:
    """U2."""
    for syntax, frame in ((JPEGBaseline8Bit, save(SCAN, "JPEG")), (JPEGLosslessSV1, lossless_jpeg(SCAN))):
        assert not is_refused(compressed(SCAN, syntax, frame))
        assert is_refused(compressed(SCAN, syntax, frame[: int(len(frame) * cut)] + END))


def test_half_a_mask_is_no_mask() -> None:
    """U2, U22. Half of a lesion would make a right reading look wrong."""
    mask = np.zeros_like(SCAN)
    mask[20:120, 30:90] = 255
    whole = png(WIDTH, HEIGHT, rows=rows_of(mask, HEIGHT))
    assert read_mask(whole, HEIGHT, WIDTH)[0].sum() == 100 * 60
    as_jpeg = save(mask, "JPEG", quality=95)
    read_mask(as_jpeg, HEIGHT, WIDTH)
    for half in (png(WIDTH, HEIGHT, rows=rows_of(mask, HEIGHT // 2)), as_jpeg[: len(as_jpeg) // 2] + END):
        with pytest.raises(InvalidImageError):
            read_mask(half, HEIGHT, WIDTH)


EVERY = 8  # of 2,508 scans


@pytest.mark.realdata
def test_real_scans_and_masks_are_whole() -> None:
    root = read_settings().data_root
    for record in (*read_busi(root / "busi"), *read_bus_bra(root / "bus-bra"))[::EVERY]:
        image = decode_image(record.image.read_bytes())
        for path in record.masks:
            with Image.open(io.BytesIO(path.read_bytes())) as mask:
                if mask.size == (image.width, image.height):
                    read_mask(path.read_bytes(), image.height, image.width)
