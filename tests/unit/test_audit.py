"""The audit log: only added to, and whatever is done to it behind the program's back is found and named."""

import csv
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from busi_core.audit import ACTIONS, START, AuditLog, Entry, export_jsonl, open_audit
from busi_core.audit_export import export_csv, say_details, select_entries
from busi_core.errors import OutputError
from busi_core.settings import read_settings

TRIGGERS = {
    *("entries_stay", "entries_remain", "entries_follow", "entries_move_the_head"),
    *("head_remains", "head_is_one", "head_moves_on"),
}


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    """Six entries."""
    log = AuditLog(tmp_path / "audit.sqlite")
    log.append("anna@hospital.example", "sign-in", "provider")
    log.append("anna@hospital.example", "dataset.accepted", "clinic-0123456789ab", items=12, licence="in-house")
    log.append("anna@hospital.example", "job.queued", "job-1", data_sets=["busi", "clinic-0123456789ab"], epochs=3)
    log.append("anna@hospital.example", "job.done", "job-1", best_dice=0.8125)
    log.append("björn (command line)", "promotion.refused", "2026.12-a", reason="worse", difference=-0.05)
    log.append("anna@hospital.example", "sign-out", "provider")
    return log


def tamper(log: AuditLog, *statements: str, **values: object) -> None:
    """As somebody with the file and an SQLite shell, who also knows of the triggers."""
    with closing(sqlite3.connect(log.path, isolation_level=None)) as connection:
        kept = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall())
        assert set(kept) == TRIGGERS
        for name in kept:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement, values)
        for statement in kept.values():
            connection.execute(statement)


# ---- Writing -------------------------------------------------------------------------------------------------


def test_an_entry_reads_back_as_it_was_written(log: AuditLog) -> None:
    entry = log.read()[2]
    assert (entry.number, entry.who, entry.action, entry.subject) == (3, "anna@hospital.example", "job.queued", "job-1")
    assert entry.details == {"data_sets": ["busi", "clinic-0123456789ab"], "epochs": 3}
    moment = datetime.fromisoformat(entry.when)
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)


def test_every_hash_is_the_sha256_of_the_entry_and_carries_the_one_before(log: AuditLog) -> None:
    """Computed here from the file with nothing of the program: what an auditor would do."""
    with closing(sqlite3.connect(log.path)) as connection:
        rows = connection.execute("SELECT * FROM entries ORDER BY number").fetchall()
    before = START
    for number, when, who, action, subject, details, says_before, says in rows:
        assert says_before == before
        whole = json.dumps(
            [number, when, who, action, subject, json.loads(details), before], sort_keys=True, separators=(",", ":")
        )
        before = hashlib.sha256(whole.encode("ascii")).hexdigest()
        assert says == before
    assert len(rows) == 6


def test_an_untouched_log_is_whole(log: AuditLog) -> None:
    assert log.verify() is None


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    assert AuditLog(tmp_path / "none.sqlite").verify() is None


def test_it_lies_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_STATE_DIR", str(tmp_path / "state"))
    open_audit(read_settings()).append("anna", "sign-in", "")
    assert (tmp_path / "state" / "audit.sqlite").is_file()


def test_an_action_that_is_not_in_the_list_is_refused(log: AuditLog) -> None:
    with pytest.raises(ValueError, match="no action of the audit log"):
        log.append("anna", "coffee.made", "")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_know_is_refused(log: AuditLog, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        log.append("anna", "job.failed", "job-1", loss=value)
    assert len(log.read()) == 6


def test_bytes_never_enter_the_log(log: AuditLog) -> None:
    with pytest.raises(TypeError):
        log.append("anna", "job.failed", "job-1", pixels=b"\x00\x01")


def test_an_entry_that_is_too_long_is_refused_in_words(log: AuditLog) -> None:
    with pytest.raises(OutputError, match="too long"):
        log.append("anna", "promotion.done", "2026.12-a", comment="x" * 200_000)


def test_text_that_no_encoding_holds_is_kept_readable(log: AuditLog) -> None:
    log.append("\ud800anna", "sign-in", "\udfff")
    assert log.read()[-1].who == "\\ud800anna"
    assert log.verify() is None


def test_a_comment_in_another_encoding_stops_neither_the_log_nor_its_export(log: AuditLog) -> None:
    """A shell hands over what is no UTF-8 as half characters."""
    entry = log.append("anna", "rollback.done", "v1", comment="caf\udce9", more=[{"why": "\udce9"}])
    assert entry.details == {"comment": "caf\\udce9", "more": [{"why": "\\udce9"}]}
    assert log.find_difference(export_jsonl(log.read()).decode()) is None


def test_an_entry_of_an_older_program_that_holds_half_a_character_is_exported(log: AuditLog) -> None:
    entry = log.append("anna", "rollback.done", "v1", comment="x")
    older = replace(entry, details={"comment": "caf\udce9"})
    assert json.loads(export_jsonl([older]))["details"] == older.details


def test_several_processes_write_one_whole_chain(log: AuditLog) -> None:
    code = """
import sys
from pathlib import Path
from busi_core.audit import AuditLog
for number in range(15):
    AuditLog(Path(sys.argv[1])).append(f"process {sys.argv[2]}", "job.done", f"job-{number}")
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(log.path), str(n)]) for n in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    entries = log.read()
    assert [entry.number for entry in entries] == list(range(1, 6 + 4 * 15 + 1))
    assert {sum(entry.who == f"process {n}" for entry in entries) for n in range(4)} == {15}
    assert log.verify() is None


def nest(levels: int) -> str:
    """Details as JSON, so many lists in each other."""
    return f'{{"a":{"[" * levels}{"]" * levels}}}'


# ---- Not to be changed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET who = 'nobody' WHERE number = 2",
        "DELETE FROM entries WHERE number = 6",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries SELECT number, moment, 'x', '', '', '{}', before, hash FROM entries",
        "INSERT INTO entries VALUES (8, '', '', '', '', '{}', '', '')",
        "UPDATE head SET number = 3",
        "DELETE FROM head",
        "INSERT OR REPLACE INTO head VALUES (1, 3, 'x')",
    ],
)
def test_the_file_itself_refuses_to_change_or_forget_an_entry(log: AuditLog, statement: str) -> None:
    with closing(sqlite3.connect(log.path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert log.verify() is None


@pytest.mark.parametrize(
    ("statements", "first"),
    [
        pytest.param(["UPDATE entries SET who = 'nobody' WHERE number = 2"], 2, id="who"),
        pytest.param(["UPDATE entries SET moment = '2020-01-01T00:00:00.000+00:00' WHERE number = 1"], 1, id="when"),
        pytest.param(["UPDATE entries SET action = 'job.failed' WHERE number = 4"], 4, id="action"),
        pytest.param(["UPDATE entries SET subject = 'job-2' WHERE number = 3"], 3, id="subject"),
        pytest.param(["""UPDATE entries SET details = '{"reason":"better"}' WHERE number = 5"""], 5, id="details"),
        pytest.param(["""UPDATE entries SET details = '{ }' WHERE number = 1"""], 1, id="spelling"),
        pytest.param(["UPDATE entries SET details = 'no json' WHERE number = 5"], 5, id="no JSON"),
        pytest.param(["UPDATE entries SET details = x'ff00' WHERE number = 5"], 5, id="bytes"),
        pytest.param(["UPDATE entries SET who = CAST(x'ff' AS TEXT) WHERE number = 5"], 5, id="no UTF-8"),
        pytest.param(["UPDATE entries SET details = '{\"a\":NaN}' WHERE number = 5"], 5, id="not a number"),
        pytest.param(["UPDATE entries SET details = '{\"a\":1e999}' WHERE number = 5"], 5, id="infinite"),
        pytest.param(["UPDATE entries SET who = x'61' WHERE number = 5"], 5, id="bytes for who"),
        pytest.param(["UPDATE entries SET subject = x'61' WHERE number = 1"], 1, id="bytes for subject"),
        pytest.param(["UPDATE entries SET hash = before WHERE number = 6"], 6, id="hash of the last"),
        pytest.param(["UPDATE head SET number = 'six'"], 7, id="text for the last number"),
        pytest.param(["UPDATE head SET number = x'06'"], 7, id="bytes for the last number"),
        pytest.param(["UPDATE head SET number = 2.5"], 7, id="half a number for the last"),
        pytest.param(["DELETE FROM entries WHERE number = 3"], 3, id="removed"),
        pytest.param(["DELETE FROM entries WHERE number = 1"], 1, id="first removed"),
        pytest.param(["DELETE FROM entries WHERE number = 6"], 6, id="last removed"),
        pytest.param(["DELETE FROM entries WHERE number > 2"], 3, id="end removed"),
        pytest.param(["DELETE FROM entries"], 1, id="all removed"),
        pytest.param(["DELETE FROM entries", "DELETE FROM head"], 1, id="all and the head removed"),
        pytest.param(
            [
                "UPDATE entries SET number = 99 WHERE number = 2",
                "UPDATE entries SET number = 2 WHERE number = 4",
                "UPDATE entries SET number = 4 WHERE number = 99",
            ],
            2,
            id="moved",
        ),
        pytest.param(
            ["DELETE FROM entries WHERE number = 4", "UPDATE entries SET number = number - 1 WHERE number > 4"],
            4,
            id="removed and closed up",
        ),
        pytest.param(
            [
                "INSERT INTO entries SELECT 7, moment, 'eve', 'job.done', 'job-1', '{}', hash, hash FROM entries "
                "WHERE number = 6"
            ],
            7,
            id="added",
        ),
    ],
)
def test_what_was_done_behind_the_programs_back_is_found_and_named(
    log: AuditLog, statements: list[str], first: int
) -> None:
    tamper(log, *statements)
    assert log.verify() == first
    exported = export_jsonl(log.read()).decode()  # and still shows what stands there
    assert not log.read() or log.find_difference(exported) is None


@pytest.mark.parametrize("levels", [25, 900, 100_000])
def test_details_nested_so_deep_that_no_reader_follows_are_found_and_named(log: AuditLog, levels: int) -> None:
    tamper(log, "UPDATE entries SET details = :deep WHERE number = 5", deep=nest(levels))
    assert log.verify() == 5
    assert log.find_difference(export_jsonl(log.read()).decode()) is None


@pytest.mark.parametrize("statement", ["UPDATE head SET number = 'six'", "DELETE FROM head"])
def test_where_the_last_number_is_gone_nothing_is_added_and_nothing_done(log: AuditLog, statement: str) -> None:
    tamper(log, statement)
    with pytest.raises(OutputError, match="was changed behind the program's back"):
        log.append("anna", "promotion.done", "2026.12-a")
    assert len(log.read()) == 6


def test_details_nested_beyond_sense_are_refused(log: AuditLog) -> None:
    with pytest.raises(ValueError, match="nested"):
        log.append("anna", "job.failed", "job-1", **json.loads(nest(900)))
    assert len(log.read()) == 6


def forge(entry: Entry, **changes: str) -> tuple[object, ...]:
    """A row with the right hash, by somebody who knows the program."""
    parts = [entry.number, entry.when, entry.who, entry.action, entry.subject, dict(entry.details), entry.before]
    parts[2] = changes.get("who", parts[2])
    own = hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return (*parts[:5], json.dumps(parts[5], sort_keys=True, separators=(",", ":")), parts[6], own)


def test_a_changed_entry_with_its_hash_made_anew_breaks_the_next_one(log: AuditLog) -> None:
    row = forge(log.read()[1], who="eve")
    tamper(log, "UPDATE entries SET who = 'eve', hash = :own WHERE number = 2", own=row[-1])
    assert log.verify() == 3


def test_a_changed_last_entry_with_its_hash_made_anew_does_not_fit_the_kept_head(log: AuditLog) -> None:
    row = forge(log.read()[5], who="eve")
    tamper(log, "UPDATE entries SET who = 'eve', hash = :own WHERE number = 6", own=row[-1])
    assert log.verify() == 6


def test_an_added_entry_with_the_right_hash_does_not_fit_the_kept_head(log: AuditLog) -> None:
    last = log.read()[5]
    added = forge(Entry(7, last.when, "eve", "job.done", "job-1", {}, last.hash, ""))
    insert = "INSERT INTO entries VALUES (7, :moment, 'eve', 'job.done', 'job-1', '{}', :before, :own)"
    tamper(log, insert, moment=last.when, before=last.hash, own=added[-1])
    assert log.verify() == 7


def test_a_log_cut_off_with_its_head_set_back_is_found_by_an_export_only(log: AuditLog) -> None:
    """What the docstring admits: nobody holds a key, so only a witness elsewhere shows this."""
    exported = export_jsonl(log.read()).decode()
    entries = log.read()
    set_back = "UPDATE head SET number = 4, hash = :own"
    tamper(log, "DELETE FROM entries WHERE number > 4", set_back, own=entries[3].hash)
    assert log.verify() is None
    assert log.find_difference(exported) == 5


# ---- Exports -------------------------------------------------------------------------------------------------


def test_a_log_that_went_on_holds_every_entry_of_an_earlier_export(log: AuditLog) -> None:
    exported = export_jsonl(log.read()).decode()
    log.append("anna", "rollback.done", "2026.11-a", comment="Besser so: ‚ä‘\nzweite Zeile\u2028dritte")
    assert log.find_difference(exported) is None
    assert log.find_difference(export_jsonl(log.read()).decode()) is None


def test_an_export_of_another_log_names_the_first_entry_that_differs(log: AuditLog, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "other.sqlite")
    other.append("eve", "sign-in", "provider")
    assert log.find_difference(export_jsonl(other.read()).decode()) == 1


@pytest.mark.parametrize(
    "text",
    ["no json", "[1, 2]", '{"who": "x"}', '{"number": null}', '"x"', '{"number": Infinity}', "[" * 100_000],
    ids=lambda text: text[:20],
)
def test_what_is_no_export_is_refused_in_words(log: AuditLog, text: str) -> None:
    with pytest.raises(OutputError, match="no export"):
        log.find_difference(text)


def test_an_empty_file_is_no_export(log: AuditLog) -> None:
    with pytest.raises(OutputError, match="no export"):
        log.find_difference("\n")


def test_the_csv_holds_every_entry_and_no_formula(log: AuditLog) -> None:
    log.append("anna", "promotion.done", "=cmd|' /C calc'!A0", comment="@SUM(A1)")
    rows = list(csv.DictReader(io.StringIO(export_csv(log.read()).decode("utf-8-sig"))))
    assert [int(row["number"]) for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[4]["who"] == "björn (command line)"
    assert json.loads(rows[3]["details"]) == {"best_dice": 0.8125}
    assert rows[6]["subject"].startswith("'=")
    assert rows[5]["hash"] == rows[6]["before"]


def test_entries_are_chosen_by_who_what_when_and_words(log: AuditLog) -> None:
    entries = log.read()

    def numbers(chosen: list[Entry]) -> list[int]:
        return [entry.number for entry in chosen]

    assert numbers(select_entries(entries)) == [1, 2, 3, 4, 5, 6]
    assert numbers(select_entries(entries, who=["björn (command line)"])) == [5]
    assert numbers(select_entries(entries, actions=["job.queued", "job.done"])) == [3, 4]
    assert numbers(select_entries(entries, text=" CLINIC-0123456789AB ")) == [2, 3]
    today = datetime.fromisoformat(entries[0].when).date()
    assert numbers(select_entries(entries, first=today)) == [1, 2, 3, 4, 5, 6]
    assert not select_entries(entries, last=today - timedelta(days=1))
    assert not select_entries(entries, first=date(2999, 1, 1))


def test_details_are_said_on_one_line(log: AuditLog) -> None:
    assert say_details(log.read()[2].details) == "data sets: busi, clinic-0123456789ab · epochs: 3"
    assert say_details({}) == ""


# ---- Disk and schema -----------------------------------------------------------------------------------------


def run_with_full_disk(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose files cannot grow; as on a full disk, the system refuses the write itself."""
    limit = f"""
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
from busi_core.audit import AuditLog
from busi_core.errors import OutputError
log = AuditLog(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
{code}
"""
    return subprocess.run(
        [sys.executable, "-c", limit, str(path)], capture_output=True, text=True, check=False, env=os.environ
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a process's files")
def test_on_a_full_disk_the_action_does_not_happen_and_the_log_stays_whole(log: AuditLog, tmp_path: Path) -> None:
    """J4: whoever writes first and then acts does not come to act."""
    deed = tmp_path / "deed"
    ended = run_with_full_disk(
        log.path,
        f"""
try:
    log.append("anna", "promotion.done", "2026.12-a")
    Path({str(deed)!r}).touch()
except OutputError as error:
    print(error.problem)
""",
    )
    assert "audit.sqlite could not be read or written" in ended.stdout, ended.stderr
    assert not deed.exists()
    assert log.verify() is None
    assert len(log.read()) == 6
    assert log.append("anna", "promotion.done", "2026.12-a").number == 7  # once there is room again


@pytest.mark.parametrize("reading", [AuditLog.read, AuditLog.verify])
def test_a_log_of_a_newer_program_is_refused(log: AuditLog, reading: Callable[[AuditLog], object]) -> None:
    """D1."""
    with closing(sqlite3.connect(log.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = log.path.read_bytes()
    with pytest.raises(OutputError, match="Update the program"):
        reading(log)
    with pytest.raises(OutputError, match="Update the program"):
        log.append("anna", "sign-in", "")
    assert log.path.read_bytes() == before


def test_the_list_of_actions_is_the_one_agreed() -> None:
    assert len(set(ACTIONS)) == len(ACTIONS) == 16
    assert all(action == action.lower() and " " not in action for action in ACTIONS)
