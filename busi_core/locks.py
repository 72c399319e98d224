"""Locks between processes that the system lets go of when their holder ends, however it ends."""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from busi_core.errors import OutputError
from busi_core.files import remove_left_behind

FOLDER_LOCK = ".busi.lock"  # hidden, so that it is no scan, and gone when the run is over
OPEN_OWN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
CONTENT = re.compile(rb"(\d{1,20}\n?)?")  # a process id; a full disk may cut it short
GLANCE_SECONDS = 0.2  # `is_held` of another process takes the lock for an instant


class ProcessLock:
    """One process at a time holds a file; a kill frees it.

    Only the holder writes its process id into the file, as far as the disk lets it, for a person who looks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def acquire(self, *, wait_seconds: float = GLANCE_SECONDS) -> bool:
        """Take it; False when another process holds it after waiting so long.

        Raises:
            OutputError: The folder cannot be written, or knows no locks, or a file of that name is no lock.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, OPEN_OWN | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link, whose target may be anything
                raise _refuse(self.path) from error
            raise OutputError(
                f"The folder {self.path.parent.name!r} cannot be written to ({error.strerror}).",
                remedy="Check that it is a folder, its permissions and its free space, or choose another one.",
            ) from error
        if not _is_lock(handle):
            os.close(handle)
            raise _refuse(self.path)
        until = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(handle)
                    return False
                time.sleep(0.05)
                continue
            except OSError as error:  # a network folder that knows no locks
                os.close(handle)
                raise OutputError(
                    f"{self.path.name!r} could not be locked ({error.strerror}).",
                    remedy="Choose a folder on a local disk.",
                ) from error
            self._handle = handle
            with suppress(OSError):  # a full disk; the lock holds without its number
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
            return True

    def is_in_place(self) -> bool:
        """Whether the file that is held still bears the name; its last holder may just have removed it."""
        try:
            return self._handle is not None and os.path.samestat(os.fstat(self._handle), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Let go of it; nothing happens when it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _is_lock(handle: int) -> bool:
    """Whether an open file holds nothing, or what a holder writes: to take it is to write over it."""
    return stat.S_ISREG(os.fstat(handle).st_mode) and CONTENT.fullmatch(os.pread(handle, 64, 0)) is not None


def _refuse(path: Path) -> OutputError:
    return OutputError(
        f"{path} is there already and is no lock of this program.", remedy="Move it away, or choose another folder."
    )


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now."""
    try:
        handle = os.open(path, OPEN_OWN)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def hold_folder(folder: Path, within: Iterable[Path] = ()) -> Iterator[None]:
    """The right to write results into a folder, for one run alone; a kill gives it back, and only then its file stays.

    What killed runs left half written in these folders is taken away.

    Args:
        folder: Made where it is missing.
        within: Folders below it that are written to: none of them may be held by another run, as no folder above.

    Raises:
        OutputError: Another run writes there, or the folder cannot be written.
    """
    own = _resolve(folder)
    lock = ProcessLock(own / FOLDER_LOCK)
    held = lock.acquire()
    while held and not lock.is_in_place():
        lock.release()
        held = lock.acquire()
    try:
        lowest = {own, *map(_resolve, within)}
        others = {folder for path in lowest for folder in (path, *path.parents)} - {own}
        if not held or any(is_held(path / FOLDER_LOCK) for path in others):
            raise OutputError(
                f"Another run is writing into the folder {folder}.",
                remedy="Wait until it is done, or choose another folder.",
            )
        for path in lowest:
            remove_left_behind(path)
        yield
    finally:
        if held:
            with suppress(OSError):
                lock.path.unlink()
        lock.release()


def _resolve(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"{folder} is a link that leads back to itself.", remedy="Remove it, or choose another folder."
        ) from error
