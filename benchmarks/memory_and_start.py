"""What a process that reads scans holds in memory, and how soon it reads the first, against plain torch with grad-cam.

    uv run python -m benchmarks.memory_and_start [--rounds 5]

Each round starts two processes in turn, which read the same 50 simulated scans:
    ours     busi_core: load the version in service, decode, read with four heat maps
    plain    the same network by torch and smp, decoding by Pillow, one heat map by the grad-cam package a scan
Times count from the start of the process; medians of the rounds. Goals: under 1,000 MB, flat from the first scan to the
fiftieth. What a whole server holds, and the browser sees, is in in_browser.py.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCANS = 50
MAX_MB = 1000
FIGURES = ("loaded after, s", "first scan after, s", "MB loaded", "MB after 1", f"MB after {SCANS}", "MB at most")


def main() -> None:
    options = read_options()
    if options.child:
        print(json.dumps(measure_child(options.child, options.folder, options.started)))
        return
    found: dict[str, list[list[float]]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        write_scans(Path(folder))
        for _ in range(options.rounds):
            for kind, rows in found.items():
                rows.append(run_child(kind, folder))
    print_table(found)


def print_table(found: dict[str, list[list[float]]]) -> None:
    from benchmarks.measure import table

    medians = {kind: [statistics.median(column) for column in zip(*rows, strict=True)] for kind, rows in found.items()}
    rows = [[kind, *(f"{value:.1f}" for value in values)] for kind, values in medians.items()]
    shares = [
        statistics.median(our[place] / plain[place] for our, plain in zip(found["ours"], found["plain"], strict=True))
        for place in range(len(FIGURES))
    ]
    print(table(["process", *FIGURES], [*rows, ["ours over plain", *(f"{share:.2f}" for share in shares)]]))
    print(f"\n{len(found['ours'])} rounds; goal for ours: {MAX_MB} MB at most, flat")


def write_scans(folder: Path) -> None:
    from busi_core import Diagnosis, simulate_scan

    for number in range(SCANS):
        diagnosis = list(Diagnosis)[number % len(Diagnosis)]
        (folder / f"{number:02d}.png").write_bytes(simulate_scan(diagnosis, seed=number).png())


def run_child(kind: str, folder: str) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.memory_and_start", "--child", kind, "--folder", folder]
    done = subprocess.run([*command, "--started", repr(time.time())], stdout=subprocess.PIPE, check=True)
    return list(json.loads(done.stdout))


def measure_child(kind: str, folder: Path, started: float) -> list[float]:
    """In the order of `FIGURES`."""
    read = {"ours": load_ours, "plain": load_plain}[kind]()
    loaded_s, loaded = time.time() - started, resident_mb()
    files = sorted(folder.iterdir())
    read(files[0].read_bytes())
    first_s, first = time.time() - started, resident_mb()
    for file in files[1:]:
        read(file.read_bytes())
    return [loaded_s, first_s, loaded, first, resident_mb(), peak_mb()]


def load_ours() -> Callable[[bytes], object]:
    from busi_core import Serving, choose_device, read_settings

    return Serving(read_settings().weights_dir, choose_device("cpu")).current().analyse


def load_plain() -> Callable[[bytes], object]:
    import numpy as np
    import torch
    from PIL import Image
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from busi_core.explain.layers import CLASS_HEAD, Watched, list_layers
    from busi_core.models.checkpoint import load_version
    from busi_core.registry import read_registry
    from busi_core.settings import read_settings

    weights = read_settings().weights_dir
    network, card = load_version(weights / read_registry(weights).in_service, torch.device("cpu"))
    side, channels = card.preprocess.side, card.preprocess.channels
    deepest = list_layers(network, torch.zeros(1, channels, side, side))[0]
    watched = Watched(network.requires_grad_(True), CLASS_HEAD)
    watched.requires_grad_(True)
    cam: Any = GradCAM(watched, [watched.place(deepest)])

    def read(data: bytes) -> object:
        grey = np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((side, side)), np.float32) / 255
        images = torch.from_numpy(grey)[None, None].repeat(1, channels, 1, 1) * 2 - 1
        with torch.no_grad():
            outputs = watched.network(images)
        return outputs, cam(images, [ClassifierOutputTarget(int(outputs.class_logits[0].argmax()))])

    return read


def resident_mb() -> float:
    from benchmarks.measure import resident_mb

    return resident_mb()


def peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how many (default 5)")
    for name, kind in (("--child", str), ("--folder", Path), ("--started", float)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
