"""A hospital's scans on a phone: sign in, upload real scans, read, accept, remove. At a desk: test_admin_walk.py."""

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from playwright.sync_api import Page, expect

from busi_core.audit import AuditLog
from busi_core.data.splits import read_folds
from busi_core.managed.store import as_records, list_sets

pytestmark = [pytest.mark.browser, pytest.mark.realdata]

WAIT_MS = 240_000  # torch, then 1,760 known scans to read, on a busy machine
PHONE = (390, 844)
SECRET = "correct horse battery"  # noqa: S105

PrivateApp = Callable[..., tuple[subprocess.Popen[bytes], str]]


def zip_of_real_scans(data_root: Path, target: Path) -> str:
    """Twelve files of BUSI's training folds, one with text, and one of the locked test set; returns that one's name."""
    chosen = {"benign (222)", "benign (428)", "benign (362)", "benign (276)", "malignant (26)", "malignant (127)"}
    tested = next(scan.files[0] for scan in read_folds() if scan.fold == 0 and scan.files[0].startswith("malignant"))
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted({*chosen, tested, "normal (25)", "normal (6)"}):
            folder = name.split(" ")[0]
            for path in sorted((data_root / "busi" / folder).glob(f"{name}*.png")):
                archive.write(path, f"{folder}/{path.name}")
        archive.writestr("benign/damaged.png", b"no picture")
    return tested


@pytest.mark.slow
def test_real_scans_are_uploaded_examined_accepted_and_removed(
    chromium_page: Callable[..., Page], private_app: PrivateApp, data_root: Path, tmp_path: Path
) -> None:
    tested = zip_of_real_scans(data_root, tmp_path / "hospital.zip")
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(SECRET)
    (tmp_path / "secrets.toml").write_text(f'[administration.passwords]\nphysicist = "{hashed}"\n')
    state = tmp_path / "state"
    _, address = private_app(
        {
            "BUSI_STATE_DIR": str(state),
            "BUSI_DATA_ROOT": str(data_root),
            "STREAMLIT_SECRETS_FILES": str(tmp_path / "secrets.toml"),
            "BUSI_DEMO": "",
        }
    )
    page = chromium_page(PHONE)
    page.set_default_timeout(WAIT_MS)
    page.goto(address)
    expect(page.get_by_text("Read a breast ultrasound scan")).to_be_visible(timeout=WAIT_MS)
    page.goto(f"{address}/datasets")
    page.get_by_label("Name").fill("physicist")
    page.get_by_label("Password", exact=True).fill(SECRET)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("None yet.")).to_be_visible(timeout=WAIT_MS)

    page.locator("input[type=file]").set_input_files(tmp_path / "hospital.zip")
    expect(page.get_by_role("heading", name="Accept", exact=True)).to_be_visible(timeout=WAIT_MS)
    findings = page.locator("table.plain.wrapped")
    expect(findings).to_contain_text("repeats a scan of the locked test set")
    expect(findings).to_contain_text("cannot be read")
    expect(findings).to_contain_text("text burned in")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    page.get_by_label("Name", exact=True).fill("hospital")
    page.get_by_label("Source", exact=True).fill("BUSI, for a test")
    page.get_by_label("Licence or consent", exact=True).fill("CC0")
    page.get_by_label("Licence or consent", exact=True).press("Enter")
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Kept as hospital-")).to_be_visible(timeout=WAIT_MS)

    (managed,) = list_sets(state)
    assert 0 < managed.count() < 9
    assert f"busi/{tested}" not in {copy for item in managed.items for copy in item.copies_of}
    assert len(as_records(state, managed)) == managed.count()

    page.get_by_role("button", name="Remove").click()
    page.get_by_label("Why").fill("a test")
    page.get_by_label("Why").press("Enter")
    page.get_by_role("button", name="Remove for good").click()
    expect(page.get_by_text("its scans are deleted")).to_be_visible(timeout=WAIT_MS)
    assert list_sets(state) == []
    actions = [entry.action for entry in AuditLog(state / "audit.sqlite").read()]
    assert actions == ["sign-in", "dataset.accepted", "dataset.removed"]
