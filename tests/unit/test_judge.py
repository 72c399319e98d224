"""Candidate and version in service on the same scans: what is compared, what is refused, what is believed."""

import errno
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gate import Gate, OnePerson, copy_version, damage, make_gate, scored
from versions import make_network, weights_bytes, write_version

from busi_core.data.splits import read_folds
from busi_core.errors import DatasetError, ModelUnavailableError, OutputError, PromotionError
from busi_core.evaluation import read_reports
from busi_core.locks import ProcessLock, is_held
from busi_core.models.checkpoint import save_version
from busi_core.promotion import judge as judge_module
from busi_core.promotion import judging
from busi_core.promotion.judge import judge
from busi_core.promotion.judging import judge_on_record
from busi_core.promotion.verdict import NON_INFERIOR, REFUSED, Verdict, read_verdict, require_promotable
from busi_core.registry import put_into_service
from busi_core.settings import Settings
from busi_core.types import Diagnosis


def test_a_leaked_split_is_refused_by_name(gate: Gate) -> None:
    """J7: trained with another fold kept for the test, it has learnt from the locked one."""
    taught = tuple(f"busi/{name}" for diagnosis in Diagnosis for name in scored(0, diagnosis)[:4])
    write_version(gate.weights_dir, "leaked", training={"test_fold": 1}, trained_on=taught)
    verdict = judge("leaked", gate.settings, gate.protocol)
    assert verdict.outcome == REFUSED
    assert "12 of 12 locked scans have a copy" in verdict.reasons[0]
    assert verdict.comparisons == ()
    with pytest.raises(PromotionError, match="have a copy"):
        require_promotable(verdict, verdict.candidate, verdict.in_service, gate.protocol)


def test_a_copy_under_another_name_is_found_by_the_list_and_by_its_pixels(gate: Gate) -> None:
    """J7, U17."""
    busi = gate.settings.data_root / "busi"
    scan = next(
        s for s in read_folds() if s.fold == 0 and len(s.files) > 1 and (busi / f"benign/{s.scored}.png").is_file()
    )
    by_list = next(name for name in scan.files if name != scan.scored)
    write_version(gate.weights_dir, "by-list", trained_on=(f"busi/{by_list}",))
    assert "have a copy" in judge("by-list", gate.settings, gate.protocol).reasons[0]

    other = scored(1, Diagnosis.BENIGN)[0]
    (busi / f"benign/{other}.png").write_bytes((busi / f"benign/{scored(0, Diagnosis.BENIGN)[0]}.png").read_bytes())
    write_version(gate.weights_dir, "by-pixels", trained_on=(f"busi/{other}",))
    assert "1 of 12 locked scans" in judge("by-pixels", gate.settings, gate.protocol).reasons[0]


def test_teachers_that_are_not_at_hand_are_a_reason_to_refuse(gate: Gate) -> None:
    write_version(gate.weights_dir, "far", trained_on=("elsewhere-0123456789ab/0001",))
    verdict = judge("far", gate.settings, gate.protocol)
    assert verdict.outcome == REFUSED
    assert "Of the scans that taught 'far', 1 are not on this server" in verdict.reasons[0]


def test_a_refusal_is_judged_anew_when_what_stood_in_the_way_is_gone(gate: Gate) -> None:
    lost = next((gate.settings.data_root / "busi/benign").glob(f"{scored(1, Diagnosis.BENIGN)[0]}.png"))
    write_version(gate.weights_dir, "next", trained_on=(f"busi/{lost.stem}",))
    pieces = [*lost.parent.glob(f"{lost.stem}*")]
    for piece in pieces:
        piece.rename(gate.settings.state_dir.parent / piece.name)
    assert judge("next", gate.settings, gate.protocol).outcome == REFUSED
    for piece in pieces:
        (gate.settings.state_dir.parent / piece.name).rename(piece)
    assert judge("next", gate.settings, gate.protocol).outcome == NON_INFERIOR


def test_weights_that_are_not_numbers_are_refused(gate: Gate) -> None:
    """J7."""
    network = make_network(1)
    with torch.no_grad():
        next(iter(network.parameters())).fill_(float("nan"))
    data = weights_bytes(network)
    card = write_version(gate.weights_dir, "nan", seed=1)
    save_version(gate.weights_dir / "nan", data, replace(card, sha256=hashlib.sha256(data).hexdigest()))
    verdict = judge("nan", gate.settings, gate.protocol)
    assert verdict.outcome == REFUSED
    assert "not numbers" in verdict.reasons[0]


def test_a_card_whose_training_ended_in_nan_is_refused(gate: Gate) -> None:
    """J7."""
    write_version(gate.weights_dir, "nan", seed=1, training={"losses": [0.3, float("nan")]})
    assert "not a number" in judge("nan", gate.settings, gate.protocol).reasons[0]


def test_an_answer_that_is_not_a_number_is_refused(gate: Gate) -> None:
    """Finite weights can still overflow."""
    network = make_network(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e30)
    data = weights_bytes(network)
    card = write_version(gate.weights_dir, "huge", seed=1)
    save_version(gate.weights_dir / "huge", data, replace(card, sha256=hashlib.sha256(data).hexdigest()))
    verdict = judge("huge", gate.settings, gate.protocol)
    assert verdict.outcome == REFUSED
    assert "not a number" in verdict.reasons[0]


@pytest.mark.parametrize("how", ["truncated", "missing", "something else"])
@pytest.mark.parametrize("file", ["model.safetensors", "card.json"])
def test_a_damaged_or_missing_card_or_weights_are_a_reason_to_refuse(gate: Gate, file: str, how: str) -> None:
    """J7, W2."""
    write_version(gate.weights_dir, "next", seed=1)
    damage(gate.weights_dir / "next" / file, how)
    verdict = judge("next", gate.settings, gate.protocol)
    assert verdict.outcome == REFUSED
    assert "'next'" in verdict.reasons[0]


def test_a_verdict_is_kept_until_something_changes(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(gate.weights_dir, "next", seed=1)
    first = judge("next", gate.settings, gate.protocol)
    scans: list[int] = []
    assert judge("next", gate.settings, gate.protocol, lambda *count: scans.append(count[0])) == first
    assert not scans
    card = gate.weights_dir / "next/card.json"
    card.write_text(card.read_text().replace('"lesion_threshold": 0.5', '"lesion_threshold": 0.6'))
    again = judge("next", gate.settings, gate.protocol, lambda *count: scans.append(count[0]))
    assert again.candidate != first.candidate
    assert scans


def test_a_verdict_that_is_not_in_the_log_does_not_stand(gate: Gate) -> None:
    copy_version(gate.weights_dir, "tiny", "same")
    blocked = gate.settings.state_dir / "audit.sqlite"
    blocked.mkdir(parents=True)  # cannot be opened as a file
    with pytest.raises(OutputError, match=r"audit\.sqlite"):
        judge_on_record("Dr. Ada", "same", gate.settings)
    assert read_verdict(gate.weights_dir / "same", "tiny", gate.protocol) is None
    blocked.rmdir()
    assert judge_on_record("Dr. Ada", "same", gate.settings).outcome == NON_INFERIOR
    assert [(entry.who, entry.action) for entry in gate.audit.read()] == [("Dr. Ada", "promotion.judged")]


def test_a_judgement_is_in_the_log_when_its_verdict_is_written(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_version(gate.weights_dir, "tiny", "same")
    entered: list[list[str]] = []

    def be_killed(_folder: Path, _verdict: Verdict) -> None:
        entered.append([entry.action for entry in gate.audit.read()])
        raise KeyboardInterrupt

    monkeypatch.setattr(judge_module, "write_verdict", be_killed)
    with pytest.raises(KeyboardInterrupt):
        judge_on_record("Dr. Ada", "same", gate.settings)
    assert entered == [["promotion.judged"]]


def test_a_verdict_that_is_given_again_is_entered_for_who_asked(gate: Gate) -> None:
    copy_version(gate.weights_dir, "tiny", "same")
    judge("same", gate.settings, gate.protocol)
    judge_on_record("Dr. Eve", "same", gate.settings)
    assert [(entry.who, entry.action) for entry in gate.audit.read()] == [("Dr. Eve", "promotion.judged")]


def test_the_process_that_judges_finds_folders_that_were_named_from_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Mapping[str, str]] = []
    monkeypatch.setattr(judging.subprocess, "Popen", lambda *_args, env, **_options: started.append(env))
    monkeypatch.chdir(tmp_path)
    names = ("weights_dir", "data_root", "encoder_dir", "state_dir", "promotion_protocol")
    judging.start_judging(OnePerson(), "next", Settings(**{name: Path(name) for name in names}, device="cpu"))
    (environment,) = started
    assert {
        environment[name]
        for name in ("BUSI_WEIGHTS_DIR", "BUSI_DATA_ROOT", "BUSI_STATE_DIR", "BUSI_PROMOTION_PROTOCOL")
    } == {str(tmp_path / name) for name in names if name != "encoder_dir"}


def test_a_process_that_cannot_be_started_is_said_and_leaves_the_way_free(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(judging.subprocess, "Popen", refuse)
    with pytest.raises(OutputError, match="could not be started"):
        judging.start_judging(OnePerson(), "tiny", gate.settings)
    state = judging.read_judging(gate.settings)
    assert state is not None
    assert not state.running
    assert "could not be started" in str(state.problem)


def test_who_only_looks_stops_nobody_from_judging(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages look every few seconds whether a judgement runs."""
    monkeypatch.setattr(judging.subprocess, "Popen", lambda *_args, **_options: None)
    path = gate.settings.state_dir / judging.JUDGING_DIR / judging.LOCK_FILE
    with judging._held(gate.settings):
        assert is_held(path)
    assert not is_held(path)
    glance = ProcessLock(path)
    assert glance.acquire()
    threading.Timer(0.05, glance.release).start()
    judging.start_judging(OnePerson(), "tiny", gate.settings)


def test_the_candidate_gets_its_evaluation_and_a_stored_one_is_believed_only_if_it_agrees(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card whose cut-off was changed afterwards is read anew, though its weights are the same."""
    write_version(gate.weights_dir, "next", seed=1)
    judge("next", gate.settings, gate.protocol)
    (report,) = read_reports(gate.weights_dir / "next")
    assert (report.test_set, report.scans) == ("small", 12)
    read: list[tuple[int, ...]] = []
    put_into_service(gate.weights_dir, "next")
    judge("tiny", gate.settings, gate.protocol, lambda *count: read.append(count))
    assert read[-1] == (12 + judge_module.SPOT_CHECKS, 12 + judge_module.SPOT_CHECKS)
    read.clear()
    for name in ("next", "tiny"):
        card = gate.weights_dir / name / "card.json"
        card.write_text(card.read_text().replace('"temperature": 1.5', '"temperature": 0.2'))
    judge("tiny", gate.settings, gate.protocol, lambda *count: read.append(count))
    assert read[-1][0] == read[-1][1] > 24


def test_the_version_in_service_and_one_that_is_not_there_cannot_be_judged(gate: Gate) -> None:
    with pytest.raises(PromotionError, match="in service already"):
        judge("tiny", gate.settings, gate.protocol)
    for name in ("none", "../x"):
        with pytest.raises(ModelUnavailableError):
            judge(name, gate.settings, gate.protocol)


def test_every_look_at_the_locked_scans_is_counted(gate: Gate) -> None:
    for number, name in enumerate(("one", "two")):
        copy_version(gate.weights_dir, "tiny", name)
        assert judge(name, gate.settings, gate.protocol).looks == number


def test_a_look_stays_one_when_its_verdict_no_longer_holds(gate: Gate) -> None:
    """Rules that are applied in another way void a verdict; the scans were looked at all the same."""
    copy_version(gate.weights_dir, "tiny", "one")
    judge("one", gate.settings, gate.protocol)
    (verdict,) = (gate.weights_dir / "one").glob("verdict-*.json")
    verdict.write_text(verdict.read_text().replace('"outcome": "', '"outcome": "formerly '))
    copy_version(gate.weights_dir, "tiny", "two")
    assert judge("two", gate.settings, gate.protocol).looks == 1


def test_a_judgement_that_the_versions_change_under_is_none(gate: Gate) -> None:
    write_version(gate.weights_dir, "next", seed=1)

    def swap(done: int, total: int) -> None:
        if done == 1:
            write_version(gate.weights_dir, "next", seed=2)

    with pytest.raises(PromotionError, match="was changed while it was judged"):
        judge("next", gate.settings, gate.protocol, swap)


def test_a_gate_may_lock_a_data_set_that_the_hospital_keeps(tmp_path: Path, weights_dir: Path) -> None:
    """The rules name any known set; one that is not there is said."""
    gate = make_gate(tmp_path, weights_dir, ease=lambda text: text.replace('"busi"', '"own-0123456789ab"'))
    write_version(gate.weights_dir, "next", seed=1)
    with pytest.raises(DatasetError, match="no data set 'own-0123456789ab'"):
        judge("next", gate.settings, gate.protocol)
