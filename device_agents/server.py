"""The process that serves on a device, from its first line to its end, and what its death means.

    server = Server(engine, start, start_timeout_s)      raises when it refuses
    server.ask(lines); server.line(timeout_s)

The host says every few seconds that it is still there, while it waits or reads, and by `still_here` while it prepares:
on a link that was cut without a word, the other end would otherwise hold the device's lock for hours.
It knows no jobs and no rows. Read next: `session.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

from device_agents import protocol
from device_agents.engines.engine import Engine, Start
from device_agents.errors import (
    DeviceBusy,
    DeviceNotReady,
    LinkLost,
    RunnerFailed,
    TransportError,
    TransportTimeout,
)
from device_agents.protocol import Hello, Refusal
from device_agents.strict_json import clean_lines
from device_agents.transport import RemoteProcess, killing_signal

ALIVE_EVERY_S = 10.0  # a server ends when it has heard nothing for six times as long
_SAY_S = 30.0  # for writing a line: a server reads at once, in a thread of its own
_END_S = 30.0  # for a dead process to be reaped


class RunnerDied(TransportError):
    """The server's output ended before its answer did; the message says how it died.

    killed tells of a SIGKILL, which comes from outside: from a person, or from a system that is short of memory.
    """

    def __init__(self, reason: str, *, killed: bool = False) -> None:
        super().__init__(reason)
        self.killed = killed


class Server:
    """A started process that holds the device's lock."""

    def __init__(self, engine: Engine, start: Start, start_timeout_s: float) -> None:
        """Start it and read what it says of itself.

        Raises:
            DeviceBusy: another session holds the lock.
            DeviceNotReady: it cannot serve, and says why.
            RunnerFailed: it ended without a word.
            TransportError, ProtocolError.

        """
        self._name = start.device.name
        self._said_s = time.monotonic()
        self._process: RemoteProcess = engine.start(start)
        try:
            self.hello = self._greeted(start_timeout_s + start.wait_s)
        except BaseException:
            self._process.kill()
            raise

    def ask(self, lines: Iterable[bytes]) -> None:
        """Write a request. Raises TransportError when nobody reads it any more."""
        for line in lines:
            self._process.write_line(line, _SAY_S)
            self._said_s = time.monotonic()

    def still_here(self) -> None:
        """Say that the host is there, where that is due; who dies meanwhile tells so to who reads or asks next."""
        if time.monotonic() - self._said_s >= ALIVE_EVERY_S:
            with suppress(TransportError):
                self.ask([protocol.alive_line()])

    def line(self, timeout_s: float) -> bytes:
        """Return the next line of the answer.

        Raises RunnerDied when the process has ended, TransportTimeout when it says nothing, LinkLost.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            try:
                line = self._process.read_line(max(0.0, min(ALIVE_EVERY_S, left_s)))
            except TransportTimeout:
                if left_s <= ALIVE_EVERY_S:
                    raise
                self.ask([protocol.alive_line()])
                continue
            if line is None:
                raise self._death()
            self.still_here()  # lines that never pause leave no other moment for it
            return line

    def stop(self) -> None:
        """End the process; a link that broke has ended it, or it will end itself."""
        try:
            self._process.kill()
        except (LinkLost, TransportTimeout, DeviceNotReady):
            return

    def _greeted(self, timeout_s: float) -> Hello:
        try:
            line = self.line(timeout_s)  # which says that we are there: a wait for the lock may take minutes
        except RunnerDied as death:
            raise RunnerFailed(f"{self._name}: {death}") from death
        greeting = protocol.parse_greeting(line)
        if isinstance(greeting, Refusal):
            refused = DeviceBusy if greeting.busy else DeviceNotReady
            raise refused(f"{self._name}: {greeting.reason}")
        return greeting

    def _death(self) -> TransportError:
        code = self._process.wait(_END_S)
        if code == protocol.HOST_SILENT_EXIT:
            return LinkLost("the device had not heard from this machine for a minute and gave up")
        name = killing_signal(code)
        if name == "SIGALRM":
            return RunnerDied("the job passed its time limit and was ended")
        words = [f": {line}" for line in clean_lines(self._process.stderr_tail())[-1:]]
        return RunnerDied(f"the runner died of {name or f'exit code {code}'}{''.join(words)}", killed=name == "SIGKILL")
