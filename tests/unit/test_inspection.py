"""The report on a data set before anything is kept: each thing that can be wrong is found, said, and stops nothing."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from files import animated, dicom, save
from PIL import Image, ImageDraw, ImageFont
from uploads import known_scans, pack, report_on, scan_files, settings_in, texture, three_classes

from busi_core.corrections import keep_correction
from busi_core.data.pairing import Case
from busi_core.data.sources import SourceFile, list_folder
from busi_core.errors import DatasetError
from busi_core.managed.inspection import Look, _relate, examine
from busi_core.managed.intake import open_corrections, open_folder, open_zip
from busi_core.managed.report import LOCKED_PATIENT, Flag, InspectionReport, find_unclean, plan_acceptance
from busi_core.managed.report_text import format_plan
from busi_core.managed.summary import count_classes, find_cautions, measure_sizes
from busi_core.promotion.locked import read_known_scans
from busi_core.settings import Settings, read_settings
from busi_core.types import Diagnosis


def flags(report: InspectionReport, name: str) -> set[Flag]:
    (scan,) = [scan for scan in report.scans if scan.name == name]
    return {finding.flag for finding in scan.findings}


def detail(report: InspectionReport, name: str, flag: Flag) -> str:
    (scan,) = [scan for scan in report.scans if scan.name == name]
    return next(finding.detail for finding in scan.findings if finding.flag is flag)


MASK = np.zeros((72, 96), np.uint8)
MASK[20:40, 30:60] = 255
SCAN, MASK_FILE = save(texture(), "PNG"), save(MASK, "PNG")


def test_sound_scans_have_no_finding_and_all_are_kept() -> None:
    report = report_on(three_classes(2))
    assert len(report.scans) == 6
    assert not [scan.findings for scan in report.scans if scan.findings]
    assert len(plan_acceptance(report, set(), set()).kept) == 6


@pytest.mark.parametrize(
    ("files", "flag", "said"),
    [
        pytest.param({"benign/x.png": b"text", "benign/x_mask.png": MASK_FILE}, Flag.BROKEN, "not an image", id="U1"),
        pytest.param({"benign/x.png": SCAN[:900], "benign/x_mask.png": MASK_FILE}, Flag.BROKEN, "damaged", id="U2"),
        pytest.param({"benign/x.png": SCAN}, Flag.NO_MASK, "", id="U22 missing"),
        pytest.param(
            {"benign/x.png": SCAN, "benign/x_mask.png": save(MASK[1:], "PNG")}, Flag.BAD_MASK, "96 x 71", id="U22 size"
        ),
        pytest.param(
            {"benign/x.png": SCAN, "benign/x_mask.png": b"no picture"}, Flag.BAD_MASK, "cannot be read", id="U22 broken"
        ),
        pytest.param(
            {"benign/x.png": SCAN, "benign/x_mask.png": save(MASK * 0, "PNG")}, Flag.EMPTY_MASK, "", id="empty mask"
        ),
        pytest.param(
            {"normal/x.png": SCAN, "normal/x_mask.png": MASK_FILE}, Flag.LESION_IN_NORMAL, "600 pixels", id="lesion"
        ),
        pytest.param({"x.png": SCAN, "x_mask.png": MASK_FILE}, Flag.NO_CLASS, "No folder", id="no class"),
        pytest.param(
            {"benign/x.png": save(texture() * 0 + 9, "PNG"), "benign/x_mask.png": MASK_FILE},
            Flag.NO_CONTRAST,
            "",
            id="U8",
        ),
        pytest.param(
            {
                "benign/x.tif": animated("TIFF", [texture(seed=1), texture(seed=2)]),
                "benign/x_mask.png": MASK_FILE,
            },
            Flag.FRAMES,
            "2 frames",
            id="U10",
        ),
    ],
)
def test_a_scan_that_cannot_be_used_is_a_row_with_its_reason_and_the_others_go_on(
    files: dict[str, bytes], flag: Flag, said: str
) -> None:
    report = report_on(three_classes(1) | files)
    (name,) = [name for name in files if "mask" not in name]
    assert flag in flags(report, name)
    assert said in detail(report, name, flag)
    plan = plan_acceptance(report, set(), {scan.id for scan in report.scans})
    assert [plan.left_out[scan.id] for scan in report.scans if scan.name == name] == [flag.value]
    assert len(plan.kept) == 3


def test_several_masks_are_merged_and_said() -> None:
    other = np.zeros_like(MASK)
    other[50:60, 10:20] = 255
    report = report_on(
        {"benign/x.png": SCAN, "benign/x_mask.png": MASK_FILE, "benign/x_mask_1.png": save(other, "PNG")}
    )
    assert flags(report, "benign/x.png") == {Flag.MERGED}
    assert report.scans[0].lesion_pixels == 600 + 100


def test_what_is_wrong_with_a_table_of_classes_is_said_before_anything_is_accepted() -> None:
    report = report_on(three_classes(1) | {"bus_0001-l.png": SCAN, "bus_data.csv": b"ID,Pathology\nbus_0001-l,?\n"})
    (problem,) = report.problems
    assert "line 2" in problem
    assert problem in find_cautions(report)
    assert Flag.NO_CLASS in flags(report, "bus_0001-l.png")


def test_masks_without_a_scan_and_other_files_are_named() -> None:
    report = report_on(three_classes(1) | {"benign/lost_mask.png": MASK_FILE, "notes.txt": b"x"})
    assert report.lone_masks == ("benign/lost_mask.png",)
    assert report.left_out == ("notes.txt",)


def test_a_repeated_scan_is_found_whatever_its_file_is_called() -> None:
    """U17."""
    report = report_on(three_classes(1) | scan_files("benign", 50) | scan_files("benign", 50, name="other"))
    assert Flag.REPEATED in flags(report, "benign/b50.png") & flags(report, "benign/other.png")
    first, second = (scan for scan in report.scans if scan.has(Flag.REPEATED))
    assert first.scan == second.scan
    clean = plan_acceptance(report, find_unclean(report), set()).kept
    assert [scan.name for scan in clean if scan.has(Flag.REPEATED)] == ["benign/b50.png"]


def test_one_scan_with_two_classes_is_left_out_until_the_wrong_one_is_excluded() -> None:
    twice = scan_files("benign", 50)
    files = twice | {name.replace("benign/", "malignant/"): data for name, data in twice.items()}
    report = report_on(three_classes(1) | files)
    assert Flag.CONFLICT in flags(report, "malignant/b50.png")
    assert "malignant/b50.png malignant" in detail(report, "benign/b50.png", Flag.CONFLICT)
    assert len(plan_acceptance(report, set(), set()).kept) == 3
    wrong = {scan.id for scan in report.scans if scan.name == "malignant/b50.png"}
    assert "benign/b50.png" in [scan.name for scan in plan_acceptance(report, wrong, set()).kept]


def test_a_copy_of_a_test_scan_can_never_be_accepted() -> None:
    """J7, U17."""
    copied = scan_files("benign", 50)
    known = known_scans([("busi/benign (4)", Diagnosis.BENIGN, copied["benign/b50.png"])], test=["busi/benign (4)"])
    report = report_on(three_classes(1) | copied, known)
    assert "busi/benign (4)" in detail(report, "benign/b50.png", Flag.TEST_COPY)
    everything = {scan.id for scan in report.scans}
    plan = plan_acceptance(report, set(), everything)
    assert "benign/b50.png" not in [scan.name for scan in plan.kept]
    assert Flag.TEST_COPY.value in plan.reasons()


def test_no_other_scan_of_a_patient_in_the_locked_test_set_is_accepted() -> None:
    """J7: before a set is made, as nothing links its scans to that patient afterwards."""
    files = {}
    for number, patient in enumerate(["17", "17", "18"]):
        files[f"benign/{number}.dcm"] = dicom(texture(seed=number), PatientID=patient)
        files[f"benign/{number}_mask.png"] = MASK_FILE
    known = known_scans([("busi/benign (4)", Diagnosis.BENIGN, files["benign/1.dcm"])], test=["busi/benign (4)"])
    report = report_on(files, known)
    plan = plan_acceptance(report, set(), {scan.id for scan in report.scans})
    assert [scan.name for scan in plan.kept] == ["benign/2.dcm"]
    assert plan.reasons() == {LOCKED_PATIENT: 1, Flag.TEST_COPY.value: 1}
    assert f"{LOCKED_PATIENT} (1)" in format_plan(plan)


def test_a_copy_of_a_known_scan_is_said_with_its_other_class() -> None:
    copied = scan_files("benign", 50)
    known = known_scans([("busi/malignant (4)", Diagnosis.MALIGNANT, copied["benign/b50.png"])])
    report = report_on(three_classes(1) | copied, known)
    assert flags(report, "benign/b50.png") == {Flag.KNOWN_COPY, Flag.CONFLICT_KNOWN}
    assert "busi/malignant (4) is malignant" in detail(report, "benign/b50.png", Flag.CONFLICT_KNOWN)
    (scan,) = [scan for scan in report.scans if scan.name == "benign/b50.png"]
    assert scan.copies_of == ("busi/malignant (4)",)
    assert scan.id in find_unclean(report)


def with_text(words: str) -> bytes:
    image = Image.fromarray(texture(200, 300))
    ImageDraw.Draw(image).text((40, 150), words, fill=225, font=ImageFont.load_default(18))
    return save(image, "PNG")


def test_burned_in_text_is_kept_out_until_somebody_looked() -> None:
    """U16."""
    mask = np.zeros((200, 300), np.uint8)
    mask[50:80, 50:80] = 255
    files = {"benign/x.png": with_text("ANNA MEIER"), "benign/x_mask.png": save(mask, "PNG")}
    report = report_on(three_classes(1) | files)
    assert flags(report, "benign/x.png") == {Flag.TEXT}
    (id,) = [scan.id for scan in report.scans if scan.has(Flag.TEXT)]
    assert "no patient text" in plan_acceptance(report, set(), set()).left_out[id]
    assert id not in plan_acceptance(report, set(), {id}).left_out


def test_patient_tags_are_named_without_their_values_and_need_a_look() -> None:
    """U16."""
    mask = np.zeros((72, 96), np.uint8)
    mask[20:40, 30:60] = 255
    report = report_on({"benign/x.dcm": dicom(texture()), "benign/x_mask.png": save(mask, "PNG")})
    assert "PatientName, PatientID" in detail(report, "benign/x.dcm", Flag.TAGS)
    assert "SECRET" not in json.dumps(report.as_json())
    assert not plan_acceptance(report, set(), set()).kept


def test_patient_tags_that_cannot_be_read_need_a_look_too() -> None:
    """U16. Which of them are filled is not known then; the picture is read all the same."""
    unreadable = dicom(texture()).replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00QQ")
    report = report_on({"benign/x.dcm": unreadable, "benign/x_mask.png": MASK_FILE})
    assert flags(report, "benign/x.dcm") == {Flag.TAGS}
    assert "cannot be read" in detail(report, "benign/x.dcm", Flag.TAGS)
    assert not plan_acceptance(report, set(), set()).kept


def test_scans_of_one_patient_form_one_group() -> None:
    files = {}
    for number, patient in enumerate(["17", "17", "18"]):
        files[f"benign/{number}.dcm"] = dicom(texture(seed=number), PatientID=patient)
        files[f"benign/{number}_mask.png"] = MASK_FILE
    groups = [scan.group for scan in report_on(files).scans]
    assert groups[0] == groups[1] != groups[2]


def test_patients_and_copies_of_their_scans_chain_into_one_group() -> None:
    """The second scan of one patient is the first of another, and the pixels of a third: all are one group."""
    files = {}
    for number, (patient, seed) in enumerate([("17", 0), ("18", 1), ("17", 1), ("19", 2), ("18", 3), ("17", 4)]):
        files[f"benign/{number}.dcm"] = dicom(texture(seed=seed), PatientID=patient)
        files[f"benign/{number}_mask.png"] = MASK_FILE
    scans = report_on(files).scans
    assert [[one.group == other.group for other in scans] for one in scans] == [
        [(one == 3) == (other == 3) for other in range(6)] for one in range(6)
    ]
    assert [[one.scan == other.scan for other in scans] for one in scans] == [
        [one == other or {one, other} == {1, 2} for other in range(6)] for one in range(6)
    ]


def test_ten_thousand_scans_of_one_patient_take_the_memory_of_ten_thousand_scans() -> None:
    file = SourceFile("x.png", 0, lambda: b"")
    looks = [Look(Case(str(n), f"{n}.png", file, (), None, None), (), patient="17") for n in range(10_000)]
    tracemalloc.start()
    try:
        scans = _relate(looks, known_scans())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {scan.group for scan in scans} == {"0"}
    assert peak < 50_000_000


def test_cases_of_bus_bras_table_form_groups() -> None:
    table = b"ID,Case,Pathology\nbus_1-l,1,benign\nbus_1-r,1,benign\nbus_2-l,2,malignant\n"
    files = {"bus_data.csv": table}
    for number, name in enumerate(["1-l", "1-r", "2-l"]):
        files |= {f"Images/bus_{name}.png": save(texture(seed=number), "PNG"), f"Masks/mask_{name}.png": MASK_FILE}
    groups = [scan.group for scan in report_on(files).scans]
    assert groups[0] == groups[1] != groups[2]


def test_a_mark_that_follows_the_class_is_warned_of() -> None:
    files = {}
    for number in range(24):
        diagnosis = "malignant" if number % 2 else "benign"
        image = Image.fromarray(texture(200, 300, seed=number))
        if number % 2:
            ImageDraw.Draw(image).text((40, 150), "LT UOQ", fill=225, font=ImageFont.load_default(18))
        mask = np.zeros((200, 300), np.uint8)
        mask[20:40, 20:40] = 255
        files |= {
            f"{diagnosis}/{number}.png": save(image, "PNG"),
            f"{diagnosis}/{number}_mask.png": save(mask, "PNG"),
        }
    (caution,) = [text for text in find_cautions(report_on(files)) if "learn the class" in text]
    assert "in 100% of the malignant scans and in 0% of the benign ones" in caution


def test_sizes_and_classes_are_counted() -> None:
    report = report_on(three_classes(2) | {"benign/x.png": SCAN, "benign/x_mask.png": MASK_FILE})
    sizes = measure_sizes(report)
    assert sizes is not None
    assert (sizes.smallest, sizes.largest) == ((96, 72), (150, 120))
    counted = {row.diagnosis: (row.scans, row.distinct, row.usable, row.empty) for row in count_classes(report)}
    assert counted[Diagnosis.BENIGN] == (3, 3, 3, 0)
    assert counted[Diagnosis.NORMAL] == (2, 2, 2, 2)


def test_a_name_is_only_data(tmp_path: Path) -> None:
    """U18."""
    names = ["benign/../../evil.png", "benign/" + "x" * 300 + ".png", "benign/\u202egnp.exe.png", "benign/🩻.png"]
    report = report_on({name: save(texture(seed=number), "PNG") for number, name in enumerate(names)})
    assert sorted(scan.name for scan in report.scans) == sorted(names)
    assert {scan.id for scan in report.scans} == {"scan-1", "scan-2", "scan-3", "scan-4"}


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_what_is_no_zip_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"not a zip|damaged"):
        open_zip(data)


def test_a_folder_outside_the_named_roots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").mkdir()
    for path in ("../secret", "/etc", "..", "a\0b"):
        with pytest.raises(DatasetError):
            open_folder(tmp_path / "root", path)


def test_a_corrected_case_that_goes_away_is_a_row_with_its_reason(tmp_path: Path) -> None:
    store, sure = tmp_path / "corrections", {"no_patient_text": True, "threshold": 0.5, "model_version": "tiny"}
    for seed in range(2):
        pixels = {"grey": texture(seed=seed), "before": MASK > 0, "after": MASK > 0}
        keep_correction(store, **pixels, **sure, who="A. Reader", diagnosis=Diagnosis.BENIGN)
    intake = open_corrections(replace(settings_in(tmp_path), corrections_dir=store))
    gone, left = intake.batch.cases
    shutil.rmtree(store / gone.name)
    report = examine(intake, known_scans())
    assert "cannot be opened" in detail(report, gone.name, Flag.BROKEN)
    assert Flag.BROKEN not in flags(report, left.name)


def test_a_zip_without_a_scan_is_refused() -> None:
    with pytest.raises(DatasetError, match="no scan"):
        open_zip(pack({"notes.txt": b"x"}))


@pytest.fixture(scope="module")
def real_settings(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = read_settings()
    return Settings(
        **{**vars(settings), "data_root": data_root, "state_dir": tmp_path_factory.mktemp("managed") / "state"}
    )


@pytest.mark.realdata
def test_real_copies_of_the_locked_test_set_and_of_known_scans_are_found(real_settings: Settings) -> None:
    known = read_known_scans(real_settings)
    assert known.test_parts_missing == ()
    by_name = {file.name: file for file in list_folder(real_settings.data_root / "busi")}
    named = {
        "benign/benign (10).png": "benign (700)",
        "benign/benign (428).png": "benign (701)",
    }
    tested = next(id for id in sorted(known.test_ids) if id.startswith("busi/malignant"))
    stem = tested.removeprefix("busi/")
    files = {}
    for source, name in {**named, f"malignant/{stem}.png": "malignant (702)"}.items():
        folder = name.split(" ")[0]
        files[f"{folder}/{name}.png"] = by_name[source].read()
        files[f"{folder}/{name}_mask.png"] = by_name[source.replace(".png", "_mask.png")].read()
    report = examine(open_zip(pack(files)), known)
    for scan in report.scans:
        assert scan.copies_of
        assert scan.has(Flag.TEST_COPY) == bool(known.test_ids & set(scan.copies_of))
    assert Flag.TEST_COPY in flags(report, "malignant/malignant (702).png")
    assert not {scan.name for scan in plan_acceptance(report, set(), {s.id for s in report.scans}).kept} & {
        "malignant/malignant (702).png"
    }


@pytest.mark.realdata
def test_the_numbers_of_the_known_sets_are_kept_and_made_anew_when_a_file_changed(real_settings: Settings) -> None:
    read_known_scans(real_settings)
    counted: list[int] = []
    read_known_scans(real_settings, lambda done, _total: counted.append(done))
    assert counted == []
    kept = real_settings.state_dir / "known" / "busi.json"
    kept.write_text(kept.read_text().replace('"files": "', '"files": "0'))
    read_known_scans(real_settings, lambda done, _total: counted.append(done))
    assert counted[-1] == 633
