"""What every page begins with: the notice, the dark style, and a banner when another model than named answers."""

from html import escape
from pathlib import Path

import streamlit as st

from busi_core import BusiError, Serving, read_settings
from busi_core.report import RESEARCH_USE
from pages.components.serving import get_serving

DEMO = (
    "Public demo. Nothing is kept, but this is no place for scans of patients: try the simulated ones. "
    "Run the program yourself to read others."
)
NAME_IN_PIXELS = "A name that is written into the scan itself stays in overlay and report."
_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def start_page() -> None:
    """Draw the research notice; every page calls this first, since a page can be opened without app.py."""
    st.html(f"<style>\n{_STYLE}\n</style>")
    st.warning(RESEARCH_USE, icon=":material/science:")
    try:
        demo, serving = read_settings().demo, get_serving()
    except BusiError as error:  # an environment variable that cannot be: only the owner can mend it
        show_error(error)
        st.stop()
    if demo:
        st.info(DEMO, icon=":material/public:")
    notice = st.empty()  # always there: what stands below keeps its place when the notice comes or goes
    problem = _find_model_problem(serving)
    if problem:
        notice.error(
            f"The newest model could not be loaded; the one before is still reading. {plain(problem)}",
            icon=":material/report:",
        )


def show_error(error: BusiError, *, name: str | None = None) -> None:
    """Say what is wrong and what to do, with the file's name as plain text."""
    about = f"**{plain(name)}**: " if name else ""
    st.error(f"{about}{plain(error.problem)} {plain(error.remedy)}", icon=":material/error:")


def plain(text: str) -> str:
    """Text that Streamlit's markdown shows letter by letter: no link, no image, no formula, no icon."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>$:~^&" else " " if c in "\r\n" else c for c in text)


def label(text: str, *, css: str = "label") -> str:
    """A piece of HTML with the text escaped."""
    return f'<div class="{css}">{escape(text)}</div>'


def wide(table: str, name: str) -> str:
    """A table of HTML that scrolls sideways where the screen is narrower, also by keys."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(name)}">{table}</div>'


def to_minutes(when: str) -> str:
    """'2026-11-20 22:36' of an ISO time."""
    return when[:16].replace("T", " ")


def _find_model_problem(serving: Serving) -> str | None:
    """Why another model than the newest reads; None when all is well, or when there is none at all (the page
    that needs it says so)."""
    try:
        serving.current()
    except BusiError:
        return None
    return str(serving.problem) if serving.problem else None
