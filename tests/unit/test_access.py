"""Who may administer: what the secrets say, passwords, and the throttle that outlives the process (A2 to A5)."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from busi_core import cli
from busi_core.access import command_line, password
from busi_core.access.ledger import FREE_TRIES, LONGEST_WAIT, MAX_AGE, Ledger, wait_after
from busi_core.access.password import PasswordAccess, PasswordPermit, hash_password
from busi_core.access.policy import Policy, mail_key, read_policy, read_secrets
from busi_core.audit import AuditLog
from busi_core.errors import AccessDeniedError, OutputError

FAST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # as a test needs it, not as a server does
SECRET = "correct horse battery"  # noqa: S105
HASH = FAST.hash(SECRET)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def secrets_of(**administration: Any) -> dict[str, Any]:
    auth = {"client_id": "reader", "cookie_secret": "c" * 32, "redirect_uri": "http://127.0.0.1/oauth2callback"}
    return {"administration": administration, "auth": auth}


# ---- What the secrets say ------------------------------------------------------------------------------------


def test_administrators_are_those_whom_the_secrets_name(tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text(f"""
[administration]
mails = ["Anna@Hospital.example", "bo@hospital.example "]
[administration.passwords]
physicist = "{HASH}"
[auth]
redirect_uri = "https://reader.hospital.example/oauth2callback"
cookie_secret = "{"s" * 40}"
[auth.keycloak]
client_id = "reader"
""")
    policy = read_policy(read_secrets([tmp_path / "absent.toml", file]), demo=False)
    assert policy == Policy(
        frozenset({"anna@hospital.example", "bo@hospital.example"}), {"physicist": HASH}, ("keycloak",)
    )


@pytest.mark.parametrize(
    ("secrets", "reason"),
    [
        pytest.param({}, "no administrator is named", id="A3 nothing set up"),
        pytest.param({"administration": {}}, "no administrator is named", id="A3 an empty section"),
        pytest.param({"auth": {"client_id": "x"}}, "no administrator is named", id="A3 a sign-in without a list"),
        pytest.param({"administration": {"mails": ["a@b.c"]}}, r"\[auth\] names no provider", id="no [auth]"),
        pytest.param(secrets_of(mails="a@b.c"), "not a list of mail addresses", id="one address, no list"),
        pytest.param(secrets_of(mails=["anna"]), "not a list of mail addresses", id="no address"),
        pytest.param(secrets_of(mails=[7]), "not a list of mail addresses", id="a number"),
        pytest.param({"administration": "anna"}, "administration is no section", id="no section"),
        pytest.param({"administration": {"passwords": ["x"]}}, "passwords is no section", id="a list of passwords"),
        pytest.param({"administration": {"passwords": {"a": "open sesame"}}}, "something else than hashes", id="plain"),
        pytest.param({"administration": {"passwords": {"a": 7}}}, "something else than hashes", id="password 7"),
        pytest.param(
            {"administration": {"mails": ["a@b.c"]}, "auth": {"client_id": "x", "cookie_secret": "short"}},
            "cookie_secret is shorter than 32",
            id="a cookie secret that can be guessed",
        ),
    ],
)
def test_nothing_or_something_wrong_in_the_secrets_switches_the_administration_off(
    secrets: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AccessDeniedError, match=f"The administration is off: .*{reason}") as denied:
        read_policy(secrets, demo=False)
    assert "open sesame" not in str(denied.value)


def test_a_file_of_secrets_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text("[administration\nmails = ")
    with pytest.raises(AccessDeniedError, match="cannot be read"):
        read_secrets([file])


def test_a_demo_has_no_administration_whatever_the_secrets_say() -> None:
    with pytest.raises(AccessDeniedError, match="public demo"):
        read_policy({"administration": {"passwords": {"physicist": HASH}}}, demo=True)


def test_a_mail_address_is_known_in_any_case_but_never_by_a_letter_that_looks_alike() -> None:
    assert mail_key(" Kim@Hospital.EXAMPLE ") == "kim@hospital.example"
    kelvin = "\N{KELVIN SIGN}im@hospital.example"
    assert kelvin.lower() == "kim@hospital.example"  # what makes the naive comparison wrong
    assert mail_key(kelvin) != "kim@hospital.example"


def test_the_command_line_is_named_by_the_owner_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, "somebody-else")
    name = command_line().confirm()
    assert name.endswith(" (command line)")
    if sys.platform != "win32":
        import pwd

        assert name == f"{pwd.getpwuid(os.getuid()).pw_name} (command line)"


# ---- Passwords -----------------------------------------------------------------------------------------------


class Server:
    """A server's secrets, ledger and log, as a restart finds them again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passwords = {"physicist": HASH, "deputy": FAST.hash("another long secret")}

    def read_policy(self) -> Policy:
        return read_policy({"administration": {"passwords": self.passwords}}, demo=False)

    @property
    def log(self) -> AuditLog:
        return AuditLog(self.folder / "audit.sqlite")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "access.sqlite")

    @property
    def access(self) -> PasswordAccess:
        return PasswordAccess(self.read_policy, self.ledger, self.log)

    def written(self) -> list[tuple[str, str]]:
        return [(entry.who, entry.action) for entry in self.log.read()]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "state")


def test_the_right_password_gives_a_permit_and_an_entry(server: Server) -> None:
    permit = server.access.sign_in("physicist", SECRET)
    assert permit.confirm() == "physicist"
    assert server.written() == [("physicist", "sign-in")]


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("physicist", "wrong"),
        ("nobody", SECRET),
        ("deputy", SECRET),
        ("", ""),
        ("physicist", ""),
        ("Physicist", SECRET),
        ("physicist", SECRET + " "),
        ("physicist", "\ud800"),
        ("\ud800", SECRET),
        ("physicist", "x" * 100_000),
    ],
)
def test_a_wrong_name_or_password_is_refused_in_the_same_words_and_written_down(
    server: Server, name: str, typed: str
) -> None:
    with pytest.raises(AccessDeniedError, match=r"^The name or the password is wrong\. Type both again\.$"):
        server.access.sign_in(name, typed)
    ((who, action),) = server.written()
    assert action == "sign-in.refused"
    assert who == (name if name in server.passwords else "unknown name")


def test_what_was_typed_stands_in_no_file(server: Server) -> None:
    """Also not as a name: people type passwords into the wrong field."""
    with pytest.raises(AccessDeniedError):
        server.access.sign_in("my secret password", "another secret password")
    kept = b"".join(file.read_bytes() for file in server.folder.iterdir())
    assert b"secret password" not in kept


@pytest.mark.parametrize("name", ["physicist", "deputy", "nobody", ""])
def test_a_name_that_nobody_has_costs_the_same_work(server: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A4, constant time: the hash is what takes time, so what is counted is which hashes were worked through."""
    worked: list[tuple[str, str]] = []
    original = PasswordHasher.verify

    def verify(self: PasswordHasher, hashed: str, typed: str) -> bool:
        worked.append((hashed, typed))
        return original(self, hashed, typed)

    monkeypatch.setattr(password.PasswordHasher, "verify", verify)
    with suppress(AccessDeniedError):
        server.access.sign_in(name, SECRET)
    assert worked == [(hashed, SECRET) for hashed in server.passwords.values()]


def test_a_permit_ends_when_its_name_leaves_the_secrets(server: Server) -> None:
    """A5."""
    permit = server.access.sign_in("physicist", SECRET)
    del server.passwords["physicist"]
    with pytest.raises(AccessDeniedError, match="no administrator any more"):
        permit.confirm()


def test_a_permit_ends_when_the_password_is_changed(server: Server) -> None:
    """A5."""
    permit = server.access.sign_in("physicist", SECRET)
    server.passwords["physicist"] = FAST.hash(SECRET)
    with pytest.raises(AccessDeniedError, match="your password was changed"):
        permit.confirm()


def test_a_permit_ends_when_the_administration_is_switched_off(server: Server) -> None:
    permit = server.access.sign_in("physicist", SECRET)
    server.passwords.clear()
    with pytest.raises(AccessDeniedError, match="The administration is off"):
        permit.confirm()


def test_a_permit_ends_at_sign_out_and_stays_ended(server: Server) -> None:
    permit = server.access.sign_in("physicist", SECRET)
    other = server.access.sign_in("physicist", SECRET)
    permit.sign_out()
    permit.sign_out()
    with pytest.raises(AccessDeniedError, match="Your sign-in has ended"):
        permit.confirm()
    assert other.confirm() == "physicist"
    assert server.written() == [("physicist", "sign-in")] * 2 + [("physicist", "sign-out")]


def test_a_permit_ends_after_a_working_day(server: Server) -> None:
    fresh = server.access.sign_in("physicist", SECRET)
    old = PasswordPermit(fresh.access, fresh.name, fresh.hashed, fresh.sign_in, fresh.opened - MAX_AGE)
    with pytest.raises(AccessDeniedError, match="Your sign-in has ended"):
        old.confirm()


def test_a_permit_that_was_made_up_is_refused(server: Server) -> None:
    """A2: who made it up knows even the hash, but no sign-in was written down."""
    forged = PasswordPermit(server.access, "physicist", HASH, "0" * 32, datetime.now(UTC))
    with pytest.raises(AccessDeniedError):
        forged.confirm()


@pytest.mark.parametrize("broken", ["audit.sqlite", "access.sqlite"])
def test_nobody_is_signed_in_that_cannot_be_written_down(server: Server, broken: str) -> None:
    """J4."""
    server.folder.mkdir()
    (server.folder / broken).mkdir()
    with pytest.raises(OutputError):
        server.access.sign_in("physicist", SECRET)


# ---- The throttle --------------------------------------------------------------------------------------------


def test_after_five_wrong_passwords_nobody_may_try_for_a_while_that_doubles() -> None:
    waits = [int(wait_after(failed).total_seconds()) for failed in range(13)]
    assert waits == [0, 0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900, 900]
    assert wait_after(10**9) == LONGEST_WAIT


def guess(server: Server, times: int) -> list[str]:
    said = []
    for number in range(times):
        with pytest.raises(AccessDeniedError) as denied:
            server.access.sign_in("physicist", f"guess {number}")
        said.append(denied.value.problem)
    return said


def test_the_sixth_guess_is_not_looked_at_even_if_it_is_right(server: Server) -> None:
    """A4."""
    assert guess(server, 8) == ["The name or the password is wrong."] * 5 + ["Too many wrong passwords."] * 3
    with pytest.raises(AccessDeniedError, match=r"Nobody can sign in for another \d+ seconds"):
        server.access.sign_in("physicist", SECRET)
    entries = server.log.read()
    assert [entry.details["wrong_in_a_row"] for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[-1].details["wait_seconds"] == 30
    assert len(entries) == 5  # those turned away unlooked-at cannot fill the disk


def test_a_restart_of_the_server_gives_no_new_tries(server: Server) -> None:
    """A4: another process finds the door as locked as the first left it."""
    guess(server, FREE_TRIES)
    code = """
import sys
from pathlib import Path
from busi_core.access.ledger import Ledger
from busi_core.errors import AccessDeniedError
try:
    Ledger(Path(sys.argv[1])).take_try()
except AccessDeniedError as error:
    print(error.problem)
"""
    path = str(server.folder / "access.sqlite")
    said = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "Too many wrong passwords."


def test_a_guess_cut_off_by_a_kill_counts(server: Server) -> None:
    """Counted before the password is looked at."""
    for _ in range(FREE_TRIES):
        server.ledger.take_try()
    with pytest.raises(AccessDeniedError, match="Too many wrong passwords"):
        server.access.sign_in("physicist", SECRET)


def test_guesses_side_by_side_share_the_five_tries(server: Server) -> None:
    server.ledger.is_open("")  # makes the file
    code = """
import sys
from pathlib import Path
from busi_core.access.ledger import Ledger
from busi_core.errors import AccessDeniedError
taken = 0
for _ in range(10):
    try:
        Ledger(Path(sys.argv[1])).take_try()
        taken += 1
    except AccessDeniedError:
        pass
print(taken)
"""
    command = [sys.executable, "-c", code, str(server.folder / "access.sqlite")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert sum(int(process.communicate()[0]) for process in running) == FREE_TRIES


def test_after_the_wait_there_is_one_try_and_then_a_longer_wait(server: Server) -> None:
    for _ in range(FREE_TRIES):
        server.ledger.take_try(NOON)
    with pytest.raises(AccessDeniedError, match="another second;"):
        server.ledger.take_try(NOON + timedelta(seconds=29))
    assert server.ledger.take_try(NOON + timedelta(seconds=30)) == 6
    with pytest.raises(AccessDeniedError, match="another 60 seconds"):
        server.ledger.take_try(NOON + timedelta(seconds=30))


def test_the_right_password_gives_five_tries_again(server: Server) -> None:
    guess(server, FREE_TRIES - 1)
    server.access.sign_in("physicist", SECRET)
    assert guess(server, FREE_TRIES)[-1] == "The name or the password is wrong."


def test_a_quiet_day_gives_five_tries_again(server: Server) -> None:
    for _ in range(FREE_TRIES):
        server.ledger.take_try(NOON)
    assert server.ledger.take_try(NOON + timedelta(days=1, seconds=1)) == 1


def test_one_wrong_password_while_the_clock_was_ahead_locks_nobody_out(server: Server) -> None:
    assert server.ledger.take_try(NOON + timedelta(days=30)) == 1
    assert server.ledger.take_try(NOON) == 2


def test_a_clock_that_was_set_back_locks_the_door_for_no_longer_than_the_wait_that_is_due(server: Server) -> None:
    for _ in range(FREE_TRIES):
        server.ledger.take_try(NOON)
    before = NOON - timedelta(days=400)
    with pytest.raises(AccessDeniedError, match="another 30 seconds"):
        server.ledger.take_try(before)
    with pytest.raises(AccessDeniedError, match="another second;"):  # it counts from then on
        server.ledger.take_try(before + timedelta(seconds=29))
    assert server.ledger.take_try(before + timedelta(seconds=30)) == FREE_TRIES + 1


def test_a_ledger_of_a_newer_program_lets_nobody_in(server: Server) -> None:
    """D1."""
    server.access.sign_in("physicist", SECRET)
    with closing(sqlite3.connect(server.folder / "access.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="Update the program"):
        server.access.sign_in("physicist", SECRET)


# ---- busi hash-password --------------------------------------------------------------------------------------


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    answers = iter(lines)
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(answers))


def test_the_command_prints_a_hash_that_the_password_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, SECRET, SECRET)
    assert cli.main(["hash-password"]) == 0
    hashed = capsys.readouterr().out.strip()
    assert hashed.startswith("$argon2id$")
    assert PasswordHasher().verify(hashed, SECRET)
    assert read_policy({"administration": {"passwords": {"a": hashed}}}, demo=False).passwords == {"a": hashed}


@pytest.mark.parametrize(
    ("lines", "said"), [(("short",), "has 5 characters"), ((SECRET, SECRET + "!"), "The two differ")]
)
def test_the_command_prints_nothing_for_a_password_that_is_short_or_mistyped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: tuple[str, ...], said: str
) -> None:
    type_in(monkeypatch, *lines)
    assert cli.main(["hash-password"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert SECRET not in shown.err


def test_two_hashes_of_one_password_differ() -> None:
    """Salted: equal passwords of two administrators do not show."""
    assert hash_password(SECRET) != hash_password(SECRET)
