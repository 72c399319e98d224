"""Files and folders of scans in, result files out: a stream that resumes after a kill and writes each result once.

    paths -plan-> (input, target) -a few at a time: decode, network, draw, write-> mask, heat map, record

One run at a time writes into a folder. A record says which input and which model it is of, so a run that was killed
goes on where it was: what is done is not read again, what changed since is. Of an answer withheld there is the record
alone: an empty mask would be taken for 'no lesion'. `folder_results` keeps us from writing over what is not ours.
"""

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from busi_core.data.own_results import digest
from busi_core.data.pairing import SUFFIXES, is_nameless_dicom, record_id_of, stem_of
from busi_core.data.records import is_mask_name, natural_key
from busi_core.data.sources import Walk, read_start, walk_folder
from busi_core.errors import BusiError, DatasetError, ExplanationError, InvalidImageError, OutputError
from busi_core.explain.catalogue import DEEPEST, WORDS, Method
from busi_core.explain.gradcam import LESION
from busi_core.explain.methods import Explanation
from busi_core.findings import Finding, read_finding
from busi_core.folder_results import (
    beside,
    is_our_heatmap,
    place_of,
    read_finished,
    require_free,
    require_same_scan,
    require_short_names,
    write_results,
)
from busi_core.imaging.decode import decode_image
from busi_core.imaging.encode import encode_png, mask_png
from busi_core.imaging.limits import MAX_FILE_BYTES, require_sensible_bytes
from busi_core.imaging.overlay import draw_heatmap
from busi_core.imaging.preprocess import upsample
from busi_core.locks import hold_folder
from busi_core.regular import read_regular
from busi_core.report import read_by, reading_record
from busi_core.service import Analyser
from busi_core.side_by_side import map_in_order, share_cores
from busi_core.types import Analysis, DecodedImage, Heatmap, ImageWarning


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
class Asked:
    """Which explanations are made for each scan, beside its heat map.

    Attributes:
        methods: None of them twice.
        of: A class or `LESION`; None explains the likeliest class, or the mask where there is no class.
        layer: Where in the network.
    """

    methods: tuple[Method, ...] = ()
    of: str | None = None
    layer: str = DEEPEST

    def record(self) -> dict[str, Any]:
        """What a record keeps of it, to know later whether the same was asked."""
        return {"methods": sorted(self.methods), "of": self.of, "layer": self.layer} if self.methods else {}

    def and_earlier(self, stamp: Mapping[str, Any] | None) -> "Asked":
        """With the methods that an earlier reading explained alike: its pictures go when the scan is read anew."""
        explained = stamp.get("explained") if stamp else None
        if not self.methods or not isinstance(explained, dict) or not isinstance(explained.get("methods"), list):
            return self
        if explained | {"methods": self.record()["methods"]} != self.record():  # of something else, or elsewhere
            return self
        earlier = [method for method in Method if method in explained["methods"]]
        return replace(self, methods=tuple(dict.fromkeys((*self.methods, *earlier))))

    def is_in(self, stamp: Mapping[str, Any]) -> bool:
        """Whether a reading of this stamp explained all of it."""
        return not self.methods or self.and_earlier(stamp).record() == stamp.get("explained")


NOTHING_ASKED = Asked()


@dataclass(frozen=True)
class Plan:
    """What will be read and where it goes.

    Attributes:
        targets: Pairs of input file and output stem, no two of them the same.
        out: The folder that all results lie below.
        unread: Folders in which there may be more, since they cannot be read.
    """

    targets: tuple[tuple[Path, Path], ...]
    out: Path
    unread: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class _Prepared:
    source: Path
    target: Path
    stamp: dict[str, Any]
    asked: Asked
    image: DecodedImage | None
    outcome: Outcome


def plan_paths(paths: Sequence[Path], out: Path) -> Plan:
    """Find every scan under the paths; the folders below a given folder are mirrored under `out`.

    Raises:
        OutputError: Two inputs would write the same results, a result would fall on a file that is none, or a path
            does not exist or cannot be looked at.
        DatasetError: A folder holds no scan.
    """
    targets: dict[Path, Path] = {}
    unread: list[Path] = []
    for path in paths:
        try:
            found, unread_here = _find_scans(path, out)
        except OSError as error:  # a name too long, a folder that may not be searched
            raise OutputError(
                f"{error.filename or path} cannot be looked at ({error.strerror}).",
                remedy="Check the path and its permissions.",
            ) from error
        unread += unread_here
        for source, target in found:
            if target in targets and targets[target] != source:
                raise OutputError(
                    f"{targets[target]} and {source} would both write {target}.json.",
                    remedy="Rename one of them, or give their folder instead of the files.",
                )
            require_free(target)
            targets[target] = source
    return Plan(tuple((source, target) for target, source in targets.items()), out, tuple(unread))


def analyse_plan(
    analyser: Analyser, plan: Plan, *, frame: int | None = None, jobs: int = 2, asked: Asked = NOTHING_ASKED
) -> Generator[Outcome, None, None]:
    """Read what was planned, in order.

    Args:
        analyser: The model.
        plan: From `plan_paths`.
        frame: Of a file with several; None reads the first, with a warning in the record.
        jobs: Scans read side by side.
        asked: Explanations to write beside, as `<stem>_heatmap_<method>.png`.

    Raises:
        ExplanationError: The model has no such class or layer; nothing was read.
        OutputError: Another run writes into the folder, or it cannot be written; nothing was read.
    """
    if asked.methods:
        analyser.find_layer(asked.layer, of=asked.of or next(iter(analyser.card.architecture.image_classes), LESION))

    def read(item: tuple[Path, Path]) -> Outcome:
        prepared = _prepare(*item, frame, read_by(analyser.identity), asked)
        if prepared.image is None:
            return prepared.outcome
        try:
            analysis = analyser.analyse_for_batch(prepared.image)
            of = asked.of or (analysis.prediction.diagnosis or LESION)
            methods = () if analysis.withheld else prepared.asked.methods
            made = [analyser.explain(analysis, method, of=str(of), layer=asked.layer) for method in methods]
            known = record_id_of(prepared.source.name)
            taught = analyser.taught.recognise(known, prepared.image.grey) is not None
            return Outcome(prepared.source, _write(prepared, analysis, made, taught=taught), None)
        except (ExplanationError, OutputError) as error:
            return Outcome(prepared.source, "", error)

    outcomes = map_in_order(read, plan.targets, jobs=jobs)
    return _holding(plan, share_cores(outcomes, analyser, jobs))


def _holding(plan: Plan, outcomes: Generator[Outcome, None, None]) -> Generator[Outcome, None, None]:
    """While these come, no other run writes into the folder: record and pictures would be of two readings."""
    with hold_folder(plan.out, {target.parent for _, target in plan.targets}), closing(outcomes):
        yield from outcomes


def _find_scans(path: Path, out: Path) -> tuple[list[tuple[Path, Path]], tuple[Path, ...]]:
    """Scans of one path with their output stems, and folders that cannot be read.

    Raises:
        OSError: The system refuses to look at the path itself.
    """
    if not path.is_dir():
        if not path.exists():
            raise OutputError(f"{path} does not exist.", remedy="Check the path.")
        return [(path, out / stem_of(path))], ()
    walk = walk_folder(path)
    found = [(file, out / file.relative_to(path).with_name(stem_of(file))) for file in _list_scans(walk)]
    if not found and walk.unread:
        raise DatasetError(f"The folder {walk.unread[0]} cannot be read.", remedy="Check its permissions.")
    if not found:
        raise DatasetError(
            f"There is no scan in {path}.",
            remedy=f"Give a folder of DICOM or {', '.join(SUFFIXES)} files; masks (*_mask*) are no scans.",
        )
    return found, walk.unread


def _list_scans(walk: Walk) -> list[Path]:
    """Scans of a folder in natural order: nothing hidden, no masks, no pictures of an earlier reading."""
    links = (link for link in walk.leading_out if not link.is_dir())  # of one to nothing it is said that it is
    files = (*walk.files, *links)
    return sorted(filter(_is_scan, files), key=lambda file: natural_key(str(file)))


def _is_scan(file: Path) -> bool:
    if file.suffix.lower() not in SUFFIXES:
        return is_nameless_dicom(file.name, partial(read_start, file))
    if is_mask_name(file.stem):
        return False
    if file.parent.name == "Masks" and file.stem.startswith("mask_"):
        return False
    return not is_our_heatmap(file)


def _prepare(source: Path, target: Path, frame: int | None, reader: str, asked: Asked) -> _Prepared:
    try:
        require_short_names(target, asked.methods)
        status = source.stat()
        stamp: dict[str, Any] = {"frame": frame, "read_by": reader, **_state_of(status)}
        earlier = _stamp_of_same(target, reader, frame)
        before = earlier if earlier and asked.is_in(earlier) and read_finished(target, asked.methods) else None
        if before and all(before.get(name) == value for name, value in _state_of(status).items()):
            return _Prepared(
                source, target, stamp, asked, None, Outcome(source, "done before", None, already_done=True)
            )
        require_sensible_bytes(status.st_size)
        data = read_regular(source, MAX_FILE_BYTES)
        require_sensible_bytes(len(data))  # it may have grown
        stamp["blake2b"] = digest(data)
        if before and before["blake2b"] == stamp["blake2b"]:  # copied or touched, not changed
            return _Prepared(
                source, target, stamp, asked, None, Outcome(source, "done before", None, already_done=True)
            )
        asked = asked.and_earlier(earlier)
        stamp |= {"explained": asked.record()} if asked.methods else {}
        stamp["place"] = place_of(source)
        require_same_scan(target, stamp)
        require_free(target, closely=True)
        return _Prepared(source, target, stamp, asked, decode_image(data, frame=frame), Outcome(source, "", None))
    except (InvalidImageError, OutputError) as error:
        return _Prepared(source, target, {}, asked, None, Outcome(source, "", error))
    except OSError as error:
        refusal = InvalidImageError(
            f"The file cannot be opened ({error.strerror}).", remedy="Check what it is, and its permissions."
        )
        return _Prepared(source, target, {}, asked, None, Outcome(source, "", refusal))


def _state_of(status: os.stat_result) -> dict[str, int]:
    """What is another as soon as a file changes, or one of the same size and time is moved over it."""
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _stamp_of_same(target: Path, reader: str, frame: int | None) -> dict[str, Any] | None:
    """The stamp in a finished record of the same model and frame; None when there is none."""
    record = read_finished(target, ())
    stamp = record["input"] if record else None
    if not isinstance(stamp, dict) or "blake2b" not in stamp:
        return None
    return stamp if stamp.get("read_by") == reader and stamp.get("frame") == frame else None


def _write(prepared: _Prepared, analysis: Analysis, explanations: Sequence[Explanation], *, taught: bool) -> str:
    finding, target = read_finding(analysis), prepared.target
    pictures = {} if analysis.withheld else _draw_pictures(analysis, finding, explanations)
    digests = {kind: digest(picture) for kind, picture in pictures.items()}
    stamp = prepared.stamp | ({"pictures": digests} if digests else {})
    record = reading_record(analysis, finding, file=str(prepared.source), taught=taught) | {"input": stamp}
    if explanations:
        record["explanations"] = [_explanation_record(explanation, target) for explanation in explanations]
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_results(target, pictures, digests, text.encode("utf-8", "replace"))
    return _say(analysis, finding, explanations, taught=taught)


def _draw_pictures(analysis: Analysis, finding: Finding, explanations: Sequence[Explanation]) -> dict[str, bytes]:
    """The pictures beside a record, by their kind."""
    diagnosis = analysis.prediction.diagnosis
    heat = analysis.heatmaps[diagnosis.value if diagnosis else LESION]
    pictures = {"mask": mask_png(finding.lesion_mask), "heatmap": _draw(analysis.image, heat)}
    return pictures | {f"heatmap_{one.method}": _draw(analysis.image, one.heatmap) for one in explanations}


def _say(analysis: Analysis, finding: Finding, explanations: Sequence[Explanation], *, taught: bool) -> str:
    known = "; taught the model" if taught else ""
    if analysis.withheld:
        is_blank = ImageWarning.NO_CONTRAST in analysis.warnings
        reason = ImageWarning.NO_CONTRAST if is_blank else ImageWarning.WITHHELD
        return f"answer withheld, {reason.partition(':')[0]}{known}"
    diagnosis, scores = analysis.prediction.diagnosis, analysis.prediction.probabilities
    score = f" {scores[diagnosis]:.2f}" if scores and diagnosis else ""
    without = [WORDS[one.method].title for one in explanations if not one.found]
    silent = f"; no evidence found by {', '.join(without)}" if without else ""
    return f"{diagnosis or 'no class'}{score}, lesion {finding.lesion_pixels} px{silent}{known}"


def _draw(image: DecodedImage, heatmap: Heatmap) -> bytes:
    return encode_png(draw_heatmap(image.rgb, upsample(heatmap.evidence, image.height, image.width)))


def _explanation_record(explanation: Explanation, target: Path) -> dict[str, Any]:
    return {
        "method": explanation.method,
        "of": explanation.heatmap.of,
        "score": explanation.heatmap.score,
        "layer": explanation.layer.name,
        "evidence_found": explanation.found,
        "file": beside(target, f"heatmap_{explanation.method}").name,
    }
