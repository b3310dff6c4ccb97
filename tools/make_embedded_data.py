#!/usr/bin/env python3
"""Write edgekd/data/embedded.npz from Debian's package dataset-fashion-mnist.

    apt-get install dataset-fashion-mnist && python tools/make_embedded_data.py

10,000 training and 1,000 validation images come from the set's training images, 2,000 test images from its test
images; every class has the same share, chosen by a fixed seed. The file is the same whenever it is made.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

SOURCE = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package puts it
TARGET = Path(__file__).resolve().parent.parent / "edgekd" / "data" / "embedded.npz"
SEED = 20200523  # the date of the Debian package's snapshot
PER_CLASS = {"train": 1000, "validation": 100, "test": 200}
CLASSES = 10
ZIP_DATE = (2020, 5, 23, 0, 0, 0)

Bytes = npt.NDArray[np.uint8]


def main() -> None:
    """Read the idx files, choose, and write one compressed npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the four idx .gz files")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    arrays = choose(read_pair(arguments.source, "train"), read_pair(arguments.source, "t10k"))
    write_npz(arguments.target, arrays)
    digest = hashlib.sha256(arguments.target.read_bytes()).hexdigest()
    print(f"{arguments.target.name}: {arguments.target.stat().st_size:,} bytes, sha256 {digest}")


def read_pair(folder: Path, prefix: str) -> tuple[Bytes, Bytes]:
    """Read images (N, 28, 28) and labels (N,) in the idx format."""
    images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8),
    )


def choose(training: tuple[Bytes, Bytes], test: tuple[Bytes, Bytes]) -> dict[str, Bytes]:
    """Choose class-balanced, disjoint splits in a shuffled order."""
    rng = np.random.default_rng(SEED)
    held = PER_CLASS["train"] + PER_CLASS["validation"]
    per_class = [rng.permutation(np.flatnonzero(training[1] == c))[:held] for c in range(CLASSES)]
    chosen = {
        "train": np.concatenate([rows[: PER_CLASS["train"]] for rows in per_class]),
        "validation": np.concatenate([rows[PER_CLASS["train"] :] for rows in per_class]),
        "test": np.concatenate(
            [rng.permutation(np.flatnonzero(test[1] == c))[: PER_CLASS["test"]] for c in range(CLASSES)]
        ),
    }
    arrays: dict[str, Bytes] = {}
    for split, rows in chosen.items():
        images, labels = test if split == "test" else training
        shuffled = rng.permutation(rows)
        arrays[f"{split}_images"] = images[shuffled][..., None]  # (N, 28, 28, 1)
        arrays[f"{split}_labels"] = labels[shuffled]
    return arrays


def write_npz(path: Path, arrays: dict[str, Bytes]) -> None:
    """Write like numpy.savez_compressed, but with fixed dates and the strongest deflate."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", ZIP_DATE), data.getvalue(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
