"""What was dropped on Compare or Batch: files one by one, and zips that are opened in memory.

What is left over is said in notes of plain text, one sentence or two each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from busi_core import InvalidImageError
from busi_core.data.pairing import TABLES, Batch, Case
from busi_core.data.sources import SourceFile, is_zip, list_uploads, list_zip

MAX_UPLOADS = 1_000  # files chosen one by one; the browser's list of them freezes the page for minutes from some more
NAMED = 5  # files that a note names
DOUBTFUL = (
    "Several files have the same name, so that whose masks these are cannot be told, and none is used; give them other "
    "names, or add them one after the other:"
)
Upload: TypeAlias = tuple[str, bytes]  # name as the browser gave it, content


@dataclass(frozen=True, eq=False)
class OpenZip:
    """A zip that was uploaded.

    Attributes:
        size: Bytes, packed: as it stays in memory.
        files: What is in it.
    """

    size: int
    files: list[SourceFile]


@dataclass(frozen=True, eq=False)
class OpenUploads:
    """What was dropped at once.

    Attributes:
        loose: Files chosen one by one.
        zips: Those that can be read.
    """

    loose: list[SourceFile]
    zips: list[OpenZip]

    @property
    def files(self) -> list[SourceFile]:
        """All of them, those in zips too."""
        return [*self.loose, *(file for packed in self.zips for file in packed.files)]

    def bytes_kept(self, cases: Iterable[Case]) -> int:
        """Bytes that stay in memory: files that a case is made of, and zips of which one is."""
        kept = {id(file) for case in cases for file in (case.scan, *case.masks)}
        return sum(file.size for file in self.loose if id(file) in kept) + sum(
            packed.size for packed in self.zips if any(id(file) in kept for file in packed.files)
        )


def cap_uploads(files: Sequence[Upload], notes: list[str]) -> Sequence[Upload]:
    """The first files of one drop; adds a note when there were more."""
    left_out = len(files) - MAX_UPLOADS
    if left_out > 0:
        notes.append(
            f"{MAX_UPLOADS:,} files are taken at once: {left_out} more were left out. Make a zip of them, or add them "
            "next."
        )
    return files[:MAX_UPLOADS]


def open_uploads(files: Sequence[Upload], notes: list[str]) -> OpenUploads:
    """Take them apart, nothing decoded yet; adds a note for a zip that cannot be read."""
    opened = OpenUploads([], [])
    for name, data in files:
        if not is_zip(data):
            opened.loose.extend(list_uploads([(name, data)]))
            continue
        try:
            opened.zips.append(OpenZip(len(data), list_zip(data)))
        except InvalidImageError as error:
            notes.append(f"{name}: {error.problem} {error.remedy}")
    return opened


def say_left_over(batch: Batch) -> list[str]:
    """What of an addition is no case, and what is wrong with it, one sentence each; plain text."""
    others = [name for name in batch.left_out if not name.endswith(TABLES)]
    kinds = (
        ("Masks without their scan:", [mask.name for mask in batch.lone_masks]),
        (DOUBTFUL, [mask.name for mask in batch.doubtful_masks]),
        ("Left out, no images by their names:", others),
    )
    said = [f"{what} {_name_some(names)}." for what, names in kinds if names]
    more = len(batch.problems) - NAMED
    return [*said, *batch.problems[:NAMED], *([f"{more} more problems of this kind."] if more > 0 else [])]


def _name_some(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    listed = ", ".join(names[:NAMED])
    return listed if len(names) <= NAMED else f"{listed} and {len(names) - NAMED} more"
