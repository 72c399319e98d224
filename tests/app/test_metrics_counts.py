"""What the server's owner counts: every reading that a reader asked for, once, under what became of it."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import streamlit as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from streamlit.testing.v1 import AppTest
from versions import make_analyser

from busi_core import InvalidImageError, simulate_scan
from busi_core.imaging.encode import encode_png
from busi_core.types import Diagnosis
from pages.components import metrics
from pages.components.batch_queue import BatchQueue
from pages.components.serving import analyse

SCAN = simulate_scan(Diagnosis.BENIGN, seed=1, height=96, width=120).png()
BLANK = encode_png(np.full((96, 120), 90, np.uint8))
make_metrics = metrics.get_metrics
PERFORMANCE = Path(__file__).parents[2] / "pages/evidence/performance.py"
read_anew: Any = cast(Any, analyse).__wrapped__  # the session's memory, in which a reading stays, needs a page
CASES = [pytest.param(SCAN, "read", id="scan"), pytest.param(BLANK, "withheld", id="one grey")]


def test_scans_are_read_without_figures_where_their_port_is_taken_or_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A second server on the machine has the same settings."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (str(taken.getsockname()[1]), "auto", "70000"):
            monkeypatch.setenv("BUSI_METRICS_PORT", port)
            st.cache_resource.clear()
            caplog.clear()
            assert make_metrics() is None
            assert make_metrics() is None
            assert len(caplog.records) == 1
            assert f"BUSI_METRICS_PORT={port}" in caplog.text


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """Counters as the server makes them, without a port."""
    registry = CollectorRegistry()
    kept = SimpleNamespace(
        readings=Counter("busi_readings", "x", ["outcome", "model"], registry=registry),
        seconds=Histogram("busi_reading_seconds", "x", registry=registry),
    )
    monkeypatch.setattr(metrics, "get_metrics", lambda: kept)
    return registry


def counted(registry: CollectorRegistry) -> dict[str, float]:
    """How many readings of each outcome."""
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert {sample.labels["model"] for sample in samples if sample.name == "busi_readings_total"} <= {"tiny"}
    return {sample.labels["outcome"]: sample.value for sample in samples if sample.name == "busi_readings_total"}


def timed(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("busi_reading_seconds_count") or 0.0


@pytest.mark.parametrize(("data", "outcome"), CASES)
def test_a_scan_counts_once_under_what_became_of_it(registry: CollectorRegistry, data: bytes, outcome: str) -> None:
    read_anew(data, None, make_analyser())
    assert counted(registry) == {outcome: 1}
    assert timed(registry) == 1


def test_what_is_no_scan_is_refused_and_takes_no_time(registry: CollectorRegistry) -> None:
    with pytest.raises(InvalidImageError):
        read_anew(b"notes", None, make_analyser())
    assert counted(registry) == {"refused": 1}
    assert timed(registry) == 0


@pytest.mark.realdata
def test_the_scans_of_the_test_on_the_performance_page_are_no_readers(
    registry: CollectorRegistry, data_root: Path
) -> None:
    page = AppTest.from_file(str(PERFORMANCE), default_timeout=120).run()
    page.toggle(key="show-cases").set_value(True).run()
    assert not page.exception
    assert any("Best" in str(block.value) for block in page.get("html"))
    assert counted(registry) == {}
    assert timed(registry) == 0


def test_each_scan_of_a_batch_counts_once_however_often_it_goes_on(registry: CollectorRegistry) -> None:
    """Two are read side by side, so that how long one took is not known."""
    queue = BatchQueue()
    queue.add_uploads([("a.png", SCAN), ("b.png", BLANK), ("c.png", b"notes"), ("d.png", SCAN)])
    while queue.running:
        queue.advance(make_analyser(), seconds=0, on_row=lambda: None)
    assert len(queue.rows) == 4
    assert counted(registry) == {"read": 2, "withheld": 1, "refused": 1}
    assert timed(registry) == 0
