"""Candidate and version in service on the same locked scans, through the front door -> Verdict.

    versions -load, checksums-> Analysers -copies? finite?-> ScanResults each -pair, bootstrap-> gains -decide-> Verdict

What speaks against the candidate itself (a damaged card, a copy of a test scan in its training, weights that are not
numbers) is a verdict, 'refused'. What speaks against the set-up (locked scans missing or changed, no model in
service) is an error: nobody can judge anything then.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from busi_core.data.records import Record
from busi_core.errors import ModelUnavailableError, PromotionError
from busi_core.evaluation import ScanResult, read_reports, score_record, summarise, write_reports
from busi_core.models.checkpoint import CARD_FILE, MODEL_FILE, ModelCard, load_readers, load_version
from busi_core.promotion.figures import Paired, measure_gains, measure_part, pair
from busi_core.promotion.leaks import CopyFinder
from busi_core.promotion.locked import LockedScans, read_locked
from busi_core.promotion.protocol import Protocol
from busi_core.promotion.verdict import REFUSED, Contender, Decision, Verdict, decide, read_verdict, write_verdict
from busi_core.registry import check_version_name, read_registry
from busi_core.release import current_commit
from busi_core.service import Analyser, choose_device
from busi_core.settings import Settings
from busi_core.types import Diagnosis

SPOT_CHECKS = 8  # scans of a stored evaluation that are read again before it is believed
SAME_DICE, SAME_SCORE = 0.02, 0.01  # between two machines; a changed cut-off or temperature moves more

BoolArray = NDArray[np.bool_]
OnScan = Callable[[int, int], None]
OnVerdict = Callable[[Verdict], object]


class _NotMeasurableError(Exception):
    """A candidate that gives no figures; becomes a verdict."""


def judge(
    candidate: str,
    settings: Settings,
    protocol: Protocol,
    on_scan: OnScan | None = None,
    *,
    on_verdict: OnVerdict | None = None,
) -> Verdict:
    """Judge a candidate beside the version in service; kept beside the candidate, and given again while it holds.

    Minutes for hundreds of scans. Evaluations that lie beside a version are used when they cover the locked scans, be
    it among others, with these weights, and a few scans read again agree; the candidate's is written where it has none.

    Args:
        candidate: Any version but the one in service.
        settings: Where versions and data lie; the device.
        protocol: The rules.
        on_scan: Told how many scans are read, and of how many.
        on_verdict: Told the verdict just before it is written or given again; what it raises stops that. The entry in
            the audit log belongs there.

    Raises:
        PromotionError: The candidate is in service, or the locked scans are not those that were locked.
        DatasetError: The locked scans are not on this server.
        ModelUnavailableError: There is no such version, or the one in service cannot be loaded.
        OutputError: The verdict cannot be written.
    """
    in_service = read_registry(settings.weights_dir).in_service
    folder = settings.weights_dir / check_version_name(candidate)
    if candidate == in_service:
        raise PromotionError(f"{candidate!r} is in service already.", remedy="Choose another version.")
    if not folder.is_dir():
        raise ModelUnavailableError(f"There is no model version {candidate!r}.", remedy="Train one, or choose another.")
    contenders = identify(folder), identify(settings.weights_dir / in_service)
    stored = read_verdict(folder, in_service, protocol)
    holds = stored is not None and (stored.candidate, stored.in_service) == contenders
    if stored is not None and holds and stored.outcome != REFUSED:  # what stood in the way may be gone
        if on_verdict:
            on_verdict(stored)
        return stored
    locked = read_locked(protocol, settings)
    counts = {kind.value: sum(record.diagnosis is kind for record in locked.records) for kind in Diagnosis}
    try:
        decision = _compare(folder, settings.weights_dir / in_service, locked, settings, protocol, on_scan)
    except _NotMeasurableError as reason:
        decision = Decision(REFUSED, (str(reason),), (), None)
    if (identify(folder), identify(settings.weights_dir / in_service)) != contenders:
        raise PromotionError("A version was changed while it was judged.", remedy="Judge the candidate anew.")
    verdict = Verdict(
        candidate=contenders[0],
        in_service=contenders[1],
        protocol_sha256=protocol.sha256,
        outcome=decision.outcome,
        reasons=decision.reasons,
        counts=counts,
        comparisons=decision.comparisons,
        scans_needed=decision.scans_needed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=current_commit(),
        looks=_count_looks(settings.weights_dir, candidate),
    )
    if on_verdict:
        on_verdict(verdict)
    write_verdict(folder, verdict)
    return verdict


def identify(folder: Path) -> Contender:
    """The checksums of a version's files as they lie there now; empty where a file is missing."""
    return Contender(folder.name, _file_checksum(folder / MODEL_FILE), _file_checksum(folder / CARD_FILE))


def _compare(
    candidate: Path,
    in_service: Path,
    locked: LockedScans,
    settings: Settings,
    protocol: Protocol,
    on_scan: OnScan | None,
) -> Decision:
    device = choose_device(settings.device)
    second = _load(in_service, device)
    try:
        first = _load(candidate, device)
    except ModelUnavailableError as error:
        raise _NotMeasurableError(error.problem) from error
    flags = [_require_flag(analyser.card) for analyser in (first, second)]
    _require_unseen(first.card, second.card, locked, settings)
    pending = [_find_stored(folder, locked) is None for folder in (candidate, in_service)].count(True)
    progress = _Progress(on_scan, pending * len(locked.records) + (2 - pending) * SPOT_CHECKS)
    results = [
        _results(analyser, folder, locked, progress) for analyser, folder in ((first, candidate), (second, in_service))
    ]
    if not read_reports(candidate):
        _keep_evaluation(candidate, first.card, results[0], locked)
    paired = pair(*results, candidate_flag=flags[0], in_service_flag=flags[1])
    counts = {kind.value: int(paired.of(kind).sum()) for kind in Diagnosis}
    whole = measure_gains(paired, protocol.not_worse.specificity, protocol.bootstrap)
    parts = [
        gain
        for name, inside in _parts(paired, locked, protocol).items()
        for gain in measure_part(paired, name, inside, protocol.bootstrap)
    ]
    return decide(whole, parts, counts, protocol)


def _load(folder: Path, device: torch.device) -> Analyser:
    network, card = load_version(folder, device)
    others = tuple(load_readers(folder, card, device))
    if not all(bool(values.isfinite().all()) for one in (network, *others) for values in one.state_dict().values()):
        raise _NotMeasurableError(f"Weights of {card.version!r} are not numbers: its training failed.")
    return Analyser(network, card, device, others=others)


def _require_flag(card: ModelCard) -> float:
    """The cut-off of its flag; refuses a version without a class head, or whose card holds what is not a number."""
    if card.malignancy is None or set(card.architecture.image_classes) != set(Diagnosis):
        raise _NotMeasurableError(f"{card.version!r} does not name normal, benign and malignant: nothing to compare.")
    values = (card.temperature, card.lesion_threshold, card.malignancy.threshold, *_numbers_in(card.training))
    if not all(map(math.isfinite, values)):
        raise _NotMeasurableError(f"The card of {card.version!r} holds what is not a number: its training failed.")
    return card.malignancy.threshold


def _require_unseen(candidate: ModelCard, in_service: ModelCard, locked: LockedScans, settings: Settings) -> None:
    """Neither version may have seen a locked scan; of the candidate, every teacher's pixels must be at hand."""
    finder = CopyFinder(locked.records, settings)
    for card in (candidate, in_service):
        teachers = finder.read_teachers(card)
        seen = finder.find(teachers)
        if seen:
            raise _NotMeasurableError(
                f"{len(seen)} of {len(locked.records)} locked scans have a copy among those that taught "
                f"{card.version!r}, the first is {seen[0]!r}: its figures would say nothing."
            )
        if card is candidate and teachers.unknown:
            raise _NotMeasurableError(
                f"Of the scans that taught {card.version!r}, {len(teachers.unknown)} are not on this server, the first "
                f"is {teachers.unknown[0]!r}: nobody can say whether they are copies of locked scans."
            )


def _results(analyser: Analyser, folder: Path, locked: LockedScans, progress: "_Progress") -> list[ScanResult]:
    """What a version says about every locked scan: as stored, when a few scans read again agree; else read now."""
    stored = _find_stored(folder, locked)
    if stored is not None:
        some = locked.records[:: max(1, len(locked.records) // SPOT_CHECKS)][:SPOT_CHECKS]
        now = [_score(analyser, record, progress) for record in some]
        if all(_agrees(result, stored[result.id]) for result in now):
            return list(stored.values())
        progress.expect(len(locked.records))
    return [_score(analyser, record, progress) for record in locked.records]


def _find_stored(folder: Path, locked: LockedScans) -> dict[str, ScanResult] | None:
    """Results of the locked scans by id from evaluation.json, when together its reports cover all of them."""
    results = {result.id: result for report in read_reports(folder) for result in report.results}
    return {record.id: results[record.id] for record in locked.records} if set(locked.set_of) <= set(results) else None


def _agrees(now: ScanResult, stored: ScanResult) -> bool:
    if now.probabilities is None or stored.probabilities is None:
        return False
    same_dice = abs(now.dice - stored.dice) <= SAME_DICE or (math.isnan(now.dice) and math.isnan(stored.dice))
    moved = max(abs(a - b) for a, b in zip(now.probabilities, stored.probabilities, strict=True))
    labels = (now.truth, now.group, now.has_mask) == (stored.truth, stored.group, stored.has_mask)
    return same_dice and moved <= SAME_SCORE and labels and abs(now.lesion_share - stored.lesion_share) < SAME_SCORE


def _score(analyser: Analyser, record: Record, progress: "_Progress") -> ScanResult:
    try:
        result = score_record(analyser, record)
    except ValueError as error:  # a map or score that is not a number cannot become a Prediction
        raise _NotMeasurableError(
            f"{analyser.card.version!r} answers {record.id!r} with what is not a number."
        ) from error
    progress.step()
    return result


def _keep_evaluation(folder: Path, card: ModelCard, results: Sequence[ScanResult], locked: LockedScans) -> None:
    """Write the candidate's evaluation, one report for each test set, for the pages that show figures."""
    names = dict.fromkeys(locked.set_of.values())
    by_set: dict[str, list[ScanResult]] = {name: [] for name in names}
    for result in results:
        by_set[locked.set_of[result.id]].append(result)
    write_reports(folder, [summarise(card, part, test_set=name) for name, part in by_set.items()])


def _parts(paired: Paired, locked: LockedScans, protocol: Protocol) -> Mapping[str, BoolArray]:
    """Where a loss could hide, in the order of `paired`: sorted by record id."""
    records = sorted(locked.records, key=lambda record: record.id)
    sizes, rules = paired.lesion_share, protocol.subgroups
    sets = np.array([locked.set_of[record.id] for record in records])
    devices = np.array([record.device or "" for record in records])
    small, large = f"{rules.small_below:.0%}", f"{rules.large_from:.0%}"
    parts = {
        "benign": paired.of(Diagnosis.BENIGN),
        "malignant": paired.of(Diagnosis.MALIGNANT),
        f"lesion under {small} of the image": sizes < rules.small_below,
        f"lesion {small} to {large} of the image": (sizes >= rules.small_below) & (sizes < rules.large_from),
        f"lesion from {large} of the image": sizes >= rules.large_from,
    }
    parts |= {str(name): sets == name for name in dict.fromkeys(locked.set_of.values())}
    return parts | {str(device): devices == device for device in np.unique(devices) if device}


def _numbers_in(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [number for item in value.values() for number in _numbers_in(item)]
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers_in(item)]
    return [value] if isinstance(value, float) else []


def _count_looks(weights_dir: Path, candidate: str) -> int:
    """How many other versions here were judged, also by a verdict that no longer holds; those that are gone are not."""
    return len({file.parent.name for file in weights_dir.glob("*/verdict-*.json")} - {candidate})


def _file_checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


class _Progress:
    """Counts scans over both versions."""

    def __init__(self, on_scan: OnScan | None, total: int) -> None:
        self._on_scan, self._total, self._done = on_scan, total, 0

    def expect(self, more: int) -> None:
        """Further scans, as a stored evaluation was not believed."""
        self._total += more

    def step(self) -> None:
        """One scan more is read."""
        self._done += 1
        if self._on_scan:
            self._on_scan(self._done, self._total)
