"""The table of promises names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs/hardening.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE)
PROMISES = {"U": 22, "W": 3, "A": 5, "J": 7, "C": 5, "D": 1, "X": 1}
IDS = [f"{letter}{number}" for letter, last in PROMISES.items() for number in range(1, last + 1)] + ["G1", "G3"]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_in_the_table_exists(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_table_is_not_empty() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize("id", IDS)
def test_every_promise_has_a_row_that_names_a_test(id: str) -> None:
    rows = re.findall(rf"^\| {id} \|.*$", TABLE, re.MULTILINE)
    assert rows
    assert all("test_" in row for row in rows)
