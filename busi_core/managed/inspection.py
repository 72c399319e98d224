"""An upload -> a report on every scan of it, before anything is kept or trained.

    Intake --step, scan by scan--> looks --report--> copies, conflicts, groups --> InspectionReport

A file that cannot be used is a row with its reason; the others go on. Nothing is written.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from busi_core.data.duplicates import find_pairs, fingerprint, group_scans
from busi_core.data.pairing import Case
from busi_core.errors import InvalidImageError
from busi_core.managed.fingerprints import LENGTH, Fingerprints
from busi_core.managed.intake import Intake
from busi_core.managed.known import PUBLIC_SETS, KnownScans, Progress
from busi_core.managed.look import ScanPixels, decode_scan
from busi_core.managed.marks import find_marks
from busi_core.managed.patient_tags import PatientTags, read_patient_tags
from busi_core.managed.report import Finding, Flag, InspectionReport, ScanReport
from busi_core.types import Diagnosis, ImageWarning

MAX_NAMED = 3  # copies that a finding names; the rest is counted


@dataclass(frozen=True, eq=False)
class Look:
    """What one case shows by itself, without the others; its pixels are let go of.

    Attributes:
        case: The files.
        findings: That need no other scan.
        height, width: In pixels; 0 where the file cannot be read.
        lesion_pixels: Of the mask; None where there is none.
        pixels, mask: SHA-256 of what would be stored; '' where there is none.
        print: Its fingerprint, (256,); None where the file cannot be read.
        patient: The same text for scans of one patient, in memory only; '' where nothing tells.
    """

    case: Case
    findings: tuple[Finding, ...]
    height: int = 0
    width: int = 0
    lesion_pixels: int | None = None
    pixels: str = ""
    mask: str = ""
    print: Fingerprints | None = None
    patient: str = ""


class Inspection:
    """An examination under way: `step` until `is_done`, then `report`."""

    def __init__(self, intake: Intake, known: KnownScans) -> None:
        self._intake, self._known = intake, known
        self._looks: list[Look] = []
        self._salt = secrets.token_bytes(16)

    @property
    def done(self) -> int:
        """Scans looked at."""
        return len(self._looks)

    @property
    def total(self) -> int:
        """Scans to look at."""
        return len(self._intake.batch.cases)

    @property
    def is_done(self) -> bool:
        """Whether every scan was looked at."""
        return self.done == self.total

    def step(self) -> None:
        """Look at the next scan."""
        self._looks.append(look_at(self._intake.batch.cases[self.done], salt=self._salt))

    def report(self) -> InspectionReport:
        """Compare the scans with each other and with the known ones."""
        if not self.is_done:
            raise ValueError(f"{self.total - self.done} scans were not looked at")
        batch = self._intake.batch
        return InspectionReport(
            kind=self._intake.kind,
            scans=_relate(self._looks, self._known),
            lone_masks=tuple(mask.name for mask in (*batch.lone_masks, *batch.doubtful_masks)),
            left_out=batch.left_out,
            problems=batch.problems,
            compared=self._known.sets,
            test_parts_missing=self._known.test_parts_missing,
            confirmed=self._intake.confirmed,
            cases={case.id: case for case in batch.cases},
            fingerprints={look.case.id: look.print for look in self._looks if look.print is not None},
        )


def examine(intake: Intake, known: KnownScans, on_scan: Progress | None = None) -> InspectionReport:
    """Look at every scan of an upload and compare it with the others and with the known ones.

    Args:
        intake: From `managed.intake`.
        known: From `managed.known`.
        on_scan: Told how many scans are done, and of how many.
    """
    inspection = Inspection(intake, known)
    while not inspection.is_done:
        inspection.step()
        if on_scan is not None:
            on_scan(inspection.done, inspection.total)
    return inspection.report()


def look_at(case: Case, *, salt: bytes) -> Look:
    """Look at one case by itself."""
    try:
        data = case.scan.read()
        scan = decode_scan(case, data)
    except InvalidImageError as error:
        return Look(case, (Finding(Flag.BROKEN, f"{error.problem} {error.remedy}"),))
    tags = read_patient_tags(data, salt=salt)
    findings = [*_find_in_image(scan), *_find_in_mask(case, scan), *_find_marks(scan), *_find_tags(tags)]
    return Look(
        case,
        tuple(findings),
        height=scan.image.height,
        width=scan.image.width,
        lesion_pixels=None if scan.mask is None else int(scan.mask.sum()),
        pixels=scan.pixels_sha256,
        mask=scan.mask_sha256,
        print=fingerprint(scan.grey),
        patient=tags.patient or (f"case {case.patient}" if case.patient else ""),
    )


def _find_in_image(scan: ScanPixels) -> list[Finding]:
    flags = {
        ImageWarning.FIRST_FRAME: Finding(Flag.FRAMES, f"{scan.image.frames} frames; export the one that was masked."),
        ImageWarning.NO_CONTRAST: Finding(Flag.NO_CONTRAST),
        ImageWarning.COLOUR: Finding(Flag.COLOUR, "Doppler, or marks in colour."),
        ImageWarning.WINDOWED: Finding(Flag.WINDOWED),
        ImageWarning.BURNED_IN: Finding(Flag.TEXT, "The file itself says so (Burned In Annotation)."),
    }
    return [finding for warning, finding in flags.items() if warning in scan.image.warnings]


def _find_in_mask(case: Case, scan: ScanPixels) -> list[Finding]:
    """What is wrong with class and mask, taken together."""
    reference, is_normal = scan.reference, case.diagnosis is Diagnosis.NORMAL
    findings = [] if case.diagnosis else [Finding(Flag.NO_CLASS, "No folder or name says normal, benign or malignant.")]
    if reference.mask is None:
        flag = Flag.NO_MASK if reference.missing else Flag.BAD_MASK
        return [*findings, Finding(flag, "" if reference.missing else reference.problem or "")]
    if is_normal and reference.mask.any():
        findings.append(Finding(Flag.LESION_IN_NORMAL, f"{int(reference.mask.sum()):,} pixels."))
    elif case.diagnosis and not is_normal and not reference.mask.any():
        findings.append(Finding(Flag.EMPTY_MASK))
    if len(case.masks) > 1:
        findings.append(Finding(Flag.MERGED, f"{len(case.masks)} files."))
    odd = [note for note in reference.notes if case.masks and not note.endswith("merged.")]
    if odd:
        findings.append(Finding(Flag.MASK_READ, " ".join(odd)))
    return findings


def _find_marks(scan: ScanPixels) -> list[Finding]:
    marks = find_marks(scan.grey)
    found = []
    if marks.text:
        found.append(Finding(Flag.TEXT, f"{len(marks.text)} line{'s' if len(marks.text) > 1 else ''} of text."))
    if marks.measuring:
        found.append(Finding(Flag.MARKS, f"{len(marks.measuring)} crosses or dotted lines."))
    return found


def _find_tags(tags: PatientTags) -> list[Finding]:
    if not tags.readable:
        return [Finding(Flag.TAGS, "They cannot be read, so that any of them may be filled.")]
    return [Finding(Flag.TAGS, f"{', '.join(tags.filled)}. Values are neither shown nor kept.")] if tags.filled else []


def _relate(looks: Sequence[Look], known: KnownScans) -> tuple[ScanReport, ...]:
    """What only shows beside other scans: copies, classes that contradict each other, patients."""
    ids = [look.case.id for look in looks]
    prints = [(look.case.id, look.print) for look in looks if look.print is not None]
    matrix = np.stack([one for _, one in prints]) if prints else np.empty((0, LENGTH), np.float32)
    # Equal pixels are one scan even where a flat image has no fingerprint to correlate.
    equal = _chain(_gather({look.case.id: look.pixels for look in looks if look.pixels}))
    copies = find_pairs([id for id, _ in prints], matrix) | equal
    patients = _chain(_gather({look.case.id: look.patient for look in looks if look.patient}))
    scans = {id: group for group in group_scans(ids, sorted(copies)) for id in group}
    groups = {id: group[0] for group in group_scans(ids, sorted(copies | patients)) for id in group}
    matches = {id: found for (id, _), found in zip(prints, known.find_copies(matrix), strict=True)}
    by_id = {look.case.id: look for look in looks}
    reports = []
    for look in looks:
        id = look.case.id
        found = [int(position) for position in matches.get(id, ())]
        among = [by_id[other] for other in scans[id]]
        findings = [*look.findings, *_find_repeats(look, among), *_find_known(look, found, known)]
        reports.append(
            ScanReport(
                id=id,
                name=look.case.name,
                diagnosis=look.case.diagnosis,
                findings=tuple(sorted(findings, key=lambda finding: list(Flag).index(finding.flag))),
                height=look.height,
                width=look.width,
                mask_files=len(look.case.masks),
                lesion_pixels=look.lesion_pixels,
                scan=scans[id][0],
                group=groups[id],
                copies_of=tuple(known.ids[position] for position in found),
                pixels=look.pixels,
                mask=look.mask,
            )
        )
    return tuple(reports)


def _find_repeats(look: Look, among: Sequence[Look]) -> list[Finding]:
    others = [other for other in among if other is not look]
    if not others:
        return []
    findings = [Finding(Flag.REPEATED, f"Shows the same scan as {_name([other.case.name for other in others])}.")]
    classes = {one.case.diagnosis for one in among if one.case.diagnosis}
    if len(classes) > 1:
        named = ", ".join(f"{one.case.name} {one.case.diagnosis or 'unknown'}" for one in among[: MAX_NAMED + 1])
        findings.append(Finding(Flag.CONFLICT, f"{named}. Exclude the wrong ones."))
    return findings


def _find_known(look: Look, found: Sequence[int], known: KnownScans) -> list[Finding]:
    test = [known.ids[position] for position in found if known.ids[position] in known.test_ids]
    if test:
        return [Finding(Flag.TEST_COPY, f"It is {_name(test)}; what is trained on it cannot be tested on it.")]
    public = [known.ids[one] for one in found if known.ids[one].split("/")[0] in PUBLIC_SETS]
    accepted = [known.ids[one] for one in found if known.ids[one] not in public]
    findings = [
        Finding(flag, f"Shows the same scan as {_name(ids)}.")
        for flag, ids in ((Flag.KNOWN_COPY, public), (Flag.EARLIER_COPY, accepted))
        if ids
    ]
    other = [one for one in found if look.case.diagnosis and known.diagnoses[one] is not look.case.diagnosis]
    if other:
        named = ", ".join(f"{known.ids[one]} is {known.diagnoses[one]}" for one in other[:MAX_NAMED])
        findings.append(Finding(Flag.CONFLICT_KNOWN, f"{named}."))
    return findings


def _gather(values: Mapping[str, str]) -> list[list[str]]:
    """Ids that share a value."""
    gathered: dict[str, list[str]] = {}
    for id, value in values.items():
        gathered.setdefault(value, []).append(id)
    return list(gathered.values())


def _chain(groups: Iterable[Sequence[str]]) -> set[tuple[str, str]]:
    """Each name of a group with the next one: for `group_scans` the same as all pairs, and no more than the names."""
    return {pair for group in groups for pair in pairwise(group)}


def _name(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
