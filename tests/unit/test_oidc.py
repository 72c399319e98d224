"""Sign-in through a provider: only a verified address on the list, asked anew at each action (A2, A5)."""

import time
from pathlib import Path
from typing import Any

import pytest

from busi_core.access.ledger import Ledger
from busi_core.access.oidc import OidcAccess, OidcPermit
from busi_core.access.policy import Policy, read_policy
from busi_core.audit import AuditLog
from busi_core.errors import AccessDeniedError

ANNA = "anna@hospital.example"


class Server:
    """A server's secrets, ledger and log; `claims` are those of the session that asks."""

    def __init__(self, folder: Path) -> None:
        self.mails = [ANNA, "Bo@hospital.example"]
        self.claims: dict[str, Any] = {}
        self.log = AuditLog(folder / "audit.sqlite")
        self.ledger = Ledger(folder / "access.sqlite")
        self.access = OidcAccess(lambda: self.claims, self.read_policy, self.ledger, self.log)

    def read_policy(self) -> Policy:
        auth = {"client_id": "reader", "cookie_secret": "c" * 32}
        return read_policy({"administration": {"mails": self.mails}, "auth": auth}, demo=False)

    def come_back(self, **changes: Any) -> None:
        """The browser comes back from the provider with an ID token of these claims."""
        self.claims = {
            "is_logged_in": True,
            "iss": "https://login.hospital.example",
            "sub": "user-1",
            "email": ANNA,
            "email_verified": True,
            "iat": time.time(),
            "nonce": "n1",
        } | changes

    def written(self) -> list[tuple[str, str]]:
        return [(entry.who, entry.action) for entry in self.log.read()]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_an_administrator_gets_a_permit_and_one_entry_for_all_tabs(server: Server) -> None:
    server.come_back()
    permits = [server.access.sign_in() for _ in range(3)]
    assert [permit.confirm() for permit in permits] == [ANNA] * 3
    assert server.written() == [(ANNA, "sign-in")]


@pytest.mark.parametrize("mail", ["ANNA@Hospital.Example", " anna@hospital.example", "bO@HOSPITAL.example"])
def test_addresses_are_compared_without_regard_to_case(server: Server, mail: str) -> None:
    server.come_back(email=mail)
    assert server.access.sign_in().confirm() == mail.strip().lower()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"email": "eve@elsewhere.example"}, id="not on the list"),
        pytest.param({"email": "\N{KELVIN SIGN}im@hospital.example"}, id="a letter that looks alike"),
        pytest.param({"email": None}, id="no address"),
        pytest.param({"email": ["anna@hospital.example"]}, id="a list"),
        pytest.param({"email_verified": False}, id="not verified"),
        pytest.param({"email_verified": None}, id="nothing said about it"),
        pytest.param({"email_verified": "false"}, id="not verified, in a word"),
        pytest.param({"email_verified": "yes"}, id="another word"),
        pytest.param({"is_logged_in": False}, id="not signed in"),
        pytest.param({"is_logged_in": "true"}, id="a word for the flag"),
        pytest.param({"iat": None}, id="no time of sign-in"),
        pytest.param({"iat": "now"}, id="no number for the time"),
        pytest.param({"iat": 1e30}, id="an absurd time"),
        pytest.param({"iat": time.time() + 3600}, id="signed in an hour from now"),
        pytest.param({"iat": time.time() - 13 * 3600}, id="signed in thirteen hours ago"),
    ],
)
def test_anybody_else_is_refused(server: Server, changes: dict[str, Any]) -> None:
    server.mails.append("kim@hospital.example")
    server.come_back(**changes)
    for _ in range(3):
        with pytest.raises(AccessDeniedError):
            server.access.sign_in()
    refused = [action for _, action in server.written()]
    assert refused == (["sign-in.refused"] if server.claims["is_logged_in"] is True else [])


def test_without_a_session_of_the_provider_nobody_is_signed_in(server: Server) -> None:
    with pytest.raises(AccessDeniedError, match="You are not signed in"):
        server.access.sign_in()
    assert server.written() == []


def test_a_provider_that_sends_the_word_true_is_understood(server: Server) -> None:
    server.come_back(email_verified="true")
    assert server.access.sign_in().confirm() == ANNA


def test_an_administrator_removed_during_the_session_is_refused_at_the_next_action(server: Server) -> None:
    """A5."""
    server.come_back()
    permit = server.access.sign_in()
    server.mails.remove(ANNA)
    with pytest.raises(AccessDeniedError, match="no administrator of this server"):
        permit.confirm()
    server.mails.append(ANNA)
    assert permit.confirm() == ANNA


def test_a_provider_taken_out_of_the_secrets_lets_nobody_act(server: Server) -> None:
    """A5."""
    server.come_back()
    permit = server.access.sign_in()
    server.mails.clear()
    with pytest.raises(AccessDeniedError, match="The administration is off"):
        permit.confirm()


def test_sign_out_ends_the_sign_in_in_every_tab_and_for_good(server: Server) -> None:
    """Streamlit itself leaves other tabs signed in, and a copied cookie works for 30 days."""
    server.come_back()
    here, there = server.access.sign_in(), server.access.sign_in()
    here.sign_out()
    there.sign_out()
    with pytest.raises(AccessDeniedError, match="You have signed out"):
        there.confirm()
    with pytest.raises(AccessDeniedError, match="You have signed out"):
        server.access.sign_in()
    assert server.written() == [(ANNA, "sign-in"), (ANNA, "sign-out")]


def test_signing_in_again_opens_a_new_sign_in(server: Server) -> None:
    server.come_back()
    server.access.sign_in().sign_out()
    server.come_back(nonce="n2")
    assert server.access.sign_in().confirm() == ANNA
    assert server.written() == [(ANNA, "sign-in"), (ANNA, "sign-out"), (ANNA, "sign-in")]


def test_a_permit_does_not_pass_to_another_person_in_the_same_session(server: Server) -> None:
    server.come_back()
    permit = server.access.sign_in()
    server.come_back(sub="user-2", email="bo@hospital.example")
    server.access.sign_in()
    with pytest.raises(AccessDeniedError):
        permit.confirm()


def test_a_permit_that_was_made_up_is_refused(server: Server) -> None:
    """A2."""
    server.come_back()
    with pytest.raises(AccessDeniedError):
        OidcPermit(server.access, "0" * 64).confirm()


def test_somebody_refused_who_is_put_on_the_list_comes_in(server: Server) -> None:
    server.come_back(email="cy@hospital.example")
    with pytest.raises(AccessDeniedError):
        server.access.sign_in()
    server.mails.append("cy@hospital.example")
    assert server.access.sign_in().confirm() == "cy@hospital.example"
    assert [action for _, action in server.written()] == ["sign-in.refused", "sign-in"]
