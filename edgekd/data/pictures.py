"""Image files → one array of bytes that is mapped into memory: decoded once by parallel threads, kept for later runs.

A picture is oriented as its EXIF says, put on white where it is transparent, scaled so that it fills the wanted square,
and cut to its middle. What cannot be decoded is left out, named and counted. Which pictures there are is sources/'s;
augmentation is distill/'s.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.data.dataset import Images
from edgekd.errors import DataError
from edgekd.files import make_folder, write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT, VERSION = "edgekd-images", 1
_CHUNK = 512  # pictures decoded before they are written: some MB at 32x32, 77 MB at 224x224
_NAMED = 5  # of the damaged pictures in a message; all are in the file beside the pixels
_REHASHED_BYTES = 1 << 30  # up to here the pixels are checked against their hash at every start, in half a second

Shape = tuple[int, int, int]  # (H, W, C)


def cache_folder() -> Path:
    """Say where decoded pictures are kept: $EDGEKD_CACHE, or the user's cache folder."""
    given = os.environ.get("EDGEKD_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What pictures are made into, and what is told meanwhile."""

    shape: Shape | None = None  # what the space takes; sources of ready arrays have their own
    on_progress: Callable[[int, int], None] = lambda done, total: None
    damaged_limit: float = 0.01  # share of pictures that may be damaged; more end the run
    cache: Path = field(default_factory=cache_folder)

    def shape_for(self, where: str) -> Shape:
        """Give the shape that pictures of any size are to have.

        Raises:
            DataError: none is wanted.

        """
        if self.shape is None:
            raise DataError(f"data {where}: pictures come in any size; say which with --resolution")
        return self.shape


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: what errors call it, its class, and how to get it: the bytes of a file, or an open picture."""

    name: str
    label: int
    read: Callable[[], bytes | Image]


@dataclass(frozen=True, slots=True)
class Decoded:
    """The pictures that could be decoded: pixels (N, H, W, C), mapped, and which of those asked for are not there."""

    images: Images
    sha256: str
    damaged: tuple[int, ...]  # indices, rising


def decode(where: str, identity: str, pictures: Sequence[Picture], wanted: Wanted) -> Decoded:
    """Decode pictures, or map those decoded before; `identity` names their content.

    Raises:
        DataError: too many are damaged, or the disk has no room for the pixels.

    """
    shape = wanted.shape_for(where)
    key = hashlib.sha256(f"{VERSION} {shape} {identity}".encode()).hexdigest()[:20]
    pixels, facts = wanted.cache / f"images-{key}.bin", wanted.cache / f"images-{key}.json"
    found = _mapped(pixels, facts, shape)
    if found is None:
        _write(where, pictures, wanted, pixels, facts)
        found = _mapped(pixels, facts, shape)
        if found is None:
            raise DataError(f"data {where}: {pixels} changed while it was read; run the same command again")
    _see_damage(where, pictures, found.damaged, wanted.damaged_limit)
    return found


def _see_damage(where: str, pictures: Sequence[Picture], damaged: Sequence[int], limit: float) -> None:
    if len(damaged) > limit * len(pictures):
        raise DataError(
            f"data {where}: {len(damaged)} of {len(pictures)} pictures cannot be decoded "
            f"({named(pictures[index].name for index in damaged)}), more than {100 * limit:g} %; mend or remove them"
        )


def named(names: Iterator[str]) -> str:
    """List a few names, and say how many more there are."""
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def _mapped(pixels: Path, facts: Path, shape: Shape) -> Decoded | None:
    """Map what was decoded before; None where it is missing or not what its facts say."""
    try:
        told = json.loads(facts.read_text(encoding="utf-8"))
        count, sha256, damaged = told["count"], told["sha256"], tuple(told["damaged"])
        size_bytes = pixels.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(count, int) or count < 1 or size_bytes != count * int(np.prod(shape)):
        return None
    if not all(isinstance(index, int) and index >= 0 for index in damaged) or not isinstance(sha256, str):
        return None
    images = np.memmap(pixels, np.uint8, "r", shape=(count, *shape))
    if size_bytes <= _REHASHED_BYTES and hashlib.sha256(images.data).hexdigest() != sha256:
        return None
    return Decoded(images, sha256, damaged)


def _write(where: str, pictures: Sequence[Picture], wanted: Wanted, pixels: Path, facts: Path) -> None:
    make_folder(wanted.cache)
    shape = wanted.shape_for(where)
    _see_room(where, wanted.cache, len(pictures) * int(np.prod(shape)))
    damaged: list[int] = []
    digest = hashlib.sha256()

    def parts() -> Iterator[bytes]:
        for index, picture in enumerate(_decoded(pictures, shape)):
            if picture is None:
                damaged.append(index)
            else:
                digest.update(picture)
                yield picture
            if (index + 1) % _CHUNK == 0 or index + 1 == len(pictures):
                wanted.on_progress(index + 1, len(pictures))

    facts.unlink(missing_ok=True)  # facts of other pixels must never stand beside these
    write_atomic(pixels, parts())
    count = len(pictures) - len(damaged)
    names = [pictures[index].name for index in damaged]
    told = {"format": FORMAT, "version": VERSION, "count": count, "shape": shape, "sha256": digest.hexdigest()}
    write_atomic(facts, json.dumps(told | {"damaged": damaged, "damaged_names": names}) + "\n")


def _see_room(where: str, folder: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise DataError(
            f"data {where}: its pixels take {size_bytes / 1e9:.1f} GB, {folder} has {free_bytes / 1e9:.1f} GB; "
            "set EDGEKD_CACHE to a folder with room"
        )


def _decoded(pictures: Sequence[Picture], shape: Shape) -> Iterator[bytes | None]:
    """Decode in parallel, in order, a chunk ahead; threads do, because decoders let go of Python's lock."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for start in range(0, len(pictures), _CHUNK):
            yield from threads.map(lambda picture: pixels_or_none(picture, shape), pictures[start : start + _CHUNK])


def pixels_or_none(picture: Picture, shape: Shape) -> bytes | None:
    """Decode one picture into H·W·C bytes; None where that fails."""
    from PIL import Image

    try:
        content = picture.read()
        image = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content
        with image:
            return np.ascontiguousarray(_fitted(_plain(image, shape[2]), shape)).tobytes()
    except Exception:  # noqa: BLE001 - on damaged bytes decoders raise whatever they come upon; it is named and counted
        return None


def _plain(image: Image, channels: int) -> Image:
    """Give a picture as grey or colour, upright and opaque."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits; Pillow itself would cut them off at 255
        values = np.asarray(upright, np.float64)
        upright = Pillow.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    if "A" in upright.getbands() or "transparency" in upright.info:
        clear = upright.convert("RGBA")
        upright = Pillow.alpha_composite(Pillow.new("RGBA", clear.size, "white"), clear)
    return upright.convert("L" if channels == 1 else "RGB")


def _fitted(image: Image, shape: Shape) -> Any:
    """Scale and cut a picture to (H, W, C), the smaller side filling the frame."""
    from PIL import Image as Pillow

    height, width, channels = shape
    if image.size != (width, height):
        scale = max(width / image.width, height / image.height)
        size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(size, Pillow.Resampling.BILINEAR)  # with antialiasing, as Pillow always does
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, np.uint8).reshape(height, width, channels)
