"""A promotion as a record: weights/<version>/promotion-<revision>.json, for whoever asks a year later.

Its three parts are those of a predetermined change control plan: what was modified, by which protocol, with what
impact.

References:
    FDA, "Marketing Submission Recommendations for a Predetermined Change Control Plan for Artificial
    Intelligence-Enabled Device Software Functions", guidance, December 2024, sections VI to VIII.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from busi_core.errors import ModelUnavailableError
from busi_core.files import write_atomically
from busi_core.models.checkpoint import ModelCard, read_card
from busi_core.promotion.protocol import Protocol
from busi_core.promotion.verdict import BETTER, Comparison, Verdict
from busi_core.registry import Change

RECORD_SCHEMA = 1
DESCRIPTION, PROTOCOL, IMPACT = "description_of_modifications", "modification_protocol", "impact_assessment"
COMPARED = (
    "architecture",
    "preprocess",
    "temperature",
    "lesion_threshold",
    "weighs_presence",
    "malignancy",
    "second_opinion",
    "encoder_source",
    "commit",
)


def write_record(weights_dir: Path, change: Change, verdict: Verdict, protocol: Protocol) -> tuple[Path, str]:
    """Write the record of one promotion; returns its path and SHA-256.

    Raises:
        OutputError: It cannot be written.
        ModelUnavailableError: The version has no readable card.
    """
    content = describe(weights_dir, change, verdict, protocol)
    data = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    path = record_path(weights_dir, change)
    write_atomically(path, data)
    return path, hashlib.sha256(data).hexdigest()


def read_record(weights_dir: Path, change: Change) -> Mapping[str, Any] | None:
    """The record of a change in the registry's history; None when there is none, or it is not the one it names."""
    try:
        data = record_path(weights_dir, change).read_bytes()
        content = json.loads(data)
    except (OSError, ValueError):
        return None
    return content if hashlib.sha256(data).hexdigest() == change.evidence.get("record_sha256") else None


def record_path(weights_dir: Path, change: Change) -> Path:
    """Where the record of a change lies."""
    return weights_dir / change.version / f"promotion-{change.revision}.json"


def describe(weights_dir: Path, change: Change, verdict: Verdict, protocol: Protocol) -> dict[str, Any]:
    """The record's content, as plain JSON values."""
    card = read_card(weights_dir / change.version)
    rules = asdict(protocol)
    return {
        "schema": RECORD_SCHEMA,
        "revision": change.revision,
        "decided": {"who": change.who, "when": change.when, "comment": change.comment},
        DESCRIPTION: {
            "from": asdict(verdict.in_service),
            "to": asdict(verdict.candidate),
            "made": {"created": card.created, "code": card.commit, "start": card.encoder_source},
            "differs_in": _differences(card, _card_or_none(weights_dir / change.before)),
        },
        PROTOCOL: {
            "data_management": {
                "data_sets": card.training.get("data_sets", []),
                "images": card.training.get("images", {}),
                "records_that_taught_it": len(card.trained_on),
                "locked_test_sets": rules["test_sets"],
                "copies_of_locked_scans_in_training": 0,  # the gate refuses any other
            },
            "retraining": card.training.get("config", {}),
            "performance_evaluation": {
                "protocol_sha256": verdict.protocol_sha256,
                "judged": verdict.created,
                "judged_by_code": verdict.commit,
                **{name: rules[name] for name in ("smallest", "non_inferior", "not_worse", "subgroups", "bootstrap")},
            },
            "update": "One rename under a lock; readers move over with their next scan. Any earlier version can be "
            "put back from the page Models or by 'busi rollback'.",
        },
        IMPACT: {
            "outcome": verdict.outcome,
            "reasons": list(verdict.reasons),
            "scans": dict(verdict.counts),
            "benefits": [_line(one) for one in verdict.comparisons if one.standing == BETTER],
            "risks": [_line(one) for one in verdict.comparisons if one.gain.gain.estimate < 0],
            "comparisons": [_line(one) for one in verdict.comparisons],
            "versions_judged_before_on_these_scans": verdict.looks,
        },
    }


def _line(one: Comparison) -> dict[str, Any]:
    gain = one.gain
    return {
        "figure": gain.figure,
        "part": gain.part,
        "scans": gain.scans,
        "candidate": _rounded(gain.candidate),
        "in_service": _rounded(gain.in_service),
        "gain": [_rounded(end) for end in (gain.gain.estimate, gain.gain.low, gain.gain.high)],
        "rule": one.rule,
        "margin": one.margin,
        "standing": one.standing,
    }


def _rounded(value: float) -> float | None:
    return round(value, 4) if value == value else None  # NaN: JSON has none


def _differences(card: ModelCard, before: ModelCard | None) -> dict[str, Any]:
    """What the two cards say differently, as [before, now]; data and weights always differ."""
    if before is None:
        return {}
    old, new = asdict(before), asdict(card)
    changed = {name: [old[name], new[name]] for name in COMPARED if old[name] != new[name]}
    taught, now = set(before.trained_on), set(card.trained_on)
    return changed | {"records": {"added": len(now - taught), "no_longer": len(taught - now)}}


def _card_or_none(folder: Path) -> ModelCard | None:
    try:
        return read_card(folder)
    except ModelUnavailableError:
        return None
