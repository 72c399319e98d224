"""A report in figures: scans by class, sizes, marks by class with intervals, and what to beware of in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from busi_core.managed.report import Flag, InspectionReport, ScanReport, Weight
from busi_core.metrics.bootstrap import Interval
from busi_core.metrics.proportion import share_difference, share_interval
from busi_core.types import Diagnosis

MARK_FLAGS = (Flag.TEXT, Flag.MARKS, Flag.COLOUR)  # what may follow the class and teach the wrong thing
FEW = 20  # distinct scans of a class below which a network learns it badly; BUSI has 133 normals and is short of them


@dataclass(frozen=True)
class ClassRow:
    """One class of the upload.

    Attributes:
        diagnosis: The class; None for scans without one.
        scans: Files.
        distinct: Different scans, copies counted once.
        usable: Files that could be accepted.
        masks: Mask files.
        empty: Scans whose mask is empty.
        marked: Share of distinct scans in which something was found, by flag of `MARK_FLAGS`.
    """

    diagnosis: Diagnosis | None
    scans: int
    distinct: int
    usable: int
    masks: int
    empty: int
    marked: tuple[tuple[Flag, Interval], ...]


@dataclass(frozen=True)
class Sizes:
    """Width and height of the readable scans in pixels: smallest, median, largest by area."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


def count_classes(report: InspectionReport) -> list[ClassRow]:
    """A row for each class that occurs, in the order of `Diagnosis`, those without a class last."""
    rows = []
    for diagnosis in (*Diagnosis, None):
        scans = [scan for scan in report.scans if scan.diagnosis is diagnosis]
        if scans:
            rows.append(_count_class(diagnosis, scans))
    return rows


def measure_sizes(report: InspectionReport) -> Sizes | None:
    """None when no scan can be read."""
    sizes = sorted(
        ((scan.width, scan.height) for scan in report.scans if scan.width), key=lambda size: size[0] * size[1]
    )
    if not sizes:
        return None
    middle = (round(median(width for width, _ in sizes)), round(median(height for _, height in sizes)))
    return Sizes(sizes[0], middle, sizes[-1])


def count_findings(report: InspectionReport) -> list[tuple[Flag, int]]:
    """How many scans have each finding, in the order of `Flag`; findings that do not occur are left out."""
    counted = [(flag, len(report.with_flag(flag))) for flag in Flag]
    return [(flag, count) for flag, count in counted if count]


def find_cautions(report: InspectionReport) -> list[str]:
    """What a person should know before accepting, one or two sentences each; plain text."""
    rows = [row for row in count_classes(report) if row.diagnosis is not None]
    cautions = []
    for part in report.test_parts_missing:
        cautions.append(
            f"The locked test set is not all at hand ({part} is missing), so copies of its scans cannot be found. "
            "Nothing can be accepted until it is there."
        )
    cautions += report.problems
    for flag in MARK_FLAGS:
        sentence = _say_difference(flag, rows)
        if sentence:
            cautions.append(sentence)
    absent = [diagnosis.value for diagnosis in Diagnosis if diagnosis not in {row.diagnosis for row in rows}]
    if absent:
        cautions.append(f"There is no {' and no '.join(absent)} scan: alone, this set cannot teach all classes.")
    few = [row for row in rows if row.distinct < FEW]
    if few:
        named = ", ".join(f"{row.distinct} {row.diagnosis}" for row in few)
        cautions.append(f"Few distinct scans: {named}. That is little to learn a class from.")
    if report.lone_masks:
        cautions.append(f"{len(report.lone_masks)} mask files came without their scan and are left out.")
    return cautions


def _count_class(diagnosis: Diagnosis | None, scans: Sequence[ScanReport]) -> ClassRow:
    distinct = {scan.scan for scan in scans}
    marked = []
    for flag in MARK_FLAGS:
        having = {scan.scan for scan in scans if scan.has(flag)}
        marked.append((flag, share_interval(len(having), len(distinct))))
    return ClassRow(
        diagnosis=diagnosis,
        scans=len(scans),
        distinct=len(distinct),
        usable=sum(not scan.of_weight(Weight.NEVER) for scan in scans),
        masks=sum(scan.mask_files for scan in scans),
        empty=sum(scan.lesion_pixels == 0 for scan in scans),
        marked=tuple(marked),
    )


def _say_difference(flag: Flag, rows: Sequence[ClassRow]) -> str | None:
    """The two classes whose shares differ most for certain; None where none do."""
    shares = [(row.diagnosis, dict(row.marked)[flag]) for row in rows]
    certain = []
    for (first, one), (second, other) in combinations(shares, 2):
        more, less = (
            ((first, one), (second, other)) if one.estimate >= other.estimate else ((second, other), (first, one))
        )
        difference = share_difference(more[1], less[1])
        if difference.low > 0:
            certain.append((difference.low, more, less))
    if not certain:
        return None
    _, (often, high), (seldom, low) = max(certain, key=lambda found: found[0])
    return (
        f"{flag.value.capitalize()}: in {high.estimate:.0%} of the {often} scans and in {low.estimate:.0%} of the "
        f"{seldom} ones. A network can learn the class from that instead of the breast."
    )
