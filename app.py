"""Page config and navigation, nothing else."""

from pathlib import Path

import streamlit as st

from pages.components.first_visit import close_page_not_found, is_first_run, load_program

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
    "Evidence": [
        st.Page("pages/evidence/about.py", title="About the model", icon=":material/fact_check:"),
        st.Page("pages/evidence/performance.py", title="Performance", icon=":material/monitoring:"),
        st.Page("pages/evidence/systems.py", title="Systems", icon=":material/table_chart:"),
    ],
    "Administration": [
        st.Page("pages/admin/datasets.py", title="Data sets", icon=":material/folder_data:"),
        st.Page("pages/admin/retrain.py", title="Retrain", icon=":material/model_training:"),
        st.Page("pages/admin/models.py", title="Models", icon=":material/deployed_code:"),
        st.Page("pages/admin/audit.py", title="Audit log", icon=":material/history:"),
    ],
}

is_first = is_first_run()
page = st.navigation(PAGES, position="top")
if is_first and page.url_path:  # found by its address, whatever was said before
    close_page_not_found()
load_program()
page.run()
