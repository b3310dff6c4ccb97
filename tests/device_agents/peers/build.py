"""Compiles the peers of the tests that are written in C. Read next: `benchmark_model.c`.

build.py ABI LIBRARY FOLDER    puts benchmark_model for a processor into a folder
"""

from __future__ import annotations

import sys
from pathlib import Path

import device_agents
from device_agents.build_agent import build_program, find_compiler

_NATIVE = Path(device_agents.__file__).parent / "runner" / "native"
_SHARED = ("litert", "machine", "model", "profile", "reason", "tensors", "text")


def build_benchmark_model(abi: str, library: Path, folder: Path, generation: int = 3) -> Path:
    """Compile the stand-in of benchmark_model with the LiteRT library inside, so that it is one file to push.

    generation: 1 writes lines as until 2020, 2 as until 2023, 3 as since 2024. Raises SetupFailed without a compiler.
    """
    sources = [Path(__file__).with_name("benchmark_model.c")]
    sources += [_NATIVE / f"{name}.c" for name in _SHARED] + sorted(_NATIVE.glob("*.h"))
    stamp = library.stat()
    flags = (
        f"-I{_NATIVE}",
        f"-DGENERATION={generation}",
        f'-DLITERT_LIBRARY="{library.resolve()}"',
        f"-DLITERT_STAMP={stamp.st_size + stamp.st_mtime_ns}ULL",  # a key of the cache: a library that was replaced
    )
    out = folder / "benchmark_model"
    return build_program(sources, find_compiler(abi), out.name, flags=flags, out=out)


if __name__ == "__main__":
    build_benchmark_model(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
