"""Where the figures for Prometheus are served: as the container's compose file passes it on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pages.components import metrics

COMPOSE = Path(__file__).parents[2] / "deploy/compose.yaml"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, str]]]:
    """What would be listened on."""
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr(metrics, "Metrics", lambda port, address: asked.append((port, address)))
    monkeypatch.setenv("BUSI_METRICS_PORT", "9100")
    metrics.get_metrics.clear()
    yield asked
    metrics.get_metrics.clear()


@pytest.mark.parametrize(("value", "address"), [("10.0.0.7", "10.0.0.7"), ("", "127.0.0.1"), (None, "127.0.0.1")])
def test_an_address_that_is_empty_or_not_set_is_the_machine_itself(
    served: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, value: str | None, address: str
) -> None:
    if value is None:
        monkeypatch.delenv("BUSI_METRICS_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("BUSI_METRICS_ADDRESS", value)
    metrics.get_metrics()
    assert served == [(9100, address)]


def test_an_empty_port_leaves_the_figures_off(served: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_METRICS_PORT", "")
    assert metrics.get_metrics() is None
    assert not served


def test_the_compose_file_passes_both_on_and_says_nothing_where_nothing_is_set() -> None:
    app = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["app"]
    for name in ("BUSI_METRICS_PORT", "BUSI_METRICS_ADDRESS"):
        assert app["environment"][name] == f"${{{name}:-}}"
