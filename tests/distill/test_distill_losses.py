"""The losses against a reference in plain Python, in their limits, and under gradcheck."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekd.distill import losses

pytestmark = pytest.mark.whole  # loads torch

Rows = Sequence[Sequence[float]]

logit_pairs = st.tuples(st.integers(2, 5), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(
        *[
            st.lists(
                st.lists(st.floats(-8, 8), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
            )
            for _ in range(2)
        ]
    )
)


def logits(seed: int, rows: int = 4, classes: int = 5) -> Tensor:
    """Draw float64 logits."""
    return 3 * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(row: Sequence[float], temperature: float) -> list[float]:
    """Give the probabilities of a row of logits."""
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / math.fsum(powers) for power in powers]


def reference_kd(student: Rows, teacher: Rows, temperature: float) -> float:
    """Spell out T² · mean over samples of Σ p_t · ln(p_t / p_s)."""
    divergences = [
        math.fsum(p * math.log(p / q) for p, q in zip(softmax(t, temperature), softmax(s, temperature), strict=True))
        for s, t in zip(student, teacher, strict=True)
    ]
    return temperature**2 * math.fsum(divergences) / len(divergences)


def reference_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spell out Pearson's correlation, with the term that keeps a constant vector finite."""
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    product = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return product / (math.dist(a, [mean_a] * len(a)) * math.dist(b, [mean_b] * len(b)) + 1e-8)


def reference_dist(student: Rows, teacher: Rows, beta: float, gamma: float, tau: float) -> float:
    """Spell out τ² · (β · (1 − mean correlation over rows) + γ · (1 − mean correlation over columns))."""
    s, t = [softmax(row, tau) for row in student], [softmax(row, tau) for row in teacher]
    inter = [reference_correlation(a, b) for a, b in zip(s, t, strict=True)]
    intra = [reference_correlation(a, b) for a, b in zip(zip(*s, strict=True), zip(*t, strict=True), strict=True)]
    return tau**2 * (beta * (1 - math.fsum(inter) / len(inter)) + gamma * (1 - math.fsum(intra) / len(intra)))


@given(pair=logit_pairs, temperature=st.floats(0.5, 20))
def test_kd_is_the_papers_formula(pair: tuple[Rows, Rows], temperature: float) -> None:
    """The loss in float64 is the plain-Python sum to 1e-9."""
    student, teacher = pair
    found = losses.kd(torch.tensor(student).double(), torch.tensor(teacher).double(), temperature)
    wanted = reference_kd(torch.tensor(student).double().tolist(), torch.tensor(teacher).double().tolist(), temperature)
    assert float(found) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("beta", "gamma", "tau"), [(2.0, 2.0, 4.0), (1.0, 0.0, 1.0), (0.0, 1.0, 2.0)])
def test_dist_is_the_papers_formula(seed: int, beta: float, gamma: float, tau: float) -> None:
    """The loss in float64 is the plain-Python sum to 1e-9, each relation by itself and both together."""
    student, teacher = logits(seed), logits(seed + 100)
    found = float(losses.dist(student, teacher, beta, gamma, tau))
    assert found == pytest.approx(reference_dist(student.tolist(), teacher.tolist(), beta, gamma, tau), abs=1e-9)


def test_equal_logits_cost_nothing() -> None:
    """A student that answers as its teacher has no loss, and neither has one shifted by a constant a sample."""
    teacher = logits(1)
    shifted = teacher + torch.arange(4.0, dtype=torch.float64).unsqueeze(1)
    for student in (teacher, shifted):
        assert float(losses.kd(student, teacher, 4.0)) == pytest.approx(0, abs=1e-12)
        assert float(losses.dist(student, teacher, 2.0, 2.0, 4.0)) == pytest.approx(0, abs=1e-4)


@given(pair=logit_pairs, temperature=st.floats(0.5, 20))
def test_kd_is_never_negative(pair: tuple[Rows, Rows], temperature: float) -> None:
    """A divergence is at least 0."""
    student, teacher = (torch.tensor(rows).double() for rows in pair)
    assert float(losses.kd(student, teacher, temperature)) >= -1e-12


def test_kd_at_high_temperature_matches_centred_logits() -> None:
    """T² · KL tends to half the mean square of the centred differences (the paper's equation 4)."""
    student, teacher = logits(2), logits(3)
    difference = student - teacher
    centred = difference - difference.mean(1, keepdim=True)
    assert float(losses.kd(student, teacher, 1e4)) == pytest.approx(
        float((centred**2).mean(1).mean()) / 2, rel=1e-2, abs=0
    )


def test_kd_of_a_certain_teacher_is_cross_entropy() -> None:
    """A teacher who is sure of one class at T = 1 gives the loss of that hard label."""
    student, labels = logits(4), torch.tensor([2, 0, 4, 4])
    certain = torch.zeros_like(student).scatter_(1, labels.unsqueeze(1), 200.0)
    hard = -math.fsum(math.log(softmax(row, 1)[label]) for row, label in zip(student.tolist(), labels, strict=True)) / 4
    assert float(losses.kd(student, certain, 1.0)) == pytest.approx(hard, abs=1e-9)
    assert float(losses.cross_entropy(student, labels)) == pytest.approx(hard, abs=1e-9)


def test_dist_of_opposite_answers_is_at_its_largest() -> None:
    """Two classes answered the wrong way round are anti-correlated in both relations: 2 · τ² · (β + γ)."""
    teacher = torch.tensor([[2.0, -2.0], [-1.0, 1.0], [0.5, -0.5]], dtype=torch.float64)
    assert float(losses.dist(-teacher, teacher, 1.0, 3.0, 1.0)) == pytest.approx(8.0, abs=1e-4)


def test_dist_of_a_constant_row_is_finite() -> None:
    """A student that answers nothing at all has a loss and a gradient that can be trained on."""
    student = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    loss = losses.dist(student, logits(6), 2.0, 2.0, 4.0)
    loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    assert losses.finite(loss)
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())


@pytest.mark.parametrize(
    "loss",
    [lambda s, t: losses.kd(s, t, 4.0), lambda s, t: losses.dist(s, t, 2.0, 2.0, 4.0)],
    ids=["kd", "dist"],
)
def test_gradients_are_those_of_the_formula(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Autograd agrees with finite differences."""
    student = logits(7).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, logits(8)), (student,))


@pytest.mark.parametrize(("value", "is_finite"), [(1.5, True), (math.nan, False), (math.inf, False)])
def test_finite_tells_what_cannot_be_trained_on(value: float, is_finite: bool) -> None:
    """NaN and infinity are not finite."""
    assert losses.finite(torch.tensor(value)) is is_finite
