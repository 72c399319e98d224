"""Several readings of one scan say where the outline is firm and where it is not."""

from dataclasses import replace

import numpy as np
import pytest
from versions import TINY, make_analyser

from busi_core.doubt import READINGS, Doubt, measure_doubt, outline_doubt
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import SimulatedScan
from busi_core.imaging.preprocess import upsample
from busi_core.service import Analyser
from busi_core.types import Analysis, DecodedImage, Diagnosis


@pytest.fixture(scope="module")
def image(simulated: dict[Diagnosis, SimulatedScan]) -> DecodedImage:
    return decode_image(simulated[Diagnosis.MALIGNANT].png())


@pytest.fixture(scope="module")
def doubt(analyser: Analyser, image: DecodedImage) -> Doubt:
    return measure_doubt(analyser, image)


def test_the_first_reading_is_the_one_on_the_screen(analyser: Analyser, image: DecodedImage, doubt: Doubt) -> None:
    plain = analyser.analyse_image(image).prediction
    assert doubt.probabilities.shape == (READINGS, *plain.lesion_probability.shape)
    np.testing.assert_array_equal(doubt.probabilities[0], plain.lesion_probability)
    assert doubt.scores is not None
    for diagnosis, (low, high) in doubt.scores.items():
        assert 0 <= low <= plain.probabilities[diagnosis] <= high <= 1


def test_a_class_that_flips_is_told_also_when_no_score_passes_a_half(image: DecodedImage) -> None:
    """Three readings at .44 benign and .40 malignant, three the other way round."""

    class Wavering:
        def __init__(self) -> None:
            self.read, self.analyser = 0, make_analyser()

        def analyse_for_batch(self, image: DecodedImage, *, insist: bool) -> Analysis:
            self.read += 1
            higher, lower = (0.44, 0.40) if self.read <= 3 else (0.40, 0.44)
            scores = dict(zip(Diagnosis, (0.16, higher, lower), strict=True))
            analysis = self.analyser.analyse_for_batch(image, insist=insist)
            return replace(analysis, prediction=replace(analysis.prediction, probabilities=scores))

    measured = measure_doubt(Wavering(), image)  # type: ignore[arg-type]
    assert measured.diagnoses == {Diagnosis.BENIGN, Diagnosis.MALIGNANT}
    assert measured.scores is not None
    assert max(high for _, high in measured.scores.values()) < 0.5


def test_the_scan_is_read_as_it_is_brighter_and_darker_and_all_that_mirrored(image: DecodedImage) -> None:
    """And the shown heat map is held against the five others, not against itself."""

    class Recorder:
        def __init__(self) -> None:
            self.analyser, self.read = make_analyser(), list[Analysis]()

        def analyse_for_batch(self, image: DecodedImage, *, insist: bool) -> Analysis:
            self.read.append(self.analyser.analyse_for_batch(image, insist=insist))
            return self.read[-1]

    recorder = Recorder()
    measured = measure_doubt(recorder, image)  # type: ignore[arg-type]
    plain, brighter, darker, *mirrored = (reading.image.grey for reading in recorder.read)
    np.testing.assert_array_equal(plain, image.grey)
    assert darker.mean() < plain.mean() < brighter.mean()
    for one, other in zip((plain, brighter, darker), mirrored, strict=True):
        np.testing.assert_array_equal(one, other[:, ::-1])
    of = recorder.read[0].prediction.diagnosis or Diagnosis.NORMAL
    shown, *others = (reading.heatmaps[of].evidence for reading in recorder.read)
    others = [*others[:2], *(one[:, ::-1] for one in others[2:])]
    expected = [np.corrcoef(shown.ravel(), other.ravel())[0, 1] for other in others]
    assert measured.evidence_agreement == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_mirrored_reading_is_brought_back_in_place(analyser: Analyser, image: DecodedImage, doubt: Doubt) -> None:
    """The fourth reading is of the mirrored scan: mirrored by hand it must be the same, and lie mirrored."""
    mirrored = replace(image, grey=np.ascontiguousarray(image.grey[:, ::-1]))
    by_hand = analyser.analyse_image(mirrored).prediction.lesion_probability
    np.testing.assert_array_equal(doubt.probabilities[3], by_hand[:, ::-1])


def test_a_mirror_image_has_the_same_doubt(analyser: Analyser, image: DecodedImage, doubt: Doubt) -> None:
    mirrored = measure_doubt(analyser, replace(image, grey=np.ascontiguousarray(image.grey[:, ::-1])))
    for cutoff in (0.45, 0.5, 0.55):
        one = outline_doubt(doubt, image.height, image.width, cutoff)
        other = outline_doubt(mirrored, image.height, image.width, cutoff)
        assert (one.smallest, one.largest) == (other.smallest, other.largest)
        np.testing.assert_array_equal(one.certain, other.certain[:, ::-1])
    assert mirrored.scores == doubt.scores


def test_certain_lies_within_possible_and_the_plain_mask_between(image: DecodedImage, doubt: Doubt) -> None:
    cutoff = float(np.median(doubt.probabilities[0]))
    outline = outline_doubt(doubt, image.height, image.width, cutoff)
    plain = upsample(doubt.probabilities[0], image.height, image.width) >= cutoff
    assert not (outline.certain & ~plain).any()
    assert not (plain & ~outline.possible).any()
    assert outline.certain.sum() <= outline.smallest <= plain.sum() <= outline.largest <= outline.possible.sum()


def test_a_model_that_always_says_the_same_has_no_doubt(image: DecodedImage) -> None:
    network_blind = make_analyser()
    network_blind._network.mask_head[0].weight.zero_()
    network_blind._network.class_head[1].weight.zero_()
    doubt = measure_doubt(network_blind, image)
    outline = outline_doubt(doubt, image.height, image.width, 0.5)
    np.testing.assert_array_equal(outline.certain, outline.possible)
    assert outline.smallest == outline.largest
    assert all(high - low < 1e-9 for low, high in (doubt.scores or {}).values())
    assert np.isnan(doubt.evidence_agreement)  # flat maps agree with nothing


def test_a_model_without_a_class_head_gives_doubt_on_the_outline_alone(image: DecodedImage) -> None:
    doubt = measure_doubt(make_analyser(architecture=replace(TINY, image_classes=())), image)
    assert doubt.scores is None
    assert len(doubt.probabilities) == READINGS
