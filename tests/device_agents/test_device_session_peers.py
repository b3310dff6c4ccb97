"""A session and its peers: runners that lie or do not start, other sessions, hosts that die."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from model_shelf import ModelShelf

from device_agents import server
from device_agents.device import Device
from device_agents.errors import (
    DeviceBusy,
    DeviceNotReady,
    DeviceOffline,
    LinkLost,
    ProtocolError,
    RunnerFailed,
    TransportTimeout,
)
from device_agents.local import LocalProcess, LocalTransport
from device_agents.protocol import MeasureSettings
from device_agents.server import RunnerDied
from device_agents.session import Session, SessionLimits
from device_agents.transport import Transport

pytestmark = pytest.mark.slow  # real processes, one after the other

Ends = Callable[[int, float], bool]


def waits_for_a_lock(group: int) -> bool:
    """Look in the kernel's table of locks, which marks who waits with an arrow, for a process of a group."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    waiting = [int(line[5]) for line in lines if line[1] == "->" and line[2] == "FLOCK"]
    return any(group_of(pid) == group for pid in waiting)


def group_of(pid: int) -> int:
    """Return a process's group, 0 once it has ended."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


class ScriptedTransport(LocalTransport):
    """Runs a script of the test wherever a runner should be started."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self.script = script
        self.pids: list[int] = []

    def stream(self, argv: Sequence[str]) -> LocalProcess:
        process = super().stream([sys.executable, "-u", "-c", self.script])
        self.pids.append(process._process.pid)  # the test asks whether this process is gone
        return process


_GREETING = """
print('{"type": "hello", "protocol": 3, "engine": "python", "runtime": "r", "version": "1",'
      ' "clock": "wall", "cpus": [0], "pid": 1}')
"""
# Plays along until the plan is complete, then sends its argument and waits for the end of its input.
_LIAR = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "plan":
        for _ in range(request["jobs"]):
            next(sys.stdin)
        print(%s)
"""
_FAILED = '{"type": "failed", "job": "%s", "error": ""}'


@pytest.mark.parametrize(
    "lie",
    [
        "'x' * 2_000_000",
        "'Traceback (most recent call last):'",
        """'{"type": "row", "job": "a", "samples_ns": [NaN]}'""",
        """'{"type": "end"}'""",
        repr(_FAILED % "stranger"),
        repr(f"{_FAILED % 'a'}\\n{_FAILED % 'a'}"),
    ],
)
def test_a_runner_that_lies_is_ended(
    lie: str, host: Device, work_dir: str, shelf: ModelShelf, quick: MeasureSettings, ends_within: Ends
) -> None:
    """Hostile rows are a ProtocolError, and their sender is gone when the caller learns of it."""
    transport = ScriptedTransport(_GREETING + _LIAR % lie)
    jobs = [shelf.job("a", "burn 10"), shelf.job("b", "burn 11")]
    with Session(host, transport) as session:
        with pytest.raises(ProtocolError):
            list(session.measure(jobs, shelf.models, quick))
        assert all(ends_within(pid, 20) for pid in transport.pids)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("print('hello')", ProtocolError),
        (_GREETING.replace('"protocol": 3', '"protocol": 99'), ProtocolError),
        ("raise SystemExit('no such board')", RunnerFailed),
        ('print(\'{"type":"fatal","reason":"no runtime found"}\')', DeviceNotReady),
    ],
)
def test_a_runner_that_does_not_start_is_an_error_with_a_reason(
    script: str, error: type[Exception], host: Device, work_dir: str
) -> None:
    """Each way to fail at the start has its own exception, and no folder is left."""
    with pytest.raises(error), Session(host, ScriptedTransport(script)):
        pass
    assert not Path(work_dir).exists()


def test_a_python_without_any_runtime_says_what_to_install(
    host: Device, transport: Transport, work_dir: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A device without a runtime names those that would do."""
    blind = "import sys; sys.path[:] = [path for path in sys.path if 'site-packages' not in path]"
    (tmp_path / "sitecustomize.py").write_text(blind)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceNotReady, match="install one of ai_edge_litert"), Session(host, transport):
        pass


# --- one at a time ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_runtime")
def test_a_device_is_measured_by_one_session_at_a_time(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """The second session learns who holds the device, disturbs nothing, and may come back later."""
    with Session(host, transport) as first:
        with (
            pytest.raises(DeviceBusy, match=rf"has been measuring for \d+ s \(process {first.hello.pid}"),
            Session(host, transport),
        ):
            pass
        (row,) = first.measure([shelf.job("a", "burn 10")], shelf.models, quick)
        assert row.ok
    with Session(host, transport) as second:
        assert second.hello.pid != first.hello.pid


@pytest.mark.usefixtures("fake_runtime")
def test_a_lock_of_a_dead_process_is_taken_over(host: Device, transport: Transport, work_dir: str) -> None:
    """A host that died leaves a lock file, which holds nobody up."""
    Path(work_dir).mkdir(mode=0o700)
    Path(work_dir, "lock").write_text('{"pid": 1, "since": 0}')
    with Session(host, transport) as session:
        assert str(session.hello.pid) in Path(work_dir, "lock").read_text()


_HOST = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    from device_agents.inventory import find_device, open_transport
    from device_agents.protocol import Job
    from device_agents.session import Session
    work_dir, digest, path = sys.argv[1:]
    device = replace(find_device("host"), work_dir=work_dir)
    with Session(device, open_transport(device)) as session:
        print(session.hello.pid, flush=True)
        list(session.measure([Job("stuck", digest)], {digest: Path(path)}))
"""


@pytest.mark.parametrize(("number", "left_behind"), [(signal.SIGKILL, True), (signal.SIGINT, False)])
@pytest.mark.usefixtures("fake_runtime")
def test_the_runner_ends_with_its_host(
    number: signal.Signals,
    left_behind: bool,
    work_dir: str,
    shelf: ModelShelf,
    gate: Path,
    meet: Callable[[Path], None],
    ends_within: Ends,
) -> None:
    """A host that is killed or interrupted leaves no process; an interrupted one leaves no folder either."""
    job = shelf.job("stuck", f"gate {gate}")
    argv = [sys.executable, "-c", textwrap.dedent(_HOST), work_dir, job.model_sha256]
    paths = os.pathsep.join([os.environ["PYTHONPATH"], *filter(None, sys.path)])
    with subprocess.Popen(
        [*argv, str(shelf.models[job.model_sha256])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:
        assert process.stdout is not None
        runner_pid = int(process.stdout.readline())
        meet(gate)
        process.send_signal(number)
        assert ends_within(runner_pid, 20)
    assert Path(work_dir).exists() == left_behind


@pytest.mark.usefixtures("fake_runtime")
def test_a_session_can_wait_for_another(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """With a wait, the end of one session is the start of the next, although the first removes the folder."""
    first = Session(host, transport).__enter__()

    def leave() -> None:
        shutil.rmtree(work_dir)  # what the first session's own cleaning does when it wins the race for the lock
        first.__exit__(None, None, None)

    waiter = WaitingTransport(leave)
    jobs = [shelf.job("killer", "kill 9"), shelf.job("a", "burn 10")]
    with Session(host, waiter, SessionLimits(lock_wait_s=30)) as second:
        waiter.when_blocked = lambda: None
        rows = list(second.measure(jobs, shelf.models, quick))
        with pytest.raises(DeviceBusy), Session(host, transport):
            pass
    assert [row.status for row in rows] == ["failed", "ok"]
    assert waiter.was_blocked
    assert not Path(work_dir).exists()


def test_who_waits_for_the_lock_is_told_that_the_host_is_there(host: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gives up on a host that is silent for a minute; waiting for another session may take longer."""
    monkeypatch.setattr(server, "ALIVE_EVERY_S", 0.05)
    patient = f"import sys\nassert 'alive' in sys.stdin.readline(){_GREETING}sys.stdin.read()"
    with Session(host, ScriptedTransport(patient), SessionLimits(lock_wait_s=30)) as session:
        assert session.hello.engine == "python"


# Greets, then waits for one line of the host and says it back as its last words.
_LISTENER = f"{_GREETING}import sys\nraise SystemExit(sys.stdin.readline())"


def test_who_waits_for_a_batch_is_told_that_the_host_is_there(
    host: Device, shelf: ModelShelf, quick: MeasureSettings, monkeypatch: pytest.MonkeyPatch, ends_within: Ends
) -> None:
    """To make the files of a batch may take longer than the minute after which a server gives up."""
    monkeypatch.setattr(server, "ALIVE_EVERY_S", 0.0)
    transport = ScriptedTransport(_LISTENER)
    with Session(host, transport) as session:
        session.still_here()
        assert ends_within(transport.pids[0], 20)
        assert session._server is not None
        with pytest.raises(RunnerDied, match="alive"):  # which is what the server has heard
            session._server.line(20.0)


def test_before_it_is_due_nothing_is_said(host: Device) -> None:
    """Every line wakes the device, where something may be measured."""
    transport = ScriptedTransport(_LISTENER)
    with Session(host, transport) as session:
        session.still_here()
        session.still_here()
        assert session._server is not None
        with pytest.raises(TransportTimeout):  # it still waits for its line
            session._server.line(0.0)


# Says without a pause which job it runs, for ten seconds or until it has heard that the host is there.
_CHATTERBOX = """
import json, select, sys
for _ in range(json.loads(sys.stdin.readline())["jobs"]):
    sys.stdin.readline()
for _ in range(100):
    print('{"type": "start", "job": "a", "phase": "sentinel"}')
    if select.select([sys.stdin], [], [], 0.1)[0]:
        print('{"type": "failed", "job": "a", "error": "heard %s"}' % json.loads(sys.stdin.readline())["type"])
        print('{"type": "end"}')
        sys.stdin.read()
"""


def test_who_answers_without_a_pause_is_told_that_the_host_is_there(
    host: Device, shelf: ModelShelf, quick: MeasureSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may last for hours, and its server gives up on a host that only ever listens."""
    monkeypatch.setattr(server, "ALIVE_EVERY_S", 0.5)
    with Session(host, ScriptedTransport(_GREETING + _CHATTERBOX)) as session:
        (row,) = session.measure([shelf.job("a", "burn 10")], shelf.models, replace(quick, rounds=100))
    assert row.error == "heard alive"


class LostTransport(LocalTransport):
    """Starts one process; from the second on its link is lost, and counts how often that was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = 0

    def stream(self, argv: Sequence[str]) -> LocalProcess:
        self.starts += 1
        if self.starts > 1:
            raise LinkLost("nobody there")
        return super().stream(argv)


@pytest.mark.usefixtures("fake_runtime")
def test_a_device_that_stays_away_is_waited_for_once(host: Device, shelf: ModelShelf, quick: MeasureSettings) -> None:
    """The wait is the one that the limits allow, and its end is the end of the batch."""
    transport, limits = LostTransport(), SessionLimits(reconnect_s=0.5)
    jobs = [shelf.job("killer", "kill 11"), shelf.job("a", "burn 10")]
    with Session(host, transport, limits) as session:
        results = session.measure(jobs, shelf.models, quick)
        assert next(results).job_id == "killer"
        with pytest.raises(DeviceOffline, match=r"was away for 0.5 s: nobody there"):
            next(results)
    assert 1 < transport.starts <= 1 + 2  # after 0.2 s once more, and the next pause would be beyond the wait


class WaitingTransport(LocalTransport):
    """Calls back once the runner it starts waits for the lock."""

    def __init__(self, when_blocked: Callable[[], None]) -> None:
        super().__init__()
        self.when_blocked = when_blocked
        self.was_blocked = False

    def stream(self, argv: Sequence[str]) -> LocalProcess:
        process = super().stream(argv)
        while not self.was_blocked and process._process.poll() is None:  # the kernel offers no event for this
            self.was_blocked = waits_for_a_lock(process._process.pid)
        self.when_blocked()
        return process
