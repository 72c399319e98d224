"""What one session may keep of uploads, over all pages together: the scans of Analyse, the cases of Compare, the batch.

Each of the three stores says what it holds now, so that what is cleared on one page is free on every other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import streamlit as st

from busi_core.data.pairing import Case
from busi_core.data.sources import SourceFile

MAX_BYTES = 600_000_000  # of what one session uploaded; a server of 1 GB holds the model beside it
TRAY_KEY, CASES_KEY, QUEUE_KEY = "tray", "cases", "batch-queue"  # of the session's state, where they lie
_STORES = (TRAY_KEY, CASES_KEY, QUEUE_KEY)


class Store(Protocol):
    """What keeps uploads for a session."""

    @property
    def held(self) -> int:
        """Bytes that it keeps now."""
        ...


@dataclass(frozen=True, eq=False)
class OpenZip:
    """A zip that was uploaded.

    Attributes:
        size: Bytes, packed: as it stays in memory.
        files: What is in it.
    """

    size: int
    files: list[SourceFile]


def count_kept(loose: Sequence[SourceFile], zips: Sequence[OpenZip], cases: Iterable[Case]) -> int:
    """Bytes of an upload that stay in memory: files that a case is made of, and zips of which one is."""
    kept = {id(file) for case in cases for file in (case.scan, *case.masks)}
    return sum(file.size for file in loose if id(file) in kept) + sum(
        packed.size for packed in zips if any(id(file) in kept for file in packed.files)
    )


def held_bytes(own: Store) -> int:
    """What the session holds now.

    Args:
        own: The store that asks; counted also before it lies in the session's state.
    """
    stores: dict[int, Store] = {id(own): own}
    for key in _STORES:
        if key in st.session_state:
            stores[id(st.session_state[key])] = st.session_state[key]
    return sum(store.held for store in stores.values())


def room_left(own: Store) -> int:
    """Bytes that the session may still add."""
    return max(0, MAX_BYTES - held_bytes(own))


def say_full(own: Store) -> str:
    """Why something found no room, and what makes some."""
    held = f"This session holds {held_bytes(own) / 1e6:.0f} of {MAX_BYTES / 1e6:.0f} MB."
    return f"{held} Clear a batch, cases or scans, and add these again."
