"""The engine for phones: a session with it gives rows, whatever models, binaries and devices do."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_shelf import ModelShelf
from peers.build import build_benchmark_model
from shells import SHELLS, make_shell
from small_models import mixed_kernels, subtraction

import device_agents.runner
from device_agents import protocol
from device_agents.device import Device
from device_agents.engines.benchmark_model import BenchmarkModelEngine, BenchmarkProcess
from device_agents.errors import DeviceBusy, DeviceError, DeviceNotReady, TransportTimeout
from device_agents.protocol import Job, JobResult, MeasureSettings
from device_agents.questions import Layer
from device_agents.session import Session
from device_agents.transport import RemoteProcess, Transport

pytestmark = pytest.mark.slow  # compilers, shells and real programs

SCRIPT = Path(next(iter(device_agents.runner.__path__))) / "edgekd_bench.sh"
GOLDEN = Path(__file__).parent / "golden"

# Behaves as its model's text says: "say FILE" prints a golden file, "exit 3" and "kill 11" end like that after a word,
# "gate PATH" opens a FIFO with its process number and never returns, "copy" writes the values of its inputs as outputs.
_FAKE = r"""#!/bin/sh
echo "$* --cpus=$(awk '/Cpus_allowed_list/ { print $2 }' /proc/self/status)" >>@LOG@
for flag; do
    case $flag in
        --graph=*) graph=${flag#*=} ;;
        --output_filepath=*) output=${flag#*=} ;;
        --input_layer_value_files=*) values=${flag#*=} ;;
    esac
done
read -r word argument <"$graph" || :
case $word in
    say) cat "@GOLDEN@/$argument.txt" ;;
    exit) echo "ERROR: cannot go on"; exit "$argument" ;;
    kill) echo "about to die"; kill -"$argument" $$ ;;
    gate) echo $$ >"$argument"; exec sleep 1000 ;;
    copy)
        [ -z "${output-}" ] || for value in $(echo "$values" | tr , ' '); do cat "${value#*:}"; done >"$output"
        cat "@GOLDEN@/third.txt" ;;
    *) echo "ERROR: Failed to load model"; exit 1 ;;
esac
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file in which the fake binary writes what it was started with."""
    return tmp_path / "invocations"


@pytest.fixture
def device(host: Device, tmp_path: Path, log: Path) -> Device:
    """Describe this machine with a scripted benchmark_model."""
    binary = tmp_path / "fake_benchmark_model"
    binary.write_text(_FAKE.replace("@LOG@", str(log)).replace("@GOLDEN@", str(GOLDEN)))
    return replace(host, engine="benchmark_model", benchmark_model=str(binary), threads=1)


@pytest.fixture
def brief() -> MeasureSettings:
    """Settings for tests that do not look at how long anything takes."""
    return MeasureSettings(rounds=2, samples_per_round=1, min_sample_us=1, warmup_min_ms=0.01)


def by_id(results: Sequence[JobResult]) -> dict[str, JobResult]:
    """Return results by job, after checking that no job has two."""
    found = {result.job_id: result for result in results}
    assert len(found) == len(results)
    return found


def invocations(log: Path) -> list[dict[str, str]]:
    """Return the flags of each invocation of the fake binary."""
    return [dict(re.findall(r"--(\w+)=(\S*)", line)) for line in log.read_text().splitlines()]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_holds_what_the_binary_printed(
    device: Device, transport: Transport, shelf: ModelShelf, brief: MeasureSettings
) -> None:
    """A sample is the mean of an invocation; warm-up, start and memory come from the lines around it."""
    with Session(device, transport) as session:
        (row,) = session.measure([shelf.job("a", "say third")], shelf.models, brief)
        digest = sha256(Path(device.benchmark_model).read_bytes()).hexdigest()
        hello = session.hello
    assert (hello.engine, hello.runtime, hello.clock) == ("benchmark_model", "benchmark_model", "wall")
    assert hello.version == f"sha256:{digest[:12]}"
    assert set(hello.cpus) == os.sched_getaffinity(0)
    assert row.samples_ns == row.wall_samples_ns == (1_045_700, 1_045_700)
    assert (row.clock, row.loops, row.init_ns) == ("wall", 10, 20_283_000)
    assert (row.warmup_runs, row.warmup_ns) == (3, 3_537_990)
    assert row.peak_rss_bytes == int(73.4102 * (1 << 20))
    assert row.sentinel_ns == 1_045_700


def test_jobs_are_visited_in_shuffled_rounds_with_the_sentinel_before_each(
    device: Device, transport: Transport, shelf: ModelShelf, log: Path, brief: MeasureSettings
) -> None:
    """Each job once a round, in an order that the seed decides, and the sentinel before each round and at the end."""
    names = [path.stem for path in sorted(GOLDEN.glob("*.txt"))]
    jobs = [shelf.job(name, f"say {name}") for name in names]
    orders = []
    with Session(device, transport) as session:
        for seed in (1, 1, 2):
            log.unlink(missing_ok=True)
            list(session.measure(jobs, shelf.models, replace(brief, seed=seed)))
            orders.append([Path(flags["graph"]).stem for flags in invocations(log)])
    hashes = [job.model_sha256 for job in jobs]
    first, size = orders[0], len(jobs) + 1
    assert len(first) == 2 * size + 1
    assert {first[0], first[size], first[-1]} == {hashes[0]}
    assert sorted(first[1:size]) == sorted(first[size + 1 : -1]) == sorted(hashes)
    assert orders[1] == first != orders[2]


def test_rows_come_home_block_by_block(
    device: Device, transport: Transport, shelf: ModelShelf, log: Path, brief: MeasureSettings
) -> None:
    """What a broken link can cost is one block."""
    jobs = [shelf.job("a", "say first"), shelf.job("b", "say second"), shelf.job("c", "say third")]
    with Session(device, transport) as session:
        rows = session.measure(jobs, shelf.models, replace(brief, block_size=1))
        assert next(rows).job_id == "a"
        assert {Path(flags["graph"]).stem for flags in invocations(log)} == {jobs[0].model_sha256}
        assert [row.job_id for row in rows] == ["b", "c"]


def test_settings_become_flags(device: Device, transport: Transport, shelf: ModelShelf, log: Path) -> None:
    """A visit is longer than elsewhere, because it costs a process, and scales with what was asked."""
    settings = MeasureSettings(rounds=1, threads=3, warmup_runs=7, min_sample_us=15, warmup_min_ms=2.5)
    jobs = [shelf.job("a", "say first"), Job("net", shelf.job("b", "say second").model_sha256, "network")]
    with Session(device, transport) as session:
        list(session.measure(jobs, shelf.models, settings))
    flags = {Path(found["graph"]).stem: found for found in invocations(log)}
    one, network = (flags[job.model_sha256] for job in jobs)
    assert (one["num_threads"], one["use_xnnpack"], one["warmup_runs"]) == ("3", "true", "7")
    assert (float(one["min_secs"]), float(one["warmup_min_secs"])) == (0.005, 0.05)
    assert float(network["min_secs"]) == 0.02
    assert float(one["max_secs"]) == settings.time_limit_s
    assert "enable_op_profiling" not in one


def test_default_settings_give_few_long_visits() -> None:
    """About 50 ms a visit and three of them, instead of many short samples."""
    adapted = BenchmarkModelEngine().settings(MeasureSettings())
    assert (adapted.rounds, adapted.samples_per_round, adapted.min_sample_us) == (3, 1, 50_000)
    assert BenchmarkModelEngine().settings(MeasureSettings(rounds=1)).rounds == 1


def test_a_mask_pins_the_binary(
    device: Device, transport: Transport, shelf: ModelShelf, log: Path, brief: MeasureSettings
) -> None:
    """The binary keeps to the CPUs of the batch; a mask with CPUs that are not there says which are."""
    job = shelf.job("a", "say third")
    cpu = device.cpus[-1]
    with Session(device, transport) as session:
        with pytest.raises(DeviceNotReady, match=r"cannot pin to CPUs \[1000\]; allowed are"):
            list(session.measure([job], shelf.models, replace(brief, cpu_mask=1 << 1000)))
        list(session.measure([job], shelf.models, replace(brief, cpu_mask=1 << cpu)))
    assert {flags["cpus"] for flags in invocations(log)} == {str(cpu)}


# --- models that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kill 11", "died of SIGSEGV: about to die"),
        ("kill 9", "died of SIGKILL: about to die"),
        ("exit 3", "gave up: ERROR: cannot go on"),
        ("nonsense", "gave up: ERROR: Failed to load model"),
        ("exit 0", "no timings: ERROR: cannot go on"),
        ("say instant", "less than the 1 µs"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_job_that_fails_costs_itself_alone(
    text: str, reason: str, place: int, device: Device, transport: Transport, shelf: ModelShelf, brief: MeasureSettings
) -> None:
    """It says why, and the others have their rows, even when it would have been the sentinel."""
    instant = (GOLDEN / "same.txt").read_text().replace("curr=7", "curr=0").replace("(avg): 7", "(avg): 0")
    (Path(device.benchmark_model).parent / "instant.txt").write_text(instant)
    text = text.replace("instant", os.path.relpath(Path(device.benchmark_model).parent / "instant", GOLDEN))
    jobs = [shelf.job("a", "say first"), shelf.job("b", "say second")]
    jobs.insert(place, shelf.job("bad", text))
    with Session(device, transport) as session:
        pid = session.hello.pid
        rows = by_id(list(session.measure(jobs, shelf.models, brief)))
        assert session.hello.pid == pid
    assert rows["bad"].status == "failed"
    assert reason in rows["bad"].error
    assert rows["a"].ok
    assert rows["b"].ok
    assert rows["b"].sentinel_ns > 0


def test_a_model_that_is_not_its_hash_fails(
    device: Device, transport: Transport, shelf: ModelShelf, brief: MeasureSettings
) -> None:
    """The device hashes what it is about to run."""
    jobs = [shelf.job("swapped", "say first"), shelf.job("good", "say second")]
    shelf.models[jobs[0].model_sha256].write_text("say third")
    with Session(device, transport) as session:
        rows = by_id(list(session.measure(jobs, shelf.models, brief)))
    assert "hash" in rows["swapped"].error
    assert rows["good"].ok


def test_a_job_past_its_time_limit_is_ended(
    device: Device,
    transport: Transport,
    shelf: ModelShelf,
    gate: Path,
    brief: MeasureSettings,
    ends_within: Callable[[int, float], bool],
) -> None:
    """The process is gone when the row says so, and the batch goes on in the same session."""
    jobs = [shelf.job("a", "say first"), shelf.job("stuck", f"gate {gate}"), shelf.job("b", "say second")]
    gate.unlink()  # a plain file this time: nobody waits at the gate
    settings = replace(brief, time_limit_s=1.5)
    with Session(device, transport) as session:
        rows = by_id(list(session.measure(jobs, shelf.models, settings)))
        assert ends_within(int(gate.read_text()), 0)
    assert "passed its time limit of 1.5 s" in rows["stuck"].error
    assert rows["a"].ok
    assert rows["b"].ok


def test_only_failures_need_no_sentinel(
    device: Device, transport: Transport, shelf: ModelShelf, brief: MeasureSettings
) -> None:
    """With nothing that runs there is nothing to compare with, and each job is answered all the same."""
    jobs = [shelf.job("a", "exit 1"), shelf.job("b", "kill 9")]
    with Session(device, transport) as session:
        rows = by_id(list(session.measure(jobs, shelf.models, brief)))
    assert not any(row.ok for row in rows.values())


# --- binaries and devices that cannot ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/nowhere/benchmark_model"])
def test_a_binary_that_is_not_given_says_how_to_give_it(device: Device, path: str) -> None:
    """It is in no package, so the user has to point at it."""
    with pytest.raises(DeviceNotReady, match=f"edgekd devices setup {device.name} --benchmark-model PATH"):
        BenchmarkModelEngine().files(replace(device, benchmark_model=path))


def test_a_binary_of_another_machine_is_told_at_once(
    device: Device, transport: Transport, shelf: ModelShelf, brief: MeasureSettings
) -> None:
    """No row is asked of what cannot run."""
    Path(device.benchmark_model).write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))
    jobs = [shelf.job("a", "say first"), shelf.job("b", "say second")]
    with Session(device, transport) as session, pytest.raises(DeviceNotReady, match="built for this device"):
        list(session.measure(jobs, shelf.models, brief))


def test_a_second_session_is_told_who_measures(device: Device, transport: Transport) -> None:
    """By name, process and time."""
    with Session(device, transport) as session:
        expected = rf"process {session.hello.pid}, has been measuring for \d+ s"
        with pytest.raises(DeviceBusy, match=expected), Session(device, transport):
            pass


def test_a_session_waits_for_the_end_of_another(
    device: Device, transport: Transport, shelf: ModelShelf, brief: MeasureSettings
) -> None:
    """When it is told to, it measures once the other has ended and cleaned up."""
    first = Session(device, transport).__enter__()
    with BenchmarkTrial(device, transport, wait_s=60.0) as trial:
        with pytest.raises(TransportTimeout):
            trial.process.read_line(0.2)
        first.__exit__(None, None, None)
        greeting = protocol.parse_greeting(trial.read(60.0))
    assert isinstance(greeting, protocol.Hello)


# --- the life of the process ------------------------------------------------------------------------------------------


class BenchmarkTrial:
    """A server of this engine without a session around it."""

    def __init__(self, device: Device, transport: Transport, shell: Sequence[str] = ("sh",), wait_s: float = 0) -> None:
        for name in ("models", "bin"):
            Path(device.work_dir, name).mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(device.work_dir).chmod(0o700)
        self.device = device
        argv = [*shell, str(SCRIPT), "serve", device.work_dir, "me@host 12ab", device.benchmark_model]
        self.process = BenchmarkProcess(transport.stream(argv), wait_s)

    def __enter__(self) -> BenchmarkTrial:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def read(self, timeout_s: float = 30.0) -> bytes:
        """Return the next line."""
        line = self.process.read_line(timeout_s)
        assert line is not None
        return line

    def begin(self, stuck: Stuck, settings: MeasureSettings) -> int:
        """Ask for a job that never ends, and read until it runs; returns its process number."""
        Path(self.device.work_dir, "models", f"{stuck.job.model_sha256}.tflite").write_bytes(stuck.content)
        self.read()
        for line in protocol.plan_lines(settings, stuck.job, [stuck.job]):
            self.process.write_line(line, 5)
        assert json.loads(self.read())["type"] == "start"
        with pytest.raises(TransportTimeout):
            self.process.read_line(0)
        return int(stuck.gate.read_text())


@dataclass(frozen=True)
class Stuck:
    """A job that opens its gate when it runs, and never returns."""

    job: Job
    content: bytes
    gate: Path


@pytest.fixture
def stuck(shelf: ModelShelf, gate: Path) -> Stuck:
    """A job that never ends."""
    job = shelf.job("stuck", f"gate {gate}")
    return Stuck(job, shelf.models[job.model_sha256].read_bytes(), gate)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each shell that is installed here, as the start of a command."""
    shell = make_shell(request.param, tmp_path / "commands")
    monkeypatch.setenv("PATH", shell.path)
    return [shell.program]


@pytest.mark.parametrize("how", ["close", "kill"])
def test_the_end_of_the_session_ends_the_binary_at_once(
    how: str,
    shell: list[str],
    device: Device,
    transport: Transport,
    stuck: Stuck,
    brief: MeasureSettings,
    ends_within: Callable[[int, float], bool],
) -> None:
    """Closing the input is enough, which is what a broken link does."""
    with BenchmarkTrial(device, transport, shell) as trial:
        pid = trial.begin(stuck, brief)
        if how == "close":
            trial.process.close_stdin()
            assert trial.process.wait(10) == 0
        else:
            trial.process.kill()
        assert ends_within(pid, 10)


def test_a_short_time_out_can_be_read_on(
    shell: list[str], device: Device, transport: Transport, stuck: Stuck, brief: MeasureSettings
) -> None:
    """A session reads in pieces, and says in between that it is there; the run is ended when its own time is up."""
    with BenchmarkTrial(device, transport, shell) as trial:
        trial.begin(stuck, replace(brief, time_limit_s=0.5))
        for _ in range(3):
            with pytest.raises(TransportTimeout):
                trial.process.read_line(0.01)
            trial.process.write_line(protocol.alive_line(), 5)
        stuck.gate.unlink()  # from now on a plain file, at which nobody waits
        lines = [json.loads(trial.read())]
        while lines[-1]["type"] != "end":
            lines.append(json.loads(trial.read()))
    (failed,) = (line for line in lines if line["type"] == "failed")
    assert "time limit" in failed["error"]


def test_a_host_that_falls_silent_is_taken_to_be_gone(
    device: Device, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock must not be held for hours by a link that was cut without a word; a minute passes at once here."""
    folder = tmp_path / "quick"
    folder.mkdir()
    (folder / "sleep").write_text('#!/bin/sh\n[ "$1" = 60 ] || exec /bin/sleep "$@"\n')
    (folder / "sleep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with BenchmarkTrial(device, transport) as trial:
        trial.read()
        assert trial.process.read_line(30) is None
        assert trial.process.wait(10) == protocol.HOST_SILENT_EXIT


def test_rows_are_the_same_in_every_shell(
    shell: list[str], device: Device, transport: Transport, shelf: ModelShelf, brief: MeasureSettings
) -> None:
    """Whichever shell a device has, the answer is the same."""
    job = shelf.job("a", "say slow")
    lines = []
    with BenchmarkTrial(device, transport, shell) as trial:
        Path(device.work_dir, "models", f"{job.model_sha256}.tflite").write_text("say slow")
        trial.read()
        for line in protocol.plan_lines(brief, job, [job]):
            trial.process.write_line(line, 5)
        while not lines or json.loads(lines[-1])["type"] != "end":
            lines.append(trial.read())
    reader = protocol.RowReader(brief, {"a": job}, frozenset("a"))
    rows = [answer for line in lines if isinstance(answer := reader.parse(line), JobResult)]
    assert rows[0].samples_ns == (1_245_320_000,) * 2
    assert rows[0].started_at <= time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime())


# --- outputs and nodes ------------------------------------------------------------------------------------------------


def test_outputs_are_brought_home(device: Device, transport: Transport, shelf: ModelShelf, log: Path) -> None:
    """The blob is cut into the inputs, in their order, and what the binary writes comes back."""
    blob = bytes(range(40))
    path = shelf.folder / "blob"
    path.write_bytes(blob)
    job = shelf.job("a", "copy")
    layers = [Layer("x", (1, 2)), Layer("odd name, with :", (2, 2, 2))]
    with Session(device, transport) as session:
        outputs = session.outputs(job, shelf.models[job.model_sha256], (sha256(blob).hexdigest(), path), layers)
    assert outputs == (blob,)
    (flags,) = invocations(log)
    assert flags["input_layer_shape"] == "1,2:2,2,2"
    assert flags["num_runs"] == "1"


@pytest.mark.parametrize(
    ("text", "shape", "size", "reason"),
    [
        ("copy", (3,), 10, "size of the inputs"),
        ("copy", (), 4, "no input of shape"),
        ("copy", (0, 3), 0, "no input of shape"),
        ("say third", (3,), 12, "no --output_filepath"),
        ("kill 11", (3,), 12, "SIGSEGV"),
    ],
)
def test_outputs_that_cannot_be_had_are_told(
    text: str, shape: tuple[int, ...], size: int, reason: str, device: Device, transport: Transport, shelf: ModelShelf
) -> None:
    """Wrong inputs, a binary that writes none, a model that dies."""
    path = shelf.folder / "blob"
    path.write_bytes(bytes(size))
    job, blob = shelf.job("a", text), (sha256(bytes(size)).hexdigest(), path)
    with Session(device, transport) as session, pytest.raises(DeviceNotReady, match=reason):
        session.outputs(job, shelf.models[job.model_sha256], blob, [Layer("x", shape)])


def test_nodes_are_read_from_the_profile(device: Device, transport: Transport, shelf: ModelShelf, log: Path) -> None:
    """With as many runs as asked, and a binary without a profiler says so."""
    job, plain = shelf.job("a", "say profile"), shelf.job("b", "say third")
    with Session(device, transport) as session:
        nodes = session.nodes(job, shelf.models[job.model_sha256], 12)
        with pytest.raises(DeviceNotReady, match="no nodes"):
            session.nodes(plain, shelf.models[plain.model_sha256], 12)
    assert [node.mean_ns for node in nodes] == [1_204_000, 88_000, 0, 18_000]
    assert {node.runs for node in nodes} == {10}
    flags = invocations(log)[0]
    assert (flags["num_runs"], flags["enable_op_profiling"]) == ("12", "true")


# --- with real models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in of benchmark_model that really runs models."""
    folder = tmp_path_factory.mktemp("peer")
    library = Path(ai_edge_litert.__file__).with_name("libLiteRt.so")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return build_benchmark_model(platform.machine(), library, folder)


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_real_models_are_measured(
    generation: int,
    peer: Path,
    device: Device,
    transport: Transport,
    shelf: ModelShelf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the binary's age, more work takes longer, and what is no model fails alone."""
    monkeypatch.setenv("BENCHMARK_MODEL_GENERATION", str(generation))
    device = replace(device, benchmark_model=str(peer))
    jobs = [shelf.job("small", subtraction(2_000)), shelf.job("large", subtraction(400_000)), shelf.job("bad", "no")]
    settings = MeasureSettings(rounds=2, min_sample_us=20, warmup_min_ms=0.1)
    with Session(device, transport) as session:
        rows = by_id(list(session.measure(jobs, shelf.models, settings)))
    assert rows["large"].ok, rows["large"].error
    assert min(rows["large"].samples_ns) > 5 * min(rows["small"].samples_ns)
    assert rows["small"].loops > rows["large"].loops
    assert rows["large"].peak_rss_bytes > 1 << 20
    assert re.search("gave up: .*model", rows["bad"].error)


def test_real_outputs_and_nodes_come_home(peer: Path, device: Device, transport: Transport, shelf: ModelShelf) -> None:
    """A check of a model on a phone needs both."""
    device = replace(device, benchmark_model=str(peer))
    left, right = (np.random.default_rng(seed).uniform(-1, 1, 10).astype(np.float32) for seed in (1, 2))
    blob = shelf.folder / "blob"
    blob.write_bytes(left.tobytes() + right.tobytes())
    job, network = shelf.job("a", subtraction(10)), shelf.job("b", mixed_kernels(20_000))
    inputs = sha256(blob.read_bytes()).hexdigest(), blob
    layers = [Layer("left", (1, 10)), Layer("right", (1, 10))]
    with Session(device, transport) as session:
        (output,) = session.outputs(job, shelf.models[job.model_sha256], inputs, layers)
        nodes = session.nodes(network, shelf.models[network.model_sha256], 20)
    np.testing.assert_allclose(np.frombuffer(output, np.float32), left - right, atol=1e-6)
    assert [node.kind for node in nodes] == ["xnnpack", "builtin", "xnnpack"]
    assert {node.runs for node in nodes} == {20}


# --- a script that says anything --------------------------------------------------------------------------------------


class ScriptedProcess:
    """A process whose lines are made up; it says the first answer to the first request, and so on."""

    def __init__(self, answers: Sequence[Sequence[str]]) -> None:
        self.answers = list(answers)
        self.lines: list[str] = []
        self.asked: list[str] = []

    def write_line(self, line: bytes, timeout_s: float) -> None:
        self.asked.append(line.decode())
        if self.answers:
            self.lines.extend(self.answers.pop(0))

    def read_line(self, timeout_s: float) -> bytes | None:
        return self.lines.pop(0).encode("utf-8", "replace") if self.lines else None

    def close_stdin(self) -> None:
        self.answers = []

    kill = close_stdin

    def wait(self, timeout_s: float) -> int:
        return 0

    def stderr_tail(self) -> str:
        return ""


HELLO = f"hello 12 1700000000 {'ab' * 32} 0-3 1-7"
JOB = Job("a", "cd" * 32)
THIRD = [f"o {line}" for line in (GOLDEN / "third.txt").read_text().splitlines()] + ["x 0"]
CHECKED = [f"h {JOB.model_sha256}  models/{JOB.model_sha256}.tflite", "z"]


def answer_lines(process: RemoteProcess, settings: MeasureSettings) -> list[dict[str, object]]:
    """Ask for one job and return all that is said."""
    server = BenchmarkProcess(process, 0.0)
    for line in protocol.plan_lines(settings, JOB, [JOB]):
        server.write_line(line, 1)
    return [json.loads(line) for line in iter(lambda: server.read_line(1), None)]


@pytest.mark.parametrize(
    ("before", "after", "mask", "throttled"),
    [
        ([], [], None, False),
        (["p 50000"], ["p 50000"], None, False),  # since boot, not now
        (["p 0"], ["p 4"], None, True),
        (["p 0x1"], ["p 0"], None, True),
        (["c 5", "c 2"], ["c 5", "c 2"], None, False),
        (["c 5", "c 2"], ["c 5", "c 3"], None, True),
        (["f 1 2000"], ["f 1 1500"], None, True),
        (["f 1 1500"], ["f 1 1500"], None, False),  # always capped
        (["f 3 2000"], ["f 3 1500"], 0b0010, False),  # a CPU that is not used
        (["f 1 2000"], [], 0b0010, False),  # nothing is known
        (["f 1 many", "p zz", "c -1", "t warm"], ["q", "t", "p"], None, False),
    ],
)
def test_throttling_is_seen(
    before: list[str], after: list[str], mask: int | None, throttled: bool, brief: MeasureSettings
) -> None:
    """A Pi's bits of now, the kernel's counters, and top speeds that were lowered on the CPUs in use."""
    settings = replace(brief, rounds=1, cpu_mask=mask)
    states = [[*before, "z"], [*after, "t 45500", "t -274000", "z"]]
    process = ScriptedProcess([[HELLO], CHECKED, states[0], THIRD, THIRD, THIRD, states[1]])
    row = next(line for line in answer_lines(process, settings) if line["type"] == "row")
    assert row["flags"] == (["throttled"] if throttled else [])
    assert row["temperatures_c"] == [45.5]


def test_cpus_are_those_that_are_on_and_allowed(brief: MeasureSettings) -> None:
    """Of 0-3 and 1-7 these are 1 to 3; where one is unknown, the other counts."""
    for lists, cpus in {"0-3 1-7": [1, 2, 3], "- 0,5-6": [0, 5, 6], "- -": [], "0-99999 1": [1]}.items():
        line = answer_lines(ScriptedProcess([[HELLO.replace("0-3 1-7", lists)]]), brief)[0]
        assert line["cpus"] == cpus


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.text(max_size=20),
                st.sampled_from(
                    [HELLO, "z", "x 0", "x 999", "x", "t 1", "f 1", "h", "busy", "busy 1 {}", "fatal", "o"]
                ),
                st.sampled_from(THIRD),
            ),
            max_size=4,
        ),
        max_size=6,
    )
)
def test_whatever_the_script_says_only_device_errors_come_of_it(answers: list[list[str]]) -> None:
    """Each line that is handed on is one of the protocol, or the device is blamed."""
    settings = MeasureSettings(rounds=1, samples_per_round=1)
    with suppress(DeviceError):
        lines = answer_lines(ScriptedProcess(answers), settings)
        if lines:
            protocol.parse_greeting(json.dumps(lines[0]).encode())


@given(st.text(max_size=200))
def test_a_lock_of_any_text_is_still_busy(text: str) -> None:
    """The lock file informs a person, and nothing depends on what it holds."""
    process = ScriptedProcess([[f"busy 1700000000 {text}"]])
    answer = protocol.parse_greeting(json.dumps(answer_lines(process, MeasureSettings())[0]).encode())
    assert isinstance(answer, protocol.Refusal)
    assert answer.busy
