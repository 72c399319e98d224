"""What ncnn is told, it does as torch does it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from busi_core.models.ncnn_graph import Blob, Graph, Run, compile_graph


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def calculate(build: Callable[[Graph, Blob], Blob], image: Tensor) -> Tensor:
    graph = Graph()
    source = graph.take_in()
    wanted = build(graph, source)
    with Run(compile_graph(graph, [wanted], threads=1)) as run:
        run.give(source, image[0].numpy())
        return torch.from_numpy(run.find(wanted))[None]


IMAGE, WEIGHT, BIAS = noise(1, 8, 20, 28), noise(16, 8, 3, 3, seed=1), noise(16, seed=2)
CASES: dict[str, tuple[Callable[[Graph, Blob], Blob], Callable[[Tensor], Tensor]]] = {
    "a convolution": (
        lambda g, x: g.convolve(x, WEIGHT, BIAS),
        lambda x: functional.conv2d(x, WEIGHT, BIAS, padding=1),
    ),
    "one without bias or margin": (
        lambda g, x: g.convolve(x, WEIGHT, margin=(0, 0, 0, 0)),
        lambda x: functional.conv2d(x, WEIGHT),
    ),
    "one with a stride, padded as TensorFlow does": (
        lambda g, x: g.convolve(x, WEIGHT, BIAS, stride=2, margin=(0, 1, 0, 1)),
        lambda x: functional.conv2d(functional.pad(x, (0, 1, 0, 1)), WEIGHT, BIAS, stride=2),
    ),
    "one of each channel alone": (
        lambda g, x: g.convolve(x, WEIGHT[:8, :1], BIAS[:8], groups=8),
        lambda x: functional.conv2d(x, WEIGHT[:8, :1], BIAS[:8], padding=1, groups=8),
    ),
    "a transposed one": (
        lambda g, x: g.convolve_transposed(x, noise(8, 4, 4, 4), BIAS[:4], stride=2),
        lambda x: functional.conv_transpose2d(x, noise(8, 4, 4, 4), BIAS[:4], stride=2, padding=1),
    ),
    "a convolution and ReLU": (
        lambda g, x: g.rectify(g.convolve(x, WEIGHT, BIAS)),
        lambda x: functional.conv2d(x, WEIGHT, BIAS, padding=1).relu(),
    ),
    "ReLU of a sum": (lambda g, x: g.rectify(g.add(x, x)), lambda x: (x + x).relu()),
    "where it is positive, and nothing else": (lambda g, x: g.multiply(g.is_positive(x), x), lambda x: (x > 0) * x),
    "a shuffle": (lambda g, x: g.shuffle(x), lambda x: functional.pixel_shuffle(x, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_each_layer_is_that_of_torch(case: str) -> None:
    build, expected = CASES[case]
    torch.testing.assert_close(calculate(build, IMAGE), expected(IMAGE), rtol=1e-4, atol=1e-3)


def test_a_sum_after_relu_sees_what_relu_left_and_the_first_sum_what_it_took() -> None:
    """A blob that is read twice, once before ReLU was asked for: ReLU must not reach back into the layer before."""

    def build(graph: Graph, source: Blob) -> Blob:
        raw = graph.convolve(source, WEIGHT, BIAS)
        kept = graph.multiply(raw, raw)
        return graph.add(kept, graph.rectify(raw))

    raw = functional.conv2d(IMAGE, WEIGHT, BIAS, padding=1)
    torch.testing.assert_close(calculate(build, IMAGE), raw * raw + raw.relu(), rtol=1e-4, atol=1e-3)


def test_what_was_found_on_the_way_is_asked_for_in_any_order_and_given_in_between() -> None:
    graph = Graph()
    image = graph.take_in()
    first = graph.rectify(graph.convolve(image, WEIGHT, BIAS))
    factor = graph.take_in()
    second = graph.multiply(first, factor)
    compiled = compile_graph(graph, [first, second], threads=1)
    expected = functional.conv2d(IMAGE, WEIGHT, BIAS, padding=1).relu()[0].numpy()
    with Run(compiled) as run:
        run.give(image, IMAGE[0].numpy())
        found = run.find(first)
        run.give(factor, 2 * np.ones_like(found))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(run.find(second), 2 * expected, rtol=1e-4, atol=1e-3)
