"""A real Chromium and a real Streamlit server for the tests marked `browser`; skipped, with the reason, without one."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from app_server import REPOSITORY, AppServer, start_server
from find_chromium import CHROMIUM_FLAGS, CHROMIUM_NAMES, find_chromium
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One Chromium for the whole run."""
    found = find_chromium()
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(CHROMIUM_NAMES)} and BUSI_CHROMIUM)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def chromium_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page in a fresh context: `chromium_page((1440, 900))`, with `touch=True` for a phone."""
    contexts = []

    def open_page(viewport: tuple[int, int] = (1440, 900), *, touch: bool = False) -> Page:
        width, height = viewport
        context = chromium.new_context(viewport={"width": width, "height": height}, has_touch=touch)
        contexts.append(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def streamlit_server() -> Iterator[Callable[[Path], str]]:
    """Serve a script with Streamlit on a free port of this machine: `streamlit_server(path)` gives its address."""
    running: dict[Path, AppServer] = {}

    def serve(script: Path) -> str:
        if script not in running:
            running[script] = start_server(script)
        return running[script].address

    yield serve
    for server in running.values():
        server.stop()


@pytest.fixture
def private_app() -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str]]]:
    """The app with an environment of the test's own: `process, address = private_app({"BUSI_STATE_DIR": ...})`.

    The test may stop the process and start another, as an owner restarts a server.
    """
    started: list[AppServer] = []

    def start(environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], str]:
        started.append(start_server(REPOSITORY / "app.py", settings=environment))
        return started[-1].process, started[-1].address

    yield start
    for server in started:
        server.stop()
