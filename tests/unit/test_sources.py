"""A zip, a folder and uploads as lists of files: bounded before anything is inflated, names only data."""

import errno
import io
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from files import save, speckle

from busi_core.data import sources
from busi_core.data.pairing import pair_files, pair_folders
from busi_core.data.sources import (
    END,
    END_64,
    LOCATOR_64,
    MAX_DIRECTORY_BYTES,
    directory_bytes,
    is_zip,
    list_folder,
    list_uploads,
    list_zip,
    read_path,
    read_start,
    resolve_below,
    walk_folder,
)
from busi_core.errors import DatasetError, InvalidImageError
from busi_core.imaging import limits

SCAN = save(speckle(), "PNG")


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_zip_gives_its_files_in_order_and_their_bytes() -> None:
    files = list_zip(zipped(("b.png", SCAN), ("a/c.png", b"two")))
    assert [(file.name, file.size, file.read()) for file in files] == [
        ("b.png", len(SCAN), SCAN),
        ("a/c.png", 3, b"two"),
    ]


def test_two_files_of_one_name_inside_a_zip_are_both_read() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped(("same.png", b"first"), ("same.png", b"second"))
    assert [file.read() for file in list_zip(data)] == [b"first", b"second"]


def test_names_that_lead_elsewhere_are_only_data(tmp_path: Path) -> None:
    """U18: nothing is ever written under a name."""
    names = ["../../x.png", "/etc/passwd", "C:\\x.png", "ש" * 200 + ".png"]
    assert [file.name for file in list_zip(zipped(*[(name, SCAN) for name in names]))] == [
        name.replace("\\", "\\") for name in names
    ]
    assert not list(tmp_path.iterdir())


def test_what_systems_add_and_hidden_files_are_left_out() -> None:
    names = [
        "__MACOSX/._a.png",
        "__MACOSX\\._a.png",
        "a\\.hidden.png",
        ".DS_Store",
        "a/.hidden.png",
        "a/Thumbs.db",
        "folder/",
        "a/b.png",
    ]
    assert [file.name for file in list_zip(zipped(*[(name, b"x") for name in names]))] == ["a/b.png"]


def test_an_entry_without_a_name_is_left_out() -> None:
    data = zipped(("quux", b"x"), ("b.png", b"x")).replace(b"quux", b"\0uux")
    assert [file.name for file in list_zip(data)] == ["b.png"]


@pytest.mark.parametrize("data", [b"PK\x03\x04 not a zip", zipped(("a.png", SCAN))[:-10], b"PK\x05\x06"])
def test_a_damaged_zip_is_refused(data: bytes) -> None:
    assert is_zip(data)
    with pytest.raises(InvalidImageError, match="damaged"):
        list_zip(data)


def test_a_name_that_is_no_text_is_named_as_the_problem_and_not_damage() -> None:
    """Flag bit 11 says UTF-8 (APPNOTE.TXT 4.4.4); Python's reader refuses the whole zip for one such name."""
    data = zipped(("bénign/a.png", SCAN), ("b.png", SCAN)).replace("bénign".encode(), b"b\xff\xfenign")
    with pytest.raises(InvalidImageError, match="name in the zip is no text"):
        list_zip(data)


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    """20 MB of zeros in 20 KB; one gigabyte would be refused the same way."""
    (file,) = list_zip(zipped(("bomb.bmp", bytes(20_000_000))))
    with pytest.raises(InvalidImageError, match="times its packed size"):
        file.read()


def test_a_zip_that_claims_too_much_in_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_INFLATED_BYTES", 1000)
    with pytest.raises(InvalidImageError, match="claims to hold"):
        list_zip(zipped(("a", bytes(600)), ("b", bytes(600))))


def test_more_entries_than_the_cap_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_ENTRIES", 2)
    with pytest.raises(InvalidImageError, match="3 files; at most 2"):
        list_zip(zipped(*[(str(n), b"") for n in range(3)]))


def test_a_huge_list_of_contents_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_DIRECTORY_BYTES", 100)
    with pytest.raises(InvalidImageError, match="damaged"):
        list_zip(zipped(*[(f"a long name {n}", b"") for n in range(5)]))


@pytest.mark.parametrize("comment", [b"", b"made by a scanner", b"x" * 65_535])
def test_the_list_of_contents_is_as_long_as_the_zip_says(comment: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(7):
            archive.writestr(f"{number}.png", b"x")
        archive.comment = comment
    data = buffer.getvalue()
    assert directory_bytes(data) == data.index(b"PK\x05\x06") - data.index(b"PK\x01\x02")


def test_the_list_of_a_zip_of_more_than_65535_entries_is_measured_too() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(65_536):
            archive.writestr(str(number), b"")
    data = buffer.getvalue()
    assert directory_bytes(data) == data.index(b"PK\x06\x06") - data.index(b"PK\x01\x02")


def test_a_large_list_cannot_hide_behind_a_small_claim() -> None:
    """Python's reader trusts the record of a large zip where there is one; ours takes the larger of both."""
    record = END_64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, MAX_DIRECTORY_BYTES + 1, 0)
    end = END.pack(b"PK\x05\x06", 0, 0, 1, 1, 46, 0, 0)
    for offset in (0, 10_000_000):  # where the locator says that it lies, or right before the locator
        data = record + LOCATOR_64.pack(b"PK\x06\x07", 0, offset, 1) + end
        assert directory_bytes(data) == MAX_DIRECTORY_BYTES + 1
        with pytest.raises(InvalidImageError, match="damaged"):
            list_zip(data)


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"PK\x03\x04" + bytes(100), b"x" * 70_000])
def test_what_has_no_end_record_is_no_zip(data: bytes) -> None:
    with pytest.raises(zipfile.BadZipFile):
        directory_bytes(data)


def test_a_method_that_chooses_its_own_memory_is_refused() -> None:
    (file,) = list_zip(zipped(("a.png", SCAN), method=zipfile.ZIP_LZMA))
    with pytest.raises(InvalidImageError, match="packed by a method"):
        file.read()


def test_an_encrypted_entry_is_refused_by_name() -> None:
    data = bytearray(zipped(("a.png", SCAN)))
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    data[6] |= 1
    (file,) = list_zip(bytes(data))
    with pytest.raises(InvalidImageError, match="encrypted"):
        file.read()


def test_a_flipped_bit_inside_an_entry_is_damage() -> None:
    data = bytearray(zipped(("a.png", SCAN), method=zipfile.ZIP_STORED))
    data[200] ^= 1
    (file,) = list_zip(bytes(data))
    with pytest.raises(InvalidImageError, match="damaged inside the zip"):
        file.read()


def test_an_entry_above_the_file_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 10)
    (file,) = list_zip(zipped(("a.png", SCAN)))
    with pytest.raises(InvalidImageError, match="at most"):
        file.read()


def test_a_file_that_is_gone_while_its_folder_is_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    look = Path.stat

    def lose_and_look(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name == "a.png":
            path.unlink(missing_ok=True)
        return look(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", lose_and_look)
    files = list_folder(tmp_path)
    assert [file.name for file in files] == ["b.png"]
    assert files.problems == ()


def test_a_folder_that_is_gone_while_the_one_above_is_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"x")
    list_entries = os.scandir

    def lose_and_list(path: Path) -> Any:
        if Path(path).name == "a":
            (path / "x.png").unlink()
            path.rmdir()
        return list_entries(path)

    monkeypatch.setattr(sources.os, "scandir", lose_and_list)
    files = list_folder(tmp_path)
    assert [file.name for file in files] == ["b/x.png"]
    assert files.problems == ()


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["a/x.png", "a/y/z.png", "a.png", "a-b/x.png", "B.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    shown = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert list(walk_folder(tmp_path).files) == shown
    assert [file.name for file in list_folder(tmp_path)] == ["B.png", "a/x.png", "a/y/z.png", "a-b/x.png", "a.png"]


def test_what_cannot_be_read_of_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user without rights meets it; tests may run as one who has all."""
    for name in ("x.png", "locked/y.png", "unsearchable/z.png", "unsearchable/deep/w.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    list_entries, look = os.scandir, Path.stat

    def refuse_to_list(path: Path) -> Any:
        if Path(path).name in ("locked", "deep"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return list_entries(path)

    def refuse_to_look(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if "unsearchable" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(sources.os, "scandir", refuse_to_list)
    monkeypatch.setattr(Path, "stat", refuse_to_look)
    files = list_folder(tmp_path)
    assert [file.name for file in files] == ["x.png"]
    assert [problem.split("'")[1] for problem in files.problems] == ["locked", "unsearchable", "unsearchable/deep"]
    assert all("cannot be read" in problem for problem in files.problems)
    assert pair_files(files).problems == files.problems
    assert pair_folders(files, list_folder(tmp_path)).problems == files.problems
    with pytest.raises(DatasetError, match="cannot be read"):
        list_folder(tmp_path / "locked")


def test_a_folder_may_be_deeper_than_python_calls_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        Path("a").mkdir()
        os.chdir("a")
    Path("x.png").write_bytes(b"x")
    os.chdir(tmp_path)
    try:
        (file,) = list_folder(tmp_path)
        assert (file.name, file.read()) == ("a/" * 1100 + "x.png", b"x")
    finally:
        subprocess.run(["rm", "-rf", "a"], check=True)  # what pytest cleans up with calls itself


@pytest.mark.parametrize("name", ["x" * 300, "loop", "none", "a\0b", "file"])
def test_a_folder_whose_name_leads_nowhere_is_refused_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DatasetError, match="no folder"):
        list_folder(tmp_path / name)


def test_links_that_lead_out_are_named_and_those_that_stay_are_followed(tmp_path: Path) -> None:
    """A mask that is a link to a store would be missing in silence."""
    inside = tmp_path / "in"
    for name in ("in/deep/a.png", "store/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    links = {"c.png": "deep/a.png", "d": "deep", "out.png": "../store/b.png", "out": "../store", "loop": "loop"}
    for name, to in (links | {"gone.png": "none.png", ".hidden": "../store"}).items():
        (inside / name).symlink_to(to)
    files = list_folder(inside)
    assert [file.name for file in files] == ["c.png", "deep/a.png"]
    assert [problem.split("'")[1] for problem in files.problems] == ["gone.png", "loop", "out", "out.png"]
    assert all("leads out of the folder" in problem for problem in files.problems)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of Unix")
def test_what_became_a_pipe_or_a_device_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (file,) = list_folder(tmp_path)
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    for read in (file.read, lambda: read_path(Path("/dev/zero"))):
        with pytest.raises(InvalidImageError, match="a pipe, a device or a folder"):
            read()
    assert file.begin(4) == read_start(Path("/dev/zero"), 4) == b""


def test_a_file_that_grows_while_it_is_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 30)
    look = os.fstat
    told = [3]  # the size that it had when it was opened

    def look_before_it_grew(file: int) -> Any:
        found = list(look(file))
        found[6] = told[0]
        return os.stat_result(found)

    monkeypatch.setattr(sources.os, "fstat", look_before_it_grew)
    assert read_path(path) == b"x" * 30
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 20)
    with pytest.raises(InvalidImageError, match="at most"):
        read_path(path)
    told[0] = 30
    with pytest.raises(InvalidImageError, match="at most"):
        read_path(path)


def test_a_folder_gives_its_files_with_their_times_and_no_link_that_leads_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "secret.png"
    (inside / "deep").mkdir(parents=True)
    outside.write_bytes(b"secret")
    (inside / "deep" / "a.png").write_bytes(b"a")
    (inside / "link.png").symlink_to(outside)
    (file,) = list_folder(inside)
    assert (file.name, file.read()) == ("deep/a.png", b"a")
    assert file.modified_ns > 0


def test_a_file_that_vanished_is_a_reason_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (file,) = list_folder(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(InvalidImageError, match="cannot be opened"):
        file.read()


@pytest.mark.parametrize("text", ["..", "../other", "/etc", "a/../../other", "none", "a\0b", "x" * 5000])
def test_a_folder_elsewhere_is_never_reached(tmp_path: Path, text: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(DatasetError, match="no such folder"):
        resolve_below(root, text)
    assert resolve_below(root, "a") == (root / "a").resolve()


def test_uploads_are_what_they_are() -> None:
    one, two = list_uploads([("same.png", b"1"), ("same.png", b"22")])
    assert (one.read(), two.read(), two.size) == (b"1", b"22", 2)
