"""Accepted data sets: whole or not at all, never changed, pixels only, and only by an administrator."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Set
from pathlib import Path

import numpy as np
import pytest
from permits import Allowed, Denied
from PIL import Image
from uploads import known_scans, report_on, scan_files, settings_in, three_classes

from busi_core import database
from busi_core.audit import open_audit
from busi_core.data.dataset import load_samples
from busi_core.data.records import read_truth
from busi_core.data.sources import SourceFile
from busi_core.database import transaction
from busi_core.errors import AccessDeniedError, DatasetError, OutputError
from busi_core.imaging.decode import decode_image
from busi_core.managed import store
from busi_core.managed.report import Flag, InspectionReport, find_unclean
from busi_core.managed.sets import ManagedSet
from busi_core.managed.store import accept, as_records, find_damaged, list_sets, read_set, read_set_fingerprints, remove
from busi_core.promotion.locked import read_known_scans
from busi_core.recipes.product import PRODUCT
from busi_core.settings import PROJECT_ROOT, Settings
from busi_core.types import Diagnosis


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def keep(
    settings: Settings, report: InspectionReport, *, name: str = "anna", excluded: Set[str] = frozenset(),
    permit: Allowed | Denied | None = None, licence: str = "consent of 2026",
) -> ManagedSet:  # fmt: skip
    return accept(
        permit or Allowed(), report, name=name, source="St Anna, one machine", licence=licence, excluded=excluded,
        settings=settings, audit=open_audit(settings),
    )  # fmt: skip


def written(settings: Settings) -> list[str]:
    folder = settings.state_dir / "datasets"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def test_an_accepted_set_says_what_it_holds_whence_and_by_whom(settings: Settings) -> None:
    managed = keep(settings, report_on(three_classes(2)))
    assert managed.id == f"anna-{managed.content_sha256[:12]}"
    assert list_sets(settings.state_dir) == [managed]
    assert read_set(settings.state_dir, managed.id) == managed
    assert (managed.source, managed.licence) == ("St Anna, one machine", "consent of 2026")
    assert managed.who == "physicist@hospital.example"
    assert [managed.count(diagnosis) for diagnosis in Diagnosis] == [2, 2, 2]


def test_a_folder_of_the_administration_that_is_a_file_is_no_empty_list(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(DatasetError, match="Set BUSI_STATE_DIR to a folder"):
        list_sets(tmp_path / "state")


def test_training_reads_it_as_any_other_set(settings: Settings) -> None:
    files = three_classes(1)
    managed = keep(settings, report_on(files))
    records = as_records(settings.state_dir, managed)
    assert len(load_samples(records, PRODUCT.preprocess)) == 3
    for record in records:
        name = next(name for name in files if name.startswith(record.diagnosis.value) and "mask" not in name)
        pixels = decode_image(record.image.read_bytes()).grey
        assert np.array_equal(pixels, decode_image(files[name]).grey)
        truth = read_truth(record, *pixels.shape)
        item = next(item for item in managed.items if record.id.endswith(item.id))
        assert int(truth.sum()) == item.lesion_pixels


def test_only_pixels_are_stored_and_no_name_of_the_upload(settings: Settings) -> None:
    """U16, U18."""
    files = {name.replace("/b2", "/MEIER ANNA 12.03.1961"): data for name, data in three_classes(1).items()}
    managed = keep(settings, report_on(files))
    folder = settings.state_dir / "datasets" / managed.id
    stored = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert stored == [
        "fingerprints.json",
        *(f"images/000{n}.png" for n in (1, 2, 3)),
        "manifest.json",
        *(f"masks/000{n}.png" for n in (1, 2, 3)),
    ]
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"MEIER" not in path.read_bytes()
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.info == {}
    assert "MEIER" not in str(open_audit(settings).read())


def test_the_same_content_is_the_same_version_and_another_order_or_name_changes_nothing(settings: Settings) -> None:
    files = three_classes(2)
    first = keep(settings, report_on(files))
    renamed = {name.replace("/", "/z-"): data for name, data in reversed(files.items())}
    assert keep(settings, report_on(renamed)) == first
    assert written(settings) == [first.id]
    assert [entry.action for entry in open_audit(settings).read()] == ["dataset.accepted"]
    with pytest.raises(DatasetError, match="already"):
        keep(settings, report_on(files), name="another")


def test_other_content_under_the_same_name_is_another_version(settings: Settings) -> None:
    report = report_on(three_classes(2))
    first, second = keep(settings, report), keep(settings, report, excluded={report.scans[0].id})
    assert first.id != second.id
    assert {managed.id for managed in list_sets(settings.state_dir)} == {first.id, second.id}
    assert dict(second.left_out) == {"by choice": 1}


def test_nobody_but_an_administrator_accepts_or_removes(settings: Settings) -> None:
    """A2."""
    report = report_on(three_classes(1))
    with pytest.raises(AccessDeniedError):
        keep(settings, report, permit=Denied())
    assert not settings.state_dir.exists()
    managed = keep(settings, report)
    with pytest.raises(AccessDeniedError):
        remove(Denied(), managed.id, comment="", settings=settings, audit=open_audit(settings))
    assert list_sets(settings.state_dir) == [managed]


def test_an_administrator_removed_while_it_is_written_keeps_nothing(settings: Settings) -> None:
    """A5."""
    permit = Allowed()
    with pytest.raises(AccessDeniedError):
        accept(
            permit, report_on(three_classes(1)), name="anna", source="s", licence="l", excluded=set(),
            settings=settings, audit=open_audit(settings), on_scan=lambda *_: permit.withdraw(),
        )  # fmt: skip
    assert written(settings) == []
    assert open_audit(settings).read() == []


def test_a_copy_of_a_test_scan_does_not_get_in_whoever_asks(settings: Settings) -> None:
    """J7: the caller excludes nothing and confirms everything."""
    copied = scan_files("benign", 50)
    known = known_scans([("busi/benign (4)", Diagnosis.BENIGN, copied["benign/b50.png"])], test=["busi/benign (4)"])
    report = report_on(three_classes(1) | copied, known)
    managed = accept(
        Allowed(), report, name="anna", source="s", licence="l", excluded=set(),
        confirmed={scan.id for scan in report.scans}, settings=settings, audit=open_audit(settings),
    )  # fmt: skip
    assert managed.count() == 3
    (test_copy,) = [scan.pixels for scan in report.scans if scan.name == "benign/b50.png"]
    assert test_copy not in {item.pixels for item in managed.items}


def test_nothing_is_accepted_where_the_locked_test_set_is_not_at_hand(settings: Settings) -> None:
    report = report_on(three_classes(1), known_scans(missing=["bus-bra fold 3"]))
    with pytest.raises(DatasetError, match="bus-bra fold 3"):
        keep(settings, report)
    assert read_known_scans(settings).test_parts_missing == ("busi fold 0", "bus-bra fold 3")


@pytest.mark.parametrize("name", ["", "..", "a/b", "busi", "x" * 41, "a\nb"])
def test_a_name_that_cannot_be_a_folder_is_refused(settings: Settings, name: str) -> None:
    with pytest.raises(DatasetError, match="cannot be the name"):
        keep(settings, report_on(three_classes(1)), name=name)


def test_without_a_licence_nothing_is_kept(settings: Settings) -> None:
    with pytest.raises(DatasetError, match="licence"):
        keep(settings, report_on(three_classes(1)), licence="  ")
    assert not settings.state_dir.exists()


def test_a_file_that_changed_after_it_was_examined_is_refused(settings: Settings) -> None:
    report = report_on(three_classes(1))
    other = report_on(three_classes(1, first=40))
    for case, changed in zip(report.cases.values(), other.cases.values(), strict=True):
        object.__setattr__(case, "scan", SourceFile(case.scan.name, 1, changed.scan.read))
    with pytest.raises(DatasetError, match="changed since"):
        keep(settings, report)
    assert written(settings) == []
    assert open_audit(settings).read() == []


@pytest.mark.parametrize("fails_at", [1, 2, 5, 7, 8])
def test_a_full_disk_leaves_no_half_set(settings: Settings, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """J4."""
    count, write = 0, store.write_atomically

    def full(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == fails_at:
            raise OutputError("The disk is full.", remedy="Free some space.")
        write(path, content)

    monkeypatch.setattr(store, "write_atomically", full)
    with pytest.raises(OutputError):
        keep(settings, report_on(three_classes(1)))
    assert written(settings) == []
    assert list_sets(settings.state_dir) == []


def test_while_somebody_else_holds_the_store_nothing_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    report, lock = report_on(three_classes(1)), settings.state_dir / "datasets" / "lock.sqlite"
    with transaction(lock, ()), pytest.raises(DatasetError, match="Somebody else is accepting or removing"):
        keep(settings, report)
    assert written(settings) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        pytest.param("audit.sqlite", "audit.sqlite could not be read or written", id="the log cannot be opened"),
        pytest.param("datasets/lock.sqlite", "lock.sqlite could not be read or written", id="nor the lock"),
    ],
)
def test_what_is_no_other_administrator_is_not_called_one(settings: Settings, broken: str, said: str) -> None:
    (settings.state_dir / broken).mkdir(parents=True)
    with pytest.raises(OutputError, match=said):
        keep(settings, report_on(three_classes(1)))
    assert list_sets(settings.state_dir) == []


def test_a_busy_audit_log_is_not_called_another_administrator(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    report, log = report_on(three_classes(1)), settings.state_dir / "audit.sqlite"
    with transaction(log, ()), pytest.raises(OutputError, match=r"audit\.sqlite could not be read or written"):
        keep(settings, report)
    assert written(settings) == []


ACCEPT_SLOWLY = """
import sys, time
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from permits import Allowed
from uploads import report_on, settings_in, three_classes
from busi_core.audit import open_audit
from busi_core.managed.store import accept
settings = settings_in(Path(sys.argv[2]))
def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.05)
accept(Allowed(), report_on(three_classes(2)), name="anna", source="s", licence="l", excluded=set(),
       settings=settings, audit=open_audit(settings), on_scan=slowly)
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", ["1", "4", "6"])
def test_a_kill_while_it_is_written_leaves_nothing_half_and_the_next_one_cleans_up(
    settings: Settings, killed_at: str
) -> None:
    command = [sys.executable, "-c", ACCEPT_SLOWLY, str(Path(__file__).parent), str(settings.state_dir.parent)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline().strip()) != killed_at:
            assert line, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
    assert list_sets(settings.state_dir) == []
    assert any(name.startswith(".unfinished-") for name in written(settings))
    managed = keep(settings, report_on(three_classes(2)))
    assert written(settings) == [managed.id]
    assert len(as_records(settings.state_dir, managed)) == 6


def test_a_removed_set_loses_its_scans_and_keeps_its_record(settings: Settings) -> None:
    report = report_on(three_classes(1))
    managed = keep(settings, report)
    removed = remove(Allowed(), managed.id, comment="consent withdrawn", settings=settings, audit=open_audit(settings))
    folder = settings.state_dir / "datasets" / managed.id
    assert not list(folder.rglob("*.png"))
    assert list_sets(settings.state_dir) == []
    assert list_sets(settings.state_dir, with_removed=True) == [removed]
    assert read_set_fingerprints(settings.state_dir, removed).shape == (3, 256)
    with pytest.raises(DatasetError, match="removed"):
        as_records(settings.state_dir, removed)
    with pytest.raises(DatasetError, match="another name"):
        keep(settings, report)
    assert [entry.action for entry in open_audit(settings).read()] == ["dataset.accepted", "dataset.removed"]
    assert keep(settings, report, name="again").count() == 3


def test_scans_that_the_disk_keeps_are_not_called_deleted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the folders belong to another user, after a restore."""
    managed = keep(settings, report_on(three_classes(1)))
    folder = settings.state_dir / "datasets" / managed.id
    ask = {"comment": "consent withdrawn", "settings": settings, "audit": open_audit(settings)}
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        patch.setattr(os, "rmdir", refuse)
        with pytest.raises(OutputError, match="still on the disk") as told:
            remove(Allowed(), managed.id, **ask)
    assert managed.id in told.value.remedy
    assert len(list(folder.rglob("*.png"))) == 6
    assert list_sets(settings.state_dir) == []
    remove(Allowed(), managed.id, **ask)
    assert not list(folder.rglob("*.png"))


def refuse(*_path: object, **_options: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_set_whose_manifest_was_changed_is_named_and_not_used(settings: Settings) -> None:
    managed = keep(settings, report_on(three_classes(1)))
    path = settings.state_dir / "datasets" / managed.id / "manifest.json"
    path.write_text(path.read_text().replace('"benign"', '"malignant"'))
    assert find_damaged(settings.state_dir) == [managed.id]
    assert list_sets(settings.state_dir) == []
    with pytest.raises(DatasetError, match="damaged"):
        read_set(settings.state_dir, managed.id)


def test_a_set_whose_manifest_is_missing_is_named_and_not_used(settings: Settings) -> None:
    managed = keep(settings, report_on(three_classes(1)))
    (settings.state_dir / "datasets" / managed.id / "manifest.json").unlink()
    assert find_damaged(settings.state_dir) == [managed.id]
    assert list_sets(settings.state_dir) == []
    with pytest.raises(DatasetError, match="damaged"):
        read_set(settings.state_dir, managed.id)


@pytest.mark.parametrize("manifest", [b"{}", None], ids=["unreadable", "missing"])
def test_a_damaged_set_is_not_accepted_over_and_the_log_does_not_say_so(
    settings: Settings, manifest: bytes | None
) -> None:
    report = report_on(three_classes(1))
    managed = keep(settings, report)
    folder = settings.state_dir / "datasets" / managed.id
    (folder / "manifest.json").unlink()
    if manifest is not None:
        (folder / "manifest.json").write_bytes(manifest)
    for _ in range(2):
        with pytest.raises(DatasetError, match=rf"{managed.id} is damaged.*backup.*remove"):
            keep(settings, report)
    assert [entry.action for entry in open_audit(settings).read()] == ["dataset.accepted"]
    shutil.rmtree(folder)
    assert keep(settings, report).id == managed.id


@pytest.mark.parametrize("id", ["nothing", "../datasets", "", "a/b"])
def test_a_set_that_is_not_there_is_refused(settings: Settings, id: str) -> None:
    with pytest.raises(DatasetError, match="no data set"):
        read_set(settings.state_dir, id)


def test_a_second_upload_is_compared_with_the_accepted_one(settings: Settings) -> None:
    managed = keep(settings, report_on(three_classes(1)))
    known = read_known_scans(settings)
    report = report_on(three_classes(1), known)
    assert [scan.copies_of for scan in report.scans] == [
        (f"{managed.id}/{next(item.id for item in managed.items if item.pixels == scan.pixels)}",)
        for scan in report.scans
    ]
    assert {finding.flag for scan in report.scans for finding in scan.findings} == {Flag.EARLIER_COPY}
    assert find_unclean(report) == set()  # a later version of a set holds what the earlier one held
