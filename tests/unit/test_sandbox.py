"""What a decoder that crashes, hangs, floods or lies costs the server: one refused file, and nothing else."""

import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from encoders import compressed, jpeg_2000, lossless_jpeg
from files import speckle
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1

from busi_core.errors import InvalidImageError
from busi_core.imaging import sandbox
from busi_core.imaging.decode import decode_image
from busi_core.imaging.jpeg_markers import FrameHeader
from busi_core.imaging.sandbox import decode_confined

HEADER = FrameHeader(width=64, height=64, samples=1, bits=8)
FRAME = bytes(300_000)  # more than a pipe holds, so that writing it waits for the reader
FLOOD = "while True: sys.stdout.buffer.write(bytes(9999))"
LIMITED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("child", {real!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child.limit_process({seconds}, {megabytes})
"""


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put another program in the place of the child."""
    real = str(sandbox.CHILD)

    def replace(code: str, *, seconds: int = 5, megabytes: int = 400) -> None:
        script = tmp_path / "child.py"
        script.write_text(LIMITED.format(real=real, seconds=seconds, megabytes=megabytes) + code)
        monkeypatch.setattr(sandbox, "CHILD", script)

    return replace


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that `sandbox` starts, and no others: the test run may have children of its own.

    Held here, so that none is reaped because Python throws its object away.
    """
    children: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            children.append(self)

    monkeypatch.setattr(sandbox, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": Noted}))
    return children


def is_there(child: subprocess.Popen[bytes]) -> bool:
    """Running, or ended and not reaped."""
    return Path(f"/proc/{child.pid}").exists()


def problem() -> str:
    with pytest.raises(InvalidImageError) as caught:
        decode_confined("jpeg-2000", FRAME, HEADER)
    return caught.value.problem


@pytest.mark.parametrize(
    ("code", "named"),
    [
        pytest.param("import os; os.abort()", "crashed", id="aborts"),
        pytest.param("import ctypes; ctypes.string_at(0)", "crashed", id="reads address 0"),
        pytest.param("sys.exit(3)", "could not be unpacked", id="exits unread"),
        pytest.param("sys.stdin.buffer.read(); raise ValueError", "could not be unpacked", id="raises"),
        pytest.param("sys.stdin.buffer.read(); print('x', end='')", "could not be unpacked", id="too few pixels"),
        pytest.param(
            "sys.stdin.buffer.read()\nwhile True: sys.stdout.buffer.write(bytes(9999))", "", id="endless pixels"
        ),
        pytest.param("while True: sys.stdout.buffer.write(bytes(9999))", "", id="endless pixels, unread"),
        pytest.param("sys.stdin.buffer.read(); bytearray(10**9)", "could not be unpacked", id="a gigabyte"),
        pytest.param("open('left behind', 'wb').write(bytes(9))", "", id="writes a file"),
    ],
)
def test_whatever_a_decoder_does_is_a_refusal(
    code: str, named: str, decoder: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X1, U5."""
    monkeypatch.chdir(tmp_path)
    decoder(code)
    assert named in problem()
    left = tmp_path / "left behind"
    assert not left.exists() or left.stat().st_size == 0


def test_a_decoder_that_never_ends_is_stopped_by_its_processor_time(decoder: Callable[..., None]) -> None:
    """X1."""
    decoder("while True: pass", seconds=1)
    assert "too long" in problem()


def test_a_decoder_that_sleeps_is_stopped_by_the_clock(
    decoder: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """X1. Sleeping takes no processor time."""
    monkeypatch.setattr(sandbox, "START_SECONDS", 1)
    monkeypatch.setattr(sandbox, "WALL_SECONDS_A_CPU_SECOND", 1)
    decoder("import time; time.sleep(600)")
    start = time.monotonic()
    assert "too long" in problem()
    assert time.monotonic() - start < 60


def test_no_process_is_left_behind(decoder: Callable[..., None], started: list[subprocess.Popen[bytes]]) -> None:
    """X1. Neither running nor unreaped."""
    decoder(FLOOD)
    before = set(threading.enumerate())
    problem()
    assert len(started) == 1
    assert not is_there(started[0])
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_the_decoder_sees_no_secret_of_the_server(
    decoder: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment of a server holds passwords."""
    monkeypatch.setenv("BUSI_TEST_SECRET", "hunter2")
    seen = "bytes([b'hunter2' in os.environb.values()])"
    decoder(f"import os; sys.stdin.buffer.read(); sys.stdout.buffer.write({seen} * 4096)")
    assert not decode_confined("jpeg-2000", FRAME, HEADER).any()


def test_at_most_two_decoders_run_at_once(decoder: Callable[..., None], started: list[subprocess.Popen[bytes]]) -> None:
    """Eight sessions that open such files share the memory of two."""
    decoder("import time; sys.stdin.buffer.read(); time.sleep(0.3); sys.stdout.buffer.write(bytes(4096))")
    seen: list[int] = []
    threads = [threading.Thread(target=decode_confined, args=("jpeg-2000", FRAME, HEADER)) for _ in range(5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(sum(is_there(child) for child in started))
        time.sleep(0.02)
    assert len(started) == len(threads)
    assert 1 <= max(seen) <= sandbox.MAX_CHILDREN


def test_a_missing_decoder_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """U14. GDCM is an extra: without it, JPEG of more than 8 bits is refused, and nothing else."""
    monkeypatch.setattr(sandbox, "MODULES", {"jpeg-2000": "openjpeg", "jpeg-ls": "jpeg_ls"})
    find = sandbox.importlib.util.find_spec
    monkeypatch.setattr(sandbox.importlib.util, "find_spec", lambda name: None if name == "gdcm" else find(name))
    wide = speckle().astype("<u2") * 16
    with pytest.raises(InvalidImageError, match="more than 8 bits a sample") as caught:
        decode_image(compressed(wide, JPEGLosslessSV1, lossless_jpeg(wide)))
    assert "not installed on this server" in caught.value.problem
    scan = speckle()
    np.testing.assert_array_equal(decode_image(compressed(scan, JPEG2000Lossless, jpeg_2000(scan))).grey, scan)
    np.testing.assert_array_equal(decode_image(compressed(scan, JPEGLosslessSV1, lossless_jpeg(scan))).grey, scan)


def test_only_the_child_loads_the_rarer_decoders() -> None:
    """A server of 1 GB holds the model and the sessions; GDCM alone would take 18 MB of every process."""
    for path in sandbox.CHILD.parent.glob("*.py"):
        imports = re.findall(r"(?:import|from) (gdcm|openjpeg|jpeg_ls)", path.read_text())
        assert bool(imports) == (path == sandbox.CHILD), path.name
