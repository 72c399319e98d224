"""The Data sets page as an administrator meets it: upload, read the report, accept, find the version, remove it."""

import base64
import io
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from argon2 import PasswordHasher
from files import dicom, save
from fragments import run_fragment_alone
from PIL import Image, ImageDraw, ImageFont
from streamlit import config
from streamlit.testing.v1 import AppTest
from uploads import pack, scan_files, texture, three_classes, write_public_sets

from busi_core.access import command_line, password
from busi_core.audit import AuditLog, open_audit
from busi_core.jobs import ledger
from busi_core.jobs.spec import JobSpec
from busi_core.managed.store import list_sets
from busi_core.settings import read_settings
from pages.components import dataset_decision

PAGE = Path(__file__).parents[2] / "pages/admin/datasets.py"
SECRET = "correct horse battery"  # noqa: S105
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(SECRET)


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server with small public sets, one administrator, and nothing accepted yet."""
    write_public_sets(tmp_path / "data")
    secrets, before = tmp_path / "secrets.toml", config.get_option("secrets.files")
    secrets.write_text(f'[administration.passwords]\nphysicist = "{HASH}"\n')
    config.set_option("secrets.files", [str(secrets)])
    monkeypatch.setenv("BUSI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BUSI_DATA_ROOT", str(tmp_path / "data"))
    for name in ("BUSI_DEMO", "BUSI_CORRECTIONS_DIR", "BUSI_BATCH_ROOT"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "state"
    config.set_option("secrets.files", before)


@pytest.fixture
def page(state_dir: Path) -> AppTest:
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    page.text_input[0].set_value("physicist")
    page.text_input[1].set_value(SECRET)
    return page.button[0].click().run()


def texts(page: AppTest) -> str:
    kinds: list[Any] = [page.get("html"), page.title, page.markdown, page.error, page.warning, page.info, page.success]
    return " ".join(str(block.value) for kind in kinds for block in kind).replace("\\", "")


def examine(page: AppTest, files: dict[str, bytes]) -> AppTest:
    """Upload a zip and wait, as a browser would ask again, until the report is there."""
    (uploader,) = page.file_uploader
    uploader.set_value(("set.zip", pack(files), "application/zip")).run()
    for _ in range(60):
        if any(heading.value == "Accept" for heading in page.header):
            return page
        page.run()
    raise AssertionError(texts(page))


def fill(page: AppTest, **words: str) -> AppTest:
    for key, value in words.items():
        page.text_input(key=f"dataset-{key}").set_value(value)
    return page.run()


WORDS = {"name": "anna", "source": "St Anna", "licence": "consent"}


def test_a_zip_is_examined_accepted_and_listed(page: AppTest, state_dir: Path) -> None:
    examine(page, three_classes(2))
    assert "6 scans would be kept, 6 of them distinct." in texts(page)
    assert "Compared with busi (3 images), bus-bra (1 images)" in texts(page)
    fill(page, **WORDS)
    page.button(key="dataset-accept").click().run()
    assert not page.exception
    (managed,) = list_sets(state_dir)
    assert f"Kept as {managed.id}" in texts(page)
    assert (managed.who, managed.source, managed.licence) == ("physicist", "St Anna", "consent")
    assert page.dataframe[0].value["Version"].tolist() == [managed.id]
    actions = [entry.action for entry in AuditLog(state_dir / "audit.sqlite").read()]
    assert actions == ["sign-in", "dataset.accepted"]


def test_what_is_wrong_is_said_in_words_and_a_test_copy_stays_out(page: AppTest, tmp_path: Path) -> None:
    test_scan = (tmp_path / "data/bus-bra/Images/bus_0001-l.png").read_bytes()
    _, mask = scan_files("benign", 910).values()
    files = three_classes(1) | {"benign/t.png": test_scan, "benign/t_mask.png": mask, "benign/bad.png": b"x"}
    said = texts(examine(page, files))
    assert "3 scans would be kept" in said
    assert "repeats a scan of the locked test set (1)" in said
    assert "cannot be read (1)" in said
    assert "Few distinct scans" in said


def test_scans_with_patient_tags_stay_out_until_somebody_says_that_they_looked(page: AppTest) -> None:
    """U16."""
    _, mask = scan_files("benign", 910).values()
    pixels = texture(120, 150, seed=3)
    files = three_classes(1) | {"benign/t.dcm": dicom(pixels), "benign/t_mask.png": mask}
    examine(page, files)
    assert "3 scans would be kept" in texts(page)
    (sure,) = [box for box in page.checkbox if "I looked at the 1 scans" in box.label]
    sure.check().run()
    assert "4 scans would be kept" in texts(page)
    assert "SECRET" not in texts(page)


def test_who_looked_at_some_scans_has_not_looked_at_those_that_are_put_back_in(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U16."""
    unticked: set[str] = set()
    monkeypatch.setattr(dataset_decision, "_show_ticks", lambda *_: set(unticked))
    _, mask = scan_files("benign", 910).values()
    tagged = {f"benign/t{n}.dcm": dicom(texture(120, 150, seed=n)) for n in (3, 4, 5)}
    masks = {f"benign/t{n}_mask.png": mask for n in (3, 4, 5)}
    examine(page, three_classes(1) | tagged | masks)
    report = page.session_state["examination"].report
    unticked |= {scan.id for scan in report.scans if scan.name in ("benign/t4.dcm", "benign/t5.dcm")}
    page.run()
    page.checkbox[0].check().run()
    assert "4 scans would be kept" in texts(page)
    unticked.clear()
    page.run()
    (sure,) = page.checkbox
    assert "I looked at the 3 scans" in sure.label
    assert not sure.value
    assert "3 scans would be kept" in texts(page)


def test_text_that_somebody_must_have_read_is_shown_at_its_own_pixels_and_without_the_mask(page: AppTest) -> None:
    """U16: in a thumbnail nobody can read a name."""
    _, mask = scan_files("benign", 910).values()  # 120 x 150
    drawn = Image.fromarray(cv2.resize(texture(120, 150, seed=3), (1500, 1200)))
    ImageDraw.Draw(drawn).text((700, 600), "Anna Meier 12.03.1961", fill=225, font=ImageFont.load_default(20))
    pixels = np.asarray(drawn)
    large = cv2.resize(np.asarray(Image.open(io.BytesIO(mask))), (1500, 1200), interpolation=cv2.INTER_NEAREST)
    files = {"benign/t.png": save(pixels, "PNG"), "benign/t_mask.png": save(large, "PNG")}
    examine(page, files)
    flag = next(box for box in page.selectbox if box.label == "Scans to look at")
    assert flag.options[0].startswith("text burned in")
    shown = re.findall(r"data:image/png;base64,([^\"]+)", texts(page))
    cuts = [np.asarray(Image.open(io.BytesIO(base64.b64decode(cut))).convert("L")) for cut in shown]
    assert cuts
    for cut in cuts:
        found = cv2.matchTemplate(pixels, cut, cv2.TM_SQDIFF)
        assert found.min() == 0, "pixel for pixel a part of the scan"
    assert sum(cut.shape[1] for cut in cuts) > 150, "as wide as it was written"
    flag.select_index(len(flag.options) - 1).run()
    assert "data:image/png" not in texts(page)


def test_only_the_clean_ones(page: AppTest) -> None:
    twice = scan_files("benign", 50) | scan_files("benign", 50, name="again")
    examine(page, three_classes(1) | twice)
    assert "5 scans would be kept, 4 of them distinct" in texts(page)
    page.radio[0].set_value("Only the clean ones").run()
    assert "4 scans would be kept, 4 of them distinct" in texts(page)


def test_where_no_scan_can_be_accepted_the_page_says_so_and_keeps_the_report(page: AppTest) -> None:
    examine(page, {"a.png": save(texture(), "PNG")})
    assert not page.exception
    assert "No scan of it can be accepted. Left out: class unknown (1)." in texts(page)
    assert [button.label for button in page.get("download_button")] == ["Report as JSON"]
    assert "dataset-accept" not in {button.key for button in page.button}
    assert not page.radio


def test_where_no_scan_is_clean_there_is_nothing_to_accept_and_nobody_is_said_to_have_excluded_them(
    page: AppTest,
) -> None:
    _, mask = scan_files("benign", 910).values()
    examine(page, {"benign/t.dcm": dicom(texture(120, 150, seed=3)), "benign/t_mask.png": mask})
    page.radio[0].set_value("Only the clean ones").run()
    assert page.button(key="dataset-accept").disabled
    assert "0 scans would be kept, 0 of them distinct. Left out: by choice (1)." in texts(page)


def test_what_was_decided_so_far_stays_while_another_page_is_looked_at(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the browser forgets what stood in the fields; what the session holds is all there is."""
    _, mask = scan_files("benign", 910).values()
    tagged = {"benign/t.dcm": dicom(texture(120, 150, seed=3)), "benign/t_mask.png": mask}
    examine(page, three_classes(2) | tagged)
    fill(page, **WORDS)
    page.checkbox[0].check().run()
    assert "7 scans would be kept" in texts(page)
    with monkeypatch.context() as hands:
        untick_first(hands)
        page.run()
    assert "6 scans would be kept" in texts(page)
    again = come_back(page)
    assert "6 scans would be kept" in texts(again)
    assert again.checkbox[0].value
    assert {name: again.text_input(key=f"dataset-{name}").value for name in WORDS} == WORDS
    assert "6 scans would be kept" in texts(again.run()), "the table is not changed twice"
    again.radio[0].set_value("Only the clean ones").run()
    assert come_back(again).radio[0].value == "Only the clean ones"


def untick_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person does in the table; AppTest cannot."""
    real = dataset_decision.st.data_editor

    def edited(table: dict[str, list[Any]], **options: Any) -> dict[str, list[Any]]:
        real(table, **options)
        return table | {"Keep": [False, *table["Keep"][1:]]}

    monkeypatch.setattr(dataset_decision.st, "data_editor", edited)


def come_back(page: AppTest) -> AppTest:
    """The page as drawn after another one: the session holds what it held, but the state of no widget."""
    again = AppTest.from_file(str(PAGE), default_timeout=120)
    for name in ("examination", "admin-permit"):
        again.session_state[name] = page.session_state[name]
    return again.run()


def test_a_name_is_asked_for_in_words(page: AppTest, state_dir: Path) -> None:
    examine(page, three_classes(1))
    page.button(key="dataset-accept").click().run()
    assert not page.exception
    assert "cannot be the name of a data set" in texts(page)
    assert list_sets(state_dir) == []


def test_what_is_no_zip_is_explained(page: AppTest) -> None:
    page.file_uploader[0].set_value(("set.zip", b"no zip", "application/zip")).run()
    assert not page.exception
    assert "The file is not a zip." in texts(page)


def test_why_an_examination_failed_is_said_until_the_next_one(page: AppTest, tmp_path: Path) -> None:
    table = tmp_path / "data/bus-bra/bus_data.csv"
    sound = table.read_bytes()
    table.unlink()
    page.file_uploader[0].set_value(("set.zip", pack(three_classes(1)), "application/zip")).run()
    for _ in range(3):
        assert "The table 'bus_data.csv' cannot be read." in texts(page)
        assert page.file_uploader
        page.run()
    table.write_bytes(sound)
    assert "cannot be read" not in texts(examine(page, three_classes(1)))


def test_a_folder_of_the_server_is_examined(page: AppTest) -> None:
    page.selectbox(key="dataset-folder").set_value(1).run()
    page.button(key="dataset-read-folder").click().run()
    for _ in range(30):
        if page.header and page.header[0].value == "Accept":
            break
        page.run()
    assert "repeats a scan of" in texts(page)


def test_an_empty_store_of_corrected_cases_is_said_to_be_empty(
    page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSI_CORRECTIONS_DIR", str(tmp_path / "corrections"))
    page.run().button(key="dataset-corrections").click().run()
    assert "No reader has kept a corrected case yet." in texts(page)
    assert "folders of BUSI" not in page.error[0].value


def test_a_removed_version_is_said_to_be_removed(page: AppTest, state_dir: Path) -> None:
    examine(page, three_classes(1))
    fill(page, **WORDS)
    page.button(key="dataset-accept").click().run()
    (managed,) = list_sets(state_dir)
    page.text_input(key=f"dataset-why-{managed.id}").set_value("consent withdrawn").run()
    page.button(key=f"dataset-remove-{managed.id}").click().run()
    assert not page.exception
    assert list_sets(state_dir) == []
    assert "its scans are deleted" in texts(page)


def test_before_a_version_is_removed_the_trainings_that_still_read_it_are_named(page: AppTest) -> None:
    examine(page, three_classes(1))
    fill(page, **WORDS)
    page.button(key="dataset-accept").click().run()
    settings = read_settings()
    (managed,) = list_sets(settings.state_dir)
    order = JobSpec("2026.12-x", data_sets=(managed.id,), start="imagenet")
    assert "Trainings use it" not in texts(page.run())
    job = ledger.submit(command_line(), order, settings, open_audit(settings))
    assert f"2026.12-x, queued, ordered by {job.who}" in texts(page.run())
    ledger.cancel(command_line(), job.id, settings, open_audit(settings))
    assert "Trainings use it" not in texts(page.run())


@pytest.mark.parametrize("how", ["signed out", "expired"])
def test_who_is_signed_in_no_more_sees_no_scan_when_a_page_is_turned(
    page: AppTest, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A5: turning a page runs only the fragment with the scans, not what the page begins with."""
    examine(page, three_classes(1))
    (turned,) = run_fragment_alone(page).selectbox
    assert turned.label == "Scans to look at"
    assert "<figure>" in texts(page)
    if how == "signed out":  # in another tab
        page.session_state["admin-permit"].sign_out()
    else:
        monkeypatch.setattr(password, "MAX_AGE", timedelta(0))
    run_fragment_alone(page)
    assert not page.exception
    assert len(page.error) == 1
    assert "<figure>" not in texts(page)
    assert not page.selectbox
    assert not page.number_input


def test_names_of_files_are_shown_as_text(page: AppTest) -> None:
    """U19."""
    scan, mask = scan_files("benign", 910).values()
    name = "benign/<script>alert(1)</script>"
    examine(page, {f"{name}.png": scan, f"{name}_mask.png": mask, "benign/x.png": save(texture(), "PNG")})
    assert "<script>alert" not in "".join(str(block.value) for block in page.get("html"))
