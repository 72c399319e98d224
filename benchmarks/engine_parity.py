"""Does a faster engine say what torch says? Every real scan through the front door on both, and the memory of each.

    uv run --with openvino python -m benchmarks.engine_parity [--every 1] [--precision bf16]
    uv run python -m benchmarks.engine_parity --engine as-written
    uv run python -m benchmarks.engine_parity --engine bf16-decoder

'openvino' is the product's network with its heat maps as one graph (reading_graph.py), converted without a file and
without openvino's own `convert_model`, which reports its use over the network; 'bf16-decoder' the network with its
decoder in bf16, in torch. These two and what they are held to read without second opinions. 'as-written' holds the
network rearranged for reading, which is what the request path uses, to the network itself.

Aims: mask IoU .995 in the mean and .98 at the worst, the same class on every scan, correlation of every heat map .999.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import describe_machine, resident_mb
from benchmarks.reading_graph import ReadingGraph, convert
from busi_core import Analyser, Analysis, Serving, choose_device, decode_image, read_finding, read_settings
from busi_core.data.records import Record, read_bus_bra, read_busi
from busi_core.imaging.preprocess import Box
from busi_core.models.checkpoint import load_readers
from busi_core.models.network import Network, Outputs
from busi_core.models.reading import ReadingNet, arrange_for_reading
from busi_core.service import _Raw

MIN_MEAN_IOU, MIN_IOU, MIN_CORRELATION = 0.995, 0.98, 0.999


def main() -> None:
    options = read_options()
    settings = read_settings()
    before = resident_mb()
    analyser = Serving(settings.weights_dir, choose_device("cpu")).current()
    with_torch = resident_mb()
    kind = f" in {options.precision}" if options.engine == "openvino" else ""
    if options.engine == "as-written":
        engine: Analyser = AsWritten(analyser)
    else:
        analyser = Alone(analyser)
        engine = OpenVino(analyser, options.precision) if kind else Bf16Decoder(analyser)
    print(f"{analyser.card.version} against {options.engine}{kind}, {describe_machine(torch.device('cpu'))}")
    records = [*read_busi(settings.data_root / "busi"), *read_bus_bra(settings.data_root / "bus-bra")]
    records = records[:: options.every]
    found = list(compare(analyser, engine, records))
    print(
        f"memory: {before:.0f} MB at first, {with_torch:.0f} MB with the network in torch, "
        f"{resident_mb():.0f} MB with both"
    )
    report(found)


@dataclass(frozen=True)
class Parity:
    """How far two readings of one scan are apart."""

    scan: str
    iou: float
    same_class: bool
    score_apart: float
    correlations: dict[str, float]
    lesion_pixels: int
    seconds: tuple[float, float]


class AsWritten(Analyser):
    """The product's analyser on the network as it was trained, not rearranged."""

    def __init__(self, analyser: Analyser) -> None:
        cpu, folder = torch.device("cpu"), read_settings().weights_dir / analyser.card.version
        others = tuple(load_readers(folder, analyser.card, cpu))
        super().__init__(analyser._network, analyser.card, cpu, others=others)
        self._reader, self._readers = analyser._network, (analyser._network, *others)


class Alone(Analyser):
    """The product's analyser without its second opinions: one network, as the engine holds one."""

    def __init__(self, analyser: Analyser) -> None:
        super().__init__(analyser._network, replace(analyser.card, second_opinion=None), torch.device("cpu"))


class OpenVino(Alone):
    """The same with the engine in the place of torch, and nothing else changed."""

    def __init__(self, analyser: Analyser, precision: str) -> None:
        super().__init__(analyser)
        graph = ReadingGraph(analyser._network, analyser.card.lesion_threshold)
        side = analyser.card.preprocess.side
        self._compiled = convert(graph, torch.zeros(1, analyser.card.preprocess.channels, side, side), precision)

    def _explain(self, network: Network, tensor: Tensor, box: Box, with_mask_map: bool) -> _Raw:
        del network, box  # the engine holds its own
        request = self._compiled.create_infer_request()
        request.infer([tensor.contiguous().numpy()])
        parts = [torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in range(5)]
        mask_logits, class_logits, features, class_maps, lesion_map = parts
        outputs = Outputs(mask_logits, class_logits, features)
        return _Raw(outputs, list(class_maps), lesion_map if with_mask_map else None, None)


class Bf16Decoder(Alone):
    """The same with the decoder's blocks in bf16; encoder, both heads and the maps of the classes in f32."""

    def __init__(self, analyser: Analyser) -> None:
        super().__init__(analyser)
        self._reader = Bf16Blocks(cast(ReadingNet, arrange_for_reading(analyser._network)))
        self._readers, self._on_cpu = (self._reader,), {0: self._reader}


class Bf16Blocks(Network):
    """A `ReadingNet` whose decoder blocks calculate in bf16."""

    def __init__(self, network: ReadingNet) -> None:
        super().__init__()
        self.network = network
        self.blocks = copy.deepcopy(network.blocks).to(torch.bfloat16)

    def encode(self, images: Tensor) -> list[Tensor]:
        return self.network.encode(images)

    def decode(self, features: Sequence[Tensor]) -> Outputs:
        current, *skips = (level.to(torch.bfloat16) for level in reversed(features[1:]))
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            current = block(current, skip)
        mask_logits = self.network.mask_head(current.float())
        return Outputs(mask_logits, self.classify(features[-1], mask_logits), features[-1])

    def classify(self, deepest: Tensor, mask_logits: Tensor) -> Tensor | None:
        return self.network.classify(deepest, mask_logits)


def compare(one: Analyser, other: Analyser, records: list[Record]) -> Iterator[Parity]:
    start = time.monotonic()
    for number, record in enumerate(records, start=1):
        image = decode_image(record.image.read_bytes())
        began = time.perf_counter()
        a = one.analyse_image(image, insist=True)
        between = time.perf_counter()
        b = other.analyse_image(image, insist=True)
        yield measure(record.id, a, b, (between - began, time.perf_counter() - between))
        if number % 100 == 0:
            print(f"{number} of {len(records)}, {time.monotonic() - start:.0f} s", flush=True)


def measure(scan: str, a: Analysis, b: Analysis, seconds: tuple[float, float]) -> Parity:
    mask, other = read_finding(a).lesion_mask, read_finding(b).lesion_mask
    union = int((mask | other).sum())
    apart = max(abs(a.prediction.probabilities[d] - b.prediction.probabilities[d]) for d in a.prediction.probabilities)
    return Parity(
        scan,
        float((mask & other).sum() / union) if union else 1.0,
        a.prediction.diagnosis == b.prediction.diagnosis,
        apart,
        {of: correlation(heat.evidence, b.heatmaps[of].evidence) for of, heat in a.heatmaps.items()},
        int(mask.sum()),
        seconds,
    )


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; 1 where both maps are empty, 0 where one of them is."""
    if one.std() == 0 or other.std() == 0:
        return float(np.array_equal(one, other))
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def report(found: list[Parity]) -> None:
    ious = np.array([one.iou for one in found])
    others = [one for one in found if not one.same_class]
    print(f"{len(found)} scans")
    print(f"mask IoU: mean {ious.mean():.5f} (aim {MIN_MEAN_IOU}), worst {ious.min():.4f} (aim {MIN_IOU}), ", end="")
    print(f"below the aim {(ious < MIN_IOU).sum()}")
    print(f"another class: {len(others)} (aim 0): {', '.join(one.scan for one in others[:20])}")
    print(f"score apart: at most {max(one.score_apart for one in found):.5f}")
    for of in found[0].correlations:
        values = np.array([one.correlations[of] for one in found])
        print(
            f"heat map of {of}: correlation mean {values.mean():.5f}, median {np.median(values):.5f}, "
            f"worst {values.min():.4f}, below {MIN_CORRELATION}: {(values < MIN_CORRELATION).sum()}"
        )
    torch_ms, other_ms = (1000 * statistics.median(one.seconds[side] for one in found) for side in (0, 1))
    print(f"an analysis with four heat maps: {torch_ms:.1f} ms and {other_ms:.1f} ms, {torch_ms / other_ms:.2f} times")
    worst = sorted(found, key=lambda one: one.iou)[:8]
    print("worst masks: " + ", ".join(f"{one.scan} {one.iou:.3f} ({one.lesion_pixels} px)" for one in worst))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take every n-th scan only")
    parser.add_argument(
        "--engine", choices=("openvino", "as-written", "bf16-decoder"), default="openvino", help="default: openvino"
    )
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16", help="default: bf16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
