"""Makers of model versions for tests: tiny untrained networks, written and read exactly as real ones are."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.limits import Limits
from busi_core.models.checkpoint import MODEL_FILE, MalignancyFlag, ModelCard, pack_readers, read_card, save_version
from busi_core.models.network import Architecture, LesionNet, Network, build_network
from busi_core.models.second_opinion import SecondOpinion
from busi_core.registry import list_versions, put_into_service, read_registry
from busi_core.service import Analyser
from busi_core.settings import PROJECT_ROOT
from busi_core.types import Diagnosis

TINY = Architecture(
    name="unet",
    encoder="tu-test_resnet",  # timm's own encoder for tests
    padding="symmetric",
    in_channels=1,
    pixel_classes=("lesion",),
    image_classes=tuple(diagnosis.value for diagnosis in Diagnosis),
)
WEIGHTS = PROJECT_ROOT / "weights"
DISTURBED = 0.02  # of each tensor's own spread: another mask, and still a reading
SIDE_64 = PreprocessSpec(side=64, fit="pad", channels=1, mean=0.5, std=0.5)


def make_network(seed: int = 0, architecture: Architecture = TINY) -> LesionNet:
    """A network with random weights, as it would serve; leaves the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture)
    return network.requires_grad_(False).eval()


def weights_bytes(network: Network) -> bytes:
    """The network's weights as a safetensors file."""
    return save({key: value.contiguous() for key, value in network.state_dict().items()})


@cache
def make_weights(seed: int = 0, architecture: Architecture = TINY) -> bytes:
    """Such a network's weights as a safetensors file."""
    return weights_bytes(make_network(seed, architecture))


def make_card(weights: bytes, version: str = "tiny", **changes: Any) -> ModelCard:
    """A card that vouches for the weights."""
    card = ModelCard(
        version=version,
        task="lesion-and-class",
        architecture=TINY,
        preprocess=SIDE_64,
        temperature=1.5,
        lesion_threshold=0.5,
        weighs_presence=False,
        malignancy=MalignancyFlag(threshold=0.3, sensitivity=0.95, specificity=0.5, scans=40),
        heatmap_offset_px=(0.0, 0.0),
        training={"test_fold": 0},
        trained_on=(),
        encoder_source="random",
        commit="0000000",
        created="2026-11-20",
        sha256=hashlib.sha256(weights).hexdigest(),
        second_opinion=None,
    )
    return replace(card, **changes)


def write_version(weights_dir: Path, version: str = "tiny", *, seed: int = 0, **changes: Any) -> ModelCard:
    """Write weights/<version>/ through `save_version`."""
    weights = make_weights(seed, changes.get("architecture", TINY))
    card = make_card(weights, version, **changes)
    save_version(weights_dir / version, weights, card)
    return card


def make_analyser(seed: int = 0, **changes: Any) -> Analyser:
    """An analyser that was never on a disk."""
    network = make_network(seed, changes.get("architecture", TINY))
    card = make_card(weights_bytes(network), **changes)
    return Analyser(network.to(memory_format=torch.channels_last), card, torch.device("cpu"))


def make_panel(*, card: Mapping[str, Any] | None = None, limits: Limits | None = None, **when: Any) -> Analyser:
    """An analyser of three networks: that of seed 0 reads first, those of seeds 1 and 2 are asked."""
    first, *others = (make_network(seed).to(memory_format=torch.channels_last) for seed in (0, 1, 2))
    whole = make_card(make_weights(), second_opinion=opinion_of(1, 2, **when), **(card or {}))
    return Analyser(first, whole, torch.device("cpu"), limits, others=others)


def opinion_of(*seeds: int, **when: Any) -> SecondOpinion:
    """What a card says of readers with these weights."""
    packed = pack_readers([make_weights(seed) for seed in seeds])
    return SecondOpinion(tuple(f"reader-{seed}" for seed in seeds), hashlib.sha256(packed).hexdigest(), **when)


def copy_two_real_versions(folder: Path) -> tuple[str, str]:
    """A weights folder of its own with two real versions, the one in service first and in service there too.

    The second is another version of the repository where there is one, else the first with its weights disturbed.
    """
    first = read_registry(WEIGHTS).in_service
    shutil.copytree(WEIGHTS / first, folder / first)
    others = [version for version in list_versions(WEIGHTS) if version != first]
    second = others[-1] if others else "disturbed"
    if others:
        shutil.copytree(WEIGHTS / second, folder / second)
    else:
        weights = load((WEIGHTS / first / MODEL_FILE).read_bytes())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for value in weights.values():
                if value.is_floating_point() and value.dim() > 1:
                    value += DISTURBED * value.std() * torch.randn_like(value)
        content = save(weights)
        card = replace(read_card(WEIGHTS / first), version=second, sha256=hashlib.sha256(content).hexdigest())
        save_version(folder / second, content, card)
    put_into_service(folder, first)
    return first, second
