"""The scan viewer: one analysis -> one message of bytes -> panes in which the browser zooms, cuts off and colours.

    Analysis --pack_scene--> bytes --show_viewer--> browser
    browser --a cut-off released, a finding revealed, a step to the next scan--> ViewerState

A scene is a 4-byte little-endian length, a JSON header of that length, then blobs: the scan as PNG on the
viewer's grid, and float32 maps at the model's side, which the browser upsamples as
`busi_core.imaging.preprocess.upsample` does (`maps.js`; a test holds the two equal). message.py lays it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import streamlit as st

from busi_core import Analysis
from pages.components.viewer.message import (
    LENGTH_BYTES,
    Blobs,
    add_heatmap,
    add_map,
    pack_message,
    read_header,
    read_out,
    scan_png,
)

MAX_GRID_SIDE_PX: Final = 1024  # the longer side of what is sent; sharp on a full screen, 2 MB at most
HEAT_CUTOFF: Final = 0.3  # evidence below it is mostly the map's floor
LESION_CUTOFF_RANGE: Final = (0.01, 0.99)  # what the slider offers
SHARED_SCRIPTS: Final = ("keys.js", "maps.js", "scene.js", "panes.js", "shell.js")  # the comparison joins them too
SCRIPTS: Final = (*SHARED_SCRIPTS, "panel.js", "viewer.js")  # one module, in this order

_HERE: Final = Path(__file__).parent


def _text(*names: str) -> str:
    return "\n".join((_HERE / name).read_text("utf-8") for name in names)


_mount = st.components.v2.component(
    "busi_viewer", html=_text("viewer.html"), css=_text("viewer.css"), js=_text(*SCRIPTS)
)


@dataclass(frozen=True)
class ViewerState:
    """What the reader has told the page about the scan that is shown, and about no other.

    Attributes:
        lesion_cutoff: Chosen cut-off on the lesion probability; None while it was not touched.
        heat_cutoff: Chosen cut-off on the heat map; None while it was not touched.
        step: How many scans onward the reader just asked to go, backward below 0; else 0. Lasts one run.
        revealed: The reader asked to see what the model sees ('read first').
    """

    lesion_cutoff: float | None
    heat_cutoff: float | None
    step: int
    revealed: bool


def pack_scene(
    analysis: Analysis,
    *,
    scan_id: str,
    name: str,
    position: int,
    count: int,
    simulated: bool,
    read_first: bool,
    lesion_cutoff: float,
    heat_cutoff: float = HEAT_CUTOFF,
    heat_worth: str = "",
) -> bytes:
    """Everything that the viewer needs to show one scan, as one message.

    Keep the arguments of one scan the same from run to run: Streamlit sends an unchanged message by its hash.

    Args:
        analysis: What one model version says about the image.
        scan_id: Names this scan and model version; what the reader chose is kept by it.
        name: The file's name as uploaded; shown as plain text.
        position: Which of `count` scans this is, from 1.
        count: How many scans the reader can step through.
        simulated: The image or the result is made up; the viewer says so.
        read_first: Cover what the model drew until the reader asks for it.
        lesion_cutoff: Where the lesion slider starts; the model's own is marked beside it.
        heat_cutoff: Where the heat map slider starts.
        heat_worth: How often the heat map of the likeliest class led to the lesion on test scans, in words.
    """
    low, high = LESION_CUTOFF_RANGE
    if not low <= lesion_cutoff <= high:
        raise ValueError(f"lesion_cutoff must lie in [{low}, {high}], got {lesion_cutoff}")
    if not 0 <= heat_cutoff <= 1:
        raise ValueError(f"heat_cutoff must lie in [0, 1], got {heat_cutoff}")
    if not 1 <= position <= count:
        raise ValueError(f"position must lie in [1, count], got {position} of {count}")
    image = analysis.image
    grid_height, grid_width = grid_size(image.height, image.width)
    blobs = Blobs()
    header = {
        "scan_id": scan_id,
        "name": name,
        "label": f"Ultrasound scan {name}, {image.width} by {image.height} pixels",
        "width": image.width,
        "height": image.height,
        "grid_width": grid_width,
        "grid_height": grid_height,
        "position": position,
        "count": count,
        "model_version": analysis.model_version,
        "simulated": simulated,
        "read_first": read_first,
        "withheld": analysis.withheld,
        "said": read_out(analysis),
        "lesion_cutoff": analysis.lesion_threshold,
        "current_lesion_cutoff": lesion_cutoff,
        "heat_cutoff": heat_cutoff,
        "scan": blobs.add(scan_png(image, grid_height, grid_width)),
        "probability": add_map(analysis.prediction.lesion_probability, blobs),
        "heat_first": analysis.prediction.diagnosis.value if analysis.prediction.diagnosis else None,
        "heat_worth": heat_worth,
        "heat_of_first": bool(analysis.opinions),
        "heatmaps": [add_heatmap(heatmap, blobs) for heatmap in analysis.heatmaps.values()],
    }
    return pack_message(header, blobs)


def grid_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the grid the viewer draws on: the image's own, or its longer side cut to 1024."""
    scale = min(1.0, MAX_GRID_SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def show_viewer(scene: bytes, *, key: str, height: int = 720) -> ViewerState:
    """Show a packed scene and say what the reader chose for it.

    Dragging costs no run of the page; letting go of a cut-off costs one.

    Args:
        scene: From `pack_scene`.
        key: Keep it the same from scan to scan, so that the viewer stays and only the scan changes.
        height: Pixels of the whole viewer on a wide screen; on a phone it takes what it needs.
    """
    message = height.to_bytes(LENGTH_BYTES, "little") + scene
    result = _mount(key=key, data=message, on_views_change=_ignore, on_step_change=_ignore)
    return read_state(result, read_header(scene))


def read_state(result: Mapping[str, object], header: Mapping[str, Any]) -> ViewerState:
    """What the browser reported about one scan; reports on others, or out of range, count as nothing."""
    views = result.get("views")
    view = views.get(header["scan_id"]) if isinstance(views, Mapping) else None
    if not isinstance(view, Mapping):
        view = {}
    return ViewerState(
        lesion_cutoff=_number(view.get("lesion_cutoff"), *LESION_CUTOFF_RANGE),
        heat_cutoff=_number(view.get("heat_cutoff"), 0, 1),
        step=read_step(result, header),
        revealed=view.get("revealed") is True,
    )


def read_step(result: Mapping[str, object], header: Mapping[str, Any]) -> int:
    """How far it is to the scan that was asked for by its place: a press made before the last was answered counts."""
    step = result.get("step")
    to = _number(step.get("to"), 1, header["count"]) if isinstance(step, Mapping) else None
    return int(to) - header["position"] if to is not None else 0


def _number(value: object, low: float, high: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return None
    return float(value)


def _ignore() -> None:
    """Streamlit returns only what has a callback; the values are read after mounting."""
