"""Teachers by what a user calls them: own functions, several as one, and what is said of their pixels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from edgekd import teachers
from edgekd.data.dataset import DataSet, Split
from edgekd.distill.logit_cache import cache_logits, read_logits
from edgekd.distill.mentors import LiveTeacher
from edgekd.distill.views import samples_of
from edgekd.errors import DataError
from edgekd.teachers.ensemble import Ensemble
from edgekd.teachers.pixels import Sight, said

pytestmark = pytest.mark.whole  # builds and runs networks

NETWORK = """\
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 2)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(4, classes)
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return self.linear(self.drop(self.act(self.conv(x)).mean((2, 3))))


def make():
    return Plain().train()
"""

Write = Callable[[str], str]


@pytest.fixture
def images(data: DataSet) -> Tensor:
    """A few images as a network sees them."""
    return samples_of(data, data.test).images[:5]


# --- a function of one's own ------------------------------------------------------------------------------------------


def test_a_network_of_ones_own_teaches(own: Write, data: DataSet, images: Tensor) -> None:
    """It is frozen, whatever mode the function left it in, and gives logits and features."""
    teacher = teachers.load(f"{own(NETWORK)}:make", data)
    assert not any(module.training for module in teacher.module.modules())
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    logits = teacher.module(images)
    assert logits.shape == (5, 10)
    assert not logits.requires_grad
    assert torch.equal(teacher.module(images), logits)  # no dropout
    assert teacher.gives == teachers.EVERYTHING
    assert LiveTeacher.of(teacher).gives_features


def test_what_a_tap_saw_stays(own: Write, data: DataSet, images: Tensor) -> None:
    """An activation that would write over its input writes elsewhere, and so a convolution can be tapped."""
    module = teachers.load(f"{own(NETWORK)}:make", data).module
    seen: list[tuple[Tensor, Tensor]] = []
    module.get_submodule("conv").register_forward_hook(lambda m, inputs, out: seen.append((out, out.clone())))
    module(images)
    assert bool((seen[0][1] < 0).any())
    assert torch.equal(*seen[0])


def test_the_same_function_gives_the_same_teacher(own: Write, data: DataSet) -> None:
    """Random weights are drawn alike every time, and torch's own generator goes on as if nothing had been drawn."""
    name = own(NETWORK)
    state = torch.random.get_rng_state()
    first = teachers.load(f"{name}:make", data)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert teachers.load(f"{name}:make", data).sha256 == first.sha256


@pytest.mark.parametrize(
    "change",
    [
        ("Plain().train()", "Plain().double().float()"),  # the same network from other code
        ("nn.Conv2d(1, 4, 3, 2)", "nn.Conv2d(1, 4, 3, 2, 1)"),  # the same weights, used in another way
        ("return Plain().train()", "net = Plain()\n    net.linear.bias.data.zero_()\n    return net"),
    ],
)
def test_another_network_is_another_teacher(own: Write, data: DataSet, change: tuple[str, str]) -> None:
    """Its hash holds code, settings and weights, so that cached logits never answer for another."""
    digests = {teachers.load(f"{own(text)}:make", data).sha256 for text in (NETWORK, NETWORK.replace(*change))}
    assert len(digests) == 2


SETTINGS = """\
import json
from pathlib import Path

from torch import nn


class Loud(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor

    def extra_repr(self):
        return repr(lambda: None)


def network(factor=1.0, padding=0):
    layers = nn.Conv2d(1, 10, 3, padding=padding), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Loud(factor)
    return nn.Sequential(*layers)


def make():
    return network(**json.loads(Path("settings.json").read_text()))
"""


def test_other_settings_make_another_teacher(own: Write, data: DataSet, tmp_path: Path) -> None:
    """Of the same code and the same weights; addresses in a network's own words count for nothing."""
    name, digests = own(SETTINGS), []
    for settings in ("{}", '{"factor": 2.0}', '{"padding": 1}', "{}"):
        (tmp_path / "settings.json").write_text(settings, encoding="utf-8")
        digests.append(teachers.load(f"{name}:make", data).sha256)
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3


def test_pixels_of_ones_own_make_another_teacher(own: Write, data: DataSet) -> None:
    """The same network that sees images in another way answers in another way."""
    name = own(NETWORK)
    sources = ("", ",size=20", ",mean=0.5,std=0.5")
    assert len({teachers.load(f"{name}:make{pixels}", data).sha256 for pixels in sources}) == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no\\nluck')", r"the function failed \(RuntimeError: no luck\)"),
        ("return 5", "it gives int; return a torch.nn.Module"),
        ("return Plain(9)", "it knows 9 classes, the data embedded has 10; choose a teacher for this data"),
        (
            "return nn.Conv2d(3, 4, 3)",
            r"it fails on images \[28, 28, 1\] \(RuntimeError: .* channels.*\); choose a teacher that takes",
        ),
        ("return nn.Conv2d(1, 4, 3)", r"for 4 images it gives a tensor \[4, 4, 26, 26\]; a teacher gives logits"),
        ("return nn.LSTM(28, 4)", "it fails on images"),
        ("return nn.Flatten()", "it knows 784 classes"),
        (
            "net = Plain()\n    net.linear.weight.data[3, 3] = float('nan')\n    return net",
            "its logits of the first training images are not finite",
        ),
        (
            "net = Plain()\n    net.register_buffer('spare', torch.tensor(float('inf')))\n    return net",
            "its weight spare is not finite; train it anew",
        ),
    ],
)
def test_what_is_no_teacher_for_the_data_is_refused(own: Write, data: DataSet, body: str, message: str) -> None:
    """In one line that names the function and what differs."""
    name = own(NETWORK.replace("return Plain().train()", body))
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(f"{name}:make", data)
    assert f"teacher {name}:make" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_gives_two_things_is_refused(own: Write, data: DataSet) -> None:
    """A teacher gives logits alone; what else a network gives is named by its type."""
    text = NETWORK.replace("return self.linear(", "return x, self.linear(")
    with pytest.raises(DataError, match="for 4 images it gives tuple; a teacher gives logits"):
        teachers.load(f"{own(text)}:make", data)


def test_a_module_or_function_that_is_not_there_is_refused(own: Write, data: DataSet) -> None:
    """Each is named."""
    with pytest.raises(DataError, match=r"teacher nowhere_at_all:make: cannot import nowhere_at_all"):
        teachers.load("nowhere_at_all:make", data)
    name = own(NETWORK)
    with pytest.raises(DataError, match=f"module {name} has no callable 'mak'"):
        teachers.load(f"{name}:mak", data)


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_a_teacher_may_see_larger_images(own: Write, data: DataSet, images: Tensor) -> None:
    """Asked for behind its name; the record tells, the student's images stay, and a flat image stays flat."""
    teacher = teachers.load(f"{own(NETWORK)}:make,size=40/44", data)
    teacher.module(torch.full_like(images, 0.5))
    assert teacher.module.seen[-1].shape == (5, 1, 40, 44)
    assert torch.allclose(teacher.module.seen[-1], torch.tensor(0.5))
    assert teacher.record["input_size"] == "[40, 44]"


def test_a_smaller_image_holds_all_of_a_larger_one(own: Write, data: DataSet) -> None:
    """Every pixel counts in it, also one between those that would be picked."""
    teacher = teachers.load(f"{own(NETWORK)}:make,size=7", data)
    dot = torch.zeros(1, 1, 28, 28)
    dot[0, 0, 11, 11] = 1
    teacher.module(dot)
    assert teacher.module.seen[-1].mean().item() == pytest.approx(dot.mean().item(), rel=0.05)


def test_a_teacher_sees_its_own_normalisation(own: Write, data: DataSet, images: Tensor) -> None:
    """One number counts for all channels; a black pixel of the data is −mean / std of the teacher."""
    teacher = teachers.load(f"{own(NETWORK)}:make,mean=0.5,std=0.25", data)
    black = -data.mean[0] / data.std[0]
    teacher.module(torch.full_like(images, black))
    assert torch.allclose(teacher.module.seen[-1], torch.tensor(-2.0), atol=1e-5)


NUMBERS = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=4).map(tuple)
SIZES = st.none() | st.tuples(st.integers(1, 4096), st.integers(1, 4096))


@given(name=st.from_regex(r"[a-z:@./+,]+", fullmatch=True), mean=NUMBERS, std=NUMBERS, size=SIZES)
def test_what_is_said_is_understood(name: str, mean: tuple[float, ...], std: tuple[float, ...], size: object) -> None:
    """Behind any name, commas in it included, and in any order."""
    entries = {"mean": mean, "std": std, **({"size": size} if isinstance(size, tuple) else {})}
    for pairs in (list(entries.items()), list(reversed(entries.items()))):
        text = ",".join([name, *(f"{key}={'/'.join(map(repr, values))}" for key, values in pairs)])
        assert said(text) == (name, Sight(mean, std, size if isinstance(size, tuple) else None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:b,size=0", "size is '0'; give whole pixels"),
        ("a:b,size=2.5", "size is '2.5'"),
        ("a:b,size=99999", "up to 4096"),
        ("a:b,size=1/2/3", "or HEIGHT/WIDTH"),
        ("a:b,mean=x", "mean is 'x'; give a number"),
        ("a:b,std=nan", "std is 'nan'"),
        ("a:b,std=", "std is ''"),
        ("a:b,men=0.5", "unknown 'men': did you mean 'mean'"),
        ("a:b,size=24,oops", "unknown 'oops'"),
        ("embedded,mean=0.5,std=0.5", "mean and std are its file's to say; describe it in a TOML file"),
        ("embedded,size=32", r"it takes images \[28, 28, 1\], it is to see images \[32, 32, 1\]"),
        ("resnet18", "no such file; give `embedded`, .*timm:NAME, torchvision:NAME, onnx:FILE, tflite:FILE or MODULE"),
        ("onnx:", "'onnx:' names nothing after its colon"),
        ("embedded+", "an ensemble is A[+]B of different teachers; name each once"),
        ("embedded+embedded", "name each once"),
    ],
)
def test_what_cannot_be_understood_is_refused(data: DataSet, text: str, message: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(text, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ("mean=0.5/0.5,std=0.1", r"its mean is \[0\.5, 0\.5\]; it must be 1 finite numbers, one a channel"),
        ("mean=0.5", "its std is not there"),
        ("std=0.5", "its mean is not there"),
        ("mean=0.5,std=0", "deviations are above 0"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(own: Write, data: DataSet, pixels: str, message: str) -> None:
    """The message names the teacher and the numbers."""
    name = own(NETWORK)
    with pytest.raises(DataError, match=f"teacher {name}:make: .*{message}"):
        teachers.load(f"{name}:make,{pixels}", data)


# --- several as one ---------------------------------------------------------------------------------------------------


class Says(nn.Module):
    """Gives the same logits to every image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_buffer("logits").expand(len(x), -1)


LOGITS = st.lists(st.floats(-30, 30), min_size=3, max_size=3)


@given(st.lists(LOGITS, min_size=1, max_size=4))
def test_an_ensembles_probabilities_are_the_members_mean(members: list[list[float]]) -> None:
    """However loud one of them is, it has one voice; its logits are the logarithms."""
    ensemble = Ensemble([Says(torch.tensor(logits)) for logits in members])
    said_ = ensemble(torch.zeros(2, 1, 4, 4))
    expected = []
    for k in range(3):
        shares = [math.exp(one[k] - max(one)) / sum(math.exp(z - max(one)) for z in one) for one in members]
        expected.append(sum(shares) / len(shares))
    assert said_.exp().tolist() == [pytest.approx(expected, abs=1e-6)] * 2


def test_an_ensemble_gives_logits_alone(own: Write, data: DataSet, tmp_path: Path, images: Tensor) -> None:
    """It is frozen, its record names all members, each sees its own pixels, and its logits can be cached."""
    name = own(NETWORK)
    source = f"embedded+{name}:make,size=20"
    teacher = teachers.load(source, data)
    assert teacher.name == source
    assert teacher.gives == teachers.LOGITS
    assert not LiveTeacher.of(teacher).gives_features
    assert not any(module.training for module in teacher.module.modules())
    members = [teachers.load(one, data) for one in source.split("+")]
    mean = sum(member.module(images).softmax(1) for member in members) / 2
    torch.testing.assert_close(teacher.module(images), mean.log())
    assert all(member.name in teacher.record["members"] for member in members)
    few = dataclasses.replace(data, train=Split(data.train.images[:20], data.train.labels[:20]))
    logits = read_logits(cache_logits(tmp_path, teacher, few)).at(torch.arange(4), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(logits, teacher.module(samples_of(few, few.train).images[:4]))


def test_another_member_is_another_ensemble(own: Write, data: DataSet) -> None:
    """The hash holds the members' own."""
    name = own(NETWORK)
    sources = (f"embedded+{name}:make", f"embedded+{name}:make,size=30", f"{name}:make,size=30+{name}:make")
    assert len({teachers.load(source, data).sha256 for source in sources}) == 3


def test_a_file_may_have_a_plus_in_its_name(
    tmp_path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """What lies there is one teacher."""
    path = tmp_path / "a+b.safetensors"
    save_file(weights, path, record)
    for source in (f"{path}", f"file:{path}"):
        assert teachers.load(source, data).gives == teachers.EVERYTHING


def test_a_wrong_member_is_named(data: DataSet, tmp_path: Path) -> None:
    """The message is the member's own."""
    with pytest.raises(DataError, match=r"gone\.onnx: it cannot be read"):
        teachers.load(f"embedded+onnx:{tmp_path / 'gone.onnx'}", data)
