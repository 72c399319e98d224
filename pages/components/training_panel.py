"""One training: where it stands, its curves, its predictions as they improve, and what can be done with it."""

from collections.abc import Callable
from typing import Literal

import streamlit as st

from busi_core import BusiError
from busi_core.access import Permit
from busi_core.audit import AuditLog, open_audit
from busi_core.jobs.launch import is_running
from busi_core.jobs.ledger import cancel, pause, resume
from busi_core.jobs.run_folder import list_examples, read_curves, read_status, read_text
from busi_core.jobs.spec import CANCELLED, DONE, FAILED, PAUSED, QUEUED, RUNNING, Job
from busi_core.settings import Settings
from busi_core.training.log import Epoch
from pages.components.page import label, plain, show_error, to_minutes
from pages.components.training_charts import draw_loss, draw_validation
from pages.components.training_order import say_seconds, say_sets

Colour = Literal["gray", "blue", "orange", "red", "green"]
STATES: dict[str, tuple[str, Colour, str]] = {
    QUEUED: (":material/hourglass_empty:", "gray", "queued"),
    RUNNING: (":material/model_training:", "blue", "running"),
    PAUSED: (":material/pause_circle:", "orange", "paused"),
    CANCELLED: (":material/cancel:", "gray", "cancelled"),
    FAILED: (":material/error:", "red", "failed"),
    DONE: (":material/check_circle:", "green", "done"),
}
Change = Callable[[Permit, str, Settings, AuditLog], Job]


def show_job(permit: Permit, job: Job, jobs: list[Job], settings: Settings, labels: dict[str, str]) -> None:
    """All about one training."""
    icon, colour, word = STATES[job.state]
    epochs, spec = read_curves(job), job.spec
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(plain(spec.version), width="content", anchor=False)
        st.badge(word, icon=icon, color=colour)
        _show_buttons(permit, job, settings)
    on = f" on {plain(job.device)}" if job.device and job.state == RUNNING else ""
    st.caption(
        f"Ordered by **{plain(job.who)}**, {to_minutes(job.created)} UTC{on}. From **{plain(spec.start)}** on "
        f"**{say_sets(spec.data_sets, labels)}**: {spec.size} px, learning rate {spec.learning_rate:g}, "
        f"{spec.batch_size} images a step, at most {spec.epochs} epochs, stopping after {spec.patience} without a "
        f"better score, seed {spec.seed}."
    )
    _show_state(job, jobs, settings)
    _show_figures(job, epochs)
    if epochs:
        left, right = st.columns(2)
        quiet = {"displayModeBar": False}
        left.plotly_chart(draw_loss(epochs, spec.epochs), key="job-loss", config=quiet)
        right.plotly_chart(draw_validation(epochs, spec.epochs), key="job-validation", config=quiet)
    _show_examples(job)
    if said := read_text(job.run_dir):
        with st.expander("Log"):
            st.code(said, language=None, height=240)


def _show_buttons(permit: Permit, job: Job, settings: Settings) -> None:
    if job.state in (QUEUED, RUNNING) and st.button("Pause", icon=":material/pause:", key="job-pause"):
        _change(pause, permit, job, settings)
    if job.state in (PAUSED, FAILED) and st.button("Resume", icon=":material/play_arrow:", key="job-resume"):
        _change(resume, permit, job, settings)
    if job.state not in (DONE, CANCELLED):
        with st.popover("Cancel", icon=":material/cancel:"):
            st.markdown("It ends for good. What it learned so far is not made into a version.")
            if st.button("Cancel this training", type="primary", key="job-cancel"):
                _change(cancel, permit, job, settings)
    if job.state == DONE and st.button("Evaluate and judge it", icon=":material/gavel:", type="primary", key="judge"):
        st.switch_page("pages/admin/models.py")


def _change(change: Change, permit: Permit, job: Job, settings: Settings) -> None:
    try:
        change(permit, job.id, settings, open_audit(settings))
    except BusiError as error:
        show_error(error)
    else:
        st.rerun()


def _show_state(job: Job, jobs: list[Job], settings: Settings) -> None:
    if job.problem:
        st.error(plain(job.problem), icon=":material/error:")
    if job.state == PAUSED:
        st.info("Paused. Resume it and it goes on after its last whole epoch.", icon=":material/pause_circle:")
    if job.state == DONE:
        st.success(
            f"{plain(job.spec.version)} is a candidate. It reads no scan before it was judged and promoted.",
            icon=":material/check_circle:",
        )
    if job.state == QUEUED:
        before = sum(1 for other in jobs if other.state == RUNNING or _waits_before(other, job))
        waits = f"{before} before it. " if before else ""
        st.info(f"Waits for a free device. {waits}{_say_worker(settings)}", icon=":material/hourglass_empty:")
    if job.state == RUNNING and not is_running(settings):
        st.info(
            "No worker runs on this machine. If it was stopped, it starts again and goes on after the last whole "
            "epoch; if another machine trains this, all is well.",
            icon=":material/restart_alt:",
        )


def _say_worker(settings: Settings) -> str:
    return "" if is_running(settings) else "The worker is starting; that takes some seconds."


def _waits_before(other: Job, job: Job) -> bool:
    return other.state == QUEUED and (other.created, other.id) < (job.created, job.id)


def _show_figures(job: Job, epochs: list[Epoch]) -> None:
    status = read_status(job.run_dir)
    if job.state == RUNNING and status is not None and not epochs:
        st.progress(0.0, text=f"{status.phase}…")
    if not epochs:
        return
    last, best = epochs[-1], max(epochs, key=lambda epoch: epoch.score)
    if job.state in (RUNNING, QUEUED, PAUSED):
        left = f", {say_seconds(last.seconds_left)} left at most" if job.state == RUNNING else ""
        phase = f" · {status.phase}" if status is not None and job.state == RUNNING else ""
        st.progress(last.epoch / job.spec.epochs, text=f"epoch {last.epoch} of {job.spec.epochs}{left}{phase}")
    if status is not None and status.validation:
        st.html(label(f"Figures of {status.validation:,} validation scans; few of them tell little.", css="fine"))
    at_best = f"at the best epoch, {best.epoch}"
    with st.container(horizontal=True):
        st.metric(
            "Best score", f"{best.score:.3f}", width="content", help=f"By it the best epoch is chosen: {best.epoch}."
        )
        st.metric(
            "Lesion Dice",
            f"{best.dice:.3f}",
            width="content",
            help=f"Mean over validation scans with a lesion, {at_best}.",
        )
        st.metric(
            *("Macro-F1", f"{best.macro_f1:.3f}"),
            width="content",
            help=f"Mean of the F1 of normal, benign and malignant on validation scans, {at_best}.",
        )
        st.metric(
            *("Normals given a mask", f"{best.normals_with_mask:.0%}"),
            width="content",
            help=f"Share of normal validation scans in which a lesion is marked, {at_best}; less is better.",
        )
        st.metric("An epoch", say_seconds(last.seconds), width="content", help="What the last one took.")
        if status is not None and status.memory_mb:
            on_gpu = f" + {status.gpu_memory_mb / 1024:.1f} GPU" if status.gpu_memory_mb is not None else ""
            st.metric("Memory (GB)", f"{status.memory_mb / 1024:.1f}{on_gpu}", width="content", help="Largest so far.")


def _show_examples(job: Job) -> None:
    pictures = list_examples(job.run_dir)
    if not pictures:
        return
    st.html(label("The same validation scans each time it got better: reference above, prediction below"))
    numbers = [number for number, _ in pictures]
    picked = numbers[-1]
    if len(numbers) > 1:
        follow = "latest"
        chosen = st.select_slider(
            "Best epoch",
            [*numbers[:-1], follow],
            value=follow,
            key=f"job-example-{job.id}",
            label_visibility="collapsed",
        )
        picked = numbers[-1] if chosen == follow else int(str(chosen))
    st.image(str(dict(pictures)[picked]), caption=f"after epoch {picked}", width="stretch")
