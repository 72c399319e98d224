"""Learning from other versions: their joint answer beside the truth, and all that taught them counted as seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax
from test_training import CONFIG, few, samples  # noqa: F401  # fixtures
from torch.nn import functional
from versions import SIDE_64, make_network, write_version

from busi_core.data.dataset import Samples
from busi_core.errors import ModelUnavailableError
from busi_core.models.interface import Outputs
from busi_core.release import choose_start
from busi_core.training.loop import fit
from busi_core.training.losses import imitation_loss


def answer(seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randn(2, 1, 4, 4, generator=generator)
    return Outputs(masks, torch.randn(2, 3, generator=generator), torch.zeros(2, 1, 1, 1))


def test_the_loss_is_cross_entropy_against_the_mean_of_the_teachers_by_its_formula() -> None:
    student, teachers = answer(0), [answer(1), answer(2)]
    mask = np.mean([1 / (1 + np.exp(-t.mask_logits.double().numpy())) for t in teachers], axis=0)
    said = 1 / (1 + np.exp(-student.mask_logits.double().numpy()))
    pixels = -(mask * np.log(said) + (1 - mask) * np.log(1 - said)).mean()
    classes = np.mean([softmax(t.class_logits.double().numpy(), axis=1) for t in teachers], axis=0)
    image = -(classes * log_softmax(student.class_logits.double().numpy(), axis=1)).sum(axis=1).mean()
    assert float(imitation_loss(student, teachers, 0.5)) == pytest.approx(pixels + 0.5 * image, rel=1e-5)
    assert float(imitation_loss(student, teachers, 0.0)) == pytest.approx(pixels, rel=1e-5)


def test_nothing_is_better_than_to_say_what_the_teachers_say() -> None:
    teacher = answer(1)
    best = float(imitation_loss(teacher, [teacher], 0.5))
    for seed in range(2, 12):
        assert float(imitation_loss(answer(seed), [teacher], 0.5)) > best


@pytest.mark.slow
def test_a_student_comes_to_say_what_its_teacher_says_and_not_what_the_labels_say(
    few: Samples,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Only the teacher is listened to, and the teacher calls every scan malignant."""
    teacher = make_network(seed=5)
    with torch.no_grad():
        teacher.class_head[-1].weight.zero_()  # type: ignore[index, operator, union-attr]
        teacher.class_head[-1].bias.copy_(torch.tensor([0.0, 0.0, 6.0]))  # type: ignore[index, operator, union-attr]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    config = replace(
        CONFIG,
        epochs=25,
        learning_rate=0.02,
        teachers=("somebody",),
        teacher_share=1.0,
        class_weight=1.0,
        average_decay=0.5,
    )
    later_is_better = iter(range(100))
    fit(config, few, few, tmp_path, teachers=[teacher], judge=lambda *_: (float(next(later_is_better)), 0.0, 0.0))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items()), "it was changed"
    student = make_network()
    student.load_state_dict(load_file(tmp_path / "best.safetensors"))
    images = few.images.float() / 255 * 2 - 1
    said = functional.softmax(student(images).class_logits, dim=1)
    assert bool((said.argmax(dim=1) == 2).float().mean() > 0.9)
    assert len(set(few.labels.tolist())) == 3


def test_what_taught_the_teachers_counts_as_seen(tmp_path: Path) -> None:
    """Else a test scan could reach the student through a teacher, and no evaluation would refuse it."""
    write_version(tmp_path, "t1", seed=1, trained_on=("busi/benign (1)",), preprocess=CONFIG.preprocess)
    write_version(tmp_path, "t2", seed=2, trained_on=("busi/benign (2)",), preprocess=CONFIG.preprocess)
    config = replace(CONFIG, start="random", teachers=("t1", "t2"))
    start = choose_start(config, encoder_dir=tmp_path, weights_dir=tmp_path)
    assert start.trained_on == ("busi/benign (1)", "busi/benign (2)")
    assert len(start.teachers) == 2
    assert not any(parameter.requires_grad for teacher in start.teachers for parameter in teacher.parameters())


def test_a_teacher_that_reads_another_input_is_refused_by_name(tmp_path: Path) -> None:
    write_version(tmp_path, "wide", preprocess=SIDE_64)
    assert CONFIG.preprocess != SIDE_64
    with pytest.raises(ModelUnavailableError, match="'wide' cannot teach"):
        choose_start(replace(CONFIG, start="random", teachers=("wide",)), encoder_dir=tmp_path, weights_dir=tmp_path)
