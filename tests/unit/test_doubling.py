"""Learning on blocks that double within the convolution: the same answers and the same gradients, for less work."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from test_reading_net import KINDS, every_kind, image, lived_in, require_close
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from versions import TINY, make_network

from busi_core.models.network import LesionNet


def learning(kind: str) -> LesionNet:
    return lived_in(make_network(0, KINDS[kind])).requires_grad_(True).train()


def as_smp_decodes(network: LesionNet) -> LesionNet:
    other = copy.deepcopy(network)
    own = smp.Unet("resnet18", encoder_weights=None).decoder
    for place, block in enumerate(other.decoder.blocks):
        original = own.blocks[place]
        original.conv1, original.conv2 = block.conv1, block.conv2
        other.decoder.blocks[place] = original
    return other


def answer_and_gradients(network: LesionNet, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)  # of the dropout
    outputs = network(images)
    score = outputs.mask_logits.square().mean()
    if outputs.class_logits is not None:
        score = score + outputs.class_logits.square().mean()
    score.backward()
    return outputs.mask_logits, {
        name: value.grad for name, value in network.named_parameters() if value.grad is not None
    }


@every_kind
def test_a_network_learns_what_it_learns_on_smps_own_decoder(kind: str) -> None:
    network = learning(kind)
    other = as_smp_decodes(network)
    images = torch.cat([image(network, seed) for seed in range(2)])
    ours, our_gradients = answer_and_gradients(network, images)
    expected, gradients = answer_and_gradients(other, images)
    require_close(ours, expected)
    assert our_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-7, atol=1e-12)
    for (name, ours), expected in zip(network.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, expected, msg=name)  # the running means and spreads


def test_it_is_less_work() -> None:
    network = learning("edgetpu")

    def work(network: LesionNet) -> int:
        with FlopCounterMode(display=False) as counter:
            network(image(network).repeat(6, 1, 1, 1))
        return counter.get_total_flops()

    assert work(network) < 0.85 * work(as_smp_decodes(network))


@pytest.mark.parametrize("mode", ["reading", "bf16"])
def test_reading_and_bf16_go_as_smp_goes_to_the_bit(mode: str) -> None:
    network = make_network(0, TINY).train(mode == "bf16")
    images = image(network).repeat(2, 1, 1, 1)
    found = []
    for kind in (network, as_smp_decodes(network)):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
            found.append(kind(images).mask_logits)
    assert torch.equal(*found)
