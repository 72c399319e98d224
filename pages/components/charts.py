"""Plots of the evidence pages: figures from reports and the study in, plotly figures out; nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

BLUE, RED, GREY, AMBER, TEXT = "#58a6ff", "#ff7b72", "#8b949e", "#ffb000", "#e6edf3"
CONFIG = {"displayModeBar": False}


def draw_intervals(rows: Sequence[tuple[str, Mapping[str, float]]], title: str) -> go.Figure:
    """One line a system: the estimate as a dot, its 95 % interval as a bar.

    Args:
        rows: (name, {estimate, low, high}), drawn from the top.
        title: Of the axis.
    """
    figure = go.Figure(
        go.Scatter(
            x=[value["estimate"] for _, value in rows],
            y=[name for name, _ in rows],
            mode="markers",
            marker={"size": 10, "color": BLUE},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [value["high"] - value["estimate"] for _, value in rows],
                "arrayminus": [value["estimate"] - value["low"] for _, value in rows],
                "color": GREY,
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return _dress(figure, height=90 + 34 * len(rows), x=title, y="")


def draw_leak(effects: Sequence[Mapping[str, Any]], title: str) -> go.Figure:
    """What a leak buys: one dot a subset with its interval, and a small dot for each seed; the line is 'nothing'."""
    figure = go.Figure()
    names = [f"{effect['subset']} ({effect['files']})" for effect in effects]
    gains = [effect["difference"] for effect in effects]
    for name, effect in zip(names, effects, strict=True):
        seeds = [value for value in effect["per_seed"] if value is not None]
        figure.add_scatter(
            x=seeds,
            y=[name] * len(seeds),
            mode="markers",
            marker={"size": 6, "color": GREY, "symbol": "diamond-open"},
            hovertemplate="one seed: %{x:+.3f}<extra></extra>",
            showlegend=False,
        )
    figure.add_scatter(
        x=[gain["estimate"] for gain in gains],
        y=names,
        mode="markers",
        marker={"size": 11, "color": AMBER},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [gain["high"] - gain["estimate"] for gain in gains],
            "arrayminus": [gain["estimate"] - gain["low"] for gain in gains],
            "color": AMBER,
        },
        hovertemplate="%{x:+.3f}<extra></extra>",
        showlegend=False,
    )
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot"})
    figure.update_yaxes(autorange="reversed")
    return _dress(figure, height=90 + 46 * len(names), x=title, y="")


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], value: str, title: str) -> go.Figure:
    """A value of the training log over epochs, one line a run."""
    figure = go.Figure()
    for number, (name, curve) in enumerate(curves.items()):
        figure.add_scatter(
            x=[line["epoch"] for line in curve],
            y=[line[value] for line in curve],
            mode="lines+markers",
            marker={"symbol": number},  # told apart without colours too
            name=name,
        )
    _dress(figure, height=400, x="epoch", y=title)
    return figure.update_layout(legend={"y": -0.2, "yanchor": "top"})  # many runs need many lines, on a phone above all


def draw_roc(sensitivity: Sequence[float], specificity: Sequence[float], flag: tuple[float, float] | None) -> go.Figure:
    """Sensitivity over false alarms; `flag` as (sensitivity, specificity) is the operating point in service."""
    figure = go.Figure(
        go.Scatter(
            x=[1 - value for value in specificity],
            y=list(sensitivity),
            mode="lines",
            line={"shape": "hv", "color": BLUE},
            hovertemplate="above it: %{y:.0%} of malignant and %{x:.0%} of benign<extra></extra>",
            name="every threshold",
        )
    )
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dot"}, name="guessing")
    if flag:
        point = {"size": 11, "color": AMBER}
        figure.add_scatter(x=[1 - flag[1]], y=[flag[0]], mode="markers", marker=point, name="the flag in service")
    return _dress(figure, height=360, x="share of benign above the threshold", y="share of malignant above it")


def draw_reliability(bins: Sequence[tuple[int, float, float]]) -> go.Figure:
    """How often the model was right over how sure it was; a dot's size is its number of scans."""
    figure = go.Figure(
        go.Scatter(x=[0.3, 1], y=[0.3, 1], mode="lines", line={"color": GREY, "dash": "dot"}, name="as sure as right")
    )
    figure.add_scatter(
        x=[sure for _, sure, _ in bins],
        y=[right for _, _, right in bins],
        text=[count for count, _, _ in bins],
        mode="markers",
        marker={"size": [6 + 2 * count**0.5 for count, _, _ in bins], "color": BLUE},
        hovertemplate="%{text} scans: %{x:.0%} sure, %{y:.0%} right<extra></extra>",
        name="scans",
    )
    return _dress(figure, height=360, x="how sure", y="share right")


SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the image; plotly's own ticks run into each other


def draw_dice_by_size(points: Sequence[tuple[float, float, str, str]]) -> go.Figure:
    """Dice of each lesion over its share of the image: (share, Dice, class, id)."""
    figure = go.Figure()
    for name, colour, symbol in (("benign", BLUE, "circle"), ("malignant", RED, "diamond")):
        of_class = [point for point in points if point[2] == name]
        figure.add_scatter(
            x=[share for share, *_ in of_class],
            y=[dice for _, dice, *_ in of_class],
            text=[scan for *_, scan in of_class],
            mode="markers",
            marker={"size": 8, "color": colour, "symbol": symbol, "opacity": 0.75},
            hovertemplate="%{text}: Dice %{y:.2f}, %{x:.1%} of the image<extra></extra>",
            name=name,
        )
    figure.update_xaxes(type="log", tickvals=SHARES, ticktext=[f"{share:.1%}" for share in SHARES])
    return _dress(figure, height=360, x="lesion's share of the image", y="Dice")


def _dress(figure: go.Figure, *, height: int, x: str, y: str) -> go.Figure:
    figure.update_layout(
        template="plotly_dark",
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "size": 13},
        legend={"orientation": "h", "y": 1.08, "x": 0},
    )
    figure.update_xaxes(title=x, automargin=True, gridcolor="#21262d")
    figure.update_yaxes(title=y, automargin=True, gridcolor="#21262d")
    return figure
