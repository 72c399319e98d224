"""Many scans at a time: results in order, a few scans under way, each with its share of the cores."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from busi_core.service import Analyser

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(read: Callable[[Item], Result], items: Iterable[Item], *, jobs: int) -> Generator[Result, None, None]:
    """Apply a function to items in threads; results in order.

    At most `2 * jobs` items are under way, however many there are. Closing the iterator stops after those.

    Whole scans side by side, since a pass through the network leaves a core idle between its layers; measured in
    docs/benchmarks.md, weighed in docs/adr/0007.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    source = iter(items)
    under_way: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="batch")
    try:
        while True:
            room = 2 * jobs - len(under_way)
            under_way.extend(pool.submit(read, item) for item in itertools.islice(source, room))
            if not under_way:
                break
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def share_cores(results: Generator[Result, None, None], analyser: Analyser, jobs: int) -> Generator[Result, None, None]:
    """While these come, each scan gets its share of the cores: side by side they are read faster than one after the
    other on all of them, by a fifth on two cores (docs/benchmarks.md). For a process that does nothing else.

    Args:
        results: Of `map_in_order`.
        analyser: That reads.
        jobs: Scans read side by side.
    """
    before = torch.get_num_threads()
    try:
        if analyser.device.type == "cpu":
            torch.set_num_threads(max(1, before // max(1, jobs)))
        yield from results
    finally:
        torch.set_num_threads(before)
