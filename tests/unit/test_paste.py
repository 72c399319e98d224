"""Lesions pasted onto normals: whose, how often, and what the network is told of them."""

from dataclasses import replace

import pytest
import torch
from versions import TINY

from busi_core.data.dataset import Samples
from busi_core.recipes.product import PRODUCT
from busi_core.training.config import TrainingConfig
from busi_core.training.distributed import current_group
from busi_core.training.loop import make_batch
from busi_core.training.paste import Pasting

SIDE = 64
NORMAL, BENIGN, MALIGNANT = range(3)
SEEDS = torch.arange(400)


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Flat grey scans, each of another grey: two normals of one data set, a lesion of it and one of another."""
    greys, labels = [10, 20, 200, 250, 30], [NORMAL, NORMAL, MALIGNANT, BENIGN, NORMAL]
    images = torch.stack([torch.full((1, SIDE, SIDE), grey, dtype=torch.uint8) for grey in greys])
    masks = torch.zeros_like(images)
    masks[2, 0, 20:40, 24:44] = 1
    masks[3, 0, :5, :5] = 1
    ids = ("here/a", "here/b", "here/c", "elsewhere/d", "nowhere/e")
    return Samples(images, masks, torch.tensor(labels), ids)


def test_a_normal_gets_the_lesion_its_outline_and_its_class(samples: Samples) -> None:
    pasting = Pasting(samples, 1.0)
    indices = torch.tensor([0, 1])
    lesions = pasting.choose(indices, SEEDS[:2])
    images, masks = pasting.paste(indices, lesions)
    assert lesions.tolist() == [2, 2], "the lesion of the other data set is never taken"
    assert pasting.labels(indices, lesions).tolist() == [MALIGNANT, MALIGNANT]
    assert (masks == samples.masks[2]).all()
    for image, under in zip(images, (10, 20), strict=True):
        assert (image[0, 24:36, 28:40] == 200).all(), "inside, the lesion is as it was"
        assert (image[masks[0] == 1] > 140).all(), "to its outline it is plainly seen"
        assert (image[:, :, :8] == under).all(), "far from it the normal is as it was"
        assert len(image.unique()) > 20, "and between them is a soft seam"


def test_lesions_are_left_alone_and_so_are_normals_of_a_data_set_without_one(samples: Samples) -> None:
    pasting = Pasting(samples, 1.0)
    indices = torch.tensor([2, 3, 4])
    lesions = pasting.choose(indices, SEEDS[:3])
    images, masks = pasting.paste(indices, lesions)
    assert lesions.tolist() == [-1, -1, -1]
    assert (images == samples.images[2:5]).all()
    assert (masks == samples.masks[2:5]).all()
    assert pasting.labels(indices, lesions).tolist() == [MALIGNANT, BENIGN, NORMAL]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_that_share_of_the_showings_has_a_lesion(samples: Samples, share: float) -> None:
    lesions = Pasting(samples, share).choose(torch.zeros(400, dtype=torch.int64), SEEDS)
    assert (lesions >= 0).float().mean() == pytest.approx(share, abs=0.08)


def test_what_an_image_gets_depends_on_its_own_seed_alone(samples: Samples) -> None:
    pasting, indices = Pasting(samples, 0.5), torch.zeros(400, dtype=torch.int64)
    alone = torch.cat([pasting.choose(indices[:1], seed[None]) for seed in SEEDS])
    assert alone.tolist() == pasting.choose(indices, SEEDS).tolist()


def test_pasting_leaves_the_samples_as_they_were(samples: Samples) -> None:
    before = samples.images.clone(), samples.masks.clone()
    pasting = Pasting(samples, 1.0)
    pasting.paste(torch.tensor([0, 1, 2]), torch.tensor([2, 2, -1]))
    assert (samples.images == before[0]).all()
    assert (samples.masks == before[1]).all()


def test_a_batch_holds_the_class_of_the_lesion_that_it_shows(samples: Samples) -> None:
    config = replace(PRODUCT, architecture=TINY, augmentation="none", pasted_share=1.0)
    weights = torch.tensor([1.0, 2.0, 4.0])
    images, masks, labels, _ = make_batch(
        Pasting(samples, 1.0), torch.tensor([0, 3]), weights, current_group(), config, torch.device("cpu")
    )
    assert labels.tolist() == [MALIGNANT, BENIGN]
    assert masks.sum(dim=(1, 2, 3)).tolist() == [400, 25]
    assert images.shape == (2, 1, SIDE, SIDE)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"pasted_share must lie in \[0, 1\]"):
        replace(PRODUCT, pasted_share=share)


def test_a_recipe_pastes_nothing_unless_it_says_so() -> None:
    assert TrainingConfig.__dataclass_fields__["pasted_share"].default == 0
