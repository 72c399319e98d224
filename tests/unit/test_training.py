"""Training learns, survives a kill at any point with the same weights, and stops in words when it cannot go on."""

import json
import math
import pickle
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine, gaussian_blur
from versions import SIDE_64, TINY, make_network

from busi_core.cli import make_parser
from busi_core.cli.training import recipe_of
from busi_core.data.dataset import Samples, none_like
from busi_core.errors import OutputError, TrainingError
from busi_core.files import write_atomically
from busi_core.imaging.phantom import simulate_scan
from busi_core.imaging.preprocess import fit_mask, fit_to_square
from busi_core.metrics.classification import macro_f1
from busi_core.models.checkpoint import read_card
from busi_core.models.network import LesionNet, Outputs
from busi_core.registry import read_registry
from busi_core.settings import PROJECT_ROOT
from busi_core.training import augment as augmentation
from busi_core.training import loop, step
from busi_core.training.augment import Chance, augment
from busi_core.training.config import TrainingConfig
from busi_core.training.log import LOG_FILE
from busi_core.training.loop import fit, one_cycle, validate
from busi_core.training.losses import LABEL_SMOOTHING, balanced_weights, class_loss, mask_loss
from busi_core.training.state import BEST_FILE, CHECKPOINT_FILE, Progress, digest_ids
from busi_core.training.step import TrainStep, computes_in_bf16
from busi_core.types import Diagnosis

CPU = torch.device("cpu")
SPEC = replace(SIDE_64, side=32)
CONFIG = TrainingConfig(
    architecture=TINY,
    preprocess=SPEC,
    start="random",
    epochs=3,
    batch_size=8,
    learning_rate=2e-3,
    encoder_rate=0.3,
    weight_decay=0.01,
    normal_repeats=1,
    class_weight=0.5,
    average_decay=0.8,
    patience=10,
    precision="fp32",
    seed=0,
)


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """These tests kill no power supply: flushing to the platter is left out, everything else is written as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _file: None)
        yield


class KilledError(Exception):
    """Stands for a kill: nothing in the program catches it."""


@pytest.fixture(scope="module")
def samples() -> Samples:
    """24 simulated scans, eight a class."""
    scans = [simulate_scan(list(Diagnosis)[n % 3], seed=n, height=64, width=64) for n in range(24)]
    truths = [fit_mask(scan.mask, SPEC) for scan in scans]
    return Samples(
        images=torch.stack([torch.from_numpy(fit_to_square(scan.grey, SPEC))[None] for scan in scans]),
        masks=torch.stack([torch.from_numpy(truth)[None] for truth in truths]),
        labels=torch.tensor([n % 3 for n in range(24)]),
        ids=tuple(f"simulated/{n}" for n in range(24)),
    )


@pytest.fixture(scope="module")
def few(samples: Samples) -> Samples:
    """Eight of them: one step an epoch."""
    return Samples(samples.images[:8], samples.masks[:8], samples.labels[:8], samples.ids[:8])


@pytest.fixture(scope="module")
def undisturbed(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Progress]:
    """A whole run of three epochs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, fit(CONFIG, samples, samples, folder)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The log without what a clock writes."""
    lines = [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("seconds")} for line in lines]


# ---- A whole run ---------------------------------------------------------------------------------------------


def test_a_run_learns(undisturbed: tuple[Path, Progress]) -> None:
    losses = [line["loss"] for line in read_log(undisturbed[0])]
    assert losses[-1] < 0.9 * losses[0]


def test_a_run_leaves_a_log_line_an_epoch_and_the_weights_of_its_best_one(
    undisturbed: tuple[Path, Progress],
) -> None:
    folder, progress = undisturbed
    log = read_log(folder)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert progress.epoch == 3
    assert progress.step == 9
    assert progress.best_epoch == max(log, key=lambda line: line["score"])["epoch"]
    assert progress.best_score == max(line["score"] for line in log)
    make_network().load_state_dict(load_file(folder / BEST_FILE), strict=True)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(few: Samples, tmp_path: Path) -> None:
    short = replace(CONFIG, epochs=1)
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        fit(replace(short, seed=seed), few, few, tmp_path / str(number))
        weights.append((tmp_path / str(number) / BEST_FILE).read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_training_leaves_the_samples_as_they_were(few: Samples, tmp_path: Path) -> None:
    """Marks drawn on a scan in one epoch must not be there in the next."""
    images, masks = few.images.clone(), few.masks.clone()
    fit(replace(CONFIG, epochs=2), few, few, tmp_path)
    assert torch.equal(few.images, images)
    assert torch.equal(few.masks, masks)


def test_a_machine_that_does_not_compute_in_bf16_trains_in_fp32(
    few: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There bf16 would take eight times as long; where it is computed in, the weights differ."""
    weights = []
    for name, precision, has_bf16 in (("fp32", "fp32", True), ("without", "bf16", False), ("with", "bf16", True)):
        monkeypatch.setattr(step, "computes_in_bf16", lambda _device, has=has_bf16: has)
        fit(replace(CONFIG, epochs=1, precision=precision), few, few, tmp_path / name)
        weights.append((tmp_path / name / BEST_FILE).read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_graphics_card_always_computes_in_bf16() -> None:
    assert computes_in_bf16(torch.device("cuda"))


def test_first_weights_are_put_in_before_the_first_step(few: Samples, tmp_path: Path) -> None:
    before = make_network(7).state_dict()
    config = replace(CONFIG, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    fit(config, few, few, tmp_path, initialise=lambda network: network.load_state_dict(before))
    after = load_file(tmp_path / BEST_FILE)
    assert torch.allclose(after["class_head.1.weight"], before["class_head.1.weight"], atol=1e-6)


def test_normals_are_shown_as_often_as_asked(samples: Samples, tmp_path: Path) -> None:
    progress = fit(replace(CONFIG, epochs=1, normal_repeats=3), samples, samples, tmp_path)
    assert progress.step == (24 + 2 * 8) // 8
    shown = loop._repeat_normals(torch.tensor([0, 1, 2, 0]), 3)
    assert shown.tolist() == [0, 0, 0, 1, 2, 3, 3, 3]


def test_the_last_epoch_is_kept_where_nothing_is_to_be_chosen(
    few: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.5, 0.7])
    monkeypatch.setattr(loop, "validate", lambda *_: (lambda score: (score, 1 - score, score))(next(scores)))
    progress = fit(replace(CONFIG, epochs=3, patience=1, keeps="last"), few, few, tmp_path)
    assert (progress.epoch, progress.best_epoch, progress.best_score) == (3, 3, 0.7)


def test_a_run_without_a_validation_part_keeps_its_last_epoch_and_says_nothing_of_scores(
    few: Samples, tmp_path: Path
) -> None:
    said: list[str] = []
    config = replace(CONFIG, epochs=2, keeps="last")
    progress = fit(config, few, none_like(few), tmp_path, on_epoch=lambda epoch: said.append(epoch.describe(2)))
    assert (progress.epoch, progress.best_epoch) == (2, 2)
    assert ["Dice" in line or "nan" in line for line in said] == [False, False]
    make_network().load_state_dict(load_file(tmp_path / BEST_FILE), strict=True)


def test_training_stops_after_epochs_without_a_better_score(
    few: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    monkeypatch.setattr(loop, "validate", lambda *_: (lambda score: (score, 1 - score, score))(next(scores)))
    progress = fit(replace(CONFIG, epochs=5, patience=2), few, few, tmp_path)
    assert (progress.epoch, progress.best_epoch) == (4, 2)
    again = fit(replace(CONFIG, epochs=5, patience=2), few, few, tmp_path, resume=True)
    assert again == progress, "a run that has stopped stays stopped"


# ---- Killed and resumed --------------------------------------------------------------------------------------


def after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, killed at its call number `calls` + 1."""
    made = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        if made == calls:
            raise KilledError
        made += 1
        return function(*arguments, **options)

    return counted


def then_kill(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, killed right after its call number `calls`."""
    made = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        result = function(*arguments, **options)
        made += 1
        if made == calls:
            raise KilledError
        return result

    return counted


def test_patience_begins_when_the_first_lesion_is_found(few: Samples, tmp_path: Path) -> None:
    """Early epochs outline nothing at all: that is no plateau."""
    scores = iter([0.0, 0.0, 0.0, 0.5, 0.4, 0.3, 0.2])
    config = replace(CONFIG, epochs=7, patience=2)
    progress = fit(config, few, few, tmp_path, judge=lambda *_: (next(scores), math.nan, math.nan))
    assert (progress.epoch, progress.best_epoch, progress.best_score) == (6, 4, 0.5)


@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(
            lambda patch: patch.setattr(TrainStep, "__call__", after(7, TrainStep.__call__)), id="inside epoch 3"
        ),
        pytest.param(lambda patch: patch.setattr(loop, "save_state", after(2, loop.save_state)), id="before saving"),
        pytest.param(lambda patch: patch.setattr(loop, "save_state", then_kill(2, loop.save_state)), id="after saving"),
    ],
)
def test_a_killed_run_resumed_ends_with_the_weights_and_the_log_of_an_undisturbed_one(
    samples: Samples,
    undisturbed: tuple[Path, Progress],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strike: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """J1: bit for bit, at most one epoch lost."""
    with monkeypatch.context() as patch:
        strike(patch)
        with pytest.raises(KilledError):
            fit(CONFIG, samples, samples, tmp_path)
    torch.manual_seed(12345)  # another process would start with another state
    progress = fit(CONFIG, samples, samples, tmp_path, resume=True)
    folder, expected = undisturbed
    assert progress == expected
    assert (tmp_path / BEST_FILE).read_bytes() == (folder / BEST_FILE).read_bytes()
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == (folder / CHECKPOINT_FILE).read_bytes()
    assert read_log(tmp_path) == read_log(folder)


def test_a_log_line_cut_off_by_a_kill_is_written_anew(
    samples: Samples, undisturbed: tuple[Path, Progress], tmp_path: Path
) -> None:
    """J1. And an epoch that the screen was told of is safe: it is not run again."""
    with pytest.raises(KilledError):
        fit(CONFIG, samples, samples, tmp_path, on_epoch=after(1, lambda _epoch: None))
    with (tmp_path / LOG_FILE).open("a") as log:
        log.write('{"epoch": 3, "lo')
    told: list[int] = []
    fit(CONFIG, samples, samples, tmp_path, resume=True, on_epoch=lambda epoch: told.append(epoch.epoch))
    assert told == [3]
    assert read_log(tmp_path) == read_log(undisturbed[0])


def test_a_full_disk_ends_the_run_in_words_and_leaves_the_last_checkpoint(
    samples: Samples, undisturbed: tuple[Path, Progress], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J4: and once there is room the run goes on as if nothing had been."""
    full = after(2, write_atomically)

    def write(path: Path, content: bytes) -> None:
        try:
            full(path, content)
        except KilledError as error:
            raise OutputError(f"{path.name!r} could not be written.", remedy="Free some space.") from error

    with monkeypatch.context() as patch:
        patch.setattr("busi_core.training.state.write_atomically", write)
        with pytest.raises(OutputError):
            fit(CONFIG, samples, samples, tmp_path)
    fit(CONFIG, samples, samples, tmp_path, resume=True)
    assert (tmp_path / BEST_FILE).read_bytes() == (undisturbed[0] / BEST_FILE).read_bytes()


# ---- Refusals ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_the_images_and_keeps_the_last_checkpoint(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J7."""
    shown: list[list[int]] = []
    make_batch = loop.make_batch

    def make_noted(samples: Samples, indices: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        shown.append(indices.tolist())
        images, *others = make_batch(samples, indices, *rest)
        return (images * math.nan if len(shown) == 5 else images), *others

    kept: list[bytes] = []
    monkeypatch.setattr(loop, "make_batch", make_noted)
    with pytest.raises(TrainingError, match="not a number in epoch 2") as caught:
        fit(
            *(CONFIG, samples, samples, tmp_path),
            on_epoch=lambda _epoch: kept.append((tmp_path / CHECKPOINT_FILE).read_bytes()),
        )
    for index in shown[-1]:
        assert f"simulated/{index}" in caught.value.problem
    assert len(read_log(tmp_path)) == 1
    assert [(tmp_path / CHECKPOINT_FILE).read_bytes()] == kept


def test_fewer_samples_than_a_batch_are_refused(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="24 images to train on, fewer than a batch of 32"):
        fit(replace(CONFIG, batch_size=32), samples, samples, tmp_path)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def flip_bit(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(Path.unlink, id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut by a byte"),
        pytest.param(lambda path: path.write_bytes(b"not a checkpoint"), id="text"),
        pytest.param(partial(flip_bit, place=-1), id="a bit flipped in the last tensor"),
        pytest.param(partial(flip_bit, place=-5_000_000), id="a bit flipped in the middle"),
        pytest.param(lambda path: path.write_bytes(make_other_checkpoint()), id="without progress"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    samples: Samples, undisturbed: tuple[Path, Progress], tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes((undisturbed[0] / CHECKPOINT_FILE).read_bytes())
    spoil(path)
    with pytest.raises(TrainingError, match="cannot be resumed"):
        fit(CONFIG, samples, samples, tmp_path, resume=True)


def make_other_checkpoint() -> bytes:
    from safetensors.torch import save

    return save({"network.x": torch.zeros(1)})


def test_the_digest_of_scans_names_which_they_are_and_not_their_order() -> None:
    assert digest_ids(["busi/a", "busi/b"]) == digest_ids(iter(["busi/b", "busi/a"]))
    others: list[list[str]] = [[], ["busi/a"], ["busi/a", "busi/b", "busi/b"], ["busi/ab"]]
    assert len({digest_ids(ids) for ids in [*others, ["busi/a", "busi/b"]]}) == 5


def test_a_checkpoint_that_is_a_pickle_is_never_unpickled(samples: Samples, tmp_path: Path) -> None:
    """W1."""
    trap = Trap(tmp_path / "sprung")
    (tmp_path / CHECKPOINT_FILE).write_bytes(pickle.dumps(trap))
    with pytest.raises(TrainingError, match="cannot be resumed"):
        fit(CONFIG, samples, samples, tmp_path, resume=True)
    assert not trap.path.exists()


def test_the_checkpoint_of_another_network_is_refused(
    samples: Samples, undisturbed: tuple[Path, Progress], tmp_path: Path
) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes((undisturbed[0] / CHECKPOINT_FILE).read_bytes())
    other = replace(CONFIG, architecture=replace(TINY, encoder="tu-test_efficientnet"))
    with pytest.raises(TrainingError, match="of another network"):
        fit(other, samples, samples, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epochs", 0), ("batch_size", 1), ("precision", "fp16"), ("normal_repeats", 0)),
        *(("learning_rate", 0.0), ("learning_rate", -1.0), ("learning_rate", math.nan), ("learning_rate", math.inf)),
    ],
)
def test_a_configuration_that_cannot_train_cannot_exist(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(CONFIG, **{field: value})


# ---- Augmentation --------------------------------------------------------------------------------------------


@pytest.fixture
def bright_lesion() -> tuple[Tensor, Tensor]:
    """A scan whose lesion is its bright part, so that the two can be compared after any turn."""
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[0, 20:40, 10:36] = 1
    mask[0, 40:48, 28:36] = 1
    return mask * 180 + 40, mask


def vary(image: Tensor, mask: Tensor, *seeds: int) -> tuple[Tensor, Tensor]:
    """One sample under several seeds: (seeds, 1, side, side) each."""
    count = len(seeds)
    return augment(image.expand(count, -1, -1, -1), mask.expand(count, -1, -1, -1), torch.tensor(seeds), CPU)


def test_image_and_mask_are_turned_and_moved_together(
    bright_lesion: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chance, "happens", lambda _self, probability: probability == 0.5)  # always flipped, no more
    image, mask = bright_lesion
    moved = 0
    for pixels, truth in zip(*vary(image, mask, *range(40)), strict=True):
        inside = pixels > (pixels[truth > 0].median() + pixels[truth == 0].median()) / 2
        differ = int((inside != (truth > 0)).sum())
        assert differ < 0.06 * int(truth.sum()), "more than the edge, which is bilinear in one and not in the other"
        moved += not torch.equal(truth, mask.float())
    assert moved > 35


def test_pixels_stay_in_range_and_masks_stay_masks(samples: Samples) -> None:
    every = torch.arange(72) % 24
    images, truths = augment(samples.images[every], samples.masks[every], torch.arange(72), CPU)
    assert images.shape == truths.shape == (72, 1, 32, 32)
    assert images.dtype == truths.dtype == torch.float32
    assert torch.isfinite(images).all()
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert set(truths.unique().tolist()) <= {0.0, 1.0}
    assert bool(images.flatten(1).std(dim=1).min() > 0.01), "nothing is left of a scan"
    for index, truth in zip(every, truths, strict=True):
        assert not truth.any() or samples.masks[index].any()


def test_augmenting_leaves_the_sample_itself_alone(samples: Samples) -> None:
    """The marks of one epoch once stayed on the scan for all later ones."""
    images, masks = samples.images.clone(), samples.masks.clone()
    augment(samples.images, samples.masks, torch.arange(24), CPU)
    assert torch.equal(samples.images, images)
    assert torch.equal(samples.masks, masks)


def test_an_image_depends_on_its_own_seed_and_on_nothing_else(samples: Samples) -> None:
    """So that a run is repeated by its seed, and several processes vary each image as one does."""
    together = augment(samples.images[:4], samples.masks[:4], torch.tensor([5, 6, 7, 8]), CPU)
    torch.manual_seed(99)
    np.random.seed(99)
    alone = augment(samples.images[1:2], samples.masks[1:2], torch.tensor([6]), CPU)
    other = augment(samples.images[1:2], samples.masks[1:2], torch.tensor([9]), CPU)
    assert torch.equal(together[0][1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1])
    assert not torch.equal(alone[0], other[0])


def test_a_move_is_the_one_that_torchvision_makes(
    bright_lesion: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turning by 10 degrees, moving by 5 and 3 pixels and zooming by 1.2, each held to an outside implementation."""
    image, _ = bright_lesion
    for settings in ({"angle": 10.0}, {"translate": [5, 3]}, {"scale": 1.2}):
        wanted = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, **settings}
        chance = Chance(0)
        numbers = [-wanted["angle"], 0.0, wanted["scale"], wanted["translate"][0] / 64, wanted["translate"][1] / 64]
        monkeypatch.setattr(chance, "uniform", lambda *_, left=numbers: left.pop(0))
        theta = augmentation.move(chance, flips=(0, 0), degrees=90, shift=1, zoom=(0, 2), shear_degrees=0)
        moved, _ = augmentation._move_all(image[None], image[None], [theta], CPU)
        expected = affine(image.float() / 255, **wanted, shear=[0.0, 0.0], interpolation=InterpolationMode.BILINEAR)
        assert float((moved[0] - expected).abs()[:, 8:-8, 8:-8].max()) < 0.01, settings


def test_each_image_is_blurred_by_a_gaussian_of_its_own() -> None:
    pixels = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    blurred = augmentation._blur(pixels, [0.0, 0.5, 1.1])
    assert torch.allclose(blurred[0], pixels[0], atol=1e-6)
    for index, sigma in ((1, 0.5), (2, 1.1)):
        assert torch.allclose(blurred[index], gaussian_blur(pixels[index], [5, 5], [sigma, sigma]), atol=1e-5)


def test_marks_are_drawn_on_a_share_of_the_scans_whatever_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that calipers, which BUSI has on benign scans mostly, carry no class."""
    drawn = 0

    def count(image: Tensor, _chance: Chance) -> Tensor:
        nonlocal drawn
        drawn += 1
        return image

    monkeypatch.setattr(augmentation, "draw_marks", count)
    grey, mask = torch.full((1, 64, 64), 90, dtype=torch.uint8), torch.zeros(1, 64, 64, dtype=torch.uint8)
    vary(grey, mask, *range(400))
    assert 70 < drawn < 130


def test_marks_are_small_and_leave_a_speckled_scan_mostly_alone() -> None:
    grey = torch.zeros(1, 256, 256, dtype=torch.uint8)
    for seed in range(50):
        marked = augmentation.draw_marks(grey, Chance(seed))
        assert 0 < int((marked > 0).sum()) < 0.02 * 256 * 256


# ---- Losses and schedule -------------------------------------------------------------------------------------


def test_the_mask_loss_is_soft_dice_plus_cross_entropy_by_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    masks = (torch.rand(3, 1, 8, 8, generator=generator) > 0.7).float()
    masks[2] = 0  # a normal
    z, y = logits.double().numpy(), masks.double().numpy()
    p = 1 / (1 + np.exp(-z))
    axes = (1, 2, 3)
    dice = ((p * y).sum(axes) + 1) / ((p.sum(axes) + y.sum(axes)) / 2 + 1)  # one pixel of agreement for free
    entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(mask_loss(logits, masks)) == pytest.approx((1 - dice).mean() + entropy, rel=1e-5)


def test_a_false_mask_on_a_normal_costs_and_a_clean_one_does_not() -> None:
    nothing = torch.zeros(1, 1, 8, 8)
    clean, marked = torch.full((1, 1, 8, 8), -20.0), torch.full((1, 1, 8, 8), 20.0)
    assert float(mask_loss(clean, nothing)) == pytest.approx(0, abs=1e-3)
    assert float(mask_loss(marked, nothing)) > 10


def test_the_class_loss_is_smoothed_weighted_cross_entropy_by_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 3, generator=generator), torch.tensor([0, 1, 2, 1, 1])
    weights = torch.tensor([1.5, 0.5, 1.0])
    logp = np.log(np.exp(logits.double().numpy()) / np.exp(logits.double().numpy()).sum(1, keepdims=True))
    w, y = weights.double().numpy(), labels.numpy()
    hard = -(w[y] * logp[np.arange(5), y]).sum() / w[y].sum()
    spread = -(w * logp).sum() / w[y].sum() / 3
    expected = (1 - LABEL_SMOOTHING) * hard + LABEL_SMOOTHING * spread
    assert float(class_loss(logits, labels, weights)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("counts", [(8, 8, 8), (109, 354, 170), (1, 100, 1), (0, 722, 342)])
def test_weights_average_one_over_the_samples_and_fall_with_the_root_of_the_count(counts: tuple[int, ...]) -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    weights = balanced_weights(labels, 3)
    assert torch.isfinite(weights).all()
    assert float(weights[labels].mean()) == pytest.approx(1, rel=0.01)
    assert float(weights[2] / weights[1]) == pytest.approx((counts[1] / counts[2]) ** 0.5, rel=1e-5)


def test_the_learning_rate_rises_in_a_straight_line_and_falls_by_a_cosine() -> None:
    done = np.linspace(0, 1, 1001)
    factors = np.array([one_cycle(share) for share in done])
    peak = int(factors.argmax())
    assert factors[0] == pytest.approx(0.1)
    assert done[peak] == pytest.approx(0.15, abs=0.002)
    assert factors[peak] == pytest.approx(1, abs=0.002)
    assert np.ptp(np.diff(factors[: peak - 1])) == pytest.approx(0, abs=1e-9)
    assert (np.diff(factors[peak:]) < 0).all()
    assert factors[575] == pytest.approx(0.5, abs=0.002)
    assert 0 < factors[-1] < 0.01


# ---- Validation ----------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Answers the same masks and classes whatever it is shown."""

    def __init__(self, masks: Tensor, classes: Tensor) -> None:
        super().__init__()
        self.masks, self.classes, self.at = masks, classes, 0

    def forward(self, images: Tensor) -> Outputs:
        rows = slice(self.at, self.at + len(images))
        self.at += len(images)
        return Outputs(self.masks[rows], self.classes[rows], torch.zeros(len(images), 1, 2, 2))


def test_validation_figures_are_those_done_by_hand() -> None:
    truth = torch.zeros(4, 1, 64, 64, dtype=torch.uint8)
    truth[0, 0, :10, :10] = truth[1, 0, :10, :10] = 1
    logits = torch.full((4, 1, 64, 64), -1.0)
    logits[0, 0, :10, :10] = 1  # all of it: 1
    logits[1, 0, :10, :20] = 1  # twice as much: 2 * 100 / 300
    logits[3, 0, 0, 0] = 1  # one pixel on a normal
    classes = torch.eye(3)[[1, 1, 0, 0]]
    labels = torch.tensor([1, 2, 0, 0])
    samples = Samples(torch.zeros(4, 1, 64, 64, dtype=torch.uint8), truth, labels, ("a", "b", "c", "d"))
    config = replace(CONFIG, batch_size=3)
    dice, false_masks, f1 = validate(Fixed(logits, classes), samples, config, CPU)
    assert dice == pytest.approx((1 + 2 / 3) / 2)
    assert false_masks == 0.5
    assert f1 == pytest.approx(macro_f1(np.array([[2, 0, 0], [0, 1, 0], [0, 1, 0]])))


def test_validation_changes_nothing_but_the_mode(samples: Samples) -> None:
    network: LesionNet = make_network(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first = validate(network, samples, CONFIG, CPU)
    assert first == validate(network, samples, CONFIG, CPU)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# ---- The product's own recipe ----------------------------------------------------------------------------------


def test_the_readme_says_how_the_version_in_service_was_trained() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    command = readme.split("The version in service was trained by")[1].split("```sh")[1].split("```")[0]
    options = make_parser().parse_args(shlex.split(command.replace("\\\n", " "))[3:])
    weights = PROJECT_ROOT / "weights"
    said = read_card(weights / read_registry(weights).in_service).training
    assert said["config"] == json.loads(json.dumps(asdict(recipe_of(options).final)))
    assert said["validation_fold"] == options.validation_fold
    assert len(said["siblings"]) == len(options.siblings)
