"""The hook-free heat maps are Grad-CAM: held to pytorch-grad-cam on its raw maps, before it rescales them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget
from torch import Tensor, nn
from versions import TINY, make_analyser, make_network

from busi_core.explain.gradcam import LESION, explain_scan, raw_gradcam, relative
from busi_core.imaging.phantom import SimulatedScan
from busi_core.models.network import LesionNet, Outputs
from busi_core.types import Diagnosis

RESNET = replace(TINY, encoder="resnet18")  # its last layer has a name that a hook can hold
SIDE = 128


class RawGradCAM(GradCAM):
    """Keeps the library's map as it is before resizing and scaling, where FACTS found the two to differ."""

    raw: np.ndarray

    def get_cam_image(self, *arguments: object, **options: object) -> np.ndarray:
        self.raw = super().get_cam_image(*arguments, **options)
        return self.raw


class Head(nn.Module):
    """One head of the network as a module that returns a plain tensor, as the library wants it."""

    def __init__(self, network: LesionNet, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self.network(images), self.head)


def map_of_library(seed: int, images: Tensor, head: str, target: object) -> np.ndarray:
    network = make_network(seed, RESNET).requires_grad_(True)
    with RawGradCAM(Head(network, head), [network.encoder.layer4[-1]]) as cam:
        cam(images.clone(), [target])
        return np.maximum(cam.raw[0], 0)


def random_image(seed: int) -> Tensor:
    return torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def explain_images(network: LesionNet, images: Tensor) -> tuple[Outputs, list[Tensor], Tensor]:
    return explain_scan(network, network.encode(images), 0.5)


def require_equal_maps(ours: Tensor, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape == (SIDE // 32, SIDE // 32)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4 * max(float(theirs.max()), 1e-6))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("column", range(3))
def test_the_raw_map_of_each_class_is_that_of_pytorch_grad_cam(seed: int, column: int) -> None:
    images = random_image(seed)
    _, class_maps, _ = explain_images(make_network(seed, RESNET), images)
    require_equal_maps(class_maps[column], map_of_library(seed, images, "class_logits", ClassifierOutputTarget(column)))


def lesion_pixels(seed: int, images: Tensor, threshold: float) -> np.ndarray:
    with torch.no_grad():
        probability = make_network(seed, RESNET)(images).mask_logits[0, 0].sigmoid()
    return (probability >= threshold).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_the_raw_map_of_the_mask_is_that_of_pytorch_grad_cam(seed: int) -> None:
    images = random_image(seed)
    chosen = lesion_pixels(seed, images, 0.5)
    assert 0 < chosen.sum() < chosen.size
    _, _, lesion_map = explain_images(make_network(seed, RESNET), images)
    target = SemanticSegmentationTarget(0, chosen.astype(np.float32))
    require_equal_maps(lesion_map, map_of_library(seed, images, "mask_logits", target))


def test_without_a_lesion_pixel_the_most_suspicious_one_is_explained() -> None:
    images = random_image(0)
    with torch.no_grad():
        logits = make_network(0, RESNET)(images).mask_logits[0, 0]
    network = make_network(0, RESNET)
    network.mask_head[0].bias -= 3 + float(logits.max())  # every probability below a tenth
    peak = (logits == logits.max()).numpy()
    _, _, lesion_map = explain_images(network, images)
    target = SemanticSegmentationTarget(0, peak.astype(np.float32))
    require_equal_maps(lesion_map, map_of_library(0, images, "mask_logits", target))


def test_explaining_leaves_the_network_as_it_was() -> None:
    network = make_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    explain_images(network, torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())
    for module in network.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._backward_hooks


def test_explaining_gives_the_outputs_of_a_plain_run() -> None:
    network, images = make_network(), torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs, _, _ = explain_images(network, images)
    plain = network(images)
    assert torch.equal(outputs.mask_logits, plain.mask_logits)
    assert torch.equal(outputs.class_logits, plain.class_logits)


def with_evidence(network: LesionNet, weight: float) -> LesionNet:
    """Every feature, none of which is negative in this encoder, speaks for (or against) every class alike."""
    network.class_head[1].weight.fill_(weight)
    return network


def test_a_class_with_nothing_but_counter_evidence_has_an_empty_map_and_no_nan() -> None:
    _, class_maps, _ = explain_images(with_evidence(make_network(0, RESNET), -1.0), random_image(0))
    for raw in class_maps:
        assert torch.equal(relative(raw), torch.zeros_like(raw))
    _, class_maps, _ = explain_images(with_evidence(make_network(0, RESNET), 1.0), random_image(0))
    assert all(float(relative(raw).max()) == 1 for raw in class_maps)


def test_an_analysis_without_evidence_shows_none(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    analyser = make_analyser(architecture=RESNET)
    with_evidence(analyser._network, -1.0)
    heatmaps = analyser.analyse(simulated[Diagnosis.BENIGN].png()).heatmaps
    for diagnosis in Diagnosis:
        assert not heatmaps[diagnosis.value].evidence.any()


def test_a_network_without_a_class_head_has_a_map_of_the_mask_alone() -> None:
    network = make_network(architecture=replace(TINY, image_classes=()))
    outputs, class_maps, lesion_map = explain_images(network, torch.zeros(1, 1, 64, 64))
    assert outputs.class_logits is None
    assert class_maps == []
    assert lesion_map.shape == (2, 2)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([[0.0, 2.0], [1.0, 4.0]], [[0.0, 0.5], [0.25, 1.0]]),
        ([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]),
        ([[0.0, 1e-30]], [[0.0, 1.0]]),
    ],
)
def test_a_map_is_shown_relative_to_its_own_peak(
    raw: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]
) -> None:
    assert torch.allclose(relative(torch.tensor(raw)), torch.tensor(expected))


def test_the_formula_on_a_case_done_by_hand() -> None:
    """Score = 3 a00 + b00 with two channels a, b of one row: weights 3/2 and 1/2, sums 1.5 a + 0.5 b, cut at 0."""
    features = torch.tensor([[[[2.0, -4.0]], [[1.0, 2.0]]]], requires_grad=True)
    score = 3 * features[0, 0, 0, 0] + features[0, 1, 0, 0]
    assert raw_gradcam(score, features).tolist() == [[3.5, 0.0]]


def test_the_heat_map_of_the_mask_is_named_apart_from_the_classes() -> None:
    assert LESION not in {diagnosis.value for diagnosis in Diagnosis}
