"""`busi analyse --explain`: the heat maps asked for lie beside the others, in the record, and are made once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_core.cli import main
from busi_core.explain.catalogue import Method
from busi_core.explain.gradcam import LESION
from busi_core.imaging.overlay import draw_heatmap
from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import upsample
from busi_core.service import Analyser
from busi_core.types import Analysis, DecodedImage, Diagnosis, ImageWarning

pytestmark = pytest.mark.usefixtures("weights_dir")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "in/left breast.png"
    path.parent.mkdir()
    path.write_bytes(simulate_scan(Diagnosis.BENIGN, seed=3, height=96, width=120).png())
    return path


def test_each_method_writes_its_heat_map_of_the_likeliest_class(scan: Path, tmp_path: Path, analyser: Analyser) -> None:
    out = tmp_path / "out"
    assert main(["analyse", str(scan), "--out", str(out), "--explain", "hirescam", "layercam"]) == 0
    record = json.loads((out / "left breast.json").read_text())
    analysis = analyser.analyse(scan.read_bytes())
    assert [(one["method"], one["file"]) for one in record["explanations"]] == [
        ("hirescam", "left breast_heatmap_hirescam.png"),
        ("layercam", "left breast_heatmap_layercam.png"),
    ]
    for one in record["explanations"]:
        explanation = analyser.explain(analysis, Method(one["method"]), of=record["class"])
        assert one["of"] == record["class"]
        assert one["score"] == pytest.approx(record["probabilities"][record["class"]])
        assert one["evidence_found"] == explanation.found
        picture = draw_heatmap(analysis.image.rgb, upsample(explanation.heatmap.evidence, 96, 120))
        np.testing.assert_array_equal(np.array(Image.open(out / one["file"])), picture)


def test_an_answer_withheld_is_written_without_explanations_and_done_once(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = Analyser.analyse_for_batch

    def withhold(self: Analyser, image: DecodedImage) -> Analysis:
        analysis = read(self, image)
        nothing = replace(analysis.prediction, probabilities=None)
        heat = {LESION: next(iter(analysis.heatmaps.values()))}
        warnings = (*analysis.warnings, ImageWarning.WITHHELD)
        return replace(analysis, withheld=True, prediction=nothing, heatmaps=heat, warnings=warnings)

    monkeypatch.setattr(Analyser, "analyse_for_batch", withhold)
    out = tmp_path / "out"
    arguments = ["analyse", str(scan), "--out", str(out), "--explain", "hirescam"]
    assert main(arguments) == 0
    assert "answer withheld" in capsys.readouterr().out
    assert "explanations" not in json.loads((out / "left breast.json").read_text())
    assert main(arguments) == 0
    assert "1 files were done before" in capsys.readouterr().err


def test_the_mask_is_explained_at_a_layer_chosen_by_name(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["--explain", "eigencam", "--of", LESION, "--layer", "decoder"]
    assert main(["analyse", str(scan), "--out", str(out), *asked]) == 0
    (one,) = json.loads((out / "left breast.json").read_text())["explanations"]
    assert (one["of"], one["layer"]) == (LESION, "decoder")


def test_what_is_done_is_left_alone_and_what_is_asked_anew_is_made(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["analyse", str(scan), "--out", str(tmp_path / "out")]
    main([*arguments, "--explain", "hirescam"])
    capsys.readouterr()
    main([*arguments, "--explain", "hirescam"])
    assert "done before" in capsys.readouterr().err
    main(arguments)  # no explanation asked: the reading is there
    assert "done before" in capsys.readouterr().err
    main([*arguments, "--explain", "layercam"])
    assert "done before" not in capsys.readouterr().err
    assert (tmp_path / "out/left breast_heatmap_layercam.png").is_file()
    assert (tmp_path / "out/left breast_heatmap_hirescam.png").is_file()  # what was asked before stays
    record = json.loads((tmp_path / "out/left breast.json").read_text("utf-8"))
    assert {one["method"] for one in record["explanations"]} == {"hirescam", "layercam"}
    for methods in (["hirescam"], ["layercam"], ["hirescam", "layercam"]):
        main([*arguments, "--explain", *methods])
        assert "done before" in capsys.readouterr().err
    main([*arguments, "--explain", "hirescam", "--of", "lesion mask"])  # of something else: in their place
    assert "done before" not in capsys.readouterr().err
    assert not (tmp_path / "out/left breast_heatmap_layercam.png").exists()


def test_pictures_among_the_scans_are_not_read_as_scans(scan: Path) -> None:
    folder = scan.parent
    arguments = ["analyse", str(folder), "--out", str(folder), "--explain", "grad-cam-plus-plus"]
    assert main(arguments) == 0
    assert main(arguments) == 0
    names = {path.name for path in folder.iterdir()}
    assert {name for name in names if name.endswith(".json")} == {"left breast.json"}
    assert "left breast_heatmap_grad-cam-plus-plus.png" in names


def test_a_picture_that_is_not_ours_is_not_written_over(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = scan.with_name("left breast_heatmap_hirescam.png")
    other.write_bytes(b"somebody's work")
    assert main(["analyse", str(scan), "--out", str(scan.parent), "--explain", "hirescam"]) == 1
    assert other.read_bytes() == b"somebody's work"
    assert "no result of this program" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [(["--layer", "layer4"], "encoder-4"), (["--of", "tumour"], "malignant"), (["--layer", "decoder"], "lesion mask")],
)
def test_what_cannot_be_explained_is_said_with_what_can(
    scan: Path, tmp_path: Path, asked: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", str(scan), "--out", str(tmp_path / "out"), "--explain", "hirescam", *asked]) == 1
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.json"))


def test_an_unknown_method_is_wrong_usage(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["analyse", str(scan), "--out", str(tmp_path / "out"), "--explain", "smoothgrad"])
    assert ended.value.code == 2
