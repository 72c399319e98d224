"""Gains and rules -> one of five words, with reasons; and the verdict as a file that says whom it belongs to.

| outcome               | when                                                                                     |
|-----------------------|------------------------------------------------------------------------------------------|
| refused               | there is nothing to compare: damaged, leaked, not a number                               |
| worse                 | a figure is shown to have fallen, and not to stay within its margin; or a part of the    |
|                       | scans is shown to have fallen, and fell by more than its margin                          |
| insufficient evidence | too few scans to tell; says how many would be needed                                     |
| better                | no worse anywhere, and better in Dice or AUC: the whole interval lies above 0            |
| non-inferior          | no worse anywhere by more than the margins                                               |

The first that holds, from the top. Only the last two may be put into service.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from busi_core.errors import PromotionError
from busi_core.evaluation import without_nan
from busi_core.files import write_atomically
from busi_core.metrics.bootstrap import Interval
from busi_core.metrics.calibration import CALIBRATION_ERROR
from busi_core.metrics.power import scans_to_tell
from busi_core.promotion import figures
from busi_core.promotion.figures import Gain
from busi_core.promotion.protocol import Protocol
from busi_core.types import Diagnosis

VERDICT_SCHEMA = 1
BETTER, NON_INFERIOR, WORSE = "better", "non-inferior", "worse"
INSUFFICIENT, REFUSED = "insufficient evidence", "refused"
PROMOTABLE = (BETTER, NON_INFERIOR)

KEPT, BROKEN, OPEN, UNCOUNTED = "within margin", "worse", "cannot be told", "too few to count"


@dataclass(frozen=True)
class Contender:
    """One version as it was when it was judged; empty checksums where it could not be read.

    Attributes:
        version: Its name.
        weights_sha256: Of model.safetensors.
        card_sha256: Of card.json: cut-offs and temperature change results too.
    """

    version: str
    weights_sha256: str
    card_sha256: str


@dataclass(frozen=True)
class Comparison:
    """One gain held against its rule.

    Attributes:
        rule: 'non-inferior', 'not worse' or 'part'.
        gain: What was measured.
        margin: By how much it may fall.
        standing: 'better', 'within margin', 'worse', 'cannot be told' or 'too few to count'.
        scans_needed: At which it could be told, where it cannot be told now.
    """

    rule: str
    gain: Gain
    margin: float
    standing: str
    scans_needed: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate says about one candidate beside one version in service, under one protocol.

    Attributes:
        candidate, in_service: Whom it belongs to.
        protocol_sha256: Under which rules.
        outcome: One of the five words.
        reasons: Whole sentences, the decisive ones first.
        counts: Locked scans by class.
        comparisons: Every figure and part; empty when refused before any was measured.
        scans_needed: The most that any open figure needs; None when none is open.
        created: ISO 8601, UTC.
        commit: Of the code that judged.
        looks: How many versions that lie here were judged on these locked scans before this one, at the least; each
            look wears them out.
    """

    candidate: Contender
    in_service: Contender
    protocol_sha256: str
    outcome: str
    reasons: tuple[str, ...]
    counts: Mapping[str, int]
    comparisons: tuple[Comparison, ...]
    scans_needed: int | None
    created: str
    commit: str
    looks: int

    @property
    def may_be_promoted(self) -> bool:
        """Whether the gate is open for this candidate."""
        return self.outcome in PROMOTABLE


@dataclass(frozen=True)
class Decision:
    """Outcome, reasons and comparisons, before anyone is named."""

    outcome: str
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    scans_needed: int | None


def decide(whole: Mapping[str, Gain], parts: Sequence[Gain], counts: Mapping[str, int], protocol: Protocol) -> Decision:
    """Hold every gain against its rule; a pure function, so that a stored verdict can be checked.

    Args:
        whole: From `figures.measure_gains`.
        parts: From `figures.measure_part`.
        counts: Locked scans by class.
        protocol: The rules.
    """
    rules = _margins(protocol)
    has_all_classes = all(counts.get(kind.value, 0) for kind in Diagnosis)  # else an AUC may well be undefined
    undefined = [gain.figure for gain in whole.values() if has_all_classes and not _is_finite(gain)]
    too_few = [
        f"Only {counts.get(kind.value, 0)} {kind.value} scans are locked; the protocol asks for "
        f"{protocol.smallest.of(kind)}."
        for kind in Diagnosis
        if counts.get(kind.value, 0) < protocol.smallest.of(kind)
    ]
    if undefined:
        reason = f"Not a number: {', '.join(undefined)}. A version that cannot be measured is not put into service."
        return Decision(REFUSED, (reason,), (), None)
    comparisons = [
        *(_hold(rule, whole[n], margin, protocol) for n, (rule, margin) in rules.items() if _is_finite(whole[n])),
        *(_hold_part(gain, protocol) for gain in parts),
    ]
    broken = [one for one in comparisons if one.standing == BROKEN]
    opened = [one for one in comparisons if one.standing == OPEN]
    needed = max((one.scans_needed or 0 for one in opened), default=None)
    if broken:
        return Decision(WORSE, tuple(map(_tell, broken)), tuple(comparisons), None)
    if opened or too_few:
        return Decision(INSUFFICIENT, (*too_few, *map(_tell, opened)), tuple(comparisons), needed)
    gained = [one for one in comparisons if one.rule == NON_INFERIOR and one.standing == BETTER]
    kept = "No figure and no part of the scans is worse by more than the protocol allows."
    if gained:
        return Decision(BETTER, (*map(_tell, gained), kept), tuple(comparisons), None)
    shown = [one for one in comparisons if one.rule == NON_INFERIOR]
    return Decision(NON_INFERIOR, (*map(_tell, shown), kept), tuple(comparisons), None)


def format_verdict(verdict: Verdict) -> str:
    """The verdict as the lines that `busi judge` prints."""
    by_class = ", ".join(f"{count} {name}" for name, count in verdict.counts.items())
    lines = [
        f"{verdict.candidate.version} beside {verdict.in_service.version}: {verdict.outcome}",
        *(f"  {reason}" for reason in verdict.reasons),
        f"on {sum(verdict.counts.values())} locked scans ({by_class}); versions judged on them before: {verdict.looks}",
    ]
    for one in verdict.comparisons:
        gain, difference = one.gain, one.gain.gain
        name = gain.figure if gain.part == "all" else f"{gain.figure}, {gain.part}"
        lines.append(
            f"  {name:<66} {gain.candidate:6.3f} {gain.in_service:6.3f}  gain {difference.estimate:+.3f} "
            f"[{difference.low:+.3f}, {difference.high:+.3f}]  {one.standing} ({gain.scans} scans)"
        )
    return "\n".join(lines)


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Write verdict-<in service>.json beside the candidate.

    Raises:
        OutputError: The folder cannot be written.
    """
    content = without_nan({"schema": VERDICT_SCHEMA, **asdict(verdict)})
    content["sha256"] = _digest(content)
    data = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(_path(folder, verdict.in_service.version), data.encode())


def read_verdict(folder: Path, in_service: str, protocol: Protocol) -> Verdict | None:
    """The verdict on the version in this folder beside another, if it was given under this protocol.

    None also when the file is damaged, was edited, or says anything else than the rules say of its figures: then the
    candidate has to be judged anew.
    """
    try:
        content = json.loads(_path(folder, in_service).read_text(encoding="utf-8"))
        digest, schema = content.pop("sha256"), content["schema"]
        if schema != VERDICT_SCHEMA or digest != _digest(content):
            return None
        del content["schema"]
        verdict = _from_json(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    named = (verdict.candidate.version, verdict.in_service.version) == (folder.name, in_service)
    return verdict if named and verdict.protocol_sha256 == protocol.sha256 and _follows(verdict, protocol) else None


def require_promotable(verdict: Verdict, candidate: Contender, in_service: Contender, protocol: Protocol) -> None:
    """Let a verdict through only when it is about exactly these two, under exactly these rules, and favourable.

    Raises:
        PromotionError: It is not; says why.
    """
    if verdict.protocol_sha256 != protocol.sha256:
        raise PromotionError(
            "The rules of the gate were changed after this verdict.", remedy="Judge the candidate anew."
        )
    for judged, now in ((verdict.candidate, candidate), (verdict.in_service, in_service)):
        if judged.version != now.version:
            raise PromotionError(
                f"The verdict is about {judged.version!r}, not about {now.version!r}.",
                remedy="Judge the candidate beside the version that is in service now.",
            )
        if judged != now:
            raise PromotionError(
                f"The files of {now.version!r} are not those that the verdict is about.",
                remedy="Judge the candidate anew.",
            )
    if not _follows(verdict, protocol):
        raise PromotionError(
            "The verdict does not follow from its own figures: it was changed.", remedy="Judge the candidate anew."
        )
    if not verdict.may_be_promoted:
        raise PromotionError(
            f"The verdict on {candidate.version!r} is '{verdict.outcome}'. {verdict.reasons[0]}",
            remedy="Only a version that is better or non-inferior is put into service.",
        )


def _follows(verdict: Verdict, protocol: Protocol) -> bool:
    """Whether the outcome is what the rules say of the stored figures."""
    if verdict.outcome == REFUSED:
        return bool(verdict.reasons)
    measured = {one.gain.figure: one.gain for one in verdict.comparisons if one.rule != PART}
    whole = {name: measured.get(name, Gain(name, "all", *_NO_FIGURES)) for name in _margins(protocol)}
    parts = [one.gain for one in verdict.comparisons if one.rule == PART]
    again = decide(whole, parts, verdict.counts, protocol)
    return (again.outcome, again.comparisons) == (verdict.outcome, verdict.comparisons)


NOT_WORSE, PART = "not worse", "part"
_NO_FIGURES: tuple[float, float, Interval, int] = (math.nan, math.nan, Interval(math.nan, math.nan, math.nan), 0)


def _margins(protocol: Protocol) -> dict[str, tuple[str, float]]:
    guards = protocol.not_worse
    return {
        figures.LESION_DICE: (NON_INFERIOR, protocol.non_inferior.lesion_dice),
        figures.AUC: (NON_INFERIOR, protocol.non_inferior.auc),
        figures.NORMALS: (NOT_WORSE, guards.normals_with_mask),
        figures.MISSED: (NOT_WORSE, guards.lesions_missed),
        figures.SENSITIVITY: (NOT_WORSE, guards.sensitivity),
        figures.FLAG_SENSITIVITY: (NOT_WORSE, guards.flag_sensitivity),
        figures.FLAG_SPECIFICITY: (NOT_WORSE, guards.flag_specificity),
        CALIBRATION_ERROR: (NOT_WORSE, guards.calibration_error),
    }


def _hold(rule: str, gain: Gain, margin: float, protocol: Protocol) -> Comparison:
    """Non-inferior: shown by the lower bound. Not worse: the gain itself stays above minus the margin."""
    difference = gain.gain
    shown = difference.low > -margin if rule == NON_INFERIOR else difference.estimate >= -margin
    if shown:
        return Comparison(rule, gain, margin, BETTER if difference.low > 0 else KEPT)
    if difference.high < 0:
        return Comparison(rule, gain, margin, BROKEN)
    return Comparison(rule, gain, margin, OPEN, _scans_needed(rule, gain, margin, protocol))


def _hold_part(gain: Gain, protocol: Protocol) -> Comparison:
    """A part is worse only when it is shown: a quarter of the scans proves no non-inferiority."""
    rules = protocol.subgroups
    margin = rules.lesion_dice if gain.figure == figures.LESION_DICE else rules.auc
    difference = gain.gain
    if gain.scans < rules.smallest or not _is_finite(gain):
        return Comparison(PART, gain, margin, UNCOUNTED)
    if difference.estimate < -margin and difference.high < 0:
        return Comparison(PART, gain, margin, BROKEN)
    return Comparison(PART, gain, margin, BETTER if difference.low > 0 else KEPT)


def _scans_needed(rule: str, gain: Gain, margin: float, protocol: Protocol) -> int:
    """If the gain seen is the true one: to show it non-inferior where it is, else to show it to be a loss."""
    seen = gain.gain.estimate
    within = rule == NON_INFERIOR and seen > -margin
    distance = margin + min(seen, 0) if within else -seen
    return scans_to_tell(gain.gain, gain.scans, distance, power=protocol.bootstrap.power)


def _tell(one: Comparison) -> str:
    gain, difference = one.gain, one.gain.gain
    where = "" if gain.part == "all" else f" ({gain.part})"
    said = {
        BETTER: "is shown to be better",
        KEPT: "is no worse by more than the margin",
        BROKEN: "is shown to be worse",
        OPEN: "cannot be told apart from worse",
    }[one.standing]
    margin = f", may fall by {one.margin:.3f}" if one.standing != BETTER else ""
    needed = f"; about {one.scans_needed} such scans would tell, there are {gain.scans}" if one.scans_needed else ""
    return (
        f"{gain.figure[0].upper()}{gain.figure[1:]}{where} {said}: {gain.candidate:.3f} beside {gain.in_service:.3f}, "
        f"gain {difference.estimate:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]{margin}{needed}."
    )


def _is_finite(gain: Gain) -> bool:
    values = (gain.candidate, gain.in_service, gain.gain.estimate, gain.gain.low, gain.gain.high)
    return all(map(math.isfinite, values))


def _path(folder: Path, in_service: str) -> Path:
    return folder / f"verdict-{in_service}.json"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _from_json(content: dict[str, Any]) -> Verdict:
    verdict = Verdict(
        **{
            **content,
            "candidate": Contender(**content["candidate"]),
            "in_service": Contender(**content["in_service"]),
            "reasons": tuple(content["reasons"]),
            "comparisons": (),
        }
    )
    return replace(verdict, comparisons=tuple(map(_comparison, content["comparisons"])))


def _comparison(row: dict[str, Any]) -> Comparison:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    gain, interval = row["gain"], row["gain"]["gain"]
    difference = Interval(
        number(interval["estimate"]), number(interval["low"]), number(interval["high"]), interval["undefined_draws"]
    )
    measured = Gain(
        **{
            **gain,
            "candidate": number(gain["candidate"]),
            "in_service": number(gain["in_service"]),
            "gain": difference,
        }
    )
    return Comparison(**{**row, "gain": measured})
