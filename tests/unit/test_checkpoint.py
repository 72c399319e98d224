"""A model version is checked before it is believed."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from versions import SIDE_64, TINY, make_card, make_network, make_weights, write_version

from busi_core.errors import ModelUnavailableError
from busi_core.models.checkpoint import (
    CARD_FILE,
    MODEL_FILE,
    NOT_IN_OLD_CARDS,
    MalignancyFlag,
    ModelCard,
    load_version,
    read_card,
    save_version,
)
from busi_core.registry import (
    REGISTRY_FILE,
    check_version_name,
    list_versions,
    put_into_service,
    read_registry,
)
from busi_core.serving import Serving

CPU = torch.device("cpu")


class Trap:
    """Unpickling it makes a file: what an attacker's code would do, only kinder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def write_weights(folder: Path, weights: bytes, **changes: Any) -> None:
    """Weights under a card whose checksum is right, so that only the next check can refuse them."""
    save_version(folder, weights, make_card(weights, folder.name, **changes))


# ---- Round trip ----------------------------------------------------------------------------------------------


def test_what_was_saved_is_what_is_loaded(weights_dir: Path) -> None:
    card = make_card(make_weights(), trained_on=("busi/benign (1)", "bus-bra/bus_0001-l"), commit="é")
    save_version(weights_dir / "tiny", make_weights(), card)
    network, read = load_version(weights_dir / "tiny", CPU)
    assert read == card
    expected = make_network().state_dict()
    assert set(network.state_dict()) == set(expected)
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_a_loaded_network_is_frozen_and_in_eval_mode(weights_dir: Path) -> None:
    network, _ = load_version(weights_dir / "tiny", CPU)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_a_card_without_a_class_head_is_read(weights_dir: Path) -> None:
    architecture = replace(TINY, image_classes=())
    card = write_version(weights_dir, "mask-only", architecture=architecture, malignancy=None, task="lesion")
    assert load_version(weights_dir / "mask-only", CPU)[1] == card


def test_a_card_that_does_not_vouch_for_the_weights_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sha256"):
        save_version(tmp_path / "tiny", make_weights(), make_card(b"other weights"))
    assert not list(tmp_path.rglob("*.safetensors"))


# ---- W2: damaged weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 9, 5000, -1], ids=["length", "header", "first tensor", "last byte"])
def test_one_flipped_bit_is_refused(weights_dir: Path, place: int) -> None:
    """W2. In a tensor safetensors itself would load it in silence."""
    path = weights_dir / "tiny" / MODEL_FILE
    weights = bytearray(path.read_bytes())
    weights[place] ^= 1
    path.write_bytes(weights)
    with pytest.raises(ModelUnavailableError, match="checksum"):
        load_version(weights_dir / "tiny", CPU)


@pytest.mark.parametrize("size", [0, 7, 1000, 1_000_000])
def test_truncated_weights_are_refused(weights_dir: Path, size: int) -> None:
    """W2."""
    path = weights_dir / "tiny" / MODEL_FILE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelUnavailableError, match="checksum"):
        load_version(weights_dir / "tiny", CPU)


def test_missing_weights_are_refused(weights_dir: Path) -> None:
    (weights_dir / "tiny" / MODEL_FILE).unlink()
    with pytest.raises(ModelUnavailableError, match="missing"):
        load_version(weights_dir / "tiny", CPU)


def test_weights_larger_than_any_of_ours_are_refused_unread(weights_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (weights_dir / "tiny" / MODEL_FILE).open("ab") as file:
        file.truncate(601_000_000)  # sparse: takes no space
    monkeypatch.setattr(Path, "read_bytes", lambda _path: pytest.fail("600 MB were read"))
    with pytest.raises(ModelUnavailableError, match="larger than 600 MB"):
        load_version(weights_dir / "tiny", CPU)


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    tensors = load(make_weights())
    change(tensors)
    return save(tensors)


@pytest.mark.parametrize(
    ("weights", "changes"),
    [
        pytest.param(make_weights(architecture=replace(TINY, image_classes=("benign", "malignant"))), {}, id="classes"),
        pytest.param(
            make_weights(), {"architecture": replace(TINY, image_classes=("benign", "malignant"))}, id="card's classes"
        ),
        pytest.param(make_weights(), {"architecture": replace(TINY, encoder="resnet18")}, id="encoder"),
        pytest.param(change_tensors(lambda tensors: tensors.pop("mask_head.0.bias")), {}, id="a tensor is missing"),
        pytest.param(change_tensors(lambda tensors: tensors.update(more=torch.zeros(1))), {}, id="a tensor too many"),
        pytest.param(
            change_tensors(lambda tensors: tensors.update({"mask_head.0.bias": torch.zeros(2)})), {}, id="shape"
        ),
        pytest.param(b"", {}, id="nothing"),
        pytest.param(b"not a tensor in sight", {}, id="text"),
        pytest.param(struct.pack("<Q", 2**60) + b"{}", {}, id="a header of an exabyte"),
        pytest.param(struct.pack("<Q", 2) + b"{}", {}, id="no tensor"),
    ],
)
def test_weights_that_do_not_fit_the_card_are_refused(tmp_path: Path, weights: bytes, changes: dict[str, Any]) -> None:
    """W2: wrong shape or classes, under a checksum that is right."""
    write_weights(tmp_path / "tiny", weights, **changes)
    with pytest.raises(ModelUnavailableError, match="do not fit the network"):
        load_version(tmp_path / "tiny", CPU)


# ---- W1: pickles ---------------------------------------------------------------------------------------------


def torch_file(path: Path, trap: Trap) -> bytes:
    torch.save({"state_dict": trap}, path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_renamed_safetensors_is_never_unpickled(tmp_path: Path, kind: str) -> None:
    """W1, even with a card that vouches for it."""
    trap = Trap(tmp_path / "sprung")
    weights = pickle.dumps(trap) if kind == "pickle" else torch_file(tmp_path / "made.pt", trap)
    write_weights(tmp_path / "tiny", weights)
    with pytest.raises(ModelUnavailableError, match="do not fit"):
        load_version(tmp_path / "tiny", CPU)
    assert not trap.path.exists()
    if kind == "pickle":
        pickle.loads(weights)  # noqa: S301  (our own trap, to show that it is one)
        assert trap.path.exists()


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "pytorch_model.bin", "model.pkl"])
def test_a_pickle_beside_the_card_is_never_looked_at(weights_dir: Path, tmp_path: Path, name: str) -> None:
    """W1."""
    trap = Trap(tmp_path / "sprung")
    folder = weights_dir / "tiny"
    (folder / MODEL_FILE).unlink()
    (folder / name).write_bytes(torch_file(tmp_path / "made.pt", trap))
    assert zipfile.is_zipfile(folder / name)
    with pytest.raises(ModelUnavailableError, match="missing"):
        load_version(folder, CPU)
    assert not trap.path.exists()


# ---- The card ------------------------------------------------------------------------------------------------


def edit_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / CARD_FILE).read_text())
    change(content)
    (folder / CARD_FILE).write_text(json.dumps(content))


@pytest.mark.parametrize("field", sorted({field.name for field in fields(ModelCard)} - set(NOT_IN_OLD_CARDS)))
def test_a_card_that_lacks_a_field_is_refused(weights_dir: Path, field: str) -> None:
    edit_card(weights_dir / "tiny", lambda card: card.pop(field))
    with pytest.raises(ModelUnavailableError, match=r"card .*'tiny'.* incomplete"):
        read_card(weights_dir / "tiny")


def test_a_card_from_before_a_field_was_there_reads_as_it_did_then(weights_dir: Path) -> None:
    """By one network, and no pixel weighed by the chance of a lesion."""
    for field in ("weighs_presence", "second_opinion"):
        edit_card(weights_dir / "tiny", lambda card, field=field: card.pop(field))
    card = read_card(weights_dir / "tiny")
    assert not card.weighs_presence
    assert card.second_opinion is None


def test_a_card_cannot_weigh_by_a_class_that_the_network_does_not_know() -> None:
    lesions_only = replace(TINY, image_classes=("benign", "malignant"))
    with pytest.raises(ValueError, match="no chance of a lesion"):
        make_card(make_weights(), architecture=lesions_only, weighs_presence=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"5", b"null", b'{"schema": 1}', b"\xff\xfe", b"{}" * 2],
    ids=["empty", "cut", "a list", "a number", "null", "nothing else", "not UTF-8", "two"],
)
def test_a_damaged_card_is_refused(weights_dir: Path, content: bytes) -> None:
    (weights_dir / "tiny" / CARD_FILE).write_bytes(content)
    with pytest.raises(ModelUnavailableError, match="card of model 'tiny' is missing, damaged or incomplete"):
        load_version(weights_dir / "tiny", CPU)


def test_a_missing_card_is_refused(weights_dir: Path) -> None:
    (weights_dir / "tiny" / CARD_FILE).unlink()
    with pytest.raises(ModelUnavailableError, match="card of model 'tiny'"):
        load_version(weights_dir / "tiny", CPU)


def test_a_card_of_a_newer_program_is_refused_and_says_so(weights_dir: Path) -> None:
    """D1."""
    edit_card(weights_dir / "tiny", lambda card: card.update(schema=2))
    with pytest.raises(ModelUnavailableError, match="schema 2, this program reads 1") as caught:
        load_version(weights_dir / "tiny", CPU)
    assert "Update the program" in caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"lesion_threshold": 0},
        {"lesion_threshold": 1.5},
        {"lesion_threshold": "0.5"},
        {"lesion_threshold": float("nan")},
        {"temperature": 0},
        {"temperature": None},
        {"preprocess": None},
        {"preprocess": {"side": 100, "fit": "pad", "channels": 1, "mean": 0.5, "std": 0.5}},
        {"preprocess": {"side": 64, "fit": "pad", "channels": 3, "mean": 0.5, "std": 0.5}},
        {"architecture": []},
        {"malignancy": {"threshold": 0.3}},
        {"trained_on": 5},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_card_that_makes_no_sense_is_refused(weights_dir: Path, change: dict[str, Any]) -> None:
    edit_card(weights_dir / "tiny", lambda card: card.update(change))
    with pytest.raises(ModelUnavailableError, match="card of model 'tiny'"):
        load_version(weights_dir / "tiny", CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_classes", ["gutartig", "b\u00f6sartig", "normal"]),
        ("image_classes", ["benign", "benign", "malignant"]),
        ("in_channels", 3),
        ("in_channels", 0),
        ("encoder", 5),
        ("encoder", "resnet19"),
        ("name", "transformer"),
        ("pixel_classes", []),
        ("pixel_classes", None),
    ],
)
def test_a_card_of_a_network_that_cannot_serve_is_refused_before_any_scan(
    weights_dir: Path, key: str, value: object
) -> None:
    """W2: wrong classes."""
    edit_card(weights_dir / "tiny", lambda card: card["architecture"].update({key: value}))
    with pytest.raises(ModelUnavailableError):
        load_version(weights_dir / "tiny", CPU)


def test_a_folder_with_the_card_of_another_version_is_refused(weights_dir: Path) -> None:
    """Else results would name a version that was never put into service."""
    (weights_dir / "tiny").rename(weights_dir / "renamed")
    with pytest.raises(ModelUnavailableError, match="'renamed' holds the card of the version 'tiny'"):
        load_version(weights_dir / "renamed", CPU)


def test_the_flag_travels_with_the_weights(weights_dir: Path) -> None:
    flag = MalignancyFlag(threshold=0.17, sensitivity=0.96, specificity=0.71, scans=88)
    write_version(weights_dir, "flagged", malignancy=flag, preprocess=replace(SIDE_64, fit="squash"))
    card = read_card(weights_dir / "flagged")
    assert card.malignancy == flag
    assert card.preprocess.fit == "squash"


# ---- The registry --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("", "is damaged"),
        ('{"schema": 1', "is damaged"),
        ("[]", "is damaged"),
        ("null", "is damaged"),
        ('{"schema": 1}', "is damaged"),
        ('{"schema": 1, "in_service": 5}', "is damaged"),
        ('{"schema": 1, "in_service": null}', "is damaged"),
        ('{"schema": 2, "in_service": "tiny"}', "is damaged"),  # without its history
        ('{"schema": 3, "in_service": "tiny"}', "is damaged"),  # without its history
        ('{"schema": 4, "in_service": "tiny"}', "schema 4, this program reads up to 3"),
        ('{"schema": 1, "in_service": "../tiny"}', "cannot be the name"),
        ('{"schema": 1, "in_service": ""}', "cannot be the name"),
    ],
)
def test_a_damaged_registry_is_refused(weights_dir: Path, content: str | None, said: str) -> None:
    path = weights_dir / REGISTRY_FILE
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelUnavailableError, match=said):
        Serving(weights_dir, CPU).current()


def test_a_damaged_registry_is_mended_as_its_message_says(weights_dir: Path) -> None:
    """`busi serve` alone meets the same damage."""
    path = weights_dir / REGISTRY_FILE
    path.write_text("{")
    with pytest.raises(ModelUnavailableError, match="move it away and name a version to 'busi serve'"):
        put_into_service(weights_dir, "tiny")
    path.rename(weights_dir / "away.json")
    put_into_service(weights_dir, "tiny")
    assert read_registry(weights_dir).in_service == "tiny"


def test_a_registry_that_the_system_does_not_read_is_not_called_damaged(weights_dir: Path) -> None:
    (weights_dir / REGISTRY_FILE).unlink()
    (weights_dir / REGISTRY_FILE).mkdir()
    with pytest.raises(ModelUnavailableError, match=r"cannot be read .* permissions"):
        read_registry(weights_dir)


@pytest.mark.parametrize(
    "version",
    ["../x", "..", ".", "", "a/b", "a\\b", "/etc", "-x", "x" * 65, "a b", "a\n", "caf\u00e9", "a\0", "%2e%2e"],
)
def test_a_name_that_could_leave_the_folder_is_no_version(weights_dir: Path, version: str) -> None:
    """U18, for versions."""
    with pytest.raises(ModelUnavailableError):
        check_version_name(version)
    with pytest.raises(ModelUnavailableError):
        Serving(weights_dir, CPU).load(version)
    with pytest.raises(ModelUnavailableError):
        put_into_service(weights_dir, version)


@pytest.mark.parametrize("version", ["1", "2026.11.20-a", "A_b-c.d", "x" * 64])
def test_an_ordinary_name_is_a_version(version: str) -> None:
    assert check_version_name(version) == version


def test_only_a_version_that_exists_goes_into_service(weights_dir: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no model version 'other'") as caught:
        put_into_service(weights_dir, "other")
    assert "tiny" in caught.value.remedy
    assert read_registry(weights_dir).in_service == "tiny"


def test_versions_are_the_folders_with_a_card(weights_dir: Path) -> None:
    write_version(weights_dir, "another")
    (weights_dir / "notes").mkdir()
    assert list_versions(weights_dir) == ("another", "tiny")
    assert read_registry(weights_dir).versions == ("another", "tiny")
