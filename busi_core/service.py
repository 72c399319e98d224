"""The one door: file bytes in, `Analysis` out, on the model version in service.

    bytes -decode-> DecodedImage -prepare-> tensor + box -network-> Outputs -interpret-> Prediction
                                                        Outputs.features -Grad-CAM-> heat maps

Nothing here writes to a disk. Logs carry sizes and versions; never names, pixels or scores.
"""

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from busi_core.errors import ModelUnavailableError
from busi_core.explain.gradcam import LESION, explain_classes, explain_scan, relative
from busi_core.imaging.decode import decode_image
from busi_core.imaging.preprocess import Box, place_on_box, prepare
from busi_core.models.checkpoint import CARD_FILE, MODEL_FILE, ModelCard, load_version
from busi_core.models.interpret import interpret
from busi_core.models.network import LesionNet, Outputs, build_network
from busi_core.registry import check_version_name, read_registry
from busi_core.types import Analysis, DecodedImage, Heatmap, ImageWarning

logger = logging.getLogger(__name__)

_Seen: TypeAlias = tuple[str, tuple[int, ...]]  # a version's name and the stamp of its files


def choose_device(wanted: str) -> torch.device:
    """'auto' takes the GPU when there is one.

    Raises:
        ModelUnavailableError: 'cuda' was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailableError("No CUDA device is at hand.", remedy="Set BUSI_DEVICE to auto or cpu.")
    use_gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


class Analyser:
    """One model version, ready to read scans; safe to share between threads, and deterministic."""

    def __init__(self, network: LesionNet, card: ModelCard, device: torch.device) -> None:
        """Args:
        network: Frozen and in eval mode, on `device`.
        """
        self.card = card
        self._network = network
        self._device = device
        self._retrying = threading.Lock()
        self._cpu_network: LesionNet | None = network if device.type == "cpu" else None

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "Analyser":
        """Load the version in `weights/<version>/`.

        Raises:
            ModelUnavailableError: A file is missing or fails a check.
        """
        network, card = load_version(folder, device)
        return cls(network, card, device)

    def analyse(self, data: bytes, *, frame: int | None = None) -> Analysis:
        """Read one uploaded file.

        Args:
            data: The file's bytes.
            frame: Which frame of a file with several; None reads the first and warns.

        Raises:
            InvalidImageError: The upload is not an image we accept.
        """
        return self.analyse_image(decode_image(data, frame=frame))

    def analyse_image(self, image: DecodedImage) -> Analysis:
        """Read one decoded image."""
        return self._analyse(image, with_mask_map=True)

    def analyse_for_batch(self, image: DecodedImage) -> Analysis:
        """As `analyse_image`, without the heat map of the lesion mask: two thirds of the work, for many scans.

        A model without a class head keeps that map: it has no other.
        """
        return self._analyse(image, with_mask_map=not self.card.architecture.image_classes)

    def _analyse(self, image: DecodedImage, *, with_mask_map: bool) -> Analysis:
        tensor, box = prepare(image.grey, self.card.preprocess)
        outputs, class_maps, lesion_map, fell_back = self._run(tensor, with_mask_map=with_mask_map)
        prediction = interpret(outputs, box, self.card)
        heatmaps: dict[str, Heatmap] = {}
        for name, raw in zip(self.card.architecture.image_classes, class_maps, strict=False):
            score = dict(prediction.probabilities or {}).get(name, 0.0)  # type: ignore[call-overload]
            heatmaps[name] = self._heatmap(raw, box, name, score)
        if lesion_map is not None:
            inside = prediction.lesion_probability[prediction.lesion_probability >= self.card.lesion_threshold]
            lesion_score = float(inside.mean()) if inside.size else float(prediction.lesion_probability.max())
            heatmaps[LESION] = self._heatmap(lesion_map, box, LESION, lesion_score)
        logger.info("analysed height=%d width=%d model=%s", image.height, image.width, self.card.version)
        return Analysis(
            image=image,
            prediction=prediction,
            heatmaps=heatmaps,
            lesion_threshold=self.card.lesion_threshold,
            malignancy_threshold=self.card.malignancy.threshold if self.card.malignancy else None,
            model_version=self.card.version,
            warnings=image.warnings + ((ImageWarning.READ_ON_CPU,) if fell_back else ()),
        )

    def _heatmap(self, raw: Tensor, box: Box, of: str, score: float) -> Heatmap:
        cut = place_on_box(raw.float(), box, self.card.preprocess, self.card.heatmap_offset_px).cpu()
        evidence = relative(cut.clamp(min=0)).clamp(0, 1).contiguous().numpy()
        return Heatmap(evidence, of, score, (raw.shape[0], raw.shape[1]))

    def _run(self, tensor: Tensor, *, with_mask_map: bool) -> tuple[Outputs, list[Tensor], Tensor | None, bool]:
        """Run the network; when the GPU's memory is full, once more alone, then on the CPU."""
        try:
            return (*self._explain(self._network, self._to_device(tensor), with_mask_map), False)
        except torch.OutOfMemoryError:
            logger.warning("GPU memory full, trying once more alone")
        with self._retrying:
            torch.cuda.empty_cache()
            try:
                return (*self._explain(self._network, self._to_device(tensor), with_mask_map), False)
            except torch.OutOfMemoryError:
                logger.warning("GPU memory full again, reading on the CPU")
            torch.cuda.empty_cache()
            if self._cpu_network is None:
                self._cpu_network = self._copy_to_cpu()
        return (*self._explain(self._cpu_network, tensor.to(memory_format=torch.channels_last), with_mask_map), True)

    def _explain(
        self, network: LesionNet, tensor: Tensor, with_mask_map: bool
    ) -> tuple[Outputs, list[Tensor], Tensor | None]:
        if with_mask_map:
            return explain_scan(network, tensor, self.card.lesion_threshold)
        return (*explain_classes(network, tensor), None)

    def _copy_to_cpu(self) -> LesionNet:
        """Made anew on the CPU: copying the network first would ask the full GPU for as much memory again."""
        network = build_network(self.card.architecture)
        network.load_state_dict({key: value.cpu() for key, value in self._network.state_dict().items()})
        network.requires_grad_(False).eval()
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, memory_format=torch.channels_last)


class Serving:
    """The analyser of the version in service, loaded once however many sessions ask, renewed when it changes.

    When a new version cannot be loaded, the one before stays and `problem` says why; it is tried again once its
    files have changed.
    """

    def __init__(self, weights_dir: Path, device: torch.device) -> None:
        self._weights_dir = weights_dir
        self._device = device
        self._lock = threading.Lock()
        self._analyser: Analyser | None = None
        self._loaded: _Seen | None = None
        self._refused: tuple[_Seen, ModelUnavailableError] | None = None

    @property
    def problem(self) -> ModelUnavailableError | None:
        """Why the version that the registry names is not the one that answers; None when it is."""
        return self._refused[1] if self._refused else None

    def current(self) -> Analyser:
        """The analyser that answers now.

        Raises:
            ModelUnavailableError: None could be loaded, and none was in service before.
        """
        with self._lock:
            seen: _Seen = ("", ())
            try:
                wanted = read_registry(self._weights_dir).in_service
                seen = (wanted, self._stamp(wanted))
                if self._analyser is not None and seen == self._loaded:
                    self._refused = None
                elif self._analyser is None or self._refused is None or self._refused[0] != seen:
                    self._analyser = self.load(wanted)
                    self._loaded, self._refused = seen, None
            except ModelUnavailableError as error:
                if self._analyser is None:
                    raise
                if self._refused is None or self._refused[0] != seen:
                    logger.warning("the version in service stays %s: %s", self._analyser.card.version, error)
                self._refused = (seen, error)
            return self._analyser

    def load(self, version: str) -> Analyser:
        """Load any version by name, for a comparison.

        Raises:
            ModelUnavailableError: There is no such version or it fails a check.
        """
        folder = self._weights_dir / check_version_name(version)
        return Analyser.load(folder, self._device)

    def _stamp(self, version: str) -> tuple[int, ...]:
        """Another one whenever a file of the version is replaced, edited or removed."""
        found: tuple[int, ...] = ()
        for name in (CARD_FILE, MODEL_FILE):
            with suppress(OSError):
                status = (self._weights_dir / version / name).stat()
                found += (status.st_ino, status.st_mtime_ns, status.st_size)
        return found
