"""Explanations of one reading -> one message of bytes -> linked small multiples in the browser.

    explanations --pack_explanations--> bytes --show_explanations--> panes with one view, one cut-off, one colour scale

The message is a scene of the viewer (viewer.py) whose heat maps are those of the methods; the scripts that unpack, zoom
and colour are the viewer's. The browser reports nothing back.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import streamlit as st

from busi_core import Analysis
from busi_core.explain.catalogue import WORDS
from busi_core.explain.methods import Explanation
from pages.components.viewer.message import LENGTH_BYTES, Blobs, add_heatmap, add_map, pack_message, scan_png
from pages.components.viewer.viewer import HEAT_CUTOFF, grid_size

SHARED_SCRIPTS: Final = ("keys.js", "maps.js", "scene.js", "panes.js")  # the viewer's

_HERE: Final = Path(__file__).parent
_VIEWER: Final = _HERE.parent / "viewer"


def _text(*paths: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in paths)


_mount = st.components.v2.component(
    "busi_explanations",
    html=_text(_HERE / "explain_viewer.html"),
    css=_text(_VIEWER / "viewer.css", _HERE / "explain_viewer.css"),
    js=_text(*(_VIEWER / name for name in SHARED_SCRIPTS), _HERE / "explain_viewer.js"),
)


def pack_explanations(
    analysis: Analysis, explanations: Sequence[Explanation], *, scan_id: str, lesion_cutoff: float
) -> bytes:
    """Everything that the panes need, as one message.

    Args:
        analysis: The reading that is explained.
        explanations: Of one class or the mask at one layer; no method twice.
        scan_id: Names the scan and model version: the zoom is kept while it stays the same.
        lesion_cutoff: Where the lesion is outlined.
    """
    image = analysis.image
    height, width = grid_size(image.height, image.width)
    blobs = Blobs()
    header = {
        "scan_id": scan_id,
        "label": f"The scan, {image.width} by {image.height} pixels",
        "grid_width": width,
        "grid_height": height,
        "model_version": analysis.model_version,
        "of_first": bool(analysis.opinions),
        "lesion_cutoff": lesion_cutoff,
        "heat_cutoff": HEAT_CUTOFF,
        "scan": blobs.add(scan_png(image, height, width)),
        "probability": add_map(analysis.prediction.lesion_probability, blobs),
        "heatmaps": [_describe(explanation, blobs) for explanation in explanations],
    }
    return pack_message(header, blobs)


def _describe(explanation: Explanation, blobs: Blobs) -> dict[str, object]:
    words, heatmap = WORDS[explanation.method], explanation.heatmap
    return add_heatmap(heatmap, blobs) | {
        "of": words.title,  # the scene tells its maps apart by it
        "explains": heatmap.of,
        "asks": words.asks,
        "does": words.does,
        "found": explanation.found,
        "label": f"{words.title}{f' of {heatmap.of}' if words.asks else ''}: {where_the_peak_lies(explanation)}",
    }


def where_the_peak_lies(explanation: Explanation) -> str:
    """In words, for those who do not see the picture."""
    if not explanation.found:
        return "no evidence found"
    evidence = explanation.heatmap.evidence
    row, column = np.unravel_index(int(evidence.argmax()), evidence.shape)
    down, across = (row + 0.5) / evidence.shape[0], (column + 0.5) / evidence.shape[1]
    return f"strongest {across:.0%} of the width from the left and {down:.0%} of the height from the top"


def show_explanations(message: bytes, *, key: str) -> None:
    """Show packed explanations; nothing in them talks to the server."""
    _mount(key=key, data=bytes(LENGTH_BYTES) + message)  # no fixed height: as high as its panes
