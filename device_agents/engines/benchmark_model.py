"""The engine for phones: Google's benchmark_model, driven by a shell script. It needs neither Python nor glibc there.

    session ── protocol 2 ── BenchmarkProcess ── simple lines ── edgekd_bench.sh ── benchmark_model

BenchmarkProcess looks like a server on the device and is none: it turns requests into lines for the script, and what
the binary prints into answers. It works only while it is read from, so that nothing runs that nobody waits for.
The binary is the user's to give. Read next: `benchmark_batch.py` for how a batch is measured.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from device_agents.benchmark_output import nodes_in_order, parse_profile, parse_timing
from device_agents.device import Device
from device_agents.engines.benchmark_batch import BenchmarkBatch, PlannedJob, encode, failed_line
from device_agents.engines.benchmark_script import Busy, Greeting, Refused, Script, ScriptEnded, Talk
from device_agents.engines.engine import Start
from device_agents.errors import DeviceNotReady, ProtocolError, TransportTimeout
from device_agents.protocol import PROTOCOL_VERSION, MeasureSettings
from device_agents.questions import MAX_NODES
from device_agents.strict_json import clean_text, excerpt
from device_agents.transport import RemoteProcess

_SCRIPT = "edgekd_bench.sh"
_BINARY = "benchmark_model"
_ROUNDS = 3
_BLOCK_SIZE = 32  # some 20 s of a phone's time: what a broken link can cost
# A process of the binary costs a phone some 100 ms before its first run. A visit's two samples of 150 µs become one of
# 50 ms (three, as for a table, one of 75 ms), and the warm-up 20 ms, in which a sleeping CPU comes up to speed. Shorter
# settings scale alike.
_LONGER = 50_000 / (2 * 150)
_WARMUP_LONGER = 20
_LOCK_AGAIN_S = 1.0
_ONCE_LIMIT_S = 60.0  # for what is asked of one model; the session waits as long


class BenchmarkModelEngine:
    """Runs models with benchmark_model, which `edgekd devices setup` is told of."""

    name = "benchmark_model"
    suffix = "tflite"
    delegate = "xnnpack"  # what LiteRT applies by default on a CPU

    def files(self, device: Device) -> Mapping[str, Path]:
        """Name the script and the user's binary. Raises DeviceNotReady where that is not given or not there."""
        how = f"give it with: edgekd devices setup {device.name} --benchmark-model PATH"
        if not device.benchmark_model:
            raise DeviceNotReady(f"{device.name}: this engine needs Google's benchmark_model for {device.abi}; {how}")
        binary = Path(device.benchmark_model).expanduser()
        if not binary.is_file():
            raise DeviceNotReady(f"{device.name}: benchmark_model is not at {binary}; {how}")
        return {_SCRIPT: Path(str(files("device_agents.runner") / _SCRIPT)), _BINARY: binary}

    def settings(self, settings: MeasureSettings) -> MeasureSettings:
        """Make few, long visits of the many short ones: each costs a process."""
        return replace(
            settings,
            rounds=min(settings.rounds, _ROUNDS),
            patience=1,
            samples_per_round=1,
            min_sample_us=min(1e7, settings.samples_per_round * settings.min_sample_us * _LONGER),
            warmup_min_ms=min(1e5, settings.warmup_min_ms * _WARMUP_LONGER),
            block_size=min(settings.block_size, _BLOCK_SIZE),
        )

    def start(self, start: Start) -> RemoteProcess:
        """Start the script, which waits for nothing: whoever reads its greeting tries the lock until wait_s is over."""
        argv = ["sh", start.files[_SCRIPT], "serve", start.work_dir, start.owner, start.files[_BINARY]]
        return BenchmarkProcess(start.transport.stream(argv), start.wait_s)


class BenchmarkProcess:
    """The script with the binary as a server that speaks protocol 2."""

    def __init__(self, process: RemoteProcess, wait_s: float) -> None:
        self._process = process
        self._script = Script(process)
        self._requests: deque[dict[str, Any]] = deque()
        self._cpus: tuple[int, ...] = ()
        self._answers = self._converse(wait_s)

    def write_line(self, line: bytes, timeout_s: float) -> None:
        """Take a request; what keeps the script from giving up goes there at once."""
        request = json.loads(line)
        if request["type"] == "alive":
            self._process.write_line(b"alive", timeout_s)
        else:
            self._requests.append(request)

    def read_line(self, timeout_s: float) -> bytes | None:
        """Return the next line of an answer, None when the script has ended. Raises TransportTimeout, ProtocolError."""
        self._script.deadline = time.monotonic() + timeout_s
        line = next(self._answers, None)
        if isinstance(line, TransportTimeout):
            raise line
        return line

    def close_stdin(self) -> None:
        """Close the script's input, which ends it and the binary."""
        self._process.close_stdin()

    def kill(self) -> None:
        """End the script and the binary."""
        self._process.kill()

    def wait(self, timeout_s: float) -> int:
        """Return the script's exit code."""
        return self._process.wait(timeout_s)

    def stderr_tail(self) -> str:
        """Return what the script's shell complained of."""
        return self._process.stderr_tail()

    # --- the conversation ---------------------------------------------------------------------------------------

    def _converse(self, wait_s: float) -> Talk[None]:
        try:
            yield from self._greet(time.monotonic() + wait_s)
            while True:
                request = yield from self._next_request()
                yield from self._answer(request)
                yield encode(type="end")
        except Refused as refused:
            yield encode(type="fatal", reason=str(refused))
            self._process.close_stdin()
        except ScriptEnded:
            return

    def _greet(self, until: float) -> Talk[None]:
        while isinstance(found := (yield from self._script.lock()), Busy):
            if time.monotonic() >= until:
                yield encode(type="busy", reason=_holder(found))
                yield from self._script.silence(math.inf)
            yield from self._script.silence(_LOCK_AGAIN_S)
        self._cpus = found.cpus
        yield self._hello(found)

    def _hello(self, greeting: Greeting) -> bytes:
        # The binary's hash stands for the version that it does not tell.
        facts = {"engine": _BINARY, "runtime": _BINARY, "version": f"sha256:{greeting.sha256[:12]}", "clock": "wall"}
        return encode(type="hello", protocol=PROTOCOL_VERSION, cpus=greeting.cpus, pid=greeting.pid, **facts)

    def _next_request(self) -> Talk[dict[str, Any]]:
        while not self._requests:
            line = yield from self._script.line()
            raise ProtocolError(f"edgekd_bench.sh spoke unasked: {excerpt(line.encode())}")
        return self._requests.popleft()

    def _answer(self, request: dict[str, Any]) -> Talk[None]:
        if request["type"] == "plan":
            yield from self._plan(request)
            return
        yield encode(type="start", job=request["job"], phase="load")
        try:
            yield from (self._outputs(request) if request["type"] == "outputs" else self._nodes(request))
        except ProtocolError as error:
            yield failed_line(request["job"], str(error))

    def _plan(self, request: dict[str, Any]) -> Talk[None]:
        jobs = []
        for _ in range(request["jobs"]):
            job = yield from self._next_request()
            jobs.append(_planned(job))
        settings = request["settings"]
        mask = settings["cpu_mask"] or 0
        wanted = [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]
        if self._cpus and not set(wanted) <= set(self._cpus):
            raise Refused(f"cannot pin to CPUs {wanted}; allowed are {list(self._cpus)}")
        batch = BenchmarkBatch(self._script, settings, frozenset(self._cpus))
        yield from batch.run(_planned(request["sentinel"]), jobs)

    def _outputs(self, request: dict[str, Any]) -> Talk[None]:
        """Run a model once; the binary writes all outputs into one file, which is one answer for one output."""
        inputs = [_shape_word(layer["shape"]) for layer in request["layers"]]
        if not inputs:
            raise ProtocolError("benchmark_model must be told the shapes of the model's inputs")
        words = ["outputs", request["sha256"], str(request["threads"]), request["inputs"], *inputs]
        outcome = yield from self._script.run(words, _ONCE_LIMIT_S)
        error = outcome.failure(_ONCE_LIMIT_S)
        if not error and not outcome.base64:
            error = (
                "this benchmark_model has no --output_filepath and writes no outputs; check them with another engine"
            )
        if error:
            yield failed_line(request["job"], error)
        else:
            yield encode(type="outputs", job=request["job"], outputs=["".join(outcome.base64)])

    def _nodes(self, request: dict[str, Any]) -> Talk[None]:
        words = ["run", request["sha256"], "-", str(request["threads"]), str(request["runs"])]
        outcome = yield from self._script.run([*words, "0", str(_ONCE_LIMIT_S), "1", "0", "1"], _ONCE_LIMIT_S)
        if error := outcome.failure(_ONCE_LIMIT_S):
            yield failed_line(request["job"], error)
            return
        runs = parse_timing(outcome.text).runs.count
        nodes = [
            {"name": node.name or node.type, "kind": kind, "mean_ns": node.mean_ns, "runs": runs}
            for kind, node in nodes_in_order(parse_profile(outcome.text))
        ]
        if len(nodes) > MAX_NODES:
            raise ProtocolError(f"{len(nodes)} nodes are more than the {MAX_NODES} that can be told")
        yield encode(type="nodes", job=request["job"], nodes=nodes)


def _planned(fields: Mapping[str, str]) -> PlannedJob:
    return PlannedJob(fields["job"], fields["sha256"], fields["kind"])


def _shape_word(shape: list[int]) -> str:
    if not shape or min(shape) < 1:
        raise ProtocolError(f"benchmark_model takes no input of shape {shape}")
    return f"{','.join(map(str, shape))}:{math.prod(shape)}"


def _holder(busy: Busy) -> str:
    """Say for a person who holds the lock; the file is whatever somebody wrote."""
    try:
        lock = json.loads(busy.lock)
        age_s = busy.now_s - float(lock["since"])
        return clean_text(f"{lock['owner']}, process {lock['pid']}, has been measuring for {age_s:.0f} s")
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return "another process is measuring"
