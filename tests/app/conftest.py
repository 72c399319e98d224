"""Each file of tests starts with what a fresh server has: nothing remembered of the files that ran before it."""

import pytest
import streamlit as st


@pytest.fixture(autouse=True, scope="module")
def nothing_remembered() -> None:
    st.cache_resource.clear()
    st.cache_data.clear()
