"""A real daemon with something to break: its processes and files seen from the host, its models played by a script.

`FaultyDevice` is one virtual device and one way to it. `host_command` is the product's command line as a process of its
own, with short blocks, so that rows come while others are still to come.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from virtual import VirtualDevices

from device_agents.device import Device
from device_agents.inventory import find_device, open_transport
from device_agents.protocol import Job, JobResult, MeasureSettings
from device_agents.session import Session, SessionLimits
from device_agents.transport import Transport

LIMIT_S = 60.0  # for an event that takes a moment: a machine of two busy cores may take long over it
QUICK = MeasureSettings(rounds=2, samples_per_round=2, min_sample_us=10, warmup_min_ms=0.01, block_size=1)
TARGET_NAME = "target"  # in the devices.toml of a test

# Behaves as its model's text says. "burn N" runs for about N additions. "gate FIFO" says its process id into the FIFO
# and never returns, but only once: when it is loaded again it runs as others do. "kill N" dies of that signal.
# "deaf" never returns and ignores alarms, "hang" never returns.
FAKE_RUNTIME = """
import os, signal, threading

class Interpreter:
    def __init__(self, model_content, num_threads):
        self.words = model_content.decode().split()
        if self.words[0] not in ("burn", "gate", "kill", "deaf", "hang"):
            raise ValueError("not a model")

    def allocate_tensors(self): pass
    def get_input_details(self): return []
    def get_output_details(self): return []

    def invoke(self):
        word, argument = self.words[0], self.words[1]
        if word == "burn":
            sum(range(int(argument)))
        elif word == "gate":
            try:
                os.rename(argument, argument + ".used")
            except FileNotFoundError:
                return
            with open(argument + ".used", "w") as gate:
                gate.write(f"{os.getpid()}\\n")
            threading.Event().wait()
        elif word == "kill":
            os.kill(os.getpid(), int(argument))
        else:
            if word == "deaf":
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
            threading.Event().wait()
"""

_DRIVER = """
import functools, sys
from dataclasses import replace
from edgekd import bench
from edgekd.cli import run
lock_wait_s, reconnect_s, block_size = sys.argv[1:4]
bench.MeasureSettings = functools.partial(bench.MeasureSettings, block_size=int(block_size))
bench._LIMITS = replace(bench._LIMITS, lock_wait_s=float(lock_wait_s), reconnect_s=float(reconnect_s))
sys.exit(run(sys.argv[4:]))
"""


@dataclass(frozen=True)
class Gate:
    """A meeting of a test with a model that runs on the device."""

    path: Path
    model: str
    reader: int

    def meet(self) -> int:
        """Wait until the model runs; return the process id that its runner has on the device."""
        assert select.select([self.reader], [], [], LIMIT_S)[0], "the model at the gate was never run"
        return int(os.read(self.reader, 100))


@dataclass
class Shelf:
    """Models by their hash, and jobs for them."""

    folder: Path
    models: dict[str, Path] = field(default_factory=dict)

    def job(self, job_id: str, content: bytes | str) -> Job:
        """Store a model and return a job for it."""
        data = content.encode() if isinstance(content, str) else content
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / f"{digest[:16]}.model"
        path.write_bytes(data)
        self.models[digest] = path
        return Job(job_id, digest)


@dataclass(frozen=True)
class FaultyDevice:
    """A virtual device; `scratch` is a folder of the test on it, `python` an interpreter there with a real runtime."""

    virtual: VirtualDevices
    name: str
    python: str
    scratch: Path  # as the host sees it
    toml: Path

    @cached_property
    def entry(self) -> dict[str, Any]:
        """What the listing says of it."""
        return self.virtual.entry(self.name)

    @property
    def work(self) -> Path:
        """Its work folder, as the host sees it."""
        return self.here(str(self.entry["work"]))

    def here(self, path: str) -> Path:
        """Where the host sees a path of the device."""
        return Path(self.entry["root"]) / path.lstrip("/")

    def there(self, path: Path) -> str:
        """Where the device sees a path of the host."""
        return "/" + str(path.relative_to(self.entry["root"]))

    # --- what runs and lies there ---------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """List what runs there, apart from its first process and its daemon with the sessions that this serves."""
        wanted = Path("/run/netns", self.entry["namespace"]).stat().st_ino
        found = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in found if _inode(pid) == wanted and not _is_the_devices_own(pid)]

    def process(self, inner: int) -> int:
        """Return the host's id of a process that the device knows by another."""
        return next(pid for pid in self.processes() if _inner_ids(pid)[-1] == inner)

    def files(self) -> set[Path]:
        """List the paths there outside the work folder that a program could have made."""
        top = self.here(str(self.entry["work"])).parents[1]  # the home folder, or /data/local
        if self.entry["transport"] == "adb":
            top = Path(self.entry["root"])
        kept = (self.work, self.scratch)
        return {path for path in top.rglob("*") if not any(path.is_relative_to(one) for one in kept)} - {*self.work.parents}

    def wait_until_idle(self, limit_s: float = LIMIT_S) -> None:
        """Wait until nothing of ours runs there."""
        until = time.monotonic() + limit_s
        while found := self.processes():
            for pid in found:
                assert ends_within(pid, until - time.monotonic()), f"still on the device: {command_of(pid)}"

    def inside(self, *argv: str) -> str:
        """Run a program of the host among the device's mounts."""
        target = f"--target={self.entry['daemon_pids'][0]}"
        done = subprocess.run(["nsenter", target, "--mount", *argv], capture_output=True, text=True, check=True)
        return done.stdout

    # --- what breaks ----------------------------------------------------------------------------------------------

    def gate(self, name: str = "gate") -> Gate:
        """Make a gate for one meeting."""
        folder = self.scratch / "gates"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # noqa: S103 - the device's user renames the gate
        path = folder / name
        os.mkfifo(path)
        path.chmod(0o666)  # noqa: S103 - and opens it
        return Gate(path, f"gate {self.there(path)}", os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Pull its cable for as long as the block takes."""
        self.virtual.cut(self.name)
        try:
            yield
        finally:
            self.virtual.mend(self.name)

    def sessions(self) -> list[int]:
        """List the processes of the daemon that serve a connection; adbd has none of its own."""
        listening = {int(pid) for pid in self.virtual.entry(self.name)["daemon_pids"]}
        wanted = Path("/run/netns", self.entry["namespace"]).stat().st_ino
        everything = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [
            pid
            for pid in everything
            if pid not in listening and _inode(pid) == wanted and "sshd" in command_of(pid).partition(" ")[0]
        ]

    # --- measuring ------------------------------------------------------------------------------------------------

    def describe(self) -> Device:
        """Ask what it is."""
        return find_device(TARGET_NAME)

    def scripted(self, program: str = "") -> str:
        """Put an interpreter there whose runtime is FAKE_RUNTIME; `program` is run by it in place of the runner."""
        package = self.scratch / "site" / "ai_edge_litert"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("")
        (package / "interpreter.py").write_text(FAKE_RUNTIME)
        path = self.scratch / "python"
        instead = ""
        if program:
            (self.scratch / "instead.py").write_text(program)
            instead = f" {self.there(self.scratch / 'instead.py')}"
        call = f'PYTHONPATH={self.there(package.parent)} exec {self.python}{instead} "$@"'
        path.write_text(f"#!{'/system/bin/sh' if self.entry['transport'] == 'adb' else '/bin/sh'}\n{call}\n")
        path.chmod(0o755)  # noqa: S103 - the device's user runs it
        return self.there(path)

    @contextlib.contextmanager
    def session(
        self, limits: SessionLimits, python: str = "", way: Transport | None = None, notes: list[str] | None = None
    ) -> Iterator[Session]:
        """Hold a session with it; `python` is an interpreter there, FAKE_RUNTIME's if not given."""
        device = replace(self.describe(), engine="python", python=python or self.scripted())
        told: Callable[[str], None] = (lambda text: None) if notes is None else notes.append
        with contextlib.closing(way or open_transport(device)) as transport, Session(
            device, transport, limits, told
        ) as session:
            yield session

    def command(self, *arguments: str, limits: tuple[float, float] = (0.0, 60.0), block_size: int = 4) -> Command:
        """Start edgekd as a process of its own; limits are lock_wait_s and reconnect_s."""
        argv = [sys.executable, "-c", _DRIVER, *map(str, limits), str(block_size), *arguments, "--device", TARGET_NAME]
        return Command(argv, self.toml.parent)


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
            time.sleep(0.005)


@contextlib.contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread during the block; what it raises is raised at the block's end."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * LIMIT_S)
    assert not thread.is_alive(), "what should have happened meanwhile still waits"
    if errors:
        raise errors[0]


def statuses(rows: Sequence[JobResult]) -> dict[str, str]:
    """Return the status of each job; each has one row."""
    assert len({row.job_id for row in rows}) == len(rows), "a job came twice"
    return {row.job_id: row.status for row in rows}


def ends_within(pid: int, seconds: float) -> bool:
    """Wait for the end of any process, child or not: True when it came in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], max(0.0, seconds))[0])
    finally:
        os.close(handle)


def command_of(pid: int) -> str:
    """Return a process's command line; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def _inode(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def _inner_ids(pid: int) -> list[int]:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return [0]
    return [int(word) for line in status.splitlines() if line.startswith("NSpid:") for word in line.split()[1:]]


def _is_the_devices_own(pid: int) -> bool:
    """Tell whether a process is the device's first one, what started that, its daemon, or has ended."""
    words = command_of(pid).split()
    if not words or len(_inner_ids(pid)) < 2 or _inner_ids(pid)[-1] == 1:
        return True
    return any(word.partition(":")[0].rpartition("/")[2].startswith(("sshd", "adbd")) for word in words[:2])
