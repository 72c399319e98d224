"""Curves of training runs; fixed colours, one meaning each."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from busi_core.training.log import Epoch

LIGHT_BLUE, AMBER, GREEN, RED, GREY = "#4fd8ff", "#ffb000", "#3fb950", "#ff7b72", "#8b949e"
RUN_COLOURS = (LIGHT_BLUE, AMBER, GREEN, RED, "#bc8cff", "#e6edf3")
DASHES = ("solid", "dash", "dot", "dashdot")  # told apart without colours too
FIGURES = {
    "score": "Validation score",
    "dice": "Lesion Dice",
    "macro_f1": "Macro-F1",
    "normals_with_mask": "Normals given a mask",
    "loss": "Training loss",
}
HEIGHT_PX = 280
WHOLE_STEPS = 10  # up to so many epochs each has a tick of its own


def draw_loss(epochs: Sequence[Epoch], last: int) -> go.Figure:
    """Training loss by epoch, the axis as long as the run may be."""
    figure = _make_figure("Training loss", last)
    figure.update_yaxes(rangemode="nonnegative")
    figure.add_trace(_line(epochs, "loss", "loss", LIGHT_BLUE, "solid"))
    return figure


def draw_validation(epochs: Sequence[Epoch], last: int) -> go.Figure:
    """What the best epoch is chosen by, and its parts, with the best epoch marked."""
    figure = _make_figure("On validation scans", last)
    figure.update_yaxes(range=[0, 1.02])
    parts = (("score", LIGHT_BLUE), ("dice", AMBER), ("macro_f1", GREEN), ("normals_with_mask", RED))
    for (name, colour), dash in zip(parts, DASHES, strict=True):
        figure.add_trace(_line(epochs, name, FIGURES[name], colour, dash))
    if epochs:
        best = max(epochs, key=lambda epoch: epoch.score)
        figure.add_vline(best.epoch, line={"color": GREY, "width": 1, "dash": "dot"})
    return figure


def draw_comparison(runs: Mapping[str, Sequence[Epoch]], name: str) -> go.Figure:
    """One figure of several runs, a line each."""
    figure = _make_figure(FIGURES[name], max((len(epochs) for epochs in runs.values()), default=1))
    for number, (run, epochs) in enumerate(runs.items()):
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        figure.add_trace(_line(epochs, name, run, colour, DASHES[number // len(RUN_COLOURS) % len(DASHES)]))
    figure.update_layout(height=HEIGHT_PX + 60)
    return figure


def _line(epochs: Sequence[Epoch], name: str, label: str, colour: str, dash: str) -> go.Scatter:
    return go.Scatter(
        x=[epoch.epoch for epoch in epochs],
        y=[getattr(epoch, name) for epoch in epochs],
        name=label,
        mode="lines+markers" if len(epochs) < 30 else "lines",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"size": 5},
        hovertemplate="%{y:.3f}",
    )


def _make_figure(title: str, last: int) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 14}, "x": 0, "y": 0.97},
        height=HEIGHT_PX,
        margin={"l": 40, "r": 8, "t": 32, "b": 36},
        legend={"orientation": "h", "y": -0.3, "yanchor": "top", "x": 0, "font": {"size": 11}},
        hovermode="x unified",
        uirevision="stays",  # a new epoch does not undo what was zoomed or hidden
        showlegend=True,
    )
    figure.update_xaxes(title={"text": "epoch", "standoff": 4}, range=[0.5, max(last, 2) + 0.5], tickformat="d")
    if last <= WHOLE_STEPS:
        figure.update_xaxes(dtick=1)  # else half epochs get a tick, and its number is rounded
    return figure
