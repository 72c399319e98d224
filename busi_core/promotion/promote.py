"""Put a judged candidate into service with a comment, or an earlier version back: by an administrator, on record.

Everything is checked here again, whatever a page showed or a button sent: who asks, the files' checksums, the verdict
and its rules, and that nobody came first.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from busi_core.access import Permit
from busi_core.audit import AuditLog
from busi_core.errors import BusiError, ModelUnavailableError, OutputError, PromotionError
from busi_core.promotion.judge import identify
from busi_core.promotion.protocol import read_protocol
from busi_core.promotion.record import write_record
from busi_core.promotion.verdict import Verdict, require_promotable
from busi_core.registry import (
    MAX_COMMENT,
    PROMOTED,
    ROLLED_BACK,
    Change,
    Registry,
    change_service,
    check_version_name,
    overtaken,
    read_registry,
)
from busi_core.service import Analyser
from busi_core.settings import Settings


def promote(
    permit: Permit,
    candidate: str,
    *,
    comment: str,
    expected_in_service: str,
    verdict: Verdict | None,
    settings: Settings,
    audit: AuditLog,
) -> Registry:
    """Put a candidate into service whose verdict allows it; sessions move over with their next scan.

    Args:
        permit: Asked before anything else.
        candidate: Version to put into service.
        comment: Why, in one or a few sentences.
        expected_in_service: The version in service that the administrator saw.
        verdict: From `judge`; must be about exactly these files, beside `expected_in_service`, under the rules of now.
        settings: Where versions and rules lie.
        audit: Gets its entry before the change; a refusal is entered too.

    Raises:
        AccessDeniedError: Not an administrator (any more).
        PromotionError: Refused, with the reason; the version in service stays.
        OutputError: The disk refuses; the version in service stays.
    """
    who = permit.confirm()
    with _refusals(audit, who, candidate, "promote"):
        said = _require_comment(comment)
        _require_sound(candidate, settings)
        if verdict is None:
            raise PromotionError(
                f"{candidate!r} has not been judged beside {expected_in_service!r}.", remedy="Judge it first."
            )
        protocol = read_protocol(settings.promotion_protocol)
        written: list[Path] = []

        def keep_evidence(change: Change) -> Mapping[str, Any]:
            contenders = [identify(settings.weights_dir / name) for name in (candidate, change.before)]
            require_promotable(verdict, contenders[0], contenders[1], protocol)
            path, sha256 = write_record(settings.weights_dir, change, verdict, protocol)
            written.append(path)
            audit.append(
                permit.confirm(),
                "promotion.done",
                candidate,
                before=change.before,
                revision=change.revision,
                outcome=verdict.outcome,
                comment=said,
                weights_sha256=verdict.candidate.weights_sha256,
                record_sha256=sha256,
            )
            return {"outcome": verdict.outcome, "protocol_sha256": protocol.sha256, "record_sha256": sha256}

        try:
            return change_service(
                settings.weights_dir,
                candidate,
                kind=PROMOTED,
                who=who,
                comment=said,
                expected_in_service=expected_in_service,
                before_write=keep_evidence,
            )
        except BusiError:
            for path in written:
                path.unlink(missing_ok=True)  # a record of what did not happen
            raise


def roll_back(
    permit: Permit, version: str, *, comment: str, expected_in_service: str, settings: Settings, audit: AuditLog
) -> Registry:
    """Put a version back that was in service before; no verdict is asked for, but its files must be the same.

    Where it is in service again since the administrator looked, nothing is left to do.

    Args:
        permit: Asked before anything else.
        version: In service at some time before.
        comment: Why; may be empty, since a model that errs must be gone at one click.
        expected_in_service: The version in service that the administrator saw.
        settings: Where versions lie.
        audit: Gets its entry before the change; a refusal is entered too.

    Raises:
        AccessDeniedError: Not an administrator (any more).
        PromotionError: It was never in service, its files are not those that were, or another came first.
        OutputError: The disk refuses; the version in service stays.
    """
    who = permit.confirm()
    with _refusals(audit, who, version, "roll back"):
        said = _read_comment(comment)
        registry = read_registry(settings.weights_dir)
        if registry.in_service != expected_in_service:  # as from a second click, or a page that stood open
            if registry.in_service == version:
                return registry
            raise overtaken(registry)
        _require_sound(version, settings)
        if version not in registry.earlier:
            raise PromotionError(
                f"{version!r} was not in service before.", remedy="Judge it and promote it, or choose another version."
            )
        now, restore = identify(settings.weights_dir / version), "Restore its folder from the repository or a backup."
        if registry.checksum_in_service(version) not in (None, now.weights_sha256):
            raise PromotionError(f"The weights of {version!r} are not those that were in service.", remedy=restore)
        if registry.card_in_service(version) not in (None, now.card_sha256):
            raise PromotionError(f"The card of {version!r} is not the one that was in service.", remedy=restore)

        def tell(change: Change) -> Mapping[str, Any]:
            audit.append(
                permit.confirm(),
                "rollback.done",
                version,
                before=change.before,
                revision=change.revision,
                comment=said,
                weights_sha256=change.sha256,
            )
            return {}

        return change_service(
            settings.weights_dir,
            version,
            kind=ROLLED_BACK,
            who=who,
            comment=said,
            expected_in_service=expected_in_service,
            before_write=tell,
        )


@contextmanager
def _refusals(audit: AuditLog, who: str, version: str, wanted: str) -> Iterator[None]:
    """Enter what stopped the change into the log, as far as the disk lets us; a version problem is a refusal too."""
    try:
        yield
    except (PromotionError, ModelUnavailableError, OutputError) as error:
        with suppress(OutputError):
            audit.append(who, "promotion.refused", version, wanted=wanted, reason=error.problem)
        if isinstance(error, ModelUnavailableError):
            raise PromotionError(error.problem, remedy=error.remedy) from error
        raise


def _read_comment(comment: str) -> str:
    said = " ".join(comment.split())
    if len(said) > MAX_COMMENT:
        raise PromotionError(
            f"The comment has {len(said)} characters.", remedy=f"Write up to {MAX_COMMENT}; no names of patients."
        )
    return said


def _require_comment(comment: str) -> str:
    said = _read_comment(comment)
    if not said:
        raise PromotionError("A promotion needs a comment.", remedy="Write why; no names of patients.")
    return said


def _require_sound(version: str, settings: Settings) -> None:
    """Card, weights, limits, what taught it: loaded as serving will load it; refused before anything changes."""
    Analyser.load(settings.weights_dir / check_version_name(version), torch.device("cpu"))
