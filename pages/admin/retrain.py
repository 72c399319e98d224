"""Retrain: order a training, watch it, compare it with the others."""

import streamlit as st

from busi_core import BusiError, read_settings
from busi_core.access import Permit
from busi_core.jobs.launch import ensure_worker
from busi_core.jobs.ledger import list_jobs
from busi_core.jobs.run_folder import read_curves
from busi_core.jobs.spec import QUEUED, RUNNING, Job
from busi_core.settings import Settings
from pages.components.admin import require_admin
from pages.components.page import show_error, start_page, to_minutes
from pages.components.training_charts import FIGURES, draw_comparison
from pages.components.training_order import label_data_sets, show_order_form
from pages.components.training_panel import show_job

POLL_SECONDS = 2.0
COMPARED = 4  # runs that the comparison begins with


def follow(permit: Permit, settings: Settings, shown: dict[str, str]) -> None:
    """The chosen training, drawn again every few seconds while one waits or runs."""
    try:
        permit.confirm()  # an administrator who was removed sees no more either
        jobs = list_jobs(settings)
        ensure_worker(settings, jobs)
    except BusiError as error:
        show_error(error)
        return
    if {job.id: job.state for job in jobs} != shown:  # the list below the panel is of another moment
        st.rerun()
    if not jobs:
        st.info("Nothing was trained here yet.", icon=":material/model_training:")
        return
    names = {job.id: say_run(job) for job in jobs}
    if st.session_state.get("job") not in names:
        st.session_state["job"] = next((job.id for job in jobs if job.state == RUNNING), jobs[0].id)
    chosen = st.selectbox("Training", list(names), format_func=names.__getitem__, key="job", width=420)
    show_job(permit, next(job for job in jobs if job.id == chosen), jobs, settings, label_data_sets(settings))


def say_run(job: Job) -> str:
    """A name that no other run has and that stays: a browser holds a choice by what it is called."""
    return f"{job.spec.version} · {job.created[:19].replace('T', ' ')}"


def compare(jobs: list[Job]) -> None:
    """All trainings as a table, and their curves over each other."""
    curves = {job.id: read_curves(job) for job in jobs}
    best = {id: max(epochs, key=lambda epoch: epoch.score) for id, epochs in curves.items() if epochs}
    st.header("All trainings", anchor=False)
    st.dataframe(
        {
            "version": [job.spec.version for job in jobs],
            "state": [job.state for job in jobs],
            "ordered by": [job.who for job in jobs],
            "ordered (UTC)": [to_minutes(job.created) for job in jobs],
            "start": [job.spec.start for job in jobs],
            "data sets": [", ".join(job.spec.data_sets) for job in jobs],
            "size": [job.spec.size for job in jobs],
            "learning rate": [f"{job.spec.learning_rate:g}" for job in jobs],
            "epochs": [f"{len(curves[job.id])} of {job.spec.epochs}" for job in jobs],
            "best epoch": [best[job.id].epoch if job.id in best else None for job in jobs],
            "score": [best[job.id].score if job.id in best else None for job in jobs],
            "Dice": [best[job.id].dice if job.id in best else None for job in jobs],
            "macro-F1": [best[job.id].macro_f1 if job.id in best else None for job in jobs],
            "normals with mask": [best[job.id].normals_with_mask if job.id in best else None for job in jobs],
        },
        hide_index=True,
        placeholder="–",
        column_config={
            name: st.column_config.NumberColumn(format="%.3f")
            for name in ("score", "Dice", "macro-F1", "normals with mask")
        },
        key="job-table",
    )
    st.caption(
        "Figures of validation scans at the best epoch; only the gate on the locked test set says what is better."
    )
    ran = {job.id: say_run(job) for job in jobs if job.id in best}
    if len(ran) < 2:
        return
    with st.container(horizontal=True):
        chosen = st.multiselect(
            "Compare", list(ran), default=list(ran)[:COMPARED], format_func=ran.__getitem__, key="compare-runs"
        )
        figure = st.selectbox("Figure", list(FIGURES), format_func=FIGURES.__getitem__, key="compare-figure", width=220)
    if chosen:
        runs = {ran[id]: curves[id] for id in chosen}
        st.plotly_chart(draw_comparison(runs, figure), key="compare-chart", config={"displayModeBar": False})


start_page()
permit = require_admin()
st.title("Retrain")
settings = read_settings()
try:
    jobs = list_jobs(settings)
except BusiError as error:
    show_error(error)
    st.stop()
with st.container(key="order-and-watch"):  # on a phone what runs stands above the form (page.css)
    order, watch = st.columns([1, 2], gap="large")
with order:
    st.header("New training", anchor=False)
    show_order_form(permit, settings, jobs)
with watch:
    alive = any(job.state in (QUEUED, RUNNING) for job in jobs)
    st.fragment(follow, run_every=POLL_SECONDS if alive else None)(
        permit, settings, {job.id: job.state for job in jobs}
    )
if jobs:
    compare(jobs)
