"""The administration without a browser: nobody comes in unasked (A1, A2, A3, A5), and the log says who did."""

import ast
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from streamlit import config
from streamlit.testing.v1 import AppTest

from busi_core.audit import AuditLog, export_jsonl

ROOT = Path(__file__).parents[2]
ADMIN_PAGES = sorted((ROOT / "pages/admin").glob("*.py"))
AUDIT_PAGE = ROOT / "pages/admin/audit.py"
TIMEOUT_SECONDS = 120  # the first page loads torch and the weights
SECRET = "correct horse battery"  # noqa: S105
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(SECRET)
ANNA = "anna@hospital.example"

WriteSecrets = Callable[[str], None]


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUSI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("BUSI_DEMO", raising=False)
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def write_secrets(tmp_path: Path) -> Iterator[WriteSecrets]:
    """Write what the owner of the server would; until then there is no file."""
    file, before = tmp_path / "secrets.toml", config.get_option("secrets.files")
    config.set_option("secrets.files", [str(file)])
    yield lambda text: file.write_text(text) and None
    config.set_option("secrets.files", before)


@pytest.fixture
def log(state_dir: Path) -> AuditLog:
    return AuditLog(state_dir / "audit.sqlite")


def with_password(hashed: str = HASH) -> str:
    return f'[administration.passwords]\nphysicist = "{hashed}"\n'


def with_provider(*mails: str) -> str:
    auth = '[auth]\nclient_id = "reader"\ncookie_secret = "cccccccccccccccccccccccccccccccc"\n'
    return f"[administration]\nmails = {list(mails)}\n{auth}"


def open_page(file: Path = AUDIT_PAGE) -> AppTest:
    return AppTest.from_file(str(file), default_timeout=TIMEOUT_SECONDS).run()


def texts(page: AppTest) -> str:
    kinds = [page.title, page.markdown, page.error, page.warning, page.info, page.success, page.caption]
    return " ".join(str(block.value) for kind in kinds for block in kind).replace("\\", "")


def sign_in(page: AppTest, name: str = "physicist", password: str = SECRET) -> AppTest:
    page.text_input[0].set_value(name)
    page.text_input[1].set_value(password)
    return page.button[0].click().run()


def open_as(email: str = ANNA, **claims: object) -> AppTest:
    page = AppTest.from_file(str(AUDIT_PAGE), default_timeout=TIMEOUT_SECONDS)
    page.user = {"is_logged_in": True, "iss": "i", "sub": "1", "iat": time.time(), "email": email} | {
        "email_verified": True,
        **claims,
    }
    return page.run()


# ---- Nobody comes in unasked ---------------------------------------------------------------------------------


def test_there_are_pages_of_the_administration() -> None:
    assert AUDIT_PAGE in ADMIN_PAGES


@pytest.mark.parametrize("file", ADMIN_PAGES, ids=lambda file: file.stem)
def test_every_page_of_the_administration_asks_before_it_draws_anything_else(file: Path) -> None:
    """A1: read from the source, as no run can show what another path would do."""
    statements = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if not _is_definition(node)]
    asked = [ast.unparse(node).split("=")[-1].strip() for node in statements[:2]]
    assert asked == ["start_page()", "require_admin()"]


def _is_definition(node: ast.stmt) -> bool:
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or (isinstance(node, kinds) and "require_admin()" not in ast.unparse(node))


@pytest.mark.parametrize("file", ADMIN_PAGES, ids=lambda file: file.stem)
@pytest.mark.parametrize("secrets", ["", with_password(), with_provider(ANNA)], ids=["off", "password", "provider"])
def test_each_page_is_closed_to_a_stranger(
    file: Path, secrets: str, write_secrets: WriteSecrets, log: AuditLog, state_dir: Path
) -> None:
    """A1, A3: without app.py, which a direct request passes by."""
    write_secrets(secrets)
    page = open_page(file)
    assert not page.exception
    assert page.title[0].value == "Administration"
    assert not page.dataframe
    assert not page.get("download_button")
    assert not page.get("file_uploader")
    assert not (state_dir / "audit.sqlite").exists()  # a stranger leaves no trace, and fills no disk


@pytest.mark.slow
def test_the_first_request_of_the_process_is_refused(tmp_path: Path) -> None:
    """A1: nothing has run before it, neither app.py nor another page. A process for each page, which begins with the
    slow libraries loaded and not a line of the app."""
    code = """
import os, sys
import segmentation_models_pytorch, torch
from streamlit import config
from streamlit.testing.v1 import AppTest
config.set_option("secrets.files", [sys.argv[1]])
for file in sys.argv[2:]:
    assert not any(name.split(".")[0] in ("busi_core", "pages") for name in sys.modules)
    child = os.fork()
    if child == 0:
        page = AppTest.from_file(file, default_timeout=120).run()
        print([title.value for title in page.title], len(page.dataframe), len(page.exception), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(with_password())
    ended = subprocess.run(
        [sys.executable, "-c", code, str(secrets), *map(str, ADMIN_PAGES)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert ended.stdout.splitlines() == ["['Administration'] 0 0"] * len(ADMIN_PAGES)


def test_nothing_set_up_says_so_and_how_to_switch_it_on() -> None:
    """A3."""
    said = texts(open_page())
    assert "The administration is off: no administrator is named." in said
    assert "busi hash-password" in said
    assert "[auth]" in said


def test_a_demo_says_that_it_has_no_administration(
    write_secrets: WriteSecrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secrets(with_password())
    monkeypatch.setenv("BUSI_DEMO", "1")
    page = open_page()
    assert "This is a public demo; it has no administration." in texts(page)
    assert not page.text_input


def test_a_flag_in_the_session_does_not_open_the_door(write_secrets: WriteSecrets) -> None:
    """A2: whatever a browser could make the session hold, it is no permit."""
    write_secrets(with_password())
    page = AppTest.from_file(str(AUDIT_PAGE), default_timeout=TIMEOUT_SECONDS)
    page.session_state["admin-permit"] = True
    page.run()
    assert page.title[0].value == "Administration"


# ---- With a password -----------------------------------------------------------------------------------------


def test_the_right_password_opens_the_page(write_secrets: WriteSecrets, log: AuditLog) -> None:
    write_secrets(with_password())
    page = sign_in(open_page())
    assert not page.exception
    assert "Signed in as **physicist**" in texts(page)
    assert page.title[0].value == "Audit log"
    assert [entry.action for entry in log.read()] == ["sign-in"]


def test_a_wrong_password_is_refused_and_the_form_is_empty_again(write_secrets: WriteSecrets, log: AuditLog) -> None:
    write_secrets(with_password())
    page = sign_in(open_page(), password="guess")  # noqa: S106
    assert "The name or the password is wrong. Type both again." in texts(page)
    assert page.title[0].value == "Administration"
    assert [entry.action for entry in log.read()] == ["sign-in.refused"]


@pytest.mark.parametrize(("name", "password"), [("", SECRET), (" ", SECRET), ("physicist", "")])
def test_an_empty_field_is_asked_for_and_counts_as_no_wrong_try(
    write_secrets: WriteSecrets, state_dir: Path, name: str, password: str
) -> None:
    write_secrets(with_password())
    page = sign_in(open_page(), name, password)
    assert "Type the name and the password." in texts(page)
    assert page.title[0].value == "Administration"
    assert not (state_dir / "audit.sqlite").exists()


def test_the_form_says_how_long_a_sign_in_holds(write_secrets: WriteSecrets) -> None:
    write_secrets(with_password())
    assert "It holds in this tab until the tab is reloaded" in texts(open_page())


def test_guessing_is_throttled_in_every_session(write_secrets: WriteSecrets) -> None:
    """A4."""
    write_secrets(with_password())
    for number in range(5):
        sign_in(open_page(), password=f"guess {number}")
    page = sign_in(open_page())
    assert "Too many wrong passwords." in texts(page)
    assert page.title[0].value == "Administration"


def test_who_leaves_the_secrets_during_a_session_is_refused_at_the_next_step(write_secrets: WriteSecrets) -> None:
    """A5."""
    write_secrets(with_password())
    page = sign_in(open_page())
    write_secrets(with_password(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("another secret")))
    page.run()
    assert "You are no administrator any more, or your password was changed." in texts(page)
    assert not page.dataframe
    write_secrets("")
    assert "The administration is off" in texts(page.run())


def test_signing_out_closes_the_page(write_secrets: WriteSecrets, log: AuditLog) -> None:
    write_secrets(with_password())
    page = sign_in(open_page())
    page.button(key="admin-sign-out").click().run()
    assert page.title[0].value == "Administration"
    assert page.text_input[1].value == ""
    assert [entry.action for entry in log.read()] == ["sign-in", "sign-out"]


def test_a_log_that_cannot_be_written_lets_nobody_in(write_secrets: WriteSecrets, state_dir: Path) -> None:
    """J4."""
    write_secrets(with_password())
    (state_dir / "audit.sqlite").mkdir(parents=True)
    page = sign_in(open_page())
    assert not page.exception
    assert "audit.sqlite could not be read or written" in texts(page)
    assert page.title[0].value == "Administration"


# ---- With a provider -----------------------------------------------------------------------------------------


def test_an_administrator_of_the_provider_comes_in(write_secrets: WriteSecrets) -> None:
    write_secrets(with_provider("Anna@Hospital.example"))
    page = open_as()
    assert page.title[0].value == "Audit log"
    assert f"Signed in as **{ANNA}**" in texts(page)


def test_a_provider_that_is_not_set_up_completely_is_explained(write_secrets: WriteSecrets) -> None:
    write_secrets(with_provider(ANNA))  # neither an address of the provider nor one to come back to
    page = open_page()
    page.button[0].click().run()
    assert not page.exception
    assert "The sign-in is not set up completely" in texts(page)


@pytest.mark.parametrize(
    ("email", "claims", "said"),
    [
        ("eve@elsewhere.example", {}, "eve@elsewhere.example is no administrator of this server."),
        (ANNA, {"email_verified": False}, "does not say that your mail address is verified"),
        ("<b>eve</b>@x.example", {}, "<b>eve</b>@x.example is no administrator"),
    ],
)
def test_somebody_else_is_refused_and_may_sign_out(
    write_secrets: WriteSecrets, log: AuditLog, email: str, claims: dict[str, object], said: str
) -> None:
    write_secrets(with_provider(ANNA))
    page = open_as(email, **claims)
    assert not page.exception
    assert said in texts(page)
    assert not page.dataframe
    assert [button.label for button in page.button] == ["Sign out"]
    page.run()
    assert [entry.action for entry in log.read()] == ["sign-in.refused"]


def test_an_administrator_taken_off_the_list_is_refused_at_the_next_step(write_secrets: WriteSecrets) -> None:
    """A5."""
    write_secrets(with_provider(ANNA))
    page = open_as()
    write_secrets(with_provider("bo@hospital.example"))
    page.run()
    assert f"{ANNA} is no administrator of this server." in texts(page)
    assert not page.dataframe


# ---- The log -------------------------------------------------------------------------------------------------


@pytest.fixture
def audit_page(write_secrets: WriteSecrets, log: AuditLog) -> AppTest:
    log.append(ANNA, "job.queued", "job-1", data_sets=["busi"], epochs=3)
    log.append("bo@hospital.example", "promotion.done", "2026.12-a", comment="<script>alert(1)</script> ![x](http://x)")
    write_secrets(with_password())
    return sign_in(open_page())


def test_the_log_stands_there_newest_first_and_is_whole(audit_page: AppTest) -> None:
    assert "The chain is whole: 3 entries" in texts(audit_page)
    table = audit_page.dataframe[0].value
    assert list(table["Action"]) == ["sign-in", "promotion.done", "job.queued"]
    assert list(table["Details"])[2] == "data sets: busi · epochs: 3"


def test_the_log_is_filtered_by_who_and_action(audit_page: AppTest) -> None:
    page = audit_page.multiselect(key="audit-who").select(ANNA).run()
    assert list(page.dataframe[0].value["No."]) == [1]
    page = page.multiselect(key="audit-actions").select("promotion.done").run()
    assert len(page.dataframe[0].value) == 0
    page = page.multiselect(key="audit-who").unselect(ANNA).run()
    assert list(page.dataframe[0].value["No."]) == [2]
    page = page.text_input(key="audit-text").set_value("nothing like it").run()
    assert not page.exception
    assert "0 of 3 entries shown" in texts(page)


def test_a_changed_entry_is_named(audit_page: AppTest, log: AuditLog) -> None:
    with closing(sqlite3.connect(log.path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER entries_stay")
        connection.execute("UPDATE entries SET who = 'nobody' WHERE number = 2")
    page = audit_page.run()
    assert "The chain is broken at entry 2" in texts(page)
    assert list(page.dataframe[0].value[""]) == ["✕", "✕", ""]


def test_the_log_is_held_against_an_earlier_export(audit_page: AppTest, log: AuditLog, tmp_path: Path) -> None:
    same = export_jsonl(log.read())
    page = audit_page.file_uploader(key="audit-witness").set_value(("log.jsonl", same, "text/plain")).run()
    assert "Every entry of the export stands in the log, unchanged." in texts(page)
    other = same.replace(b'"epochs": 3', b'"epochs": 4')
    page = page.file_uploader(key="audit-witness").set_value(("log.jsonl", other, "text/plain")).run()
    assert "Entry 1 of the export is missing in the log or stands there otherwise." in texts(page)
    page = page.file_uploader(key="audit-witness").set_value(("log.jsonl", b"\xff\x00", "text/plain")).run()
    assert "This is no export of an audit log." in texts(page)
    assert not page.exception


def test_a_log_of_a_newer_program_is_explained(audit_page: AppTest, log: AuditLog) -> None:
    """D1."""
    with closing(sqlite3.connect(log.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    page = audit_page.run()
    assert not page.exception
    assert "audit.sqlite has schema 99" in texts(page)
