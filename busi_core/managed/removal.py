"""Where managed sets lie and which of them were taken out of use; loads nothing heavy, as a worker asks it too."""

from collections.abc import Iterable
from pathlib import Path

DATASETS_DIR = "datasets"
REMOVED_FILE = "removed.json"


def find_removed(state_dir: Path, names: Iterable[str]) -> list[str]:
    """Which of these data sets were taken out of use; public and simulated ones never are."""
    return [name for name in names if (state_dir / DATASETS_DIR / name / REMOVED_FILE).is_file()]
