"""A process that must not outlive its parent: it holds a pipe whose other end only the parent has.

When the parent ends, however it ends, the system closes that end; the child reads 'end of file' and kills its own
process group. Unlike a signal of the system on a parent's death this needs no Linux, and does not fire when only the
thread that started the child ends.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from busi_core.settings import PROJECT_ROOT

STDIN = 0  # read below Python's buffers, whose lock a thread must not hold when the interpreter ends
STOP_SECONDS = 3.0


def start_child(
    module: str,
    arguments: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `python -m module` in a process group of its own that ends with this process.

    Args:
        module: Which calls `end_with_parent` first of all.
        arguments: For it.
        log: What it says goes to the end of this file.
        environment: Instead of this process's own.
        pass_fds: Open files that it inherits.
    """
    with log.open("ab") as said:
        return subprocess.Popen(  # noqa: S603  (this program)
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=PROJECT_ROOT,
            env=dict(environment),
            pass_fds=pass_fds,
            start_new_session=True,
        )


def stop_child(child: subprocess.Popen[bytes]) -> None:
    """Kill the child with all that it started, and wait until it is gone; nothing happens when it is."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(STOP_SECONDS)
    if child.stdin is not None:
        child.stdin.close()


def end_with_parent() -> None:
    """From now on this process and its group end when the parent does."""

    def watch() -> None:
        while os.read(STDIN, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
