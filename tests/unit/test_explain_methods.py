"""Explanations on request: each method is what its paper says, on modules of its own, and says when it found none."""

import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch import Tensor
from versions import TINY, make_analyser, make_network

from busi_core.errors import ExplanationError
from busi_core.explain import methods
from busi_core.explain.catalogue import DEEPEST, WORDS, Method
from busi_core.explain.gradcam import LESION, explain_scan, lesion_pixels
from busi_core.explain.layers import CLASS_HEAD, DECODER, Layer, Watched, list_layers
from busi_core.explain.methods import evidence_of, first_component, raw_explanation
from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.imaging.preprocess import prepare
from busi_core.models.network import LesionNet
from busi_core.registry import read_registry
from busi_core.service import Analyser
from busi_core.serving import Serving
from busi_core.settings import PROJECT_ROOT
from busi_core.types import Analysis, Diagnosis

RESNET = replace(TINY, encoder="resnet18")
SIDE = 96
THRESHOLD = 0.5
SLOW = Method.SCORE_CAM


def random_image(seed: int = 0) -> Tensor:
    return torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def layer_of(network: LesionNet, images: Tensor, name: str) -> Layer:
    return next(layer for layer in list_layers(network, images) if layer.name == name)


# ---- The formulas, written down a second time, without hooks, on a network of their own -----------------------


def feature_and_logits(network: LesionNet, images: Tensor, layer: Layer, column: int | None) -> tuple[Tensor, Tensor]:
    features = network.encode(images)
    drawn = network.decoder(features)
    mask_logits = network.mask_head(drawn).amax(dim=1)
    if column is None:
        return (drawn if layer.index is None else features[layer.index]), mask_logits
    return features[layer.index], network.classify(features[-1], mask_logits[:, None])


def by_hand(
    network: LesionNet,
    images: Tensor,
    method: Method,
    layer: Layer,
    column: int | None,
    *,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    inputs = images.clone().requires_grad_()
    feature, logits = feature_and_logits(network, inputs, layer, column)
    chosen = None if column is not None else lesion_pixels(logits[:, None], threshold)
    score = logits[0, column] if column is not None else logits[chosen].sum()
    a = feature[0].detach().double()
    if method is Method.EIGEN_CAM:
        return get_2d_projection_with_sign_correction(feature.detach().numpy())[0]
    if method is Method.SCORE_CAM:
        left = []
        for channel in a.float():
            mask = torch.nn.UpsamplingBilinear2d(size=images.shape[-2:])(channel[None, None])
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
            with torch.no_grad():
                _, again = feature_and_logits(network, images * mask, layer, column)
            left.append(again[0, column] if column is not None else again[chosen].mean())
        return torch.einsum("c,chw->hw", torch.stack(left).double().softmax(0), a).numpy()
    g = torch.autograd.grad(score, feature)[0][0].double()
    if method is Method.GRAD_CAM:
        raw = torch.einsum("c,chw->hw", g.mean(dim=(1, 2)), a)
    elif method is Method.HIRES_CAM:
        raw = (g * a).sum(dim=0)
    elif method is Method.LAYER_CAM:
        raw = (g.clamp(min=0) * a).sum(dim=0)
    else:
        alpha = g**2 / (2 * g**2 + a.sum(dim=(1, 2), keepdim=True) * g**3 + 1e-6)
        raw = torch.einsum("c,chw->hw", (alpha * g.clamp(min=0)).sum(dim=(1, 2)), a)
    return raw.numpy()


def require_equal(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.shape == expected.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=2e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize("column", [0, 2, None], ids=["normal", "malignant", "mask"])
@pytest.mark.parametrize("name", [DEEPEST, "encoder-3"])
@pytest.mark.parametrize("method", [method for method in Method if method is not SLOW])
def test_the_raw_map_is_that_of_the_papers_formula(method: Method, name: str, column: int | None) -> None:
    images, network = random_image(), make_network(1, RESNET)
    layer = layer_of(network, images, name)
    ours = raw_explanation(network, images, method, layer, column=column, threshold=THRESHOLD)
    require_equal(ours, by_hand(make_network(1, RESNET), images, method, layer, column))


@pytest.mark.parametrize("method", [method for method in Method if method is not SLOW])
def test_at_the_decoder_the_mask_is_explained_by_the_same_formulas(method: Method) -> None:
    images, network = random_image(), make_network(1)
    layer = layer_of(network, images, DECODER)
    ours = raw_explanation(network, images, method, layer, column=None, threshold=THRESHOLD)
    if method is Method.EIGEN_CAM:  # the package's own would ask for 2 GB here
        cells = network.decoder(network.encode(images))[0].reshape(layer.channels, -1).double().T
        cells = cells - cells.mean(dim=0)
        along = torch.linalg.svd(cells, full_matrices=False).Vh[0]
        expected = (cells @ along).reshape(layer.grid).numpy()
        require_equal(ours, expected if abs(expected.max()) >= abs(expected.min()) else -expected)
        return
    require_equal(ours, by_hand(make_network(1), images, method, layer, None))


@pytest.mark.parametrize("column", [1, None], ids=["benign", "mask"])
def test_score_cam_is_that_of_its_paper(column: int | None) -> None:
    images, network = random_image(), make_network(1)
    layer = layer_of(network, images, "encoder-2")
    ours = raw_explanation(network, images, SLOW, layer, column=column, threshold=THRESHOLD)
    require_equal(ours, by_hand(make_network(1), images, SLOW, layer, column))


def test_score_cam_is_that_of_the_package() -> None:
    images, network = random_image(), make_network(1)
    layer = layer_of(network, images, "encoder-3")

    class Raw(ScoreCAM):
        def get_cam_image(self, *arguments: object, **options: object) -> np.ndarray:
            self.raw = super().get_cam_image(*arguments, **options)
            return self.raw

    watched = Watched(make_network(1), CLASS_HEAD)
    theirs = Raw(watched, [watched.place(layer)])
    theirs(images, [ClassifierOutputTarget(2)])
    require_equal(raw_explanation(network, images, SLOW, layer, column=2, threshold=THRESHOLD), theirs.raw[0])


@pytest.mark.parametrize("column", [0, 1, 2, None])
def test_the_packages_grad_cam_is_the_one_in_the_request_path(column: int | None) -> None:
    images, network = random_image(), make_network(2, RESNET)
    _, class_maps, lesion_map = explain_scan(network, network.encode(images), THRESHOLD)
    layer = layer_of(network, images, DEEPEST)
    raw = raw_explanation(network, images, Method.GRAD_CAM, layer, column=column, threshold=THRESHOLD)
    expected = lesion_map if column is None else class_maps[column]
    require_equal(np.maximum(raw, 0), expected.numpy())


def test_eigencam_is_the_same_whatever_is_asked_and_no_other_method_is() -> None:
    images, network = random_image(), make_network(1, RESNET)
    layer = layer_of(network, images, "encoder-3")
    for method in Method:
        if method is not SLOW:
            one, other = (
                raw_explanation(network, images, method, layer, column=column, threshold=THRESHOLD) for column in (0, 2)
            )
            assert np.array_equal(one, other) != WORDS[method].asks


def test_the_first_component_of_a_case_done_by_hand() -> None:
    """One channel is 0, 0, 0, 8 and the other half of it: the cells lie on one line, the last one far out."""
    activations = np.array([[[0, 0], [0, 8]], [[0, 0], [0, 4]]], np.float32)
    far = np.hypot(6, 3)
    np.testing.assert_allclose(first_component(activations), [[-far / 3, -far / 3], [-far / 3, far]], rtol=1e-6)


# ---- Layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["tu-test_resnet", "resnet18", "tu-mobilenet_edgetpu_100", "efficientnet-b0"])
def test_layers_are_found_in_any_encoder_deepest_first(encoder: str) -> None:
    images = torch.zeros(1, 1, 64, 64)
    layers = list_layers(make_network(0, replace(TINY, encoder=encoder)), images)
    assert (layers[0].name, layers[0].grid) == (DEEPEST, (2, 2))
    assert (layers[-1].name, layers[-1].grid, layers[-1].feeds_class) == (DECODER, (64, 64), False)
    grids = [layer.grid[0] for layer in layers]
    assert grids == sorted(grids)
    assert len({layer.name for layer in layers}) == len({layer.title for layer in layers}) == len(layers) >= 5
    assert all(layer.channels > 0 for layer in layers)


def test_every_method_is_described_in_words_a_clinician_reads() -> None:
    assert set(WORDS) == set(Method)
    for words in WORDS.values():
        assert words.does.endswith(".")
        assert not {"gradient", "tensor", "activation", "softmax", "backward"} & set(words.does.lower().split())


# ---- Nobody else's network ------------------------------------------------------------------------------------


def state_of(network: LesionNet) -> list[tuple[object, ...]]:
    return [
        (name, module.training, len(module._forward_hooks), len(module._backward_hooks), len(module._forward_pre_hooks))
        for name, module in network.named_modules()
    ]


@pytest.mark.parametrize("method", Method)
def test_the_shared_network_is_as_it_was(method: Method) -> None:
    network, images = make_network(), random_image()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modules, outputs = state_of(network), network(images)
    layer = layer_of(network, images, "encoder-2")
    raw_explanation(network, images, method, layer, column=None, threshold=THRESHOLD)
    assert state_of(network) == modules
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())
    assert images.grad is None
    assert not images.requires_grad
    after = network(images)
    assert torch.equal(after.mask_logits, outputs.mask_logits)
    assert torch.equal(after.class_logits, outputs.class_logits)


def test_the_private_copy_costs_no_second_set_of_weights() -> None:
    network = make_network()
    watched = Watched(network, CLASS_HEAD)
    theirs = dict(watched.network.named_parameters())
    assert all(theirs[name] is parameter for name, parameter in network.named_parameters())
    assert watched.network.encoder is not network.encoder


def read_together(tasks: list[Callable[[], Any]]) -> list[Any]:
    """All at once, from threads that start together."""
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> object:
        gate.wait(60)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


@pytest.mark.slow
def test_eight_at_once_get_what_they_get_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1, and without the queue that saves memory: safety does not hang on it."""
    monkeypatch.setattr(methods, "_one_at_a_time", threading.Semaphore(8))
    network = make_network()
    cases = [
        (method, name, column, random_image(seed))
        for seed, (method, name, column) in enumerate(
            [(method, DEEPEST, 1) for method in Method] + [(Method.HIRES_CAM, DECODER, None), (SLOW, "encoder-3", None)]
        )
    ]

    def explain(method: Method, name: str, column: int | None, images: Tensor) -> np.ndarray:
        layer = layer_of(network, images, name)
        return raw_explanation(network, images, method, layer, column=column, threshold=THRESHOLD)

    alone = [explain(*case) for case in cases]
    plain = network(random_image())
    for _ in range(2):
        tasks: list[Callable[[], Any]] = [lambda case=case: explain(*case) for case in cases]
        *together, read = read_together([*tasks, lambda: network(random_image())])
        for ours, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(ours, expected)
        assert torch.equal(read.mask_logits, plain.mask_logits)
        assert torch.equal(read.class_logits, plain.class_logits)


# ---- Through the front door -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_service() -> Analyser:
    weights = PROJECT_ROOT / "weights"
    return Serving(weights, torch.device("cpu")).load(read_registry(weights).in_service)


@pytest.fixture(scope="module")
def reading(in_service: Analyser) -> Analysis:
    return in_service.analyse(simulate_scan(Diagnosis.MALIGNANT, seed=3).png())


@pytest.mark.parametrize(
    ("method", "of"),
    [(method, of) for method in Method for of in ("malignant", LESION) if (method, of) != (SLOW, LESION)],
)
def test_the_version_in_service_is_explained_by_the_papers_formulas(
    in_service: Analyser, reading: Analysis, method: Method, of: str
) -> None:
    """At its first stage, which keeps Score-CAM short; EigenCAM at one where the package's own fits in memory, and
    Grad-CAM++ where no weight is a quotient of two numbers near 0: at the first stages its sign hangs on rounding."""
    card, network = in_service.card, in_service._network
    images, _ = prepare(reading.image.grey, card.preprocess)
    name = "encoder-3" if method in (Method.EIGEN_CAM, Method.GRAD_CAM_PLUS_PLUS) else "encoder-1"
    layer = next(layer for layer in in_service.layers() if layer.name == name)
    column = None if of == LESION else card.architecture.image_classes.index(of)
    ours = raw_explanation(network, images, method, layer, column=column, threshold=card.lesion_threshold)
    expected = by_hand(network, images, method, layer, column, threshold=card.lesion_threshold)
    if method is Method.GRAD_CAM_PLUS_PLUS:  # divides by what these features, some of them negative, bring near 0
        assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.9995
    else:
        require_equal(ours, expected)


def test_the_packages_grad_cam_is_the_map_that_came_with_the_reading(in_service: Analyser, reading: Analysis) -> None:
    for of, expected in reading.heatmaps.items():
        explanation = in_service.explain(reading, Method.GRAD_CAM, of=of)
        heatmap = explanation.heatmap
        assert (heatmap.of, heatmap.score, heatmap.grid) == (of, expected.score, expected.grid)
        assert explanation.model_version == reading.model_version
        np.testing.assert_allclose(heatmap.evidence, expected.evidence, atol=1e-3)


def test_two_sessions_get_what_they_get_alone(in_service: Analyser, reading: Analysis) -> None:
    other = in_service.analyse(simulate_scan(Diagnosis.BENIGN, seed=4).png())

    def explain(analysis: Analysis, of: str) -> list[np.ndarray]:
        chosen = (Method.HIRES_CAM, Method.EIGEN_CAM)
        return [in_service.explain(analysis, method, of=of).heatmap.evidence for method in chosen]

    alone = [explain(reading, "malignant"), explain(other, LESION)]
    together = read_together([lambda: explain(reading, "malignant"), lambda: explain(other, LESION)])
    for expected, found in zip(alone, together, strict=True):
        for one, same in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, same)


def test_a_reading_is_bit_by_bit_the_same_before_and_after(in_service: Analyser, reading: Analysis) -> None:
    for method in (Method.LAYER_CAM, Method.EIGEN_CAM):
        in_service.explain(reading, method, of=LESION, layer=DECODER)
    again = in_service.analyse_image(reading.image)
    np.testing.assert_array_equal(again.prediction.lesion_probability, reading.prediction.lesion_probability)
    assert again.prediction.probabilities == reading.prediction.probabilities
    for of, heatmap in reading.heatmaps.items():
        np.testing.assert_array_equal(again.heatmaps[of].evidence, heatmap.evidence)


def test_a_finer_layer_is_moved_by_its_own_offset_and_the_decoder_not_at_all() -> None:
    """On a version with symmetric padding; 2026.11-c pads as its encoder was trained and looks nearly where it is."""
    symmetric = Serving(PROJECT_ROOT / "weights", torch.device("cpu")).load("2026.11-a")
    offsets = {layer.name: symmetric._offset_px(layer) for layer in symmetric.layers()}
    assert offsets[DEEPEST] == symmetric.card.heatmap_offset_px
    assert offsets[DECODER] == (0.0, 0.0)
    encoder = [offsets[name] for name in (DEEPEST, "encoder-4", "encoder-3", "encoder-2", "encoder-1")]
    # Each stage looks less far up and left than the one behind it; half a pixel of its input is the least.
    assert all(deeper < finer <= -0.4 for axis in (0, 1) for deeper, finer in pairwise(one[axis] for one in encoder))


def test_maps_of_fine_layers_stay_at_the_models_side(in_service: Analyser, reading: Analysis) -> None:
    _, box = prepare(reading.image.grey, in_service.card.preprocess)
    deepest = math.ceil(box.height / 8)  # drawn at an eighth of the side
    for name, rows in (("encoder-1", box.height), (DECODER, box.height), (DEEPEST, deepest)):
        evidence = in_service.explain(reading, Method.LAYER_CAM, of=LESION, layer=name).heatmap.evidence
        assert evidence.shape[0] == rows
        assert evidence.max() == 1


# ---- Where there is nothing to show, or nothing can be shown ---------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "evidence"),
    [
        ([[-3.0, 0.0]], [[0.0, 0.0]]),
        ([[0.0, 0.0]], [[0.0, 0.0]]),
        ([[-3.0, 1e-7]], [[0.0, 0.0]]),  # what rounding left of a sum
        ([[-4.0, 2.0, 1.0]], [[0.0, 1.0, 0.5]]),
        ([[1e-12, 5e-13]], [[1.0, 0.5]]),  # small because the score's slope is, not by rounding
    ],
)
def test_noise_is_never_stretched_into_evidence(raw: list[list[float]], evidence: list[list[float]]) -> None:
    np.testing.assert_allclose(evidence_of(np.array(raw, np.float32)), evidence)


def test_a_map_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ExplanationError, match="no finite value"):
        evidence_of(np.array([[np.nan, 1.0]], np.float32))


@pytest.mark.parametrize("method", [Method.GRAD_CAM, Method.HIRES_CAM, Method.LAYER_CAM, Method.GRAD_CAM_PLUS_PLUS])
def test_a_class_with_nothing_but_counter_evidence_is_said_to_have_none(
    method: Method, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    analyser = make_analyser(architecture=RESNET)
    analyser._network.class_head[1].weight.fill_(-1.0)  # no feature of this encoder is negative
    analysis = analyser.analyse(simulated[Diagnosis.BENIGN].png())
    explanation = analyser.explain(analysis, method, of="benign")
    assert not explanation.found
    assert not explanation.heatmap.evidence.any()


@pytest.mark.parametrize("method", Method)
def test_no_class_is_explained_at_the_decoder(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan], method: Method
) -> None:
    analysis = analyser.analyse(simulated[Diagnosis.BENIGN].png())
    with pytest.raises(ExplanationError, match="not decided by the decoder") as raised:
        analyser.explain(analysis, method, of="benign", layer=DECODER)
    assert "mask" in raised.value.remedy


def test_what_does_not_exist_is_refused_with_what_does(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    analysis = analyser.analyse(simulated[Diagnosis.BENIGN].png())
    with pytest.raises(ExplanationError, match="malignant"):
        analyser.explain(analysis, Method.HIRES_CAM, of="tumour")
    with pytest.raises(ExplanationError, match="encoder-4"):
        analyser.explain(analysis, Method.HIRES_CAM, of="benign", layer="layer4")
    with pytest.raises(ExplanationError, match="Read the scan again"):
        analyser.explain(replace(analysis, model_version="older"), Method.HIRES_CAM, of="benign")


def test_a_model_without_a_class_head_explains_its_mask(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    analyser = make_analyser(architecture=replace(TINY, image_classes=()))
    analysis = analyser.analyse(simulated[Diagnosis.BENIGN].png())
    assert analyser.explain(analysis, Method.HIRES_CAM, of=LESION).heatmap.of == LESION
    with pytest.raises(ExplanationError, match="no class"):
        analyser.explain(analysis, Method.HIRES_CAM, of="benign")


def test_score_cam_is_bounded_and_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = make_network(), random_image()
    layer = layer_of(network, images, "encoder-3")
    told: list[tuple[int, int]] = []
    raw_explanation(
        network,
        images,
        SLOW,
        layer,
        column=0,
        threshold=THRESHOLD,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told[0] == (0, layer.channels)
    assert told[-1] == (layer.channels, layer.channels)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    monkeypatch.setattr(methods, "MAX_SCORE_CAM_READINGS", layer.channels - 1)
    with pytest.raises(ExplanationError, match=f"{layer.channels} times"):
        raw_explanation(network, images, SLOW, layer, column=0, threshold=THRESHOLD)


def test_who_leaves_in_the_middle_of_score_cam_blocks_nobody() -> None:
    network, images = make_network(), random_image()
    layer = layer_of(network, images, "encoder-3")

    def leave(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        raw_explanation(network, images, SLOW, layer, column=0, threshold=THRESHOLD, on_progress=leave)
    assert not methods._one_at_a_time.locked()
    raw_explanation(network, images, SLOW, layer, column=0, threshold=THRESHOLD)


def test_without_the_package_the_reader_is_told(
    monkeypatch: pytest.MonkeyPatch, analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    analysis = analyser.analyse(simulated[Diagnosis.BENIGN].png())
    methods._kinds.cache_clear()
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ExplanationError, match="not installed"):
        analyser.explain(analysis, Method.HIRES_CAM, of="benign")
