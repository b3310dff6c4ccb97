"""The product's command line as a process of its own, with short blocks, so that rows come while others are to come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LIMIT_S = 60.0  # for an event that takes a moment: a machine of two busy cores may take long over it
_DRIVER = """
import functools, sys
from dataclasses import replace
from edgekd import bench
from edgekd.cli import run
lock_wait_s, reconnect_s = sys.argv[1:3]
bench.MeasureSettings = functools.partial(bench.MeasureSettings, block_size=4)
bench._LIMITS = replace(bench._LIMITS, lock_wait_s=float(lock_wait_s), reconnect_s=float(reconnect_s))
sys.exit(run(sys.argv[3:]))
"""


def command_line(*arguments: str, limits: tuple[float, float] = (0.0, 60.0)) -> list[str]:
    """Return the argv of edgekd with blocks of four jobs; limits are lock_wait_s and reconnect_s."""
    return [sys.executable, "-c", _DRIVER, *map(str, limits), *arguments]


class Command:
    """The command line, running; its output lies in files of its own."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]))
        self._stderr = folder / f"stderr-{time.monotonic_ns()}"
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder)},
            )

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text(encoding="utf-8")

    @property
    def last_line(self) -> str:
        """Its last word, which tells what went wrong."""
        return self.stderr.splitlines()[-1]

    def ends(self, limit_s: float = 2 * LIMIT_S) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(limit_s)
        assert "Traceback" not in self.stderr, self.stderr
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something that it does shows."""
        until = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, f"it ended before: {self.stderr}"
            assert time.monotonic() < until, f"it did not come to that: {self.stderr}"
            time.sleep(0.005)  # a condition of another process, which tells nobody
