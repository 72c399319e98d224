"""Results as files: the JSON record of one reading, and a report of one or many scans as JSON or PDF.

    Analysis + Finding --reading_record--> record --report_json--> JSON
                              record + pictures --report_pdf.draw_report--> PDF, drawn from the same record

So what the PDF says is what the JSON says. No name of a person is in either, unless the reader typed it in.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from busi_core.findings import Finding, read_opinions
from busi_core.metrics.conformal import USUAL_COVERAGE
from busi_core.types import Analysis, Diagnosis, FloatMap, Mask, Rgb

RESEARCH_USE = "Research use only. Not a medical device."
TAUGHT = (
    "This scan, or a copy of it, taught the model: it may remember the answer, and its test figures do not hold here."
)
REPORT_SCHEMA = 1
RECORD_SCHEMA = 3  # raised with every field that is added or means something else: older records are then made anew
MAX_SUBJECT = 200  # characters of what the reader types in


@dataclass(frozen=True, eq=False)
class ReportPictures:
    """What a report draws of one scan, in the scan's own pixels.

    Attributes:
        rgb: (height, width, 3).
        mask: (height, width) bool, the lesion at the cut-off.
        truth: (height, width) bool, the reference; None where there is none.
        evidence: (height, width) float32, the heat map.
        explains: What the heat map is of.
    """

    rgb: Rgb
    mask: Mask
    truth: Mask | None
    evidence: FloatMap
    explains: str


@dataclass(frozen=True, eq=False)
class ReportScan:
    """One scan of a report.

    Attributes:
        record: As `reading_record`, with 'truth' where one is known; or 'file' and 'problem' for a bad file.
        draw: Gives the pictures when its page is drawn, so that a report of many scans holds those of one; None
            where there are none.
    """

    record: Mapping[str, Any]
    draw: Callable[[], ReportPictures | None]


@dataclass(frozen=True)
class Figure:
    """One line of a summary: a figure over scans with its 95 % interval; NaN where it is not defined.

    `no_interval` is why the estimate stands without one; empty where it does not.
    """

    name: str
    estimate: float
    low: float
    high: float
    scans: int
    no_interval: str = ""

    def __str__(self) -> str:
        if math.isnan(self.estimate):
            return "n/a"
        digits = 1 if self.name.endswith("(px)") else 3
        if math.isnan(self.low):
            return f"{self.estimate:.{digits}f}" + (f" ({self.no_interval})" if self.no_interval else "")
        return f"{self.estimate:.{digits}f} [{self.low:.{digits}f} - {self.high:.{digits}f}]"


@dataclass(frozen=True)
class Summary:
    """What a model reached on one set of scans with a reference.

    Attributes:
        title: Which scans.
        scans: How many.
        distinct: How many of them are different scans; copies are drawn together.
        counts: Scans by reference class.
        figures: Each with its interval and on how many scans it rests.
        confusion: (3, 3) rows reference, columns model; None where no class is known.
        caution: What must be said beside the figures; empty when nothing.
        taught: These scans taught the model.
    """

    title: str
    scans: int
    distinct: int
    counts: Mapping[str, int]
    figures: tuple[Figure, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    caution: str
    taught: bool = False

    def record(self) -> dict[str, Any]:
        """As plain values; NaN is None."""
        return {
            "scans_of": self.title,
            "scans": self.scans,
            "distinct_scans": self.distinct,
            "counts": dict(self.counts),
            "figures": {
                figure.name: {
                    "estimate": _or_none(figure.estimate),
                    "low": _or_none(figure.low),
                    "high": _or_none(figure.high),
                    "scans": figure.scans,
                }
                for figure in self.figures
            },
            "confusion": self.confusion,
            "caution": self.caution,
        }


@dataclass(frozen=True, eq=False)
class Report:
    """One or many scans, to be written as JSON or PDF.

    Attributes:
        scans: In the order of the report.
        model_version: Which weights read them.
        created: Date and time with the offset from UTC, as RFC 3339 has it (`local_time`).
        subject: What the reader typed in, as a name or a case number; empty when nothing.
        summaries: Of the scans with a reference; empty where there are none.
        worth: What the version's answers were worth on test scans, in sentences (`worth.say_worth`).
    """

    scans: Sequence[ReportScan]
    model_version: str
    created: str
    subject: str = ""
    summaries: Sequence[Summary] = ()
    worth: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.subject) > MAX_SUBJECT:
            raise ValueError(f"subject may have {MAX_SUBJECT} characters, got {len(self.subject)}")


def reading_record(
    analysis: Analysis,
    finding: Finding,
    *,
    file: str,
    taught: bool,
    position: str | None = None,
    coverage: float = USUAL_COVERAGE,
    simulated: bool = False,
) -> dict[str, Any]:
    """One reading as plain values.

    Of an answer withheld nothing is measured: 'class', 'probabilities', 'not_ruled_out', 'flagged', 'lesion_pixels',
    'regions', 'size' and 'disagreement' are None, and 'warnings' says why. A 0 would say that there is no lesion.
    'frame' counts from 1, as people and DICOM do. 'opinions' are those of the networks of a second opinion, one by one;
    empty where the first was not in doubt.

    Args:
        analysis: What the model said.
        finding: The same at a cut-off.
        file: The file's name or relative path, as given.
        taught: This scan, or a copy of it, taught the version that read it.
        position: Which of several, as in '3 of 12'; left out when None.
        coverage: In which share of cases `not_ruled_out` holds the true class.
        simulated: The scan was made by the phantom.
    """
    prediction, image, size = analysis.prediction, analysis.image, finding.size
    probabilities = prediction.probabilities
    record: dict[str, Any] = {
        "file": file,
        "width": image.width,
        "height": image.height,
        "frame": image.frame + 1,
        "frames": image.frames,
        "class": prediction.diagnosis.value if prediction.diagnosis else None,
        "probabilities": {d.value: probabilities[d] for d in Diagnosis} if probabilities else None,
        "not_ruled_out": None if analysis.not_ruled_out is None else [d.value for d in analysis.not_ruled_out],
        "not_ruled_out_in": None if analysis.not_ruled_out is None else coverage,
        "opinions": [
            {"class": one.diagnosis and one.diagnosis.value, "outlines": one.outlines}
            for one in read_opinions(analysis, finding.threshold)
        ],
        "flagged": finding.flagged,
        "malignancy_threshold": analysis.malignancy_threshold,
        "threshold": finding.threshold,
        "model_threshold": analysis.lesion_threshold,
        "lesion_pixels": None if analysis.withheld else finding.lesion_pixels,
        "regions": None if analysis.withheld else finding.regions,
        "size": {"longest": size.longest, "perpendicular": size.perpendicular, "unit": finding.unit} if size else None,
        "disagreement": finding.disagreement,
        "model": analysis.model_version,
        "withheld": analysis.withheld,
        "warnings": [warning.value for warning in analysis.warnings],
        "taught_the_model": taught,
        "simulated": simulated,
        "notice": RESEARCH_USE,
        "schema": RECORD_SCHEMA,
    }
    if position is not None:
        record["position"] = position
    return record


def cutoff_words(threshold: float, model_threshold: float) -> str:
    """The cut-off that an outline stands on, and the model's own where the reader chose another."""
    said = f"cut-off {threshold:.2f}"
    if is_own_cutoff(threshold, model_threshold):
        return said
    return f"{said}, chosen by the reader (the model's own: {model_threshold:.2f})"


def is_own_cutoff(threshold: float, model_threshold: float) -> bool:
    """Whether a cut-off is the model's own, as far as two digits tell."""
    return math.isclose(threshold, model_threshold, abs_tol=0.005)


def local_time() -> str:
    """Now, in the zone of this machine, with the offset from UTC: '2026-11-20 22:36+01:00' (RFC 3339)."""
    return datetime.now().astimezone().isoformat(" ", "minutes")


def read_by(identity: str) -> str:
    """Names what made a record, for a run that goes on: the reader, by `Analyser.identity`, and the form of records."""
    return f"{RECORD_SCHEMA}-{identity}"


def record_json(record: Mapping[str, Any]) -> bytes:
    """A record as UTF-8 JSON."""
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def report_json(report: Report) -> bytes:
    """A report as UTF-8 JSON: the same content as its PDF."""
    content: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "notice": RESEARCH_USE,
        "created": report.created,
        "model": report.model_version,
        **({"subject": report.subject} if report.subject else {}),
        "on_test_scans": list(report.worth),
        "summaries": [summary.record() for summary in report.summaries],
        "scans": [dict(scan.record) for scan in report.scans],
    }
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def score_words(score: float) -> str:
    """A score in two digits, never rounded to certainty; the viewers say it likewise (`keys.js`)."""
    return "< 0.01" if score < 0.01 else "> 0.99" if score > 0.99 else f"{score:.2f}"


def score_figure(score: float, cutoff: float | None) -> str:
    """A score in as many digits as tell it from 0, from 1 and from the flag's cut-off, three at least.

    Without the signs of `score_beside`, so that texts are in order where the scores are: a click on the head sorts.
    """
    edges = (0.0, 1.0, *([] if cutoff is None else [cutoff]))
    digits = next((n for n in range(3, 6) if all(f"{score:.{n}f}" != f"{edge:.{n}f}" for edge in edges)), 6)
    least = 10**-digits
    return f"{min(max(score, least), 1 - least):.{digits}f}"


def score_beside(score: float, cutoff: float) -> tuple[str, str]:
    """A score and the cut-off that it is held against, in as many digits as tell them apart, three at least."""
    digits = next((n for n in range(3, 7) if f"{score:.{n}f}" != f"{cutoff:.{n}f}"), 6)
    least = 10**-digits
    said = f"< {least:.{digits}f}" if score < least else f"> {1 - least:.{digits}f}" if score > 1 - least else ""
    return said or f"{score:.{digits}f}", f"{cutoff:.{digits}f}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
