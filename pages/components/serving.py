"""The model in service for the whole process, and readings for one session."""

import gc
from operator import attrgetter

import streamlit as st

from busi_core import (
    Analyser,
    Analysis,
    BusiError,
    EvaluationReport,
    Serving,
    choose_device,
    read_cross_validation,
    read_reports,
    read_settings,
)
from busi_core.assessment.figures import Figure, read_assessment
from busi_core.models.checkpoint import read_card
from busi_core.registry import list_versions
from busi_core.worth import say_worth
from pages.components.metrics import measure_reading

_CHOSEN = "read-with"  # the version this session reads with; not a widget's key: those are lost between pages
FRESH_SECONDS = 60  # what another process writes beside the weights is on the pages within a minute, or two
MAX_ANALYSES = 8  # kept a session; each holds a decoded scan of up to 25 megapixels


identify = attrgetter("identity")  # of an analyser, for Streamlit's caches


@st.cache_resource(show_spinner=False)
def get_serving() -> Serving:
    """One for the whole server: weights are large, hold no patient data, and are safe to share."""
    settings = read_settings()
    _spare_libraries()
    return Serving(settings.weights_dir, choose_device(settings.device))


@st.cache_resource(show_spinner=False)
def _spare_libraries() -> None:
    """Keep what is loaded out of the search for garbage, once, before there is a scan in memory.

    Streamlit searches all objects after every run of a page. Torch and what comes with it are 600,000 of them: 0.3 s in
    which no session goes on. They stay until the server ends.
    """
    gc.collect()
    gc.freeze()


def current_analyser() -> Analyser:
    """The analyser in service.

    Raises:
        ModelUnavailableError: None can be loaded.
    """
    return get_serving().current()


def get_analyser(version: str) -> Analyser:
    """Any version by name, for a comparison; two are kept beside the one in service.

    Raises:
        ModelUnavailableError: There is no such version or it fails a check.
    """
    serving = get_serving()
    current = serving.current()
    return current if current.card.version == version else _load(version, serving.stamp(version))


@st.cache_resource(show_spinner="Loading the model…", max_entries=2)
def _load(version: str, stamp: tuple[int, ...]) -> Analyser:
    del stamp  # of its files: part of the key, so that what was replaced is loaded again
    return get_serving().load(version)


def servable_versions() -> list[str]:
    """Every version whose card says that it reads scans, by name; whether its weights load shows when it is chosen."""
    folder = read_settings().weights_dir
    return [name for name in list_versions(folder) if _reads_scans(name)]


@st.cache_data(show_spinner=False, max_entries=64, ttl=FRESH_SECONDS)
def _reads_scans(version: str) -> bool:
    try:
        return read_card(read_settings().weights_dir / version).task != "tissue"
    except BusiError:
        return False


def choose_version(version: str | None) -> None:
    """Read with this version from now on, in this session; None for the one in service."""
    st.session_state[_CHOSEN] = version


def chosen_version() -> str | None:
    """The version that this session chose, loaded or not; None when it chose none, or when that one is gone."""
    version: str | None = st.session_state.get(_CHOSEN)
    return version if version in servable_versions() else None


def chosen_analyser() -> Analyser:
    """The analyser that this session chose; the one in service when it chose none, or when that one is gone.

    Raises:
        ModelUnavailableError: It cannot be loaded.
    """
    version = chosen_version()
    return current_analyser() if version is None else get_analyser(version)


@st.cache_data(
    show_spinner="Reading the scan…", max_entries=MAX_ANALYSES, scope="session", hash_funcs={Analyser: identify}
)
def analyse(
    data: bytes, frame: int | None, analyser: Analyser, insist: bool = False, *, _counted: bool = True
) -> Analysis:
    """One reading of one upload by one model version, for this session only: it holds patient data.

    Args:
        data: Of the file.
        frame: From 0, of a file with several.
        analyser: That reads.
        insist: An answer also where the model would withhold it.
        _counted: A reader's scan, for the figures of the server's owner; no part of what is kept.

    Raises:
        InvalidImageError: The upload is not an image we accept.
    """
    if not _counted:
        return analyser.analyse(data, frame=frame, insist=insist)
    return measure_reading(analyser.card.version, lambda: analyser.analyse(data, frame=frame, insist=insist))


@st.cache_data(show_spinner=False, max_entries=4, ttl=FRESH_SECONDS)
def get_reports(version: str) -> list[EvaluationReport]:
    """The evaluations that lie beside a version's weights; empty when there are none."""
    return read_reports(read_settings().weights_dir / version)


@st.cache_data(show_spinner=False, max_entries=4, ttl=FRESH_SECONDS)
def get_cross_validation(version: str) -> list[EvaluationReport]:
    """What the recipe of a version reaches on all folds and elsewhere: by other weights of the same network."""
    return read_cross_validation(read_settings().weights_dir / version)


@st.cache_data(show_spinner=False, max_entries=4, ttl=FRESH_SECONDS)
def get_assessment(version: str, sha256: str) -> list[Figure]:
    """What was measured of a version's limits, for these weights; empty when nothing was."""
    return read_assessment(read_settings().weights_dir / version, version=version, sha256=sha256)


@st.cache_data(show_spinner=False, max_entries=4, ttl=FRESH_SECONDS)
def worth_of(version: str) -> tuple[str, ...]:
    """What a version's answers were worth on test scans, in sentences; empty where nothing was measured, or where the
    files of a version that still reads are gone."""
    try:
        card = read_card(read_settings().weights_dir / version)
    except BusiError:
        return ()
    return say_worth(card, get_reports(version), get_assessment(version, card.sha256))


def look_again() -> None:
    """Another version is in service: what was measured is read anew."""
    for kept in (get_reports, get_cross_validation, get_assessment, worth_of):
        kept.clear()


def forget_readings() -> None:
    """Let go of this session's decoded scans and of what was said of them."""
    analyse.clear()
