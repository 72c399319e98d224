"""The form that orders a training: defaults that work, and how long it will take."""

import os
import string
from datetime import UTC, datetime

import streamlit as st

from busi_core import BusiError
from busi_core.access import Permit
from busi_core.audit import open_audit
from busi_core.jobs.ledger import submit
from busi_core.jobs.measure import measure_speed
from busi_core.jobs.plan import IN_SERVICE, MAX_EPOCHS, RECIPES
from busi_core.jobs.spec import OPEN_STATES, Job, JobSpec
from busi_core.jobs.speed import estimate_seconds
from busi_core.managed.store import list_sets
from busi_core.models.checkpoint import read_card
from busi_core.recipes.product import DATA_SETS, SIMULATED, list_data_sets, read_split
from busi_core.registry import list_versions, read_registry
from busi_core.settings import Settings
from pages.components.page import plain, show_error

SIZES = (128, 192, 256, 320, 384, 512)
_ORDERED = "orders"  # how many this session queued
GENTLE_RATE = 3e-4  # from trained weights a full rate would first undo what they know


def show_order_form(permit: Permit, settings: Settings, jobs: list[Job]) -> None:
    """Fields, estimate and the button; a queued job makes the page run again."""
    try:
        in_service = read_registry(settings.weights_dir).in_service
        side = read_card(settings.weights_dir / in_service).preprocess.side
    except BusiError:
        in_service, side = "", RECIPES["product"].final.preprocess.side
    known = list_data_sets(settings)
    labels = label_data_sets(settings)
    public = [name for name in known if name in DATA_SETS]
    ordered = st.session_state.get(_ORDERED, 0)  # a browser keeps what stands in a field: each order has its own
    version = st.text_input(
        "Name of the new version",
        value=suggest_name(settings, jobs),
        key=f"order-version-{ordered}" if ordered else "order-version",
    )
    recipe = st.selectbox("Recipe", list(RECIPES), format_func=lambda name: f"{name} (U-Net with class head)")
    chosen = st.multiselect(
        "Data sets",
        known,
        default=public or [name for name in known if name != SIMULATED][:1] or [SIMULATED],
        format_func=lambda name: labels.get(name, name),
        key="order-data",
    )
    starts = [*([IN_SERVICE] if in_service else []), "imagenet", "random"]
    starts += [name for name in list_versions(settings.weights_dir) if name != in_service]
    said = {
        IN_SERVICE: f"version in service ({in_service})",
        "imagenet": "encoder (ImageNet)",
        "random": "nothing (random weights)",
    }
    start = st.selectbox("Start from", starts, format_func=lambda name: said.get(name, name), key="order-start")
    going_on = start not in ("imagenet", "random")
    product = RECIPES[recipe].final
    with st.container(horizontal=True):
        epochs = st.number_input("Epochs", 1, MAX_EPOCHS, JobSpec.epochs, key="order-epochs", width=110)
        sizes = sorted({*SIZES, side})
        size = st.selectbox("Size (px)", sizes, index=sizes.index(side), key="order-size", width=110)
        rate = st.number_input(
            "Learning rate",
            min_value=1e-6,
            max_value=1.0,
            value=GENTLE_RATE if going_on else product.learning_rate,
            step=1e-4,
            format="%.5f",
            key=f"order-rate-{'on' if going_on else 'new'}",
            width=150,
        )
    with st.expander("More"), st.container(horizontal=True):
        batch = st.number_input("Images a step", 2, 256, product.batch_size, key="order-batch", width=130)
        patience = st.number_input(
            *("Stop after", 1, MAX_EPOCHS, product.patience),
            key="order-patience",
            width=130,
            help="Epochs without a better score on the validation scans.",
        )
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="order-seed", width=130)
    if chosen:
        show_estimate(settings, tuple(chosen), int(epochs), int(size))
    st.caption(
        f"Queued with at most {int(epochs)} epochs. A number outside its bounds is not taken: the last one holds."
    )
    if st.button(
        "Queue the training", type="primary", icon=":material/play_arrow:", key="order-queue", disabled=not chosen
    ):
        spec = JobSpec(
            *(version.strip(), recipe, tuple(chosen), 0, start, int(epochs), int(size), float(rate)),
            batch_size=int(batch),
            patience=int(patience),
            seed=int(seed),
        )
        try:
            job = submit(permit, spec, settings, open_audit(settings))
        except BusiError as error:
            show_error(error)
        else:
            st.session_state["job"] = job.id
            st.session_state[_ORDERED] = ordered + 1
            st.rerun()


def show_estimate(settings: Settings, data_sets: tuple[str, ...], epochs: int, size: int) -> None:
    """How long it will take at most, from what ran here; a button measures when nothing did."""
    try:
        images, validation = count_images(
            data_sets, str(settings.data_root), str(settings.state_dir), _settings=settings
        )
    except BusiError as error:
        show_error(error)
        return
    counted = f"{images:,} images to train on, {validation:,} to choose by"
    seconds = estimate_seconds(settings.state_dir, images=images, epochs=epochs, side=size)
    if seconds is not None:
        st.caption(
            f"{counted}; about **{say_seconds(seconds)}** at most. An estimate from the last epoch "
            "that ran on this machine; it stops earlier when nothing gets better."
        )
        return
    st.caption(f"{counted}. How long that takes is not known: nothing was trained here yet.")
    if st.button("Measure this machine", icon=":material/timer:", key="order-measure"):
        try:
            with st.spinner("A few steps on noise…"):
                measure_speed(settings, size, {**os.environ, **settings.environment()})
        except BusiError as error:
            show_error(error)
        else:
            st.rerun()


@st.cache_data(ttl=300, show_spinner="Counting the scans…", max_entries=32)
def count_images(data_sets: tuple[str, ...], data_root: str, state_dir: str, *, _settings: Settings) -> tuple[int, int]:
    """Images that an epoch shows, and those that its figures are of; names of sets, no pixels.

    Raises:
        DatasetError: A set is damaged or gone.
    """
    del data_root, state_dir  # part of the key
    split = read_split(_settings, data_sets, test_fold=0)
    return len(split.train), len(split.validation)


def suggest_name(settings: Settings, jobs: list[Job]) -> str:
    """The one after the last of this month: '2026.11-a', '2026.11-b', ...; a name that was taken away is not reused."""
    taken = {*list_versions(settings.weights_dir), *(job.spec.version for job in jobs if job.state in OPEN_STATES)}
    month = f"{datetime.now(UTC):%Y.%m}"
    names = [f"{month}-{letter}" for letter in string.ascii_lowercase]
    after = 1 + max((place for place, name in enumerate(names) if name in taken), default=-1)
    return names[after] if after < len(names) else f"{month}-{len(taken)}"


def label_data_sets(settings: Settings) -> dict[str, str]:
    """What a person calls each data set."""
    managed = {one.id: f"{one.name} ({one.count():,} scans, {one.id[-12:]})" for one in list_sets(settings.state_dir)}
    return {
        "busi": "BUSI (public)",
        "bus-bra": "BUS-BRA (public)",
        SIMULATED: "simulated (a rehearsal, no patients)",
    } | managed


def say_seconds(seconds: float) -> str:
    """'40 s', '12 min', '3 h 20 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def say_sets(names: tuple[str, ...], labels: dict[str, str]) -> str:
    """Data sets in one line of plain text."""
    return ", ".join(plain(labels.get(name, name)) for name in names)
