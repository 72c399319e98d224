"""All figures of one version."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from busi_core.assessment.class_sets import assess_sets
from busi_core.assessment.counting import Progress
from busi_core.assessment.figures import Figure
from busi_core.assessment.heatmaps import assess_evidence, assess_heatmaps
from busi_core.assessment.readings import assess_doubt, assess_marks, assess_opinions, assess_refusal
from busi_core.data.records import Record
from busi_core.errors import DatasetError
from busi_core.evaluation import EvaluationReport
from busi_core.models.checkpoint import load_version
from busi_core.service import Analyser
from busi_core.types import Diagnosis

HEATMAP_SCANS = 40  # each costs about 70 passes through the network


def assess(
    analyser: Analyser,
    folder: Path,
    reports: Sequence[EvaluationReport],
    tests: Mapping[str, Sequence[Record]],
    on_step: Progress | None = None,
) -> list[Figure]:
    """Everything that this room measures, for one version.

    Args:
        analyser: Of the version.
        folder: Where its weights lie.
        reports: Its evaluations on `tests`.
        tests: Scored scans by test set; marks, doubt and faithfulness of heat maps are measured on the first.
        on_step: Told what is measured, how many scans are done, and of how many.

    Raises:
        DatasetError: The version does not know its limits.
    """
    if analyser.limits is None:
        raise DatasetError("This version does not know its limits.", remedy="Make them with 'busi limits'.")
    name, records = next(iter(tests.items()))
    network, _ = load_version(folder, torch.device("cpu"))
    lesions = [record for record in records if record.diagnosis is not Diagnosis.NORMAL]
    return [
        *assess_sets(reports, analyser.limits),
        *assess_refusal(analyser, analyser.limits, tests, on_step),
        *assess_opinions(analyser, tests, on_step),
        *assess_marks(analyser, name, records, on_step),
        *assess_doubt(analyser, name, records, on_step),
        *assess_heatmaps(analyser, network, name, _spread(lesions, HEATMAP_SCANS), on_step),
        *assess_evidence(analyser, tests, on_step),
    ]


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    """So many of them, evenly over the whole list: a data set lists its classes one after the other."""
    return [records[place * len(records) // count] for place in range(count)] if len(records) > count else [*records]
