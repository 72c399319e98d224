"""The one door: bytes in, analysis out; the same from every thread, offline, whatever the graphics card does."""

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from files import animated, save
from PIL import Image
from torch import Tensor
from versions import SIDE_64, TINY, make_analyser, make_card, make_network, make_weights

from busi_core.errors import ExplanationError, InvalidImageError, ModelUnavailableError
from busi_core.explain.catalogue import Method
from busi_core.explain.gradcam import LESION
from busi_core.findings import read_finding
from busi_core.imaging.phantom import SimulatedScan, simulate_scan
from busi_core.imaging.preprocess import upsample
from busi_core.models.network import LesionNet
from busi_core.models.reading import ReadingNet
from busi_core.service import Analyser, choose_device
from busi_core.serving import Serving
from busi_core.types import Analysis, Diagnosis, ImageWarning

CPU = torch.device("cpu")


def require_bit_equal(first: Analysis, second: Analysis) -> None:
    assert first.model_version == second.model_version
    assert first.warnings == second.warnings
    assert first.prediction.probabilities == second.prediction.probabilities
    assert np.array_equal(first.prediction.lesion_probability, second.prediction.lesion_probability)
    assert first.heatmaps.keys() == second.heatmaps.keys()
    for name, heatmap in first.heatmaps.items():
        assert np.array_equal(heatmap.evidence, second.heatmaps[name].evidence), name
        assert heatmap.score == second.heatmaps[name].score


# ---- What an analysis holds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_mask_and_heat_maps_share_one_orientation(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan], orientation: int
) -> None:
    """U11. However a file is turned, the reading is that of the upright pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = analyser.analyse(save(simulated[Diagnosis.BENIGN].grey, "PNG", exif=exif))
    upright = analyser.analyse(save(turned.image.grey, "PNG"))
    require_bit_equal(turned, upright)
    assert read_finding(turned).lesion_mask.shape == turned.image.grey.shape


@pytest.mark.parametrize("diagnosis", list(Diagnosis))
def test_an_analysis_holds_scores_that_sum_to_one_and_a_map_for_every_class(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan], diagnosis: Diagnosis
) -> None:
    analysis = analyser.analyse(simulated[diagnosis].png())
    assert analysis.prediction.probabilities is not None
    assert sum(analysis.prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert list(analysis.prediction.probabilities) == list(Diagnosis)
    assert list(analysis.heatmaps) == [*(d.value for d in Diagnosis), LESION]
    for d in Diagnosis:
        assert analysis.heatmaps[d.value].score == analysis.prediction.probabilities[d]
    for name, heatmap in analysis.heatmaps.items():
        assert heatmap.of == name
        assert heatmap.grid == (2, 2)
        assert heatmap.evidence.max() in (0, 1)
    assert analysis.model_version == "tiny"
    assert (analysis.lesion_threshold, analysis.malignancy_threshold) == (0.5, 0.3)


def test_where_the_card_says_so_each_pixel_is_weighed_by_the_chance_of_a_lesion(
    simulated: dict[Diagnosis, SimulatedScan],
) -> None:
    """The mask's heat map then explains the pixels of that mask, here half as many as without."""
    plain = make_analyser(lesion_threshold=0.3).analyse(simulated[Diagnosis.BENIGN].png())
    assert plain.prediction.probabilities is not None
    chance = 1 - plain.prediction.probabilities[Diagnosis.NORMAL]
    assert 0.2 < chance < 0.8
    ours = plain.prediction.lesion_probability * np.float32(chance)
    cutoff = float(np.median(ours))
    analyser = make_analyser(lesion_threshold=cutoff, weighs_presence=True)
    weighed = analyser.analyse(simulated[Diagnosis.BENIGN].png())
    assert weighed.prediction.probabilities == plain.prediction.probabilities
    np.testing.assert_allclose(weighed.prediction.lesion_probability, ours, rtol=1e-6)
    of_these_pixels = make_analyser(lesion_threshold=cutoff / chance).analyse(simulated[Diagnosis.BENIGN].png())
    expected = of_these_pixels.heatmaps[LESION].evidence
    assert expected.max() == 1
    np.testing.assert_array_equal(weighed.heatmaps[LESION].evidence, expected)
    explained = analyser.explain(weighed, Method.GRAD_CAM, of=LESION).heatmap
    np.testing.assert_allclose(explained.evidence, expected, atol=1e-5)


def test_the_scores_are_the_softmax_of_the_logits_over_the_temperature(
    simulated: dict[Diagnosis, SimulatedScan],
) -> None:
    data = simulated[Diagnosis.BENIGN].png()
    sharp, soft = (
        make_analyser(temperature=temperature).analyse(data).prediction.probabilities for temperature in (1.0, 4.0)
    )
    assert sharp is not None
    assert soft is not None
    logits = np.log([sharp[d] for d in Diagnosis])
    expected = np.exp(logits / 4) / np.exp(logits / 4).sum()
    np.testing.assert_allclose([soft[d] for d in Diagnosis], expected, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(96, 120), (120, 96), (64, 512), (512, 64), (200, 64)])
def test_maps_cover_exactly_the_image_whatever_its_shape(analyser: Analyser, height: int, width: int) -> None:
    scan = simulate_scan(Diagnosis.MALIGNANT, seed=1, height=height, width=width)
    analysis = analyser.analyse(scan.png())
    rows, columns = analysis.prediction.lesion_probability.shape
    assert rows / columns == pytest.approx(height / width, rel=0.1)
    assert max(rows, columns) == 64
    assert upsample(analysis.prediction.lesion_probability, height, width).shape == (height, width)
    assert read_finding(analysis).lesion_mask.shape == (height, width)


def test_classes_are_named_by_the_card_and_not_by_their_place() -> None:
    """A card may list its classes in another order; the score must follow the name."""
    turned = replace(TINY, image_classes=("malignant", "normal", "benign"))
    data = simulate_scan(Diagnosis.BENIGN, seed=2, height=96, width=120).png()
    straight = make_analyser().analyse(data)
    named = make_analyser(architecture=turned).analyse(data)
    given, expected = named.prediction.probabilities, straight.prediction.probabilities
    assert given is not None
    assert expected is not None
    assert given[Diagnosis.MALIGNANT] == expected[Diagnosis.NORMAL]
    assert given[Diagnosis.NORMAL] == expected[Diagnosis.BENIGN]
    assert np.array_equal(named.heatmaps["malignant"].evidence, straight.heatmaps["normal"].evidence)


def test_a_model_of_two_classes_gives_the_third_nothing() -> None:
    analyser = make_analyser(architecture=replace(TINY, image_classes=("benign", "malignant")))
    analysis = analyser.analyse(simulate_scan(Diagnosis.BENIGN, seed=2, height=96, width=120).png())
    assert analysis.prediction.probabilities is not None
    assert analysis.prediction.probabilities[Diagnosis.NORMAL] == 0
    assert set(analysis.heatmaps) == {"benign", "malignant", LESION}


def test_a_model_without_a_class_head_gives_a_mask_and_no_class() -> None:
    analyser = make_analyser(architecture=replace(TINY, image_classes=()), malignancy=None)
    analysis = analyser.analyse(simulate_scan(Diagnosis.BENIGN, seed=2, height=96, width=120).png())
    assert analysis.prediction.probabilities is None
    assert analysis.prediction.diagnosis is None
    assert analysis.malignancy_threshold is None
    assert list(analysis.heatmaps) == [LESION]


def test_a_network_that_reads_three_channels_gets_three() -> None:
    analyser = make_analyser(
        architecture=replace(TINY, in_channels=3), preprocess=replace(SIDE_64, channels=3, fit="squash")
    )
    analysis = analyser.analyse(simulate_scan(Diagnosis.BENIGN, seed=2, height=96, width=120).png())
    assert analysis.prediction.lesion_probability.shape == (64, 64)


def test_an_image_without_contrast_is_flagged_and_gives_finite_numbers(analyser: Analyser) -> None:
    """U8."""
    analysis = analyser.analyse(save(np.full((80, 100), 90, np.uint8), "PNG"))
    assert ImageWarning.NO_CONTRAST in analysis.warnings
    assert np.isfinite(analysis.prediction.lesion_probability).all()
    assert all(np.isfinite(heatmap.evidence).all() for heatmap in analysis.heatmaps.values())


def test_the_chosen_frame_is_the_one_that_is_read(analyser: Analyser) -> None:
    """U10."""
    scans = [simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=120) for seed in range(3)]
    cine = animated("TIFF", [scan.grey for scan in scans])
    alone = [analyser.analyse(scan.png()) for scan in scans]
    for frame in range(3):
        assert np.array_equal(
            analyser.analyse(cine, frame=frame).prediction.lesion_probability,
            alone[frame].prediction.lesion_probability,
        )
    assert ImageWarning.FIRST_FRAME in analyser.analyse(cine).warnings
    assert ImageWarning.FIRST_FRAME not in analyser.analyse(cine, frame=0).warnings


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_and_the_next_is_read(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan], data: bytes
) -> None:
    with pytest.raises(InvalidImageError):
        analyser.analyse(data)
    assert analyser.analyse(simulated[Diagnosis.NORMAL].png()).model_version == "tiny"


# ---- Threads -------------------------------------------------------------------------------------------------


def test_eight_threads_get_what_one_gets_bit_for_bit(analyser: Analyser) -> None:
    """C1: prediction and heat maps of different images at once."""
    files = [simulate_scan(list(Diagnosis)[n % 3], seed=n, height=96, width=120 + 8 * n).png() for n in range(8)]
    alone = [analyser.analyse(data) for data in files]
    together = threading.Barrier(8)

    def read(number: int) -> list[Analysis]:
        together.wait()
        return [analyser.analyse(files[number]) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        for expected, results in zip(alone, pool.map(read, range(8)), strict=True):
            for result in results:
                require_bit_equal(result, expected)


def test_reading_leaves_nothing_behind_in_the_network(
    analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    before = {key: value.clone() for key, value in analyser._network.state_dict().items()}
    analyser.analyse(simulated[Diagnosis.MALIGNANT].png())
    assert all(torch.equal(value, before[key]) for key, value in analyser._network.state_dict().items())
    assert all(parameter.grad is None for parameter in analyser._network.parameters())
    assert not analyser._network.training


# ---- A graphics card whose memory is full ----------------------------------------------------------------------


def make_crowded(monkeypatch: pytest.MonkeyPatch, *, refusals: int) -> tuple[Analyser, list[str]]:
    """An analyser 'on a GPU' whose memory is full for the first so many runs, and the list of its runs."""
    network, runs = make_network(), []

    class Crowded(ReadingNet):
        def encode(self, images: Tensor) -> list[Tensor]:
            runs.append("GPU")
            if len(runs) <= refusals:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return super().encode(images)

    class OnFullCard(LesionNet):
        def __deepcopy__(self, memo: object) -> "OnFullCard":
            raise torch.OutOfMemoryError("a copy on the GPU needs memory on the GPU")

    monkeypatch.setattr(Analyser, "_to_device", lambda _self, tensor: tensor.to(memory_format=torch.channels_last))
    analyser = Analyser(network.to(memory_format=torch.channels_last), make_card(make_weights()), torch.device("cuda"))
    network.__class__, analyser._reader.__class__ = OnFullCard, Crowded
    return analyser, runs


def test_a_full_graphics_card_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """G1."""
    data = simulated[Diagnosis.BENIGN].png()
    expected = analyser.analyse(data)
    crowded, runs = make_crowded(monkeypatch, refusals=1)
    analysis = crowded.analyse(data)
    assert runs == ["GPU", "GPU"]
    assert ImageWarning.READ_ON_CPU not in analysis.warnings
    require_bit_equal(analysis, expected)


def test_a_graphics_card_that_stays_full_is_left_for_the_cpu_and_the_reader_is_told(
    monkeypatch: pytest.MonkeyPatch, analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """G1: same numbers, a banner, and the GPU is asked again for the next scan."""
    data = simulated[Diagnosis.BENIGN].png()
    expected = analyser.analyse(data)
    crowded, runs = make_crowded(monkeypatch, refusals=4)
    for number in (2, 4):
        analysis = crowded.analyse(data)
        assert len(runs) == number
        assert analysis.warnings == (*expected.warnings, ImageWarning.READ_ON_CPU)
        require_bit_equal(replace(analysis, warnings=expected.warnings), expected)
    assert crowded.analyse(data).warnings == expected.warnings
    assert len(runs) == 5


def test_eight_threads_on_a_full_card_make_one_copy_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, analyser: Analyser, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """G1 with C1."""
    data = simulated[Diagnosis.MALIGNANT].png()
    expected = analyser.analyse(data)
    crowded, _ = make_crowded(monkeypatch, refusals=10**6)
    copies: list[LesionNet] = []
    copy_to_cpu = Analyser._copy_to_cpu
    monkeypatch.setattr(Analyser, "_copy_to_cpu", lambda *given: copies.append(copy_to_cpu(*given)) or copies[-1])
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: crowded.analyse(data), range(8)))
    assert len(copies) == 1
    for result in results:
        assert ImageWarning.READ_ON_CPU in result.warnings
        require_bit_equal(replace(result, warnings=expected.warnings), expected)


def test_on_a_full_card_layers_are_listed_and_an_explanation_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """G1: Analyse lists the layers below every scan."""
    crowded, _ = make_crowded(monkeypatch, refusals=0)
    analysis = crowded.analyse(simulated[Diagnosis.MALIGNANT].png())

    def full(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(Analyser, "_to_device", full)
    assert [layer.name for layer in crowded.layers()] == [layer.name for layer in make_analyser().layers()]
    with pytest.raises(ExplanationError, match="memory is too full"):
        crowded.explain(analysis, Method.GRAD_CAM, of="malignant")


def test_a_graphics_card_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(ModelUnavailableError, match="No CUDA device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == CPU


def test_whoever_asks_a_graphics_card_reads_in_one_thread_and_the_cpu_in_the_askers_own(
    monkeypatch: pytest.MonkeyPatch, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """torch plans every convolution anew for each thread that asks a card."""
    data = simulated[Diagnosis.BENIGN].png()
    explain, threads = Analyser._explain, list[str]()

    def note(self: Analyser, *arguments: object) -> object:
        threads.append(threading.current_thread().name)
        return explain(self, *arguments)

    monkeypatch.setattr(Analyser, "_explain", note)
    on_card, _ = make_crowded(monkeypatch, refusals=0)
    for analyser, expected in ((on_card, {"graphics-card_0"}), (make_analyser(), {f"reader-{n}" for n in range(4)})):
        threads.clear()
        readers = [threading.Thread(target=analyser.analyse, args=(data,), name=f"reader-{n}") for n in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert len(threads) == 4
        assert set(threads) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cpu_and_graphics_card_agree(simulated: dict[Diagnosis, SimulatedScan]) -> None:
    """G3."""
    gpu = torch.device("cuda")
    on_gpu = Analyser(make_network().to(gpu, memory_format=torch.channels_last), make_card(make_weights()), gpu)
    for scan in simulated.values():
        first, second = (analyser.analyse(scan.png()) for analyser in (make_analyser(), on_gpu))
        one, other = (read_finding(analysis).lesion_mask for analysis in (first, second))
        assert (one & other).sum() >= 0.999 * (one | other).sum()
        assert first.prediction.diagnosis is second.prediction.diagnosis


# ---- Offline and silent ----------------------------------------------------------------------------------------


def test_loading_and_reading_call_no_network(
    weights_dir: object, monkeypatch: pytest.MonkeyPatch, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """W3."""

    def refuse(name: str) -> Callable[..., object]:
        return lambda *_arguments, **_options: pytest.fail(f"socket.{name} was called")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse(name))
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse(name))
    analysis = Serving(weights_dir, CPU).current().analyse(simulated[Diagnosis.BENIGN].png())
    assert analysis.model_version == "tiny"


def test_the_log_tells_sizes_and_versions_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """U16: no name, pixel or score; the GPU's troubles are told without any."""
    crowded, _ = make_crowded(monkeypatch, refusals=2)
    with caplog.at_level(logging.INFO):
        crowded.analyse(simulated[Diagnosis.BENIGN].png())
    ours = [record for record in caplog.records if record.name.startswith("busi_core")]
    assert [record.getMessage() for record in ours] == [
        "GPU memory full, trying once more alone",
        "GPU memory full again, reading on the CPU",
        "analysed height=96 width=120 model=tiny",
    ]
    assert len(ours) == len(caplog.records), "another library logs while a scan is read"
