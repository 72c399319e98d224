"""The model in service: what it is, what it was trained on, what it reached on scans it never saw."""

import streamlit as st

from busi_core import BusiError
from pages.components.page import plain, show_error, start_page
from pages.components.serving import current_analyser, get_reports

start_page()
st.title("About the model")
try:
    card = current_analyser().card
except BusiError as error:
    show_error(error)
    st.stop()

st.markdown(
    f"**{plain(card.version)}** outlines lesions and sorts a scan into normal, benign or malignant. "
    f"A {plain(card.architecture.name)} on the encoder {plain(card.architecture.encoder)}, reading "
    f"{card.preprocess.side} × {card.preprocess.side} pixels in grey, trained on {card.created}."
)
reports = get_reports(card.version)
if not reports:
    st.warning("This version has not been evaluated. Do not rely on it.")
for report in reports:
    st.subheader(f"On scans it never saw: {report.test_set}")
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    st.caption(f"{report.scans} scans ({counts}); scans with a copy in training: {report.copies_in_training}")
    st.dataframe(
        {
            "figure": list(report.table),
            "value": [f"{value.estimate:.3f}" for value in report.table.values()],
            "95 % interval": [f"{value.low:.3f} – {value.high:.3f}" for value in report.table.values()],
        },
        hide_index=True,
        width="content",
    )
st.subheader("What it cannot know")
st.markdown(
    """
- It was trained on two public collections (BUSI, Cairo; BUS-BRA, Rio de Janeiro). Other machines, settings and
  patients may be read worse, and nothing on the screen would say so.
- It sees one image: no history, no other view, no motion, no elastography.
- Normal breasts in the test are few; a lesion outlined on a normal scan is to be expected now and then.
- A heat map shows where the evidence for a class lies on a coarse grid. It is no outline and no probability.
- The score is of the image. It is not the chance of cancer for the patient in front of you.
"""
)
with st.expander("Model card"):
    st.markdown(f"Encoder: {plain(card.encoder_source)}. Code {plain(card.commit)}. SHA-256 `{card.sha256}`")
    st.json({"preprocess": card.preprocess.__dict__, "training": dict(card.training)}, expanded=False)
