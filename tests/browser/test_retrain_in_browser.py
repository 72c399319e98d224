"""A training as a physicist orders it: sign in, queue, watch the curve, close the laptop, come back, cancel."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from playwright.sync_api import Page, expect
from versions import write_version
from workshop import ONE_THREAD, Workshop, kill, training_pid, wait_for

from busi_core.jobs import ledger
from busi_core.jobs.run_folder import read_curves
from busi_core.jobs.spec import CANCELLED, RUNNING
from busi_core.registry import put_into_service

pytestmark = pytest.mark.browser

WAIT_MS = 240_000  # app, worker and training load torch one after the other, on a busy machine
SECRET = "correct horse battery"  # noqa: S105

OpenPage = Callable[..., Page]


@pytest.fixture
def server(tmp_path: Path, private_app: Callable[..., tuple]) -> Iterator[tuple[Workshop, str]]:
    """The app with a tiny model in service and one administrator; the worker that it starts ends with the test."""
    place = Workshop(tmp_path)
    write_version(tmp_path / "weights", "tiny")
    put_into_service(tmp_path / "weights", "tiny")
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(SECRET)
    (tmp_path / "secrets.toml").write_text(f'[administration.passwords]\nphysicist = "{hashed}"\n')
    environment = {**place.environment, **ONE_THREAD, "STREAMLIT_SECRETS_FILES": str(tmp_path / "secrets.toml")}
    _, address = private_app({**environment, "BUSI_DEMO": ""})
    yield place, address
    for lock in (place.settings.state_dir / "workers").glob("*.lock"):
        kill(int(lock.read_text()))


def open_retrain(page: Page, address: str) -> Page:
    page.goto(address)  # the first session of a server must not begin on a deep link
    expect(page.get_by_role("heading", name="Read a breast ultrasound scan")).to_be_visible(timeout=WAIT_MS)
    page.goto(f"{address}/retrain")
    page.get_by_label("Name").fill("physicist", timeout=WAIT_MS)
    page.get_by_label("Password", exact=True).fill(SECRET)
    page.get_by_role("button", name="Sign in with the password").click()
    expect(page.get_by_role("heading", name="Retrain")).to_be_visible(timeout=WAIT_MS)
    return page


def test_a_training_is_ordered_watched_left_alone_found_again_and_cancelled(
    server: tuple[Workshop, str], chromium_page: OpenPage
) -> None:
    """J5, J6."""
    place, address = server
    page = open_retrain(chromium_page(), address)
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
    then = len(read_curves(job))
    wait_for(lambda: len(read_curves(job)) > then, what="another epoch with no page open")

    page = open_retrain(chromium_page(), address)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text(re.compile(r"^epoch \d+ of 400"))).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel this training").click()
    expect(page.get_by_text("cancelled").filter(visible=True).first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    wait_for(lambda: training_pid(job) is None, seconds=30)
    assert ledger.read_job(place.settings, job.id).state == CANCELLED
