"""A computation told to ncnn layer by layer, and carried out by it in single precision.

    Graph: layers and weights --compile_graph--> Compiled -> Run: blobs in, blobs out

The numbers are those of ncnn's parameter table (its documents, operation-param-weight-table). Weights pass through a
temporary folder, since ncnn reads them from memory only as long as somebody else keeps that memory.
"""

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import ncnn
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Blob = str  # the name of a result within a graph
Margin = tuple[int, int, int, int]  # left, right, top, bottom, as torch pads

_FORMAT = 7767517
_FLOAT32 = b"\0\0\0\0"  # before a layer's weights: they are not compressed
_ADD, _TIMES = 0, 2  # of BinaryOp
_RELU = 1  # after a convolution
_KEPT = 2  # memories: as many scans as two cores read side by side
_FILLED = 0.6  # of a piece of memory before it is used again: left at 0 a large one goes to the next small blob


class _MemoryPool:
    """Memory for calculations, some 50 MB each here: no more at once than cores, and little of it kept.

    Left to itself ncnn keeps as much for each graph and each thread that ever used it. To keep none costs a tenth of
    the time wherever the C library has handed it back to the system.
    """

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._kept: list[ncnn.PoolAllocator] = []
        self._lock = threading.Lock()

    def take(self) -> ncnn.PoolAllocator:
        self._room.acquire()
        with self._lock:
            return self._kept.pop() if self._kept else _new_memory()

    def give_back(self, memory: ncnn.PoolAllocator) -> None:
        with self._lock:
            is_kept = len(self._kept) < _KEPT
            if is_kept:
                self._kept.append(memory)
        if not is_kept:
            memory.clear()
        self._room.release()


def _new_memory() -> ncnn.PoolAllocator:
    memory = ncnn.PoolAllocator()
    memory.set_size_compare_ratio(_FILLED)
    return memory


_MEMORY = _MemoryPool()


@dataclass
class _Layer:
    kind: str
    inputs: tuple[Blob, ...]
    output: Blob
    parameters: dict[int, int]
    weights: tuple[Tensor, ...] = ()


@dataclass
class Graph:
    """Layers in the order that they are calculated in; a blob is (channels, rows, columns)."""

    layers: list[_Layer] = field(default_factory=list)

    def take_in(self) -> Blob:
        """A blob that is given from outside."""
        return self._add("Input", ())

    def convolve(
        self,
        source: Blob,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: int = 1,
        margin: Margin = (1, 1, 1, 1),
        groups: int = 1,
    ) -> Blob:
        """A convolution; of as many groups as channels, or of one."""
        parameters = _window(weight, bias, outputs=weight.shape[0], stride=stride, margin=margin)
        kind = "Convolution" if groups == 1 else "ConvolutionDepthWise"
        return self._add(kind, (source,), parameters | ({7: groups} if groups > 1 else {}), (weight, bias))

    def convolve_transposed(self, source: Blob, weight: Tensor, bias: Tensor, *, stride: int) -> Blob:
        """A transposed convolution with a margin of 1, and a weight as torch keeps it: (in, out, rows, columns)."""
        parameters = _window(weight, bias, outputs=weight.shape[1], stride=stride, margin=(1, 1, 1, 1))
        return self._add("Deconvolution", (source,), parameters, (weight.transpose(0, 1), bias))

    def add(self, one: Blob, other: Blob) -> Blob:
        """The sum."""
        return self._add("BinaryOp", (one, other), {0: _ADD})

    def multiply(self, one: Blob, other: Blob) -> Blob:
        """The product, cell by cell."""
        return self._add("BinaryOp", (one, other), {0: _TIMES})

    def rectify(self, source: Blob) -> Blob:
        """ReLU; within the layer before where that is a convolution that nothing else looks at so far."""
        last = self.layers[-1]
        if last.output == source and 6 in last.parameters:
            last.parameters[9] = _RELU
            return source
        return self._add("ReLU", (source,))

    def shuffle(self, source: Blob) -> Blob:
        """As torch's `pixel_shuffle` by 2: (4 x channels, rows, columns) -> (channels, 2 x rows, 2 x columns)."""
        return self._add("PixelShuffle", (source,), {0: 2})

    def is_positive(self, source: Blob) -> Blob:
        """1 where a value lies above 0, else 0."""
        return self._add("Threshold", (source,), {0: 0})

    def _add(
        self,
        kind: str,
        inputs: tuple[Blob, ...],
        parameters: dict[int, int] | None = None,
        weights: tuple[Tensor | None, ...] = (),
    ) -> Blob:
        given = tuple(tensor for tensor in weights if tensor is not None)
        self.layers.append(_Layer(kind, inputs, f"blob{len(self.layers)}", dict(parameters or {}), given))
        return self.layers[-1].output


class Run:
    """One calculation, for a `with`; what was found on the way is kept for the next blob that is asked for."""

    def __init__(self, compiled: "Compiled") -> None:
        self._compiled = compiled
        self._given: list[NDArray[np.float32]] = []  # ncnn looks at their memory and keeps no hold of it

    def __enter__(self) -> Self:
        self._memory = _MEMORY.take()
        self._extractor = self._compiled.net.create_extractor()
        self._extractor.set_blob_allocator(self._memory)
        self._extractor.set_workspace_allocator(self._memory)
        return self

    def __exit__(self, *_: object) -> None:
        del self._extractor  # first: it holds blobs in that memory
        _MEMORY.give_back(self._memory)

    def give(self, blob: Blob, values: NDArray[np.float32]) -> None:
        """Values of a blob from `take_in`, (channels, rows, columns)."""
        self._given.append(np.ascontiguousarray(values, np.float32))
        self._extractor.input(blob, ncnn.Mat(self._given[-1]))

    def find(self, blob: Blob) -> NDArray[np.float32]:
        """Calculate one of the wanted blobs, (channels, rows, columns)."""
        failed, values = self._extractor.extract(self._compiled.wanted[blob])
        if failed:
            raise RuntimeError(f"ncnn could not calculate {blob} ({failed})")
        return np.array(values)


@dataclass(frozen=True, eq=False)
class Compiled:
    """What ncnn made of a graph; may run in many threads at once."""

    net: ncnn.Net
    wanted: dict[Blob, Blob]  # each wanted blob and the copy of it that is ours


def compile_graph(graph: Graph, wanted: Sequence[Blob], threads: int) -> Compiled:
    """Have ncnn prepare the graph.

    Args:
        graph: Each blob in it is used or wanted.
        wanted: What will be asked for, each once.
        threads: That one calculation uses; ncnn prepares its convolutions for that number.

    Raises:
        OSError: The temporary folder cannot be written.
        RuntimeError: ncnn does not take the graph.
    """
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
    net.opt.use_winograd63_convolution = False  # 36 pixels at once: faster by a fiftieth, and rounds four times as far
    text, ours = _write(graph, wanted)
    with tempfile.TemporaryDirectory(prefix="busi-ncnn-") as folder:
        parameters, weights = Path(folder) / "net.param", Path(folder) / "net.bin"
        parameters.write_text(text, encoding="ascii")
        with weights.open("wb") as file:
            file.writelines(_pack(layer.weights) for layer in graph.layers if layer.weights)
        if net.load_param(str(parameters)) or net.load_model(str(weights)):
            raise RuntimeError("ncnn does not take the network")
    return Compiled(net, ours)


def _write(graph: Graph, wanted: Sequence[Blob]) -> tuple[str, dict[Blob, Blob]]:
    """The graph in ncnn's text format, in which a blob has one reader: one that is read more often is split."""
    readers = Counter(blob for layer in graph.layers for blob in layer.inputs) + Counter(wanted)
    copies = {blob: iter([f"{blob}.{n}" for n in range(count)]) for blob, count in readers.items() if count > 1}
    lines, blobs = [], 0

    def read(blob: Blob) -> Blob:
        return next(copies[blob]) if blob in copies else blob

    for place, layer in enumerate(graph.layers):
        inputs = [read(blob) for blob in layer.inputs]
        parameters = [f"{number}={value}" for number, value in layer.parameters.items()]
        lines.append(" ".join([layer.kind, f"layer{place}", str(len(inputs)), "1", *inputs, layer.output, *parameters]))
        blobs += 1
        count = readers[layer.output]
        if count > 1:
            names = [f"{layer.output}.{n}" for n in range(count)]
            lines.append(" ".join(["Split", f"split{place}", "1", str(count), layer.output, *names]))
            blobs += count
    ours = {blob: read(blob) for blob in wanted}
    return "\n".join([str(_FORMAT), f"{len(lines)} {blobs}", *lines, ""]), ours


def _window(weight: Tensor, bias: Tensor | None, *, outputs: int, stride: int, margin: Margin) -> dict[int, int]:
    rows, columns = weight.shape[2:]
    left, right, top, bottom = margin
    window = {1: columns, 11: rows, 3: stride, 13: stride, 4: left, 15: right, 14: top, 16: bottom}
    return {0: outputs, **window, 5: int(bias is not None), 6: weight.numel()}


def _pack(weights: tuple[Tensor, ...]) -> bytes:
    return _FLOAT32 + b"".join(tensor.detach().float().contiguous().numpy().tobytes() for tensor in weights)
