"""The scans of one session: what was uploaded or simulated, in memory only, and which one is open."""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

import streamlit as st

from pages.components.budget import TRAY_KEY, room_left, say_full
from pages.components.explain_panel import Shelf

MAX_SCANS = 200


class Upload(Protocol):
    """What Streamlit's uploader hands over."""

    name: str

    def getvalue(self) -> bytes:
        """The file's bytes."""
        ...


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan of the session.

    Attributes:
        id: Unique in the session; never made from the name.
        name: As the browser gave it: data to show, never a path.
        data: The file's bytes.
        simulated: Made by the phantom.
    """

    id: str
    name: str
    data: bytes
    simulated: bool


@dataclass
class Tray:
    """The session's scans in order, and the open one.

    Attributes:
        scans: At most `MAX_SCANS`.
        index: Of the open scan; 0 when there is none.
        refused: How many of the last addition found no room.
        frames: Which frame, from 0, was chosen of a scan with several, by the scan's id.
        cutoffs: What the reader chose as the lesion's cut-off, by the id of the reading.
        heat_cutoffs: The same of the heat map's.
        starts: Both as they were when the page was opened: where the viewer's sliders start.
        generation: Counts additions; part of the uploader's key, so that it is empty again after each.
        shelf: What was explained of the scans.
        subjects: What the reader typed in as the name on a scan's report, by the scan's id.
        insisted: Scans, by id, whose withheld answer was asked for all the same.
        doubted: Readings, by id, of which it was asked how firm they are.
        read_first: The reader looks before the model speaks; stays when the scans are cleared.
    """

    scans: list[Scan] = field(default_factory=list)
    index: int = 0
    refused: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    cutoffs: dict[str, float] = field(default_factory=dict)
    heat_cutoffs: dict[str, float] = field(default_factory=dict)
    starts: tuple[dict[str, float], dict[str, float]] = field(default_factory=lambda: ({}, {}))
    generation: int = 0
    shelf: Shelf = field(default_factory=Shelf)
    subjects: dict[str, str] = field(default_factory=dict)
    insisted: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)
    read_first: bool = False

    @property
    def held(self) -> int:
        """Bytes of its scans."""
        return sum(len(scan.data) for scan in self.scans)

    @property
    def open_scan(self) -> Scan | None:
        """The scan on screen."""
        return self.scans[self.index] if self.scans else None

    def add(self, files: list[tuple[str, bytes]], *, simulated: bool) -> None:
        """Append files and open the first of them; what has no room is counted in `refused`."""
        first, self.refused = len(self.scans), 0
        room = room_left(self)
        for name, data in files:
            if len(self.scans) >= MAX_SCANS or len(data) > room:
                self.refused += 1
                continue
            room -= len(data)
            self.generation += 1
            digest = hashlib.blake2b(data, digest_size=8).hexdigest()
            self.scans.append(Scan(f"{self.generation}-{digest}", name, data, simulated))
        if len(self.scans) > first:
            self.index = first
        self.generation += 1

    def take(self, name: str, data: bytes, *, simulated: bool) -> bool:
        """Open a scan of another list, unless it is here; False where there is no room for it."""
        for index, scan in enumerate(self.scans):
            if scan.name == name and scan.data == data:
                self.open(index)
                return True
        self.add([(name, data)], simulated=simulated)
        return not self.refused

    def step(self, by: int) -> None:
        """Open the next or the previous scan; stays at either end."""
        self.open(self.index + by)

    def open(self, index: int) -> None:
        """Open a scan by its position, from 0; a position outside opens the nearest."""
        self.index = max(0, min(index, len(self.scans) - 1))

    def clear(self) -> None:
        """Forget every scan."""
        self.scans, self.index, self.refused, self.frames, self.shelf, self.subjects = [], 0, 0, {}, Shelf(), {}
        self.cutoffs, self.heat_cutoffs, self.starts = {}, {}, ({}, {})
        self.insisted, self.doubted = set(), set()
        self.generation += 1


def say_refused(tray: Tray) -> str:
    """How many files of the last addition found no room, and what makes some; plain text."""
    files = "1 file" if tray.refused == 1 else f"{tray.refused:,} files"
    return f"{files} found no room; {MAX_SCANS} scans are open here at most. {say_full(tray)}"


def get_tray() -> Tray:
    """The tray of this session."""
    if TRAY_KEY not in st.session_state:
        st.session_state[TRAY_KEY] = Tray()
    tray: Tray = st.session_state[TRAY_KEY]
    return tray
