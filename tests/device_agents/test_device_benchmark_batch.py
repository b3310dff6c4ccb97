"""A batch of benchmark_model against a script of the test: what a reading of the sentinel may stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest

from device_agents.engines.benchmark_batch import BenchmarkBatch, PlannedJob
from device_agents.engines.benchmark_script import Conditions, Outcome, Script, Talk
from device_agents.protocol import MeasureSettings

GOLDEN = Path(__file__).parent / "golden"
SENTINEL, OTHER = (PlannedJob(name, digit * 64, "operator") for name, digit in (("sentinel", "a"), ("other", "b")))
SETTINGS = asdict(MeasureSettings(rounds=3, samples_per_round=1))


class ScriptedRuns:
    """Answers as edgekd_bench.sh would: a model's visits end with the codes of its list, and with 0 after those."""

    def __init__(self, codes: Mapping[str, list[int]]) -> None:
        self.codes = {job.sha256: list(codes.get(job.job_id, [])) for job in (SENTINEL, OTHER)}
        self.visits = dict.fromkeys(self.codes, 0)

    def check(self, hashes: Sequence[str]) -> Talk[frozenset[str]]:
        """Find every model in order."""
        yield from ()
        return frozenset(hashes)

    def conditions(self) -> Talk[Conditions]:
        """Tell of nothing."""
        yield from ()
        return Conditions((), {}, held=False, events=0)

    def run(self, words: Sequence[str], limit_s: float) -> Talk[Outcome]:
        """Give one visit."""
        yield from ()
        self.visits[words[1]] += 1
        code = self.codes[words[1]].pop(0) if self.codes[words[1]] else 0
        text = (GOLDEN / "first.txt").read_text().splitlines() if code == 0 else []
        return Outcome(code, lines=text)


def lines_of(script: ScriptedRuns, jobs: Sequence[PlannedJob]) -> list[dict[str, Any]]:
    """Measure jobs and return what is said of them."""
    batch = BenchmarkBatch(cast("Script", script), SETTINGS, frozenset())
    said = [line for line in batch.run(SENTINEL, jobs) if isinstance(line, bytes)]
    return [json.loads(line) for line in said]


@pytest.mark.parametrize("codes", [[0, 137], [0, 0, 137, 137]])
def test_a_sentinel_that_has_served_is_not_replaced(codes: list[int]) -> None:
    """One of its readings may fail; another model's in their place would tell of another speed."""
    lines = lines_of(ScriptedRuns({"sentinel": codes}), [OTHER])
    assert {line["job"] for line in lines if line.get("phase") == "sentinel"} == {"sentinel"}
    (row,) = [line for line in lines if line["type"] == "row"]
    assert row["sentinel_ns"] > 0


def test_one_that_never_served_is_tried_once() -> None:
    """A model that cannot run, or hangs for its whole time limit, must not do so before every round."""
    script = ScriptedRuns({"sentinel": [1] * 10})
    lines = lines_of(script, [OTHER])
    assert script.visits[SENTINEL.sha256] == 1
    assert [line["job"] for line in lines if line["type"] == "row"] == ["other"]
