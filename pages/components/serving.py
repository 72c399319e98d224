"""The model in service for the whole process, and readings for one session."""

import streamlit as st

from busi_core import Analyser, Analysis, EvaluationReport, Serving, choose_device, read_reports, read_settings

MAX_ANALYSES = 8  # kept a session; each holds a decoded scan of up to 25 megapixels


@st.cache_resource(show_spinner=False)
def get_serving() -> Serving:
    """One for the whole server: weights are large, hold no patient data, and are safe to share."""
    settings = read_settings()
    return Serving(settings.weights_dir, choose_device(settings.device))


def current_analyser() -> Analyser:
    """The analyser in service.

    Raises:
        ModelUnavailableError: None can be loaded.
    """
    return get_serving().current()


@st.cache_resource(show_spinner="Loading the model…", max_entries=2)
def get_analyser(version: str) -> Analyser:
    """Any version by name, for a comparison; two are kept beside the one in service.

    Raises:
        ModelUnavailableError: There is no such version or it fails a check.
    """
    serving = get_serving()
    current = serving.current()
    return current if current.card.version == version else serving.load(version)


@st.cache_data(show_spinner="Reading the scan…", max_entries=MAX_ANALYSES, scope="session")
def analyse(data: bytes, frame: int | None, version: str, _analyser: Analyser) -> Analysis:
    """One reading of one upload by one model version, for this session only: it holds patient data.

    Raises:
        InvalidImageError: The upload is not an image we accept.
    """
    del version  # part of the key; the analyser itself is not hashed
    return _analyser.analyse(data, frame=frame)


@st.cache_data(show_spinner=False, max_entries=4)
def get_reports(version: str) -> list[EvaluationReport]:
    """The evaluations that lie beside a version's weights; empty when there are none."""
    return read_reports(read_settings().weights_dir / version)
