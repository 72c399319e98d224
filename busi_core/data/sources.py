"""Uploads, a zip in memory or a folder -> a list of files, each read only when its turn comes.

    [(name, bytes)] | zip bytes | folder --> [SourceFile] --read()--> bytes

A name is data to show and to sort by: nothing is ever opened, written or extracted under a name that an upload
brought. A zip is read from memory and never unpacked to a disk.
"""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from busi_core.errors import DatasetError, InvalidImageError
from busi_core.imaging import limits
from busi_core.imaging.limits import require_sensible_bytes
from busi_core.regular import open_regular, read_regular

MAX_ENTRIES = 20_000  # files of one zip or folder: BUSI has 1,578, BUS-BRA 3,755
MAX_DIRECTORY_BYTES = 8_000_000  # of a zip's list of contents: 400 bytes for each of these entries
MAX_INFLATED_BYTES = 8_000_000_000  # all entries together as the zip declares them; each is read and dropped alone
MAX_RATIO = 250  # inflated over packed, of an entry above `SMALL_ENTRY_BYTES`; an empty 1-bit mask reaches 100
SMALL_ENTRY_BYTES = 1_000_000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others let the file say how much memory to take
END = struct.Struct("<4s4H2LH")  # APPNOTE.TXT 4.3.16, end of central directory record: 22 bytes and a comment
END_64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14, the same of a large zip; 4.3.15 its locator stands between the two
LOCATOR_64 = struct.Struct("<4sLQL")
MAX_COMMENT_BYTES = 65_535
DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, LookupError)


@dataclass(frozen=True, eq=False)
class SourceFile:
    """One file that can be read.

    Attributes:
        name: Relative path with '/', as it was given: data, never a path to open.
        size: Bytes, as declared.
        read: Gives the bytes; raises InvalidImageError when it cannot.
        modified_ns: Time of the last change, of a file in a folder; 0 elsewhere.
        peek: Gives the first so many bytes without the rest, where that costs less.
        stamp: What else tells that a file in a folder is another: time of its last change of any kind, inode.
    """

    name: str
    size: int
    read: Callable[[], bytes]
    modified_ns: int = 0
    peek: Callable[[int], bytes] | None = None
    stamp: tuple[int, ...] = ()

    def begin(self, count: int) -> bytes:
        """The first `count` bytes, or as many as there are; none of a file that cannot be read."""
        try:
            return self.peek(count) if self.peek else self.read()[:count]
        except (InvalidImageError, *DAMAGE_ERRORS):
            return b""


class FolderFiles(list[SourceFile]):
    """The files of a folder.

    Attributes:
        problems: What of the folder is left out though it may hold scans, one sentence with a remedy each.
    """

    def __init__(self, files: Iterable[SourceFile], problems: Iterable[str] = ()) -> None:
        super().__init__(files)
        self.problems = tuple(problems)


@dataclass(frozen=True, eq=False)
class Walk:
    """What lies below a folder, hidden files aside.

    Attributes:
        files: Its files in the order of their paths, each with its size and times.
        leading_out: Links that lead out of the folder, or to nothing.
        unread: Folders that cannot be read, or not as a whole.
    """

    files: dict[Path, os.stat_result]
    leading_out: tuple[Path, ...]
    unread: tuple[Path, ...]


def list_uploads(files: Iterable[tuple[str, bytes]]) -> list[SourceFile]:
    """Files that are in memory already."""
    return [SourceFile(name, len(data), lambda data=data: data) for name, data in files]  # type: ignore[misc]


def is_zip(data: bytes) -> bool:
    """Whether the bytes begin as a zip does; a picture never does."""
    return data[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def list_zip(data: bytes) -> list[SourceFile]:
    """The files of a zip, in its order; folders, hidden files and what macOS adds are left out.

    Raises:
        InvalidImageError: It is damaged, holds too much, or claims to inflate beyond the bounds; nothing was inflated.
    """
    try:
        _require_small_directory(data)
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except UnicodeDecodeError as error:
        raise InvalidImageError(
            "A file name in the zip is no text: it is marked as UTF-8 and is none.",
            remedy="Rename that file, or make the zip with another program.",
        ) from error
    except DAMAGE_ERRORS as error:
        raise InvalidImageError(
            "The zip is damaged or incomplete.", remedy="Make it again, without encryption or parts."
        ) from error
    if len(entries) > MAX_ENTRIES:
        raise InvalidImageError(
            f"The zip holds {len(entries)} files; at most {MAX_ENTRIES} are read.", remedy="Split it into several."
        )
    inflated = sum(entry.file_size for entry in entries)
    if inflated > MAX_INFLATED_BYTES:
        raise InvalidImageError(
            f"The zip claims to hold {inflated / 1e9:.0f} GB; at most {MAX_INFLATED_BYTES / 1e9:.0f} GB are read.",
            remedy="Split it into several.",
        )
    return [
        SourceFile(
            entry.filename,
            entry.file_size,
            partial(_read_entry, archive, entry),
            peek=partial(_peek_entry, archive, entry),
        )
        for entry in entries
        if entry.filename and not entry.filename.endswith("/") and not is_hidden(entry.filename)
    ]


def list_folder(folder: Path) -> FolderFiles:
    """The files below a folder, sorted by path; links that lead out of it and hidden files are left out.

    Raises:
        DatasetError: There is no such folder, it cannot be read, or it holds too many files.
    """
    try:
        found = folder.is_dir()
    except OSError:  # a name that the system refuses, or a folder above it
        found = False
    if not found:
        raise DatasetError(f"There is no folder {folder.name!r}.", remedy="Choose another one.")
    walk = walk_folder(folder)
    if folder in walk.unread and not walk.files:
        raise DatasetError(f"The folder {folder.name!r} cannot be read.", remedy="Check its permissions.")
    if len(walk.files) > MAX_ENTRIES:
        raise DatasetError(
            f"The folder {folder.name!r} holds more than {MAX_ENTRIES} files.", remedy="Choose a part of it."
        )
    files = [
        SourceFile(
            path.relative_to(folder).as_posix(),
            status.st_size,
            partial(read_path, path),
            status.st_mtime_ns,
            peek=partial(read_start, path),
            stamp=(status.st_ctime_ns, status.st_ino),
        )
        for path, status in walk.files.items()
    ]
    unread = [
        f"The folder {path.relative_to(folder).as_posix()!r} cannot be read as a whole: what is missing of it is left "
        "out. Check its permissions."
        for path in walk.unread
    ]
    leading_out = [
        f"The link {path.relative_to(folder).as_posix()!r} leads out of the folder, or to nothing, and is left out. "
        "Copy what it should lead to into the folder."
        for path in walk.leading_out
    ]
    return FolderFiles(files, [*unread, *leading_out])


def walk_folder(folder: Path) -> Walk:
    """What lies below a folder, however deep; links to folders are not followed.

    What is gone before it is looked at is left out in silence: others work in the folder too.
    """
    root = os.path.realpath(folder)
    files: dict[Path, os.stat_result] = {}
    leading_out: list[Path] = []
    unread: dict[Path, None] = {}
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as listed:
                entries = [entry for entry in listed if not is_hidden(entry.name)]
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                unread[place] = None
            continue
        for entry in entries:
            path = place / entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_symlink() and not _stays_below(path, root):
                    leading_out.append(path)
                elif stat.S_ISREG((status := path.stat()).st_mode):
                    files[path] = status
            except FileNotFoundError:
                continue
            except OSError:  # a folder that may be listed and not searched, a path that is too long
                unread[place] = None
    return Walk({path: files[path] for path in sorted(files)}, tuple(sorted(leading_out)), tuple(sorted(unread)))


def _stays_below(link: Path, root: str) -> bool:
    """Whether a link leads to something below a folder; one in a circle leads to nothing."""
    try:
        link.stat()  # refuses a circle, and a long chain, which realpath would follow to the end
        return Path(os.path.realpath(link)).is_relative_to(root)
    except OSError:
        return False


def resolve_below(root: Path, relative: str) -> Path:
    """A folder below `root`, whatever the text says.

    Raises:
        DatasetError: It lies elsewhere, or there is no such folder.
    """
    try:
        found = (root / relative).resolve()
        allowed = found.is_relative_to(root.resolve()) and found.is_dir()
    except (OSError, ValueError):  # a NUL, or a name too long
        allowed = False
    if not allowed:
        raise DatasetError("There is no such folder on the server.", remedy="Choose one of those offered.")
    return found


def _require_small_directory(data: bytes) -> None:
    """Look at the size of the list of contents before it is parsed: it costs ten times its size in memory."""
    if directory_bytes(data) > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile("a list of contents out of bounds")


def directory_bytes(data: bytes) -> int:
    """How long a zip says its list of contents is; where two of its records disagree, the larger counts.

    Raises:
        zipfile.BadZipFile: It has no such record.
    """
    claims = [END.unpack_from(data, place)[5] for place in _ends(data)]
    for place in _ends(data):
        locator = place - LOCATOR_64.size
        if locator < 0 or data[locator : locator + 4] != b"PK\x06\x07":
            continue
        for record in (LOCATOR_64.unpack_from(data, locator)[2], locator - END_64.size):
            inside = 0 <= record <= len(data) - END_64.size
            if inside and data[record : record + 4] == b"PK\x06\x06":
                claims.append(END_64.unpack_from(data, record)[8])
    if not claims:
        raise zipfile.BadZipFile("no end of a list of contents")
    return int(max(claims))


def _ends(data: bytes) -> list[int]:
    """Where a reader may find the last record: right at the end, and the last one that a comment may follow."""
    start = max(0, len(data) - END.size - MAX_COMMENT_BYTES)
    found = {len(data) - END.size, data.rfind(b"PK\x05\x06", start)}
    return sorted(at for at in found if at >= 0 and at + END.size <= len(data) and data[at : at + 4] == b"PK\x05\x06")


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.flag_bits & 1:
        raise InvalidImageError("The file is encrypted inside the zip.", remedy="Make the zip without a password.")
    if entry.compress_type not in METHODS:
        raise InvalidImageError(
            "The file is packed by a method that is not read here.", remedy="Make a plain zip (deflate)."
        )
    require_sensible_bytes(entry.file_size)
    if entry.file_size > SMALL_ENTRY_BYTES and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
        raise InvalidImageError(
            f"The file would inflate to {entry.file_size // max(1, entry.compress_size)} times its packed size.",
            remedy="If it is a real scan, upload it without the zip.",
        )
    try:
        with archive.open(entry) as file:
            return file.read(entry.file_size + 1)  # zipfile itself stops at the declared size and checks the CRC
    except DAMAGE_ERRORS as error:
        raise InvalidImageError("The file is damaged inside the zip.", remedy="Make the zip again.") from error


def _peek_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, count: int) -> bytes:
    if entry.flag_bits & 1 or entry.compress_type not in METHODS:
        return b""
    with archive.open(entry) as file:
        return file.read(count)


def read_start(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file, or as many as there are; none of one that cannot be opened."""
    try:
        with open_regular(path) as file:
            return file.read(count)
    except OSError:
        return b""


def read_path(path: Path) -> bytes:
    """The bytes of a file, at most as many as one upload may have, even where it grows while it is read.

    Raises:
        InvalidImageError: It is too large, cannot be opened, or is no file: a pipe, a device.
    """
    try:
        require_sensible_bytes(path.stat().st_size)
        data = read_regular(path, limits.MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidImageError(
            f"The file cannot be opened ({error.strerror}).", remedy="Check its permissions."
        ) from error
    require_sensible_bytes(len(data))
    return data


def is_hidden(name: str) -> bool:
    """Whether a file of a zip or folder is hidden, or one that macOS or Windows adds; some zips have backslashes."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part in ("__MACOSX", "Thumbs.db")
        for part in name.replace("\\", "/").split("/")
    )


def path_of(name: str) -> PurePosixPath:
    """The name of a file as a path to compare and to take apart, on every system alike; never one to open."""
    return PurePosixPath(name.replace("\\", "/").replace("\0", "_"))
