"""The network that ncnn carries out says what torch says, alone or in a crowd; where it would not, torch reads."""

import logging
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from test_reading_net import KINDS, lived_in
from torch import Tensor, nn
from versions import TINY, WEIGHTS, make_network

from busi_core.data.records import read_bus_bra, read_busi
from busi_core.explain.gradcam import explain_classes, explain_scan
from busi_core.findings import read_finding
from busi_core.imaging.decode import decode_image
from busi_core.models import ncnn_net
from busi_core.models.interface import Network
from busi_core.models.ncnn_graph import Graph
from busi_core.models.ncnn_net import NcnnNet, carry_by_ncnn
from busi_core.models.reading import arrange_for_reading
from busi_core.registry import read_registry
from busi_core.service import Analyser

SIDE = 96
EDGETPU = KINDS["edgetpu"]
CARRIED = {
    "edgetpu": EDGETPU,
    "plain head": replace(EDGETPU, head="global"),
    "colour, no class": replace(EDGETPU, in_channels=3, image_classes=()),
    "four kinds of pixels": replace(EDGETPU, pixel_classes=("none", "normal", "benign", "malignant")),
}
CPU = torch.device("cpu")


def make_reader(kind: str = "edgetpu") -> Network:
    return arrange_for_reading(lived_in(make_network(0, CARRIED[kind])).float())


def make_carried() -> NcnnNet:
    carried = carry_by_ncnn(make_reader(), SIDE)
    assert isinstance(carried, NcnnNet)
    return carried


def images_for(network: Network, count: int = 1, seed: int = 0) -> Tensor:
    channels = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels
    return torch.randn(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def require_close(ours: Tensor, expected: Tensor, within: float = 1e-4) -> None:
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max()) <= within * float(expected.abs().max())


@pytest.mark.parametrize("kind", CARRIED)
def test_masks_scores_features_and_heat_maps_are_those_of_torch(kind: str) -> None:
    network = make_reader(kind)
    carried = carry_by_ncnn(network, SIDE)
    assert isinstance(carried, NcnnNet)
    images = images_for(network)
    with torch.no_grad():
        features, own = network.encode(images), carried.encode(images)
    for ours, level in zip(own, features, strict=True):
        require_close(ours, level)
    outputs, maps, lesion_map = explain_scan(network, features, 0.5)
    own_outputs, own_maps, own_lesion_map = explain_scan(carried, own, lambda _: 0.5)
    require_close(own_outputs.mask_logits, outputs.mask_logits.detach())
    assert (own_outputs.class_logits is None) == (outputs.class_logits is None)
    if outputs.class_logits is not None and own_outputs.class_logits is not None:
        require_close(own_outputs.class_logits, outputs.class_logits.detach())
    for found, expected in zip(own_maps, maps, strict=True):
        require_close(found, expected)
    require_close(own_lesion_map, lesion_map, within=1e-2)  # a value that rounds across 0 opens or shuts a way
    for found, expected in zip(explain_classes(carried, own)[1], maps, strict=True):
        require_close(found, expected)


def test_several_images_at_once_are_read_as_each_alone() -> None:
    carried = make_carried()
    images = images_for(carried, count=3)
    together = carried(images)
    for number in range(3):
        alone = carried(images[number : number + 1])
        assert torch.equal(together.mask_logits[number], alone.mask_logits[0])
        assert torch.equal(together.features[number], alone.features[0])


def test_eight_threads_at_once_get_what_each_gets_alone() -> None:
    carried = make_carried()
    scans = [images_for(carried, seed=seed) for seed in range(8)]

    def read(images: Tensor) -> tuple[Tensor, Tensor]:
        outputs, _, lesion_map = explain_scan(carried, carried.encode(images), 0.5)
        return outputs.mask_logits, lesion_map

    alone = [read(images) for images in scans]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, expected in zip(pool.map(read, scans), alone, strict=True):
                assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_another_number_of_threads_gives_the_same_answer() -> None:
    """As when the scans of a folder share the cores while somebody reads one."""
    carried = make_carried()
    images, before = images_for(carried), torch.get_num_threads()
    expected = carried(images).mask_logits
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            require_close(carried(images).mask_logits, expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["tiny", "resnet18", "mobilenet_v2", "densenet121", "attention", "double"])
def test_what_is_not_told_to_ncnn_is_read_by_torch(kind: str) -> None:
    """A maximum or another ReLU in the encoder; a decoder that is not rearranged; another precision."""
    networks = {
        "tiny": lambda: make_network(),
        **{name: partial(make_network, 0, replace(TINY, encoder=name)) for name in ("resnet18", "mobilenet_v2")},
        "densenet121": lambda: make_network(0, replace(TINY, encoder="densenet121")),
        "attention": lambda: make_network(0, replace(EDGETPU, attention="scse")),
        "double": lambda: make_network(0, EDGETPU).double(),
    }
    network = arrange_for_reading(networks[kind]())
    assert carry_by_ncnn(network, SIDE) is network


def test_torch_reads_where_ncnn_says_something_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a fault of one kind of processor would show: here, sums that are products."""
    monkeypatch.setattr(Graph, "add", Graph.multiply)
    network = make_reader()
    with caplog.at_level(logging.WARNING):
        assert carry_by_ncnn(network, SIDE) is network
    assert "ncnn says something else" in caplog.text


def test_torch_reads_where_the_way_back_alone_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_net, "_returned", lambda weight: weight.transpose(0, 1))
    network = make_reader()
    assert carry_by_ncnn(network, SIDE) is network


def test_torch_reads_where_there_is_no_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    network = make_reader()
    with caplog.at_level(logging.WARNING):
        assert carry_by_ncnn(network, SIDE) is network
    assert "ncnn cannot" in caplog.text


def read_with_one_thread_more(change: Callable[[], None]) -> int:
    """The same answer must come after the change; gives the number of threads before."""
    carried, before = make_carried(), torch.get_num_threads()
    images = images_for(carried)
    expected = carried(images).mask_logits
    change()
    try:
        torch.set_num_threads(before + 1)
        assert torch.equal(carried(images).mask_logits, expected)
    finally:
        torch.set_num_threads(before)
    return before


def test_a_disk_that_filled_up_meanwhile_stops_no_reading(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_with_one_thread_more(lambda: monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone")))
    assert f"read with {before} threads, since ncnn cannot" in caplog.text


def test_a_graph_that_ncnn_does_not_take_for_another_number_of_threads_stops_no_reading(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise RuntimeError("ncnn does not take the network")

    before = read_with_one_thread_more(lambda: monkeypatch.setattr(ncnn_net, "compile_graph", refuse))
    assert f"read with {before} threads, since ncnn cannot: ncnn does not take the network" in caplog.text


def test_others_read_while_a_version_is_loaded() -> None:
    """Watching how torch reads must watch this thread alone."""
    carried, reader = make_carried(), make_reader()
    images = images_for(carried)
    expected = carried(images).mask_logits
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(lambda: [NcnnNet(reader, SIDE) for _ in range(5)])
        while not loading.done():
            reader(images)
            assert torch.equal(carried(images).mask_logits, expected)
        for again in loading.result():
            require_close(again(images).mask_logits, expected)


def test_nothing_is_left_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_carried()
    assert list(tmp_path.iterdir()) == []


def test_the_version_in_service_is_carried_by_ncnn_on_a_processor() -> None:
    analyser = Analyser.load(WEIGHTS / read_registry(WEIGHTS).in_service, CPU)
    assert isinstance(analyser._reader, NcnnNet)


@pytest.mark.realdata
def test_on_real_scans_it_says_what_the_network_says_as_it_was_trained(data_root: Path) -> None:
    """The aims of docs/adr/0026 on every hundredth scan; on all of them by `benchmarks.engine_parity`."""
    analyser = Analyser.load_without_limits(WEIGHTS / read_registry(WEIGHTS).in_service, CPU)
    judge = Analyser.load_without_limits(WEIGHTS / read_registry(WEIGHTS).in_service, CPU)
    judge._readers = (judge._network, *judge._readers[1:])
    for record in [*read_busi(data_root / "busi"), *read_bus_bra(data_root / "bus-bra")][::100]:
        image = decode_image(record.image.read_bytes())
        ours, expected = analyser.analyse_image(image), judge.analyse_image(image)
        mask, other = read_finding(ours).lesion_mask, read_finding(expected).lesion_mask
        assert (mask & other).sum() >= 0.999 * (mask | other).sum()
        assert ours.prediction.diagnosis == expected.prediction.diagnosis
        for of, heat in ours.heatmaps.items():
            np.testing.assert_allclose(heat.evidence, expected.heatmaps[of].evidence, atol=2e-3)
