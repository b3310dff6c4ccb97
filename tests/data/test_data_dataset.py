"""Data sets: the embedded one keeps its promises, and a file that cannot be trusted is refused."""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd import cli
from edgekd.data.dataset import SPLITS, DataSet
from edgekd.data.loading import load_data
from edgekd.data.sources import npz
from edgekd.errors import DataError

Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def embedded() -> DataSet:
    """The embedded set."""
    return load_data("embedded")


def small_arrays() -> Arrays:
    """Make the arrays of a valid set: 12, 4 and 4 images of 5x4 in two classes."""
    rng = np.random.default_rng(1)
    return {
        f"{name}_{kind}": rng.integers(0, 256, (count, 5, 4), np.uint8) if kind == "images" else np.arange(count) % 2
        for name, count in zip(SPLITS, (12, 4, 4), strict=True)
        for kind in ("images", "labels")
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its set."""
    return tmp_path / "set.npz"


def test_the_embedded_splits_are_balanced(embedded: DataSet) -> None:
    """10,000 images to train, 1,000 to choose, 2,000 to judge; ten classes, equally many of each in every split."""
    assert [len(embedded.split(name)) for name in SPLITS] == [10_000, 1_000, 2_000]
    assert embedded.classes == 10
    for name in SPLITS:
        split = embedded.split(name)
        assert split.images.shape == (len(split), 28, 28, 1)
        assert set(Counter(split.labels.tolist()).values()) == {len(split) // 10}


def test_no_image_is_in_two_embedded_splits(embedded: DataSet) -> None:
    """What judges or chooses was never taught: compared by content."""
    contents = {name: {image.tobytes() for image in embedded.split(name).images} for name in SPLITS}
    assert not contents["train"] & contents["validation"]
    assert not contents["train"] & contents["test"]
    assert not contents["validation"] & contents["test"]


@pytest.mark.whole  # reckons with eight million pixels
def test_statistics_are_the_training_pixels(embedded: DataSet) -> None:
    """Mean and deviation are of the training split alone, so nothing of the others leaks into it."""
    pixels = embedded.train.images.astype(np.float64) / 255
    assert embedded.mean == pytest.approx((pixels.mean(),))
    assert embedded.std == pytest.approx((pixels.std(),))


def test_preprocessing_scales_and_standardises(path: Path) -> None:
    """Each channel by its own mean and deviation; float32 in the shape of the images."""
    arrays = small_arrays()
    for name in SPLITS:
        image = arrays[f"{name}_images"]
        arrays[f"{name}_images"] = np.stack([image, 255 - image // 2, image // 4], axis=-1)
    np.savez(path, **arrays)
    data = load_data(str(path))
    found = data.preprocess(data.train.images)
    assert found.dtype == np.float32
    assert found.shape == (12, 5, 4, 3)
    assert found.mean((0, 1, 2)) == pytest.approx(np.zeros(3), abs=1e-5)
    assert found.std((0, 1, 2)) == pytest.approx(np.ones(3), abs=1e-5)
    pixel = int(data.test.images[2, 3, 1, 2])
    assert data.preprocess(data.test.images)[2, 3, 1, 2] == pytest.approx(
        (pixel / 255 - data.mean[2]) / data.std[2], abs=1e-5
    )


def test_a_set_without_a_channel_axis_gets_one(path: Path) -> None:
    """Grey images may come as (N, H, W)."""
    np.savez_compressed(path, **small_arrays())
    data = load_data(str(path))
    assert data.train.images.shape == (12, 5, 4, 1)
    assert data.train.labels.dtype == np.int64
    assert (data.name, data.classes) == ("set", 2)


def test_an_unknown_split_is_refused(embedded: DataSet) -> None:
    """The message lists the splits."""
    with pytest.raises(DataError, match="'tset' does not exist; choose one of train, validation, test"):
        embedded.split("tset")


def changed(name: str, value: Any) -> Arrays:
    """Make the small set with one array replaced."""
    return small_arrays() | {name: value}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "'train_images' is missing; it has none"),
        ({"x": np.zeros(3)}, "'train_images' is missing; it has x"),
        ({n: a for n, a in small_arrays().items() if n != "test_labels"}, "'test_labels' is missing"),
        (changed("train_images", np.zeros((12, 5, 4), np.float32)), "train_images is float32"),
        (changed("train_images", np.zeros((12, 20), np.uint8)), r"train_images is uint8 \(12, 20\)"),
        (changed("train_images", np.zeros((12, 5, 4, 1, 1), np.uint8)), "train_images is uint8"),
        (changed("train_images", np.zeros((0, 5, 4), np.uint8)), "train_images is uint8"),
        (changed("train_images", np.zeros((12, 0, 4), np.uint8)), "train_images is uint8"),
        (changed("train_images", np.full((12, 5, 4), 7, np.uint8)), "all of one value"),
        (changed("test_images", np.zeros((4, 4, 5), np.uint8)), "different shapes"),
        (changed("train_labels", np.arange(11) % 2), "train_labels is int64"),
        (changed("train_labels", np.zeros((12, 1), np.int64)), "train_labels is int64"),
        (changed("train_labels", np.zeros(12)), "train_labels is float64"),
        (changed("train_labels", -np.arange(12)), "train_labels run from -11 to 0"),
        (changed("train_labels", np.full(12, 2**64 - 1, np.uint64)), "train_labels run from 18446744073709551615"),
        ({n: np.zeros_like(a) if "labels" in n else a for n, a in small_arrays().items()}, "all labels are 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(path: Path, arrays: Arrays, message: str) -> None:
    """The message names the file, the array and what it is."""
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_data(str(path))
    assert str(path) in str(caught.value)


def npz_bytes(compressed: bool = True) -> bytes:
    """Give the small set's file."""
    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **small_arrays())
    return content.getvalue()


def npy_bytes(array: Any, allow_pickle: bool = False) -> bytes:
    """Give an .npy file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=allow_pickle)
    return content.getvalue()


def zip_bytes(member: str, content: bytes) -> bytes:
    """Give an archive of one member."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(member, content)
    return archive.getvalue()


HUGE_SHAPE = npy_bytes(np.zeros((1, 1, 1), np.uint8)).replace(
    b"(1, 1, 1), }" + b" " * 18, b"(1, 999999999, 9999999), }    "
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        npy_bytes(np.zeros((3, 4))),
        npz_bytes()[:-1],
        npz_bytes()[: len(npz_bytes()) // 2],
        npz_bytes()[10:],
        zip_bytes("train_images.npy", b"not an array"),
        zip_bytes("train_images.npy", b"\x93NUMPY\1\0\x10\0{'descr': broken"),
        zip_bytes("train_images.npy", HUGE_SHAPE),
        zip_bytes("train_images.npy", npy_bytes(np.array([{}], dtype=object), allow_pickle=True)),
    ],
    ids=["empty", "text", "npy", "cut at the end", "cut", "beheaded", "no npy", "bad header", "huge", "pickle"],
)
def test_a_damaged_file_is_refused(path: Path, content: bytes) -> None:
    """No damage is anything but a DataError that names the file; nothing is unpickled."""
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_data(str(path))


@pytest.mark.whole  # reads 120 damaged files
@given(position=st.integers(0, len(npz_bytes()) - 1), flip=st.integers(1, 255), compressed=st.booleans())
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_damaged_byte_is_survived(path: Path, position: int, flip: int, compressed: bool) -> None:
    """A byte changed anywhere gives a set of the same form, where it does not matter, or a DataError."""
    content = bytearray(npz_bytes(compressed))
    content[position] ^= flip
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert load_data(str(path)).train.images.shape == (12, 5, 4, 1)


def test_a_file_that_unpacks_beyond_the_limit_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive of many zeros is told by its directory, before memory is asked for."""
    np.savez_compressed(path, **changed("train_images", np.zeros((4000, 5, 4), np.uint8)))
    assert path.stat().st_size < 5000
    monkeypatch.setattr(npz, "_MAX_BYTES", 50_000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DataError, match=r"unpacks to 8[0-9]{4} bytes, more than 50000"):
        load_data(str(path))


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    """The message says what may be given instead."""
    with pytest.raises(DataError, match="no such file; give `embedded`, an npz file, a folder of images"):
        load_data(str(tmp_path / "none.npz"))
    with pytest.raises(DataError, match="has no folders of classes"):
        load_data(str(tmp_path))


def test_the_data_export_is_what_an_artifact_expects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`edgekd data export` writes x, the preprocessed images, and y, their labels, in the order of the split."""
    source, target = tmp_path / "set.npz", tmp_path / "out.npz"
    np.savez(source, **small_arrays())
    assert cli.run(["data", "export", str(source), str(target), "--split", "validation", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(target), "images": 4, "classes": 2}
    data = load_data(str(source))
    with np.load(target) as written:
        assert sorted(written.files) == ["x", "y"]
        assert written["x"].dtype == np.float32
        assert written["y"].dtype == np.int64
        assert np.array_equal(written["x"], data.preprocess(data.validation.images))
        assert np.array_equal(written["y"], small_arrays()["validation_labels"])
