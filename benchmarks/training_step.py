"""What a training step costs here, against a plain loop, and where the time goes by layer.

    uv run python -m benchmarks.training_step [--rounds 7] [--device auto]

In turn, on the same scans, the same network, loss and augmentation:
    plain      fp32, no channels_last, each image and mask decoded from the disk and resized for each step, plain AdamW
    ours       the loop of busi_core.training: samples in memory, channels_last, fused AdamW, moving average; in fp32
               and, on a device that calculates in it, in bf16
Medians of each round's ratio. Reads BUSI where it is, or simulated scans written into a temporary folder.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmarks.measure import Step, describe_machine, ratio, table, time_in_turn
from busi_core import Diagnosis, choose_device, decode_image, read_settings
from busi_core.data.dataset import load_samples
from busi_core.data.records import Record, read_busi, read_truth
from busi_core.data.simulated_set import split_simulated
from busi_core.imaging.preprocess import fit_mask, normalise, prepare_square, to_planes
from busi_core.models.network import LesionNet, Network, build_network
from busi_core.recipes.product import PRODUCT
from busi_core.training import loop
from busi_core.training.augment import augment
from busi_core.training.config import TrainingConfig
from busi_core.training.distributed import current_group
from busi_core.training.losses import CLASS_LOSSES, MASK_LOSSES, balanced_weights
from busi_core.training.paste import Pasting
from busi_core.training.step import TrainStep, computes_in_bf16

GOAL = 2.5
WARM_UP = 1


def main() -> None:
    options = read_options()
    device = choose_device(options.device)
    config = replace(PRODUCT, batch_size=options.batch)
    with tempfile.TemporaryDirectory() as folder:
        records = find_records(Path(folder), config.batch_size)
        steps = {"plain: fp32, from the disk": plain_step(records, config, device)}
        for precision in precisions(device):
            steps[f"ours: {precision}, from memory"] = our_step(records, replace(config, precision=precision), device)
        times = time_in_turn(steps, rounds=options.rounds, warm_up=WARM_UP, device=device, seconds=options.seconds)
        rounds = len(next(iter(times.values())))
        print(f"{describe_machine(device)}, batch {config.batch_size}, {rounds} rounds\n")
        report(times, config.batch_size)
        report_layers(records, replace(config, precision=precisions(device)[-1]), device)


def precisions(device: torch.device) -> list[str]:
    return ["fp32", "bf16"] if computes_in_bf16(device) else ["fp32"]


def find_records(folder: Path, count: int) -> Sequence[Record]:
    """As many scans as a batch holds, of all classes."""
    busi = read_settings().data_root / "busi"
    records = read_busi(busi) if busi.is_dir() else split_simulated(folder / "simulated", test_fold=0).train
    return records[:: max(1, len(records) // count)][:count]


def plain_step(records: Sequence[Record], config: TrainingConfig, device: torch.device) -> Step:
    """As a first notebook does it."""
    network = build_network(config.architecture).to(device).train()
    for block in network.decoder.blocks:
        block.rearranges = False  # as smp's decoder does it
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    labels = torch.tensor([list(Diagnosis).index(record.diagnosis) for record in records])
    weights = balanced_weights(labels, len(Diagnosis)).to(device)

    def run() -> float:
        planes, truths = (torch.stack(part) for part in zip(*(read_pair(r, config) for r in records), strict=True))
        pixels, masks = augment(planes, truths, torch.arange(len(records)), device)
        outputs = network(normalise(pixels, config.preprocess).contiguous())
        loss = MASK_LOSSES[config.mask_loss](outputs.mask_logits, masks)
        class_loss = CLASS_LOSSES[config.class_loss](outputs.class_logits, labels.to(device), weights)
        optimizer.zero_grad()
        (loss + config.class_weight * class_loss).backward()
        optimizer.step()
        return float(loss.detach())

    return run


def read_pair(record: Record, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    image = decode_image(record.image.read_bytes())
    truth = read_truth(record, image.height, image.width)
    pixels = prepare_square(image.grey, config.preprocess)
    return to_planes(pixels), to_planes(fit_mask(truth, config.preprocess))


def our_step(records: Sequence[Record], config: TrainingConfig, device: torch.device) -> Step:
    """The body of `training.loop.fit` for one batch."""
    network, samples = fresh(config, device), load_samples(records, config.preprocess)
    average = AveragedModel(network, multi_avg_fn=loop._moving_average(config.average_decay), use_buffers=True)
    optimizer = loop._make_optimizer(network, config)
    weights = balanced_weights(samples.labels, len(Diagnosis)).to(device)
    step = TrainStep(network, optimizer, weights, config)
    indices, pasting = torch.arange(len(samples)), Pasting(samples, config.pasted_share)

    def run() -> float:
        batch = loop.make_batch(pasting, indices, weights, current_group(), config, device)
        loss = float(step(batch))
        average.update_parameters(network)
        return loss

    return run


def fresh(config: TrainingConfig, device: torch.device) -> Network:
    network = build_network(config.architecture).to(device, memory_format=torch.channels_last)
    return network.train()


def report(times: dict[str, list[float]], batch: int) -> None:
    plain, rows = next(iter(times)), []
    for name, found in times.items():
        seconds = statistics.median(found)
        figures = (f"{1000 * seconds / batch:.1f}", f"{batch / seconds:.2f}", f"{ratio(times[plain], found):.2f}")
        rows.append([name, *figures])
    print(table(["loop", "ms an image", "images a second", "of the plain loop's speed"], rows))
    print(f"\ngoal: {GOAL} or more\n")


# ---- Where the time goes ---------------------------------------------------------------------------------------


class Clock:
    """Adds up the seconds between two marks under a name; waits for a GPU at each."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._started: dict[str, float] = {}
        self._device = device

    def start(self, name: str) -> None:
        self._started[name] = self._now()

    def stop(self, name: str) -> None:
        self.seconds.setdefault(name, []).append(self._now() - self._started[name])

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def report_layers(records: Sequence[Record], config: TrainingConfig, device: torch.device, *, rounds: int = 5) -> None:
    """Forward and backward pass of each part of the network, and what surrounds them; medians, share of the step."""
    network, samples = fresh(config, device), load_samples(records, config.preprocess)
    optimizer = loop._make_optimizer(network, config)
    weights = balanced_weights(samples.labels, len(Diagnosis)).to(device)
    step = TrainStep(network, optimizer, weights, config, may_record=False)
    clock, pasting = Clock(device), Pasting(samples, config.pasted_share)
    for name, part in parts(network):
        watch(part, name, clock)
    for _ in range(1 + rounds):
        clock.start("whole step")
        clock.start("augmentation")
        batch = loop.make_batch(pasting, torch.arange(len(samples)), weights, current_group(), config, device)
        clock.stop("augmentation")
        step(batch)
        clock.stop("whole step")
    medians = {name: statistics.median(found[1:]) for name, found in clock.seconds.items()}
    whole = medians.pop("whole step")
    medians["losses, clipping, optimizer, the rest"] = whole - sum(medians.values())
    print(f"Where a step's {whole:.2f} s go ({config.precision}):\n")
    rows = [[name, f"{1000 * seconds:.0f}", f"{seconds / whole:.1%}"] for name, seconds in medians.items()]
    print(table(["part", "ms", "share"], sorted(rows, key=lambda row: -float(row[1]))))


def parts(network: Network) -> list[tuple[str, nn.Module]]:
    """The encoder, each block of the decoder, the heads."""
    if not isinstance(network, LesionNet):
        return list(network.named_children())
    blocks = [(f"decoder block {number}", block) for number, block in enumerate(network.decoder.blocks, start=1)]
    return [*encoder_parts(network.encoder), *blocks, ("mask head", network.mask_head)]


def encoder_parts(encoder: Any) -> list[tuple[str, nn.Module]]:
    """Its stages where it lists them (timm's 'blocks'), else its children."""
    inner = getattr(encoder, "model", encoder)
    stages = getattr(inner, "blocks", None)
    if stages is None:
        return [(f"encoder {name}", child) for name, child in inner.named_children()]
    return [(f"encoder stage {number}", stage) for number, stage in enumerate(stages, start=1)]


def watch(part: nn.Module, name: str, clock: Clock) -> None:
    forward, backward = f"{name}, forward", f"{name}, backward"
    part.register_forward_pre_hook(lambda *_: clock.start(forward))
    part.register_forward_hook(after(lambda: clock.stop(forward)))
    part.register_full_backward_pre_hook(after(lambda: clock.start(backward)))
    part.register_full_backward_hook(after(lambda: clock.stop(backward)))


def after(mark: Callable[[], None]) -> Callable[..., None]:
    return lambda *_: mark()


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how many (default 7)")
    parser.add_argument("--batch", type=int, default=16, help="images a step (default 16)")
    parser.add_argument("--seconds", type=float, default=600, help="begin no further round after so many (default 600)")
    parser.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu or cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()
