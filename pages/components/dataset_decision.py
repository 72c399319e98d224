"""What of an examined data set is kept: all, the clean scans, or what was ticked by hand; its name, and the button."""

import hashlib
import json
from collections.abc import Set
from typing import Any

import streamlit as st

from busi_core import BusiError, read_settings
from busi_core.access import Permit
from busi_core.audit import open_audit
from busi_core.managed.report import AcceptancePlan, InspectionReport, ScanReport, Weight, find_unclean, plan_acceptance
from busi_core.managed.store import MAX_NAME, MAX_WORDS, accept
from pages.components.dataset_report import class_name
from pages.components.examination import Examination
from pages.components.page import label, show_error

TABLE_HEIGHT_PX = 320
ALL, CLEAN = "All that can be accepted", "Only the clean ones"


def show_decision(examination: Examination, report: InspectionReport, permit: Permit) -> None:
    """The choice, what follows from it, and its name."""
    st.header("Accept")
    if not any(_list_acceptable(report)):
        st.html(
            label(f"No scan of it can be accepted. {_say_reasons(plan_acceptance(report, set(), set()))}", css="fine")
        )
        _offer_json(report)
        return
    modes = [ALL, CLEAN]
    mode = st.radio(
        "Begin with",
        modes,
        index=modes.index(examination.mode or ALL),
        horizontal=True,
        key=f"dataset-mode-{examination.generation}",
        help="Clean: nothing found but what is only good to know, and of copies one. Choosing anew forgets your ticks.",
    )
    if mode != examination.mode:
        examination.mode, examination.excluded = mode, None
    excluded = _show_ticks(report, examination)
    examination.excluded = excluded
    confirmed = _ask_about_text(report, excluded, examination)
    plan = plan_acceptance(report, excluded, confirmed)
    st.html(label(_say_plan(plan), css="finding-name"))
    left, middle, right = st.columns(3)
    typed = examination.words
    name = left.text_input(
        "Name", typed.get("name", ""), max_chars=MAX_NAME, key="dataset-name", placeholder="hospital-2026"
    )
    source = middle.text_input(
        *("Source", typed.get("source", "")),
        max_chars=MAX_WORDS,
        key="dataset-source",
        placeholder="which hospital, machine, years",
    )
    licence = right.text_input(
        *("Licence or consent", typed.get("licence", "")),
        max_chars=MAX_WORDS,
        key="dataset-licence",
        placeholder="on which terms they may be used",
    )
    examination.words = {"name": name, "source": source, "licence": licence}
    with st.container(horizontal=True):
        pressed = st.button(
            f"Accept {len(plan.kept):,} scans",
            type="primary",
            icon=":material/inventory_2:",
            key="dataset-accept",
            disabled=not plan.kept,
        )
        _offer_json(report)
    if not pressed:
        return
    bar = st.progress(0.0, "Writing the scans")
    settings = read_settings()
    try:
        managed = accept(
            permit,
            report,
            name=name,
            source=source,
            licence=licence,
            excluded=excluded,
            confirmed=confirmed,
            settings=settings,
            audit=open_audit(settings),
            on_scan=lambda done, total: bar.progress(done / total, f"Writing the scans: {done:,} of {total:,}"),
        )
    except BusiError as error:
        bar.empty()
        show_error(error)
        return
    examination.clear()
    examination.accepted = managed.id
    st.rerun()


def _list_acceptable(report: InspectionReport) -> list[ScanReport]:
    """The scans between which there is a choice."""
    return [scan for scan in report.scans if not scan.of_weight(Weight.NEVER)]


def _offer_json(report: InspectionReport) -> None:
    st.download_button(
        "Report as JSON", lambda: json.dumps(report.as_json(), indent=1), "report.json", "application/json",
        on_click="ignore", key="dataset-json", icon=":material/download:",
    )  # fmt: skip


def _show_ticks(report: InspectionReport, examination: Examination) -> set[str]:
    """The table in which scans are unticked by hand; returns the ids to exclude.

    The browser sends what was changed in the table that it was given. So this stays the same until the page is drawn
    anew, as after a look at another one; then it is given with what was unticked before.
    """
    key = f"dataset-keep-{examination.generation}-{examination.mode}"
    if examination.excluded is None:
        examination.offered = find_unclean(report) if examination.mode == CLEAN else set()
    elif key not in st.session_state:
        examination.offered = examination.excluded
    scans = _list_acceptable(report)
    with st.expander("Exclude by hand", icon=":material/checklist:"):
        edited: Any = st.data_editor(
            {
                "Keep": [scan.id not in examination.offered for scan in scans],
                "File": [scan.name for scan in scans],
                "Class": [class_name(scan.diagnosis) for scan in scans],
                "Findings": ["; ".join(finding.flag.value for finding in scan.findings) for scan in scans],
                "Pixels": [f"{scan.width} x {scan.height}" for scan in scans],
                "Lesion pixels": [scan.lesion_pixels for scan in scans],
            },
            disabled=["File", "Class", "Findings", "Pixels", "Lesion pixels"],
            hide_index=True,
            height=TABLE_HEIGHT_PX,
            key=key,
            column_config={"Keep": st.column_config.CheckboxColumn(width=60)},
        )
        st.html(label("Scans that cannot be accepted are not in this table.", css="fine"))
    return {scan.id for scan, kept in zip(scans, edited["Keep"], strict=True) if not kept}


def _ask_about_text(report: InspectionReport, excluded: Set[str], examination: Examination) -> set[str]:
    """Ids of scans with text or tags that the administrator says name no patient; empty until they do.

    The box is ticked for the very scans that it asks about: when one comes or goes, it is another box, not ticked.
    """
    asked = {
        scan.id
        for scan in report.scans
        if scan.of_weight(Weight.CONFIRM)
        and not scan.of_weight(Weight.NEVER)
        and scan.id not in excluded
        and scan.id not in report.confirmed
    }
    if not asked:
        examination.sure = ""
        return set()
    which = hashlib.sha256("\n".join(sorted(asked)).encode()).hexdigest()
    sure = st.checkbox(
        f"I looked at the {len(asked):,} scans with burned-in text or filled patient tags: no patient's name, number "
        "or date of birth can be read in any of them. Without this they are left out.",
        value=examination.sure == which,
        key=f"dataset-confirm-{examination.generation}-{which}",
    )
    examination.sure = which if sure else ""
    return asked if sure else set()


def _say_plan(plan: AcceptancePlan) -> str:
    kept = {scan.scan for scan in plan.kept}
    return f"{len(plan.kept):,} scans would be kept, {len(kept):,} of them distinct. {_say_reasons(plan)}".strip()


def _say_reasons(plan: AcceptancePlan) -> str:
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in plan.reasons().items())
    return f"Left out: {reasons}." if reasons else ""
