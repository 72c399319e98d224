"""What an examination found: one row a scan, its findings, and which scans may be accepted.

    InspectionReport + excluded + confirmed --plan_acceptance--> AcceptancePlan: what is kept, and why the rest is not

A report lives in memory, as it names files. What is stored of it are numbers (`sets.py`).
"""

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from busi_core.data.pairing import Case
from busi_core.types import Diagnosis


class Weight(StrEnum):
    """What a finding means for acceptance."""

    NEVER = "cannot be accepted"
    RESOLVE = "exclude the wrong ones"
    CONFIRM = "needs your look"
    CHOICE = "your choice"
    NOTE = "good to know"


class Flag(StrEnum):
    """What can be found about one scan, in the words of the report."""

    BROKEN = "cannot be read"
    FRAMES = "several frames"
    NO_CONTRAST = "no contrast"
    NO_CLASS = "class unknown"
    NO_MASK = "mask missing"
    BAD_MASK = "mask does not fit or cannot be read"
    EMPTY_MASK = "empty mask of a lesion"
    LESION_IN_NORMAL = "lesion drawn in a normal"
    TEST_COPY = "repeats a scan of the locked test set"
    CONFLICT = "one scan, several classes"
    TEXT = "text burned in"
    TAGS = "patient tags filled"
    CONFLICT_KNOWN = "another class in a known set"
    KNOWN_COPY = "repeats a scan of a public set"
    REPEATED = "repeated inside this set"
    MASK_READ = "mask is not plain black and white"
    MARKS = "measuring marks burned in"
    COLOUR = "colour in the image"
    EARLIER_COPY = "in an accepted data set already"
    MERGED = "several masks, merged"
    WINDOWED = "more than 8 bits, brought to 8"

    @property
    def weight(self) -> Weight:
        """What it means for acceptance."""
        return _WEIGHTS[self]


_WEIGHTS: Mapping[Flag, Weight] = {
    **dict.fromkeys(
        (Flag.BROKEN, Flag.FRAMES, Flag.NO_CONTRAST, Flag.NO_CLASS, Flag.NO_MASK, Flag.BAD_MASK), Weight.NEVER
    ),
    **dict.fromkeys((Flag.EMPTY_MASK, Flag.LESION_IN_NORMAL, Flag.TEST_COPY), Weight.NEVER),
    Flag.CONFLICT: Weight.RESOLVE,
    **dict.fromkeys((Flag.TEXT, Flag.TAGS), Weight.CONFIRM),
    **dict.fromkeys((Flag.CONFLICT_KNOWN, Flag.KNOWN_COPY, Flag.REPEATED, Flag.MASK_READ), Weight.CHOICE),
    **dict.fromkeys((Flag.MARKS, Flag.COLOUR), Weight.CHOICE),
    **dict.fromkeys((Flag.EARLIER_COPY, Flag.MERGED, Flag.WINDOWED), Weight.NOTE),
}


@dataclass(frozen=True)
class Finding:
    """One thing found about one scan: which, and the particulars in a sentence ('' where the flag says it all)."""

    flag: Flag
    detail: str = ""


@dataclass(frozen=True)
class ScanReport:
    """One row of the report.

    Attributes:
        id: Of the case in the upload; never made from a name.
        name: The file, as it was given.
        diagnosis: Its class; None where the layout names none.
        findings: In the order of `Flag`.
        height, width: In pixels; 0 where the file cannot be read.
        mask_files: How many mask files came with it.
        lesion_pixels: Of the merged mask; None where there is none.
        scan: Id of the first row that shows the same scan.
        group: Id of the first row of the same patient or scan.
        copies_of: Record ids of known sets that show the same scan.
        pixels, mask: SHA-256 of what would be stored; '' where there is none.
    """

    id: str
    name: str
    diagnosis: Diagnosis | None
    findings: tuple[Finding, ...]
    height: int
    width: int
    mask_files: int
    lesion_pixels: int | None
    scan: str
    group: str
    copies_of: tuple[str, ...]
    pixels: str
    mask: str

    def has(self, flag: Flag) -> bool:
        """Whether this was found."""
        return any(finding.flag is flag for finding in self.findings)

    def of_weight(self, weight: Weight) -> tuple[Finding, ...]:
        """Its findings that mean this for acceptance."""
        return tuple(finding for finding in self.findings if finding.flag.weight is weight)


@dataclass(frozen=True, eq=False)
class InspectionReport:
    """What is known about an upload before anything of it is kept.

    Attributes:
        kind: 'zip', 'folder' or 'corrections'.
        scans: One row a scan, in natural order of the names.
        lone_masks: Names of mask files whose scan did not come.
        left_out: Names of files that are no images by their suffix or first bytes.
        problems: What is wrong with a table of classes, or could not be read of a folder, a sentence each.
        compared: Known sets that every scan was compared with, and how many images each has.
        test_parts_missing: Parts of the locked test set that are not at hand; nothing is accepted then.
        confirmed: Ids of scans of which somebody said before that no patient text is burned in.
        cases: The files of each row, by its id.
        fingerprints: 256 numbers of each readable scan, by its id.
    """

    kind: str
    scans: tuple[ScanReport, ...]
    lone_masks: tuple[str, ...]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]
    compared: tuple[tuple[str, int], ...]
    test_parts_missing: tuple[str, ...]
    confirmed: Set[str]
    cases: Mapping[str, Case]
    fingerprints: Mapping[str, Any]

    def with_flag(self, flag: Flag) -> list[ScanReport]:
        """The rows of which this was found."""
        return [scan for scan in self.scans if scan.has(flag)]

    def as_json(self) -> dict[str, Any]:
        """Plain values for a download; names of files, no pixels, no tags."""
        return {
            "kind": self.kind,
            "compared": [{"data_set": name, "images": images} for name, images in self.compared],
            "test_parts_missing": list(self.test_parts_missing),
            "masks_without_scan": list(self.lone_masks),
            "left_out": list(self.left_out),
            "problems": list(self.problems),
            "scans": [asdict(scan) for scan in self.scans],
        }


@dataclass(frozen=True)
class AcceptancePlan:
    """Which rows would be kept.

    Attributes:
        kept: In the order of the report.
        left_out: For every other row, why; by its id.
    """

    kept: tuple[ScanReport, ...]
    left_out: Mapping[str, str]

    def reasons(self) -> dict[str, int]:
        """How many rows are left out for each reason, most first."""
        counted: dict[str, int] = {}
        for reason in self.left_out.values():
            counted[reason] = counted.get(reason, 0) + 1
        return dict(sorted(counted.items(), key=lambda item: -item[1]))


EXCLUDED = "by choice"  # by hand, or as only the clean ones were wanted
LOCKED_PATIENT = "same patient or scan as a copy of the locked test set"
UNCONFIRMED = "nobody confirmed that no patient text is burned in"


def plan_acceptance(report: InspectionReport, excluded: Set[str], confirmed: Set[str]) -> AcceptancePlan:
    """Which rows are kept when some are excluded by hand; the rules hold whatever the caller asks for.

    Left out are: what is excluded; what cannot be accepted at all, and every other scan of a patient in the locked test
    set; scans with text or filled patient tags that nobody confirmed (U16); and of scans that still have several
    classes after that, every copy.
    """
    sure = confirmed | report.confirmed
    locked = {scan.group for scan in report.with_flag(Flag.TEST_COPY)}
    left_out: dict[str, str] = {}
    for scan in report.scans:
        never = scan.of_weight(Weight.NEVER)
        if never:
            left_out[scan.id] = never[0].flag.value
        elif scan.group in locked:
            left_out[scan.id] = LOCKED_PATIENT
        elif scan.id in excluded:
            left_out[scan.id] = EXCLUDED
        elif scan.of_weight(Weight.CONFIRM) and scan.id not in sure:
            left_out[scan.id] = UNCONFIRMED
    classes: dict[str, set[Diagnosis | None]] = {}
    for scan in report.scans:
        if scan.id not in left_out:
            classes.setdefault(scan.scan, set()).add(scan.diagnosis)
    for scan in report.scans:
        if scan.id not in left_out and len(classes[scan.scan]) > 1:
            left_out[scan.id] = Flag.CONFLICT.value
    return AcceptancePlan(tuple(scan for scan in report.scans if scan.id not in left_out), left_out)


def find_unclean(report: InspectionReport) -> set[str]:
    """Rows to exclude when only clean scans are wanted: every one with a finding, but notes.

    Of a scan that is repeated inside the set its first copy without another finding stays.
    """
    unclean: set[str] = set()
    taken: set[str] = set()
    for scan in report.scans:
        objections = {finding.flag for finding in scan.findings if finding.flag.weight is not Weight.NOTE}
        if objections - {Flag.REPEATED} or scan.scan in taken:
            unclean.add(scan.id)
        else:
            taken.add(scan.scan)
    return unclean
