"""Sign-in through an OpenID Connect provider: it says who somebody is, the secrets say whether they may.

The claims are those of the ID token, whose signature, issuer, audience and nonce the web layer has checked (OpenID
Connect Core 1.0, section 3.1.3.7). Here they are asked for anew at each action.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from busi_core.access.ledger import MAX_AGE, Ledger
from busi_core.access.policy import Policy, mail_key
from busi_core.audit import AuditLog
from busi_core.errors import AccessDeniedError

MAX_CLOCK_DIFFERENCE = timedelta(minutes=5)  # between the provider and this server


@dataclass(frozen=True)
class OidcPermit:
    """The right of somebody whom the provider signed in; asked anew at every `confirm`."""

    access: "OidcAccess"
    sign_in: str

    def confirm(self) -> str:
        """The administrator's mail address.

        Raises:
            AccessDeniedError: They are not on the list (any more), signed out in any tab, or signed in too long ago.
            OutputError: The ledger cannot be read.
        """
        mail, sign_in = self.access.check()
        if sign_in != self.sign_in or not self.access.ledger.is_open(sign_in):
            raise AccessDeniedError("You have signed out.", remedy="Sign in again.")
        return mail

    def sign_out(self) -> None:
        """End this sign-in in every tab; never fails for somebody whose right ended before.

        Raises:
            OutputError: The log or the ledger cannot be written; the sign-in stays open.
        """
        if self.access.ledger.is_open(self.sign_in):
            self.access.audit.append(_mail(self.access.read_claims()), "sign-out", "provider")
        self.access.ledger.close(self.sign_in)


@dataclass(frozen=True)
class OidcAccess:
    """Gives permits to those whom the provider signed in and the secrets name.

    Attributes:
        read_claims: The claims of the ID token of whoever asks, with `is_logged_in`; `st.user` on a page.
        read_policy: Reads the secrets anew; raises AccessDeniedError where nobody may administer.
        ledger: Open and closed sign-ins, kept over a restart.
        audit: Where every sign-in and every refusal is written, once.
    """

    read_claims: Callable[[], Mapping[str, Any]]
    read_policy: Callable[[], Policy]
    ledger: Ledger
    audit: AuditLog

    def sign_in(self) -> OidcPermit:
        """The permit of whoever the provider signed in; written to the log at the first call for that sign-in.

        Raises:
            AccessDeniedError: Nobody is signed in, or somebody who is no administrator.
            OutputError: The log or the ledger cannot be written; nobody was let in.
        """
        try:
            mail, sign_in = self.check()
        except AccessDeniedError as error:
            self._note_refusal(error)
            raise
        if not self.ledger.knows(sign_in, admitted=True):
            self.audit.append(mail, "sign-in", "provider")
            self.ledger.write(sign_in, admitted=True)
        permit = OidcPermit(self, sign_in)
        permit.confirm()
        return permit

    def check(self) -> tuple[str, str]:
        """Mail address and id of the sign-in, if the claims and the secrets, both read now, allow it.

        Raises:
            AccessDeniedError: They do not.
        """
        policy, claims = self.read_policy(), self.read_claims()
        if claims.get("is_logged_in") is not True or not policy.providers:
            raise AccessDeniedError("You are not signed in.", remedy="Sign in first.")
        mail, issued = _mail(claims), _issued(claims)
        # Some providers send the word for the value. One who lets people claim any address must not open the door.
        if claims.get("email_verified") not in (True, "true"):
            raise AccessDeniedError(
                "Your provider does not say that your mail address is verified.",
                remedy="Verify it there and sign in again, or ask the owner of the server.",
            )
        if mail not in policy.mails:
            raise AccessDeniedError(
                f"{mail} is no administrator of this server.",
                remedy="Ask the owner of the server, or sign in as somebody else.",
            )
        now = datetime.now(UTC)
        if issued is None or not issued - MAX_CLOCK_DIFFERENCE <= now <= issued + MAX_AGE:
            raise AccessDeniedError("Your sign-in has ended.", remedy="Sign out and sign in again.")
        return mail, _id(claims)

    def _note_refusal(self, error: AccessDeniedError) -> None:
        claims = self.read_claims()
        if claims.get("is_logged_in") is True and not self.ledger.knows(_id(claims), admitted=False):
            self.audit.append(_mail(claims), "sign-in.refused", "provider", reason=error.problem)
            self.ledger.write(_id(claims), admitted=False)


def _mail(claims: Mapping[str, Any]) -> str:
    mail = claims.get("email")
    return mail_key(mail[:254]) if isinstance(mail, str) and mail.strip() else "no mail address"  # RFC 5321, 4.5.3


def _issued(claims: Mapping[str, Any]) -> datetime | None:
    moment = claims.get("iat")
    try:
        return datetime.fromtimestamp(moment, UTC) if isinstance(moment, int | float) else None
    except (OverflowError, ValueError, OSError):
        return None


def _id(claims: Mapping[str, Any]) -> str:
    """One sign-in of one person at one provider: the same in every tab, another at the next sign-in."""
    parts = [str(claims.get(name)) for name in ("iss", "sub", "iat", "nonce")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
