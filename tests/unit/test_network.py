"""The network is smp's U-Net with a class head, starts where ImageNet left off, and refuses names it does not know."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from versions import TINY, make_network

from busi_core.errors import ModelUnavailableError
from busi_core.imaging.preprocess import PreprocessSpec, normalise
from busi_core.models.network import Architecture, LesionNet, build_network
from busi_core.models.pretrained import SOURCES, STEM, encoder_source, start_encoder
from busi_core.settings import read_settings

RESNET = replace(TINY, encoder="resnet18")
PRODUCT = replace(TINY, encoder="tu-mobilenet_edgetpu_100")


@pytest.fixture(scope="module")
def encoder_dir() -> Path:
    """The folder with ImageNet encoders; skipped, with the reason, where there is none."""
    folder = read_settings().encoder_dir
    if not (folder / SOURCES[PRODUCT.encoder][0]).is_file():
        pytest.skip(f"no ImageNet encoder in {folder}; set BUSI_ENCODER_DIR")
    return folder


def random_images(architecture: Architecture, *, side: int = 64, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, architecture.in_channels, side, side, generator=generator)


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(TINY, id="tiny"),
        pytest.param(PRODUCT, id="the product's"),
        pytest.param(replace(RESNET, in_channels=3), id="three channels"),
        pytest.param(replace(TINY, pixel_classes=("tumour", "stroma", "other")), id="three pixel classes"),
        pytest.param(replace(TINY, image_classes=("benign", "malignant")), id="two image classes"),
        pytest.param(replace(TINY, image_classes=()), id="no class head"),
    ],
)
@pytest.mark.parametrize("side", [64, 96])
def test_outputs_have_the_shapes_that_their_comments_say(architecture: Architecture, side: int) -> None:
    outputs = make_network(architecture=architecture)(random_images(architecture, side=side))
    assert outputs.mask_logits.shape == (2, len(architecture.pixel_classes), side, side)
    assert outputs.features.shape[0] == 2
    assert outputs.features.shape[2:] == (side // 32, side // 32)
    if architecture.image_classes:
        assert outputs.class_logits is not None
        assert outputs.class_logits.shape == (2, len(architecture.image_classes))
    else:
        assert outputs.class_logits is None


def test_the_mask_is_that_of_smp_with_the_same_weights() -> None:
    network = make_network(architecture=RESNET)
    judge = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1).eval()
    renamed = {key.replace("mask_head.", "segmentation_head."): value for key, value in network.state_dict().items()}
    judge.load_state_dict({key: value for key, value in renamed.items() if not key.startswith("class_head.")})
    images = random_images(RESNET)
    with torch.no_grad():
        assert torch.equal(network(images).mask_logits, judge(images))


def test_encoding_then_decoding_is_running_it() -> None:
    network, images = make_network(), random_images(TINY)
    whole, halves = network(images), network.decode(network.encode(images))
    for first, second in zip(whole, halves, strict=True):
        assert torch.equal(first, second)


def test_a_batch_gives_each_image_what_it_gets_alone() -> None:
    network, images = make_network(), random_images(TINY, batch=3)
    together = network(images)
    for number in range(3):
        alone = network(images[number : number + 1])
        assert torch.allclose(alone.mask_logits[0], together.mask_logits[number], atol=1e-5)
        assert torch.allclose(alone.class_logits[0], together.class_logits[number], atol=1e-5)


def class_logits_with_mask(network: LesionNet, features: list[torch.Tensor], mask_logit: float) -> torch.Tensor:
    """The class logits when the mask head answers one logit everywhere."""
    network.mask_head[0].weight.zero_()
    network.mask_head[0].bias.fill_(mask_logit)
    return network.decode(features).class_logits


@pytest.mark.parametrize("mask_logit", [-100.0, 0.0, 100.0])
def test_a_mask_that_is_the_same_everywhere_leaves_the_whole_image_to_the_class_head(mask_logit: float) -> None:
    """Also an empty one: no division by zero."""
    network = make_network()
    features = network.encode(random_images(TINY))
    mean = features[-1].mean(dim=(2, 3))
    expected = network.class_head(torch.cat([mean, mean], dim=1))
    assert torch.allclose(class_logits_with_mask(network, features, mask_logit), expected, atol=1e-5)


def test_the_class_loss_does_not_move_the_mask() -> None:
    network = make_network().requires_grad_(True)
    network(random_images(TINY)).class_logits.sum().backward()
    assert all(parameter.grad is None for parameter in network.mask_head.parameters())
    assert all(parameter.grad is None for parameter in network.decoder.parameters())
    assert any(parameter.grad is not None for parameter in network.encoder.parameters())


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        (replace(TINY, name="transformer"), "architecture 'transformer' is unknown"),
        (replace(TINY, encoder="resnet19"), "encoder 'resnet19'"),
        (replace(TINY, encoder="tu-nonsense"), "encoder 'tu-nonsense'"),
        (replace(TINY, encoder="tu-vit_tiny_patch16_224"), "encoder 'tu-vit"),
        (replace(TINY, encoder=""), "encoder ''"),
        (replace(TINY, encoder=5), "encoder 5"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_by_name(architecture: Architecture, said: str) -> None:
    with pytest.raises(ModelUnavailableError, match=said):
        build_network(architecture)


@pytest.mark.parametrize(
    "change",
    [
        {"in_channels": 0},
        {"pixel_classes": ()},
        {"pixel_classes": ("lesion", "lesion")},
        {"image_classes": ("benign", "malignant", "benign")},
    ],
)
def test_an_architecture_that_makes_no_sense_cannot_exist(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="class"):
        replace(TINY, **change)


def test_a_grey_network_starts_where_the_rgb_network_starts_on_repeated_grey(encoder_dir: Path) -> None:
    grey, rgb = make_network(architecture=PRODUCT), make_network(architecture=replace(PRODUCT, in_channels=3))
    for network in (grey, rgb):
        start_encoder(network, PRODUCT.encoder, encoder_dir)
    square = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    one, three = (
        normalise(square, PreprocessSpec(side=64, fit="pad", channels=channels, mean=0.5, std=0.5))
        for channels in (1, 3)
    )
    for first, second in zip(grey.encode(one)[1:], rgb.encode(three)[1:], strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(second.abs().max()))


def test_a_started_encoder_holds_the_files_own_weights_and_names_its_licence(encoder_dir: Path) -> None:
    network = make_network(architecture=PRODUCT)
    start_encoder(network, PRODUCT.encoder, encoder_dir)
    assert "Apache-2.0" in encoder_source(PRODUCT.encoder)
    stored = load_file(encoder_dir / SOURCES[PRODUCT.encoder][0])
    held = network.encoder.model.state_dict()
    for key, value in held.items():
        if key != STEM and not key.endswith("num_batches_tracked"):
            assert torch.equal(value, stored[key]), key


def test_an_encoder_without_weights_at_hand_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="No ImageNet weights are at hand for 'resnet18'"):
        start_encoder(make_network(architecture=RESNET), "resnet18", tmp_path)
    with pytest.raises(ModelUnavailableError, match="No ImageNet weights are at hand for 'resnet18'"):
        encoder_source("resnet18")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda _path: None, "cannot be read", id="missing"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x04."), "cannot be read", id="W1 a pickle"),
        pytest.param(lambda path: save_file({"x": torch.zeros(1)}, path), "do not fit", id="other weights"),
    ],
)
def test_a_start_that_cannot_be_made_is_refused(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(tmp_path / SOURCES[PRODUCT.encoder][0])
    with pytest.raises(ModelUnavailableError, match=said):
        start_encoder(make_network(architecture=PRODUCT), PRODUCT.encoder, tmp_path)


def test_another_layout_of_the_same_names_does_not_fit(encoder_dir: Path, tmp_path: Path) -> None:
    name = SOURCES[PRODUCT.encoder][0]
    stored = load_file(encoder_dir / name)
    save_file({**stored, STEM: stored[STEM][:16].contiguous()}, tmp_path / name)
    with pytest.raises(ModelUnavailableError, match="1 misfit"):
        start_encoder(make_network(architecture=PRODUCT), PRODUCT.encoder, tmp_path)
