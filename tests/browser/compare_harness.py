"""A page with nothing but the comparison, and the library's own figures as text. Run by test_compare_in_browser.py.

Query parameters: `case` a simulated class, or a scan of BUSI by its path below the data set; `versions` 1 or 2;
`side` of a simulated scan, or '448,96' for two to switch between; `taught` the versions that the scan taught;
`withheld` 1 for no answer and no truth, with `truth` 1 for no answer alone. The reading is made up from the reference
(blurred and moved), so that no weights are needed and every cut-off has another mask.
"""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import streamlit as st

from busi_core import Analysis, Diagnosis, decode_image, read_settings, simulate_scan
from busi_core.comparison import compare_scan
from busi_core.data.pairing import pair_files
from busi_core.data.sources import list_folder
from busi_core.data.truth import read_reference
from busi_core.types import DecodedImage, Heatmap, Mask, Prediction
from pages.components.compare_viewer import ShownReading, chosen_cutoffs, pack_case, show_comparison

SIDE = 256


@st.cache_resource(max_entries=3)
def read_case(asked: str, side: int) -> tuple[DecodedImage, Mask, str]:
    """A simulated scan, or one of BUSI with its masks."""
    if asked in set(Diagnosis):
        sample = simulate_scan(Diagnosis(asked), seed=4, height=side, width=side * 5 // 4)
        return decode_image(sample.png()), sample.mask, f"simulated {asked} 4.png"
    files = list_folder(read_settings().data_root / "busi")
    case = next(one for one in pair_files(files).cases if one.name == asked)
    image = decode_image(case.scan.read())
    reference = read_reference(case.masks, image.height, image.width)
    assert reference.mask is not None
    return image, reference.mask, asked


def made_up(image: DecodedImage, truth: Mask, version: str, seed: int) -> Analysis:
    """A reading as a model of side 256 might give it: the truth, blurred, moved and uneven."""
    rng = np.random.default_rng(seed)
    small = cv2.resize(truth.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small = np.roll(cv2.GaussianBlur(small, (0, 0), 7), (5 + seed, -6), (0, 1))
    noise = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), 9)
    probability = np.clip(0.95 * small + 0.6 * noise, 0.001, 0.999).astype(np.float32)
    scores = {Diagnosis.NORMAL: 0.05, Diagnosis.BENIGN: 0.15, Diagnosis.MALIGNANT: 0.8}
    heat = cv2.resize(probability, (8, 8), interpolation=cv2.INTER_AREA)
    heatmaps = {str(of): Heatmap((heat / heat.max()).astype(np.float32), str(of), scores[of], (8, 8)) for of in scores}
    return Analysis(image, Prediction(probability, scores), heatmaps, 0.437 + 0.1 * seed, 0.4, version, ())


def figures(reading: ShownReading) -> dict[str, float | None]:
    """What the library says at the cut-off that the page knows."""
    assert reading.comparison is not None
    counts = reading.comparison.counts
    values = {
        "cutoff": reading.cutoff,
        "dice": counts.dice,
        "iou": counts.iou,
        "precision": counts.precision,
        "recall": counts.recall,
        "hd95": reading.comparison.hd95_px,
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def main() -> None:
    """Show one case and say what the library measures."""
    st.set_page_config(layout="wide")
    asked = st.query_params
    sides = asked.get("side", "448").split(",")
    place = st.radio("Scan", range(len(sides)), format_func=lambda n: f"of side {sides[n]}") if len(sides) > 1 else 0
    scan_id = f"case-{place}"
    image, truth, name = read_case(asked.get("case", "malignant"), int(sides[place]))
    versions = ["2026.1-test", "2026.2-test"][: int(asked.get("versions", 1))]
    cutoffs = chosen_cutoffs("compare", scan_id, versions)
    readings = []
    for seed, version in enumerate(versions):
        analysis = made_up(image, truth, version, seed)
        cutoff = cutoffs.get(version, analysis.lesion_threshold)
        readings.append(ShownReading(analysis, cutoff, compare_scan(analysis, truth, threshold=cutoff)))
    if asked.get("withheld"):
        readings = [ShownReading(replace(one.analysis, withheld=True), one.cutoff, None) for one in readings]
    message = pack_case(
        readings,
        None if asked.get("withheld") and not asked.get("truth") else truth,
        scan_id=scan_id,
        name=asked.get("name", name),
        position=1,
        count=1,
        simulated=asked.get("case", "malignant") in set(Diagnosis),
        no_reference="",
        mask_name="benign (1)_mask.png",
        can_keep=True,
        session="harness",
        taught=asked.get("taught", "").split(","),
    )
    state = show_comparison(message, key="compare", height=700)
    st.session_state.runs = st.session_state.get("runs", 0) + 1
    kept = None
    if state.edited is not None:
        kept = {"pixels": int(state.edited.mask.sum()), "cutoff": state.edited.cutoff}
    said = {
        "runs": st.session_state.runs,
        "figures": [figures(one) for one in readings if one.comparison],
        "edited": kept,
    }
    st.text("said " + json.dumps(said))


main()
