"""The figures of one evaluation with their intervals, and in plain words what each of them says."""

import math
from typing import Final

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from busi_core import EvaluationReport
from busi_core.metrics.calibration import CALIBRATION_ERROR, calibration_error_by_chance
from busi_core.metrics.segmentation import MISSED_BELOW_DICE

MEANINGS: Final = {
    "lesion Dice": "twice the area that outline and reference share, over the sum of both; 1 is the same outline",
    "lesion IoU": "the area that outline and reference share, over what they cover together; 1 is the same outline",
    "HD95 (px)": "95 % of the two borders lie within this many pixels of each other; 0 is the same outline; "
    "without the lesions on which nothing is outlined",
    "pixel precision": "of what is outlined, the share that is lesion; likewise",
    "pixel recall": "of the lesion, the share that is outlined",
    "lesions missed": f"share of lesions that the outline does not meet (Dice below {MISSED_BELOW_DICE})",
    "normals given a mask": "share of normal scans on which something is outlined",
    "pixel accuracy": "share of all pixels that are right; high for any outline, since most pixels are no lesion",
    "pixel accuracy of the empty mask": "the same, had nothing been outlined: what a model must beat",
    "accuracy (3 classes)": "share of scans given the right class of normal, benign and malignant",
    "macro-F1": "like accuracy, but each class counts the same however rare it is; 1 is best",
    "AUC malignant against benign": "how often a malignant scan is scored above a benign one; 0.5 is guessing",
    "sensitivity at 90 % specificity": "share of malignant scans found while 9 of 10 benign ones are let pass, at a "
    "cut-off that is read off these very scans, which is a little too kind",
    CALIBRATION_ERROR: "by how much a score differs from the share that is right, in the mean; 0 is best",
}


def show_figures(report: EvaluationReport, place: DeltaGenerator | None = None) -> None:
    """The table, and folded below it what its figures say; those that could not be measured are left out."""
    known = {name: value for name, value in report.table.items() if not math.isnan(value.estimate)}
    digits = {name: 1 if name.endswith("(px)") else 3 for name in known}
    place = place or st.container()
    place.table(
        {
            "figure": list(known),
            "value": [f"{value.estimate:.{digits[name]}f}" for name, value in known.items()],
            "95 % interval": [
                f"{one.low:.{digits[name]}f} – {one.high:.{digits[name]}f}" for name, one in known.items()
            ],
        },
        hide_index=True,
        width="content",
    )
    with place.expander("What these figures say"):
        meanings = MEANINGS | {CALIBRATION_ERROR: MEANINGS[CALIBRATION_ERROR] + _say_chance(report)}
        st.markdown("\n".join(f"- **{name}**: {meanings[name]}" for name in known if name in meanings))


def _say_chance(report: EvaluationReport) -> str:
    """What the calibration error would be by chance alone; '' for a model that gives no class."""
    scores = [result.probabilities for result in report.results if result.probabilities]
    if not scores:
        return ""
    return f"; on so few scans {calibration_error_by_chance(np.array(scores)):.3f} where every score is true"
