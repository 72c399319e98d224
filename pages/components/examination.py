"""The examination of one administrator's session: what is looked at, how far it is, and its report; in memory only.

Work is done a few seconds at a time inside the session's own runs, as in Batch: a closed tab stops it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import streamlit as st

from busi_core import BusiError
from busi_core.access import Permit
from busi_core.managed.inspection import Inspection
from busi_core.managed.intake import Intake
from busi_core.managed.known import Progress
from busi_core.managed.picture import cut_text, draw_scan
from busi_core.managed.report import InspectionReport
from busi_core.promotion.locked import read_known_scans
from busi_core.settings import Settings

CHUNK_SECONDS = 2.0  # of looking at scans in one run of the fragment
PICTURE_PX = 340
MAX_PICTURES = 600  # of 15 KB
_KEY = "examination"


@dataclass
class Examination:
    """Attributes:
    intake: What is examined; None before anything was chosen.
    title: What it is called on screen: the zip's name, the folder.
    inspection: Under way, once the known sets are read.
    report: When it is done.
    generation: Counts examinations; part of widget keys.
    seconds: Spent so far looking at scans.
    accepted: Id of the set that was kept last.
    pictures: Small pictures drawn so far, by the id of the scan; None where it cannot be read.
    texts: Text cut out of scans so far, by the id of the scan.
    problem: Why the last one failed; None once the next one begins.
    mode: What the decision begins with; '' before it was asked for.
    excluded: Ids of scans that are unticked; None before the table was drawn.
    offered: Those of them that the table was drawn with.
    sure: For which scans somebody said that no patient's name is in them; '' where nobody did.
    words: Name, source and licence as typed so far. All these stay while another page is looked at, when the browser
        forgets what stood in its fields.
    """

    intake: Intake | None = None
    title: str = ""
    inspection: Inspection | None = None
    report: InspectionReport | None = None
    generation: int = 0
    seconds: float = 0.0
    accepted: str | None = None
    pictures: dict[str, bytes | None] = field(default_factory=dict)
    texts: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    problem: BusiError | None = None
    mode: str = ""
    excluded: set[str] | None = None
    offered: set[str] = field(default_factory=set)
    sure: str = ""
    words: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Scans to look at."""
        return len(self.intake.batch.cases) if self.intake else 0

    @property
    def done(self) -> int:
        """Scans looked at."""
        return self.inspection.done if self.inspection else 0

    @property
    def seconds_left(self) -> float | None:
        """By the mean so far; None before the first scan."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None

    def begin(self, intake: Intake, title: str) -> None:
        """Forget what was there and examine this."""
        self.clear()
        self.intake, self.title = intake, title

    def advance(self, permit: Permit, settings: Settings, on_known: Progress, on_scan: Callable[[], object]) -> None:
        """Look on for a few seconds; the first time, read what the scans are compared with.

        Raises:
            AccessDeniedError: No administrator any more.
            DatasetError: A known set is not sound.
            OutputError: The numbers of the known sets cannot be kept.
        """
        permit.confirm()
        if self.intake is None:
            return
        if self.inspection is None:
            self.inspection = Inspection(self.intake, read_known_scans(settings, on_known))
        start, before = time.monotonic(), self.seconds
        while not self.inspection.is_done and time.monotonic() - start < CHUNK_SECONDS:
            self.inspection.step()
            self.seconds = before + time.monotonic() - start
            on_scan()
        if self.inspection.is_done:
            self.report = self.inspection.report()

    def picture(self, scan_id: str) -> bytes | None:
        """A small picture of one scan of the report, as JPEG; drawn once."""
        if self.report is None:
            raise ValueError("there is no report yet")
        if scan_id not in self.pictures:
            if len(self.pictures) >= MAX_PICTURES:
                self.pictures.clear()
            self.pictures[scan_id] = draw_scan(self.report.cases[scan_id], width=PICTURE_PX)
        return self.pictures[scan_id]

    def read_texts(self, scan_id: str) -> tuple[bytes, ...]:
        """The text burned into one scan of the report, as PNGs at its own pixels; cut out once."""
        if self.report is None:
            raise ValueError("there is no report yet")
        if scan_id not in self.texts:
            if len(self.texts) >= MAX_PICTURES:
                self.texts.clear()
            self.texts[scan_id] = cut_text(self.report.cases[scan_id])
        return self.texts[scan_id]

    def fail(self, problem: BusiError) -> None:
        """Forget everything but why it failed."""
        self.clear()
        self.problem = problem

    def clear(self) -> None:
        """Forget everything, the upload too."""
        self.intake, self.inspection, self.report, self.title = None, None, None, ""
        self.seconds, self.accepted, self.pictures, self.texts, self.problem = 0.0, None, {}, {}, None
        self.mode, self.excluded, self.offered, self.sure, self.words = "", None, set(), "", {}
        self.generation += 1


def get_examination() -> Examination:
    """That of this session."""
    if _KEY not in st.session_state:
        st.session_state[_KEY] = Examination()
    examination: Examination = st.session_state[_KEY]
    return examination
