"""Write a file so that a reader, a kill or a full disk never meets half of it."""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from busi_core.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, then rename over it.

    Raises:
        OutputError: The disk is full, or the folder cannot be written; what was there before stays.
    """
    # Short, for names near the system's limit; its own for every thread, as sessions of one server share a process.
    beside = path.parent / f".busi-{os.getpid()}-{threading.get_ident()}.new"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_new(beside) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{path.name!r} could not be written ({error.strerror}).",
            remedy=f"{'Free some space' if is_full else 'Check the folder and its permissions'}, or choose another.",
        ) from error


def _open_new(path: Path) -> IO[bytes]:
    """Never through a link; what a killed process of the same number left goes."""
    try:
        return path.open("xb")
    except FileExistsError:
        path.unlink()
        return path.open("xb")


def remove_left_behind(folder: Path) -> None:
    """Take away what writers left that were killed; only for who alone writes into the folder now."""
    for rest in folder.glob(".busi-[0-9]*-[0-9]*.new"):  # as `write_atomically` names them
        with suppress(OSError):
            rest.unlink()


def flush_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut; raises OSError as the system does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
