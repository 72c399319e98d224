"""A place where real workers train tiny networks on simulated scans, for tests; what is started here is ended here."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from versions import write_version

from busi_core.access import command_line
from busi_core.audit import AuditLog, open_audit
from busi_core.jobs import ledger
from busi_core.jobs.run_folder import LOCK_FILE
from busi_core.jobs.spec import Job, JobSpec
from busi_core.jobs.worker import lock_path
from busi_core.locks import is_held
from busi_core.registry import put_into_service
from busi_core.settings import PROJECT_ROOT, Settings

PATIENCE_S = 240.0  # of a wait that ends by a condition; a shared machine may be slow
PR_SET_PDEATHSIG = 1  # of Linux
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def wait_for(condition: Callable[[], Any], *, seconds: float = PATIENCE_S, what: str = "") -> Any:
    """What the condition gives once it holds."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {seconds:.0f} s for {what or condition}"
        time.sleep(0.05)
    return found


@dataclass
class Workshop:
    """State and weights folders of their own, and workers on them.

    Attributes:
        root: Of both folders.
        database: Address of a Postgres; None for SQLite.
    """

    root: Path
    database: str | None = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings(
            weights_dir=self.root / "weights",
            data_root=self.root / "data",
            encoder_dir=self.root / "encoders",
            device="cpu",
            state_dir=self.root / "state",
            jobs_database=self.database,
        )

    @property
    def environment(self) -> dict[str, str]:
        named = {
            "BUSI_WEIGHTS_DIR": str(self.root / "weights"),
            "BUSI_DATA_ROOT": str(self.root / "data"),
            "BUSI_ENCODER_DIR": str(self.root / "encoders"),
            "BUSI_STATE_DIR": str(self.root / "state"),
            "BUSI_DEVICE": "cpu",
        }
        rest = {name: value for name, value in os.environ.items() if not name.startswith("BUSI_")}
        return {**rest, **named, **ONE_THREAD, **({"BUSI_JOBS_DATABASE": self.database} if self.database else {})}

    @property
    def audit(self) -> AuditLog:
        return open_audit(self.settings)

    def start_worker(self, *, file_size_limit: int | None = None) -> subprocess.Popen[bytes]:
        """`busi worker`, as a person starts it; with a limit no file of it can grow beyond so many bytes."""

        return self._start("-m", "busi_core.cli", "worker", file_size_limit=file_size_limit)

    def start_app(self) -> subprocess.Popen[bytes]:
        """The page Retrain as a process without a screen: it starts a worker in the background when none is there."""
        return self._start(str(Path(__file__).with_name("keep_worker.py")))

    def worker_pid(self) -> int | None:
        """Process id of the worker that serves the CPU here, whoever started it; None when there is none."""
        lock = lock_path(self.settings, "cpu")
        return int(lock.read_text()) if is_held(lock) else None

    def _start(self, *program: str, file_size_limit: int | None = None) -> subprocess.Popen[bytes]:
        def limit() -> None:
            if sys.platform == "linux":  # pytest may be killed before it tidies up
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if file_size_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))

        with (self.root / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *program],
                cwd=PROJECT_ROOT,
                env={**self.environment, "PYTHONPATH": str(PROJECT_ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=limit,
            )
        self.started.append(process)
        return process

    def submit(self, version: str, **changes: Any) -> Job:
        return ledger.submit(command_line(), small(version, **changes), self.settings, self.audit)

    def read(self, job: Job) -> Job:
        return ledger.read_job(self.settings, job.id)

    def cancel(self, job: Job) -> Job:
        return ledger.cancel(command_line(), job.id, self.settings, self.audit)

    def pause(self, job: Job) -> Job:
        return ledger.pause(command_line(), job.id, self.settings, self.audit)

    def resume(self, job: Job) -> Job:
        return ledger.resume(command_line(), job.id, self.settings, self.audit)

    def wait(self, job: Job, *states: str) -> Job:
        """The job once it is in one of these states."""
        wait_for(lambda: self.read(job).state in states, what=f"{states}, is {self.read(job)}\n{self.said(job)}")
        return self.read(job)

    def said(self, job: Job) -> str:
        """All logs, for a test that failed."""
        paths = (self.root / "worker.log", job.run_dir / "train.log")
        return "\n".join(path.read_text(errors="replace") for path in paths if path.is_file())

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        for lock in (self.settings.state_dir / "workers").glob("*.lock"):
            if is_held(lock):  # a worker that the app started
                kill(int(lock.read_text()))


def small(version: str, **changes: Any) -> JobSpec:
    """An order for a tiny network, which goes on from the tiny one in service."""
    values = {"data_sets": ("simulated",), "epochs": 2, "size": 32, "batch_size": 6, **changes}
    return JobSpec(version, **values)


@contextmanager
def open_workshop(root: Path, database: str | None = None) -> Iterator[Workshop]:
    """With the version 'tiny' in service; all workers end with the block."""
    workshop = Workshop(root, database)
    write_version(root / "weights", "tiny")
    put_into_service(root / "weights", "tiny")
    try:
        yield workshop
    finally:
        workshop.close()


def training_pid(job: Job) -> int | None:
    """Process id of the training child that holds the run; None when there is none."""
    lock = job.run_dir / LOCK_FILE
    if not is_held(lock):
        return None
    text = lock.read_text().strip()
    return int(text) if text else None


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int) -> None:
    """As the system does when memory runs out; nothing happens when it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
