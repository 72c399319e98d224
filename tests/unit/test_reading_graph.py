"""A reading without autograd, as an engine takes it, is the reading of the request path."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from versions import TINY, make_network

from benchmarks.reading_graph import ReadingGraph
from busi_core.explain.gradcam import explain_scan

RESNET = replace(TINY, encoder="resnet18")


def image(seed: int) -> Tensor:
    return torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.999999])  # from the last one on no pixel is lesion
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("architecture", [TINY, RESNET], ids=["tiny", "resnet18"])
def test_masks_scores_and_maps_are_those_of_the_request_path(architecture: object, seed: int, threshold: float) -> None:
    network = make_network(seed, architecture)
    outputs, class_maps, lesion_map = explain_scan(network, network.encode(image(seed)), threshold)
    with torch.no_grad():
        mask_logits, class_logits, features, own_class_maps, own_lesion_map = ReadingGraph(network, threshold)(
            image(seed)
        )
    assert torch.equal(mask_logits, outputs.mask_logits)
    assert torch.equal(class_logits, outputs.class_logits)
    assert torch.equal(features, outputs.features)
    for ours, expected in zip([*own_class_maps, own_lesion_map], [*class_maps, lesion_map], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * max(float(expected.max()), 1e-6))


def test_a_network_without_a_class_head_has_a_map_of_the_mask_alone() -> None:
    network = make_network(0, replace(TINY, image_classes=()))
    with torch.no_grad():
        _, class_logits, _, class_maps, lesion_map = ReadingGraph(network, 0.5)(image(0))
    assert class_logits.shape == (1, 0)
    assert class_maps.shape[0] == 0
    torch.testing.assert_close(lesion_map, explain_scan(network, network.encode(image(0)), 0.5)[2])
