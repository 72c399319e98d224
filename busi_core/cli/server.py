"""Commands for the keeper of a server: worker, hash-password."""

import argparse
import sys

from busi_core.cli.terminal import Commands, seconds_from_zero


def add_commands(commands: Commands) -> None:
    """Add them to the parser."""
    worker = commands.add_parser("worker", help="run the trainings that were queued, on this machine, until stopped")
    worker.add_argument("--device", metavar="NAME", help="cpu, cuda:0, ...; default: a process for each device")
    worker.add_argument(
        "--until-idle", type=seconds_from_zero, metavar="SECONDS", help="end when nothing was queued for so long"
    )
    worker.set_defaults(run=_worker)

    hash_password = commands.add_parser(
        "hash-password", help="ask for a password and print its hash for the secrets of the server"
    )
    hash_password.set_defaults(run=_hash_password)


def _worker(options: argparse.Namespace) -> int:
    from busi_core.jobs.launch import run_workers

    if not run_workers(device=options.device, idle_seconds=options.until_idle):
        print("busi: another worker does this on this machine already.", file=sys.stderr)
        return 1
    return 0


def _hash_password(_: argparse.Namespace) -> int:
    from getpass import getpass

    from busi_core.access.password import hash_password
    from busi_core.errors import AccessDeniedError

    try:
        password = getpass("Password (it does not show): ")
        hashed = hash_password(password)
        again = getpass("The same again: ")
    except EOFError as error:
        raise AccessDeniedError("No password was typed.", remedy="Run the command at a terminal.") from error
    if again != password:
        raise AccessDeniedError("The two differ.", remedy="Run the command again.")
    print(hashed)
    return 0
