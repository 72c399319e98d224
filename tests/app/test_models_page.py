"""The page of model versions without a browser: the verdict in words, promotion with a comment, back, history."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fragments import run_fragment_alone
from gate import Gate, OnePerson, copy_gate, copy_version, make_gate, scored
from streamlit.testing.v1 import AppTest
from versions import write_version

from busi_core.promotion import judging
from busi_core.promotion.judge import judge
from busi_core.promotion.judging import Judging, judge_on_record, main, read_judging
from busi_core.registry import put_into_service, read_registry
from busi_core.types import Diagnosis
from pages.components import admin
from pages.components.serving import get_serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pages/admin/models.py"
TIMEOUT_SECONDS = 240


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """'tiny' in service, 'same' judged non-inferior, 'leaked' refused, 'next' not judged."""
    folder = tmp_path_factory.mktemp("gate")
    write_version(folder / "weights", "tiny")
    put_into_service(folder / "weights", "tiny")
    gate = make_gate(folder, folder / "weights")
    copy_version(gate.weights_dir, "tiny", "same")
    write_version(gate.weights_dir, "leaked", trained_on=(f"busi/{scored(0, Diagnosis.BENIGN)[0]}",))
    write_version(gate.weights_dir, "next", seed=1)
    judge("same", gate.settings, gate.protocol)
    judge("leaked", gate.settings, gate.protocol)
    return gate


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> OnePerson:
    """Who is signed in; the sign-in itself is tested in test_admin_pages.py."""
    person = OnePerson()
    monkeypatch.setattr(admin, "require_admin", lambda: person)
    return person


@pytest.fixture
def gate(written: Gate, tmp_path: Path, person: OnePerson, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    shutil.copytree(written.weights_dir, tmp_path / "weights")
    gate = copy_gate(written, tmp_path, tmp_path / "weights")
    for name, value in gate.environment().items():
        monkeypatch.setenv(name, value)
    get_serving.clear()
    yield gate
    get_serving.clear()


def open_page(version: str | None = None) -> AppTest:
    page = AppTest.from_file(str(PAGE), default_timeout=TIMEOUT_SECONDS).run()
    return page.selectbox(key="model").select(version).run() if version else page


def texts(page: AppTest) -> str:
    blocks = [*page.markdown, *page.caption, *page.info, *page.error, *page.success, *page.warning, *page.header]
    return " ".join(str(block.value) for block in blocks).replace("\\", "")


def keys(page: AppTest) -> set[str]:
    return {button.key for button in page.button}


def test_every_version_is_a_line_with_its_standing_and_verdict(gate: Gate) -> None:
    page = open_page()
    assert not page.exception
    table = page.dataframe[0].value
    assert next(iter(table["version"])) == "tiny"
    assert dict(zip(table["version"], table["verdict beside tiny"], strict=True)) == {
        "tiny": "–",
        "same": "non-inferior",
        "leaked": "refused",
        "next": "none yet",
    }
    assert "In service: tiny" in texts(page)


def test_a_favourable_verdict_is_put_into_service_with_a_comment_after_it_was_read(gate: Gate) -> None:
    page = open_page("same")
    assert "Non-inferior" in texts(page)
    assert "same beside tiny, on 12 locked scans (" in texts(page)
    assert page.get("plotly_chart")
    assert page.button(key="promote").disabled
    page.checkbox[0].check()
    page.text_input(key="promote-comment").input("as good, and newer")
    page = page.run()
    assert not page.button(key="promote").disabled
    page = page.button(key="promote").click().run()
    assert not page.exception
    assert "same is in service" in texts(page)
    change = read_registry(gate.weights_dir).history[-1]
    assert (change.version, change.who, change.comment) == ("same", "Dr. Ada", "as good, and newer")
    assert "In service: same" in texts(page)
    assert next(iter(page.dataframe[1].value["version"])) == "same"
    assert page.get("download_button")


def test_without_a_comment_the_core_refuses_and_the_page_says_so(gate: Gate) -> None:
    page = open_page("same")
    page.checkbox[0].check()
    page = page.run().button(key="promote").click().run()
    assert "needs a comment" in texts(page)
    assert read_registry(gate.weights_dir).in_service == "tiny"


def test_a_refused_candidate_has_its_reason_and_no_button(gate: Gate) -> None:
    page = open_page("leaked")
    assert "have a copy among those that taught 'leaked'" in texts(page)
    assert "leaked beside tiny, without figures on the 12 locked scans, judged" in texts(page)
    assert "promote" not in keys(page)


def test_what_another_administrator_did_meanwhile_is_said_and_not_overruled(gate: Gate) -> None:
    """J3, on the screen."""
    page = open_page("same")
    page.checkbox[0].check()
    page.text_input(key="promote-comment").input("now")
    page = page.run()
    put_into_service(gate.weights_dir, "next", permit=OnePerson("Dr. Eve"))
    page = page.button(key="promote").click().run()
    assert "Another came first: Dr. Eve put 'next' into service" in texts(page)
    assert read_registry(gate.weights_dir).in_service == "next"


def test_an_administrator_who_was_removed_while_the_page_stood_open_changes_nothing(
    gate: Gate, person: OnePerson
) -> None:
    """A5."""
    page = open_page("same")
    page.checkbox[0].check()
    page.text_input(key="promote-comment").input("now")
    page = page.run()
    person.is_administrator = False
    page = page.button(key="promote").click().run()
    assert "no administrator any more" in texts(page)
    assert read_registry(gate.weights_dir).in_service == "tiny"


def test_one_click_goes_back_to_the_version_before(gate: Gate) -> None:
    put_into_service(gate.weights_dir, "next")
    page = open_page().button(key="rollback-now").click().run()
    assert not page.exception
    assert "tiny is in service again" in texts(page)
    change = read_registry(gate.weights_dir).history[-1]
    assert (change.version, change.who, change.comment) == ("tiny", "Dr. Ada", "")


def test_a_second_click_on_the_way_back_finds_it_done_and_leaves_no_refusal(gate: Gate) -> None:
    put_into_service(gate.weights_dir, "next")
    page = open_page()
    put_into_service(gate.weights_dir, "tiny", permit=OnePerson("Dr. Eve"))
    page = page.button(key="rollback-now").click().run()
    assert not page.error
    assert "tiny is in service again" in texts(page)
    assert len(read_registry(gate.weights_dir).history) == 3
    assert gate.audit.read() == []


def test_any_earlier_version_is_put_back_with_a_comment(gate: Gate) -> None:
    for version in ("next", "same"):
        put_into_service(gate.weights_dir, version)
    page = open_page("tiny")
    page.text_input(key="rollback-comment").input("better on Sunday")
    page = page.button(key="rollback").click().run()
    assert not page.exception
    assert "tiny is in service again" in texts(page)
    assert read_registry(gate.weights_dir).history[-1].comment == "better on Sunday"


def test_a_damaged_version_is_said_and_not_rolled_back_to(gate: Gate) -> None:
    """W2."""
    put_into_service(gate.weights_dir, "next")
    with (gate.weights_dir / "tiny/model.safetensors").open("ab") as file:
        file.write(b"\0")
    page = open_page("tiny")
    page.text_input(key="rollback-comment").input("back")
    page = page.button(key="rollback").click().run()
    assert "their checksum is not the card's" in texts(page)
    assert read_registry(gate.weights_dir).in_service == "next"


def test_a_verdict_on_other_files_is_not_shown(gate: Gate) -> None:
    card = gate.weights_dir / "same/card.json"
    card.write_text(card.read_text().replace('"lesion_threshold": 0.5', '"lesion_threshold": 0.6'))
    page = open_page("same")
    assert "Not judged beside the version in service" in texts(page)
    assert "promote" not in keys(page)


def test_without_rules_nothing_can_be_judged_but_going_back_still_works(gate: Gate) -> None:
    put_into_service(gate.weights_dir, "next")
    gate.settings.promotion_protocol.unlink()
    page = open_page("tiny")
    assert "cannot be read" in texts(page)
    assert keys(page) == {"rollback", "rollback-now"}


@pytest.mark.slow
def test_a_judgement_goes_on_in_a_process_of_its_own_and_a_new_page_sees_it(gate: Gate) -> None:
    """J5: asked for on one page, found done by another; the audit log names who asked."""
    page = open_page("next")
    page = page.button(key="judge").click().run()
    assert not page.exception
    state = read_judging(gate.settings)
    assert state is not None
    assert (state.candidate, state.who) == ("next", "Dr. Ada")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (now := read_judging(gate.settings)) and now.ended is None and time.monotonic() < deadline:
        assert not now.died
        time.sleep(0.5)
    other = open_page("next")
    assert not other.exception
    assert "Not judged" not in texts(other)
    (entry,) = gate.audit.read()
    assert (entry.action, entry.who, entry.subject) == ("promotion.judged", "Dr. Ada", "next")


def test_a_judgement_that_died_is_said_and_can_be_asked_for_again(gate: Gate) -> None:
    judging._write(gate.settings, Judging("next", "Dr. Ada", time.time() - 3600, done=3, total=12))
    page = open_page("next")
    assert "ended from outside" in texts(page)
    assert "judge" in keys(page)


def test_a_second_judgement_waits_for_the_first(gate: Gate) -> None:
    judging._write(gate.settings, Judging("leaked", "Dr. Eve", time.time()))
    page = open_page("same")
    assert "is being judged, for Dr. Eve" in texts(page)
    assert "judge" not in keys(page)


def test_who_is_no_administrator_any_more_sees_nothing_of_a_judgement(gate: Gate, person: OnePerson) -> None:
    """A5: every few seconds only the fragment that watches it runs, not what the page begins with."""
    judging._write(gate.settings, Judging("leaked", "Dr. Eve", time.time()))
    page = run_fragment_alone(open_page("same"))
    assert "leaked is being judged, for Dr. Eve" in texts(page).replace("*", "")
    person.is_administrator = False
    run_fragment_alone(page)
    assert not page.exception
    assert "no administrator any more" in page.error[0].value
    assert "leaked" not in texts(page)
    assert "Eve" not in texts(page)


def test_why_a_judgement_failed_is_shown(gate: Gate) -> None:
    for scan in (gate.settings.data_root / "busi/benign").glob("*"):
        scan.unlink()
    judging._write(gate.settings, Judging("next", "Dr. Ada", time.time()))
    assert main() == 1
    assert "not a sound BUSI folder" in texts(open_page("next"))


def test_a_verdict_may_also_come_from_the_command_line(gate: Gate) -> None:
    judge_on_record("root (command line)", "next", gate.settings)
    assert "Not judged" not in texts(open_page("next"))
