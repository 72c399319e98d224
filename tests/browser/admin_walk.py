"""The way of a hospital's scans into service, step by step, as a physicist goes it in the browser (docs/admin.md).

The test walks it with real scans; make_pictures.py walks it with simulated ones and photographs each step.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider
from playwright.sync_api import Locator, Page, TimeoutError, expect

WAIT_MS = 480_000  # three epochs of the product's network, or a judgement, on the CPU of a busy machine
ANNA = "anna@hospital.example"
PEOPLE = {"Anna": {"sub": "1", "email": ANNA, "email_verified": True}}


def write_secrets(path: Path, provider: Provider) -> Path:
    """Secrets that let Anna sign in at the hospital's provider."""
    path.write_text(f"""
[administration]
mails = ["{ANNA}"]
[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "{"c" * 40}"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
server_metadata_url = "{provider.metadata_url}"
""")
    return path


def zip_files(files: Iterable[tuple[Path, str]], target: Path) -> Path:
    """Pack files under the names that they shall have."""
    with zipfile.ZipFile(target, "w") as archive:
        for path, name in files:
            archive.write(path, name)
    return target


@dataclass
class AdminWalk:
    """One administrator in one browser.

    Attributes:
        page: Of the browser.
        address: Of the app.
        photograph: Called with the name of each step, when there is something to see.
    """

    page: Page
    address: str
    photograph: Callable[[str], object] = lambda _step: None

    def sign_in(self) -> None:
        self.page.set_default_timeout(WAIT_MS)
        self.page.goto(self.address)  # the first session of a server must not begin on a deep link
        expect(self.page.get_by_text("Read a breast ultrasound scan")).to_be_visible(timeout=WAIT_MS)
        self.open("datasets")
        button = self.page.get_by_role("button", name="Sign in")
        expect(button).to_be_visible(timeout=WAIT_MS)
        self.photograph("sign-in")
        button.click()
        self.page.get_by_role("link", name="Anna", exact=True).click()
        self.page.wait_for_url(f"{self.address}/**")
        self.open("datasets")
        self.see(f"Signed in as {ANNA}")

    def upload(self, archive: Path) -> Locator:
        """Have a zip examined; gives the table of findings."""
        self.page.locator("input[type=file]").set_input_files(archive)
        self.see_heading("Accept")
        self.settle()
        self.photograph("report")
        return self.page.locator("table.plain.wrapped")

    def look_at(self, finding: str) -> Locator:
        """Choose a finding; gives the thumbnails of its scans."""
        self.choose("Scans to look at", re.compile(re.escape(finding)))
        self.photograph("flagged")
        return self.page.locator(".contact figure")

    def accept(self, name: str) -> None:
        fields = {"Name": name, "Source": "Logiq E9, 2026", "Licence or consent": "consent of 2026"}
        for field, value in fields.items():
            self.fill(field, value)
        self.photograph("accept")
        self.page.get_by_role("button", name=re.compile("^Accept ")).click()
        self.see(f"Kept as {name}-")
        self.settle()
        self.photograph("accepted")

    def order(self, version: str, data_set: str, fields: Mapping[str, str]) -> None:
        """Queue a training on one data set; `fields` are labels of the form and what to write or choose there."""
        self.open("retrain")
        self.see_heading("New training")
        self.settle()
        self.fill("Name of the new version", version)
        sets = self.page.get_by_test_id("stMultiSelect").filter(has_text="Data sets").first
        with suppress(TimeoutError):
            sets.get_by_label("Clear all").click(timeout=5_000)
        self.settle()
        sets.get_by_role("combobox").click()
        self.page.get_by_role("option", name=re.compile(f"^{data_set} ")).click()
        self.page.keyboard.press("Escape")
        self.settle()
        self.page.get_by_text("More", exact=True).click()
        for label, value in fields.items():
            (self.choose if label in ("Start from", "Size (px)") else self.fill)(label, value)
        self.photograph("order")
        self.page.get_by_role("button", name="Queue the training").click()
        self.see_heading(version)

    def watch(self, version: str) -> None:
        """See the curves grow, and the training end as a candidate."""
        expect(self.page.locator(".js-plotly-plot").first).to_be_visible(timeout=WAIT_MS)
        self.photograph("running")
        self.see(f"{version} is a candidate")
        self.settle()
        self.photograph("done")

    def judge(self, version: str, *, photo: str = "verdict") -> Locator:
        """Let the gate judge a version; gives the verdict."""
        self.open("models")
        self.see_heading(re.compile("^In service: "))
        self.choose("Version to judge", version)
        self.page.get_by_role("button", name=f"Judge {version}", exact=True).click()
        verdict = self.page.get_by_test_id("stAlert").filter(has_text=re.compile("put into service"))
        expect(verdict).to_be_visible(timeout=WAIT_MS)
        self.settle()
        self.photograph(photo)
        return verdict

    def promote(self, version: str, why: str) -> None:
        self.fill("Why it goes into service", why)
        self.page.get_by_text("I have read the verdict").click()
        button = self.page.get_by_role("button", name=f"Put {version} into service")
        expect(button).to_be_enabled(timeout=WAIT_MS)
        self.photograph("promote")
        button.click()
        self.see_heading(f"In service: {version}")
        self.settle()
        self.photograph("promoted")

    def roll_back(self, version: str) -> None:
        self.open("models")
        self.page.get_by_role("button", name=f"Roll back to {version}").first.click()
        self.see_heading(f"In service: {version}")
        self.settle()
        self.photograph("rolled-back")

    def read_a_scan(self, version: str) -> None:
        """Analyse names the version that read."""
        self.page.goto(self.address)
        self.page.get_by_role("button", name=re.compile("benign", re.IGNORECASE)).first.click()
        expect(self.page.get_by_text(re.compile(rf"\b{version}\b")).first).to_be_visible(timeout=WAIT_MS)
        self.settle()
        self.photograph("analyse")

    def open_audit(self) -> None:
        self.open("audit")
        self.see_heading("Audit log")
        self.see("The chain is whole")
        self.settle()
        self.photograph("audit")

    # ---- What a hand does ------------------------------------------------------------------------------------------

    def open(self, page: str) -> None:
        self.page.goto(f"{self.address}/{page}")

    def see(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=WAIT_MS)

    def see_heading(self, name: str | re.Pattern[str]) -> None:
        heading = self.page.get_by_role("heading", name=name, exact=isinstance(name, str))
        expect(heading).to_be_visible(timeout=WAIT_MS)

    def fill(self, label: str, value: str) -> None:
        field = self.page.get_by_label(label, exact=True)
        field.fill(value)
        field.press("Tab")
        self.settle()

    def choose(self, label: str, option: str | re.Pattern[str]) -> None:
        """Pick from a list as a person does, again when the page redrew it meanwhile."""
        box = self.page.get_by_test_id("stSelectbox").filter(has_text=label).get_by_role("combobox")
        exact = isinstance(option, str)
        for _ in range(10):
            self.settle()
            value = box.input_value()
            if value == option if exact else re.search(option, value):
                return
            box.click()
            with suppress(TimeoutError):
                self.page.get_by_role("option", name=option, exact=exact).click(timeout=5_000)
        raise AssertionError(f"{option} could not be chosen under {label!r}")

    def settle(self) -> None:
        """Until the script behind the page has run."""
        self.page.wait_for_timeout(150)
        self.page.locator('[data-test-script-state="notRunning"]').wait_for(timeout=WAIT_MS)


def environment(folders: Mapping[str, Path], secrets: Path) -> dict[str, str]:
    """The variables that name these folders to the app: 'WEIGHTS_DIR' and so on, without BUSI_."""
    named = {f"BUSI_{name}": str(path) for name, path in folders.items()}
    return {**named, "BUSI_DEVICE": "cpu", "BUSI_DEMO": "", "STREAMLIT_SECRETS_FILES": str(secrets)}
