"""The scans of a session as thumbnails; a click or an arrow key opens one. To Tab the strip is one place.

One message of raw bytes, as the viewer's: a 4-byte little-endian length, a JSON header, then JPEG thumbnails.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import streamlit as st

from busi_core import InvalidImageError, decode_image

THUMBNAIL_HEIGHT_PX: Final = 56
MAX_THUMBNAIL_WIDTH_PX: Final = 112

_HERE: Final = Path(__file__).parent
_mount = st.components.v2.component(
    "busi_filmstrip",
    html='<div class="strip" role="listbox" aria-label="Scans of this session" aria-orientation="horizontal"></div>\n',
    css=(_HERE / "filmstrip.css").read_text("utf-8"),
    js=(_HERE / "filmstrip.js").read_text("utf-8"),
)


@dataclass(frozen=True)
class Tile:
    """One place of the strip: a name, and a JPEG or, for a file that cannot be read, nothing."""

    name: str
    thumbnail: bytes


@st.cache_data(show_spinner=False, max_entries=200, scope="session")
def make_thumbnail(data: bytes) -> bytes:
    """A small JPEG of the first frame; empty when the file cannot be read (its own page says why)."""
    try:
        rgb = decode_image(data).rgb
    except InvalidImageError:
        return b""
    height, width = rgb.shape[:2]
    scale = min(THUMBNAIL_HEIGHT_PX / height, MAX_THUMBNAIL_WIDTH_PX / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]))
    return encoded.tobytes()


def show_filmstrip(tiles: Sequence[Tile], current: int, *, key: str) -> int | None:
    """Draw the strip.

    Returns:
        The position that was just picked, from 0; None when nothing was.
    """
    header = {
        "current": current,
        "keys": not tiles[current].thumbnail,  # the viewer steps by arrow keys; where there is none, the strip does
        "tiles": [{"name": tile.name, "length": len(tile.thumbnail)} for tile in tiles],
    }
    text = json.dumps(header).encode()
    message = len(text).to_bytes(4, "little") + text + b"".join(tile.thumbnail for tile in tiles)
    picked = _mount(key=key, data=message, on_picked_change=_ignore).get("picked")
    inside = isinstance(picked, int) and not isinstance(picked, bool) and 0 <= picked < len(tiles)
    return picked if inside and picked != current else None


def _ignore() -> None:
    """Streamlit returns only what has a callback."""
