"""Figures for the server's owner in Prometheus' format, where BUSI_METRICS_PORT is set: counts and times, no patient.

They are served on a port of their own, on the machine itself unless BUSI_METRICS_ADDRESS says otherwise, so that a
reverse proxy never shows them by mistake.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

import streamlit as st

from busi_core import Analysis, BusiError

Outcome: TypeAlias = Literal["read", "withheld", "refused"]
"""Answered; answered without a finding, as nothing in the picture is known; no scan that can be read."""

logger = logging.getLogger(__name__)

BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)  # seconds


class Metrics:
    """The process' counters; made once, when the switch is on."""

    def __init__(self, port: int, address: str) -> None:
        from prometheus_client import Counter, Histogram, start_http_server

        start_http_server(port, addr=address)
        self.readings = Counter("busi_readings", "Scans read, by what became of them", ["outcome", "model"])
        self.seconds = Histogram("busi_reading_seconds", "From file bytes to the answer", buckets=BUCKETS)


@st.cache_resource(show_spinner=False)
def get_metrics() -> Metrics | None:
    """One for the whole server; None unless the switch is on and the port is free: no scan waits for its figures."""
    port = os.environ.get("BUSI_METRICS_PORT")
    if not port:
        return None
    address = os.environ.get("BUSI_METRICS_ADDRESS") or "127.0.0.1"  # compose passes on an empty one
    try:
        return Metrics(int(port), address)
    except (OSError, ValueError, OverflowError) as error:
        logger.error("no metrics: BUSI_METRICS_PORT=%s, BUSI_METRICS_ADDRESS=%s: %s", port, address, error)
        return None


def count_reading(outcome: Outcome, model: str) -> None:
    """Count one reading of a scan that a reader brought."""
    metrics = get_metrics()
    if metrics is not None:
        metrics.readings.labels(outcome, model).inc()


def measure_reading(model: str, read: Callable[[], Analysis]) -> Analysis:
    """Read one scan; count that, and how long the answer took.

    Raises:
        BusiError: As `read` does; counted as refused.
    """
    started = time.perf_counter()
    try:
        analysis = read()
    except BusiError:
        count_reading("refused", model)
        raise
    count_reading("withheld" if analysis.withheld else "read", model)
    metrics = get_metrics()
    if metrics is not None:
        metrics.seconds.observe(time.perf_counter() - started)
    return analysis
