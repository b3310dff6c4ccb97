"""Teachers from other hands: TOML descriptions, finished students, and pixels normalised in another way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from edgekd import teachers
from edgekd.data.dataset import DataSet
from edgekd.distill import checkpoint
from edgekd.distill.checkpoint import Best, Done, State
from edgekd.distill.engine import Plain
from edgekd.distill.recipe import sgd_recipe
from edgekd.distill.views import samples_of
from edgekd.errors import DataError
from edgekd.files import sha256_of
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from edgekd.spaces.network import Network
from edgekd.teachers.pixels import see_own_pixels

pytestmark = pytest.mark.whole  # builds and runs networks

DESCRIBED = """\
weights = "teacher.safetensors"
architecture = "resnet8"
classes = 10
input_shape = [28, 28, 1]
"""
SPACE = space_named("tiny-28")


@pytest.fixture
def bare(path: Path, weights: dict[str, Tensor]) -> Path:
    """Weights as other projects keep them: the metadata say nothing."""
    save_file(weights, path, {"format": "pt"})
    return path


def described(path: Path, text: str) -> Path:
    """Write a description beside the weights."""
    target = path.with_name("mine.toml")
    target.write_text(text, encoding="utf-8")
    return target


def test_a_description_makes_bare_weights_a_teacher(bare: Path, data: DataSet, weights: dict[str, Tensor]) -> None:
    """The weights' file is found beside the description and needs no metadata of its own."""
    teacher = teachers.load(str(described(bare, DESCRIBED)), data)
    assert torch.equal(teacher.module.state_dict()["linear.weight"], weights["linear.weight"])
    assert teacher.record["architecture"] == "resnet8"


def test_a_description_adds_to_what_the_weights_say(
    path: Path, data: DataSet, weights: dict[str, Tensor], record: dict[str, str]
) -> None:
    """What the metadata hold need not be said again, and what is said again counts."""
    save_file(weights, path, record | {"classes": "9"})
    teacher = teachers.load(str(described(path, "weights = 'teacher.safetensors'\nclasses = 10\n")), data)
    assert teacher.record["input_shape"] == record["input_shape"]


def test_another_description_is_another_teacher(bare: Path, data: DataSet) -> None:
    """Its hash, by which cached logits are found, holds the weights and the description."""
    first = teachers.load(str(described(bare, DESCRIBED)), data).sha256
    second = teachers.load(str(described(bare, DESCRIBED + "mean = [0.1]\nstd = [0.2]\n")), data).sha256
    assert len({first, second, sha256_of(bare)}) == 3
    assert first == hashlib.sha256(DESCRIBED.encode() + sha256_of(bare).encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DESCRIBED + "clases = 10\n", "unknown key 'clases': did you mean 'classes'"),
        (DESCRIBED.replace("10", "'10'"), "classes is '10'; it must be of type int"),
        (DESCRIBED.replace("10", "true"), "classes is True; it must be of type int"),
        (DESCRIBED.replace("10", "-10"), "a number of classes"),
        (DESCRIBED.replace("weights", "architecture", 1).replace("architecture", "#", 1), "it names no weights"),
        (DESCRIBED.replace("classes", "#"), "does not name classes"),
        (DESCRIBED.replace("teacher.safetensors", "mine.toml"), "must be a safetensors file"),
        (DESCRIBED.replace("teacher.", "other."), "other.safetensors: no such file"),
        (DESCRIBED + "mean = [0.1]\n", "its std is not there; it must be 1 finite numbers"),
        (DESCRIBED + "mean = [0.1, 0.2]\nstd = [0.1]\n", "its mean is .* must be 1 finite numbers, one a channel"),
        (DESCRIBED + "mean = [nan]\nstd = [0.1]\n", "its mean is "),
        (DESCRIBED + "mean = ['0']\nstd = [0.1]\n", "its mean is "),
        (DESCRIBED + "mean = [true]\nstd = [0.1]\n", "its mean is "),
        (DESCRIBED + "mean = [0.1]\nstd = [0.0]\n", "deviations are above 0"),
        (DESCRIBED + "mean = [0.1]\nstd = [inf]\n", "its std is "),
        (DESCRIBED + "mean = 'none'\n", "mean is 'none'; it must be of type list"),
        ("weights = ", "not a readable TOML file"),
        ("\xff", "not a readable TOML file"),
    ],
)
def test_a_wrong_description_is_refused(bare: Path, data: DataSet, text: str, message: str) -> None:
    """In one line that names the file, the key and the value."""
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(str(described(bare, text)), data)
    assert str(bare.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_description_that_is_not_there_is_refused(tmp_path: Path, data: DataSet) -> None:
    """Missing, or a folder of that name."""
    with pytest.raises(DataError, match="no such file"):
        teachers.load(str(tmp_path / "no.toml"), data)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(DataError, match="not a readable TOML file"):
        teachers.load(str(tmp_path / "folder.toml"), data)


# --- students ---------------------------------------------------------------------------------------------------------


def write_student(path: Path, about: str, epochs: int = 2, done: int = 2) -> Network:
    """Write the checkpoint of a student of the tiny space; give its network, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = Network(graph_of(SPACE, SPACE.reference()))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    state = State(network, torch.nn.Identity(), optimizer, Plain(), None, Best())
    checkpoint.save(path, state, sgd_recipe(epochs, batch_size=8, learning_rate=0.1, about=about), Done(done))
    return network.eval()


def test_a_finished_student_can_teach(path: Path, data: DataSet) -> None:
    """The run's student.safetensors as it is: the recipe in it names the architecture."""
    network = write_student(path, f"{SPACE.reference()} kd data 00 teacher 11")
    teacher = teachers.load(str(path), data)
    images = samples_of(data, data.test).images[:4]
    with torch.no_grad():
        assert torch.equal(teacher.module(images), network(images))
    assert teacher.record["architecture"] == str(SPACE.reference())
    assert teacher.sha256 == sha256_of(path)


def test_a_student_of_an_older_edgekd_can_teach(path: Path, data: DataSet) -> None:
    """Format 1 of checkpoints holds the weights under the same names."""
    network = Network(graph_of(SPACE, SPACE.reference())).eval()
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    momentum = {f"momentum.{name}": torch.ones_like(tensor) for name, tensor in network.named_parameters()}
    recipe = json.dumps({"epochs": 3, "about": f"{SPACE.reference()} kd data 00 teacher 11"})
    metadata = {"format": "edgekd-checkpoint-1", "recipe": recipe, "epochs_done": "3", "threads": "1"}
    save_file(tensors | momentum, path, metadata)
    images = samples_of(data, data.test).images[:4]
    with torch.no_grad():
        assert torch.equal(teachers.load(str(path), data).module(images), network(images))


def test_a_students_momentum_is_left_behind(path: Path, data: DataSet) -> None:
    """A training's state beside the weights is no part of the teacher."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = Network(graph_of(SPACE, SPACE.reference()))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.zeros(2, 1, 28, 28)).sum().backward()
    optimizer.step()
    recipe = sgd_recipe(1, batch_size=8, learning_rate=0.1, about=f"{SPACE.reference()} kd")
    state = State(network, torch.nn.Identity(), optimizer, Plain(), None, Best())
    checkpoint.save(path, state, recipe, Done(1))
    assert teachers.load(str(path), data).module.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("about", "epochs", "done", "message"),
    [
        (str(SPACE.reference()), 3, 2, "a student after 2 epochs of 3; run edgekd distil to finish it"),
        ("nobody", 2, 2, "the student of no known space: unknown space 'nobody'"),
        ("", 2, 2, "the student of no known space"),
        (str(SPACE.reference()).replace("_l1", "_l99"), 2, 2, "is not among"),
    ],
)
def test_a_student_that_cannot_teach_is_refused(
    path: Path, data: DataSet, about: str, epochs: int, done: int, message: str
) -> None:
    """Unfinished, of an unknown space, or of no architecture of its space."""
    write_student(path, about, epochs, done)
    with pytest.raises(DataError, match=message):
        teachers.load(str(path), data)


@pytest.mark.parametrize("recipe", ["", "[]", "{", "[" * 100_000, '{"about": 5, "epochs": null}'])
def test_a_damaged_recipe_is_refused(path: Path, data: DataSet, weights: dict[str, Tensor], recipe: str) -> None:
    """Whatever stands there, the message is one line."""
    save_file(weights, path, {"format": "edgekd-checkpoint-2", "recipe": recipe, "epochs_done": "None"})
    with pytest.raises(DataError) as caught:
        teachers.load(str(path), data)
    assert "\n" not in str(caught.value)


def test_a_student_of_a_users_space_is_found_by_its_run(path: Path, data: DataSet) -> None:
    """The run's settings say where the space's file lies; a damaged run.json says nothing."""
    write_student(path, f"{SPACE.reference()} kd")
    for text in ("{", '{"settings": 5}', '{"settings": {"space": 5}}', '{"settings": {"space": "tiny-28"}}'):
        path.with_name("run.json").write_text(text, encoding="utf-8")
        assert teachers.load(str(path), data).record["classes"] == "10"
    path.with_name("run.json").write_text(json.dumps({"settings": {"space": "gone.toml"}}), encoding="utf-8")
    with pytest.raises(DataError, match=r"gone\.toml"):
        teachers.load(str(path), data)


OWN_SPACE = """\
name = "mine"
like = "tiny-28"
stem = { width = 4 }
"""


@pytest.fixture
def own_space(tmp_path: Path) -> Path:
    """A space of a user's own, for the embedded images."""
    path = tmp_path / "mine-space.toml"
    path.write_text(OWN_SPACE, encoding="utf-8")
    return path


def test_a_teacher_of_a_users_space_names_its_file(path: Path, data: DataSet, own_space: Path) -> None:
    """Trained by the file's path, it is recorded by its architecture's text and the file, and loaded again."""
    names = teachers.names_of(str(own_space))
    assert names == {"architecture": str(space_named(str(own_space)).reference()), "space": str(own_space)}
    network = teachers.new_teacher(str(own_space), (28, 28, 1), 10)
    save_file(network.state_dict(), path, names | {"classes": "10", "input_shape": "[28, 28, 1]"})
    assert teachers.load(str(path), data).module.state_dict().keys() == network.state_dict().keys()
    own_space.write_text(OWN_SPACE.replace("4", "8"), encoding="utf-8")  # no longer what those weights are of
    with pytest.raises(DataError, match="is not of space mine@"):
        teachers.load(str(path), data)


def test_a_file_names_an_architecture_and_not_a_spaces_file(bare: Path, data: DataSet, own_space: Path) -> None:
    """Such a file could come to say something else."""
    text = DESCRIBED.replace('"resnet8"', f'"{own_space.name}"')
    with pytest.raises(DataError, match="give its text form, SPACE:BLOCK/…, and the file as `space`"):
        teachers.load(str(described(bare, text)), data)


@pytest.mark.parametrize(("name", "recorded"), [("vgg8", "vgg8"), ("tiny-28", str(SPACE.reference()))])
def test_a_built_in_architecture_needs_no_file(name: str, recorded: str) -> None:
    """Its name is enough; a space's is that of its reference."""
    assert teachers.names_of(name) == {"architecture": recorded}


# --- pixels -----------------------------------------------------------------------------------------------------------


class Seen(torch.nn.Module):
    """Gives the images as it sees them."""

    def forward(self, x: Tensor) -> Tensor:
        return x


FRACTIONS = st.floats(0.01, 1.0)


@given(mean=FRACTIONS, std=FRACTIONS)
def test_a_teacher_sees_pixels_as_it_was_trained(data: DataSet, mean: float, std: float) -> None:
    """Whatever its mean and deviation, it sees (pixel / 255 − mean) / std."""
    module = Seen()
    see_own_pixels(module, {"mean": json.dumps([mean]), "std": json.dumps([std])}, data)
    pixels = torch.from_numpy(data.test.images[:3]).permute(0, 3, 1, 2).double() / 255
    images = samples_of(data, data.test).images[:3]
    torch.testing.assert_close(module(images).double(), (pixels - mean) / std, rtol=1e-4, atol=1e-4)


def test_a_teacher_of_the_same_normalisation_sees_images_as_they_are(data: DataSet) -> None:
    """Nothing is put right, to the last bit, where its record says what the data say, or nothing."""
    images = samples_of(data, data.test).images[:3]
    for record in ({}, {"mean": json.dumps(data.mean), "std": json.dumps(data.std)}):
        module = Seen()
        see_own_pixels(module, record, data)
        assert module(images) is images


def test_putting_pixels_right_changes_neither_paths_nor_weights(bare: Path, data: DataSet) -> None:
    """Features are tapped by the same module paths, and the weights are the file's."""
    plain = teachers.load(str(described(bare, DESCRIBED)), data).module
    other = teachers.load(str(described(bare, DESCRIBED + "mean = [0.5]\nstd = [0.5]\n")), data).module
    assert [name for name, _ in other.named_modules()] == [name for name, _ in plain.named_modules()]
    assert other.state_dict().keys() == plain.state_dict().keys()
    images = samples_of(data, data.test).images[:3]
    assert not torch.equal(other(images), plain(images))
