"""Mask files of one scan as they come -> its reference mask, or the reason why there is none.

    mask files + size of the scan --read_reference--> Reference (mask, notes, problem)

What each kind of mask file becomes. A TIFF whose zero is white is turned round first. Alpha is never read: two masks of
BUSI have an alpha of 255 everywhere.

| pixels                                         | lesion is                        | said |
|------------------------------------------------|----------------------------------|------|
| 8 bits, black and one other value >= 128       | the other value                  | no   |
| any depth, black and one other, darker value   | the other value                  | yes  |
| 8 bits, more values, also of several colours   | brightest channel above 127      | yes  |
| 8 bits, more values, none above 127            | refused: a map of labels         |      |
| more than 8 bits with more than two values     | refused                          |      |
| more than 8 bits in colour or beside an alpha  | refused: Pillow drops a byte     |      |
| floats, some no number, or with zero for white | refused                          |      |
| another size than the scan                     | refused                          |      |

The union of a scan's mask files is its reference. Where one of them cannot be read there is no reference at all: a
part of the truth would make a right reading look wrong; nor where the scan is of a class with a lesion and none is
drawn. Which file a pixel comes from is kept: two lesions that were
drawn in a file each stay two where they touch, as in BUSI's benign (181) and benign (195).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from busi_core.data.sources import SourceFile
from busi_core.errors import InvalidImageError
from busi_core.imaging.jpeg_markers import require_few_scans
from busi_core.imaging.limits import DAMAGE_ERRORS
from busi_core.imaging.pictures import (
    UPRIGHT,
    WIDE_MODES,
    loses_low_byte,
    orientation,
    require_few_parts,
    require_known_inks,
)
from busi_core.imaging.tiff import is_unsigned, is_white_zero, prepare_tiff
from busi_core.imaging.whole import require_whole
from busi_core.types import Diagnosis, Mask

Annotation: TypeAlias = NDArray[np.uint8]
MASK_FORMATS = ("PNG", "BMP", "TIFF", "JPEG", "WEBP")
MAX_MASKS = 64  # of one scan; BUSI's largest has 3
CUT_GREY = 127  # of 255; as `data.records.read_truth`
EXPORT_REMEDY = "Export the mask as a black and white PNG at the size of its scan."
MOSTLY_LESION = 0.5  # share of the image from which a mask may have been inverted
SAME_LESION = 0.5  # share of the smaller of two files' lesions that both hold, from which they are one lesion


@dataclass(frozen=True, eq=False)
class Reference:
    """What the mask files of one scan say.

    Attributes:
        mask: (height, width) bool, the union; all False says 'no lesion'. None when `problem` says why.
        notes: How a file was read where it was not plain black and white, and what looks odd; one sentence each.
        problem: One sentence with its remedy: why there is no reference. None when there is one.
        missing: There is none because no file came, and not because one is wrong.
        annotation: (height, width) which of the files each lesion pixel comes from, from 1; 0 outside. None without
            a mask.
    """

    mask: Mask | None
    notes: tuple[str, ...]
    problem: str | None
    missing: bool = False
    annotation: Annotation | None = None

    def __post_init__(self) -> None:
        if (self.mask is None) == (self.problem is None):
            raise ValueError("a reference has either a mask or a problem")
        if (self.mask is None) != (self.annotation is None):
            raise ValueError("a reference has an annotation where it has a mask")


def read_reference(
    masks: Sequence[SourceFile], height: int, width: int, *, diagnosis: Diagnosis | None = None
) -> Reference:
    """Merge the mask files of one scan.

    Args:
        masks: As given, in any number.
        height: Of the scan, in pixels, upright.
        width: Likewise.
        diagnosis: The reference class, where one is known: of a normal scan no file says that there is no lesion, and
            of any other an empty mask is no reference.
    """
    if not masks and diagnosis is Diagnosis.NORMAL:
        nothing: Annotation = np.zeros((height, width), np.uint8)
        return Reference(nothing > 0, ("No mask file: a normal breast has no lesion.",), None, annotation=nothing)
    if not masks:
        return Reference(None, (), "No mask came with this scan. Add one, named as the scan with _mask.", missing=True)
    if len(masks) > MAX_MASKS:
        return Reference(None, (), f"{len(masks)} mask files for one scan; at most {MAX_MASKS} are read.")
    annotation: Annotation = np.zeros((height, width), np.uint8)
    notes: list[str] = []
    problems: list[str] = []
    for number, file in enumerate(masks, start=1):
        try:
            mask, said = read_mask(file.read(), height, width)
        except InvalidImageError as error:
            problems.append(f"{file.name}: {error.problem} {error.remedy}")
            continue
        notes += [f"{file.name}: {note}" for note in said]
        _annotate(annotation, mask, number)
    if problems:
        return Reference(None, tuple(notes), " ".join(problems))
    if diagnosis in (Diagnosis.BENIGN, Diagnosis.MALIGNANT) and not annotation.any():
        reason = f"The class is {diagnosis}, and no lesion is drawn in its mask. Correct one of the two."
        return Reference(None, tuple(notes), reason)
    if len(masks) > 1:
        notes.insert(0, f"{len(masks)} mask files, merged.")
    return Reference(np.asarray(annotation > 0, np.bool_), tuple(notes), None, annotation=annotation)


def _annotate(annotation: Annotation, mask: Mask, number: int) -> None:
    """Write one more file's mask into the annotation, under its number.

    Where two files say the same of most of a lesion they are two drawings of it, and share the first one's number.
    Where they only overlap at a border, those pixels go to the smaller of the two.
    """
    sizes = np.bincount(annotation.ravel(), minlength=number)
    shared = np.bincount(annotation[mask], minlength=number)
    size = int(mask.sum())
    before = [one for one in range(1, number) if shared[one]]
    same = [one for one in before if shared[one] >= SAME_LESION * min(size, sizes[one])]
    for one in same[1:]:
        annotation[annotation == one] = same[0]
    smaller = [one for one in before if one not in same and sizes[one] <= size]
    annotation[mask & ~np.isin(annotation, smaller)] = same[0] if same else number


def read_mask(data: bytes, height: int, width: int) -> tuple[Mask, tuple[str, ...]]:
    """Read one mask file and say how, where it was not plain black and white.

    Args:
        data: The whole file.
        height: Of the scan, in pixels; another size is refused before any pixel is decoded.
        width: Likewise.

    Returns:
        (height, width) bool, and one sentence for each thing worth saying.

    Raises:
        InvalidImageError: It is no picture, is damaged, has another size, or its values cannot be told apart.
    """
    pixels, transparent = _open(data, height, width)
    values = _distinct(pixels)
    notes: list[str] = []
    if len(values) == 2 and not values[0].any():
        mask = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0
        if values[1].max() <= CUT_GREY:
            notes.append(f"not black and white: value {_name(values[1])} was read as lesion, 0 as not.")
    elif len(values) == 1:
        mask = np.full((height, width), bool(values[0].max() > CUT_GREY))
        if 0 < values[0].max() <= CUT_GREY:
            notes.append(f"one value everywhere ({_name(values[0])}), read as no lesion.")
    elif pixels.dtype != np.uint8:
        raise InvalidImageError(
            f"It holds {len(values)} different values of more than 8 bits, so what is lesion cannot be told.",
            remedy=EXPORT_REMEDY,
        )
    else:
        brightest = pixels if pixels.ndim == 2 else pixels.max(axis=2)
        mask = brightest > CUT_GREY
        if not mask.any():
            raise InvalidImageError(
                f"It holds {len(values)} different values, none above {CUT_GREY} of 255, as a map of labels does: what "
                "is lesion cannot be told.",
                remedy=EXPORT_REMEDY,
            )
        between = float(((brightest > 0) & (brightest < 255)).mean())
        notes.append(
            f"not black and white ({len(values)} values; {between:.1%} of the pixels in between): "
            f"brightness above {CUT_GREY} of 255 was read as lesion."
        )
    if transparent and not mask.any():
        notes.append("black everywhere; what is drawn in its transparency was not read.")
    elif float(mask.mean()) > MOSTLY_LESION:
        notes.append(f"{mask.mean():.0%} of the image is lesion in it; is it turned inside out?")
    return np.asarray(mask, np.bool_), tuple(notes)


def _open(data: bytes, height: int, width: int) -> tuple[NDArray[Any], bool]:
    """(height, width) or (height, width, 3) of the file's own depth, and whether it has transparency that varies."""
    require_few_parts(data)
    try:
        with Image.open(io.BytesIO(data), formats=MASK_FORMATS) as file:
            if sorted(file.size) != sorted((width, height)):  # before EXIF: of a PNG Pillow decodes all to find it
                raise _other_size(file.size, width, height)
            if file.format in ("JPEG", "MPO"):  # MPO: a JPEG with further JPEGs inside
                require_few_scans(data, width * height)
            if _has_second_picture(file):
                raise InvalidImageError("The mask file holds several pictures.", remedy=EXPORT_REMEDY)
            prepare_tiff(file)
            require_known_inks(file)
            if loses_low_byte(file):
                raise InvalidImageError(
                    "It has more than 8 bits a channel, in colour or with alpha.", remedy=EXPORT_REMEDY
                )
            # Pillow gives the size of a TIFF as it stands upright, and turns its pixels itself when they are loaded.
            turned = file.format != "TIFF" and orientation(file) in (5, 6, 7, 8)
            found = file.size[::-1] if turned else file.size
            if found != (width, height):
                raise _other_size(found, width, height)
            white_zero, unsigned = is_white_zero(file), is_unsigned(file)
            file.load()
            require_whole(data, file)
            turn = UPRIGHT.get(orientation(file))
            upright = file if turn is None else file.transpose(turn)
            if upright.mode in WIDE_MODES:
                values = np.array(upright)
                if upright.mode == "I" and unsigned:  # Pillow reads unsigned 32 bits into signed ones
                    values = values.view(np.uint32)
                return _read_wide(values, white_zero=white_zero), False
            transparent = "A" in upright.getbands() and len(_distinct(np.array(upright.getchannel("A")))) > 1
            if upright.mode in ("1", "L"):
                return np.array(upright.convert("L")), False
            colour = np.array(upright.convert("RGB"))
    except InvalidImageError:
        raise
    except DAMAGE_ERRORS as error:
        raise InvalidImageError("The mask cannot be read as a picture.", remedy=EXPORT_REMEDY) from error
    grey = colour[..., 0]
    if np.array_equal(grey, colour[..., 1]) and np.array_equal(grey, colour[..., 2]):
        return grey, transparent
    return colour, transparent


def _other_size(found: tuple[int, int], width: int, height: int) -> InvalidImageError:
    return InvalidImageError(
        f"The mask is {found[0]} x {found[1]} pixels, its scan {width} x {height}.", remedy=EXPORT_REMEDY
    )


def _read_wide(pixels: NDArray[Any], *, white_zero: bool) -> NDArray[Any]:
    """Grey of more than 8 bits, black as 0; `white_zero` says that the file means white by it."""
    if pixels.dtype.kind == "f" and (white_zero or not np.isfinite(pixels).all()):
        raise InvalidImageError(
            "It holds floating-point values of which black cannot be told."
            if white_zero
            else "It holds values that are not numbers (NaN or infinite).",
            remedy=EXPORT_REMEDY,
        )
    return np.iinfo(pixels.dtype).max - pixels if white_zero else pixels


def _has_second_picture(file: Image.Image) -> bool:
    """Without counting them all: the pages of a TIFF are a chain, and a file may hold a hundred thousand."""
    try:
        file.seek(1)
    except EOFError:
        file.seek(0)
        return False
    return True


def _distinct(pixels: NDArray[Any]) -> NDArray[np.generic]:
    """The values that occur, ascending: (n,) numbers, or (n, 3) colours."""
    if pixels.ndim == 2:
        if pixels.dtype == np.uint8:  # counted, which is ten times as fast
            return np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).astype(np.uint8)
        return np.unique(pixels)
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    packed = np.unique(red << 16 | green << 8 | blue)
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)


def _name(value: NDArray[Any]) -> str:
    return str(value.item()) if value.ndim == 0 else "/".join(str(part) for part in value.tolist())
