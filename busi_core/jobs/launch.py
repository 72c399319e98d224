"""See that this machine has a worker: started beside the app when a job waits, or alone by `busi worker`."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from busi_core.errors import JobError, OutputError
from busi_core.jobs.lifeline import start_child, stop_child
from busi_core.jobs.spec import QUEUED, RUNNING, Job
from busi_core.jobs.worker import is_busy, list_devices, lock_path, serve
from busi_core.locks import ProcessLock, is_held
from busi_core.settings import PROJECT_ROOT, Settings, read_settings

WORKER = "busi_core.jobs.worker"
LOG_FILE = "worker.log"
MAX_LOG_BYTES = 1_000_000
IDLE_SECONDS = 600.0  # a worker that the app started ends when nothing was queued for so long
LOOK_SECONDS = 1.0  # how often the process of a whole machine looks whether its workers live
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds before a worker that died is started again; doubles with each death
STEADY_SECONDS = 600.0  # who lived so long died of something new
MAX_DEATHS = 8  # of every worker, one soon after the other, until the machine is given up
ALL = "all"  # the lock of the process that serves every device of a machine


def is_running(settings: Settings) -> bool:
    """Whether workers of this machine run, started beside the app or by `busi worker`."""
    return is_held(lock_path(settings, ALL))


def ensure_worker(settings: Settings, jobs: list[Job]) -> bool:
    """Start a worker in the background when a job waits or was left running and no worker is there.

    It outlives the app: closing the browser or stopping the server does not stop a training.

    Returns:
        Whether one was started now.

    Raises:
        OutputError: The state folder cannot be written.
    """
    if is_running(settings) or not any(job.state in (QUEUED, RUNNING) for job in jobs):
        return False
    log = settings.state_dir / LOG_FILE
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.is_file() and log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as said:
            subprocess.Popen(  # noqa: S603  (this program)
                [sys.executable, "-m", "busi_core.cli", "worker", "--until-idle", str(IDLE_SECONDS)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=PROJECT_ROOT,
                env={**os.environ, **settings.environment()},
                start_new_session=True,
            )
    except OSError as error:
        raise OutputError(
            f"The worker could not be started ({error.strerror}).", remedy="Free some space, or run 'busi worker'."
        ) from error
    return True


def run_workers(*, device: str | None = None, idle_seconds: float | None = None) -> bool:
    """Serve one device in this process, or all of this machine with a process each, until killed or idle.

    Of several processes one that dies is started again, after a pause that grows from death to death.

    Returns:
        False when another process does that already.

    Raises:
        JobError: This machine has no such device, or the database of the jobs cannot be reached.
        OutputError: The state folder cannot be written.
    """
    settings = read_settings()
    os.environ.update(settings.environment())  # what is started runs in another folder
    if device is not None:
        if device != "cpu" and device not in (here := list_devices(settings)):
            raise JobError(f"There is no device {device!r} here.", remedy=f"This machine has {', '.join(here)}.")
        return serve(device, idle_seconds=idle_seconds)
    lock = ProcessLock(lock_path(settings, ALL))
    if not lock.acquire():
        return False
    devices = list_devices(settings)
    if len(devices) == 1:
        return serve(devices[0], idle_seconds=idle_seconds, machine=lock)
    idle = [] if idle_seconds is None else [str(idle_seconds)]
    log = settings.state_dir / LOG_FILE
    kept = [_Kept(partial(start_child, WORKER, [name, *idle], log, environment=os.environ)) for name in devices]
    while any(one.lives for one in kept) or any(one.may_return for one in kept):
        time.sleep(LOOK_SECONDS)
        for one in kept:
            one.look()
    lock.release()  # before the last look, so that no job slips between
    if all(one.was_idle for one in kept) and is_busy(settings):
        run_workers(idle_seconds=idle_seconds)
    return True


class _Kept:
    """The worker of one device, started again when it died; one that ended by itself was idle, and stays away."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._start = start
        self._child, self._began = start(), time.monotonic()
        self._deaths = 0  # one soon after the other
        self._due: float | None = None  # when it is started again

    @property
    def lives(self) -> bool:
        return self._child.poll() is None

    @property
    def was_idle(self) -> bool:
        """Whether it ended by itself."""
        return self._child.poll() == 0

    @property
    def may_return(self) -> bool:
        """Whether it died, and not so often that it is given up once no other worker lives."""
        return self._child.poll() not in (None, 0) and self._deaths < MAX_DEATHS

    def look(self) -> None:
        """Start it again when it is dead and its pause is over."""
        now = time.monotonic()
        if self._child.poll() in (None, 0):
            return
        if self._due is None:
            stop_child(self._child)
            self._deaths = 1 if now - self._began > STEADY_SECONDS else self._deaths + 1
            self._due = now + pause_after(self._deaths)
        elif now >= self._due:
            self._due, self._began = None, now
            with suppress(OSError):  # no memory, no disk: as if it had died again
                self._child = self._start()


def pause_after(deaths: int) -> float:
    """Seconds before a worker is started again that died so often, one death soon after the other."""
    return float(min(FIRST_PAUSE * 2 ** min(deaths - 1, 16), LONGEST_PAUSE))
