"""The accepted versions: what each holds, where it comes from, and the way to take it out of use."""

import streamlit as st

from busi_core import BusiError, Diagnosis, read_settings
from busi_core.access import Permit
from busi_core.audit import open_audit
from busi_core.jobs.ledger import list_jobs
from busi_core.jobs.spec import OPEN_STATES
from busi_core.managed.sets import ManagedSet
from busi_core.managed.store import find_damaged, list_sets, remove
from pages.components.page import label, plain, show_error, to_minutes


def show_versions(permit: Permit) -> None:
    """The table, and one version in detail."""
    settings = read_settings()
    for damaged in find_damaged(settings.state_dir):
        st.error(
            f"The data set {plain(damaged)} is damaged. Restore its folder from a backup.", icon=":material/error:"
        )
    sets = list_sets(settings.state_dir, with_removed=True)
    if not sets:
        st.html(label("None yet.", css="fine"))
        return
    st.dataframe(
        {
            "Version": [managed.id for managed in sets],
            "Scans": [managed.count() for managed in sets],
            "Distinct": [managed.distinct for managed in sets],
            **{diagnosis.value.capitalize(): [managed.count(diagnosis) for managed in sets] for diagnosis in Diagnosis},
            "Source": [managed.source for managed in sets],
            "Licence": [managed.licence for managed in sets],
            "Accepted by": [managed.who for managed in sets],
            "On (UTC)": [to_minutes(managed.created) for managed in sets],
            "Removed": [to_minutes(managed.removed) if managed.removed else "" for managed in sets],
        },
        hide_index=True,
        key="dataset-versions",
    )
    by_id = {managed.id: managed for managed in sets}
    chosen = st.selectbox("Version", list(by_id), key="dataset-version", width=420)
    _show_version(by_id[chosen], permit)


def _show_version(managed: ManagedSet, permit: Permit) -> None:
    left_out = "; ".join(f"{reason} ({count:,})" for reason, count in managed.left_out) or "nothing"
    copies = sum(bool(item.copies_of) for item in managed.items)
    patients = len({item.group for item in managed.items})
    lines = (
        f"{managed.count():,} scans, {managed.distinct:,} distinct, in {patients:,} groups that stay on one side of a "
        f"split (copies, and one patient where the files say so). {copies:,} repeat a scan of another known set.",
        f"Left out when it was accepted: {left_out}.",
        f"Source: {managed.source}. Licence: {managed.licence}.",
        f"Checksum of its content: {managed.content_sha256}.",
    )
    for line in lines:
        st.html(label(line, css="fine"))
    if managed.removed is not None:
        st.html(
            label(f"Removed on {to_minutes(managed.removed)}: its scans are deleted, the record stays.", css="fine")
        )
        return
    with st.popover("Remove", icon=":material/delete:"):
        _show_users(managed)
        st.html(
            label("Its scans and masks are deleted from this server; the record of what it held stays.", css="fine")
        )
        comment = st.text_input("Why", max_chars=300, key=f"dataset-why-{managed.id}")
        if st.button("Remove for good", key=f"dataset-remove-{managed.id}", disabled=not comment.strip()):
            settings = read_settings()
            try:
                remove(permit, managed.id, comment=comment.strip(), settings=settings, audit=open_audit(settings))
            except BusiError as error:
                show_error(error)
                return
            st.rerun()


def _show_users(managed: ManagedSet) -> None:
    """Trainings that would still read it."""
    try:
        jobs = list_jobs(read_settings())
    except BusiError as error:
        show_error(error)
        return
    users = [job for job in jobs if job.state in OPEN_STATES and managed.id in job.spec.data_sets]
    if users:
        named = "; ".join(f"{job.spec.version}, {job.state}, ordered by {job.who}" for job in users)
        st.warning(
            f"Trainings use it that are not over, and fail without it: {plain(named)}.", icon=":material/warning:"
        )
