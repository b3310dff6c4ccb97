"""The losses of features against plain Python, in their limits, and under gradcheck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plain_losses
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekd.distill import losses

pytestmark = pytest.mark.whole  # runs networks

Loss = Callable[[Tensor, Tensor], Tensor]

seeds = st.integers(0, 10**6)


def drawn(seed: int, *shape: int) -> Tensor:
    """Draw float64 numbers around 0."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MAPS: dict[str, tuple[Loss, Callable[[Any, Any], float]]] = {
    "hint": (losses.hint, plain_losses.hint),
    "at": (lambda s, t: losses.at(s, t, 2.0), lambda s, t: plain_losses.at(s, t, 2.0)),
    "at p=1": (lambda s, t: losses.at(s, t, 1.0), lambda s, t: plain_losses.at(s, t, 1.0)),
    "at p=3": (lambda s, t: losses.at(s, t, 3.0), lambda s, t: plain_losses.at(s, t, 3.0)),
    "sp": (losses.sp, plain_losses.sp),
    "context": (losses.hierarchical_context, plain_losses.hierarchical_context),
}
EMBEDDINGS: dict[str, tuple[Loss, Callable[[Any, Any], float]]] = {
    "rkd": (lambda s, t: losses.rkd(s, t, 25.0, 50.0), lambda s, t: plain_losses.rkd(s, t, 25.0, 50.0)),
    "rkd distances": (lambda s, t: losses.rkd(s, t, 1.0, 0.0), lambda s, t: plain_losses.rkd(s, t, 1.0, 0.0)),
    "rkd angles": (lambda s, t: losses.rkd(s, t, 0.0, 1.0), lambda s, t: plain_losses.rkd(s, t, 0.0, 1.0)),
    "pkt": (losses.pkt, plain_losses.pkt),
}
ALL: dict[str, Loss] = {name: loss for name, (loss, _) in (MAPS | EMBEDDINGS).items()}
every_loss = pytest.mark.parametrize("name", ALL)


def of_kind(name: str, seed: int, batch: int) -> Tensor:
    """Draw what a loss compares: feature maps or embeddings."""
    return drawn(seed, batch, 3, 4, 4) if name in MAPS else drawn(seed, batch, 6)


@pytest.mark.parametrize("name", MAPS)
@given(seed=seeds, shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
def test_losses_of_maps_are_the_papers_formulas(name: str, seed: int, shape: Sequence[int]) -> None:
    """In float64 each is the plain-Python sum to 1e-9, whatever the batch, the width and the grid."""
    loss, reference = MAPS[name]
    student, teacher = drawn(seed, *shape), drawn(seed + 1, *shape)
    wanted = reference(student.tolist(), teacher.tolist())
    assert float(loss(student, teacher)) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", EMBEDDINGS)
@given(seed=seeds, batch=st.integers(1, 5), widths=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_losses_of_embeddings_are_the_papers_formulas(
    name: str, seed: int, batch: int, widths: tuple[int, int]
) -> None:
    """In float64 each is the plain-Python sum to 1e-9, the networks differing in width."""
    loss, reference = EMBEDDINGS[name]
    student, teacher = drawn(seed, batch, widths[0]), drawn(seed + 1, batch, widths[1])
    wanted = reference(student.tolist(), teacher.tolist())
    assert float(loss(student, teacher)) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@given(seed=seeds)
def test_at_and_sp_compare_networks_of_other_widths(seed: int) -> None:
    """Attention needs one grid, similarities only one batch, and both are the plain-Python sums."""
    narrow, wide, coarse = drawn(seed, 3, 2, 4, 4), drawn(seed + 1, 3, 5, 4, 4), drawn(seed + 2, 3, 5, 2, 2)
    assert float(losses.at(narrow, wide)) == pytest.approx(
        plain_losses.at(narrow.tolist(), wide.tolist(), 2.0), abs=1e-9
    )
    assert float(losses.sp(narrow, coarse)) == pytest.approx(
        plain_losses.sp(narrow.tolist(), coarse.tolist()), abs=1e-9
    )


@given(seed=seeds)
def test_reviewkd_adds_up_the_context_losses_of_all_levels(seed: int) -> None:
    """Levels differ in shape; each counts by itself."""
    shapes = [(2, 3, 8, 8), (2, 4, 4, 4), (2, 5, 1, 1)]
    student = [drawn(seed + i, *shape) for i, shape in enumerate(shapes)]
    teacher = [drawn(seed + 9 + i, *shape) for i, shape in enumerate(shapes)]
    wanted = sum(
        plain_losses.hierarchical_context(s.tolist(), t.tolist()) for s, t in zip(student, teacher, strict=True)
    )
    assert float(losses.reviewkd(student, teacher)) == pytest.approx(wanted, rel=1e-9)


def test_reviewkd_of_unequal_or_no_levels_is_refused() -> None:
    """A level without its other, and no level at all, are mistakes of the caller."""
    with pytest.raises(ValueError, match="shorter"):
        losses.reviewkd([drawn(0, 1, 1, 1, 1)], [])
    with pytest.raises(ValueError, match="at least one level"):
        losses.reviewkd([], [])


@every_loss
def test_gradients_are_those_of_the_formula(name: str) -> None:
    """Autograd agrees with finite differences."""
    teacher = of_kind(name, 8, 4)
    assert torch.autograd.gradcheck(lambda s: ALL[name](s, teacher), (of_kind(name, 7, 4).requires_grad_(),))


@every_loss
def test_an_equal_student_costs_nothing(name: str) -> None:
    """Where the student's features are the teacher's, the loss is 0."""
    assert float(ALL[name](of_kind(name, 9, 4), of_kind(name, 9, 4))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["at", "sp", "rkd", "rkd distances", "rkd angles", "pkt"])
@given(seed=seeds, scale=st.floats(0.1, 10))
def test_losses_of_relations_do_not_see_the_scale(name: str, seed: int, scale: float) -> None:
    """Features that are all larger by one factor say the same."""
    teacher = of_kind(name, seed, 4)
    assert float(ALL[name](scale * teacher, teacher)) == pytest.approx(0, abs=1e-9)


@given(seed=seeds)
def test_rkd_does_not_see_where_the_embeddings_lie(seed: int) -> None:
    """Distances and angles stay when all move and turn together."""
    teacher = drawn(seed, 4, 3)
    turn, _ = torch.linalg.qr(drawn(seed + 1, 3, 3))
    assert float(losses.rkd(teacher @ turn + 5, teacher, 25.0, 50.0)) == pytest.approx(0, abs=1e-9)


@every_loss
@pytest.mark.parametrize("edge", ["one sample", "equal samples", "two equal", "zero student", "zero teacher", "tiny"])
def test_loss_and_gradient_are_finite_at_the_edges(name: str, edge: str) -> None:
    """Batches of one, duplicates (no distance, no direction) and dead features can be trained on, in either width."""
    batch = 1 if edge == "one sample" else 4
    student, teacher = of_kind(name, 1, batch), of_kind(name, 2, batch)
    if edge == "equal samples":
        student = student[:1].repeat(4, *[1] * (student.ndim - 1))
    if edge == "two equal":
        student[1] = student[0]
    student = {"zero student": 0 * student, "tiny": 1e-3 * student}.get(edge, student)
    teacher = 0 * teacher if edge == "zero teacher" else teacher
    for dtype in (torch.float64, torch.float32):
        given_student = student.to(dtype).clone().requires_grad_()
        found = ALL[name](given_student, teacher.to(dtype))
        (gradient,) = torch.autograd.grad(found, given_student)
        assert found.dtype == dtype
        assert losses.finite(found)
        assert float(gradient.abs().max()) < 1e6


def test_rkd_of_duplicates_is_the_formula_with_no_direction_between_them() -> None:
    """Two samples of one embedding, apart for the teacher: distance 0, cosine 0, as plain Python has it."""
    student, teacher = drawn(1, 4, 3), drawn(2, 4, 3)
    student[1] = student[0]
    wanted = plain_losses.rkd(student.tolist(), teacher.tolist(), 25.0, 50.0)
    assert float(losses.rkd(student, teacher, 25.0, 50.0)) == pytest.approx(wanted, rel=1e-9)


def test_rkd_pulls_apart_what_the_teacher_holds_apart() -> None:
    """A step against the gradient brings the student's distances nearer to the teacher's."""
    teacher = torch.tensor([[0.0], [1.0], [3.0]])
    student = torch.tensor([[0.0], [1.0], [1.5]], requires_grad=True)
    before = losses.rkd(student, teacher, 1.0, 0.0)
    (gradient,) = torch.autograd.grad(before, student)
    after = losses.rkd(student.detach() - 0.1 * gradient, teacher, 1.0, 0.0)
    assert float(after) < float(before.detach())
