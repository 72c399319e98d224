"""Workers that see trouble: one of several dies, the disk is full, the database is gone for a moment."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dbos._error import DBOSException
from sqlalchemy.exc import OperationalError

from busi_core.errors import JobError, OutputError
from busi_core.jobs import launch, worker
from busi_core.jobs.run_folder import Order
from busi_core.jobs.spec import JobSpec
from busi_core.locks import ProcessLock, is_held

PATIENCE_S = 60.0
ORDER = Order("job-1", 1, "Dr. Ada", JobSpec("next"))


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


# ---- One process a device --------------------------------------------------------------------------------------


class Machine:
    """Two GPUs whose workers are small programs; what each device's next one does is said beforehand."""

    def __init__(self) -> None:
        self.started: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.program = {"cuda:0": "import time; time.sleep(600)", "cuda:1": "import time; time.sleep(600)"}
        self.environment: dict[str, str] = {}

    def start(
        self, _module: str, arguments: list[str], _log: Path, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        self.environment = environment
        child = subprocess.Popen([sys.executable, "-c", self.program[arguments[0]]])
        self.started.append((arguments[0], child))
        return child

    def of(self, device: str) -> list[subprocess.Popen[bytes]]:
        return [child for name, child in self.started if name == device]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(os, "environ", dict(os.environ))  # workers put the settings in force into it
    monkeypatch.setenv("BUSI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(launch, "start_child", machine.start)
    monkeypatch.setattr(launch, "list_devices", lambda _settings: list(machine.program))
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(launch, "FIRST_PAUSE", 0.1)
    return machine


def test_a_worker_that_died_is_started_again_while_another_lives(machine: Machine) -> None:
    running = threading.Thread(target=launch.run_workers)
    running.start()
    wait_for(lambda: len(machine.started) == 2)
    machine.of("cuda:0")[0].kill()
    wait_for(lambda: len(machine.of("cuda:0")) == 2)
    assert len(machine.of("cuda:1")) == 1
    machine.program = dict.fromkeys(machine.program, "")  # the next ones find nothing to do
    machine.of("cuda:0")[1].kill()
    machine.of("cuda:1")[0].kill()
    running.join(PATIENCE_S)
    assert not running.is_alive()
    assert [len(machine.of(device)) for device in machine.program] == [3, 2]


def test_workers_that_end_idle_are_not_started_again(machine: Machine) -> None:
    machine.program = dict.fromkeys(machine.program, "")
    assert launch.run_workers()
    assert len(machine.started) == 2


def test_workers_that_all_die_at_once_are_given_up_after_pauses_that_grow(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a database that is gone would keep a process for ever, and its lock."""
    machine.program = dict.fromkeys(machine.program, "raise SystemExit(1)")
    monkeypatch.setattr(launch, "MAX_DEATHS", 3)
    begun = time.monotonic()
    assert launch.run_workers()
    assert min(len(machine.of(device)) for device in machine.program) == 3  # one may die once more beside a living one
    assert time.monotonic() - begun > 0.1 + 0.2


def test_workers_find_folders_that_were_named_from_another_one(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUSI_STATE_DIR", "here")
    machine.program = dict.fromkeys(machine.program, "")
    launch.run_workers()
    assert machine.environment["BUSI_STATE_DIR"] == str(tmp_path / "here")


def test_the_one_worker_of_a_machine_finds_them_too(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in this process, and the trainings that it starts run in another folder."""
    found: dict[str, str] = {}
    machine.program = {"cpu": ""}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUSI_STATE_DIR", "here")
    monkeypatch.setattr(launch, "serve", lambda *_args, **_options: bool(found.update(os.environ)) or True)
    assert launch.run_workers()
    assert found["BUSI_STATE_DIR"] == str(tmp_path / "here")


def test_a_device_that_is_not_there_is_refused_by_name_and_waits_for_nothing(machine: Machine) -> None:
    with pytest.raises(JobError, match=r"no device 'cuda:7' here\. This machine has cuda:0, cuda:1"):
        launch.run_workers(device="cuda:7", idle_seconds=0)
    assert machine.started == []


def test_the_pause_before_a_restart_doubles_up_to_some_minutes() -> None:
    pauses = [launch.pause_after(deaths) for deaths in (1, 2, 3, 4, 1000)]
    assert pauses == [1, 2, 4, 8, launch.LONGEST_PAUSE]


# ---- Locks -----------------------------------------------------------------------------------------------------


def test_on_a_full_disk_a_lock_is_held_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number in it is only for people."""

    def refuse(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = ProcessLock(tmp_path / "lock")
    with monkeypatch.context() as full:
        full.setattr(os, "write", refuse)
        assert lock.acquire()
    assert is_held(lock.path)
    lock.release()
    assert not is_held(lock.path)


def test_a_folder_that_knows_no_locks_is_named_and_nothing_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OutputError, match="'lock' could not be locked"):
        ProcessLock(tmp_path / "lock").acquire()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ---- The database ----------------------------------------------------------------------------------------------


class Interrupted:
    """A client whose database is gone."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def list_workflows(self, **_options: object) -> list[object]:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly")),
        DBOSException("no connection"),
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_database_that_is_gone_for_a_moment_cancels_no_training(error: Exception) -> None:
    assert not worker._is_cancelled(Interrupted(error), ORDER)
