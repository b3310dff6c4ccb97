"""A real daemon with something to break: its processes and files seen from the host, its models played by a script.

`FaultyDevice` is one virtual device and one way to it. Read next: `fault_commands.py`, the host as a process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from fault_commands import LIMIT_S, Command, command_line
from virtual import VirtualDevices

from device_agents.adb.choice import AdbOptions, connector_for
from device_agents.adb.transport import AdbTransport
from device_agents.addresses import Address
from device_agents.device import Device
from device_agents.inventory import find_device, open_transport
from device_agents.protocol import JobResult, MeasureSettings
from device_agents.session import DEFAULT_LIMITS, Session, SessionLimits
from device_agents.ssh import SshTransport
from device_agents.ssh_link import SshOptions
from device_agents.transport import Transport

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


@dataclass(frozen=True)
class Gate:
    """A meeting of a test with a model that runs on the device."""

    path: Path
    model: str
    reader: int

    def meet(self) -> int:
        """Wait until the model runs; return the process id that its runner has on the device."""
        assert select.select([self.reader], [], [], LIMIT_S)[0], "the model at the gate was never run"
        with open(self.reader, "rb", buffering=0) as reader:
            return int(reader.read(100))


@dataclass(frozen=True)
class FaultyDevice:
    """A virtual device; `scratch` is a folder of the test on it, `python` an interpreter there with a real runtime."""

    virtual: VirtualDevices
    name: str
    python: str
    scratch: Path  # as the host sees it
    toml: Path

    @property
    def entry(self) -> dict[str, Any]:
        """What the listing says of it, apart from its processes, which come and go."""
        return entry_of(self.virtual, self.name)

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
        return [pid for pid in _everything() if _inode(pid) == wanted and not _is_the_devices_own(pid)]

    def process(self, inner: int) -> int:
        """Return the host's id of a process that the device knows by another."""
        return next(pid for pid in self.processes() if _inner_ids(pid)[-1] == inner)

    def files(self) -> set[Path]:
        """List the paths there outside the work folder that a program could have made."""
        top = self.here(str(self.entry["work"])).parents[1]  # the home folder, or /data/local
        if self.entry["transport"] == "adb":
            top = Path(self.entry["root"])
        kept = (self.work, self.scratch)
        return {path for path in top.rglob("*") if not any(path.is_relative_to(one) for one in kept)} - {
            *self.work.parents
        }

    def wait_until_idle(self, limit_s: float = LIMIT_S) -> None:
        """Wait until nothing of ours runs there."""
        until = time.monotonic() + limit_s
        while found := self.processes():
            for pid in found:
                assert ends_within(pid, until - time.monotonic()), f"still on the device: {command_of(pid)}"

    def inside(self, *argv: str) -> str:
        """Run a program of the host among the device's mounts."""
        target = f"--target={self.virtual.entry(self.name)['daemon_pids'][0]}"
        command = ["nsenter", target, "--mount", *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    # --- what breaks ----------------------------------------------------------------------------------------------

    def gate(self, name: str = "gate") -> Gate:
        """Make a gate for one meeting."""
        folder = self.scratch / "gates"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the device's user renames the gate
        path = folder / name
        os.mkfifo(path)
        path.chmod(0o666)  # and opens it
        return Gate(path, f"gate {self.there(path)}", os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Pull its cable for as long as the block takes."""
        # at once: the tool takes longer to start than a copy may have left
        pull = ["ip", "-n", self.entry["namespace"], "link", "set", "eth0", "down"]
        subprocess.run(pull, check=True)
        try:
            yield
        finally:
            self.virtual.mend(self.name)

    def end_sessions(self) -> None:
        """Kill the processes of an SSH server that serve a connection, but neither the server nor what they started."""
        wanted = Path("/run/netns", self.entry["namespace"]).stat().st_ino
        for pid in [one for one in _everything() if _inode(one) == wanted and command_of(one).startswith("sshd: root")]:
            with contextlib.suppress(ProcessLookupError):  # a session's own child may have followed it by now
                os.kill(pid, signal.SIGKILL)

    def impatient_way(self) -> Transport:
        """Open a way to it that notices a cut cable within seconds."""
        address = Address.parse(str(self.entry["address"]))
        if address.kind == "ssh":
            keys = {
                "key": self.virtual.state / "keys" / "id_ed25519",
                "known_hosts": self.virtual.state / "known_hosts",
            }
            return SshTransport(address, SshOptions(**keys, timeout_s=3.0, keepalive_s=0.5, keepalive_count=3))
        return AdbTransport(connector_for(address, AdbOptions(dead_after_s=2.0)))

    # --- measuring ------------------------------------------------------------------------------------------------

    def describe(self) -> Device:
        """Say what it is."""
        return _described(self.name, str(self.entry["address"]))

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
        path.chmod(0o755)  # the device's user runs it
        return self.there(path)

    @contextlib.contextmanager
    def session(
        self,
        limits: SessionLimits = DEFAULT_LIMITS,
        python: str = "",
        way: Transport | None = None,
        notes: list[str] | None = None,
    ) -> Iterator[Session]:
        """Hold a session with it; `python` is an interpreter there, FAKE_RUNTIME's if not given."""
        device = replace(self.describe(), engine="python", python=python or self.scripted())
        with self._held(device, limits, way or open_transport(device), notes) as session:
            yield session

    @contextlib.contextmanager
    def native_session(self) -> Iterator[Session]:
        """Hold a session with the agent that needs no Python there."""
        device = replace(self.describe(), engine="native", litert_library=str(_library()))
        with self._held(device, DEFAULT_LIMITS, open_transport(device), None) as session:
            yield session

    @contextlib.contextmanager
    def _held(
        self, device: Device, limits: SessionLimits, way: Transport, notes: list[str] | None
    ) -> Iterator[Session]:
        told: Callable[[str], None] = (lambda text: None) if notes is None else notes.append
        with contextlib.closing(way), Session(device, way, limits, told) as session:
            yield session

    def command(self, *arguments: str, limits: tuple[float, float] = (0.0, 60.0)) -> Command:
        """Start edgekd as a process of its own; limits are lock_wait_s and reconnect_s."""
        return Command(command_line(*arguments, "--device", TARGET_NAME, limits=limits), self.toml.parent)


@cache
def entry_of(virtual: VirtualDevices, name: str) -> dict[str, Any]:
    """What the listing says of a device; asking takes longer than many a test."""
    return virtual.entry(name)


@cache
def _described(name: str, address: str) -> Device:
    del name, address  # what was described is told by these, not by the file that a test wrote
    return find_device(TARGET_NAME)


def _library() -> Path:
    """Return the runtime's library for this machine's processor, which both devices have."""
    spec = importlib.util.find_spec("ai_edge_litert")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("libLiteRt.so")


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


def _everything() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


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
