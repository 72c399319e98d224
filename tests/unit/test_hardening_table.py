"""The tables of promises name tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs/hardening.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE)
FILES = sorted(set(re.findall(r"`(tests/[\w/]+(?:\.py)?)`", TABLE)))
WHERE = {"over the wire": ["tests/app/test_over_the_wire.py"], "in the browser": ["tests/browser"]}
BARE = [
    (place, name)
    for place, names in re.findall(rf"({'|'.join(WHERE)}): ((?:`\w+`(?:, )?)+)", TABLE)
    for name in re.findall(r"`(\w+)`", names)
]
PROMISES = {"U": 22, "W": 3, "A": 5, "J": 7, "C": 5, "D": 1, "X": 1}
IDS = [f"{letter}{number}" for letter, last in PROMISES.items() for number in range(1, last + 1)] + ["G1", "G3"]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_in_the_table_exists(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(("place", "name"), BARE)
def test_every_test_named_by_its_place_exists_there(place: str, name: str) -> None:
    files = [
        file for path in WHERE[place] for file in [ROOT / path, *(ROOT / path).glob("test_*.py")] if file.is_file()
    ]
    assert any(f"def {name}(" in file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("path", FILES)
def test_every_file_of_tests_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_no_name_of_a_test_in_the_tables_goes_unchecked() -> None:
    checked = {name for _, name in [*NAMED, *BARE]}
    assert set(re.findall(r"\btest_\w+\b(?!\.py)", TABLE)) == checked
    assert len(NAMED) > 20
    assert len(BARE) > 10


@pytest.mark.parametrize("id", IDS)
def test_every_promise_has_a_row_that_names_a_test(id: str) -> None:
    rows = re.findall(rf"^\| {id} \|.*$", TABLE, re.MULTILINE)
    assert rows
    assert all("test_" in row for row in rows)
