"""Who may administer, as the owner of the server wrote it into Streamlit's secrets:

    [administration]
    mails = ["physicist@hospital.example"]    # may administer when [auth] has signed them in

    [administration.passwords]                # or, on a single machine
    physicist = "$argon2id$v=19$..."          # printed by 'busi hash-password'

    [auth]                                    # Streamlit's own section: the OpenID Connect provider
    redirect_uri = "https://reader.hospital.example/oauth2callback"
    cookie_secret = "..."                     # 32 random characters or more: it signs who somebody is
    client_id = "..."
    client_secret = "..."
    server_metadata_url = "https://.../.well-known/openid-configuration"

Nothing there means that nobody may: the administration is off. Something wrong there means the same.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError

from busi_core.errors import AccessDeniedError

MIN_COOKIE_SECRET = 32  # characters; whoever guesses it can sign in as anybody


@dataclass(frozen=True)
class Policy:
    """Attributes:
    mails: Addresses of the administrators that [auth] may sign in, as `mail_key` gives them.
    passwords: Argon2 hash of each administrator who signs in with a password, by name.
    providers: Names for `st.login`, None for the one without a name; empty where [auth] is not set up.
    """

    mails: frozenset[str]
    passwords: Mapping[str, str]
    providers: tuple[str | None, ...]


def read_secrets(files: Sequence[str | Path]) -> dict[str, Any]:
    """The secrets as they stand in the files at this moment; those of a later file go before an earlier one's.

    Streamlit keeps its own copy and looks for changes now and then. An administrator who was taken off the list must
    be refused at the very next action, so the files are read each time.

    Raises:
        AccessDeniedError: A file cannot be read; nobody may administer.
    """
    secrets: dict[str, Any] = {}
    for path in map(Path, files):
        if path.suffix != ".toml":
            continue  # a folder of single values cannot hold the section
        try:
            secrets |= tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise _off("the file of secrets cannot be read") from error
    return secrets


def read_policy(secrets: Mapping[str, Any], *, demo: bool) -> Policy:
    """Who may administer by these secrets.

    Args:
        secrets: From `read_secrets`.
        demo: Of the settings: a public demo has no administration, whatever the secrets say.

    Raises:
        AccessDeniedError: Nobody may: a demo, nothing set up, or something set up wrongly.
    """
    if demo:
        raise AccessDeniedError(
            "This is a public demo; it has no administration.", remedy="Run the program on a machine of your own."
        )
    section, auth = _section(secrets, "administration"), _section(secrets, "auth")
    mails, passwords = section.get("mails", []), _section(section, "passwords")
    if not mails and not passwords:
        raise _off("no administrator is named")
    if not isinstance(mails, list) or not all(isinstance(mail, str) and "@" in mail for mail in mails):
        raise _off("administration.mails is not a list of mail addresses")
    for hashed in passwords.values():
        _require_hash(hashed)
    providers = _providers(auth)
    if mails and not providers and not passwords:
        raise _off("administrators are named by mail address, and [auth] names no provider that could sign them in")
    if providers and len(str(auth.get("cookie_secret", ""))) < MIN_COOKIE_SECRET:
        raise _off(f"auth.cookie_secret is shorter than {MIN_COOKIE_SECRET} characters")
    return Policy(frozenset(map(mail_key, mails)), dict(passwords), providers if mails else ())


def mail_key(mail: str) -> str:
    """What two spellings of one address have in common: the case of ASCII letters does not count.

    Others are compared as they stand: lower() makes a k of the Kelvin sign, so that another address would match.
    """
    mail = mail.strip()
    return mail.lower() if mail.isascii() else mail


def _section(secrets: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = secrets.get(name, {})
    if not isinstance(section, Mapping):
        raise _off(f"{name} is no section")
    return section


def _providers(auth: Mapping[str, Any]) -> tuple[str | None, ...]:
    named = [name for name, value in auth.items() if isinstance(value, Mapping) and "client_id" in value]
    return (*([None] if "client_id" in auth else []), *named)


def _require_hash(hashed: object) -> None:
    try:
        extract_parameters(hashed if isinstance(hashed, str) else "")
    except InvalidHashError as error:
        raise _off("administration.passwords holds something else than hashes of 'busi hash-password'") from error


def _off(reason: str) -> AccessDeniedError:
    return AccessDeniedError(
        f"The administration is off: {reason}.", remedy="The owner of the server switches it on in secrets.toml."
    )
