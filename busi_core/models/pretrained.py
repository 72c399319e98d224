"""Start an encoder from ImageNet weights that lie in a folder; no network is asked for them."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from busi_core.errors import ModelUnavailableError
from busi_core.models.network import LesionNet, Network

SOURCES = {
    "tu-mobilenet_edgetpu_100": (
        "mobilenet_edgetpu_100.safetensors",
        "ImageNet, mlcommons/mobile_models (timm mobilenet_edgetpu_100), Apache-2.0",
    )
}
STEM = "conv_stem.weight"  # its input planes are summed for a grey network: same output as grey repeated


def encoder_source(encoder: str) -> str:
    """Source and licence of the ImageNet weights of an encoder, for the card.

    Raises:
        ModelUnavailableError: None are known.
    """
    return _known(encoder)[1]


def start_encoder(network: Network, encoder: str, folder: Path) -> None:
    """Load ImageNet weights into the network's encoder, in place; a grey network gets the sum over the colours.

    Raises:
        ModelUnavailableError: No weights are known for this encoder, the file is missing, or does not fit.
    """
    file_name, _ = _known(encoder)
    if not isinstance(network, LesionNet):
        raise TypeError("only a network on an encoder of smp can start from ImageNet weights")
    model = network.encoder.model
    wanted = model.state_dict()
    try:
        stored = {key: value for key, value in load_file(folder / file_name).items() if key in wanted}
    except (OSError, SafetensorError) as error:
        raise ModelUnavailableError(
            f"The ImageNet weights {file_name!r} cannot be read.", remedy=f"Put the file into {folder}."
        ) from error
    for key, value in stored.items():
        if value.ndim == 4 and key == STEM and wanted[key].shape[1] == 1:
            stored[key] = value.sum(dim=1, keepdim=True)
    missing = [key for key in wanted if key not in stored and not key.endswith("num_batches_tracked")]
    misfit = [key for key, value in stored.items() if value.shape != wanted[key].shape]
    if missing or misfit:
        raise ModelUnavailableError(
            f"The weights {file_name!r} do not fit {encoder!r} ({len(missing)} missing, {len(misfit)} misfit).",
            remedy="Use the file and the versions that the project pins.",
        )
    with torch.no_grad():
        model.load_state_dict(stored, strict=False)


def _known(encoder: str) -> tuple[str, str]:
    if encoder not in SOURCES:
        raise ModelUnavailableError(
            f"No ImageNet weights are at hand for {encoder!r}.",
            remedy=f"Start from random weights, or use one of: {', '.join(SOURCES)}.",
        )
    return SOURCES[encoder]
