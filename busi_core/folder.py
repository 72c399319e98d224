"""Files and folders of scans in, result files out, one reading at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from busi_core.data.records import is_mask_name, natural_key
from busi_core.errors import BusiError, InvalidImageError, OutputError
from busi_core.files import write_atomically
from busi_core.findings import read_finding
from busi_core.imaging.overlay import draw_heatmap, encode_png, mask_png
from busi_core.imaging.preprocess import upsample
from busi_core.report import reading_json
from busi_core.service import Analyser

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"}


@dataclass(frozen=True)
class Outcome:
    """What became of one input: a line for the person, or the error."""

    path: Path
    summary: str
    error: BusiError | None


def analyse_paths(
    analyser: Analyser, paths: Sequence[Path], out: Path, *, frame: int | None = None
) -> Iterator[Outcome]:
    """Read every scan under the paths and write `<stem>.json`, `<stem>_mask.png`, `<stem>_heatmap.png`.

    The folders below a given folder are mirrored. The files are written mask first, record last, so a record
    always has its pictures.

    Raises:
        OutputError: Two inputs would write the same results, a result would fall on a file that is none, or a path
            does not exist; nothing was read.
    """
    for source, target in _plan(paths, out):
        try:
            summary = _read_one(analyser, source, target, frame)
            yield Outcome(source, summary, None)
        except (BusiError, OSError) as error:
            if isinstance(error, OSError):
                error = InvalidImageError(
                    f"The file cannot be opened ({error.strerror}).", remedy="Check its permissions."
                )
            yield Outcome(source, "", error)


def _plan(paths: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Pairs of input file and output stem."""
    targets: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            files = sorted(filter(_is_scan, path.rglob("*")), key=lambda file: natural_key(str(file)))
            found = [(file, out / file.relative_to(path).with_suffix("")) for file in files]
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
    return [(source, target) for target, source in targets.items()]


def _is_scan(file: Path) -> bool:
    """Whether a file of a folder is to be read: an image, but no mask and no picture of an earlier reading."""
    if file.suffix.lower() not in SUFFIXES or is_mask_name(file.stem):
        return False
    scan = file.stem.removesuffix("_heatmap")
    return scan == file.stem or not file.with_name(f"{scan}.json").exists()


def _require_free(source: Path, target: Path) -> None:
    """Refuse to write over a reference mask or another scan: what lies beside a scan without a record is not ours."""
    if source.parent.resolve() != target.parent.resolve() or target.with_name(f"{target.name}.json").exists():
        return
    for picture in (target.with_name(f"{target.name}_mask.png"), target.with_name(f"{target.name}_heatmap.png")):
        if picture.exists():
            raise OutputError(
                f"{picture} is there already and is no result of this program.", remedy="Choose another folder."
            )


def _read_one(analyser: Analyser, source: Path, target: Path, frame: int | None) -> str:
    analysis = analyser.analyse(source.read_bytes(), frame=frame)
    finding = read_finding(analysis)
    image, diagnosis = analysis.image, analysis.prediction.diagnosis
    heat = analysis.heatmaps[diagnosis.value if diagnosis else "lesion mask"]
    picture = draw_heatmap(image.rgb, upsample(heat.evidence, image.height, image.width))
    write_atomically(target.with_name(f"{target.name}_mask.png"), mask_png(finding.lesion_mask))
    write_atomically(target.with_name(f"{target.name}_heatmap.png"), encode_png(picture))
    write_atomically(target.with_name(f"{target.name}.json"), reading_json(analysis, finding, file=str(source)))
    score = (
        f" {analysis.prediction.probabilities[diagnosis]:.2f}"
        if analysis.prediction.probabilities and diagnosis
        else ""
    )
    return f"{diagnosis or 'no class'}{score}, lesion {finding.lesion_pixels} px"
