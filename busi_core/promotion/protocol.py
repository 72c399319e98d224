"""promotion.toml -> Protocol: the rules of the gate, written before any candidate exists.

Every key must be there and none may be unknown: a rule that was misspelt would be a rule that is not kept.
"""

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from busi_core.errors import PromotionError
from busi_core.settings import PROJECT_ROOT
from busi_core.types import Diagnosis

PROTOCOL_SCHEMA = 1
MAX_PROTOCOL_BYTES = 100_000
SHA256_DIGITS = 64

Part = TypeVar("Part")


@dataclass(frozen=True)
class TestSet:
    """Scans that no candidate may have seen.

    Attributes:
        name: As evaluations call it, 'busi fold 0'.
        data_set: 'busi', 'bus-bra', or the id of a managed set.
        fold: Its part that is locked; -1 for the whole of a managed set.
        scans: How many there are.
        sha256: Over names, classes, images and masks (`locked.checksum`).
    """

    __test__ = False  # no test of pytest's

    name: str
    data_set: str
    fold: int
    scans: int
    sha256: str

    def __post_init__(self) -> None:
        if self.scans < 1:
            raise ValueError(f"the test set {self.name!r} must hold scans, got {self.scans}")
        if len(self.sha256) != SHA256_DIGITS or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256 of the test set {self.name!r} must be {SHA256_DIGITS} digits")


@dataclass(frozen=True)
class Smallest:
    """Least numbers of locked scans of each class; with fewer there is no verdict but 'insufficient evidence'."""

    normal: int
    benign: int
    malignant: int

    def __post_init__(self) -> None:
        if min(self.normal, self.benign, self.malignant) < 1:
            raise ValueError("each class needs at least one scan; a gate without normals cannot say they stay unmarked")

    def of(self, diagnosis: Diagnosis) -> int:
        """The least number for one class."""
        return int(getattr(self, diagnosis.value))


@dataclass(frozen=True)
class NonInferior:
    """By how much a candidate may be worse at most: the lower 95 % bound of the gain must lie above minus this."""

    lesion_dice: float
    auc: float

    def __post_init__(self) -> None:
        _require_margins(self)


@dataclass(frozen=True)
class NotWorse:
    """What must not get worse: the gain itself must not lie below minus this. All are shares.

    Attributes:
        normals_with_mask: More of the normals given a mask.
        lesions_missed: More of the lesions missed.
        sensitivity: At `specificity`.
        specificity: At which that sensitivity is read off.
        flag_sensitivity: Of the malignancy flag, each version at its own cut-off.
        flag_specificity: Likewise.
        calibration_error: Expected calibration error.
    """

    normals_with_mask: float
    lesions_missed: float
    sensitivity: float
    specificity: float
    flag_sensitivity: float
    flag_specificity: float
    calibration_error: float

    def __post_init__(self) -> None:
        _require_margins(self)


@dataclass(frozen=True)
class Subgroups:
    """Where a loss must not hide: classes, lesion sizes, devices, test sets.

    Attributes:
        smallest: Lesions that a part must hold to count.
        lesion_dice: A part is worse when its gain lies below minus this and its interval below 0.
        auc: Likewise.
        small_below: Share of the image under which a lesion is small.
        large_from: Share of the image from which it is large.
    """

    smallest: int
    lesion_dice: float
    auc: float
    small_below: float
    large_from: float

    def __post_init__(self) -> None:
        _require_margins(self)
        if self.smallest < 2:
            raise ValueError(f"a part needs at least 2 lesions, got {self.smallest}")
        if not self.small_below < self.large_from:
            raise ValueError("small_below must lie below large_from")


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: 95 %, over scans (over cases where the data set names them)."""

    draws: int
    seed: int
    power: float

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise ValueError(f"fewer than 100 draws give no 95 % bound, got {self.draws}")
        if not 0.5 <= self.power < 1:
            raise ValueError(f"power must lie in [0.5, 1), got {self.power}")


@dataclass(frozen=True)
class Protocol:
    """The gate's rules.

    Attributes:
        test_sets: The locked scans.
        smallest, non_inferior, not_worse, subgroups, bootstrap: See there.
        sha256: Of the file: a verdict belongs to exactly these rules.
    """

    test_sets: tuple[TestSet, ...]
    smallest: Smallest
    non_inferior: NonInferior
    not_worse: NotWorse
    subgroups: Subgroups
    bootstrap: Bootstrap
    sha256: str


def read_protocol(path: Path = PROJECT_ROOT / "promotion.toml") -> Protocol:
    """Read the rules; nothing is filled in and nothing is overlooked.

    Raises:
        PromotionError: The file is missing or damaged, has a key too many or too few, or a value that makes no sense.
    """
    try:
        if path.stat().st_size > MAX_PROTOCOL_BYTES:
            raise ValueError("it is larger than any protocol")
        data = path.read_bytes()
        content = tomllib.loads(data.decode("utf-8"))
        _require_keys("the file", content, {"schema", "test_set", *_PARTS})
        if content["schema"] != PROTOCOL_SCHEMA:
            raise ValueError(f"it has schema {content['schema']!r}, this program reads {PROTOCOL_SCHEMA}")
        test_sets = tuple(_read_part(TestSet, "test_set", part) for part in content["test_set"])
        if len({part.name for part in test_sets}) < max(1, len(test_sets)):
            raise ValueError("there must be test sets, each with a name of its own")
        parts: dict[str, Any] = {name: _read_part(kind, name, content[name]) for name, kind in _PARTS.items()}
        return Protocol(test_sets=test_sets, **parts, sha256=hashlib.sha256(data).hexdigest())
    except OSError as error:
        raise PromotionError(
            f"The rules of the gate, {path.name!r}, cannot be read.",
            remedy="Restore the file from the repository, or correct BUSI_PROMOTION_PROTOCOL; without it nothing is "
            "put into service.",
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise PromotionError(
            f"The rules of the gate, {path.name!r}, make no sense: {error}.",
            remedy="Restore the file from the repository; without it nothing is put into service.",
        ) from error


_PARTS: Mapping[str, type[Any]] = {
    "smallest": Smallest,
    "non_inferior": NonInferior,
    "not_worse": NotWorse,
    "subgroups": Subgroups,
    "bootstrap": Bootstrap,
}


def _read_part(kind: type[Part], name: str, content: Any) -> Part:
    if not isinstance(content, dict):
        raise TypeError(f"{name!r} must be a table")
    types = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    _require_keys(name, content, set(types))
    for key, value in content.items():
        fits = type(value) is types[key] or (types[key] is float and type(value) is int)
        if not fits:
            raise TypeError(f"{name}.{key} must be {types[key].__name__}, got {value!r}")  # type: ignore[union-attr]
    return kind(**content)


def _require_keys(name: str, content: Mapping[str, Any], expected: set[str]) -> None:
    unknown, missing = sorted(set(content) - expected), sorted(expected - set(content))
    if unknown:
        raise ValueError(f"{name} has the unknown key {unknown[0]!r}")
    if missing:
        raise ValueError(f"{name} lacks the key {missing[0]!r}")


def _require_margins(part: Any) -> None:
    """Every float must be a share above 0 and below 1; also refuses NaN."""
    for field in fields(part):
        value = getattr(part, field.name)
        if field.type is float and not (math.isfinite(value) and 0 < value < 1):
            raise ValueError(f"{field.name} must lie between 0 and 1, got {value}")
