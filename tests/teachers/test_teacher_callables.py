"""Teachers of one's own function that others use, too, or that hide what they depend on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd import teachers
from edgekd.data.dataset import DataSet
from edgekd.errors import DataError

pytestmark = pytest.mark.whole  # builds and runs networks

Own = Callable[[str], str]  # writes a module of the user's own; gives its name

KNOWN = """\
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3)
        self.norm = nn.BatchNorm2d(10)
        self.factors = [float(os.environ.get("FACTOR", "1"))]

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3)) * self.factors[0]


NET = Net()


def known():
    return NET


def make():
    return Net()
"""


def differing(own: Own, before: str, after: str) -> str:
    """Write KNOWN with one thing changed; give its maker's name."""
    assert before in KNOWN
    return f"{own(KNOWN.replace(before, after))}:make"


@pytest.mark.parametrize("pixels", ["", ",mean=0.4,std=0.3,size=20"])
def test_a_network_that_others_use_stays_as_it_is(own: Own, data: DataSet, images: Tensor, pixels: str) -> None:
    """However often it is loaded, it is the same teacher, and trains on for those others."""
    name = own(KNOWN)
    first, second = (teachers.load(f"{name}:known{pixels}", data) for _ in range(2))
    assert first.sha256 == second.sha256
    assert torch.equal(first.module(images), second.module(images))
    net = sys.modules[name].NET
    assert all(part.training for part in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not net._forward_pre_hooks


UNCOPIED = "self.spare = self.conv.weight * 2; self.factors"  # a tensor with a history, as of old weight norms


def test_a_network_that_cannot_be_copied_must_be_new(own: Own, data: DataSet) -> None:
    """Each time the function is called; the message says why it cannot be copied."""
    made = differing(own, "self.factors =", f"{UNCOPIED} =")
    assert teachers.load(made, data).sha256 == teachers.load(made, data).sha256
    known = made.replace(":make", ":known")
    with pytest.raises(
        DataError, match=rf"teacher {known}: it cannot be copied \(.*\), and the function gives the same"
    ):
        teachers.load(known, data)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "    def forward",
            "    def train(self, mode=True):\n        return self\n\n    def forward",
            r"it \(Net\) stays",
        ),
        (
            "return Net()",
            "net = Net()\n    net.norm.train = lambda mode: None\n    return net",
            r"norm \(BatchNorm2d\)",
        ),
        ("(x))", "(functional.dropout(x)))", "it answers the same images in two ways; let it draw nothing"),
    ],
)
def test_a_teacher_that_would_go_on_learning_is_refused(
    own: Own, data: DataSet, before: str, after: str, message: str
) -> None:
    """When it is loaded, so that it teaches by no method, cached logits included."""
    made = differing(own, before, after)
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(made, data)
    assert f"teacher {made}: " in str(caught.value)


@pytest.mark.parametrize(("state", "is_refused"), [("", True), (".eval()", False)])
def test_a_part_in_a_plain_list_must_be_in_eval_mode(own: Own, data: DataSet, state: str, is_refused: bool) -> None:
    """The network's own eval() does not reach it; one that never runs does no harm."""
    hidden = KNOWN.replace("self.norm =", f"self.hidden = [nn.BatchNorm2d(1){state}]\n        self.norm =")
    assert teachers.load(f"{own(hidden)}:make", data).gives == teachers.EVERYTHING
    runs = f"{own(hidden.replace('(x))', '(self.hidden[0](x)))'))}:make"
    if is_refused:
        with pytest.raises(DataError, match=rf"teacher {runs}: .* runs in train mode \(BatchNorm2d\); keep parts in a"):
            teachers.load(runs, data)
    else:
        assert teachers.load(runs, data).gives == teachers.EVERYTHING


def test_what_code_and_weights_do_not_show_makes_another_teacher(
    own: Own, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers in a list, of the environment or of a file; and the number of threads makes none."""
    made, digests = f"{own(KNOWN)}:make", []
    read = differing(own, "* self.factors[0]", "* float(Path('factor.txt').read_text())")
    for factor, threads in (("2", 2), ("3", 2), ("2", 1)):
        torch.set_num_threads(threads)
        monkeypatch.setenv("FACTOR", factor)
        (tmp_path / "factor.txt").write_text(factor, encoding="utf-8")
        digests.append([teachers.load(name, data).sha256 for name in (made, read)])
        assert torch.get_num_threads() == threads
    assert digests[0] == digests[2]
    assert not set(digests[0]) & set(digests[1])


def test_weights_that_wait_for_images_are_drawn_alike(own: Own, data: DataSet) -> None:
    """Of lazy modules, which make them when they are asked first."""
    made = differing(own, "nn.Conv2d(1, 10, 3)", "nn.LazyConv2d(10, 3)")
    first = teachers.load(made, data)
    torch.rand(3)
    assert teachers.load(made, data).sha256 == first.sha256


@pytest.mark.slow  # torch's compiler
@pytest.mark.parametrize("pixels", ["", ",mean=0.4,std=0.3,size=20"])
def test_a_scripted_network_gives_logits(own: Own, data: DataSet, images: Tensor, pixels: str) -> None:
    """The same as the network that it was made of; its parts cannot be tapped."""
    text = KNOWN.replace("self.factors[0]", "1.0").replace("        self.factors", "        factors")
    plain, script = (
        own(text.replace("return Net()", f"return {made}")) for made in ("Net()", "torch.jit.script(Net())")
    )
    teacher = teachers.load(f"{script}:make{pixels}", data)
    assert teacher.gives == teachers.LOGITS
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    expected = teachers.load(f"{plain}:make{pixels}", data).module(images)
    torch.testing.assert_close(teacher.module(images), expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_put_right_before_a_networks_own_hooks(own: Own, data: DataSet, images: Tensor) -> None:
    """Which want to see what the network was trained on; attributes of any name are its own."""
    hook = "self.register_forward_pre_hook(lambda m, i: (i[0].clamp_min(0),)); self.pixel_scale = 1"
    made = differing(own, "self.factors =", f"{hook}\n        self.factors =")
    pixels = images * data.std[0] + data.mean[0]  # of 0–1, of which none is cut off
    plain = f"{own(KNOWN)}:make,mean=0,std=1"
    logits = teachers.load(f"{made},mean=0,std=1", data).module(images)
    torch.testing.assert_close(logits, teachers.load(plain, data).module(images), rtol=1e-4, atol=1e-4)
    assert bool((images < 0).any())
    assert bool((pixels > -1e-6).all())


def test_what_cannot_be_frozen_is_told_in_one_line(own: Own, data: DataSet) -> None:
    """Whatever it raises; nothing of a resized image is said."""
    body = "    def named_modules(self, *a, **k):\n        raise KeyError('no\\nparts')\n\n    def forward"
    made = differing(own, "    def forward", body)
    with pytest.raises(
        DataError, match=r"it cannot be frozen and hashed \(KeyError: .*\); give a plain torch"
    ) as caught:
        teachers.load(made, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("forward", "advice"),
    [
        ("x.size(2) // 0", "choose a teacher that takes such images"),
        ("torch.ops.aten.nothing(x)", "choose a teacher that takes such images"),
        ("functional.linear(x.flatten(1), torch.ones(10, 900))", r"where another size helps, `,size=N` behind"),
        ("x.reshape(1, 784)[:, :10]", "it takes one image at a time, and not 4: make or export it for any number"),
    ],
)
def test_the_advice_is_what_may_help(own: Own, data: DataSet, forward: str, advice: str) -> None:
    """Another size only where the failure speaks of sizes."""
    made = differing(own, "return self.norm(self.conv(x)).mean((2, 3)) * self.factors[0]", f"return {forward}")
    with pytest.raises(DataError, match=rf"it fails on images \[28, 28, 1\] \(.*\); {advice}"):
        teachers.load(made, data)


def test_a_part_counts_as_the_users_own(own: Own, data: DataSet) -> None:
    """A copy has the same modules under the same paths, so that they can be tapped."""
    module = teachers.load(f"{own(KNOWN)}:known", data).module
    assert isinstance(module.get_submodule("conv"), nn.Conv2d)
