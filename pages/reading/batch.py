"""Read many scans: files, a zip or a folder -> a queue with its progress, a table, a summary, downloads."""

import time

import streamlit as st

from busi_core import BusiError, read_settings
from busi_core.batch import ScanRow
from busi_core.data.pairing import Case
from busi_core.data.sources import list_folder, resolve_below
from pages.components.batch_queue import (
    CHUNK_SECONDS,
    MAX_CASES,
    BatchQueue,
    get_queue,
    list_server_folders,
)
from pages.components.batch_view import (
    filter_rows,
    has_truth,
    latest_strip,
    progress_text,
    show_downloads,
    show_filters,
    show_summary,
    show_table,
)
from pages.components.budget import say_full
from pages.components.cases import get_cases
from pages.components.page import label, plain, show_error, start_page
from pages.components.serving import current_analyser, get_analyser
from pages.components.tray import get_tray, say_refused
from pages.components.uploads import MAX_UPLOADS

STRIP_SECONDS = 0.6  # between two drawings of the last thumbnails
POLL_SECONDS = 0.5  # how often the browser asks for the next piece of work


def show_intake(queue: BatchQueue) -> None:
    """Files, a zip, a folder of the reader's machine or of the server, or simulated scans."""
    files, folder, server, simulated = st.tabs(["Files or zip", "Folder", "Folder on this server", "Simulated"])
    with files:
        picked = st.file_uploader(
            f"Scans, up to {MAX_UPLOADS:,} files, or one zip with up to {MAX_CASES:,} scans",
            accept_multiple_files=True,
            key=f"batch-upload-{queue.generation}",
            help="Masks named as in BUSI (scan_mask.png) or BUS-BRA (mask_0001.png) are compared with the reading.",
        )
        if picked:
            queue.add_uploads([(file.name, file.getvalue()) for file in picked])
            st.rerun()
    with folder:
        chosen = st.file_uploader(
            f"A folder of scans, with or without masks, up to {MAX_UPLOADS:,} files; of more, make a zip",
            accept_multiple_files="directory",
            key=f"batch-folder-files-{queue.generation}",
        )
        if chosen:
            queue.add_uploads([(file.name, file.getvalue()) for file in chosen], is_folder=True)
            st.rerun()
    with server:
        show_server_folders(queue)
    with simulated:
        st.html(label("Twelve scans with masks: computed, of no patient.", css="fine"))
        st.button("Read simulated scans", key="batch-simulated", on_click=queue.add_simulated)
    st.html(label("Scans are kept in this session's memory only, and go with it.", css="fine"))


def show_server_folders(queue: BatchQueue) -> None:
    """The folders that the server's owner lets readers read."""
    settings = read_settings()
    folders = list_server_folders([settings.data_root, *([settings.batch_root] if settings.batch_root else [])])
    if not folders:
        st.html(label("This server offers no folder.", css="fine"))
        return
    chosen = st.selectbox("Folder", range(len(folders)), format_func=lambda n: folders[n][1], key="batch-folder")
    if st.button("Read this folder", key="batch-read-folder"):
        try:
            root, relative = folders[chosen]
            queue.add_files(list_folder(resolve_below(root, relative)))
        except BusiError as error:
            show_error(error)
            return
        st.rerun()


def show_welcome(queue: BatchQueue) -> None:
    """The empty page: what this is, and where scans go in."""
    _, middle, _ = st.columns([1, 3, 1])
    with middle:
        st.title("Read many scans at once")
        st.markdown(
            "Each scan gets a row: class, score, lesion, warnings. With reference masks, the set gets figures with "
            "their intervals. A file that cannot be read gets its reason, and the rest goes on."
        )
        show_intake(queue)


def work_on(queue: BatchQueue) -> None:
    """Progress, and the next few seconds of reading; the browser asks again and again while it runs."""
    if not queue.running:
        st.html(label(progress_text(queue), css="finding-name"))
        return
    bar = st.progress(len(queue.rows) / max(1, len(queue.cases)), progress_text(queue))
    strip = st.empty()
    strip.html(latest_strip(queue.rows))

    drawn = time.monotonic()

    def show_row() -> None:
        nonlocal drawn
        bar.progress(len(queue.rows) / len(queue.cases), progress_text(queue))
        if time.monotonic() - drawn > STRIP_SECONDS:
            strip.html(latest_strip(queue.rows))
            drawn = time.monotonic()

    try:
        analyser = current_analyser() if queue.version is None else get_analyser(queue.version)
    except BusiError as error:
        queue.stop(f"{error.problem} {error.remedy}")
        st.rerun()
    if queue.reader not in ("", analyser.identity):
        queue.stop(f"What {queue.version} answers was changed while it read this batch. Clear, and read again.")
        st.rerun()
    queue.version, queue.reader = analyser.card.version, analyser.identity
    queue.advance(analyser, seconds=CHUNK_SECONDS, on_row=show_row)
    strip.html(latest_strip(queue.rows))
    if not queue.running or len(queue.rows) >= max(queue.drawn + 12, 1.5 * queue.drawn):
        st.rerun()  # the whole page: the table below is drawn anew


def show_toolbar(queue: BatchQueue) -> None:
    """Add, stop or go on, clear."""
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Add", icon=":material/upload:"):
            show_intake(queue)
        if queue.running:
            st.button("Stop", key="batch-stop", on_click=queue.cancel, icon=":material/stop:")
        elif not queue.is_done:
            st.button("Go on", key="batch-go-on", on_click=queue.go_on, icon=":material/play_arrow:")
        with st.popover("Clear", icon=":material/delete:"):
            st.markdown("Every scan and row here is forgotten, and with them the filters and the name on the report.")
            st.button("Forget all", key="batch-clear", on_click=queue.clear)


def open_in_analyse(case: Case, *, simulated: bool) -> None:
    """Put the scan into the tray, unless it is there, and go to its page; where it has no room, say so here."""
    tray = get_tray()
    try:
        data = case.scan.read()
    except BusiError as error:
        show_error(error, name=case.name)
        return
    if not tray.take(case.name, data, simulated=simulated):
        st.warning(say_refused(tray))
        return
    st.switch_page("pages/reading/analyse.py")


def open_in_compare(case: Case, *, simulated: bool) -> None:
    """Put the scan among the cases, unless it is there, and go to their page; where it has no room, say so here."""
    cases = get_cases()
    if not cases.take(case, simulated=simulated):
        st.warning(say_full(cases))
        return
    st.switch_page("pages/reading/compare.py")


def show_picked(queue: BatchQueue, row: ScanRow | None, *, passing: int) -> None:
    """How many rows pass, and what to do with the one that was picked; as high without one: the table stays."""
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="batch-picked"):
        analyse = st.button(
            "Open in Analyse", key="batch-open-analyse", icon=":material/radiology:", disabled=row is None
        )
        compare = st.button(
            "Open in Compare", key="batch-open-compare", icon=":material/compare:", disabled=row is None
        )
        counted = label(f"{passing} of {len(queue.rows)} rows pass the filters.", css="fine")
        hint = label("Pick a row to open its scan; a click on a head sorts.", css="fine")
        st.html(counted + (hint if row is None else label(row.name, css="finding-name")))
    if row is None:
        return
    case = queue.case_of(row)
    if analyse:
        open_in_analyse(case, simulated=case.id in queue.simulated)
    if compare:
        open_in_compare(case, simulated=case.id in queue.simulated)


def show_scans(queue: BatchQueue, copies: dict[str, str]) -> list[ScanRow]:
    """Filters, the table, and what to do with the row that is picked. Returns the rows that pass the filters."""
    filters = show_filters(queue)
    rows = filter_rows(queue.rows, filters, copies)
    picked_place = st.container()
    key = f"batch-table-{queue.generation}-{hash(filters)}"  # a pick is a place: with other rows it is another scan
    row = show_table(rows, copies, key=key, with_truth=has_truth(queue.rows))
    queue.drawn = len(queue.rows)
    with picked_place:
        show_picked(queue, row, passing=len(rows))
    return rows


def show_results(queue: BatchQueue) -> None:
    """What is there so far; figures and files when nothing runs."""
    scans, summary, downloads = st.tabs(["Scans", "Summary", "Downloads"], key="batch-tabs")
    with scans:
        rows = show_scans(queue, queue.copies())
    with summary:
        if queue.running:
            st.html(label("Figures follow when the batch is read or stopped.", css="fine"))
        else:
            show_summary(queue)
    with downloads:
        if queue.running:
            st.html(label("Files follow when the batch is read or stopped.", css="fine"))
        else:
            show_downloads(queue, rows)


start_page()
queue = get_queue()
welcome = st.empty()  # goes at once when the batch begins, and does not fade above it
if not queue.cases:
    with welcome.container():
        for note in queue.notes:
            st.warning(plain(note), icon=":material/info:")
        show_welcome(queue)
else:  # no st.stop() above: after it Streamlit would keep the filters and the name typed for the batch before
    show_toolbar(queue)
    if queue.problem:
        st.error(plain(queue.problem))
    for note in queue.notes:
        st.info(plain(note), icon=":material/info:")
    progress = st.container()
    if queue.rows and queue.running:
        show_results(queue)  # first, since the next seconds go into reading
    with progress:
        st.fragment(work_on, run_every=POLL_SECONDS if queue.running else None)(queue)
    if queue.rows and not queue.running:
        show_results(queue)  # last: intervals and files take a moment, and the bar of a finished batch is not to wait
