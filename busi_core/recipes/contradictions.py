"""What the five papers print that cannot be true or is missing, with the arithmetic done by code.

Each statement is computed from the figures as printed when it is asked for; none is typed in.
"""

from dataclasses import dataclass

from busi_core.metrics.consistency import Claim, Range, check_claim, f1_of, iou_of, may_be_means, share_of_first

PIXELS_WITH_LESION = Range(0.06, 0.10)  # of BUSI: 7.5 % of all pixels (780 files); mean 9.4 % of an image with a lesion
BENIGN_SHARES = (437 / (437 + 210), 0.5)  # of BUSI's lesions as published, and after oversampling to equal counts
EMPTY_MASK_ACCURACY = 1 - 0.075  # of all pixels of the 780 files (docs: measured once over the full set)

TABLE_1 = {  # paper 000, Table I, in per cent: accuracy, recall, precision, IoU, F1
    "MSGRAP": (97.79, 80.41, 74.59, 62.26, 76.58),
    "PSPNet-18": (97.74, 80.88, 70.58, 60.58, 75.20),
    "ENCNet-18": (97.60, 79.90, 68.59, 57.70, 72.66),
    "FCN": (97.38, 77.02, 69.07, 56.27, 71.23),
    "U-Net": (97.44, 78.46, 66.96, 56.13, 71.32),
    "SegNet": (97.58, 80.06, 68.77, 60.01, 72.25),
    "Our Model": (99.37, 86.20, 81.30, 84.60, 83.70),
}
TABLE_003 = {  # IoU, Dice
    "VGG16": (0.41, 0.58),
    "VGG19": (0.51, 0.67),
    "ResNet50": (0.50, 0.66),
    "ResNet50 without attention": (0.43, 0.60),
    "DPN68": (0.59, 0.74),
}
TABLE_2_OF_004 = {  # accuracy, precision of benign, of malignant
    "1": (0.95, 0.88, 1.00),
    "2": (0.98, 0.99, 0.97),
    "3": (0.96, 1.00, 0.93),
}


@dataclass(frozen=True)
class Contradiction:
    """One point.

    Attributes:
        paper: '000' to '004', or 'all'.
        printed: What the paper says.
        arithmetic: What follows, with numbers.
        kind: 'impossible', 'unlikely' or 'missing'.
    """

    paper: str
    printed: str
    arithmetic: str
    kind: str


def find_contradictions() -> list[Contradiction]:
    """Every point, paper by paper."""
    return [*_of_000(), *_of_001(), *_of_002(), *_of_003(), *_of_004(), _of_all()]


def claim_of(row: tuple[float, float, float, float, float]) -> Claim:
    """A row of Table I as a claim."""
    accuracy, recall, precision, iou, f1 = (value / 100 for value in row)
    return Claim(0.00005, precision=precision, recall=recall, f1=f1, iou=iou, accuracy=accuracy)


def _of_000() -> list[Contradiction]:
    found = []
    for name, row in TABLE_1.items():
        verdict = check_claim(claim_of(row))
        if not verdict.is_possible and verdict.f1 and verdict.iou:
            found.append(
                Contradiction(
                    "000",
                    f"{name}: precision {row[2]:.2f}, recall {row[1]:.2f}, F1 {row[4]:.2f}, IoU {row[3]:.2f}.",
                    f"On one table of counts precision and recall give F1 {100 * verdict.f1.low:.2f} and IoU "
                    f"{100 * verdict.iou.low:.2f}. "
                    + (
                        "Means over images would allow it, but the paper's formulas are of counts."
                        if may_be_means(row[4] / 100, row[3] / 100)
                        else "Nor can means over images: no image has an IoU above its F1."
                    ),
                    "unlikely" if may_be_means(row[4] / 100, row[3] / 100) else "impossible",
                )
            )
    ours, best = TABLE_1["Our Model"], TABLE_1["MSGRAP"]
    share = check_claim(claim_of(ours)).positive_share
    if share:
        found.append(
            Contradiction(
                "000",
                f"Accuracy {ours[0]:.2f} with precision {ours[2]:.2f} and recall {ours[1]:.2f}.",
                f"Needs lesions on {100 * share.low:.2f} to {100 * share.high:.2f} % of the pixels; they cover 7.5 %.",
                "impossible" if not share.meets(PIXELS_WITH_LESION) else "unlikely",
            )
        )
    gains = {name: ours[place] - best[place] for name, place in (("precision", 2), ("IoU", 3), ("F1", 4))}
    found.append(
        Contradiction(
            "000",
            "'A substantial gain of at least 10 % or more' in precision, IoU and F1.",
            "Against the best row: " + ", ".join(f"{name} {gain:+.2f}" for name, gain in gains.items()) + ".",
            "impossible",
        )
    )
    found.append(
        Contradiction(
            "000",
            "No split, no test set, no figure of a class, no word of what the heat map explains.",
            "Nothing to compute.",
            "missing",
        )
    )
    return found


def _of_001() -> list[Contradiction]:
    verdict = check_claim(Claim(0.0005, precision=0.945, recall=0.918, f1=0.9205))
    return [
        Contradiction(
            "001",
            "Tumour class: precision 94.5, recall 91.8, F1 92.05.",
            f"Their harmonic mean is {100 * f1_of(0.945, 0.918):.2f}: {'; '.join(verdict.conflicts)}.",
            "impossible",
        ),
        Contradiction(
            "001",
            "512 x 512 in the text, 224 x 224 in the layer table; Keras named, segmentation_models_pytorch used; "
            "21 output classes, one class reported.",
            "Nothing to compute.",
            "missing",
        ),
    ]


def _of_002() -> list[Contradiction]:
    iou = 0.4543
    return [
        Contradiction(
            "002",
            "437, 210 and 133 'patients'.",
            f"They are images: 437 + 210 + 133 = {437 + 210 + 133}, of about 600 patients.",
            "impossible",
        ),
        Contradiction(
            "002",
            f"IoU {iou}, accuracy .9163.",
            f"IoU {iou} is Dice {2 * iou / (1 + iou):.3f}; accuracy lies {100 * (EMPTY_MASK_ACCURACY - 0.9163):.2f} "
            f"points below that of a mask that is always empty ({EMPTY_MASK_ACCURACY:.3f}).",
            "unlikely",
        ),
        Contradiction("002", "At most two masks an image are merged.", "One image has three.", "missing"),
    ]


def _of_003() -> list[Contradiction]:
    follow = [
        name
        for name, (iou, dice) in TABLE_003.items()
        if check_claim(Claim(0.005, f1=dice, iou=iou)).is_possible and abs(2 * iou / (1 + iou) - dice) < 0.01
    ]
    return [
        Contradiction(
            "003",
            "437 normal, 210 benign and 133 malignant images.",
            "437 are benign, 210 malignant, 133 normal.",
            "impossible",
        ),
        Contradiction(
            "003",
            "Dice and IoU of five systems.",
            f"In {len(follow)} of {len(TABLE_003)} rows Dice is 2 IoU / (1 + IoU) within rounding, as for pooled "
            "pixels; means over images do not obey that.",
            "unlikely",
        ),
        Contradiction(
            "003",
            "Joint classification without a head; 'squeeze-and-excitation' of channels, while the library's decoder "
            "offers scSE (channels and places).",
            "Nothing to compute.",
            "missing",
        ),
    ]


def _of_004() -> list[Contradiction]:
    found = [
        Contradiction(
            "004",
            "487 benign images, 697 with a lesion.",
            f"437 are benign, {437 + 210} show a lesion.",
            "impossible",
        )
    ]
    for experiment, row in TABLE_2_OF_004.items():
        accuracy, benign, malignant = (Range(max(value - 0.005, 0), min(value + 0.005, 1)) for value in row)
        share = share_of_first(accuracy, benign, malignant)
        fits = share is not None and any(share.low <= known <= share.high for known in BENIGN_SHARES)
        if fits:
            continue
        needed = "no table of counts" if share is None else f"{100 * share.low:.0f} to {100 * share.high:.0f} % benign"
        found.append(
            Contradiction(
                "004",
                f"Experiment {experiment}: accuracy {row[0]:.0%}, precision {row[1]:.0%} and {row[2]:.0%}.",
                f"Needs {needed}; the data has {BENIGN_SHARES[0]:.0%}, oversampled {BENIGN_SHARES[1]:.0%}.",
                "impossible",
            )
        )
    found.append(
        Contradiction(
            "004",
            "'Split at the patient-level'; filters '64-512' over four blocks; learning rate 1e-5 in the discussion, "
            "1e-4 in the table; 'context extrapolation' at the edges.",
            "BUSI names no patients; four blocks from 64 to 512 leave no room for the bottleneck's own width.",
            "missing",
        )
    )
    return found


def _of_all() -> Contradiction:
    return Contradiction(
        "all",
        "Pixel accuracy in every headline (99.37, 95.4, 91.63, 95 to 96, 93.23 %).",
        f"A mask that is always empty scores {100 * EMPTY_MASK_ACCURACY:.1f} % on BUSI, with IoU {iou_of(0.0):.0f}. No "
        "paper handles repeated scans, gives an interval, or tests on another hospital.",
        "missing",
    )
