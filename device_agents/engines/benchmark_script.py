"""The host's end of edgekd_bench.sh: one method a request, each a generator that can be read on after a time-out.

A session reads with short time-outs, between which it says that it is still there, and a generator that has raised
can not go on. So what waits here yields its TransportTimeout, and the lines for the session beside it; whoever drives
the generator raises the one and hands on the other.
The device's lines are distrusted: a wrong one is a ProtocolError, an unreadable sensor is none.
Read next: `benchmark_batch.py`, which measures with it; `../runner/edgekd_bench.sh` for the other end.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from device_agents.errors import DeviceError, ProtocolError, TransportError, TransportTimeout
from device_agents.protocol import MAX_CPUS
from device_agents.strict_json import clean_lines, clean_text, excerpt
from device_agents.transport import RemoteProcess, killing_signal

_SAY_S = 30.0  # for writing a line: the script reads at once
_KILL_S = 2.0  # between two requests to end a run; one that comes while the binary is being started may be missed
_KILLS = 5
_MAX_OUTPUT_BYTES = 64 << 20  # the script lets a run write some MiB
_LAST_LINE = "Benchmarking failed."  # whatever failed, and the line above it says what
_CANNOT_RUN = (126, 127)  # what a shell says of a command that it cannot execute, or does not find
_HELLO = re.compile(r"(\d{1,10}) \d{1,15} ([0-9a-f]{64}) ([\d,-]{1,500}) ([\d,-]{1,500})\Z")
_HASHED = re.compile(r"([0-9a-f]{64}) [ *]models/([0-9a-f]{64})\.tflite\Z")
_INTEGER = re.compile(r"-?\d{1,12}\Z")

Answer = TypeVar("Answer")
# Yields lines for the session, and time-outs for its reader to raise.
Talk = Generator[bytes | TransportTimeout, None, Answer]


class ScriptEnded(TransportError):
    """The script's output has ended."""


class Refused(DeviceError):
    """The device cannot serve as it is; the message is the reason."""


class _TimeUp(DeviceError):
    """The caller's own limit has passed."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who serves: its process, the binary's hash, and the CPUs that are on and allowed."""

    pid: int
    sha256: str
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else holds the lock: what the lock file says, and the device's time in seconds since 1970."""

    now_s: float
    lock: str


@dataclass(slots=True)
class Outcome:
    """How a run of the binary ended, and what it wrote."""

    exit_code: int = 0
    late: bool = False
    lines: list[str] = field(default_factory=list)
    base64: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return all it wrote."""
        return "\n".join(self.lines)

    def failure(self, limit_s: float) -> str:
        """Say why the run gives no result, or nothing when it gives one. Raises Refused when none ever will."""
        words = clean_lines("\n".join(self.lines[-20:]))
        said = [line for line in words if not line.endswith(_LAST_LINE)] or words
        last = f": {said[-1]}" if said else ""
        if self.late:
            return f"benchmark_model passed its time limit of {limit_s:g} s and was ended"
        if self.exit_code in _CANNOT_RUN:
            raise Refused(f"benchmark_model cannot be run{last}; was it built for this device?")
        if self.exit_code:
            name = killing_signal(self.exit_code)
            return f"benchmark_model died of {name}{last}" if name else f"benchmark_model gave up{last}"
        return ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the device says of its clocks at one moment.

    temperatures_c are of the zones that answer, caps_khz what each CPU is allowed at most; held is a Raspberry Pi's own
    word that it is throttled now, events how often a clock was since boot.
    """

    temperatures_c: tuple[float, ...]
    caps_khz: Mapping[int, int]
    held: bool
    events: int

    def throttled(self, before: Conditions, after: Conditions, cpus: frozenset[int]) -> bool:
        """Tell whether a clock of these CPUs was held down between two readings, this being the plan's first one.

        A cap is a sign only where it is below the first one: many devices are always capped.
        """
        caps = ((now.caps_khz.get(cpu), self.caps_khz.get(cpu)) for now in (before, after) for cpu in cpus)
        lowered = any(now is not None and first is not None and now < first for now, first in caps)
        return lowered or before.held or after.held or after.events > before.events


class Script:
    """A running edgekd_bench.sh. `deadline`, of the monotonic clock, is when the reader of the moment gives up."""

    def __init__(self, process: RemoteProcess) -> None:
        self._process = process
        self.deadline = 0.0

    def ask(self, *words: str) -> None:
        """Write a request of plain words."""
        self._process.write_line(" ".join(words).encode(), _SAY_S)

    def line(self, until: float = math.inf) -> Talk[str]:
        """Wait for a line. Raises ScriptEnded, and _TimeUp when `until` has passed."""
        while True:
            try:
                line = self._process.read_line(max(0.0, min(self.deadline, until) - time.monotonic()))
            except TransportTimeout as error:
                now = time.monotonic()
                if now >= until:
                    raise _TimeUp("the limit has passed") from error
                if now >= self.deadline:
                    yield error
                continue
            if line is None:
                raise ScriptEnded("the script has ended")
            return line.decode("utf-8", "replace")

    def silence(self, seconds: float) -> Talk[None]:
        """Let time pass in which the script has nothing to say."""
        try:
            line = yield from self.line(time.monotonic() + seconds)
        except _TimeUp:
            return
        raise _unexpected(line)

    def lock(self) -> Talk[Greeting | Busy]:
        """Try to take the lock."""
        self.ask("lock")
        word, rest = yield from self._answer()
        if word == "busy":
            now, _, lock = rest.partition(" ")
            return Busy(float(_integer(now) or 0), lock)
        match = _HELLO.match(rest) if word == "hello" else None
        if match is None:
            raise _unexpected(f"{word} {rest}")
        online, allowed = _cpu_list(match[3]), _cpu_list(match[4])
        return Greeting(int(match[1]), match[2], tuple(sorted(online & allowed or online or allowed)))

    def check(self, hashes: Sequence[str]) -> Talk[frozenset[str]]:
        """Hash models on the device; returns those that are there and what they are named after."""
        self.ask("check", *hashes)
        right = set()
        while (answer := (yield from self._answer()))[0] == "h":
            match = _HASHED.match(answer[1])
            if match is None:
                raise _unexpected(" ".join(answer))
            right |= {match[1]} & {match[2]}
        if answer != ("z", ""):
            raise _unexpected(" ".join(answer))
        return frozenset(right)

    def conditions(self) -> Talk[Conditions]:
        """Read temperatures and what holds clocks down. Values that are no numbers are left out."""
        self.ask("state")
        temperatures: list[float] = []
        caps_khz: dict[int, int] = {}
        held, events = False, 0
        while (answer := (yield from self._answer())) != ("z", ""):
            word, rest = answer
            if word == "t" and -100_000 < (milli := _integer(rest) or 0) < 200_000 and milli:
                temperatures.append(milli / 1000)
            elif word == "p":
                held = held or _pi_is_held(rest)
            elif word == "c":
                events += max(0, _integer(rest) or 0)
            elif word == "f":
                caps_khz |= _cap_khz(rest)
        return Conditions(tuple(temperatures[:256]), caps_khz, held, events)

    def run(self, words: Sequence[str], limit_s: float) -> Talk[Outcome]:
        """Run the binary and end it when the limit has passed. Raises TransportTimeout when it does not end then."""
        self.ask(*words)
        outcome, until = Outcome(), time.monotonic() + limit_s
        kills = size = 0
        while True:
            try:
                word, rest = yield from self._answer(until)
            except _TimeUp as error:
                if kills == _KILLS:
                    raise TransportTimeout(
                        f"benchmark_model does not end, {kills * _KILL_S:g} s after its limit"
                    ) from error
                self.ask("kill")
                outcome.late, kills, until = True, kills + 1, time.monotonic() + _KILL_S
                continue
            if word == "x":
                outcome.exit_code = _exit_code(rest)
                return outcome
            if word not in ("o", "b"):
                raise _unexpected(f"{word} {rest}")
            (outcome.lines if word == "o" else outcome.base64).append(rest)
            size += len(rest) + 1
            if size > _MAX_OUTPUT_BYTES:
                raise ProtocolError(f"benchmark_model wrote more than {_MAX_OUTPUT_BYTES >> 20} MiB")

    def _answer(self, until: float = math.inf) -> Talk[tuple[str, str]]:
        line = yield from self.line(until)
        word, _, rest = line.partition(" ")
        if word == "fatal":
            raise Refused(clean_text(rest))
        return word, rest


def _unexpected(line: str) -> ProtocolError:
    return ProtocolError(f"edgekd_bench.sh said what was not asked for: {excerpt(line.encode())}")


def _exit_code(text: str) -> int:
    code = _integer(text)
    if code is None or not 0 <= code <= 255:
        raise ProtocolError(f"{clean_text(text)[:40]!r} is no exit code")
    return code


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.match(text) else None


def _pi_is_held(text: str) -> bool:
    """Read a Raspberry Pi's word, hexadecimal: bits 0 to 3 tell of now."""
    return bool(re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text)) and bool(int(text, 16) & 0b1111)


def _cap_khz(text: str) -> dict[int, int]:
    cpu, khz = ([_integer(word) for word in text.split(" ", 1)] + [None])[:2]
    return {} if cpu is None or khz is None else {cpu: khz}


def _cpu_list(text: str) -> set[int]:
    """Read the kernel's way to write a set: 0-3,6; nothing for what is none."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = _integer(first), _integer(last if dash else first)
        if low is None or high is None or not 0 <= low <= high < MAX_CPUS:
            return set()
        found.update(range(low, high + 1))
    return found
