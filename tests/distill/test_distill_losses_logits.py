"""Decoupled and standardized distillation against plain Python, in their limits, and under gradcheck."""

from __future__ import annotations

from collections.abc import Callable

import plain_losses
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekd.distill import losses

pytestmark = pytest.mark.whole  # loads torch

Loss = Callable[[Tensor, Tensor], Tensor]

LABELS = torch.tensor([2, 0, 4, 4])


def logits(seed: int, rows: int = 4, classes: int = 5) -> Tensor:
    """Draw float64 logits."""
    return 3 * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0)])
@given(seed=st.integers(0, 10**6), temperature=st.floats(1, 20), shape=st.tuples(st.integers(1, 6), st.integers(2, 7)))
def test_dkd_is_the_papers_formula(
    standardize: bool, alpha: float, beta: float, seed: int, temperature: float, shape: tuple[int, int]
) -> None:
    """The loss in float64 is the plain-Python sum to 1e-9, each divergence by itself and both together."""
    student, teacher = logits(seed, *shape), logits(seed + 1, *shape)
    target = torch.randint(shape[1], shape[:1], generator=torch.Generator().manual_seed(seed))
    found = float(losses.dkd(student, teacher, target, alpha, beta, temperature, standardize))
    lists = (student.tolist(), teacher.tolist(), target.tolist())
    assert found == pytest.approx(plain_losses.dkd(*lists, alpha, beta, temperature, standardize), rel=1e-9, abs=1e-9)


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.5, 20), classes=st.integers(1, 7))
def test_kd_of_standardized_logits_is_kd_after_standardizing(seed: int, temperature: float, classes: int) -> None:
    """Each sample's logits lose their mean and are divided by their own deviation, before the temperature."""
    student, teacher = logits(seed, 4, classes), logits(seed + 1, 4, classes)
    found = float(losses.kd(student, teacher, temperature, standardize=True))
    wanted = plain_losses.kd(student.tolist(), teacher.tolist(), temperature, standardize=True)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_standardized_logits_have_no_mean_and_the_deviation_one() -> None:
    """The deviation is the sample's, over one class less than there are."""
    found = losses.standardized(logits(1))
    assert found.mean(1).tolist() == pytest.approx([0] * 4, abs=1e-12)
    assert found.std(1, correction=1).tolist() == pytest.approx([1] * 4, abs=1e-6)


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_standardizing_forgives_a_students_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    """A student whose logits are the teacher's but for scale and shift has nothing to learn."""
    teacher = logits(seed)
    student = scale * teacher + shift
    assert float(losses.kd(student, teacher, 2.0, standardize=True)) == pytest.approx(0, abs=1e-9)
    assert float(losses.dkd(student, teacher, LABELS, 1.0, 8.0, 2.0, standardize=True)) == pytest.approx(0, abs=1e-8)


def test_dkd_weighed_by_the_teachers_doubt_is_kd() -> None:
    """With α = 1 and β = 1 − pt, sample by sample, the two divergences add up to KL: the paper's equation 6."""
    student, teacher = logits(2), logits(3)
    doubt = 1 - (teacher / 4).softmax(1)[range(4), LABELS]
    rows = [
        losses.dkd(student[i : i + 1], teacher[i : i + 1], LABELS[i : i + 1], 1.0, float(doubt[i]), 4.0)
        for i in range(4)
    ]
    assert float(torch.stack(rows).mean()) == pytest.approx(float(losses.kd(student, teacher, 4.0)), abs=1e-12)


def test_dkd_of_two_classes_has_no_others_to_tell_apart() -> None:
    """One other class is certain among the others: NCKD is 0 and TCKD is all of kd."""
    student, teacher, target = logits(4, 3, 2), logits(5, 3, 2), torch.tensor([0, 1, 1])
    assert float(losses.dkd(student, teacher, target, 0.0, 8.0, 4.0)) == pytest.approx(0, abs=1e-12)
    whole = float(losses.kd(student, teacher, 4.0))
    assert float(losses.dkd(student, teacher, target, 1.0, 8.0, 4.0)) == pytest.approx(whole, abs=1e-12)


LOSSES: dict[str, Loss] = {
    "kd": lambda s, t: losses.kd(s, t, 4.0),
    "kd standardized": lambda s, t: losses.kd(s, t, 2.0, standardize=True),
    "dkd": lambda s, t: losses.dkd(s, t, LABELS[: len(s)] % s.shape[1], 1.0, 8.0, 4.0),
    "dkd standardized": lambda s, t: losses.dkd(s, t, LABELS[: len(s)] % s.shape[1], 9.0, 72.0, 2.0, standardize=True),
    "dist": lambda s, t: losses.dist(s, t, 2.0, 2.0, 4.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@every_loss
def test_gradients_are_those_of_the_formula(loss: Loss) -> None:
    """Autograd agrees with finite differences."""
    assert torch.autograd.gradcheck(lambda s: loss(s, logits(8)), (logits(7).requires_grad_(),))


@every_loss
def test_an_equal_student_costs_nothing(loss: Loss) -> None:
    """Where the student answers as the teacher does, the loss is 0, but for what keeps a constant row finite."""
    assert float(loss(logits(9), logits(9))) == pytest.approx(0, abs=1e-4)


@every_loss
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (torch.zeros(4, 5), logits(1)),
        (logits(1), torch.zeros(4, 5)),
        (torch.zeros(4, 5), torch.zeros(4, 5)),
        (logits(1, 1), logits(2, 1)),
        (logits(1, 4, 1), logits(2, 4, 1)),
        (logits(1)[:1].repeat(4, 1), logits(2)),
        (300 * logits(1), -300 * logits(1)),
    ],
    ids=["constant student", "constant teacher", "both", "one sample", "one class", "equal samples", "certain"],
)
def test_loss_and_gradient_are_finite_at_the_edges(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    """Constant rows, a batch of one, a single class, equal samples and certainty can be trained on, in either width."""
    for dtype in (torch.float64, torch.float32):
        given_student = student.to(dtype).clone().requires_grad_()
        found = loss(given_student, teacher.to(dtype))
        (gradient,) = torch.autograd.grad(found, given_student)
        assert found.dtype == dtype
        assert losses.finite(found)
        assert bool(torch.isfinite(gradient).all())
