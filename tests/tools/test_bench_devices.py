"""tools/bench_devices.py: its models, what it takes for the models' own time, and when a bar holds."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from device_agents.protocol import JobResult
from edgekd.graph.tflite_reader import read_ops

pytestmark = pytest.mark.whole  # whole benchmarks

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The tool as a module, which finds its sibling beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        spec = importlib.util.spec_from_file_location("bench_devices", TOOLS / "bench_devices.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "bench_devices", module)  # its dataclasses look for their module there
        spec.loader.exec_module(module)
        return module


def result(bench: ModuleType, **changes: Any) -> dict[str, Any]:
    """Give a result in which every bar is reached exactly."""
    at_the_bars = {
        "host_overhead_ms_per_row": dict.fromkeys(bench.DEVICES, bench.MAX_OVERHEAD_MS),
        "push_ratio": dict.fromkeys(bench.DEVICES, bench.MIN_PUSH_RATIO),
        "second_session_pushed_bytes": dict.fromkeys(bench.DEVICES, 0),
        "rss_growth_mb": bench.MAX_RSS_GROWTH_MB,
    }
    return at_the_bars | changes


def test_a_bar_that_is_reached_exactly_holds(bench: ModuleType) -> None:
    """Only what is beyond a bar is missed."""
    assert bench.missed_bars(result(bench)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host_overhead_ms_per_row": {"ssh": 5.0, "adb": 5.1}}, "host_overhead_ms_per_row.adb 5.10 is above 5"),
        ({"push_ratio": {"ssh": 0.49, "adb": 1.0}}, "push_ratio.ssh 0.49 is below 0.5"),
        ({"second_session_pushed_bytes": {"ssh": 0, "adb": 1}}, "second_session_pushed_bytes.adb is 1, not 0"),
        ({"rss_growth_mb": 16.1}, "rss_growth_mb 16.1 is above 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_missed_bar_is_named_with_its_value(bench: ModuleType, changes: dict[str, Any], said: str) -> None:
    """One value beyond one bar is one line."""
    assert bench.missed_bars(result(bench, **changes)) == [said]


def test_the_batch_is_real_models_none_twice(bench: ModuleType, tmp_path: Path) -> None:
    """Each file is a model of one operator under its own hash, so that each must be pushed."""
    batch = bench.Batch.of(tmp_path, 60)
    assert len({job.job_id for job in batch.jobs}) == len(batch.models) == 60
    for digest, path in batch.models.items():
        content = path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert [op.kind for op in read_ops(content)] == ["conv_2d"]
    assert batch.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_repeated_batch_has_more_rows_of_the_same_models(bench: ModuleType, tmp_path: Path) -> None:
    """Thousands of rows need no more files."""
    batch = bench.Batch.of(tmp_path, 3)
    many = batch.repeated(7)
    assert [job.model_sha256 for job in many.jobs[:3]] == [job.model_sha256 for job in many.jobs[3:6]]
    assert len({job.job_id for job in many.jobs}) == 7
    assert many.models == batch.models


def test_the_models_own_time_is_loading_warm_up_and_runs(bench: ModuleType) -> None:
    """Four samples of eight runs, and two runs before each of two visits, at 100 ns on the wall."""
    row = JobResult("a", "ok", (90,) * 4, (100,) * 4, "thread_cpu", 8, warmup_ns=5000, warmup_runs=3, init_ns=700)
    row = replace(row, beside_ns=(50, 50))
    assert bench.model_ns(row) == 700 + 5000 + 4 * 8 * 100 + 2 * 2 * 100
