"""The locked test set of an examination is the one that the rules in force lock, and it is never smaller in silence."""

from dataclasses import replace
from pathlib import Path

import pytest
from permits import Allowed
from uploads import pack, report_on, scan_files, settings_in, three_classes, write_public_sets

from busi_core.audit import open_audit
from busi_core.errors import DatasetError
from busi_core.managed.inspection import examine
from busi_core.managed.intake import open_zip
from busi_core.managed.known import KnownScans
from busi_core.managed.report import Flag, InspectionReport
from busi_core.managed.sets import ManagedSet
from busi_core.managed.store import accept
from busi_core.managed.summary import find_cautions
from busi_core.promotion.locked import read_known_scans
from busi_core.settings import PROJECT_ROOT, Settings

RULES = (PROJECT_ROOT / "promotion.toml").read_text(encoding="utf-8")
COPY = scan_files("malignant", 902, name="malignant (5)")  # of the malignant scan of the small public sets; fold 3


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Small public sets, and rules of the test's own that lock what the published ones lock."""
    write_public_sets(tmp_path / "data")
    settings = replace(settings_in(tmp_path), promotion_protocol=tmp_path / "own.toml")
    settings.promotion_protocol.write_text(RULES)
    return settings


def lock(settings: Settings, data_set: str, fold: int, *, name: str = "own") -> KnownScans:
    """Let the rules lock this part in place of BUSI's fold 0."""
    head, _, rest = RULES.partition("[[test_set]]")
    _, _, rest = rest.partition("[[test_set]]")
    part = f'name = "{name}"\ndata_set = "{data_set}"\nfold = {fold}\nscans = 1\nsha256 = "{"0" * 64}"'
    settings.promotion_protocol.write_text(f"{head}[[test_set]]\n{part}\n\n[[test_set]]{rest}")
    return read_known_scans(settings)


def keep(settings: Settings, report: InspectionReport, name: str = "anna") -> ManagedSet:
    return accept(
        Allowed(), report, name=name, source="s", licence="l", excluded=set(), settings=settings,
        audit=open_audit(settings),
    )  # fmt: skip


def found(report: InspectionReport) -> set[str]:
    return {scan.name for scan in report.with_flag(Flag.TEST_COPY)}


@pytest.mark.parametrize("name", ["own", "busi fold 0"])
def test_a_copy_of_what_the_rules_lock_stays_out_whatever_they_call_it(settings: Settings, name: str) -> None:
    files = three_classes(1) | COPY
    assert found(report_on(files, read_known_scans(settings))) == set()
    known = lock(settings, "busi", 3, name=name)
    assert known.test_parts_missing == ()
    report = report_on(files, known)
    assert found(report) == {"malignant/malignant (5).png"}
    assert keep(settings, report).count() == 3


def test_the_published_parts_stay_locked_whatever_the_rules_name(settings: Settings) -> None:
    assert lock(settings, "busi", 3).test_ids == {"busi/malignant (5)", "bus-bra/bus_0001-l"}


def test_a_locked_managed_set_is_locked_with_all_its_copies_elsewhere(settings: Settings) -> None:
    """Also a scan that was accepted twice before anybody locked it, and the public scan that it repeats."""
    first = keep(settings, report_on(three_classes(1) | COPY, read_known_scans(settings)))
    again = keep(settings, report_on(three_classes(1) | three_classes(1, first=40), read_known_scans(settings)), "bert")
    known = lock(settings, first.id, -1)
    assert known.test_parts_missing == ()
    assert {id for id in known.test_ids if id.startswith("busi/")} == {"busi/malignant (5)"}
    assert sum(id.startswith(f"{first.id}/") for id in known.test_ids) == first.count() == 4
    assert sum(id.startswith(f"{again.id}/") for id in known.test_ids) == 3 < again.count()
    report = report_on(three_classes(1) | scan_files("benign", 70), known)
    assert len(found(report)) == 3
    assert keep(settings, report, "cleo").count() == 1


@pytest.mark.parametrize(("data_set", "fold"), [("none-0123456789ab", -1), ("busi", 7), ("busi", -1), ("bus-bra", 9)])
def test_a_locked_part_that_is_not_here_lets_nothing_in(settings: Settings, data_set: str, fold: int) -> None:
    known = lock(settings, data_set, fold)
    assert known.test_parts_missing == ("own",)
    with pytest.raises(DatasetError, match="not at hand: own"):
        keep(settings, report_on(three_classes(1), known))


@pytest.mark.parametrize("content", [None, "schema = 1", "\x00"])
def test_rules_that_cannot_be_read_are_said_and_let_nothing_in(settings: Settings, content: str | None) -> None:
    """The published parts are looked for all the same; what else is locked nobody can say."""
    settings.promotion_protocol.unlink()
    if content is not None:
        settings.promotion_protocol.write_text(content)
    known = read_known_scans(settings)
    assert known.test_ids == {"bus-bra/bus_0001-l"}
    report = examine(open_zip(pack(three_classes(1))), known)
    assert any("list of locked scans in a readable 'own.toml' is missing" in said for said in find_cautions(report))
    with pytest.raises(DatasetError, match=r"readable 'own\.toml'"):
        keep(settings, report)
