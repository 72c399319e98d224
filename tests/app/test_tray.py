"""The scans of a session: what has no room is counted, and nothing else suffers from it."""

import pytest

from pages.components import budget
from pages.components.tray import Tray


def test_one_file_too_large_takes_no_room_from_those_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_BYTES", 600)
    kept = Tray()
    kept.add([("large.png", b"x" * 700), *((f"{n}.png", b"x" * 100) for n in range(8))], simulated=False)
    assert [scan.name for scan in kept.scans] == [f"{n}.png" for n in range(6)]
    assert kept.refused == 3
