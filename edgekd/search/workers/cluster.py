"""Joins a Ray cluster, or starts a small one on this machine, and leaves it as it was found.

A local one is quiet, and ends with this process even when that is killed. A remote one is first asked from another
process whether it answers: Ray itself waits for minutes where nothing does.
What runs there is ray_pool.py's and measuring.py's.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd.errors import MissingExtra
from edgekd.search.workers.errors import NoCluster
from edgekd.search.workers.settings import WorkerSettings

# nothing is sent to Ray's makers; and that a worker died, which it would print on stdout, is told in the rating
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
_STORE_BYTES = 80 << 20  # Ray's least; what is sent are architectures and numbers
_CONNECT_S = 10.0  # to a port; a head node in reach answers at once
_ANSWER_S = 60.0  # a busy machine takes seconds to import Ray
_LONGEST_REASON = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"[\w.]+(?:Error|Exception): ")
_LONGEST_FOLDER = 40  # a socket's path has 107 characters, of which Ray takes 64


@contextlib.contextmanager
def joined(settings: WorkerSettings) -> Iterator[None]:
    """Be connected to Ray inside the block; a connection that exists already is used and left.

    Raises:
        MissingExtra: Ray is not installed.
        NoCluster: nothing answers at the address, or it cannot be joined from here.

    """
    ray = imported_ray()
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        options = _remote(settings.ray_address) if settings.ray_address else _local(stack, settings)
        stack.callback(ray.shutdown)
        try:
            ray.init(**options, log_to_driver=False, configure_logging=False)
        except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise NoCluster(_cannot_join(settings.ray_address, error)) from error
        yield


def imported_ray() -> Any:
    """Give the module, silenced. Raises MissingExtra."""
    os.environ.update(_QUIET)  # read on import
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra("ray", "ray") from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells at length what is as it should be
    return ray


def reason_of(error: BaseException) -> str:
    """Give what counts of Ray's long messages, in one line: a trace's last, else all but the lists of ids."""
    lines = [line for line in _COLOUR.sub("", str(error)).splitlines() if line.strip() and not line.startswith("\t")]
    told = lines[-1:] if lines and _RAISED.match(lines[-1]) else lines
    text = " ".join(" ".join(told).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _local(stack: contextlib.ExitStack, settings: WorkerSettings) -> dict[str, Any]:
    """Set up a Ray of this machine with room for all workers; processors may be shared, as the user asked."""
    folder = Path(tempfile.mkdtemp(prefix="edgekd-", dir=_short_folder()))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return {
        "address": "local",  # never a cluster that happens to run here
        "num_cpus": max(1, math.ceil(settings.workers * settings.cpus_per_worker)),
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_temp_dir": str(folder),
        # workers yield to others no more than this process does: so one more worker is one more of the same
        "_system_config": {"worker_niceness": 0},
    }


def _short_folder() -> str | None:
    usual = tempfile.gettempdir()
    return usual if len(usual) + len("/edgekd-12345678") <= _LONGEST_FOLDER else "/tmp"  # noqa: S108 - mkdtemp's is private


def _remote(address: str) -> dict[str, Any]:
    """See that a cluster answers. Raises NoCluster."""
    if address == "auto":
        return {"address": address}
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 1 << 16) or "/" in address:
        raise NoCluster(f"Ray address {address!r} is neither HOST:PORT of a head node nor auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        raise NoCluster(_cannot_join(address, error)) from error
    _see_answer(address)
    return {"address": address}


def _see_answer(address: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except subprocess.TimeoutExpired as error:
        what = TimeoutError(f"what listens there does not answer as Ray does within {_ANSWER_S:.0f} s")
        raise NoCluster(_cannot_join(address, what)) from error
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise NoCluster(_cannot_join(address, RuntimeError(words[-1] if words else "it is not healthy")))


def _cannot_join(address: str, error: BaseException) -> str:
    if not address:
        return f"Ray cannot be started on this machine: {reason_of(error)}"
    return (
        f"Ray cluster {address} cannot be joined: {reason_of(error)}; start it with `ray start --head --port=6379` "
        "and `ray start --address=HEAD:6379` on every other machine that takes part, this one too, with the same Ray"
    )
