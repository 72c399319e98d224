"""Read scans: upload or pick a simulated one -> the viewer on the left, the finding on the right."""

import streamlit as st

from busi_core.errors import BusiError
from busi_core.findings import read_finding
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis
from pages.components.filmstrip import show_filmstrip
from pages.components.filmstrip.filmstrip import Tile, make_thumbnail
from pages.components.finding_panel import show_finding
from pages.components.page import label, show_error, start_page
from pages.components.serving import analyse, current_analyser, get_reports
from pages.components.tray import MAX_SCANS, Scan, Tray, get_tray
from pages.components.viewer import pack_scene, show_viewer

VIEWER_HEIGHT_PX = 700


def add_samples(tray: Tray, diagnosis: Diagnosis) -> None:
    """Put the next simulated scan of a class into the tray."""
    seed = sum(scan.simulated for scan in tray.scans) + 1
    sample = simulate_scan(diagnosis, seed=seed)
    tray.add([(f"simulated {diagnosis.value} {seed}.png", sample.png())], simulated=True)


def show_intake(tray: Tray) -> None:
    """Uploader and samples; what arrives moves into the tray."""
    uploader, samples = st.columns([3, 2])
    files = uploader.file_uploader(
        f"Breast ultrasound scans: PNG, JPEG, BMP, TIFF, WebP or DICOM, up to {MAX_SCANS}",
        accept_multiple_files=True,
        key=f"upload-{tray.generation}",
        help="Kept in this session's memory only; nothing is written to a disk or a log.",
    )
    if files:
        tray.add([(file.name, file.getvalue()) for file in files], simulated=False)
        st.rerun()
    samples.html(label("Or try a simulated scan, made by a computer, of no patient"))
    for column, diagnosis in zip(samples.columns(3), Diagnosis, strict=True):
        column.button(
            diagnosis.value.capitalize(),
            key=f"sample-{diagnosis.value}",
            on_click=add_samples,
            args=(tray, diagnosis),
            width="stretch",
        )


def show_strip(tray: Tray) -> None:
    """Filmstrip, previous and next, clear."""
    if len(tray.scans) > 1:
        tiles = [Tile(scan.name, make_thumbnail(scan.data)) for scan in tray.scans]
        picked = show_filmstrip(tiles, tray.index, key="filmstrip")
        if picked is not None:
            tray.open(picked)
            st.rerun()


def choose_frame(frames: int, scan: Scan) -> int:
    """Which frame of a file with several is read."""
    chosen = st.slider(f"Frame, 1 to {frames}", 1, frames, 1, key=f"frame-{scan.id}")
    return int(chosen) - 1


def show_scan(tray: Tray, scan: Scan, *, read_first: bool) -> None:
    """The viewer and the finding of one scan."""
    position = f"{tray.index + 1} of {len(tray.scans)}"
    try:
        analyser = current_analyser()
        version = analyser.card.version
        analysis = analyse(scan.data, None, version, analyser)
        if analysis.image.frames > 1:
            frame = choose_frame(analysis.image.frames, scan)
            analysis = analyse(scan.data, frame, version, analyser)
    except BusiError as error:
        show_error(error, name=f"{position} · {scan.name}")
        return

    left, right = st.columns([2.6, 1], gap="medium")
    scene = pack_scene(
        analysis,
        scan_id=f"{scan.id}-{analysis.image.frame}-{version}",
        name=scan.name,
        position=tray.index + 1,
        count=len(tray.scans),
        simulated=scan.simulated,
        read_first=read_first,
        lesion_cutoff=analysis.lesion_threshold,
    )
    with left:
        state = show_viewer(scene, key="viewer", height=VIEWER_HEIGHT_PX)
    if state.step:
        tray.step(state.step)
        st.rerun()
    with right:
        if read_first and not state.revealed:
            st.info(
                "Read the scan first. When you are done, press 'Show what the model sees' beside the scan.",
                icon=":material/visibility_off:",
            )
            return
        reports = get_reports(version)
        show_finding(
            analysis,
            read_finding(analysis, state.lesion_cutoff),
            name=scan.name,
            position=position,
            simulated=scan.simulated,
            flag=analyser.card.malignancy,
            report=reports[0] if reports else None,
        )


start_page()
tray = get_tray()
scan = tray.open_scan
with st.expander("Add scans", expanded=scan is None, icon=":material/upload:"):
    show_intake(tray)
if tray.refused:
    st.warning(f"{tray.refused} files found no room: a session holds {MAX_SCANS} scans. Clear some and add them again.")
if scan is None:
    st.stop()

strip, options = st.columns([4, 1], vertical_alignment="center")
with strip:
    show_strip(tray)
with options.container(horizontal=True, horizontal_alignment="right"):
    read_first = st.toggle("Read first", key="read-first", help="Hide what the model says until you ask for it.")
    st.button(
        "Clear", key="clear", on_click=tray.clear, icon=":material/delete:", help="Forget all scans of this session."
    )
show_scan(tray, scan, read_first=read_first)
