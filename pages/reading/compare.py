"""Compare a reading with its reference mask: files, a zip, a data set or a simulated scan -> panes and figures."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from busi_core import Analyser, BusiError, Diagnosis, read_finding, read_settings
from busi_core.batch import measure_truth
from busi_core.comparison import compare_scan
from busi_core.data.pairing import Case, pair_files
from busi_core.data.sources import list_folder, resolve_below
from busi_core.data.truth import Reference, read_reference
from busi_core.report import Report
from busi_core.taught import KnownBy
from busi_core.types import Analysis, Grey, ImageWarning
from pages.components.cases import CaseList, get_cases, scan_key, simulate_case
from pages.components.compare_viewer import ShownReading, chosen_cutoffs, forget_drafts, pack_case, show_comparison
from pages.components.comparison_panel import ask_to_keep, show_reading, show_report
from pages.components.downloads import ScanOnScreen, ask_subject, safe_stem, single_report, typed_subject
from pages.components.page import label, plain, show_error, start_page
from pages.components.serving import (
    analyse,
    current_analyser,
    forget_readings,
    get_analyser,
    servable_versions,
    worth_of,
)
from pages.components.uploads import MAX_UPLOADS

VIEWER_HEIGHT_PX = 640  # at least; a taller window is filled
NO_SECOND = ""


def show_intake(cases: CaseList) -> None:
    """Files, a folder, a data set of the server, or a simulated scan."""
    files, folder, known, simulated = st.tabs(["Files or zip", "Folder", "Data set on this server", "Simulated"])
    with files, st.form(f"files-{cases.generation}", border=False):
        left, right = st.columns(2)
        scans = left.file_uploader(
            "Scans with their masks, or a zip in BUSI or BUS-BRA layout",
            accept_multiple_files=True,
            key=f"scans-{cases.generation}",
            help="Masks are known by their names: scan_mask.png, scan_mask_1.png; or mask_0001.png for bus_0001.png.",
        )
        masks = right.file_uploader(
            "Masks under other names (several of one scan are merged)",
            accept_multiple_files=True,
            key=f"masks-{cases.generation}",
            help="With one scan, all of these are its masks. With several, each goes to the scan of its name.",
        )
        if st.form_submit_button("Compare", type="primary") and (scans or masks):
            cases.add_uploads(
                [(file.name, file.getvalue()) for file in scans], [(file.name, file.getvalue()) for file in masks]
            )
            st.rerun()
    with folder, st.form(f"folder-{cases.generation}", border=False):
        picked = st.file_uploader(
            f"A folder of scans and masks, up to {MAX_UPLOADS:,} files; of more, make a zip",
            accept_multiple_files="directory",
            key=f"folder-files-{cases.generation}",
        )
        if st.form_submit_button("Compare", type="primary") and picked:
            cases.add_uploads([(file.name, file.getvalue()) for file in picked], is_folder=True)
            st.rerun()
    with known:
        show_known_sets(cases)
    with simulated:
        st.html(label("Computed, of no patient; the mask is the one it was drawn from.", css="fine"))
        for column, diagnosis in zip(st.columns(3), Diagnosis, strict=True):
            column.button(
                diagnosis.value.capitalize(),
                key=f"compare-sample-{diagnosis.value}",
                on_click=add_sample,
                args=(cases, diagnosis),
                width="stretch",
            )
    st.html(label("Scans are kept in this session's memory only, and go with it.", css="fine"))


def show_known_sets(cases: CaseList) -> None:
    """The data sets in the server's folder."""
    root = read_settings().data_root
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not names:
        st.html(label("This server has no data set.", css="fine"))
        return
    name = st.selectbox("Data set", names, key="known-set")
    if st.button("Open this set", key="open-known-set"):
        try:
            cases.notes = []
            cases.add(pair_files(list_folder(resolve_below(root, str(name)))))
        except BusiError as error:
            show_error(error)
            return
        st.rerun()


def add_sample(cases: CaseList, diagnosis: Diagnosis) -> None:
    """Put the next simulated scan of a class into the list."""
    cases.notes = []
    cases.add(simulate_case(diagnosis, len(cases.simulated) + 1), simulated=True)


def show_welcome(cases: CaseList) -> None:
    """The empty page: what this is, and where scans go in."""
    _, middle, _ = st.columns([1, 4, 1])
    with middle:
        st.title("Compare with the ground truth")
        st.markdown(
            "A scan, its reference mask, what the model outlines, and where and by how much they differ. "
            "Masks can be corrected and saved."
        )
        show_intake(cases)
        forget_drafts(cases.session)


def show_toolbar(cases: CaseList) -> tuple[str | None, str | None]:
    """Add, choose a scan, choose one or two model versions. Returns the versions; None for that in service."""
    versions = servable_versions()
    chosen = second = None
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Add", icon=":material/upload:"):
            show_intake(cases)
        if len(cases.cases) > 1:
            pick_case(cases)
        if len(versions) > 1:
            with st.popover("Versions", icon=":material/compare:", help="Which version reads, and one beside it."):
                chosen, second = pick_versions(versions, cases.versions)
        with st.popover("Clear", icon=":material/delete:"):
            st.markdown("Every scan here is forgotten, and with it each correction of a mask that was not saved.")
            st.button("Forget all", key="clear-cases", on_click=forget_all, args=(cases,))
    return chosen, second


def forget_all(cases: CaseList) -> None:
    """The scans, their masks, and what was read of them."""
    cases.clear()
    forget_readings()


def pick_case(cases: CaseList) -> None:
    """Go to any scan by its name; the arrows beside the panes go to the next."""
    index = st.selectbox(
        "Scan",
        range(len(cases.cases)),
        index=cases.index,
        format_func=lambda place: f"{place + 1} · {cases.cases[place].name}",
        key=f"pick-{cases.generation}-{cases.index}",
        label_visibility="collapsed",
        width=240,
    )
    if index != cases.index:
        cases.open(index)
        st.rerun()


def pick_versions(versions: Sequence[str], chosen: dict[str, str]) -> tuple[str, str | None]:
    """The version that is compared, and another beside it or None; both are kept for the session in `chosen`."""
    current = version_in_service()
    first = pick_version(
        f"compare-version-{current}",  # a promotion or a roll-back takes open sessions along
        "Model version",
        versions,
        chosen,
        otherwise=next((name for name in versions if name == current), versions[0]),
        format_func=lambda name: f"{name} (in service)" if name == current else name,
        help="The version whose reading is compared.",
    )
    second = pick_version(
        "compare-second",
        "Beside it",
        [NO_SECOND, *(version for version in versions if version != first)],
        chosen,
        otherwise=NO_SECOND,
        format_func=lambda name: name or "no second version",
    )
    return first, second or None


def pick_version(
    key: str, text: str, versions: Sequence[str], chosen: dict[str, str], *, otherwise: str, **options: Any
) -> str:
    """One choice, kept for the session; of a version that is gone nothing is kept.

    `index` names it in every run: a browser that opens the popover later takes the choice from there, and reports it.
    """
    now = chosen.get(key, otherwise)
    index = versions.index(now if now in versions else otherwise)
    chosen[key] = str(st.selectbox(text, versions, index=index, key=key, **options))
    return chosen[key]


def version_in_service() -> str | None:
    """The version that reads scans; None where none can be loaded, which the scan's own message explains."""
    try:
        return current_analyser().card.version
    except BusiError:
        return None


def read_case(case: Case, data: bytes, analyser: Analyser, frames: dict[str, int]) -> Analysis:
    """One reading; of a file with several frames the one the reader picks, kept in `frames` while others are open.

    As of a batch, a scan that is foreign to the model gets an answer, and a warning, where its truth came with it:
    whoever knows the truth asks how wrong the model is.
    """
    insist = is_truth_known(case)
    analysis = analyse(data, None, analyser, insist=insist)
    if analysis.image.frames > 1:
        key = f"frame-{case.id}"
        frames[key] = int(
            st.slider(f"Frame, 1 to {analysis.image.frames}", 1, analysis.image.frames, frames.get(key, 1), key=key)
        )
        frame = frames[key]
        analysis = analyse(data, frame - 1, analyser, insist=insist)
    return analysis


def is_truth_known(case: Case) -> bool:
    """Whether a mask or a class came with the scan."""
    return case.diagnosis is not None or bool(case.masks)


def compare_reading(analysis: Analysis, reference: Reference, cutoff: float | None) -> ShownReading:
    """The figures of one reading at the cut-off the reader chose, or the model's own; none of an answer withheld."""
    chosen = analysis.lesion_threshold if cutoff is None else cutoff
    comparison = None
    if reference.mask is not None and not analysis.withheld:
        comparison = compare_scan(analysis, reference.mask, threshold=chosen, annotation=reference.annotation)
    return ShownReading(analysis, chosen, comparison)


def known_to(case: Case, analysers: list[Analyser], grey: Grey) -> dict[str, KnownBy]:
    """The versions that a copy of this scan taught, and what it is known by."""
    found = {one.card.version: one.taught.recognise(case.record_id, grey) for one in analysers}
    return {version: known_by for version, known_by in found.items() if known_by is not None}


def show_notes(reference: Reference, taught: dict[str, KnownBy], same: Case | None) -> None:
    """How the masks were read, what is wrong with them, and whether the scan is known already."""
    if same is not None:
        st.info(f"The same pixels as {plain(same.name)}, which was opened before.", icon=":material/content_copy:")
    if reference.problem and not reference.missing:
        st.warning(f"**No reference for this scan.** {plain(reference.problem)}", icon=":material/error:")
    for known_by in KnownBy:
        versions = [version for version, found in taught.items() if found is known_by]
        if versions:
            st.info(
                f"By its {known_by} this scan, or a copy of it, taught {plain(' and '.join(versions))}: figures on it "
                "say nothing about new scans.",
                icon=":material/school:",
            )
    if reference.notes:
        st.html(label("Reference mask: " + " ".join(reference.notes), css="fine"))


def report_case(cases: CaseList, case: Case, reading: ShownReading, reference: Reference, *, taught: bool) -> Report:
    """One reading of the open case with its reference, as a report."""
    finding = read_finding(reading.analysis, reading.cutoff)
    said = None if reading.analysis.withheld else finding
    image = reading.analysis.image
    frame = f", frame {image.frame + 1} of {image.frames}" if image.frames > 1 else ""
    position = f"{cases.index + 1} of {len(cases.cases)}{frame}"
    return single_report(
        reading.analysis,
        finding,
        ScanOnScreen(case.id, case.name, position, case.id in cases.simulated, taught),
        subject=typed_subject(case.id, cases.subjects),
        truth=measure_truth(case.diagnosis, reference, said, taught=taught) if is_truth_known(case) else None,
        reference=reference.mask,
        worth=() if ImageWarning.INSISTED in reading.analysis.warnings else worth_of(reading.analysis.model_version),
    )


def show_case(cases: CaseList, case: Case, versions: list[str | None]) -> None:
    """The panes and, below them, the figures of one case."""
    try:
        data = case.scan.read()
        analysers = [current_analyser() if version is None else get_analyser(version) for version in versions]
        analyses = [read_case(case, data, analyser, cases.frames) for analyser in analysers[:1]]
        frame = analyses[0].image.frame if analyses[0].image.frames > 1 else None
        analyses += [analyse(data, frame, other, insist=is_truth_known(case)) for other in analysers[1:]]
    except BusiError as error:
        show_error(error, name=f"{cases.index + 1} of {len(cases.cases)} · {case.name}")
        return
    image = analyses[0].image
    reference = read_reference(case.masks, image.height, image.width, diagnosis=case.diagnosis)
    scan_id = f"{scan_key(case, data)}-{image.frame}"
    taught = known_to(case, analysers, image.grey)
    cutoffs = cases.cutoffs.setdefault(scan_id, {})  # Streamlit forgets what was chosen when another page is opened
    cutoffs |= chosen_cutoffs("compare", scan_id, [analysis.model_version for analysis in analyses])
    readings = [compare_reading(analysis, reference, cutoffs.get(analysis.model_version)) for analysis in analyses]
    message = pack_case(
        readings,
        reference.mask,
        scan_id=scan_id,
        name=case.name,
        position=cases.index + 1,
        count=len(cases.cases),
        simulated=case.id in cases.simulated,
        no_reference=reference.problem or "",
        mask_name=f"{safe_stem(PurePosixPath(case.name).name)}_mask.png",
        can_keep=read_settings().corrections_dir is not None,
        session=cases.session,
        kept=cases.kept,
        taught=taught,
    )
    state = show_comparison(message, key="compare", height=VIEWER_HEIGHT_PX)
    if state.step:
        cases.step(state.step)
        st.rerun()
    if state.edited and read_settings().corrections_dir is not None:
        ask_to_keep(state.edited, readings, case.diagnosis, cases.kept)
    show_notes(reference, taught, cases.find_same_pixels(case, image.grey))
    for reading in readings:
        show_reading(reading, case.diagnosis, with_heading=len(readings) > 1)
        version = reading.analysis.model_version
        show_report(report_case(cases, case, reading, reference, taught=version in taught), name=case.name)
    ask_subject(case.id, cases.subjects)


start_page()
cases = get_cases()
for note in cases.notes:
    st.warning(plain(note))
welcome = st.empty()  # goes at once when a scan is there, and does not fade above it until everything is read
if cases.open_case is None:
    with welcome.container():
        show_welcome(cases)
else:
    first, second = show_toolbar(cases)
    show_case(cases, cases.open_case, [first] if second is None else [first, second])
