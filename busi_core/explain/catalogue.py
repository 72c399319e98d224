"""The ways to explain a reading, by name, in words that a clinician reads; knows nothing of torch."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Method(StrEnum):
    """One way of making a heat map; the value is its name on the command line and in file names."""

    GRAD_CAM = "grad-cam"
    GRAD_CAM_PLUS_PLUS = "grad-cam-plus-plus"
    HIRES_CAM = "hirescam"
    LAYER_CAM = "layercam"
    EIGEN_CAM = "eigencam"
    SCORE_CAM = "score-cam"


@dataclass(frozen=True)
class MethodWords:
    """What is said about a method.

    Attributes:
        title: Its name as its authors write it.
        does: One or two sentences on what it does, without a formula.
        source: The paper.
        asks: Whether its answer depends on what is asked.
    """

    title: str
    does: str
    source: str
    asks: bool = True


WORDS: Final = {
    Method.GRAD_CAM: MethodWords(
        "Grad-CAM",
        "Adds up what the layer found, each finding weighed by how much it raises the score on average over the scan.",
        "Selvaraju et al., arXiv:1610.02391",
    ),
    Method.GRAD_CAM_PLUS_PLUS: MethodWords(
        "Grad-CAM++",
        "As Grad-CAM, but only what raises the score has weight, so that several lesions in one scan can all show.",
        "Chattopadhay et al., arXiv:1710.11063",
    ),
    Method.HIRES_CAM: MethodWords(
        "HiResCAM",
        "Weighs each place by what that very place does to the score, without averaging over the scan.",
        "Draelos and Carin, arXiv:2011.08891",
    ),
    Method.LAYER_CAM: MethodWords(
        "LayerCAM",
        "As HiResCAM, but what lowers the score is left out; made for finer layers, where it follows outlines.",
        "Jiang et al., doi:10.1109/TIP.2021.3089943",
    ),
    Method.EIGEN_CAM: MethodWords(
        "EigenCAM",
        "Shows what stands out most in the layer, whatever was asked: the same map for every class. "
        "It says what the model saw, not what it decided by.",
        "Muhammad and Yeasin, arXiv:2008.00299",
        asks=False,
    ),
    Method.SCORE_CAM: MethodWords(
        "Score-CAM",
        "Greys out the scan except for what one finding of the layer marks, reads it again, and weighs the finding by "
        "the score that is left. Reads the scan once for each finding, so it takes seconds to minutes.",
        "Wang et al., arXiv:1910.01279",
    ),
}
DEEPEST: Final = "deepest"  # the layer that the class head reads; every network has it
