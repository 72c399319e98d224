"""What all tests share."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side share the cores; read when torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from busi_core.settings import read_settings


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real scans; tests that need it are skipped, with the reason, where there is none."""
    root = read_settings().data_root
    if not (root / "busi").is_dir():
        pytest.skip(f"no scans in {root}; set BUSI_DATA_ROOT to the folder that holds busi/ and bus-bra/")
    return root
