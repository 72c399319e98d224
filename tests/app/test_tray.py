"""The scans of a session: what has no room is counted, and nothing else suffers from it."""

from dataclasses import replace

import pytest

from pages.components import budget, tray
from pages.components.tray import Tray


def test_one_file_too_large_takes_no_room_from_those_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_BYTES", 600)
    kept = Tray()
    kept.add([("large.png", b"x" * 700), *((f"{n}.png", b"x" * 100) for n in range(8))], simulated=False)
    assert [scan.name for scan in kept.scans] == [f"{n}.png" for n in range(6)]
    assert kept.refused == 3


def test_a_session_has_room_for_so_many_scans_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tray, "MAX_SCANS", 3)
    kept = Tray()
    kept.add([(f"{n}.png", b"x") for n in range(2)], simulated=False)
    kept.add([(f"{n}.png", b"x") for n in range(2, 6)], simulated=False)
    assert [scan.name for scan in kept.scans] == ["0.png", "1.png", "2.png"]
    assert kept.refused == 3


def test_cleared_it_keeps_nothing_of_a_patient_and_takes_the_next_upload_for_a_new_one() -> None:
    """Neither what was typed in, nor what was chosen or asked of a scan; how the reader likes to read stays."""
    kept = Tray(read_first=True)
    kept.add([("a.png", b"x"), ("b.png", b"y")], simulated=False)
    scan = kept.scans[1].id
    kept.step(1)
    kept.frames[scan], kept.subjects[scan], kept.refused = 3, "Case 7", 2
    kept.cutoffs[scan], kept.heat_cutoffs[scan] = 0.4, 0.2
    kept.starts = (dict(kept.cutoffs), dict(kept.heat_cutoffs))
    kept.insisted.add(scan)
    kept.doubted.add(scan)
    before = kept.generation
    kept.clear()
    assert kept.generation > before
    assert replace(kept, generation=0) == Tray(read_first=True)
