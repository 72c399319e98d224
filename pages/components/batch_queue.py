"""The batch of one session: its cases, how far it is, and what became of each; in memory only.

Work is done a few seconds at a time inside the session's own runs, never in a thread that outlives one: so cancel
works at once, a closed tab stops it, and sessions take turns.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import streamlit as st

from busi_core import Analyser, Diagnosis, simulate_scan
from busi_core.batch import ScanRow, read_cases
from busi_core.batch_tables import same_pixels, summarise
from busi_core.data.pairing import Batch, Case, pair_files
from busi_core.data.sources import SourceFile, list_uploads
from busi_core.imaging.encode import mask_png
from busi_core.report import Summary
from pages.components.budget import QUEUE_KEY, room_left, say_full
from pages.components.metrics import Outcome, count_reading
from pages.components.uploads import cap_uploads, open_uploads, say_left_over

MAX_CASES = 2_000  # scans of one batch; a row keeps 10 KB
CHUNK_SECONDS = 3.0  # of reading in one run of the fragment
JOBS = 2  # scans read side by side
SIMULATED_OF_EACH = 4


@dataclass
class BatchQueue:
    """The session's batch.

    Attributes:
        cases: In the order they are read, with ids that are unique in the session.
        rows: What became of the first of them, in the same order.
        running: It goes on at the next run of the fragment.
        notes: What was left out or found no room, one sentence each; plain text.
        problem: Why it stands still, with a remedy; empty when it need not.
        version: The model version that reads this batch, from its first scan to its last.
        reader: Its `Analyser.identity`; empty before the first scan.
        generation: Counts additions; part of ids and of widget keys.
        seconds: Spent reading so far.
        drawn: How many rows the table on screen has.
        simulated: Ids of cases that the phantom made.
        filters: What the reader set in the filters, by the widget's key; stays while other pages are open.
        subject: What the reader typed in as the name on the report; likewise.
        held: Bytes of uploads that it keeps; none of a folder on the server.
    """

    cases: list[Case] = field(default_factory=list)
    rows: list[ScanRow] = field(default_factory=list)
    running: bool = False
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    version: str | None = None
    reader: str = ""
    generation: int = 0
    seconds: float = 0.0
    drawn: int = 0
    simulated: set[str] = field(default_factory=set)
    filters: dict[str, Any] = field(default_factory=dict)
    subject: str = ""
    held: int = 0
    _summaries: tuple[int, list[Summary]] = (0, [])

    @property
    def is_done(self) -> bool:
        """Whether every case has its row."""
        return len(self.rows) == len(self.cases)

    @property
    def seconds_left(self) -> float | None:
        """By the mean so far; None before the first scan."""
        return self.seconds / len(self.rows) * (len(self.cases) - len(self.rows)) if self.rows else None

    def add_uploads(self, files: Sequence[tuple[str, bytes]], *, is_folder: bool = False) -> None:
        """Append what was uploaded, zips opened in memory, and begin.

        Args:
            files: As (name, bytes).
            is_folder: They are a whole folder, in which files other than scans may lie.
        """
        self.notes = []
        files = cap_uploads(files, self.notes)
        if sum(len(data) for _, data in files) > room_left(self):
            self.notes = [say_full(self)]
            self.generation += 1
            return
        first = len(self.cases)
        given = open_uploads(files, self.notes)
        self._add(pair_files(given.loose, keep_all=not is_folder))
        for packed in given.zips:  # each by itself: the same path in two of them is two scans
            self._add(pair_files(packed.files))
        self.held += given.bytes_kept(self.cases[first:])

    def add_files(self, files: Sequence[SourceFile]) -> None:
        """Append the files of a folder on the server, and begin."""
        self.notes = []
        self._add(pair_files(files))

    def add_simulated(self) -> None:
        """Append some simulated scans of each class with their masks, and begin."""
        self.notes = []
        files: list[tuple[str, bytes]] = []
        kinds = list(Diagnosis) * SIMULATED_OF_EACH
        for seed, diagnosis in enumerate(kinds, start=len(self.simulated) + 1):  # another breast for each
            sample = simulate_scan(diagnosis, seed=seed)
            stem = f"simulated/{diagnosis.value}/SIMULATED {diagnosis.value} {seed}"
            files += [(f"{stem}.png", sample.png()), (f"{stem}_mask.png", mask_png(sample.mask))]
        first_case = len(self.cases)
        self._add(pair_files(list_uploads(files)))
        self.simulated |= {case.id for case in self.cases[first_case:]}

    def advance(self, analyser: Analyser, *, seconds: float, on_row: Callable[[], None]) -> None:
        """Read on for about so long; whatever was begun is finished, so nothing is read twice."""
        start = time.monotonic()
        waiting = self.cases[len(self.rows) :]
        in_time = itertools.takewhile(lambda _: time.monotonic() - start < seconds, waiting[1:])
        before = self.seconds
        with closing(read_cases(analyser, itertools.chain(waiting[:1], in_time), jobs=JOBS)) as rows:
            for row in rows:
                self.rows.append(row)
                count_reading(outcome_of(row), analyser.card.version)
                self.seconds = before + time.monotonic() - start
                on_row()
        self.running = self.running and not self.is_done

    def case_of(self, row: ScanRow) -> Case:
        """The case that a row is of: both are in the same order."""
        return next(case for case in self.cases if case.id == row.id)

    def copies(self) -> dict[str, str]:
        """For each row whose pixels came before, the name of the first file that has them."""
        names = {row.id: row.name for row in self.rows}
        return {copy: names[original] for copy, original in same_pixels(self.rows).items()}

    def summaries(self) -> list[Summary]:
        """Figures over the rows so far, computed once for each number of rows."""
        if self._summaries[0] != len(self.rows):
            self._summaries = (len(self.rows), summarise(self.rows))
        return self._summaries[1]

    def cancel(self) -> None:
        """Stop after what is under way; what was read stays."""
        self.running = False

    def stop(self, reason: str) -> None:
        """As `cancel`, and say why."""
        self.cancel()
        self.problem = reason

    def go_on(self) -> None:
        """Read the rest."""
        self.running, self.problem = not self.is_done, ""

    def clear(self) -> None:
        """Forget everything."""
        generation = self.generation
        self.__init__()  # type: ignore[misc]
        self.generation = generation + 1

    def _add(self, batch: Batch) -> None:
        self.generation += 1
        self.problem = ""
        room = MAX_CASES - len(self.cases)
        added = [replace(case, id=f"{self.generation}-{case.id}") for case in batch.cases[:room]]
        self.cases += added
        refused = len(batch.cases) - len(added)
        if refused:
            self.notes.append(f"A batch holds {MAX_CASES} scans: {refused} found no room. Read them in a second batch.")
        self.notes += say_left_over(batch)
        self.running = self.running or not self.is_done


def outcome_of(row: ScanRow) -> Outcome:
    """What became of one scan, as the figures of the server's owner name it."""
    if row.reading is None:
        return "refused"
    return "withheld" if row.reading.withheld else "read"


def get_queue() -> BatchQueue:
    """The batch of this session."""
    if QUEUE_KEY not in st.session_state:
        st.session_state[QUEUE_KEY] = BatchQueue()
    queue: BatchQueue = st.session_state[QUEUE_KEY]
    return queue


def list_server_folders(roots: Sequence[Path]) -> list[tuple[Path, str]]:
    """Folders that may be read: each root's subfolders, two levels down, as (root, relative path)."""
    found = []
    for root in roots:
        if root.is_dir():
            for path in sorted([*root.glob("*/"), *root.glob("*/*/")]):
                if path.is_dir() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                    found.append((root, path.relative_to(root).as_posix()))
    return found
