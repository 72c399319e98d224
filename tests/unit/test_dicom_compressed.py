"""Compressed DICOM frames: the same pixels after decoding, and refusals of what the header does not state.

Encoders are in encoders.py; ids as in docs/hardening.md.
"""

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from encoders import by_gdcm, compressed, extended_jpeg, htj2k, jpeg_2000, jpeg_ls, lossless_jpeg
from files import decode_and_measure, dicom, jpeg, save, speckle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagecodecs import jpeg2k_encode, jpeg8_decode
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from busi_core.errors import InvalidImageError
from busi_core.imaging import dicom_pixels
from busi_core.imaging.decode import decode_image
from busi_core.types import ImageWarning

SCAN = speckle()
COLOURS = np.stack([speckle(seed=seed) for seed in range(3)], axis=2)
YBR = np.asarray(convert_color_space(COLOURS, "RGB", "YBR_FULL"))
WIDE = (SCAN.astype(np.uint16) * 16 + 5).astype("<u2")  # 12 bits
LOSSLESS = {
    "Lossless": (JPEGLossless, lossless_jpeg),
    "Lossless SV1": (JPEGLosslessSV1, lossless_jpeg),
    "JPEG-LS": (JPEGLSLossless, jpeg_ls),
    "JPEG-LS Near-Lossless": (JPEGLSNearLossless, jpeg_ls),
    "JPEG 2000 Lossless": (JPEG2000Lossless, jpeg_2000),
    "JPEG 2000": (JPEG2000, jpeg_2000),
    "HTJ2K Lossless": (HTJ2KLossless, htj2k),
    "HTJ2K Lossless RPCL": (HTJ2KLosslessRPCL, htj2k),
    "HTJ2K": (HTJ2K, htj2k),
}


def refusal(data: bytes, *, frame: int | None = None) -> str:
    """The problem that decode_image names when it refuses these bytes."""
    with pytest.raises(InvalidImageError) as caught:
        decode_image(data, frame=frame)
    assert caught.value.remedy
    return caught.value.problem


# --- the same pixels ---


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_lossless_syntax_gives_back_grey_pixels(kind: str) -> None:
    """U13."""
    syntax, encode = LOSSLESS[kind]
    image = decode_image(compressed(SCAN, syntax, encode(SCAN)))
    np.testing.assert_array_equal(image.grey, SCAN)
    assert (image.format, image.frames) == ("DICOM", 1)
    assert ImageWarning.WINDOWED not in image.warnings
    inverted = decode_image(compressed(SCAN, syntax, encode(SCAN), PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted.grey, 255 - SCAN)


@pytest.mark.parametrize("kind", [name for name in LOSSLESS if "2000" not in name and "HTJ2K" not in name])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_lossless_colour_is_what_the_header_says(kind: str, photometric: str) -> None:
    """U13. Not what the decoder would guess from marks or names of components."""
    syntax, encode = LOSSLESS[kind]
    stored = COLOURS if photometric == "RGB" else YBR
    image = decode_image(compressed(stored, syntax, encode(stored), PhotometricInterpretation=photometric))
    native = decode_image(dicom(stored, PhotometricInterpretation=photometric))
    np.testing.assert_array_equal(image.rgb, native.rgb)
    if photometric == "RGB":
        np.testing.assert_array_equal(image.rgb, COLOURS)


@pytest.mark.parametrize(
    "marks", [b"", b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1"]
)
def test_marks_in_a_lossless_jpeg_do_not_change_its_colours(marks: bytes) -> None:
    """U13. libjpeg would refuse the last, and name the others YCbCr."""
    frame = lossless_jpeg(COLOURS)
    marked = frame[:2] + marks + frame[2:]
    np.testing.assert_array_equal(decode_image(compressed(COLOURS, JPEGLosslessSV1, marked)).rgb, COLOURS)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("pixels", [SCAN, COLOURS, WIDE], ids=["grey", "RGB", "16 bits"])
def test_every_predictor_of_jpeg_lossless_is_undone(pixels: np.ndarray, predictor: int) -> None:
    """U13. ISO 10918-1 table H.1."""
    image = decode_image(compressed(pixels, JPEGLossless, lossless_jpeg(pixels, predictor=predictor)))
    native = decode_image(dicom(pixels))
    np.testing.assert_array_equal(image.rgb, native.rgb)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("pixels", [SCAN, COLOURS, WIDE], ids=["grey", "RGB", "16 bits"])
def test_jpeg_lossless_as_gdcm_writes_it_is_read(pixels: np.ndarray, syntax: UID) -> None:
    """U13. An encoder of another family than the decoder's."""
    header, frame = by_gdcm(dicom(pixels), syntax)
    assert header.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(decode_image(compressed(pixels, syntax, frame)).rgb, decode_image(dicom(pixels)).rgb)


@pytest.mark.parametrize("transform", [True, False])
def test_jpeg_2000_colour_is_rgb_with_and_without_its_transform(transform: bool) -> None:
    """U13. YBR_RCT is what the standard writes for the transform; many files say RGB."""
    frame = jpeg_2000(COLOURS, transform=transform)
    for photometric in ("YBR_RCT", "RGB") if transform else ("RGB",):
        image = decode_image(compressed(COLOURS, JPEG2000Lossless, frame, PhotometricInterpretation=photometric))
        np.testing.assert_array_equal(image.rgb, COLOURS)


def test_untransformed_jpeg_2000_of_ybr_full_becomes_rgb() -> None:
    """U13."""
    frame = jpeg_2000(YBR, transform=False)
    image = decode_image(compressed(YBR, JPEG2000Lossless, frame, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_array_equal(image.rgb, decode_image(dicom(YBR, PhotometricInterpretation="YBR_FULL")).rgb)


def test_htj2k_colour_is_rgb() -> None:
    """U13."""
    image = decode_image(compressed(COLOURS, HTJ2KLossless, htj2k(COLOURS), PhotometricInterpretation="YBR_RCT"))
    np.testing.assert_array_equal(image.rgb, COLOURS)


def test_irreversible_jpeg_2000_is_close_to_what_went_in() -> None:
    """U13. At 50 dB the encoder may miss by 0.8 levels (root mean square); Pillow's OpenJPEG decodes the same."""
    frame = jpeg_2000(COLOURS, level=50)
    image = decode_image(compressed(COLOURS, JPEG2000, frame, PhotometricInterpretation="YBR_ICT"))
    assert np.sqrt(np.mean((image.rgb.astype(float) - COLOURS) ** 2)) < 2
    np.testing.assert_allclose(image.rgb.astype(int), np.asarray(Image.open(io.BytesIO(frame))).astype(int), atol=1)


@pytest.mark.parametrize("error", [1, 3])
def test_near_lossless_jpeg_ls_stays_within_its_error(error: int) -> None:
    """U13. ISO 14495-1: no sample is further off than NEAR."""
    image = decode_image(compressed(SCAN, JPEGLSNearLossless, jpeg_ls(SCAN, error=error)))
    assert 0 < np.abs(image.grey.astype(int) - SCAN).max() <= error


@pytest.mark.parametrize("pixels", [SCAN, COLOURS], ids=["grey", "YBR"])
def test_jpeg_extended_of_eight_bits_equals_pillow(pixels: np.ndarray) -> None:
    """U13. Process 2: SOF1 instead of SOF0, and otherwise the same stream."""
    baseline = save(pixels, "JPEG", quality=85)
    extended = baseline.replace(b"\xff\xc0", b"\xff\xc1", 1)
    photometric = "YBR_FULL_422" if pixels.ndim == 3 else "MONOCHROME2"
    for frame in (baseline, extended):
        image = decode_image(compressed(pixels, JPEGExtended12Bit, frame, PhotometricInterpretation=photometric))
        by_pillow = np.asarray(Image.open(io.BytesIO(baseline)))
        np.testing.assert_array_equal(image.rgb if pixels.ndim == 3 else image.grey, by_pillow)


def test_jpeg_extended_of_twelve_bits_equals_libjpeg_turbo() -> None:
    """U13. GDCM decodes here; two inverse transforms may differ by one of 4096 levels."""
    frame = extended_jpeg(WIDE)
    header = {"BitsStored": 12, "HighBit": 11}
    image = decode_image(compressed(WIDE, JPEGExtended12Bit, frame, **header))
    other = np.asarray(jpeg8_decode(frame)).astype("<u2")
    np.testing.assert_allclose(image.grey.astype(int), decode_image(dicom(other, **header)).grey.astype(int), atol=1)
    assert ImageWarning.WINDOWED in image.warnings


@pytest.mark.parametrize("kind", ["Lossless SV1", "JPEG-LS", "JPEG 2000 Lossless"])
@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
def test_wide_and_signed_values_are_the_native_ones(kind: str, dtype: str) -> None:
    """U13, U7. JPEG knows no sign: a signed value is stored as its bits."""
    syntax, encode = LOSSLESS[kind]
    pixels = WIDE if dtype == "<u2" else (WIDE.astype(int) - 2000).astype("<i2")
    frame = encode(pixels if kind.startswith("JPEG 2000") else pixels.view("<u2"))
    image = decode_image(compressed(pixels, syntax, frame))
    np.testing.assert_array_equal(image.grey, decode_image(dicom(pixels)).grey)


def test_a_signed_header_over_an_unsigned_codestream_is_read_by_its_bits() -> None:
    """U13. Some archives compress signed values as if they were not: 13 bits of two's complement."""
    values = (WIDE.astype(int) - 2000).astype("<i2")
    bits = (values & 0x1FFF).astype("<u2")
    frame = bytes(jpeg2k_encode(bits, codecformat="j2k", level=0, reversible=True, bitspersample=13))
    header = {"BitsStored": 13, "HighBit": 12, "PixelRepresentation": 1}
    image = decode_image(compressed(values, JPEG2000Lossless, frame, **header))
    np.testing.assert_array_equal(image.grey, decode_image(dicom(values, **header)).grey)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_odd_sides_come_back(kind: str) -> None:
    """U13."""
    syntax, encode = LOSSLESS[kind]
    pixels = speckle(131, 65)
    np.testing.assert_array_equal(decode_image(compressed(pixels, syntax, encode(pixels))).grey, pixels)


@pytest.mark.parametrize("kind", ["Lossless SV1", "JPEG-LS", "JPEG 2000 Lossless"])
def test_only_the_chosen_frame_is_decoded(kind: str) -> None:
    """U10. The last frame is broken, and nobody asked for it."""
    syntax, encode = LOSSLESS[kind]
    frames = [np.roll(SCAN, 9 * number, axis=1) for number in range(3)]
    data = compressed(SCAN, syntax, *map(encode, frames), b"no frame", NumberOfFrames=4)
    first = decode_image(data)
    assert (first.frame, first.frames) == (0, 4)
    assert ImageWarning.FIRST_FRAME in first.warnings
    for number, pixels in enumerate(frames):
        np.testing.assert_array_equal(decode_image(data, frame=number).grey, pixels)
    assert "is not the" in refusal(data, frame=3)


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        pytest.param(jpeg_2000(SCAN), (JPEG2000Lossless, SCAN, 7), id="JPEG 2000, 8 bits as 7"),
        pytest.param(jpeg_2000(np.minimum(SCAN, 128)), (JPEG2000Lossless, SCAN, 7), id="JPEG 2000, 128 in 7 bits"),
        pytest.param(jpeg_2000(WIDE * 16), (JPEG2000Lossless, WIDE, 12), id="JPEG 2000, 16 bits as 12"),
        pytest.param(jpeg_ls(WIDE * 16), (JPEGLSLossless, WIDE, 12), id="JPEG-LS, 16 bits as 12"),
        pytest.param(extended_jpeg(WIDE), (JPEGExtended12Bit, WIDE, 10), id="JPEG Extended, 12 bits as 10"),
    ],
)
def test_values_that_the_stated_bits_cannot_hold_are_refused(data: bytes, stored: tuple[UID, np.ndarray, int]) -> None:
    """U13. Their high bits were dropped: noise, without a word."""
    syntax, pixels, bits = stored
    assert "larger values" in refusal(compressed(pixels, syntax, data, BitsStored=bits, HighBit=bits - 1))


@pytest.mark.parametrize("with_table", [True, False], ids=["offset table", "none"])
@pytest.mark.parametrize("kind", ["JPEG-LS", "JPEG 2000 Lossless", "Lossless"])
def test_more_frames_than_the_header_states_are_refused(kind: str, with_table: bool) -> None:
    """U10: never frame 0 in silence."""
    syntax, encode = LOSSLESS[kind]
    frames = [encode(np.roll(SCAN, 9 * number, axis=1)) for number in range(3)]
    for stated in ({}, {"NumberOfFrames": 2}):
        data = dicom(SCAN, syntax=syntax, pixel_data=encapsulate(frames, has_bot=with_table), **stated)
        assert "but the file holds 3" in refusal(data)


def test_more_frames_wrapped_as_jp2_than_the_header_states_are_refused() -> None:
    """U10. Told by how their fragments begin, since there is no table of offsets."""
    wrapped = bytes(jpeg2k_encode(SCAN, codecformat="jp2", level=0, reversible=True))
    data = dicom(SCAN, syntax=JPEG2000Lossless, pixel_data=encapsulate([wrapped] * 2, has_bot=False))
    assert "but the file holds 2" in refusal(data)


def test_a_frame_in_several_fragments_is_joined() -> None:
    """U13."""
    content = encapsulate([jpeg_2000(SCAN)], fragments_per_frame=3)
    np.testing.assert_array_equal(decode_image(dicom(SCAN, syntax=JPEG2000Lossless, pixel_data=content)).grey, SCAN)


def test_a_codestream_wrapped_as_jp2_is_read() -> None:
    """U13. DICOM wants it bare (PS3.5 A.4.4), some writers wrap it."""
    wrapped = bytes(jpeg2k_encode(COLOURS, codecformat="jp2", level=0, reversible=True, mct=True))
    assert wrapped[4:8] == b"jP  "
    image = decode_image(compressed(COLOURS, JPEG2000Lossless, wrapped, PhotometricInterpretation="YBR_RCT"))
    np.testing.assert_array_equal(image.rgb, COLOURS)


BUNDLED = [
    *("693_J2KI", "GDCMJ2K_TextGBR", "J2K_pixelrep_mismatch", "JPEG2000", "MR_small_jp2klossless", "SC_rgb_gdcm_KY"),
    *("examples_jpeg2k", "MR_small_jpeg_ls_lossless", "SC_rgb_jls_lossy_line", "SC_rgb_jls_lossy_sample"),
    *("SC_rgb_jpeg_gdcm", "SC_rgb_dcmtk_+eb+cr", "SC_rgb_dcmtk_+eb+cy+n1", "SC_rgb_dcmtk_+eb+cy+s2"),
    *("SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_lossy_gdcm", "SC_jpeg_no_color_transform", "examples_ybr_color"),
    *("MR_small_RLE", "MR_small_bigendian", "SC_rgb_rle_2frame", "image_dfl", "SC_ybr_full_422_uncompressed"),
]


@pytest.mark.parametrize("name", BUNDLED)
def test_files_of_other_writers_are_read_as_pydicom_reads_them(name: str) -> None:
    """U13. Files that come with pydicom, of dcmtk, GDCM and scanners; examples_* are ultrasound."""
    path = get_testdata_file(f"{name}.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of bits that differ between header and frame
        dataset = pydicom.dcmread(path)
        expected = pixel_array(dataset, index=0)
    image = decode_image(Path(path).read_bytes())
    if expected.ndim == 3:
        np.testing.assert_array_equal(image.rgb, expected)
        return
    dataset.PixelData, dataset.NumberOfFrames = expected.astype(expected.dtype.newbyteorder("<")).tobytes(), 1
    dataset["PixelData"].VR = "OW" if expected.dtype.itemsize == 2 else "OB"
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    native = io.BytesIO()
    pydicom.dcmwrite(native, dataset, implicit_vr=False, little_endian=True, force_encoding=True)
    np.testing.assert_array_equal(image.grey, decode_image(native.getvalue()).grey)


# --- what is refused ---


def with_siz(frame: bytes, **values: int) -> bytes:
    """A JPEG 2000 codestream whose SIZ marker lies (ISO 15444-1 A.5.1)."""
    places = {"width": 8, "height": 12, "left": 16, "tile_width": 24, "tile_height": 28}
    changed = bytearray(frame)
    for name, value in values.items():
        changed[places[name] : places[name] + 4] = struct.pack(">L", value)
    return bytes(changed)


def with_sof(frame: bytes, marker: int, width: int, height: int) -> bytes:
    """A JPEG or JPEG-LS whose frame header lies."""
    at = frame.index(bytes((0xFF, marker))) + 5
    return frame[:at] + struct.pack(">HH", height, width) + frame[at + 4 :]


J2K, JLS, LL = jpeg_2000(SCAN), jpeg_ls(SCAN), lossless_jpeg(SCAN)


def test_a_frame_that_claims_more_than_its_header_is_refused_without_allocating(tmp_path: Path) -> None:
    """U6. 60000 x 60000 inside a file of 96 x 72."""
    huge = {"width": 60_000, "height": 60_000, "tile_width": 60_000, "tile_height": 60_000}
    lies = {
        "JPEG 2000": compressed(SCAN, JPEG2000Lossless, with_siz(J2K, **huge)),
        "HTJ2K": compressed(SCAN, HTJ2KLossless, with_siz(htj2k(SCAN), **huge)),
        "JPEG-LS": compressed(SCAN, JPEGLSLossless, with_sof(JLS, 0xF7, 60_000, 60_000)),
        "Lossless": compressed(SCAN, JPEGLosslessSV1, with_sof(LL, 0xC3, 60_000, 60_000)),
        "Extended": compressed(SCAN, JPEGExtended12Bit, with_sof(save(SCAN, "JPEG"), 0xC0, 60_000, 60_000)),
    }
    for grown_mb, problem in decode_and_measure(list(lies.values()), tmp_path):
        assert "60000 x 60000" in problem
        assert grown_mb < 30


@pytest.mark.parametrize(
    ("pixels", "syntax", "frame", "changes", "named"),
    [
        pytest.param(SCAN, JPEG2000, J2K, {"Rows": 80}, "96 x 80", id="U6 JPEG 2000, other rows"),
        pytest.param(SCAN, JPEG2000, jpeg_2000(COLOURS), {}, "3 x 8", id="JPEG 2000, colour under a grey header"),
        pytest.param(SCAN, JPEG2000, jpeg_2000(WIDE), {}, "1 x 16", id="JPEG 2000, 16 bits under 8"),
        pytest.param(
            WIDE, JPEG2000, jpeg_2000(WIDE.astype("<i2")), {}, "1 x 16", id="JPEG 2000, signed under an unsigned header"
        ),
        pytest.param(SCAN, JPEG2000, with_siz(J2K, left=8), {}, "88 x 72", id="U6 JPEG 2000, an offset"),
        pytest.param(
            SCAN, JPEG2000, with_siz(J2K, tile_width=1, tile_height=1), {}, "is not the JPEG 2000", id="U5 6,912 tiles"
        ),
        pytest.param(SCAN, JPEG2000, with_siz(J2K, tile_width=0), {}, "is not the JPEG 2000", id="no tiles"),
        pytest.param(SCAN, JPEG2000, J2K[:40], {}, "is not the JPEG 2000", id="U2 JPEG 2000, cut in the header"),
        pytest.param(SCAN, JPEG2000, J2K[: len(J2K) // 2], {}, "damaged", id="U2 JPEG 2000, cut in half"),
        pytest.param(SCAN, JPEG2000, save(SCAN, "JPEG"), {}, "is not the JPEG 2000", id="U1 JPEG called JPEG 2000"),
        pytest.param(SCAN, JPEG2000, b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90), {}, "JPEG 2000", id="JP2 without image"),
        pytest.param(
            COLOURS,
            JPEG2000,
            jpeg_2000(COLOURS),
            {"PhotometricInterpretation": "YBR_FULL"},
            "YBR_FULL, but",
            id="transformed, called YBR_FULL",
        ),
        pytest.param(
            COLOURS,
            JPEG2000,
            jpeg_2000(COLOURS, transform=False),
            {"PhotometricInterpretation": "YBR_ICT"},
            "YBR_ICT, but",
            id="not transformed, called YBR_ICT",
        ),
        pytest.param(
            COLOURS,
            JPEGLSLossless,
            jpeg_ls(COLOURS),
            {"PhotometricInterpretation": "YBR_RCT"},
            "YBR_RCT",
            id="JPEG-LS RCT",
        ),
        pytest.param(SCAN, JPEGLSLossless, JLS, {"Columns": 97}, "97 x 72", id="U6 JPEG-LS, other columns"),
        pytest.param(SCAN, JPEGLSLossless, jpeg_ls(COLOURS), {}, "3 x 8", id="JPEG-LS, colour under a grey header"),
        pytest.param(SCAN, JPEGLSLossless, JLS[: len(JLS) // 2], {}, "damaged", id="U2 JPEG-LS, cut in half"),
        pytest.param(SCAN, JPEGLSLossless, JLS[:9], {}, "is not the JPEG-LS", id="U2 JPEG-LS, cut in the header"),
        pytest.param(SCAN, JPEGLSLossless, LL, {}, "is not the JPEG-LS", id="U1 JPEG Lossless called JPEG-LS"),
        pytest.param(SCAN, JPEGLosslessSV1, LL, {"Rows": 73}, "96 x 73", id="U6 JPEG Lossless, other rows"),
        pytest.param(SCAN, JPEGLosslessSV1, LL[: len(LL) // 2], {}, "damaged", id="U2 JPEG Lossless, cut in half"),
        pytest.param(SCAN, JPEGLosslessSV1, save(SCAN, "JPEG"), {}, "is not the JPEG", id="Baseline called Lossless"),
        pytest.param(SCAN, JPEGBaseline8Bit, LL, {}, "is not the JPEG", id="Lossless called Baseline"),
        pytest.param(
            SCAN, JPEGExtended12Bit, save(SCAN, "JPEG", progressive=True), {}, "is not the JPEG", id="progressive"
        ),
        pytest.param(SCAN, JPEGLosslessSV1, lossless_jpeg(WIDE), {}, "1 x 16", id="16 bits under a header of 8"),
        pytest.param(WIDE, JPEGLosslessSV1, lossless_jpeg(WIDE)[:900], {}, "damaged", id="U2 16 bits, cut short"),
        pytest.param(
            SCAN, JPEG2000, J2K, {"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE", id="lossy palette"
        ),
    ],
)
def test_a_frame_that_is_not_what_the_header_says_is_refused(
    pixels: np.ndarray, syntax: UID, frame: bytes, changes: dict[str, Any], named: str
) -> None:
    """U2, U6, U14."""
    assert named in refusal(compressed(pixels, syntax, frame, **changes))


def test_a_frame_of_millions_of_tiny_segments_is_refused_without_listing_them(tmp_path: Path) -> None:
    """U5. In JPEG and JPEG-LS alike; 20 MB of them grew memory by a gigabyte."""
    frames = {JPEGBaseline8Bit: jpeg(SCAN), JPEGLSLossless: jpeg_ls(SCAN)}
    for syntax, frame in frames.items():
        many = compressed(SCAN, syntax, frame[:2] + b"\xff\xe5\0\2" * 5_000_000 + frame[2:])
        [(grown_mb, problem)] = decode_and_measure([many], tmp_path)
        assert "far more segments" in problem
        assert grown_mb < 100  # the frame itself is copied out of the file
        few = frame[:2] + b"\xff\xe5\0\2" * 900 + frame[2:]
        np.testing.assert_array_equal(
            decode_image(compressed(SCAN, syntax, few)).grey, decode_image(compressed(SCAN, syntax, frame)).grey
        )


def test_a_jpeg_of_a_thousand_passes_is_refused_unread() -> None:
    """X1. Each pass costs ten bytes and a walk over all pixels."""
    progressive = save(speckle(1000, 1000), "JPEG", progressive=True)
    at = progressive.rindex(b"\xff\xda")
    scan = progressive[at:-2]
    many = progressive[:at] + scan * 1000 + b"\xff\xd9"
    assert decode_image(progressive).grey.shape == (1000, 1000)
    assert "passes over" in refusal(many)
    baseline = jpeg(COLOURS)
    first = baseline.index(b"\xff\xda")
    in_dicom = baseline[:first] + baseline[first : first + 14] * 200 + baseline[first:]
    assert "passes over" in refusal(
        compressed(COLOURS, JPEGBaseline8Bit, in_dicom, PhotometricInterpretation="YBR_FULL_422")
    )


def test_a_large_jpeg_may_have_fewer_passes_than_a_small_one() -> None:
    """X1. What is bounded is the work: passes times pixels."""
    small = save(speckle(200, 200), "JPEG", progressive=True)
    large = save(np.zeros((5000, 5000), np.uint8), "JPEG", progressive=True)
    added = b"\xff\xfe\0\x2a" + b"\xff\xda" * 20  # in a comment: counted, and harmless
    assert decode_image(small[:2] + added + small[2:]).grey.shape == (200, 200)
    assert "passes over its 25.0 megapixels" in refusal(large[:2] + added + large[2:])


def test_a_file_of_empty_fragments_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """X1. pydicom would list 25 million of them one by one."""
    content = encapsulate([J2K])
    many = content[:8] + b"\xfe\xff\x00\xe0\0\0\0\0" * 500 + content[8:]
    monkeypatch.setattr(dicom_pixels, "MAX_FRAGMENTS", 400)
    assert "more than 400 fragments" in refusal(dicom(SCAN, syntax=JPEG2000Lossless, pixel_data=many))


# --- anything at all ---

SEEDS = [
    (JPEGLosslessSV1, compressed(SCAN, JPEGLosslessSV1, LL), LL),
    (JPEGExtended12Bit, compressed(COLOURS, JPEGExtended12Bit, jpeg(COLOURS)), jpeg(COLOURS)),
]


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, derandomize=True, max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255), st.booleans()), min_size=1, max_size=6),
)
def test_any_damaged_frame_in_the_servers_own_process_is_decoded_or_refused(
    seed: tuple[UID, bytes, bytes], changes: list[tuple[float, int, bool]]
) -> None:
    """X1."""
    _, file, frame = seed
    start, data = file.index(frame), bytearray(file)
    for place, value, in_header in changes:
        data[start + int(place * (min(len(frame), 200 if in_header else len(frame)) - 1))] = value
    try:
        image = decode_image(bytes(data))
    except InvalidImageError:
        return
    assert image.grey.dtype == np.uint8


@settings(deadline=None, derandomize=True, max_examples=12, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["JPEG-LS", "JPEG 2000 Lossless", "HTJ2K Lossless"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_any_damaged_frame_in_a_process_of_its_own_is_decoded_or_refused(
    kind: str, changes: list[tuple[float, int]]
) -> None:
    """X1. The header of the frame stays, or the frame would be refused before a process is started."""
    syntax, encode = LOSSLESS[kind]
    frame = bytearray(encode(SCAN))
    for place, value in changes:
        frame[120 + int(place * (len(frame) - 121))] = value
    try:
        image = decode_image(compressed(SCAN, syntax, bytes(frame)))
    except InvalidImageError:
        return
    assert image.grey.shape == SCAN.shape


def test_the_frames_of_a_real_cine_differ_and_are_all_read() -> None:
    """U10, U13. Thirty frames of a YBR_FULL_422 ultrasound cine that comes with pydicom."""
    data = Path(str(get_testdata_file("examples_ybr_color.dcm"))).read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(data))
    encoded = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
    for number in (0, 7, len(encoded) - 1):
        by_pillow = np.asarray(Image.open(io.BytesIO(encoded[number])).convert("RGB"))
        np.testing.assert_array_equal(decode_image(data, frame=number).rgb, by_pillow)
