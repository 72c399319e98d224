"""A session's uploads have one budget: what one page holds another cannot add, and what is cleared is free for all."""

import io
import zipfile
from typing import Any

import pytest
import streamlit as st

from busi_core.data.sources import list_uploads
from pages.components import budget
from pages.components.batch_queue import get_queue
from pages.components.cases import get_cases
from pages.components.tray import Tray, get_tray


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The state of a session that has opened no page yet; its budget is 600 bytes."""
    state: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", state)
    monkeypatch.setattr(budget, "MAX_BYTES", 600)
    return state


def png(size: int) -> bytes:
    """So many bytes that begin as a PNG does."""
    return b"\x89PNG\r\n\x1a\n".ljust(size, b"x")


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_the_three_pages_share_it() -> None:
    get_tray().add([("a.png", png(200))], simulated=False)
    get_cases().add_uploads([("b.png", png(200))])
    get_queue().add_uploads([("c.png", png(201))])
    assert not get_queue().cases
    assert "This session holds 0 of 0 MB. Clear a batch, cases or scans" in get_queue().notes[0]
    get_queue().add_uploads([("c.png", png(200))])
    assert len(get_queue().cases) == 1
    get_cases().add_uploads([("d.png", png(10))])
    assert [case.name for case in get_cases().cases] == ["b.png"]
    assert "Clear a batch, cases or scans" in get_cases().notes[0]
    get_tray().add([("e.png", png(10))], simulated=False)
    assert get_tray().refused == 1


@pytest.mark.parametrize("of", [get_tray, get_cases, get_queue], ids=["scans", "cases", "batch"])
def test_what_is_cleared_is_free_for_the_others(of: Any) -> None:
    get_tray().add([("a.png", png(200))], simulated=False)
    get_cases().add_uploads([("b.png", png(200))])
    get_queue().add_uploads([("c.png", png(200))])
    assert [store.held for store in (get_tray(), get_cases(), get_queue())] == [200, 200, 200]
    assert budget.room_left(get_tray()) == 0
    of().clear()
    assert of().held == 0
    assert budget.room_left(get_tray()) == budget.room_left(get_queue()) == 200


@pytest.mark.parametrize("of", [get_cases, get_queue], ids=["cases", "batch"])
def test_only_what_stays_in_memory_counts(of: Any) -> None:
    """A zip as it is packed, and only while a scan of it is there; nothing of files that were left out."""
    packed = zipped({"a.png": png(50_000), "b.png": png(50_000)})
    assert len(packed) < 550
    of().add_uploads([("set.zip", packed), ("notes.txt", b"x" * 40)], is_folder=True)
    assert of().held == len(packed)
    of().clear()
    of().add_uploads([("broken.zip", packed[:-30]), ("notes.txt", b"x" * 40)], is_folder=True)
    assert of().held == 0


@pytest.mark.parametrize("of", [get_cases, get_queue], ids=["cases", "batch"])
def test_a_mask_takes_room_as_its_scan_does(of: Any) -> None:
    of().add_uploads([("a.png", png(200)), ("a_mask.png", png(150))])
    assert [len(case.masks) for case in of().cases] == [1]
    assert of().held == 350


def test_a_store_counts_itself_before_its_session_knows_of_it(session: dict[str, Any]) -> None:
    kept = Tray()
    for name in ("a.png", "b.png"):
        kept.add([(name, png(400))], simulated=False)
    assert not session
    assert ([scan.name for scan in kept.scans], kept.refused) == (["a.png"], 1)


def test_a_folder_of_the_server_takes_no_room() -> None:
    get_queue().add_files(list_uploads([("a.png", png(5_000))]))
    assert len(get_queue().cases) == 1
    assert budget.room_left(get_queue()) == 600


def test_a_page_never_opened_holds_nothing(session: dict[str, Any]) -> None:
    get_tray().add([("a.png", png(100))], simulated=False)
    assert list(session) == ["tray"]
    assert budget.room_left(get_tray()) == 500


def test_a_scan_opened_from_a_batch_counts_by_itself_and_outlasts_it() -> None:
    """It does not keep the zip that it came in."""
    data = zipped({f"{number}.png": png(100) for number in range(2)})
    get_queue().add_uploads([("scans.zip", data)])
    get_cases().take(get_queue().cases[1], simulated=False)
    assert (get_queue().held, get_cases().held) == (len(data), 100)
    get_queue().clear()
    assert budget.held_bytes(get_cases()) == 100
    assert get_cases().cases[0].scan.read() == png(100)


def test_a_scan_of_a_batch_for_which_there_is_no_room_is_not_opened() -> None:
    get_queue().add_uploads([("a.png", png(301))])
    assert not get_cases().take(get_queue().cases[0], simulated=False)
    assert not get_cases().cases
    assert "Clear a batch, cases or scans" in get_cases().notes[0]
