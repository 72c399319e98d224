"""A page with nothing but the viewer on made-up scans; query parameters set it up. Run by test_viewer_in_browser.py."""

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from busi_core.types import Analysis, DecodedImage, Diagnosis, Heatmap, Prediction
from pages.components.viewer import pack_scene, show_viewer

HEIGHT, WIDTH = 471, 563


def ellipse(height: int, width: int, *, x: float, y: float, across: float, down: float) -> NDArray[np.float64]:
    """Distance from the centre of an ellipse in units of its radii; all numbers are shares of the image."""
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(((columns + 0.5) / width - x) / across, ((rows + 0.5) / height - y) / down)


def speckle(seed: int, x: float) -> NDArray[np.uint8]:
    """Layers of tissue with Rayleigh speckle, a dark lesion and its shadow."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(0, 1, HEIGHT)[:, None]
    wavy = depth + 0.015 * np.sin(np.linspace(0, 9, WIDTH))[None, :]
    tissue = 0.45 + 0.28 * np.exp(-(((wavy - 0.12) / 0.05) ** 2)) + 0.12 * np.sin(wavy * 30) * (wavy > 0.55)
    distance = ellipse(HEIGHT, WIDTH, x=x, y=0.42, across=0.17, down=0.15)
    tissue *= 1 - 0.8 / (1 + np.exp((distance - 1) * 14))
    shadow = np.abs(np.linspace(0, 1, WIDTH)[None, :] - x) < 0.12
    tissue = tissue * np.where(shadow & (depth > 0.57), 0.62, 1) * (1.1 - 0.45 * depth)
    grains = rng.rayleigh(0.8, (HEIGHT, WIDTH))
    grains = (grains + np.roll(grains, 1, 1) + np.roll(grains, 2, 1)) / 3
    return np.clip(tissue * grains * 190, 0, 255).astype(np.uint8)


def made_up(seed: int) -> Analysis:
    """An analysis as a model with side 256 would give it."""
    x = 0.46 + 0.04 * seed
    grey = speckle(seed, x)
    image = DecodedImage(grey, np.repeat(grey[..., None], 3, axis=2), "PNG", 0, 1, (), ())
    distance = ellipse(214, 256, x=x, y=0.42, across=0.17, down=0.15)
    probability = (1 / (1 + np.exp((distance - 1) * 7))).astype(np.float32)
    scores = {Diagnosis.NORMAL: 0.03, Diagnosis.BENIGN: 0.15, Diagnosis.MALIGNANT: 0.82}
    heatmaps = {}
    for index, (of, score) in enumerate([*((str(one), score) for one, score in scores.items()), ("lesion mask", 0.91)]):
        peak = ellipse(7, 8, x=x + 0.1 * index - 0.2, y=0.45, across=0.25, down=0.25)
        evidence = np.exp(-(peak**2))
        heatmaps[of] = Heatmap((evidence / evidence.max()).astype(np.float32), of, score, (8, 8))
    return Analysis(image, Prediction(probability, scores), heatmaps, 0.437, 0.4, "2026.1-test", ())


def main() -> None:
    """Show one of several scans; step when the viewer asks."""
    st.set_page_config(layout="wide")
    asked = st.query_params
    count = int(asked.get("count", 1))
    index = st.session_state.setdefault("index", 0)
    analysis = made_up(index)
    scene = pack_scene(
        analysis,
        scan_id=f"scan-{index}",
        name=asked.get("name", f"benign ({index + 1}).png"),
        position=index + 1,
        count=count,
        simulated=asked.get("simulated") == "1",
        read_first=asked.get("read_first") == "1",
        lesion_cutoff=analysis.lesion_threshold,
    )
    state = show_viewer(scene, key="viewer", height=700)
    if state.step:
        st.session_state.index = index + state.step
        st.rerun()
    st.session_state.runs = st.session_state.get("runs", 0) + 1
    st.text(f"runs={st.session_state.runs} scan={index} state={state}")


main()
