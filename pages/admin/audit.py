"""The audit log: is it whole, who did what, and the log as a file."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime

import streamlit as st

from busi_core import BusiError, read_settings
from busi_core.audit import ACTIONS, AuditLog, Entry, export_jsonl, open_audit
from busi_core.audit_export import export_csv, say_details, select_entries
from pages.components.admin import require_admin
from pages.components.page import label, plain, show_error, start_page

MAX_TABLE_HEIGHT_PX = 423  # the entry that is picked stands below it, on the same screen
ROW_HEIGHT_PX = 35
FILE_NAME = "audit-log"


def show_state(entries: Sequence[Entry], broken: int | None) -> None:
    """Whether anybody changed what was written."""
    if broken is None:
        count = f"{len(entries):,} entries" if len(entries) != 1 else "1 entry"
        st.success(f"The chain is whole: {count}, none changed, moved or removed.", icon=":material/verified:")
        return
    before = f"Entries before it are as they were written ({broken - 1})." if broken > 1 else ""
    st.error(
        f"**The chain is broken at entry {broken}**: it was changed, moved or removed, or does not follow from the "
        f"one before. {before} Keep a copy of the state folder and tell the owner of the server.",
        icon=":material/report:",
    )


def show_filters(entries: Sequence[Entry]) -> list[Entry]:
    """Who, action, time, words; returns what passes, newest first."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        who = st.multiselect("Who", sorted({entry.who for entry in entries}), key="audit-who", placeholder="anybody")
        used = {entry.action for entry in entries}
        known = [action for action in ACTIONS if action in used]
        actions = st.multiselect("Action", known, key="audit-actions", placeholder="any")
        days = st.date_input("Days (UTC)", value=[], key="audit-days", max_value=datetime.now(UTC).date())
        text = st.text_input("Subject or details", key="audit-text", placeholder="a version, a job, a reason")
    first, last = read_days(days)
    return select_entries(reversed(entries), who=who, actions=actions, first=first, last=last, text=text)


def read_days(days: object) -> tuple[date | None, date | None]:
    """What the date field holds: nothing, the first day while the second is not picked yet, or both."""
    picked = [day for day in days if isinstance(day, date)] if isinstance(days, tuple) else []
    return (picked[0] if picked else None, picked[1] if len(picked) > 1 else None)


def show_table(entries: Sequence[Entry], broken: int | None) -> None:
    """Chosen entries, those from the break on marked; the one that is picked in full below."""
    picked = st.dataframe(
        {
            "": ["✕" if broken is not None and entry.number >= broken else "" for entry in entries],
            "No.": [entry.number for entry in entries],
            "Time (UTC)": [entry.when[:19].replace("T", " ") for entry in entries],
            "Who": [entry.who for entry in entries],
            "Action": [entry.action for entry in entries],
            "Subject": [entry.subject for entry in entries],
            "Details": [say_details(entry.details) for entry in entries],
        },
        hide_index=True,
        height=min(MAX_TABLE_HEIGHT_PX, ROW_HEIGHT_PX * (max(1, len(entries)) + 1) + 3),
        key=f"audit-table-{hash(tuple(entry.number for entry in entries))}",  # a pick is a place among these
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "": st.column_config.TextColumn(width=28, help="✕: from here on the chain does not hold")
            if broken is not None
            else None,
            "No.": st.column_config.NumberColumn(width=60),
            "Time (UTC)": st.column_config.TextColumn(width=150),
            "Who": st.column_config.TextColumn(width=200),
            "Action": st.column_config.TextColumn(width=140),
            "Subject": st.column_config.TextColumn(width=220),
            "Details": st.column_config.TextColumn(width=520),
        },
    )
    for row in picked["selection"]["rows"][:1]:
        if row < len(entries):  # a selection outlives a filter
            show_entry(entries[row])


def show_entry(entry: Entry) -> None:
    """One entry with nothing cut off."""
    with st.container(border=True):
        st.markdown(f"**Entry {entry.number}** · {plain(entry.action)} {plain(entry.subject)}")
        for name, value in sorted(entry.details.items()):
            st.text(f"{name.replace('_', ' ')}: {value if isinstance(value, str) else json.dumps(value)}")
        st.html(label(f"SHA-256 {entry.hash}, chained to {entry.before}", css="fine"))


def show_downloads(shown: Sequence[Entry], entries: Sequence[Entry]) -> None:
    """The table as CSV, the whole log as JSON lines."""
    stem = f"{FILE_NAME}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with st.container(horizontal=True):
        st.download_button(
            "Table as CSV", lambda: export_csv(shown), f"{stem}.csv", "text/csv", icon=":material/table:",
            on_click="ignore", key="audit-csv",
        )  # fmt: skip
        st.download_button(
            "Whole log as JSON lines", lambda: export_jsonl(entries), f"{stem}.jsonl", "application/x-ndjson",
            icon=":material/lock_clock:", on_click="ignore", key="audit-jsonl",
            help="Keep it where this server cannot write: later it proves that nothing was cut off or rewritten.",
        )  # fmt: skip


def show_witness(log: AuditLog) -> None:
    """Hold the log against an export that was kept elsewhere."""
    with st.expander("Hold the log against an earlier export"):
        st.caption(
            "The chain shows a change by somebody who did not know how it is made. Whoever may write the file and "
            "knows this program can cut its end off or write all of it anew; only a copy kept elsewhere shows that."
        )
        kept = st.file_uploader("Whole log as JSON lines, from before", type=["jsonl"], key="audit-witness")
        if kept is None:
            return
        try:
            number = log.find_difference(kept.getvalue().decode("utf-8", errors="replace"))
        except BusiError as error:
            show_error(error)
            return
        if number is None:
            st.success("Every entry of the export stands in the log, unchanged.", icon=":material/verified:")
        else:
            st.error(
                f"**Entry {number} of the export is missing in the log or stands there otherwise.**",
                icon=":material/report:",
            )


start_page()
require_admin()
st.title("Audit log")
log = open_audit(read_settings())
try:
    everything, first_broken = log.read(), log.verify()
except BusiError as error:
    show_error(error)
    st.stop()
show_state(everything, first_broken)
chosen = show_filters(everything)
show_table(chosen, first_broken)
st.caption(f"{len(chosen):,} of {len(everything):,} entries shown, newest first")
show_downloads(chosen, everything)
show_witness(log)
