"""Which model version is in service: weights/registry.json beside one folder a version."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from busi_core.errors import ModelUnavailableError
from busi_core.files import write_atomically
from busi_core.models.checkpoint import CARD_FILE

REGISTRY_FILE = "registry.json"
REGISTRY_SCHEMA = 1
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # also a safe folder name


@dataclass(frozen=True)
class Registry:
    """Attributes:
    in_service: The version that reads scans.
    versions: All versions that have a card, by name.
    """

    in_service: str
    versions: tuple[str, ...]


def read_registry(weights_dir: Path) -> Registry:
    """Read which version is in service.

    Raises:
        ModelUnavailableError: registry.json is missing, damaged or of a newer program.
    """
    try:
        content = json.loads((weights_dir / REGISTRY_FILE).read_text(encoding="utf-8"))
        schema, in_service = content["schema"], content["in_service"]
        if schema == REGISTRY_SCHEMA and not isinstance(in_service, str):
            raise TypeError("in_service is no name")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            "No model is in service: weights/registry.json is missing or damaged.",
            remedy="Restore the weights folder from the repository, or train a model with 'busi train'.",
        ) from error
    if schema != REGISTRY_SCHEMA:
        raise ModelUnavailableError(
            f"weights/registry.json has schema {schema}, this program reads {REGISTRY_SCHEMA}.",
            remedy="Update the program.",
        )
    return Registry(check_version_name(in_service), list_versions(weights_dir))


def list_versions(weights_dir: Path) -> tuple[str, ...]:
    """Every version that has a card, by name."""
    return tuple(sorted(card.parent.name for card in weights_dir.glob(f"*/{CARD_FILE}")))


def put_into_service(weights_dir: Path, version: str) -> None:
    """Name the version that reads scans from now on; atomic.

    Raises:
        ModelUnavailableError: There is no such version.
        OutputError: The file cannot be written; the version before stays.
    """
    if version not in list_versions(weights_dir):
        raise ModelUnavailableError(
            f"There is no model version {version!r}.",
            remedy=f"Known: {', '.join(list_versions(weights_dir)) or 'none'}.",
        )
    content = {"schema": REGISTRY_SCHEMA, "in_service": version}
    write_atomically(weights_dir / REGISTRY_FILE, (json.dumps(content, indent=1) + "\n").encode())


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
