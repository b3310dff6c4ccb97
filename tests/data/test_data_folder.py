"""Folders of pictures become a data set: which splits there are, how pictures are made alike, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import pictures
from edgekd.data.loading import load_data
from edgekd.data.pictures import Wanted
from edgekd.errors import DataError

pytestmark = pytest.mark.whole  # folders of pictures

SHAPE = (8, 8, 3)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """Ask for small colour pictures, and keep what is decoded in the test's folder."""
    return Wanted(SHAPE, cache=tmp_path / "cache")


def picture(number: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """Make a picture that no other number has."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.fromarray(values[..., 0] if bands == 1 else values, mode)


def put(folder: Path, count: int, first: int = 0) -> None:
    """Write so many png files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number).save(folder / f"{number:04}.png")


def two_classes(root: Path, count: int = 20) -> Path:
    """Write a folder of two classes without splits."""
    put(root / "cat", count)
    put(root / "dog", count, 1000)
    return root


def test_splits_that_are_there_are_taken_as_they_are(tmp_path: Path, wanted: Wanted) -> None:
    """train/, val/ and test/ with the classes in the order of their names."""
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        put(tmp_path / "set" / split / "b", count)
        put(tmp_path / "set" / split / "a", count, 100)
    data = load_data(str(tmp_path / "set"), wanted)
    assert (data.name, data.classes) == ("set", 2)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [12, 4, 6]
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    assert data.train.images[0].tolist() == np.asarray(picture(100)).tolist()
    assert data.train.images[6].tolist() == np.asarray(picture(0)).tolist()


def test_missing_splits_are_cut_from_the_training_pictures(tmp_path: Path, wanted: Wanted) -> None:
    """A tenth of each class judges and a tenth validates; no picture is in two splits."""
    data = load_data(str(two_classes(tmp_path / "set")), wanted)
    assert [np.bincount(s.labels).tolist() for s in (data.train, data.validation, data.test)] == [
        [17, 17],
        [1, 1],
        [2, 2],
    ]
    every = np.concatenate([data.train.images, data.validation.images, data.test.images])
    assert len({image.tobytes() for image in every}) == 40


def test_more_pictures_leave_the_others_where_they_are(tmp_path: Path, wanted: Wanted) -> None:
    """Which picture judges is decided by its name: of the old test pictures none teaches later."""
    root = two_classes(tmp_path / "set")
    before = {image.tobytes() for image in load_data(str(root), wanted).test.images}
    put(root / "cat", 10, 500)
    put(root / "dog", 10, 1500)
    after = load_data(str(root), wanted)
    assert len(after.test) == 6
    assert len(before & {image.tobytes() for image in after.test.images}) >= 3


def test_val_judges_where_there_is_no_test(tmp_path: Path, wanted: Wanted) -> None:
    """As in ImageNet; the validation split that chooses is cut from the training pictures."""
    two_classes(tmp_path / "set" / "train")
    put(tmp_path / "set" / "val" / "cat", 3, 2000)
    put(tmp_path / "set" / "val" / "dog", 3, 3000)
    data = load_data(f"folder:{tmp_path / 'set'}", wanted)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [36, 4, 6]


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_pictures_of_every_mode_are_read(tmp_path: Path, wanted: Wanted, mode: str) -> None:
    """Grey, transparent, indexed and 16-bit pictures become colour pictures of the wanted size."""
    root = two_classes(tmp_path / "set")
    other = Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)) if mode == "I;16" else picture(1).convert(mode)
    path = root / "cat" / ("x.tif" if mode == "CMYK" else "x.png")
    other.save(path)
    data = load_data(str(root), wanted)
    assert len(data.train) + len(data.validation) + len(data.test) == 41
    assert data.notes == ()


def test_transparent_parts_are_white_and_deep_greys_keep_their_scale() -> None:
    """What lies under full transparency does not show; 16 bits are scaled, not cut off."""
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert set(pictures.pixels_or_none(pictures.Picture("x", 0, lambda: clear), SHAPE) or b"") == {255}
    deep = io.BytesIO()
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(deep, "png")
    assert set(pictures.pixels_or_none(pictures.Picture("x", 0, deep.getvalue), SHAPE) or b"") == {100}


def test_other_sizes_fill_the_frame_from_the_middle() -> None:
    """A wide picture loses its sides, not its shape."""
    values = np.zeros((8, 24, 3), np.uint8)
    values[:, 8:16] = 200
    found = pictures.pixels_or_none(pictures.Picture("x", 0, lambda: Image.fromarray(values)), SHAPE)
    assert set(found or b"") == {200}


def test_pictures_are_turned_as_their_camera_says() -> None:
    """EXIF's orientation is applied."""
    values = np.zeros((8, 8, 3), np.uint8)
    values[:4] = 255
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(values).save(turned, "png", exif=exif)
    found = pictures.pixels_or_none(pictures.Picture("x", 0, turned.getvalue), SHAPE) or b""
    assert (found[0], found[-1]) == (0, 255)


def test_a_second_run_decodes_nothing(tmp_path: Path, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pixels are mapped from the cache, and are the same set."""
    root = two_classes(tmp_path / "set")
    first = load_data(str(root), wanted)
    monkeypatch.setattr(pictures, "_decoded", lambda *_: pytest.fail("decoded again"))
    second = load_data(str(root), wanted)
    assert isinstance(second.train.images.base, np.memmap)
    assert second.sha256 == first.sha256
    assert (second.train.images == first.train.images).all()


def test_changed_pictures_are_another_set(tmp_path: Path, wanted: Wanted) -> None:
    """One picture replaced gives another hash, and its new pixels."""
    root = two_classes(tmp_path / "set")
    before = load_data(str(root), wanted).sha256
    picture(77, (9, 9)).save(root / "cat" / "0003.png")
    assert load_data(str(root), wanted).sha256 != before


@pytest.mark.parametrize("name", ["bin", "json"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, wanted: Wanted, name: str) -> None:
    """A flipped byte in the pixels or the facts is noticed."""
    root = two_classes(tmp_path / "set")
    before = load_data(str(root), wanted)
    expected = before.train.images.tobytes()
    (path,) = wanted.cache.glob(f"*.{name}")
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    assert load_data(str(root), wanted).train.images.tobytes() == expected


def test_a_few_damaged_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    """Labels stay with their pictures; the set's notes name the damaged ones, also from the cache."""
    root = two_classes(tmp_path / "set")
    (root / "cat" / "0004.png").write_bytes(b"no picture")
    whole = (root / "dog" / "1002.png").read_bytes()
    (root / "dog" / "1002.png").write_bytes(whole[: len(whole) // 2])
    wanted = Wanted(SHAPE, cache=tmp_path / "cache", damaged_limit=0.1)
    for _ in range(2):
        data = load_data(str(root), wanted)
        every = [
            (s.images[i].tobytes(), s.labels[i])
            for s in (data.train, data.validation, data.test)
            for i in range(len(s))
        ]
        assert len(every) == 38
        for number, label in [(n, 0) for n in range(20) if n != 4] + [(n, 1) for n in range(1000, 1020) if n != 1002]:
            assert (np.asarray(picture(number)).tobytes(), label) in every
        (note,) = data.notes
        assert "2 damaged" in note
        assert "cat/0004.png" in note
        assert "dog/1002.png" in note


def test_too_many_damaged_pictures_end_the_run(tmp_path: Path, wanted: Wanted) -> None:
    """The message counts them and names the first."""
    root = two_classes(tmp_path / "set")
    (root / "cat" / "0004.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 40 pictures cannot be decoded \(cat/0004.png\), more than 1 %"):
        load_data(str(root), wanted)


def empty(root: Path) -> None:
    root.mkdir()


def empty_class(root: Path) -> None:
    two_classes(root)
    (root / "emu").mkdir()


def one_class(root: Path) -> None:
    put(root / "cat", 5)


def other_class(root: Path) -> None:
    two_classes(root / "train")
    put(root / "test" / "emu", 2)


def no_train(root: Path) -> None:
    put(root / "test" / "cat", 2)


def one_picture_a_class(root: Path) -> None:
    two_classes(root, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "has no folders of classes"),
        (empty_class, "emu holds no pictures"),
        (one_class, "it has 1 class; at least two"),
        (other_class, "class 'emu' is none of the training pictures': cat, dog"),
        (no_train, "it has test/ but no train/"),
        (one_picture_a_class, "split validation has no picture"),
    ],
)
def test_folders_that_are_no_set_are_refused(tmp_path: Path, wanted: Wanted, make, message: str) -> None:  # type: ignore[no-untyped-def] # one of the functions above
    """The message names the folder and what is missing."""
    make(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        load_data(str(tmp_path / "set"), wanted)


def test_pictures_need_a_size(tmp_path: Path) -> None:
    """Without a wanted shape the message says how to give one."""
    with pytest.raises(DataError, match="say which with --resolution"):
        load_data(str(two_classes(tmp_path / "set")), Wanted(cache=tmp_path / "cache"))


def test_a_disk_without_room_is_told_before_anything_is_decoded(
    tmp_path: Path, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how much is needed and where else the pixels may go."""
    root = two_classes(tmp_path / "set")
    monkeypatch.setattr(pictures.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(DataError, match="EDGEKD_CACHE"):
        load_data(str(root), wanted)


def test_an_interrupted_decoding_leaves_no_half_file(
    tmp_path: Path, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only whole files appear under their names, and the next run decodes again."""
    root = two_classes(tmp_path / "set")
    decoded = pictures._decoded

    def cut_off(*arguments: object) -> Iterator[bytes | None]:
        found = decoded(*arguments)  # type: ignore[arg-type] # passed on
        yield next(found)
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "_decoded", cut_off)
    with pytest.raises(KeyboardInterrupt):
        load_data(str(root), wanted)
    assert list(wanted.cache.iterdir()) == []
    monkeypatch.setattr(pictures, "_decoded", decoded)
    assert len(load_data(str(root), wanted).train) == 34


def test_the_facts_beside_the_pixels_say_what_they_are(tmp_path: Path, wanted: Wanted) -> None:
    """Format, version, shape and damaged names can be read by a person."""
    load_data(str(two_classes(tmp_path / "set")), wanted)
    (path,) = wanted.cache.glob("*.json")
    facts = json.loads(path.read_text())
    assert (facts["format"], facts["version"], facts["count"], facts["shape"]) == ("edgekd-images", 1, 40, [8, 8, 3])
