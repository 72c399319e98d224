"""How fast many scans are read, against a loop over the bare forward pass, in one run; and whether memory grows.

    uv run python -m benchmarks.folder_throughput [--scans 633] [--block 60] [--jobs 2] [--whole]

Peers, in turn, block by block, on the same scans, so that a busy machine slows all of them:
    bare     the network alone on prepared tensors, one scan at a time, no gradient: rearranged for reading, which is
             the fastest form here, and as it is written; and with the passes of a second opinion where one is asked for
    zip      one zip in memory -> decode -> network -> heat maps -> masks, figures, thumbnails: the Batch page's path
    folder   `busi analyse`: the same, and three files a scan written to a disk

Printed: scans a second, and each block's speed over that of the bare loops; the median of the blocks counts.
"""

import argparse
import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import torch

from benchmarks.measure import describe_machine, ratio, resident_mb, table
from busi_core import Analyser, Serving, choose_device, decode_image, read_settings
from busi_core.data.records import Record, read_busi
from busi_core.folder import Plan, analyse_plan
from busi_core.imaging.preprocess import prepare
from pages.components.batch_queue import CHUNK_SECONDS, BatchQueue

WARM_UP = 8
GOAL = 0.8
ASKING = "bare, with second opinions"


def main() -> None:
    options = read_options()
    settings = read_settings()
    analyser = Serving(settings.weights_dir, choose_device(settings.device)).current()
    records = read_busi(settings.data_root / "busi")[: options.scans]
    blocks = [records[start : start + options.block] for start in range(0, len(records), options.block)]
    print(f"{analyser.card.version}, {len(records)} scans, {torch.get_num_threads()} threads, {options.jobs} jobs")
    run_bare(analyser, analyser._reader, records[:WARM_UP])
    run_zip(analyser, records[:WARM_UP])
    asks = [bool(analyser.analyse_for_batch(decode_image(r.image.read_bytes())).opinions) for r in records]
    asking = {record.id for record, asked in zip(records, asks, strict=True) if asked}
    print(f"{len(asking)} ask for a second opinion")
    speeds: dict[str, list[float]] = {"bare": [], "as written": [], ASKING: [], "zip": [], "folder": []}
    memory = [resident_mb()]
    for number, block in enumerate(blocks, start=1):
        before = run_bare(analyser, analyser._reader, block)
        written = run_bare(analyser, analyser._network, block)
        more = run_bare(analyser, analyser._reader, block, asking)
        seconds = {ASKING: more, "zip": run_zip(analyser, block), "folder": run_folder(analyser, block, options.jobs)}
        after = run_bare(analyser, analyser._reader, block)  # on both sides, since a machine is seldom quiet for long
        for name, found in {"bare": (before + after) / 2, "as written": written, **seconds}.items():
            speeds[name].append(len(block) / found)
        memory.append(resident_mb())
        line = ", ".join(f"{name} {found[-1]:.1f}/s" for name, found in speeds.items())
        print(f"block {number}/{len(blocks)}: {line}, {memory[-1]:.0f} MB", flush=True)
    report(speeds)
    print(f"memory: {memory[0]:.0f} MB before, {max(memory):.0f} MB at most, {memory[-1]:.0f} MB after")
    if options.whole:
        read_in_one(analyser, records)


def report(speeds: dict[str, list[float]]) -> None:
    rows = []
    for name, found in speeds.items():
        shares = [ratio(found, speeds[peer]) for peer in ("bare", ASKING, "as written")]
        each = [one / bare for one, bare in zip(found, speeds["bare"], strict=True)]
        figures = (f"{statistics.median(found):.1f}", *(f"{share:.2f}" for share in shares))
        rows.append([name, *figures, f"{min(each):.2f} to {max(each):.2f}"])
    peers = ["of the bare loop's speed", "of that with second opinions", "of the loop as written"]
    head = ["path", "scans a second", *peers, "range over bare"]
    print(
        f"\n{describe_machine(torch.device('cpu'))}\n\n{table(head, rows)}\n\ngoal: {GOAL} of the bare loop or better\n"
    )


def read_in_one(analyser: Analyser, records: Sequence[Record]) -> None:
    """All scans as one zip through the page's queue, and the memory on the way."""
    data = make_zip(records)
    before, queue = resident_mb(), BatchQueue()
    start = time.perf_counter()
    queue.add_uploads([("busi.zip", data)])
    seen = []
    while queue.running:
        queue.advance(analyser, seconds=CHUNK_SECONDS, on_row=lambda: None)
        seen.append(resident_mb())
    seconds = time.perf_counter() - start
    read = sum(row.reading is not None for row in queue.rows)
    half = seen[len(seen) // 2]
    print(f"one zip of {len(data) / 1e6:.0f} MB: {read} read in {seconds:.0f} s, {read / seconds:.1f}/s")
    print(f"memory: {before:.0f} MB before, {half:.0f} MB half way, {seen[-1]:.0f} MB at the end")


def run_bare(
    analyser: Analyser, network: torch.nn.Module, records: Sequence[Record], asking: Container[str] = ()
) -> float:
    """Seconds of the forward passes alone; of all the version's networks for the scans that are named."""
    tensors = [prepare(decode_image(r.image.read_bytes()).grey, analyser.card.preprocess)[0] for r in records]
    tensors = [analyser._to_device(tensor) for tensor in tensors]
    readers = [[network, *analyser._readers[1:]] if record.id in asking else [network] for record in records]
    return timed(lambda: [forward(one, on) for each, on in zip(readers, tensors, strict=True) for one in each])


def forward(network: torch.nn.Module, tensor: torch.Tensor) -> None:
    with torch.no_grad():
        outputs = network(tensor)
    outputs.class_logits.tolist()  # waits for a GPU


def run_zip(analyser: Analyser, records: Sequence[Record]) -> float:
    """Seconds from a zip in memory to all rows."""
    data, queue = make_zip(records), BatchQueue()

    def read() -> None:
        queue.add_uploads([("block.zip", data)])
        while queue.running:
            queue.advance(analyser, seconds=CHUNK_SECONDS, on_row=lambda: None)

    seconds = timed(read)
    if sum(row.reading is not None for row in queue.rows) != len(records):
        raise RuntimeError("not every scan was read")
    return seconds


def run_folder(analyser: Analyser, records: Sequence[Record], jobs: int) -> float:
    """Seconds of `busi analyse` into a fresh folder."""
    with tempfile.TemporaryDirectory() as out:
        plan = Plan(tuple((record.image, Path(out) / record.name) for record in records), Path(out))
        return timed(lambda: list(analyse_plan(analyser, plan, jobs=jobs)))


def make_zip(records: Sequence[Record]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for record in records:
            for path in (record.image, *record.masks):
                archive.write(path, f"{record.diagnosis}/{path.name}")
    return buffer.getvalue()


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=633, help="how many (default: all)")
    parser.add_argument("--block", type=int, default=60, help="scans a block (default 60)")
    parser.add_argument("--jobs", type=int, default=2, help="scans side by side, for the folder (default 2)")
    parser.add_argument("--whole", action="store_true", help="also read all as one zip and watch the memory")
    return parser.parse_args()


if __name__ == "__main__":
    main()
