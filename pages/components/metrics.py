"""Figures for the server's owner in Prometheus' format, where BUSI_METRICS_PORT is set: counts and times, no patient.

They are served on a port of their own, on the machine itself unless BUSI_METRICS_ADDRESS says otherwise, so that a
reverse proxy never shows them by mistake.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from busi_core import BusiError

BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)  # seconds


class Metrics:
    """The process' counters; made once, when the switch is on."""

    def __init__(self, port: int, address: str) -> None:
        from prometheus_client import Counter, Histogram, start_http_server

        self.readings = Counter("busi_readings", "Scans read, by what became of them", ["outcome", "model"])
        self.seconds = Histogram("busi_reading_seconds", "From file bytes to the answer", buckets=BUCKETS)
        start_http_server(port, addr=address)


@st.cache_resource(show_spinner=False)
def get_metrics() -> Metrics | None:
    """One for the whole server; None unless the switch is on."""
    port = os.environ.get("BUSI_METRICS_PORT")
    if not port:
        return None
    return Metrics(int(port), os.environ.get("BUSI_METRICS_ADDRESS") or "127.0.0.1")  # compose passes on an empty one


@contextmanager
def measure_reading(model: str) -> Iterator[None]:
    """Count one reading and how long it took."""
    metrics = get_metrics()
    if metrics is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    except BusiError:
        metrics.readings.labels("refused", model).inc()
        raise
    metrics.readings.labels("read", model).inc()
    metrics.seconds.observe(time.perf_counter() - started)
