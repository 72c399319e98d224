"""One road for every recipe: `train_version` makes an ordinary version, whatever the network can and cannot say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from busi_core import release as release_module
from busi_core.data.records import read_truth
from busi_core.data.simulated_set import split_simulated
from busi_core.errors import DatasetError, ExplanationError, TrainingError
from busi_core.explain.catalogue import Method
from busi_core.explain.gradcam import LESION
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import upsample
from busi_core.jobs.plan import plan_config
from busi_core.jobs.spec import JobSpec
from busi_core.limits import LIMITS_FILE
from busi_core.models.checkpoint import ModelCard
from busi_core.recipe_run import scaled_for
from busi_core.recipes.catalogue import RECIPES
from busi_core.recipes.product import SIMULATED
from busi_core.recipes.recipe import Recipe
from busi_core.registry import list_versions
from busi_core.release import fit_limits
from busi_core.service import Analyser
from busi_core.settings import Settings
from busi_core.training.log import Epoch
from busi_core.training.state import BEST_FILE, DATA_FILE, Progress
from busi_core.training_run import STARTS, Listener, train_version
from busi_core.types import Diagnosis

CPU = torch.device("cpu")
SMALL = {  # the same drawings with few channels
    "unet-gradcam": {"filters": (4, 8, 8)},
    "unet-dropout": {"filters": (4, 8, 8), "dropout": (0.1, 0.2, 0.0)},
    "unet-roi-segnet": {"filters": (4, 8, 8), "class_filters": (4, 8)},
    "unet-resnet50-plain": {"encoder": "resnet18"},
    "product": {"encoder": "tu-test_resnet", "padding": "symmetric"},
}
OTHER_NETWORKS = ("unet-gradcam", "unet-dropout", "unet-roi-segnet")


def small(name: str) -> Recipe:
    recipe = RECIPES[name]
    return scaled_for(
        recipe,
        {
            "architecture": replace(recipe.final.architecture, **SMALL[name]),
            "preprocess": replace(recipe.final.preprocess, side=64),
            **{"epochs": 1, "batch_size": 2, "start": "random", "precision": "fp32"},
        },
    )


def settings_in(root: Path) -> Settings:
    folders = {name: root / name for name in ("weights_dir", "data_root", "encoder_dir", "state_dir")}
    return Settings(**folders, device="cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every recipe has made its version of simulated scans, and told how many it was shown."""
    root = tmp_path_factory.mktemp("road")
    for name in SMALL:
        made = train(name, root)
        assert made, "one process makes the version"
    return root


def read_folder(folder: Path) -> dict[Path, bytes]:
    """What lies in a folder, below it too."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def train_fold(root: Path, test_fold: int, *, resume: bool = False, listener: Listener | None = None) -> ModelCard:
    """Two epochs of the product's small recipe, as the version 'fold'."""
    made = train_version(
        "fold",
        scaled_for(small("product"), {"epochs": 2}),
        data_sets=(SIMULATED,),
        test_fold=test_fold,
        run=root / "runs" / "fold",
        settings=settings_in(root),
        resume=resume,
        listener=listener,
    )
    assert made is not None
    return made[0]


def be_killed(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """Where a run that keeps fold 2 for its test was killed after its first epoch."""
    with pytest.raises(KeyboardInterrupt):
        train_fold(tmp_path, 2, listener=Listener(on_epoch=be_killed))
    return tmp_path


def train(name: str, root: Path, *, resume: bool = False) -> list[tuple[int, int]]:
    stages: list[tuple[int, int]] = []
    train_version(
        name,
        small(name),
        data_sets=(SIMULATED,),
        test_fold=0,
        run=root / "runs" / name,
        settings=settings_in(root),
        resume=resume,
        listener=Listener(on_samples=lambda train, validation: stages.append((len(train), len(validation)))),
    )
    return stages


def load(root: Path, name: str) -> Analyser:
    return Analyser.load(root / "weights_dir" / name, CPU)


@pytest.mark.parametrize("start", STARTS)
def test_no_version_has_a_name_that_means_another_start(start: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"'{start}' already stands for something else"):
        train_version(
            start,
            small("product"),
            data_sets=(SIMULATED,),
            test_fold=0,
            run=tmp_path / "run",
            settings=settings_in(tmp_path),
            resume=False,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", SMALL)
def test_every_recipe_makes_a_version_that_reads_scans(name: str, root: Path) -> None:
    analyser = load(root, name)
    analysis = analyser.analyse(simulate_scan(Diagnosis.MALIGNANT, seed=99).png(), insist=True)
    classes = RECIPES[name].final.architecture.image_classes
    assert analyser.card.training["recipe"] == name
    assert set(analysis.heatmaps) == {*classes, LESION}
    assert (analysis.prediction.probabilities is not None) == bool(classes)


def test_a_recipe_of_two_stages_is_shown_each_lesion_once(root: Path) -> None:
    """Normals teach neither stage; 12 lesions to learn from and 6 to choose by are dealt out."""
    told = train("unet-roi-segnet", root, resume=True)
    assert len(told) == 2
    assert [sum(counts) for counts in zip(*told, strict=True)] == [12, 6]


def test_a_run_that_has_ended_ends_with_the_same_weights_when_resumed(root: Path) -> None:
    best = root / "runs" / "unet-gradcam" / BEST_FILE
    before = best.read_bytes()
    train("unet-gradcam", root, resume=True)
    assert best.read_bytes() == before


def test_a_run_is_not_resumed_with_another_fold_kept_for_the_test(stopped: Path) -> None:
    """Scans of that fold taught it already: its test would be no test."""
    before = read_folder(stopped / "runs")
    with pytest.raises(TrainingError, match="started with other data: test fold, scans to learn from, scans to choose"):
        train_fold(stopped, 0, resume=True)
    assert read_folder(stopped / "runs") == before
    assert train_fold(stopped, 2, resume=True).training["test_fold"] == 2


def test_a_run_from_before_its_data_was_written_down_is_resumed(stopped: Path) -> None:
    (stopped / "runs/fold" / DATA_FILE).unlink()
    assert train_fold(stopped, 2, resume=True).training["test_fold"] == 2


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff"])
def test_a_run_whose_data_cannot_be_read_is_not_resumed(stopped: Path, content: bytes) -> None:
    (stopped / "runs/fold" / DATA_FILE).write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read any more"):
        train_fold(stopped, 2, resume=True)


def test_a_run_that_was_killed_before_its_first_epoch_begins_anew_with_whatever_data(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_fold(tmp_path, 2, listener=Listener(on_samples=be_killed))
    with pytest.raises(KeyboardInterrupt):
        train_fold(tmp_path, 0, listener=Listener(on_epoch=be_killed))
    assert train_fold(tmp_path, 0, resume=True).training["test_fold"] == 0


@pytest.mark.parametrize("name", ["product", "unet-resnet50-plain"])
def test_a_network_with_an_encoder_knows_its_limits_and_is_explained_in_other_ways(name: str, root: Path) -> None:
    analyser = load(root, name)
    analysis = analyser.analyse(simulate_scan(Diagnosis.BENIGN, seed=98).png(), insist=True)
    assert analyser.limits is not None
    assert analyser.layers()
    assert analyser.explain(analysis, Method.HIRES_CAM, of=LESION).heatmap.evidence.max() <= 1


@pytest.mark.parametrize("name", OTHER_NETWORKS)
def test_a_network_without_an_encoder_says_that_it_knows_no_limits_and_no_other_explanation(
    name: str, root: Path
) -> None:
    analyser = load(root, name)
    analysis = analyser.analyse(simulate_scan(Diagnosis.BENIGN, seed=98).png())
    split = split_simulated(settings_in(root).state_dir / SIMULATED, test_fold=0)
    assert analyser.limits is None
    assert analysis.likeness is None
    assert analyser.layers() == ()
    with pytest.raises(ExplanationError, match="own Grad-CAM"):
        analyser.explain(analysis, Method.HIRES_CAM, of=LESION)
    with pytest.raises(DatasetError, match="cannot know its limits"):
        fit_limits(analyser, split.train, split.validation)


def test_limits_of_weights_that_lay_there_before_do_not_stay(root: Path) -> None:
    left = root / "weights_dir" / "unet-dropout" / LIMITS_FILE
    left.write_bytes(b"of other weights")
    train("unet-dropout", root, resume=True)
    assert not left.exists()
    assert load(root, "unet-dropout").limits is None


@pytest.mark.parametrize("step", ["fit_limits", "write_limits"])
def test_a_version_is_listed_only_once_its_limits_lie_beside_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A kill or a cancelled job while the limits are made leaves no version that reads scans without them."""

    monkeypatch.setattr(release_module, step, be_killed)
    recipe = small("product")
    split = split_simulated(settings_in(root).state_dir / SIMULATED, test_fold=0)
    with pytest.raises(KeyboardInterrupt):
        release_module.release(
            root / "runs" / "product",
            recipe.final,
            split,
            Progress(epoch=1, best_epoch=1, best_score=0.5),
            version="killed",
            weights_dir=tmp_path,
            description={},
            start=release_module.Start(None, "random", ()),
        )
    assert list_versions(tmp_path) == ()


def test_the_cut_off_is_the_best_for_the_lesion_probability_that_the_reader_is_shown(root: Path) -> None:
    """With the temperature and the chance of a lesion of the finished version."""
    analyser = load(root, "product")
    assert analyser.card.weighs_presence
    assert not load(root, "unet-gradcam").card.weighs_presence
    overlaps, normal = [], []
    for record in split_simulated(settings_in(root).state_dir / SIMULATED, test_fold=0).validation:
        image = decode_image(record.image.read_bytes())
        truth = read_truth(record, image.height, image.width)
        shown = upsample(analyser.analyse_image(image).prediction.lesion_probability, image.height, image.width)
        normal.append(not truth.any())
        overlaps.append([])
        for cutoff in release_module.CUTOFFS:
            mask = shown >= cutoff
            overlaps[-1].append(f1_score(truth.ravel(), mask.ravel()) if truth.any() else float(not mask.any()))
    dice = dict(zip(release_module.CUTOFFS, np.array(overlaps)[~np.array(normal)].mean(axis=0), strict=True))
    chosen = analyser.card.lesion_threshold
    assert max(dice.values()) - dice[chosen] <= 0.005
    assert all(max(dice.values()) - dice[cutoff] > 0.005 for cutoff in dice if cutoff > chosen)


def test_too_few_scans_give_no_limits(root: Path) -> None:
    split = split_simulated(settings_in(root).state_dir / SIMULATED, test_fold=0)
    with pytest.raises(DatasetError, match="1 scans of training and 9 of validation"):
        fit_limits(load(root, "product"), split.train[:1], split.validation)


def test_a_retraining_cannot_go_on_from_a_network_that_its_recipe_does_not_train(root: Path) -> None:
    spec = JobSpec("next", "product", (SIMULATED,), 0, "unet-gradcam", 1, 64, 1e-4, batch_size=2, seed=0)
    with pytest.raises(TrainingError, match="not one that the recipe 'product' trains"):
        plan_config(spec, settings_in(root))
    assert plan_config(replace(spec, start="product"), settings_in(root)).start == "product"


def test_the_line_of_an_epoch_leaves_out_what_cannot_be() -> None:
    without = Epoch(1, 0.7, 0.15, float("nan"), float("nan"), 0.1, 2.0, 120.0)
    assert without.describe(3) == "epoch 1/3  loss 0.700  validation Dice 0.150  2 min left"
    whole = replace(without, normals_with_mask=0.25, macro_f1=0.5).describe(3)
    assert "normals with a mask 25%  macro-F1 0.500" in whole
