"""Read scans: upload or pick a simulated one -> the viewer on the left, the finding on the right."""

import math

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from busi_core import BusiError, Diagnosis, EvaluationReport, ImageWarning, read_finding, simulate_scan
from busi_core.cross_validation import ELSEWHERE
from busi_core.data.pairing import record_id_of
from busi_core.report import TAUGHT
from busi_core.worth import say_peaks
from pages.components.downloads import ScanOnScreen
from pages.components.explain_panel import show_explain_panel
from pages.components.filmstrip import show_filmstrip
from pages.components.filmstrip.filmstrip import Tile, make_thumbnail
from pages.components.finding_panel import show_finding
from pages.components.limits_panel import measure_firmness, show_doubt
from pages.components.page import label, show_error, start_page
from pages.components.serving import (
    analyse,
    choose_version,
    chosen_analyser,
    chosen_version,
    current_analyser,
    forget_readings,
    get_assessment,
    get_cross_validation,
    get_reports,
    servable_versions,
)
from pages.components.tray import MAX_SCANS, Scan, Tray, get_tray, say_refused
from pages.components.viewer import HEAT_CUTOFF, pack_scene, show_viewer

VIEWER_HEIGHT_PX = 640  # at least; a taller window is filled
FINDING_PLACES = 3  # two to leave alone and one to write into
VERSION_WIDTH_PX = 210  # whichever is chosen, so that nothing moves; on a phone it fits beside 'Add scans'


def add_samples(tray: Tray, diagnosis: Diagnosis) -> None:
    """Put the next simulated scan of a class into the tray."""
    seed = sum(scan.simulated for scan in tray.scans) + 1
    sample = simulate_scan(diagnosis, seed=seed)
    tray.add([(f"simulated {diagnosis.value} {seed}.png", sample.png())], simulated=True)


def show_intake(tray: Tray) -> None:
    """Uploader and samples; what arrives moves into the tray."""
    files = st.file_uploader(
        f"Breast ultrasound scans: PNG, JPEG, BMP, TIFF, WebP or DICOM, up to {MAX_SCANS}",
        accept_multiple_files=True,
        key=f"upload-{tray.generation}",
    )
    if files:
        tray.add([(file.name, file.getvalue()) for file in files], simulated=False)
        st.rerun()
    st.html(label("Scans are kept in this session's memory only, and go with it.", css="fine"))
    st.html(label("Or try a simulated scan: computed, of no patient", css="label spaced"))
    for column, diagnosis in zip(st.columns(3), Diagnosis, strict=True):
        column.button(
            diagnosis.value.capitalize(),
            key=f"sample-{diagnosis.value}",
            on_click=add_samples,
            args=(tray, diagnosis),
            width="stretch",
        )


def show_welcome(tray: Tray) -> None:
    """The empty page: what this is, what it reached, and where scans go in."""
    _, middle, _ = st.columns([1, 3, 1])
    with middle:
        st.title("Read a breast ultrasound scan")
        st.markdown(
            "Upload a scan to see where the model finds a lesion, how it classifies the image (normal, benign or "
            "malignant), and how far both can be relied on."
        )
        show_intake(tray)
        st.html(record_line())


def record_line() -> str:
    """One honest line: what the model in service reached on scans it never saw."""
    try:
        version = current_analyser().card.version
        reports = get_reports(version)
    except BusiError:
        return "<span></span>"
    if not reports:
        return label("This model has not been evaluated. Do not rely on it.", css="fine")
    said = "; ".join(f"{report.scans:,} of {_named(report.test_set)}, {_reached(report)}" for report in reports)
    elsewhere = [one for one in get_cross_validation(version) if one.test_set == ELSEWHERE]
    harder = "".join(f" By its recipe in a hospital that taught it nothing: {_reached(one)}." for one in elsewhere)
    return label(f"On test scans that it never saw: {said}.{harder} More under Evidence.", css="fine spaced")


def _named(test_set: str) -> str:
    """As people write it: 'busi fold 0' -> 'BUSI fold 0'."""
    collection, _, part = test_set.partition(" ")
    return f"{collection.upper()} {part}".strip()


def _reached(report: EvaluationReport) -> str:
    words = (("lesion Dice", "lesion Dice"), ("AUC malignant against benign", "AUC"))
    known = [(word, report.table[name]) for name, word in words if not math.isnan(report.table[name].estimate)]
    said = ", ".join(f"{word} {value.estimate:.2f} ({value.low:.2f}–{value.high:.2f})" for word, value in known)
    normals = report.counts["normal"]
    false_masks = report.table["normals given a mask"].estimate * normals if normals else 0
    return said + (f", {false_masks:.0f} of {normals:,} normal scans given a mask" if normals else "")


def show_toolbar(tray: Tray) -> bool:
    """Add, step through, clear. True when the reader wants to read first."""
    if len(tray.scans) == 1:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            show_adding(tray)
            return show_options(tray)
    with st.container(key="toolbar"):  # page.css: the strip takes what the others leave, or a row of its own
        add, strip, options = st.columns([1, 4.5, 2.6], vertical_alignment="center")
    with add:
        show_adding(tray)
    with strip:
        tiles = [Tile(scan.name, make_thumbnail(scan.data)) for scan in tray.scans]
        picked = show_filmstrip(tiles, tray.index, key="filmstrip")
        if picked is not None:
            tray.open(picked)
            st.rerun()
    with options.container(horizontal=True, vertical_alignment="center", gap="small"):
        return show_options(tray)


def show_adding(tray: Tray) -> None:
    """More scans."""
    with st.popover("Add scans", icon=":material/upload:"):
        show_intake(tray)


def show_options(tray: Tray) -> bool:
    """Which version reads, whether the reader reads first, and the way back to nothing."""
    st.space("stretch")
    show_version_switch()
    if "read-first" not in st.session_state:  # Streamlit forgets a switch that was not on screen
        st.session_state["read-first"] = tray.read_first
    tray.read_first = st.toggle("Read first", key="read-first", help="Hide what the model says until you ask for it.")
    with st.popover("Clear", icon=":material/delete:"):
        st.markdown("Every scan here is forgotten, and with it each cut-off, frame and name that you chose for it.")
        st.button("Forget all", key="clear", on_click=forget_all, args=(tray,))
    return tray.read_first


def forget_all(tray: Tray) -> None:
    """The scans, what was read and asked of them, and the thumbnails."""
    tray.clear()
    forget_readings()
    make_thumbnail.clear()
    measure_firmness.clear()


def show_version_switch() -> None:
    """Which version reads, where there are several; the choice holds for this session.

    A version that cannot be loaded stays the one that is chosen: the page says why it does not read.
    """
    versions = servable_versions()
    if len(versions) < 2:
        return
    try:
        service = current_analyser().card.version
    except BusiError:
        return  # said where the scan would be
    now = chosen_version() or service
    picked = st.selectbox(
        "Model version",
        versions,
        index=versions.index(now) if now in versions else 0,
        format_func=lambda name: f"{name} (in service)" if name == service else name,
        key=f"analyse-version-{now}",
        label_visibility="collapsed",
        help="The version that reads the scans of this session.",
        width=VERSION_WIDTH_PX,
    )
    if picked != now:
        choose_version(picked)
        st.rerun()


def choose_frame(tray: Tray, frames: int, scan: Scan) -> int:
    """Which frame of a file with several is read, from 0; kept while other scans are open."""
    key = f"frame-{scan.id}"
    if key not in st.session_state:  # Streamlit forgets a slider that was not on screen
        st.session_state[key] = tray.frames.get(scan.id, 0) + 1
    tray.frames[scan.id] = int(st.slider(f"Frame, 1 to {frames}", 1, frames, key=key)) - 1
    return tray.frames[scan.id]


def place_of_finding(column: DeltaGenerator, scan_id: str) -> DeltaGenerator:
    """Where the finding goes: another place for another reading, so that none stands beside a scan it is not of.

    In the same place the browser keeps what stands there until it is written over, and Streamlit may leave out an
    emptying that is followed at once by something new. A finding counts as there once it was drawn (`finding-drawn`): a
    run may end before, so what was drawn last and what was tried last are both left.
    """
    place: int
    drawn, place = st.session_state.get("finding-drawn", (None, 0))
    if drawn != scan_id:
        left = (place, st.session_state.get("finding-tried"))
        place = next(number for number in range(FINDING_PLACES) if number not in left)
    st.session_state["finding-tried"] = place
    places = [column.container() if number == place else column.empty() for number in range(FINDING_PLACES)]
    return places[place]


def show_scan(tray: Tray, scan: Scan, *, read_first: bool) -> None:
    """The viewer and the finding of one scan."""
    position = f"{tray.index + 1} of {len(tray.scans)}"
    with st.container(key="scan-and-finding"):  # page.css: the finding goes below where it would be too narrow to read
        left, right = st.columns([2.6, 1], gap="medium")
    try:
        analyser = chosen_analyser()
        version = analyser.card.version
        insist = scan.id in tray.insisted
        analysis = analyse(scan.data, None, analyser, insist)
        if analysis.image.frames > 1:
            with left:
                frame = choose_frame(tray, analysis.image.frames, scan)
            analysis = analyse(scan.data, frame, analyser, insist)
            position += f", frame {frame + 1} of {analysis.image.frames}"
    except BusiError as error:
        show_error(error, name=f"{position} · {scan.name}")
        return

    scan_id = f"{scan.id}-{analysis.image.frame}-{analyser.identity}{'-insisted' if insist else ''}"
    place = place_of_finding(right, scan_id)
    if "viewer" not in st.session_state:  # the page was opened: what the browser had chosen went with the page before
        tray.starts = dict(tray.cutoffs), dict(tray.heat_cutoffs)
    lesion_starts, heat_starts = tray.starts
    cutoff = lesion_starts.get(scan_id, analysis.lesion_threshold)
    measured = () if ImageWarning.INSISTED in analysis.warnings else get_assessment(version, analyser.card.sha256)
    scene = pack_scene(
        analysis,
        scan_id=scan_id,
        name=scan.name,
        position=tray.index + 1,
        count=len(tray.scans),
        simulated=scan.simulated,
        read_first=read_first,
        lesion_cutoff=cutoff,
        heat_cutoff=heat_starts.get(scan_id, HEAT_CUTOFF),
        heat_worth=say_peaks(measured),
    )
    with left:
        state = show_viewer(scene, key="viewer", height=VIEWER_HEIGHT_PX)
    if state.step:
        tray.step(state.step)
        st.rerun()
    if state.lesion_cutoff is not None:
        cutoff = tray.cutoffs[scan_id] = state.lesion_cutoff
    if state.heat_cutoff is not None:
        tray.heat_cutoffs[scan_id] = state.heat_cutoff
    with place:
        if read_first and not state.revealed:
            st.info(
                "Read the scan first. When you are done, press 'Show what the model sees' beside the scan.",
                icon=":material/visibility_off:",
            )
            st.session_state["finding-drawn"] = (scan_id, st.session_state["finding-tried"])
            return
        finding = read_finding(analysis, cutoff)
        answered = not analysis.withheld
        taught = analyser.taught.recognise(record_id_of(scan.name), analysis.image.grey) is not None
        if taught and answered:
            st.info(TAUGHT, icon=":material/school:")
        show_finding(
            analysis,
            finding,
            ScanOnScreen(scan.id, scan.name, position, scan.simulated, taught),
            analyser,
            reports=get_reports(version),
            subjects=tray.subjects,
            on_insist=lambda: tray.insisted.add(scan.id),
        )
        st.session_state["finding-drawn"] = (scan_id, st.session_state["finding-tried"])
        if answered:
            show_doubt(analysis, finding, analyser, tray.doubted, scan_key=scan_id)
    if answered:
        show_explain_panel(analysis, analyser, tray.shelf, scan_id=scan_id, lesion_cutoff=finding.threshold)


start_page()
tray = get_tray()
notice = st.empty()  # always there: what stands below keeps its place, and the viewer its cut-off
if tray.refused:
    notice.warning(say_refused(tray))
welcome = st.empty()  # goes at once when a scan is there, and does not fade above it until everything is read
if tray.open_scan is None:
    with welcome.container():
        show_welcome(tray)
else:
    show_scan(tray, tray.open_scan, read_first=show_toolbar(tray))
