"""Jobs outlive what runs them: kills of worker and training, a full disk, two administrators, a lost screen.

The workers and trainings here are real processes on simulated scans. BUSI_FULL_COUNT=1 kills 50 times instead of 3.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file
from workshop import Workshop, is_alive, kill, open_workshop, small, training_pid, wait_for

from busi_core.access import command_line
from busi_core.errors import AccessDeniedError, BusiError, JobError, ModelUnavailableError
from busi_core.files import write_atomically
from busi_core.jobs import ledger, worker
from busi_core.jobs.examples import COUNT, GAP_PX, TILE_PX
from busi_core.jobs.plan import IN_SERVICE, NEW_STARTS, plan_recipe, settle
from busi_core.jobs.run_folder import Order, list_examples, read_curves, read_status, read_text
from busi_core.jobs.spec import CANCELLED, DONE, FAILED, PAUSED, QUEUED, RUNNING, Job, JobSpec
from busi_core.jobs.speed import estimate_seconds
from busi_core.models.checkpoint import read_card
from busi_core.registry import read_registry
from busi_core.training.log import read_epochs
from busi_core.training.state import BEST_FILE
from busi_core.training_run import train_version

KILLS = 50 if os.environ.get("BUSI_FULL_COUNT") else 3
LONG = {"epochs": 400, "patience": 400}  # more than any test waits for


class Revoked:
    """A permit that no longer holds."""

    def confirm(self) -> str:
        raise AccessDeniedError("You are no administrator any more.", remedy="Ask the owner of the server.")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """One worker for the tests that need nothing special."""
    with open_workshop(tmp_path_factory.mktemp("workshop")) as place:
        place.start_worker()
        yield place


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Workshop]:
    """Without a worker."""
    with open_workshop(tmp_path) as place:
        yield place


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the order `small('...', epochs=8)` that nothing happened to, made in this process."""
    torch.set_num_threads(1)  # as the workers here
    root = tmp_path_factory.mktemp("undisturbed")
    with open_workshop(root) as place:
        spec = settle(small("quiet", epochs=8), place.settings)
        train_version(
            spec.version,
            plan_recipe(spec, place.settings),
            data_sets=spec.data_sets,
            test_fold=spec.test_fold,
            run=root / "run",
            settings=place.settings,
            resume=False,
        )
    return root / "run"


def same_weights(run: Path, other: Path) -> bool:
    return (run / BEST_FILE).read_bytes() == (other / BEST_FILE).read_bytes()


def is_over(job: Job) -> bool:
    return job.state in (FAILED, DONE)


def losses(run: Path) -> list[float]:
    return [epoch.loss for epoch in read_epochs(run)]


# ---- A job that nothing happens to -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(workshop: Workshop) -> Job:
    """A job of eight epochs that was left alone."""
    ordered = workshop.submit("candidate", epochs=8)
    assert ordered.state == QUEUED
    job = workshop.wait(ordered, DONE, FAILED)
    assert (job.state, job.problem) == (DONE, None), workshop.said(job)
    return job


def test_a_job_ends_as_a_candidate_whose_card_names_it_and_service_stays(workshop: Workshop, finished: Job) -> None:
    card = read_card(workshop.settings.weights_dir / "candidate")
    assert card.training["job"] == finished.id
    assert card.training["data_sets"] == ["simulated"]
    assert read_registry(workshop.settings.weights_dir).in_service == "tiny"
    actions = [(entry.action, entry.who) for entry in workshop.audit.read() if entry.subject == finished.id]
    assert actions == [("job.queued", finished.who), ("job.done", finished.who)]


def test_a_run_tells_its_epochs_its_device_and_its_memory(finished: Job) -> None:
    assert [epoch.epoch for epoch in read_curves(finished)] == list(range(1, 9))
    assert "epoch 8/8" in read_text(finished.run_dir)
    assert finished.device == "cpu"
    assert finished.started is not None
    assert finished.ended is not None
    status = read_status(finished.run_dir)
    assert status is not None
    assert status.images == 18
    assert status.memory_mb > 50


def test_each_better_epoch_leaves_a_picture_of_the_same_examples(finished: Job) -> None:
    best = 0.0
    better = [
        epoch.epoch
        for epoch in read_curves(finished)
        if epoch.score > best and (best := max(best, epoch.score))  # the first is the best one so far
    ]
    pictures = list_examples(finished.run_dir)
    assert [number for number, _ in pictures] == better
    sizes = {cv2.imread(str(path)).shape for _, path in pictures}
    assert sizes == {(2 * TILE_PX + GAP_PX, COUNT * (TILE_PX + GAP_PX) - GAP_PX, 3)}


def test_being_watched_does_not_change_a_runs_weights(finished: Job, undisturbed: Path) -> None:
    """The child draws pictures, the undisturbed run does not."""
    assert same_weights(finished.run_dir, undisturbed)
    assert losses(finished.run_dir) == losses(undisturbed)
    assert not list_examples(undisturbed)


def test_a_run_to_come_is_estimated_from_what_ran_here(workshop: Workshop, finished: Job, tmp_path: Path) -> None:
    last = read_curves(finished)[-1]
    one = estimate_seconds(workshop.settings.state_dir, images=18, epochs=1, side=32)
    assert one == pytest.approx(last.seconds)
    assert estimate_seconds(workshop.settings.state_dir, images=36, epochs=3, side=64) == pytest.approx(24 * one)
    assert estimate_seconds(tmp_path, images=100, epochs=1, side=32) is None


# ---- Pause, cancel, queue -------------------------------------------------------------------------------------


def test_one_trains_the_next_waits_and_a_cancelled_training_is_gone_within_five_seconds(workshop: Workshop) -> None:
    """J6."""
    first, second = workshop.submit("long", **LONG), workshop.submit("next")
    wait_for(lambda: read_curves(first), what=workshop.said(first))
    assert workshop.read(second).state == QUEUED
    pid = training_pid(first)
    assert pid is not None
    assert workshop.cancel(first).state == CANCELLED
    cancelled = time.monotonic()
    wait_for(lambda: not is_alive(pid), seconds=30)
    assert time.monotonic() - cancelled < 5
    assert workshop.wait(second, RUNNING).state == RUNNING
    assert workshop.read(first).state == CANCELLED
    workshop.cancel(second)
    assert not (workshop.settings.weights_dir / "long").exists()
    with pytest.raises(JobError, match="is cancelled and cannot be resumed"):
        workshop.resume(first)


@pytest.mark.slow
def test_a_paused_job_goes_on_where_it_was_and_ends_with_the_same_weights(
    workshop: Workshop, undisturbed: Path
) -> None:
    ordered = workshop.submit("paused", epochs=8)
    wait_for(lambda: read_curves(ordered), what=workshop.said(ordered))
    paused = workshop.pause(ordered)
    assert paused.state == PAUSED
    wait_for(lambda: training_pid(paused) is None)
    epochs = len(read_curves(paused))
    assert 1 <= epochs < 8
    assert workshop.read(paused).state == PAUSED
    resumed = workshop.resume(paused)
    assert (resumed.id, resumed.attempt, resumed.who) == (ordered.id, 2, ordered.who)
    job = workshop.wait(resumed, DONE, FAILED)
    assert job.state == DONE
    assert same_weights(job.run_dir, undisturbed)
    actions = [entry.action for entry in workshop.audit.read() if entry.subject == job.id]
    assert actions == ["job.queued", "job.paused", "job.resumed", "job.done"]


# ---- Kills ----------------------------------------------------------------------------------------------------


def test_killed_at_random_points_jobs_end_with_the_weights_and_curves_of_an_undisturbed_run(
    alone: Workshop, undisturbed: Path
) -> None:
    """J1: app, worker and training in turn, in an order and at moments that the die says; no epoch is done again."""
    die = random.Random(KILLS)  # noqa: S311
    victims = [name for _ in range(KILLS) for name in die.sample(("app", "worker", "training"), 3)][:KILLS]
    struck = {"app": 0, "worker": 0, "training": 0, "gave up": 0}
    jobs = [alone.submit("killed-0", epochs=8)]
    app = alone.start_app()
    while victims:
        job = jobs[-1]
        wait_for(lambda job=job: training_pid(job) or is_over(alone.read(job)), what=alone.said(job))
        if die.random() < 0.5:  # else into the start; on a busy machine a second does not reach an epoch
            before = losses(job.run_dir)
            wait_for(lambda job=job, before=before: losses(job.run_dir) != before or is_over(alone.read(job)))
        time.sleep(die.uniform(0, 1.5))  # into an epoch, a write, or the making of the version
        state, worker, training = alone.read(job).state, alone.worker_pid(), training_pid(job)
        written = losses(job.run_dir)
        if state == DONE:
            jobs.append(alone.submit(f"killed-{len(jobs)}", epochs=8))
        elif state == FAILED:  # killed three times before it came to an epoch
            assert "killed 3 times" in (alone.read(job).problem or "")
            struck["gave up"] += 1
            alone.resume(job)
        elif training is not None and worker is not None:
            victim = victims.pop()
            struck[victim] += 1
            kill({"app": app.pid, "worker": worker, "training": training}[victim])
            if victim == "app":
                app.wait()
                assert is_alive(worker), "the worker ended with the app that started it"
                app = alone.start_app()
            elif victim == "worker":
                wait_for(lambda pid=training: not is_alive(pid), seconds=10, what="the training to end with its worker")
        assert losses(job.run_dir)[: len(written)] == written
    for job in jobs:
        if alone.wait(job, DONE, FAILED).state == FAILED:
            alone.wait(alone.resume(job), DONE)
        assert same_weights(job.run_dir, undisturbed)
        assert losses(job.run_dir) == losses(undisturbed)
        assert load_file(alone.settings.weights_dir / job.spec.version / "model.safetensors")
    print(f"{struck}; {len(jobs)} jobs, all with the weights of the undisturbed run")  # noqa: T201


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_fails_in_words_and_can_be_resumed(alone: Workshop) -> None:
    """Out of memory looks like this."""
    job = alone.submit("starved", **LONG)
    alone.start_worker()
    for _ in range(3):
        pid = wait_for(lambda: training_pid(job))
        kill(pid)
        wait_for(lambda pid=pid: not is_alive(pid))
    failed = alone.wait(job, FAILED, DONE)
    assert failed.state == FAILED
    assert "killed 3 times without finishing an epoch" in (failed.problem or "")
    assert alone.resume(job).state in (QUEUED, RUNNING)
    assert alone.cancel(job).state == CANCELLED


# ---- What can be wrong with a run -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_fails_the_job_in_words_and_leaves_service_alone_and_later_it_goes_on(
    alone: Workshop, undisturbed: Path
) -> None:
    """J4: no file of the worker can grow as large as a checkpoint, as on a disk without room."""
    checkpoint = (undisturbed / "checkpoint.safetensors").stat().st_size
    job = alone.submit("full", epochs=8)
    worker = alone.start_worker(file_size_limit=checkpoint - 1000)
    failed = alone.wait(job, FAILED, DONE)
    assert failed.state == FAILED
    assert "'checkpoint.safetensors' could not be written" in (failed.problem or "")
    assert "Free some space" in (failed.problem or "")
    assert read_registry(alone.settings.weights_dir).in_service == "tiny"
    assert not [path.name for path in job.run_dir.glob(".*")], "half a file was left behind"
    kill(worker.pid)
    worker.wait()
    alone.start_worker()
    job = alone.wait(alone.resume(job), DONE, FAILED)
    assert job.state == DONE, alone.said(job)
    assert same_weights(job.run_dir, undisturbed)


@pytest.mark.slow
def test_a_loss_that_is_no_number_fails_the_job_in_words(workshop: Workshop) -> None:
    """J7."""
    failed = workshop.wait(workshop.submit("wild", learning_rate=1e30), FAILED, DONE)
    assert failed.state == FAILED
    assert "The loss is not a number in epoch" in (failed.problem or "")
    assert "lower the learning rate" in (failed.problem or "")
    assert not (workshop.settings.weights_dir / "wild").exists()
    assert "job.failed" in [entry.action for entry in workshop.audit.read() if entry.subject == failed.id]


@pytest.mark.parametrize("is_removed", [True, False])
def test_a_training_whose_data_set_was_removed_is_not_called_an_error_of_the_program(
    alone: Workshop, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    for name, value in alone.environment.items():
        monkeypatch.setenv(name, value)
    order = Order("j1", 1, "Ada", small("next", data_sets=("anna-0123456789ab",)))
    ends = "import sys; sys.exit('FileNotFoundError: 0001.png')"
    said, told = os.pipe()
    os.close(told)

    def die(_run: Path) -> tuple[subprocess.Popen[bytes], int]:
        return subprocess.Popen([sys.executable, "-c", ends], stderr=subprocess.DEVNULL, start_new_session=True), said

    monkeypatch.setattr(worker, "_start_training", die)
    monkeypatch.setattr(worker, "_is_cancelled", lambda _client, _order: False)
    if is_removed:
        write_atomically(alone.settings.state_dir / "datasets/anna-0123456789ab/removed.json", b"{}")
    with ledger.open_client(alone.settings) as client:
        outcome = worker._watch(client, alone.root, order)
    assert outcome["done"] is False
    assert ("anna-0123456789ab was removed while it was read" in outcome["problem"]) is is_removed
    assert ("error of the program" in outcome["problem"]) is not is_removed


# ---- Orders that cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (small("tiny"), "There is a version 'tiny' already"),
        (small("registry.json"), "'registry.json' is the name of a file among the versions"),
        (small("a/b"), "cannot be the name of a model version"),
        *((small(start), f"'{start}' already stands for something else") for start in (IN_SERVICE, *NEW_STARTS)),
        (small("next", data_sets=()), "No data set was chosen"),
        (small("next", data_sets=("nowhere",)), "nowhere are not here"),
        (small("next", data_sets=("simulated", "simulated")), "named twice"),
        (small("next", recipe="magic"), "The recipe 'magic' is unknown"),
        (small("next", size=100), "size 100"),
        (small("next", epochs=0), "0 epochs"),
        (small("next", patience=0), "0 without getting better"),
        (small("next", start="gone"), "no model version 'gone'"),
        (small("next", batch_size=1), "batch_size"),
        (small("next", learning_rate=-1.0), "learning_rate must be positive"),
    ],
)
def test_an_order_that_cannot_be_is_refused_in_words_and_nothing_is_queued(
    alone: Workshop, order: JobSpec, said: str
) -> None:
    with pytest.raises(BusiError, match=said):
        ledger.submit(command_line(), order, alone.settings, alone.audit)
    assert ledger.list_jobs(alone.settings) == []
    assert alone.audit.read() == []


def test_a_failed_training_is_given_up_and_its_name_is_free_again(alone: Workshop) -> None:
    job = alone.submit("candidate")
    failed = {"done": False, "problem": "The disk is full. Free some space."}  # as the worker leaves it
    with closing(sqlite3.connect(alone.settings.state_dir / "jobs.sqlite")) as database, database:
        database.execute(
            "UPDATE workflow_status SET status = 'SUCCESS', output = ?, deduplication_id = NULL, queue_name = NULL",
            [json.dumps(failed)],
        )
    assert (alone.read(job).state, alone.read(job).problem) == (FAILED, failed["problem"])
    with pytest.raises(JobError, match="makes 'candidate' already"):
        alone.submit("candidate")
    assert alone.cancel(job).state == CANCELLED
    with pytest.raises(JobError, match="cannot be resumed"):
        alone.resume(job)
    assert alone.submit("candidate").state == QUEUED


def test_every_change_asks_the_permit_again(alone: Workshop) -> None:
    """A2, A5."""
    job = alone.submit("mine")
    for act in (ledger.cancel, ledger.pause, ledger.resume):
        with pytest.raises(AccessDeniedError):
            act(Revoked(), job.id, alone.settings, alone.audit)
    with pytest.raises(AccessDeniedError):
        ledger.submit(Revoked(), small("theirs"), alone.settings, alone.audit)
    assert [(job.spec.version, job.state) for job in ledger.list_jobs(alone.settings)] == [("mine", QUEUED)]
    assert len(alone.audit.read()) == 1


def test_of_two_who_order_the_same_name_at_once_one_wins_and_the_other_sees_who_and_when(
    alone: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J3: also when both have looked at the list before either was in it."""
    monkeypatch.setattr(ledger, "_require_free_name", lambda _version, _jobs: None)
    alone.submit("before")  # the tables are there
    start = threading.Barrier(2)
    won: list[Job] = []
    lost: list[JobError] = []

    def order() -> None:
        start.wait()
        try:
            won.append(alone.submit("twice"))
        except JobError as error:
            lost.append(error)

    threads = [threading.Thread(target=order) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(won), len(lost)] == [1, 1]
    assert won[0].who in lost[0].problem
    assert won[0].created in lost[0].problem
    assert [job.id for job in ledger.list_jobs(alone.settings) if job.spec.version == "twice"] == [won[0].id]


def test_a_name_is_taken_while_a_job_may_still_become_it(alone: Workshop) -> None:
    """J3."""
    job = alone.pause(alone.submit("name"))
    with pytest.raises(JobError, match=r"Another job makes 'name' already: .* and it is paused"):
        alone.submit("name")
    alone.cancel(job)
    assert alone.submit("name").state == QUEUED


def test_of_two_who_resume_at_once_one_wins(alone: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = alone.pause(alone.submit("name"))
    monkeypatch.setattr(ledger, "read_job", lambda _settings, _id: job)  # both saw it paused
    alone.resume(job)
    with pytest.raises(JobError, match="Another job makes 'name' already"):
        alone.resume(job)
    monkeypatch.undo()
    assert alone.read(job).attempt == 2
    for name, value in alone.environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # the second time as after a kill
        worker.write_down(
            Order(job.id, 2, job.who, job.spec).as_json(), {"done": False, "problem": "The disk is full."}
        )
    failed = [entry.details for entry in alone.audit.read() if entry.action == "job.failed"]
    assert [details.get("problem") for details in failed] == [None, "The disk is full."]


def test_in_service_is_settled_when_the_job_is_queued(alone: Workshop) -> None:
    assert alone.submit("later", start="in-service").spec.start == "tiny"
    with pytest.raises(ModelUnavailableError):
        alone.submit("never", start="tinier")


def test_jobs_are_there_for_whoever_asks_without_a_worker(alone: Workshop) -> None:
    """J5: what a screen shows is in the database, not in a session."""
    assert ledger.list_jobs(alone.settings) == []
    first, second = alone.submit("a"), alone.submit("b")
    assert {job.id for job in ledger.list_jobs(alone.settings)} == {first.id, second.id}
    with pytest.raises(JobError, match="no job 'none'"):
        ledger.read_job(alone.settings, "none")


def test_a_second_worker_for_the_same_device_ends_at_once(workshop: Workshop) -> None:
    wait_for(lambda: workshop.worker_pid() is not None, what="the first worker to serve")
    second = workshop.start_worker()
    assert second.wait(timeout=120) == 1
