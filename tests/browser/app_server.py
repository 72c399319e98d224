"""A Streamlit server of our own for a test: started on a free port, waited for, ended by its process id."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 60  # importing torch on a busy machine
WATCH = Path(__file__).with_name("watch")  # holds a sitecustomize.py


@dataclass
class AppServer:
    """One running server.

    Attributes:
        process: Of Streamlit.
        port: On 127.0.0.1.
    """

    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self.port}"

    def memory_mb(self) -> float:
        """What the process holds in memory now (VmRSS, proc_pid_status(5))."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> None:
        """End it, by force when it does not go."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def start_server(
    script: Path, *, watch: Path | None = None, log: Path | None = None, settings: Mapping[str, str] | None = None
) -> AppServer:
    """Serve a script.

    Args:
        script: Run as `streamlit run` does.
        watch: Where the server writes down what it connects to, opens to write, and loads (watch/sitecustomize.py).
        log: What it prints goes there.
        settings: Environment variables beside those of this process.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"server.port": str(port), "server.fileWatcherType": "none"}
    if watch is None:
        options["server.address"] = "127.0.0.1"  # the watched one starts as the README says
    flags = [f"--{name}={value}" for name, value in options.items()]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | dict(settings or {})
    if watch is not None:
        environment |= {"PYTHONPATH": f"{WATCH}{os.pathsep}{REPOSITORY}", "BUSI_WATCH": str(watch)}
    with (log or Path(os.devnull)).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(script), *flags],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = AppServer(process, port)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.address}/_stcore/health", timeout=2):
                return server
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    server.stop()
    raise RuntimeError(f"streamlit did not start {script.name} within {START_SECONDS} s")
