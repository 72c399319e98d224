"""Every version on this server as one row: where it came from, what it reached, how it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_core.errors import ModelUnavailableError
from busi_core.evaluation import read_reports
from busi_core.models.checkpoint import MODEL_FILE, ModelCard, read_card
from busi_core.promotion.figures import AUC, LESION_DICE
from busi_core.promotion.protocol import Protocol
from busi_core.promotion.verdict import read_verdict
from busi_core.registry import VERSION_NAME, Registry, list_versions

IN_SERVICE, EARLIER, CANDIDATE = "in service", "earlier", "candidate"
SHOWN = (LESION_DICE, AUC)


@dataclass(frozen=True)
class VersionRow:
    """One version.

    Attributes:
        name: Of its folder.
        standing: 'in service', 'earlier' (was in service before) or 'candidate'.
        card: None where it cannot be read.
        problem: Why not.
        data_sets: Ids of what it was trained on.
        origin: Where it came from, in a few words.
        figures: Dice and AUC by test set, from its evaluation.
        outcome: Of its verdict beside the version in service; None where there is none.
    """

    name: str
    standing: str
    card: ModelCard | None
    problem: str | None
    data_sets: tuple[str, ...]
    origin: str
    figures: Mapping[str, Mapping[str, float]]
    outcome: str | None


def list_rows(weights_dir: Path, registry: Registry, protocol: Protocol | None) -> list[VersionRow]:
    """The version in service first, then candidates and earlier ones, the newest first.

    Args:
        weights_dir: Where versions lie.
        registry: As read just now.
        protocol: For the verdicts; None where the rules cannot be read.
    """
    folders = {path.parent.name for path in weights_dir.glob(f"*/{MODEL_FILE}")} | set(list_versions(weights_dir))
    rows = [_describe(weights_dir, name, registry, protocol) for name in folders if VERSION_NAME.fullmatch(name)]
    rows.sort(key=lambda row: (row.card.created if row.card else "", row.name), reverse=True)
    return sorted(rows, key=lambda row: row.standing != IN_SERVICE)


def _describe(weights_dir: Path, name: str, registry: Registry, protocol: Protocol | None) -> VersionRow:
    folder = weights_dir / name
    card, problem = None, None
    try:
        card = read_card(folder)
    except ModelUnavailableError as error:
        problem = error.problem
    standing = EARLIER if name in registry.earlier else CANDIDATE
    verdict = read_verdict(folder, registry.in_service, protocol) if protocol else None
    return VersionRow(
        name=name,
        standing=IN_SERVICE if name == registry.in_service else standing,
        card=card,
        problem=problem,
        data_sets=tuple(map(str, card.training.get("data_sets", ()))) if card else (),
        origin=_origin(card.training) if card else "unknown",
        figures={r.test_set: {name: r.table[name].estimate for name in SHOWN} for r in read_reports(folder)},
        outcome=verdict.outcome if verdict else None,
    )


def _origin(training: Mapping[str, Any]) -> str:
    config = training.get("config")
    start = config.get("start") if isinstance(config, Mapping) else None
    made = f"job {training['job']}" if "job" in training else "command line"
    return f"{made}, started from {start}" if start else made
