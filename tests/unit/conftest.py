"""What the unit tests share: a tiny untrained model in service, and simulated scans, which show no patient."""

from pathlib import Path

import pytest
from versions import make_analyser, write_version

from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.registry import put_into_service
from busi_core.service import Analyser
from busi_core.types import Diagnosis


@pytest.fixture
def weights_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with the version 'tiny' in service, named to the program by the environment."""
    folder = tmp_path / "weights"
    write_version(folder, "tiny")
    put_into_service(folder, "tiny")
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(folder))
    monkeypatch.setenv("BUSI_DEVICE", "cpu")
    return folder


@pytest.fixture(scope="session")
def analyser() -> Analyser:
    """The same tiny model, in memory; nothing may change it."""
    return make_analyser()


@pytest.fixture(scope="session")
def simulated() -> dict[Diagnosis, SimulatedScan]:
    """One small simulated scan of each class."""
    return {diagnosis: simulate_scan(diagnosis, seed=5, height=96, width=120) for diagnosis in Diagnosis}
