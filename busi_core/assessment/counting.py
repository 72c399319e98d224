"""Scans one after the other; their values -> a figure with its interval."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from busi_core.assessment.figures import Figure
from busi_core.data.records import Record
from busi_core.data.splits import scan_groups
from busi_core.imaging.decode import decode_image
from busi_core.metrics.proportion import mean_interval
from busi_core.types import DecodedImage

Progress: TypeAlias = Callable[[str, int, int], None]  # what is measured, done, of how many


def decode_each(
    records: Sequence[Record], what: str, on_step: Progress | None
) -> Iterator[tuple[Record, DecodedImage]]:
    """Each scan with its pixels; `on_step` is told once the caller is done with it."""
    for number, record in enumerate(records, start=1):
        yield record, decode_image(record.image.read_bytes())
        if on_step:
            on_step(what, number, len(records))


def make_figure(
    part: str, name: str, on: str, values: NDArray[np.float64], groups: NDArray[Any], *, is_share: bool = True
) -> Figure:
    """The mean over images, with a 95 % interval in which the images of one group are drawn together.

    Args:
        part: Of the assessment.
        name: What was measured.
        on: Which scans.
        values: One for each image; NaN where there is none.
        groups: The scan or case of each image, as `number_scans` gives them.
        is_share: The values lie in [0, 1].
    """
    interval = mean_interval(values, groups, is_share=is_share)
    cases = int((~np.isnan(values)).sum())
    return Figure(part, name, on, cases, interval.estimate, interval.low, interval.high)


def number_scans(records: Sequence[Record]) -> NDArray[np.intp]:
    """The scan or case that each image shows, as `evaluation` groups them, numbered from 0 in the order they come."""
    known = scan_groups()
    names = [record.group or known.get(record.id, record.id) for record in records]
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([number_of[name] for name in names], np.intp)
