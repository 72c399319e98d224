"""The process that runs jobs: takes one from the queue at a time, for one device, and watches over its training.

    busi worker                   one for each device of this machine
    busi worker --device cuda:1   only that one

A worker that was killed leaves its job in the database; the next one for the same device takes it up again. A training
that was killed is started again from its last whole epoch; one that dies three times without finishing an epoch fails.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient
from dbos._error import DBOSException
from sqlalchemy.exc import SQLAlchemyError

from busi_core.audit import open_audit
from busi_core.errors import BusiError, JobError, OutputError
from busi_core.jobs.lifeline import end_with_parent, start_child, stop_child
from busi_core.jobs.run_folder import TEXT_FILE, Order, write_order
from busi_core.jobs.spec import RUNS_DIR
from busi_core.jobs.store import (
    APPLICATION,
    APPLICATION_VERSION,
    QUEUE,
    WORKFLOW,
    JsonSerializer,
    database_url,
    open_client,
)
from busi_core.locks import ProcessLock
from busi_core.managed.removal import find_removed
from busi_core.settings import Settings, read_settings
from busi_core.training.log import read_epochs

CHILD = "busi_core.jobs.train_child"
POLL_SECONDS = 0.5  # how often a worker looks whether its job was cancelled
MAX_DEATHS = 3  # of a training, one after the other, without an epoch between them
KILLED = (
    "The training was killed {count} times without finishing an epoch, probably because the memory did not suffice. "
    "Free memory and resume it, or queue it under another name with a smaller batch or size."
)
REMOVED = (
    "The training ended as {sets} was removed while it was read. "
    "Cancel this job, and order another without that data set."
)
BROKEN = "The training ended by an error of the program. The end of its log says which; resume it once that is mended."

_device = "cpu"  # of this process; set once by `serve`


def serve(device: str, *, idle_seconds: float | None = None, machine: ProcessLock | None = None) -> bool:
    """Run jobs on this device until killed, or until nothing was queued for so long.

    Any end of the process is a clean one: the training ends with it, and the next worker takes the job up again.

    Args:
        device: As torch names it.
        idle_seconds: None waits for ever.
        machine: Held where this process serves the whole machine; given back with the device's own lock.

    Returns:
        False when another worker serves the device already.

    Raises:
        JobError: The database cannot be reached.
    """
    global _device
    settings = read_settings()
    lock = ProcessLock(lock_path(settings, device))
    if not lock.acquire():
        return False
    _device = device
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would wait for the thread that watches the training
    with open_client(settings):
        pass  # makes the database, and says in words when it cannot
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_url": database_url(settings),
            "serializer": JsonSerializer(),
            "application_version": APPLICATION_VERSION,
            "executor_id": worker_name(settings, device),
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=1, on_conflict="always_update")
    try:
        _wait(settings, idle_seconds, [lock] if machine is None else [machine, lock])
    finally:
        lock.release()
    return True


def worker_name(settings: Settings, device: str) -> str:
    """Whose jobs a worker takes up after a kill: this machine's with a shared database, else the one there is."""
    return f"{socket.gethostname()}/{device}" if settings.jobs_database else device


def lock_path(settings: Settings, device: str) -> Path:
    """Held by the worker of a device."""
    return settings.state_dir / "workers" / f"{worker_name(settings, device).replace('/', '-').replace(':', '-')}.lock"


def list_devices(settings: Settings) -> list[str]:
    """What can train on this machine. A process of its own counts the GPUs, so that no worker carries torch."""
    if settings.device == "cpu":
        return ["cpu"]
    count = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"],
        capture_output=True,
        text=True,
        check=False,
    )
    gpus = int(count.stdout) if count.returncode == 0 and count.stdout.strip().isdigit() else 0
    return [f"cuda:{number}" for number in range(gpus)] or ["cpu"]


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
def train(content: dict[str, Any]) -> dict[str, Any]:
    """One attempt at a job, started again as often as the worker is."""
    return write_down(content, run_training(content))


@DBOS.step(name="run_training")
def run_training(content: dict[str, Any]) -> dict[str, Any]:
    """Start the child until it says how it ended; gives the `Outcome` as plain values."""
    settings, order = read_settings(), Order.from_json(content)
    run = settings.state_dir / RUNS_DIR / order.job
    try:
        write_order(run, order)
        with open_client(settings) as client:
            return _watch(client, run, order)
    except BusiError as error:
        return {"done": False, "problem": f"{error.problem} {error.remedy}"}


@DBOS.step(name="write_down")
def write_down(content: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    """Into the audit log, once, also when the worker was killed in between. What cannot be written is not done."""
    order, audit = Order.from_json(content), open_audit(read_settings())
    action = "job.done" if outcome["done"] else "job.failed"
    details = {"attempt": order.attempt, "version": order.spec.version, "problem": outcome["problem"]}
    try:
        ended = [entry for entry in audit.read() if "problem" in entry.details]  # not an order that came second
        written = {(entry.action, entry.subject, entry.details.get("attempt")) for entry in ended}
        if (action, order.job, order.attempt) not in written:
            audit.append(order.who, action, order.job, **details)
    except OutputError as error:
        return {"done": False, "problem": outcome["problem"] or f"{error.problem} {error.remedy}"}
    return outcome


def _watch(client: DBOSClient, run: Path, order: Order) -> dict[str, Any]:
    """Children one after the other until one says how it ended, the job is cancelled, or they die too often."""
    deaths, epochs = 0, len(read_epochs(run))
    while True:
        child, report = _start_training(run)
        try:
            while child.poll() is None:
                if _is_cancelled(client, order):
                    return {"done": False, "problem": None}  # nobody reads it: the database says cancelled
                time.sleep(POLL_SECONDS)
        finally:
            stop_child(child)
            said = _read_all(report)
        if said:
            return {**json.loads(said)}
        if child.returncode > 0:
            removed = find_removed(read_settings().state_dir, order.spec.data_sets)
            return {"done": False, "problem": REMOVED.format(sets=" and ".join(removed)) if removed else BROKEN}
        before, epochs = epochs, len(read_epochs(run))
        deaths = 1 if epochs > before else deaths + 1
        if deaths == MAX_DEATHS:
            return {"done": False, "problem": KILLED.format(count=deaths)}


def _start_training(run: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The child, and where to read how it ended."""
    report, told = os.pipe()
    visible = _device.removeprefix("cuda:") if _device.startswith("cuda:") else ""
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible and outer:
        visible = outer.split(",")[int(visible)]
    try:
        child = start_child(
            CHILD,
            [str(run), _device, str(told)],
            run / TEXT_FILE,
            environment={**os.environ, "CUDA_VISIBLE_DEVICES": visible},
            pass_fds=(told,),
        )
    finally:
        os.close(told)
    return child, report


def _read_all(report: int) -> bytes:
    """All that a child wrote into its pipe; it is gone, so the pipe ends."""
    with os.fdopen(report, "rb") as file:
        return file.read()


def _is_cancelled(client: DBOSClient, order: Order) -> bool:
    """Whether somebody cancelled or paused it; not as long as the database does not answer: the next look tells."""
    try:
        (status,) = client.list_workflows(
            workflow_ids=[f"{order.job}.{order.attempt}"], load_input=False, load_output=False
        )
    except (SQLAlchemyError, DBOSException, OSError):
        return False
    return status.status == "CANCELLED"


def _wait(settings: Settings, idle_seconds: float | None, locks: Sequence[ProcessLock]) -> None:
    """Until killed, or idle for so long. Gives its locks back before the last look, so that no job slips between."""
    idle_since = time.monotonic()
    while idle_seconds is None or time.monotonic() - idle_since < idle_seconds:
        time.sleep(1.0)
        if is_busy(settings):
            idle_since = time.monotonic()
    for lock in locks:
        lock.release()
    if is_busy(settings) and all(lock.acquire() for lock in locks):
        _wait(settings, idle_seconds, locks)


def is_busy(settings: Settings) -> bool:
    """Whether a job waits or runs; also when that cannot be told."""
    try:
        with open_client(settings) as client:
            return bool(
                client.list_workflows(
                    name=WORKFLOW, status=["ENQUEUED", "PENDING"], load_input=False, load_output=False
                )
            )
    except JobError:
        return True


def main(arguments: list[str]) -> int:
    """Serve one device as the child of `launch.run_workers`: DEVICE [IDLE_SECONDS]."""
    end_with_parent()
    serve(arguments[0], idle_seconds=float(arguments[1]) if len(arguments) > 1 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
