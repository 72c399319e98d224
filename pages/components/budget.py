"""What one session may keep of uploads, over all pages together: the scans of Analyse, the cases of Compare, the batch.

Each of the three stores says what it holds now, so that what is cleared on one page is free on every other.
"""

from typing import Protocol

import streamlit as st

MAX_BYTES = 600_000_000  # of what one session uploaded; a server of 1 GB holds the model beside it
TRAY_KEY, CASES_KEY, QUEUE_KEY = "tray", "cases", "batch-queue"  # of the session's state, where they lie
_STORES = (TRAY_KEY, CASES_KEY, QUEUE_KEY)


class Store(Protocol):
    """What keeps uploads for a session."""

    @property
    def held(self) -> int:
        """Bytes that it keeps now."""
        ...


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
