"""Records -> arrays in memory: each scan decoded and resized once, for a whole training run."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from busi_core.data.records import Record, read_truth
from busi_core.errors import DatasetError, InvalidImageError
from busi_core.imaging.decode import decode_image
from busi_core.imaging.preprocess import PreprocessSpec, fit_to_square
from busi_core.types import Diagnosis

MASK_LEVEL = 128  # of 255, after averaging over areas: a pixel is lesion when at least half of it is


@dataclass(frozen=True, eq=False)
class Samples:
    """A part of a split, prepared and in memory.

    Attributes:
        images: (count, 1, side, side) uint8, resized as the network will see them, not normalised.
        masks: (count, 1, side, side) uint8, 0 or 1.
        labels: (count,) int64, column of the class in the order of `Diagnosis`.
        ids: Record ids, in the same order.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def load_samples(records: Sequence[Record], spec: PreprocessSpec) -> Samples:
    """Decode and resize every record once, with two threads.

    Raises:
        DatasetError: One message naming every file that cannot be read or whose mask does not fit.
    """
    problems: list[str] = []

    def load(record: Record) -> tuple[Tensor, Tensor] | None:
        try:
            image = decode_image(record.image.read_bytes())
            truth = read_truth(record, image.height, image.width)
        except (OSError, InvalidImageError, DatasetError) as error:
            problems.append(f"{record.image.name} ({error})")
            return None
        mask = fit_to_square(truth.astype(np.uint8) * 255, spec) >= MASK_LEVEL
        return torch.from_numpy(fit_to_square(image.grey, spec))[None], torch.from_numpy(mask.astype(np.uint8))[None]

    if not records:
        raise DatasetError("The data set holds no image.", remedy="Name a folder with scans.")
    with ThreadPoolExecutor(2) as pool:
        loaded = [pair for pair in pool.map(load, records) if pair is not None]
    if problems:
        raise DatasetError(
            f"{len(problems)} files of the data set cannot be used: {'; '.join(sorted(problems))}.",
            remedy="Repair or remove them and start again.",
        )
    images, masks = zip(*loaded, strict=True)
    columns = list(Diagnosis)
    labels = torch.tensor([columns.index(record.diagnosis) for record in records])
    return Samples(torch.stack(images), torch.stack(masks), labels, tuple(record.id for record in records))
