"""What one analysis costs, against the same network in plain torch with grad-cam, and against bare forward passes.

    uv run --with openvino python -m benchmarks.one_analysis [--rounds 60] [--device auto]

In turn, on the same scan, so that a busy machine slows all of them; medians of all rounds, and of each round's ratio:
    analysis   from decoded pixels: mask, class, three heat maps, restored to the scan; with the mask's heat map; and
               as a web server asks for it, in a new thread each time; and where a second opinion is asked for, with
               the mean over scans, of which so many ask as `busi evaluate --all` counted
    plain      the same network eagerly in fp32, as written, and the grad-cam package once, for the likeliest class
    resnet18   one eager fp32 forward pass of a ResNet-18 U-Net at 256 px: the usual small network
    bare       one forward pass, nothing else: as written, rearranged for reading in torch and by ncnn, in OpenVINO; the
               fastest one counts
    graph      network and heat maps as one computation (reading_graph.py), in OpenVINO where it is installed
Decoding the file, and drawing and writing mask and heat map as PNG, are timed apart. On a GPU also: many scans at once,
and the share of the card's measured matrix rate. Needs neither OpenVINO nor the grad-cam package; without them their
rows are left out.
"""

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Step, describe_machine, matrix_rate, ratio, table, time_in_turn, timed
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
from busi_core.assessment.figures import ASKED, pool_figures, read_assessment
from busi_core.explain.catalogue import DEEPEST
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.imaging.overlay import draw_heatmap
from busi_core.imaging.preprocess import prepare_image, upsample
from busi_core.models.checkpoint import ModelCard, load_readers
from busi_core.models.ncnn_net import NcnnNet
from busi_core.models.reading import arrange_for_reading

WARM_UP = 3
ANALYSIS, WITH_MASK_MAP = "analysis: mask, class, three heat maps", "the same with the mask's heat map"
FROM_NEW_THREAD = "the same, asked by a new thread each time"
IN_DOUBT, ON_AVERAGE = "analysis with a second opinion", "analysis, mean over test scans"
PLAIN, RESNET = "plain eager fp32 and grad-cam once", "ResNet-18 U-Net at 256 px, one eager fp32 pass"
RESNET_SIDE = 256  # whatever side ours reads
MIN_PLAIN, MAX_BARE, MAX_RESNET = 6.0, 1.3, 0.6
MANY = 64  # scans at once on a GPU


def main() -> None:
    options = read_options()
    device = choose_device(options.device)
    settings = read_settings()
    analyser = Serving(settings.weights_dir, device).current()
    data = simulate_scan(Diagnosis.MALIGNANT, seed=1).png()
    steps = make_steps(analyser, data)
    times = time_in_turn(steps, rounds=options.rounds, warm_up=WARM_UP, device=device, seconds=options.seconds)
    share = share_in_doubt(settings.weights_dir, analyser.card)
    if share is not None:
        pairs = zip(times[ANALYSIS], times[IN_DOUBT], strict=True)
        times[f"{ON_AVERAGE}, {share:.1%} of which ask"] = [
            (1 - share) * sure + share * doubted for sure, doubted in pairs
        ]
    print(f"{analyser.card.version}, {describe_machine(device)}, {len(times[ANALYSIS])} rounds\n")
    report(times)
    report_rates(analyser, device)


def make_steps(analyser: Analyser, data: bytes) -> dict[str, Step]:
    image = decode_image(data)
    analyser, asking = ask(analyser, never=True), ask(analyser, never=False)
    network, reader, device = analyser._network, analyser._reader, analyser.device
    tensor, _ = prepare_image(image, analyser.card.preprocess)
    fast, analysis = analyser._to_device(tensor), analyser.analyse_image(image)
    channels = tensor.shape[1]
    resnet = smp.Unet("resnet18", encoder_weights=None, in_channels=channels).to(device).eval()
    steps: dict[str, Step] = {
        ANALYSIS: lambda: analyser.analyse_for_batch(image),
        WITH_MASK_MAP: lambda: analyser.analyse_image(image),
        FROM_NEW_THREAD: lambda: in_new_thread(lambda: analyser.analyse_image(image)),
        **({IN_DOUBT: lambda: asking.analyse_for_batch(image)} if asking.card.second_opinion else {}),
        RESNET: without_gradient(resnet, torch.zeros(1, channels, RESNET_SIDE, RESNET_SIDE, device=device)),
        "bare pass, as written": without_gradient(network, fast),
        "bare pass, rearranged, torch": without_gradient(arrange_for_reading(network), fast),
        **({"bare pass, rearranged, ncnn": without_gradient(reader, fast)} if isinstance(reader, NcnnNet) else {}),
        "decode the file": lambda: decode_image(data),
        "draw and write two PNG": lambda: write_pictures(analysis),
    }
    if find_spec("pytorch_grad_cam"):
        steps[PLAIN] = plain_torch(analyser, tensor.to(device))
    if find_spec("openvino") and device.type == "cpu":
        steps |= openvino_steps(analyser, tensor)
    return steps


def ask(analyser: Analyser, *, never: bool) -> Analyser:
    """The same version, asking for a second opinion on no scan or on every one."""
    opinion = analyser.card.second_opinion
    if opinion is None:
        return analyser
    when = (0.0, (1.0, 1.0)) if never else (1.0, opinion.lesion_between)
    card = replace(analyser.card, second_opinion=replace(opinion, class_below=when[0], lesion_between=when[1]))
    others = load_readers(read_settings().weights_dir / card.version, card, analyser.device)
    return Analyser(analyser._network, card, analyser.device, analyser.limits, others=others)


def share_in_doubt(weights_dir: Path, card: ModelCard) -> float | None:
    """Of the test scans of all test sets, by the version's assessment; None where it asks nobody."""
    share, scans = pool_figures(
        read_assessment(weights_dir / card.version, version=card.version, sha256=card.sha256), ASKED
    )
    return share if scans else None


def in_new_thread(run: Step) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def openvino_steps(analyser: Analyser, tensor: Tensor) -> dict[str, Step]:
    """In f32, and in the precision that it takes here by itself (bf16 on a processor that has it)."""
    from benchmarks.reading_graph import ReadingGraph, convert

    graph = ReadingGraph(analyser._network, analyser.card.lesion_threshold).eval()
    pixels, steps = tensor.contiguous().numpy(), {}
    for kind, module in (("bare pass", Heads(analyser._network)), ("graph, four heat maps", graph)):
        for precision in ("f32", "bf16"):
            request = convert(module, tensor, precision).create_infer_request()
            steps[f"{kind}, OpenVINO asked for {precision}"] = lambda request=request: request.infer([pixels])
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


def plain_torch(analyser: Analyser, images: Tensor) -> Step:
    """As a notebook does it: an eager network in fp32, and the package's Grad-CAM of the likeliest class."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from busi_core.explain.layers import CLASS_HEAD, Watched

    copy = (
        analyser._copy_to_cpu(analyser._network)
        .to(images.device, memory_format=torch.contiguous_format)
        .requires_grad_(True)
    )
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
    bare = [name for name in times if name.startswith("bare")]
    fastest = min(bare, key=lambda name: statistics.median(times[name]))
    rows = []
    for name, found in times.items():
        plain = f"{ratio(times[PLAIN], found):.2f}" if PLAIN in times else "n/a"
        over = (f"{ratio(found, times[peer]):.2f}" for peer in (fastest, RESNET))
        rows.append([name, f"{1000 * statistics.median(found):.1f}", plain, *over])
    print(table(["step", "ms, median", "plain over it", "it over the fastest bare pass", "it over ResNet-18"], rows))
    print(
        f"\nfastest bare pass: {fastest}; goals for the analysis: {MIN_PLAIN} or more, {MAX_BARE}, {MAX_RESNET} or less"
    )


def report_rates(analyser: Analyser, device: torch.device) -> None:
    """How near a bare pass comes to the rate of a large matrix product in the same precision."""
    spec = analyser.card.preprocess
    many = (1, MANY) if device.type == "cuda" else (1,)
    kinds = (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    rates = {kind: matrix_rate(device, kind, side=8192 if device.type == "cuda" else 1536) for kind in kinds}
    rows, arranged = [], arrange_for_reading(analyser._network)
    for count in many:
        images = analyser._to_device(torch.zeros(count, spec.channels, spec.side, spec.side))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            analyser._network(images)
        operations = counter.get_total_flops()
        for kind in kinds:
            for name, module in (("as written", analyser._network), ("rearranged", arranged)):
                with torch.autocast(device.type, kind, enabled=kind is torch.bfloat16):
                    run = without_gradient(module, images)
                    seconds = statistics.median([timed(run, device) for _ in range(15)][5:])
                share = operations / seconds / rates[kind]
                precision = str(kind).removeprefix("torch.")
                figures = (f"{1000 * seconds / count:.3f}", f"{rates[kind] / 1e12:.2f}", f"{share:.3f}")
                rows.append([f"{count}, {name}, {precision}", *figures])
    print()
    print(table(["scans at once", "ms a scan", "matrix rate, TFLOP/s", "share of it, counted as written"], rows))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="how many (default 60)")
    parser.add_argument("--seconds", type=float, default=600, help="begin no further round after so many (default 600)")
    parser.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu or cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()
