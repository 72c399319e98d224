"""What a model version knows of its own limits, on disk beside its weights: weights/<version>/limits.safetensors.

Nonconformity of the validation scans of each class (for sets of classes) and what the training scans look like (for
refusing what is no breast ultrasound). Numbers about many scans, no picture of any. The file names the weights that
it belongs to and carries a checksum of its own; a version without it reads scans as before, without sets or refusal.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from busi_core.errors import ModelUnavailableError
from busi_core.files import write_atomically
from busi_core.metrics.conformal import Nonconformity, class_set
from busi_core.models.checkpoint import ModelCard
from busi_core.models.familiarity import Familiarity
from busi_core.types import Diagnosis, Prediction

LIMITS_FILE = "limits.safetensors"
LIMITS_SCHEMA = 2
READABLE_SCHEMAS = (1, LIMITS_SCHEMA)  # 1 knew no scans in doubt


@dataclass(frozen=True, eq=False)
class Limits:
    """Attributes:
    nonconformity: As `metrics.conformal` measures it; None without a class head.
    familiarity: What the training scans look like.
    siblings: Versions that scored scans beside the validation part, which taught this version and not them.
    """

    nonconformity: Nonconformity | None
    familiarity: Familiarity
    siblings: tuple[str, ...] = ()

    def classes_left(self, prediction: Prediction, coverage: float) -> tuple[Diagnosis, ...] | None:
        """The classes that cannot be ruled out at this coverage (0.8 to 0.99); None without a class head."""
        if prediction.probabilities is None or self.nonconformity is None:
            return None
        scores = [prediction.probabilities[diagnosis] for diagnosis in Diagnosis]
        kept = class_set(scores, self.nonconformity, coverage)
        return tuple(diagnosis for diagnosis, stays in zip(Diagnosis, kept, strict=True) if stays)

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """All the numbers, by the names that they have in the file."""
        known, sets = self.familiarity, self.nonconformity
        return {
            **({f"class_scores.{column}": scores for column, scores in enumerate(sets.by_class)} if sets else {}),
            **({"doubt_scores": sets.in_doubt, "doubt_below": np.array([sets.in_doubt_below])} if sets else {}),
            **{name: getattr(known, name) for name in ("mean", "scale", "precision")},
            "distances": np.array([known.unlike_from, known.foreign_from]),
        }

    def checksum(self) -> str:
        """SHA-256 of the numbers."""
        return _checksum(self.tensors())


def write_limits(folder: Path, limits: Limits, card: ModelCard) -> None:
    """Write the limits of the weights that `card` vouches for.

    Raises:
        OutputError: The folder cannot be written.
    """
    about = {"schema": LIMITS_SCHEMA, "weights": card.sha256, "sha256": limits.checksum()}
    about["siblings"] = list(limits.siblings)
    write_atomically(folder / LIMITS_FILE, save(limits.tensors(), {"about": json.dumps(about)}))


def read_limits(folder: Path, card: ModelCard) -> Limits | None:
    """Read the limits beside a version's weights; None when there are none.

    Raises:
        ModelUnavailableError: The file is damaged, of a newer program or of other weights.
    """
    path = folder / LIMITS_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dictionary)
        _refuse_newer(about["schema"], folder.name)
        sound = about["schema"] in READABLE_SCHEMAS and about["weights"] == card.sha256
        if not sound or about["sha256"] != _checksum(tensors):
            raise ValueError("of other weights, or changed")
        unlike_from, foreign_from = tensors["distances"].tolist()
        return Limits(
            _read_nonconformity(tensors),
            Familiarity(tensors["mean"], tensors["scale"], tensors["precision"], unlike_from, foreign_from),
            tuple(map(str, about.get("siblings", ()))),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"The limits of model {folder.name!r} are damaged or belong to other weights.",
            remedy="Restore the folder from the repository, or make them again with 'busi limits'.",
        ) from error


def _refuse_newer(schema: int, version: str) -> None:
    if schema > LIMITS_SCHEMA:
        raise ModelUnavailableError(
            f"The limits of model {version!r} have schema {schema}, this program reads up to {LIMITS_SCHEMA}.",
            remedy="Update the program, or make them again with 'busi limits'.",
        )


def _read_nonconformity(tensors: Mapping[str, NDArray[np.floating[Any]]]) -> Nonconformity | None:
    columns = sum(name.startswith("class_scores.") for name in tensors)
    if not columns:
        return None
    by_class = tuple(np.asarray(tensors[f"class_scores.{column}"], np.float64) for column in range(columns))
    if "doubt_scores" not in tensors:
        return Nonconformity(by_class, np.zeros(0), 0.0)
    in_doubt = np.asarray(tensors["doubt_scores"], np.float64)
    return Nonconformity(by_class, in_doubt, float(tensors["doubt_below"][0]))


def _checksum(tensors: Mapping[str, NDArray[np.floating[Any]]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
