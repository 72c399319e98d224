"""What readings of scans never seen tell of a version's limits: refusals, second opinions, marks drawn in, doubt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from busi_core.assessment.counting import Progress, decode_each, make_figure, number_scans
from busi_core.assessment.figures import AREA_HELD, ASKED, RIGHT_ELSEWHERE, RIGHT_IN_DOUBT, Figure
from busi_core.data.records import Record, read_truth
from busi_core.doubt import measure_doubt, outline_doubt
from busi_core.findings import read_finding
from busi_core.foreign import foreign_pictures
from busi_core.limits import Limits
from busi_core.metrics.segmentation import count_overlap
from busi_core.service import Analyser
from busi_core.training.augment import Chance, draw_marks
from busi_core.types import DecodedImage, Diagnosis, Likeness

SEED = 0


def assess_refusal(
    analyser: Analyser, limits: Limits, tests: Mapping[str, Sequence[Record]], on_step: Progress | None = None
) -> list[Figure]:
    """How many real scans are called unlike or get no answer (false alarms), and how many foreign pictures do."""
    judge = limits.familiarity.judge
    found: dict[str, list[Likeness]] = {}
    groups: dict[str, NDArray[np.intp]] = {}
    for test_set, records in tests.items():
        groups[f"real scans, {test_set}"] = number_scans(records)
        for _, image in decode_each(records, f"limits on {test_set}", on_step):
            found.setdefault(f"real scans, {test_set}", []).append(judge(analyser.describe(image)))
    for kind, grey in foreign_pictures(SEED):
        image = DecodedImage(grey, np.repeat(grey[:, :, None], 3, axis=2), "PNG", 0, 1, (), ())
        found.setdefault(kind, []).append(judge(analyser.describe(image)))
    figures = []
    for kind, judged in found.items():
        group = groups.get(kind, np.arange(len(judged)))  # each foreign picture stands for itself
        for name, levels in (
            ("called unlike, or no answer", (Likeness.UNLIKE, Likeness.FOREIGN)),
            ("no answer", (Likeness.FOREIGN,)),
        ):
            noticed = np.array([likeness in levels for likeness in judged], float)
            figures.append(make_figure("refusal", name, kind, noticed, group))
    return figures


def assess_opinions(
    analyser: Analyser, tests: Mapping[str, Sequence[Record]], on_step: Progress | None = None
) -> list[Figure]:
    """How often a second opinion is asked for, and how often the class is right with it, without it, and elsewhere."""
    figures: list[Figure] = []
    for test_set, records in tests.items() if analyser.card.second_opinion else ():
        asked, right, alone = [], [], []
        for record, image in decode_each(records, f"second opinions on {test_set}", on_step):
            analysis = analyser.analyse_for_batch(image, insist=True)
            first = analysis.opinions[0] if analysis.opinions else analysis.prediction
            asked.append(bool(analysis.opinions))
            right.append(float(analysis.prediction.diagnosis is record.diagnosis))
            alone.append(float(first.diagnosis is record.diagnosis))
        groups, doubted = number_scans(records), np.array(asked)
        figures.append(make_figure("second opinion", ASKED, test_set, doubted.astype(float), groups))
        for name, hits, of in (
            (RIGHT_IN_DOUBT, right, doubted),
            ("the same by the first network alone", alone, doubted),
            (RIGHT_ELSEWHERE, right, ~doubted),
        ):
            if of.any():
                figures.append(make_figure("second opinion", name, test_set, np.array(hits)[of], groups[of]))
    return figures


def assess_marks(
    analyser: Analyser, test_set: str, records: Sequence[Record], on_step: Progress | None = None
) -> list[Figure]:
    """The same scans with calipers and text drawn in: how often the class moves, and the score of malignant."""
    moved, shift, overlap = [], [], []
    chance = Chance(SEED)
    for _, image in decode_each(records, f"marks on {test_set}", on_step):
        marked = replace(image, grey=draw_marks(torch.from_numpy(image.grey.copy())[None], chance)[0].numpy())
        before, after = (analyser.analyse_for_batch(one, insist=True) for one in (image, marked))
        moved.append(float(before.prediction.diagnosis is not after.prediction.diagnosis))
        old, new = (dict(one.prediction.probabilities or {}) for one in (before, after))
        shift.append(abs(new.get(Diagnosis.MALIGNANT, math.nan) - old.get(Diagnosis.MALIGNANT, math.nan)))
        overlap.append(count_overlap(read_finding(after).lesion_mask, read_finding(before).lesion_mask).dice)
    groups, same = number_scans(records), "Dice of the lesion before and after"
    return [
        make_figure("marks", "class moves when calipers and text are drawn in", test_set, np.array(moved), groups),
        make_figure("marks", "mean shift of the score of malignant", test_set, np.array(shift), groups, is_share=False),
        make_figure("marks", same, test_set, np.array(overlap), groups, is_share=False),
    ]


def assess_doubt(
    analyser: Analyser, test_set: str, records: Sequence[Record], on_step: Progress | None = None
) -> list[Figure]:
    """Six readings of each scan: how wide the area interval is, and how often the true area lies within."""
    width, within, firm, has_lesion = [], [], [], []
    for record, image in decode_each(records, f"doubt on {test_set}", on_step):
        truth = read_truth(record, image.height, image.width)
        doubt = measure_doubt(analyser, image)
        outline = outline_doubt(doubt, image.height, image.width, analyser.card.lesion_threshold)
        true_area = int(truth.sum())
        has_lesion.append(true_area > 0)
        if true_area:
            width.append((outline.largest - outline.smallest) / true_area)
            within.append(float(outline.smallest <= true_area <= outline.largest))
        firm.append(doubt.evidence_agreement)
    all_scans = number_scans(records)
    lesions, wide = all_scans[np.array(has_lesion)], "width of the area interval, of the true area"
    agreed = "agreement of heat maps over six readings"
    return [
        make_figure("doubt", wide, test_set, np.array(width), lesions, is_share=False),
        make_figure("doubt", AREA_HELD, test_set, np.array(within), lesions),
        make_figure("doubt", agreed, test_set, np.array(firm), all_scans, is_share=False),
    ]
