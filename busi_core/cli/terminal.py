"""What the commands share: names as a terminal may show them, how many are done, the type of the list of commands."""

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = argparse._SubParsersAction


def shown(text: object) -> str:
    """A file's name, or a text that holds some, with escapes for what a terminal would obey: new lines, ESC, BEL."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in str(text))


def count_from_one(text: str) -> int:
    """An option that is a whole number, 1 or more: people count from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text}")
    return int(text)


def seconds_from_zero(text: str) -> float:
    """An option that is a time in seconds, 0 or more."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 on, got {text}")
    return seconds


def show_count(done: int, total: int) -> None:
    """How many are done, on one line of a terminal; nothing where the output is a file."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)


def say(line: str) -> None:
    """Print at once, for one who watches a long run."""
    print(line, flush=True)


class Progress:
    """One line on a terminal: how many are done, how fast, how long still; nothing where the output is a file."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._counted = total, 0, 0
        self._start = time.monotonic()
        self._shown = sys.stderr.isatty()

    def clear(self) -> None:
        """Make room for another line."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def step(self, failed: int, *, counts: bool = True) -> None:
        """One more; `counts` when it took the time of a scan."""
        self._done += 1
        self._counted += counts
        if not self._shown:
            return
        seconds = max(time.monotonic() - self._start, 1e-6)
        rate = self._counted / seconds
        left = f", {(self._total - self._done) / rate / 60:.1f} min left" if rate else ""
        refused = f", {failed} refused" if failed else ""
        end = "" if self._done < self._total else "\n"
        line = f"\r{self._done}/{self._total}  {rate:.1f} scans/s{left}{refused}\033[K"
        print(line, end=end, file=sys.stderr, flush=True)
