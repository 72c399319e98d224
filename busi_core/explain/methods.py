"""Other ways to explain a reading than the one in the request path: the methods of the grad-cam package, on request.

    network, image, what to explain, method, layer --raw_explanation--> raw map (rows, columns), signed

The package is imported when first asked for: it brings 120 MB. It runs on modules that are nobody else's
(`layers.Watched`), through its hooks and formulas, and never as a context manager, which swallows an
IndexError and leaves a missing map unnoticed. Its rescaling is left out: it stretches noise to 0.99.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from busi_core.errors import ExplanationError
from busi_core.explain.catalogue import WORDS, Method
from busi_core.explain.gradcam import lesion_pixels
from busi_core.explain.layers import CLASS_HEAD, MASK_HEAD, Layer, Watched
from busi_core.models.network import LesionNet
from busi_core.types import Heatmap

SCORE_CAM_BATCH: Final = 8  # masked scans read at once; about 200 MB at 256 px
MAX_SCORE_CAM_READINGS: Final = 1024
NOISE: Final = 1e-5  # evidence below this share of the counter-evidence is the rounding of a sum in float32

Progress = Callable[[int, int], None]  # readings done, readings in all
Score = Callable[[Tensor], Tensor]  # what one image's logits say about what is explained
RawMap = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One heat map made on request.

    Attributes:
        heatmap: In the form of every other; all 0 where the method found no evidence.
        method: How it was made.
        layer: Where in the network.
        model_version: Which weights it explains.
    """

    heatmap: Heatmap
    method: Method
    layer: Layer
    model_version: str

    @property
    def found(self) -> bool:
        """Whether there is any evidence to show."""
        return bool(self.heatmap.evidence.any())


_one_at_a_time = threading.Lock()  # for memory, not for safety: gradients down to the image take 100 MB and more


def raw_explanation(
    network: LesionNet,
    images: Tensor,
    method: Method,
    layer: Layer,
    *,
    column: int | None,
    threshold: float,
    on_progress: Progress | None = None,
) -> RawMap:
    """Explain one image by one method at one layer; safe to call from many threads, which take turns.

    Args:
        network: In eval mode, parameters frozen; left as it is.
        images: (1, channels, side, side), prepared; taken to the network's device here.
        method: Which.
        layer: Of `list_layers`.
        column: Of the class to explain; None explains the lesion mask.
        threshold: Lesion probability; the mask's pixels from it on are explained (or the most suspicious one).
        on_progress: Told how far Score-CAM is; what it raises ends the work.

    Returns:
        (rows, columns) float32 before the ReLU: negative where the evidence speaks against.

    Raises:
        ExplanationError: The method does not apply here, or cannot run on this machine.
    """
    require_a_say(layer, column=column)
    if method is Method.SCORE_CAM and layer.channels > MAX_SCORE_CAM_READINGS:
        raise ExplanationError(
            f"Score-CAM would read the scan {layer.channels} times at this layer.",
            remedy=f"Choose a layer with at most {MAX_SCORE_CAM_READINGS} feature maps, or another method.",
        )
    device = next(network.parameters()).device
    try:
        with _one_at_a_time:
            return _run(network, images.to(device), method, layer, column, threshold, on_progress)
    except torch.OutOfMemoryError as error:
        raise ExplanationError(
            f"The graphics card's memory is too full for {WORDS[method].title}.",
            remedy="Try again later, or choose another method.",
        ) from error


def require_a_say(layer: Layer, *, column: int | None) -> None:
    """Refuse a layer that does not decide what is to be explained.

    Raises:
        ExplanationError: A class at the decoder: the class head looks at the encoder and at a detached mask.
    """
    if column is not None and not layer.feeds_class:
        raise ExplanationError(
            "The class is not decided by the decoder, so no heat map of a class can be made there.",
            remedy="Explain the lesion mask, or choose an encoder layer.",
        )


def evidence_of(raw: RawMap) -> RawMap:
    """What speaks for the score, relative to its peak: (rows, columns) in [0, 1]; all 0 where there is none.

    No evidence: nothing is positive, or only what rounding leaves of a map of counter-evidence.

    Raises:
        ExplanationError: The map is not finite.
    """
    if not np.isfinite(raw).all():
        raise ExplanationError("The explanation has no finite value.", remedy="Choose another method or layer.")
    peak = raw.max()
    if peak <= 0 or peak < NOISE * np.abs(raw).max():
        return np.zeros_like(raw)
    relative: RawMap = np.maximum(raw, 0) / peak
    return relative


def _run(
    network: LesionNet,
    images: Tensor,
    method: Method,
    layer: Layer,
    column: int | None,
    threshold: float,
    on_progress: Progress | None,
) -> RawMap:
    watched = Watched(network, MASK_HEAD if column is None else CLASS_HEAD)
    place = watched.place(layer)
    cam = _kinds()[method](watched, [place])
    seen = cam.activations_and_grads
    try:
        with torch.set_grad_enabled(cam.uses_gradients):
            logits = seen(images.clone().requires_grad_(cam.uses_gradients))
            score = _class_score(column) if column is not None else _mask_score(logits, threshold, method)
            if cam.uses_gradients:
                torch.autograd.backward(score(logits[0]))
        found = len(seen.activations), len(seen.gradients)
        if found != (1, int(cam.uses_gradients)):
            raise ExplanationError(
                f"{WORDS[method].title} found {found[0]} feature maps and {found[1]} gradients at this layer.",
                remedy="Choose another layer.",
            )
        activations = seen.activations[0].numpy()
        gradients = seen.gradients[0].numpy() if cam.uses_gradients else None
    finally:
        seen.release()
    if method is Method.EIGEN_CAM:
        return first_component(activations[0])
    if method is Method.SCORE_CAM:
        weights = torch.softmax(score_of_each_channel(watched, images, activations[0], score, on_progress), dim=0)
        return np.tensordot(weights.numpy(), activations[0], axes=1)
    raw: RawMap = cam.get_cam_image(images, place, [score], activations, gradients, eigen_smooth=False)[0]
    return raw.astype(np.float32)


def _class_score(column: int) -> Score:
    return lambda logits: logits[column]


def _mask_score(logits: Tensor, threshold: float, method: Method) -> Score:
    """The mask's logits over the mask's pixels as read in the scan itself: their sum, as in the request path.

    Score-CAM takes a softmax of scores, which sums over thousands of pixels would turn into a choice of one channel:
    there it is their mean.
    """
    chosen = lesion_pixels(logits[None], threshold)[0]
    divisor = int(chosen.sum()) if method is Method.SCORE_CAM else 1
    return lambda pixels: pixels[chosen].sum() / divisor


@cache
def _kinds() -> dict[Method, Any]:
    """The package's classes, imported when first asked for.

    Raises:
        ExplanationError: The package is not installed.
    """
    try:
        from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM
    except ImportError as error:
        raise ExplanationError(
            "The grad-cam package is not installed on this server.", remedy="Install requirements.txt in full."
        ) from error
    return {
        Method.GRAD_CAM: GradCAM,
        Method.GRAD_CAM_PLUS_PLUS: GradCAMPlusPlus,
        Method.HIRES_CAM: HiResCAM,
        Method.LAYER_CAM: LayerCAM,
        Method.EIGEN_CAM: EigenCAM,
        Method.SCORE_CAM: ScoreCAM,
    }


def first_component(activations: RawMap) -> RawMap:
    """EigenCAM: each cell's share in the direction in which the cells of a layer differ most, (rows, columns).

    The package's own asks for all singular vectors: 17 GB on a grid of 256 x 256. The sign of that direction is
    arbitrary; it is turned so that the largest share is positive, as in the package's
    `get_2d_projection_with_sign_correction` (Chung and Ying, doi:10.3390/app15137562, equation 13).

    Args:
        activations: (channels, rows, columns).
    """
    cells = activations.reshape(activations.shape[0], -1).T.astype(np.float64)
    cells = cells - cells.mean(axis=0)
    _, directions = np.linalg.eigh(cells.T @ cells)  # channels x channels: small at any grid
    shares: NDArray[np.float32] = (cells @ directions[:, -1]).reshape(activations.shape[1:]).astype(np.float32)
    return -shares if abs(shares.min()) > abs(shares.max()) else shares


def score_of_each_channel(
    network: torch.nn.Module, images: Tensor, activations: RawMap, score: Score, on_progress: Progress | None
) -> Tensor:
    """Score-CAM: the score that is left when the scan is shown only where a channel is active, (channels,).

    What a channel leaves out fades to the prepared input's 0, a mid grey. The package's own draws a progress bar into
    the server's log and tells the page nothing.

    Args:
        network: Gives one tensor of logits.
        images: (1, channels of the input, side, side).
        activations: (channels, rows, columns).
        score: Of one image's logits.
        on_progress: Told before each batch, and at the end.
    """
    channels = torch.from_numpy(activations)[:, None].to(images.device)
    scores: list[float] = []
    with torch.no_grad():
        for start in range(0, len(channels), SCORE_CAM_BATCH):
            if on_progress:
                on_progress(start, len(channels))
            batch = channels[start : start + SCORE_CAM_BATCH]
            masks = functional.interpolate(batch, size=images.shape[-2:], mode="bilinear", align_corners=True)
            low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            logits = network(images * ((masks - low) / (high - low + 1e-8)))
            scores += [float(score(one)) for one in logits]
    if on_progress:
        on_progress(len(scores), len(channels))
    return torch.tensor(scores)
