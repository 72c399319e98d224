"""What a model version knows of its limits, measured on scans that it never saw -> weights/<v>/assessment.json.

    evaluation reports + limits -> how often the sets of classes hold the truth, class by class
    test scans and foreign pictures -> how many are called unlike, how many get no answer
    test scans -> how often a second opinion is asked for, and how right the class is there and elsewhere
    test scans with marks drawn in -> how often the class moves
    test scans read six times -> how much the area moves, and how often the true area lies within
    heat maps -> deletion and insertion against random, sanity check, evidence inside the lesion

Run by `busi evaluate --all`; the model card prints it.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from busi_core.comparison import HeatmapFit, fit_heatmap
from busi_core.data.records import Record, read_truth
from busi_core.data.splits import scan_groups
from busi_core.doubt import measure_doubt, outline_doubt
from busi_core.errors import DatasetError
from busi_core.evaluation import EvaluationReport
from busi_core.explain.faithfulness import area_under, deletion_curve, insertion_curve, order_cells, randomise_head
from busi_core.explain.gradcam import explain_classes
from busi_core.files import write_atomically
from busi_core.findings import read_finding
from busi_core.foreign import foreign_pictures
from busi_core.imaging.decode import decode_image
from busi_core.imaging.preprocess import prepare_image
from busi_core.limits import Limits
from busi_core.metrics.bootstrap import Interval
from busi_core.metrics.conformal import class_set
from busi_core.metrics.proportion import mean_interval
from busi_core.metrics.segmentation import count_overlap
from busi_core.models.checkpoint import load_version
from busi_core.models.network import Network, build_network
from busi_core.service import Analyser
from busi_core.training.augment import Chance, draw_marks
from busi_core.types import DecodedImage, Diagnosis, Likeness

ASSESSMENT_FILE = "assessment.json"
SCHEMA = 1
COVERAGES = (0.8, 0.9, 0.95, 0.99)
AREA_HELD = "true area lies in the interval"
PEAK_INSIDE = "peak inside the lesion"  # of the heat map of the class that the model names
ASKED = "asked for"
RIGHT_IN_DOUBT, RIGHT_ELSEWHERE = "class is right where it was asked for", "class is right where it was not asked for"
SEED = 0
HEATMAP_SCANS = 40  # each costs about 70 passes through the network
CLASSES = list(Diagnosis)
Progress = Callable[[str, int, int], None]  # what is measured, done, of how many


@dataclass(frozen=True)
class Figure:
    """One measured number: on what, how many cases, and its 95 % interval (NaN where there is none)."""

    part: str
    name: str
    on: str
    cases: int
    estimate: float
    low: float
    high: float


def assess(
    analyser: Analyser,
    folder: Path,
    reports: Sequence[EvaluationReport],
    tests: Mapping[str, Sequence[Record]],
    on_step: Progress | None = None,
) -> list[Figure]:
    """Everything below, for one version.

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


def count_held(
    reports: Sequence[EvaluationReport], limits: Limits, coverage: float, *, in_doubt: bool
) -> dict[Diagnosis | None, tuple[int, int]]:
    """For how many test scans the set at this coverage holds the true class, and of how many.

    Args:
        reports: Whose scans are counted.
        limits: Of the version that read them.
        coverage: 0.8 to 0.99.
        in_doubt: Count those of which no class is likely, in one; or else the others, by class.
    """
    held: dict[Diagnosis | None, list[bool]] = {}
    for one in (result for report in reports for result in report.results):
        sets = limits.nonconformity
        if sets and one.probabilities and sets.is_in_doubt(one.probabilities) is in_doubt:
            truth = Diagnosis(one.truth)
            kept = class_set(one.probabilities, sets, coverage)[CLASSES.index(truth)]
            held.setdefault(None if in_doubt else truth, []).append(kept)
    return {name: (sum(held[name]), len(held[name])) for name in (*CLASSES, None) if name in held}


def count_left_out(
    reports: Sequence[EvaluationReport], limits: Limits, coverage: float, flag: float
) -> tuple[int, int]:
    """Of the test scans that are flagged at this score of malignant, and whose set leaves malignant out: how many are
    malignant, and how many there are."""
    column = CLASSES.index(Diagnosis.MALIGNANT)
    found = [
        one.truth == Diagnosis.MALIGNANT
        for one in (result for report in reports for result in report.results)
        if limits.nonconformity and one.probabilities and one.probabilities[column] >= flag
        if not class_set(one.probabilities, limits.nonconformity, coverage)[column]
    ]
    return sum(found), len(found)


def assess_sets(reports: Sequence[EvaluationReport], limits: Limits) -> list[Figure]:
    """How often the set of classes holds the truth, by class and in doubt, and how large it is."""
    sets = limits.nonconformity
    if sets is None:
        return []
    figures: list[Figure] = []
    for report in reports:
        groups = np.array([result.group for result in report.results])
        truth = np.array([CLASSES.index(Diagnosis(result.truth)) for result in report.results])
        scores = [result.probabilities for result in report.results if result.probabilities]
        doubted = np.array([sets.is_in_doubt(each) for each in scores])
        parts = {str(diagnosis): truth == column for column, diagnosis in enumerate(CLASSES)}
        parts[f"no class has {sets.in_doubt_below:.2f}"] = doubted
        for coverage in COVERAGES:
            kept = np.array([class_set(each, sets, coverage) for each in scores])
            held, sizes = kept[np.arange(truth.size), truth].astype(float), kept.sum(axis=1).astype(float)
            name = f"{coverage:.0%} set"
            for part, mine in parts.items():
                if mine.any():
                    said = f"{name} holds the truth, {part}"
                    figures.append(_figure("sets", said, report.test_set, held[mine], groups[mine]))
            figures.append(_figure("sets", f"{name}, classes in it", report.test_set, sizes, groups, is_share=False))
            alone = (sizes == 1).astype(float)
            figures.append(_figure("sets", f"{name} of one class", report.test_set, alone, groups))
    return figures


def assess_refusal(
    analyser: Analyser, limits: Limits, tests: Mapping[str, Sequence[Record]], on_step: Progress | None = None
) -> list[Figure]:
    """How many real scans are called unlike or get no answer (false alarms), and how many foreign pictures do."""
    judge = limits.familiarity.judge
    found: dict[str, list[Likeness]] = {}
    groups: dict[str, NDArray[np.intp]] = {}
    for test_set, records in tests.items():
        groups[f"real scans, {test_set}"] = _number_scans(records)
        for number, record in enumerate(records, start=1):
            image = decode_image(record.image.read_bytes())
            found.setdefault(f"real scans, {test_set}", []).append(judge(analyser.describe(image)))
            _tell(on_step, f"limits on {test_set}", number, len(records))
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
            figures.append(_figure("refusal", name, kind, noticed, group))
    return figures


def assess_opinions(
    analyser: Analyser, tests: Mapping[str, Sequence[Record]], on_step: Progress | None = None
) -> list[Figure]:
    """How often a second opinion is asked for, and how often the class is right with it, without it, and elsewhere."""
    figures: list[Figure] = []
    for test_set, records in tests.items() if analyser.card.second_opinion else ():
        asked, right, alone = [], [], []
        for number, record in enumerate(records, start=1):
            analysis = analyser.analyse_for_batch(decode_image(record.image.read_bytes()), insist=True)
            first = analysis.opinions[0] if analysis.opinions else analysis.prediction
            asked.append(bool(analysis.opinions))
            right.append(float(analysis.prediction.diagnosis is record.diagnosis))
            alone.append(float(first.diagnosis is record.diagnosis))
            _tell(on_step, f"second opinions on {test_set}", number, len(records))
        groups, doubted = _number_scans(records), np.array(asked)
        figures.append(_figure("second opinion", ASKED, test_set, doubted.astype(float), groups))
        for name, hits, of in (
            (RIGHT_IN_DOUBT, right, doubted),
            ("the same by the first network alone", alone, doubted),
            (RIGHT_ELSEWHERE, right, ~doubted),
        ):
            if of.any():
                figures.append(_figure("second opinion", name, test_set, np.array(hits)[of], groups[of]))
    return figures


def pool_figures(figures: Sequence[Figure], name: str) -> tuple[float, int]:
    """A figure over all the test sets that it was measured on: its mean by case, and how many cases."""
    mine = [figure for figure in figures if figure.name == name]
    cases = sum(figure.cases for figure in mine)
    return sum(figure.estimate * figure.cases for figure in mine) / cases if cases else math.nan, cases


def assess_marks(
    analyser: Analyser, test_set: str, records: Sequence[Record], on_step: Progress | None = None
) -> list[Figure]:
    """The same scans with calipers and text drawn in: how often the class moves, and the score of malignant."""
    moved, shift, overlap = [], [], []
    chance = Chance(SEED)
    for number, record in enumerate(records, start=1):
        image = decode_image(record.image.read_bytes())
        marked = replace(image, grey=draw_marks(torch.from_numpy(image.grey.copy())[None], chance)[0].numpy())
        before, after = (analyser.analyse_for_batch(one, insist=True) for one in (image, marked))
        moved.append(float(before.prediction.diagnosis is not after.prediction.diagnosis))
        old, new = (dict(one.prediction.probabilities or {}) for one in (before, after))
        shift.append(abs(new.get(Diagnosis.MALIGNANT, math.nan) - old.get(Diagnosis.MALIGNANT, math.nan)))
        overlap.append(count_overlap(read_finding(after).lesion_mask, read_finding(before).lesion_mask).dice)
        _tell(on_step, f"marks on {test_set}", number, len(records))
    groups = _number_scans(records)
    return [
        _figure("marks", "class moves when calipers and text are drawn in", test_set, np.array(moved), groups),
        _figure("marks", "mean shift of the score of malignant", test_set, np.array(shift), groups, is_share=False),
        _figure("marks", "Dice of the lesion before and after", test_set, np.array(overlap), groups, is_share=False),
    ]


def assess_doubt(
    analyser: Analyser, test_set: str, records: Sequence[Record], on_step: Progress | None = None
) -> list[Figure]:
    """Six readings of each scan: how wide the area interval is, and how often the true area lies within."""
    width, within, firm, has_lesion = [], [], [], []
    for number, record in enumerate(records, start=1):
        image = decode_image(record.image.read_bytes())
        truth = read_truth(record, image.height, image.width)
        doubt = measure_doubt(analyser, image)
        outline = outline_doubt(doubt, image.height, image.width, analyser.card.lesion_threshold)
        true_area = int(truth.sum())
        has_lesion.append(true_area > 0)
        if true_area:
            width.append((outline.largest - outline.smallest) / true_area)
            within.append(float(outline.smallest <= true_area <= outline.largest))
        firm.append(doubt.evidence_agreement)
        _tell(on_step, f"doubt on {test_set}", number, len(records))
    all_scans = _number_scans(records)
    lesions, wide = all_scans[np.array(has_lesion)], "width of the area interval, of the true area"
    agreed = "agreement of heat maps over six readings"
    return [
        _figure("doubt", wide, test_set, np.array(width), lesions, is_share=False),
        _figure("doubt", AREA_HELD, test_set, np.array(within), lesions),
        _figure("doubt", agreed, test_set, np.array(firm), all_scans, is_share=False),
    ]


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

    for number, record in enumerate(records, start=1):
        image = decode_image(record.image.read_bytes())
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
        _tell(on_step, f"heat maps on {test_set}", number, len(records))
    groups = _number_scans(records)
    return [
        _figure("heat maps", name, test_set, np.array(values), groups, is_share=False)
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
        for number, record in enumerate(lesions, start=1):
            image = decode_image(record.image.read_bytes())
            analysis = analyser.analyse_for_batch(image, insist=True)
            named = (analysis.opinions or (analysis.prediction,))[0].diagnosis  # of the network that the maps are of
            if named is None:
                return []
            fits.append(fit_heatmap(analysis.heatmaps[named], read_truth(record, image.height, image.width)))
            _tell(on_step, f"evidence on {test_set}", number, len(lesions))
        groups = _number_scans(lesions)
        inside = np.array([fit.energy_inside for fit in fits])
        even = np.array([fit.lesion_share for fit in fits])
        peaks = np.array([math.nan if fit.peak_inside is None else float(fit.peak_inside) for fit in fits])
        for diagnosis in (Diagnosis.BENIGN, Diagnosis.MALIGNANT):
            mine = np.array([record.diagnosis is diagnosis for record in lesions])
            for name, values in (("evidence inside the lesion", inside), ("an even map has inside", even)):
                said = f"{name}, {diagnosis.value}"
                figures.append(_figure("heat maps", said, test_set, values[mine], groups[mine], is_share=False))
        figures.append(_figure("heat maps", PEAK_INSIDE, test_set, peaks, groups))
    return figures


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    """So many of them, evenly over the whole list: a data set lists its classes one after the other."""
    return [records[place * len(records) // count] for place in range(count)] if len(records) > count else [*records]


def write_assessment(folder: Path, figures: Sequence[Figure], *, version: str, sha256: str) -> None:
    """Write assessment.json beside the weights of the version that it is about.

    Raises:
        OutputError: The folder cannot be written.
    """
    rows = ",\n".join(json.dumps(_plain(asdict(figure)), ensure_ascii=False) for figure in figures)
    head = f'"schema": {SCHEMA}, "version": {json.dumps(version)}, "sha256": {json.dumps(sha256)}'
    write_atomically(folder / ASSESSMENT_FILE, f'{{{head}, "figures": [\n{rows}\n]}}\n'.encode())


def read_assessment(folder: Path, *, version: str, sha256: str) -> list[Figure]:
    """The figures about this version; empty when there are none or they cannot be read.

    Also empty where the file names no version, as an earlier program wrote it: versions that differ in their second
    opinion alone share the checksum of the first network, so it does not tell whose figures they are.
    """
    try:
        content = json.loads((folder / ASSESSMENT_FILE).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA or (content["version"], content["sha256"]) != (version, sha256):
            return []
        return [_read_figure(row) for row in content["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def format_assessment(figures: Sequence[Figure]) -> str:
    """The figures as a markdown table, one part after the other."""
    lines: list[str] = []
    for part in dict.fromkeys(figure.part for figure in figures):
        lines += [
            "",
            f"### {part.capitalize()}",
            "",
            "| figure | on | cases | value (95 % interval) |",
            "|---|---|---|---|",
        ]
        for figure in figures:
            if figure.part == part:
                value = Interval(figure.estimate, figure.low, figure.high)
                lines.append(f"| {figure.name} | {figure.on} | {figure.cases} | {_format(value)} |")
    return "\n".join(lines).strip()


def _read_figure(row: dict[str, Any]) -> Figure:
    values: dict[str, Any] = {key: math.nan if value is None else value for key, value in row.items()}
    return Figure(**values)


def _figure(
    part: str, name: str, on: str, values: NDArray[np.float64], groups: NDArray[Any], *, is_share: bool = True
) -> Figure:
    interval = mean_interval(values, groups, is_share=is_share)
    cases = int((~np.isnan(values)).sum())
    return Figure(part, name, on, cases, interval.estimate, interval.low, interval.high)


def _number_scans(records: Sequence[Record]) -> NDArray[np.intp]:
    """The scan or case that each image shows, as `evaluation` groups them, numbered from 0 in the order they come."""
    known = scan_groups()
    names = [record.group or known.get(record.id, record.id) for record in records]
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([number_of[name] for name in names], np.intp)


def _format(value: Interval) -> str:
    if math.isnan(value.estimate):
        return "n/a"
    return f"{value.estimate:.3f} ({value.low:.3f} to {value.high:.3f})"  # some are below 0


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


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _tell(on_step: Progress | None, what: str, done: int, total: int) -> None:
    if on_step:
        on_step(what, done, total)
