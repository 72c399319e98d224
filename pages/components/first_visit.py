"""The first visitor of a fresh server: waits for libraries and model, and is told 'Page not found', wrongly.

Beside a folder called 'pages' Streamlit takes each Python file in it for a page, and finds none of ours, until
`st.navigation` was called once. Then it finds the page after all and draws it, behind its own message.
"""

from contextlib import suppress

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

_SCRIPT = """
export default function mount() {
  const close = () => {
    const message = document.querySelector('[role="dialog"]');
    if (message?.textContent.includes("Page not found")) message.querySelector('button[aria-label="Close"]')?.click();
  };
  const watch = new MutationObserver(close);
  watch.observe(document.body, { childList: true, subtree: true });
  setTimeout(() => watch.disconnect(), 5000);
  close();
}
"""
_close = st.components.v2.component("busi_first_visit", js=_SCRIPT)


def load_program() -> None:
    """Load libraries and model, and say so while that takes its seconds; at once done where they are loaded.

    Before the page itself, whose file asks for torch in its first lines. What goes wrong is said by the page.
    """
    with st.spinner("Loading the program and the model, which takes some seconds after a start…"):
        from busi_core import BusiError
        from pages.components.serving import current_analyser

        with suppress(BusiError):
            current_analyser()


def is_first_run() -> bool:
    """Whether this is the first run of the process; asked before `st.navigation` is called."""
    return bool(PagesManager.uses_pages_directory)


def close_page_not_found() -> None:
    """Close the message in the browser."""
    with st.container(key="first-visit"):  # page.css: takes no room
        _close(key="close-page-not-found")
