"""A training as a physicist orders it: queue, watch, close the laptop; the app is killed; come back, cancel."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from playwright.sync_api import Page, expect
from versions import write_version
from workshop import Workshop, training_pid, wait_for

from busi_core.jobs import ledger
from busi_core.jobs.run_folder import read_curves
from busi_core.jobs.spec import CANCELLED, RUNNING
from busi_core.registry import put_into_service

pytestmark = pytest.mark.browser

WAIT_MS = 240_000  # app, worker and training load torch one after the other, on a busy machine
SECRET = "correct horse battery"  # noqa: S105

OpenPage = Callable[..., Page]


class Server:
    """The app with a tiny model in service and one administrator; it can be killed and started again."""

    def __init__(self, root: Path, private_app: Callable[..., tuple[subprocess.Popen[bytes], str]]) -> None:
        self.place = Workshop(root)
        write_version(root / "weights", "tiny")
        put_into_service(root / "weights", "tiny")
        hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(SECRET)
        (root / "secrets.toml").write_text(f'[administration.passwords]\nphysicist = "{hashed}"\n')
        self._secrets = {"STREAMLIT_SECRETS_FILES": str(root / "secrets.toml"), "BUSI_DEMO": ""}
        self._private_app = private_app

    def start(self) -> str:
        self.process, address = self._private_app({**self.place.environment, **self._secrets})
        return address

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path, private_app: Callable[..., tuple[subprocess.Popen[bytes], str]]) -> Iterator[Server]:
    """The worker that it starts ends with the test."""
    server = Server(tmp_path, private_app)
    yield server
    server.place.close()


def open_retrain(page: Page, address: str) -> Page:
    page.goto(address)  # the first session of a server must not begin on a deep link
    expect(page.get_by_role("heading", name="Read a breast ultrasound scan")).to_be_visible(timeout=WAIT_MS)
    page.goto(f"{address}/retrain")
    page.get_by_label("Name").fill("physicist", timeout=WAIT_MS)
    page.get_by_label("Password", exact=True).fill(SECRET)
    page.get_by_role("button", name="Sign in with the password").click()
    expect(page.get_by_role("heading", name="Retrain")).to_be_visible(timeout=WAIT_MS)
    return page


@pytest.mark.slow
def test_a_training_is_ordered_watched_left_alone_found_again_and_cancelled(
    server: Server, chromium_page: OpenPage
) -> None:
    """J5, J6: the browser is closed and the app killed while it runs."""
    place = server.place
    page = open_retrain(chromium_page(), server.start())
    page.get_by_label("Name of the new version").fill("rehearsal")
    page.get_by_label("Epochs").fill("400")
    page.get_by_label("Epochs").press("Enter")
    page.get_by_text("More", exact=True).click()
    for field, value in (("Images a step", "2"), ("Stop after", "400")):  # it must not end before the test does
        page.get_by_label(field, exact=True).fill(value)
        page.get_by_label(field, exact=True).press("Enter")
    page.get_by_role("button", name="Queue the training").click()
    expect(page.get_by_role("heading", name="rehearsal")).to_be_visible(timeout=WAIT_MS)
    curves = page.locator(".js-plotly-plot")
    expect(curves.first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("Pause", exact=True)).to_be_visible()
    (job,) = ledger.list_jobs(place.settings)
    assert (job.state, job.spec.epochs, job.who) == (RUNNING, 400, "physicist")

    page.context.close()
    server.kill()
    then = len(read_curves(job))
    wait_for(lambda: len(read_curves(job)) > then, what="another epoch with no page open and no app")

    page = open_retrain(chromium_page(), server.start())
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text(re.compile(r"^epoch \d+ of 400"))).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel this training").click()
    expect(page.get_by_text("cancelled").filter(visible=True).first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    wait_for(lambda: training_pid(job) is None, seconds=30)
    assert ledger.read_job(place.settings, job.id).state == CANCELLED
