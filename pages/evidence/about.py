"""The model in service: what it is, what it was trained on, what it reached on scans it never saw."""

import streamlit as st

from busi_core import BusiError
from busi_core.cross_validation import READ_BY
from busi_core.model_card import LIMITS
from pages.components.evidence_table import show_figures
from pages.components.page import plain, show_error, start_page
from pages.components.serving import current_analyser, get_cross_validation, get_reports

start_page()
st.title("About the model")
try:
    card = current_analyser().card
except BusiError as error:
    show_error(error)
    st.stop()

st.markdown(
    f"**{plain(card.version)}** outlines lesions and classifies a scan as normal, benign or malignant. "
    f"Its network, {plain(card.architecture.name)} with the encoder {plain(card.architecture.encoder)}, reads "
    f"{card.preprocess.side} × {card.preprocess.side} pixels in grey and was trained on {card.created}."
    + (
        f" Where it is in doubt it asks {len(card.second_opinion.readers)} more networks, and what most of them "
        "outline counts."
        if card.second_opinion
        else ""
    )
)
reports = get_reports(card.version)
if not reports:
    st.warning("This version has not been evaluated. Do not rely on it.")
for report in reports:
    st.header(f"On scans it never saw: {report.test_set}")
    counts = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
    st.caption(f"{report.scans:,} scans ({counts}); scans with a copy in training: {report.copies_in_training:,}")
    show_figures(report)
for report in get_cross_validation(card.version):
    dice, auc = report.table["lesion Dice"], report.table["AUC malignant against benign"]
    st.caption(
        f"Its recipe on {report.test_set}. {READ_BY[report.test_set]}: {report.scans:,} scans, lesion Dice "
        f"{dice.estimate:.3f} ({dice.low:.3f} – {dice.high:.3f}), AUC {auc.estimate:.3f} "
        f"({auc.low:.3f} – {auc.high:.3f}). All figures: Performance."
    )
st.header("What it cannot know")
st.markdown("\n".join(f"- {limit}" for limit in LIMITS))
with st.expander("Model card"):
    st.markdown(f"Encoder: {plain(card.encoder_source)}. Code {plain(card.commit)}. SHA-256 `{card.sha256}`")
    st.json({"preprocess": card.preprocess.__dict__, "training": dict(card.training)}, expanded=False)
