"""Many scans through one model: cases in, one small row each out, in order, with memory that does not grow.

    cases --a few at a time, each in a thread: decode, masks, network, finding, overlap, pictures--> ScanRow

A bad file is a row with its reason. What a row keeps is a few kilobytes: its scan is read again from its source
where a picture is needed.
"""

import hashlib
import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_core.data.duplicates import fingerprint
from busi_core.data.pairing import Case
from busi_core.data.truth import Reference, read_reference
from busi_core.errors import InvalidImageError
from busi_core.explain.gradcam import LESION
from busi_core.findings import Finding, read_finding
from busi_core.imaging.decode import decode_image
from busi_core.imaging.encode import mask_png
from busi_core.imaging.overlay import draw_mask
from busi_core.imaging.preprocess import upsample
from busi_core.metrics.segmentation import count_overlap, hd95
from busi_core.report import ReportPictures, ReportScan, reading_record
from busi_core.service import Analyser
from busi_core.side_by_side import map_in_order
from busi_core.taught import TaughtScans
from busi_core.types import Analysis, DecodedImage, Diagnosis, FloatMap, Mask, Rgb

THUMBNAIL_SIDE_PX = 112
THUMBNAIL_QUALITY = 78  # JPEG; about 3 KB
NAN = math.nan
UNREAD = "The scan could not be read."


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known about one scan, and how the reading compares with it; NaN where that is not defined.

    Attributes:
        diagnosis: Its class; None where nothing names it.
        lesion_pixels: Of the reference mask; None where there is none.
        problem: Why there is no reference mask; None when there is one.
        missing: No mask file came, rather than a wrong one.
        notes: How the mask files were read, where that must be said.
        dice, iou, precision, recall, hd95_px: Of the lesion mask at the model's cut-off. NaN for a scan without a
            lesion, where there is nothing to overlap with, and for an answer withheld.
        taught: By its name or its pixels, a copy of this scan taught the model or chose its thresholds.
    """

    diagnosis: Diagnosis | None
    lesion_pixels: int | None
    problem: str | None
    missing: bool
    notes: tuple[str, ...]
    dice: float
    iou: float
    precision: float
    recall: float
    hd95_px: float
    taught: bool

    @property
    def has_lesion(self) -> bool | None:
        """By the mask, else by the class; None where neither is known."""
        if self.lesion_pixels is not None:
            return self.lesion_pixels > 0
        return None if self.diagnosis is None else self.diagnosis is not Diagnosis.NORMAL

    def record(self) -> dict[str, Any]:
        """As plain values; what is not defined is None."""
        figures = {key: getattr(self, key) for key in ("dice", "iou", "precision", "recall", "hd95_px")}
        return {
            "class": self.diagnosis.value if self.diagnosis else None,
            "lesion_pixels": self.lesion_pixels,
            **{key: None if math.isnan(value) else value for key, value in figures.items()},
            "problem": self.problem,
            "missing": self.missing,
            "notes": list(self.notes),
            "taught_the_model": self.taught,
        }


@dataclass(frozen=True, eq=False)
class RowPictures:
    """What a table and a report need of one reading, packed.

    Attributes:
        thumbnail: JPEG of the scan with the lesion outlined.
        mask: PNG, 0 and 255, in the scan's pixels.
        truth: The same of the reference; None where there is none.
        evidence: The heat map on its coarse grid.
        explains: What that heat map is of.
    """

    thumbnail: bytes
    mask: bytes
    truth: bytes | None
    evidence: FloatMap
    explains: str


@dataclass(frozen=True, eq=False)
class Reading:
    """What is kept of one analysis.

    Attributes:
        record: As `report.reading_record` gives it.
        digest: Of the grey pixels: equal for the same pixels under two names.
        fingerprint: (256,) float32 thumbnail, to find copies that differ by marks.
        pictures: None where nobody asked for them.
    """

    record: Mapping[str, Any]
    digest: str
    fingerprint: NDArray[np.float32]
    pictures: RowPictures | None

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The class with the highest score."""
        return Diagnosis(self.record["class"]) if self.record["class"] else None

    @property
    def scores(self) -> tuple[float, float, float] | None:
        """In the order of `Diagnosis`; None for a model without a class head."""
        given = self.record["probabilities"]
        return (given["normal"], given["benign"], given["malignant"]) if given else None

    @property
    def withheld(self) -> bool:
        """Whether the model kept its answer to itself: the empty mask is no finding then."""
        return bool(self.record["withheld"])

    @property
    def lesion_share(self) -> float:
        """Share of the image inside the mask; NaN of an answer withheld."""
        if self.withheld:
            return NAN
        return float(self.record["lesion_pixels"] / (self.record["width"] * self.record["height"]))


@dataclass(frozen=True, eq=False)
class ScanRow:
    """What became of one file.

    Attributes:
        id: Of the case: unique in the batch.
        name: Of the file, as given: data.
        problem: Why it could not be read; None when it was.
        reading: None when there is a problem.
        truth: What is known about it.
        group: Scan or case that its table or its name gives it in BUSI or BUS-BRA; None elsewhere.
    """

    id: str
    name: str
    problem: str | None
    reading: Reading | None
    truth: Truth
    group: str | None

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON and the report."""
        if self.reading is None:
            return {"id": self.id, "file": self.name, "problem": self.problem}
        known = self.truth.diagnosis is not None or not self.truth.missing
        return {"id": self.id, **self.reading.record, **({"truth": self.truth.record()} if known else {})}


@dataclass(frozen=True, eq=False)
class _Decoded:
    case: Case
    image: DecodedImage | None
    reference: Reference | None
    problem: str | None


def read_cases(
    analyser: Analyser, cases: Iterable[Case], *, jobs: int = 2, with_pictures: bool = True
) -> Generator[ScanRow, None, None]:
    """Read cases in order, one row each.

    A scan that is foreign to the model gets an answer when its reference came with it, as in `busi evaluate`; its row
    warns. Without a reference the answer is withheld.

    Args:
        analyser: The model.
        cases: From `data.pairing`; read as they are needed.
        jobs: Scans read side by side.
        with_pictures: Keep thumbnails, masks and heat maps for a screen or a report.
    """
    taught = analyser.taught

    def read(case: Case) -> ScanRow:
        decoded = _decode(case)
        group = _group_of(case, taught)
        if decoded.image is None:
            return _make_row(decoded, None, False, group, with_pictures=with_pictures)
        known_truth = case.diagnosis is not None or (decoded.reference and decoded.reference.mask is not None)
        # Whoever brings the truth asks what the model would say: an answer withheld is neither right nor wrong.
        analysis = analyser.analyse_for_batch(decoded.image, insist=bool(known_truth))
        known = taught.recognise(case.record_id, decoded.image.grey) is not None
        return _make_row(decoded, analysis, known, group, with_pictures=with_pictures)

    return map_in_order(read, cases, jobs=jobs)


def _group_of(case: Case, taught: TaughtScans) -> str | None:
    """Whom a scan shows: by the published list of BUSI's copies, by the table that came with it, by its name."""
    if case.patient is not None and not (case.record_id or "").startswith("busi/"):
        return f"case {case.patient}"
    return None if case.record_id is None else taught.group(case.record_id)


def report_scan(row: ScanRow, case: Case, *, simulated: bool = False, same_as: str | None = None) -> ReportScan:
    """A row as the report takes it; its scan is decoded only when its page is drawn.

    Args:
        row: The reading.
        case: Its files.
        simulated: The scan was made by the phantom.
        same_as: The name of an earlier scan with the same pixels.
    """

    def draw() -> ReportPictures | None:
        kept = row.reading.pictures if row.reading else None
        if kept is None:
            return None
        image = decode_image(case.scan.read())
        return ReportPictures(
            rgb=image.rgb,
            mask=_unpack(kept.mask),
            truth=None if kept.truth is None else _unpack(kept.truth),
            evidence=upsample(kept.evidence, image.height, image.width),
            explains=kept.explains,
        )

    known = {"simulated": simulated, **({"same_pixels_as": same_as} if same_as else {})}
    return ReportScan(row.record() | known, draw)


def _decode(case: Case) -> _Decoded:
    try:
        image = decode_image(case.scan.read())
    except InvalidImageError as error:
        return _Decoded(case, None, None, f"{error.problem} {error.remedy}")
    reference = read_reference(case.masks, image.height, image.width, diagnosis=case.diagnosis)
    return _Decoded(case, image, reference, None)


def _make_row(
    decoded: _Decoded, analysis: Analysis | None, taught: bool, group: str | None, *, with_pictures: bool
) -> ScanRow:
    case = decoded.case
    if analysis is None or decoded.reference is None:
        unknown = Truth(case.diagnosis, None, UNREAD, False, (), NAN, NAN, NAN, NAN, NAN, taught)
        return ScanRow(case.id, case.name, decoded.problem, None, unknown, group)
    finding = read_finding(analysis)
    grey = analysis.image.grey
    digest = hashlib.blake2b(grey.tobytes(), digest_size=16, salt=b"%d" % grey.shape[1]).hexdigest()
    pictures = _pack_pictures(analysis, finding, decoded.reference.mask) if with_pictures else None
    reading = Reading(
        reading_record(analysis, finding, file=case.name, taught=taught), digest, fingerprint(grey), pictures
    )
    said = None if analysis.withheld else finding
    truth = measure_truth(case.diagnosis, decoded.reference, said, taught=taught)
    return ScanRow(case.id, case.name, None, reading, truth, group)


def measure_truth(diagnosis: Diagnosis | None, reference: Reference, finding: Finding | None, *, taught: bool) -> Truth:
    """How one reading compares with its reference, as rows and reports say it.

    Args:
        diagnosis: The reference class; None where nothing names it.
        reference: Of the same scan.
        finding: At the cut-off to be measured; None of an answer withheld, which is neither right nor wrong.
        taught: A copy of the scan taught the model.
    """
    figures = (NAN,) * 5
    pixels = None
    if reference.mask is not None:
        pixels = int(reference.mask.sum())
        if pixels and finding is not None:
            counts = count_overlap(finding.lesion_mask, reference.mask)
            distance = hd95(finding.lesion_mask, reference.mask)
            figures = (counts.dice, counts.iou, counts.precision, counts.recall, distance)
    return Truth(diagnosis, pixels, reference.problem, reference.missing, reference.notes, *figures, taught)


def _pack_pictures(analysis: Analysis, finding: Finding, truth: Mask | None) -> RowPictures:
    diagnosis = analysis.prediction.diagnosis
    explains = diagnosis.value if diagnosis else LESION
    return RowPictures(
        thumbnail=_thumbnail(analysis.image.rgb, finding.lesion_mask),
        mask=mask_png(finding.lesion_mask),
        truth=None if truth is None else mask_png(truth),
        evidence=analysis.heatmaps[explains].evidence,
        explains=explains,
    )


def _thumbnail(rgb: Rgb, mask: Mask) -> bytes:
    scale = min(1.0, THUMBNAIL_SIDE_PX / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
    drawn = draw_mask(np.ascontiguousarray(small), inside)
    _, encoded = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])
    return encoded.tobytes()


def _unpack(png: bytes) -> Mask:
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise InvalidImageError("A mask of this batch is damaged.", remedy="Read the batch again.")
    return np.asarray(pixels > 127, np.bool_)
