"""What every page of the administration begins with, after `start_page`: who is there, and may they?

A page can be opened without app.py, so each asks for itself; and the core asks again at each action.
"""

from typing import Any, NoReturn

import streamlit as st
from streamlit.errors import Error as StreamlitError

from busi_core import BusiError, read_settings
from busi_core.access import Permit
from busi_core.access.ledger import open_ledger
from busi_core.access.oidc import OidcAccess, OidcPermit
from busi_core.access.password import PasswordAccess, PasswordPermit
from busi_core.access.policy import Policy, read_policy, read_secrets
from busi_core.audit import open_audit
from pages.components.page import plain, show_error

_PERMIT = "admin-permit"  # of the session; written only here, after a password was right

_HOW = """\
An administrator checks data sets, retrains, and puts model versions into service. Reading scans needs none of this.

**On one machine**, with a password: run `busi hash-password` and put what it prints into `.streamlit/secrets.toml`:

```toml
[administration.passwords]
physicist = "$argon2id$v=19$..."
```

**In a hospital**, with the sign-in that its people have already (OpenID Connect):

```toml
[administration]
mails = ["physicist@hospital.example"]

[auth]
redirect_uri = "https://reader.hospital.example/oauth2callback"
cookie_secret = "32 random characters or more"
client_id = "..."
client_secret = "..."
server_metadata_url = "https://login.hospital.example/.well-known/openid-configuration"
```

The file is read anew at each action: a change needs no restart. More in `docs/admin.md`.
"""


def require_admin() -> Permit:
    """The permit of the administrator who is signed in; for anybody else the page ends here with what to do."""
    settings = read_settings()
    try:
        policy = _policy()
    except BusiError as error:
        _show_off(error, demo=settings.demo)
    try:
        permit = _find_permit(policy)
        if permit is None:
            _show_sign_in(policy)
        _show_signed_in(permit, permit.confirm())
    except BusiError as error:
        _show_refused(error)
    return permit


def _policy() -> Policy:
    return read_policy(read_secrets(st.get_option("secrets.files")), demo=read_settings().demo)


def _claims() -> dict[str, Any]:
    return dict(st.user.to_dict())


def _oidc() -> OidcAccess:
    settings = read_settings()
    return OidcAccess(_claims, _policy, open_ledger(settings), open_audit(settings))


def _password() -> PasswordAccess:
    settings = read_settings()
    return PasswordAccess(_policy, open_ledger(settings), open_audit(settings))


def _find_permit(policy: Policy) -> OidcPermit | PasswordPermit | None:
    """Of this session; None when nobody has signed in.

    Raises:
        AccessDeniedError: Somebody has, and is no administrator.
    """
    if isinstance(kept := st.session_state.get(_PERMIT), PasswordPermit):
        return kept
    if policy.providers and _claims().get("is_logged_in") is True:
        return _oidc().sign_in()
    return None


def _show_off(error: BusiError, *, demo: bool) -> NoReturn:
    st.title("Administration")
    st.info(f"{plain(error.problem)} {plain(error.remedy)}", icon=":material/lock:")
    if not demo:
        with st.expander("How to switch it on"):
            st.markdown(_HOW)
    st.stop()


def _show_signed_in(permit: OidcPermit | PasswordPermit, name: str) -> None:
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.caption(f"Signed in as **{plain(name)}**", width="content")
        leave = st.button("Sign out", icon=":material/logout:", type="tertiary", key="admin-sign-out")
    if leave:
        _sign_out(permit)


def _sign_out(permit: OidcPermit | PasswordPermit) -> NoReturn:
    try:
        permit.sign_out()
    except BusiError as error:
        show_error(error)
        st.stop()
    st.session_state.pop(_PERMIT, None)
    if isinstance(permit, OidcPermit):
        st.logout()
        st.stop()
    st.rerun()


def _show_refused(error: BusiError) -> NoReturn:
    """Somebody is signed in, and may not, or may not any more."""
    st.title("Administration")
    show_error(error)
    kept = st.session_state.pop(_PERMIT, None)
    if kept is not None:
        st.button("Sign in again", icon=":material/login:", key="admin-again")  # the rerun finds nobody signed in
    elif st.button("Sign out", icon=":material/logout:", key="admin-sign-out"):
        st.logout()
    st.stop()


def _show_sign_in(policy: Policy) -> NoReturn:
    st.title("Administration")
    with st.container(width=420):
        st.caption("For administrators. What they do is written to the audit log.")
        for provider in policy.providers:
            text = f"Sign in with {provider.capitalize()}" if provider else "Sign in with your account"
            if st.button(text, icon=":material/login:", type="primary", width="stretch", key=f"admin-login-{provider}"):
                _go_to_provider(provider)
        if policy.passwords:
            _show_password_form()
    st.stop()


def _go_to_provider(provider: str | None) -> None:
    try:
        st.login(provider)
    except StreamlitError:
        st.error(
            "The sign-in is not set up completely: a value of [auth] is missing in secrets.toml, or wrong. "
            "Tell the owner of the server.",
            icon=":material/error:",
        )


def _show_password_form() -> None:
    # clear_on_submit: a password does not stay in the page nor in the session.
    with st.form("admin-sign-in", clear_on_submit=True):
        name = st.text_input("Name", autocomplete="username")
        password = st.text_input("Password", type="password", autocomplete="current-password")
        sent = st.form_submit_button(
            "Sign in with the password", icon=":material/login:", type="primary", width="stretch"
        )
        st.caption("It holds in this tab until the tab is reloaded, at most twelve hours.")
    if not sent:
        return
    if not name.strip() or not password:  # nobody guessed: nothing is counted
        st.error("Type the name and the password.", icon=":material/error:")
        return
    try:
        st.session_state[_PERMIT] = _password().sign_in(name.strip(), password)
    except BusiError as error:
        show_error(error)
        return
    st.rerun()
