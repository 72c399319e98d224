"""Page config and navigation, nothing else."""

from pathlib import Path

import streamlit as st

st.set_page_config(
    page_title="Breast ultrasound reading",
    page_icon=str(Path(__file__).parent / "pages/components/icon.png"),
    layout="wide",
)

PAGES = {
    "Reading": [
        st.Page("pages/reading/analyse.py", title="Analyse", icon=":material/radiology:", default=True),
        st.Page("pages/reading/compare.py", title="Compare", icon=":material/compare:"),
        st.Page("pages/reading/batch.py", title="Batch", icon=":material/stacks:"),
    ],
    "Evidence": [st.Page("pages/evidence/about.py", title="About the model", icon=":material/fact_check:")],
}

st.navigation(PAGES, position="top").run()
