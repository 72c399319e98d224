"""What one analysis costs, against the same network in plain torch with grad-cam, and against a bare forward pass.

    uv run --with openvino python -m benchmarks.one_analysis [--rounds 60]

In turn, on the same scan, so that a busy machine slows all of them; medians of all rounds, and of each round's ratio:
    ours       what a reading costs from decoded pixels: mask, class, four heat maps, restored to the scan
    graph      the same network and maps as one computation without autograd (reading_graph.py), in torch
    openvino   that graph in OpenVINO, f32 and bf16 (its default here): what an engine could give (docs/adr/0014)
    plain      the same network eagerly in fp32, no channels_last, and grad-cam once (Grad-CAM of the likeliest class)
    bare       one forward pass, nothing else: in torch, and in OpenVINO f32 and bf16; the fastest of them counts
Decoding the file and writing mask and heat map as PNG are timed apart. Aims: 6 times faster than plain; 1.3 times the
fastest bare pass or less.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.reading_graph import ReadingGraph, convert
from busi_core import (
    Analyser,
    Diagnosis,
    Serving,
    choose_device,
    decode_image,
    read_finding,
    read_settings,
    simulate_scan,
)
from busi_core.explain.catalogue import DEEPEST
from busi_core.explain.layers import CLASS_HEAD, Watched
from busi_core.imaging.overlay import draw_heatmap, encode_png, mask_png
from busi_core.imaging.preprocess import prepare, upsample

WARM_UP = 5
MIN_TIMES_PLAIN, MAX_TIMES_BARE = 6.0, 1.3

Step = Callable[[], object]


def main() -> None:
    options = read_options()
    settings = read_settings()
    analyser = Serving(settings.weights_dir, choose_device("cpu")).current()
    data = simulate_scan(Diagnosis.MALIGNANT, seed=1).png()
    steps = make_steps(analyser, data, with_openvino=not options.without_openvino)
    print(f"{analyser.card.version}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM_UP + options.rounds):
        for name, step in steps.items():
            seconds = timed(step)
            if number >= WARM_UP:
                times[name].append(seconds)
    report(times)


def make_steps(analyser: Analyser, data: bytes, *, with_openvino: bool) -> dict[str, Step]:
    image = decode_image(data)
    card, network = analyser.card, analyser._network
    tensor, _ = prepare(image.grey, card.preprocess)
    fast = analyser._to_device(tensor)
    graph = ReadingGraph(network, card.lesion_threshold).eval()
    analysis = analyser.analyse_image(image)
    steps: dict[str, Step] = {
        "ours": lambda: analyser.analyse_image(image),
        "graph in torch": without_gradient(graph, fast),
        "plain torch and grad-cam": plain_torch(analyser, tensor),
        "bare in torch": without_gradient(network, fast),
        "decode": lambda: decode_image(data),
        "write PNG": lambda: write_pictures(analysis),
    }
    if with_openvino:
        for precision in ("f32", "bf16"):
            for name, module in (("graph", graph), ("bare", Heads(network))):
                steps[f"{name} in OpenVINO {precision}"] = in_openvino(module, tensor, precision)
    return steps


class Heads(nn.Module):
    """The forward pass as a tuple, which the converter can trace."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(images)
        return outputs.mask_logits, outputs.class_logits


def without_gradient(module: nn.Module, images: Tensor) -> Step:
    def run() -> object:
        with torch.no_grad():
            return module(images)

    return run


def in_openvino(module: nn.Module, images: Tensor, precision: str) -> Step:
    request = convert(module, images, precision).create_infer_request()
    pixels = images.contiguous().numpy()
    return lambda: request.infer([pixels])


def plain_torch(analyser: Analyser, images: Tensor) -> Step:
    """As a notebook does it: an eager network in fp32, and the package's Grad-CAM of the likeliest class."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    copy = analyser._copy_to_cpu().to(memory_format=torch.contiguous_format).requires_grad_(True)
    watched = Watched(copy, CLASS_HEAD)
    watched.requires_grad_(True)
    deepest = next(layer for layer in analyser.layers() if layer.name == DEEPEST)
    cam: Any = GradCAM(watched, [watched.place(deepest)])

    def run() -> object:
        with torch.no_grad():
            outputs = watched.network(images)
        return outputs, cam(images, [ClassifierOutputTarget(int(outputs.class_logits[0].argmax()))])

    return run


def write_pictures(analysis: Any) -> object:
    image, heat = analysis.image, analysis.heatmaps[str(analysis.prediction.diagnosis)]
    picture = draw_heatmap(image.rgb, upsample(heat.evidence, image.height, image.width))
    return mask_png(read_finding(analysis).lesion_mask), encode_png(picture)


def report(times: dict[str, list[float]]) -> None:
    bare = {name: statistics.median(found) for name, found in times.items() if name.startswith("bare")}
    fastest = min(bare, key=bare.__getitem__)
    print("| step | ms, median | plain over it | it over the fastest bare pass |\n|---|---|---|---|")
    for name, found in times.items():
        plain = statistics.median(p / t for p, t in zip(times["plain torch and grad-cam"], found, strict=True))
        over = statistics.median(t / b for b, t in zip(times[fastest], found, strict=True))
        print(f"| {name} | {1000 * statistics.median(found):.1f} | {plain:.2f} | {over:.2f} |")
    print(f"fastest bare pass: {fastest}; aims for ours: {MIN_TIMES_PLAIN} and {MAX_TIMES_BARE}")


def timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="how many (default 60)")
    parser.add_argument("--without-openvino", action="store_true", help="torch alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
