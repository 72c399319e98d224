"""`busi datasets` as the owner of the machine meets it at a shell."""

from pathlib import Path

import pytest
from uploads import pack, three_classes, write_public_sets

from busi_core.audit import AuditLog
from busi_core.cli import main
from busi_core.managed.store import list_sets


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_public_sets(tmp_path / "data")
    (tmp_path / "set.zip").write_bytes(pack(three_classes(2) | {"benign/bad.png": b"x"}))
    monkeypatch.setenv("BUSI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BUSI_DATA_ROOT", str(tmp_path / "data"))
    return tmp_path / "state"


WORDS = ["--name", "anna", "--source", "St Anna", "--licence", "consent"]


def test_examine_prints_the_report_and_keeps_nothing(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["datasets", "examine", str(tmp_path / "set.zip")]) == 0
    said = capsys.readouterr().out
    assert "benign              3         3       2" in said
    assert "benign/bad.png: cannot be read." in said
    assert "beware: Few distinct scans" in said
    assert list_sets(state_dir) == []


def test_no_name_of_a_file_gives_the_terminal_orders(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """U18: neither a line of its own nor a colour."""
    (tmp_path / "evil.zip").write_bytes(pack(three_classes(2) | {"benign/a\nFAKE: kept\x1b[31m.png": b"x"}))
    assert main(["datasets", "examine", str(tmp_path / "evil.zip")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert r"benign/a\nFAKE: kept\x1b[31m.png: cannot be read." in "\n".join(lines)
    assert all(line.isprintable() and not line.startswith("FAKE") for line in lines)


def test_add_keeps_what_can_be_kept_under_the_owners_name_and_the_list_shows_it(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["datasets", "add", str(tmp_path / "set.zip"), *WORDS]) == 0
    said = capsys.readouterr().out
    (managed,) = list_sets(state_dir)
    assert "kept: 6 scans, 6 distinct. Left out: cannot be read (1)." in said
    assert said.splitlines()[-1] == managed.id
    assert managed.who.endswith("(command line)")
    assert [entry.subject for entry in AuditLog(state_dir / "audit.sqlite").read()] == [managed.id]
    assert main(["datasets"]) == 0
    assert f"{managed.id}" in capsys.readouterr().out


def test_a_folder_is_read_as_a_zip_is(state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in three_classes(2).items():
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(data)
    assert main(["datasets", "add", str(tmp_path / "scans"), *WORDS]) == 0
    assert main(["datasets", "add", str(tmp_path / "set.zip"), *WORDS, "--clean"]) == 0
    capsys.readouterr()
    assert len(list_sets(state_dir)) == 1  # the scans of the two are the same


@pytest.mark.parametrize("path", ["nothing.zip", "empty"])
def test_what_is_not_there_is_said_in_words(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["datasets", "examine", str(tmp_path / path)]) == 1
    assert "busi: " in capsys.readouterr().err
    assert not state_dir.exists()
