"""Who may administer, asked anew at every action.

    permit = command_line()                      # at a shell of the server
    permit = PasswordAccess(...).sign_in(...)    # busi_core.access.password
    permit = OidcAccess(...).sign_in(...)        # busi_core.access.oidc

Every function of the core that changes something takes a permit first and calls `permit.confirm()` before anything
else: a page that forgot to ask, a button that was forged and an administrator who was removed a minute ago all fail
there. Nothing here imports Streamlit: a page hands in how its secrets and its user are read.
"""

import getpass
from dataclasses import dataclass
from typing import Protocol


class Permit(Protocol):
    """The right of one administrator to act."""

    def confirm(self) -> str:
        """The administrator's name, asked anew at every call.

        Raises:
            AccessDeniedError: They are none, or none any more.
        """
        ...


@dataclass(frozen=True)
class CommandLinePermit:
    """The owner of the machine at a shell: who can write the state folder needs no further leave."""

    name: str

    def confirm(self) -> str:
        """The user's name, with '(command line)' behind it."""
        return self.name


def command_line() -> Permit:
    """The permit of whoever runs a command; its name is that of the process's owner, not of a variable."""
    return CommandLinePermit(f"{_process_owner()} (command line)")


def _process_owner() -> str:
    try:
        import os
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except ImportError:  # no such module on Windows
        return getpass.getuser()
    except KeyError:  # a container's user without a name
        return f"user {os.getuid()}"
