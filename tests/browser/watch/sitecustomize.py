"""Python imports this first in a watched server: it writes down every look at the network, every file that is opened
to be written, and every time weights are read. Audit events cannot be avoided by any library (PEP 578)."""

import os
import socket
import sys

NEAR = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104  (addresses to compare with)
WRITES = os.O_WRONLY | os.O_RDWR

_log = os.open(os.environ["BUSI_WATCH"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _note(kind: str, what: object) -> None:
    os.write(_log, f"{kind} {what}\n".encode(errors="replace"))


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else ""
        if host not in NEAR:
            _note("network", host)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0] or ""
        if host not in NEAR and host != socket.gethostname():
            _note("network", host)
    elif event == "open":
        path, _, flags = arguments
        if isinstance(path, int):
            return
        name = os.fsdecode(path)
        if name.endswith("model.safetensors"):
            _note("weights", name)
        elif isinstance(flags, int) and flags & WRITES and not name.startswith("/dev/"):
            _note("write", name)


sys.addaudithook(_watch)
