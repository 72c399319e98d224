"""Five words, each from results made for it; the arithmetic is held to scipy and scikit-learn."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from busi_core.errors import PromotionError
from busi_core.evaluation import ScanResult
from busi_core.metrics.bootstrap import Interval
from busi_core.metrics.calibration import CALIBRATION_ERROR
from busi_core.metrics.classification import roc_auc
from busi_core.promotion import figures
from busi_core.promotion.figures import Gain, Paired, measure_gains, measure_part, pair
from busi_core.promotion.protocol import Bootstrap, Protocol, read_protocol
from busi_core.promotion.verdict import (
    BETTER,
    BROKEN,
    INSUFFICIENT,
    KEPT,
    NON_INFERIOR,
    OPEN,
    PART,
    REFUSED,
    UNCOUNTED,
    WORSE,
    Contender,
    Decision,
    Verdict,
    decide,
    format_verdict,
    read_verdict,
    require_promotable,
    write_verdict,
)

RULES: Protocol = replace(read_protocol(), bootstrap=Bootstrap(draws=100, seed=0, power=0.8))
COUNTS = {"normal": 40, "benign": 150, "malignant": 150}
FLAG = 0.3


def results(
    *,
    seed: int = 0,
    dice: float = 0.85,
    spread: float = 0.05,
    sharpness: float = 2.5,
    false_masks: int = 8,
    missed: int = 2,
    counts: Mapping[str, int] = COUNTS,
    noise: int = 99,
) -> list[ScanResult]:
    """Locked scans read by a model: how hard a scan is follows from `seed`, what a model makes of it from the rest."""
    hard, own = np.random.default_rng(seed), np.random.default_rng(noise)
    made = []
    for truth, count in counts.items():
        for number in range(count):
            is_lesion = truth != "normal"
            overlap = float(np.clip(dice + hard.normal(0, 0.08) + own.normal(0, spread), 0.1, 1))
            if is_lesion and number < missed and truth == "benign":
                overlap = 0.0
            logit = sharpness * (1 if truth == "malignant" else -1) + hard.normal(0, 1.5) + own.normal(0, spread)
            malignant = float(1 / (1 + np.exp(-logit)))
            normal = 0.9 if truth == "normal" else 0.05
            made.append(
                ScanResult(
                    id=f"set/{truth} {number}",
                    group=f"{truth} {number}",
                    truth=truth,
                    probabilities=(normal, (1 - normal) * (1 - malignant), (1 - normal) * malignant),
                    dice=overlap if is_lesion else math.nan,
                    iou=math.nan,
                    hd95_px=math.nan,
                    precision=math.nan,
                    recall=math.nan,
                    pixel_accuracy=1.0,
                    empty_mask_accuracy=1.0,
                    has_mask=is_lesion or number < false_masks,
                    lesion_share=[0.02, 0.05, 0.2][number % 3] if is_lesion else 0.0,
                )
            )
    return made


def paired(candidate: list[ScanResult], in_service: list[ScanResult], *, flags: tuple[float, float]) -> Paired:
    return pair(candidate, in_service, candidate_flag=flags[0], in_service_flag=flags[1])


def decided(
    candidate: list[ScanResult],
    in_service: list[ScanResult] | None = None,
    *,
    flags: tuple[float, float] = (FLAG, FLAG),
    rules: Protocol = RULES,
) -> Decision:
    both = paired(candidate, results() if in_service is None else in_service, flags=flags)
    counts = {name: sum(one.truth == name for one in candidate) for name in COUNTS}
    small = measure_part(both, "small lesions", both.lesion_share < 0.03, rules.bootstrap)
    return decide(measure_gains(both, rules.not_worse.specificity, rules.bootstrap), small, counts, rules)


def standings(decision: Decision, part: str = "all") -> dict[str, str]:
    return {one.gain.figure: one.standing for one in decision.comparisons if one.gain.part == part}


# ---- The five words ----------------------------------------------------------------------------------------------


def test_the_same_model_once_more_is_non_inferior_and_not_better() -> None:
    decision = decided(results())
    assert decision.outcome == NON_INFERIOR
    assert set(standings(decision).values()) == {KEPT}
    assert len(standings(decision)) == 8


def test_a_model_that_outlines_better_is_better() -> None:
    decision = decided(results(dice=0.88))
    assert decision.outcome == BETTER
    assert standings(decision)[figures.LESION_DICE] == BETTER
    assert "Lesion Dice is shown to be better" in decision.reasons[0]


def test_a_model_that_outlines_worse_is_worse() -> None:
    """J7."""
    decision = decided(results(dice=0.80))
    assert decision.outcome == WORSE
    assert "Lesion Dice is shown to be worse" in decision.reasons[0]


def test_a_small_loss_that_is_certain_and_within_the_margin_is_non_inferior() -> None:
    decision = decided(results(dice=0.84))
    (dice,) = [one for one in decision.comparisons if (one.gain.part, one.gain.figure) == ("all", figures.LESION_DICE)]
    assert -0.03 < dice.gain.gain.low < dice.gain.gain.high < 0
    assert decision.outcome == NON_INFERIOR


def test_few_scans_are_insufficient_evidence_and_the_number_that_would_do_is_named() -> None:
    few = {"normal": 10, "benign": 25, "malignant": 25}
    rules = replace(RULES, smallest=replace(RULES.smallest, benign=20, malignant=20))
    candidate = results(counts=few, spread=0.3, noise=5, missed=0)
    decision = decided(candidate, results(counts=few, spread=0.3, missed=0), rules=rules)
    assert decision.outcome == INSUFFICIENT
    (dice,) = [one for one in decision.comparisons if (one.gain.part, one.gain.figure) == ("all", figures.LESION_DICE)]
    assert dice.standing == OPEN
    assert dice.scans_needed is not None
    assert dice.scans_needed > 50
    assert decision.scans_needed == max(one.scans_needed or 0 for one in decision.comparisons)
    assert any(
        f"about {dice.scans_needed} such scans would tell, there are 50" in reason for reason in decision.reasons
    )


def test_so_many_scans_as_it_names_do_tell() -> None:
    """The same two models on that many scans: non-inferior, in most draws of the scans."""
    few = {"normal": 10, "benign": 25, "malignant": 25}
    first, second = (results(counts=few, spread=0.3, noise=noise, missed=0) for noise in (5, 99))
    gain = measure_gains(paired(first, second, flags=(FLAG, FLAG)), 0.9, RULES.bootstrap)[figures.LESION_DICE]
    deviation = (gain.gain.high - gain.gain.low) / 3.92
    needed = math.ceil(50 * (2.8016 * deviation / (0.03 + min(gain.gain.estimate, 0))) ** 2)
    decision = decided(first, second, rules=replace(RULES, smallest=replace(RULES.smallest, benign=1, malignant=1)))
    named = {one.gain.figure: one.scans_needed for one in decision.comparisons if one.scans_needed}
    assert named[figures.LESION_DICE] == pytest.approx(needed, rel=0.01)


@pytest.mark.parametrize("diagnosis", ["normal", "benign", "malignant"])
def test_fewer_scans_of_a_class_than_the_rules_ask_for_are_insufficient(diagnosis: str) -> None:
    counts = {**COUNTS, diagnosis: 9}
    decision = decided(results(counts=counts), results(counts=counts))
    assert decision.outcome == INSUFFICIENT
    assert f"Only 9 {diagnosis} scans are locked" in decision.reasons[0]


@pytest.mark.parametrize("diagnosis", ["normal", "benign", "malignant"])
def test_a_class_that_is_not_there_at_all_is_insufficient_and_not_an_error(diagnosis: str) -> None:
    counts = {**COUNTS, diagnosis: 0}
    decision = decided(results(counts=counts), results(counts=counts))
    assert decision.outcome == INSUFFICIENT


def test_a_figure_that_is_not_a_number_is_refused() -> None:
    """J7."""
    broken = [replace(one, dice=math.nan) for one in results()]
    decision = decided(broken)
    assert decision.outcome == REFUSED
    assert "Not a number: lesion Dice" in decision.reasons[0]


# ---- What must not get worse -------------------------------------------------------------------------------------


def test_more_normals_with_a_mask_are_worse_however_good_the_rest() -> None:
    decision = decided(results(dice=0.9, sharpness=4, false_masks=20))
    assert decision.outcome == WORSE
    assert standings(decision)[figures.NORMALS] == BROKEN


def test_one_normal_more_of_eleven_is_allowed_and_two_are_not() -> None:
    counts = {**COUNTS, "normal": 11}
    before = results(counts=counts, false_masks=3)
    assert decided(results(counts=counts, false_masks=4), before).outcome == NON_INFERIOR
    decision = decided(results(counts=counts, false_masks=5), before)
    assert decision.outcome == INSUFFICIENT
    assert standings(decision)[figures.NORMALS] == OPEN


def test_more_missed_lesions_are_worse() -> None:
    decision = decided(results(missed=12))
    assert standings(decision)[figures.MISSED] == BROKEN


def test_malignant_scans_told_less_well_are_worse() -> None:
    decision = decided(results(sharpness=0.5))
    assert decision.outcome == WORSE
    assert {standings(decision)[name] for name in (figures.AUC, figures.SENSITIVITY)} == {BROKEN}


def test_a_flag_that_finds_fewer_is_worse_and_so_is_one_that_is_always_up() -> None:
    assert standings(decided(results(), flags=(0.9, FLAG)))[figures.FLAG_SENSITIVITY] == BROKEN
    always = standings(decided(results(), flags=(0.0, FLAG)))
    assert always[figures.FLAG_SENSITIVITY] in (BETTER, KEPT)
    assert always[figures.FLAG_SPECIFICITY] == BROKEN


def test_scores_that_say_too_much_are_worse_calibrated() -> None:
    wrong = [
        replace(one, probabilities=tuple(np.eye(3)[int(np.argmax(one.probabilities))].tolist()))  # type: ignore[arg-type]
        for one in results(sharpness=0.8)
    ]
    assert standings(decided(wrong, results(sharpness=0.8)))[CALIBRATION_ERROR] in (BROKEN, OPEN)


def test_a_loss_on_small_lesions_does_not_hide_behind_a_gain_on_large_ones() -> None:
    candidate = [
        replace(one, dice=one.dice + (-0.15 if one.lesion_share < 0.03 else 0.1)) if one.truth != "normal" else one
        for one in results(dice=0.7)
    ]
    decision = decided(candidate, results(dice=0.7))
    assert standings(decision)[figures.LESION_DICE] != BROKEN
    assert decision.outcome == WORSE
    assert "(small lesions)" in decision.reasons[0]


def test_a_part_with_few_lesions_is_shown_and_does_not_count() -> None:
    both = paired(results(dice=0.5), results(), flags=(FLAG, FLAG))
    inside = np.zeros(len(both.truth), bool)
    inside[np.flatnonzero(both.lesions)[:19]] = True
    same = measure_gains(paired(results(), results(), flags=(FLAG, FLAG)), 0.9, RULES.bootstrap)
    decision = decide(same, measure_part(both, "rare device", inside, RULES.bootstrap), COUNTS, RULES)
    assert standings(decision, "rare device")[figures.LESION_DICE] == UNCOUNTED
    assert decision.outcome == NON_INFERIOR


def gain(figure: str, estimate: float, low: float, high: float, *, part: str = "all", scans: int = 300) -> Gain:
    """By hand; the interval need not lie evenly."""
    return Gain(figure, part, 0.8 + estimate, 0.8, Interval(estimate, low, high), scans)


@pytest.fixture(scope="module")
def alike() -> dict[str, Gain]:
    """What a model gains over itself: nothing."""
    return measure_gains(paired(results(), results(), flags=(FLAG, FLAG)), 0.9, RULES.bootstrap)


def test_a_loss_that_is_shown_is_worse_also_where_another_figure_cannot_be_told(alike: dict[str, Gain]) -> None:
    """More scans would not make it good."""
    lost = gain(figures.LESION_DICE, -0.2, -0.3, -0.1)
    unclear = gain(figures.AUC, 0.0, -0.4, 0.4)
    decision = decide(alike | {lost.figure: lost, unclear.figure: unclear}, [], COUNTS, RULES)
    assert standings(decision)[figures.AUC] == OPEN
    assert decision.outcome == WORSE
    assert "Lesion Dice is shown to be worse" in decision.reasons[0]


@pytest.mark.parametrize(("high", "outcome"), [(0.1, NON_INFERIOR), (-0.01, WORSE)], ids=["by chance", "shown"])
def test_a_part_is_worse_only_where_the_whole_interval_says_so(
    alike: dict[str, Gain], high: float, outcome: str
) -> None:
    part = gain(figures.LESION_DICE, -0.3, -0.5, high, part="small lesions")
    assert decide(alike, [part], COUNTS, RULES).outcome == outcome


@pytest.mark.parametrize(("missing", "outcome"), [(0, WORSE), (1, NON_INFERIOR)])
def test_a_part_counts_from_the_smallest_number_of_scans_on(alike: dict[str, Gain], missing: int, outcome: str) -> None:
    scans = RULES.subgroups.smallest - missing
    part = gain(figures.LESION_DICE, -0.3, -0.5, -0.1, part="small lesions", scans=scans)
    assert decide(alike, [part], COUNTS, RULES).outcome == outcome


def test_a_scan_at_the_very_cut_off_is_flagged_for_the_gate_as_it_is_for_the_reader() -> None:
    read = results()
    scan = next(one for one in read if one.truth == "malignant")
    cutoff = (scan.probabilities or ())[2]
    position = sorted(one.id for one in read).index(scan.id)
    both = paired(read, read, flags=(cutoff, cutoff + 1e-9))
    assert both.candidate.flagged[position]
    assert not both.in_service.flagged[position]


# ---- Held to outside implementations ------------------------------------------------------------------------------


def test_the_paired_interval_of_dice_is_scipys() -> None:
    first, second = results(dice=0.86, noise=3), results()
    draws = Bootstrap(draws=2000, seed=1, power=0.8)
    ours = measure_gains(paired(first, second, flags=(FLAG, FLAG)), 0.9, draws)[figures.LESION_DICE]
    by_id = {one.id: one.dice for one in second}
    differences = np.array([one.dice - by_id[one.id] for one in first if one.truth != "normal"])
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.gain.estimate == pytest.approx(differences.mean())
    width = theirs.high - theirs.low
    assert (ours.gain.low, ours.gain.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)
    assert ours.scans == 300


def test_the_auc_of_both_is_scikit_learns_and_its_paired_interval_scipys() -> None:
    first, second = results(sharpness=1.5, noise=3, spread=0.5), results(sharpness=1.2)
    draws = Bootstrap(draws=1000, seed=1, power=0.8)
    ours = measure_gains(paired(first, second, flags=(FLAG, FLAG)), 0.9, draws)[figures.AUC]

    def scores(made: list[ScanResult]) -> np.ndarray:
        lesions = sorted((one for one in made if one.truth != "normal"), key=lambda one: one.id)
        return np.array([one.probabilities[2] / (one.probabilities[1] + one.probabilities[2]) for one in lesions])

    truth = np.array(
        [one.truth == "malignant" for one in sorted(first, key=lambda one: one.id) if one.truth != "normal"]
    )
    a, b = scores(first), scores(second)
    assert ours.candidate == pytest.approx(roc_auc_score(truth, a))
    assert ours.in_service == pytest.approx(roc_auc_score(truth, b))
    theirs = stats.bootstrap(
        (a, b, truth),
        lambda one, other, drawn: roc_auc(one, drawn > 0) - roc_auc(other, drawn > 0),  # scikit-learn's, and faster
        n_resamples=1000,
        paired=True,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.gain.low, ours.gain.high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * width)


def test_less_is_better_for_what_is_a_fault() -> None:
    gains = measure_gains(paired(results(false_masks=4, missed=0), results(), flags=(FLAG, FLAG)), 0.9, RULES.bootstrap)
    assert gains[figures.NORMALS].gain.estimate == pytest.approx((8 - 4) / 40)
    assert gains[figures.MISSED].gain.estimate == pytest.approx(2 / 300)
    assert gains[figures.NORMALS].candidate < gains[figures.NORMALS].in_service


def test_results_of_different_scans_are_not_paired() -> None:
    with pytest.raises(ValueError, match="same scans"):
        paired(results()[1:], results(), flags=(FLAG, FLAG))


# ---- The verdict as a file ------------------------------------------------------------------------------------------


FIRST, SECOND = Contender("next", "a" * 64, "b" * 64), Contender("tiny", "c" * 64, "d" * 64)


def make_verdict(decision: Decision, **changes: Any) -> Verdict:
    verdict = Verdict(
        candidate=FIRST,
        in_service=SECOND,
        protocol_sha256=RULES.sha256,
        outcome=decision.outcome,
        reasons=decision.reasons,
        counts=COUNTS,
        comparisons=decision.comparisons,
        scans_needed=decision.scans_needed,
        created="2026-11-20T12:00:00+00:00",
        commit="0000000",
        looks=0,
    )
    return replace(verdict, **changes)


@pytest.fixture(scope="module")
def good() -> Verdict:
    return make_verdict(decided(results(dice=0.88)))


@pytest.fixture(scope="module")
def bad() -> Verdict:
    return make_verdict(decided(results(dice=0.5)))


def test_a_verdict_comes_back_as_it_was_written(tmp_path: Path, good: Verdict, bad: Verdict) -> None:
    for verdict in (good, bad):
        write_verdict(tmp_path / "next", verdict)
        assert read_verdict(tmp_path / "next", "tiny", RULES) == verdict
    assert read_verdict(tmp_path / "next", "other", RULES) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("outcome",), BETTER),
        (("protocol_sha256",), "0" * 64),
        (("comparisons", 0, "gain", "gain", "low"), 0.5),
        (("comparisons", 0, "standing"), BETTER),
        (("candidate", "weights_sha256"), "f" * 64),
        (("schema",), 2),
    ],
)
def test_an_edited_verdict_is_none(tmp_path: Path, bad: Verdict, path: tuple[Any, ...], value: object) -> None:
    write_verdict(tmp_path / "next", bad)
    file = tmp_path / "next/verdict-tiny.json"
    content = json.loads(file.read_text())
    inner = content
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))
    assert read_verdict(tmp_path / "next", "tiny", RULES) is None


def test_a_verdict_that_says_more_than_its_figures_is_none_however_well_it_is_sealed(
    tmp_path: Path, good: Verdict, bad: Verdict
) -> None:
    """Its checksum tells a flipped bit, not who wrote it."""
    write_verdict(tmp_path / "next", replace(bad, outcome=BETTER))
    assert read_verdict(tmp_path / "next", "tiny", RULES) is None
    write_verdict(tmp_path / "next", replace(bad, outcome=BETTER, comparisons=good.comparisons[:1]))
    assert read_verdict(tmp_path / "next", "tiny", RULES) is None


def test_a_verdict_on_others_is_none_under_whatever_name_it_lies(tmp_path: Path, good: Verdict) -> None:
    write_verdict(tmp_path / "next", replace(good, candidate=replace(FIRST, version="another")))
    assert read_verdict(tmp_path / "next", "tiny", RULES) is None
    write_verdict(tmp_path / "next", good)
    (tmp_path / "next/verdict-tiny.json").rename(tmp_path / "next/verdict-other.json")
    assert read_verdict(tmp_path / "next", "other", RULES) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"sha256": 1, "schema": 1}'])
def test_a_damaged_verdict_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "next").mkdir()
    (tmp_path / "next/verdict-tiny.json").write_text(content)
    assert read_verdict(tmp_path / "next", "tiny", RULES) is None


def test_a_favourable_verdict_lets_exactly_its_own_two_through(good: Verdict) -> None:
    require_promotable(good, FIRST, SECOND, RULES)
    for candidate, in_service, said in (
        (replace(FIRST, weights_sha256="0" * 64), SECOND, "files of 'next'"),
        (replace(FIRST, card_sha256="0" * 64), SECOND, "files of 'next'"),
        (FIRST, replace(SECOND, card_sha256="0" * 64), "files of 'tiny'"),
        (FIRST, replace(SECOND, version="other"), "about 'tiny', not about 'other'"),
    ):
        with pytest.raises(PromotionError, match=said):
            require_promotable(good, candidate, in_service, RULES)
    with pytest.raises(PromotionError, match="rules of the gate were changed"):
        require_promotable(good, FIRST, SECOND, replace(RULES, sha256="0" * 64))


def test_a_verdict_that_says_more_than_its_figures_is_refused(bad: Verdict) -> None:
    """A forged word, made in the program and not in the file."""
    with pytest.raises(PromotionError, match="does not follow"):
        require_promotable(replace(bad, outcome=BETTER), FIRST, SECOND, RULES)
    with pytest.raises(PromotionError, match="does not follow"):
        require_promotable(replace(bad, outcome=BETTER, comparisons=()), FIRST, SECOND, RULES)


@pytest.mark.parametrize("outcome", [WORSE, INSUFFICIENT, REFUSED])
def test_no_other_word_lets_anything_through(outcome: str, bad: Verdict) -> None:
    verdicts = {
        WORSE: bad,
        INSUFFICIENT: make_verdict(decided(results()), counts={**COUNTS, "normal": 2}),
        REFUSED: make_verdict(Decision(REFUSED, ("It is damaged.",), (), None)),
    }
    verdict = verdicts[outcome]
    if outcome == INSUFFICIENT:
        verdict = replace(verdict, outcome=INSUFFICIENT, reasons=("Only 2 normal scans are locked.",))
    with pytest.raises(PromotionError, match=outcome):
        require_promotable(verdict, FIRST, SECOND, RULES)


def test_what_is_printed_names_the_word_the_reasons_and_every_figure(good: Verdict) -> None:
    printed = format_verdict(good)
    assert printed.startswith("next beside tiny: better")
    for one in good.comparisons:
        assert one.gain.figure in printed
    assert all(reason in printed for reason in good.reasons)


def test_a_part_is_called_by_its_name(good: Verdict) -> None:
    parts = [one for one in good.comparisons if one.rule == PART]
    assert {one.gain.part for one in parts} == {"small lesions"}
    assert all(isinstance(one.gain, Gain) for one in parts)
