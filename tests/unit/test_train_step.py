"""A step on a GPU is recorded once and replayed; it must do what the same passes started one by one do."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from versions import SIDE_64, TINY

from busi_core.models.network import Network, build_network
from busi_core.recipes.catalogue import RECIPES
from busi_core.recipes.product import PRODUCT
from busi_core.training.config import TrainingConfig
from busi_core.training.losses import lesion_class_loss
from busi_core.training.step import Batch, TrainStep

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
CONFIG = replace(PRODUCT, architecture=TINY, preprocess=SIDE_64, start="random", precision="fp32", batch_size=4)


def make_batch(config: TrainingConfig, seed: int, device: torch.device) -> Batch:
    random = torch.Generator().manual_seed(seed)
    side = config.preprocess.side
    images = torch.rand(config.batch_size, config.architecture.in_channels, side, side, generator=random)
    masks = (torch.rand(config.batch_size, 1, side, side, generator=random) > 0.9).float()
    labels = torch.randint(3, (config.batch_size,), generator=random)
    return images.to(device), masks.to(device), labels.to(device), torch.ones((), device=device)


def make_step(config: TrainingConfig, device: torch.device, *, may_record: bool) -> tuple[Network, TrainStep]:
    torch.manual_seed(0)
    network = build_network(config.architecture).to(device).train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout | torch.nn.Dropout2d):
            layer.p = 0.0
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    return network, TrainStep(network, optimizer, torch.ones(3, device=device), config, may_record=may_record)


@NEEDS_GPU
def test_a_recorded_step_moves_weights_and_running_statistics_as_an_unrecorded_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    gpu = torch.device("cuda")
    (recorded, replay), (plain, run) = (make_step(CONFIG, gpu, may_record=may) for may in (True, False))
    for seed in range(4):
        losses = [float(step(make_batch(CONFIG, seed, gpu))) for step in (replay, run)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name, value in recorded.state_dict().items():
        assert torch.allclose(value.float(), plain.state_dict()[name].float(), atol=2e-3), name
    assert int(recorded.state_dict()["encoder.model.bn1.num_batches_tracked"]) == 4


@NEEDS_GPU
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_can_be_recorded(name: str) -> None:
    gpu = torch.device("cuda")
    for stage in RECIPES[name].stages:
        config = replace(stage, preprocess=replace(stage.preprocess, side=64), batch_size=4, precision="bf16")
        _, step = make_step(config, gpu, may_record=True)
        losses = [float(step(make_batch(config, 0, gpu))) for _ in range(6)]
        assert all(loss == loss for loss in losses)
        assert losses[-1] < losses[0]


def test_a_step_lowers_the_loss_of_its_batch() -> None:
    cpu = torch.device("cpu")
    _, step = make_step(CONFIG, cpu, may_record=True)
    losses = [float(step(make_batch(CONFIG, 0, cpu))) for _ in range(6)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("found", [(True, True, True), (True, False, True), (False, False, False)])
def test_the_class_loss_of_lesions_is_that_of_those_whose_region_was_found(found: tuple[bool, ...]) -> None:
    logits = torch.tensor([[9.0, 0.3, 1.2], [9.0, -0.4, 0.1], [9.0, 2.0, -1.0]])
    logits[:, 0] = torch.where(torch.tensor(found), -9.0, 9.0)
    labels = torch.tensor([1, 2, 0])  # benign, malignant, and a normal, which never counts
    expected = _cross_entropy(logits, labels, [place for place in range(2) if found[place]])
    assert torch.allclose(lesion_class_loss(logits, labels, torch.ones(3)), expected)


def _cross_entropy(logits: Tensor, labels: Tensor, kept: list[int]) -> Tensor:
    return functional.cross_entropy(logits[kept, 1:], labels[kept] - 1) if kept else torch.zeros(())
