"""The viewer's message: what Python packs is what the browser reads, number by number."""

import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from files import save, speckle
from node import COMPONENTS, in_node, needs_node

from busi_core.imaging.preprocess import upsample
from busi_core.service import Analyser
from busi_core.types import Analysis, DecodedImage, Diagnosis, Heatmap, Prediction
from pages.components.viewer.message import read_header
from pages.components.viewer.viewer import ViewerState, grid_size, pack_scene, read_state

MAPS = COMPONENTS / "viewer/maps.js"
UNTOUCHED = ViewerState(lesion_cutoff=None, heat_cutoff=None, step=0, revealed=False)


def analysis(height: int = 40, width: int = 60, *, colour: bool = False) -> Analysis:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if not colour:
        rgb[..., 1] = rgb[..., 2] = rgb[..., 0]
    image = DecodedImage(rgb[..., 0].copy(), rgb, "PNG", 0, 1, (), ())
    scores = {Diagnosis.NORMAL: 0.1, Diagnosis.BENIGN: 0.2, Diagnosis.MALIGNANT: 0.7}
    heatmaps = {
        str(of): Heatmap(rng.random((5, 8), np.float32), str(of), score, (8, 8)) for of, score in scores.items()
    }
    return Analysis(image, Prediction(rng.random((22, 32), np.float32), scores), heatmaps, 0.4, 0.3, "v1", ())


def packed(subject: Analysis | None = None, **changes: Any) -> bytes:
    arguments = {
        "scan_id": "a",
        "name": "benign (1).png",
        "position": 1,
        "count": 1,
        "simulated": False,
        "read_first": False,
        "lesion_cutoff": 0.4,
    }
    return pack_scene(subject or analysis(), **(arguments | changes))


def body(scene: bytes, place: dict[str, int]) -> bytes:
    start = 4 + int.from_bytes(scene[:4], "little") + place["offset"]
    return scene[start : start + place["length"]]


def test_header_says_what_stands_on_the_screen() -> None:
    header = read_header(packed(name="<script>.png", position=3, count=12, simulated=True))
    assert header["name"] == "<script>.png"
    assert (header["position"], header["count"], header["simulated"]) == (3, 12, True)
    assert header["label"] == "Ultrasound scan <script>.png, 60 by 40 pixels"
    assert header["lesion_cutoff"] == 0.4
    assert [(one["of"], one["score"], one["grid"]) for one in header["heatmaps"]] == [
        ("normal", 0.1, [8, 8]),
        ("benign", 0.2, [8, 8]),
        ("malignant", 0.7, [8, 8]),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "malignant, flagged for malignancy"),
        ({"malignancy_threshold": 0.8}, "malignant"),
        ({"withheld": True}, ""),
    ],
)
def test_what_is_read_out_is_what_stands_in_the_finding(changes: dict[str, Any], said: str) -> None:
    assert read_header(packed(replace(analysis(), **changes)))["said"] == said


def test_nothing_of_the_uploaded_bytes_is_sent_but_pixels(analyser: Analyser) -> None:
    """U3. A zip behind a JPEG, a comment inside it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.html", "<script>")
    upload = save(speckle(), "JPEG", comment="evil.html") + archive.getvalue()
    assert upload.count(b"evil.html") > 1
    assert b"evil.html" not in packed(analyser.analyse(upload))


def test_maps_come_back_bit_by_bit() -> None:
    subject = analysis()
    scene = packed(subject)
    header = read_header(scene)
    probability = np.frombuffer(body(scene, header["probability"]), "<f4").reshape(22, 32)
    assert np.array_equal(probability, subject.prediction.lesion_probability)
    for one in header["heatmaps"]:
        evidence = np.frombuffer(body(scene, one), "<f4").reshape(one["rows"], one["columns"])
        assert np.array_equal(evidence, subject.heatmaps[one["of"]].evidence)


@pytest.mark.parametrize("colour", [False, True])
def test_scan_comes_back_pixel_by_pixel_with_its_colours_in_order(colour: bool) -> None:
    subject = analysis(colour=colour)
    scene = packed(subject)
    encoded = np.frombuffer(body(scene, read_header(scene)["scan"]), np.uint8)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert np.array_equal(
        decoded[..., ::-1] if colour else decoded, subject.image.rgb if colour else subject.image.grey
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [((471, 563), (471, 563)), ((1024, 1024), (1024, 1024)), ((600, 2048), (300, 1024)), ((4000, 3), (1024, 1))],
)
def test_grid_is_the_image_or_at_most_1024_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert grid_size(*size) == expected


def test_same_pixels_carry_the_same_content_mark_whatever_the_page_around_them_says() -> None:
    subject = analysis()
    one, other = (read_header(packed(subject, position=position, count=9)) for position in (1, 2))
    assert one["content"] == other["content"]
    assert one["content"] != read_header(packed(analysis(41)))["content"]


@pytest.mark.parametrize(
    "changes", [{"lesion_cutoff": 0.0}, {"lesion_cutoff": float("nan")}, {"heat_cutoff": 1.1}, {"position": 2}]
)
def test_a_scene_that_could_not_be_shown_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        packed(**changes)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        pytest.param({}, UNTOUCHED, id="nothing yet"),
        pytest.param({"views": None, "step": None}, UNTOUCHED, id="nothing this run"),
        pytest.param(
            {"views": {"a": {"lesion_cutoff": 0.6, "heat_cutoff": 0, "revealed": True}}},
            ViewerState(0.6, 0.0, 0, True),
            id="chosen for this scan",
        ),
        pytest.param({"views": {"b": {"lesion_cutoff": 0.6}}}, UNTOUCHED, id="chosen for another scan"),
        pytest.param({"step": {"to": 4}}, ViewerState(None, None, 2, False), id="two quick presses"),
        pytest.param({"step": {"to": 1}}, ViewerState(None, None, -1, False), id="step back"),
        pytest.param({"step": {"to": 2}}, UNTOUCHED, id="step that was taken already"),
        pytest.param({"step": {"to": 6}}, UNTOUCHED, id="no such scan"),
        pytest.param({"step": {"to": [3]}}, UNTOUCHED, id="step of another kind"),
        pytest.param({"views": {"a": {"lesion_cutoff": 7, "revealed": "yes"}}}, UNTOUCHED, id="out of range"),
        pytest.param({"views": {"a": {"lesion_cutoff": "0.5", "heat_cutoff": True}}}, UNTOUCHED, id="not numbers"),
        pytest.param({"views": ["a"]}, UNTOUCHED, id="another shape"),
    ],
)
def test_only_a_sound_report_on_this_scan_counts(reported: dict[str, object], expected: ViewerState) -> None:
    assert read_state(reported, {"scan_id": "a", "position": 2, "count": 5}) == expected


def as_js(values: np.ndarray) -> str:
    return f"Float32Array.from({json.dumps(values.ravel().tolist())})"


@needs_node
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((7, 8), (47, 56)),
        ((22, 32), (22, 32)),
        ((32, 32), (9, 13)),
        ((1, 1), (5, 4)),
        ((1, 6), (3, 31)),
        ((214, 256), (471, 563)),
    ],
)
def test_javascript_upsamples_as_python_does(shape: tuple[int, int], size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random(shape, np.float32)
    full = in_node(MAPS, f"[...upsample({as_js(values)}, {shape[0]}, {shape[1]}, {size[0]}, {size[1]})]")
    assert np.abs(np.reshape(full, size) - upsample(values, *size)).max() < 1e-5


@needs_node
@pytest.mark.parametrize("cutoff", [0.2, 0.5, 0.9])
def test_outlines_enclose_exactly_the_pixels_that_reach_the_cutoff(cutoff: float) -> None:
    noise = np.random.default_rng(2).random((6, 9), np.float32)
    values = upsample(noise, 50, 70)
    loops = in_node(MAPS, f"outlines(makeField({as_js(values)}, 50, 70), {cutoff})")
    inside = np.zeros(values.shape, int)
    rows, columns = np.mgrid[:50, :70] + 0.5
    for loop in loops:  # even-odd rule at each pixel's centre, as the canvas fills
        points = np.reshape(loop, (-1, 2))
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            crosses = (y0 > rows) != (y1 > rows)
            with np.errstate(divide="ignore", invalid="ignore"):
                inside += crosses & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    differs = (inside % 2 == 1) != (values >= np.float32(cutoff))
    assert np.abs(values[differs] - cutoff).max(initial=0) < 1e-6  # only where a centre lies on the line
    assert in_node(MAPS, f"countAbove({as_js(values)}, {cutoff})") == int((values >= np.float32(cutoff)).sum())


@needs_node
def test_an_outline_closes_along_the_edge_of_the_image() -> None:
    loops = in_node(MAPS, f"outlines(makeField({as_js(np.ones((3, 4), np.float32))}, 3, 4), 0.5)")
    points = np.reshape(loops[0], (-1, 2))
    assert len(loops) == 1
    assert points.min(axis=0).tolist() == [0, 0]
    assert points.max(axis=0).tolist() == [4, 3]
