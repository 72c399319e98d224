"""What a table of classes says of the scans, and what is said where it is wrong."""

import pytest
from uploads import pack

from busi_core.data.pairing import Batch, pair_files, pair_folders
from busi_core.data.sources import SourceFile, list_uploads, list_zip
from busi_core.errors import InvalidImageError
from busi_core.types import Diagnosis

TABLE = b"ID,Case,Pathology\nbus_0001-l,1,malignant\n"


def with_table(table: bytes, *scans: str, keep_all: bool = False) -> Batch:
    """Scans, and BUS-BRA's table in the same folder."""
    files = [("set/bus_data.csv", table), *((f"set/Images/{scan}.png", b"") for scan in scans)]
    return pair_files(list_uploads(files), keep_all=keep_all)


def classes(batch: Batch) -> list[Diagnosis | None]:
    return [case.diagnosis for case in batch.cases]


def table_of(word: str, case: int = 1) -> bytes:
    return f"ID,Case,Pathology\nbus_0001-l,{case},{word}\n".encode()


def test_a_table_counts_for_its_own_folder_and_what_lies_below_it() -> None:
    """A second set with the same file names once got the classes of the first. Case 1 is another patient there."""
    files = [
        ("A/bus_data.csv", table_of("benign")),
        ("A/Images/bus_0001-l.png", b""),
        ("B/bus_data.csv", table_of("malignant")),
        ("B/Images/bus_0001-l.png", b""),
        ("C/bus_0001-l.png", b""),
    ]
    for listed in (list_uploads(files), list_uploads(files[::-1]), list_zip(pack(dict(files)))):
        for batch in (pair_files(listed), pair_folders(listed, []), pair_folders(listed[:], listed)):
            assert classes(batch) == [Diagnosis.BENIGN, Diagnosis.MALIGNANT, None]
            assert [case.patient for case in batch.cases] == ["A/1", "B/1", None]
            assert batch.problems == ()


def test_the_nearest_table_above_a_scan_decides_even_where_it_cannot_be_read() -> None:
    files = [("bus_data.csv", table_of("benign")), ("bus_0001-l.png", b"")]
    for name, table in (("a", table_of("malignant")), ("b", b"ID,Case,Pathology\n"), ("c", b"\xff\xfe")):
        files += [(f"{name}/bus_data.csv", table), (f"{name}/Images/bus_0001-l.png", b"")]
    batch = pair_files(list_uploads(files))
    assert {case.name: case.diagnosis for case in batch.cases} == {
        "bus_0001-l.png": Diagnosis.BENIGN,
        "a/Images/bus_0001-l.png": Diagnosis.MALIGNANT,
        "b/Images/bus_0001-l.png": None,
        "c/Images/bus_0001-l.png": None,
    }
    assert [name for problem in batch.problems for name in ("a/", "b/", "c/") if name in problem] == ["c/", "b/"]


def test_a_table_of_the_folder_of_masks_counts_for_the_scans_of_the_other() -> None:
    scans = list_uploads([("bus_0001-l.png", b"")])
    batch = pair_folders(scans, list_uploads([("bus_data.csv", TABLE), ("mask_0001-l.png", b"")]))
    assert [len(case.masks) for case in batch.cases] == [1]
    assert classes(batch) == [Diagnosis.MALIGNANT]
    assert batch.cases[0].patient == "1"
    assert batch.problems == ()


@pytest.mark.parametrize("words", [("benign", "malignant"), ("malignant", "benign"), ("benign", "normal", "benign")])
def test_a_scan_to_which_a_table_gives_two_classes_has_none_and_that_is_said(words: tuple[str, ...]) -> None:
    table = "ID,Pathology\nbus_0002-l,normal\n" + "".join(f"bus_0001-l,{word}\n" for word in words)
    batch = with_table(table.encode(), "bus_0001-l", "bus_0002-l")
    assert classes(batch) == [None, Diagnosis.NORMAL]
    (problem,) = batch.problems
    assert "'set/bus_data.csv'" in problem
    assert "more than one class to bus_0001-l:" in problem


def test_nor_does_its_folder_decide_between_two_classes_of_a_table() -> None:
    files = [("benign/bus_data.csv", TABLE + b"bus_0001-l,1,benign\n"), ("benign/bus_0001-l.png", b"")]
    batch = pair_files(list_uploads(files))
    assert classes(batch) == [None]
    assert len(batch.problems) == 1


@pytest.mark.parametrize("cases", [("1", "2"), ("2", "1"), ("1", "2", "1"), ("1", "")])
def test_a_scan_to_which_a_table_gives_two_patients_is_counted_with_neither(cases: tuple[str, ...]) -> None:
    """Whose other images it would be drawn with in the intervals would be a guess."""
    table = "ID,Case,Pathology\n" + "".join(f"bus_0001-l,{case},malignant\n" for case in cases)
    (scan,) = with_table(table.encode(), "bus_0001-l").cases
    assert (scan.diagnosis, scan.patient) == (Diagnosis.MALIGNANT, None)


def test_a_row_that_a_table_has_twice_is_one_row() -> None:
    batch = with_table(TABLE + b"bus_0001-l,1,malignant\n", "bus_0001-l")
    assert (classes(batch), batch.problems) == ([Diagnosis.MALIGNANT], ())


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbf" + TABLE,
        TABLE.replace(b"\n", b"\r\n"),
        TABLE.replace(b"\n", b"\r"),
        TABLE.replace(b",", b";"),
        b"ID;Case;Histology, in words;Pathology\nbus_0001-l;1;a, b, c;malignant\n",
        TABLE.replace(b"malignant", b" Malignant "),
        TABLE.replace(b",", b", "),
        TABLE.replace(b"Pathology", b"pathology").replace(b"ID", b" id "),
        b'ID, Case, Pathology\nbus_0001-l, "1", "malignant"\n',
        TABLE + b",,\n\n  \n , ,\n",
    ],
)
def test_how_a_table_was_saved_changes_no_class(table: bytes) -> None:
    batch = with_table(table, "bus_0001-l")
    assert (classes(batch), batch.problems) == ([Diagnosis.MALIGNANT], ())
    assert batch.cases[0].patient == "set/1"


@pytest.mark.parametrize(
    "row",
    [
        b"bus_0002-l,2,unknown\n",
        b"bus_0002-l\n",
        b",2,benign\n",
        b'"bus_0002-l"x,2,benign\n',
        b"\0\0\n",
        b'bus_0002-l,2,"benign\n"bus_0004-l",4,benign\n',
        b'bus_0002-l,"' + b"x" * 200_000 + b'",benign\n',
    ],
)
def test_a_bad_row_costs_only_itself_and_is_named(row: bytes) -> None:
    batch = with_table(TABLE + row + b'"bus_0003-l",3,benign\n', "bus_0001-l", "bus_0002-l", "bus_0003-l")
    assert classes(batch) == [Diagnosis.MALIGNANT, None, Diagnosis.BENIGN]
    (problem,) = batch.problems
    assert "'set/bus_data.csv' has rows without an ID or a known class" in problem
    assert ("line 3." if row.count(10) == 1 else "line 3 to 4.") in problem


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"", "no columns ID and Pathology"),
        (b"name,class\nbus_0001-l,benign\n", "no columns ID and Pathology"),
        (TABLE.decode().encode("utf-16"), "no text in UTF-8"),
        (TABLE + "bus_0002-l,Frühling,benign\n".encode("latin-1"), "no text in UTF-8"),
        (b"ID,Case,Pathology\n", "names no scan"),
        (TABLE.replace(b"-l,", b"-l.png,"), "names no scan"),
        (TABLE.replace(b"malignant", b"cancer"), "known class"),
    ],
)
@pytest.mark.parametrize("chosen", [False, True], ids=["a folder", "chosen one by one"])
def test_a_table_that_gives_no_class_is_named(table: bytes, words: str, chosen: bool) -> None:
    batch = with_table(table, "bus_0001-l", keep_all=chosen)
    assert classes(batch) == [None]
    (problem,) = batch.problems
    assert "'set/bus_data.csv'" in problem
    assert words in problem
    assert with_table(table, "benign (1)").problems == (() if words == "names no scan" else (problem,))


def test_a_table_that_cannot_be_opened_is_named_with_the_reason() -> None:
    def refuse() -> bytes:
        raise InvalidImageError("The file cannot be opened.", remedy="Check its permissions.")

    batch = pair_files([SourceFile("bus_data.csv", 3, refuse), *list_uploads([("bus_0001-l.png", b"")])])
    assert batch.problems == (
        "The table 'bus_data.csv' gives no class: The file cannot be opened. Check its permissions.",
    )


def test_of_many_bad_rows_some_are_named_and_the_others_counted() -> None:
    (problem,) = with_table(TABLE + b"x\n" * 1000, "bus_0001-l").problems
    assert "line 3, 4, 5, 6, 7 and 995 more." in problem
