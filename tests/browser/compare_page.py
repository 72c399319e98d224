"""The Compare page alone, on a server of its own environment. Run by test_compare_in_browser.py."""

import runpy
from pathlib import Path

import streamlit as st

st.set_page_config(layout="wide")
runpy.run_path(str(Path(__file__).parents[2] / "pages/reading/compare.py"))
