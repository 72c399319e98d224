"""Versions that choose for one which learned from all but the test part: each kept another part of what taught it.

    siblings A, B, C, D of one test part  --read_siblings-->  (network, card, the scans that it kept) each
    a version taught by all of them       <--release-- cut-off, temperature, flag and limits from the kept scans

Every scan is read by a version that it did not teach, as in cross-conformal prediction, and no scan is lost to the
training: a fifth more of it is worth two points of accuracy (docs/experiments.md). The siblings are not the version
itself; that what holds for them holds for it is an assumption, which its locked test part checks.

References:
    Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74 (2015) 9-28.
    Barber et al., "Predictive inference with the jackknife+", arXiv:1905.02928.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from busi_core.data.records import Record
from busi_core.errors import DatasetError
from busi_core.models.checkpoint import ModelCard, load_version
from busi_core.models.network import Network
from busi_core.recipes.product import read_split
from busi_core.registry import check_version_name
from busi_core.service import Analyser
from busi_core.settings import Settings
from busi_core.training.config import TrainingConfig


@dataclass(frozen=True, eq=False)
class Sibling:
    """A version, frozen, with the scans that it kept as its validation part."""

    network: Network
    card: ModelCard
    kept: tuple[Record, ...]

    def reader(self, device: torch.device, *, reads_as: ModelCard) -> Analyser:
        """It reads as the version does that it chooses for, at that version's temperature and weighing as it does, but
        alone: no other network is at hand that none of its kept scans taught."""
        network = self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        card = replace(
            self.card,
            temperature=reads_as.temperature,
            weighs_presence=reads_as.weighs_presence,
            second_opinion=None,
        )
        return Analyser(network, card, device)


def read_siblings(
    names: Sequence[str],
    config: TrainingConfig | ModelCard,
    *,
    data_sets: tuple[str, ...],
    test_fold: int | None,
    settings: Settings,
) -> tuple[Sibling, ...]:
    """Load the versions that are to choose for one with this configuration.

    Args:
        names: Of the siblings.
        config: Of the version, or its card: what it reads, and with which network.
        data_sets: As in `read_split`; the same for all.
        test_fold: Likewise.
        settings: Where things lie.

    Raises:
        ModelUnavailableError: A version is not there or damaged.
        DatasetError: One is of another recipe or another split, chose its epoch by what it kept, or keeps a scan that
            another one keeps.
    """
    found: list[Sibling] = []
    seen: set[str] = set()
    for name in names:
        network, card = load_version(settings.weights_dir / check_version_name(name), torch.device("cpu"))
        said = card.training
        asked = (config.architecture, config.preprocess, list(data_sets), test_fold)
        if (card.architecture, card.preprocess, list(said["data_sets"]), said["test_fold"]) != asked:
            raise _unfit(name, "another recipe, or kept another test part")
        kept = said.get("validation_fold", "next")
        if said["config"].get("keeps", "best") != "last" or kept == "none":
            raise _unfit(name, "one that kept no scans, or chose its epoch by them")
        validation = read_split(settings, data_sets, test_fold=test_fold, kept=kept).validation
        ids = {record.id for record in validation}
        if seen & ids:
            raise _unfit(name, "one that kept scans which another one kept")
        seen |= ids
        found.append(Sibling(network.requires_grad_(False).eval(), card, validation))
    return tuple(found)


def _unfit(name: str, reason: str) -> DatasetError:
    return DatasetError(
        f"{name!r} cannot choose for this version: it is {reason}.",
        remedy="Train siblings with --keeps last and the same options, each with another --validation-fold.",
    )
