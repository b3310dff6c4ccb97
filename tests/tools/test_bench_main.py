"""tools/bench_main.py: what it reads of others' output, how it follows processes, and when a bar holds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load() -> ModuleType:
    """Load the tool as a module, which finds its sibling beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        spec = importlib.util.spec_from_file_location("bench_main", TOOLS / "bench_main.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


bench = load()


def result(**changes: Any) -> dict[str, Any]:
    times = {"median": 10.0, "max": bench.MAX_WRITE_MS}
    at_the_bars = {
        "table_ratio": bench.MIN_TABLE_RATIO,
        "write_ms": {"float32": times, "int8": times},
        "help_heavy_imports": [],
    }
    return at_the_bars | changes


def test_a_bar_that_is_just_reached_holds() -> None:
    """The bars are the least that is asked for."""
    assert bench.missed_bars(result()) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"table_ratio": 19.9}, "table_ratio 19.9"),
        ({"write_ms": {"float32": {"median": 1.0, "max": 50.5}}}, "write_ms.float32.max 50.5"),
        ({"help_heavy_imports": ["torch"]}, "torch"),
    ],
)
def test_each_missed_bar_is_named_with_its_value(changes: dict[str, Any], named: str) -> None:
    """A result below one bar says which and by how much."""
    (missed,) = bench.missed_bars(result(**changes))
    assert named in missed


def test_heavy_imports_are_found_in_what_python_itself_writes() -> None:
    """The listing of a real interpreter is understood, a package counted once, and a like-named one not at all."""
    code = "import json.decoder, ai_edge_litert"
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    ).stderr
    assert bench.heavy_imports(listing) == ["ai_edge_litert"]
    like_named = "import time: 1 | 2 |   torchlike\nimport time: 1 | 2 | json.torch\n"
    assert bench.heavy_imports(like_named) == []


@pytest.mark.whole  # starts two other Pythons
def test_a_process_memory_includes_its_descendants() -> None:
    """What a child of a child holds counts, as the workers of a run do."""
    hold = "block = bytearray(b'x' * 50_000_000); print('held', flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert bench.tree_memory_bytes(process.pid) > 50_000_000
        process.communicate(b"\n")


def test_a_process_that_has_ended_holds_no_memory() -> None:
    """A process may end between being listed and being looked at."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert bench.tree_memory_bytes(process.pid) == 0


@given(st.dictionaries(st.integers(1, 30), st.integers(1, 30)), st.integers(1, 30))
def test_descendants_are_those_whose_chain_of_parents_leads_to_the_root(parents: dict[int, int], root: int) -> None:
    """Every process is judged as by walking up from it, also where a reused number makes a circle."""

    def leads_to_root(pid: int) -> bool:
        seen: set[int] = set()
        while pid != root and pid in parents and pid not in seen:
            seen.add(pid)
            pid = parents[pid]
        return pid == root

    assert bench.descendants(root, parents) == {root, *filter(leads_to_root, parents)}


def test_a_failing_command_is_an_error_and_not_a_time() -> None:
    """A benchmark of something that does not work must not look fast."""
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with pytest.raises(RuntimeError, match="ended with 1: no such model"):
        bench.seconds_of(command)
