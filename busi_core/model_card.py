"""MODEL_CARD.md and the README's figures, made from a version's own card and evaluation, never by hand."""

import math
from collections.abc import Sequence

import numpy as np

from busi_core.assessment.figures import Figure, format_assessment
from busi_core.evaluation import EvaluationReport
from busi_core.limits import Limits
from busi_core.metrics.bootstrap import Interval
from busi_core.metrics.calibration import calibration_error_by_chance
from busi_core.metrics.conformal import Nonconformity
from busi_core.models.checkpoint import ModelCard
from busi_core.models.second_opinion import SecondOpinion
from busi_core.report import RESEARCH_USE
from busi_core.types import Diagnosis

LIMITS = (
    "It saw two public collections (BUSI, Cairo; BUS-BRA, Rio de Janeiro). Other machines, settings and patients may "
    "be read worse, and nothing in its answer would say so.",
    "It reads one still image: no history, no second view, no motion, no Doppler, no elastography.",
    "Its test scans were read before, by earlier versions and while the recipe and the rules for cut-off, flag, second "
    "opinion and sets of classes were settled (docs/experiments.md, docs/adr/0023, 0024, 0025): take its test figures "
    "as a little too kind. So were those of BUS-BRA before the weights taught by BUSI alone were made. The test cases "
    "of BUS-BRA come from the hospital whose other cases taught it.",
    "In no test are scans of BUSI that show the armpit or a needle, or whose copies have different classes (47 of 470 "
    "scans). A third of the test scans are malignant; where it is used fewer may be, and then fewer of those that it "
    "flags are.",
    "Few normal breasts were there to learn from or to test on; the intervals say how few.",
    "BUSI names no patients: its splits keep copies of one scan together, but two scans of one patient may part.",
    "A heat map shows where evidence for a class lies on a coarse grid; it is no outline and no probability.",
    "The score of malignant is of the image, scaled on validation scans; it is not a patient's chance of cancer.",
)


def format_figures(reports: Sequence[EvaluationReport]) -> str:
    """A markdown table: one row a figure, one column a test set, each with its 95 % interval."""
    names = list(dict.fromkeys(name for report in reports for name in report.table))
    head = [f"{report.test_set} ({report.scans} scans)" for report in reports]
    lines = ["| figure | " + " | ".join(head) + " |", "|---|" + "---|" * len(reports)]
    for name in names:
        cells = [_cell(report.table.get(name)) for report in reports]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    copies = [str(report.copies_in_training) for report in reports]
    lines.append("| copies in training | " + " | ".join(copies) + " |")
    return "\n".join(lines)


def format_model_card(
    card: ModelCard,
    reports: Sequence[EvaluationReport],
    assessed: Sequence[Figure] = (),
    crossed: Sequence[EvaluationReport] = (),
    limits: Limits | None = None,
) -> str:
    """The whole card as markdown.

    Args:
        card: Of the version.
        reports: Its evaluations.
        assessed: What it knows of its limits, where that was measured.
        crossed: What its recipe reaches on all folds and elsewhere (`cross_validation`), where that was measured.
        limits: Beside its weights, where it has any.
    """
    config, preprocess = card.training["config"], card.preprocess
    images = card.training["images"]
    flag = card.malignancy
    parts = [
        f"# Model card: {card.version}",
        f"Made by `busi card` from `weights/{card.version}/`. {RESEARCH_USE}",
        "## What it is",
        f"A {card.architecture.name} on the encoder `{card.architecture.encoder}` with a class head that looks where "
        f"the lesion may be. Input: one grey image, fitted into {preprocess.side} x {preprocess.side} pixels "
        f"('{preprocess.fit}'). Output: a lesion probability for each pixel"
        + (
            ", multiplied by the chance that there is a lesion at all (1 - the score of normal),"
            if card.weighs_presence
            else ""
        )
        + f" and a score for {', '.join(card.architecture.image_classes)}.",
        *([_describe_second_opinion(card.second_opinion)] if card.second_opinion else []),
        f"- First weights of the encoder: {card.encoder_source}\n"
        f"- Trained {card.created} on {', '.join(card.training['data_sets'])}: {images['train']} images, "
        f"{_name_choices(card)}; {config.get('keeps', 'best')} epoch {card.training['best_epoch']} of "
        f"{card.training['epochs_run']}, start {config['start']}, seed {config['seed']}, code {card.commit}\n"
        f"- Never seen: {_name_unseen(card)}\n"
        f"- Chosen on validation: lesion cut-off {card.lesion_threshold:.2f}, temperature {card.temperature:.3f}"
        + (
            f", malignancy flag at {flag.threshold:.3f} (sensitivity {flag.sensitivity:.2f}, specificity "
            f"{flag.specificity:.2f} on {flag.scans} scans)"
            if flag
            else ""
        )
        + f"\n- SHA-256 of the weights: `{card.sha256}`",
        "## What it reached on scans that it never saw",
        "Mean with 95 % bootstrap interval over scans (BUS-BRA: cases), for these very weights: what another training "
        "would give is not in it. Overlap over images with a lesion, HD95 and pixel precision over those of them on "
        f"which something is outlined ({_count_outlined(reports)}). The sensitivity at 90 % specificity is at a "
        "cut-off that is read off the test scans.",
        format_figures(reports),
    ]
    for report in reports:
        parts.append(_format_classes(report))
    if crossed:
        parts += [
            "## What its recipe reaches",
            "Versions of the same recipe, each on scans that it never saw: one for each fold of BUSI, pooled, of "
            "which at most one is this version; and one of the same network, taught by BUSI alone and in a way of its "
            "own (docs/experiments.md), on a hospital that it never saw. Scores of the five are pooled as they are. "
            "Printed by `busi evaluate --all-folds` and `--elsewhere`.",
            format_figures(crossed),
        ]
    if assessed:
        parts += [
            "## What it knows of its limits",
            "Printed by `busi evaluate --all`. 'No answer' is beyond 1.5 times the distance that 99 % of the "
            "validation scans stay within; a set of classes is promised to hold the truth in that share of the scans "
            "of each class, and of the scans of which no class is likely. The pictures that are no breast ultrasound "
            "are few, and easy ones, and the factor of 1.5 was chosen with them in sight. A share of 0 or 1 has its "
            "interval by Wilson.",
            *([_describe_sets(limits, limits.nonconformity)] if limits and limits.nonconformity else []),
            format_assessment(assessed),
        ]
    parts += ["## What it cannot know", "\n".join(f"- {limit}" for limit in LIMITS)]
    parts += [
        "## Data",
        "- BUSI: Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 2020, "
        "doi:10.1016/j.dib.2019.104863\n"
        "- Repeated scans: Pawlowska et al. 2023, doi:10.17632/k8t3gnx9h6.1, CC BY 4.0\n"
        "- BUS-BRA: Gomez-Flores, Gregorio-Calas and Pereira, BUS-BRA: A Breast Ultrasound Dataset for Assessing "
        "Computer-aided Diagnosis Systems, Medical Physics 2023",
    ]
    return "\n\n".join(parts) + "\n"


def _describe_second_opinion(opinion: SecondOpinion) -> str:
    low, high = opinion.lesion_between
    return (
        f"Where no class has a score of {opinion.class_below:.2f}, or the highest lesion probability lies between "
        f"{low:.2f} and {high:.2f}, the networks of {' and '.join(opinion.readers)} read the scan too: a pixel is "
        f"lesion where most of them call it so (the median), and the score of a class is the mean. Heat maps are those "
        f"of the first network. SHA-256 of their weights: `{opinion.sha256}`"
    )


def _describe_sets(limits: Limits, sets: Nonconformity) -> str:
    counts = [len(scores) for scores in sets.by_class]
    stand = ", ".join(f"{count} {diagnosis.value}" for diagnosis, count in zip(Diagnosis, counts, strict=True))
    if sets.in_doubt_below:
        stand += f", and {len(sets.in_doubt)} of which no class has a score of {sets.in_doubt_below:.2f}"
    if not limits.siblings:
        return f"Behind the sets stand the validation scans: {stand}."
    return (
        f"Behind the sets stand {stand} scans; those that taught this version were each read by a version of the same "
        f"recipe that they did not teach ({', '.join(limits.siblings)})."
    )


def _name_choices(card: ModelCard) -> str:
    count, siblings = card.training["images"]["validation"], card.training.get("siblings")
    if not siblings:
        return f"{count} for choices"
    return f"{count} of them for choices, each read by a version that it did not teach ({', '.join(siblings)})"


def _name_unseen(card: ModelCard) -> str:
    fold = card.training["test_fold"]
    elsewhere = "fold 3 of BUS-BRA" if "bus-bra" in card.training["data_sets"] else "BUS-BRA"
    return elsewhere if fold is None else f"fold {fold} of BUSI and {elsewhere}"


def _cell(value: Interval | None) -> str:
    if value is None or math.isnan(value.estimate):
        return "n/a"
    return f"{value.estimate:.3f} ({value.low:.3f}-{value.high:.3f})"


def _count_outlined(reports: Sequence[EvaluationReport]) -> str:
    """On how many lesions of each test set something is outlined, as in '72 of 75'."""
    lesions = [[one for one in report.results if one.truth != Diagnosis.NORMAL] for report in reports]
    return ", ".join(f"{sum(one.has_mask for one in some)} of {len(some)}" for some in lesions)


def _format_classes(report: EvaluationReport) -> str:
    lines = [
        f"### {report.test_set}: confusion matrix",
        "",
        "| truth | normal | benign | malignant |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | " + " | ".join(str(count) for count in row) + " |"
        for name, row in zip(report.counts, report.confusion, strict=False)
    ]
    if report.flag:
        lines += [
            "",
            f"The flag at its own cut-off: sensitivity {report.flag['sensitivity']:.3f}, "
            f"specificity {report.flag['specificity']:.3f}.",
        ]
    if scores := [result.probabilities for result in report.results if result.probabilities]:
        chance = calibration_error_by_chance(np.array(scores))
        lines += ["", f"Were every score true, the expected calibration error of so few scans would be {chance:.3f}."]
    lines += ["", "| score of the class that it names, mean | scans | share of them right |", "|---|---|---|"]
    lines += [f"| {said:.2f} | {count} | {right:.2f} |" for count, said, right in report.reliability if count]
    lines += ["", "| score of malignant | scans | malignant |", "|---|---|---|"]
    lines += [f"| {band.low:.2f} to {band.high:.2f} | {band.scans} | {band.malignant} |" for band in report.bands]
    return "\n".join(lines)
