"""Permits for tests: one that says yes, one that says no, one that is withdrawn."""

from dataclasses import dataclass

from busi_core.errors import AccessDeniedError


@dataclass
class Allowed:
    """Says yes and counts how often it was asked; `withdraw()` makes it say no from then on."""

    name: str = "physicist@hospital.example"
    asked: int = 0
    withdrawn: bool = False

    def confirm(self) -> str:
        self.asked += 1
        if self.withdrawn:
            raise AccessDeniedError("You are no administrator any more.", remedy="Ask the owner of the server.")
        return self.name

    def withdraw(self) -> None:
        self.withdrawn = True


@dataclass
class Denied:
    """Says no, as for somebody who is no administrator."""

    def confirm(self) -> str:
        raise AccessDeniedError("You are no administrator.", remedy="Ask the owner of the server.")
