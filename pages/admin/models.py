"""Model versions: where each came from, what the gate says about it, putting one into service, and back."""

import json

import streamlit as st

from busi_core import BusiError, read_settings
from busi_core.access import Permit
from busi_core.audit import open_audit
from busi_core.promotion.judge import identify
from busi_core.promotion.judging import Judging, read_judging, start_judging
from busi_core.promotion.overview import EARLIER, IN_SERVICE, SHOWN, VersionRow, list_rows
from busi_core.promotion.promote import promote, roll_back
from busi_core.promotion.protocol import Protocol, read_protocol
from busi_core.promotion.record import read_record
from busi_core.promotion.verdict import REFUSED, Verdict, read_verdict
from busi_core.registry import MAX_COMMENT, Change, Registry, read_registry
from pages.components.admin import require_admin
from pages.components.page import plain, show_error, start_page, to_minutes
from pages.components.serving import look_again
from pages.components.verdict_panel import show_verdict

POLL_SECONDS = 2
_NOTICE = "models-notice"  # what an action said, shown once by the run after it


def show_notice() -> None:
    """Tell how the last action ended, above everything else."""
    said = st.session_state.pop(_NOTICE, None)
    if isinstance(said, BusiError):
        show_error(said)
    elif said:
        st.success(said, icon=":material/check_circle:")


def show_in_service(permit: Permit, registry: Registry) -> None:
    """Which version reads scans now, since when and by whom; and the way back, at one click."""
    last = registry.history[-1] if registry.history else None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(f"In service: {plain(registry.in_service)}", width="content", anchor=False)
        if last is not None and last.before:
            st.button(
                f"Roll back to {plain(last.before)}",
                icon=":material/undo:",
                key="rollback-now",
                on_click=put_back,
                args=(permit, last.before, registry.in_service),
                help="For every reader, from their next scan on. Its files are checked; no verdict is needed.",
            )
    if last is None:
        st.caption("Since before changes were recorded.")
        return
    before = f", in place of {plain(last.before)}" if last.before else ""
    said = f": “{plain(last.comment)}”" if last.comment else ""
    st.caption(f"{last.kind.capitalize()} by {plain(last.who)}, {to_minutes(last.when)}{before}{said}")


def show_versions(rows: list[VersionRow], in_service: str) -> None:
    """Every version as a line; a verdict beside another than the version in service is none here."""
    tests = list(dict.fromkeys(name for row in rows for name in row.figures))
    columns: dict[str, list[str]] = {
        "version": [row.name for row in rows],
        "standing": [row.standing if row.problem is None else "damaged" for row in rows],
        "made": [row.card.created if row.card else "" for row in rows],
        f"verdict beside {in_service}": [
            "–" if row.standing == IN_SERVICE else row.outcome or "none yet" for row in rows
        ],
    }
    for test in tests:
        for figure in SHOWN:
            values = [row.figures.get(test, {}).get(figure) for row in rows]
            columns[f"{figure.split()[-1] if figure == SHOWN[0] else 'AUC'}, {test}"] = [
                "" if value is None or value != value else f"{value:.3f}" for value in values
            ]
    columns["taught by"] = [", ".join(row.data_sets) for row in rows]
    columns["came from"] = [row.origin for row in rows]
    st.dataframe(columns, hide_index=True, key="models-table")


def show_version(row: VersionRow) -> None:
    """Card and origin of the chosen version."""
    if row.card is None:
        st.error(plain(row.problem or "It cannot be read."), icon=":material/broken_image:")
        return
    card = row.card
    st.caption(
        f"{plain(row.origin)}; taught by {len(card.trained_on):,} images in all, last by "
        f"{plain(', '.join(row.data_sets) or 'unknown sets')}; made {card.created}, code {plain(card.commit)}"
    )
    with st.expander("Model card"):
        st.markdown(f"Encoder: {plain(card.encoder_source)}. SHA-256 of the weights `{card.sha256}`")
        content = {"preprocess": vars(card.preprocess), "training": dict(card.training)}
        st.json(json.dumps(content, default=str), expanded=False)


def find_verdict(row: VersionRow, registry: Registry, protocol: Protocol) -> Verdict | None:
    """The verdict that holds for the files as they lie there now."""
    folder = read_settings().weights_dir
    verdict = read_verdict(folder / row.name, registry.in_service, protocol)
    if verdict is None:
        return None
    now = identify(folder / row.name), identify(folder / registry.in_service)
    return verdict if (verdict.candidate, verdict.in_service) == now else None


def begin(permit: Permit, candidate: str) -> None:
    """The button 'Judge'."""
    try:
        start_judging(permit, candidate, read_settings())
    except BusiError as error:
        st.session_state[_NOTICE] = error


def put_into_service(permit: Permit, candidate: str, in_service: str, verdict: Verdict) -> None:
    """The button 'Put into service', against the version that stood on the screen."""
    settings = read_settings()
    try:
        promote(
            permit,
            candidate,
            comment=st.session_state["promote-comment"],
            expected_in_service=in_service,
            verdict=verdict,
            settings=settings,
            audit=open_audit(settings),
        )
    except BusiError as error:
        st.session_state[_NOTICE] = error
        return
    look_again()
    st.session_state[_NOTICE] = f"{plain(candidate)} is in service. Sessions read with it from their next scan on."


def put_back(permit: Permit, version: str, in_service: str, comment_key: str | None = None) -> None:
    """The buttons 'Roll back'; the comment is what stands in that field, where there is one."""
    settings = read_settings()
    try:
        roll_back(
            permit,
            version,
            comment=st.session_state[comment_key] if comment_key else "",
            expected_in_service=in_service,
            settings=settings,
            audit=open_audit(settings),
        )
    except BusiError as error:
        st.session_state[_NOTICE] = error
        return
    look_again()
    st.session_state[_NOTICE] = f"{plain(version)} is in service again."


@st.fragment(run_every=POLL_SECONDS)
def watch(permit: Permit) -> None:
    """How far the judgement is; the whole page once it is done."""
    try:
        permit.confirm()  # every few seconds this runs alone
    except BusiError as error:
        show_error(error)
        return
    state = read_judging(read_settings())
    if state is None or not state.running:
        st.rerun(scope="app")
    name = f"**{plain(state.candidate)}** is being judged, for {plain(state.who)}"
    if not state.total:
        st.info(f"{name}: looking for copies of locked scans in its training.", icon=":material/gavel:")
        return
    left = f", about {max(1, round(state.seconds_left / 60))} min left" if state.done < state.total else ""
    st.progress(min(1.0, state.done / state.total), f"{name}: {state.done:,} of {state.total:,} scans read{left}")
    st.caption("It goes on when this page is closed.")


def show_judging(permit: Permit, row: VersionRow, state: Judging | None, *, is_refused: bool) -> None:
    """The way to a verdict: begin, watch, or learn why there is none."""
    if state is not None and state.running:
        watch(permit)
        return
    if state is not None and state.candidate == row.name:
        if state.problem:
            st.error(plain(state.problem), icon=":material/error:")
        elif state.died:
            st.error("The judgement was ended from outside, or the memory did not suffice.", icon=":material/error:")
    if not is_refused:
        st.markdown("Not judged beside the version in service. Both read all locked scans: some minutes.")
    st.button(
        f"Judge {plain(row.name)}{' anew' if is_refused else ''}",
        icon=":material/gavel:",
        type="primary",
        key="judge",
        on_click=begin,
        args=(permit, row.name),
    )


def show_promotion(permit: Permit, row: VersionRow, registry: Registry, verdict: Verdict) -> None:
    """Comment, confirmation, button."""
    st.text_input(
        "Why it goes into service",
        key="promote-comment",
        max_chars=MAX_COMMENT,
        placeholder="kept in the record; no patient data",
    )
    read = st.checkbox("I have read the verdict", key=f"promote-read-{verdict.created}")
    st.button(
        f"Put {plain(row.name)} into service",
        icon=":material/publish:",
        type="primary",
        key="promote",
        disabled=not read,
        on_click=put_into_service,
        args=(permit, row.name, registry.in_service, verdict),
    )


def show_roll_back(permit: Permit, row: VersionRow, registry: Registry) -> None:
    """An earlier version needs no verdict: it was in service."""
    with st.container(border=True):
        st.markdown(f"**{plain(row.name)}** was in service before. It needs no verdict; its files are checked.")
        st.text_input(
            "Why back to it (optional)",
            key="rollback-comment",
            max_chars=MAX_COMMENT,
            placeholder="kept in the history",
        )
        st.button(
            f"Roll back to {plain(row.name)}",
            icon=":material/undo:",
            key="rollback",
            on_click=put_back,
            args=(permit, row.name, registry.in_service, "rollback-comment"),
        )


def show_history(registry: Registry) -> None:
    """Who put what into service, the latest first, with the record of each promotion."""
    st.header("History")
    if not registry.history:
        st.caption("No change since they are recorded.")
        return
    newest = registry.history[::-1]
    st.dataframe(
        {
            "No.": [change.revision for change in newest],
            "Time (UTC)": [to_minutes(change.when) for change in newest],
            "who": [change.who for change in newest],
            "what": [change.kind for change in newest],
            "version": [change.version for change in newest],
            "before": [change.before for change in newest],
            "verdict": [str(change.evidence.get("outcome", "")) for change in newest],
            "why": [change.comment for change in newest],
        },
        hide_index=True,
        key="models-history",
    )
    promotions = {change.revision: change for change in newest if change.evidence}
    if promotions:
        number = st.selectbox(
            "Record of a promotion",
            list(promotions),
            format_func=lambda n: f"No. {n}: {promotions[n].version}, {to_minutes(promotions[n].when)}",
            key="models-record",
        )
        show_record(promotions[number])


def show_record(change: Change) -> None:
    """Description, protocol and impact of one promotion."""
    record = read_record(read_settings().weights_dir, change)
    if record is None:
        st.error("The record of this promotion is missing, or is not the one that was written.")
        return
    st.json(json.dumps(record), expanded=1)
    name = f"promotion-{change.revision}-{change.version}.json"
    st.download_button(
        "Record as JSON", json.dumps(record, indent=1), name, "application/json", on_click="ignore", key="record-json"
    )


def read_rules() -> Protocol | None:
    """The protocol; says what is wrong with it where it cannot be read."""
    try:
        return read_protocol(read_settings().promotion_protocol)
    except BusiError as error:
        show_error(error)
        return None


start_page()
admin = require_admin()
st.title("Models")
show_notice()
weights_dir = read_settings().weights_dir
try:
    registered = read_registry(weights_dir)
except BusiError as error:
    show_error(error)
    st.stop()
rules = read_rules()
versions = list_rows(weights_dir, registered, rules)
show_in_service(admin, registered)
show_versions(versions, registered.in_service)
others = {row.name: row for row in versions if row.standing != IN_SERVICE}
judgement = read_judging(read_settings())
if others:
    chosen = others[st.selectbox("Version to judge, put into service or roll back to", list(others), key="model")]
    show_version(chosen)
    if chosen.standing == EARLIER:
        show_roll_back(admin, chosen, registered)
    if rules is not None:
        found = find_verdict(chosen, registered, rules)
        if found is not None:
            show_verdict(found)
        is_refused = found is not None and found.outcome == REFUSED  # what stood in the way may be gone
        if found is None or is_refused or (judgement is not None and judgement.running):
            show_judging(admin, chosen, judgement, is_refused=is_refused)
        if found is not None and found.may_be_promoted:
            show_promotion(admin, chosen, registered, found)
else:
    st.info("No other version is on this server. Train one on the page Retrain, or with 'busi train'.")
show_history(registered)
