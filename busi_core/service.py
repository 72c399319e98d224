"""The one door: file bytes in, `Analysis` out, on the model version in service.

    bytes -decode-> DecodedImage -prepare-> tensor + box -network-> Outputs -interpret-> Prediction
                                                        Outputs.features -Grad-CAM-> heat maps
    Analysis, method, layer -explain-> Explanation, on request
                                            early feature maps -familiarity-> known, unlike or foreign
    a Prediction in doubt -other networks of the version-> the Prediction of most of them

A scan that is foreign to the model gets no answer unless the caller insists; one without any contrast gets none.

Nothing here writes to a disk. Logs carry sizes and versions; never names, pixels or scores.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from busi_core.errors import ExplanationError, ModelUnavailableError
from busi_core.explain.alignment import measure_offset
from busi_core.explain.catalogue import DEEPEST, Method
from busi_core.explain.gradcam import LESION, explain_classes, explain_scan, relative
from busi_core.explain.layers import Layer, list_layers
from busi_core.explain.methods import Explanation, Progress, evidence_of, raw_explanation, require_a_say
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import Box, place_on_box, prepare, prepare_image
from busi_core.limits import Limits, read_limits
from busi_core.metrics.conformal import USUAL_COVERAGE
from busi_core.models.checkpoint import (
    ModelCard,
    load_readers,
    load_version,
    ready_network,
)
from busi_core.models.familiarity import Description, describe
from busi_core.models.interpret import class_scores, interpret, pixel_cutoff
from busi_core.models.ncnn_net import carry_by_ncnn
from busi_core.models.network import LesionNet, Network, Outputs
from busi_core.models.reading import arrange_for_reading
from busi_core.models.second_opinion import agree
from busi_core.taught import TaughtScans, read_taught
from busi_core.types import Analysis, DecodedImage, Diagnosis, Heatmap, ImageWarning, Likeness, Prediction

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# On a graphics card all readings pass in this one thread, whoever asks: torch keeps cuDNN's plans by thread, and a
# web server asks from a new one each time, which would plan every layer again (docs/adr/0021).
_CARD_THREAD = ThreadPoolExecutor(1, thread_name_prefix="graphics-card")


def choose_device(wanted: str) -> torch.device:
    """'auto' takes the GPU when there is one.

    Raises:
        ModelUnavailableError: 'cuda' was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailableError("No CUDA device is at hand.", remedy="Set BUSI_DEVICE to auto or cpu.")
    use_gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


class _Raw(NamedTuple):
    """What the network said about one image, before it is brought to the image."""

    outputs: Outputs
    class_maps: list[Tensor]
    lesion_map: Tensor | None
    description: Description | None  # None for a version that does not know its limits


class Analyser:
    """One model version, ready to read scans; safe to share between threads, and deterministic.

    Attributes:
        device: On which it reads.
        identity: Another one whenever a scan may be read otherwise: weights, cut-offs, limits, what taught the version.
    """

    def __init__(
        self,
        network: Network,
        card: ModelCard,
        device: torch.device,
        limits: Limits | None = None,
        *,
        taught: TaughtScans | None = None,
        others: Iterable[Network] = (),
    ) -> None:
        """Args:
        network: Frozen and in eval mode, on `device`.
        limits: What the version knows of its limits; without them no scan is called unlike or foreign.
        taught: The scans that taught it; None knows them by the card's names alone.
        others: The networks that the card asks for a second opinion, likewise frozen.

        Raises:
            ValueError: The card names other networks than there are.
        """
        is_on_cpu = device.type == "cpu"
        kept = () if is_on_cpu else tuple(others)  # as written, for copies; on a CPU none is needed
        beside = [arrange_for_reading(one) for one in kept or others]  # first: ncnn then takes the room they leave
        named = len(card.second_opinion.readers) if card.second_opinion else 0
        if len(beside) != named:
            raise ValueError(f"the card asks {named} networks for a second opinion, got {len(beside)}")
        self.card = card
        self.limits = limits
        self.taught = taught or TaughtScans(card.trained_on)
        self.identity = _identify(card, limits, self.taught)
        self._network = network
        self._reader = arrange_for_reading(network)
        if is_on_cpu:
            self._reader = carry_by_ncnn(self._reader, card.preprocess.side)
        self._readers = (self._reader, *beside)
        self._written = (network, *kept)
        self.device = device
        self._retrying = threading.Lock()
        self._on_cpu = dict(enumerate(self._readers)) if is_on_cpu else {}
        self._layers: tuple[Layer, ...] = ()
        self._offsets_px = {DEEPEST: card.heatmap_offset_px}

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "Analyser":
        """Load the version in `weights/<version>/`.

        Raises:
            ModelUnavailableError: A file is missing or fails a check.
        """
        network, card = load_version(folder, device)
        if card.task == "tissue":
            raise ModelUnavailableError(
                f"The version {card.version!r} reads stained tissue, not scans of a breast.",
                remedy="Choose another version; this one stands on the page Systems.",
            )
        return cls(
            network,
            card,
            device,
            read_limits(folder, card),
            taught=read_taught(folder, card.trained_on),
            others=load_readers(folder, card, device),
        )

    @classmethod
    def load_without_limits(cls, folder: Path, device: torch.device) -> "Analyser":
        """As `load`, for making the limits anew, whatever lies there.

        Raises:
            ModelUnavailableError: A file is missing or fails a check.
        """
        network, card = load_version(folder, device)
        return cls(network, card, device, others=load_readers(folder, card, device))

    def analyse(self, data: bytes, *, frame: int | None = None, insist: bool = False) -> Analysis:
        """Read one uploaded file.

        Args:
            data: The file's bytes.
            frame: Which frame of a file with several; None reads the first and warns.
            insist: Answer also for a scan that is foreign to the model; the answer says so.

        Raises:
            InvalidImageError: The upload is not an image we accept.
        """
        return self.analyse_image(decode_image(data, frame=frame), insist=insist)

    def analyse_image(self, image: DecodedImage, *, insist: bool = False) -> Analysis:
        """Read one decoded image."""
        return self._analyse(image, with_mask_map=True, insist=insist)

    def analyse_for_batch(self, image: DecodedImage, *, insist: bool = False) -> Analysis:
        """As `analyse_image`, without the heat map of the lesion mask: two thirds of the work, for many scans.

        A model without a class head keeps that map: it has no other.
        """
        return self._analyse(image, with_mask_map=not self.card.architecture.image_classes, insist=insist)

    @property
    def can_describe(self) -> bool:
        """Whether the network has an encoder whose early feature maps `describe` reads; not all published ones do."""
        return isinstance(self._network, LesionNet)

    def describe(self, image: DecodedImage) -> Description:
        """The texture statistics that tell how far a scan lies from those of the training part."""
        tensor, box = prepare_image(image, self.card.preprocess)

        def describe_it() -> Description:
            with torch.no_grad():
                return describe(self._reader.encode(self._to_device(tensor)), box, self.card.preprocess)

        return self._on_device(describe_it)

    def _analyse(self, image: DecodedImage, *, with_mask_map: bool, insist: bool) -> Analysis:
        tensor, box = prepare_image(image, self.card.preprocess)
        raw, fell_back = self._run(0, tensor, lambda network, on: self._explain(network, on, box, with_mask_map))
        likeness = None
        if self.limits and raw.description is not None:
            likeness = self.limits.familiarity.judge(raw.description)
        is_blank = ImageWarning.NO_CONTRAST in image.warnings
        withheld = is_blank or (likeness is Likeness.FOREIGN and not insist)
        first = prediction = interpret(raw.outputs, box, self.card)
        opinions: tuple[Prediction, ...] = ()
        if not withheld and self.card.second_opinion and self.card.second_opinion.is_asked_for(prediction):
            opinions, others_fell_back = self._ask_others(prediction, tensor, box)
            prediction, fell_back = agree(opinions), fell_back or others_fell_back
        heatmaps = self._heatmaps(raw, box, first)
        if withheld:
            prediction, heatmaps = _no_answer(prediction, raw.outputs.features)
        noticed = {
            ImageWarning.SECOND_OPINION: bool(opinions),
            ImageWarning.READ_ON_CPU: fell_back,
            ImageWarning.UNLIKE: likeness is Likeness.UNLIKE and not withheld,
            ImageWarning.INSISTED: likeness is Likeness.FOREIGN and not withheld,
            ImageWarning.WITHHELD: withheld and not is_blank,
        }
        logger.info("analysed height=%d width=%d model=%s", image.height, image.width, self.card.version)
        return Analysis(
            image=image,
            prediction=prediction,
            heatmaps=heatmaps,
            lesion_threshold=self.card.lesion_threshold,
            malignancy_threshold=self.card.malignancy.threshold if self.card.malignancy else None,
            model_version=self.card.version,
            warnings=image.warnings + tuple(warning for warning, applies in noticed.items() if applies),
            likeness=likeness,
            withheld=withheld,
            not_ruled_out=self._not_ruled_out(prediction, likeness),
            opinions=opinions,
        )

    def _not_ruled_out(self, prediction: Prediction, likeness: Likeness | None) -> tuple[Diagnosis, ...] | None:
        """Nothing is promised for what is no scan as the model knows them."""
        if self.limits is None or likeness is Likeness.FOREIGN:
            return None
        return self.limits.classes_left(prediction, USUAL_COVERAGE)

    def _ask_others(self, first: Prediction, tensor: Tensor, box: Box) -> tuple[tuple[Prediction, ...], bool]:
        """What each network of the version says, the first one first; and whether one of them read on the CPU."""

        def read(network: Network, images: Tensor) -> Prediction:
            with torch.no_grad():
                return interpret(network(images), box, self.card)

        answers = [self._run(place, tensor, read) for place in range(1, len(self._readers))]
        return (first, *(prediction for prediction, _ in answers)), any(fell_back for _, fell_back in answers)

    def _heatmaps(self, raw: _Raw, box: Box, prediction: Prediction) -> dict[str, Heatmap]:
        found = {
            name: self._heatmap(evidence, box, name, self._score_of(name, prediction))
            for name, evidence in zip(self.card.architecture.image_classes, raw.class_maps, strict=False)
        }
        if raw.lesion_map is not None:
            found[LESION] = self._heatmap(raw.lesion_map, box, LESION, self._score_of(LESION, prediction))
        return found

    def layers(self) -> tuple[Layer, ...]:
        """Where in this network `explain` can look, deepest first; nowhere in those of the published systems."""
        if not self._layers and isinstance(self._network, LesionNet):
            spec = self.card.preprocess
            blank = torch.zeros(1, spec.channels, spec.side, spec.side)
            try:
                self._layers = tuple(list_layers(self._network, self._to_device(blank)))
            except torch.OutOfMemoryError:  # sizes are the same everywhere
                self._layers = tuple(list_layers(cast(LesionNet, self._copy_to_cpu(self._network)), blank))
        return self._layers

    def explain(
        self,
        analysis: Analysis,
        method: Method,
        *,
        of: str,
        layer: str = DEEPEST,
        on_progress: Progress | None = None,
    ) -> Explanation:
        """Explain a reading in another way than the heat maps that came with it; slower, on request.

        Args:
            analysis: Made by this version.
            method: How.
            of: A class, or `LESION` for the mask.
            layer: A name of `layers()`.
            on_progress: As `raw_explanation`.

        Raises:
            ExplanationError: Another version made the reading, the reading was withheld, or as `find_layer` and
                `raw_explanation`.
        """
        if analysis.model_version != self.card.version:
            raise ExplanationError(
                f"This scan was read by {analysis.model_version}, and {self.card.version} is in service now.",
                remedy="Read the scan again.",
            )
        if analysis.withheld:
            raise ExplanationError(
                "There is nothing to explain: the model gave no answer for this image.",
                remedy="Ask for its answer all the same first.",
            )
        network, place = self._explainable(), self.find_layer(layer, of=of)
        tensor, box = prepare_image(analysis.image, self.card.preprocess)
        raw = raw_explanation(
            network,
            tensor.to(memory_format=torch.channels_last),
            method,
            place,
            column=None if of == LESION else self.card.architecture.image_classes.index(of),
            threshold=pixel_cutoff(_said_by_first(analysis).probabilities, self.card),
            on_progress=on_progress,
        )
        score = self._score_of(of, _said_by_first(analysis))
        heatmap = self._heatmap(torch.from_numpy(evidence_of(raw)), box, of, score, self._offset_px(place))
        logger.info("explained method=%s layer=%s model=%s", method, place.name, self.card.version)
        return Explanation(heatmap, method, place, self.card.version)

    def find_layer(self, name: str, *, of: str) -> Layer:
        """The layer at which a class, or `LESION`, is to be explained.

        Raises:
            ExplanationError: There is no such class or layer, the layer has no say in it, or nothing of this network
                can be explained otherwise.
        """
        targets = (*self.card.architecture.image_classes, LESION)
        if of not in targets:
            raise ExplanationError(f"This model knows no class {of!r}.", remedy=f"Known: {', '.join(targets)}.")
        self._explainable()
        for layer in self.layers():
            if layer.name == name:
                require_a_say(layer, column=None if of == LESION else targets.index(of))
                return layer
        known = ", ".join(layer.name for layer in self.layers())
        raise ExplanationError(f"This model has no layer {name!r}.", remedy=f"Known: {known}.")

    def _explainable(self) -> LesionNet:
        """The network, when the methods of `explain` know their way in it."""
        if isinstance(self._network, LesionNet):
            return self._network
        raise ExplanationError(
            f"The network of {self.card.version} is explained by its own Grad-CAM alone.",
            remedy="Look at the heat map that comes with the reading, or choose another version.",
        )

    def _offset_px(self, layer: Layer) -> tuple[float, float]:
        """From a cell's place to what it looks at: measured for each encoder layer; none for the decoder's last block,
        which is trained to say what lies in its own place."""
        if layer.index is None:
            return 0.0, 0.0
        if layer.name not in self._offsets_px:
            network = self._network if self.device.type == "cpu" else self._copy_to_cpu(self._network)
            self._offsets_px[layer.name] = measure_offset(network, self._simulated_inputs(), index=layer.index)
        return self._offsets_px[layer.name]

    def _simulated_inputs(self) -> list[Tensor]:
        return [prepare(simulate_scan(diagnosis, seed=1).grey, self.card.preprocess)[0] for diagnosis in Diagnosis]

    def _score_of(self, of: str, prediction: Prediction) -> float:
        """A class's probability; the mask's mean lesion probability inside, or the highest one where it is empty."""
        if of != LESION:
            return dict(prediction.probabilities or {}).get(of, 0.0)  # type: ignore[call-overload,no-any-return]
        probability = prediction.lesion_probability
        inside = probability[probability >= self.card.lesion_threshold]
        return float(inside.mean()) if inside.size else float(probability.max())

    def _heatmap(
        self, raw: Tensor, box: Box, of: str, score: float, offset_px: tuple[float, float] | None = None
    ) -> Heatmap:
        cut = place_on_box(raw.float(), box, self.card.preprocess, offset_px or self.card.heatmap_offset_px).cpu()
        evidence = relative(cut.clamp(min=0)).clamp(0, 1).contiguous().numpy()
        return Heatmap(evidence, of, score, (raw.shape[0], raw.shape[1]))

    def _run(self, place: int, tensor: Tensor, read: Callable[[Network, Tensor], _Result]) -> tuple[_Result, bool]:
        """Have one of the networks read; when the GPU's memory is full, once more alone, then on the CPU."""

        def run() -> _Result:
            return read(self._readers[place], self._to_device(tensor))

        try:
            return self._on_device(run), False
        except torch.OutOfMemoryError:
            logger.warning("GPU memory full, trying once more alone")
        with self._retrying:
            torch.cuda.empty_cache()
            try:
                return self._on_device(run), False
            except torch.OutOfMemoryError:
                logger.warning("GPU memory full again, reading on the CPU")
            torch.cuda.empty_cache()
            if place not in self._on_cpu:
                self._on_cpu[place] = arrange_for_reading(self._copy_to_cpu(self._written[place]))
        return read(self._on_cpu[place], tensor.to(memory_format=torch.channels_last)), True

    def _on_device(self, run: Callable[[], _Result]) -> _Result:
        return run() if self.device.type == "cpu" else _CARD_THREAD.submit(run).result()

    def _explain(self, network: Network, tensor: Tensor, box: Box, with_mask_map: bool) -> _Raw:
        with torch.no_grad():
            features = network.encode(tensor)
        description = describe(features, box, self.card.preprocess) if self.limits else None
        if with_mask_map:
            cutoff = self._pixel_cutoff if self.card.weighs_presence else self.card.lesion_threshold
            return _Raw(*explain_scan(network, features, cutoff), description)
        return _Raw(*explain_classes(network, features), None, description)

    def _pixel_cutoff(self, outputs: Outputs) -> float:
        return pixel_cutoff(class_scores(outputs, self.card), self.card)

    def _copy_to_cpu(self, network: Network) -> Network:
        """Made anew on the CPU: copying the network first would ask the full GPU for as much memory again."""
        weights = {key: value.cpu() for key, value in network.state_dict().items()}
        return ready_network(self.card, weights, torch.device("cpu"))

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, memory_format=torch.channels_last)


def _said_by_first(analysis: Analysis) -> Prediction:
    """By the network that is explained, whatever others said of the scan."""
    return analysis.opinions[0] if analysis.opinions else analysis.prediction


def _no_answer(prediction: Prediction, features: Tensor) -> tuple[Prediction, dict[str, Heatmap]]:
    """No class, no lesion and no evidence, in the form that a model without a class head gives."""
    empty = np.zeros_like(prediction.lesion_probability)
    grid = (int(features.shape[-2]), int(features.shape[-1]))
    return Prediction(empty, None), {LESION: Heatmap(empty, LESION, 0.0, grid)}


def _identify(card: ModelCard, limits: Limits | None, taught: TaughtScans) -> str:
    """Of all that decides what is said of a scan: the card, which names the weights; the limits; what taught them."""
    decides = [asdict(card), limits.checksum() if limits else None, sorted(taught.hashes)]
    return hashlib.blake2b(json.dumps(decides).encode(), digest_size=16).hexdigest()
