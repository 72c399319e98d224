"""What decode_image promises for DICOM files; ids as in docs/hardening.md."""

import io
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from files import adobe, claim_size, decode_and_measure, dicom, dicom_bomb, jpeg, region, save, speckle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.processing import apply_color_lut, apply_voi, apply_windowing, convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from seeds import palette, segmented_palette

from busi_core.errors import InvalidImageError
from busi_core.imaging import dicom as dicom_module
from busi_core.imaging.decode import decode_image
from busi_core.imaging.dicom_grey import of_frame
from busi_core.types import CalibratedRegion, ImageWarning

SCAN = speckle()
COLOURS = np.stack([speckle(seed=seed) for seed in range(3)], axis=2)
RLE_FRAME = next(
    generate_frames(pydicom.dcmread(io.BytesIO(dicom(SCAN, syntax=RLELossless))).PixelData, number_of_frames=1)
)
YBR = np.asarray(convert_color_space(COLOURS, "RGB", "YBR_FULL"))


def jpeg_dicom(*frames: bytes, pixels: np.ndarray = SCAN, **changes: Any) -> bytes:
    """A JPEG Baseline file of these frames; `pixels` only gives the header its size and samples."""
    return dicom(pixels, syntax=JPEGBaseline8Bit, pixel_data=encapsulate(list(frames)), **changes)


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def refusal(data: bytes, *, frame: int | None = None) -> str:
    """The problem that decode_image names when it refuses these bytes."""
    with pytest.raises(InvalidImageError) as caught:
        decode_image(data, frame=frame)
    assert caught.value.remedy
    return caught.value.problem


# --- what is read ---


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
    ],
    ids=["U13 implicit", "U13 explicit", "U13 deflated", "U13 RLE"],
)
@pytest.mark.parametrize("pixels", [SCAN, COLOURS], ids=["grey", "RGB"])
def test_every_accepted_syntax_gives_the_same_pixels(syntax: UID, pixels: np.ndarray) -> None:
    """U13."""
    image = decode_image(dicom(pixels, syntax=syntax))
    assert (image.format, image.frame, image.frames) == ("DICOM", 0, 1)
    np.testing.assert_array_equal(image.rgb if pixels.ndim == 3 else image.grey, pixels)
    assert ImageWarning.WINDOWED not in image.warnings


def test_big_endian_sixteen_bits_are_swapped() -> None:
    """U13. Retired, still in archives."""
    wide = (SCAN.astype(np.uint16) * 4).astype(">u2")
    data = io.BytesIO()
    file = pydicom.dcmread(io.BytesIO(dicom(wide.astype("<u2"))))
    file.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    file.PixelData = wide.tobytes()
    pydicom.dcmwrite(data, file, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(decode_image(data.getvalue()).grey, decode_image(dicom(wide.astype("<u2"))).grey)


def test_planar_colour_equals_interleaved() -> None:
    """U13."""
    planes = np.ascontiguousarray(COLOURS.transpose(2, 0, 1)).tobytes()
    data = dicom(COLOURS, pixel_data=planes, PlanarConfiguration=1)
    np.testing.assert_array_equal(decode_image(data).rgb, COLOURS)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["U13 native", "U13 RLE"])
def test_ybr_full_becomes_rgb(syntax: UID) -> None:
    """U13. PS3.3 C.7.6.3.1.2; rounding may move a channel by 1."""
    image = decode_image(dicom(YBR, syntax=syntax, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(image.rgb.astype(int), COLOURS.astype(int), atol=2)
    golden = np.full((64, 64, 3), (76, 85, 255), np.uint8)  # pure red: 0.299 x 255, 128 - 43, 128 + 128
    red = decode_image(dicom(golden, syntax=syntax, PhotometricInterpretation="YBR_FULL")).rgb[0, 0]
    np.testing.assert_allclose(red.astype(int), (254, 0, 0), atol=1)


def test_ybr_full_422_shares_colour_between_two_pixels() -> None:
    """U13. Stored as Y1 Y2 Cb Cr."""
    pairs = YBR.copy()
    pairs[:, 1::2, 1:] = pairs[:, ::2, 1:]
    packed = np.stack([pairs[:, ::2, 0], pairs[:, 1::2, 0], pairs[:, ::2, 1], pairs[:, ::2, 2]], axis=2)
    data = dicom(YBR, pixel_data=packed.astype(np.uint8).tobytes(), PhotometricInterpretation="YBR_FULL_422")
    expected = decode_image(dicom(pairs, PhotometricInterpretation="YBR_FULL")).rgb
    np.testing.assert_array_equal(decode_image(data).rgb, expected)


def test_monochrome1_is_inverted() -> None:
    """U13."""
    np.testing.assert_array_equal(decode_image(dicom(SCAN, PhotometricInterpretation="MONOCHROME1")).grey, 255 - SCAN)


def test_monochrome1_of_sixteen_bits_is_inverted_after_its_window() -> None:
    """U13, U7."""
    wide = SCAN.astype(np.uint16) * 10
    straight = decode_image(dicom(wide)).grey
    inverted = decode_image(dicom(wide, PhotometricInterpretation="MONOCHROME1")).grey
    np.testing.assert_allclose(inverted.astype(int), 255 - straight.astype(int), atol=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour_becomes_rgb(bits: int) -> None:
    """U13."""
    image = decode_image(dicom(SCAN, **palette(bits)))
    np.testing.assert_array_equal(image.rgb, np.stack([SCAN, 255 - SCAN, SCAN // 2], axis=2))
    assert ImageWarning.COLOUR in image.warnings


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize(("entries", "first"), [(4096, 0), (1000, 0), (1000, 500), (256, 300), (65_536, 0)])
def test_a_palette_of_wide_indices_is_clamped_at_its_ends(entries: int, first: int, syntax: UID) -> None:
    """U13. PS3.3 C.7.6.3.1.5; pydicom 3.0.2 alone wraps such indices where the entries have 8 bits."""
    wide = SCAN.astype("<u2") * 16
    for bits in (8, 16):
        image = decode_image(dicom(wide, syntax=syntax, **palette(bits, entries=entries, first=first)))
        ramp = np.linspace(0, 255, entries).astype(np.uint8)
        expected = ramp[np.clip(wide.astype(int) - first, 0, entries - 1)]
        np.testing.assert_array_equal(image.rgb[:, :, 0], expected)


def test_eight_bits_of_a_palette_may_stand_in_words_of_sixteen() -> None:
    """U13. pydicom reads such tables too: their length alone tells."""
    attributes = palette(8)
    for keyword in [keyword for keyword in attributes if keyword.endswith("Data")]:
        attributes[keyword] = np.frombuffer(attributes[keyword], np.uint8).astype("<u2").tobytes()
    data = dicom(SCAN, **attributes)
    image = decode_image(data)
    np.testing.assert_array_equal(image.rgb, apply_color_lut(SCAN, pydicom.dcmread(io.BytesIO(data))))
    np.testing.assert_array_equal(image.rgb, decode_image(dicom(SCAN, **palette(8))).rgb)


def test_a_palette_whose_tables_differ_in_length_is_refused() -> None:
    """U13. PS3.3 C.7.6.3.1.5: the three are the same; which of them is right cannot be told."""
    green = {name: value for name, value in palette(8, entries=512).items() if name.startswith("Green")}
    assert "palette" in refusal(dicom(SCAN, **palette(8) | green))


def test_a_palette_equals_pydicoms() -> None:
    """U13. An ultrasound image that comes with pydicom: 16-bit entries."""
    path = Path(str(get_testdata_file("examples_palette.dcm")))
    dataset = pydicom.dcmread(path)
    expected = apply_color_lut(pixel_array(dataset), dataset) >> 8
    np.testing.assert_array_equal(decode_image(path.read_bytes()).rgb, expected)


def test_a_segmented_palette_equals_pydicoms() -> None:
    """U13. PS3.3 C.7.9.2: values as they are, then a line."""
    data = dicom(SCAN, **segmented_palette())
    dataset = pydicom.dcmread(io.BytesIO(data))
    np.testing.assert_array_equal(decode_image(data).rgb, apply_color_lut(SCAN, dataset) >> 8)


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param([0, 2, 0, 256, 1, 60_000, 9], id="U5 longer than the table"),
        pytest.param([0, 2, 0, 256, 2, 9, 0, 0], id="indirect"),
        pytest.param([1, 256, 9], id="a line from nothing"),
        pytest.param([0, 0] * 500, id="X1 empty segments"),
        pytest.param([0, 2, 0], id="U2 cut short"),
        pytest.param([7, 256], id="unknown"),
    ],
)
def test_a_segmented_palette_that_is_none_is_refused(segments: list[int]) -> None:
    """U5. pydicom would write out 65,535 values for every 6 bytes."""
    attributes = segmented_palette()
    attributes["SegmentedRedPaletteColorLookupTableData"] = np.array(segments, "<u2").tobytes()
    assert "damaged" in refusal(dicom(SCAN, **attributes))


@pytest.mark.parametrize("is_segmented", [False, True], ids=["plain", "segmented"])
def test_a_big_endian_palette_of_bytes_is_swapped_in_pairs(is_segmented: bool) -> None:
    """U13. PS3.5 8.1.2: its tables are words (OW), two entries each. Every second colour was its neighbour's."""
    attributes = palette(8)
    table = np.arange(256, dtype=np.uint8)[::-1]
    packed = bytes([0, 4, 9, 200, 30, 70, 1, 252, 255, 0]) if is_segmented else table.tobytes()
    expected = np.array([9, 200, 30, 70, *np.rint(np.linspace(70, 255, 253)[1:])]) if is_segmented else table
    for colour in ("Red", "Green", "Blue"):
        attributes.pop(f"{colour}PaletteColorLookupTableData")
        keyword = f"{'Segmented' if is_segmented else ''}{colour}PaletteColorLookupTableData"
        attributes[keyword] = np.frombuffer(packed, "<u2").astype(">u2").tobytes()
    image = decode_image(dicom(SCAN, syntax=ExplicitVRBigEndian, **attributes))
    np.testing.assert_array_equal(image.rgb[:, :, 0], expected[SCAN])


# --- JPEG Baseline ---


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_grey_jpeg_equals_pillow(photometric: str) -> None:
    """U13."""
    frame = save(SCAN, "JPEG", quality=80)
    image = decode_image(jpeg_dicom(frame, PhotometricInterpretation=photometric))
    expected = by_pillow(frame)
    np.testing.assert_array_equal(image.grey, expected if photometric == "MONOCHROME2" else 255 - expected)
    assert (image.format, image.frames) == ("DICOM", 1)
    assert ImageWarning.WINDOWED not in image.warnings


MARKED = {
    "JFIF": jpeg(COLOURS, quality=90),
    "JFIF, 4:4:4": jpeg(COLOURS, quality=90, subsampling=0),
    "Adobe YCbCr": jpeg(COLOURS, marks=adobe(1)),
    "Adobe RGB": jpeg(COLOURS, marks=adobe(0), components=b"\1\2\3", keep_rgb=True),
    "Adobe RGB, named R G B": jpeg(COLOURS, keep_rgb=True),
    "named R G B": jpeg(COLOURS, marks=b"", keep_rgb=True),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
@pytest.mark.parametrize("mark", MARKED)
def test_a_colour_jpeg_that_marks_its_colours_equals_pillow_whatever_the_header_says(
    mark: str, photometric: str
) -> None:
    """U13. pydicom alone converts YBR_FULL_422 with an Adobe mark twice: wrong by up to 149 levels."""
    data = jpeg_dicom(MARKED[mark], pixels=COLOURS, PhotometricInterpretation=photometric, PlanarConfiguration=1)
    np.testing.assert_array_equal(decode_image(data).rgb, by_pillow(MARKED[mark]))


def test_the_header_decides_where_a_colour_jpeg_marks_nothing() -> None:
    """U13. Pillow takes such a JPEG for YCbCr."""
    ycbcr = jpeg(COLOURS, marks=b"")
    data = jpeg_dicom(ycbcr, pixels=COLOURS, PhotometricInterpretation="YBR_FULL_422")
    np.testing.assert_array_equal(decode_image(data).rgb, by_pillow(ycbcr))
    named = jpeg(COLOURS, keep_rgb=True)
    unnamed = jpeg(COLOURS, marks=b"", components=b"\1\2\3", keep_rgb=True)
    np.testing.assert_array_equal(decode_image(jpeg_dicom(unnamed, pixels=COLOURS)).rgb, by_pillow(named))


@pytest.mark.parametrize("still", [SCAN, COLOURS], ids=["grey", "YBR"])
@pytest.mark.parametrize("has_offsets", [True, False])
def test_only_the_chosen_jpeg_frame_is_decoded(still: np.ndarray, has_offsets: bool) -> None:
    """U10. The last frame is broken, and nobody asked for it."""
    frames = [save(np.roll(still, 9 * number, axis=1), "JPEG") for number in range(3)] + [b"\xff\xd8broken\xff\xd9"]
    photometric = "YBR_FULL_422" if still.ndim == 3 else "MONOCHROME2"
    content = encapsulate(frames, has_bot=has_offsets)
    data = dicom(
        still,
        syntax=JPEGBaseline8Bit,
        pixel_data=content,
        NumberOfFrames=4,
        PhotometricInterpretation=photometric,
    )
    for number in range(3):
        image = decode_image(data, frame=number)
        np.testing.assert_array_equal(image.rgb if still.ndim == 3 else image.grey, by_pillow(frames[number]))
    assert "not the JPEG" in refusal(data, frame=3)


def tables(starts: list[int], lengths: list[int]) -> dict[str, bytes]:
    """Extended Offset Table (7FE0,0001) and its lengths."""
    return {
        "ExtendedOffsetTable": np.array(starts, "<u8").tobytes(),
        "ExtendedOffsetTableLengths": np.array(lengths, "<u8").tobytes(),
    }


def test_a_table_that_places_frames_wrongly_is_refused_rather_than_another_frame_shown() -> None:
    """U10. The basic table and the extended one (PS3.3 C.7.6.3.1.8)."""
    frames = [save(np.roll(SCAN, 9 * number, axis=1), "JPEG") for number in range(3)]
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    lengths = [len(frame) for frame in frames]
    starts = [sum(lengths[:number]) + 8 * number for number in range(3)]
    content = encapsulate(frames, has_bot=False)

    def made(content: bytes, **changes: Any) -> bytes:
        return dicom(SCAN, syntax=JPEGBaseline8Bit, pixel_data=content, NumberOfFrames=3, **changes)

    basic = encapsulate(frames)
    assert basic[8:20] == np.array(starts, "<u4").tobytes()
    for data in (made(basic), made(content, **tables(starts, lengths))):
        for number in range(3):
            np.testing.assert_array_equal(decode_image(data, frame=number).grey, by_pillow(frames[number]))
    lies = ([0, 0, 0], [starts[1], starts[1], starts[2]], [0, starts[2], starts[1]])
    for lie in lies:
        for data in (
            made(basic[:8] + np.array(lie, "<u4").tobytes() + basic[20:]),
            made(content, **tables(lie, lengths)),
        ):
            for number in range(3):
                assert "contradicts itself" in refusal(data, frame=number)
    assert "contradicts itself" in refusal(made(content, **tables(starts, [lengths[0] + 9, *lengths[1:]])))


def test_a_jpeg_frame_in_several_fragments_is_joined() -> None:
    """U13."""
    frame = save(SCAN, "JPEG")
    data = dicom(SCAN, syntax=JPEGBaseline8Bit, pixel_data=encapsulate([frame], fragments_per_frame=3))
    np.testing.assert_array_equal(decode_image(data).grey, by_pillow(frame))


GREY_JPEG = save(SCAN, "JPEG")


@pytest.mark.parametrize(
    ("frame", "changes", "named"),
    [
        pytest.param(GREY_JPEG, {"Rows": 80}, "96 x 80", id="U6 other rows"),
        pytest.param(GREY_JPEG, {"Columns": 72}, "72 x 72", id="U6 other columns"),
        pytest.param(save(COLOURS, "JPEG"), {}, "3 x 8", id="colour under a grey header"),
        pytest.param(save(SCAN, "JPEG", progressive=True), {}, "not the JPEG", id="progressive"),
        pytest.param(bytes(2), {}, "not the JPEG", id="U1 two zeros"),
        pytest.param(b"\xff\xd8\xff", {}, "not the JPEG", id="U2 three bytes"),
        pytest.param(save(SCAN, "PNG"), {}, "not the JPEG", id="U1 PNG"),
        pytest.param(GREY_JPEG[:100], {}, "not the JPEG", id="U2 cut in the header"),
        pytest.param(GREY_JPEG[: len(GREY_JPEG) // 2], {}, "damaged", id="U2 cut in the scan"),
        pytest.param(GREY_JPEG[:2] + b"\xff\xc8\0\2" + GREY_JPEG[2:], {}, "not the JPEG", id="unknown segment"),
        pytest.param(GREY_JPEG, {"BitsStored": 7, "HighBit": 6}, "7 bits", id="7 bits"),
        pytest.param(GREY_JPEG, {"PixelRepresentation": 1}, "cannot hold", id="signed"),
        pytest.param(GREY_JPEG, {"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE", id="lossy palette"),
        pytest.param(GREY_JPEG, {"NumberOfFrames": 2}, "damaged", id="U6 more frames than fragments"),
    ],
)
def test_a_jpeg_that_is_not_the_frame_of_the_header_is_refused(
    frame: bytes, changes: dict[str, Any], named: str
) -> None:
    """U14."""
    assert named in refusal(jpeg_dicom(frame, **changes), frame=changes.get("NumberOfFrames", 1) - 1)


def test_a_lying_jpeg_is_refused_without_allocating(tmp_path: Path) -> None:
    """U6. 30000 x 30000 RGB would take 2.7 GB; the second file states its true size first and lies after."""
    lying = claim_size(save(COLOURS, "JPEG"), 30_000, 30_000)
    size_at = GREY_JPEG.index(b"\xff\xc0")
    second = claim_size(GREY_JPEG, 12_000, 12_000)[size_at : size_at + 13]
    twofold = GREY_JPEG[: size_at + 13] + second + GREY_JPEG[size_at + 13 :]
    files = [jpeg_dicom(lying, pixels=COLOURS), jpeg_dicom(twofold)]
    (_, first_problem), (_, second_problem) = results = decode_and_measure(files, tmp_path)
    assert "30000 x 30000" in first_problem
    assert "not the JPEG" in second_problem
    assert all(grown_mb < 30 for grown_mb, _ in results)


# --- more than 8 bits ---


@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
def test_sixteen_bits_without_a_window_are_shown_from_minimum_to_maximum(dtype: str) -> None:
    """U7."""
    wide = np.full((64, 64), 300, dtype)
    wide[0, :3] = 300, 400, 500
    image = decode_image(dicom(wide))
    assert image.grey[0, :3].tolist() == [0, 128, 255]
    assert ImageWarning.WINDOWED in image.warnings


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -100)])
def test_a_window_in_the_file_is_applied_as_pydicom_does(function: str, slope: int, intercept: int) -> None:
    """U7. pydicom shows 12 bits as 0 to 4095 (rescaled); the same picture here is 0 to 255."""
    wide = SCAN.astype(np.uint16) * 16
    window = {"WindowCenter": 1500, "WindowWidth": 900, "VOILUTFunction": function}
    image = decode_image(
        dicom(wide, BitsStored=12, HighBit=11, RescaleSlope=slope, RescaleIntercept=intercept, **window)
    )
    oracle = Dataset()
    oracle.PhotometricInterpretation, oracle.BitsStored, oracle.PixelRepresentation = "MONOCHROME2", 12, 0
    for keyword, value in window.items():
        setattr(oracle, keyword, value)
    shown = apply_windowing(wide.astype(np.float64) * slope + intercept, oracle) / 4095 * 255
    np.testing.assert_allclose(image.grey.astype(float), shown, atol=0.51)
    assert ImageWarning.WINDOWED in image.warnings


def test_a_window_on_the_largest_image_takes_less_than_900_mb(tmp_path: Path) -> None:
    """U5. 0.3 MB deflated; the process itself has 150 to 200 MB. Each step made another 200 MB of numbers."""
    wide = np.add.outer(np.arange(5000) // 10, np.arange(5000) // 7).astype("<u2")
    header = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1.5, "PhotometricInterpretation": "MONOCHROME1"}
    window = {"WindowCenter": 900, "WindowWidth": 1700, "VOILUTFunction": "SIGMOID"}
    [(grown_mb, problem)] = decode_and_measure(
        [dicom(wide, syntax=DeflatedExplicitVRLittleEndian, **header, **window)], tmp_path
    )
    assert problem == "none"
    assert grown_mb < 700


def test_an_eight_bit_window_that_changes_nothing_is_not_mentioned() -> None:
    """U7. Scanners often write centre 128, width 256."""
    image = decode_image(dicom(SCAN, WindowCenter=128, WindowWidth=256))
    np.testing.assert_array_equal(image.grey, SCAN)
    assert ImageWarning.WINDOWED not in image.warnings


def test_the_first_of_several_windows_is_used() -> None:
    """U7."""
    several = decode_image(dicom(SCAN, WindowCenter=[100, 30], WindowWidth=[50, 9]))
    np.testing.assert_array_equal(several.grey, decode_image(dicom(SCAN, WindowCenter=100, WindowWidth=50)).grey)
    assert ImageWarning.WINDOWED in several.warnings


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_a_window_without_width_is_passed_over(width: float) -> None:
    """U7."""
    np.testing.assert_array_equal(decode_image(dicom(SCAN, WindowCenter=100, WindowWidth=width)).grey, SCAN)


def test_a_window_of_one_level_parts_black_from_white_where_the_standard_says() -> None:
    """U7. PS3.3 C.11.2.1.2.1: what is not above centre - 0.5 is black."""
    pixels = np.resize(np.array([99, 100, 101], np.uint8), (72, 96))
    image = decode_image(dicom(pixels, WindowCenter=100.5, WindowWidth=1))
    assert image.grey[0, :3].tolist() == [0, 0, 255]


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_a_window_narrower_than_one_is_applied_where_its_function_allows_it(function: str) -> None:
    """U7. PS3.3 C.11.2.1.3: LINEAR alone needs a width of 1. Of values rescaled to 0 to 2; pydicom is the judge."""
    wide = SCAN.astype(np.uint16) * 16
    oracle = Dataset()
    oracle.PhotometricInterpretation, oracle.BitsStored, oracle.PixelRepresentation = "MONOCHROME2", 12, 0
    oracle.WindowCenter, oracle.WindowWidth, oracle.VOILUTFunction = 0.8, 0.5, function
    window = {"WindowCenter": 0.8, "WindowWidth": 0.5, "VOILUTFunction": function}
    image = decode_image(dicom(wide, BitsStored=12, HighBit=11, RescaleSlope=0.0005, RescaleIntercept=0, **window))
    shown = apply_windowing(wide * 0.0005, oracle) / 4095 * 255
    np.testing.assert_allclose(image.grey.astype(float), shown, atol=0.51)


def test_a_window_of_a_function_that_dicom_does_not_define_is_passed_over() -> None:
    """U7. Rather than shown by another one."""
    data = dicom(SCAN, WindowCenter=100, WindowWidth=50, VOILUTFunction="CUBIC")
    np.testing.assert_array_equal(decode_image(data).grey, SCAN)


def test_a_rescale_that_is_no_number_is_refused() -> None:
    """U8. The stored values are not what the scanner showed."""
    assert "damaged" in refusal(dicom(SCAN, RescaleSlope="1e999"))


@pytest.mark.parametrize(
    ("rescale", "slope", "intercept"),
    [
        ({"RescaleIntercept": -100}, 1, -100),
        ({"RescaleSlope": 3}, 3, 0),
        ({"RescaleSlope": 2, "RescaleIntercept": 9}, 2, 9),
    ],
)
def test_of_slope_and_intercept_one_may_be_absent(rescale: dict[str, Any], slope: int, intercept: int) -> None:
    """U7. PS3.3 C.11.1 wants both; the window was set to pixels without either."""
    window = {"WindowCenter": 128 * slope + intercept, "WindowWidth": 255 * slope + 1}
    image = decode_image(dicom(SCAN, **rescale, **window))
    np.testing.assert_allclose(image.grey.astype(int), SCAN.astype(int), atol=1)


def voi_table(table: np.ndarray, *, first: int = 0, bits: int = 16, vr: str = "OW") -> Dataset:
    """An item of the VOI LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table) % 65_536, first, bits])
    item.add_new("LUTData", vr, table.tobytes() if vr == "OW" else table.tolist())
    return item


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("bits", "first", "intercept"), [(16, 0, 0), (12, 700, 0), (10, 500, 0), (16, -1000, -1024)])
def test_a_voi_table_is_applied_as_pydicom_does(
    bits: int, first: int, intercept: int, photometric: str, vr: str
) -> None:
    """U7. Where there is no window. It was left out in silence."""
    wide = SCAN.astype("<u2") * 16
    table = (np.linspace(1, 0, 3000) ** 2 * (2**bits - 1)).astype("<u2")
    several = [voi_table(table, first=first, bits=bits, vr=vr), voi_table(table[::-1].copy(), bits=bits)]
    data = dicom(wide, VOILUTSequence=several, RescaleIntercept=intercept, PhotometricInterpretation=photometric)
    oracle = apply_voi(wide.astype(np.int32) + intercept, pydicom.dcmread(io.BytesIO(data))) / (2**bits - 1) * 255
    image = decode_image(data)
    shown = oracle if photometric == "MONOCHROME2" else 255 - oracle
    np.testing.assert_allclose(image.grey.astype(float), shown, atol=0.51)
    assert ImageWarning.WINDOWED in image.warnings


def test_a_voi_table_that_begins_in_the_upper_half_of_unsigned_values_begins_there() -> None:
    """U7. 40,000 is no -25,536 where no value is negative."""
    wide = SCAN.astype("<u2") * 256
    table = (np.linspace(0, 1, 20_000) * 65_535).astype("<u2")
    data = dicom(wide, VOILUTSequence=[voi_table(table, first=40_000)])
    oracle = apply_voi(wide, pydicom.dcmread(io.BytesIO(data))) / 65_535 * 255
    np.testing.assert_allclose(decode_image(data).grey.astype(float), oracle, atol=0.51)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_voi_table_of_bytes_is_applied(syntax: UID) -> None:
    """U7. pydicom takes its bytes for words."""
    table = np.arange(256, dtype=np.uint8)[::-1]
    packed = table.copy().view("<u2").astype("<u2" if syntax == ExplicitVRLittleEndian else ">u2")
    item = voi_table(packed, bits=8)
    item.LUTDescriptor = [256, 0, 8]
    np.testing.assert_array_equal(decode_image(dicom(SCAN, syntax=syntax, VOILUTSequence=[item])).grey, 255 - SCAN)


def test_a_window_comes_before_a_voi_table_and_a_table_cut_short_is_refused() -> None:
    """U7. PS3.3 C.11.2.1.1: either is a view that may be chosen; the module has always taken the window."""
    table = voi_table(np.arange(65_536)[::-1].astype("<u2"))
    window = {"WindowCenter": 100, "WindowWidth": 50}
    both = decode_image(dicom(SCAN, VOILUTSequence=[table], **window))
    np.testing.assert_array_equal(both.grey, decode_image(dicom(SCAN, **window)).grey)
    table.LUTDescriptor = [0, 0, 3]
    assert "damaged" in refusal(dicom(SCAN, VOILUTSequence=[table]))
    short = voi_table(np.arange(100).astype("<u2"))
    short.LUTDescriptor = [256, 0, 16]
    assert "damaged" in refusal(dicom(SCAN, VOILUTSequence=[short]))


def group(**sequences: dict[str, Any]) -> Dataset:
    """Functional groups: for each sequence the attributes of its only item."""
    outer = Dataset()
    for keyword, values in sequences.items():
        inner = Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        setattr(outer, keyword, [inner])
    return outer


def test_what_functional_groups_say_of_a_frame_is_applied() -> None:
    """U7. PS3.3 C.7.6.16.2.9 and 10; a group of all frames, then one of the frame, over what stands outside."""
    wide = SCAN.astype(np.uint16) * 16
    shared = group(
        FrameVOILUTSequence={"WindowCenter": 900, "WindowWidth": 700},
        PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -50},
    )
    own = [
        Dataset(),
        group(FrameVOILUTSequence={"WindowCenter": 3000, "WindowWidth": 4000, "VOILUTFunction": "SIGMOID"}),
    ]
    data = dicom(
        np.stack([wide, wide]),
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
        WindowCenter=1,
        WindowWidth=2,
    )
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -50}
    first = dicom(wide, **rescale, WindowCenter=900, WindowWidth=700)
    second = dicom(wide, **rescale, WindowCenter=3000, WindowWidth=4000, VOILUTFunction="SIGMOID")
    for frame, alone in enumerate((first, second)):
        np.testing.assert_array_equal(decode_image(data, frame=frame).grey, decode_image(alone).grey)
    attributes = dicom_module.open_dicom(data).attributes
    assert of_frame(attributes, 1).WindowCenter == 3000
    assert attributes.WindowCenter == 1


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_presentation_shape_against_the_photometric_interpretation_is_refused(photometric: str) -> None:
    """U7. PS3.3 C.7.6.1: INVERSE goes with MONOCHROME1, IDENTITY with MONOCHROME2; viewers follow one or the other."""
    plain = decode_image(dicom(SCAN, PhotometricInterpretation=photometric)).grey
    for shape in ("IDENTITY", "INVERSE"):
        data = dicom(SCAN, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
        if (shape == "INVERSE") == (photometric == "MONOCHROME1"):
            np.testing.assert_array_equal(decode_image(data).grey, plain)
        else:
            assert f"{photometric} with Presentation LUT Shape {shape}" in refusal(data)


@pytest.mark.parametrize("presentation", ["COLOR", "MIXED"])
def test_grey_that_a_supplemental_palette_colours_is_refused(presentation: str) -> None:
    """U9. PS3.3 C.7.6.19."""
    colours = palette(8, entries=56, first=200) | {"PhotometricInterpretation": "MONOCHROME2"}
    assert "in colour" in refusal(dicom(SCAN, **colours, PixelPresentation=presentation))
    np.testing.assert_array_equal(decode_image(dicom(SCAN, PixelPresentation="MONOCHROME")).grey, SCAN)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": 7}], ids=["stored", "rescaled"])
@pytest.mark.parametrize("ends", [(-32_768, -32_700), (-32_700, -32_768)], ids=["upward", "downward"])
def test_padding_takes_no_part_in_minimum_and_maximum(
    photometric: str, rescale: dict[str, Any], ends: tuple[int, int]
) -> None:
    """U7. PS3.3 C.7.5.1.1.2; it made the image itself one grey, and is black now."""
    wide = SCAN.astype(np.int16) + 1000
    padded = wide.copy()
    padded[:10], padded[10:12] = -32_768, -32_700
    header = {"PhotometricInterpretation": photometric, **rescale}
    image = decode_image(dicom(padded, **header, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1]))
    wide[:12] = wide[12:].max() if photometric == "MONOCHROME1" else wide[12:].min()
    np.testing.assert_array_equal(image.grey, decode_image(dicom(wide, **header)).grey)
    assert (image.grey[:12] == 0).all()
    nothing_else = dicom(np.full_like(wide, -5), **header, PixelPaddingValue=-5)
    assert ImageWarning.NO_CONTRAST in decode_image(nothing_else).warnings


def test_bits_above_bits_stored_are_not_grey() -> None:
    """U7. Old scanners keep overlays there."""
    wide = SCAN.astype(np.uint16) * 16
    marked = wide | 0x8000
    plain = decode_image(dicom(wide, BitsStored=12, HighBit=11)).grey
    np.testing.assert_array_equal(decode_image(dicom(marked, BitsStored=12, HighBit=11)).grey, plain)


def test_a_constant_frame_is_flagged() -> None:
    """U8."""
    assert ImageWarning.NO_CONTRAST in decode_image(dicom(np.full((64, 64), 500, np.uint16))).warnings


# --- frames ---


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless], ids=lambda uid: f"U10 {uid.name}"
)
@pytest.mark.parametrize("still", [SCAN, COLOURS], ids=["grey", "RGB"])
def test_frames_are_counted_chosen_and_never_the_first_in_silence(syntax: UID, still: np.ndarray) -> None:
    """U10."""
    frames = np.stack([np.roll(still, 9 * number, axis=1) for number in range(4)])
    data = dicom(frames, syntax=syntax, NumberOfFrames=4)
    first = decode_image(data)
    assert (first.frame, first.frames) == (0, 4)
    assert ImageWarning.FIRST_FRAME in first.warnings
    for number in range(4):
        image = decode_image(data, frame=number)
        np.testing.assert_array_equal(image.rgb if still.ndim == 3 else image.grey, frames[number])
        assert ImageWarning.FIRST_FRAME not in image.warnings
    assert "has 4" in refusal(data, frame=4)


# --- what is refused ---

VIDEO = ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107"]
STILL = ["1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.94"]


@pytest.mark.parametrize("number", VIDEO, ids=[f"U14 {UID(number).name}" for number in VIDEO])
def test_a_video_is_refused_by_name(number: str) -> None:
    """U14."""
    problem = refusal(dicom(SCAN, syntax=UID(number)))
    assert "video" in problem
    assert UID(number).name in problem


@pytest.mark.parametrize("number", [*STILL, "1.2.3.4.5"], ids=lambda number: f"U14 {UID(number).name}")
def test_another_transfer_syntax_is_refused_by_name(number: str) -> None:
    """U14."""
    problem = refusal(dicom(SCAN, syntax=UID(number)))
    assert number in problem
    assert UID(number).name in problem


def with_syntax_text(text: bytes) -> bytes:
    data = dicom(SCAN)
    return data.replace(b"1.2.840.10008.1.2.1\0", text.ljust(20, b"\0"))


@pytest.mark.parametrize("text", [b"", b"<b>1.2</b>", b"\xff\xfe", b"1.2\n3"])
def test_a_transfer_syntax_that_is_none_is_not_repeated(text: bytes) -> None:
    """U14."""
    assert refusal(with_syntax_text(text)) == "The DICOM file does not say how its pixels are stored."


@pytest.mark.parametrize("keep", [0.02, 0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_a_file_cut_short_is_refused(syntax: UID, keep: float) -> None:
    """U2."""
    data = dicom(SCAN, syntax=syntax)
    problem = refusal(data[: int(len(data) * keep)])
    assert any(word in problem for word in ("damaged", "cut off", "does not say"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"Rows": 65_535, "Columns": 65_535}, "megapixels", id="U6 65535 x 65535"),
        pytest.param({"Rows": 0}, "Rows", id="U6 zero rows"),
        pytest.param({"Columns": 0}, "Columns", id="U6 zero columns"),
        pytest.param({"Rows": None}, "Rows", id="U6 no rows"),
        pytest.param({"NumberOfFrames": 2**31 - 1}, "frames", id="U6 2^31 frames"),
        pytest.param({"NumberOfFrames": 0}, "NumberOfFrames", id="U6 no frames"),
        pytest.param({"NumberOfFrames": -3}, "NumberOfFrames", id="U6 negative frames"),
        pytest.param({"NumberOfFrames": 3}, "pixels are missing", id="U6 more frames than pixels"),
        pytest.param({"Rows": 5000, "Columns": 5000}, "pixels are missing", id="U6 more rows than pixels"),
        pytest.param({"Rows": 600, "Columns": 64}, "8 times", id="U12 a strip"),
        pytest.param({"Rows": 1, "Columns": 1}, "1 x 1", id="U12 one pixel"),
        pytest.param({"BitsAllocated": 32}, "32 bits", id="32 bits"),
        pytest.param({"BitsAllocated": 1}, "1 bits", id="1 bit"),
        pytest.param({"BitsStored": 12}, "contradicts", id="more bits stored than allocated"),
        pytest.param({"BitsStored": 12, "HighBit": 11}, "contradicts", id="so, and the high bit says the same"),
        pytest.param({"SamplesPerPixel": 3}, "3 x 8 bits", id="three samples of grey"),
        pytest.param({"PhotometricInterpretation": "HSV"}, "HSV", id="HSV"),
        pytest.param({"PhotometricInterpretation": "PALETTE COLOR"}, "palette", id="palette without palette"),
    ],
)
def test_a_header_that_no_image_can_have_is_refused(changes: dict[str, Any], named: str) -> None:
    """U6."""
    assert named in refusal(dicom(SCAN, **changes))


def test_a_header_written_otherwise_than_it_states_is_refused() -> None:
    """Files labelled explicit but written implicit exist; read as labelled, their pixels would shift by 4 bytes."""
    data = dicom(SCAN, syntax=ImplicitVRLittleEndian, DataSetTrailingPadding=bytes(16))
    start = 132 + 12 + struct.unpack("<I", data[140:144])[0]
    other = dicom(SCAN)
    assert "not written in the way" in refusal(
        other[: 132 + 12 + struct.unpack("<I", other[140:144])[0]] + data[start:]
    )


def test_a_cine_cut_short_is_refused_even_where_its_first_frame_is_whole() -> None:
    """U2."""
    frames = np.stack([SCAN] * 3)
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        data = dicom(frames, syntax=syntax, NumberOfFrames=3)
        assert "pixels are missing" in refusal(data[: int(len(data) * 0.8)])


def test_a_report_without_pixels_is_refused() -> None:
    file = pydicom.dcmread(io.BytesIO(dicom(SCAN)))
    del file.PixelData
    buffer = io.BytesIO()
    file.save_as(buffer)
    assert "holds no image" in refusal(buffer.getvalue())


def test_a_file_without_the_dicom_mark_is_refused() -> None:
    """U1."""
    assert "not an image" in refusal(dicom(SCAN)[132:])
    assert "not an image" in refusal(bytes(132) + dicom(SCAN)[132:])


def test_a_deflate_bomb_is_refused_within_200_mb(tmp_path: Path) -> None:
    """U5. 600 MB of zeros in about 600 KB."""
    bomb = dicom_bomb(600)
    assert len(bomb) < 700_000
    [(grown_mb, problem)] = decode_and_measure([bomb], tmp_path)
    assert "unpacks to more than 80 MB" in problem
    assert grown_mb < 200


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(dicom(SCAN, pixel_data=np.stack([SCAN] * 30).tobytes()), "more pixels", id="U10 thirty frames"),
        pytest.param(dicom(SCAN, pixel_data=COLOURS.tobytes()), "more pixels", id="U13 colours under grey"),
        pytest.param(dicom(SCAN, pixel_data=SCAN.astype("<u2").tobytes()), "more pixels", id="U13 16 bits under 8"),
        pytest.param(
            dicom(COLOURS, PhotometricInterpretation="YBR_FULL_422"),
            "more pixels",
            id="U13 chroma of all pixels",
        ),
        pytest.param(
            dicom(SCAN, syntax=RLELossless, pixel_data=encapsulate([RLE_FRAME] * 3)), "holds 3", id="U10 three in RLE"
        ),
        pytest.param(
            dicom(SCAN, syntax=RLELossless, pixel_data=encapsulate([RLE_FRAME] * 3, has_bot=False)),
            "holds 3",
            id="U10 three in RLE, without a table of offsets",
        ),
    ],
)
def test_more_pixels_than_the_header_states_are_refused(data: bytes, why: str) -> None:
    """They were read as noise, or as frame 0."""
    with pytest.raises(InvalidImageError, match=why):
        decode_image(data)


def test_a_padded_file_is_read() -> None:
    np.testing.assert_array_equal(decode_image(dicom(SCAN, pixel_data=SCAN.tobytes() + bytes(20))).grey, SCAN)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_fewer_than_eight_bits_reach_from_black_to_white(photometric: str) -> None:
    """U13. They were shown at half the brightness, MONOCHROME1 never black."""
    header = {"BitsStored": 7, "HighBit": 6, "PhotometricInterpretation": photometric}
    image = decode_image(dicom(SCAN >> 1, **header))
    expected = np.rint((SCAN >> 1) * (255 / 127)).astype(np.uint8)
    np.testing.assert_array_equal(image.grey, 255 - expected if photometric == "MONOCHROME1" else expected)
    assert ImageWarning.WINDOWED in image.warnings


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param(lambda whole: struct.pack("<16L", 2, 64, 80, *[0] * 13) + whole[64:], id="too many"),
        pytest.param(lambda whole: struct.pack("<16L", 1, 20, *[0] * 14) + whole[64:], id="into their own list"),
        pytest.param(lambda whole: whole[:64] + b"\x80" * 1000 + whole[64:], id="a thousand bytes that mean nothing"),
    ],
)
def test_rle_segments_out_of_order_are_refused_unread(segments: Callable[[bytes], bytes]) -> None:
    """X1: half a megabyte of them kept the server busy for a second."""
    with pytest.raises(InvalidImageError, match="damaged"):
        decode_image(dicom(SCAN, syntax=RLELossless, pixel_data=encapsulate([segments(RLE_FRAME)])))


def test_an_rle_bomb_is_refused_without_being_unpacked(tmp_path: Path) -> None:
    """U5. Runs of 128 in 10 MB would make 640 MB for a frame of 7 KB."""
    segment = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * 5_000_000
    bomb = dicom(SCAN, syntax=RLELossless, pixel_data=encapsulate([segment]))
    [(grown_mb, problem)] = decode_and_measure([bomb], tmp_path)
    assert "too many pixels" in problem
    assert grown_mb < 200


def test_a_header_of_half_a_million_items_is_refused_unread(tmp_path: Path) -> None:
    """U5. 4 MB of empty regions took pydicom 16 s and 600 MB."""
    plain = dicom(SCAN)
    empty_items = b"\xfe\xff\x00\xe0\0\0\0\0" * 480_000
    element = struct.pack("<HH2sHL", 0x18, 0x6011, b"SQ", 0, len(empty_items)) + empty_items
    at = plain.index(struct.pack("<HH2s", 0x28, 0x02, b"US"))
    [(grown_mb, problem)] = decode_and_measure([plain[:at] + element + plain[at:]], tmp_path)
    assert "more than 20000 items" in problem
    assert grown_mb < 30


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=["little", "big"])
def test_items_of_a_header_are_counted_in_either_byte_order(syntax: UID, monkeypatch: pytest.MonkeyPatch) -> None:
    """U5. Before pydicom makes an object of each."""
    monkeypatch.setattr(dicom_module, "MAX_HEADER_ITEMS", 4)
    few, many = ([region()] * count for count in (4, 5))
    assert decode_image(dicom(SCAN, syntax=syntax, SequenceOfUltrasoundRegions=few)).format == "DICOM"
    assert "more than 4 items" in refusal(dicom(SCAN, syntax=syntax, SequenceOfUltrasoundRegions=many))


def test_impossible_sizes_are_refused_without_allocating(tmp_path: Path) -> None:
    """U6."""
    changes: list[dict[str, Any]] = [{"Rows": 65_535, "Columns": 65_535}, {"NumberOfFrames": 2**31 - 1}, {"Rows": 0}]
    for grown_mb, problem in decode_and_measure([dicom(SCAN, **change) for change in changes], tmp_path):
        assert problem != "none"
        assert grown_mb < 30


# --- calibration ---


def test_a_region_in_centimetres_is_given_in_millimetres() -> None:
    """U15. PS3.3 C.8.5.5; the last pixel is inside in DICOM, outside here."""
    image = decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region()]))
    assert len(image.regions) == 1
    found = image.regions[0]
    assert (found.left, found.top, found.right, found.bottom) == (10, 5, 60, 55)
    assert (found.column_mm, found.row_mm) == (pytest.approx(0.2), pytest.approx(0.3))
    assert ImageWarning.NOT_CALIBRATED not in image.warnings


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"PhysicalUnitsXDirection": 4}, id="U15 seconds, an M-mode"),
        pytest.param({"PhysicalUnitsYDirection": 7}, id="U15 cm/s, a Doppler trace"),
        pytest.param({"PhysicalUnitsXDirection": None}, id="U15 no units"),
        pytest.param({"PhysicalDeltaX": 0.0}, id="U15 zero"),
        pytest.param({"PhysicalDeltaY": 0.0}, id="U15 zero downward"),
        pytest.param({"PhysicalDeltaX": float("nan")}, id="U15 not a number"),
        pytest.param({"PhysicalDeltaY": float("inf")}, id="U15 infinite"),
        pytest.param({"PhysicalDeltaY": 40.0}, id="U15 a pixel of 40 cm"),
        pytest.param({"PhysicalDeltaY": None}, id="U15 no delta"),
        pytest.param({"RegionLocationMinX0": 70}, id="U15 no area"),
        pytest.param({"RegionLocationMinY0": 900, "RegionLocationMaxY1": 950}, id="U15 beyond the image"),
        pytest.param({"RegionLocationMaxY1": None}, id="U15 no corner"),
        pytest.param({"RegionSpatialFormat": None}, id="U15 does not say that it is an image"),
        pytest.param({"RegionDataType": 3}, id="U15 a spectrum in centimetres"),
    ],
)
def test_a_region_that_makes_no_sense_is_left_out(changes: dict[str, Any]) -> None:
    """U15. Pixels are better than a wrong millimetre; the good region beside it stays."""
    image = decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(**changes)]))
    assert image.regions == ()
    assert ImageWarning.NOT_CALIBRATED in image.warnings
    elsewhere = {"RegionLocationMinX0": 62, "RegionLocationMaxX1": 90}
    both = decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(**changes), region(**elsewhere)]))
    assert [found.left for found in both.regions] == [62]


@pytest.mark.parametrize("spatial_format", [0, 2, 3, 4, 5])
def test_only_a_two_dimensional_region_calibrates(spatial_format: int) -> None:
    """U15. PS3.3 C.8.5.5.1.1: none, M-mode, spectrum, trace, graphics."""
    assert decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(RegionSpatialFormat=1)])).regions
    assert not decode_image(
        dicom(SCAN, SequenceOfUltrasoundRegions=[region(RegionSpatialFormat=spatial_format)])
    ).regions


def test_a_region_that_another_kind_overlaps_calibrates_nothing() -> None:
    """U15. Whether a pixel of both is tissue or M-mode would be a guess."""
    trace = region(PhysicalUnitsXDirection=4, RegionLocationMinX0=50, RegionLocationMaxX1=90)
    assert decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(), trace])).regions == ()


def test_a_region_of_another_kind_that_only_borders_on_an_image_leaves_it_its_millimetres() -> None:
    """U15. As on a split screen of B-mode and M-mode: the last pixel of one, then the first of the other."""
    trace = {"PhysicalUnitsXDirection": 4, "RegionLocationMaxX1": 90}
    for first_column, remaining in ((60, 1), (59, 0)):
        beside = region(**trace, RegionLocationMinX0=first_column)
        assert len(decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(), beside])).regions) == remaining
    for first_row, remaining in ((55, 1), (54, 0)):
        below = region(PhysicalUnitsXDirection=4, RegionLocationMinY0=first_row, RegionLocationMaxY1=70)
        assert len(decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(), below])).regions) == remaining


@pytest.mark.parametrize("begins", [{"RegionLocationMinX0": 96}, {"RegionLocationMinY0": 72}], ids=["right", "below"])
def test_a_region_of_another_kind_that_begins_beyond_the_image_is_in_nobodys_way(begins: dict[str, int]) -> None:
    """U15. The scan has 96 columns and 72 rows; where the region ends is not said."""
    ends = {"RegionLocationMaxX1": None, "RegionLocationMaxY1": None}
    trace = region(PhysicalUnitsXDirection=4, **begins, **ends)
    assert len(decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(), trace])).regions) == 1


def test_a_colour_box_is_calibrated_as_the_image_it_lies_in() -> None:
    """U15. PS3.3 C.8.5.5.1.2: data type 2, colour flow; else it would take the millimetres of the image away."""
    box = region(RegionDataType=2, RegionLocationMinX0=20, RegionLocationMaxX1=40)
    found = decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(), box])).regions
    assert [one.left for one in found] == [10, 20]


def test_a_region_of_another_kind_that_may_lie_anywhere_lies_in_the_way_of_all() -> None:
    """U15."""
    trace = region(PhysicalUnitsXDirection=4, RegionLocationMaxX1=None)
    assert decode_image(dicom(SCAN, SequenceOfUltrasoundRegions=[region(), trace])).regions == ()


def test_regions_that_are_no_sequence_calibrate_nothing() -> None:
    """U15."""
    plain = dicom(SCAN)
    element = struct.pack("<HH2sH", 0x18, 0x6011, b"LO", 4) + b"none"
    at = plain.index(struct.pack("<HH2s", 0x28, 0x02, b"US"))
    assert decode_image(plain[:at] + element + plain[at:]).regions == ()


def test_a_region_is_cut_to_the_image_and_may_run_backwards() -> None:
    """U15."""
    data = dicom(SCAN, SequenceOfUltrasoundRegions=[region(RegionLocationMaxX1=96, PhysicalDeltaY=-0.03)])
    [found] = decode_image(data).regions
    assert isinstance(found, CalibratedRegion)
    assert found.right == SCAN.shape[1]
    assert found.row_mm == pytest.approx(0.3)


def test_pixel_spacing_alone_calibrates_nothing() -> None:
    """U15. It is not defined for ultrasound."""
    image = decode_image(dicom(SCAN, PixelSpacing=[0.1, 0.1], ImagerPixelSpacing=[0.1, 0.1]))
    assert image.regions == ()
    assert ImageWarning.NOT_CALIBRATED in image.warnings


@pytest.mark.parametrize(("ratio", "is_warned"), [(["2", "1"], True), (["1", "1"], False), (["7", "7"], False)])
def test_pixels_that_are_not_square_are_warned_of(ratio: list[str], is_warned: bool) -> None:
    """U15. Pixel Aspect Ratio (0028,0034), PS3.3 C.7.6.3.1.7."""
    assert (ImageWarning.NOT_SQUARE in decode_image(dicom(SCAN, PixelAspectRatio=ratio)).warnings) == is_warned
    assert ImageWarning.NOT_SQUARE not in decode_image(dicom(SCAN)).warnings


def test_too_much_before_the_pixels_is_called_so() -> None:
    """U2. The file is whole: it is not told to be cut off."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(SCAN)))
    dataset.private_block(0x0019, "MADE FOR A TEST", create=True).add_new(1, "OB", bytes(5_000_000))
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert "more than 4 MB before its pixels" in refusal(buffer.getvalue())


# --- privacy ---


@pytest.mark.parametrize(
    ("says", "is_warned"), [("YES", True), (" YES", True), ("yes", True), ("Y", True), ("NO", False), ("", False)]
)
def test_text_burned_into_the_pixels_is_warned_of(says: str, is_warned: bool) -> None:
    """U16. Burned In Annotation (0028,0301), PS3.3 C.7.6.1."""
    warnings = decode_image(dicom(SCAN, BurnedInAnnotation=says)).warnings
    assert (ImageWarning.BURNED_IN in warnings) == is_warned
    assert ImageWarning.BURNED_IN not in decode_image(dicom(SCAN)).warnings


def test_patient_data_is_never_parsed_logged_or_named(caplog: pytest.LogCaptureFixture) -> None:
    """U16."""
    caplog.set_level(logging.DEBUG)
    data = dicom(SCAN, PatientBirthDate="19700101", InstitutionName="SECRET CLINIC")
    assert b"SECRET" in data
    assert "SECRET" not in str(dicom_module.open_dicom(data).attributes)
    decode_image(data)
    for damaged in (data[:-10], dicom(SCAN, Rows=0), dicom(SCAN, syntax=UID(VIDEO[0]))):
        assert "SECRET" not in refusal(damaged)
    assert "SECRET" not in caplog.text


# --- anything at all ---

SEEDS = [
    dicom(SCAN, SequenceOfUltrasoundRegions=[region()]),
    dicom(SCAN, syntax=ImplicitVRLittleEndian, SequenceOfUltrasoundRegions=[region()]),
    dicom(COLOURS, syntax=RLELossless),
    jpeg_dicom(save(COLOURS, "JPEG"), pixels=COLOURS, PhotometricInterpretation="YBR_FULL_422"),
    dicom(SCAN, syntax=DeflatedExplicitVRLittleEndian),
    dicom(SCAN.astype(np.uint16) * 16, BitsStored=12, HighBit=11, WindowCenter=1000, WindowWidth=900, RescaleSlope=2),
    dicom(np.stack([SCAN] * 3), NumberOfFrames=3),
]


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, derandomize=True, max_examples=500, suppress_health_check=list(HealthCheck))
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(128, 1200), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.just(1.0) | st.floats(0, 1),
    frame=st.none() | st.integers(0, 3),
)
def test_any_damaged_header_is_decoded_or_refused(
    seed: bytes, changes: list[tuple[int, int]], keep: float, frame: int | None
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[min(place, len(data) - 1)] = value
    try:
        image = decode_image(bytes(data[: int(len(data) * keep)]), frame=frame)
    except InvalidImageError:
        return
    assert image.grey.dtype == np.uint8


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=list(HealthCheck))
@given(tail=st.binary(max_size=300), meta=st.booleans())
def test_any_bytes_behind_the_mark_are_decoded_or_refused(tail: bytes, meta: bool) -> None:
    prefix = SEEDS[0][: SEEDS[0].index(struct.pack("<HH2s", 8, 0x16, b"UI"))] if meta else bytes(128) + b"DICM"
    with pytest.raises(InvalidImageError):
        decode_image(prefix + tail)


def test_free_text_in_the_place_of_a_kind_of_pixels_is_not_told() -> None:
    """U16: a header may hold anything anywhere."""
    with pytest.raises(InvalidImageError) as refusal:
        decode_image(dicom(SCAN, PhotometricInterpretation="MUSTER ANNA 1959"))
    assert "MUSTER" not in f"{refusal.value} {refusal.value.problem}"
    with pytest.raises(InvalidImageError, match="'YBR_PARTIAL_420'"):
        decode_image(dicom(SCAN, PhotometricInterpretation="YBR_PARTIAL_420"))
