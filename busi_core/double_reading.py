"""A version and an even number of its siblings -> a new version, which asks them for a second opinion in doubt.

    weights/OF, weights/A, weights/B  --join-->  weights/VERSION: weights, cut-offs and limits of OF, and readers

Nothing is chosen anew: the majority keeps what a cut-off means (`models.second_opinion`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import torch

from busi_core.errors import DatasetError
from busi_core.limits import read_limits, write_limits
from busi_core.models.checkpoint import MODEL_FILE, ModelCard, load_version, pack_readers, save_version
from busi_core.models.second_opinion import SecondOpinion
from busi_core.registry import check_version_name, list_versions
from busi_core.release import current_commit
from busi_core.settings import Settings
from busi_core.taught import read_taught, write_taught


def join(version: str, *, of: str, readers: Sequence[str], settings: Settings) -> ModelCard:
    """Make `weights/<version>/`.

    Args:
        version: Its name.
        of: Whose network reads first, and whose cut-offs, calibration and limits stay.
        readers: Whose networks read as well in doubt: of the same recipe and the same test part, an even number.
        settings: Where versions lie.

    Raises:
        ModelUnavailableError: A version is not there or damaged.
        DatasetError: A reader is of another recipe, may have seen the test part, or is named twice; there are not an
            even number of them; or there is a version of that name already.
        OutputError: The version cannot be written.
    """
    if check_version_name(version) in list_versions(settings.weights_dir):
        raise DatasetError(f"There is a version {version!r} already.", remedy="Choose another name.")
    cpu = torch.device("cpu")
    first = settings.weights_dir / check_version_name(of)
    _, card = load_version(first, cpu)
    if not readers or len(readers) % 2:
        raise DatasetError(
            f"A second opinion needs an even number of readers, got {len(readers)}.",
            remedy="Name two, so that of three networks two always agree.",
        )
    trained_on, hashes, weights = list(card.trained_on), read_taught(first, card.trained_on).hashes, []
    sums = [card.sha256]
    for name in readers:
        folder = settings.weights_dir / check_version_name(name)
        _, other = load_version(folder, cpu)
        if (other.architecture, other.preprocess) != (card.architecture, card.preprocess):
            raise _unfit(name, "it has another network or prepares its images in another way")
        if other.training.get("test_fold") != card.training.get("test_fold"):
            raise _unfit(name, f"it kept another test part than {of!r}, whose test part may have taught it")
        if other.sha256 in sums:
            raise _unfit(name, "its weights are those of another reader, so it would say the same")
        sums.append(other.sha256)
        trained_on += other.trained_on
        hashes |= read_taught(folder, other.trained_on).hashes
        weights.append((folder / MODEL_FILE).read_bytes())
    packed = pack_readers(weights)
    joined = replace(
        card,
        version=version,
        trained_on=tuple(dict.fromkeys(trained_on)),
        second_opinion=SecondOpinion(tuple(readers), hashlib.sha256(packed).hexdigest()),
        commit=current_commit(),
        created=datetime.now(UTC).date().isoformat(),
    )
    folder, limits = settings.weights_dir / version, read_limits(first, card)
    write_taught(folder, hashes)
    if limits is not None:
        write_limits(folder, limits, joined)
    save_version(folder, (first / MODEL_FILE).read_bytes(), joined, packed)
    return joined


def _unfit(name: str, reason: str) -> DatasetError:
    return DatasetError(
        f"{name!r} cannot give a second opinion: {reason}.",
        remedy="Name versions of the same recipe and the same test part, such as its siblings.",
    )
