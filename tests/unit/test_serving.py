"""The version in service answers, survives whatever lies beside it, and is renewed when another is put in its place."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from versions import write_version

from busi_core import service
from busi_core.errors import ModelUnavailableError
from busi_core.imaging.phantom import SimulatedScan
from busi_core.models.checkpoint import MODEL_FILE, load_version
from busi_core.registry import REGISTRY_FILE, put_into_service
from busi_core.serving import Serving
from busi_core.types import Analysis, Diagnosis

CPU = torch.device("cpu")


def test_a_new_version_is_picked_up(weights_dir: Path) -> None:
    serving = Serving(weights_dir, CPU)
    assert serving.current().card.version == "tiny"
    write_version(weights_dir, "next", seed=1)
    assert serving.current().card.version == "tiny"
    put_into_service(weights_dir, "next")
    assert serving.current().card.version == "next"
    assert serving.problem is None


def damage(weights_dir: Path, version: str) -> Callable[[], None]:
    """Flip one bit of a version's weights; the function that is returned repairs it."""
    path = weights_dir / version / MODEL_FILE
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    return lambda: path.write_bytes(sound) and None


def test_the_model_in_service_stays_while_the_next_is_damaged_and_changes_once_it_is_repaired(
    weights_dir: Path,
) -> None:
    """W2."""
    serving = Serving(weights_dir, CPU)
    serving.current()
    write_version(weights_dir, "next", seed=1)
    repair = damage(weights_dir, "next")
    put_into_service(weights_dir, "next")
    for _ in range(3):
        assert serving.current().card.version == "tiny"
        assert serving.problem is not None
        assert "checksum" in serving.problem.problem
    repair()
    assert serving.current().card.version == "next"
    assert serving.problem is None


def test_a_damaged_version_is_not_read_again_at_every_request(
    weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(weights_dir, CPU)
    serving.current()
    write_version(weights_dir, "next", seed=1)
    damage(weights_dir, "next")
    put_into_service(weights_dir, "next")
    serving.current()
    monkeypatch.setattr(service, "load_version", lambda *_: pytest.fail("read again"))
    for _ in range(3):
        assert serving.current().card.version == "tiny"
        assert serving.problem is not None


def test_going_back_to_the_version_that_answers_takes_the_banner_down(weights_dir: Path) -> None:
    serving = Serving(weights_dir, CPU)
    before = serving.current()
    write_version(weights_dir, "next", seed=1)
    damage(weights_dir, "next")
    put_into_service(weights_dir, "next")
    assert serving.current() is before
    assert serving.problem is not None
    put_into_service(weights_dir, "tiny")
    assert serving.current() is before
    assert serving.problem is None


def test_a_damaged_registry_leaves_the_model_in_service(weights_dir: Path) -> None:
    serving = Serving(weights_dir, CPU)
    before = serving.current()
    sound = (weights_dir / REGISTRY_FILE).read_text()
    (weights_dir / REGISTRY_FILE).write_text("{")
    assert serving.current() is before
    assert serving.problem is not None
    (weights_dir / REGISTRY_FILE).write_text(sound)
    assert serving.current() is before
    assert serving.problem is None


def test_damage_to_the_version_that_already_answers_shows_and_does_not_stop_it(weights_dir: Path) -> None:
    """W2: a banner, before a restart would find no model at all."""
    serving = Serving(weights_dir, CPU)
    before = serving.current()
    repair = damage(weights_dir, "tiny")
    assert serving.current() is before
    assert serving.problem is not None
    repair()
    assert serving.current().card.version == "tiny"
    assert serving.problem is None


def test_a_version_written_anew_under_its_name_is_the_one_that_answers(weights_dir: Path) -> None:
    serving = Serving(weights_dir, CPU)
    before = serving.current().card.sha256
    card = write_version(weights_dir, "tiny", seed=1)
    assert before != card.sha256
    assert serving.current().card.sha256 == card.sha256


def test_without_any_sound_model_every_request_is_told_so_until_there_is_one(weights_dir: Path) -> None:
    repair = damage(weights_dir, "tiny")
    serving = Serving(weights_dir, CPU)
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="checksum"):
            serving.current()
    repair()
    assert serving.current().card.version == "tiny"


def test_twenty_first_requests_at_once_load_the_weights_once(
    weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2."""
    loads: list[Path] = []

    def count_and_load(folder: Path, device: torch.device) -> object:
        loads.append(folder)
        return load_version(folder, device)

    monkeypatch.setattr(service, "load_version", count_and_load)
    serving, together = Serving(weights_dir, CPU), threading.Barrier(20)

    def ask(_: int) -> object:
        together.wait()
        return serving.current()

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    assert len(loads) == 1
    assert all(answer is answers[0] for answer in answers)


def test_promotion_while_scans_are_read_leaves_every_result_to_one_model(
    weights_dir: Path, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """C3: the version that a result names is the one that all of its numbers come from."""
    write_version(weights_dir, "next", seed=1)
    data = simulated[Diagnosis.BENIGN].png()
    serving = Serving(weights_dir, CPU)
    expected = {version: serving.load(version).analyse(data) for version in ("tiny", "next")}

    promoting = threading.Lock()  # of two promotions at one moment the later is refused, which is another promise

    def promote_and_read(number: int) -> Analysis:
        if number % 5 == 0:
            with promoting:
                put_into_service(weights_dir, ("next", "tiny")[number % 2])
        return serving.current().analyse(data)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(promote_and_read, range(24)))
    assert {result.model_version for result in results} == {"tiny", "next"}
    for result in results:
        right = expected[result.model_version]
        assert np.array_equal(result.prediction.lesion_probability, right.prediction.lesion_probability)
        assert result.prediction.probabilities == right.prediction.probabilities
        for name, heatmap in result.heatmaps.items():
            assert np.array_equal(heatmap.evidence, right.heatmaps[name].evidence)
    assert serving.problem is None
