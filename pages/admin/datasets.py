"""Data sets: examine a zip, a folder or the corrected cases; accept what is fit; the versions that are there."""

from collections.abc import Callable

import streamlit as st

from busi_core import BusiError, read_settings
from busi_core.access import Permit
from busi_core.errors import AccessDeniedError
from busi_core.managed.intake import Intake, list_roots, open_corrections, open_folder, open_zip
from busi_core.managed.store import list_sets
from pages.components.admin import require_admin
from pages.components.batch_queue import list_server_folders
from pages.components.dataset_decision import show_decision
from pages.components.dataset_report import show_report
from pages.components.dataset_versions import show_versions
from pages.components.examination import Examination, get_examination
from pages.components.page import label, plain, show_error, start_page

POLL_SECONDS = 0.5  # how often the browser asks for the next piece of work


def begin(examination: Examination, title: str, open_intake: Callable[[], Intake]) -> None:
    """Open what was chosen and examine it, or say why that cannot be."""
    try:
        examination.begin(open_intake(), title)
    except BusiError as error:
        show_error(error)
        return
    st.rerun()


def show_intake(examination: Examination) -> None:
    """A zip, a folder of the server, or the corrected cases."""
    settings = read_settings()
    zipped, folder, corrections = st.tabs(["Zip", "Folder on this server", "Corrected cases"])
    with zipped:
        upload = st.file_uploader(
            "One zip in the layout of BUSI (benign/, malignant/, normal/, masks named scan_mask.png) or BUS-BRA",
            type=["zip"],
            key=f"dataset-zip-{examination.generation}",
        )
        if upload is not None:
            begin(examination, upload.name, lambda: open_zip(upload.getvalue()))
        st.html(
            label(
                "It stays in this session's memory until you accept it; nothing is unpacked to a disk. Reloading the "
                "page loses it.",
                css="fine",
            )
        )
    with folder:
        show_server_folders(examination)
    with corrections:
        where = "that readers kept on the Compare page, with the reader's mask and class"
        st.html(label(f"Cases {where}.", css="fine"))
        if settings.corrections_dir is None:
            st.html(label("This server keeps none: BUSI_CORRECTIONS_DIR is not set.", css="fine"))
        elif st.button("Examine the corrected cases", key="dataset-corrections", icon=":material/draw:"):
            begin(examination, "Corrected cases", lambda: open_corrections(settings))


def show_server_folders(examination: Examination) -> None:
    """The folders below the roots that the server's owner named."""
    folders = list_server_folders(list_roots(read_settings()))
    if not folders:
        st.html(label("This server offers no folder. Its owner can name one: BUSI_BATCH_ROOT.", css="fine"))
        return
    chosen = st.selectbox("Folder", range(len(folders)), format_func=lambda n: folders[n][1], key="dataset-folder")
    if st.button("Examine this folder", key="dataset-read-folder", icon=":material/folder_open:"):
        root, relative = folders[chosen]
        begin(examination, relative, lambda: open_folder(root, relative))


def work_on(examination: Examination, permit: Permit) -> None:
    """The next few seconds of examining; the browser asks again until it is done."""
    bar = st.progress(examination.done / max(1, examination.total), progress_text(examination))
    try:
        examination.advance(
            permit,
            read_settings(),
            lambda done, total: bar.progress(
                done / total, f"Reading the known sets for the first time: {done:,} of {total:,}"
            ),
            lambda: bar.progress(examination.done / examination.total, progress_text(examination)),
        )
    except AccessDeniedError:
        examination.clear()  # the page says why
    except BusiError as error:
        examination.fail(error)
    if examination.intake is None or examination.report is not None:
        st.rerun()


def progress_text(examination: Examination) -> str:
    """How far it is."""
    left = examination.seconds_left
    time_left = "" if left is None else f", about {max(1, round(left))} s left"
    return f"{examination.done:,} of {examination.total:,} scans examined{time_left}"


def show_head(examination: Examination) -> None:
    """What is examined, and the way out."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(label(examination.title, css="finding-name"))
        st.button("Discard", key="dataset-clear", on_click=examination.clear, icon=":material/delete:")


start_page()
permit = require_admin()
st.title("Data sets")
examination = get_examination()
if examination.accepted in {managed.id for managed in list_sets(read_settings().state_dir)}:
    st.success(
        f"Kept as {plain(str(examination.accepted))}. It can be chosen for training now.", icon=":material/check:"
    )
upper = st.container()
st.header("Accepted versions")
show_versions(permit)
with upper:  # drawn last, as examining takes its time
    if examination.intake is None:
        if examination.problem is not None:
            show_error(examination.problem)
        show_intake(examination)
    elif examination.report is None:
        show_head(examination)
        st.fragment(work_on, run_every=POLL_SECONDS)(examination, permit)
    else:
        show_head(examination)
        show_report(permit, examination, examination.report)
        show_decision(examination, examination.report, permit)
