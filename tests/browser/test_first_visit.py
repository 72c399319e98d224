"""A link to a page opens that page, also for the first visitor of a fresh server, who is told what it waits for."""

import pytest
from app_server import REPOSITORY, start_server
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.browser
WAIT_MS = 90_000


@pytest.mark.parametrize(
    ("path", "heading", "is_found"),
    [("compare", "Compare with the ground truth", True), ("nowhere", "Read a breast ultrasound scan", False)],
)
def test_only_a_page_that_does_not_exist_is_not_found(
    chromium: Browser, path: str, heading: str, is_found: bool
) -> None:
    server = start_server(REPOSITORY / "app.py")
    try:
        page = chromium.new_page()
        page.goto(f"{server.address}/{path}")
        expect(page.get_by_text("Loading the program and the model")).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_role("heading", name=heading, include_hidden=True)).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_role("dialog")).to_have_count(0 if is_found else 1, timeout=WAIT_MS)
        page.wait_for_timeout(2_000)
        expect(page.get_by_role("dialog")).to_have_count(0 if is_found else 1)
        expect(page.get_by_text("Loading the program and the model")).to_have_count(0)
        page.close()
    finally:
        server.stop()
