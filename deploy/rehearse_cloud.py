"""Rehearse the public demo as Streamlit Community Cloud would run it, and read a simulated scan in a browser.

    uv run python deploy/rehearse_cloud.py

A new environment from requirements.txt alone, the committed tree without write permission, no secrets, no scans, the
server as another user where its Python is open to all, and 1 GB of memory: a cgroup where this system lets us make
one, and the memory of the server's processes is watched. What counts is what the kernel cannot take back: pages of
libraries that were mapped from files it drops when memory is short, as the cgroup makes it do. Exit status 0 when a
scan was read within the limits.
"""

import argparse
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
MEMORY_BYTES = 1_000_000_000
NOBODY = 65534
START_SECONDS, READ_MS = 180, 180_000
CGROUPS = Path("/sys/fs/cgroup")
OWN, FILES = ("RssAnon", "RssShmem"), ("RssFile",)  # of /proc/PID/status
BROWSER = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Install, start, read, measure; print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="where to keep a screenshot of the reading")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="busi-cloud-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        tree, python = export_tree(folder / "app"), install(folder / "env")
        files = sorted(tree.rglob("*"))
        with Server(python, tree, folder / "home") as server:
            read_simulated_scan(server.url, options.picture)
            peak, held_by, user = server.peak, server.held_by, server.user
        written = set(tree.rglob("*")) - set(files)
    print(f"read a simulated scan as {user}; files written into the tree: {len(written)}")
    print(f"memory at most {peak.own / 1e6:.0f} MB of {MEMORY_BYTES / 1e6:.0f} MB ({held_by})", end="")
    print(f"; with the pages of libraries {peak.resident / 1e6:.0f} MB")
    return 0 if peak.own <= MEMORY_BYTES and not written else 1


def export_tree(target: Path) -> Path:
    """The last commit's files without write permission, and nothing else: no .git, no secrets, no scans beside it."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(target, filter="data")
    for path in [*target.rglob("*"), target]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return target


def install(environment: Path) -> Path:
    """A new environment with requirements.txt alone, as the cloud makes it; returns its Python."""
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    requirements = ROOT / "requirements.txt"
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, "-r", requirements], check=True)
    return python


class Memory(NamedTuple):
    """In bytes.

    Attributes:
        own: What the kernel cannot take back: anonymous and shared memory.
        resident: With the pages of files, of libraries above all.
    """

    own: int
    resident: int


class Server:
    """The app in demo mode on a free port, its memory bounded or watched; stopped at the end of the block."""

    def __init__(self, python: Path, tree: Path, home: Path) -> None:
        home.mkdir(mode=0o777)
        self._command = [str(python), "-m", "streamlit", "run", "app.py", "--server.port=8597"]
        self._command += ["--server.address=127.0.0.1", "--server.fileWatcherType=none"]
        self._tree, self._home = tree, home
        self.user = "nobody" if os.getuid() == 0 and is_open_to_all(python) else "the user of this shell"
        self._cgroup = make_cgroup()
        self._done = threading.Event()
        self.url = "http://127.0.0.1:8597"
        self.peak = Memory(0, 0)

    @property
    def held_by(self) -> str:
        """What kept the memory within the limit."""
        return "limited by a cgroup" if self._cgroup else "watched; no cgroup can be made here"

    def __enter__(self) -> "Server":
        kept = ("PATH", "LANG", "UV_CACHE_DIR")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        env |= {"HOME": str(self._home), "BUSI_DEMO": "1", "PYTHONDONTWRITEBYTECODE": "1", "BUSI_DATA_ROOT": "/none"}
        self._process = subprocess.Popen(
            self._command, cwd=self._tree, env=env, preexec_fn=self._become_a_visitor, stdout=subprocess.DEVNULL
        )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return self
            time.sleep(0.5)
        self.__exit__()
        raise SystemExit("The server did not start.")

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._process.kill()
        self._process.wait()
        self._watcher.join()
        if self._cgroup:
            time.sleep(0.5)
            with suppress(OSError):
                self._cgroup.rmdir()

    def _become_a_visitor(self) -> None:
        if self._cgroup:
            (self._cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if self.user == "nobody":
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            now = tree_memory(self._process.pid)
            self.peak = Memory(max(self.peak.own, now.own), max(self.peak.resident, now.resident))


def is_open_to_all(program: Path) -> bool:
    """Whether any user may run a program: root's own Python lies in a folder that nobody else may enter."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in program.resolve().parents)


def make_cgroup() -> Path | None:
    """A cgroup with 1 GB for memory, of version 2 or 1; None where the system does not let us."""
    for parent, limit in ((CGROUPS, "memory.max"), (CGROUPS / "memory", "memory.limit_in_bytes")):
        group = parent / f"busi-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(MEMORY_BYTES))
                return group
            group.rmdir()
    return None


def tree_memory(root: int) -> Memory:
    """Of a process and its children."""
    parents: dict[int, int] = {}
    held: dict[int, Memory] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, KeyError):
            lines = (entry / "status").read_text().splitlines()
            values = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
            own, files = (sum(int(values[name][0]) for name in names) for names in (OWN, FILES))
            parents[int(entry.name)] = int(values["PPid"][0])
            held[int(entry.name)] = Memory(1024 * own, 1024 * (own + files))
    mine = {root}
    while grown := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= grown
    found = [held[pid] for pid in mine if pid in held]
    return Memory(sum(memory.own for memory in found), sum(memory.resident for memory in found))


def read_simulated_scan(url: str, picture: Path | None) -> None:
    """As a visitor does: open the demo, pick a simulated scan, see the finding and the notice."""
    found = next((path for name in BROWSER if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.get_by_text("Public demo").first.wait_for(timeout=READ_MS)
        page.get_by_role("button", name="Malignant").click(timeout=READ_MS)
        page.get_by_text("SIMULATED").first.wait_for(timeout=READ_MS)
        page.get_by_text("Model score").first.wait_for(timeout=READ_MS)
        if picture:
            page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main())
