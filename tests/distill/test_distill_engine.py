"""Mixed precision and several devices are Fabric's; plain training imports none of it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mortals import Killed, Mortal, equal, state
from torch import Tensor, nn

from edgekd.distill import checkpoint
from edgekd.distill.engine import Fabrics, Plain, engine_for
from edgekd.distill.lesson import Lesson
from edgekd.distill.mentors import CachedLogits, LiveTeacher
from edgekd.distill.methods import bindable_method_named, method_named
from edgekd.distill.methods.base import LogitGuide
from edgekd.distill.optimizing import optimizer_for
from edgekd.distill.recipe import Optimizer, sgd_recipe
from edgekd.distill.several import DeviceProcessFailed, see_devices
from edgekd.distill.train import EpochResult, Machine, train
from edgekd.distill.views import Samples
from edgekd.errors import MissingExtra, UsageError

pytestmark = pytest.mark.whole  # trainings

RECIPE = sgd_recipe(epochs=2, batch_size=8, learning_rate=0.05, seed=3)
HALF = dataclasses.replace(RECIPE, precision="bfloat16", clip_norm=1.0, optimizer=Optimizer(learning_rate=0.01))
CPU = torch.device("cpu")


def network_without_norms(seed: int = 1) -> nn.Module:
    """Make a student whose answer to an image does not depend on the others in its batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip


@pytest.fixture
def samples() -> Samples:
    """Forty images of noise in three classes."""
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Samples(images, torch.arange(40) % 3)


@pytest.fixture
def logits() -> CachedLogits:
    """A made-up teacher's logits."""
    return CachedLogits(torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(1)))


def test_one_device_in_full_precision_needs_no_fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains where Fabric is not installed; what needs it says which extra to install."""
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert isinstance(engine_for("float32", CPU), Plain)
    with pytest.raises(MissingExtra, match=r"edgekd\[gpu\]"):
        engine_for("bfloat16", CPU)


def test_float16_on_a_cpu_is_refused() -> None:
    """With what to choose instead."""
    with pytest.raises(UsageError, match="needs a GPU; on a CPU choose bfloat16"):
        engine_for("float16", CPU)


class Watched(nn.Module):
    """A student that notes the precision of its first layer's output."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network_without_norms()
        self.dtypes: set[torch.dtype] = set()

    def forward(self, images: Tensor) -> Tensor:
        found = self.network[0](images)
        self.dtypes.add(found.dtype)
        logits: Tensor = self.network[1:](found)
        return logits


@pytest.mark.slow  # six trainings in the machine of another library
@pytest.mark.parametrize("name", ["kd", "dist+at", "hint"])
def test_bfloat16_computes_in_half_and_learns_in_full(samples: Samples, name: str) -> None:
    """Layers are half as wide, weights stay float32, and they come out near those of full precision."""
    teacher = LiveTeacher(network_without_norms(9).eval())
    found = []
    for recipe in (HALF, dataclasses.replace(HALF, precision="float32")):
        network = Watched()
        train(network, Lesson(samples, bindable_method_named(name), teacher), recipe)
        assert (torch.bfloat16 in network.dtypes) == (recipe is HALF)
        assert all(p.dtype == torch.float32 for p in network.parameters())
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert not torch.equal(*found)
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 0.05


@pytest.mark.slow  # the library takes its time to be imported
def test_a_training_in_half_precision_goes_on_bit_for_bit(
    samples: Samples, logits: CachedLogits, tmp_path: Path
) -> None:
    """As in full precision."""
    lesson = Lesson(samples, bindable_method_named("kd"), logits)
    whole, resumed = Mortal(network_without_norms(), 1000), Mortal(network_without_norms(5), 1000)
    train(whole, lesson, HALF)
    with pytest.raises(Killed):
        train(Mortal(network_without_norms(), 7), lesson, HALF, tmp_path / "file", machine=Machine(save_every_s=0))
    train(resumed, lesson, HALF, tmp_path / "file")
    assert equal(state(resumed), state(whole))


@pytest.mark.slow  # processes of their own
def test_two_devices_learn_what_one_does(samples: Samples, logits: CachedLogits, tmp_path: Path) -> None:
    """Each takes half of every batch, gradients are averaged; epochs are told here, and a checkpoint is kept."""
    lesson, told = Lesson(samples, bindable_method_named("kd"), logits), [[], []]
    one, two = network_without_norms(), network_without_norms()
    train(one, lesson, RECIPE, on_epoch=told[0].append)
    train(two, lesson, RECIPE, tmp_path / "file", told[1].append, machine=Machine(devices=2))
    for name, tensor in state(two).items():
        assert torch.allclose(tensor, state(one)[name], atol=1e-5)
    losses: list[list[float]] = [[result.loss for result in results] for results in told]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    loaded = network_without_norms(7)
    checkpoint.load_weights(tmp_path / "file", loaded, RECIPE)
    assert equal(state(loaded), state(two))


@pytest.mark.slow  # processes of their own
def test_what_fails_on_one_of_several_devices_is_told(samples: Samples, logits: CachedLogits) -> None:
    """The message is the process's own, in one line; nothing waits for ever."""
    samples.images[3] = float("nan")
    lesson, told = Lesson(samples, bindable_method_named("kd"), logits), list[EpochResult]()
    with pytest.raises(DeviceProcessFailed, match="training diverged in epoch 1, step") as caught:
        train(network_without_norms(), lesson, RECIPE, on_epoch=told.append, machine=Machine(devices=2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "size", "message"), [("kd", 7, "shared evenly among 2"), ("crd", 8, "keeps a bank")])
def test_what_several_devices_cannot_share_is_refused(samples: Samples, name: str, size: int, message: str) -> None:
    """Before any process is started."""
    lesson = Lesson(samples, bindable_method_named(name), LiveTeacher(network_without_norms(9).eval()))
    with pytest.raises(UsageError, match=message):
        train(network_without_norms(), lesson, sgd_recipe(1, size, 0.05), machine=Machine(devices=2))


class Unsendable(nn.Module):
    """A student with a function without a name among its attributes, which no other process can be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.act = network_without_norms(), lambda logits: logits

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.act(self.network(images))
        return logits


@pytest.mark.parametrize("who", ["network", "teacher"])
def test_what_cannot_be_sent_to_other_processes_is_refused(samples: Samples, who: str) -> None:
    """In one line, before any is started."""
    teacher = LiveTeacher((Unsendable() if who == "teacher" else network_without_norms(9)).eval())
    student = Unsendable() if who == "network" else network_without_norms()
    lesson = Lesson(samples, bindable_method_named("kd"), teacher)
    with pytest.raises(UsageError, match=f"the {who} cannot be sent .* or train on one device$") as caught:
        train(student, lesson, RECIPE, machine=Machine(devices=2))
    assert "\n" not in str(caught.value)


def test_more_gpus_than_there_are_are_refused() -> None:
    """With how many there are."""
    there = torch.cuda.device_count()
    with pytest.raises(UsageError, match=f"and there are {there}"):
        see_devices(
            bindable_method_named("none"), sgd_recipe(1, 4 * (there + 2)), 1000, torch.device("cuda"), there + 2
        )


class Partly(nn.Module):
    """A user's own student with a layer that it does not use, and a record of the threads that it ran with."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.spare = network_without_norms(), nn.Linear(2, 2)
        self.register_buffer("threads", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        self.threads.fill_(torch.get_num_threads())  # type: ignore[operator]  # a buffer
        logits: Tensor = self.network(images)
        return logits


@pytest.mark.slow  # processes of their own
@pytest.mark.usefixtures("threads_restored")
def test_an_own_student_may_leave_a_layer_unused_on_several_devices(samples: Samples, logits: CachedLogits) -> None:
    """Which then stays as it is; the processes share the threads that were asked for."""
    torch.set_num_threads(6)
    network = Partly()
    before = network.spare.weight.detach().clone()
    train(network, Lesson(samples, bindable_method_named("kd"), logits), RECIPE, machine=Machine(devices=2))
    assert torch.equal(network.spare.weight, before)
    assert int(network.threads) == 3  # type: ignore[arg-type]  # a buffer


@pytest.mark.slow  # the library takes its time to be imported
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_scaled_losses_are_cut_to_a_norm(name: Any) -> None:
    """The step is that of full precision: the scale is off before gradients are cut, and the optimizer knows it."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision import MixedPrecision

    recipe = dataclasses.replace(HALF, precision="float16", optimizer=Optimizer(name, learning_rate=0.01))
    moved = []
    for scaled in (True, False):
        network = network_without_norms()
        exercise = nn.Sequential(network)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        engine = Fabrics(Fabric(accelerator="cpu", devices=1, plugins=[plugin])) if scaled else Plain()
        chosen = recipe if scaled else dataclasses.replace(recipe, precision="float32")
        forward = engine.set_up(exercise, optimizer_for(network, LogitGuide(method_named("none")), chosen))
        loss = 10 * forward(torch.ones(2, 1, 8, 8)).float().square().sum()  # above the norm
        engine.step(loss, recipe.clip_norm)
        moved.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.allclose(*moved, atol=2e-3)
    assert not torch.allclose(moved[0], torch.cat([p.detach().flatten() for p in network_without_norms().parameters()]))


@pytest.mark.slow  # starts a compiler
def test_a_compiled_student_is_the_student(
    samples: Samples, logits: CachedLogits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch makes of it runs in its place, and learns the same weights."""
    compiled: list[nn.Module] = []

    def eager(module: nn.Module) -> nn.Module:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", eager)
    lesson = Lesson(samples, bindable_method_named("kd"), logits)
    fast, plain = network_without_norms(), network_without_norms()
    train(fast, lesson, dataclasses.replace(RECIPE, compile=True))
    train(plain, lesson, RECIPE)
    assert compiled == [fast]
    assert equal(state(fast), state(plain))


@pytest.mark.slow  # as above
def test_fabrics_engine_is_the_one_of_half_precision() -> None:
    """It is alone, and keeps no scale in bfloat16."""
    engine = engine_for("bfloat16", CPU)
    assert isinstance(engine, Fabrics)
    assert (engine.rank, engine.ranks, engine.state()) == (0, 1, {})
