"""The set that comes with edgekd: Fashion-MNIST images, see tools/make_embedded_data.py."""

from __future__ import annotations

from pathlib import Path

from edgekd.data.dataset import DataSet
from edgekd.data.pictures import Wanted
from edgekd.data.sources.npz import load as load_npz

EMBEDDED = Path(__file__).parents[1] / "embedded.npz"


def load(text: str, wanted: Wanted) -> DataSet:
    """Load it; its name is "embedded", wherever edgekd is installed."""
    return load_npz(str(EMBEDDED), wanted, text)
