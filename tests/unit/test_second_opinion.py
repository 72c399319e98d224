"""A second opinion: asked for in doubt alone, decided by the majority, said on every road, checked before use."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pypdf import PdfReader
from safetensors.torch import load
from torch import Tensor
from versions import (
    SIDE_64,
    make_analyser,
    make_card,
    make_network,
    make_panel,
    make_weights,
    opinion_of,
    write_version,
)

from busi_core.cli.__main__ import main
from busi_core.double_reading import join
from busi_core.errors import DatasetError, ModelUnavailableError
from busi_core.explain.catalogue import Method
from busi_core.explain.gradcam import LESION
from busi_core.findings import read_finding
from busi_core.imaging.phantom import SimulatedScan
from busi_core.limits import Limits, read_limits, write_limits
from busi_core.metrics.conformal import Nonconformity
from busi_core.models.checkpoint import (
    SECOND_OPINION_FILE,
    load_readers,
    load_version,
    pack_readers,
    read_card,
    save_version,
)
from busi_core.models.familiarity import fit_familiarity
from busi_core.models.second_opinion import SecondOpinion, agree
from busi_core.promotion.judge import _load
from busi_core.report import Report, ReportScan, reading_record
from busi_core.report_pdf import draw_report
from busi_core.service import Analyser
from busi_core.serving import Serving
from busi_core.settings import Settings, read_settings
from busi_core.taught import read_taught, write_taught
from busi_core.types import Analysis, Diagnosis, ImageWarning, Prediction

CPU = torch.device("cpu")
ALWAYS: dict[str, Any] = {"class_below": 1.0}
NEVER: dict[str, Any] = {"class_below": 0.0, "lesion_between": (1.0, 1.0)}


def said(normal: float, benign: float, malignant: float, *lesion: float) -> Prediction:
    scores = dict(zip(Diagnosis, (normal, benign, malignant), strict=True))
    return Prediction(np.array([lesion], np.float32), scores)


@pytest.fixture(scope="module")
def data(simulated: dict[Diagnosis, SimulatedScan]) -> bytes:
    return simulated[Diagnosis.BENIGN].png()


# ---- Who decides ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 5])
def test_at_every_cut_off_lesion_is_what_most_networks_call_lesion(count: int) -> None:
    random = np.random.default_rng(0)
    maps = random.random((count, 20, 30)).astype(np.float32)
    joint = agree([Prediction(one, None) for one in maps])
    assert joint.probabilities is None
    for cutoff in (0.1, 0.35, 0.5, 0.65, 0.9):
        votes = (maps >= np.float32(cutoff)).sum(axis=0)
        np.testing.assert_array_equal(joint.lesion_probability >= np.float32(cutoff), votes > count / 2)


def test_the_score_of_a_class_is_the_mean() -> None:
    joint = agree([said(0.6, 0.3, 0.1, 0.5), said(0.1, 0.8, 0.1, 0.5), said(0.2, 0.2, 0.6, 0.5)])
    assert joint.probabilities == pytest.approx(dict(zip(Diagnosis, (0.3, 1.3 / 3, 0.8 / 3), strict=True)))
    assert joint.diagnosis is Diagnosis.BENIGN


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        (said(0.02, 0.95, 0.03, 0.1, 0.97), False),
        (said(0.95, 0.03, 0.02, 0.05, 0.04), False),
        (said(0.02, 0.95, 0.03, 0.1, 0.6), True),
        (said(0.02, 0.69, 0.29, 0.1, 0.97), True),
        (said(0.02, 0.70, 0.28, 0.1, 0.97), False),
        (Prediction(np.array([[0.5]], np.float32), None), True),
        (Prediction(np.array([[0.95]], np.float32), None), False),
    ],
    ids=["sure", "surely normal", "perhaps a lesion", "no class stands out", "just sure", "mask alone", "sure mask"],
)
def test_it_is_asked_for_where_neither_lesion_nor_class_is_sure(first: Prediction, asked: bool) -> None:
    assert SecondOpinion(("a", "b"), "").is_asked_for(first) is asked


@pytest.mark.parametrize("readers", [(), ("a",), ("a", "b", "c")])
def test_without_a_majority_there_is_no_second_opinion(readers: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="even number"):
        SecondOpinion(readers, "")


@pytest.mark.parametrize("when", [{"class_below": 1.5}, {"lesion_between": (0.9, 0.1)}, {"lesion_between": (-1, 0.5)}])
def test_limits_of_doubt_that_are_none_are_refused(when: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="limits of doubt"):
        SecondOpinion(("a", "b"), "", **when)


# ---- A scan read by several ------------------------------------------------------------------------------------


def test_in_doubt_the_answer_is_that_of_all_three_and_says_so(data: bytes) -> None:
    analysis = make_panel(**ALWAYS).analyse(data)
    alone = [make_analyser(seed).analyse(data) for seed in range(3)]
    expected = np.median([one.prediction.lesion_probability for one in alone], axis=0)
    np.testing.assert_allclose(analysis.prediction.lesion_probability, expected, atol=1e-6)
    for diagnosis in Diagnosis:
        scores = [(one.prediction.probabilities or {})[diagnosis] for one in alone]
        assert (analysis.prediction.probabilities or {})[diagnosis] == pytest.approx(np.mean(scores), abs=1e-6)
    assert ImageWarning.SECOND_OPINION in analysis.warnings
    assert len(analysis.opinions) == 3
    for opinion, one in zip(analysis.opinions, alone, strict=True):
        np.testing.assert_allclose(opinion.lesion_probability, one.prediction.lesion_probability, atol=1e-6)


def test_without_doubt_the_answer_is_that_of_the_first_to_the_bit(data: bytes) -> None:
    analysis, alone = make_panel(**NEVER).analyse(data), make_analyser().analyse(data)
    assert np.array_equal(analysis.prediction.lesion_probability, alone.prediction.lesion_probability)
    assert analysis.prediction.probabilities == alone.prediction.probabilities
    assert analysis.warnings == alone.warnings
    assert analysis.opinions == ()


@pytest.mark.parametrize("road", [Analyser.analyse_image, Analyser.analyse_for_batch])
def test_every_road_gives_the_same_answer(data: bytes, road: Callable[..., Analysis]) -> None:
    panel = make_panel(**ALWAYS)
    whole = panel.analyse(data)
    other = road(panel, whole.image)
    assert np.array_equal(other.prediction.lesion_probability, whole.prediction.lesion_probability)
    assert other.prediction.probabilities == whole.prediction.probabilities
    assert other.warnings == whole.warnings


def test_heat_maps_and_their_scores_are_those_of_the_first(data: bytes) -> None:
    """A map beside the mean of three scores would explain what its network never said."""
    analysis, alone = make_panel(**ALWAYS).analyse(data), make_analyser().analyse(data)
    for name, heatmap in analysis.heatmaps.items():
        assert np.array_equal(heatmap.evidence, alone.heatmaps[name].evidence), name
        assert heatmap.score == alone.heatmaps[name].score
    assert analysis.prediction.probabilities != alone.prediction.probabilities


def test_an_explanation_on_request_is_that_of_the_first(data: bytes) -> None:
    """Also where each pixel is weighed by what the first network says, and not by what all of them say."""
    card = {"weighs_presence": True, "lesion_threshold": 0.3}
    panel, alone = make_panel(card=card, **ALWAYS), make_analyser(**card)
    ours, theirs = (a.explain(a.analyse(data), Method.GRAD_CAM, of=LESION).heatmap for a in (panel, alone))
    np.testing.assert_allclose(ours.evidence, theirs.evidence, atol=1e-6)


def test_a_reading_on_disk_says_that_more_than_one_network_read(data: bytes) -> None:
    analysis = make_panel(**ALWAYS).analyse(data)
    record = reading_record(analysis, read_finding(analysis), file="scan.png", taught=False)
    assert ImageWarning.SECOND_OPINION.value in record["warnings"]


@pytest.mark.parametrize("cutoff", [0.3, 0.5, 0.7])
def test_on_disk_and_on_paper_stands_what_each_network_says_by_itself(data: bytes, cutoff: float) -> None:
    alone = [make_analyser(seed).analyse(data) for seed in range(3)]
    expected = [
        {"class": one.prediction.diagnosis, "outlines": bool(read_finding(one, cutoff).lesion_mask.any())}
        for one in alone
    ]
    analysis = make_panel(**ALWAYS).analyse(data)
    record = reading_record(analysis, read_finding(analysis, cutoff), file="scan.png", taught=False)
    assert record["opinions"] == expected
    paper = draw_report(Report([ReportScan(record, lambda: None)], "tiny", "2026-11-28"))
    said = " ".join(PdfReader(io.BytesIO(paper)).pages[0].extract_text().split())
    votes = f"{sum(one['outlines'] for one in expected)} of 3 outline something"
    assert f"the networks say {', '.join(str(one['class']) for one in expected)}; {votes}" in said


def test_without_doubt_no_network_is_quoted_by_itself(data: bytes) -> None:
    analysis = make_panel(**NEVER).analyse(data)
    assert reading_record(analysis, read_finding(analysis), file="scan.png", taught=False)["opinions"] == []


def test_eight_threads_get_the_same_answer(data: bytes) -> None:
    panel = make_panel(**ALWAYS)
    expected, found = panel.analyse(data), list[Analysis]()
    threads = [threading.Thread(target=lambda: found.append(panel.analyse(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for one in found:
        assert np.array_equal(one.prediction.lesion_probability, expected.prediction.lesion_probability)


def test_a_full_graphics_card_asks_on_the_cpu_and_the_reader_is_told(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """G1, for the second network alone."""
    expected = make_panel(**ALWAYS).analyse(data)
    monkeypatch.setattr(Analyser, "_to_device", lambda _self, tensor: tensor.to(memory_format=torch.channels_last))
    first, *others = (make_network(seed).to(memory_format=torch.channels_last) for seed in range(3))
    card = make_card(make_weights(), second_opinion=opinion_of(1, 2, **ALWAYS))
    panel = Analyser(first, card, torch.device("cuda"), others=others)

    class Crowded(type(panel._readers[1])):  # type: ignore[misc]
        def encode(self, _images: Tensor) -> list[Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    panel._readers[1].__class__ = Crowded
    analysis = panel.analyse(data)
    assert analysis.warnings == (*expected.warnings, ImageWarning.READ_ON_CPU)
    np.testing.assert_allclose(
        analysis.prediction.lesion_probability, expected.prediction.lesion_probability, atol=1e-6
    )


def test_an_analyser_without_the_networks_that_its_card_asks_is_refused() -> None:
    card = make_card(make_weights(), second_opinion=opinion_of(1, 2))
    with pytest.raises(ValueError, match="asks 2 networks"):
        Analyser(make_network(), card, CPU)


def test_another_second_opinion_makes_another_identity() -> None:
    """What is remembered of a scan under one identity must not answer under the other."""
    identities = {make_panel(**ALWAYS).identity, make_panel(**NEVER).identity, make_analyser().identity}
    assert len(identities) == 3


# ---- On disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    packed = pack_readers([make_weights(1), make_weights(2)])
    card = make_card(make_weights(), second_opinion=opinion_of(1, 2, **ALWAYS))
    save_version(tmp_path / "tiny", make_weights(), card, packed)
    return tmp_path / "tiny"


def test_a_version_is_loaded_with_its_readers(folder: Path, data: bytes) -> None:
    _, card = load_version(folder, CPU)
    for reader, seed in zip(load_readers(folder, card, CPU), (1, 2), strict=True):
        expected = load(make_weights(seed))
        assert all(torch.equal(value, expected[name]) for name, value in reader.state_dict().items())
        assert not reader.training
    loaded, built = Analyser.load(folder, CPU).analyse(data), make_panel(**ALWAYS).analyse(data)
    assert np.array_equal(loaded.prediction.lesion_probability, built.prediction.lesion_probability)


def test_a_version_of_one_network_has_no_readers(tmp_path: Path) -> None:
    card = write_version(tmp_path)
    assert list(load_readers(tmp_path / "tiny", card, CPU)) == []


def test_weights_of_a_second_opinion_that_the_card_does_not_vouch_for_are_not_saved(tmp_path: Path) -> None:
    card = make_card(make_weights(), second_opinion=opinion_of(1, 2))
    for packed in (b"", pack_readers([make_weights(2), make_weights(1)])):
        with pytest.raises(ValueError, match="sha256 is not that of the weights"):
            save_version(tmp_path / "tiny", make_weights(), card, packed)
    with pytest.raises(ValueError, match="sha256 is not that of the weights"):
        save_version(tmp_path / "tiny", make_weights(), make_card(make_weights()), b"unasked for")


@contextmanager
def refused(folder: Path, match: str) -> Iterator[None]:
    yield
    for load_it in (lambda: Analyser.load(folder, CPU), lambda: _load(folder, CPU)):
        with pytest.raises(ModelUnavailableError, match=match):
            load_it()


def test_a_missing_or_damaged_file_of_readers_is_refused(folder: Path) -> None:
    """D1. In service the version before would stay."""
    path = folder / SECOND_OPINION_FILE
    content = bytearray(path.read_bytes())
    with refused(folder, "weights of model 'tiny' are damaged"):
        content[-3] ^= 1
        path.write_bytes(content)
    with refused(folder, "weights of model 'tiny' are missing"):
        path.unlink()


def test_readers_of_another_network_are_refused(tmp_path: Path) -> None:
    packed = pack_readers([make_weights(1)])  # one where the card names two
    opinion = SecondOpinion(("a", "b"), sha256(packed).hexdigest())
    save_version(tmp_path / "tiny", make_weights(), make_card(make_weights(), second_opinion=opinion), packed)
    with refused(tmp_path / "tiny", "do not fit the network"):
        pass


def test_a_changed_file_of_readers_is_noticed_while_serving(folder: Path) -> None:
    serving = Serving(folder.parent, CPU)
    before = serving.stamp("tiny")
    (folder / SECOND_OPINION_FILE).touch()
    assert serving.stamp("tiny") != before


# ---- Made of a version and its siblings ------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A version 'first' and two of its recipe that kept the same fold, 'a' and 'b', each taught by other scans."""
    for seed, name in enumerate(("first", "a", "b")):
        taught = (f"busi/{name}", "busi/all")
        write_version(tmp_path, name, seed=seed, trained_on=taught)
        write_taught(tmp_path / name, frozenset({f"{seed:036x}"}))
    return replace(read_settings(), weights_dir=tmp_path)


def test_the_new_version_reads_as_the_first_and_asks_the_others(settings: Settings, data: bytes) -> None:
    before = Analyser.load(settings.weights_dir / "first", CPU)
    card = join("new", of="first", readers=["a", "b"], settings=settings)
    analyser = Analyser.load(settings.weights_dir / "new", CPU)
    assert analyser.card == card
    assert card.second_opinion is not None
    assert card.second_opinion.readers == ("a", "b")
    for kept in ("temperature", "lesion_threshold", "malignancy", "sha256", "training"):
        assert getattr(card, kept) == getattr(before.card, kept), kept
    alone = [Analyser.load(settings.weights_dir / name, CPU).analyse(data).prediction for name in ("first", "a", "b")]
    found = analyser.analyse(data).prediction
    expected = agree(alone) if card.second_opinion.is_asked_for(alone[0]) else alone[0]
    np.testing.assert_allclose(found.lesion_probability, expected.lesion_probability, atol=1e-6)


def test_what_taught_a_reader_taught_the_new_version(settings: Settings) -> None:
    card = join("new", of="first", readers=["a", "b"], settings=settings)
    assert card.trained_on == ("busi/first", "busi/all", "busi/a", "busi/b")
    folder = settings.weights_dir
    hashes = [read_taught(folder / name, ()).hashes for name in ("first", "a", "b")]
    assert read_taught(folder / "new", ()).hashes == frozenset().union(*hashes)


def test_its_limits_are_those_of_the_first(settings: Settings) -> None:
    folder = settings.weights_dir / "first"
    card, generator = read_card(folder), np.random.default_rng(0)
    known = fit_familiarity([generator.random(8) for _ in range(20)], [generator.random(8) for _ in range(9)])
    limits = Limits(Nonconformity((np.array([0.1, 0.2]),) * 3, np.array([0.5]), 0.7), known)
    write_limits(folder, limits, card)
    join("new", of="first", readers=["a", "b"], settings=settings)
    found = read_limits(settings.weights_dir / "new", read_card(settings.weights_dir / "new"))
    assert found is not None
    assert found.checksum() == limits.checksum()


def test_the_command_makes_it_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUSI_WEIGHTS_DIR", str(settings.weights_dir))
    assert main(["second-opinion", "new", "--of", "first", "--readers", "a", "b"]) == 0
    assert "new reads as first does, and asks a and b in doubt." in "".join(capsys.readouterr())
    assert json.loads((settings.weights_dir / "new" / "card.json").read_text())["second_opinion"]["readers"] == [
        "a",
        "b",
    ]


def test_no_version_is_written_over(settings: Settings) -> None:
    """The one in service would read otherwise at once, behind the gate's back."""
    before = {path: path.read_bytes() for path in (settings.weights_dir / "first").iterdir()}
    for taken in ("first", "a"):
        with pytest.raises(DatasetError, match="already"):
            join(taken, of="first", readers=["a", "b"], settings=settings)
    assert {path: path.read_bytes() for path in (settings.weights_dir / "first").iterdir()} == before


@pytest.mark.parametrize(
    ("readers", "change", "match"),
    [
        (["a"], {}, "even number"),
        (["a", "a"], {}, "weights are those of another reader"),
        (["a", "first"], {}, "weights are those of another reader"),
        (["a", "b"], {"training": {"test_fold": 3}}, "another test part"),
        (["a", "b"], {"preprocess": replace(SIDE_64, side=96)}, "another network or prepares"),
    ],
    ids=["one", "one twice", "itself", "another test part", "another side"],
)
def test_readers_that_cannot_give_one_are_refused_and_nothing_is_made(
    settings: Settings, readers: list[str], change: dict[str, Any], match: str
) -> None:
    if change:
        write_version(settings.weights_dir, "b", seed=2, **change)
    with pytest.raises(DatasetError, match=match):
        join("new", of="first", readers=readers, settings=settings)
    assert not (settings.weights_dir / "new").exists()
