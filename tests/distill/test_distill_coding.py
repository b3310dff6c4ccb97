"""Logits in a byte each: what comes back is what went in, within a bound that is fine where a softmax looks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekd.distill.coding import HEAD, decoded, encoded

ROWS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(ROWS)
def test_a_logit_comes_back_within_its_bound(logits: np.ndarray) -> None:
    """At a distance d below the largest within √(d · range) / 255 + range / 260,100, and roundings of float32."""
    found = decoded(encoded(logits))
    below = (logits.max(-1, keepdims=True) - logits).astype(np.float64)
    span = below.max(-1, keepdims=True)
    bound = np.sqrt(below * span) / 255 + span / 510**2 + 1e-5 * (np.abs(logits).max() + 1)
    assert (np.abs(found.astype(np.float64) - logits) <= bound).all()


@given(ROWS)
def test_the_order_of_classes_stays_but_for_ties(logits: np.ndarray) -> None:
    """What is larger before is never smaller afterwards, and the largest stays the largest."""
    found = decoded(encoded(logits))
    larger = logits[..., :, None] > logits[..., None, :]
    assert (found[..., :, None] >= found[..., None, :])[larger].all()
    assert (np.take_along_axis(found, logits.argmax(-1)[:, None], -1)[:, 0] == logits.max(-1)).all()


@given(ROWS)
def test_coded_logits_are_coded_alike(logits: np.ndarray) -> None:
    """One byte a class behind the head, whatever axes come before."""
    assert encoded(logits).shape == (len(logits), HEAD + logits.shape[1])
    assert (encoded(logits[None]) == encoded(logits)[None]).all()
    assert (decoded(encoded(logits)[None]) == decoded(encoded(logits))[None]).all()


def test_softened_teachers_lose_nothing_that_counts() -> None:
    """The divergence of coded from exact soft targets is far below any distillation loss, at temperature 1 and 4."""
    logits = np.random.default_rng(0).normal(0, 2.5, (2000, 100)).astype(np.float32)
    logits[np.arange(2000), np.arange(2000) % 100] += 12  # a sure teacher
    for temperature, most in ((1.0, 1e-3), (4.0, 1e-4)):
        exact, coded = (np.exp(z / temperature) for z in (logits.astype(float), decoded(encoded(logits)).astype(float)))
        p, q = exact / exact.sum(1, keepdims=True), coded / coded.sum(1, keepdims=True)
        assert 0 < (p * np.log(p / q)).sum(1).mean() < most
