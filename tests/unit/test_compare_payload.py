"""The comparison's message: what Python packs is what the browser counts; what comes back is checked."""

import base64
import math
import re
import zlib
from dataclasses import replace
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import pytest
from node import COMPONENTS, in_node, needs_node

from busi_core.comparison import compare_scan, overlap_curve
from busi_core.imaging.preprocess import upsample
from busi_core.types import Analysis, DecodedImage, Diagnosis, Heatmap, Mask, Prediction
from pages.components.compare_viewer import ShownReading, pack_case
from pages.components.compare_viewer.compare_viewer import read_cutoffs, read_state, slider_cutoffs
from pages.components.viewer.message import read_header

CASE_JS = COMPONENTS / "compare_viewer/case.js"
PIXELS_JS = COMPONENTS / "compare_viewer/pixels.js"


def analysis(height: int = 40, width: int = 60, *, own: float = 0.437) -> Analysis:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
    image = DecodedImage(grey, np.repeat(grey[..., None], 3, axis=2), "PNG", 0, 1, (), ())
    scores = {Diagnosis.NORMAL: 0.1, Diagnosis.BENIGN: 0.7, Diagnosis.MALIGNANT: 0.2}
    heatmaps = {str(of): Heatmap(rng.random((5, 8), np.float32), str(of), one, (8, 8)) for of, one in scores.items()}
    probability = rng.random((22, 32), np.float32)
    return Analysis(image, Prediction(probability, scores), heatmaps, own, 0.3, "v1", ())


def truth(height: int = 40, width: int = 60) -> Mask:
    mask = np.zeros((height, width), np.bool_)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    return mask


def packed(subject: Analysis | None = None, reference: Mask | None = None, **changes: Any) -> bytes:
    subject = subject or analysis()
    comparison = None if reference is None else compare_scan(subject, reference)
    arguments: dict[str, Any] = {
        "scan_id": "a",
        "name": "benign (1).png",
        "position": 1,
        "count": 1,
        "simulated": False,
        "no_reference": "",
        "mask_name": "benign (1)_mask.png",
        "can_keep": True,
        "session": "s",
    }
    return pack_case([ShownReading(subject, subject.lesion_threshold, comparison)], reference, **(arguments | changes))


def blob(message: bytes, place: dict[str, int]) -> bytes:
    start = 4 + int.from_bytes(message[:4], "little") + place["offset"]
    return message[start : start + place["length"]]


def test_the_browser_gets_the_mask_at_every_cutoff_exactly() -> None:
    subject, reference = analysis(), truth()
    message = packed(subject, reference)
    (reading,) = read_header(message)["readings"]
    index = np.frombuffer(zlib.decompress(blob(message, reading["index"])), np.uint8).reshape(40, 60)
    full = upsample(subject.prediction.lesion_probability, 40, 60)
    assert len(reading["cutoffs"]) == 100
    assert 0.437 in reading["cutoffs"]
    for place, cutoff in enumerate(reading["cutoffs"]):
        assert np.array_equal(index > place, full >= cutoff)
    bits = np.unpackbits(np.frombuffer(zlib.decompress(blob(message, read_header(message)["truth"])), np.uint8))
    assert np.array_equal(bits[: 40 * 60].reshape(40, 60).astype(bool), reference)


@pytest.mark.parametrize(("own", "count"), [(0.45, 99), (0.437, 100), (0.01, 99), (0.995, 100)])
def test_the_slider_meets_the_models_own_cutoff_once(own: float, count: int) -> None:
    cutoffs = slider_cutoffs(own)
    assert len(cutoffs) == count
    assert own in cutoffs
    assert list(cutoffs) == sorted(cutoffs)


def test_a_scan_above_four_megapixels_is_sent_reduced_with_counts_of_its_own_pixels() -> None:
    subject, reference = analysis(2100, 2000), truth(2100, 2000)
    header = read_header(packed(subject, reference))
    assert (header["width"], header["height"], header["live"]) == (2000, 2100, False)
    assert max(header["grid_width"], header["grid_height"]) == 1600
    (reading,) = header["readings"]
    curve = overlap_curve(upsample(subject.prediction.lesion_probability, 2100, 2000), reference, reading["cutoffs"])
    assert reading["counts"]["lesion"] == int(reference.sum())
    assert reading["counts"]["hit"] == [counts.true_positive for counts in curve.counts]
    assert reading["counts"]["extra"] == [counts.false_positive for counts in curve.counts]


def test_what_is_not_defined_travels_as_null() -> None:
    empty = np.zeros((40, 60), np.bool_)
    (reading,) = read_header(packed(None, empty))["readings"]
    assert reading["distance"]["hd95_px"] is None
    assert reading["heatmaps"][0]["fit"]["energy_inside"] is None
    header = read_header(packed(None, None, no_reference="No mask came with this scan."))
    assert header["truth"] is None
    assert header["readings"][0]["distance"] is None


def test_cutoffs_of_other_scans_and_out_of_range_count_as_nothing() -> None:
    state = {"views": {"a": {"v1": 0.6, "v2": 1.5, "v3": True, "v4": "0.5"}, "b": {"v1": 0.2}}}
    assert read_cutoffs(state, "a", ["v1", "v2", "v3", "v4", "v5"]) == {"v1": 0.6}
    assert read_cutoffs(None, "a", ["v1"]) == {}
    assert read_cutoffs({"views": [1]}, "a", ["v1"]) == {}
    assert math.isclose(read_cutoffs(state, "b", ["v1"])["v1"], 0.2)


def handed_over(drawn: Mask, **changes: object) -> dict[str, object]:
    text = base64.b64encode(zlib.compress(np.packbits(drawn).tobytes())).decode()
    content = {"scan_id": "a", "width": 60, "height": 40, "mask": text, "version": "v1", "cutoff": 0.437, "number": 1}
    return {"edited": content | changes}


def test_a_mask_handed_over_arrives_pixel_by_pixel() -> None:
    state = read_state(handed_over(truth()), read_header(packed()))
    assert state.edited is not None
    assert np.array_equal(state.edited.mask, truth())
    assert (state.edited.model_version, state.edited.cutoff) == ("v1", 0.437)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"scan_id": "b"}, id="another scan"),
        pytest.param({"version": "v2"}, id="another model"),
        pytest.param({"width": 61}, id="another size"),
        pytest.param({"cutoff": 2}, id="no cut-off"),
        pytest.param({"number": "1"}, id="no number"),
        pytest.param({"mask": 7}, id="no text"),
        pytest.param({"mask": "not base64!"}, id="no base64"),
        pytest.param({"mask": base64.b64encode(b"not deflated").decode()}, id="not deflated"),
        pytest.param({"mask": base64.b64encode(zlib.compress(b"\0" * 10)).decode()}, id="too short"),
        pytest.param({"mask": base64.b64encode(zlib.compress(b"\0" * 50_000_000)).decode()}, id="a bomb"),
    ],
)
def test_a_mask_that_is_not_of_this_scan_counts_as_nothing(changes: dict[str, object]) -> None:
    assert read_state(handed_over(truth(), **changes), read_header(packed())).edited is None


# Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB.
COLOUR_VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_agreed_missed_and_extra_can_be_told_apart_by_every_eye(vision: str) -> None:
    """At half opacity over a middle grey, as they are drawn; a difference of 20 in CIE Lab is plain to see."""
    named = dict(re.findall(r'(missed|extra|agreed): "(#[0-9a-f]{6})"', CASE_JS.read_text("utf-8")))
    assert set(named) == {"agreed", "missed", "extra"}
    seen = {}
    for name, colour in named.items():
        over_grey = 0.5 * np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) + 0.5 * 90
        linear = np.clip(np.asarray(COLOUR_VISION[vision]) @ (over_grey / 255) ** 2.2, 0, 1)
        seen[name] = cv2.cvtColor((linear[None, None] ** (1 / 2.2)).astype(np.float32), cv2.COLOR_RGB2LAB)[0, 0]
    assert min(np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(seen, 2)) > 20


@needs_node
def test_agreed_missed_and_extra_can_be_told_apart_without_any_colour() -> None:
    """What the truth has alone is striped like "/", what the prediction has alone like "\\", the rest is plain."""
    side = 128
    third = np.arange(side) * 3 // side
    predicted, true = np.tile(third != 0, (side, 1)), np.tile(third != 2, (side, 1))
    as_js = "Uint8Array.from({})".format
    looks = "{plain: [0, 1, 2, 3], stripe: [0, 9, 9, 3]}"
    index, truth_pixels = (as_js(mask.ravel().astype(int).tolist()) for mask in (predicted, true))
    painted = f"(() => {{ const pixels = new Uint32Array({side * side}); "
    painted += f"paintDifference({index}, 0, {truth_pixels}, {side}, {looks}, pixels); return [...pixels]; }})()"
    drawn = np.reshape(in_node(PIXELS_JS, painted), (side, side))
    missed, agreed, extra = drawn[:, third == 0], drawn[:, third == 1], drawn[:, third == 2]
    assert set(agreed.ravel()) == {3}
    for part, plain in ((missed, 1), (extra, 2)):
        assert set(part.ravel()) == {plain, 9}
        assert 0.1 < (part == 9).mean() < 0.5
    assert np.array_equal(missed[1:, :-1], missed[:-1, 1:])  # the same one down and one to the left
    assert np.array_equal(extra[1:, 1:], extra[:-1, :-1])
    assert not np.array_equal(missed[1:, 1:], missed[:-1, :-1])


def test_what_each_version_says_can_be_read_out() -> None:
    subject = analysis()
    scores = {Diagnosis.NORMAL: 0.1, Diagnosis.BENIGN: 0.2, Diagnosis.MALIGNANT: 0.7}
    malignant = replace(subject.prediction, probabilities=scores)
    for shown, said in (
        (subject, "benign"),
        (replace(subject, prediction=malignant), "malignant, flagged for malignancy"),
        (replace(subject, withheld=True), ""),
    ):
        assert [one["said"] for one in read_header(packed(shown))["readings"]] == [said]


@needs_node
def test_a_case_read_by_another_version_is_another_one_also_where_both_say_the_same() -> None:
    """Else the panel would name the version before, and a correction would go on under another name."""
    header = '{scan_id: "a", content: "same", readings: [{version: "f"}]}'
    asked = f"(() => {{ const shown = Object.create(Case.prototype); shown.header = {header}; "
    asked += f"return [shown.isSameAs({header}), shown.isSameAs({header.replace(chr(34) + 'f', chr(34) + 'g')})]; }})()"
    assert in_node(CASE_JS, asked) == [True, False]
