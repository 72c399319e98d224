"""Read a file whose name others chose: never wait for a pipe, never take in a device without end."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """A file, open to read.

    Raises:
        OSError: It cannot be opened, or is a pipe, a device or a folder.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is a pipe, a device or a folder", str(path))
    with os.fdopen(handle, "rb") as file:
        yield file


def read_regular(path: Path, most: int) -> bytes:
    """The content of a file, or its first `most` + 1 bytes, so that a longer one shows as too long.

    Raises:
        OSError: As `open_regular`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, most) + 1)  # no more memory than it takes
        if size < len(data) <= most:  # it grew, or lies in /proc, where each has 0 bytes
            data += file.read(most + 1 - len(data))
        return data
