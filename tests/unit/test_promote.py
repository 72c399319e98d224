"""Into service and back: by an administrator, on evidence, whole or not at all, and never over somebody's head."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gate import Gate, OnePerson, copy_gate, copy_version, damage
from versions import write_version

from busi_core import files, registry
from busi_core.cli import main
from busi_core.database import transaction
from busi_core.errors import AccessDeniedError, ModelUnavailableError, OutputError, PromotionError
from busi_core.imaging.phantom import SimulatedScan
from busi_core.limits import LIMITS_FILE
from busi_core.promotion.judge import judge
from busi_core.promotion.overview import list_rows
from busi_core.promotion.promote import promote, roll_back
from busi_core.promotion.record import DESCRIPTION, IMPACT, PROTOCOL, read_record
from busi_core.promotion.verdict import NON_INFERIOR, REFUSED, WORSE, Verdict
from busi_core.registry import BY_HAND, PROMOTED, ROLLED_BACK, Registry, put_into_service, read_registry
from busi_core.serving import Serving
from busi_core.settings import PROJECT_ROOT
from busi_core.taught import TAUGHT_FILE
from busi_core.types import Analysis, Diagnosis

CPU = torch.device("cpu")
ADA = OnePerson()
KILLS = 60 if os.environ.get("BUSI_FULL_COUNT") else 3


@pytest.fixture(scope="module")
def judged_once(tmp_path_factory: pytest.TempPathFactory, written_gate: Gate) -> tuple[Gate, Verdict]:
    """'tiny' in service; 'same', with the same weights, judged non-inferior. Nothing may change it."""
    folder = tmp_path_factory.mktemp("judged")
    gate = copy_gate(written_gate, folder, folder / "weights")
    shutil.copytree(written_gate.weights_dir, gate.weights_dir)
    copy_version(gate.weights_dir, "tiny", "same")
    verdict = judge("same", gate.settings, gate.protocol)
    assert verdict.outcome == NON_INFERIOR
    return gate, verdict


@pytest.fixture
def judged(judged_once: tuple[Gate, Verdict], tmp_path: Path) -> tuple[Gate, Verdict]:
    """The same for one test alone."""
    gate, verdict = judged_once
    shutil.copytree(gate.weights_dir, tmp_path / "weights")
    return copy_gate(gate, tmp_path, tmp_path / "weights"), verdict


def promoted(gate: Gate, verdict: Verdict | None, version: str = "same", **changes: Any) -> Registry:
    options: dict[str, Any] = {"comment": "as good, and newer", "expected_in_service": "tiny", "verdict": verdict}
    return promote(changes.pop("permit", ADA), version, **(options | changes), settings=gate.settings, audit=gate.audit)


def rolled_back(gate: Gate, version: str, **changes: Any) -> Registry:
    options: dict[str, Any] = {"comment": "worse on Monday", "expected_in_service": "same"}
    return roll_back(
        changes.pop("permit", ADA), version, **(options | changes), settings=gate.settings, audit=gate.audit
    )


def actions(gate: Gate) -> list[str]:
    return [entry.action for entry in gate.audit.read()]


# ---- Into service ------------------------------------------------------------------------------------------------


def test_a_promotion_is_in_force_in_the_history_in_the_log_and_on_record(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    registry = promoted(gate, verdict)
    assert registry == read_registry(gate.weights_dir)
    assert (registry.in_service, registry.revision) == ("same", 2)
    change = registry.history[-1]
    assert (change.kind, change.who, change.before, change.comment) == (
        PROMOTED,
        "Dr. Ada",
        "tiny",
        "as good, and newer",
    )
    (entry,) = [entry for entry in gate.audit.read() if entry.action == "promotion.done"]
    assert (entry.who, entry.subject, entry.details["revision"]) == ("Dr. Ada", "same", 2)
    assert entry.details["weights_sha256"] == verdict.candidate.weights_sha256 == change.sha256
    record = read_record(gate.weights_dir, change)
    assert record is not None
    assert record["decided"]["who"] == "Dr. Ada"
    assert {DESCRIPTION, PROTOCOL, IMPACT} <= record.keys()
    assert record[IMPACT]["outcome"] == NON_INFERIOR
    assert record[PROTOCOL]["performance_evaluation"]["protocol_sha256"] == gate.protocol.sha256
    assert record[DESCRIPTION]["to"]["weights_sha256"] == verdict.candidate.weights_sha256


def test_a_record_that_was_changed_afterwards_is_not_shown_as_one(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    change = promoted(gate, verdict).history[-1]
    path = gate.weights_dir / "same" / "promotion-2.json"
    path.write_text(path.read_text().replace("Dr. Ada", "Dr. Eve"))
    assert read_record(gate.weights_dir, change) is None


def test_sessions_move_over_with_their_next_scan(
    judged: tuple[Gate, Verdict], simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    gate, verdict = judged
    serving, data = Serving(gate.weights_dir, CPU), simulated[Diagnosis.BENIGN].png()
    assert serving.current().analyse(data).model_version == "tiny"
    promoted(gate, verdict)
    assert serving.current().analyse(data).model_version == "same"
    rolled_back(gate, "tiny")
    assert serving.current().analyse(data).model_version == "tiny"


def test_promotion_and_roll_back_while_scans_are_read_leave_every_result_to_one_model(
    gate: Gate, simulated: dict[Diagnosis, SimulatedScan]
) -> None:
    """C3."""
    write_version(gate.weights_dir, "next", seed=1)
    put_into_service(gate.weights_dir, "next")
    data = simulated[Diagnosis.BENIGN].png()
    serving = Serving(gate.weights_dir, CPU)
    expected = {version: serving.load(version).analyse(data) for version in ("tiny", "next")}
    over = threading.Event()

    def change() -> None:
        for _ in range(6):
            now = read_registry(gate.weights_dir).in_service
            rolled_back(gate, "tiny" if now == "next" else "next", expected_in_service=now)
        over.set()

    def read() -> list[Analysis]:
        read: list[Analysis] = []
        while not over.is_set() or len(read) < 3:
            read.append(serving.current().analyse(data))
        return read

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        pool.submit(change).result()
        results = [analysis for reader in readers for analysis in reader.result()]
    assert {result.model_version for result in results} == {"tiny", "next"}
    for result in results:
        right = expected[result.model_version]
        assert np.array_equal(result.prediction.lesion_probability, right.prediction.lesion_probability)
        assert result.prediction.probabilities == right.prediction.probabilities
    assert serving.problem is None


# ---- Refused -------------------------------------------------------------------------------------------------------


def test_who_is_no_administrator_any_more_changes_nothing(judged: tuple[Gate, Verdict]) -> None:
    """A5: asked before anything else, and not even a refusal is written in their name."""
    gate, verdict = judged
    gone = OnePerson(is_administrator=False)
    with pytest.raises(AccessDeniedError):
        promoted(gate, verdict, permit=gone)
    with pytest.raises(AccessDeniedError):
        rolled_back(gate, "tiny", permit=gone)
    assert read_registry(gate.weights_dir).in_service == "tiny"
    assert actions(gate) == []


def test_who_is_removed_while_the_files_are_checked_changes_nothing(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    person = OnePerson()

    class RemovedMeanwhile:
        def confirm(self) -> str:
            name = person.confirm()
            person.is_administrator = False
            return name

    with pytest.raises(AccessDeniedError):
        promoted(gate, verdict, permit=RemovedMeanwhile())
    assert read_registry(gate.weights_dir).in_service == "tiny"
    assert not list(gate.weights_dir.glob("*/promotion-*"))


@pytest.mark.parametrize(
    ("comment", "said"), [("", "needs a comment"), ("  \n ", "needs a comment"), ("x" * 501, "has 501 characters")]
)
def test_without_a_comment_of_some_sentences_nothing_is_promoted(
    judged: tuple[Gate, Verdict], comment: str, said: str
) -> None:
    gate, verdict = judged
    with pytest.raises(PromotionError, match=said):
        promoted(gate, verdict, comment=comment)
    assert read_registry(gate.weights_dir).in_service == "tiny"


def test_a_roll_back_waits_for_no_comment_but_takes_no_novel(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    promoted(gate, verdict)
    with pytest.raises(PromotionError, match="has 501 characters"):
        rolled_back(gate, "tiny", comment="x" * 501)
    assert rolled_back(gate, "tiny", comment=" ").in_service == "tiny"
    assert read_registry(gate.weights_dir).history[-1].comment == ""


def test_what_was_not_judged_is_refused_and_the_refusal_is_in_the_log(judged: tuple[Gate, Verdict]) -> None:
    gate, _ = judged
    with pytest.raises(PromotionError, match="has not been judged"):
        promoted(gate, None)
    (entry,) = gate.audit.read()
    assert (entry.action, entry.subject, entry.who) == ("promotion.refused", "same", "Dr. Ada")
    assert "has not been judged" in entry.details["reason"]


def test_a_verdict_of_another_word_is_refused(judged: tuple[Gate, Verdict]) -> None:
    """J7."""
    gate, verdict = judged
    with pytest.raises(PromotionError, match="does not follow"):
        promoted(gate, replace(verdict, outcome=WORSE))
    refused = replace(verdict, outcome=REFUSED, reasons=("It is damaged.",), comparisons=())
    with pytest.raises(PromotionError, match=r"'refused'\. It is damaged"):
        promoted(gate, refused)
    assert read_registry(gate.weights_dir).in_service == "tiny"


@pytest.mark.parametrize("what", ["weights", "card", "card of the version in service", "rules"])
def test_a_verdict_is_void_once_anything_it_stands_on_changed(judged: tuple[Gate, Verdict], what: str) -> None:
    gate, verdict = judged
    if what == "weights":
        write_version(gate.weights_dir, "same", seed=1)
    elif what == "card":
        card = gate.weights_dir / "same/card.json"
        card.write_text(card.read_text().replace('"lesion_threshold": 0.5', '"lesion_threshold": 0.6'))
    elif what == "rules":
        path = gate.settings.promotion_protocol
        path.write_text(path.read_text().replace("lesion_dice = 0.03", "lesion_dice = 0.04"))
    else:
        card = gate.weights_dir / "tiny/card.json"
        card.write_text(card.read_text().replace('"temperature": 1.5', '"temperature": 1.4'))
    with pytest.raises(PromotionError, match="Judge the candidate anew"):
        promoted(gate, verdict)
    assert read_registry(gate.weights_dir).in_service == "tiny"
    assert "promotion.refused" in actions(gate)


@pytest.mark.parametrize("how", ["truncated", "a bit flipped", "missing", "something else"])
@pytest.mark.parametrize("file", ["model.safetensors", "card.json"])
def test_damage_after_the_verdict_is_found(judged: tuple[Gate, Verdict], file: str, how: str) -> None:
    """W2: at promotion and at roll back, and the model in service stays."""
    gate, verdict = judged
    if file == "card.json" and how == "a bit flipped":
        how = "truncated"
    promoted(gate, verdict)
    damage(gate.weights_dir / "tiny" / file, how)
    with pytest.raises(PromotionError):
        rolled_back(gate, "tiny")
    assert read_registry(gate.weights_dir).in_service == "same"
    put_into_service(gate.weights_dir, "same")
    damage(gate.weights_dir / "same" / file, how)
    with pytest.raises(PromotionError):
        promoted(gate, verdict, expected_in_service="same")
    assert actions(gate).count("promotion.refused") == 2


@pytest.mark.parametrize("file", [LIMITS_FILE, TAUGHT_FILE])
def test_damage_to_what_lies_beside_the_weights_is_found(judged: tuple[Gate, Verdict], file: str) -> None:
    """W2: no model would read after a restart."""
    gate, verdict = judged
    (gate.weights_dir / "same" / file).write_bytes(b"{}")
    with pytest.raises(PromotionError, match="damaged"):
        promoted(gate, verdict)
    (gate.weights_dir / "same" / file).unlink()
    promoted(gate, verdict)
    (gate.weights_dir / "tiny" / file).write_bytes(b"{}")
    with pytest.raises(PromotionError, match="damaged"):
        rolled_back(gate, "tiny")
    assert read_registry(gate.weights_dir).in_service == "same"
    assert actions(gate) == ["promotion.refused", "promotion.done", "promotion.refused"]


def test_a_version_that_reads_no_scans_is_refused(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    write_version(gate.weights_dir, "slides", task="tissue")
    with pytest.raises(PromotionError, match="reads stained tissue"):
        promoted(gate, verdict, "slides")


def test_a_version_that_never_was_in_service_is_not_rolled_back_to(judged: tuple[Gate, Verdict]) -> None:
    gate, _ = judged
    with pytest.raises(PromotionError, match="was not in service before"):
        rolled_back(gate, "same", expected_in_service="tiny")
    with pytest.raises(PromotionError, match="was not in service before"):
        rolled_back(gate, "tiny", expected_in_service="tiny")


def test_other_weights_under_the_name_of_an_earlier_version_are_found(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    promoted(gate, verdict)
    write_version(gate.weights_dir, "tiny", seed=5)
    with pytest.raises(PromotionError, match="not those that were in service"):
        rolled_back(gate, "tiny")


def raise_the_cut_off(gate: Gate, version: str) -> None:
    card = gate.weights_dir / version / "card.json"
    card.write_text(card.read_text().replace('"lesion_threshold": 0.5', '"lesion_threshold": 0.999'))


def test_a_card_that_was_edited_since_does_not_go_back_into_service(judged: tuple[Gate, Verdict]) -> None:
    """Cut-offs and temperature change results too, and no verdict is about these."""
    gate, verdict = judged
    promoted(gate, verdict)
    raise_the_cut_off(gate, "tiny")
    with pytest.raises(PromotionError, match="card of 'tiny' is not the one that was in service"):
        rolled_back(gate, "tiny")
    assert read_registry(gate.weights_dir).in_service == "same"
    assert actions(gate)[-1] == "promotion.refused"


def test_a_card_that_was_edited_in_service_does_not_come_back_after_another(judged: tuple[Gate, Verdict]) -> None:
    """Which card it was put into service with counts, not which lay there when it left."""
    gate, verdict = judged
    promoted(gate, verdict)
    raise_the_cut_off(gate, "same")
    rolled_back(gate, "tiny")
    with pytest.raises(PromotionError, match="card of 'same'"):
        rolled_back(gate, "same", expected_in_service="tiny")


def test_an_edited_card_is_found_where_the_first_schema_did_not_say_which_it_was(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    (gate.weights_dir / "registry.json").write_text('{"schema": 1, "in_service": "tiny"}')
    promoted(gate, verdict)
    raise_the_cut_off(gate, "tiny")
    with pytest.raises(PromotionError, match="card of 'tiny'"):
        rolled_back(gate, "tiny")


def test_a_history_without_checksums_of_cards_is_read_and_rolled_back_to(judged: tuple[Gate, Verdict]) -> None:
    """D1: schema 2 did not keep them."""
    gate, verdict = judged
    promoted(gate, verdict)
    path = gate.weights_dir / "registry.json"
    content = json.loads(path.read_text())
    older = [{name: row[name] for name in row if "card" not in name} for row in content["history"]]
    path.write_text(json.dumps(content | {"schema": 2, "history": older}))
    raise_the_cut_off(gate, "tiny")
    registry = rolled_back(gate, "tiny")
    assert [change.card_sha256 != "" for change in registry.history] == [False, False, True]


def test_the_registry_of_the_repository_is_read() -> None:
    assert read_registry(PROJECT_ROOT / "weights").history


# ---- Two at once -----------------------------------------------------------------------------------------------


def test_of_two_administrators_at_once_one_wins_and_the_other_learns_who_and_when(
    judged: tuple[Gate, Verdict],
) -> None:
    """J3."""
    gate, verdict = judged
    copy_version(gate.weights_dir, "tiny", "also")
    verdicts = {"same": verdict, "also": judge("also", gate.settings, gate.protocol)}
    together = threading.Barrier(2)

    def go(version: str, name: str) -> Registry | PromotionError:
        together.wait()
        try:
            return promoted(gate, verdicts[version], version, permit=OnePerson(name))
        except PromotionError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(go, ("same", "also"), ("Dr. Ada", "Dr. Eve")))
    (won,) = [answer for answer in answers if isinstance(answer, Registry)]
    (lost,) = [answer for answer in answers if isinstance(answer, PromotionError)]
    assert won.revision == 2
    assert won.history[-1].who in lost.problem
    assert won.history[-1].when in lost.problem
    assert read_registry(gate.weights_dir) == won
    assert sorted(actions(gate)) == ["promotion.done", "promotion.refused"]
    assert [path.name for path in gate.weights_dir.glob("*/promotion-*.json")] == ["promotion-2.json"]


def test_a_page_that_was_left_open_cannot_overrule_what_happened_since(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    promoted(gate, verdict)
    rolled_back(gate, "tiny")
    with pytest.raises(PromotionError, match=r"Another came first: Dr\. Ada put 'tiny'"):
        rolled_back(gate, "same", expected_in_service="same")


def test_a_roll_back_that_somebody_did_already_is_no_change_and_no_refusal(judged: tuple[Gate, Verdict]) -> None:
    """A second click, or another page that was left open."""
    gate, verdict = judged
    promoted(gate, verdict)
    done = rolled_back(gate, "tiny")
    assert rolled_back(gate, "tiny") == done == read_registry(gate.weights_dir)
    assert actions(gate) == ["promotion.done", "rollback.done"]


def test_who_rolls_back_to_what_came_into_service_otherwise_meanwhile_learns_who_and_when(
    judged: tuple[Gate, Verdict],
) -> None:
    gate, verdict = judged
    copy_version(gate.weights_dir, "tiny", "third")
    promoted(gate, verdict)
    put_into_service(gate.weights_dir, "third", permit=OnePerson("Dr. Eve"))
    with pytest.raises(PromotionError, match=r"Another came first: Dr\. Eve put 'third' into service at 20"):
        rolled_back(gate, "same", expected_in_service="tiny")


# ---- Whole or not at all ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_moment_the_registry_is_the_old_or_the_new_one(judged: tuple[Gate, Verdict]) -> None:
    """J2: three times here, sixty with BUSI_FULL_COUNT=1 (docs/kill-promotion.txt)."""
    gate, verdict = judged
    promoted(gate, verdict)
    revision = interrupted = 0
    rng = random.Random(0)  # noqa: S311
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kill_promotion.py"))],
            env=os.environ | gate.environment() | {"PYTHONPATH": f"{PROJECT_ROOT}:{Path(__file__).parent}"},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.read(len("begun\n") + rng.randint(0, 3))  # it is at work
        threading.Event().wait(rng.uniform(0, 0.15))  # somewhere inside a change
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        registry = read_registry(gate.weights_dir)  # raises when torn
        assert registry.in_service in ("tiny", "same")
        assert registry.revision >= revision
        revision = registry.revision
        assert gate.audit.verify() is None
        entered = {entry.details["revision"] for entry in gate.audit.read() if "revision" in entry.details}
        assert entered >= set(range(2, revision + 1))  # never a change without its entry; the first was by hand
        interrupted += revision + 1 in entered
        assert Serving(gate.weights_dir, CPU).current().card.version == registry.in_service
    assert revision > 2
    other = "tiny" if registry.in_service == "same" else "same"
    assert rolled_back(gate, other, expected_in_service=registry.in_service).in_service == other
    said = f"{KILLS} kills among {revision} changes: 0 torn, {interrupted} between the log and the registry"
    sys.stdout.write(f"{said}\n")


@pytest.mark.parametrize("full_at", ["registry.json", "promotion-2.json", "audit"])
def test_a_full_disk_leaves_the_version_in_service(
    judged: tuple[Gate, Verdict], monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    """J4: at the record, at the log, at the registry."""
    gate, verdict = judged
    write = files.write_atomically

    def refuse(path: Path, content: bytes) -> None:
        if path.name == full_at:
            raise OutputError(f"{path.name!r} could not be written ({os.strerror(errno.ENOSPC)}).", remedy="Free some.")
        write(path, content)

    for module in ("registry", "promotion.record"):
        monkeypatch.setattr(f"busi_core.{module}.write_atomically", refuse)
    if full_at == "audit":
        gate.settings.state_dir.mkdir()
        (gate.settings.state_dir / "audit.sqlite").mkdir()  # cannot be opened as a file
    before = (gate.weights_dir / "registry.json").read_bytes()
    with pytest.raises(OutputError):
        promoted(gate, verdict)
    assert (gate.weights_dir / "registry.json").read_bytes() == before
    assert not list(gate.weights_dir.glob("*/promotion-*"))
    assert Serving(gate.weights_dir, CPU).current().card.version == "tiny"


# ---- The registry's file ---------------------------------------------------------------------------------------


def test_a_lock_that_fails_at_its_end_undoes_no_promotion(
    judged: tuple[Gate, Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the other version is in service: its record stays, and no refusal is entered."""
    gate, verdict = judged

    @contextmanager
    def failing(path: Path, migrations: Any) -> Iterator[None]:
        with transaction(path, migrations):
            yield
        raise OutputError("the disk is gone", remedy="none")

    monkeypatch.setattr(registry, "transaction", failing)
    assert promoted(gate, verdict) == read_registry(gate.weights_dir)
    assert read_record(gate.weights_dir, read_registry(gate.weights_dir).history[-1]) is not None
    assert rolled_back(gate, "tiny") == read_registry(gate.weights_dir)
    assert actions(gate) == ["promotion.done", "rollback.done"]


def test_a_registry_of_the_first_schema_is_read_and_written_anew_at_the_next_change(
    judged: tuple[Gate, Verdict],
) -> None:
    """D1."""
    gate, verdict = judged
    path = gate.weights_dir / "registry.json"
    path.write_text('{\n "schema": 1,\n "in_service": "tiny"\n}\n')
    registry = read_registry(gate.weights_dir)
    assert (registry.in_service, registry.revision, registry.history) == ("tiny", 0, ())
    assert json.loads(path.read_text())["schema"] == 1, "reading changes nothing"
    registry = promoted(gate, verdict)
    assert json.loads(path.read_text())["schema"] == 3
    assert [(change.before, change.version) for change in registry.history] == [("tiny", "same")]
    assert registry.earlier == ("tiny",)
    assert rolled_back(gate, "tiny").in_service == "tiny"


def test_a_registry_of_a_newer_program_is_refused_and_not_touched(judged: tuple[Gate, Verdict]) -> None:
    """D1."""
    gate, verdict = judged
    path = gate.weights_dir / "registry.json"
    newer = '{"schema": 4, "in_service": "tiny", "more": []}'
    path.write_text(newer)
    with pytest.raises(PromotionError, match="schema 4, this program reads up to 3"):
        promoted(gate, verdict)
    with pytest.raises(ModelUnavailableError, match="schema 4"):
        put_into_service(gate.weights_dir, "same")
    assert path.read_text() == newer


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.update(in_service="same"),
        lambda content: content.update(revision=5),
        lambda content: content["history"].clear(),
        lambda content: content["history"][0].pop("who"),
        lambda content: content["history"][0].update(who=5),
        lambda content: content["history"][0].update(card_sha256=None),
        lambda content: content["history"][0].update(evidence=[]),
        lambda content: content["history"][0].update(revision=2),
    ],
)
def test_a_history_that_makes_no_sense_is_said(gate: Gate, spoil: Callable[[dict[str, Any]], object]) -> None:
    path = gate.weights_dir / "registry.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ModelUnavailableError, match="is damaged"):
        read_registry(gate.weights_dir)


def test_what_the_owner_does_at_a_shell_is_in_the_history_as_such(
    judged: tuple[Gate, Verdict], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate, _ = judged
    for name, value in gate.environment().items():
        monkeypatch.setenv(name, value)
    assert main(["serve", "same", "--comment", "the gate is closed on Sundays"]) == 0
    change = read_registry(gate.weights_dir).history[-1]
    assert (change.kind, change.comment) == (BY_HAND, "the gate is closed on Sundays")
    assert change.who.endswith("(command line)")
    assert not gate.settings.state_dir.exists(), "a checkout without administration gets no state folder"
    gate.settings.state_dir.mkdir()
    assert main(["serve", "tiny"]) == 0
    (entry,) = gate.audit.read()
    assert (entry.action, entry.subject, entry.details["gate"]) == ("promotion.done", "tiny", "not asked")
    assert main(["serve", "tiny"]) == 0
    assert read_registry(gate.weights_dir).revision == 3, "what is in service already is no change"


def test_no_page_goes_around_the_gate() -> None:
    for file in (PROJECT_ROOT / "pages").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert (
            "registry import" not in text or "put_into_service" not in text.split("registry import")[1].split("\n")[0]
        )
        assert "change_service" not in text


def test_judge_promote_and_rollback_from_the_command_line(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_version(gate.weights_dir, "tiny", "same")
    for name, value in gate.environment().items():
        monkeypatch.setenv(name, value)
    assert main(["promote", "same", "--comment", "x"]) == 1
    assert "has not been judged" in capsys.readouterr().err
    assert main(["judge", "same"]) == 0
    assert "same beside tiny: non-inferior" in capsys.readouterr().out
    assert main(["promote", "same", "--comment", "as good"]) == 0
    assert "in service: same (before: tiny)" in capsys.readouterr().out
    assert main(["rollback", "tiny", "--comment", "back"]) == 0
    assert [change.kind for change in read_registry(gate.weights_dir).history] == [BY_HAND, PROMOTED, ROLLED_BACK]
    assert actions(gate) == ["promotion.refused", "promotion.judged", "promotion.done", "rollback.done"]
    assert main(["judge", "tiny"]) == 1
    assert "is in service already" in capsys.readouterr().err


def test_rows_tell_where_each_version_came_from_and_how_it_stands(judged: tuple[Gate, Verdict]) -> None:
    gate, verdict = judged
    training = {"job": "j1", "data_sets": ["busi"], "config": {"start": "tiny"}}
    write_version(gate.weights_dir, "next", seed=1, training=training)
    (gate.weights_dir / "broken").mkdir()
    (gate.weights_dir / "broken/model.safetensors").touch()
    promoted(gate, verdict)
    rows = {row.name: row for row in list_rows(gate.weights_dir, read_registry(gate.weights_dir), gate.protocol)}
    assert {name: row.standing for name, row in rows.items()} == {
        "same": "in service",
        "tiny": "earlier",
        "next": "candidate",
        "broken": "candidate",
    }
    assert next(iter(rows)) == "same"
    assert rows["next"].origin == "job j1, started from tiny"
    assert rows["next"].data_sets == ("busi",)
    assert rows["broken"].problem is not None
    assert set(rows["same"].figures) == {"small"}
