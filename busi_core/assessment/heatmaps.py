"""Whether heat maps can be believed: does the score depend on what they mark, and does it lie inside the lesion."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from busi_core.assessment.counting import Progress, decode_each, make_figure, number_scans
from busi_core.assessment.figures import PEAK_INSIDE, Figure
from busi_core.comparison import HeatmapFit, fit_heatmap
from busi_core.data.records import Record, read_truth
from busi_core.explain.faithfulness import area_under, deletion_curve, insertion_curve, order_cells, randomise_head
from busi_core.explain.gradcam import explain_classes
from busi_core.imaging.preprocess import prepare_image
from busi_core.models.network import Network, build_network
from busi_core.service import Analyser
from busi_core.types import Diagnosis

SEED = 0


def assess_heatmaps(
    analyser: Analyser, network: Network, test_set: str, records: Sequence[Record], on_step: Progress | None = None
) -> list[Figure]:
    """Deletion, insertion and sanity check, for the class that the model names.

    Args:
        analyser: Of the version.
        network: The same version's network, on the CPU.
        test_set: Name of the records.
        records: Scans with a lesion.
        on_step: Told how far it is.
    """
    if not analyser.card.architecture.image_classes:
        return []
    generator = torch.Generator().manual_seed(SEED)
    scrambled = _scrambled_copy(network, analyser, generator)
    columns: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        columns.setdefault(name, []).append(value)

    for _, image in decode_each(records, f"heat maps on {test_set}", on_step):
        tensor, _ = prepare_image(image, analyser.card.preprocess)
        with torch.no_grad():
            features = network.encode(tensor)
        outputs, maps = explain_classes(network, features)
        if outputs.class_logits is None:
            return []
        column = int(outputs.class_logits[0].argmax())

        def score(images: torch.Tensor, column: int = column) -> torch.Tensor:
            logits = network(images).class_logits
            return torch.softmax(logits / analyser.card.temperature, dim=1)[:, column]

        hottest = order_cells(maps[column], generator)
        anyhow = order_cells(torch.zeros_like(maps[column]), generator)
        for name, walk, better in (("deletion", deletion_curve, -1), ("insertion", insertion_curve, 1)):
            gain = better * (area_under(walk(score, tensor, hottest)) - area_under(walk(score, tensor, anyhow)))
            note(f"{name}: better than a random order by", gain)
        _, others = explain_classes(scrambled, features)
        note("sanity: correlation with the map of a random class head", _correlation(maps[column], others[column]))
    groups = number_scans(records)
    return [
        make_figure("heat maps", name, test_set, np.array(values), groups, is_share=False)
        for name, values in columns.items()
    ]


def assess_evidence(
    analyser: Analyser, tests: Mapping[str, Sequence[Record]], on_step: Progress | None = None
) -> list[Figure]:
    """Where the heat map of the class that the model names lies, on every lesion: beside an even map, and its peak.

    Args:
        analyser: Of the version.
        tests: Scored scans by test set.
        on_step: Told how far it is.
    """
    figures: list[Figure] = []
    for test_set, records in tests.items():
        lesions = [record for record in records if record.diagnosis is not Diagnosis.NORMAL]
        fits: list[HeatmapFit] = []
        for record, image in decode_each(lesions, f"evidence on {test_set}", on_step):
            analysis = analyser.analyse_for_batch(image, insist=True)
            named = (analysis.opinions or (analysis.prediction,))[0].diagnosis  # of the network that the maps are of
            if named is None:
                return []
            fits.append(fit_heatmap(analysis.heatmaps[named], read_truth(record, image.height, image.width)))
        groups = number_scans(lesions)
        inside = np.array([fit.energy_inside for fit in fits])
        even = np.array([fit.lesion_share for fit in fits])
        peaks = np.array([math.nan if fit.peak_inside is None else float(fit.peak_inside) for fit in fits])
        for diagnosis in (Diagnosis.BENIGN, Diagnosis.MALIGNANT):
            mine = np.array([record.diagnosis is diagnosis for record in lesions])
            for name, values in (("evidence inside the lesion", inside), ("an even map has inside", even)):
                said = f"{name}, {diagnosis.value}"
                figures.append(make_figure("heat maps", said, test_set, values[mine], groups[mine], is_share=False))
        figures.append(make_figure("heat maps", PEAK_INSIDE, test_set, peaks, groups))
    return figures


def _scrambled_copy(network: Network, analyser: Analyser, generator: torch.Generator) -> Network:
    copy = build_network(analyser.card.architecture)
    copy.load_state_dict(network.state_dict())
    copy.requires_grad_(False).eval()
    randomise_head(copy, generator)
    return copy


def _correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    if float(one.std()) == 0 or float(other.std()) == 0:
        return math.nan
    return float(np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1])
