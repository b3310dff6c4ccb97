"""Contrastive distillation against plain Python, in its limits, and the bank that negatives come from."""

from __future__ import annotations

import math

import plain_losses
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from edgekd.distill import losses
from edgekd.distill.losses.contrast import normalizer_of

pytestmark = pytest.mark.whole  # loads torch

seeds = st.integers(0, 10**6)


def directions(seed: int, rows: int, width: int = 4) -> Tensor:
    """Draw float64 vectors of norm 1."""
    numbers = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(numbers, dim=1)


@given(
    seed=seeds,
    batch=st.integers(1, 4),
    count=st.integers(1, 6),
    temperature=st.floats(0.07, 2),
    normalizer=st.floats(0.5, 1e5),
)
def test_crd_is_the_papers_formula(seed: int, batch: int, count: int, temperature: float, normalizer: float) -> None:
    """The loss in float64 is the plain-Python sum to 1e-9, with and without negatives that do not count."""
    anchor, positive, negatives = (directions(seed + i, n) for i, n in enumerate((batch, batch, count)))
    contrast = losses.Contrast(50, temperature, normalizer)
    excluded = torch.rand(batch, count, generator=torch.Generator().manual_seed(seed)) < 0.4
    lists = (anchor.tolist(), positive.tolist(), negatives.tolist(), 50, temperature, normalizer)
    for mask in (None, excluded):
        wanted = plain_losses.crd(*lists, None if mask is None else mask.tolist())
        assert float(losses.crd(anchor, positive, negatives, contrast, mask)) == pytest.approx(
            wanted, rel=1e-9, abs=1e-9
        )


def test_crd_gradients_are_those_of_the_formula() -> None:
    """Autograd agrees with finite differences, for the anchor and for the positive."""
    inputs = (directions(1, 3).requires_grad_(), directions(2, 3).requires_grad_())
    negatives, contrast = directions(3, 5), losses.Contrast(50, 0.5, 20.0)
    assert torch.autograd.gradcheck(lambda a, p: losses.crd(a, p, negatives, contrast), inputs)


def test_crd_is_least_where_the_positive_is_near_and_negatives_far() -> None:
    """Turned towards its own image and away from others, a student costs next to nothing; the other way round, much."""
    anchor = torch.tensor([[1.0, 0.0]])
    contrast = losses.Contrast(10, 0.07)
    good = losses.crd(anchor, anchor, -anchor.repeat(3, 1), contrast)
    bad = losses.crd(anchor, -anchor, anchor.repeat(3, 1), contrast)
    assert float(good) == pytest.approx(0, abs=1e-4)
    assert float(bad) > 40
    assert losses.finite(losses.crd(anchor, -anchor, anchor, losses.Contrast(10, 1e-3)))


def test_a_normalizer_from_the_scores_makes_chance_cost_what_chance_must() -> None:
    """Where all scores are equal, h = 1 / (1 + K) for all: ln(1 + K) + K · ln(1 + 1 / K)."""
    anchor, negatives = torch.ones(2, 1), torch.ones(7, 1)
    first = losses.Contrast(50, 0.07)
    contrast = losses.Contrast(50, 0.07, normalizer_of(anchor, negatives, first))
    assert contrast.normalizer == pytest.approx(50 * math.exp(1 / 0.07), rel=1e-6)
    wanted = math.log(8) + 7 * math.log(8 / 7)
    assert float(losses.crd(anchor, anchor, negatives, contrast)) == pytest.approx(wanted, rel=1e-5)


@given(seed=st.integers(-5, 10**9), step=st.integers(0, 10**9), count=st.integers(1, 30))
def test_what_a_bank_draws_is_a_function_of_seed_and_step(seed: int, step: int, count: int) -> None:
    """Whatever was drawn before; rows are different, and no more than there are."""
    first, second = losses.MemoryBank(20, 3, abs(seed)), losses.MemoryBank(20, 3, abs(seed))
    second.draw(count, step + 1)
    drawn = first.draw(count, step)
    assert drawn.tolist() == second.draw(count, step).tolist()
    assert len(set(drawn.tolist())) == len(drawn) == min(count, 20)


def test_steps_and_seeds_draw_differently() -> None:
    """Neither one alone decides."""
    bank, other = losses.MemoryBank(1000, 3, 1), losses.MemoryBank(1000, 3, 2)
    draws = [bank.draw(10, 1), bank.draw(10, 2), other.draw(10, 1)]
    assert len({tuple(drawn.tolist()) for drawn in draws}) == 3


def test_a_bank_moves_the_rows_of_a_batch_half_way() -> None:
    """The rows of a batch are the normalised mean of old and new; all others stay."""
    bank = losses.MemoryBank(5, 2, 0)
    before = bank.rows.clone()
    new = functional.normalize(torch.tensor([[1.0, 2.0], [3.0, -1.0]]), dim=1)
    bank.update(torch.tensor([4, 1]), torch.tensor([7, 8]), new)
    wanted = functional.normalize(before[[4, 1]] + new, dim=1)
    assert bank.rows[[4, 1]].flatten().tolist() == pytest.approx(wanted.flatten().tolist(), abs=1e-6)
    assert torch.equal(bank.rows[[0, 2, 3]], before[[0, 2, 3]])


def test_negatives_of_the_same_sample_or_class_are_excluded() -> None:
    """A row not seen yet has no class and is excluded by its index alone."""
    bank = losses.MemoryBank(5, 2, 0)
    bank.update(torch.tensor([4, 1]), torch.tensor([7, 8]), torch.ones(2, 2))
    found = bank.excluded(torch.tensor([4, 1, 0]), torch.tensor([0, 3]), torch.tensor([7, 9]))
    assert found.tolist() == [[True, False, True], [False, False, False]]


def test_a_bank_is_kept_whole_in_a_state() -> None:
    """Its rows and classes come back from a state, so that a checkpoint holds all there is."""
    bank, other = losses.MemoryBank(5, 2, 0), losses.MemoryBank(5, 2, 0)
    bank.update(torch.tensor([4]), torch.tensor([7]), torch.ones(1, 2))
    assert not torch.equal(bank.rows, other.rows)
    other.load_state_dict(bank.state_dict())
    assert torch.equal(bank.rows, other.rows)
    assert torch.equal(bank.classes, other.classes)
