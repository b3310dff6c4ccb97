"""Real Ray clusters of several nodes on this machine, for tests, and what still runs of a process tree."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgekd.search.workers.cluster import imported_ray

HERE = Path(__file__).resolve().parent
IMPORTABLE = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parent.parent)))  # what workers unpickle
MARK = "EDGEKD_TEST_TREE"
# a node that is gone is missed after a second, where Ray usually waits for half a minute
_HASTE = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 200, "health_check_timeout_ms": 1000}


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Start processes inside the block with other variables."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def cluster_of(cpus: int) -> Iterator[Any]:
    """Start a cluster whose head node has so many processors; more nodes are added to it."""
    imported_ray()
    from ray.cluster_utils import Cluster

    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="ekd-", dir="/tmp")  # short: the paths of sockets are
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(environment(PYTHONPATH=IMPORTABLE, RAY_TMPDIR=folder))
        head = {"num_cpus": cpus, "include_dashboard": False, "_system_config": _HASTE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        stack.callback(cluster.shutdown)
        yield cluster


def wait_until(happened: Callable[[], bool], what: str, limit_s: float = 90.0) -> None:
    """Wait for what no event tells of."""
    end_s = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end_s, f"{what} did not happen within {limit_s:.0f} s"
        time.sleep(0.05)  # files and processes tell nobody


def running(mark: str) -> list[str]:
    """List the processes, as command lines, that were started with a mark in their environment, or by such ones."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if f"{MARK}={mark}".encode() in environment and command:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
