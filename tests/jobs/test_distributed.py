"""Several processes train as one: two real ones on the CPU, over gloo, started by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from busi_core.data.simulated_set import split_simulated
from busi_core.errors import TrainingError
from busi_core.training.distributed import Group, current_group, join_group
from busi_core.training.log import Epoch, read_epochs
from busi_core.training.state import BEST_FILE, CHECKPOINT_FILE

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("train_together.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders 'one' and 'two': the same trainings by one process and by two."""
    root = tmp_path_factory.mktemp("together")
    split_simulated(root / "scans", test_fold=0)  # before two processes look for it
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/unit")])  # `versions` lies there
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, starter in (("one", []), ("two", torchrun)):
        done = subprocess.run(
            [sys.executable, *starter, str(SCRIPT), str(root / name)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
    return root


def curve(run: Path) -> list[Epoch]:
    epochs = read_epochs(run)
    assert len(epochs) == 3
    return epochs


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one_with_the_same_batch(runs: Path) -> None:
    """Within rounding (1e-4 of the loss), where nothing depends on how a batch is shared out."""
    alone, together = curve(runs / "one/exact"), curve(runs / "two/exact")
    assert [epoch.loss for epoch in together] == pytest.approx([epoch.loss for epoch in alone], rel=1e-4)
    assert [epoch.dice for epoch in together] == pytest.approx([epoch.dice for epoch in alone], abs=0.01)
    assert alone[-1].loss < 0.99 * alone[0].loss, "a run that learns nothing would agree with anything"


@pytest.mark.slow
def test_on_the_cpu_normalising_by_ones_own_share_moves_the_curve_by_less_than_a_tenth(runs: Path) -> None:
    """docs/adr/0010: three images a process here; the product's batch is 16."""
    alone, together = curve(runs / "one/usual"), curve(runs / "two/usual")
    assert [epoch.loss for epoch in together] == pytest.approx([epoch.loss for epoch in alone], rel=0.1)


@pytest.mark.slow
def test_all_processes_end_alike_and_only_the_first_writes(runs: Path) -> None:
    assert (runs / "two/ended-0").read_text() == (runs / "two/ended-1").read_text()
    for name in (BEST_FILE, CHECKPOINT_FILE):
        assert (runs / "two/usual" / name).is_file()
    assert not list((runs / "two/usual").glob(".*.new"))
    alone, together = (load_file(runs / name / "exact" / BEST_FILE) for name in ("one", "two"))
    assert alone.keys() == together.keys(), "the weights do not carry the wrapper's names"


def test_a_batch_is_dealt_out_without_a_rest() -> None:
    indices = torch.arange(6)
    shares = [Group(rank, 3).share(indices).tolist() for rank in range(3)]
    assert sorted(index for share in shares for index in share) == indices.tolist()
    assert {len(share) for share in shares} == {2}
    for size, batch in ((4, 6), (2, 2)):
        with pytest.raises(TrainingError, match=f"A batch of {batch} images cannot be dealt out to {size} processes"):
            Group(0, size).require_shares(batch)


def test_without_torchrun_there_is_one_process_and_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_group() as group:
        assert group == current_group() == Group(0, 1)
        assert group.mean(torch.tensor(2.5)) == 2.5
        assert group.from_first([1.0, 2.0]) == [1.0, 2.0]
