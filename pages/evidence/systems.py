"""The published systems on honest splits: the price of a leak, the table, the curves, the contradictions."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from busi_core import read_settings
from busi_core.recipes.contradictions import find_contradictions
from busi_core.registry import list_versions
from busi_core.settings import PROJECT_ROOT
from busi_core.study.document import format_budget, format_epochs, format_figure, format_hours, leak_caution
from busi_core.study.reproduce import JSON_FILE, TRAINED, read_study
from pages.components.charts import CONFIG, draw_curves, draw_intervals, draw_leak
from pages.components.page import label, start_page
from pages.components.serving import choose_version, servable_versions

FIGURES = ("lesion Dice", "pooled Dice", "pooled IoU", "pixel accuracy", "weighted F1", "AUC malignant against benign")
PAPERS = {
    "000": "000 · Grad-CAM and its Table I",
    "001": "001 · tissue",
    "002": "002 · dropout",
    "003": "003 · squeeze and excitation",
    "004": "004 · two stages",
}


def show_leak(leaks: list[Mapping[str, Any]]) -> None:
    """What a leak buys, as a picture, and how it was measured."""
    st.header("The price of a leak")
    if not leaks:
        st.info("Not measured here yet. Command: `busi reproduce --budget cpu --only leak`", icon=":material/terminal:")
        return
    st.markdown(
        "The same test files, read by two models: one trained beside copies of them, as a random split has it, "
        "and one without. Everything else is equal. Files without a copy are the control, where two trainings differ "
        "by chance alone; what counts is the gain of the copies beyond it."
    )
    figures = list(dict.fromkeys(effect["figure"] for leak in leaks for effect in leak["effects"]))
    figure = st.segmented_control("Figure", figures, default=figures[0], key="leak-figure") or figures[0]
    for column, leak in zip(st.columns(len(leaks)), leaks, strict=True):
        effects = [effect for effect in leak["effects"] if effect["figure"] == figure]
        with column:
            st.markdown(f"**{leak['recipe']}**")
            if not effects:
                st.html(label("This system gives no class."))
                continue
            st.plotly_chart(
                draw_leak(effects, f"gain in {figure}"), config=CONFIG, key=f"leak-{leak['recipe']}-{leak['budget']}"
            )
            every = effects[0]
            st.html(
                label(
                    f"{figure}: {every['by_scan']:.3f} split by scan, {every['random']:.3f} split at random. "
                    f"{leak['files_with_copy']} of {leak['files']} test files have a copy. Seeds {leak['seeds']}, "
                    f"{leak['size']} px, {format_epochs(leak)}, {format_hours(leak)}. "
                    "Diamonds are single seeds, bars 95 % intervals over seeds and scans.",
                    css="fine",
                )
            )
            if leak_caution(leak):
                st.warning(leak_caution(leak), icon=":material/hourglass_top:")


def table_rows(study: Mapping[str, Any], rows: list[Mapping[str, Any]], figure: str) -> list[dict[str, str]]:
    """One line a system, the empty mask and the product last."""
    shown = []
    for row in rows:
        trained = row["state"] == TRAINED
        printed = row["printed"].get(figure)
        start = "printed: ImageNet, here: random" if row["printed_start"] == "ImageNet" else ""
        how = format_budget(row) if trained else row["command"]
        shown.append(
            {
                "system": row["recipe"],
                "paper": row["paper"],
                "printed": "–" if printed is None else f"{printed:.3f}",
                "ours (95 % interval)": format_figure(row["figures"].get(figure)) if trained else "not trained here",
                "how": " · ".join(part for part in (how, start, row["note"]) if part),
            }
        )
    for name, figures, how in (
        ("a mask that is always empty", study.get("empty_mask"), "no model"),
        (*product_row(study), "the version in service when the study ran"),
    ):
        if figures:
            shown.append(
                {
                    "system": name,
                    "paper": "",
                    "printed": "–",
                    "ours (95 % interval)": format_figure(figures.get(figure)),
                    "how": how,
                }
            )
    return shown


def product_row(study: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The product by its version, which need not be the one in service now, and its figures."""
    product = study.get("product") or {}
    return f"this project, {product.get('version', '')}", product.get("figures", {})


def show_table(study: Mapping[str, Any]) -> None:
    """Printed beside ours, filtered by paper and figure, with the intervals drawn."""
    st.header("Printed beside ours")
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    papers = left.pills("Paper", list(PAPERS), format_func=PAPERS.__getitem__, selection_mode="multi", key="papers")
    figure = right.selectbox("Figure", FIGURES, key="system-figure")
    rows = [row for row in study["rows"] if not papers or row["paper"] in papers]
    st.dataframe(table_rows(study, rows, figure), hide_index=True, width="stretch", key="systems-table")
    trained = [row for row in rows if row["state"] == TRAINED]
    drawn = [(row["recipe"], row["figures"][figure]) for row in trained if figure in row["figures"]]
    for name, figures in (("empty mask", study.get("empty_mask") or {}), product_row(study)):
        if figure in figures:
            drawn.append((name, figures[figure]))
    if drawn:
        st.plotly_chart(draw_intervals(drawn, figure), config=CONFIG, key="systems-intervals")
    st.html(
        label(
            "Ours: fold 0 of BUSI, no copy of which is in training. Papers: their own random splits, as printed.",
            css="fine",
        )
    )


def show_versions() -> None:
    """Systems whose weights are here open in Analyse."""
    here = [name for name in servable_versions() if name in RECIPE_NAMES]
    if not here:
        return
    st.html(label("Weights are here; read scans with:"))
    with st.container(horizontal=True):
        for name in here:
            if st.button(f"Open {name} in Analyse", key=f"open-{name}", icon=":material/radiology:"):
                choose_version(name)
                st.switch_page("pages/reading/analyse.py")


def show_tissue(rows: list[Mapping[str, Any]]) -> None:
    """The system that reads tissue, its classes and its confusion matrix; never in Analyse."""
    for row in rows:
        details = row.get("details")
        if row["state"] != TRAINED or not details:
            continue
        with st.expander(f"{row['recipe']}: each class"):
            st.warning(f"{row['note'].capitalize()}. It reads no scans.", icon=":material/science:")
            measures = {
                name: [f"{value:.3f}" for value in details[name]] for name in ("precision", "recall", "F1", "IoU")
            }
            st.table({"class": details["classes"], **measures}, hide_index=True, width="content")
            st.html(label("Pixels: rows truth, columns prediction"))
            st.table(
                [
                    {"truth": name, **dict(zip(details["classes"], line, strict=True))}
                    for name, line in zip(details["classes"], details["confusion"], strict=True)
                ],
                hide_index=True,
                width="content",
            )


def show_curves(rows: list[Mapping[str, Any]]) -> None:
    """Loss and validation Dice over epochs."""
    curves = {row["recipe"]: row["curve"] for row in rows if row["state"] == TRAINED and row["curve"]}
    if not curves:
        return
    st.header("Training curves")
    left, right = st.columns(2)
    left.plotly_chart(draw_curves(curves, "loss", "training loss"), config=CONFIG, key="curve-loss")
    right.plotly_chart(draw_curves(curves, "dice", "validation Dice"), config=CONFIG, key="curve-dice")


def show_contradictions() -> None:
    """What the papers print that cannot be true or is missing."""
    st.header("What cannot be true, or is missing")
    st.html(label("Computed from the printed figures: whether they can belong to one table of counts.", css="fine"))
    points = find_contradictions()
    st.dataframe(
        [{"paper": p.paper, "verdict": p.kind, "printed": p.printed, "what follows": p.arithmetic} for p in points],
        hide_index=True,
        width="stretch",
        row_height=64,
        key="contradictions",
    )


start_page()
st.title("The published systems")
st.markdown("Five papers, rebuilt from their text and measured on scans that have no copy in training.")
study = read_study(PROJECT_ROOT / "docs" / JSON_FILE)
RECIPE_NAMES = {row["recipe"] for row in study.get("rows", [])} & set(list_versions(read_settings().weights_dir))
show_leak(study.get("leak", []))
if study.get("rows"):
    show_table(study)
    show_versions()
    show_tissue(study["rows"])
    show_curves(study["rows"])
else:
    st.info("No study was run here yet. Command: `busi reproduce --budget cpu`", icon=":material/terminal:")
show_contradictions()
