"""What a reader waits for in the browser: start, drop to overlay, and how smoothly a cut-off is dragged.

    uv run python -m benchmarks.in_browser [--scans 50]

The app is started as the README says and driven in a headless Chromium without a GPU:
    start      from the start of the server to the overlay of the first scan, in a browser that stands ready
    drop       from handing over a file to its overlay, beside one reading of the same file in this process
    drag       frames a second while the lesion's cut-off is dragged for three seconds on a scan 1,024 pixels wide, each
               frame moving it, beside the frames of the same page when nothing is to be drawn
    memory     of the server's process: when it answers, after the first scan, after all of them
Goals: 50 frames a second or more, under 1,000 MB, flat.
"""

import argparse
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from benchmarks.measure import table
from busi_core import Diagnosis, Serving, choose_device, read_settings, simulate_scan

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from app_server import AppServer, start_server  # noqa: E402  (the tests' own way to start the app)

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DRAG_SECONDS = 3
WIDE_PX = 1024
GOAL_FPS, MAX_MB = 50, 1000
NAME = "scan {number:02d}.png"

# Frames in so many seconds while the slider, where there is one, moves a little in each.
FRAMES = """([slider, seconds]) => new Promise(done => {
    const start = performance.now(), low = 0.2, high = 0.9;
    let frames = 0;
    const step = now => {
        if (now - start > 1000 * seconds) return done(frames / ((now - start) / 1000));
        frames += 1;
        if (slider) {
            const share = low + (high - low) * Math.abs(1 - 2 * (((now - start) / 1000) % 1));
            slider.value = Number(slider.min) + share * (Number(slider.max) - Number(slider.min));
            slider.dispatchEvent(new Event("input", { bubbles: true }));
        }
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        files = write_scans(Path(folder), options.scans)
        found = next(filter(None, map(shutil.which, CHROMIUM)), None)
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        started = time.perf_counter()
        server = start_server(ROOT / "app.py")
        try:
            rows = measure(page, server, files, started)
        finally:
            server.stop()
            browser.close()
    print(f"load average {os.getloadavg()[0]:.1f}\n\n{table(['what', 'measured', 'beside', 'ratio'], rows)}")
    print(f"\ngoals: {GOAL_FPS} frames a second, {MAX_MB} MB")


def measure(page: Page, server: AppServer, files: list[Path], started: float) -> list[list[str]]:
    healthy_s, healthy_mb = time.perf_counter() - started, server.memory_mb()
    page.goto(server.address)
    page.locator("input[type=file]").first.wait_for(state="attached", timeout=120_000)
    ready_s = time.perf_counter() - started
    drop(page, files[0])
    first_s, first_mb = time.perf_counter() - started, server.memory_mb()
    fps, idle = drag(page)
    waits = [drop(page, file) for file in files[1:]]
    last_mb = server.memory_mb()
    own, wait = read_alone(files), statistics.median(waits)
    beside, spread = f"one reading in a process: {own:.2f} s", f"{min(waits):.2f} to {max(waits):.2f}"
    return [
        ["start to an answering server", f"{healthy_s:.1f} s", "", ""],
        ["start to a page that takes files", f"{ready_s:.1f} s", "", ""],
        ["start to the first overlay", f"{first_s:.1f} s", "", ""],
        [f"drop to overlay, median of {len(waits)} ({spread})", f"{wait:.2f} s", beside, f"{wait / own:.1f}"],
        [f"dragging a cut-off, {WIDE_PX} px", f"{fps:.0f} frames/s", f"nothing drawn: {idle:.0f}", f"{fps / idle:.2f}"],
        ["memory when it answers", f"{healthy_mb:.0f} MB", "", ""],
        ["memory after the first scan", f"{first_mb:.0f} MB", "", ""],
        [f"memory after {len(files)} scans", f"{last_mb:.0f} MB", "after the first", f"{last_mb / first_mb:.2f}"],
    ]


def write_scans(folder: Path, count: int) -> list[Path]:
    """Simulated scans; the first is 1,024 pixels wide."""
    files = []
    for number in range(count):
        data = simulate_scan(list(Diagnosis)[(number + 1) % len(Diagnosis)], seed=number).png()
        with Image.open(io.BytesIO(data)) as picture:
            if number == 0:
                data = enlarged(picture)
        files.append(folder / NAME.format(number=number))
        files[-1].write_bytes(data)
    return files


def enlarged(picture: Image.Image) -> bytes:
    height = round(picture.height * WIDE_PX / picture.width)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(picture.resize((WIDE_PX, height)))).save(buffer, "PNG")
    return buffer.getvalue()


def drop(page: Page, file: Path) -> float:
    """Seconds from handing over a file to its overlay and its finding, with those before it taken away."""
    clear = page.get_by_role("button", name="Clear", exact=True)
    if clear.count():
        clear.first.click()
        page.get_by_role("button", name="Forget all").click()
        page.get_by_test_id("viewer").wait_for(state="detached", timeout=60_000)
        page.wait_for_selector('[data-test-script-state="notRunning"]')  # or "Clear" is open when it comes again
    start = time.perf_counter()
    page.locator("input[type=file]").first.set_input_files(str(file))
    page.wait_for_selector('[data-testid="viewer"][data-ready]', timeout=120_000)
    page.wait_for_selector(".finding-name", timeout=120_000)
    return time.perf_counter() - start


def drag(page: Page) -> tuple[float, float]:
    """Frames a second with the cut-off moving, and with nothing to draw."""
    slider = page.get_by_test_id("viewer").locator("input[type=range][data-cutoff=lesion]").element_handle()
    moving, idle = [], []
    for _ in range(3):
        idle.append(page.evaluate(FRAMES, [None, DRAG_SECONDS]))
        moving.append(page.evaluate(FRAMES, [slider, DRAG_SECONDS]))
    return statistics.median(moving), statistics.median(idle)


def read_alone(files: list[Path]) -> float:
    """Median seconds of the same readings in this process, after three to warm up."""
    analyser = Serving(read_settings().weights_dir, choose_device("auto")).current()
    seconds = []
    for file in [*files[:3], *files]:
        start = time.perf_counter()
        analyser.analyse(file.read_bytes())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=50, help="how many (default 50)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
