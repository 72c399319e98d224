"""The cases of one session's comparison: scans with their reference masks, in memory only, and which one is open."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import streamlit as st

from busi_core import Diagnosis, InvalidImageError, simulate_scan
from busi_core.data.pairing import Batch, Case, pair_files, pair_folders
from busi_core.data.sources import SourceFile, list_uploads
from busi_core.imaging.encode import mask_png
from busi_core.types import Grey
from pages.components.budget import CASES_KEY, room_left, say_full
from pages.components.uploads import Upload, cap_uploads, open_uploads, say_left_over


@dataclass
class CaseList:
    """The session's cases in order, and the open one.

    Attributes:
        cases: With ids that are unique in the session.
        index: Of the open case; 0 when there is none.
        notes: What the last addition left over or could not read, one sentence each; plain text.
        generation: Counts additions; part of ids and of the uploaders' keys.
        simulated: Ids of cases that the phantom made.
        opened: For the pixels of each scan opened so far, the case that showed them first.
        subjects: What the reader typed in as the name on a case's report, by the case's id.
        versions: What the reader chose as the version that reads and the one beside it, by the widget's key.
        frames: Which frame, from 1, was chosen of a scan with several, by the widget's key.
        cutoffs: On the lesion probability, as the reader let go of them, by the scan shown and the version.
        session: Names this list to the browser, and no other; another one when the cases are cleared.
        kept: Numbers of the corrected masks that the store has taken.
        held: Bytes of uploads that it keeps; none of a folder on the server.
    """

    cases: list[Case] = field(default_factory=list)
    index: int = 0
    notes: list[str] = field(default_factory=list)
    generation: int = 0
    simulated: set[str] = field(default_factory=set)
    opened: dict[str, Case] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    cutoffs: dict[str, dict[str, float]] = field(default_factory=dict)
    session: str = field(default_factory=secrets.token_hex)
    kept: set[int] = field(default_factory=set)
    held: int = 0

    @property
    def open_case(self) -> Case | None:
        """The case on screen."""
        return self.cases[self.index] if self.cases else None

    def add(self, batch: Batch, *, simulated: bool = False) -> None:
        """Append cases and open the first of them."""
        self.generation += 1
        first = len(self.cases)
        added = [replace(case, id=f"{self.generation}-{case.id}") for case in batch.cases]
        self.cases += added
        if simulated:
            self.simulated |= {case.id for case in added}
        if added:
            self.index = first
        self.notes += say_left_over(batch)

    def add_uploads(self, scans: Sequence[Upload], masks: Sequence[Upload] = (), *, is_folder: bool = False) -> None:
        """Append what was uploaded.

        Args:
            scans: Files as (name, bytes): scans, their masks, zips.
            masks: Given apart from their scans, under any names; zips too.
            is_folder: The scans are a whole folder, in which other files may lie.
        """
        self.notes = []
        scans, masks = cap_uploads(scans, self.notes), cap_uploads(masks, self.notes)
        if sum(len(data) for _, data in [*scans, *masks]) > room_left(self):
            self.notes = [say_full(self)]
            return
        first = len(self.cases)
        given, apart = open_uploads(scans, self.notes), open_uploads(masks, self.notes)
        if apart.files:
            self.add(_pair(given.files, apart.files))
        else:
            self.add(pair_files(given.loose, keep_all=not is_folder))
            for packed in given.zips:  # each by itself: the same path in two of them is two scans
                self.add(pair_files(packed.files))
        self.held += given.bytes_kept(self.cases[first:]) + apart.bytes_kept(self.cases[first:])
        if len(self.cases) > first:
            self.open(first)

    def find_same_pixels(self, case: Case, grey: Grey) -> Case | None:
        """Another case that was opened before and shows the very same pixels."""
        digest = hashlib.blake2b(grey.tobytes(), digest_size=16).hexdigest() + f"{grey.shape}"
        first = self.opened.setdefault(digest, case)
        return None if first.id == case.id else first

    def step(self, by: int) -> None:
        """Open the next or the previous case; stays at either end."""
        self.open(self.index + by)

    def open(self, index: int) -> None:
        """Open a case by its position, from 0; a position outside opens the nearest."""
        self.index = max(0, min(index, len(self.cases) - 1))

    def take(self, case: Case, *, simulated: bool) -> bool:
        """Open a case of another list, unless it is here; False where there is no room for it.

        Its bytes are copied, so that what is cleared there is free.
        """
        own = replace(case, scan=_copy(case.scan), masks=tuple(map(_copy, case.masks)))
        for place, one in enumerate(self.cases):
            if _is_same(one, own):
                self.open(place)
                return True
        size = sum(file.size for file in (own.scan, *own.masks))
        if size > room_left(self):
            self.notes = [say_full(self)]
            return False
        self.held += size
        self.add(Batch((own,), (), ()), simulated=simulated)
        return True

    def clear(self) -> None:
        """Forget every case, and what was drawn; which versions read stays."""
        self.cases, self.index, self.notes, self.simulated, self.opened, self.subjects = [], 0, [], set(), {}, {}
        self.frames, self.cutoffs, self.session, self.kept, self.held = {}, {}, secrets.token_hex(), set(), 0
        self.generation += 1


def _copy(file: SourceFile) -> SourceFile:
    """The file without what it lies in, a zip perhaps; one that cannot be read stays as it is, and says so later."""
    try:
        (own,) = list_uploads([(file.name, file.read())])
    except InvalidImageError:
        return file
    return own


def _is_same(one: Case, other: Case) -> bool:
    """Whether two cases are of the same files."""
    files, others = (one.scan, *one.masks), (other.scan, *other.masks)
    if [(file.name, file.size) for file in files] != [(file.name, file.size) for file in others]:
        return False
    try:
        return all(file is same or file.read() == same.read() for file, same in zip(files, others, strict=True))
    except InvalidImageError:
        return False


def get_cases() -> CaseList:
    """The cases of this session."""
    if CASES_KEY not in st.session_state:
        st.session_state[CASES_KEY] = CaseList()
    cases: CaseList = st.session_state[CASES_KEY]
    return cases


def simulate_case(diagnosis: Diagnosis, seed: int) -> Batch:
    """A simulated scan with the mask that it was drawn from; of no patient."""
    sample = simulate_scan(diagnosis, seed=seed)
    name = f"simulated {diagnosis.value} {seed}"
    scan, mask_file = list_uploads([(f"{name}.png", sample.png()), (f"{name}_mask.png", mask_png(sample.mask))])
    return Batch((Case("simulated", scan.name, scan, (mask_file,), diagnosis, None),), (), ())


def scan_key(case: Case, data: bytes) -> str:
    """Names the open scan to the browser: by the case and its bytes, never by its name."""
    return f"{case.id}-{hashlib.blake2b(data, digest_size=8).hexdigest()}"


def _pair(scans: list[SourceFile], masks: list[SourceFile]) -> Batch:
    """Masks given apart belong to the only scan whatever they are called, else to the scan of their name."""
    if not masks:
        return pair_files(scans, keep_all=True)
    alone = pair_files(scans, keep_all=True)
    if len(alone.cases) == 1:
        (case,) = alone.cases
        return replace(alone, cases=(replace(case, masks=(*case.masks, *masks)),))
    return pair_folders(scans, masks)
