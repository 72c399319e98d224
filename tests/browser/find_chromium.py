"""Where the Chromium of this machine is, and how the tests start it."""

import os
import shutil

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def find_chromium() -> str | None:
    """The binary; BUSI_CHROMIUM names another one."""
    return os.environ.get("BUSI_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
