"""The methods by name, and how each weighs its terms."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill import losses
from edgekd.distill.methods import METHODS, method_named
from edgekd.errors import UnknownName

STUDENT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [-1.0, 4.0, 0.0]])
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(("name", "needs_teacher"), [("none", False), ("kd", True), ("dist", True)])
def test_each_method_says_whether_it_needs_a_teacher(name: str, needs_teacher: bool) -> None:
    """Only plain training does without."""
    assert method_named(name).needs_teacher is needs_teacher


def test_the_methods_weigh_their_terms_as_published() -> None:
    """none: CE; kd: 0.1 CE + 0.9 KD at T = 4; dist: CE + 2 inter + 2 intra at τ = 4."""
    hard = losses.cross_entropy(STUDENT, LABELS)
    wanted = {
        "none": hard,
        "kd": 0.1 * hard + 0.9 * losses.kd(STUDENT, TEACHER, 4.0),
        "dist": hard + losses.dist(STUDENT, TEACHER, 2.0, 2.0, 4.0),
    }
    assert set(wanted) == set(METHODS)
    for name, loss in wanted.items():
        assert float(method_named(name).loss(STUDENT, TEACHER, LABELS)) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize(("wrong", "nearest"), [("kdd", "kd"), ("DIST", "dist"), ("non", "none"), ("dits", "dist")])
def test_an_unknown_method_suggests_the_nearest(wrong: str, nearest: str) -> None:
    """The message holds the wrong name, the nearest, and all."""
    with pytest.raises(UnknownName, match=f"{wrong}.*did you mean '{nearest}'.*dist, kd, none"):
        method_named(wrong)
