"""Each published network is the one its paper draws: parameters, shapes at every level, which layers exist."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torchvision.models import vgg16_bn

from busi_core.explain.gradcam import explain_classes, explain_scan, raw_gradcam
from busi_core.models.encnet import Encoding
from busi_core.models.interface import Architecture, Network, lesion_logits
from busi_core.models.msgrap import GridAttention
from busi_core.models.network import LesionNet, build_network
from busi_core.models.pixels import PixelNet, class_from_pixels
from busi_core.models.pspnet import PspBody
from busi_core.models.roi import CERTAIN, RoiNet, cut_out, regions_of
from busi_core.models.segnet import SegnetBody
from busi_core.models.unet import UnetBody
from busi_core.recipes.catalogue import RECIPES

DRAWN = [name for name, recipe in RECIPES.items() if recipe.paper]
SMALL = {  # the same drawings with few channels, to run on a CPU in a moment
    "unet-gradcam": {"filters": (4, 8, 8)},
    "msgrap": {"filters": (4, 8, 8)},
    "unet-dropout": {"filters": (4, 8, 8), "dropout": (0.1, 0.2, 0.0)},
    "unet-roi-segnet": {"filters": (4, 8, 8), "class_filters": (4, 8)},
    "pspnet-18": {},
    "encnet-18": {},
    "unet-resnet50-plain": {"encoder": "resnet18", "attention": "scse"},
}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_paper(architecture: Architecture) -> Network:
    """The network without its numbers: shapes and counts cost nothing."""
    with torch.device("meta"):
        return build_network(architecture).eval()


def small(name: str, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build_network(replace(RECIPES[name].final.architecture, **SMALL[name])).requires_grad_(False).eval()


def kinds(network: nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in network.modules())


# ---- As drawn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("unet-gradcam", 31_030_723),  # 31.03 million with one input plane and three classes, as widely counted
        ("unet-resnet34-tissue", 24_439_269),  # 'Total params' of the paper's own layer table, figure 6.1
        ("unet-dropout", 7_765_409),
        ("segnet", 29_479_107),
        ("fcn", 134_298_825),
    ],
)
def test_the_number_of_parameters_is_that_of_the_paper(name: str, count: int) -> None:
    assert parameters(on_paper(RECIPES[name].final.architecture)) == count


def test_the_tissue_network_is_the_papers_layer_table() -> None:
    network = on_paper(RECIPES["unet-resnet34-tissue"].final.architecture)
    assert isinstance(network, LesionNet)
    table = {
        "encoder.conv1": 9_408,
        "encoder.bn1": 128,
        "encoder.layer1": 3 * 73_984,
        "encoder.layer2": 230_144 + 3 * 295_424,
        "encoder.layer3": 919_040 + 5 * 1_180_672,
        "encoder.layer4": 3_673_088 + 2 * 4_720_640,
        "decoder.blocks.0": 2_360_320,
        "decoder.blocks.1": 590_336,
        "decoder.blocks.2": 147_712,
        "decoder.blocks.3": 46_208,
        "decoder.blocks.4": 6_976,
        "mask_head": 3_045,
    }
    assert {name: parameters(network.get_submodule(name)) for name in table} == table
    with torch.device("meta"):
        outputs = network(torch.empty(2, 3, 224, 224))
    assert outputs.mask_logits.shape == (2, 21, 224, 224)
    assert outputs.class_logits is None


@pytest.mark.parametrize("name", DRAWN)
def test_every_network_answers_at_the_size_of_its_input(name: str) -> None:
    config = RECIPES[name].final
    if config.architecture.name == "roi":
        pytest.skip("its region depends on numbers; see below")
    network, side = on_paper(config.architecture), config.preprocess.side
    with torch.device("meta"):
        outputs = network(torch.empty(2, config.preprocess.channels, side, side))
    assert outputs.mask_logits.shape == (2, len(config.architecture.pixel_classes), side, side)
    if config.architecture.image_classes:
        assert outputs.class_logits is not None
        assert outputs.class_logits.shape == (2, 3)


def test_the_u_net_has_the_levels_of_ronnebergers_figure() -> None:
    network = on_paper(RECIPES["unet-gradcam"].final.architecture)
    assert isinstance(network, PixelNet)
    body = network.body
    assert isinstance(body, UnetBody)
    seen: list[tuple[int, ...]] = []
    for level in (*body.down, *body.up):
        level.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.device("meta"):
        body(torch.empty(1, 1, 256, 256))
    down = [(64, 256), (128, 128), (256, 64), (512, 32), (1024, 16)]
    assert seen == [(channels, side, side) for channels, side in (*down, *reversed(down[:-1]))]
    found = kinds(body)
    assert (found["Conv2d"], found["ConvTranspose2d"], found["MaxPool2d"]) == (18, 4, 1)
    assert found["BatchNorm2d"] == found["Dropout2d"] == 0


def test_a_valid_u_net_pads_nothing_and_still_covers_the_image() -> None:
    architecture = replace(RECIPES["unet-gradcam"].final.architecture, padding="valid")
    network = on_paper(architecture)
    assert {m.padding for m in network.modules() if isinstance(m, nn.Conv2d)} == {(0, 0)}
    with torch.device("meta"):
        assert network(torch.empty(1, 1, 256, 256)).mask_logits.shape == (1, 3, 256, 256)
    small_one = replace(architecture, filters=(2, 4, 4))
    torch.manual_seed(0)
    body = UnetBody(small_one).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.isfinite(body(image)).all()


def test_dropout_and_batch_normalisation_stand_where_paper_002_has_them() -> None:
    network = on_paper(RECIPES["unet-dropout"].final.architecture)
    assert isinstance(network, PixelNet)
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout2d)]
    assert rates == [0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1]
    assert kinds(network)["BatchNorm2d"] == kinds(network)["Conv2d"] - 1
    assert network.mask_head.out_channels == 1


def test_the_encoders_of_segnet_and_fcn_are_torchvisions_vgg16() -> None:
    judge = vgg16_bn(weights=None).features
    assert parameters(SegnetBody(3).down) == parameters(judge)
    fcn = on_paper(RECIPES["fcn"].final.architecture)
    assert parameters(fcn.stages) == parameters(judge) - 2 * 64 * 9  # grey: one input plane in place of three


def test_segnet_puts_maxima_back_where_they_were() -> None:
    assert kinds(SegnetBody(1))["MaxUnpool2d"] == 1
    assert not kinds(SegnetBody(1))["ConvTranspose2d"]


@pytest.mark.parametrize("name", [name for name in DRAWN if RECIPES[name].paper == "003"])
def test_paper_003s_networks_average_and_carry_attention_where_they_say_so(name: str) -> None:
    architecture = RECIPES[name].final.architecture
    network = on_paper(architecture)
    found = kinds(network)
    assert found["MaxPool2d"] == 0
    assert found["AvgPool2d"] >= 1
    assert found["SCSEModule"] == (10 if architecture.attention == "scse" else 0)
    judge = smp.Unet(
        architecture.encoder,
        encoder_weights=None,
        in_channels=1,
        decoder_attention_type="scse" if architecture.attention == "scse" else None,
        aux_params={"classes": 3, "dropout": 0.5},
    )
    assert parameters(network) == parameters(judge)


def test_the_pyramid_pooling_is_smps() -> None:
    judge = smp.PSPNet("resnet18", encoder_weights=None, encoder_depth=5, in_channels=1, psp_out_channels=512)
    ours = PspBody(1)
    assert parameters(ours.encoder) == parameters(judge.encoder)
    assert parameters(ours.pyramid) == parameters(judge.decoder)


# ---- By their formulas ---------------------------------------------------------------------------------------


def test_encoding_is_equation_1_of_its_paper() -> None:
    torch.manual_seed(0)
    layer, features = Encoding(3, 4), torch.randn(2, 3, 2, 2)
    encoded = layer(features).detach().numpy()
    codewords, smoothing = layer.codewords.detach().numpy(), layer.smoothing.detach().numpy()
    for image in range(2):
        places = features[image].reshape(3, 4).T.numpy()
        expected = np.zeros((4, 3))
        for place in places:
            residuals = place - codewords
            weights = np.exp(smoothing * (residuals**2).sum(axis=1))
            expected += (weights / weights.sum())[:, None] * residuals
        assert np.allclose(encoded[image], expected, atol=1e-5)


def test_grid_attention_with_one_cell_is_squeeze_and_excitation() -> None:
    torch.manual_seed(0)
    module, features = GridAttention(16, grids=(1,)), torch.randn(2, 16, 8, 8)
    squeezed = features.mean(dim=(2, 3))
    first, _, second, _ = module.excite
    excited = torch.sigmoid(
        (torch.relu(squeezed @ first.weight[:, :, 0, 0].T + first.bias)) @ second.weight[:, :, 0, 0].T + second.bias
    )
    assert torch.allclose(module(features), features * excited[:, :, None, None], atol=1e-5)


def test_lesion_against_no_lesion_is_one_minus_the_softmax_of_the_first() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = 1 - logits.softmax(dim=1)[:, :1]
    assert torch.allclose(lesion_logits(logits).sigmoid(), expected, atol=1e-6)
    assert lesion_logits(logits[:, :1]) is not None
    assert torch.equal(lesion_logits(logits[:, :1]), logits[:, :1])


@pytest.mark.parametrize(("pixels", "column"), [("none", 0), ("benign", 1), ("malignant", 2)])
def test_the_class_of_an_image_is_what_its_pixels_say(pixels: str, column: int) -> None:
    logits = torch.zeros(1, 3, 40, 40)
    logits[:, 0] = 8
    if pixels != "none":
        logits[0, column, 10:20, 10:20] = 16
    probabilities = class_from_pixels(logits).exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-4)
    assert int(probabilities.argmax()) == column
    assert float(probabilities.max()) > 0.95


# ---- Two stages ----------------------------------------------------------------------------------------------


def test_the_region_is_the_box_around_the_mask_with_its_margin() -> None:
    logits = torch.full((2, 1, 100, 100), -1.0)
    logits[0, 0, 20:40, 50:60] = 1
    boxes = regions_of(logits)
    assert boxes[0].tolist() == pytest.approx([0.49, 0.18, 0.61, 0.42])
    assert boxes[1].tolist() == [0, 0, 0, 0]


def test_what_is_cut_out_is_what_cropping_and_resizing_give() -> None:
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    cut = cut_out(image, torch.tensor([[0.25, 0.5, 0.75, 1.0]]))
    crop = torch.nn.functional.interpolate(
        image[:, :, 32:64, 16:48], size=(64, 64), mode="bilinear", align_corners=False
    )
    assert torch.allclose(cut[..., 2:-2, 2:-2], crop[..., 2:-2, 2:-2], atol=1e-5)


def with_mask(network: Network, bias: float) -> RoiNet:
    assert isinstance(network, RoiNet)
    network.segmenter.mask_head.weight.zero_()
    network.segmenter.mask_head.bias.fill_(bias)
    return network


def test_an_empty_mask_is_a_normal_breast_and_any_other_is_not() -> None:
    images = torch.randn(2, 1, 64, 64)
    empty = with_mask(small("unet-roi-segnet"), -1.0)(images)
    full = with_mask(small("unet-roi-segnet"), 1.0)(images)
    assert empty.class_logits is not None
    assert full.class_logits is not None
    assert (empty.class_logits[:, 0] == CERTAIN).all()
    assert (empty.class_logits.argmax(dim=1) == 0).all()
    assert (full.class_logits.argmax(dim=1) > 0).all()


def test_the_heat_map_of_a_region_is_laid_back_where_it_was_cut() -> None:
    network = small("unet-roi-segnet")
    boxes = torch.tensor([[0.5, 0.25, 0.75, 0.5]])
    placed = network.locate(torch.ones(4, 4), [torch.zeros(0), torch.zeros(0), boxes, torch.zeros(0)])
    rows, columns = placed.nonzero().unbind(dim=1)
    side = placed.shape[0]
    assert (int(rows.min()), int(rows.max()) + 1) == (side // 4, side // 2)
    assert (int(columns.min()), int(columns.max()) + 1) == (side // 2, 3 * side // 4)
    nothing = network.locate(torch.ones(4, 4), [torch.zeros(0), torch.zeros(0), torch.zeros(1, 4), torch.zeros(0)])
    assert not nothing.any()


# ---- The one road --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_every_network_can_be_explained_and_gives_the_same_answer_explained_or_not(name: str) -> None:
    network = small(name)
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = network(image)
    outputs, class_maps, lesion_map = explain_scan(network, network.encode(image), 0.5)
    assert torch.allclose(outputs.mask_logits, plain.mask_logits, atol=1e-5)
    assert torch.isfinite(lesion_map).all()
    assert lesion_map.ndim == 2
    if plain.class_logits is None:
        assert class_maps == []
        return
    assert outputs.class_logits is not None
    assert torch.allclose(outputs.class_logits, plain.class_logits, atol=1e-5)
    assert len(class_maps) == 3
    _, again = explain_classes(network, network.encode(image))
    for first, second in zip(class_maps, again, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_the_u_nets_class_map_is_grad_cam_at_its_last_convolution() -> None:
    network, image = small("unet-gradcam"), torch.randn(1, 1, 64, 64)
    _, class_maps, _ = explain_scan(network, network.encode(image), 0.5)
    assert class_maps[1].shape == (64, 64)
    features = network.body(image).requires_grad_()
    score = class_from_pixels(network.mask_head(features))[0, 1]
    assert torch.allclose(class_maps[1], raw_gradcam(score, features), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_classes": ("benign", "background", "malignant")},
        {"pixel_classes": ("background", "malignant", "benign")},
        {"filters": ()},
        {"dropout": (0.1,)},
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(change: dict[str, object]) -> None:
    from busi_core.errors import ModelUnavailableError

    with pytest.raises(ModelUnavailableError, match="cannot be built"):
        build_network(replace(RECIPES["unet-gradcam"].final.architecture, **change))
