"""Which model version is in service, and who put it there: weights/registry.json beside one folder a version.

| schema | holds                                                                              |
|--------|------------------------------------------------------------------------------------|
| 1      | in_service                                                                         |
| 2      | in_service, revision (how many changes there were), history (all of them)          |
| 3      | as 2; a change may also name the checksums of the two cards                        |

Older schemas are read, and written as 3 by the next change.

A change is made under a lock, against the version that its author saw in service (compare and swap), and by one
rename: a reader, a kill or a full disk never meets half of it. The audit log, where there is one, has its entry
before the change takes place.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from busi_core.access import Permit, command_line
from busi_core.audit import AuditLog, clean_text
from busi_core.database import transaction
from busi_core.errors import ModelUnavailableError, OutputError, PromotionError
from busi_core.files import write_atomically
from busi_core.models.checkpoint import CARD_FILE, read_card

REGISTRY_FILE = "registry.json"
LOCK_FILE = ".registry.lock"
REGISTRY_SCHEMA = 3
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # also a safe folder name
PROMOTED, ROLLED_BACK, BY_HAND = "promoted", "rolled back", "put into service by hand"
MAX_COMMENT = 500  # characters


@dataclass(frozen=True)
class Change:
    """One change of the version in service.

    Attributes:
        revision: Its number, from 1 without gaps.
        kind: 'promoted' (through the gate), 'rolled back' or 'put into service by hand' (by the machine's owner).
        version: In service from then on.
        before: In service until then; '' for the very first.
        when: ISO 8601, UTC.
        who: As the permit names them.
        comment: Why, in their words.
        sha256: Of the weights of `version`, as its card vouches.
        before_sha256: Of the weights of `before`; '' where it had no readable card.
        evidence: What the decision stood on: outcome, checksums of protocol and record; empty without the gate.
        card_sha256: Of the card of `version`: cut-offs and temperature change results too. '' where schema 2 kept none.
        before_card_sha256: Of the card of `before`; '' where that could not be read, or schema 2 kept none.
    """

    revision: int
    kind: str
    version: str
    before: str
    when: str
    who: str
    comment: str
    sha256: str
    before_sha256: str
    evidence: Mapping[str, Any]
    card_sha256: str = ""
    before_card_sha256: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type in (str, int) and type(getattr(self, field.name)) is not field.type:
                raise TypeError(f"{field.name} of a change must be of another type")
        if not isinstance(self.evidence, Mapping):
            raise TypeError("the evidence of a change must be an object")


@dataclass(frozen=True)
class Registry:
    """Attributes:
    in_service: The version that reads scans.
    versions: All versions that have a card, by name.
    revision: How many changes there were since the history is kept.
    history: All of them, oldest first.
    """

    in_service: str
    versions: tuple[str, ...]
    revision: int = 0
    history: tuple[Change, ...] = ()

    def checksum_in_service(self, version: str) -> str | None:
        """Of the weights that a version had when it was last in service; None when it never was, or nobody knows."""
        for change in reversed(self.history):
            if change.version == version:
                return change.sha256
            if change.before == version:
                return change.before_sha256 or None
        return None

    def card_in_service(self, version: str) -> str | None:
        """Checksum of the card that a version was last put into service with; None when nobody knows.

        A version that was in service before cards were kept is known by the card that lay there when it left.
        """
        put = [change.card_sha256 for change in self.history if change.version == version]
        left = [change.before_card_sha256 for change in self.history if change.before == version]
        return next(filter(None, [*reversed(put), *reversed(left)]), None)

    @property
    def earlier(self) -> tuple[str, ...]:
        """Versions that were in service once and are not now, the latest first."""
        seen = [name for change in reversed(self.history) for name in (change.version, change.before)]
        return tuple(name for name in dict.fromkeys(seen) if name and name != self.in_service)


def read_registry(weights_dir: Path) -> Registry:
    """Read which version is in service.

    Raises:
        ModelUnavailableError: registry.json is missing, damaged, of a newer program, or the system refuses to read it.
    """
    try:
        content = json.loads((weights_dir / REGISTRY_FILE).read_text(encoding="utf-8"))
        schema = content["schema"]
        is_newer = schema not in range(1, REGISTRY_SCHEMA + 1)
        in_service, history = ("", ()) if is_newer else _read_content(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelUnavailableError(
            "No model is in service: weights/registry.json is missing.",
            remedy="Check BUSI_WEIGHTS_DIR, restore the weights folder from the repository, or train a model with "
            "'busi train' and name it to 'busi serve'.",
        ) from error
    except OSError as error:
        raise ModelUnavailableError(
            f"No model is in service: weights/registry.json cannot be read ({error.strerror}).",
            remedy="Check what it is, and its permissions.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            "No model is in service: weights/registry.json is damaged.",
            remedy="Restore it from a backup or the repository, or move it away and name a version to 'busi serve': "
            "its history then begins anew.",
        ) from error
    if is_newer:
        raise ModelUnavailableError(
            f"weights/registry.json has schema {schema}, this program reads up to {REGISTRY_SCHEMA}.",
            remedy="Update the program.",
        )
    return Registry(check_version_name(in_service), list_versions(weights_dir), len(history), history)


def list_versions(weights_dir: Path) -> tuple[str, ...]:
    """Every version that has a card, by name."""
    return tuple(sorted(card.parent.name for card in weights_dir.glob(f"*/{CARD_FILE}")))


def change_service(
    weights_dir: Path,
    version: str,
    *,
    kind: str,
    who: str,
    comment: str,
    expected_in_service: str | None,
    before_write: Callable[[Change], Mapping[str, Any]],
) -> Registry:
    """Name the version that reads scans from now on; whole or not at all, and only in the state its author saw.

    Who may do so is settled by the callers, each with its own permit: `promotion.promote`, `promotion.roll_back`,
    `put_into_service`.

    Args:
        weights_dir: Where versions lie.
        version: With a readable card.
        kind: 'promoted', 'rolled back' or 'put into service by hand'.
        who: From a permit.
        comment: Why.
        expected_in_service: The version in service that the author saw; None where there is no registry yet.
        before_write: Called under the lock with the change to be made, before anything is written; returns its
            evidence. Checks, the record and the entry in the audit log belong there. What it raises stops the change.

    Raises:
        ModelUnavailableError: There is no such version, or the registry cannot be read.
        PromotionError: Another version is in service by now; says who put it there, and when.
        OutputError: The disk refuses; the version before stays.
    """
    require_version(weights_dir, version)
    changed: list[Registry] = []
    try:
        with transaction(weights_dir / LOCK_FILE, ()):  # SQLite's lock: the system opens it when its holder dies
            registry = read_registry(weights_dir) if (weights_dir / REGISTRY_FILE).exists() else None
            before = registry.in_service if registry else None
            if before != expected_in_service:
                raise overtaken(registry)
            history = registry.history if registry else ()
            change = Change(
                revision=len(history) + 1,
                kind=kind,
                version=version,
                before=before or "",
                when=datetime.now(UTC).isoformat(timespec="seconds"),
                who=who,
                comment=clean_text(comment),
                sha256=read_card(weights_dir / version).sha256,
                before_sha256=_checksum(weights_dir, before),
                evidence={},
                card_sha256=_card_checksum(weights_dir, version),
                before_card_sha256=_card_checksum(weights_dir, before),
            )
            change = replace(change, evidence=before_write(change))
            after = Registry(version, list_versions(weights_dir), change.revision, (*history, change))
            _write_registry(weights_dir, after)
            changed.append(after)
    except OutputError:
        if not changed:
            raise
    return changed[0]  # also where the lock's own end failed: another version is in service by then


def _write_registry(weights_dir: Path, registry: Registry) -> None:
    content = {
        "schema": REGISTRY_SCHEMA,
        "in_service": registry.in_service,
        "revision": registry.revision,
        "history": [asdict(change) for change in registry.history],
    }
    write_atomically(weights_dir / REGISTRY_FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def put_into_service(
    weights_dir: Path,
    version: str,
    *,
    permit: Permit | None = None,
    comment: str = "",
    audit: AuditLog | None = None,
) -> Registry:
    """The machine's owner at a shell puts a version into service without the gate; the history says so.

    Pages never call it: they go through `promotion.promote` and `promotion.roll_back`.

    Args:
        weights_dir: Where versions lie.
        version: With a card.
        permit: The command line's unless given.
        comment: Why.
        audit: Gets its entry before the change, where the server keeps a log.

    Raises:
        ModelUnavailableError: There is no such version.
        OutputError: The file cannot be written; the version before stays.
    """
    who = (permit or command_line()).confirm()
    require_version(weights_dir, version)
    registry = read_registry(weights_dir) if (weights_dir / REGISTRY_FILE).exists() else None
    if registry is not None and registry.in_service == version:
        return registry

    def tell(change: Change) -> Mapping[str, Any]:
        if audit is not None:
            audit.append(who, "promotion.done", version, before=change.before, gate="not asked", comment=comment)
        return {}

    return change_service(
        weights_dir,
        version,
        kind=BY_HAND,
        who=who,
        comment=comment,
        expected_in_service=registry.in_service if registry else None,
        before_write=tell,
    )


def require_version(weights_dir: Path, version: str) -> None:
    """Refuse the name of a version that does not lie there.

    Raises:
        ModelUnavailableError: It cannot be a version's name, or there is none of this name.
    """
    check_version_name(version)
    if version not in list_versions(weights_dir):
        raise ModelUnavailableError(
            f"There is no model version {version!r}.",
            remedy=f"Known: {', '.join(list_versions(weights_dir)) or 'none'}.",
        )


def check_version_name(version: str) -> str:
    """Return the name if it can be a folder of its own.

    Raises:
        ModelUnavailableError: It holds anything but letters, digits, '.', '_' and '-'.
    """
    if not VERSION_NAME.fullmatch(version):
        raise ModelUnavailableError(
            f"{version!r} cannot be the name of a model version.",
            remedy="Use up to 64 letters, digits, '.', '_' and '-'.",
        )
    return version


def _read_content(content: Mapping[str, Any]) -> tuple[str, tuple[Change, ...]]:
    """The version in service and the history; raises TypeError, KeyError or ValueError where they make no sense."""
    in_service = content["in_service"]
    if not isinstance(in_service, str):
        raise TypeError("in_service is no name")
    if content["schema"] == 1:
        return in_service, ()
    history = tuple(Change(**row) for row in content["history"])
    if [change.revision for change in history] != list(range(1, content["revision"] + 1)):
        raise ValueError("the history has gaps")
    if not history or history[-1].version != in_service:
        raise ValueError("the version in service is not the one that was last put there")
    return in_service, history


def _checksum(weights_dir: Path, version: str | None) -> str:
    if version is None:
        return ""
    try:
        return read_card(weights_dir / version).sha256
    except ModelUnavailableError:
        return ""  # a version whose card is gone may still be replaced


def _card_checksum(weights_dir: Path, version: str | None) -> str:
    if version is None:
        return ""
    try:
        return hashlib.sha256((weights_dir / version / CARD_FILE).read_bytes()).hexdigest()
    except OSError:
        return ""


def overtaken(registry: Registry | None) -> PromotionError:
    """The refusal of a change whose author saw another version in service; says who put this one there, and when."""
    return PromotionError(_who_was_first(registry), remedy="Look at the page anew, then decide again.")


def _who_was_first(registry: Registry | None) -> str:
    if registry is None:
        return "No version is in service any more."
    if not registry.history:
        return f"By now {registry.in_service!r} is in service."
    last = registry.history[-1]
    return f"Another came first: {last.who} put {last.version!r} into service at {last.when} ('{last.kind}')."
