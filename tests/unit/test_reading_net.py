"""The network rearranged for reading says what the network says, for less arithmetic, and leaves it alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from versions import TINY, make_network

from busi_core.explain.gradcam import explain_classes, explain_scan, raw_gradcam
from busi_core.models.interface import Network
from busi_core.models.network import LesionNet, build_network
from busi_core.models.reading import ReadingNet, arrange_for_reading
from busi_core.recipes.catalogue import RECIPES

SIDE = 96
KINDS = {
    "tiny": TINY,
    "resnet18": replace(TINY, encoder="resnet18"),
    "edgetpu": replace(TINY, encoder="tu-mobilenet_edgetpu_100", padding="same"),
    "average pooling": replace(TINY, encoder="resnet18", pooling="average"),
    "plain head": replace(TINY, head="global"),
    "colour, no class": replace(TINY, in_channels=3, image_classes=()),
    "four kinds of pixels": replace(TINY, pixel_classes=("none", "normal", "benign", "malignant")),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def lived_in(network: LesionNet) -> LesionNet:
    """Norms as training leaves them: no mean, spread, weight or bias is what it was at first.

    In double precision, so that rounding moves no pixel over the cut-off and lets nothing hide.
    """
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                values.data.uniform_(low, high, generator=generator)
    return network.double()


def image(network: LesionNet, seed: int = 0) -> Tensor:
    channels = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels
    pixels = torch.randn(1, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return pixels.to(next(network.parameters()).dtype)


def require_close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9 * max(float(expected.detach().abs().max()), 1e-3))


@every_kind
def test_masks_scores_features_and_heat_maps_are_those_of_the_network(kind: str) -> None:
    network = lived_in(make_network(0, KINDS[kind]))
    reader = arrange_for_reading(network)
    assert isinstance(reader, ReadingNet)
    features, own = network.encode(image(network)), reader.encode(image(network))
    for ours, expected in zip(own, features, strict=True):
        require_close(ours, expected)
    outputs, maps, lesion_map = explain_scan(network, features, 0.5)
    own_outputs, own_maps, own_lesion_map = explain_scan(reader, own, 0.5)
    require_close(own_outputs.mask_logits, outputs.mask_logits)
    assert (own_outputs.class_logits is None) == (outputs.class_logits is None)
    if outputs.class_logits is not None:
        require_close(own_outputs.class_logits, outputs.class_logits)
    for ours, expected in zip([*own_maps, own_lesion_map], [*maps, lesion_map], strict=True):
        require_close(ours, expected)
    for ours, expected in zip(explain_classes(reader, own)[1], maps, strict=True):
        require_close(ours, expected)


@pytest.mark.parametrize("head", ["lesion-aware", "global"])
def test_class_maps_in_closed_form_are_those_that_torch_differentiates(head: str) -> None:
    network = lived_in(make_network(0, replace(TINY, head=head)))
    deepest = network.encode(image(network))[-1].requires_grad_()
    features = [*network.encode(image(network))[:-1], deepest]
    _, maps, _ = explain_scan(network, features, 0.5)
    with torch.enable_grad():
        logits = network.decode(features).class_logits
    assert logits is not None
    for score, found in zip(logits[0], maps, strict=True):
        require_close(found, raw_gradcam(score, deepest))


class Counted(TorchDispatchMode):
    """Adds up the floating-point operations of what runs inside, backward passes too."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=found)
        return found


def operations(network: Network, images: Tensor, *, maps: bool) -> int:
    with Counted() as counter:
        features = network.encode(images)
        _ = explain_scan(network, features, 0.5) if maps else network.decode(features)
    return counter.total


@pytest.mark.parametrize("maps", [False, True], ids=["forward", "with heat maps"])
def test_it_is_less_work(maps: bool) -> None:
    network = make_network(0, KINDS["edgetpu"])
    reader = arrange_for_reading(network)
    assert operations(reader, image(network), maps=maps) < 0.85 * operations(network, image(network), maps=maps)


@pytest.mark.parametrize("kind", ["resnet18", "edgetpu"])
def test_no_normalisation_and_no_copy_of_the_heads_is_left(kind: str) -> None:
    network = make_network(0, KINDS[kind])
    reader = arrange_for_reading(network)
    assert isinstance(reader, ReadingNet)
    assert not any(isinstance(m, nn.BatchNorm2d) for part in (reader.encoder, reader.blocks) for m in part.modules())
    assert reader.mask_head is network.mask_head
    assert not any(parameter.requires_grad for parameter in reader.parameters())


def test_the_network_stays_as_it_was() -> None:
    network = lived_in(make_network(0, KINDS["edgetpu"]))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    expected = network(image(network))
    arrange_for_reading(network)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(network(image(network)).mask_logits, expected.mask_logits)


@pytest.mark.parametrize(
    "architecture",
    [
        replace(TINY, attention="scse"),
        replace(RECIPES["unet-gradcam"].final.architecture, filters=(2, 4, 4)),
    ],
    ids=["attention", "another network"],
)
def test_what_is_built_otherwise_is_used_as_it_is(architecture: object) -> None:
    network = build_network(architecture).requires_grad_(False).eval()
    assert arrange_for_reading(network) is network


def test_an_encoder_whose_norm_follows_no_convolution_is_left_unfolded() -> None:
    """Listed behind a convolution, and used before it: folding would change what the encoder says."""

    class NormFirst(nn.Module):
        def __init__(self, wrapped: nn.Module) -> None:
            super().__init__()
            self.wrapped, self.conv, self.norm = wrapped, nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
            self.out_channels, self.output_stride = wrapped.out_channels, wrapped.output_stride

        def forward(self, images: Tensor) -> list[Tensor]:
            return list(self.wrapped(self.conv(self.norm(images).relu())))

    network = make_network()
    network.encoder = NormFirst(network.encoder).requires_grad_(False).eval()
    lived_in(network)
    reader = arrange_for_reading(network)
    assert isinstance(reader, ReadingNet)
    require_close(reader(image(network)).mask_logits, network(image(network)).mask_logits)
