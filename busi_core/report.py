"""Results as files: the JSON record of one reading, as the command line and the app's download write it."""

import json
from typing import Any

from busi_core.findings import Finding
from busi_core.types import Analysis, Diagnosis

RESEARCH_USE = "Research use only. Not a medical device."


def reading_record(analysis: Analysis, finding: Finding, *, file: str, position: str | None = None) -> dict[str, Any]:
    """One reading as plain values.

    Args:
        analysis: What the model said.
        finding: The same at a cut-off.
        file: The file's name or relative path, as given.
        position: Which of several, as in '3 of 12'; left out when None.
    """
    prediction, image, size = analysis.prediction, analysis.image, finding.size
    probabilities = prediction.probabilities
    record: dict[str, Any] = {
        "file": file,
        "width": image.width,
        "height": image.height,
        "frame": image.frame,
        "frames": image.frames,
        "class": prediction.diagnosis.value if prediction.diagnosis else None,
        "probabilities": {d.value: probabilities[d] for d in Diagnosis} if probabilities else None,
        "flagged": finding.flagged,
        "malignancy_threshold": analysis.malignancy_threshold,
        "threshold": finding.threshold,
        "model_threshold": analysis.lesion_threshold,
        "lesion_pixels": finding.lesion_pixels,
        "regions": finding.regions,
        "size": {"longest": size.longest, "perpendicular": size.perpendicular, "unit": finding.unit} if size else None,
        "disagreement": finding.disagreement,
        "model": analysis.model_version,
        "warnings": [warning.value for warning in analysis.warnings],
        "notice": RESEARCH_USE,
    }
    if position is not None:
        record["position"] = position
    return record


def reading_json(analysis: Analysis, finding: Finding, *, file: str, position: str | None = None) -> bytes:
    """`reading_record` as UTF-8 JSON."""
    record = reading_record(analysis, finding, file=file, position=position)
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
