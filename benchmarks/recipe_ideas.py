"""What single ideas buy the recipe: each alone against the recipe as it is, on scans that none learned from.

    OMP_NUM_THREADS=1 uv run python -m benchmarks.recipe_ideas FOLDER [--ideas NAME ...]     (trains; goes on)
    uv run python -m benchmarks.recipe_ideas FOLDER --report

A small training, for two cores and some hours: 128 px, 10 epochs. Learned from: folds 2 and 3 of BUSI, its
training-only scans, fold 1 of BUS-BRA. Scored: folds 1 and 4 of BUSI, fold 2 of BUS-BRA, at a cut-off of .5 and the
likeliest class, so that nothing is chosen. Fold 0 and BUS-BRA's fold 3, the tests of the versions, stay closed. What
differs by less than the seeds of the recipe do says nothing.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.measure import table
from busi_core import read_settings
from busi_core.data.dataset import Samples, load_samples
from busi_core.data.records import Record, read_bus_bra, read_busi
from busi_core.data.splits import read_folds, scan_groups
from busi_core.imaging.preprocess import normalise
from busi_core.metrics.bootstrap import paired_difference_interval
from busi_core.metrics.classification import confusion_matrix, macro_f1, malignancy_score, roc_auc
from busi_core.models.network import LesionNet, build_network
from busi_core.models.pretrained import start_encoder
from busi_core.recipes.product import PRODUCT
from busi_core.training.augment import AUGMENTATIONS
from busi_core.training.config import TrainingConfig
from busi_core.training.loop import one_cycle
from busi_core.training.losses import balanced_weights, class_loss, mask_loss
from busi_core.training.step import GRADIENT_NORM, autocast
from busi_core.types import Diagnosis

CPU = torch.device("cpu")
NORMAL, _, MALIGNANT = range(len(Diagnosis))
LEARNED_FOLDS, LEARNED_BUS_BRA_FOLD = (2, 3, None), 1
SCORED_FOLDS, SCORED_BUS_BRA_FOLD = (1, 4), 2
SMALL = replace(
    PRODUCT,
    preprocess=replace(PRODUCT.preprocess, side=128),
    epochs=10,
    average_decay=0.99,
)
AT_ONCE = 32  # scans a pass when scoring
PATCH_PX, HIDDEN_SHARE, WARM_UP_EPOCHS = 16, 0.4, 4  # of the self-supervised warm-up


@dataclass(frozen=True)
class Idea:
    """A change of one thing.

    Attributes:
        what: In words, with the source.
        config: Of the training.
        mask_term: Loss on the mask, from logits and truth.
        adds: Makes further samples from those of the training part.
        mixes: Whether two images of a batch are laid into each other.
        supervises_deeply: Whether the decoder's coarser maps learn the mask too.
        restores_first: Whether the network learns to restore hidden patches before it is told any truth.
    """

    what: str
    config: TrainingConfig = SMALL
    mask_term: Callable[[Tensor, Tensor], Tensor] = mask_loss
    adds: Callable[[Samples], Samples] | None = None
    mixes: bool = False
    supervises_deeply: bool = False
    restores_first: bool = False


def focal_tversky_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Misses weigh .7, false alarms .3, hard scans more (Abraham and Khan, arXiv:1810.07842); plus cross-entropy."""
    found, axes = mask_logits.sigmoid(), (1, 2, 3)
    hits, misses, false = (found * masks).sum(axes), ((1 - found) * masks).sum(axes), (found * (1 - masks)).sum(axes)
    index = (hits + 1) / (hits + 0.7 * misses + 0.3 * false + 1)
    return (1 - index).pow(0.75).mean() + functional.binary_cross_entropy_with_logits(mask_logits, masks)


def boundary_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """The recipe's loss, and lesion probability times distance from the outline (Kervadec et al., arXiv:1812.07032)."""
    distances = torch.from_numpy(np.stack([signed_distance(mask[0].numpy() > 0.5) for mask in masks]))[:, None]
    return mask_loss(mask_logits, masks) + (mask_logits.sigmoid() * distances).mean()


def signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """In shares of the side, negative inside; all 0 where there is no lesion."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    outside, inside = (cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5) for part in (~mask, mask))
    return ((outside - inside) / mask.shape[0]).astype(np.float32)


def paste_lesions(samples: Samples, copies: int = 3) -> Samples:
    """Lesions of BUSI pasted onto its normals with a soft seam, at their place (Ghiasi et al., arXiv:2012.07177)."""
    draw = np.random.default_rng(0)
    lesions = [i for i, id in enumerate(samples.ids) if id.startswith("busi/") and samples.labels[i] != NORMAL]
    images, masks, labels, ids = [], [], [], []
    for normal in (samples.labels == NORMAL).nonzero()[:, 0].tolist():
        for lesion in draw.choice(lesions, copies, replace=False):
            mask = samples.masks[lesion, 0].numpy()
            around = cv2.dilate(mask, np.ones((9, 9), np.uint8)).astype(np.float32)
            share = cv2.GaussianBlur(around, (0, 0), 4.0)
            joined = share * samples.images[lesion, 0].numpy() + (1 - share) * samples.images[normal, 0].numpy()
            images.append(torch.from_numpy(joined.round().astype(np.uint8))[None])
            masks.append(samples.masks[lesion])
            labels.append(samples.labels[lesion])
            ids.append(f"{samples.ids[normal]} with {samples.ids[lesion]}")
    return Samples(
        torch.cat([samples.images, torch.stack(images)]),
        torch.cat([samples.masks, torch.stack(masks)]),
        torch.cat([samples.labels, torch.stack(labels)]),
        (*samples.ids, *ids),
    )


def with_side(side: int) -> TrainingConfig:
    return replace(SMALL, preprocess=replace(SMALL.preprocess, side=side))


IDEAS = {
    "recipe": Idea("the recipe as it is, small"),
    "seed": Idea("the recipe with another seed", replace(SMALL, seed=1)),
    "seed-2": Idea("the recipe with a third seed", replace(SMALL, seed=2)),
    "focal-tversky": Idea("focal Tversky in the place of Dice", mask_term=focal_tversky_loss),
    "boundary": Idea("distance from the outline as well", mask_term=boundary_loss),
    "deep": Idea("coarser decoder maps learn too (Lee et al., arXiv:1409.5185)", supervises_deeply=True),
    "mixup": Idea("mixup, half of the batches (Zhang et al., arXiv:1710.09412)", mixes=True),
    "paste": Idea("lesions pasted onto normals", adds=paste_lesions),
    "restore": Idea("four epochs of restoring hidden patches first", restores_first=True),
    "wide": Idea("augmentation for other machines", replace(SMALL, augmentation="ultrasound-wide")),
    "plain": Idea("no augmentation", replace(SMALL, augmentation="none")),
    "squash": Idea("squashed to the square", replace(SMALL, preprocess=replace(SMALL.preprocess, fit="squash"))),
    "160": Idea("160 px in the place of 128, half as much again to compute", with_side(160)),
    "normals": Idea("normals shown four times, not twice", replace(SMALL, normal_repeats=4)),
    "class": Idea("class loss weighs 1, not .5", replace(SMALL, class_weight=1.0)),
    "global": Idea(
        "class from the whole image", replace(SMALL, architecture=replace(SMALL.architecture, head="global"))
    ),
}


class Supervisor(nn.Module):
    """Reads the lesion from the decoder's maps at 1/8, 1/4 and 1/2 of the side, while training alone."""

    def __init__(self, network: LesionNet) -> None:
        super().__init__()
        blocks = network.decoder.blocks[1:4]
        self.heads = nn.ModuleList(nn.Conv2d(block.conv2[0].out_channels, 1, 1) for block in blocks)
        self._maps: dict[int, Tensor] = {}
        for number, block in enumerate(blocks):
            block.register_forward_hook(lambda _block, _in, out, number=number: self._maps.update({number: out}))

    def loss(self, masks: Tensor) -> Tensor:
        """Of the maps of the last pass, coarser ones counting half of the finer."""
        total = torch.zeros(())
        for number, head in enumerate(self.heads):
            logits = head(self._maps[number].float())
            total = total + 0.5 ** (3 - number) * mask_loss(
                logits, functional.adaptive_avg_pool2d(masks, logits.shape[2:])
            )
        return total


def train(idea: Idea, samples: Samples, encoder_dir: Path) -> nn.Module:
    """The moving average of the weights after the last epoch; as `training.loop.fit` does it, nothing is chosen."""
    config = idea.config
    torch.manual_seed(config.seed)
    samples = idea.adds(samples) if idea.adds else samples
    network = build_network(config.architecture)
    start_encoder(network, config.architecture.encoder, encoder_dir)
    network = network.to(memory_format=torch.channels_last)
    if idea.restores_first:
        restore_hidden(network, samples, config)
    supervisor = Supervisor(network) if idea.supervises_deeply else None
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.average_decay), use_buffers=True)
    optimizer = make_optimizer(network, config, *(supervisor.parameters() if supervisor else ()))
    weights = balanced_weights(samples.labels, len(Diagnosis))
    shown = torch.arange(len(samples)).repeat_interleave(
        torch.where(samples.labels == NORMAL, config.normal_repeats, 1)
    )
    network.train()
    for images, masks, labels in batches(samples, shown, config, optimizer, config.epochs):
        share, order = 1.0, torch.arange(len(labels))
        if idea.mixes and torch.rand(()) < 0.5:
            share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(labels))
            images, masks = (share * values + (1 - share) * values[order] for values in (images, masks))
        with autocast(config, CPU):
            outputs = network(normalise(images, config.preprocess).contiguous(memory_format=torch.channels_last))
        loss = idea.mask_term(outputs.mask_logits.float(), masks)
        for part, of in ((share, labels), (1 - share, labels[order])):
            if part:
                loss = loss + config.class_weight * part * class_loss(outputs.class_logits.float(), of, weights)
        if supervisor:
            loss = loss + supervisor.loss(masks)
        move(network, optimizer, loss)
        average.update_parameters(network)
    return average.module


def restore_hidden(network: LesionNet, samples: Samples, config: TrainingConfig) -> None:
    """Learn to restore hidden patches from what is around them (Pathak et al., arXiv:1604.07379), without any truth."""
    optimizer = make_optimizer(network, config)
    side = config.preprocess.side // PATCH_PX
    network.train()
    for images, _, _ in batches(samples, torch.arange(len(samples)), config, optimizer, WARM_UP_EPOCHS):
        hidden = (torch.rand(len(images), 1, side, side) < HIDDEN_SHARE).float()
        hidden = hidden.repeat_interleave(PATCH_PX, 2).repeat_interleave(PATCH_PX, 3)
        wanted = normalise(images, config.preprocess)
        with autocast(config, CPU):
            outputs = network((wanted * (1 - hidden)).contiguous(memory_format=torch.channels_last))
        loss = ((outputs.mask_logits.float() - wanted).square() * hidden).sum() / hidden.sum()
        move(network, optimizer, loss)
    for layer in network.mask_head.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()


def make_optimizer(network: LesionNet, config: TrainingConfig, *more: nn.Parameter) -> torch.optim.Optimizer:
    encoder = list(network.encoder.parameters())
    inside = set(map(id, encoder))
    rest = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    rate = config.learning_rate
    groups = [{"params": encoder, "peak": rate * config.encoder_rate}, {"params": [*rest, *more], "peak": rate}]
    return torch.optim.AdamW(groups, lr=rate, weight_decay=config.weight_decay, fused=True)


def batches(samples: Samples, shown: Tensor, config: TrainingConfig, optimizer: torch.optim.Optimizer, epochs: int):
    """Augmented images, masks and labels, epoch after epoch, with the learning rate of the step set."""
    of_epoch, step = len(shown) // config.batch_size, 0
    for _ in range(epochs):
        for indices in torch.split(shown[torch.randperm(len(shown))], config.batch_size)[:of_epoch]:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * one_cycle(step / (epochs * of_epoch))
            step += 1
            seeds = torch.randint(2**62, (len(indices),))
            augmented = AUGMENTATIONS[config.augmentation](samples.images[indices], samples.masks[indices], seeds, CPU)
            yield *augmented, samples.labels[indices]


def move(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
    optimizer.step()


@torch.no_grad()
def score(network: nn.Module, samples: Samples, config: TrainingConfig) -> dict[str, NDArray[np.float64]]:
    """Of every scan: Dice (of a normal: 1 without a mask, else 0), class probabilities."""
    network.eval()
    dice, probabilities = [], []
    for indices in torch.split(torch.arange(len(samples)), AT_ONCE):
        images = normalise(samples.images[indices].float() / 255, config.preprocess)
        outputs = network(images.to(memory_format=torch.channels_last))
        found, truth = outputs.mask_logits > 0, samples.masks[indices].bool()
        total = found.sum((1, 2, 3)) + truth.sum((1, 2, 3))
        dice.append(torch.where(total > 0, 2 * (found & truth).sum((1, 2, 3)) / total.clamp(min=1), 1.0))
        probabilities.append(outputs.class_logits.softmax(dim=1))
    return {"dice": torch.cat(dice).double().numpy(), "probabilities": torch.cat(probabilities).double().numpy()}


def deal() -> tuple[list[Record], list[Record]]:
    """Records to learn from and to score."""
    root = read_settings().data_root
    busi, bus_bra = read_busi(root / "busi"), read_bus_bra(root / "bus-bra")
    scan_of = {name: scan for scan in read_folds() for name in scan.files}
    learned = [r for r in busi if scan_of[r.name].fold in LEARNED_FOLDS and not scan_of[r.name].contradictory]
    scored = [r for r in busi if scan_of[r.name].fold in SCORED_FOLDS and scan_of[r.name].scored == r.name]
    learned += [record for record in bus_bra if record.fold == LEARNED_BUS_BRA_FOLD]
    return learned, scored + [record for record in bus_bra if record.fold == SCORED_BUS_BRA_FOLD]


def main() -> None:
    options = read_options()
    learned, scored = deal()
    if not options.report:
        options.folder.mkdir(parents=True, exist_ok=True)
        for name in options.ideas:
            run(name, learned, scored, options.folder)
    report(options.folder, scored)


def run(name: str, learned: list[Record], scored: list[Record], folder: Path) -> None:
    place, idea = folder / f"{name}.npz", IDEAS[name]
    if place.is_file():
        return
    spec = idea.config.preprocess
    network = train(idea, load_samples(learned, spec), read_settings().encoder_dir)
    np.savez(place, **score(network, load_samples(scored, spec), idea.config))
    print(f"{name}: done", flush=True)


def report(folder: Path, scored: list[Record]) -> None:
    labels = np.array([list(Diagnosis).index(record.diagnosis) for record in scored])
    is_busi = np.array([record.id.startswith("busi/") for record in scored])
    names = scan_groups()
    groups = np.array([names.get(record.id, record.group or record.id) for record in scored])
    lesion = labels != NORMAL
    results = {name: dict(np.load(folder / f"{name}.npz")) for name in IDEAS if (folder / f"{name}.npz").is_file()}
    recipe, rows = results["recipe"], []
    for name, found in results.items():
        dice, probabilities = found["dice"], found["probabilities"]
        figures = [IDEAS[name].what]
        for place in (is_busi, ~is_busi):
            overlap, malignant = dice[place & lesion], labels[place & lesion] == MALIGNANT
            gain = paired_difference_interval(overlap, recipe["dice"][place & lesion], groups[place & lesion])
            figures += [
                f"{overlap.mean():.3f}",
                f"{gain.estimate:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
                f"{(overlap < 0.01).mean():.3f}",
                f"{roc_auc(malignancy_score(probabilities[place & lesion]), malignant):.3f}",
            ]
        confusion = confusion_matrix(probabilities[is_busi].argmax(axis=1), labels[is_busi])
        figures += [f"{1 - dice[is_busi & ~lesion].mean():.3f}", f"{macro_f1(confusion):.3f}"]
        rows.append(figures)
    print(f"{is_busi.sum()} scans of BUSI, {(is_busi & ~lesion).sum()} of them normal; {(~is_busi).sum()} of BUS-BRA\n")
    each = ["Dice", "gain (95 %)", "missed", "AUC"]
    print(table(["what", *(f"BUSI {k}" for k in each), *(f"BUS-BRA {k}" for k in each), "normals", "macro-F1"], rows))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the scores of each idea lie")
    parser.add_argument("--ideas", nargs="+", choices=IDEAS, default=list(IDEAS), help="which (default all)")
    parser.add_argument("--report", action="store_true", help="train nothing, print the table of what is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
