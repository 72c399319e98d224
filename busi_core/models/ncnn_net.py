"""The network rearranged for reading, carried out by ncnn on a processor: the same answers to rounding, in less time.

    ReadingNet --carry_by_ncnn--> NcnnNet: encode, decode, classify as before

ncnn convolves 3 x 3 by Winograd's minimal filtering (Lavin and Gray, arXiv:1509.09308): for 4 x 4 pixels 36 products in
place of 144. Its answers are held to torch's on noise before it may read; where they differ torch goes on reading.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from busi_core.models.interface import Network, Outputs
from busi_core.models.ncnn_graph import Blob, Compiled, Graph, Margin, Run, compile_graph
from busi_core.models.reading import AGREEMENT, FoldedBlock, ReadingNet

FEW_CHANNELS = 128
WAY_BACK_AGREEMENT = 1e-2  # of the largest value: a pixel that rounds to the other side of 0 opens or shuts a way

logger = logging.getLogger(__name__)


class UnknownLayerError(Exception):
    """The network holds something that is not told to ncnn here."""


def carry_by_ncnn(network: Network, side: int) -> Network:
    """The network as ncnn carries it out.

    Args:
        network: On the CPU, in single precision.
        side: Of the images that it will read.

    Returns:
        An `NcnnNet`, or the network itself when it is no `ReadingNet`, when ncnn cannot take it, or where what ncnn
        says is another thing.
    """
    if not isinstance(network, ReadingNet) or next(network.parameters()).dtype != torch.float32:
        return network
    try:
        carried = NcnnNet(network, side)
        if _agree(network, carried, side):
            return carried
        logger.warning("torch reads, since ncnn says something else here")
    except UnknownLayerError as error:
        logger.info("torch reads: %s", error)
    except (OSError, RuntimeError) as error:
        logger.warning("torch reads, since ncnn cannot: %s", error)
    return network


@dataclass(frozen=True, eq=False)
class _Prepared:
    """For a number of threads: both halves of the network."""

    threads: int
    encoder: Compiled
    decoder: Compiled


class NcnnNet(Network):
    """A `ReadingNet` whose convolutions ncnn carries out, with the way back of the mask's heat map."""

    has_own_gradient = True

    def __init__(self, network: ReadingNet, side: int) -> None:
        """Args:
        network: In single precision.
        side: Of the images that it will read.

        Raises:
        UnknownLayerError: The encoder does something that is not told to ncnn.
        OSError, RuntimeError: As `compile_graph`.
        """
        super().__init__()
        self.network = network
        self._encoder, self._decoder = _Encoder(network.encoder, _noise(network, side)), _Decoder(network)
        self._preparing = threading.Lock()
        self._prepared: _Prepared | None = None
        self._prepare()

    def encode(self, images: Tensor) -> list[Tensor]:
        """As `ReadingNet.encode`, without a gradient."""
        compiled, found = self._prepare().encoder, []
        for image in images:
            with Run(compiled) as run:
                run.give(self._encoder.image, image.numpy())
                found.append([run.find(blob) for blob in self._encoder.features])
        return [images, *(_together(level) for level in zip(*found, strict=True))]

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        """As `ReadingNet.decode`, without a gradient."""
        compiled, found = self._prepare().decoder, []
        for number in range(len(features[0])):
            with Run(compiled) as run:
                self._decoder.give(run, [level[number] for level in features])
                found.append(run.find(self._decoder.mask_logits))
        mask_logits = _together(found)
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def decode_and_return(
        self, features: Sequence[Tensor], seed: Callable[[Outputs], Tensor]
    ) -> tuple[Outputs, Tensor]:
        """As `Network.decode_and_return`, for one image."""
        with Run(self._prepare().decoder) as run:
            self._decoder.give(run, [level[0].detach() for level in features])
            mask_logits = torch.from_numpy(run.find(self._decoder.mask_logits))[None]
            outputs = Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])
            run.give(self._decoder.seed, seed(outputs)[0].numpy())
            return outputs, torch.from_numpy(run.find(self._decoder.gradient))[None]

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        """As `ReadingNet.classify`."""
        return self.network.classify(deepest, mask_logits)

    def class_gradients(self, deepest: Tensor) -> Tensor | None:
        """As `ReadingNet.class_gradients`."""
        return self.network.class_gradients(deepest)

    def _prepare(self) -> _Prepared:
        """For as many threads as torch takes now, which scans that are read side by side share."""
        threads = torch.get_num_threads()
        with self._preparing:
            if self._prepared is None or self._prepared.threads != threads:
                try:
                    self._prepared = self._compile(threads)
                except (OSError, RuntimeError) as error:  # as a full disk; the one for another number reads as well
                    if self._prepared is None:
                        raise
                    logger.warning("read with %d threads, since ncnn cannot: %s", self._prepared.threads, error)
            return self._prepared

    def _compile(self, threads: int) -> _Prepared:
        encoder = compile_graph(self._encoder.graph, self._encoder.features, threads)
        wanted = [self._decoder.mask_logits, self._decoder.gradient]
        return _Prepared(threads, encoder, compile_graph(self._decoder.graph, wanted, threads))


class _Encoder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """(channels, side, side) -> the feature maps below the image itself, finest first; told by watching torch read.

    A mode of one thread: others may read meanwhile, which tracers that put something in the place of torch's functions
    do not allow.
    """

    def __init__(self, encoder: nn.Module, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self.image = self.graph.take_in()
        self._blobs = {id(image): self.image}
        self._padded: dict[int, tuple[Blob, Margin]] = {}
        self._seen = [image]  # held, so that no other tensor gets its id
        with torch.no_grad(), self:
            features = encoder(image)
        self.features = [self._blobs[id(level)] for level in features[1:]]
        self._seen.clear()  # 30 MB

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        found = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if func is aten.convolution.default:
            blob = self._convolve(*args)
        elif func in (aten.relu.default, aten.relu_.default):
            blob = self.graph.rectify(self._blobs[id(args[0])])
        elif func in (aten.add.Tensor, aten.add_.Tensor) and not kwargs and id(args[1]) in self._blobs:
            blob = self.graph.add(self._blobs[id(args[0])], self._blobs[id(args[1])])
        elif func is aten.constant_pad_nd.default and len(args[1]) == 4 and args[2:] in ((), (0,)):
            self._padded[id(found)] = (self._blobs[id(args[0])], tuple(args[1]))
            blob = ""
        else:
            raise UnknownLayerError(f"no layer of ncnn is known for {func}")
        self._seen.append(found)
        self._blobs[id(found)] = blob
        return found

    def _convolve(
        self,
        source: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        is_transposed: bool,
        _: Sequence[int],
        groups: int,
    ) -> Blob:
        rows, columns = padding
        blob, margin = self._padded.get(id(source), (self._blobs[id(source)], (columns, columns, rows, rows)))
        is_padded_twice = id(source) in self._padded and any(padding)
        if is_transposed or is_padded_twice or stride[0] != stride[1] or set(dilation) != {1}:
            raise UnknownLayerError("no layer of ncnn is known for a convolution of this kind")
        return self.graph.convolve(blob, weight, bias, stride=stride[0], margin=margin, groups=groups)


class _Decoder:
    """Feature maps -> mask logits; and the gradient of the deepest map from one of the logits."""

    def __init__(self, network: ReadingNet) -> None:
        head = network.mask_head[0]
        self.graph = graph = Graph()
        current = self._deepest = graph.take_in()
        self._skips: list[Blob] = []  # deepest first
        passed: list[tuple[FoldedBlock, Blob, Blob]] = []
        for block in cast(Sequence[FoldedBlock], network.blocks):
            grown = _double(graph, current, block)
            if block.beside is not None:
                self._skips.append(graph.take_in())
                grown = graph.add(grown, graph.convolve(self._skips[-1], block.beside))
            grown = graph.rectify(grown)
            current = graph.rectify(graph.convolve(grown, block.second, block.second_bias))
            passed.append((block, grown, current))
        self.mask_logits = graph.convolve(current, head.weight, head.bias)
        self.seed = graph.take_in()
        gradient = graph.convolve(self.seed, _returned(head.weight))
        for block, grown, out in reversed(passed):
            gradient = graph.multiply(gradient, graph.is_positive(out))
            gradient = graph.convolve(gradient, _returned(block.second))
            gradient = graph.multiply(gradient, graph.is_positive(grown))
            gradient = graph.convolve(gradient, block.below, stride=2)
        self.gradient = gradient

    def give(self, run: Run, features: Sequence[Tensor]) -> None:
        """The features of one image, finest first, each (channels, rows, columns)."""
        run.give(self._deepest, features[-1].numpy())
        for blob, level in zip(self._skips, reversed(features[1:-1]), strict=True):
            run.give(blob, level.numpy())


def _together(arrays: Sequence[NDArray[np.float32]]) -> Tensor:
    """(batch, ...); of one alone without a copy."""
    return torch.from_numpy(np.stack(arrays) if len(arrays) > 1 else arrays[0][None])


def _double(graph: Graph, source: Blob, block: FoldedBlock) -> Blob:
    """The transposed convolution of a block; of few channels as a 3 x 3 convolution, which Winograd's filtering helps
    more (of the decoder's time a tenth, measured)."""
    if block.below.shape[0] > FEW_CHANNELS:
        return graph.convolve_transposed(source, block.below, block.first_bias, stride=2)
    return graph.shuffle(graph.convolve(source, _side_by_side(block.below), block.first_bias.repeat_interleave(4)))


def _side_by_side(kernel: Tensor) -> Tensor:
    """(in, out, 4, 4) of a transposed convolution with stride 2 and a margin of 1 -> (4 x out, in, 3, 3), which finds
    the four pixels that one becomes as channels: even ones from taps 3 and 1 of the kernel, odd ones from 2 and 0."""
    inputs, outputs = kernel.shape[:2]
    found = kernel.new_zeros(outputs, 2, 2, inputs, 3, 3)
    for row, column in itertools.product((0, 1), repeat=2):
        taps = kernel[:, :, [3 - row, 1 - row]][..., [3 - column, 1 - column]]
        found[:, row, column, :, row : row + 2, column : column + 2] = taps.transpose(0, 1)
    return found.reshape(4 * outputs, inputs, 3, 3)


def _returned(weight: Tensor) -> Tensor:
    """What a 3 x 3 convolution with a margin of 1 is on the way back: (out, in, 3, 3) -> (in, out, 3, 3)."""
    return weight.transpose(0, 1).flip(2, 3)


def _agree(one: ReadingNet, other: NcnnNet, side: int) -> bool:
    """On noise of the side that will be read, since ncnn chooses its ways by it."""
    noise = _noise(one, side)
    with torch.no_grad():
        features = one.encode(noise)
        pairs = list(zip(features, other.encode(noise), strict=True))
    deepest = features[-1].requires_grad_()
    expected = one.decode([*features[:-1], deepest]).mask_logits
    outputs, gradient = other.decode_and_return(features, lambda outputs: torch.ones_like(outputs.mask_logits))
    pairs.append((expected, outputs.mask_logits))
    way_back = torch.autograd.grad(expected.sum(), deepest)[0]
    return all(_apart(a, b) <= AGREEMENT for a, b in pairs) and _apart(way_back, gradient) <= WAY_BACK_AGREEMENT


def _noise(network: ReadingNet, side: int) -> Tensor:
    channels = next(module for module in network.modules() if isinstance(module, nn.Conv2d)).in_channels
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))


def _apart(one: Tensor, other: Tensor) -> float:
    """How far at most, of the largest value; not a number where one of them is none."""
    one = one.detach()
    return float((one - other).abs().amax() / one.abs().amax())
