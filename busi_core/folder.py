"""Files and folders of scans in, result files out: a stream that resumes after a kill and writes each result once.

    paths -plan-> (input, target) -a few at a time: decode, network, draw, write-> mask, heat map, record

One run at a time writes into a folder. While a scan's results are written a small file claims their names; the record
comes last and says which input and which model it is of. So a record without a claim always has its pictures, and a run
that was killed goes on where it was: what is done is not read again, what changed since is. Of an answer withheld there
is the record alone: an empty mask would be taken for 'no lesion'. Nothing that is not ours is written over, wherever it
lies: claim and record keep the digests of our pictures, and one that somebody corrected by hand is theirs.
"""

import hashlib
import json
import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from busi_core.batch import map_in_order
from busi_core.data.pairing import SUFFIXES, is_nameless_dicom, record_id_of, stem_of
from busi_core.data.records import is_mask_name, natural_key
from busi_core.data.sources import read_start, walk_folder
from busi_core.errors import BusiError, DatasetError, ExplanationError, InvalidImageError, OutputError
from busi_core.explain.catalogue import DEEPEST, WORDS, Method
from busi_core.explain.gradcam import LESION
from busi_core.explain.methods import Explanation
from busi_core.files import write_atomically
from busi_core.findings import Finding, read_finding
from busi_core.imaging.decode import decode_image
from busi_core.imaging.limits import MAX_FILE_BYTES, require_sensible_bytes
from busi_core.imaging.overlay import draw_heatmap, encode_png, mask_png
from busi_core.imaging.preprocess import upsample
from busi_core.locks import hold_folder
from busi_core.regular import read_regular
from busi_core.report import read_by, reading_record
from busi_core.service import Analyser
from busi_core.types import Analysis, DecodedImage, Heatmap, ImageWarning

_KINDS = ("mask", "heatmap", *(f"heatmap_{method}" for method in Method))  # of the pictures beside a record
_RECORD_BEGINS = '{\n "file": '  # as `reading_record` does
_CLAIM_BEGINS = "busi "
_MAX_NAME_BYTES = 255  # of one name, on the disks that Linux and macOS use
_MAX_RECORD_BYTES = 5_000_000  # one of ours has a few thousand
_HEATMAP_NAME = re.compile(f"_heatmap(_({'|'.join(Method)}))?$")


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


NOTHING_ASKED = Asked()


@dataclass(frozen=True)
class Plan:
    """What will be read and where it goes.

    Attributes:
        targets: Pairs of input file and output stem, no two of them the same.
        out: The folder that all results lie below.
    """

    targets: tuple[tuple[Path, Path], ...]
    out: Path


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
            does not exist or cannot be looked at.
        DatasetError: A folder holds no scan.
    """
    targets: dict[Path, Path] = {}
    for path in paths:
        try:
            found = _find_scans(path, out)
        except OSError as error:  # a name too long, a folder that may not be searched
            raise OutputError(
                f"{error.filename or path} cannot be looked at ({error.strerror}).",
                remedy="Check the path and its permissions.",
            ) from error
        for source, target in found:
            if target in targets and targets[target] != source:
                raise OutputError(
                    f"{targets[target]} and {source} would both write {target}.json.",
                    remedy="Rename one of them, or give their folder instead of the files.",
                )
            _require_free(target)
            targets[target] = source
    return Plan(tuple((source, target) for target, source in targets.items()), out)


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
            methods = () if analysis.withheld else asked.methods
            made = [analyser.explain(analysis, method, of=str(of), layer=asked.layer) for method in methods]
            known = record_id_of(prepared.source.name)
            taught = analyser.taught.recognise(known, prepared.image.grey) is not None
            return Outcome(prepared.source, _write(prepared, analysis, made, taught=taught), None)
        except (ExplanationError, OutputError) as error:
            return Outcome(prepared.source, "", error)

    return _holding(plan, _sharing_cores(map_in_order(read, plan.targets, jobs=jobs), analyser, jobs))


def _holding(plan: Plan, outcomes: Generator[Outcome, None, None]) -> Generator[Outcome, None, None]:
    """While these come, no other run writes into the folder: record and pictures would be of two readings."""
    with hold_folder(plan.out, {target.parent for _, target in plan.targets}), closing(outcomes):
        yield from outcomes


def _sharing_cores(
    outcomes: Generator[Outcome, None, None], analyser: Analyser, jobs: int
) -> Generator[Outcome, None, None]:
    """While these come, each scan gets its share of the cores: side by side they are read faster than one after the
    other on all of them, by a fifth on two cores (docs/benchmarks.md)."""
    before = torch.get_num_threads()
    if analyser.device.type == "cpu":
        torch.set_num_threads(max(1, before // max(1, jobs)))
    try:
        yield from outcomes
    finally:
        torch.set_num_threads(before)


def _find_scans(path: Path, out: Path) -> list[tuple[Path, Path]]:
    """Scans of one path with their output stems; raises OSError where the system refuses to look."""
    if not path.is_dir():
        if not path.exists():
            raise OutputError(f"{path} does not exist.", remedy="Check the path.")
        return [(path, out / stem_of(path))]
    found = [(file, out / file.relative_to(path).with_name(stem_of(file))) for file in _list_scans(path)]
    if not found:
        raise DatasetError(
            f"There is no scan in {path}.",
            remedy=f"Give a folder of DICOM or {', '.join(SUFFIXES)} files; masks (*_mask*) are no scans.",
        )
    return found


def _list_scans(folder: Path) -> list[Path]:
    """Scans below a folder in natural order: nothing hidden, no masks, no pictures of an earlier reading.

    Raises:
        DatasetError: Some of it cannot be read, so that scans could be missing.
    """
    walk = walk_folder(folder)
    if walk.unread:
        raise DatasetError(
            f"The folder {walk.unread[0]} cannot be read as a whole.",
            remedy="Check its permissions, or name the other folders one by one.",
        )
    files = (*walk.files, *(link for link in walk.leading_out if link.is_file()))
    return sorted(filter(_is_scan, files), key=lambda file: natural_key(str(file)))


def _is_scan(file: Path) -> bool:
    if file.suffix.lower() not in SUFFIXES:
        return is_nameless_dicom(file.name, partial(read_start, file))
    if is_mask_name(file.stem):
        return False
    if file.parent.name == "Masks" and file.stem.startswith("mask_"):
        return False
    scan = file.with_name(_HEATMAP_NAME.sub("", file.stem))
    if scan.name == file.stem:
        return True
    lost_its_record = not _exists(_record_of(scan)) and _exists(_beside(scan, "mask"))
    return not lost_its_record and _known_pictures(scan) == {}


def _require_free(target: Path, *, closely: bool = False) -> None:
    """Refuse to write over a reference mask, a picture corrected by hand, notes of another program or another scan.

    Args:
        target: The stem.
        closely: Compare the pictures with what we wrote, as is done for each scan before it is read and written; else
            those beside a record of ours are taken for ours.
    """
    if _exists(_record_of(target)) and _our_record(target) is None:
        raise _taken(_record_of(target))
    if _exists(_claim_of(target)) and _read_claim(target) is None and _read_text(_claim_of(target)) != "":
        raise _taken(_claim_of(target))
    known = _known_pictures(target)
    if known is None or (known and not closely):
        return
    for kind in _KINDS:
        file = _beside(target, kind)
        if not _exists(file):
            continue
        if kind not in known:
            raise _taken(file)
        if _digest_of(file) not in known[kind]:
            raise OutputError(
                f"{file} was changed since it was written.", remedy="Move it away, or choose another folder."
            )


def _require_short_names(target: Path, asked: Asked) -> None:
    """Refuse a stem whose results could not all be written, before one of them is."""
    kinds = ("mask", "heatmap", *(f"heatmap_{method}" for method in asked.methods))
    files = (_record_of(target), _claim_of(target), *(_beside(target, kind) for kind in kinds))
    longest = max(len(os.fsencode(file.name)) for file in files)
    if longest > _MAX_NAME_BYTES:
        raise OutputError(
            f"The name of a result would have {longest} bytes; the system takes {_MAX_NAME_BYTES}.",
            remedy=f"Shorten the file's name by {longest - _MAX_NAME_BYTES} bytes.",
        )


def _require_same_scan(target: Path, stamp: Mapping[str, Any]) -> None:
    """Refuse to replace the results of a scan that lies elsewhere and is another; a copy of it, or it anew, may."""
    record = _our_record(target) or {}
    before, file = _stamp_of(record), record.get("file")
    if not isinstance(file, str) or before.get("blake2b") in (None, stamp["blake2b"]):
        return
    try:
        place = before["place"] if "place" in before else _place_of(Path(file))
    except ValueError:  # no name of a file
        return
    if place != stamp["place"]:
        raise OutputError(
            f"{_record_of(target)} is of another scan, {file}.",
            remedy="Choose another folder, or move the results of that scan away.",
        )


def _place_of(file: Path) -> str:
    """A digest of where a file lies, from whatever folder it is named; a link lies where it is, not where it leads."""
    return _digest(os.fsencode(Path(os.path.realpath(file.parent)) / file.name))


def _taken(file: Path) -> OutputError:
    return OutputError(
        f"{file} is there already and is no result of this program.", remedy="Move it away, or choose another folder."
    )


def _known_pictures(target: Path) -> dict[str, set[str]] | None:
    """The digests that pictures of ours may have under this stem, by their kind; None where each of them is ours.

    From the claim of a reading that was killed while it was written, else from the record. Beside the record of an
    answer withheld there are none of ours. An older record does not know its pictures: they are taken for ours.
    """
    claimed = _read_claim(target)
    if claimed is not None:
        return claimed
    record = _our_record(target)
    if record is None or _is_withheld(record):
        return {}
    pictures = _stamp_of(record).get("pictures")
    return {kind: {str(digest)} for kind, digest in pictures.items()} if isinstance(pictures, dict) else None


def _our_record(target: Path) -> dict[str, Any] | None:
    """The record of a reading; empty where it was cut short on its way, None where there is none of ours."""
    text = _read_text(_record_of(target))
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return {} if text.startswith(_RECORD_BEGINS) else None
    except RecursionError:  # brackets in brackets without end
        return None
    return content if isinstance(content, dict) and {"input", "lesion_pixels"} <= set(content) else None


def _stamp_of(record: Mapping[str, Any]) -> dict[str, Any]:
    stamp = record.get("input")
    return stamp if isinstance(stamp, dict) else {}


def _is_withheld(record: Mapping[str, Any]) -> bool:
    return "lesion_pixels" in record and record["lesion_pixels"] is None


def _read_text(path: Path) -> str | None:
    """None of a file that cannot be opened, is too long, or is no text."""
    try:
        data = read_regular(path, _MAX_RECORD_BYTES)
        return data.decode() if len(data) <= _MAX_RECORD_BYTES else None
    except (OSError, ValueError):
        return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _digest_of(file: Path) -> str | None:
    """None of a file that cannot be read, which is none of ours then."""
    try:
        return _digest(read_regular(file, MAX_FILE_BYTES))
    except OSError:
        return None


def _exists(path: Path) -> bool:
    """Also for a link that leads nowhere. False for a name too long for the disk: that scan alone is refused."""
    return os.path.lexists(path)


def _record_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f"{target.name}_{kind}.png")


def _claim_of(target: Path) -> Path:
    """Says that what lies under this stem is being written by us."""
    return target.with_name(f".{target.name}.reading")


def _read_claim(target: Path) -> dict[str, set[str]] | None:
    """The digests that a claim of ours names, by the kind of picture; None where there is no claim of ours."""
    first, _, rest = (_read_text(_claim_of(target)) or "").partition("\n")
    if not first.startswith(_CLAIM_BEGINS):
        return None
    known: dict[str, set[str]] = {}
    for line in rest.splitlines():
        kind, _, digest = line.partition(" ")
        known.setdefault(kind, set()).add(digest)
    return known


def _write_claim(target: Path, digests: Mapping[str, str]) -> None:
    """Of the pictures of an earlier reading, which are about to go, and of those to come."""
    known = _known_pictures(target)
    if known is None:
        known = {kind: {_digest_of(_beside(target, kind)) or ""} for kind in _KINDS if _exists(_beside(target, kind))}
    lines = {f"{kind} {digest}" for kind, earlier in known.items() for digest in earlier}
    lines |= {f"{kind} {digest}" for kind, digest in digests.items()}
    text = "\n".join([f"{_CLAIM_BEGINS}{os.getpid()}", *sorted(lines)]) + "\n"
    write_atomically(_claim_of(target), text.encode())


def _prepare(source: Path, target: Path, frame: int | None, reader: str, asked: Asked) -> _Prepared:
    try:
        _require_short_names(target, asked)
        status = source.stat()
        stamp: dict[str, Any] = {"frame": frame, "read_by": reader, **_state_of(status)}
        stamp |= {"explained": asked.record()} if asked.methods else {}
        before = _read_record(target, reader, frame, asked)
        if before and all(before.get(name) == value for name, value in _state_of(status).items()):
            return _Prepared(source, target, stamp, None, Outcome(source, "done before", None, already_done=True))
        require_sensible_bytes(status.st_size)
        data = read_regular(source, MAX_FILE_BYTES)
        require_sensible_bytes(len(data))  # it may have grown
        stamp["blake2b"] = _digest(data)
        if before and before["blake2b"] == stamp["blake2b"]:  # copied or touched, not changed
            return _Prepared(source, target, stamp, None, Outcome(source, "done before", None, already_done=True))
        stamp["place"] = _place_of(source)
        _require_same_scan(target, stamp)
        _require_free(target, closely=True)
        return _Prepared(source, target, stamp, decode_image(data, frame=frame), Outcome(source, "", None))
    except (InvalidImageError, OutputError) as error:
        return _Prepared(source, target, {}, None, Outcome(source, "", error))
    except OSError as error:
        refusal = InvalidImageError(
            f"The file cannot be opened ({error.strerror}).", remedy="Check what it is, and its permissions."
        )
        return _Prepared(source, target, {}, None, Outcome(source, "", refusal))


def _state_of(status: os.stat_result) -> dict[str, int]:
    """What is another as soon as a file changes, or one of the same size and time is moved over it."""
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _read_record(target: Path, reader: str, frame: int | None, asked: Asked) -> dict[str, Any] | None:
    """The stamp in a finished record of the same model, frame and explanations; None when there is none."""
    record = _our_record(target)
    if record is None or _exists(_claim_of(target)):
        return None
    try:
        stamp: dict[str, Any] = record["input"]
        same = stamp["read_by"] == reader and stamp["frame"] == frame
        same = same and (not asked.methods or stamp.get("explained") == asked.record())
        withheld = record["withheld"]
        kinds = () if withheld else ("mask", "heatmap", *(f"heatmap_{method}" for method in asked.methods))
        pictures = all(_beside(target, kind).is_file() for kind in kinds)
        return stamp if same and pictures and "blake2b" in stamp else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(prepared: _Prepared, analysis: Analysis, explanations: Sequence[Explanation], *, taught: bool) -> str:
    finding, target = read_finding(analysis), prepared.target
    pictures = {} if analysis.withheld else _draw_pictures(analysis, finding, explanations)
    digests = {kind: _digest(picture) for kind, picture in pictures.items()}
    stamp = prepared.stamp | ({"pictures": digests} if digests else {})
    record = reading_record(analysis, finding, file=str(prepared.source), taught=taught) | {"input": stamp}
    if explanations:
        record["explanations"] = [_explanation_record(explanation, target) for explanation in explanations]
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    _require_free(target, closely=True)  # again: somebody may have put a file there since
    _write_claim(target, digests)
    _replace(target, pictures, text.encode("utf-8", "replace"))
    _claim_of(target).unlink(missing_ok=True)
    return _say(analysis, finding, explanations, taught=taught)


def _replace(target: Path, pictures: Mapping[str, bytes], record: bytes) -> None:
    """Under a claim: what an earlier reading left goes, its record first, and the new record comes last.

    Raises:
        OutputError: Something could not be written or removed; no picture of this reading stays, and no record.
    """
    written: list[Path] = []
    _remove_earlier(target)
    try:
        for kind, picture in pictures.items():
            _write_new(_beside(target, kind), picture)
            written.append(_beside(target, kind))
        _write_new(_record_of(target), record)
    except OutputError:
        with suppress(OSError):
            for path in (*written, _claim_of(target)):  # the claim stays where one of ours does
                path.unlink(missing_ok=True)
        raise


def _write_new(path: Path, content: bytes) -> None:
    if _exists(path):
        raise _taken(path)
    write_atomically(path, content)


def _draw_pictures(analysis: Analysis, finding: Finding, explanations: Sequence[Explanation]) -> dict[str, bytes]:
    """The pictures beside a record, by their kind."""
    diagnosis = analysis.prediction.diagnosis
    heat = analysis.heatmaps[diagnosis.value if diagnosis else LESION]
    pictures = {"mask": mask_png(finding.lesion_mask), "heatmap": _draw(analysis.image, heat)}
    return pictures | {f"heatmap_{one.method}": _draw(analysis.image, one.heatmap) for one in explanations}


def _remove_earlier(target: Path) -> None:
    """Record and pictures of an earlier reading: what is not written anew must not stand beside another record."""
    try:
        for path in (_record_of(target), *(_beside(target, kind) for kind in _KINDS)):
            if _exists(path):  # the names of some kinds may be too long to be asked for
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"The results of an earlier reading of {target.name!r} could not be removed ({error.strerror}).",
            remedy="Remove them, or choose another folder.",
        ) from error


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
        "file": _beside(target, f"heatmap_{explanation.method}").name,
    }
