"""Sign-in with a name and a password, for a single machine without an identity provider."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from busi_core.access.ledger import MAX_AGE, Ledger, wait_after
from busi_core.access.policy import Policy
from busi_core.audit import AuditLog
from busi_core.errors import AccessDeniedError

MIN_PASSWORD = 12  # characters
MAX_PASSWORD = 1000  # characters; more is no password but an attempt to keep the server busy


@dataclass(frozen=True)
class PasswordPermit:
    """The right of somebody who knew a password; ends when it is changed, at sign-out, and after 12 hours."""

    access: "PasswordAccess"
    name: str
    hashed: str  # what the password was held against
    sign_in: str
    opened: datetime

    def confirm(self) -> str:
        """The name that was signed in with.

        Raises:
            AccessDeniedError: Name or password are not in the secrets any more, signed out, or too long ago.
            OutputError: The ledger cannot be read.
        """
        policy = self.access.read_policy()
        if not _same(policy.passwords.get(self.name, ""), self.hashed):
            raise AccessDeniedError(
                "You are no administrator any more, or your password was changed.",
                remedy="Sign in again, or ask the owner of the server.",
            )
        if datetime.now(UTC) - self.opened > MAX_AGE or not self.access.ledger.is_open(self.sign_in):
            raise AccessDeniedError("Your sign-in has ended.", remedy="Sign in again.")
        return self.name

    def sign_out(self) -> None:
        """End this sign-in; never fails for somebody whose right ended before.

        Raises:
            OutputError: The log or the ledger cannot be written; the sign-in stays open.
        """
        if self.access.ledger.is_open(self.sign_in):
            self.access.audit.append(self.name, "sign-out", "password")
        self.access.ledger.close(self.sign_in)


@dataclass(frozen=True)
class PasswordAccess:
    """Gives permits for passwords.

    Attributes:
        read_policy: Reads the secrets anew; raises AccessDeniedError where nobody may administer.
        ledger: Open sign-ins and wrong tries, kept over a restart.
        audit: Where every sign-in and every refusal is written.
    """

    read_policy: Callable[[], Policy]
    ledger: Ledger
    audit: AuditLog

    def sign_in(self, name: str, password: str) -> PasswordPermit:
        """Check name and password; takes the same time for a name that nobody has.

        Tries are counted for all names together, over restarts, before the password is looked at. A try that the
        throttle turns away is not looked at and leaves no entry; the refusal before it tells how long it holds.

        Raises:
            AccessDeniedError: Wrong, too many were wrong before, or nobody may administer.
            OutputError: The log or the ledger cannot be written; nobody was signed in.
        """
        policy = self.read_policy()
        failed = self.ledger.take_try()
        # Every hash is worked through, so that the time tells nothing about the name.
        matches = [_matches(hashed, password) & _same(known, name) for known, hashed in policy.passwords.items()]
        if not any(matches):
            # A name that nobody has may be a password typed into the wrong field: it is not written down.
            who = name if name in policy.passwords else "unknown name"
            wait = int(wait_after(failed).total_seconds())
            self.audit.append(who, "sign-in.refused", "password", wrong_in_a_row=failed, wait_seconds=wait)
            raise AccessDeniedError("The name or the password is wrong.", remedy="Type both again.")
        permit = PasswordPermit(self, name, policy.passwords[name], secrets.token_hex(16), datetime.now(UTC))
        self.audit.append(name, "sign-in", "password")
        self.ledger.write(permit.sign_in, admitted=True)
        self.ledger.forgive()
        return permit


def hash_password(password: str) -> str:
    """The argon2id hash of a password, with the parameters that RFC 9106 recommends for little memory.

    Raises:
        AccessDeniedError: Too short to withstand guessing, or absurdly long.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise AccessDeniedError(
            f"The password has {len(password)} characters.",
            remedy=f"Choose one of {MIN_PASSWORD} to {MAX_PASSWORD}; a few words that do not belong together are good.",
        )
    return PasswordHasher().hash(password)


def _matches(hashed: str, password: str) -> bool:
    try:
        # Cut, so that a huge one keeps nobody busy, and then refused all the same.
        return PasswordHasher().verify(hashed, password[:MAX_PASSWORD]) and len(password) <= MAX_PASSWORD
    except (VerificationError, UnicodeEncodeError):
        return False


def _same(known: str, typed: str) -> bool:
    return compare_digest(known.encode(), typed.encode(errors="replace"))
