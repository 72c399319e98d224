"""A judgement in a process of its own, so that a page stays alive, and a refresh or a restart of the app loses nothing.

    <BUSI_STATE_DIR>/judging/state.json   who asked for what, how far it is, how it ended
                             lock         held by the process that judges; it falls with its holder

One at a time: two networks on one machine would only wait for each other. The verdict itself lies beside the candidate.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from busi_core.access import Permit
from busi_core.audit import open_audit
from busi_core.errors import BusiError, OutputError, PromotionError
from busi_core.files import write_atomically
from busi_core.locks import GLANCE_SECONDS, ProcessLock, is_held
from busi_core.settings import PROJECT_ROOT, Settings, read_settings

if TYPE_CHECKING:  # the process takes its lock before it waits for torch
    from busi_core.promotion.judge import OnScan
    from busi_core.promotion.verdict import Verdict

JUDGING_DIR, STATE_FILE, LOCK_FILE = "judging", "state.json", "lock"
START_SECONDS = 60  # until a new process has its lock, on a machine that does other work
WRITE_SECONDS = 0.5  # between two notes of progress


@dataclass(frozen=True)
class Judging:
    """The last judgement that was asked for.

    Attributes:
        candidate: Which version.
        who: Who asked.
        started: Seconds since 1970.
        done, total: Scans read; both 0 until the first.
        ended: Seconds since 1970; None while it runs, or when its process died.
        problem: Why there is no verdict; None when there is one, or none yet.
        running: Whether a process is at it.
    """

    candidate: str
    who: str
    started: float
    done: int = 0
    total: int = 0
    ended: float | None = None
    problem: str | None = None
    running: bool = False

    @property
    def seconds_left(self) -> float:
        """Estimate from the pace so far; NaN before the first scan."""
        if not self.done:
            return math.nan
        return (time.time() - self.started) / self.done * (self.total - self.done)

    @property
    def is_starting(self) -> bool:
        """Whether its process may not have come to its lock yet."""
        return self.ended is None and self.total == 0 and time.time() - self.started < START_SECONDS

    @property
    def died(self) -> bool:
        """Whether its process ended without a word: killed, or out of memory."""
        return not self.running and self.ended is None


def start_judging(permit: Permit, candidate: str, settings: Settings) -> None:
    """Begin to judge a candidate in a process of its own.

    Raises:
        AccessDeniedError: Not an administrator (any more).
        PromotionError: Another judgement is under way; says whose.
        OutputError: The state folder cannot be written, or no process can be started.
    """
    who = permit.confirm()
    with _held(settings):
        before = _read(settings)
        if before is not None and before.is_starting:
            raise _under_way(settings)
        _write(settings, Judging(candidate, who, time.time()))
        try:
            subprocess.Popen(
                [sys.executable, "-m", "busi_core.promotion.judging"],
                cwd=PROJECT_ROOT,
                env=os.environ | settings.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a stopped app leaves it at work
            )
        except OSError as error:
            problem = f"Its process could not be started ({error.strerror})."
            _write(settings, Judging(candidate, who, time.time(), ended=time.time(), problem=problem))
            raise OutputError(problem, remedy="Free some memory, then try again.") from error


def read_judging(settings: Settings) -> Judging | None:
    """The last judgement that was asked for, with its progress; None when there never was one."""
    state = _read(settings)
    if state is None or state.ended is not None:
        return state
    return replace(state, running=state.is_starting or is_held(_path(settings).with_name(LOCK_FILE)))


def judge_on_record(who: str, candidate: str, settings: Settings, on_scan: "OnScan | None" = None) -> "Verdict":
    """Judge now, in this process; the outcome is in the audit log before the verdict stands.

    Raises:
        BusiError: As `judge.judge`; also when the log cannot be written, and then there is no new verdict.
    """
    from busi_core.promotion.judge import judge
    from busi_core.promotion.protocol import read_protocol

    def enter(verdict: "Verdict") -> None:
        open_audit(settings).append(
            who,
            "promotion.judged",
            candidate,
            in_service=verdict.in_service.version,
            outcome=verdict.outcome,
            reasons=list(verdict.reasons),
            weights_sha256=verdict.candidate.weights_sha256,
            protocol_sha256=verdict.protocol_sha256,
        )

    return judge(candidate, settings, read_protocol(settings.promotion_protocol), on_scan, on_verdict=enter)


def main() -> int:
    """Do what the state file asks for; 0 when there is a verdict."""
    settings = read_settings()
    with _held(settings, wait=START_SECONDS):  # a page may be looking whether it is free
        state = _read(settings)
        if state is None or state.ended is not None:
            return 1
        note = _Note(settings, state)
        problem = None
        try:
            judge_on_record(state.who, state.candidate, settings, note)
        except BusiError as error:
            problem = str(error)
        _write(settings, replace(note.state, ended=time.time(), problem=problem))
        return 1 if problem else 0


class _Note:
    """Keeps the progress, and writes it down now and then."""

    def __init__(self, settings: Settings, state: Judging) -> None:
        self.state = state
        self._settings = settings
        self._written = -math.inf

    def __call__(self, done: int, total: int) -> None:
        self.state = replace(self.state, done=done, total=total)
        if time.monotonic() - self._written > WRITE_SECONDS:
            _write(self._settings, self.state)
            self._written = time.monotonic()


def _read(settings: Settings) -> Judging | None:
    try:
        return Judging(**json.loads(_path(settings).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(settings: Settings, state: Judging) -> None:
    content = {key: value for key, value in asdict(state).items() if key != "running"}
    write_atomically(_path(settings), (json.dumps(content) + "\n").encode())


def _path(settings: Settings) -> Path:
    return settings.state_dir / JUDGING_DIR / STATE_FILE


@contextmanager
def _held(settings: Settings, *, wait: float = GLANCE_SECONDS) -> Iterator[None]:
    """The right to judge, for this process alone; refused when another has it for longer than `wait` seconds."""
    lock = ProcessLock(_path(settings).with_name(LOCK_FILE))
    if not lock.acquire(wait_seconds=wait):
        raise _under_way(settings)
    try:
        yield
    finally:
        lock.release()


def _under_way(settings: Settings) -> PromotionError:
    state = _read(settings)
    whose = f": {state.candidate!r}, for {state.who}" if state else ""
    return PromotionError(f"A judgement is under way{whose}.", remedy="Wait until it is done, then try again.")


if __name__ == "__main__":
    sys.exit(main())
