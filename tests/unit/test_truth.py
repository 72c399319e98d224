"""Reference masks as they come from people: merged, read and explained, never guessed in silence."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from files import png, png_chunk, tiff, tiff_chain, tiled_tiff
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from busi_core.comparison import match_lesions
from busi_core.data.records import read_busi, read_truth
from busi_core.data.sources import SourceFile, list_uploads
from busi_core.data.truth import Reference, read_mask, read_reference
from busi_core.errors import InvalidImageError
from busi_core.imaging.decode import decode_image
from busi_core.settings import read_settings
from busi_core.types import Diagnosis

HEIGHT, WIDTH = 70, 90
SQUARE = np.zeros((HEIGHT, WIDTH), np.bool_)
SQUARE[20:40, 30:60] = True


def encoded(pixels: NDArray[np.generic], kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def file(name: str, data: bytes) -> SourceFile:
    return SourceFile(name, len(data), lambda: data)


def rows_of_16_bits(*channels: NDArray[np.generic]) -> bytes:
    """Rows of a PNG of 16 bits a channel, unfiltered."""
    return b"".join(b"\0" + row.tobytes() for row in np.stack(channels, axis=-1).astype(">u2"))


def grey(inside: int, outside: int = 0, dtype: type = np.uint8) -> NDArray[np.generic]:
    return np.where(SQUARE, inside, outside).astype(dtype)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(encoded(grey(255)), "", id="8 bits"),
        pytest.param(encoded(grey(255), mode="1"), "", id="1 bit, as most of BUSI"),
        pytest.param(encoded(grey(255), mode="RGB"), "", id="RGB, as BUSI's normals"),
        pytest.param(encoded(grey(255), mode="RGBA"), "", id="RGBA with alpha 255 everywhere"),
        pytest.param(encoded(grey(255), mode="P"), "", id="palette"),
        pytest.param(encoded(grey(255), "BMP"), "", id="BMP"),
        pytest.param(encoded(grey(65535, dtype=np.uint16)), "", id="16 bits, two values"),
        pytest.param(tiff(grey(2**32 - 1, dtype=np.uint32)), "", id="32 bits, two values"),
        pytest.param(tiff(grey(0, 65535, np.uint16), photometric=0), "", id="16 bits, white is zero"),
        pytest.param(tiff(grey(0, 255), photometric=0), "", id="8 bits, white is zero"),
        pytest.param(tiff(grey(255).astype(">f4"), is_packed=True), "", id="floats, big endian, deflated"),
        pytest.param(encoded(grey(1)), "value 1 was read as lesion", id="a label map of 0 and 1"),
        pytest.param(encoded(grey(255), "JPEG"), "above 127 of 255 was read as lesion", id="JPEG with its ringing"),
        pytest.param(encoded(grey(200, 40)), "above 127 of 255 was read as lesion", id="two greys, none black"),
        pytest.param(encoded(grey(128, 127)), "above 127 of 255 was read as lesion", id="the two greys at the cut"),
    ],
)
def test_masks_are_read_and_what_is_not_black_and_white_is_said(data: bytes, said: str) -> None:
    mask, notes = read_mask(data, HEIGHT, WIDTH)
    assert np.array_equal(mask, SQUARE)
    assert said in " ".join(notes)
    assert bool(notes) == bool(said)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(encoded(grey(255)[:, 1:]), "The mask is 89 x 70 pixels, its scan 90 x 70.", id="another size"),
        pytest.param(b"no picture at all", "cannot be read as a picture", id="text"),
        pytest.param(encoded(grey(255))[:-30], "cannot be read as a picture", id="cut off"),
        pytest.param(b"", "cannot be read as a picture", id="empty"),
        pytest.param(
            encoded(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)),
            "more than 8 bits",
            id="16 bits of many values",
        ),
        pytest.param(
            png(WIDTH, HEIGHT, bits=16, colour_type=2, rows=rows_of_16_bits(*[grey(1)] * 3)),
            "more than 8 bits a channel",
            id="16-bit colour of 0 and 1, of which the high byte is 0",
        ),
        pytest.param(
            png(WIDTH, HEIGHT, bits=16, colour_type=4, rows=rows_of_16_bits(grey(255), grey(65535, 65535, np.uint16))),
            "more than 8 bits a channel",
            id="16-bit grey of 0 and 255 with an opaque alpha",
        ),
        pytest.param(
            tiff(np.dstack([grey(65535, dtype=np.uint16)] * 3), has_planes=True), "separate planes", id="16-bit planes"
        ),
        pytest.param(
            encoded(grey(255), "TIFF", compression="packbits", tiffinfo={317: 2}), "predictor", id="differences"
        ),
        pytest.param(tiff(grey(-1, dtype=np.int8)), "signed numbers of 8 bits", id="signed bytes"),
        pytest.param(
            tiff(np.where(SQUARE, np.nan, 0).astype(np.float32)), "not numbers", id="NaN, which is not above 0"
        ),
        pytest.param(tiff(np.where(SQUARE, np.inf, 0).astype(np.float32)), "not numbers", id="infinity"),
        pytest.param(tiff(grey(0, 1, np.float32), photometric=0), "black cannot be told", id="floats, white is zero"),
        pytest.param(
            tiff(grey(0, 1, np.uint16), photometric=0), "what is lesion cannot be told", id="white and almost"
        ),
    ],
)
def test_what_cannot_be_a_mask_of_this_scan_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidImageError, match=problem):
        read_mask(data, HEIGHT, WIDTH)


def test_a_mask_turned_by_exif_is_read_upright_as_its_scan_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask, _ = read_mask(encoded(np.rot90(grey(255)), exif=exif), HEIGHT, WIDTH)
    assert np.array_equal(mask, SQUARE)


def test_a_mask_turned_by_a_byte_is_read_upright_as_its_scan_is() -> None:
    """U11. EXIF says SHORT."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 1, 1, 6, 0)
    mask, _ = read_mask(encoded(np.rot90(grey(255)), exif=exif), HEIGHT, WIDTH)
    assert np.array_equal(mask, SQUARE)


def test_a_mask_of_four_components_without_adobes_mark_is_refused() -> None:
    """U9. It would be inside out."""
    inks = encoded(grey(255), "JPEG", mode="CMYK")
    at = inks.index(b"\xff\xee")
    with pytest.raises(InvalidImageError, match="without Adobe's mark"):
        read_mask(inks[:at] + inks[at + 16 :], HEIGHT, WIDTH)


def test_a_turned_tiff_is_read_upright_and_measured_upright() -> None:
    """Pillow turns a TIFF itself, size and pixels."""
    turned = {"tiffinfo": {0x0112: 6}}
    mask, _ = read_mask(encoded(np.rot90(grey(255)), "TIFF", **turned), HEIGHT, WIDTH)
    assert np.array_equal(mask, SQUARE)
    with pytest.raises(InvalidImageError, match=f"The mask is {HEIGHT} x {WIDTH} pixels"):
        read_mask(encoded(grey(255), "TIFF", **turned), HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_several_pictures_in_one_file_are_no_mask_and_are_not_counted(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages of a TIFF are a chain, walked anew for each that is asked for: 128,000 took four minutes."""
    page = Image.fromarray(grey(255))
    buffer = io.BytesIO()
    page.save(buffer, kind, save_all=True, append_images=[Image.fromarray(grey(0, 255)) for _ in range(4)])
    asked: list[int] = []
    seek = TiffImagePlugin.TiffImageFile.seek
    monkeypatch.setattr(
        TiffImagePlugin.TiffImageFile, "seek", lambda self, frame: (asked.append(frame), seek(self, frame))[1]
    )
    with pytest.raises(InvalidImageError, match="several pictures"):
        read_mask(buffer.getvalue(), HEIGHT, WIDTH)
    assert set(asked) <= {0, 1}


def test_a_huge_mask_is_refused_from_its_header_alone() -> None:
    bomb = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(bomb, "PNG")
    with pytest.raises(InvalidImageError, match="13000 x 13000"):
        read_mask(bomb.getvalue(), HEIGHT, WIDTH)


def test_a_mask_of_another_size_is_refused_before_its_pixels_are_looked_at() -> None:
    """U5. It has none: to find the orientation of a PNG, Pillow decodes all of it."""
    with pytest.raises(InvalidImageError, match="5000 x 4000"):
        read_mask(png(5000, 4000), HEIGHT, WIDTH)


def test_a_jpeg_mask_of_a_thousand_passes_is_refused_unread() -> None:
    """X1. As a scan is: each pass of ten bytes made Pillow go over the whole image once more."""
    data = encoded(grey(255), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(InvalidImageError, match=r"1[0-9]{3} passes"):
        read_mask(data[:last] + data[last:-2] * 1000 + b"\xff\xd9", HEIGHT, WIDTH)
    assert np.array_equal(read_mask(data, HEIGHT, WIDTH)[0], SQUARE)


@pytest.mark.parametrize(("kind", "part"), [("JPEG", b"\xff\xe5\0\2"), ("PNG", png_chunk(b"prVt", b""))])
def test_a_mask_of_millions_of_tiny_parts_is_refused_before_pillow_keeps_them(
    kind: str, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U5."""
    data = encoded(grey(255), kind)
    start = 2 if kind == "JPEG" else 33
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    with pytest.raises(InvalidImageError, match=r"far more segments|more than 10000 chunks"):
        read_mask(data[:start] + part * 20_000 + data[start:], HEIGHT, WIDTH)


def test_a_mask_of_a_huge_directory_is_refused_before_pillow_goes_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """U5."""
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))
    with pytest.raises(InvalidImageError, match="far more entries"):
        read_mask(tiff_chain(2, 60_000), HEIGHT, WIDTH)


def test_a_mask_drawn_in_transparency_or_inside_out_is_pointed_out() -> None:
    drawn = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    drawn[..., 3] = grey(255)
    mask, notes = read_mask(encoded(drawn), HEIGHT, WIDTH)
    assert not mask.any()
    assert "transparency was not read" in notes[0]
    assert "inside out" in read_mask(encoded(grey(0, 255)), HEIGHT, WIDTH)[1][0]


def test_several_files_are_merged() -> None:
    parts = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(2)]
    parts[0][20:40, 30:45] = 255
    parts[1][20:40, 45:60] = 255
    files = [file(f"benign (4)_mask{n}.png", encoded(part)) for n, part in zip(("", "_1"), parts, strict=True)]
    reference = read_reference(files, HEIGHT, WIDTH)
    assert reference.mask is not None
    assert np.array_equal(reference.mask, SQUARE)
    assert reference.notes == ("2 mask files, merged.",)


def files_of(*boxes: tuple[int, int, int, int]) -> list[SourceFile]:
    """A mask file for each box: top, bottom, left, right."""
    files = []
    for number, (top, bottom, left, right) in enumerate(boxes):
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[top:bottom, left:right] = 255
        files.append(file(f"benign (4)_mask_{number}.png", encoded(pixels)))
    return files


@pytest.mark.parametrize(
    ("boxes", "pixels"),
    [
        pytest.param([(20, 40, 30, 45), (20, 40, 45, 60)], {1: 300, 2: 300}, id="side by side"),
        pytest.param([(20, 40, 30, 46), (20, 40, 45, 50)], {1: 300, 2: 100}, id="a shared border goes to the smaller"),
        pytest.param([(20, 40, 45, 50), (20, 40, 30, 46)], {1: 100, 2: 300}, id="whichever file comes first"),
        pytest.param([(20, 40, 30, 45), (22, 38, 32, 43)], {1: 300}, id="the second inside the first: one lesion"),
        pytest.param([(22, 38, 32, 43), (20, 40, 30, 45)], {1: 300}, id="the first inside the second"),
        pytest.param([(20, 40, 30, 40), (20, 40, 42, 50), (20, 40, 30, 50)], {1: 400}, id="a third that spans both"),
        pytest.param([(20, 40, 30, 40), (20, 40, 42, 50), (20, 40, 30, 48)], {1: 400}, id="or most of both"),
    ],
)
def test_each_file_is_a_lesion_of_its_own_unless_it_draws_another_once_more(
    boxes: list[tuple[int, int, int, int]], pixels: dict[int, int]
) -> None:
    reference = read_reference(files_of(*boxes), HEIGHT, WIDTH)
    assert reference.mask is not None
    assert reference.annotation is not None
    assert np.array_equal(reference.annotation > 0, reference.mask)
    numbers, counts = np.unique(reference.annotation[reference.mask], return_counts=True)
    assert dict(zip(numbers.tolist(), counts.tolist(), strict=True)) == pixels


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "lesions"), [("benign (58)", 1), ("benign (181)", 2), ("benign (195)", 3)])
def test_touching_lesions_of_busi_stay_apart(data_root: Path, name: str, lesions: int) -> None:
    """Overlaps of their files: all of the smaller (drawn twice), 7 pixels, 19 pixels."""
    record = next(one for one in read_busi(data_root / "busi") if one.name == name)
    with Image.open(record.image) as picture:
        width, height = picture.size
    reference = read_reference(list_uploads((m.name, m.read_bytes()) for m in record.masks), height, width)
    assert reference.mask is not None
    assert np.array_equal(reference.mask, read_truth(record, height, width))
    assert len(match_lesions(reference.mask, reference.mask, reference.annotation).lesions) == lesions


def test_one_bad_file_of_two_leaves_no_reference_rather_than_half_of_one() -> None:
    files = [file("a_mask.png", encoded(grey(255))), file("a_mask_1.png", encoded(grey(255)[1:]))]
    reference = read_reference(files, HEIGHT, WIDTH)
    assert reference.mask is None
    assert reference.problem is not None
    assert reference.problem.startswith("a_mask_1.png: The mask is 90 x 69 pixels")
    assert not reference.missing


def test_no_file_is_a_missing_reference_unless_the_breast_is_normal() -> None:
    nothing = read_reference([], HEIGHT, WIDTH)
    assert nothing.mask is None
    assert nothing.missing
    normal = read_reference([], HEIGHT, WIDTH, diagnosis=Diagnosis.NORMAL)
    assert normal.mask is not None
    assert not normal.mask.any()
    assert "no lesion" in normal.notes[0]


def test_a_map_of_labels_is_not_read_as_no_lesion() -> None:
    """0 outside, 1 a lesion, 2 its border: by brightness all of it would be black."""
    labels = grey(1)
    labels[20:22, 30:60] = 2
    reference = read_reference([file("a_mask.png", encoded(labels))], HEIGHT, WIDTH)
    assert reference.mask is None
    assert reference.problem is not None
    assert "3 different values, none above 127 of 255, as a map of labels" in reference.problem


@pytest.mark.parametrize("diagnosis", [Diagnosis.BENIGN, Diagnosis.MALIGNANT])
def test_an_empty_mask_of_a_class_with_a_lesion_is_no_reference(diagnosis: Diagnosis) -> None:
    """It would count the scan among the normals, and a lesion that was found as a mask on a normal."""
    empty = file("a_mask.png", encoded(grey(0)))
    reference = read_reference([empty], HEIGHT, WIDTH, diagnosis=diagnosis)
    assert reference.mask is None
    assert reference.problem == f"The class is {diagnosis}, and no lesion is drawn in its mask. Correct one of the two."
    assert not reference.missing
    for known in (None, Diagnosis.NORMAL):
        assert read_reference([empty], HEIGHT, WIDTH, diagnosis=known).mask is not None


def test_a_tile_far_larger_than_its_mask_is_refused_before_it_is_unpacked() -> None:
    """U5."""
    with pytest.raises(InvalidImageError, match="tiles far larger"):
        read_mask(tiled_tiff(30_000), 72, 96)


def test_a_reference_has_either_a_mask_or_a_problem() -> None:
    with pytest.raises(ValueError, match="either"):
        Reference(None, (), None)
    with pytest.raises(ValueError, match="annotation"):
        Reference(SQUARE, (), None)


@pytest.mark.realdata
def test_every_busi_mask_is_read_as_training_reads_it() -> None:
    folder = read_settings().data_root / "busi"
    if not folder.is_dir():
        pytest.skip(f"no scans under {folder}")
    for record in read_busi(folder)[::7]:
        image = decode_image(record.image.read_bytes())
        files = [file(path.name, path.read_bytes()) for path in record.masks]
        reference = read_reference(files, image.height, image.width)
        assert reference.mask is not None, record.id
        assert np.array_equal(reference.mask, read_truth(record, image.height, image.width)), record.id
