"""A study's process that is interrupted or killed leaves nobody at work: real process trees, watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray_clusters import HERE, IMPORTABLE, MARK, cluster_of, running, wait_until
from rooms import FormulaRoom
from small_run import line_count
from studies import study

from edgekd.search.workers.opening import workers_in
from edgekd.search.workers.settings import WorkerSettings

pytestmark = pytest.mark.slow


@contextmanager
def stuck_study(folder: Path, address: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a study whose two workers compute for ever, as leader of its own process group, and give its mark."""
    folder.mkdir()
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, str(HERE / "worker_driver.py"), str(folder), *([address] if address else [])],
        env=os.environ | {MARK: mark, "PYTHONPATH": IMPORTABLE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(list(folder.iterdir())) == 2 or process.poll() is not None, "two workers at work")
        if process.poll() is not None:
            pytest.fail(f"the study ended by itself: {process.communicate()[1]}")
        yield process, mark
    finally:
        process.kill()
        process.communicate()


def test_a_study_that_is_killed_twice_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """SIGKILL in the midst of batches of two Ray workers: the same file in the end as from one worker without Ray."""
    path, diary = tmp_path / "killed.jsonl", tmp_path / "diary"
    command = [sys.executable, str(HERE / "study_driver.py"), str(path), str(diary)]
    for samples in (3, 11):
        with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": IMPORTABLE}) as process:
            wait_until(lambda least=samples: line_count(path) > least or process.poll() is not None, "so many samples")
            process.kill()
        assert line_count(path) <= 24
    subprocess.run(command, env=os.environ | {"PYTHONPATH": IMPORTABLE}, check=True, timeout=120)
    with workers_in(FormulaRoom, WorkerSettings()) as workers:
        study(tmp_path / "undisturbed.jsonl", budget=24, batch=8).run(workers.evaluate)
    assert path.read_text() == (tmp_path / "undisturbed.jsonl").read_text()
    assert line_count(path) == 25


def workers_of(folder: Path) -> set[int]:
    """Name the processes that said that they compute."""
    return {int(path.name) for path in folder.iterdir()}


def alive(pids: set[int]) -> set[int]:
    """Name those that still run."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return {
        pid for pid, path in states.items() if path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"
    }


def test_a_killed_study_leaves_no_process(tmp_path: Path) -> None:
    """SIGKILL: it can tell nobody, and all that it started ends all the same, Ray's own processes included."""
    with stuck_study(tmp_path / "pids") as (process, mark):
        workers = workers_of(tmp_path / "pids")
        assert len(running(mark)) > 3
        process.kill()
        wait_until(lambda: not alive(workers), "the end of those that compute")
        # two of Ray's own try for a minute to tell a head that is gone that it is
        wait_until(lambda: not running(mark), "the end of all its processes", 180.0)


def test_an_interrupted_study_leaves_no_process_and_says_nothing(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group of a terminal, as here; the study ends at once with its own exit code."""
    with stuck_study(tmp_path / "pids") as (process, mark):
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out == err == ""
        wait_until(lambda: not running(mark), "the end of all its processes")


def test_a_killed_study_leaves_no_worker_on_a_cluster(tmp_path: Path) -> None:
    """The cluster goes on; what trained for the study there ends."""
    with cluster_of(2) as cluster, stuck_study(tmp_path / "pids", cluster.address) as (process, _):
        workers = workers_of(tmp_path / "pids")
        assert alive(workers) == workers
        process.kill()
        wait_until(lambda: not alive(workers), "the end of its workers")
