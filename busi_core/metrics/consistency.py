"""Whether printed figures can belong to one table of counts, within their rounding.

    precision, recall, F1, IoU, accuracy, each as printed --check_claim--> possible or not, and why
    accuracy and the precision of two classes --share_of_first--> how common the first class must have been

All but accuracy are ratios of three counts (TP, FP, FN), so two of them fix the others: F1 = 2 P R / (P + R) and
IoU = F1 / (2 - F1). Accuracy adds one more count, and with it says how much of the data is positive.
"""

from dataclasses import dataclass
from itertools import product
from math import inf, isfinite


@dataclass(frozen=True)
class Range:
    """Every number from low to high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got {self}")

    def meets(self, other: "Range") -> bool:
        """Whether some number lies in both."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Claim:
    """Figures printed of one system on one test set, in [0, 1]; None where not printed.

    Attributes:
        rounding: Half a unit of the last printed digit, as 0.00005 for '84.60 %'.
    """

    rounding: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    iou: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        for value in (self.precision, self.recall, self.f1, self.iou, self.accuracy):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"figures must lie in (0, 1], got {value}")
        if not 0 <= self.rounding < 0.1:
            raise ValueError(f"rounding must lie in [0, 0.1), got {self.rounding}")

    def around(self, value: float) -> Range:
        """What a printed figure may have been before it was rounded."""
        return Range(max(value - self.rounding, 1e-9), min(value + self.rounding, 1.0))


@dataclass(frozen=True)
class Verdict:
    """What follows from a claim.

    Attributes:
        is_possible: Whether one table of counts can give all of it.
        conflicts: One sentence for each figure that cannot stand beside the others.
        f1: F1 as precision and recall give it; None without both.
        iou: IoU likewise, or as F1 gives it.
        positive_share: Share of the data that must be positive for this accuracy; None without accuracy, precision
            and recall.
    """

    is_possible: bool
    conflicts: tuple[str, ...]
    f1: Range | None
    iou: Range | None
    positive_share: Range | None


def f1_of(precision: float, recall: float) -> float:
    """Harmonic mean, in [0, 1]."""
    return 2 * precision * recall / (precision + recall)


def iou_of(f1: float) -> float:
    """IoU (Jaccard) of the same counts: F1 / (2 - F1)."""
    return f1 / (2 - f1)


def may_be_means(f1: float, iou: float) -> bool:
    """Whether F1 and IoU can be means over images: IoU lies between IoU(F1), as the curve bends upward, and F1."""
    return iou_of(f1) <= iou <= f1


def check_claim(claim: Claim, *, positive_share: Range | None = None) -> Verdict:
    """Tell whether one table of counts can give all figures of a claim.

    F1 and IoU rise with precision and with recall, so the ends of the rounding give the ends of what follows, and no
    true claim is ever refused.

    Args:
        claim: As printed.
        positive_share: How much of the data is positive, where that is known, in [0, 1].
    """
    conflicts: list[str] = []
    f1 = iou = share = None
    if claim.precision is not None and claim.recall is not None:
        precision, recall = claim.around(claim.precision), claim.around(claim.recall)
        f1 = Range(f1_of(precision.low, recall.low), f1_of(precision.high, recall.high))
        if claim.f1 is not None and not f1.meets(claim.around(claim.f1)):
            conflicts.append(f"F1 {_percent(claim.f1)} printed, {_show(f1)} follows from precision and recall")
        if claim.accuracy is not None:
            share = _share_for_accuracy(claim.around(claim.accuracy), precision, recall)
            if share.low > 1:
                conflicts.append(f"accuracy {_percent(claim.accuracy)} would need more positives than data")
            elif positive_share is not None and not share.meets(positive_share):
                conflicts.append(
                    f"accuracy {_percent(claim.accuracy)} needs {_show(share)} of the data to be positive, "
                    f"it is {_show(positive_share)}"
                )
    elif claim.f1 is not None:
        for name, value in (("precision", claim.precision), ("recall", claim.recall)):
            if value is not None and claim.around(claim.f1).low > f1_of(claim.around(value).high, 1.0):
                conflicts.append(f"F1 {_percent(claim.f1)} cannot be reached with {name} {_percent(value)}")
    given = f1 or (claim.around(claim.f1) if claim.f1 is not None else None)
    if given is not None:
        iou = Range(iou_of(given.low), iou_of(given.high))
        for source, follows in (("precision and recall" if f1 else "F1", iou), *_iou_of_printed_f1(claim, f1)):
            if claim.iou is not None and not follows.meets(claim.around(claim.iou)):
                conflicts.append(f"IoU {_percent(claim.iou)} printed, {_show(follows)} follows from {source}")
    return Verdict(not conflicts, tuple(conflicts), f1, iou, share)


def share_of_first(accuracy: Range, precision_first: Range, precision_second: Range) -> Range | None:
    """How common the first of two classes is when accuracy and both precisions are so.

    With b the share called the first class, accuracy = p1 b + p2 (1 - b), and of the data p1 b + (1 - p2)(1 - b) are
    of the first class.

    Returns:
        A range within [0, 1]; None where no table of counts gives these figures.
    """
    shares = []
    for a, p1, p2 in product(*((r.low, r.high) for r in (accuracy, precision_first, precision_second))):
        if p1 == p2:
            continue
        called = (a - p2) / (p1 - p2)
        if 0 <= called <= 1:
            shares.append(p1 * called + (1 - p2) * (1 - called))
    return Range(min(shares), max(shares)) if shares else None


def _iou_of_printed_f1(claim: Claim, f1: Range | None) -> list[tuple[str, Range]]:
    if claim.f1 is None or f1 is None:
        return []
    printed = claim.around(claim.f1)
    return [("the printed F1", Range(iou_of(printed.low), iou_of(printed.high)))]


def _share_for_accuracy(accuracy: Range, precision: Range, recall: Range) -> Range:
    """1 - accuracy = share * ((1 - R) + R (1 / P - 1)): the errors for each positive, missed and invented."""

    # Straight in R, rising or falling as P lies below or above a half: the extremes are at the corners.
    corners = product((precision.low, precision.high), (recall.low, recall.high))
    errors = [(1 - r) + r * (1 / p - 1) for p, r in corners]
    fewest, most = min(errors), max(errors)
    high = (1 - accuracy.low) / fewest if fewest > 0 else inf
    return Range((1 - accuracy.high) / most if most > 0 else 0.0, high)


def _show(values: Range) -> str:
    if not isfinite(values.high):
        return f"{_percent(values.low)} or more"
    low, high = _percent(values.low), _percent(values.high)
    return low if low == high else f"{low} to {high}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
