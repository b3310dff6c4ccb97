"""Sources by their spelling: whom a text names, the user's own function, Hugging Face sets, torchvision sets."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.data.loading import load_data
from edgekd.data.pictures import Wanted
from edgekd.data.sources import callables, embedded, folder, huggingface, npz, source_of, torchvision
from edgekd.errors import DataError

SHAPE = (8, 8, 3)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """Ask for small colour pictures, and keep what is decoded in the test's folder."""
    return Wanted(SHAPE, cache=tmp_path / "cache")


def pixels(count: int, first: int = 0) -> Any:
    """Make images of noise, (N, 8, 8, 3)."""
    return np.random.default_rng(first).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def test_a_text_names_its_source(tmp_path: Path) -> None:
    """A prefix decides, then what lies there, then its form; the rest is an npz file."""
    assert source_of("embedded") == (embedded.load, "embedded")
    assert source_of("folder:here") == (folder.load, "here")
    assert source_of(str(tmp_path)) == (folder.load, str(tmp_path))
    assert source_of("torchvision:CIFAR10:root") == (torchvision.load, "CIFAR10:root")
    assert source_of("datasets:saved") == (huggingface.load, "saved")
    assert source_of("mine.sets:cats") == (callables.load, "mine.sets:cats")
    assert source_of("set.npz") == (npz.load, "set.npz")
    with pytest.raises(DataError, match="'folder:' names nothing after its colon"):
        source_of("folder:")


MODULE = """
import numpy as np
def arrays():
    rng = np.random.default_rng(0)
    out = {}
    for split, count in (("train", 6), ("validation", 4), ("test", 4)):
        out[split + "_images"] = rng.integers(0, 256, (count, 5, 5), dtype=np.uint8)
        out[split + "_labels"] = np.arange(count) % 2
    return out
def fails(): raise RuntimeError("no disk")
def gives_a_list(): return [1]
def gives_dates(): return {k: np.array(["2020-01-01"], "M8[D]") for k in arrays()}
def gives_ragged_lists(): return {k: [[1, 2], [3]] for k in arrays()}
def lacks_labels(): return {k: v for k, v in arrays().items() if k != "test_labels"}
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a user's module into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"users_sets_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "broken_sets.py").write_text("import there_is_no_such_package")
    return name


def test_a_users_function_gives_six_arrays(module: str) -> None:
    """It is found in the current folder; the hash is of what it gave."""
    data = load_data(f"{module}:arrays")
    assert (data.name, data.classes, len(data.train)) == (f"{module}:arrays", 2, 6)
    assert data.train.images.shape == (6, 5, 5, 1)
    assert data.sha256 == load_data(f"{module}:arrays").sha256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MODULE:none", "has no callable 'none'"),
        ("MODULE:number", "has no callable 'number'"),
        ("MODULE:fails", r"the function failed \(RuntimeError: no disk\)"),
        ("MODULE:gives_a_list", "it gives list; return a dict of six arrays"),
        ("MODULE:gives_dates", "cannot be made arrays of numbers"),
        ("MODULE:gives_ragged_lists", "cannot be made arrays of numbers"),
        ("MODULE:lacks_labels", "'test_labels' is missing"),
        ("no_such_module:f", "cannot import no_such_module"),
        ("broken_sets:f", "cannot import broken_sets .*there_is_no_such_package"),
    ],
)
def test_a_function_that_gives_no_set_is_refused(module: str, name: str, message: str) -> None:
    """The message names the function and what is wrong."""
    with pytest.raises(DataError, match=message):
        load_data(name.replace("MODULE", module))


def saved_set(path: Path, splits: dict[str, int], *, damaged: bool = False) -> str:
    """Save a Hugging Face set of two classes."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    parts = {}
    for number, (name, count) in enumerate(splits.items()):
        images: list[Any] = [Image.fromarray(p) for p in pixels(count, number)]
        if damaged and name == "train":
            images[3] = {"bytes": b"no picture", "path": None}
        rows = {"image": images, "label": [i % 2 for i in range(count)]}
        parts[name] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(path))
    return f"datasets:{path}"


@pytest.mark.slow  # the library takes its time to be imported
def test_a_saved_hugging_face_set_is_read(tmp_path: Path, wanted: Wanted) -> None:
    """Pictures and classes are found by their types; a missing validation split is cut."""
    source = saved_set(tmp_path / "saved", {"train": 40, "test": 6})
    data = load_data(source, wanted)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [36, 4, 6]
    assert (data.test.images == pixels(6, 1)).all()
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.slow  # as above
def test_damaged_pictures_of_a_hugging_face_set_are_left_out(tmp_path: Path) -> None:
    """They are named by split and row."""
    source = saved_set(tmp_path / "saved", {"train": 40, "test": 6}, damaged=True)
    data = load_data(source, Wanted(SHAPE, cache=tmp_path / "cache", damaged_limit=0.1))
    assert len(data.train) + len(data.validation) == 39
    assert "train/3" in data.notes[0]


@pytest.mark.slow  # as above
def test_a_folder_that_is_no_saved_set_is_refused(tmp_path: Path, wanted: Wanted) -> None:
    """The message says what is expected there."""
    with pytest.raises(DataError, match="not a set saved with save_to_disk"):
        load_data(f"datasets:{tmp_path}", wanted)
    source = saved_set(tmp_path / "saved", {"test": 6})
    with pytest.raises(DataError, match="no split called train; it has test"):
        load_data(source, wanted)


class _Set:
    """Behaves as torchvision's sets do: pictures and labels by index."""

    classes = ["cat", "dog"]  # noqa: RUF012 - as torchvision's classes have it

    def __init__(self, count: int, seed: int) -> None:
        self.images, self.targets = pixels(count, seed), [i % 2 for i in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), self.targets[index]


class Trained(_Set):
    """A set whose parts are told by `train`, as CIFAR10's are."""

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        if download or not Path(root).is_dir():
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        super().__init__(40 if train else 6, int(train))


class Parted(_Set):
    """A set whose parts are told by `split`, as Flowers102's are."""

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f"Unknown value '{split}' for argument split")
        self.split = split
        super().__init__({"train": 20, "val": 4, "test": 6}[split], len(split))


@pytest.fixture
def fake_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for torchvision, which has no build for every torch; the signatures are its documented ones."""
    sets = types.ModuleType("torchvision.datasets")
    vars(sets).update(CIFAR10=Trained, Flowers102=Parted)
    package = types.ModuleType("torchvision")
    vars(package).update(datasets=sets)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", sets)


@pytest.mark.usefixtures("fake_torchvision")
def test_a_torchvision_set_is_read(tmp_path: Path, wanted: Wanted) -> None:
    """Parts told by `train` or by `split`, downloading nothing."""
    data = load_data(f"torchvision:CIFAR10:{tmp_path}", wanted)
    assert (data.name, [len(s) for s in (data.train, data.validation, data.test)]) == ("CIFAR10", [36, 4, 6])
    assert (data.test.images == pixels(6, 0)).all()
    data = load_data(f"torchvision:Flowers102:{tmp_path}", wanted)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [20, 4, 6]
    assert (data.validation.images == pixels(4, 3)).all()


@pytest.mark.usefixtures("fake_torchvision")
def test_a_torchvision_set_that_is_not_there_is_refused(tmp_path: Path, wanted: Wanted) -> None:
    """An unknown class names the nearest, a missing folder what torchvision says of it."""
    with pytest.raises(DataError, match="did you mean 'CIFAR10'"):
        load_data(f"torchvision:CIFAR1:{tmp_path}", wanted)
    with pytest.raises(DataError, match=r"train=True.*Dataset not found"):
        load_data(f"torchvision:CIFAR10:{tmp_path / 'none'}", wanted)
    with pytest.raises(DataError, match="give torchvision:CLASS:FOLDER"):
        load_data("torchvision:CIFAR10", wanted)
