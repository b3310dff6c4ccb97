"""The methods by name, how those that compare logits weigh their terms, and how methods are combined."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgekd.distill import losses
from edgekd.distill.methods import (
    FEATURE_METHODS,
    JOINT_METHODS,
    LOGIT_METHODS,
    METHODS,
    MethodError,
    bindable_method_named,
    method_named,
)
from edgekd.distill.methods.base import Answers, Moment, Probe
from edgekd.distill.methods.dkd import DKD
from edgekd.errors import UnknownName

pytestmark = pytest.mark.whole  # loads torch

STUDENT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [-1.0, 4.0, 0.0]])
LABELS = torch.tensor([0, 1])
HARD = losses.cross_entropy(STUDENT, LABELS)
KD = losses.kd(STUDENT, TEACHER, 4.0)
DIST = losses.dist(STUDENT, TEACHER, 2.0, 2.0, 4.0)
DKD_LOSS = losses.dkd(STUDENT, TEACHER, LABELS, 1.0, 8.0, 4.0)

PUBLISHED = {
    "none": HARD,
    "kd": 0.1 * HARD + 0.9 * KD,
    "kd-ls": 0.1 * HARD + 9 * losses.kd(STUDENT, TEACHER, 2.0, standardize=True),
    "dist": HARD + DIST,
    "dkd": HARD + DKD_LOSS,
    "dkd-ls": HARD + 9 * losses.dkd(STUDENT, TEACHER, LABELS, 1.0, 8.0, 2.0, standardize=True),
}


def bound_loss(name: str, progress: float, weights: dict[str, float] | None = None) -> Tensor:
    """Give the loss of a method bound to the logits above."""
    student, teacher = Answers(STUDENT), Answers(TEACHER)
    guide = bindable_method_named(name, weights).bind(Probe(student, teacher, samples=2))
    return guide.loss(student, teacher, Moment(LABELS, torch.arange(2), progress, step=0))


def test_every_method_that_compares_logits_is_known_here() -> None:
    """The table above leaves none out, and no name is in both of the product's."""
    assert set(PUBLISHED) == set(LOGIT_METHODS)
    assert set(METHODS) == set(LOGIT_METHODS) | set(FEATURE_METHODS) | set(JOINT_METHODS)
    assert not set(LOGIT_METHODS) & set(FEATURE_METHODS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_method_says_whether_it_needs_a_teacher(name: str) -> None:
    """Only plain training does without."""
    assert method_named(name).needs_teacher is (name != "none")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_methods_weigh_their_terms_as_published(name: str) -> None:
    """As a loss of logits, and bound to two networks once a warm-up is over, bit for bit the same."""
    found = method_named(name).loss(STUDENT, TEACHER, LABELS)
    assert float(found) == pytest.approx(float(PUBLISHED[name]), rel=1e-6)
    assert torch.equal(bound_loss(name, progress=1.0), found)


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("none", set()),
        ("kd", {"logits"}),
        ("dkd", {"logits", "target"}),
        ("kd+dkd", {"logits", "target"}),
        ("at", {"features"}),
        ("fitnet", {"features", "logits"}),
        ("crd", {"features", "target", "indices"}),
        ("dist+at", {"features", "logits"}),
    ],
)
def test_each_method_says_what_its_guidance_needs(name: str, needs: set[str]) -> None:
    """A training loop can see from it what to prepare."""
    assert bindable_method_named(name).needs == needs


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.0), (1 / 24, 0.5), (1 / 12, 1.0), (0.7, 1.0)])
def test_dkd_warms_up_over_the_first_twelfth(progress: float, factor: float) -> None:
    """Its guidance begins at 0 and grows to its weight, as it does in 20 of 240 epochs."""
    wanted = float(HARD + factor * DKD_LOSS)
    assert float(bound_loss("dkd", progress)) == pytest.approx(wanted, rel=1e-6)
    assert float(method_named("dkd").loss(STUDENT, TEACHER, LABELS, progress)) == pytest.approx(wanted, rel=1e-6)


def test_a_warm_up_of_no_length_is_none() -> None:
    """A share of 0 has the full weight from the first step."""
    found = DKD(warmup_share=0).loss(STUDENT, TEACHER, LABELS, 0.0)
    assert float(found) == pytest.approx(float(HARD + DKD_LOSS), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "weights", "wanted"),
    [
        ("kd+dist", {}, 0.1 * HARD + 0.9 * KD + DIST),
        ("dist+kd", {"kd": 0.5}, 0.1 * HARD + 0.45 * KD + DIST),
        ("dist+dkd", {"dist": 0.0, "dkd": 2.0}, HARD + 2 * DKD_LOSS),
        ("dist", {"dist": 3.0}, HARD + 3 * DIST),
    ],
)
def test_combined_methods_share_one_cross_entropy(name: str, weights: dict[str, float], wanted: Tensor) -> None:
    """Guidance adds up, each part at a multiple of its weight; cross entropy gets the smallest weight left to it."""
    found = method_named(name, weights).loss(STUDENT, TEACHER, LABELS)
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)
    assert torch.equal(bound_loss(name, 1.0, weights), found)


@pytest.mark.parametrize(("wrong", "nearest"), [("kdd", "kd"), ("DIST", "dist"), ("non", "none"), ("dits", "dist")])
def test_an_unknown_method_suggests_the_nearest(wrong: str, nearest: str) -> None:
    """The message holds the wrong name, the nearest, and all; alone or as a part."""
    for name in (wrong, f"at+{wrong}"):
        with pytest.raises(UnknownName, match=f"'{wrong}'.*did you mean '{nearest}'.*crd, dist, dkd"):
            bindable_method_named(name)


@pytest.mark.parametrize("name", ["kd+kd", "none+kd", "at+none"])
def test_what_cannot_be_combined_is_refused(name: str) -> None:
    """A part twice, and a part that is the absence of all others."""
    with pytest.raises(MethodError, match="cannot be combined"):
        bindable_method_named(name)


@pytest.mark.parametrize("name", ["", "+kd", "kd+"])
def test_an_empty_part_is_no_method(name: str) -> None:
    """A plus joins two names."""
    with pytest.raises(UnknownName, match="unknown distillation method ''"):
        method_named(name)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_an_impossible_weight_is_refused(weight: float) -> None:
    """Weights are finite and at least 0."""
    with pytest.raises(MethodError, match="'kd' is not a number of at least 0"):
        method_named("kd", {"kd": weight})


def test_a_weight_of_no_part_is_refused() -> None:
    """A weight that would do nothing is a mistake."""
    with pytest.raises(MethodError, match="'at', which is no part of method 'kd'"):
        method_named("kd", {"at": 1.0})


@pytest.mark.parametrize("name", [*FEATURE_METHODS, "kd+at"])
def test_a_training_of_logits_alone_refuses_features(name: str) -> None:
    """The error says why, and names all that are possible."""
    with pytest.raises(MethodError, match=r"compares features.*dist, dkd, dkd-ls, kd, kd-ls, none"):
        method_named(name)
