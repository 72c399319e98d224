"""What the benchmarks share: time in turn, medians of each round's ratio, a markdown table, the machine in words."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

Step = Callable[[], object]


def time_in_turn(
    steps: Mapping[str, Step], *, rounds: int, warm_up: int, device: torch.device, seconds: float = math.inf
) -> dict[str, list[float]]:
    """Run every step once a round, so that a busy machine slows all of them; seconds of each, warm-up left out.

    No round is begun after so many `seconds`, once there are three.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    started = time.perf_counter()
    for number in range(warm_up + rounds):
        if number >= warm_up + 3 and time.perf_counter() - started > seconds:
            break
        for name, step in steps.items():
            found = timed(step, device)
            if number >= warm_up:
                times[name].append(found)
    return times


def timed(step: Step, device: torch.device) -> float:
    """Seconds until the step's work is done, a GPU's too."""
    wait_for(device)
    start = time.perf_counter()
    step()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the rounds of one step's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_machine(device: torch.device) -> str:
    """Device, threads, load of others, and torch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    load = os.getloadavg()[0]
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{torch.get_num_threads()} threads, {kind}, load average {load:.1f}, torch {torch.__version__}"


def matrix_rate(device: torch.device, kind: torch.dtype, *, side: int) -> float:
    """Operations a second of a large matrix product: the median of seven."""
    one = torch.randn(side, side, device=device).to(kind)
    seconds = [timed(lambda: one @ one, device) for _ in range(9)][2:]
    return 2 * side**3 / statistics.median(seconds)


def resident_mb() -> float:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
