"""A model version on disk: weights/<version>/model.safetensors and card.json, checked before they are believed; for one
that asks for a second opinion also second-opinion.safetensors.

The card says what the network is and how to use it; its SHA-256 of the weights catches a flipped bit, which
safetensors does not. Pickled files are never opened, whatever they are called.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from busi_core.errors import ModelUnavailableError
from busi_core.files import write_atomically
from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.network import Architecture, Network, build_network
from busi_core.models.second_opinion import SecondOpinion
from busi_core.types import Diagnosis

MODEL_FILE = "model.safetensors"
SECOND_OPINION_FILE = "second-opinion.safetensors"
CARD_FILE = "card.json"
EVALUATION_FILE = "evaluation.json"
MAX_MODEL_BYTES = 600_000_000  # the largest network here is the FCN with 538 MB; a larger file is not one of ours
CARD_SCHEMA = 1
NOT_IN_OLD_CARDS = {"weighs_presence": False, "second_opinion": None}  # how a card from before these fields is read


@dataclass(frozen=True)
class MalignancyFlag:
    """The cut-off on the score of 'malignant' from which a scan is flagged, and what it reached on validation.

    Attributes:
        threshold: Score of malignant (its probability beside benign and normal), in [0, 1].
        sensitivity: Share of malignant validation scans flagged.
        specificity: Share of the other validation scans not flagged.
        scans: How many validation scans it was chosen on.
    """

    threshold: float
    sensitivity: float
    specificity: float
    scans: int


@dataclass(frozen=True)
class ModelCard:
    """What must travel with the weights. No defaults on purpose.

    Attributes:
        version: Name of the folder, as in '2026.11.20-a'.
        task: 'lesion-and-class', 'lesion', or 'tissue' (no scan of a breast: never served).
        architecture: The network.
        preprocess: How pixels are prepared.
        temperature: Class logits are divided by it; chosen on validation (Guo et al., arXiv:1706.04599).
        lesion_threshold: A pixel is lesion from this probability on; chosen on validation.
        weighs_presence: Whether the lesion probability of each pixel is multiplied by the chance that there is a lesion
            at all, 1 - the score of normal.
        malignancy: The flag, for 95 % sensitivity, chosen on validation; None without a class head.
        heatmap_offset_px: (rows, columns) in input pixels from a cell of the deepest features to what it looks at;
            heat maps are moved by it (`explain.alignment`).
        training: Data sets, split, configuration and what the run reached, as plain values.
        trained_on: Record ids that taught or chose anything: training and validation parts.
        encoder_source: Where the encoder's first weights came from, with licence; 'random' if nowhere.
        commit: Of the code that trained it.
        created: ISO date.
        sha256: Of model.safetensors.
        second_opinion: Whose opinion is asked for in doubt; None reads every scan by one network.
    """

    version: str
    task: str
    architecture: Architecture
    preprocess: PreprocessSpec
    temperature: float
    lesion_threshold: float
    weighs_presence: bool
    malignancy: MalignancyFlag | None
    heatmap_offset_px: tuple[float, float]
    training: Mapping[str, Any]
    trained_on: tuple[str, ...]
    encoder_source: str
    commit: str
    created: str
    sha256: str
    second_opinion: SecondOpinion | None

    def __post_init__(self) -> None:
        if not 0 < self.lesion_threshold < 1:
            raise ValueError(f"lesion_threshold must lie in (0, 1), got {self.lesion_threshold}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        unknown = set(self.architecture.image_classes) - set(Diagnosis)
        if unknown:
            raise ValueError(f"image classes must be among {[d.value for d in Diagnosis]}, got {sorted(unknown)}")
        if self.weighs_presence and Diagnosis.NORMAL not in self.architecture.image_classes:
            raise ValueError("without a class normal there is no chance of a lesion to weigh by")
        if self.architecture.in_channels != self.preprocess.channels:
            raise ValueError(
                f"the network reads {self.architecture.in_channels} channels, {self.preprocess.channels} are prepared"
            )


def save_version(folder: Path, weights: bytes, card: ModelCard, second_opinion: bytes = b"") -> None:
    """Write weights, then the card that vouches for them.

    Args:
        folder: weights/<version>/.
        weights: Of the network.
        card: Written last: it is what lists a version.
        second_opinion: Of `pack_readers`, where the card asks for one.

    Raises:
        OutputError: The folder cannot be written or the disk is full.
        ValueError: A checksum in the card is not that of the weights.
    """
    promised = card.second_opinion.sha256 if card.second_opinion else _digest(b"")
    if (_digest(weights), _digest(second_opinion)) != (card.sha256, promised):
        raise ValueError("the card's sha256 is not that of the weights")
    write_atomically(folder / MODEL_FILE, weights)
    if second_opinion:
        write_atomically(folder / SECOND_OPINION_FILE, second_opinion)
    content = {"schema": CARD_SCHEMA, **asdict(card)}
    write_atomically(folder / CARD_FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_card(folder: Path) -> ModelCard:
    """Read and check card.json.

    Raises:
        ModelUnavailableError: It is missing, damaged, of a newer program, or lacks a field.
    """
    try:
        content = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        schema = content.pop("schema")
        if schema != CARD_SCHEMA:
            raise ModelUnavailableError(
                f"The card of model {folder.name!r} has schema {schema}, this program reads {CARD_SCHEMA}.",
                remedy="Update the program, or put another version into service.",
            )
        architecture = content["architecture"]
        content["architecture"] = Architecture(**_with_tuples(architecture))
        content["preprocess"] = PreprocessSpec(**_with_tuples(content["preprocess"]))
        content["malignancy"] = content["malignancy"] and MalignancyFlag(**content["malignancy"])
        rows, columns = content["heatmap_offset_px"]
        content["heatmap_offset_px"] = (float(rows), float(columns))
        content["trained_on"] = tuple(content["trained_on"])
        for name, before in NOT_IN_OLD_CARDS.items():
            content.setdefault(name, before)
        opinion = content["second_opinion"]
        content["second_opinion"] = opinion and SecondOpinion(**_with_tuples(opinion))
        return ModelCard(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not folder.is_dir():
            raise ModelUnavailableError(
                f"There is no model version {folder.name!r}.",
                remedy="Check its name, or restore its folder from the repository.",
            ) from error
        raise ModelUnavailableError(
            f"The card of model {folder.name!r} is missing, damaged or incomplete.",
            remedy="Restore the folder from the repository, or put another version into service.",
        ) from error


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; the fields of a card hold tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def load_version(folder: Path, device: torch.device) -> tuple[Network, ModelCard]:
    """Load a model version, ready to serve: checksum first, then strict shapes, frozen, in eval mode.

    Raises:
        ModelUnavailableError: A file is missing, the checksum is wrong, the weights do not fit the network, or
            the card is of another version.
    """
    card = read_card(folder)
    if card.version != folder.name:
        raise ModelUnavailableError(
            f"The folder {folder.name!r} holds the card of the version {card.version!r}.",
            remedy="Give the folder its own name back, or restore it from the repository.",
        )
    return ready_network(card, _read_weights(folder, MODEL_FILE, card.sha256), device), card


def load_readers(folder: Path, card: ModelCard, device: torch.device) -> Iterator[Network]:
    """The networks whose opinion the version asks for in doubt, ready to serve; none where its card names none.

    One after the other, so that who rearranges them need not hold all of them twice.

    Raises:
        ModelUnavailableError: As `load_version`.
    """
    if card.second_opinion is None:
        return
    weights = _read_weights(folder, SECOND_OPINION_FILE, card.second_opinion.sha256)
    for place in range(len(card.second_opinion.readers)):
        start = f"{place}."
        one = {name.removeprefix(start): values for name, values in weights.items() if name.startswith(start)}
        yield ready_network(card, one, device)


def ready_network(card: ModelCard, weights: Mapping[str, Tensor], device: torch.device) -> Network:
    """The card's network with these weights, frozen, in eval mode, on the device and in the layout it reads fastest in.

    Raises:
        ModelUnavailableError: The weights are not those of this network.
    """
    network = build_network(card.architecture)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise _unfit(card.version) from error
    network.requires_grad_(False).eval()
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def pack_readers(weights: Sequence[bytes]) -> bytes:
    """Weights of several networks, each the content of a safetensors file, as one such file."""
    return save({f"{place}.{name}": v for place, one in enumerate(weights) for name, v in load(one).items()})


def _read_weights(folder: Path, file: str, sha256: str) -> dict[str, Tensor]:
    path = folder / file
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise ModelUnavailableError(
                f"The weights of {folder.name!r} are larger than {MAX_MODEL_BYTES // 1_000_000} MB.",
                remedy="Restore the folder from the repository.",
            )
        weights = path.read_bytes()
    except OSError as error:
        raise ModelUnavailableError(
            f"The weights of model {folder.name!r} are missing.", remedy="Restore the folder from the repository."
        ) from error
    if _digest(weights) != sha256:
        raise ModelUnavailableError(
            f"The weights of model {folder.name!r} are damaged: their checksum is not the card's.",
            remedy="Restore the folder from the repository; do not edit its files.",
        )
    try:
        return load(weights)
    except SafetensorError as error:
        raise _unfit(folder.name) from error


def _unfit(version: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The weights of model {version!r} do not fit the network that its card names.",
        remedy="Restore the folder from the repository.",
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
