"""The figures of an assessment: written, read again, pooled, as a table."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from busi_core.files import write_atomically
from busi_core.metrics.bootstrap import Interval

ASSESSMENT_FILE = "assessment.json"
SCHEMA = 1

# Names of figures that others look for.
AREA_HELD = "true area lies in the interval"
PEAK_INSIDE = "peak inside the lesion"  # of the heat map of the class that the model names
ASKED = "asked for"
RIGHT_IN_DOUBT, RIGHT_ELSEWHERE = "class is right where it was asked for", "class is right where it was not asked for"


@dataclass(frozen=True)
class Figure:
    """One measured number: on what, how many cases, and its 95 % interval (NaN where there is none)."""

    part: str
    name: str
    on: str
    cases: int
    estimate: float
    low: float
    high: float


def pool_figures(figures: Sequence[Figure], name: str) -> tuple[float, int]:
    """A figure over all the test sets that it was measured on: its mean by case, and how many cases."""
    mine = [figure for figure in figures if figure.name == name]
    cases = sum(figure.cases for figure in mine)
    return sum(figure.estimate * figure.cases for figure in mine) / cases if cases else math.nan, cases


def write_assessment(folder: Path, figures: Sequence[Figure], *, version: str, sha256: str) -> None:
    """Write assessment.json beside the weights of the version that it is about.

    Raises:
        OutputError: The folder cannot be written.
    """
    rows = ",\n".join(json.dumps(_plain(asdict(figure)), ensure_ascii=False) for figure in figures)
    head = f'"schema": {SCHEMA}, "version": {json.dumps(version)}, "sha256": {json.dumps(sha256)}'
    write_atomically(folder / ASSESSMENT_FILE, f'{{{head}, "figures": [\n{rows}\n]}}\n'.encode())


def keep_assessment(folder: Path, figures: Sequence[Figure], *, version: str, sha256: str) -> None:
    """Write assessment.json; figures about this version that lie there already stay, where they are on other scans.

    Raises:
        OutputError: The folder cannot be written.
    """
    scans = {figure.on for figure in figures}
    before = read_assessment(folder, version=version, sha256=sha256)
    others = [figure for figure in before if figure.on not in scans]
    write_assessment(folder, [*figures, *others], version=version, sha256=sha256)


def read_assessment(folder: Path, *, version: str, sha256: str) -> list[Figure]:
    """The figures about this version; empty when there are none or they cannot be read.

    Also empty where the file names no version, as an earlier program wrote it: versions that differ in their second
    opinion alone share the checksum of the first network, so it does not tell whose figures they are.
    """
    try:
        content = json.loads((folder / ASSESSMENT_FILE).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA or (content["version"], content["sha256"]) != (version, sha256):
            return []
        return [_read_figure(row) for row in content["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def format_assessment(figures: Sequence[Figure]) -> str:
    """The figures as a markdown table, one part after the other."""
    lines: list[str] = []
    for part in dict.fromkeys(figure.part for figure in figures):
        lines += [
            "",
            f"### {part.capitalize()}",
            "",
            "| figure | on | cases | value (95 % interval) |",
            "|---|---|---|---|",
        ]
        for figure in figures:
            if figure.part == part:
                value = Interval(figure.estimate, figure.low, figure.high)
                lines.append(f"| {figure.name} | {figure.on} | {figure.cases} | {_format(value)} |")
    return "\n".join(lines).strip()


def _read_figure(row: dict[str, Any]) -> Figure:
    values: dict[str, Any] = {key: math.nan if value is None else value for key, value in row.items()}
    return Figure(**values)


def _format(value: Interval) -> str:
    if math.isnan(value.estimate):
        return "n/a"
    return f"{value.estimate:.3f} ({value.low:.3f} to {value.high:.3f})"  # some are below 0


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
