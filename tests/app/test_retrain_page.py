"""The Retrain page without a browser: order, watch, stop, go on, compare. No training runs here."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from versions import write_version

from busi_core.access import command_line
from busi_core.audit import open_audit
from busi_core.errors import AccessDeniedError
from busi_core.files import write_atomically
from busi_core.jobs import launch, ledger
from busi_core.jobs.run_folder import Status, write_status
from busi_core.jobs.spec import CANCELLED, DONE, FAILED, PAUSED, QUEUED, RUNNING, Job, JobSpec
from busi_core.jobs.speed import write_speed
from busi_core.registry import put_into_service
from busi_core.settings import Settings, read_settings
from busi_core.training.log import LOG_FILE, Epoch
from pages.components.training_order import suggest_name

PAGE = Path(__file__).parents[2] / "pages/admin/retrain.py"
TIMEOUT_SECONDS = 120
SPEC = JobSpec("2026.12-x", data_sets=("simulated",), epochs=8, size=32, batch_size=6)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A server with the version 'tiny' in service, an administrator who is signed in, and no worker."""
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("BUSI_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("BUSI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BUSI_DEVICE", "cpu")
    monkeypatch.setattr("pages.components.admin.require_admin", command_line)
    monkeypatch.setattr(launch, "ensure_worker", lambda _settings, _jobs: False)
    write_version(tmp_path / "weights", "tiny")
    put_into_service(tmp_path / "weights", "tiny")
    return read_settings()


@pytest.fixture
def job(settings: Settings) -> Job:
    """A job that waits."""
    return ledger.submit(command_line(), SPEC, settings, open_audit(settings))


@pytest.fixture
def becomes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the database say that the newest job is in a state that only a worker could bring it to."""
    real = ledger.list_jobs

    def become(state: str, **changes: object) -> None:
        def listed(settings: Settings) -> list[Job]:
            newest, *others = real(settings)
            return [replace(newest, state=state, **changes), *others]

        monkeypatch.setattr(ledger, "list_jobs", listed)

    return become


def train_some(job: Job, epochs: int, *, offset: float = 0.0) -> None:
    """The files of a run as the training child leaves them."""
    lines = [
        Epoch(n, 2.0 / n, 0.1 * n + offset, 0.0, 0.1 * n, 0.1 * n + offset, 3.0, 60.0) for n in range(1, epochs + 1)
    ]
    write_atomically(job.run_dir / LOG_FILE, "".join(json.dumps(asdict(line)) + "\n" for line in lines).encode())
    write_status(job.run_dir, Status("training", "cpu", 18, 2048.0, validation=5))
    (job.run_dir / "train.log").write_text("18 images to train on\n")


def open_page() -> AppTest:
    page = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    assert not page.exception
    return page


def texts(page: AppTest) -> str:
    kinds = [page.title, page.header, page.markdown, page.error, page.info, page.success, page.caption, page.code]
    return "\n".join(str(block.value) for kind in kinds for block in kind)


def buttons(page: AppTest) -> set[str]:
    return {button.label for button in page.button}


# ---- Order -----------------------------------------------------------------------------------------------------


def test_a_server_on_which_nothing_was_trained_says_so_and_offers_defaults(settings: Settings) -> None:
    page = open_page()
    assert "Nothing was trained here yet" in texts(page)
    assert page.multiselect(key="order-data").value == ["simulated"], "the only set of this server"
    assert page.selectbox(key="order-start").value == "in-service"
    assert page.selectbox(key="order-size").value == 64, "of the version in service"
    assert page.number_input(key="order-epochs").value == 20
    assert "18 images to train on" in texts(page)
    assert "Measure this machine" in buttons(page)


def test_the_time_is_estimated_from_what_ran_here(settings: Settings) -> None:
    write_speed(settings.state_dir, "cpu", 64, 0.5)
    page = open_page()
    assert "about **3 min** at most" in texts(page), "18 images x 20 epochs x 0.5 s"
    page.number_input(key="order-epochs").set_value(100).run()
    assert "about **15 min** at most" in texts(page)


def test_how_many_epochs_would_be_queued_stands_beside_the_button(settings: Settings) -> None:
    """A number that the field refuses never reaches the page."""
    page = open_page()
    assert "Queued with at most 20 epochs." in texts(page)
    page.number_input(key="order-epochs").set_value(3).run()
    assert "Queued with at most 3 epochs." in texts(page)


def test_a_training_names_all_numbers_it_was_ordered_with(settings: Settings) -> None:
    spec = replace(SPEC, epochs=9, patience=4, seed=5)
    ledger.submit(command_line(), spec, settings, open_audit(settings))
    said = texts(open_page())
    assert "at most 9 epochs, stopping after 4 without a better score, seed 5." in said


def test_the_scans_that_an_epoch_is_chosen_by_are_counted_before_the_order(settings: Settings) -> None:
    assert "18 images to train on, 9 to choose by" in texts(open_page())


def test_without_a_data_set_there_is_nothing_to_estimate_and_nothing_to_queue(settings: Settings) -> None:
    page = open_page()
    page.multiselect(key="order-data").set_value([]).run()
    assert not page.exception
    assert page.button(key="order-queue").disabled
    assert "images to train on" not in texts(page)
    assert "Measure this machine" not in buttons(page)


def test_the_learning_rate_follows_what_it_starts_from(settings: Settings) -> None:
    page = open_page()
    assert page.number_input(key="order-rate-on").value == pytest.approx(3e-4)
    page.selectbox(key="order-start").set_value("random").run()
    assert page.number_input(key="order-rate-new").value == pytest.approx(1e-3)


def test_an_order_is_queued_in_the_administrators_name(settings: Settings) -> None:
    page = open_page()
    page.text_input(key="order-version").set_value("next")
    page.number_input(key="order-epochs").set_value(3)
    page.button(key="order-queue").click().run()
    assert not page.exception
    (job,) = ledger.list_jobs(settings)
    assert (job.spec.version, job.spec.epochs, job.spec.size, job.spec.start) == ("next", 3, 64, "tiny")
    assert job.who == command_line().confirm()
    assert "Waits for a free device" in texts(page)


def test_an_order_that_cannot_be_is_explained(settings: Settings, job: Job) -> None:
    page = open_page()
    page.text_input(key="order-version").set_value(SPEC.version)
    page.button(key="order-queue").click().run()
    assert "Another job makes" in page.error[0].value
    assert len(ledger.list_jobs(settings)) == 1


def test_a_free_name_is_suggested(settings: Settings) -> None:
    first = open_page().text_input(key="order-version").value
    assert first.endswith("-a")
    ledger.submit(command_line(), replace(SPEC, version=first), settings, open_audit(settings))
    assert open_page().text_input(key="order-version").value == first[:-1] + "b"


def test_after_an_order_the_next_free_name_is_suggested_on_the_same_page(settings: Settings) -> None:
    page = open_page()
    first = page.text_input(key="order-version").value
    page.button(key="order-queue").click().run()
    assert not page.exception
    assert page.text_input[0].value == first[:-1] + "b"
    page.button(key="order-queue").click().run()
    assert sorted(job.spec.version for job in ledger.list_jobs(settings)) == [first, first[:-1] + "b"]


def test_a_name_of_this_month_that_was_taken_away_is_not_suggested_again(settings: Settings) -> None:
    first = suggest_name(settings, [])
    assert first.endswith("-a")
    write_version(settings.weights_dir, first.replace("-a", "-c"))
    assert suggest_name(settings, []) == first.replace("-a", "-d")


# ---- Watch -----------------------------------------------------------------------------------------------------


def test_a_running_training_shows_how_far_it_is_to_whoever_opens_the_page(
    job: Job, becomes: Callable[..., None]
) -> None:
    """J5: a refreshed page, another browser and a restarted server are all a new session."""
    train_some(job, 3)
    becomes(RUNNING, device="cpu")
    for _ in range(2):
        page = open_page()
        said = texts(page)
        assert SPEC.version.replace(".", "\\.").replace("-", "\\-") in said
        assert [progress.proto.text for progress in page.get("progress")] == [
            "epoch 3 of 8, 60 s left at most · training"
        ]
        figures = {metric.label: metric.value for metric in page.metric}
        assert figures["Best score"] == "0.300"
        assert figures["Memory (GB)"] == "2.0"
        assert all(metric.help for metric in page.metric)
        assert "Figures of 5 validation scans" in " ".join(str(block.value) for block in page.get("html"))
        assert len(page.get("plotly_chart")) == 2
        assert "18 images to train on" in said
        assert {"Pause", "Cancel this training"} <= buttons(page)


def test_a_failed_training_says_why_and_can_be_resumed(
    settings: Settings, job: Job, becomes: Callable[..., None]
) -> None:
    becomes(FAILED, problem="The disk is full. Free some space.")
    page = open_page()
    assert "The disk is full" in page.error[0].value
    assert "Resume" in buttons(page)


def test_a_finished_training_leads_to_its_judgement(job: Job, becomes: Callable[..., None]) -> None:
    train_some(job, 8)
    becomes(DONE)
    page = open_page()
    assert "is a candidate" in page.success[0].value
    assert "Evaluate and judge it" in buttons(page)
    assert not {"Pause", "Resume", "Cancel this training"} & buttons(page)


def test_who_is_no_administrator_any_more_sees_nothing_of_it(
    job: Job, monkeypatch: pytest.MonkeyPatch, becomes: Callable[..., None]
) -> None:
    """A5."""

    class Removed:
        def confirm(self) -> str:
            raise AccessDeniedError("You are no administrator any more.", remedy="Ask the owner of the server.")

    monkeypatch.setattr("pages.components.admin.require_admin", Removed)
    page = open_page()
    assert "no administrator any more" in page.error[0].value
    assert not {"Pause", "Cancel this training"} & buttons(page)


# ---- Stop and go on --------------------------------------------------------------------------------------------


def test_pause_resume_and_cancel_are_one_click_each(settings: Settings, job: Job) -> None:
    page = open_page()
    page.button(key="job-pause").click().run()
    assert ledger.read_job(settings, job.id).state == PAUSED
    assert "Paused" in texts(page)
    page.button(key="job-resume").click().run()
    assert ledger.read_job(settings, job.id).state == QUEUED
    page.button(key="job-cancel").click().run()
    assert ledger.read_job(settings, job.id).state == CANCELLED
    stops = [entry for entry in open_audit(settings).read() if entry.action in ("job.paused", "job.cancelled")]
    assert [entry.details["version"] for entry in stops] == [SPEC.version] * 2
    assert not page.exception
    assert not {"Pause", "Resume", "Cancel this training"} & buttons(page)


# ---- Compare ---------------------------------------------------------------------------------------------------


def test_all_trainings_are_listed_and_their_curves_laid_over_each_other(settings: Settings, job: Job) -> None:
    train_some(job, 4)
    other = ledger.submit(command_line(), replace(SPEC, version="other"), settings, open_audit(settings))
    train_some(other, 6, offset=0.05)
    page = open_page()
    table = page.dataframe[0].value
    assert list(table["version"]) == ["other", SPEC.version]
    assert list(table["best epoch"]) == [6, 4]
    assert list(table["epochs"]) == ["6 of 8", "4 of 8"]
    assert list(table["score"]) == [pytest.approx(0.65), pytest.approx(0.4)]
    assert sorted(page.multiselect(key="compare-runs").value) == sorted([job.id, other.id])
    assert len(page.get("plotly_chart")) == 3
