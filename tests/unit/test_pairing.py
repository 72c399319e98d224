"""Which mask belongs to which scan, and what class a layout gives it."""

from pathlib import Path

import pytest
from files import dicom, save, speckle
from uploads import pack

from busi_core.data.pairing import Batch, pair_files, pair_folders
from busi_core.data.sources import SourceFile, list_folder, list_uploads, list_zip
from busi_core.errors import InvalidImageError
from busi_core.types import Diagnosis

TABLE = b"ID,Case,Pathology\nbus_0001-l,1,malignant\n"


def paired(*names: str, keep_all: bool = False) -> Batch:
    return pair_files(
        list_uploads([(name, TABLE if name.endswith("csv") else b"") for name in names]), keep_all=keep_all
    )


def one(name: str) -> SourceFile:
    (file,) = list_uploads([(name, b"x")])
    return file


def shape(batch: Batch) -> list[tuple[str, list[str], Diagnosis | None]]:
    return [(case.name, [mask.name for mask in case.masks], case.diagnosis) for case in batch.cases]


def test_busi_layout() -> None:
    batch = paired(
        "benign/benign (10).png", "benign/benign (2)_mask_1.png", "benign/benign (2).png", "benign/benign (2)_mask.png"
    )
    assert shape(batch) == [
        ("benign/benign (2).png", ["benign/benign (2)_mask.png", "benign/benign (2)_mask_1.png"], Diagnosis.BENIGN),
        ("benign/benign (10).png", [], Diagnosis.BENIGN),
    ]
    assert batch.cases[0].record_id == "busi/benign (2)"


@pytest.mark.parametrize("folder", ["", "any/depth/"])
def test_bus_bra_layout(folder: str) -> None:
    batch = paired(f"{folder}Images/bus_0001-l.png", f"{folder}Masks/mask_0001-l.png", f"{folder}bus_data.csv")
    assert shape(batch) == [(f"{folder}Images/bus_0001-l.png", [f"{folder}Masks/mask_0001-l.png"], Diagnosis.MALIGNANT)]
    assert batch.cases[0].record_id == "bus-bra/bus_0001-l"


def test_a_loose_scan_takes_its_class_from_its_folder_or_has_none() -> None:
    assert shape(paired("Malignant/x.jpg", "y.dcm")) == [
        ("Malignant/x.jpg", [], Diagnosis.MALIGNANT),
        ("y.dcm", [], None),
    ]


def test_two_scans_of_one_name_are_two_cases() -> None:
    """U17."""
    first, second = paired("same.png", "same.png").cases
    assert first.id != second.id


def test_upper_and_lower_case_keep_no_mask_from_its_scan() -> None:
    batch = paired("benign/a.PNG", "benign/A_MASK.png", "benign/a_Mask_1.png")
    assert shape(batch) == [("benign/a.PNG", ["benign/A_MASK.png", "benign/a_Mask_1.png"], Diagnosis.BENIGN)]
    elsewhere = pair_folders(list_uploads([("a.png", b"")]), list_uploads([("A_Mask.PNG", b"")]))
    assert shape(elsewhere) == [("a.png", ["A_Mask.PNG"], None)]


def test_of_two_scans_that_only_case_tells_apart_each_has_the_mask_of_its_own_name_alone() -> None:
    batch = paired("a.png", "A.png", "A_mask.png", "B.png", "b.png", "b_mask.png", "Ab.png", "aB.png", "AB_mask.png")
    assert {case.name: [mask.name for mask in case.masks] for case in batch.cases if case.masks} == {
        "A.png": ["A_mask.png"],
        "b.png": ["b_mask.png"],
    }
    assert [mask.name for mask in batch.lone_masks] == ["AB_mask.png"]


def test_a_mask_without_its_scan_and_other_files_are_named() -> None:
    batch = paired("a_mask.png", "notes.txt", "b.png")
    assert [mask.name for mask in batch.lone_masks] == ["a_mask.png"]
    assert batch.left_out == ("notes.txt",)


EXPORTED = ("DICOM/IM000001", "DICOM/1.2.840.7", "DICOM/1.2.840.8")


@pytest.mark.parametrize("road", ["uploads", "a zip", "a folder"])
def test_what_a_hospital_exports_without_suffixes_is_found_by_its_content(road: str, tmp_path: Path) -> None:
    """DICOMDIR only lists the others; masks go by the whole name, since of '1.2.840.7' no part is a suffix."""
    scan, mask = dicom(speckle()), save(speckle(), "PNG")
    content = dict.fromkeys((*EXPORTED, "DICOMDIR"), scan) | {
        "DICOM/1.2.840.7_mask.png": mask,
        "README": b"of a viewer",
    }
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    listed = {
        "uploads": lambda: list_uploads(content.items()),
        "a zip": lambda: list_zip(pack(content)),
        "a folder": lambda: list_folder(tmp_path),
    }[road]()
    batch = pair_files(listed)
    assert {case.name: [file.name for file in case.masks] for case in batch.cases} == {
        "DICOM/1.2.840.7": ["DICOM/1.2.840.7_mask.png"],
        "DICOM/1.2.840.8": [],
        "DICOM/IM000001": [],
    }
    assert set(batch.left_out) == {"DICOMDIR", "README"}
    assert [case.scan.read() for case in batch.cases] == [scan] * 3
    apart = pair_folders([file for file in listed if "mask" not in file.name], [f for f in listed if "mask" in f.name])
    assert {case.name: len(case.masks) for case in apart.cases} == {case.name: len(case.masks) for case in batch.cases}


def test_a_file_that_cannot_be_opened_is_left_out_by_its_name_and_stops_nothing() -> None:
    def refuse() -> bytes:
        raise InvalidImageError("The file cannot be opened.", remedy="Check its permissions.")

    batch = pair_files([SourceFile("locked", 3, refuse), one("a.png")])
    assert [case.name for case in batch.cases] == ["a.png"]
    assert batch.left_out == ("locked",)


def test_files_chosen_one_by_one_all_get_their_row() -> None:
    """U20: one bad extension does not stop the others, and is not passed over in silence."""
    assert [case.name for case in paired("a.png", "notes.txt", "bus_data.csv", keep_all=True).cases] == [
        "a.png",
        "notes.txt",
    ]


def test_masks_of_another_folder_are_found_by_path_then_by_name() -> None:
    images = list_uploads([("a/x.png", b""), ("b/x.png", b""), ("y.png", b""), ("c/z.png", b"")])
    masks = list_uploads(
        [("a/x.png", b""), ("b/x_mask.png", b""), ("deep/y_mask_1.png", b""), ("p/z.png", b""), ("q/z.png", b"")]
    )
    batch = pair_folders(images, masks)
    assert {case.name: [mask.name for mask in case.masks] for case in batch.cases} == {
        "a/x.png": ["a/x.png"],
        "b/x.png": ["b/x_mask.png"],
        "y.png": ["deep/y_mask_1.png"],
        "c/z.png": [],  # two of that name: which one is not guessed
    }
    assert sorted(mask.name for mask in batch.lone_masks) == ["p/z.png", "q/z.png"]


@pytest.mark.parametrize("beside", [False, True], ids=["nothing beside", "its own mask beside"])
def test_a_scan_gets_no_mask_by_a_file_name_that_another_scan_has_too(beside: bool) -> None:
    """U17: scanners call each patient's first scan IM0001; the only mask of that name is the other patient's."""
    images = [one("patientA/IM0001.png"), one("patientB/IM0001.png")]
    images += [one("patientB/IM0001_mask.png")] if beside else []
    batch = pair_folders(images, [one("patientA/IM0001_mask.png")])
    assert {case.name: [mask.name for mask in case.masks] for case in batch.cases} == {
        "patientA/IM0001.png": ["patientA/IM0001_mask.png"],
        "patientB/IM0001.png": ["patientB/IM0001_mask.png"] if beside else [],
    }
    neither = pair_folders(images[:2], [one("IM0001_mask.png")])
    assert [case.masks for case in neither.cases] == [(), ()]
    assert [mask.name for mask in neither.lone_masks] == ["IM0001_mask.png"]


def test_masks_of_bus_bra_below_the_folder_of_scans_are_no_scans() -> None:
    images = list_uploads([("Images/bus_0001-l.png", b""), ("Masks/mask_0001-l.png", b"")])
    batch = pair_folders(images, list_uploads([("mask_0001-l.png", b"")]))
    assert [case.name for case in batch.cases] == ["Images/bus_0001-l.png"]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "scans"), [("busi", 633), ("bus-bra", 1127)])
def test_every_scan_of_the_public_sets_finds_its_mask_and_class(data_root: Path, name: str, scans: int) -> None:
    batch = pair_files(list_folder(data_root / name))
    assert len(batch.cases) == scans
    assert not batch.lone_masks
    assert all(case.masks and case.diagnosis for case in batch.cases)


def test_two_scans_of_one_name_get_no_mask_by_that_name() -> None:
    """U17: by its name each would get both patients' lesions, and every figure would be wrong in silence."""
    files = [one("image.png"), one("image_mask.png"), one("image.png"), one("image_mask.png"), one("b.png")]
    batch = pair_files(files)
    assert [case.masks for case in batch.cases] == [(), (), ()]
    assert [mask.name for mask in batch.doubtful_masks] == ["image_mask.png", "image_mask.png"]
    assert batch.lone_masks == ()


def test_of_two_masks_of_one_name_neither_is_used() -> None:
    batch = pair_files([one("a.png"), one("a_mask.png"), one("a_mask.png"), one("b.png"), one("b_mask.png")])
    assert [[mask.name for mask in case.masks] for case in batch.cases] == [[], ["b_mask.png"]]
    assert len(batch.doubtful_masks) == 2


@pytest.mark.parametrize(
    ("first", "second", "mask"),
    [
        ("a/x.png", "a\\x.png", "a/x_mask.png"),
        ("a/x.png", "a//x.png", "a/x_mask.png"),
        ("a/x.png", "./a/x.png", "a/x_mask.png"),
        ("x.png", "x.jpg", "x_mask.png"),
        ("Images/bus_1-l.png", "bus_1-l.png", "Masks/mask_1-l.png"),
        ("1-l.png", "bus_1-l.png", "mask_1-l.png"),
    ],
)
def test_a_mask_that_two_scans_have_a_claim_to_is_given_to_neither(first: str, second: str, mask: str) -> None:
    """U17: their names differ, but by them the mask is as much the one's as the other's."""
    for batch in (
        paired(first, second, mask),
        pair_folders([one(first), one(second)], [one(mask)]),
        pair_folders([one(first), one(second), one(mask)], []),
    ):
        assert [case.masks for case in batch.cases] == [(), ()]
        assert [file.name for file in batch.doubtful_masks] == [mask]
        assert batch.lone_masks == ()


@pytest.mark.parametrize(
    ("scan", "first", "second"),
    [
        ("a/x.png", "a/x_mask.png", "a\\x_mask.png"),
        ("x.png", "x_mask.png", "./x_mask.png"),
        ("x.png", "x_mask.png", "X_mask.png"),
        ("bus_1-l.png", "mask_1-l.png", "Masks/mask_1-l.png"),
    ],
)
def test_of_two_masks_whose_names_say_the_same_neither_is_used(scan: str, first: str, second: str) -> None:
    batch = paired(scan, first, second)
    assert [case.masks for case in batch.cases] == [()]
    assert {file.name for file in batch.doubtful_masks} == {first, second}


def test_notes_beside_a_picture_take_no_mask_from_it() -> None:
    batch = paired("a.json", "a.png", "a_mask.png", keep_all=True)
    assert {case.name: [mask.name for mask in case.masks] for case in batch.cases} == {
        "a.json": [],
        "a.png": ["a_mask.png"],
    }


@pytest.mark.parametrize(("scan", "mask"), [("Jos\u00e9", "Jose\u0301"), ("Jose\u0301", "Jos\u00e9")])
def test_how_an_accent_is_written_keeps_no_mask_from_its_scan(scan: str, mask: str) -> None:
    """macOS writes it as a sign of its own, others do not; on a screen they are the same."""
    expected = [(f"{scan}.png", [f"{mask}_MASK.png"], None)]
    assert shape(paired(f"{scan}.png", f"{mask}_MASK.png")) == expected
    elsewhere = pair_folders([one(f"{scan}.png")], [one(f"deep/{mask}_mask.png")])
    assert shape(elsewhere) == [(f"{scan}.png", [f"deep/{mask}_mask.png"], None)]


def test_of_two_scans_that_only_the_accent_tells_apart_each_has_the_mask_of_its_own_name_alone() -> None:
    composed, apart = "Jos\u00e9", "Jose\u0301"
    batch = paired(f"{composed}.png", f"{apart}.png", f"{apart}_mask.png")
    assert {case.name: len(case.masks) for case in batch.cases} == {f"{composed}.png": 0, f"{apart}.png": 1}


def test_masks_among_the_scans_of_two_folders_are_used_and_nothing_vanishes() -> None:
    images = [one(name) for name in ("a.png", "a_mask.png", "b.png", "notes.docx")]
    masks = [one(name) for name in ("b_mask.png", "c_mask.png", "more.docx")]
    batch = pair_folders(images, masks)
    assert [[mask.name for mask in case.masks] for case in batch.cases] == [["a_mask.png"], ["b_mask.png"]]
    assert [mask.name for mask in batch.lone_masks] == ["c_mask.png"]
    assert batch.left_out == ("notes.docx", "more.docx")


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
    batch = pair_folders([one("bus_0001-l.png")], list_uploads([("bus_data.csv", TABLE), ("mask_0001-l.png", b"")]))
    assert shape(batch) == [("bus_0001-l.png", ["mask_0001-l.png"], Diagnosis.MALIGNANT)]
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

    batch = pair_files([SourceFile("bus_data.csv", 3, refuse), one("bus_0001-l.png")])
    assert batch.problems == (
        "The table 'bus_data.csv' gives no class: The file cannot be opened. Check its permissions.",
    )


def test_of_many_bad_rows_some_are_named_and_the_others_counted() -> None:
    (problem,) = with_table(TABLE + b"x\n" * 1000, "bus_0001-l").problems
    assert "line 3, 4, 5, 6, 7 and 995 more." in problem
