"""The methods that compare features: their weights, what they learn, and that a student learns by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.distill import losses
from edgekd.distill.methods import FEATURE_METHODS, bindable_method_named
from edgekd.distill.methods.base import Answers, FeaturesMissing, Guide, Moment, Probe, ask
from edgekd.distill.methods.crd import CRD
from edgekd.distill.methods.fusion import Fusion, Review
from edgekd.distill.methods.regressors import Regressor, on_one_grid, seeded
from edgekd.distill.taps import Taps, stage_ends
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network
from edgekd.teachers import CifarResNet

pytestmark = pytest.mark.whole  # loads torch

SAMPLES = 24
every_method = pytest.mark.parametrize("name", [*FEATURE_METHODS, "dist+at", "kd+sp+rkd", "crd+reviewkd"])


def drawn(seed: int, *shape: int) -> Tensor:
    """Draw numbers around 0."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answers(seed: int, widths: tuple[int, ...] = (4, 6, 8), sizes: tuple[int, ...] = (8, 4, 2)) -> Answers:
    """Draw what a network with three stages says to a batch of eight."""
    features = tuple(drawn(seed + i, 8, w, s, s) for i, (w, s) in enumerate(zip(widths, sizes, strict=True)))
    return Answers(drawn(seed + 9, 8, 3), features)


STUDENT = answers(1)
TEACHER = answers(100, widths=(5, 7, 9), sizes=(16, 8, 4))
MOMENT = Moment(torch.arange(8) % 3, torch.arange(8), progress=0.5, step=0)
PROBE = Probe(STUDENT, TEACHER, SAMPLES)
HARD = losses.cross_entropy(STUDENT.logits, MOMENT.target)


def loss(name: str, **moment: Any) -> Tensor:
    """Give the loss of a freshly bound method on the answers above."""
    return bindable_method_named(name).bind(PROBE).loss(STUDENT, TEACHER, replace(MOMENT, **moment)).detach()


def test_relations_weigh_their_terms_as_published() -> None:
    """3000 · sp on the deepest feature; rkd 25 and 50, and pkt 30000, on the deepest feature's averages."""
    ours, theirs = STUDENT.features[2], TEACHER.features[2]
    mean_ours, mean_theirs = ours.mean((2, 3)), theirs.mean((2, 3))
    wanted = {
        "sp": HARD + 3000 * losses.sp(ours, theirs),
        "rkd": HARD + losses.rkd(mean_ours, mean_theirs, 25.0, 50.0),
        "pkt": HARD + 30000 * losses.pkt(mean_ours, mean_theirs),
    }
    for name, value in wanted.items():
        assert float(loss(name)) == pytest.approx(float(value), rel=1e-6)


def test_at_adds_up_the_stages_that_have_one_resolution() -> None:
    """1000 times the sum; the student's 8x8 goes with the teacher's 8x8, its 4x4 with the 4x4."""
    total = losses.at(STUDENT.features[0], TEACHER.features[1]) + losses.at(STUDENT.features[1], TEACHER.features[2])
    assert float(loss("at")) == pytest.approx(float(HARD + 1000 * total), rel=1e-6)


def test_hint_weighs_the_middle_level_by_100() -> None:
    """The levels are 8x8 and 4x4, the first of the two middle ones counts, behind the regressor."""
    guide = bindable_method_named("hint").bind(PROBE)
    mapped, target = guide.regressor(STUDENT.features[0], TEACHER.features[1])  # type: ignore[operator]  # a module
    assert mapped.shape == target.shape == (8, 7, 8, 8)
    found = guide.loss(STUDENT, TEACHER, MOMENT)
    assert float(found.detach()) == pytest.approx(float((HARD + 100 * losses.hint(mapped, target)).detach()), rel=1e-6)


def test_fitnet_has_two_stages() -> None:
    """First the hint alone, no cross entropy; then KD alone, as kd weighs it."""
    hint_alone = (loss("hint") - HARD) / 100
    assert float(loss("fitnet", progress=0.1)) == pytest.approx(float(hint_alone), rel=1e-5)
    soft = 0.1 * HARD + 0.9 * losses.kd(STUDENT.logits, TEACHER.logits, 4.0)
    assert float(loss("fitnet", progress=0.125)) == pytest.approx(float(soft), rel=1e-6)


def test_fitnets_first_stage_trains_nothing_behind_the_hint() -> None:
    """Layers after the middle get no gradient at all, so neither decay nor momentum moves them."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(64, 3)
    )
    with Taps(network, ("0",)) as taps:
        student = ask(network, taps, drawn(3, 8, 1, 8, 8))
        teacher = Answers(TEACHER.logits, TEACHER.features[1:2])
        guide = bindable_method_named("fitnet").bind(Probe(student, teacher, SAMPLES))
        guide.loss(student, teacher, replace(MOMENT, progress=0.0)).backward()  # type: ignore[no-untyped-call]  # torch
    assert network[0].weight.grad is not None
    assert network[2].weight.grad is None
    assert network[4].weight.grad is None


def test_reviewkd_weighs_all_levels_by_5_and_warms_up() -> None:
    """Fused features of both levels and of the embedding; half the weight after half of the first twelfth."""
    guide = bindable_method_named("reviewkd").bind(PROBE)
    ours = [*STUDENT.features[:2], STUDENT.embedding[:, :, None, None]]
    theirs = [*TEACHER.features[1:], TEACHER.embedding[:, :, None, None]]
    whole = losses.reviewkd(guide.review(ours), theirs).detach()  # type: ignore[operator]  # a module by attribute
    assert float(loss("reviewkd")) == pytest.approx(float(HARD + 5 * whole), rel=1e-5)
    assert float(loss("reviewkd", progress=1 / 24)) == pytest.approx(float(HARD + 2.5 * whole), rel=1e-5)


def test_crd_contrasts_in_both_directions_by_0_8() -> None:
    """Student among the teacher's rows and the other way round, with constants from the first batch."""
    guide: Any = bindable_method_named("crd").bind(PROBE).eval()
    ours = nn.functional.normalize(guide.student_head(STUDENT.embedding), dim=1).detach()
    theirs = nn.functional.normalize(guide.teacher_head(TEACHER.embedding), dim=1).detach()
    drawn_rows = guide.student_bank.draw(16384, 0)
    excluded = drawn_rows.unsqueeze(0) == torch.arange(8).unsqueeze(1)
    total = torch.zeros(())
    for pair, bank in (((ours, theirs), guide.teacher_bank), ((theirs, ours), guide.student_bank)):
        rows = bank.rows[drawn_rows]
        z = SAMPLES * float((pair[0] @ rows.T / 0.07).exp().mean())
        total = total + losses.crd(*pair, rows, losses.Contrast(SAMPLES, 0.07, z), excluded)
    assert float(guide.loss(STUDENT, TEACHER, MOMENT).detach()) == pytest.approx(float(HARD + 0.8 * total), rel=1e-4)


def test_crd_remembers_what_it_has_seen_while_it_trains() -> None:
    """A training step moves the batch's rows and notes classes; an evaluation moves nothing; constants stay."""
    guide: Any = CRD(negatives=10).bind(PROBE)
    guide.eval().loss(STUDENT, TEACHER, MOMENT)
    untouched, constants = guide.student_bank.rows.clone(), guide.normalizers.clone()
    guide.train().loss(STUDENT, TEACHER, replace(MOMENT, step=1))
    moved = (guide.student_bank.rows != untouched).any(1)
    assert moved.nonzero().flatten().tolist() == list(range(8))
    assert guide.teacher_bank.classes.tolist() == [0, 1, 2, 0, 1, 2, 0, 1] + [-1] * 16
    assert torch.equal(guide.normalizers, constants)
    assert bool((constants > 0).all())


def test_combinations_add_their_guidance() -> None:
    """dist+at: one cross entropy, both terms; a weight is a multiple of the published one."""
    logits = losses.dist(STUDENT.logits, TEACHER.logits, 2.0, 2.0, 4.0)
    attention = loss("at") - HARD
    assert float(loss("dist+at")) == pytest.approx(float(HARD + logits + attention), rel=1e-6)
    guide = bindable_method_named("kd+at", {"at": 0.25}).bind(PROBE)
    wanted = 0.1 * HARD + 0.9 * losses.kd(STUDENT.logits, TEACHER.logits, 4.0) + 0.25 * attention
    assert float(guide.loss(STUDENT, TEACHER, MOMENT)) == pytest.approx(float(wanted), rel=1e-6)


@every_method
def test_a_guide_is_a_function_of_the_probe_and_its_seed(name: str) -> None:
    """Bound twice it has the same weights, another seed gives others, and torch's own generator is left alone."""
    method = bindable_method_named(name)
    state = torch.random.get_rng_state()
    first, second, other = (method.bind(replace(PROBE, seed=seed)).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
    learnt = [key for key in first if key.endswith(("conv.weight", "head.weight", "narrow.0.weight", "rows"))]
    assert all(not torch.equal(first[key], other[key]) for key in learnt)
    assert bool(learnt) == bool({"hint", "fitnet", "crd", "reviewkd"} & set(name.split("+")))


@every_method
def test_a_guide_goes_on_from_its_state(name: str) -> None:
    """Whatever it has learnt and remembered is in its state: a checkpoint of it gives the same next loss."""
    method = bindable_method_named(name)
    guide, other = method.bind(PROBE), method.bind(PROBE)
    guide.loss(STUDENT, TEACHER, MOMENT)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.1)
    other.load_state_dict(guide.state_dict())
    following = replace(MOMENT, step=1)
    assert torch.equal(guide.loss(STUDENT, TEACHER, following), other.loss(STUDENT, TEACHER, following))


@every_method
@pytest.mark.parametrize("missing", ["student", "teacher"])
def test_features_that_are_missing_are_named_when_binding(name: str, missing: str) -> None:
    """Not in the first step of a training."""
    probe = replace(PROBE, **{missing: Answers(drawn(0, 8, 3))})
    with pytest.raises(FeaturesMissing, match="tap"):
        bindable_method_named(name).bind(probe)


@pytest.mark.parametrize("name", ["rkd", "pkt", "sp", "crd"])
def test_embeddings_may_be_tapped_themselves(name: str) -> None:
    """Methods of relations take a tapped vector as it is: the same as of a map with one pixel."""
    vector = replace(STUDENT, features=(STUDENT.features[2].mean((2, 3)),))
    pixel = replace(STUDENT, features=(vector.features[0][:, :, None, None],))
    found = [
        bindable_method_named(name).bind(replace(PROBE, student=s)).loss(s, TEACHER, MOMENT) for s in (vector, pixel)
    ]
    assert float(found[0].detach()) == pytest.approx(float(found[1].detach()), rel=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs", "size"), [((8, 8), (4, 4), (4, 4)), ((3, 6), (6, 4), (3, 4)), ((2, 2), (2, 2), (2, 2))]
)
def test_features_meet_on_the_coarser_grid(
    ours: tuple[int, int], theirs: tuple[int, int], size: tuple[int, int]
) -> None:
    """Whichever is finer is averaged, axis by axis; what fits is left as it is."""
    student, teacher = drawn(1, 2, 3, *ours), drawn(2, 2, 5, *theirs)
    left, right = on_one_grid(student, teacher)
    assert left.shape[2:] == right.shape[2:] == size
    assert (left is student) is (ours == size)
    assert (right is teacher) is (theirs == size)


def test_a_regressor_gives_the_teachers_width_and_is_trained() -> None:
    """Its parameters are its module's, so an optimizer that gets a guide's parameters gets them."""
    student, teacher = drawn(1, 2, 3, 8, 8), drawn(2, 2, 5, 4, 4)
    regressor = Regressor(student, teacher)
    mapped, target = regressor(student, teacher)
    assert mapped.shape == target.shape == (2, 5, 4, 4)
    losses.hint(mapped, target).backward()  # type: ignore[no-untyped-call]  # untyped in torch
    assert all(parameter.grad is not None for parameter in regressor.parameters())


@pytest.mark.parametrize(("bias", "own"), [(60.0, True), (-60.0, False)])
def test_fusion_weighs_a_stage_against_the_deeper_ones(bias: float, own: bool) -> None:
    """Attention all on the one side gives the stage itself, all on the other the deeper one, each pixel repeated."""
    fusion = Fusion(2, 2, 3, is_deepest=False)
    assert fusion.attention is not None
    nn.init.zeros_(fusion.attention.weight)
    with torch.no_grad():
        fusion.attention.bias.copy_(torch.tensor([bias, -bias]))
    feature, deeper = drawn(1, 2, 2, 4, 4), drawn(2, 2, 2, 2, 2)
    _, fused = fusion(feature, deeper)
    repeated = deeper.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.allclose(fused, fusion.narrow(feature) if own else repeated, atol=1e-6)


def test_a_review_reaches_from_every_stage_to_all_shallower_ones() -> None:
    """The shallowest output depends on all stages, the deepest on its own alone; shapes are the teacher's widths."""
    review = Review([4, 6, 8], [5, 7, 9])
    features = [
        drawn(i, 2, width, size, size).requires_grad_() for i, (width, size) in enumerate([(4, 8), (6, 4), (8, 1)])
    ]
    found = review(features)
    assert [tuple(f.shape[1:]) for f in found] == [(5, 8, 8), (7, 4, 4), (9, 1, 1)]
    for number, output in enumerate(found):
        gradients = torch.autograd.grad(output.square().sum(), features, retain_graph=True, allow_unused=True)
        assert [gradient is not None for gradient in gradients] == [i >= number for i in range(3)]


class Pair:
    """A searched student, a frozen teacher with another width and resolution, and eight images."""

    def __init__(self) -> None:
        space = space_named("tiny-28")
        with seeded(0):
            self.student = Network(graph_of(space, space.reference()))
            self.teacher = CifarResNet("resnet8", 1, 10).eval().requires_grad_(False)
        self.images, self.target = drawn(5, 8, 1, 28, 28), torch.arange(8) % 10
        self.student_taps = stage_ends(self.student, self.images)
        self.teacher_taps = stage_ends(self.teacher, self.images)

    def train(self, name: str, steps: int) -> tuple[Guide, list[float]]:
        """Train by nothing but a method's loss, in the bare form that every loop has."""
        found = []
        with Taps(self.student, self.student_taps) as ours, Taps(self.teacher, self.teacher_taps) as theirs:
            with torch.no_grad():
                teacher = ask(self.teacher, theirs, self.images)
                guide = bindable_method_named(name).bind(Probe(ask(self.student, ours, self.images), teacher, SAMPLES))
            optimizer = torch.optim.Adam([*self.student.parameters(), *guide.parameters()], 3e-3)
            for step in range(steps):
                moment = Moment(self.target, torch.arange(8), progress=0.5, step=step)
                value = guide.loss(ask(self.student, ours, self.images), teacher, moment)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]  # untyped in torch
                optimizer.step()
                found.append(float(value.detach()))
        return guide, found


@pytest.mark.slow  # a training by each
@every_method
def test_a_student_learns_by_every_method(name: str) -> None:
    """On a searched student and a ResNet the loss falls, all that the guide learns is reached, the teacher stays."""
    pair = Pair()
    before = {key: value.clone() for key, value in pair.teacher.state_dict().items()}
    guide, found = pair.train(name, steps=15)
    assert found[-1] < 0.95 * found[0]
    # fitnet's regressor is of its first stage alone, which this training is past
    assert name == "fitnet" or all(parameter.grad is not None for parameter in guide.parameters())
    assert all(torch.equal(before[key], value) for key, value in pair.teacher.state_dict().items())
