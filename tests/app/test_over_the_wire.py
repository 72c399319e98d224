"""Many sessions at once, and hostile ones, against one real server: spoken to in Streamlit's own protocol.

The server is watched by audit hooks (tests/browser/watch): what it connects to, opens to write, and how often it loads
weights. It starts as the README says, with the weights of the repository.
"""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from app_server import REPOSITORY, AppServer, start_server
from files import dicom
from wire import Wire

from busi_core import Analyser, Diagnosis, simulate_scan
from busi_core.registry import read_registry
from pages.components.viewer import pack_scene
from pages.components.viewer.message import LENGTH_BYTES, read_header

APP = REPOSITORY / "app.py"
WEIGHTS = REPOSITORY / "weights"
PAGES = ("", "compare", "batch", "about")
SCRIPTS = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "pages").rglob("*.py"))
NOTICE = "Research use only. Not a medical device."
SESSIONS = 8
TRIAL = re.compile(r".*/[a-z0-9_]{8}")  # an empty file by which Python finds out where temporary files may lie
OF_THE_MODEL = re.compile(r".*/busi-ncnn-\w+/net\.(param|bin)")  # its weights on their way to ncnn, nothing of a scan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wire")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[AppServer]:
    """One watched server for all these tests, without a store for corrections and without data sets."""
    settings = {
        "BUSI_WEIGHTS_DIR": str(WEIGHTS),
        "BUSI_DATA_ROOT": str(folder / "none"),
        "BUSI_DEVICE": "cpu",
        "PYTHONDONTWRITEBYTECODE": "1",
        "STREAMLIT_SERVER_ADDRESS": "",
    }
    running = start_server(APP, watch=folder / "watched.txt", log=folder / "log.txt", settings=settings)
    yield running
    running.stop()


@pytest.fixture
def wire(server: AppServer) -> Iterator[Wire]:
    with Wire(server.address) as session:
        yield session


def watched(folder: Path, kind: str) -> list[str]:
    lines = (folder / "watched.txt").read_text().splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{kind} ")]


def scan(seed: int, *, height: int = 160, width: int = 200) -> bytes:
    return simulate_scan(list(Diagnosis)[seed % 3], seed=seed, height=height + seed, width=width).png()


def uploader(session: Wire) -> str:
    """The key of the only uploader in sight."""
    ids = [element.file_uploader.id for element in session.elements() if element.WhichOneof("type") == "file_uploader"]
    return ids[0].rsplit("-", 2)[1] + "-" + ids[0].rsplit("-", 1)[1]


def read_scan(session: Wire, name: str, data: bytes) -> bytes:
    """Upload to Analyse; the message that the viewer gets."""
    session.run("")
    session.upload(uploader(session), (name, data))
    session.run()
    return session.component("busi_viewer")[1][LENGTH_BYTES:]


# ---- A crowd -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_twenty_first_loads_at_once_load_the_model_once(server: AppServer, folder: Path) -> None:
    """C2."""

    def first_load(number: int) -> str:
        with Wire(server.address) as session:
            session.run(PAGES[number % 2])  # two pages that ask for the model
            assert session.crashes() == []
            return session.texts()

    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(first_load, range(20)))
    assert all(NOTICE in text for text in answers)
    with Wire(server.address) as session:
        read_scan(session, "a scan.png", scan(1))
    assert len(watched(folder, "weights")) == 1


def test_eight_sessions_at_once_read_bit_by_bit_what_one_reads_alone(server: AppServer) -> None:
    """C1: the scan, the lesion probability, every heat map and every score."""
    version = read_registry(WEIGHTS).in_service
    alone = Analyser.load(WEIGHTS / version, torch.device("cpu"))

    def read_two(number: int) -> list[dict[str, object]]:
        with Wire(server.address) as session:
            return [read_header(read_scan(session, f"{seed}.png", scan(seed))) for seed in (number, number + SESSIONS)]

    with ThreadPoolExecutor(SESSIONS) as crowd:
        answers = list(crowd.map(read_two, range(SESSIONS)))
    for number, pair in enumerate(answers):
        for header, seed in zip(pair, (number, number + SESSIONS), strict=True):
            analysis = alone.analyse(scan(seed))
            expected = read_header(
                pack_scene(
                    analysis,
                    scan_id=str(header["scan_id"]),
                    name=f"{seed}.png",
                    position=int(str(header["position"])),
                    count=int(str(header["count"])),
                    simulated=False,
                    read_first=False,
                    lesion_cutoff=analysis.lesion_threshold,
                    heat_worth=str(header["heat_worth"]),
                )
            )
            assert header == expected  # `content` in it is a digest of all pixels and maps


def test_nothing_of_one_session_reaches_another(server: AppServer) -> None:
    """C5: names, pixels, heat maps, files to download, uploads by their id."""
    data = scan(3, height=300, width=400)
    with Wire(server.address) as mine, Wire(server.address) as other:
        message = read_scan(mine, "of patient A.png", data)
        stolen = next(state for state in mine.states.values() if state.WhichOneof("value").startswith("file_uploader"))
        for page in PAGES:
            other.run(page)
        other.run("")
        forged = other.widget(uploader(other))
        other.set(forged)
        other.states[forged].file_uploader_state_value.CopyFrom(stolen.file_uploader_state_value)
        other.run()
        assert other.crashes() == []
        assert not [e for e in other.elements() if e.WhichOneof("type") == "bidi_component"]  # no scan came of it
        everything = b"".join(other.heard)
        header = read_header(message)
        assert b"patient A" in b"".join(mine.heard)
        assert b"patient A" not in everything
        assert str(header["content"]).encode() not in everything
        assert len(media_of(mine)) > len(media_of(other))
        assert set(media_of(mine)) & set(media_of(other)) <= icon_of(server)


def test_files_to_download_are_gone_with_the_scan(server: AppServer, wire: Wire) -> None:
    """C5: an address of one's own pictures leads nowhere once the scan is cleared."""
    read_scan(wire, "of patient B.png", scan(4))
    before = set(media_of(wire)) - icon_of(server)
    assert before
    assert {fetch(wire.address, path)[0] for path in before} == {200}
    wire.click("clear")
    wire.run()
    assert {fetch(wire.address, path)[0] for path in before} == {404}


def media_of(session: Wire) -> list[str]:
    """Addresses of pictures and files that this session was told."""
    found = re.findall(rb"/media/[0-9a-f]{20,}\.(?:png|json|pdf)", b"".join(session.heard))
    return sorted({path.decode() for path in found})


def icon_of(server: AppServer) -> set[str]:
    """The page's icon: the only picture that is everybody's."""
    with Wire(server.address) as session:
        return set(media_of(session.run("")))


def fetch(address: str, path: str) -> tuple[int, bytes]:
    """Status and body of a plain request."""
    try:
        with urllib.request.urlopen(f"{address}{path}") as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


# ---- Pages and files by their address ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", [*SCRIPTS, Path("app.py"), Path("weights/registry.json"), Path(".git/config")], ids=str
)
def test_no_file_of_the_server_is_handed_out(server: AppServer, script: Path) -> None:
    _, front_page = fetch(server.address, "")
    name = script.as_posix()
    for path in (
        f"/{name}",
        f"/{script.stem}",
        f"/static/{name}",
        f"/app/static/{name}",
        f"/media/{name}",
        f"/component/busi_viewer/{name}",
        f"/_stcore/bidi-components/busi_viewer/{name}",
        f"/_stcore/bidi-components/busi_viewer/..%2f..%2f..%2f{name}",
        f"/..%2f..%2f{name}",
        f"/static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f{REPOSITORY.as_posix().lstrip('/')}/{name}",
    ):
        status, body = fetch(server.address, path)
        assert status in (400, 403, 404) or body == front_page, path


def test_an_unknown_page_is_the_first_page_with_its_notice(wire: Wire) -> None:
    """Scripts by their path or name, what lies outside, and nonsense."""
    pieces = [script for script in SCRIPTS if script.parts[1] == "components"]
    for page in (SCRIPTS[-1].as_posix(), pieces[0].stem, pieces[-1].stem, "../app", "%2e%2e", "x" * 10_000):
        wire.run(page)
        assert wire.crashes() == [], page
        assert NOTICE in wire.texts(), page
        assert any(message.WhichOneof("type") == "page_not_found" for message in wire.messages), page


def test_a_forged_page_number_is_the_first_page(wire: Wire) -> None:
    wire.run("", page_hash="0" * 32)
    assert wire.crashes() == []
    assert NOTICE in wire.texts()


# ---- Forged widget values ------------------------------------------------------------------------------------

NUMBERS = (-1.0, 1e9, 1e300, float("nan"))


def test_a_frame_outside_the_file_is_explained_or_ignored(wire: Wire) -> None:
    frames = np.stack([simulate_scan(Diagnosis.BENIGN, seed=seed, height=96, width=128).grey for seed in range(3)])
    read_scan(wire, "cine.dcm", dicom(frames, NumberOfFrames=3))
    sliders = {e.slider.label: e.slider.id for e in wire.elements() if e.WhichOneof("type") == "slider"}
    assert len(sliders) == 2, "the frame, and how sure the set of classes should be"
    for label, slider in sliders.items():
        for number in NUMBERS:
            wire.set(slider, double_array_value=[number])
            assert wire.run().crashes() == [], (label, number)
            assert "of 3 · cine.dcm" in wire.texts()
    wire.set(sliders["Frame, 1 to 3"], double_array_value=[3])
    wire.run()
    assert "frame 3 of 3 · cine.dcm" in wire.texts()


VIEWS = (
    "x",
    {"lesion_cutoff": 7, "heat_cutoff": "0.5"},
    {"lesion_cutoff": [0.5], "heat_cutoff": {}},
    {"lesion_cutoff": float("nan"), "heat_cutoff": float("-inf"), "revealed": "yes"},
)
STEPS = (5, {"scan_id": "", "to": 10**9}, {"to": float("nan")}, [[]])


def test_what_no_viewer_would_report_counts_as_nothing(wire: Wire) -> None:
    header = read_header(read_scan(wire, "a scan.png", scan(5)))
    viewer, _ = wire.component("busi_viewer")
    before = finding(wire)
    for view, step in zip(VIEWS, STEPS, strict=True):
        wire.report(viewer, views={str(header["scan_id"]): view, "another": {"lesion_cutoff": 0.9}})
        wire.trigger(viewer, "step", step)
        assert wire.run().crashes() == [], (view, step)
        assert finding(wire) == before
    wire.set(viewer, json_value="[]")
    assert wire.run().crashes() == []
    assert finding(wire) == before


def finding(session: Wire) -> list[str]:
    """The finding as it is written, without the page's style."""
    said = [e.html.body for e in session.elements() if e.WhichOneof("type") == "html" and "<style" not in e.html.body]
    assert any("Model score" in text for text in said)
    return said


def test_a_forged_mask_is_not_taken_and_nothing_is_kept(wire: Wire) -> None:
    wire.run("compare")
    wire.click("compare-sample-benign")
    component, message = wire.component("busi_compare")
    header = read_header(message[LENGTH_BYTES:])
    version = header["readings"][0]["version"]
    good = {"scan_id": header["scan_id"], "height": header["height"], "width": header["width"], "version": version}
    for change in (
        {"mask": "no base64!", "cutoff": 0.5},
        {"mask": "eJwDAAAAAAE=", "cutoff": 0.5},
        {"mask": 7, "cutoff": float("nan")},
        {"version": "../../etc", "mask": "", "cutoff": 0.5},
        {"height": 10**9, "width": "a", "mask": "eJwDAAAAAAE=", "cutoff": 0.5},
    ):
        wire.report(component, views={}, edited=good | change)
        assert wire.run().crashes() == [], change
        assert "Keep the corrected mask" not in wire.texts()


FORGED: dict[str, list[Any]] = {
    "string_value": ["../../etc/passwd", "x" * 100_000],
    "int_value": [-(2**31), 10**9],
    "json_value": ["{", '{"selection": {"rows": [1000000000], "columns": ["x"]}}'],
    "double_array_value": [[1e300, -1e300], [float("nan")], []],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "button"), [("", "sample-benign"), ("compare", "compare-sample-benign"), ("batch", "")]
)
def test_values_that_no_widget_can_have_show_nothing_of_the_server(wire: Wire, page: str, button: str) -> None:
    """Every widget of a page is given values of another kind or out of its range: it hurts nobody but the sender."""
    wire.run(page)
    if button:
        wire.click(button)
    names = widget_ids(wire)
    assert names
    for kind, contents in FORGED.items():
        for content in contents:
            for name in names:
                wire.set(name, **{kind: content})
            wire.run()
            wire.states.clear()
            assert leaks(wire) == [], (kind, content)
    with Wire(wire.address) as another:
        assert another.run(page).crashes() == []
        assert NOTICE in another.texts()


def widget_ids(session: Wire) -> list[str]:
    found = []
    for element in session.elements():
        part = getattr(element, element.WhichOneof("type") or "empty")
        if str(getattr(part, "id", "")).startswith("$$ID"):
            found.append(part.id)
    return found


def leaks(session: Wire) -> list[str]:
    """What would tell an attacker about the server: a stack, a path, a message of a library."""
    shown = [e.exception for e in session.elements() if e.WhichOneof("type") == "exception"]
    return [text for e in shown for text in (*e.stack_trace, e.message) if "/" in text or "File" in text]


def test_unknown_widgets_buttons_and_files_do_nothing(wire: Wire) -> None:
    wire.run("")
    wire.set("$$ID-0-clear", trigger_value=True)
    wire.set("nobody", string_value="x")
    wire.set(wire.widget(uploader(wire)))
    info = wire.states[wire.widget(uploader(wire))].file_uploader_state_value.uploaded_file_info.add()
    info.name, info.size, info.file_id = "../../x.png", 10**12, "../../etc/passwd"
    assert leaks(wire.run()) == []
    assert not [e for e in wire.elements() if e.WhichOneof("type") == "bidi_component"]  # no scan came of it
    wire.states.clear()
    assert wire.run().crashes() == []
    assert NOTICE in wire.texts()


def test_a_body_over_the_limit_is_refused_and_memory_stays_flat(server: AppServer, wire: Wire) -> None:
    """U21: 400 MB are sent where 200 are allowed."""
    wire.run("")
    address = wire.upload_address()
    before, most = server.memory_mb(), 0.0

    def body() -> Iterator[bytes]:
        nonlocal most
        for _ in range(400):
            most = max(most, server.memory_mb())
            yield bytes(2**20)

    assert wire.put_raw(address, iter(()), 400 * 2**20) == 413  # by what is announced, before any of it
    status = wire.put_raw(address, body(), 400 * 2**20)
    assert status in (413, None)  # None: the server hung up while the body was still coming
    assert max(most, server.memory_mb()) < before + 100
    assert wire.run().crashes() == []


# ---- What it left behind -------------------------------------------------------------------------------------


def test_the_server_asked_nobody_wrote_nothing_and_logged_no_name(server: AppServer, folder: Path) -> None:
    """W3, U16, U18: after all of the above, and a session with a telling name."""
    with Wire(server.address) as session:
        read_scan(session, "Meier, Anna 1961-03-02.png", scan(7))
        session.run("compare")
    assert watched(folder, "weights")  # the watch is at work
    assert watched(folder, "network") == []
    written = watched(folder, "write")
    assert [path for path in written if not TRIAL.fullmatch(path) and not OF_THE_MODEL.fullmatch(path)] == []
    log = (folder / "log.txt").read_text()
    assert "Meier" not in log
    assert "patient" not in log
