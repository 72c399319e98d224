"""Folder -> list of records: which files a data set holds and what it says about each.

BUSI (Al-Dhabyani et al. 2020, doi:10.1016/j.dib.2019.104863):
    {benign,malignant,normal}/NAME.png with NAME_mask.png and further NAME_mask_1.png ..; the union is the truth.
BUS-BRA (Gomez-Flores et al. 2023):
    Images/bus_*.png, Masks/mask_*.png, bus_data.csv (case, pathology, BI-RADS, device), 5-fold-cv.csv.

Nothing is decoded here but the masks, on request.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from busi_core.errors import DatasetError
from busi_core.types import Diagnosis, Mask

MASK_MARK = re.compile(r"_mask(_\d+)?\Z", re.IGNORECASE)  # Windows keeps the case of names and does not mind it
BUS_BRA_FOLDS = {str(fold): fold for fold in range(1, 6)}


@dataclass(frozen=True)
class Record:
    """One image of a data set with its truth.

    Attributes:
        id: '<data set>/<file stem>', unique over all data sets.
        image: Path of the image.
        masks: Paths of its mask files; their union outlines the lesion. Empty only for a normal.
        diagnosis: The image's class.
        group: Unit of independence that the data set itself names (BUS-BRA: the case); None where it names none.
        fold: Official fold, 1 to 5; None where there is none.
        birads: BI-RADS category; None where not given.
        device: Ultrasound machine; None where not given.
    """

    id: str
    image: Path
    masks: tuple[Path, ...]
    diagnosis: Diagnosis
    group: str | None = None
    fold: int | None = None
    birads: int | None = None
    device: str | None = None

    @property
    def name(self) -> str:
        """The file's stem, as in 'benign (12)'."""
        return self.image.stem


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts 'benign (2)' before 'benign (10)'; for any text, also numbers too long to compute with."""
    parts = re.split(r"(\d+)", text)
    return tuple((0, len(p.lstrip("0")), p.lstrip("0")) if p.isdecimal() else (1, 0, p) for p in parts)


def is_mask_name(stem: str) -> bool:
    """Whether a file stem is a BUSI mask: 'benign (1)_mask', 'benign (1)_mask_1' or 'benign (1)_MASK'."""
    return MASK_MARK.search(stem) is not None


def stem_of_scan(mask_stem: str) -> str:
    """The stem of the scan that a BUSI mask belongs to, in the mask's own upper and lower case."""
    return MASK_MARK.sub("", mask_stem)


def read_busi(folder: Path) -> list[Record]:
    """Read a folder in BUSI's layout, sorted by class and number.

    Raises:
        DatasetError: One message naming every file that breaks a rule: a lesion image without a mask,
            a mask without its image, a class folder missing or empty; or there is no such folder.
    """
    _require_folder(folder)
    problems: list[str] = []
    records: list[Record] = []
    for diagnosis in Diagnosis:
        files = sorted((folder / diagnosis.value).glob("*.png"), key=lambda path: natural_key(path.stem))
        images = {path.stem: path for path in files if not is_mask_name(path.stem)}
        masks: dict[str, list[Path]] = {stem: [] for stem in images}
        for path in files:
            if is_mask_name(path.stem):
                stem = stem_of_scan(path.stem)
                if stem in masks:
                    masks[stem].append(path)
                else:
                    problems.append(f"{diagnosis.value}/{path.name} (mask without its image)")
        if not images:
            problems.append(f"{diagnosis.value}/ (no image)")
        for stem, image in images.items():
            if not masks[stem] and diagnosis is not Diagnosis.NORMAL:
                problems.append(f"{diagnosis.value}/{image.name} (no mask)")
            records.append(Record(f"busi/{stem}", image, tuple(masks[stem]), diagnosis))
    _require_sound(folder, "BUSI", problems)
    return records


def read_bus_bra(folder: Path) -> list[Record]:
    """Read a folder in BUS-BRA's layout, in the order of its table.

    Raises:
        DatasetError: One message naming every image or mask that the tables list and the folder lacks and
            every row that makes no sense, or a table that is missing or has other columns; or there is no such folder.
    """
    _require_folder(folder)
    folds = {row["ID"]: row["kFold"] for row in _read_table(folder / "5-fold-cv.csv", ("ID", "kFold"))}
    columns = ("ID", "Case", "Pathology", "BIRADS", "Device")
    problems: list[str] = []
    records: dict[str, Record] = {}
    for row in _read_table(folder / "bus_data.csv", columns):
        name, pathology, birads = row["ID"], row["Pathology"], row["BIRADS"]
        image = folder / "Images" / f"{name}.png"
        mask = folder / "Masks" / f"{name.replace('bus_', 'mask_', 1)}.png"
        problems += [f"{path.parent.name}/{path.name} (missing)" for path in (image, mask) if not path.is_file()]
        if name in records:
            problems.append(f"{name} (twice in bus_data.csv)")
        if name not in folds:
            problems.append(f"{name} (no fold in 5-fold-cv.csv)")
            continue
        try:
            records[name] = Record(
                id=f"bus-bra/{name}",
                image=image,
                masks=(mask,),
                diagnosis=Diagnosis(pathology),
                group=f"bus-bra/case {row['Case']}",
                fold=BUS_BRA_FOLDS[folds[name]],
                birads=int(birads),
                device=row["Device"],
            )
        except (KeyError, TypeError, ValueError):  # also a row that is cut short: its cells are None
            values = f"{pathology!r}, {birads!r}, {folds[name]!r}"
            problems.append(f"{name} (no such pathology, BI-RADS category or fold: {values})")
    _require_sound(folder, "BUS-BRA", problems)
    return list(records.values())


def read_truth(record: Record, height: int, width: int) -> Mask:
    """The reference mask of one record: the union of its mask files; all False for a normal.

    Colour is read, never alpha: two BUSI masks are RGBA with alpha 255 everywhere.

    Raises:
        DatasetError: A mask cannot be read, has another size than its image, or more than two values.
    """
    truth = np.zeros((height, width), np.bool_)
    for path in record.masks:
        try:
            with Image.open(path, formats=("PNG",)) as file:
                colour = np.array(file.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise DatasetError(f"The mask {path.name!r} cannot be read.", remedy="Replace the file.") from error
        if colour.shape[:2] != (height, width):
            raise DatasetError(
                f"The mask {path.name!r} is {colour.shape[1]} x {colour.shape[0]} pixels, "
                f"its image {width} x {height}.",
                remedy="Export the mask at the size of its image.",
            )
        brightest = colour.max(axis=2)
        inside = brightest > 0
        if len(np.unique(brightest[inside])) > 1:
            raise DatasetError(
                f"The mask {path.name!r} is not binary: it holds several greys.",
                remedy="Export the mask with one value outside and one inside.",
            )
        truth |= inside
    return truth


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"The table {path.name!r} cannot be read.", remedy=f"Put it into {path.parent}.") from error
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise DatasetError(
            f"The table {path.name!r} lacks {', '.join(missing)}.", remedy="Use the table as it was published."
        )
    return rows


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DatasetError(
            f"There is no folder {folder}.", remedy="Put the data set there, or say by BUSI_DATA_ROOT where it lies."
        )


def _require_sound(folder: Path, layout: str, problems: Iterable[str]) -> None:
    listed = list(problems)
    if listed:
        raise DatasetError(
            f"{folder} is not a sound {layout} folder: {', '.join(listed)}.",
            remedy="Add, rename or remove these files and try again.",
        )
