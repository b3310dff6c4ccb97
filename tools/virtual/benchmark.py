"""The stand-in of Google's benchmark_model, which is in no package: one file that a phone without Python can run.

It takes the real one's flags, runs models through LiteRT's library and prints genuine output; its source and its build
are the tests' (tests/device_agents/peers).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from virtual.places import REPOSITORY, Places, run

_BUILD = REPOSITORY / "tests" / "device_agents" / "peers" / "build.py"
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}


def benchmark_model(places: Places, arch: str) -> Path:
    """Say where the program for an architecture lies once it is built."""
    return places.state / "roots" / f"standins_{arch}" / "benchmark_model"


def build_benchmark_model(places: Places, arch: str) -> None:
    """Build the program, or take it from the cache. Raises VirtualDeviceError."""
    library = library_of(places, arch)
    if library is None:
        return
    target = benchmark_model(places, arch)
    target.parent.mkdir(parents=True, exist_ok=True)
    build: list[str | Path] = [sys.executable, _BUILD, _MACHINES[arch], library, target.parent]
    run(["env", f"PYTHONPATH={os.fspath(REPOSITORY)}", *build], f"building benchmark_model for {arch}")


def library_of(places: Places, arch: str) -> Path | None:
    """Find LiteRT's library for an architecture among the wheels."""
    found = (places.state / "roots").glob(f"wheels_{arch}-*/ai_edge_litert/libLiteRt.so")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
