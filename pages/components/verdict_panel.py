"""A verdict on screen: the word, the reasons, every gain against its margin as a picture and as a table."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
import streamlit as st

from busi_core.promotion.verdict import (
    BETTER,
    BROKEN,
    INSUFFICIENT,
    KEPT,
    NON_INFERIOR,
    OPEN,
    PART,
    REFUSED,
    WORSE,
    Comparison,
    Verdict,
)
from pages.components.page import plain, to_minutes

_COLOURS = {BETTER: "#3fb950", KEPT: "#58a6ff", BROKEN: "#ff7b72", OPEN: "#ffb000"}
_GREY = "#8b949e"
_ROW_PX = 52
_SAID = {
    BETTER: "Better. It may be put into service.",
    NON_INFERIOR: "Non-inferior: no worse than the margins allow. It may be put into service.",
    WORSE: "Worse. It is not put into service.",
    INSUFFICIENT: "Insufficient evidence: too few scans to tell. It is not put into service.",
    REFUSED: "Refused. It is not put into service.",
}


def show_verdict(verdict: Verdict) -> None:
    """Everything that the gate says about a candidate."""
    show = st.success if verdict.may_be_promoted else st.warning if verdict.outcome == INSUFFICIENT else st.error
    reasons = "\n".join(f"- {plain(reason)}" for reason in verdict.reasons)
    show(f"**{_SAID[verdict.outcome]}**\n\n{reasons}")
    scans = f"{sum(verdict.counts.values())} locked scans"
    kinds = ", ".join(f"{count:,} {name}" for name, count in verdict.counts.items())
    on = f"on {scans} ({kinds})" if verdict.comparisons else f"without figures on the {scans}"
    st.caption(
        f"{plain(verdict.candidate.version)} beside {plain(verdict.in_service.version)}, {on}, judged "
        f"{to_minutes(verdict.created)} UTC. {_say_looks(verdict.looks)}"
    )
    whole = [one for one in verdict.comparisons if one.rule != PART]
    parts = [one for one in verdict.comparisons if one.rule == PART]
    if whole:
        st.markdown("**Gain of the candidate** with its 95 % interval: right of 0 it is better; red line: the margin")
        st.plotly_chart(draw_gains(whole), key="verdict-gains", config={"displayModeBar": False}, width="stretch")
        _show_table(whole, "verdict-table")
    if parts:
        with st.expander("By class, lesion size, test set and device", expanded=verdict.outcome == WORSE):
            st.plotly_chart(draw_gains(parts), key="verdict-parts", config={"displayModeBar": False}, width="stretch")
            _show_table(parts, "verdict-parts-table")


def draw_gains(comparisons: Sequence[Comparison]) -> go.Figure:
    """One row each: the gain as a point, its interval as a line, the margin as a red tick, names above."""
    figure = go.Figure()
    for row, one in enumerate(comparisons):
        gain = one.gain.gain
        colour = _COLOURS.get(one.standing, _GREY)
        figure.add_scatter(
            x=[gain.estimate],
            y=[row],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [gain.high - gain.estimate],
                "arrayminus": [gain.estimate - gain.low],
                "thickness": 2.5,
                "width": 0,
            },
            marker={"size": 10, "color": colour, "symbol": "circle" if one.standing in _COLOURS else "circle-open"},
            hovertemplate=f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]<br>{one.standing}<extra></extra>",
        )
        figure.add_shape(
            type="line",
            x0=-one.margin,
            x1=-one.margin,
            y0=row - 0.18,
            y1=row + 0.22,
            line={"color": "#f85149", "width": 2},
        )
        figure.add_annotation(
            text=f"{escape(_name(one))} <span style='color:{colour}'>{one.standing}</span>",
            x=0, xref="paper", xanchor="left", y=row - 0.42, showarrow=False, font={"size": 12},
        )  # fmt: skip
    ends = [end for one in comparisons for end in (one.gain.gain.low, one.gain.gain.high, -one.margin) if end == end]
    left = 1.1 * min([-0.05, *ends])
    right = 1.1 * max([-left / 4, *ends])  # room to the right of 0 even where nothing gained
    figure.update_layout(
        height=_ROW_PX * len(comparisons) + 50,
        margin={"l": 8, "r": 8, "t": 6, "b": 30},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={
            "range": [left, right],
            "zeroline": True,
            "zerolinecolor": _GREY,
            "gridcolor": "#21262d",
            "tickformat": "+.2f",
            "fixedrange": True,
        },
        yaxis={"range": [len(comparisons) - 0.5, -0.75], "visible": False, "fixedrange": True},
    )
    return figure


def _show_table(comparisons: Sequence[Comparison], key: str) -> None:
    gains = [one.gain for one in comparisons]
    st.dataframe(
        {
            "figure": [_name(one) for one in comparisons],
            "candidate": [_number(gain.candidate) for gain in gains],
            "in service": [_number(gain.in_service) for gain in gains],
            "gain": [_number(gain.gain.estimate, sign=True) for gain in gains],
            "95 % interval": [
                f"{_number(gain.gain.low, sign=True)} to {_number(gain.gain.high, sign=True)}" for gain in gains
            ],
            "may fall by": [f"{one.margin:.2f}" for one in comparisons],
            "standing": [one.standing for one in comparisons],
            "scans": [gain.scans for gain in gains],
            "scans to tell": ["" if one.scans_needed is None else str(one.scans_needed) for one in comparisons],
        },
        hide_index=True,
        key=key,
        column_config={
            "gain": st.column_config.TextColumn(help="Above 0 the candidate is better, also where less is better."),
            "scans to tell": st.column_config.TextColumn(
                help="About how many such scans would tell, if the gain seen is the true one."
            ),
        },
    )


def _name(one: Comparison) -> str:
    gain = one.gain
    return gain.figure if gain.part == "all" else f"{gain.part}: {gain.figure}"


def _number(value: float, *, sign: bool = False) -> str:
    return "n/a" if value != value else f"{value:+.3f}" if sign else f"{value:.3f}"


def _say_looks(looks: int) -> str:
    if not looks:
        return "No version was judged on these scans before."
    times = "1 other version was" if looks == 1 else f"{looks} other versions were"
    return f"{times} judged on these scans: each look wears them out a little."
