"""Sign-in as people do it: with a provider that the test starts, and with a password, in a real browser."""

import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider
from playwright.sync_api import Locator, Page, expect

from busi_core.access.ledger import ACCESS_FILE, Ledger
from busi_core.audit import AuditLog

pytestmark = pytest.mark.browser

WAIT_MS = 120_000  # the first page loads torch on a busy machine
SECRET = "correct horse battery"  # noqa: S105
ANNA, EVE = "anna@hospital.example", "eve@elsewhere.example"
PEOPLE = {
    "Anna": {"sub": "1", "email": "Anna@hospital.example", "email_verified": True},
    "Eve": {"sub": "2", "email": EVE, "email_verified": True},
    "Somebody who claims to be Anna": {"sub": "3", "email": ANNA, "email_verified": False},
}

OpenPage = Callable[..., Page]
PrivateApp = Callable[..., tuple[subprocess.Popen[bytes], str]]


class Owner:
    """What the owner of the server has: its files."""

    def __init__(self, folder: Path) -> None:
        self.secrets = folder / "secrets.toml"
        self.log = AuditLog(folder / "state" / "audit.sqlite")
        self.ledger = Ledger(folder / "state" / ACCESS_FILE)
        self.environment = {
            "BUSI_STATE_DIR": str(folder / "state"),
            "STREAMLIT_SECRETS_FILES": str(self.secrets),
            "BUSI_DEMO": "",
        }

    def name_password(self, password: str = SECRET) -> None:
        hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)
        self.secrets.write_text(f'[administration.passwords]\nphysicist = "{hashed}"\n')

    def name_mails(self, provider: Provider, *mails: str) -> None:
        self.secrets.write_text(f"""
[administration]
mails = {list(mails)}
[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "{"c" * 40}"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
server_metadata_url = "{provider.metadata_url}"
""")

    def written(self) -> list[tuple[str, str]]:
        return [(entry.who, entry.action) for entry in self.log.read()]


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider(PEOPLE)
    provider.start()
    yield provider
    provider.stop()


def start(private_app: PrivateApp, owner: Owner, page: Page) -> tuple[subprocess.Popen[bytes], str]:
    """A server whose first page somebody has opened; before that Streamlit answers any other address with a dialog
    that there is no such page, over the page itself."""
    process, address = private_app(owner.environment)
    page.goto(address)
    expect(page.get_by_text("Read a breast ultrasound scan")).to_be_visible(timeout=WAIT_MS)
    return process, address


def open_audit_page(page: Page, address: str) -> None:
    page.goto(f"{address}/audit")
    expect(page.get_by_role("heading", name="Administration").or_(audit_title(page))).to_be_visible(timeout=WAIT_MS)


def audit_title(page: Page) -> Locator:
    return page.get_by_role("heading", name="Audit log")


def expect_inside(page: Page, name: str) -> None:
    expect(audit_title(page)).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text(f"Signed in as {name}")).to_be_visible(timeout=WAIT_MS)


def expect_outside(page: Page, reason: str) -> None:
    expect(page.get_by_text(reason)).to_be_visible(timeout=WAIT_MS)
    expect(audit_title(page)).to_have_count(0)


def sign_in_at_provider(page: Page, address: str, person: str) -> None:
    open_audit_page(page, address)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name=person, exact=True).click(timeout=WAIT_MS)
    page.wait_for_url(f"{address}/**", timeout=WAIT_MS)
    open_audit_page(page, address)


def type_password(page: Page, password: str, name: str = "physicist") -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def wait_for_entries(page: Page, owner: Owner, count: int) -> None:
    """The message of the try before stands there until the next; the log tells them apart."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while len(owner.log.read()) < count and time.monotonic() < deadline:
        page.wait_for_timeout(100)


# ---- A stranger ----------------------------------------------------------------------------------------------


def test_the_first_request_of_the_server_to_the_administration_is_refused(
    chromium_page: OpenPage, private_app: PrivateApp, owner: Owner
) -> None:
    """A1, A3: app.py has not run before; and asking for the script's own path gives no page either."""
    _, address = private_app(owner.environment)
    page = chromium_page()
    open_audit_page(page, address)
    expect_outside(page, "The administration is off")
    with urllib.request.urlopen(f"{address}/pages/admin/audit.py", timeout=60) as answer:
        assert b"require_admin" not in answer.read()


# ---- With a provider -----------------------------------------------------------------------------------------


def test_an_administrator_signs_in_at_the_provider_and_out_again(
    chromium_page: OpenPage, private_app: PrivateApp, owner: Owner, provider: Provider
) -> None:
    owner.name_mails(provider, ANNA)
    page = chromium_page()
    _, address = start(private_app, owner, page)
    sign_in_at_provider(page, address, "Anna")
    expect_inside(page, ANNA)

    other_tab = page.context.new_page()
    open_audit_page(other_tab, address)
    expect_inside(other_tab, ANNA)
    assert owner.written() == [(ANNA, "sign-in")]

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_function("!document.body.innerText.includes('Signed in as')", timeout=WAIT_MS)
    other_tab.get_by_label("Subject or details").fill("anything")
    other_tab.get_by_label("Subject or details").press("Enter")
    expect_outside(other_tab, "You have signed out.")
    assert owner.written() == [(ANNA, "sign-in"), (ANNA, "sign-out")]
    assert provider.ended == 1


@pytest.mark.slow
def test_who_is_no_administrator_is_refused_after_signing_in(
    chromium_page: OpenPage, private_app: PrivateApp, owner: Owner, provider: Provider
) -> None:
    owner.name_mails(provider, ANNA)
    page = chromium_page()
    _, address = start(private_app, owner, page)
    sign_in_at_provider(page, address, "Eve")
    expect_outside(page, f"{EVE} is no administrator of this server.")
    page = chromium_page()
    sign_in_at_provider(page, address, "Somebody who claims to be Anna")
    expect_outside(page, "does not say that your mail address is verified")
    assert owner.written() == [(EVE, "sign-in.refused"), (ANNA, "sign-in.refused")]


@pytest.mark.slow
def test_an_administrator_removed_during_the_session_is_refused_at_the_next_action(
    chromium_page: OpenPage, private_app: PrivateApp, owner: Owner, provider: Provider
) -> None:
    """A5: the page stays open, the next click is refused; nobody restarted the server."""
    owner.name_mails(provider, ANNA)
    page = chromium_page()
    _, address = start(private_app, owner, page)
    sign_in_at_provider(page, address, "Anna")
    expect_inside(page, ANNA)
    owner.name_mails(provider, "bo@hospital.example")
    page.get_by_label("Subject or details").fill("anything")
    page.get_by_label("Subject or details").press("Enter")
    expect_outside(page, f"{ANNA} is no administrator of this server.")


# ---- With a password -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_guessing_the_password_is_throttled_also_over_a_restart(
    chromium_page: OpenPage, private_app: PrivateApp, owner: Owner
) -> None:
    """A4."""
    owner.name_password()
    page = chromium_page()
    process, address = start(private_app, owner, page)
    open_audit_page(page, address)
    for number in range(5):
        type_password(page, f"guess number {number}")
        wait_for_entries(page, owner, number + 1)
        expect_outside(page, "The name or the password is wrong.")
    process.kill()
    process.wait()
    for minutes in (1, 3, 6):  # a busy machine takes longer to start than the first wait; these lengthen it
        owner.ledger.take_try(datetime.now(UTC) + timedelta(minutes=minutes))
    page = chromium_page()
    _, address = start(private_app, owner, page)
    open_audit_page(page, address)
    type_password(page, SECRET)
    expect_outside(page, "Too many wrong passwords.")
    assert [action for _, action in owner.written()] == ["sign-in.refused"] * 5


def test_the_right_password_opens_the_log_with_the_keyboard_alone(
    chromium_page: OpenPage, private_app: PrivateApp, owner: Owner
) -> None:
    owner.name_password()
    page = chromium_page()
    _, address = start(private_app, owner, page)
    open_audit_page(page, address)
    page.get_by_label("Name", exact=True).focus()
    page.keyboard.type("physicist")
    page.keyboard.press("Tab")
    page.keyboard.type(SECRET)
    page.keyboard.press("Enter")
    expect_inside(page, "physicist")
    assert SECRET not in page.content()
    with page.expect_download() as download:
        page.get_by_role("button", name="Whole log as JSON lines").click()
    exported = Path(download.value.path()).read_text(encoding="utf-8")
    assert owner.log.find_difference(exported) is None
    assert exported.count("\n") == 1
