"""PNG files as others read them: the same pixels, and nothing that travels along."""

import io
import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from busi_core.imaging.encode import encode_png, mask_png
from busi_core.types import Mask

SIDES = st.integers(1, 40)
PICTURES = st.one_of(
    arrays.arrays(np.uint8, st.tuples(SIDES, SIDES)), arrays.arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3)))
)


@given(PICTURES)
def test_pillow_and_opencv_read_the_pixels_that_were_written(pixels: NDArray[np.uint8]) -> None:
    data = encode_png(pixels)
    assert np.array_equal(np.array(opened(data)), pixels)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read if pixels.ndim == 2 else read[..., ::-1], pixels)


def test_a_picture_that_is_a_view_of_another_is_written_as_it_looks() -> None:
    """Cut out, turned or with its colours the other way round, as OpenCV's are."""
    whole = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    for view in (whole[10:20, 5:40], whole.transpose(1, 0, 2), whole[..., ::-1], whole[..., 1]):
        assert np.array_equal(np.array(opened(encode_png(view))), view)


def test_a_png_holds_pixels_and_nothing_else() -> None:
    """U3, U16: no text, time or profile travels along."""
    picture = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    data = encode_png(picture)
    assert set(re.findall(rb"(IHDR|IDAT|IEND|tEXt|zTXt|iTXt|eXIf|tIME|iCCP|pHYs)", data)) == {b"IHDR", b"IDAT", b"IEND"}
    assert not opened(data).info


def test_a_grey_png_stays_grey() -> None:
    assert opened(encode_png(np.zeros((10, 10), np.uint8))).mode == "L"


@given(arrays.arrays(np.bool_, st.tuples(SIDES, SIDES)))
def test_a_mask_file_is_8_bits_of_0_and_255_at_the_scans_size(mask: Mask) -> None:
    picture = opened(mask_png(mask))
    assert picture.mode == "L"
    assert np.array_equal(np.array(picture), np.where(mask, 255, 0))


def test_a_picture_is_no_larger_than_opencv_writes_it() -> None:
    """Speckle on a gradient, which no two lines share; a mask, whose lines are all alike."""
    rng = np.random.default_rng(0)
    speckle = np.clip(np.linspace(40, 200, 400)[:, None] + rng.normal(0, 12, (400, 600)), 0, 255).astype(np.uint8)
    lesion = np.zeros((400, 600), np.bool_)
    lesion[100:200, 150:400] = True
    assert len(encode_png(speckle)) < 1.1 * len(cv2.imencode(".png", speckle)[1])
    assert len(mask_png(lesion)) < 1.1 * len(cv2.imencode(".png", lesion.astype(np.uint8) * 255)[1])


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((4, 4), np.uint16), np.zeros(4, np.uint8)],
    ids=["four channels", "no line", "16 bits", "a line"],
)
def test_what_is_no_picture_of_8_bits_is_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_png(pixels)


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture
