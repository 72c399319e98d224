"""BCSS: tiles of stained breast tissue with a class for each pixel (Amgad et al., doi:10.1093/bioinformatics/btz083).

    FOLDER/rgbs_colorNormalized/NAME.png   RGB, any size of at least a tile
    FOLDER/masks/NAME.png                  one grey value a pixel: the code of its class
    FOLDER/meta/gtruth_codes.tsv           label and GT_code, checked against `CODES`

Names begin with the patient's code: 'TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500'.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from busi_core.data.dataset import Samples
from busi_core.errors import DatasetError
from busi_core.imaging.decode import decode_image
from busi_core.imaging.tissue import simulate_tile

CODES = (
    *("outside_roi", "tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris", "glandular_secretions"),
    *("blood", "exclude", "metaplasia_NOS", "fat", "plasma_cells", "other_immune_infiltrate", "mucoid_material"),
    *("normal_acinus_or_duct", "lymphatics", "undetermined", "nerve", "skin_adnexa", "blood_vessel", "angioinvasion"),
    *("dcis", "other"),
)
CLASSES = 21  # as printed; the last code, 'other', counts as outside
PATIENT_LETTERS = 12  # of the name: 'TCGA-A1-A0SK'


@dataclass(frozen=True)
class TissueRecord:
    """One annotated region: its files, and the patient it is from."""

    image: Path
    mask: Path
    patient: str


def read_bcss(folder: Path) -> list[TissueRecord]:
    """Every region of a folder in BCSS's layout, by name.

    Raises:
        DatasetError: No region, a mask or an image missing, or a code table that says something else.
    """
    _check_codes(folder / "meta" / "gtruth_codes.tsv")
    images = {path.stem: path for path in sorted((folder / "rgbs_colorNormalized").glob("*.png"))}
    masks = {path.stem: path for path in sorted((folder / "masks").glob("*.png"))}
    problems = [f"{stem} (no mask)" for stem in images if stem not in masks]
    problems += [f"{stem} (mask without its image)" for stem in masks if stem not in images]
    if not images:
        problems.append("rgbs_colorNormalized/ (no image)")
    if problems:
        raise DatasetError(
            f"{folder} is not a sound BCSS folder: {', '.join(sorted(problems))}.",
            remedy="Put the data set there as published, and try again.",
        )
    return [TissueRecord(path, masks[stem], stem[:PATIENT_LETTERS]) for stem, path in images.items()]


def load_tiles(records: Sequence[TissueRecord], side: int) -> Samples:
    """Cut every region into tiles of side x side px that do not overlap; what is left at its border is dropped.

    Raises:
        DatasetError: A mask has another size than its image or an unknown code, or no tile fits.
    """
    tiles = [tile for record in records for tile in _cut(record, side)]
    if not tiles:
        raise DatasetError(f"No region holds a tile of {side} px.", remedy="Lower --size, or use larger regions.")
    return _as_samples([(image, mask) for _, image, mask in tiles], [name for name, _, _ in tiles])


def simulate_tiles(count: int, side: int, *, seed: int) -> Samples:
    """Tiles from the generator, for when there is no BCSS at hand; they say nothing about tissue."""
    tiles = [simulate_tile(seed * 100_000 + number, side=side) for number in range(count)]
    return _as_samples(tiles, [f"simulated-tissue/{seed}-{number}" for number in range(count)])


def _cut(record: TissueRecord, side: int) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    rgb = decode_image(record.image.read_bytes()).rgb
    codes = decode_image(record.mask.read_bytes()).grey
    if codes.shape != rgb.shape[:2] or codes.max() >= len(CODES):
        raise DatasetError(
            f"The mask {record.mask.name!r} does not fit its image, or holds a code above {len(CODES) - 1}.",
            remedy="Use masks and images as published.",
        )
    classes = np.where(codes < CLASSES, codes, 0).astype(np.uint8)
    for top in range(0, rgb.shape[0] - side + 1, side):
        for left in range(0, rgb.shape[1] - side + 1, side):
            window = (slice(top, top + side), slice(left, left + side))
            yield f"bcss/{record.image.stem}+{top}+{left}", rgb[window], classes[window]


def _as_samples(tiles: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], names: Sequence[str]) -> Samples:
    images = torch.from_numpy(np.stack([image for image, _ in tiles])).permute(0, 3, 1, 2).contiguous()
    masks = torch.from_numpy(np.stack([mask for _, mask in tiles]))[:, None].contiguous()
    return Samples(images, masks, torch.zeros(len(tiles), dtype=torch.int64), tuple(names))


def _check_codes(path: Path) -> None:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = {int(row["GT_code"]): row["label"] for row in csv.DictReader(file, delimiter="\t")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"The code table {path.name!r} cannot be read.", remedy="Put it into meta/ as published."
        ) from error
    wrong = [f"{code} is {found.get(code)!r}" for code, name in enumerate(CODES) if found.get(code) != name]
    if wrong:
        raise DatasetError(
            f"The code table {path.name!r} is not that of BCSS: {', '.join(wrong)}.", remedy="Use the published one."
        )
