"""Scan, reference mask and one or two readings -> one message of bytes -> panes beside each other in the browser.

    readings + reference --pack_case--> bytes --show_comparison--> browser
    browser --a cut-off released, a mask handed over, a step to the next scan--> CompareState

For each reading the message holds one byte a pixel of the scan: how many of the slider's cut-offs that pixel reaches
(`index_by_cutoffs`). So the browser knows the mask at every cut-off exactly as Python does and counts Dice, IoU,
precision and recall from the scan's own pixels. Above `MAX_LIVE_PIXELS` the pixels are sent reduced, and the counts
with them. Masks and indices travel deflated; the browser never reads a canvas back, which some browsers answer with
noise.
"""

import base64
import binascii
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import streamlit as st

from busi_core import Analysis
from busi_core.comparison import Comparison, index_by_cutoffs, overlap_curve
from busi_core.imaging.preprocess import upsample
from busi_core.types import Mask
from pages.components.viewer.message import (
    LENGTH_BYTES,
    Blobs,
    add_heatmap,
    pack_message,
    read_header,
    read_out,
    scan_png,
)
from pages.components.viewer.viewer import LESION_CUTOFF_RANGE, SHARED_SCRIPTS, read_step

MAX_LIVE_PIXELS: Final = 4_000_000  # of the scan: up to here the browser counts, and masks can be corrected
MAX_REDUCED_SIDE_PX: Final = 1600  # the longer side of what is sent of a larger scan
MAX_EDITED_BYTES: Final = 2_000_000  # of one mask as it comes back, deflated; a drawn one has some thousand
OWN_SCRIPTS: Final = (
    "pixels.js", "case.js", "hand.js", "editor.js", "figures.js", "painting.js", "correcting.js", "compare_viewer.js"
)  # fmt: skip

_HERE: Final = Path(__file__).parent
_VIEWER: Final = _HERE.parent / "viewer"


def _text(*paths: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in paths)


_SCRIPT: Final = _text(*(_VIEWER / name for name in SHARED_SCRIPTS), *(_HERE / name for name in OWN_SCRIPTS))
_mount = st.components.v2.component(
    "busi_compare",
    html=_text(_HERE / "compare_viewer.html"),
    css=_text(_VIEWER / "viewer.css", _HERE / "compare_viewer.css"),
    js=_SCRIPT,
)
_forget = st.components.v2.component("busi_compare_forget", js=_SCRIPT)  # the same text is one module in the browser


@dataclass(frozen=True, eq=False)
class ShownReading:
    """One model version's reading, at the cut-off the reader chose.

    Attributes:
        analysis: Of the scan.
        cutoff: On the lesion probability.
        comparison: At that cut-off; None without a reference mask.
    """

    analysis: Analysis
    cutoff: float
    comparison: Comparison | None


@dataclass(frozen=True, eq=False)
class EditedMask:
    """A mask as the reader left it.

    Attributes:
        mask: (height, width) bool in the scan's pixels.
        model_version: Whose prediction it stands against.
        cutoff: Of that prediction.
        number: Names it to the browser, which calls it unsaved until it hears that it was kept.
    """

    mask: Mask
    model_version: str
    cutoff: float
    number: int


@dataclass(frozen=True, eq=False)
class CompareState:
    """What the reader has told the page about the scan that is shown, and about no other.

    Attributes:
        step: How far it is to the scan that the reader just asked for, else 0. Lasts one run.
        edited: A mask that the reader just handed over to be kept; None otherwise. Lasts one run.
    """

    step: int = 0
    edited: EditedMask | None = None


def slider_cutoffs(own: float) -> tuple[float, ...]:
    """The cut-offs that the slider can stand at: every hundredth, and the model's own."""
    low, high = LESION_CUTOFF_RANGE
    hundredths = {round(step / 100, 2) for step in range(round(100 * low), round(100 * high) + 1)}
    near = {step for step in hundredths if np.float32(step) == np.float32(own)}
    return tuple(sorted((hundredths - near) | {own}))


def pack_case(
    readings: Sequence[ShownReading],
    reference: Mask | None,
    *,
    scan_id: str,
    name: str,
    position: int,
    count: int,
    simulated: bool,
    no_reference: str,
    mask_name: str,
    can_keep: bool,
    session: str,
    kept: Collection[int] = (),
    taught: Collection[str] = (),
) -> bytes:
    """Everything that the browser needs to compare one scan, as one message.

    Args:
        readings: Of the same scan, one or two, by different model versions.
        reference: (height, width) bool; None where there is none.
        scan_id: Names this scan; what the reader chose is kept by it.
        name: The file's name as uploaded; shown as plain text.
        position: Which of `count` scans this is, from 1.
        count: How many scans the reader can step through.
        simulated: The scan is made up; the screen says so.
        no_reference: Why there is none, in one or two sentences.
        mask_name: Under which a corrected mask is downloaded.
        can_keep: Offer to hand a corrected mask over to the store.
        session: Names the list of scans; what was drawn on those of another list is forgotten.
        kept: The numbers of the corrected masks that the store has taken.
        taught: The model versions that a copy of this scan taught, so their figures flatter; the screen says so.
    """
    if not 1 <= len(readings) <= 2:
        raise ValueError(f"one or two readings can be shown, got {len(readings)}")
    image = readings[0].analysis.image
    live = image.height * image.width <= MAX_LIVE_PIXELS
    scale = 1.0 if live else min(1.0, MAX_REDUCED_SIDE_PX / max(image.height, image.width))
    height, width = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    blobs = Blobs()
    header = {
        "scan_id": scan_id,
        "name": name,
        "label": f"Ultrasound scan {name}, {image.width} by {image.height} pixels",
        "width": image.width,
        "height": image.height,
        "grid_width": width,
        "grid_height": height,
        "live": live,
        "position": position,
        "count": count,
        "simulated": simulated,
        "no_truth": no_reference,
        "mask_name": mask_name,
        "store": can_keep,
        "session": session,
        "kept": sorted(kept),
        "taught": [one.analysis.model_version in taught for one in readings],
        "lesions": _lesion_places(readings[0].comparison, width / image.width, height / image.height),
        "scan": blobs.add(scan_png(image, height, width)),
        "truth": None if reference is None else blobs.add(_deflate_mask(_reduce(reference, height, width))),
        "readings": [_reading(reading, reference, blobs, height, width, live=live) for reading in readings],
    }
    return pack_message(header, blobs)


def chosen_cutoffs(key: str, scan_id: str, versions: Sequence[str]) -> dict[str, float]:
    """The cut-offs that the reader let go of on one scan, by model version; those never touched are missing.

    Read before `show_comparison`, so that one run of the page brings the distances at the new cut-off.
    """
    return read_cutoffs(st.session_state.get(key), scan_id, versions)


def read_cutoffs(state: object, scan_id: str, versions: Sequence[str]) -> dict[str, float]:
    """The same from what the browser reported; other scans, and values out of range, count as nothing."""
    views = state.get("views") if isinstance(state, Mapping) else None
    view = views.get(scan_id) if isinstance(views, Mapping) else None
    if not isinstance(view, Mapping):
        return {}
    chosen = {version: _read_cutoff(view.get(version)) for version in versions}
    return {version: cutoff for version, cutoff in chosen.items() if cutoff is not None}


def show_comparison(message: bytes, *, key: str, height: int = 640) -> CompareState:
    """Show a packed case and say what the reader chose for it.

    Args:
        message: From `pack_case`.
        key: Keep it the same from scan to scan, so that the panes stay and only the scan changes.
        height: Pixels of the whole component on a wide screen, at least; a taller window is filled. On a phone it takes
            what it needs.
    """
    result = _mount(
        key=key,
        data=height.to_bytes(LENGTH_BYTES, "little") + message,
        on_views_change=_ignore,
        on_edited_change=_ignore,
        on_step_change=_ignore,
    )
    return read_state(result, read_header(message))


def forget_drafts(session: str) -> None:
    """Let the browser forget what was drawn on scans that are gone: all that is not of this list, which has none."""
    _forget(key="forget-drafts", data={"session": session})


def read_state(result: Mapping[str, object], header: Mapping[str, Any]) -> CompareState:
    """What the browser reported about one case; reports on others, damaged or out of range, count as nothing."""
    edited, scan_id = result.get("edited"), header["scan_id"]
    versions = [reading["version"] for reading in header["readings"]]
    ours = isinstance(edited, Mapping) and edited.get("scan_id") == scan_id and edited.get("version") in versions
    return CompareState(
        step=read_step(result, header),
        edited=_read_edited(edited, header) if ours and isinstance(edited, Mapping) else None,
    )


def _reading(
    reading: ShownReading, reference: Mask | None, blobs: Blobs, height: int, width: int, *, live: bool
) -> dict[str, Any]:
    analysis, comparison = reading.analysis, reading.comparison
    cutoffs = slider_cutoffs(analysis.lesion_threshold)
    index = index_by_cutoffs(upsample(analysis.prediction.lesion_probability, height, width), cutoffs)
    fits = {fit.of: fit for fit in comparison.heatmaps} if comparison else {}
    diagnosis = analysis.prediction.diagnosis
    heatmaps = [
        add_heatmap(heatmap, blobs) | {"fit": _fit(fits[heatmap.of]) if heatmap.of in fits else None}
        for heatmap in analysis.heatmaps.values()
    ]
    return {
        "version": analysis.model_version,
        "withheld": analysis.withheld,
        "said": read_out(analysis),
        "cutoff": analysis.lesion_threshold,
        "current_cutoff": reading.cutoff,
        "cutoffs": cutoffs,
        "index": blobs.add(zlib.compress(index.tobytes(), 1)),
        "counts": None if live or reference is None else _counts(analysis, reference, cutoffs),
        "distance": {"cutoff": reading.cutoff, "hd95_px": _or_none(comparison.hd95_px)} if comparison else None,
        "heatmaps": heatmaps,
        "heat_first": diagnosis.value if diagnosis else next(iter(analysis.heatmaps), None),
    }


def _lesion_places(comparison: Comparison | None, across: float, down: float) -> list[dict[str, Any]]:
    """Where the numbers of several lesions are written on the case's grid; none for a single one."""
    lesions = comparison.lesions if comparison else ()
    if len(lesions) < 2:
        return []
    return [
        {"number": one.number, "x": (one.middle[0] + 0.5) * across, "y": (one.middle[1] + 0.5) * down}
        for one in lesions
    ]


def _counts(analysis: Analysis, reference: Mask, cutoffs: Sequence[float]) -> dict[str, Any]:
    """Of every pixel of a scan that is too large to be counted in the browser."""
    full = upsample(analysis.prediction.lesion_probability, *reference.shape)
    counts = overlap_curve(full, reference, cutoffs).counts
    lesion = int(reference.sum())
    return {
        "lesion": lesion,
        "rest": reference.size - lesion,
        "hit": [one.true_positive for one in counts],
        "extra": [one.false_positive for one in counts],
    }


def _fit(fit: Any) -> dict[str, Any]:
    return {"energy_inside": _or_none(fit.energy_inside), "peak": fit.peak, "peak_inside": fit.peak_inside}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _deflate_mask(mask: Mask) -> bytes:
    return zlib.compress(np.packbits(mask, axis=None).tobytes(), 6)


def _reduce(mask: Mask, height: int, width: int) -> Mask:
    """A mask on a smaller grid, for the eye: the pixel nearest to each centre."""
    if mask.shape == (height, width):
        return mask
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.intp)
    return np.ascontiguousarray(mask[np.ix_(rows, columns)])


def _read_edited(edited: Mapping[Any, Any], header: Mapping[str, Any]) -> EditedMask | None:
    """The mask that the browser handed over; None when it is not one of this scan."""
    height, width = header["height"], header["width"]
    text, cutoff, number = edited.get("mask"), _read_cutoff(edited.get("cutoff")), edited.get("number")
    fits = (edited.get("height"), edited.get("width")) == (height, width) and header["live"]
    if not fits or cutoff is None or not isinstance(text, str) or len(text) > MAX_EDITED_BYTES:
        return None
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    length = -(-height * width // 8)
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), length + 1)
    except (binascii.Error, ValueError, zlib.error):
        return None
    if len(packed) != length:
        return None
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width)
    return EditedMask(bits.reshape(height, width).astype(np.bool_), str(edited["version"]), cutoff, number)


def _read_cutoff(value: object) -> float | None:
    low, high = LESION_CUTOFF_RANGE
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return None
    return float(value)


def _ignore() -> None:
    """Streamlit returns only what has a callback; the values are read after mounting."""
