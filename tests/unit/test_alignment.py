"""Heat maps lie where their evidence is, not half a cell or a whole one beside it."""

from collections.abc import Sequence

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from busi_core.explain.alignment import measure_offset
from busi_core.imaging.preprocess import Box, PreprocessSpec, fit_box, place_on_box, upsample
from busi_core.models.network import Outputs

SPEC = PreprocessSpec(side=256, fit="pad", channels=1, mean=0.5, std=0.5)


class Strides(nn.Module):
    """Five stride-2 averages: padded evenly, or on the left and top only, or not at all."""

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__()
        self.steps = nn.Sequential(*[nn.AvgPool2d(kernel, 2, padding, count_include_pad=False) for _ in range(5)])

    def encode(self, images: Tensor) -> list[Tensor]:
        return [self.steps(images)]

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        raise NotImplementedError


def inputs() -> list[Tensor]:
    return [torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


@pytest.mark.parametrize(
    ("kernel", "padding", "expected"),
    [
        pytest.param(2, 0, 0.0, id="2 x 2 windows look at their own place"),
        pytest.param(3, 1, -15.5, id="3 x 3 windows, padded evenly, look half a pixel up and left at every stride"),
    ],
)
def test_the_offset_of_a_known_network_is_found(kernel: int, padding: int, expected: float) -> None:
    assert measure_offset(Strides(kernel, padding), inputs()) == pytest.approx((expected, expected), abs=0.5)


def test_a_resnet_looks_half_a_cell_up_and_left() -> None:
    encoder = smp.encoders.get_encoder("resnet18", in_channels=1, weights=None).eval()

    class Wrapped(Strides):
        def encode(self, images: Tensor) -> list[Tensor]:
            return list(encoder(images))

    with torch.random.fork_rng(devices=[]):
        rows, columns = measure_offset(Wrapped(2, 0), inputs())
    assert rows == pytest.approx(-15.5, abs=4)
    assert columns == pytest.approx(-15.5, abs=4)


@pytest.mark.parametrize("size", [(256, 256), (214, 256), (256, 130)])
def test_evidence_is_drawn_at_what_the_cell_looks_at(size: tuple[int, int]) -> None:
    box = fit_box(*size, SPEC)
    assert box == Box(*size)
    raw = torch.zeros(8, 8)
    raw[3, 2] = 1  # drawn at (112, 80), looking at (96, 64)
    evidence = upsample(place_on_box(raw, box, SPEC, (-16.0, -16.0)).numpy(), *size)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    assert (evidence * rows).sum() / evidence.sum() == pytest.approx(96, abs=1)
    assert (evidence * columns).sum() / evidence.sum() == pytest.approx(64, abs=1)


def test_without_an_offset_a_map_stays_in_its_place() -> None:
    raw = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    placed = upsample(place_on_box(raw, Box(256, 256), SPEC, (0.0, 0.0)).numpy(), 256, 256)
    plain = upsample(raw.numpy(), 256, 256)
    assert np.abs(placed - plain).mean() < 0.01
