"""Files and folders of scans in, result files out: a stream that resumes after a kill and writes each result once.

    paths -plan-> (input, target) -a few at a time: decode, network, draw, write-> mask, heat map, record

The record is written last and says which input it is of (size, time, content), so a record always has its pictures,
and a run that was killed goes on where it was: what is done is not read again, what changed since is.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_core.batch import map_in_order
from busi_core.data.pairing import SUFFIXES
from busi_core.data.records import is_mask_name, natural_key
from busi_core.errors import BusiError, InvalidImageError, OutputError
from busi_core.explain.gradcam import LESION
from busi_core.files import write_atomically
from busi_core.findings import read_finding
from busi_core.imaging.decode import decode_image
from busi_core.imaging.overlay import draw_heatmap, encode_png, mask_png
from busi_core.imaging.preprocess import upsample
from busi_core.report import reading_record
from busi_core.service import Analyser
from busi_core.types import Analysis, DecodedImage


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: The input.
        summary: A line for the person; empty when there is an error.
        error: Why there is no result.
        already_done: Its result was there from an earlier run and was left alone.
    """

    path: Path
    summary: str
    error: BusiError | None
    already_done: bool = False


@dataclass(frozen=True)
class Plan:
    """What will be read and where it goes: pairs of input file and output stem, no two of them the same."""

    targets: tuple[tuple[Path, Path], ...]


@dataclass(frozen=True, eq=False)
class _Prepared:
    source: Path
    target: Path
    stamp: dict[str, Any]
    image: DecodedImage | None
    outcome: Outcome


def plan_paths(paths: Sequence[Path], out: Path) -> Plan:
    """Find every scan under the paths; the folders below a given folder are mirrored under `out`.

    Raises:
        OutputError: Two inputs would write the same results, a result would fall on a file that is none, or a path
            does not exist.
    """
    targets: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            found = [(file, out / file.relative_to(path).with_suffix("")) for file in _list_scans(path)]
        elif path.exists():
            found = [(path, out / path.stem)]
        else:
            raise OutputError(f"{path} does not exist.", remedy="Check the path.")
        for source, target in found:
            if target in targets and targets[target] != source:
                raise OutputError(
                    f"{targets[target]} and {source} would both write {target}.json.",
                    remedy="Rename one of them, or give their folder instead of the files.",
                )
            _require_free(source, target)
            targets[target] = source
    return Plan(tuple((source, target) for target, source in targets.items()))


def analyse_paths(
    analyser: Analyser, paths: Sequence[Path], out: Path, *, frame: int | None = None, jobs: int = 2
) -> Iterator[Outcome]:
    """Read every scan under the paths and write `<stem>.json`, `<stem>_mask.png`, `<stem>_heatmap.png`.

    Raises:
        OutputError: As `plan_paths`; nothing was read.
    """
    return analyse_plan(analyser, plan_paths(paths, out), frame=frame, jobs=jobs)


def analyse_plan(analyser: Analyser, plan: Plan, *, frame: int | None = None, jobs: int = 2) -> Iterator[Outcome]:
    """Read what was planned, in order.

    Args:
        analyser: The model.
        plan: From `plan_paths`.
        frame: Of a file with several; None reads the first, with a warning in the record.
        jobs: Scans read side by side.
    """
    version = analyser.card.version

    def read(item: tuple[Path, Path]) -> Outcome:
        prepared = _prepare(*item, frame, version)
        if prepared.image is None:
            return prepared.outcome
        try:
            return Outcome(prepared.source, _write(prepared, analyser.analyse_for_batch(prepared.image)), None)
        except OutputError as error:
            return Outcome(prepared.source, "", error)

    return map_in_order(read, plan.targets, jobs=jobs)


def _list_scans(folder: Path) -> list[Path]:
    """Scans below a folder in natural order: no masks of BUSI or BUS-BRA, no pictures of an earlier reading."""
    return sorted(filter(_is_scan, folder.rglob("*")), key=lambda file: natural_key(str(file)))


def _is_scan(file: Path) -> bool:
    if file.suffix.lower() not in SUFFIXES or is_mask_name(file.stem):
        return False
    if file.parent.name == "Masks" and file.stem.startswith("mask_"):
        return False
    scan = file.stem.removesuffix("_heatmap")
    return scan == file.stem or not _is_ours(file.with_name(scan))


def _require_free(source: Path, target: Path) -> None:
    """Refuse to write over a reference mask or another scan: what lies beside a scan without a record is not ours."""
    if not _is_in_place(source, target) or _is_ours(target):
        return
    for picture in (target.with_name(f"{target.name}_mask.png"), target.with_name(f"{target.name}_heatmap.png")):
        if picture.exists():
            raise OutputError(
                f"{picture} is there already and is no result of this program.", remedy="Choose another folder."
            )


def _is_in_place(source: Path, target: Path) -> bool:
    return source.parent.resolve() == target.parent.resolve()


def _is_ours(target: Path) -> bool:
    """Whether results of this stem are a finished reading, or one that was killed while it was written."""
    return target.with_name(f"{target.name}.json").exists() or _claim_of(target).exists()


def _claim_of(target: Path) -> Path:
    """Says, among the scans themselves, that the pictures of this stem are being written by us."""
    return target.with_name(f".{target.name}.reading")


def _prepare(source: Path, target: Path, frame: int | None, version: str) -> _Prepared:
    try:
        status = source.stat()
        stamp: dict[str, Any] = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "frame": frame}
        before = _read_record(target, version, frame)
        if before and before["bytes"] == stamp["bytes"] and before["modified_ns"] == stamp["modified_ns"]:
            return _Prepared(source, target, stamp, None, Outcome(source, "done before", None, already_done=True))
        data = source.read_bytes()
        stamp["blake2b"] = hashlib.blake2b(data, digest_size=16).hexdigest()
        if before and before["blake2b"] == stamp["blake2b"]:  # copied or touched, not changed
            return _Prepared(source, target, stamp, None, Outcome(source, "done before", None, already_done=True))
        return _Prepared(source, target, stamp, decode_image(data, frame=frame), Outcome(source, "", None))
    except InvalidImageError as error:
        return _Prepared(source, target, {}, None, Outcome(source, "", error))
    except OSError as error:
        refusal = InvalidImageError(f"The file cannot be opened ({error.strerror}).", remedy="Check its permissions.")
        return _Prepared(source, target, {}, None, Outcome(source, "", refusal))


def _read_record(target: Path, version: str, frame: int | None) -> dict[str, Any] | None:
    """The stamp in a finished record of the same model version and frame; None when there is none."""
    try:
        record = json.loads(target.with_name(f"{target.name}.json").read_text(encoding="utf-8"))
        stamp: dict[str, Any] = record["input"]
        same = record["model"] == version and stamp["frame"] == frame
        pictures = all(target.with_name(f"{target.name}_{kind}.png").is_file() for kind in ("mask", "heatmap"))
        return stamp if same and pictures and {"bytes", "modified_ns", "blake2b"} <= set(stamp) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(prepared: _Prepared, analysis: Analysis) -> str:
    finding = read_finding(analysis)
    image, diagnosis, target = analysis.image, analysis.prediction.diagnosis, prepared.target
    heat = analysis.heatmaps[diagnosis.value if diagnosis else LESION]
    picture = draw_heatmap(image.rgb, upsample(heat.evidence, image.height, image.width))
    record = {**reading_record(analysis, finding, file=str(prepared.source)), "input": prepared.stamp}
    in_place = _is_in_place(prepared.source, target)
    if in_place:
        write_atomically(_claim_of(target), b"")
    write_atomically(target.with_name(f"{target.name}_mask.png"), mask_png(finding.lesion_mask))
    write_atomically(target.with_name(f"{target.name}_heatmap.png"), encode_png(picture))
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomically(target.with_name(f"{target.name}.json"), text.encode("utf-8", "replace"))
    if in_place:
        _claim_of(target).unlink(missing_ok=True)
    scores = analysis.prediction.probabilities
    score = f" {scores[diagnosis]:.2f}" if scores and diagnosis else ""
    return f"{diagnosis or 'no class'}{score}, lesion {finding.lesion_pixels} px"
