"""The gate on a phone: sign in, judge, be refused, promote, go back. At a desk, on real scans: test_admin_walk.py."""

import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from gate import Gate, copy_version, make_gate, scored
from playwright.sync_api import Page, TimeoutError, expect
from versions import write_version

from busi_core.registry import put_into_service, read_registry
from busi_core.types import Diagnosis

pytestmark = pytest.mark.browser

SECRET = "correct horse battery"  # noqa: S105
PATIENCE_MS = 240_000  # a judgement on a busy machine
PHONE = (390, 844)

StartApp = Callable[..., tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """'tiny' in service; 'same' as good; 'leaked' has learnt from a locked scan."""
    weights = tmp_path / "weights"
    write_version(weights, "tiny")
    put_into_service(weights, "tiny")
    copy_version(weights, "tiny", "same")
    write_version(weights, "leaked", trained_on=(f"busi/{scored(0, Diagnosis.BENIGN)[0]}",))
    return make_gate(tmp_path, weights)


@pytest.fixture
def address(gate: Gate, tmp_path: Path, private_app: StartApp) -> str:
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(SECRET)
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(f'[administration.passwords]\nphysicist = "{hashed}"\n')
    return private_app({**gate.environment(), "STREAMLIT_SECRETS_FILES": str(secrets)})[1]


def sign_in(page: Page, address: str) -> None:
    page.goto(address)  # the first session of a server must not begin on a deep link
    page.get_by_text("Read a breast ultrasound scan").wait_for(timeout=PATIENCE_MS)
    page.goto(f"{address}/models")
    page.get_by_label("Name").fill("physicist", timeout=PATIENCE_MS)
    page.get_by_label("Password", exact=True).fill(SECRET)
    page.get_by_label("Password", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="In service: tiny")).to_be_visible(timeout=PATIENCE_MS)


def choose(page: Page, version: str) -> None:
    """Pick a version as a person does, again when the page redrew the list meanwhile."""
    box = page.get_by_role("combobox").first
    option = page.get_by_role("option", name=version, exact=True)
    for _ in range(10):
        page.locator('[data-test-script-state="notRunning"]').wait_for(timeout=PATIENCE_MS)
        if box.input_value() == version:
            break
        box.click()
        with suppress(TimeoutError):
            option.click(timeout=5_000)
    expect(box).to_have_value(version, timeout=PATIENCE_MS)


def say_why(page: Page, field: str, why: str) -> None:
    page.get_by_label(field).fill(why, timeout=PATIENCE_MS)
    page.get_by_label(field).press("Tab")


def in_analyse(page: Page, address: str, version: str) -> None:
    page.goto(address)
    page.get_by_role("button", name=re.compile("benign", re.IGNORECASE)).first.click(timeout=PATIENCE_MS)
    expect(page.get_by_text(re.compile(rf"\b{version}\b")).first).to_be_visible(timeout=PATIENCE_MS)


@pytest.mark.slow
def test_refused_once_promoted_once_and_back(gate: Gate, address: str, chromium_page: Callable[..., Page]) -> None:
    """J5: the page is closed while 'same' is judged, and another one finds it done."""
    page = chromium_page(PHONE)
    sign_in(page, address)
    choose(page, "leaked")
    page.get_by_role("button", name="Judge leaked", exact=True).click(timeout=PATIENCE_MS)
    expect(page.get_by_text("Refused. It is not put into service.")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("have a copy among those that taught 'leaked'")).to_be_visible()
    expect(page.get_by_role("button", name="Put leaked into service")).to_have_count(0)

    choose(page, "same")
    page.get_by_role("button", name="Judge same", exact=True).click(timeout=PATIENCE_MS)
    expect(page.get_by_text(re.compile("is being judged|Non-inferior")).first).to_be_visible(timeout=PATIENCE_MS)
    page.close()

    page = chromium_page(PHONE)
    sign_in(page, address)
    choose(page, "same")
    expect(page.get_by_text("Non-inferior: no worse than the margins allow.")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=PATIENCE_MS)
    button = page.get_by_role("button", name="Put same into service")
    expect(button).to_be_disabled()
    say_why(page, "Why it goes into service", "as good, and newer")
    page.get_by_text("I have read the verdict").click()
    expect(button).to_be_enabled(timeout=PATIENCE_MS)
    button.click()
    expect(page.get_by_role("heading", name="In service: same")).to_be_visible(timeout=PATIENCE_MS)
    assert read_registry(gate.weights_dir).in_service == "same"
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE[0], "nothing lies beside the screen"

    choose(page, "tiny")
    say_why(page, "Why back to it (optional)", "the night shift saw more false masks")
    page.get_by_role("button", name="Roll back to tiny").last.click()
    expect(page.get_by_role("heading", name="In service: tiny")).to_be_visible(timeout=PATIENCE_MS)
    assert [change.kind for change in read_registry(gate.weights_dir).history[1:]] == ["promoted", "rolled back"]
    assert [entry.action for entry in gate.audit.read() if entry.action.startswith(("promotion", "rollback"))] == [
        "promotion.judged",
        "promotion.judged",
        "promotion.done",
        "rollback.done",
    ]


@pytest.mark.slow
def test_analyse_names_the_version_that_was_put_into_service_without_a_restart(
    gate: Gate, address: str, chromium_page: Callable[..., Page]
) -> None:
    page = chromium_page()
    in_analyse(page, address, "tiny")
    put_into_service(gate.weights_dir, "same")
    in_analyse(page, address, "same")
