"""What the unit tests share: a tiny untrained model in service, and simulated scans, which show no patient."""

import shutil
from pathlib import Path

import pytest
import torch
from gate import Gate, copy_gate, make_gate
from versions import make_analyser, write_version

from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.registry import put_into_service
from busi_core.service import Analyser
from busi_core.types import Diagnosis


@pytest.fixture(scope="session", autouse=True)
def one_thread_a_network() -> None:
    """Networks this small gain nothing from more, and eight visitors with two threads each wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def written_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with the version 'tiny' in service; nothing may change it."""
    folder = tmp_path_factory.mktemp("written") / "weights"
    write_version(folder, "tiny")
    put_into_service(folder, "tiny")
    return folder


@pytest.fixture
def weights_dir(written_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for one test alone, named to the program by the environment."""
    folder = Path(shutil.copytree(written_weights, tmp_path / "weights"))
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


@pytest.fixture(scope="session")
def written_gate(tmp_path_factory: pytest.TempPathFactory, written_weights: Path) -> Gate:
    """Simulated scans and rules that lock some of them; nothing may change it."""
    return make_gate(tmp_path_factory.mktemp("gate"), written_weights)


@pytest.fixture
def gate(written_gate: Gate, tmp_path: Path, weights_dir: Path) -> Gate:
    """The same for one test alone, with 'tiny' in service."""
    return copy_gate(written_gate, tmp_path, weights_dir)
