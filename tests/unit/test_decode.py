"""What decode_image promises for every upload that is not DICOM; ids as in docs/hardening.md."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from files import (
    animated,
    black_png,
    decode_and_measure,
    dicom,
    png,
    png_chunk,
    save,
    speckle,
    tiff,
    tiff_chain,
    tiled_tiff,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from busi_core.errors import InvalidImageError
from busi_core.imaging import limits, pictures
from busi_core.imaging import png as png_module
from busi_core.imaging import tiff as tiff_module
from busi_core.imaging.decode import decode_image
from busi_core.imaging.limits import MIN_SIDE_PX
from busi_core.imaging.raw import window_to_8_bits
from busi_core.settings import read_settings
from busi_core.types import DecodedImage, ImageWarning

SCAN = speckle()
COLOURS = np.stack([speckle(seed=seed) for seed in range(3)], axis=2)


def refusal(data: bytes, *, frame: int | None = None) -> str:
    """The problem that decode_image names when it refuses these bytes."""
    with pytest.raises(InvalidImageError) as caught:
        decode_image(data, frame=frame)
    assert caught.value.remedy
    return caught.value.problem


def grey_png(*values: int, bits: int = 8) -> bytes:
    """A 64 x 64 grey PNG whose first pixels are `values`, the others 0."""
    pixels = np.zeros((64, 64), ">u2" if bits == 16 else np.uint8)
    pixels.flat[: len(values)] = values
    return png(64, 64, bits=bits, rows=b"".join(b"\0" + row.tobytes() for row in pixels))


# --- what is read ---


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("pixels", [SCAN, COLOURS], ids=["grey", "colour"])
def test_lossless_formats_give_back_every_pixel(format_name: str, pixels: np.ndarray) -> None:
    options = {"lossless": True} if format_name == "WEBP" else {}
    image = decode_image(save(pixels, format_name, **options))
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    assert image.format == format_name
    assert (image.frame, image.frames, image.regions) == (0, 1, ())
    np.testing.assert_array_equal(image.rgb, expected)
    np.testing.assert_array_equal(image.grey, np.asarray(Image.fromarray(expected).convert("L")))


def test_grey_jpeg_equals_opencv() -> None:
    data = save(SCAN, "JPEG", quality=90)
    image = decode_image(data)
    assert image.format == "JPEG"
    np.testing.assert_array_equal(image.grey, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


def test_grey_of_equal_channels_is_that_value_for_all_256() -> None:
    ramp = np.resize(np.arange(256, dtype=np.uint8), (64, 256))
    np.testing.assert_array_equal(decode_image(save(np.dstack([ramp] * 3), "PNG")).grey, ramp)


def palette_image(transparency: int | None = None) -> Image.Image:
    image = Image.new("P", (64, 64), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("data", "rgb", "grey"),
    [
        pytest.param(save(Image.new("1", (64, 64), 1), "PNG"), (255, 255, 255), 255, id="U9 1-bit white"),
        pytest.param(save(Image.new("1", (64, 64), 0), "PNG"), (0, 0, 0), 0, id="U9 1-bit black"),
        pytest.param(save(Image.new("L", (64, 64), 77), "PNG"), (77, 77, 77), 77, id="U9 L"),
        pytest.param(save(Image.new("LA", (64, 64), (200, 255)), "PNG"), (200, 200, 200), 200, id="U9 LA opaque"),
        pytest.param(save(Image.new("LA", (64, 64), (200, 128)), "PNG"), (100, 100, 100), 100, id="U9 LA half"),
        pytest.param(save(Image.new("LA", (64, 64), (200, 0)), "PNG"), (0, 0, 0), 0, id="U9 LA clear"),
        pytest.param(save(Image.new("RGB", (64, 64), (200, 100, 50)), "PNG"), (200, 100, 50), 124, id="U9 RGB"),
        pytest.param(save(Image.new("RGBA", (64, 64), (200, 100, 50, 255)), "PNG"), (200, 100, 50), 124, id="U9 RGBA"),
        pytest.param(save(Image.new("RGBA", (64, 64), (200, 100, 50, 51)), "PNG"), (40, 20, 10), 25, id="U9 RGBA 20 %"),
        pytest.param(save(palette_image(), "PNG"), (200, 100, 50), 124, id="U9 palette"),
        pytest.param(save(palette_image(transparency=1), "PNG"), (0, 0, 0), 0, id="U9 palette, this entry clear"),
        pytest.param(save(palette_image(transparency=0), "PNG"), (200, 100, 50), 124, id="U9 palette, other clear"),
        pytest.param(save(Image.new("L", (64, 64), 9), "PNG", transparency=9), (0, 0, 0), 0, id="U9 grey colour key"),
        pytest.param(save(Image.new("CMYK", (64, 64), (0, 128, 255, 0)), "TIFF"), (255, 127, 0), 151, id="U9 CMYK"),
        pytest.param(
            save(Image.new("CMYK", (64, 64), (0, 0, 0, 255)), "JPEG", quality=100), (0, 0, 0), 0, id="U9 CMYK JPEG"
        ),
    ],
)
def test_each_kind_of_pixel_has_one_conversion(data: bytes, rgb: tuple[int, int, int], grey: int) -> None:
    """U9. Golden values; luma worked out by hand from 0.299, 0.587, 0.114."""
    image = decode_image(data)
    assert tuple(image.rgb[5, 5]) == rgb
    assert image.grey[5, 5] == grey


def keyed_png(bits: int, key: int, *values: int) -> bytes:
    """A 64 x 64 grey PNG of a few bits, one of whose values a tRNS chunk calls transparent."""
    row = np.resize(np.array(values, ">u2" if bits == 16 else np.uint8), 64)
    binary = "".join(f"{value:0{bits}b}" for value in row)
    packed = int(binary, 2).to_bytes(8 * bits, "big")
    return png(64, 64, bits=bits, extra=png_chunk(b"tRNS", struct.pack(">H", key)), rows=(b"\0" + packed) * 64)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_value_is_black_or_refused_and_one_that_no_pixel_has_changes_nothing(bits: int) -> None:
    """U9. ISO 15948, 11.3.2.1: compared as stored; OpenCV, which reads no such value, is the judge of the rest."""
    top = 2**bits - 1
    if bits in (1, 8):
        assert decode_image(keyed_png(bits, top, top, 0)).grey[0, :2].tolist() == [0, 0]
        assert decode_image(keyed_png(bits, 0, top, 0)).grey[0, :2].tolist() == [255, 0]
    else:
        assert "calls one of its values transparent" in refusal(keyed_png(bits, top, top, 0))
        assert "calls one of its values transparent" in refusal(keyed_png(bits, 0, top, 0))
        unused = keyed_png(bits, 1, top, 0)
        seen = cv2.imdecode(np.frombuffer(unused, np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(decode_image(unused).grey, seen)


def test_a_transparent_value_that_only_another_frame_may_have_is_refused() -> None:
    """U9. The frames of an APNG are drawn over each other: what shows through is in none of them alone."""
    control = struct.pack(">IIIIIHHBB", 0, 64, 64, 0, 0, 1, 10, 0, 0)
    animation = png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(b"fcTL", control)
    key = png_chunk(b"tRNS", struct.pack(">H", 777))
    rows = (b"\0" + struct.pack(">HH", 300, 400) * 32) * 64
    assert decode_image(png(64, 64, bits=16, extra=key, rows=rows)).frames == 1
    assert "calls one of its values transparent" in refusal(png(64, 64, bits=16, extra=animation + key, rows=rows))


@pytest.mark.parametrize(("key", "is_refused"), [((0xC807, 0x6409, 0x32FA), True), ((0xC907, 0x6409, 0x32FA), False)])
def test_a_transparent_colour_of_16_bits_is_refused_where_it_may_occur(
    key: tuple[int, int, int], is_refused: bool
) -> None:
    """U9. Pillow keeps the high bytes alone: where they are the same it cannot be told."""
    row = b"\0" + bytes([200, 7, 100, 9, 50, 250]) * 64
    data = png(64, 64, bits=16, colour_type=2, extra=png_chunk(b"tRNS", struct.pack(">HHH", *key)), rows=row * 64)
    if is_refused:
        assert "calls one of its values transparent" in refusal(data)
    else:
        assert tuple(decode_image(data).rgb[0, 0]) == (200, 100, 50)


def test_16_bit_grey_with_alpha_is_refused_rather_than_shown_by_its_high_byte() -> None:
    """U9. Of 12 bits used it would be nearly black."""
    rows = (b"\0" + struct.pack(">HH", 4000, 65_535) * 64) * 64
    assert "16 bits of grey with an alpha" in refusal(png(64, 64, bits=16, colour_type=4, rows=rows))


def test_a_jpeg_of_four_components_without_adobes_mark_is_refused() -> None:
    """U9. Adobe's are inverted; whether others are cannot be told."""
    inks = save(Image.new("CMYK", (64, 64), (0, 128, 255, 0)), "JPEG")
    at = inks.index(b"\xff\xee")
    assert decode_image(inks).format == "JPEG"
    assert "without Adobe's mark" in refusal(inks[:at] + inks[at + 16 :])


def test_lab_is_refused_by_name() -> None:
    """U9."""
    assert "LAB" in refusal(save(Image.new("LAB", (64, 64), (100, 0, 0)), "TIFF"))


# --- what is refused ---

NOT_IMAGES = {
    "empty": b"",
    "one byte": b"\x89",
    "text": b"patient had a scan today\n" * 50,
    "HTML": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"/>',
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n",
    "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "ELF program": b"\x7fELF\x02\x01\x01" + bytes(500),
    "Windows program": b"MZ\x90\0" + bytes(500),
    "ZIP": b"PK\x03\x04" + bytes(200),
    "GIF": save(SCAN, "GIF"),
    "animated GIF": animated("GIF", [COLOURS, COLOURS[::-1]]),
    "ICO": save(SCAN, "ICO"),
    "JPEG 2000": save(SCAN, "JPEG2000"),
    "PNG signature alone": b"\x89PNG\r\n\x1a\n",
    "DICM without preamble": b"DICM" + bytes(300),
    "pickle": b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("data", NOT_IMAGES.values(), ids=[f"U1 {name}" for name in NOT_IMAGES])
def test_what_is_not_an_image_is_refused_by_its_content(data: bytes) -> None:
    """U1."""
    problem = refusal(data)
    assert "not an image" in problem or "empty" in problem


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_file_cut_short_is_refused_as_damaged(format_name: str, keep: float) -> None:
    """U2."""
    data = save(COLOURS, format_name)
    problem = refusal(data[: int(len(data) * keep)])
    assert "damaged" in problem


def test_a_flipped_bit_in_png_pixels_is_refused() -> None:
    """U2."""
    data = bytearray(save(SCAN, "PNG"))
    data[len(data) // 2] ^= 4
    assert "damaged" in refusal(bytes(data))


def test_a_zip_behind_a_jpeg_changes_nothing() -> None:
    """U3."""
    data = save(SCAN, "JPEG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.html", "<script>")
    np.testing.assert_array_equal(decode_image(data + archive.getvalue()).grey, decode_image(data).grey)


def test_a_hundred_megapixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    """U4. Each file is below 200 KB; the process grows by less than 30 MB."""
    webp_header = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3e\0" * 2
    files = [black_png(10_000, 10_000), black_png(14_000, 14_000), png(60_000, 60_000), webp_header]
    assert all(len(data) < 200_000 for data in files)
    for grown_mb, problem in decode_and_measure(files, tmp_path):
        assert "megapixels" in problem or "damaged" in problem
        assert grown_mb < 30


def test_a_tiff_tile_far_larger_than_its_image_is_refused_unread(tmp_path: Path) -> None:
    """U4. libtiff needed 860 MB for a tile of 30000 x 30000 behind an image of 96 x 72."""
    assert decode_image(tiled_tiff(256)).grey.shape == (72, 96)
    [(grown_mb, problem)] = decode_and_measure([tiled_tiff(20_000)], tmp_path)
    assert "tiles" in problem
    assert grown_mb < 30


def test_pillow_keeps_its_own_limit() -> None:
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    assert pictures.Image.MAX_IMAGE_PIXELS == 89_478_485


@pytest.mark.parametrize(
    ("width", "height", "named"),
    [
        pytest.param(1, 1, "1 x 1", id="U12 one pixel"),
        pytest.param(63, 200, "at least 64", id="U12 one column short"),
        pytest.param(65_500, 1, "65500 x 1", id="U12 a line"),
        pytest.param(513, 64, "8 times", id="U12 just too long"),
        pytest.param(64, 513, "8 times", id="U12 just too tall"),
        pytest.param(5001, 5000, "25.0 megapixels", id="U4 just too large"),
        pytest.param(512, 64, None, id="U12 longest allowed"),
        pytest.param(64, 64, None, id="U12 smallest allowed"),
        pytest.param(5000, 5000, None, id="U4 largest allowed"),
    ],
)
def test_size_limits_are_named_and_exact(width: int, height: int, named: str | None) -> None:
    """U12."""
    data = black_png(width, height)
    if named is None:
        assert decode_image(data).grey.shape == (height, width)
    else:
        assert named in refusal(data)


def test_a_file_over_the_byte_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 1_000_000)
    assert "at most 1 MB" in refusal(bytes(2_000_000))


# --- more than 8 bits ---


def wide(dtype: str, *values: float) -> np.ndarray:
    pixels = np.full((64, 64), values[0], dtype)
    pixels.flat[: len(values)] = values
    return pixels


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(grey_png(1000, 2000, 0, 4000, bits=16), [64, 128, 0, 255], id="U7 PNG, 12 bits used"),
        pytest.param(grey_png(30_000, 65_535, bits=16), [117, 255], id="U7 PNG that Pillow would clip"),
        pytest.param(tiff(wide("<u2", 300, 400, 500)), [0, 128, 255], id="U7 TIFF little endian"),
        pytest.param(tiff(wide(">u2", 300, 400, 500)), [0, 128, 255], id="U7 TIFF big endian"),
        pytest.param(tiff(wide("<i2", -100, 0, 100)), [0, 128, 255], id="U7 TIFF signed"),
        pytest.param(tiff(wide(">i2", -100, 0, 100)), [0, 128, 255], id="U7 TIFF signed big endian"),
        pytest.param(tiff(wide("<u2", 300, 400, 500), photometric=0), [255, 128, 0], id="U7 TIFF white is zero"),
        pytest.param(tiff(wide("<u4", 0, 2**31, 2**32 - 1)), [0, 128, 255], id="U7 TIFF 32 bits unsigned"),
        pytest.param(tiff(wide("<i4", -(2**31), 2**31 - 1)), [0, 255], id="U7 TIFF 32 bits signed"),
        pytest.param(tiff(wide("<f4", -1.0, 0.0, 1.0, 0.5)), [0, 128, 255, 191], id="U8 TIFF float"),
        pytest.param(tiff(wide("<f4", 0.0, 1e-45)), [0, 255], id="U8 the smallest float"),
        pytest.param(tiff(wide("<f4", -3e38, 3e38)), [0, 255], id="U8 the largest floats"),
    ],
)
def test_wide_pixels_are_shown_from_minimum_to_maximum(data: bytes, expected: list[int]) -> None:
    """U7, U8. Never clipped, and the reader is told."""
    image = decode_image(data)
    assert image.grey.flat[: len(expected)].tolist() == expected
    assert ImageWarning.WINDOWED in image.warnings


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4"])
def test_the_byte_order_of_a_tiff_changes_nothing(kind: str, is_packed: bool) -> None:
    """U7. OpenCV is the second opinion. Pillow turned what libtiff had turned already."""
    values = SCAN.astype(kind) * 100 - (5000 if kind != "u2" else 0)
    for order in "<>":
        data = tiff(values.astype(order + kind), is_packed=is_packed)
        seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(seen, values)
        np.testing.assert_array_equal(decode_image(data).grey, window_to_8_bits(values))


@pytest.mark.parametrize("order", "<>")
def test_planes_of_a_tiff_are_read_as_meant_or_refused(order: str) -> None:
    """U9. Uncompressed, Pillow takes any plane for bytes whose zero is black."""
    wide_colours = (COLOURS.astype(np.uint16) * 257).astype(f"{order}u2")
    for data in (tiff(COLOURS, has_planes=True), tiff(wide_colours, has_planes=True, is_packed=True)):
        np.testing.assert_array_equal(decode_image(data).rgb, COLOURS)
    assert "separate planes" in refusal(tiff(wide_colours, has_planes=True))
    assert "separate planes" in refusal(tiff(SCAN.astype(f"{order}i4"), has_planes=True))
    assert "separate planes" in refusal(tiff(SCAN, photometric=0, has_planes=True))
    assert "separate planes" in refusal(tiff(SCAN, has_planes=True, fill_order=2))
    np.testing.assert_array_equal(decode_image(tiff(SCAN, has_planes=True)).grey, SCAN)


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "deflated"])
def test_signed_bytes_are_refused_rather_than_read_without_their_sign(is_packed: bool) -> None:
    """U9."""
    assert "signed numbers of 8 bits" in refusal(tiff((SCAN // 2).astype(np.int8), is_packed=is_packed))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma"])
def test_differences_in_a_tiff_are_undone(compression: str) -> None:
    """U9. TIFF 6.0 section 14; tag 317."""
    data = save(SCAN, "TIFF", compression=compression, tiffinfo={317: 2})
    np.testing.assert_array_equal(decode_image(data).grey, SCAN)


@pytest.mark.parametrize("compression", [None, "packbits", "jpeg"])
def test_differences_in_a_tiff_that_libtiff_does_not_undo_are_refused(compression: str | None) -> None:
    """U9. Pillow shows what is stored; other programs undo the predictor under any compression."""
    assert "predictor" in refusal(save(SCAN, "TIFF", compression=compression, tiffinfo={317: 2}))
    assert decode_image(save(SCAN, "TIFF", compression=compression, tiffinfo={317: 1})).format == "TIFF"


def test_sixteen_bit_colour_keeps_its_high_byte_and_says_so() -> None:
    """U7."""
    row = b"\0" + bytes([200, 7, 100, 9, 50, 250]) * 64
    image = decode_image(png(64, 64, bits=16, colour_type=2, rows=row * 64))
    assert tuple(image.rgb[0, 0]) == (200, 100, 50)
    assert ImageWarning.WINDOWED in image.warnings


def test_sixteen_bit_colour_with_alpha_keeps_its_high_byte_and_says_so() -> None:
    """U7. ISO 15948, colour type 6."""
    row = b"\0" + bytes([200, 7, 100, 9, 50, 250, 255, 255]) * 64
    image = decode_image(png(64, 64, bits=16, colour_type=6, rows=row * 64))
    assert tuple(image.rgb[0, 0]) == (200, 100, 50)
    assert ImageWarning.WINDOWED in image.warnings


def test_a_bmp_of_16_bits_a_pixel_is_not_taken_for_wide() -> None:
    """U7. 5, 6 and 5 bits; white everywhere."""
    header = struct.pack("<IHHI", 66 + 8192, 0, 0, 66) + struct.pack(
        "<IiiHHIIiiII", 40, 64, 64, 1, 16, 3, 8192, 0, 0, 0, 0
    )
    image = decode_image(b"BM" + header + struct.pack("<III", 0xF800, 0x07E0, 0x001F) + b"\xff" * 8192)
    assert (image.rgb == 255).all()
    assert ImageWarning.WINDOWED not in image.warnings


def test_eight_bits_are_never_windowed() -> None:
    """U7."""
    image = decode_image(save((SCAN // 4 + 60).astype(np.uint8), "PNG"))
    np.testing.assert_array_equal(image.grey, SCAN // 4 + 60)
    assert ImageWarning.WINDOWED not in image.warnings


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_image_with_one_non_number_is_refused(value: float) -> None:
    """U8."""
    assert "not numbers" in refusal(tiff(wide("<f4", 0.0, 1.0, value)))


@pytest.mark.parametrize(
    "data",
    [save(np.full((64, 64), 90, np.uint8), "PNG"), tiff(wide("<u2", 777)), tiff(wide("<f4", 0.3))],
    ids=["U8 8 bits", "U8 16 bits", "U8 float"],
)
@pytest.mark.filterwarnings("error")
def test_a_constant_image_is_flagged_and_divides_by_nothing(data: bytes) -> None:
    """U8."""
    image = decode_image(data)
    assert np.unique(image.grey).size == 1
    assert ImageWarning.NO_CONTRAST in image.warnings


@pytest.mark.parametrize("ends", [(-1e308, 1e308), (0.0, 1e307)], ids=["too wide", "too wide to be scaled to 255"])
def test_window_refuses_a_range_that_is_not_finite(ends: tuple[float, float]) -> None:
    with pytest.raises(InvalidImageError):
        window_to_8_bits(np.array([ends]))


# --- frames ---

FRAMES = [np.roll(COLOURS, 20 * number, axis=1) for number in range(3)]
MANY = {"APNG": animated("PNG", FRAMES), "WebP": animated("WEBP", FRAMES), "TIFF": animated("TIFF", FRAMES)}


@pytest.mark.parametrize("data", MANY.values(), ids=[f"U10 {name}" for name in MANY])
def test_frames_are_counted_chosen_and_never_the_first_in_silence(data: bytes) -> None:
    """U10."""
    first = decode_image(data)
    assert (first.frame, first.frames) == (0, 3)
    assert ImageWarning.FIRST_FRAME in first.warnings
    for number in (0, 1, 2):
        chosen = decode_image(data, frame=number)
        assert (chosen.frame, chosen.frames) == (number, 3)
        assert ImageWarning.FIRST_FRAME not in chosen.warnings
        np.testing.assert_array_equal(chosen.rgb, FRAMES[number])
    for wrong in (3, -1, 10**9):
        assert "has 3" in refusal(data, frame=wrong)


def test_a_single_image_has_frame_0_and_no_other() -> None:
    """U10."""
    data = save(SCAN, "PNG")
    assert ImageWarning.FIRST_FRAME not in decode_image(data).warnings
    assert decode_image(data, frame=0).frames == 1
    assert "has 1" in refusal(data, frame=1)


def test_a_png_that_claims_two_thousand_million_frames_is_refused() -> None:
    """U10."""
    claim = png_chunk(b"acTL", (2**31 - 1).to_bytes(4, "big") + bytes(4))
    assert "more frames" in refusal(png(64, 64, extra=claim, rows=bytes(65 * 64)))


def test_a_later_page_is_held_to_the_size_limits_too() -> None:
    """U12."""
    small = Image.fromarray(SCAN[:8, :8])
    data = save(SCAN, "TIFF", save_all=True, append_images=[small])
    assert decode_image(data, frame=0).frames == 2
    assert "8 x 8" in refusal(data, frame=1)


def test_a_frame_far_into_an_animation_is_refused_before_the_others_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """X1. PNG and WebP decode every frame on the way; a TIFF finds its page at once."""
    monkeypatch.setattr(pictures, "MAX_STEPPED_PIXELS", 2 * COLOURS.shape[0] * COLOURS.shape[1] - 1)
    assert decode_image(MANY["TIFF"], frame=2).frame == 2
    for name in ("APNG", "WebP"):
        assert decode_image(MANY[name], frame=1).frame == 1
        assert "too far into this animation" in refusal(MANY[name], frame=2)


# --- many small parts ---

JPEG = save(SCAN, "JPEG")
PNG = save(SCAN, "PNG")
MANY_PARTS = {  # what comes before, what is repeated and how often, what comes after
    "JPEG, APPn of 4 bytes": (JPEG[:2], b"\xff\xe5\0\2", 5_000_000, JPEG[2:]),
    "JPEG, comments without a length": (JPEG[:2], b"\xff\xfe\0\0", 5_000_000, JPEG[2:]),
    "JPEG, fill bytes": (JPEG[:2], b"\xff", 20_000_000, JPEG[2:]),
    "JPEG, zeros and no end": (JPEG[:2] + b"\xff\xe5\0\2", b"\0", 20_000_000, b""),
    "JPEG, Exif joined piece by piece": (JPEG[:2], b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527), 300, JPEG[2:]),
    "MPO, in its second picture": (
        JPEG[:2] + b"\xff\xe2\0\6MPF\0" + JPEG[2:] + JPEG[:2],
        b"\xff\xe5\0\2",
        5_000_000,
        JPEG[2:],
    ),
    "PNG, empty private chunks": (PNG[:33], png_chunk(b"prVt", b""), 1_700_000, PNG[33:]),
    "PNG, empty pixel chunks": (PNG[:33], png_chunk(b"IDAT", b""), 1_700_000, PNG[33:]),
}


@pytest.mark.parametrize("name", MANY_PARTS)
def test_millions_of_tiny_parts_are_refused_without_keeping_them(name: str, tmp_path: Path) -> None:
    """U5. 20 MB of them grew memory by hundreds, in Pillow's lists and ours, or took minutes to step over."""
    before, part, times, after = MANY_PARTS[name]
    [(grown_mb, problem)] = decode_and_measure([before + part * times + after], tmp_path)
    assert "far more segments" in problem or "chunks" in problem
    assert grown_mb < 30


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"\xff" * 1000, id="fill bytes"),
        pytest.param(b"\0junk\xff\0" * 1000, id="what a wrong length left"),
        pytest.param(b"\xff\xd0\xff\xd7", id="markers without a segment"),
        pytest.param(b"\xff\xe5\0\0\xff\xe5\0\1", id="segments shorter than their length"),
        pytest.param((b"\xff\xe2\xff\xffICC_PROFILE\0" + bytes(65_521)) * 255, id="the longest colour profile"),
        pytest.param(b"\xff\xe5\0\3x" * 900, id="as many as any writer makes"),
    ],
)
def test_a_jpeg_that_pillow_reads_is_not_refused_for_its_segments(beginning: bytes) -> None:
    """X1. More tolerant than ISO 10918-1, where fill bytes alone may stand before a marker."""
    data = JPEG[:20] + beginning + JPEG[20:]  # behind the JFIF segment
    with Image.open(io.BytesIO(data)) as seen:
        np.testing.assert_array_equal(decode_image(data).grey, np.asarray(seen))


def test_a_png_in_many_small_pieces_is_read() -> None:
    """X1. Each byte of pixels in a chunk of its own, beside texts."""
    at = PNG.index(b"IDAT") - 4
    packed = PNG[at + 8 : at + 8 + int.from_bytes(PNG[at : at + 4], "big")]
    texts = b"".join(png_chunk(b"tEXt", b"key %d\0text" % number) for number in range(1000))
    pieces = b"".join(png_chunk(b"IDAT", bytes([byte])) for byte in packed)
    np.testing.assert_array_equal(decode_image(PNG[:at] + texts + pieces + PNG[at + 12 + len(packed) :]).grey, SCAN)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("is_big", [False, True], ids=["classic", "BigTIFF"])
@pytest.mark.parametrize(("pages", "entries"), [(3, 60_000), (1000, 3900)], ids=["large ones", "many"])
def test_directories_of_a_tiff_that_lie_over_each_other_are_refused_unread(
    pages: int, entries: int, is_big: bool, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U5. 0.8 MB of them kept Pillow busy for minutes: 9 bytes more, one more directory of 65,535 entries."""
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    assert "far more entries" in refusal(tiff_chain(pages, entries, order=order, is_big=is_big))


def test_a_tiff_whose_directories_turn_in_a_circle_is_read_once_round() -> None:
    """X1. As Pillow does."""
    data = tiff(SCAN)
    circle = decode_image(data[:-4] + data[4:8])
    np.testing.assert_array_equal(circle.grey, SCAN)
    assert circle.frames == 1


def test_a_tiff_of_as_many_pages_and_entries_as_a_cine_needs_is_not_refused() -> None:
    """X1. Ten thousand pages of 28 entries; 3,999 in one."""
    tiff_module.require_few_entries(tiff_chain(10_000, 28))
    tiff_module.require_few_entries(tiff_chain(2, 3999))


def test_a_png_of_as_many_frames_as_a_cine_needs_is_not_refused() -> None:
    """X1. Ten thousand, each with its control chunk."""
    png_module.require_few_chunks(PNG[:33] + (png_chunk(b"fcTL", b"") + png_chunk(b"fdAT", b"")) * 10_000 + PNG[33:])


# --- orientation ---


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF 2.3 says to do, in numpy."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].T,
        8: np.rot90(pixels),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "PNG 16", "JPEG", "TIFF", "TIFF 16", "TIFF 16 big", "WEBP"])
def test_exif_orientation_is_applied(format_name: str, orientation: int) -> None:
    """U11. OpenCV is the second opinion for JPEG."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide_scan = SCAN.astype(np.uint16) * 256
    stored = SCAN
    if format_name.startswith("TIFF"):
        kind = {"TIFF": SCAN, "TIFF 16": wide_scan.astype("<u2"), "TIFF 16 big": wide_scan.astype(">u2")}
        data = tiff(kind[format_name], orientation=orientation)
    elif format_name == "PNG 16":
        data = save(Image.fromarray(wide_scan), "PNG", exif=exif)
    else:
        options = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
        data = save(SCAN, format_name, exif=exif, **options)
    if format_name == "JPEG":
        stored = np.asarray(Image.open(io.BytesIO(data)))
        seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(decode_image(data).grey, seen)
    if "16" in format_name:
        stored = window_to_8_bits(stored)
    np.testing.assert_array_equal(decode_image(data).grey, turned(stored, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "JPEG"])
def test_without_exif_the_orientation_of_xmp_is_applied(format_name: str, orientation: int) -> None:
    """U11. As programs of photographers write it."""
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", xmp)
    kept: dict[str, Any] = {"pnginfo": chunks} if format_name == "PNG" else {"xmp": xmp.encode()}
    stored = np.asarray(Image.open(io.BytesIO(save(SCAN, format_name))))
    np.testing.assert_array_equal(decode_image(save(SCAN, format_name, **kept)).grey, turned(stored, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_stored_as_a_byte_is_applied(orientation: int) -> None:
    """U11. EXIF 2.3 says SHORT; the JPEG lay on its side."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 1, 1, orientation, 0)
    stored = np.asarray(Image.open(io.BytesIO(save(SCAN, "JPEG"))))
    np.testing.assert_array_equal(decode_image(save(SCAN, "JPEG", exif=exif)).grey, turned(stored, orientation))


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_unknown_orientation_leaves_the_image_as_it_is(orientation: int) -> None:
    """U11."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(save(SCAN, "PNG", exif=exif)).grey, SCAN)


def test_turning_agrees_with_pillow() -> None:
    """U11. The oracle of this file, checked against Pillow's own."""
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        reopened = Image.open(io.BytesIO(save(SCAN, "PNG", exif=exif)))
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(reopened)), turned(SCAN, orientation))


# --- warnings ---


@pytest.mark.parametrize(
    ("coloured_pixels", "spread", "is_warned"),
    [
        pytest.param(0, 0, False, id="grey saved as RGB"),
        pytest.param(6912, 12, False, id="faint tint everywhere, as JPEG leaves"),
        pytest.param(1, 200, True, id="one of 6912 pixels"),
        pytest.param(600, 150, True, id="a Doppler box"),
    ],
)
def test_colour_is_noticed(coloured_pixels: int, spread: int, is_warned: bool) -> None:
    grey = (SCAN // 4).astype(np.uint8)
    rgb = np.dstack([grey, grey, grey])
    rgb.reshape(-1, 3)[:coloured_pixels, 0] += spread
    assert (ImageWarning.COLOUR in decode_image(save(rgb, "PNG")).warnings) == is_warned


@pytest.mark.parametrize("channel", [0, 1, 2], ids=["red", "green", "blue"])
@pytest.mark.parametrize(("spread", "is_warned"), [(12, False), (13, True)])
def test_a_mark_of_any_one_colour_is_noticed_from_thirteen_levels_on(
    channel: int, spread: int, is_warned: bool
) -> None:
    rgb = np.dstack([(SCAN // 4).astype(np.uint8)] * 3)
    rgb[:20, :30, channel] += spread
    assert (ImageWarning.COLOUR in decode_image(save(rgb, "PNG")).warnings) == is_warned


@pytest.mark.parametrize(("deviation", "is_flagged"), [(1, True), (3, False)])
def test_an_image_of_nearly_one_grey_is_flagged_as_a_constant_one_is(deviation: int, is_flagged: bool) -> None:
    """U8. Noise of a sensor, or a page that was scanned blank."""
    stripes = np.full((64, 64), 90, np.uint8)
    stripes[::2] += 2 * deviation  # half of the rows: a standard deviation of just that
    assert (ImageWarning.NO_CONTRAST in decode_image(save(stripes, "PNG")).warnings) == is_flagged


def test_no_picture_format_is_calibrated() -> None:
    """U15."""
    image = decode_image(save(SCAN, "PNG", dpi=(300, 300)))
    assert image.regions == ()
    assert ImageWarning.NOT_CALIBRATED in image.warnings


# --- anything at all ---

SEEDS = [
    *(save(COLOURS, name) for name in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")),
    *MANY.values(),
    tiff(wide("<f4", 0.0, 1.0)),
    save(COLOURS, "TIFF", compression="tiff_lzw"),
    save(COLOURS, "TIFF", compression="jpeg"),
    save(palette_image(1), "PNG"),
    dicom(SCAN),
]
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def decode_or_refuse(data: bytes, frame: int | None) -> None:
    """Anything but InvalidImageError fails the test by itself."""
    try:
        image = decode_image(data, frame=frame)
    except InvalidImageError:
        return
    assert isinstance(image, DecodedImage)
    assert min(image.grey.shape) >= MIN_SIDE_PX


@settings(FUZZ, max_examples=300)
@given(
    head=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP"]
    ),
    tail=st.binary(max_size=400),
    frame=st.none() | st.integers(-1, 3),
)
def test_any_bytes_are_decoded_or_refused(head: bytes, tail: bytes, frame: int | None) -> None:
    decode_or_refuse(head + tail, frame)


@pytest.mark.filterwarnings("ignore")
@settings(FUZZ, max_examples=500)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.booleans()), min_size=1, max_size=6),
    keep=st.just(1.0) | st.floats(0, 1),
    frame=st.none() | st.integers(0, 3),
)
def test_any_damaged_file_is_decoded_or_refused(
    seed: bytes, changes: list[tuple[float, int, bool]], keep: float, frame: int | None
) -> None:
    data = bytearray(seed)
    for place, value, in_header in changes:
        data[int(place * (min(len(data), 400 if in_header else len(data)) - 1))] = value
    decode_or_refuse(bytes(data[: int(len(data) * keep)]), frame)


# --- real scans ---


@pytest.mark.realdata
@pytest.mark.parametrize("pattern", ["busi/*/*.png", "bus-bra/Images/*.png"])
def test_real_scans_decode_to_what_opencv_and_pillow_read(pattern: str) -> None:
    paths = [path for path in sorted(read_settings().data_root.glob(pattern)) if "_mask" not in path.name]
    if not paths:
        pytest.skip(f"no scans at {read_settings().data_root / pattern}: set BUSI_DATA_ROOT")
    for path in paths[::20]:
        image = decode_image(path.read_bytes())
        with Image.open(path) as file:
            mode, by_pillow = file.mode, np.asarray(file.convert("L"))
        np.testing.assert_array_equal(image.grey, by_pillow, err_msg=path.name)
        if mode == "L":
            by_opencv = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(image.grey, by_opencv, err_msg=path.name)
            assert image.warnings == (ImageWarning.NOT_CALIBRATED,)
