"""Records -> arrays in memory: each scan decoded and resized once, for a whole training run."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from busi_core.data.records import Record, read_truth
from busi_core.errors import DatasetError, InvalidImageError
from busi_core.imaging.decode import decode_image
from busi_core.imaging.preprocess import PreprocessSpec, fit_mask, prepare_square, to_planes
from busi_core.types import Diagnosis


@dataclass(frozen=True, eq=False)
class Samples:
    """A part of a split, prepared and in memory.

    Attributes:
        images: (count, 1, side, side) uint8, resized and filtered as the network will see them, not normalised; three
            planes where it reads colour.
        masks: (count, 1, side, side) uint8, 0 or 1; for a network of several pixel classes the class's number.
        labels: (count,) int64, column of the class in the order of `Diagnosis`.
        ids: Record ids, in the same order.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def none_like(samples: Samples) -> Samples:
    """No sample, in tensors of the same shape and kind."""
    return Samples(samples.images[:0], samples.masks[:0], samples.labels[:0], ())


def name_pixels(samples: Samples, pixel_classes: Sequence[str]) -> Samples:
    """Masks that hold the number of each pixel's class, for a network of several: an image's lesion is of its class.

    With one pixel class nothing changes.
    """
    if len(pixel_classes) == 1:
        return samples
    numbers = torch.tensor([pixel_classes.index(d.value) if d.value in pixel_classes else 0 for d in Diagnosis])
    masks = samples.masks * numbers[samples.labels][:, None, None, None].to(samples.masks.dtype)
    return replace(samples, masks=masks)


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
        pixels = image.rgb if spec.source == "colour" else image.grey
        return to_planes(prepare_square(pixels, spec)), to_planes(fit_mask(truth, spec))

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
