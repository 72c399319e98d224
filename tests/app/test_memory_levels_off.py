"""C4: 200 uploads and resets on Analyse, Batch and Compare, and the process is no larger at the end.

What a page holds for its session is driven directly (tray, queue, list of cases, and the readings behind them), since a
browser's noise is larger than the leak to be found. Memory is read every five rounds, once freed memory was handed
back; the median of the last 50 rounds is compared with that of the 50 in the middle. A leak of one decoded scan a round
is planted to see that it would be found.
"""

import ctypes
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
import streamlit as st
from versions import make_analyser

from busi_core import Analyser, Diagnosis, decode_image, simulate_scan
from busi_core.batch_tables import rows_csv
from busi_core.comparison import compare_scan
from busi_core.data.truth import read_reference
from busi_core.imaging.encode import mask_png
from pages.components.batch_queue import BatchQueue
from pages.components.cases import CaseList, scan_key
from pages.components.compare_viewer import ShownReading, pack_case
from pages.components.tray import Tray
from pages.components.viewer import pack_scene

ROUNDS = 200
EVERY = 5  # rounds between two looks
WINDOW = 10  # looks
HEIGHT, WIDTH = 180, 220
SCAN_MB = HEIGHT * WIDTH * 4 / 2**20  # decoded: grey and three colours
SHIFT = ROUNDS // 2 - WINDOW * EVERY // 2  # rounds between the two medians
LEAK_OF_A_SCAN_MB = 0.5 * SCAN_MB * SHIFT  # half of what a scan a round would add
Round = Callable[[int], None]

try:
    _hand_back: Callable[[int], int] | None = ctypes.CDLL("libc.so.6").malloc_trim
except (OSError, AttributeError):
    _hand_back = None


@pytest.fixture(scope="module")
def analyser() -> Analyser:
    return make_analyser()


@pytest.fixture(scope="module")
def uploads() -> list[tuple[bytes, bytes]]:
    """Scans and masks in turn, as files."""
    samples = [simulate_scan(d, seed=n, height=HEIGHT, width=WIDTH) for n, d in enumerate(list(Diagnosis) * 2)]
    return [(sample.png(), mask_png(sample.mask)) for sample in samples]


@pytest.fixture
def rounds(analyser: Analyser, uploads: list[tuple[bytes, bytes]]) -> Iterator[dict[str, Round]]:
    """For each page: one upload, all that the page makes of it, and a reset."""
    tray, queue, cases = Tray(), BatchQueue(), CaseList()

    def files(number: int) -> list[tuple[str, bytes]]:
        scan, mask = uploads[number % len(uploads)]
        return [(f"{number}.png", scan), (f"{number}_mask.png", mask)]

    def analyse(number: int) -> None:
        tray.add(files(number)[:1], simulated=False)
        assert tray.open_scan is not None
        analysis = analyser.analyse(tray.open_scan.data)
        pack_scene(
            analysis, scan_id=tray.open_scan.id, name=tray.open_scan.name, position=1, count=1, simulated=False,
            read_first=False, lesion_cutoff=analysis.lesion_threshold,
        )  # fmt: skip
        tray.clear()

    def batch(number: int) -> None:
        queue.add_uploads(files(number))
        queue.advance(analyser, seconds=60, on_row=lambda: None)
        assert queue.is_done
        rows_csv(queue.rows)
        queue.clear()

    def compare(number: int) -> None:
        cases.add_uploads(files(number))
        case = cases.open_case
        assert case is not None
        data = case.scan.read()
        analysis = analyser.analyse(data)
        reference = read_reference(case.masks, HEIGHT, WIDTH)
        assert reference.mask is not None
        cases.find_same_pixels(case, analysis.image.grey)
        shown = ShownReading(analysis, 0.5, compare_scan(analysis, reference.mask, threshold=0.5))
        pack_case(
            [shown], reference.mask, scan_id=scan_key(case, data), name=case.name, position=1, count=1,
            simulated=False, no_reference="", mask_name="x_mask.png", can_keep=False, session=cases.session,
        )  # fmt: skip
        cases.clear()

    yield {"analyse": analyse, "batch": batch, "compare": compare}
    st.cache_data.clear()


def memory_mb() -> float:
    """Resident memory of this process, once what is free was handed back."""
    gc.collect()
    if _hand_back is not None:
        _hand_back(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def growth_mb(one_round: Round) -> float:
    """How much larger the process was in the last rounds than in the middle ones."""
    measured = []
    gc.collect()
    gc.freeze()  # what the libraries hold is not searched again at every look
    try:
        for number in range(1, ROUNDS + 1):
            one_round(number)
            if number % EVERY == 0:
                measured.append(memory_mb())
    finally:
        gc.unfreeze()
    half = len(measured) // 2
    middle = measured[half - WINDOW // 2 : half + WINDOW // 2]
    return median(measured[-WINDOW:]) - median(middle)


needs_proc = pytest.mark.skipif(
    _hand_back is None or not Path("/proc/self/statm").exists(), reason="reads a process's memory as Linux shows it"
)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("page", ["analyse", "batch", "compare"])
def test_two_hundred_uploads_and_resets_leave_nothing_behind(rounds: dict[str, Round], page: str) -> None:
    assert growth_mb(rounds[page]) < LEAK_OF_A_SCAN_MB


@pytest.mark.slow
@needs_proc
def test_a_leak_of_one_scan_a_round_would_be_found(
    rounds: dict[str, Round], uploads: list[tuple[bytes, bytes]]
) -> None:
    kept = []

    def leaking(number: int) -> None:
        rounds["analyse"](number)
        kept.append(decode_image(uploads[0][0]))

    assert growth_mb(leaking) > LEAK_OF_A_SCAN_MB
    assert len(kept) == ROUNDS
