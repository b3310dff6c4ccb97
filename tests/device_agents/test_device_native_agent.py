"""The native engine's program, spoken to as a session does: real models, the real LiteRT library, and hostile lines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ai_edge_litert
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import mixed_kernels, remainder, subtraction

from device_agents import protocol
from device_agents.build_agent import build_agent, build_program, find_compiler
from device_agents.errors import TransportError
from device_agents.local import LocalTransport
from device_agents.questions import Node, nodes_line, outputs_line, parse_nodes, parse_outputs
from device_agents.transport import RemoteProcess

pytestmark = pytest.mark.slow  # compilers, shells and real programs

_LIBRARY = Path(ai_edge_litert.__file__).with_name("libLiteRt.so")
_TIMEOUT_S = 60.0
_NATIVE = Path("device_agents/runner/native")


class Agent:
    """One running agent, and the folder it serves."""

    def __init__(self, process: RemoteProcess, work: Path) -> None:
        self.process = process
        self.work = work

    def store(self, content: bytes, suffix: str = "tflite", name: str | None = None) -> str:
        """Lay a file into the folder under its hash, or under another one; return the hash it is stored as."""
        digest = name or hashlib.sha256(content).hexdigest()
        (self.work / "models" / f"{digest}.{suffix}").write_bytes(content)
        return digest

    def job(self, job_id: str, content: bytes) -> protocol.Job:
        """Lay a model into the folder and return a job for it."""
        return protocol.Job(job_id, self.store(content))

    def line(self) -> bytes | None:
        """Read the next line."""
        return self.process.read_line(_TIMEOUT_S)

    def some_line(self) -> bytes:
        """Read the next line, which must come."""
        line = self.line()
        assert line is not None, self.process.stderr_tail()
        return line

    def send(self, *lines: bytes) -> None:
        """Write lines."""
        for line in lines:
            self.process.write_line(line, _TIMEOUT_S)

    def measure(
        self, settings: protocol.MeasureSettings, *jobs: protocol.Job
    ) -> tuple[dict[str, protocol.JobResult], list[protocol.Start]]:
        """Send a plan and read all of its answer, strictly."""
        self.send(*protocol.plan_lines(settings, jobs[0], jobs))
        reader = protocol.RowReader(settings, {job.job_id: job for job in jobs}, frozenset(job.job_id for job in jobs))
        results: dict[str, protocol.JobResult] = {}
        starts: list[protocol.Start] = []
        while True:
            said = reader.parse(self.some_line())
            if isinstance(said, protocol.Start):
                starts.append(said)
            elif isinstance(said, protocol.JobResult):
                results[said.job_id] = said
            else:
                return results, starts

    def outputs(self, job: protocol.Job, inputs_sha256: str) -> tuple[bytes, ...] | protocol.Failed:
        """Ask for a model's outputs."""
        self.send(outputs_line(job, inputs_sha256, 1, []))
        assert isinstance(parse_outputs(self.some_line(), job.job_id), protocol.Start)
        answer = parse_outputs(self.some_line(), job.job_id)
        assert json.loads(self.some_line()) == {"type": "end"}
        assert isinstance(answer, (tuple, protocol.Failed))
        return answer

    def nodes(self, job: protocol.Job, runs: int) -> tuple[Node, ...] | protocol.Failed:
        """Ask for the times of a network's nodes."""
        self.send(nodes_line(job, runs, 1))
        assert isinstance(parse_nodes(self.some_line(), job.job_id), protocol.Start)
        answer = parse_nodes(self.some_line(), job.job_id)
        assert json.loads(self.some_line()) == {"type": "end"}
        assert isinstance(answer, (tuple, protocol.Failed))
        return answer


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The agent for this machine, built here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield build_agent(platform.machine())


Launch = Callable[..., Agent]


@pytest.fixture
def launch(program: Path, tmp_path: Path) -> Iterator[Launch]:
    """Start agents that end with the test."""
    transport = LocalTransport()
    work = tmp_path / "work"

    def start(*more: str, owner: str = "someone@host", wait_s: float = 0, library: str = str(_LIBRARY)) -> Agent:
        argv = [str(program), "serve", str(work), owner, f"{wait_s:g}", library, *more]
        return Agent(transport.stream(argv), work)

    yield start
    transport.close()


@pytest.fixture
def agent(launch: Launch) -> Agent:
    """An agent that has said hello."""
    agent = launch("2.3.0")
    assert isinstance(protocol.parse_greeting(agent.some_line()), protocol.Hello)
    return agent


# --- greeting, lock and end -------------------------------------------------------------------------------------------


def test_hello_says_what_measures_and_where(launch: Launch) -> None:
    """The host learns engine, runtime, version, clock and CPUs before it sends anything."""
    hello = protocol.parse_greeting(launch("2.3.0").some_line())
    assert isinstance(hello, protocol.Hello)
    assert (hello.engine, hello.runtime, hello.version) == ("native", "litert_c", "2.3.0")
    assert hello.cpus == tuple(sorted(os.sched_getaffinity(0)))


def test_a_version_that_nobody_names_is_told_from_what_the_library_exports(launch: Launch) -> None:
    """The library has no function for it, so a range of versions is all that can be said."""
    hello = protocol.parse_greeting(launch().some_line())
    assert isinstance(hello, protocol.Hello)
    assert hello.version.startswith("2.")


def test_a_locked_folder_is_busy_and_says_for_whom(agent: Agent, launch: Launch) -> None:
    """The second one learns who measures, in words for a person."""
    refusal = protocol.parse_greeting(launch().some_line())
    assert isinstance(refusal, protocol.Refusal)
    assert refusal.busy
    assert "someone@host has been measuring for" in refusal.reason


def test_one_that_waits_gets_the_lock_when_it_is_free(agent: Agent, launch: Launch) -> None:
    """The lock ends with its owner and the next one serves."""
    second = launch(wait_s=_TIMEOUT_S)
    agent.process.close_stdin()
    assert isinstance(protocol.parse_greeting(second.some_line()), protocol.Hello)


def test_an_owner_with_quotes_is_told_as_it_is(launch: Launch) -> None:
    """The lock's content is JSON whatever the owner is called."""
    first = launch(owner='Ann "é" \\ 1')
    first.some_line()
    assert json.loads((first.work / "lock").read_text())["owner"] == 'Ann "é" \\ 1'
    refusal = protocol.parse_greeting(launch().some_line())
    assert isinstance(refusal, protocol.Refusal)
    assert 'Ann "é" \\ 1 has' in refusal.reason


def test_a_folder_that_others_can_write_to_is_refused(launch: Launch, tmp_path: Path) -> None:
    """They could swap our models."""
    (tmp_path / "work").mkdir(mode=0o777)
    (tmp_path / "work").chmod(0o777)
    refusal = protocol.parse_greeting(launch().some_line())
    assert isinstance(refusal, protocol.Refusal)
    assert not refusal.busy
    assert "others can write to it" in refusal.reason


@pytest.mark.parametrize("library", ["/no/such/libLiteRt.so", "libm.so.6"])
def test_a_library_that_is_not_litert_is_named(launch: Launch, library: str) -> None:
    """The reason says which file and what to use instead."""
    refusal = protocol.parse_greeting(launch(library=library).some_line())
    assert isinstance(refusal, protocol.Refusal)
    assert library in refusal.reason


def test_a_library_that_is_too_old_is_refused_by_what_it_exports(launch: Launch, tmp_path: Path) -> None:
    """Until 2.1.2 options were structures, and our text in their place would crash it."""
    source, library = tmp_path / "old.c", tmp_path / "libLiteRt.so"
    source.write_text("int LiteRtCreateCpuOptions(void) { return 0; }\n")
    subprocess.run([shutil.which("gcc") or "cc", "-shared", "-fPIC", "-o", library, source], check=True)
    refusal = protocol.parse_greeting(launch(library=str(library)).some_line())
    assert isinstance(refusal, protocol.Refusal)
    assert "use libLiteRt.so of LiteRT 2.1.3 or later" in refusal.reason


def test_the_end_of_input_ends_it_while_it_measures(agent: Agent) -> None:
    """A host that is gone leaves nothing running."""
    job = agent.job("long", subtraction(10))
    agent.send(*protocol.plan_lines(protocol.MeasureSettings(warmup_min_ms=60_000, time_limit_s=600), job, [job]))
    agent.some_line()
    agent.process.close_stdin()
    assert agent.process.wait(_TIMEOUT_S) == 0


def test_a_host_that_is_still_there_may_say_so_at_any_time(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """Between requests and between the lines of a plan, it has no answer and disturbs none."""
    job = agent.job("one", subtraction(16))
    for line in protocol.plan_lines(quick, job, [job]):
        agent.send(protocol.alive_line(), line)
    agent.send(protocol.alive_line())
    reader = protocol.RowReader(quick, {"one": job}, frozenset({"one"}))
    said: list[object] = []
    while protocol.End() not in said:
        said.append(reader.parse(agent.some_line()))
    assert [row.ok for row in said if isinstance(row, protocol.JobResult)] == [True]


def test_a_silent_host_is_given_up_with_the_code_that_the_host_knows() -> None:
    """The host tells a link that was cut without a word by the code, which both ends name alike."""
    assert f"HOST_SILENT_EXIT = {protocol.HOST_SILENT_EXIT} " in (_NATIVE / "wire.c").read_text()


def test_probe_prints_one_line(program: Path) -> None:
    """What the machine has, without a lock or a folder."""
    done = LocalTransport().run([str(program), "probe", str(_LIBRARY), "2.3.0"], _TIMEOUT_S)
    facts = json.loads(done.stdout)
    assert facts["runtimes"] == {"litert_c": "2.3.0"}
    assert facts["cpus"] == sorted(os.sched_getaffinity(0))
    assert facts["python"] == ""


# --- rows -------------------------------------------------------------------------------------------------------------


def test_every_job_of_a_plan_has_its_row(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """Rows are read by the host's strict reader, so their form is right; here are their values."""
    jobs = [agent.job(f"sub/{count}", subtraction(count)) for count in (1, 10, 1000)]
    results, starts = agent.measure(replace(quick, block_size=2), *jobs)
    assert set(results) == {"sub/1", "sub/10", "sub/1000"}
    for row in results.values():
        assert row.ok, row.error
        assert row.flags in ((), ("contended",), ("throttled",), ("contended", "throttled"))
        assert row.loops * min(row.wall_samples_ns) > 1000 * quick.min_sample_us / 10
        assert row.sentinel_ns > 0
    assert starts[0] == protocol.Start("sub/1", "sentinel")


@pytest.mark.parametrize(
    "name",
    [
        "AGREEING_VISITS",
        "BLOCK_BYTES",
        "BLOCK_LOAD_S",
        "BLOCK_NS",
        "BLOCK_SHARE",
        "DOUBT",
        "HOME_PAUSE_S",
        "HOME_S",
        "LONG_RUN_NS",
        "LONG_VISIT",
        "LOOK_LENGTHS",
        "LOOK_EVERY_NS",
        "LOOP_MARGIN",
        "SENTINEL_SAMPLES",
        "SETTLE_NS",
        "SETTLE_RUNS",
        "SETTLE_SHIFT",
        "PAIRED_SETTLE_RUNS",
        "PAIRED_SETTLE_SHIFT",
        "PAIRED_SETTLE_NS",
        "SENTINEL_SETTLE_RUNS",
        "CALM",
        "NETWORK_VISITS",
        "STOLEN",
        "UNDISTURBED",
        "USUAL",
        "UNKNOWN_BYTES",
        "PAIRED_LOOK_LENGTHS",
        "LONG_READING_NS",
        "OP_PART",
    ],
)
def test_it_measures_with_the_constants_of_the_python_runner(name: str, runner: ModuleType) -> None:
    """Which of the two measured must not show in a row."""
    sources = "".join(path.read_text() for path in sorted(_NATIVE.glob("*.[ch]")))
    (spelled,) = re.findall(rf"\b{name} = (?:\(\w+\))?([^;}}]+?) ?[;}}]", sources)
    number, _, shift = spelled.partition(" << ")
    assert float(number) * 2 ** int(shift or 0) == getattr(runner, name)


@pytest.mark.parametrize(
    ("sentinel", "kind", "samples"),
    [("operator", "operator", 6), ("operator", "network", 24), ("network", "network", 6), ("network", "operator", 6)],
)
def test_a_visit_of_a_network_takes_more_samples(
    agent: Agent, quick: protocol.MeasureSettings, sentinel: str, kind: str, samples: int
) -> None:
    """Its runs speak for all operators in it, unless it is compared with a network; what a job is, its plan says."""
    jobs = [protocol.Job(name, agent.store(subtraction(10)), what) for name, what in (("s", sentinel), ("a", kind))]
    results, _ = agent.measure(replace(quick, rounds=3, least_rounds=3, patience=1, samples_per_round=2), *jobs)
    assert len(results["a"].samples_ns) == samples
    assert samples in (6, 6 * protocol.LONG_VISIT)


@pytest.mark.parametrize(
    ("rounds", "network", "operator"), [(40, (12, 40), (3, 10)), (8, (8, 8), (3, 3)), (2, (2, 2), (2, 2))]
)
def test_beside_a_network_visits_on_a_calm_machine_count(
    agent: Agent,
    quick: protocol.MeasureSettings,
    rounds: int,
    network: tuple[int, int],
    operator: tuple[int, int],
) -> None:
    """A network needs four times the least, and an operator has at most a fourth of the rounds without calm."""
    net, op = (protocol.Job(kind, agent.store(subtraction(10)), kind) for kind in ("network", "operator"))
    settings = replace(quick, rounds=rounds, least_rounds=3, samples_per_round=2)
    results, _ = agent.measure(settings, net, op)
    for kind, (least, most) in (("network", network), ("operator", operator)):
        assert least <= len(results[kind].beside_ns) <= most


def test_a_job_that_does_not_say_what_it_is_is_refused(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """As by the Python runner, which ends on such a plan."""
    job = agent.job("a", subtraction(10))
    with contextlib.suppress(TransportError):  # it may end before it has read all of the plan
        agent.send(*(line.replace(b'"kind"', b'"find"') for line in protocol.plan_lines(quick, job, [job])))
    assert json.loads(agent.some_line())["type"] == "fatal"


def test_looks_at_the_sentinel_between_visits_are_not_told(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """Rounds of a tenth of a second hold several; a line for each would wake the host beside the samples."""
    jobs = [agent.job(f"sub/{count}", subtraction(count)) for count in (1, 10)]
    settings = replace(quick, rounds=3, least_rounds=3, patience=1, min_sample_us=20_000, block_size=2)
    _, starts = agent.measure(settings, *jobs)
    assert [start.phase for start in starts].count("sentinel") == 1 + 3 + 1


def test_a_row_does_what_the_settings_say(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """Warm-up by count and by time, and as many samples as asked for."""
    job = agent.job("a", subtraction(10))
    settings = replace(quick, rounds=3, samples_per_round=4, warmup_runs=1234, warmup_min_ms=2)
    results, _ = agent.measure(settings, job)
    assert results["a"].warmup_runs >= 1234
    assert results["a"].warmup_ns >= 2_000_000
    assert len(results["a"].samples_ns) == 12


def test_two_threads_are_measured_on_the_wall(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """One thread's clock does not see the other thread's work."""
    one, _ = agent.measure(quick, agent.job("a", subtraction(10)))
    two, _ = agent.measure(replace(quick, threads=2), agent.job("a", subtraction(10)))
    assert one["a"].clock == "thread_cpu"
    assert two["a"].clock == "wall"
    assert two["a"].samples_ns == two["a"].wall_samples_ns


def test_a_clock_that_loses_time_does_not_make_the_sentinel_faster(
    launch: Launch, quick: protocol.MeasureSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sample that took far longer on the wall than on its own clock the wall tells."""
    lossy = tmp_path / "lossy_clock.so"
    source = Path(__file__).with_name("peers") / "lossy_clock.c"
    compiler = find_compiler(platform.machine()).path
    subprocess.run([compiler, "-shared", "-fPIC", "-o", lossy, source, "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(lossy))
    agent = launch()
    agent.some_line()
    results, _ = agent.measure(replace(quick, rounds=8, min_sample_us=150), agent.job("job", subtraction(1000)))
    row = results["job"]
    pairs = zip(row.samples_ns, row.wall_samples_ns, strict=True)
    assert any(cpu_ns < wall_ns / 2 for cpu_ns, wall_ns in pairs), "no time was lost"
    assert row.sentinel_ns > 0.7 * min(row.wall_samples_ns)


def test_the_order_of_visits_follows_the_seed(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """The jobs of a block are begun in an order that the seed chooses, and the sentinel is read around each round."""
    jobs = [agent.job(f"{count}", subtraction(count)) for count in range(1, 7)]
    plan = replace(quick, rounds=3, block_size=100, seed=5, min_sample_us=4000)  # starts are told to the millisecond

    def begun(settings: protocol.MeasureSettings) -> list[str]:
        results, starts = agent.measure(settings, *jobs)
        assert sum(start.phase == "sentinel" for start in starts) == 1 + 3 + 1
        return sorted(results, key=lambda job_id: results[job_id].started_at)

    first = begun(plan)
    assert sorted(first) == sorted(job.job_id for job in jobs)
    assert begun(plan) == first
    assert begun(replace(plan, seed=6)) != first


def test_denormal_outputs_are_flagged(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """Some CPUs compute them slowly, so such a row is not like others."""
    results, _ = agent.measure(quick, agent.job("tiny", remainder(16, 1.5e-38)), agent.job("plain", remainder(16, 0.5)))
    assert "denormal" in results["tiny"].flags
    assert "denormal" not in results["plain"].flags


def test_any_printable_job_id_comes_back(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """Quotes, backslashes and what JSON writes as two surrogates."""
    job_id = 'conv "3×3" \\ 😀 é'
    results, _ = agent.measure(quick, agent.job(job_id, subtraction(10)))
    assert results[job_id].ok


def test_a_file_that_is_no_model_fails_and_the_rest_is_measured(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """Also when it is the one that should have been the sentinel."""
    results, _ = agent.measure(quick, agent.job("bad", b"no model"), agent.job("good", subtraction(10)))
    assert not results["bad"].ok
    assert "no valid .tflite file" in results["bad"].error
    assert results["good"].ok
    assert results["good"].sentinel_ns > 0


def test_a_file_under_a_wrong_name_is_not_measured(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """The host would take its row for another model's."""
    wrong = protocol.Job("changed", agent.store(subtraction(10), name="0" * 64))
    missing = protocol.Job("missing", "1" * 64)
    results, _ = agent.measure(quick, wrong, missing)
    assert "hash" in results["changed"].error
    assert "No such file" in results["missing"].error


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_what_a_damaged_model_kills_is_announced_before(
    agent: Agent, quick: protocol.MeasureSettings, share: float
) -> None:
    """A truncated file fails, or the runtime dies of it after the line that says whose fault that is."""
    whole = subtraction(10)
    job = agent.job("cut", whole[: int(len(whole) * share)])
    agent.send(*protocol.plan_lines(quick, job, [job]))
    said = [json.loads(agent.some_line())]
    while (line := agent.line()) is not None and said[-1]["type"] != "end":
        said.append(json.loads(line))
        if said[-1]["type"] == "end":
            break
    kinds = [entry["type"] for entry in said]
    if kinds[-1] == "end":
        assert "failed" in kinds
    else:
        assert agent.process.wait(_TIMEOUT_S) < 0
        assert said[-1] == {"type": "start", "job": "cut", "phase": said[-1]["phase"]}


def test_a_job_above_its_time_limit_is_ended_by_the_kernel(agent: Agent) -> None:
    """The limit holds inside library code: SIGALRM has its default action."""
    job = agent.job("slow", subtraction(10))
    agent.send(*protocol.plan_lines(protocol.MeasureSettings(time_limit_s=0.05, warmup_min_ms=100_000), job, [job]))
    assert json.loads(agent.some_line()) == {"type": "start", "job": "slow", "phase": "sentinel"}
    assert agent.process.wait(_TIMEOUT_S) == -signal.SIGALRM


def test_a_job_that_would_exceed_its_time_limit_is_not_begun(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """The estimate of the warm-up says so beforehand."""
    results, starts = agent.measure(replace(quick, min_sample_us=1e7, time_limit_s=10), agent.job("a", subtraction(10)))
    assert "the time limit is 10 s" in results["a"].error
    assert all(start.phase != "measure" for start in starts)


def test_a_plan_pins_the_agent_and_the_next_one_lets_it_go(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """A mask holds for its own plan."""
    cpus = os.sched_getaffinity(0)
    last = max(cpus)
    pid = json.loads((agent.work / "lock").read_text())["pid"]
    agent.measure(replace(quick, cpu_mask=1 << last), agent.job("a", subtraction(10)))
    assert os.sched_getaffinity(pid) == {last}
    agent.measure(quick, agent.job("a", subtraction(10)))
    assert os.sched_getaffinity(pid) == cpus


def test_cpus_that_are_not_there_are_refused(agent: Agent, quick: protocol.MeasureSettings) -> None:
    """The reason names them and those that are."""
    job = agent.job("a", subtraction(10))
    agent.send(*protocol.plan_lines(replace(quick, cpu_mask=1 << 1000), job, [job]))
    refusal = json.loads(agent.some_line())
    assert refusal["type"] == "fatal"
    assert "cannot pin to CPUs [1000]; allowed are [" in refusal["reason"]


# --- outputs and nodes ------------------------------------------------------------------------------------------------


def _expected(model: bytes, inputs: list[Any]) -> list[Any]:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize(
    "model",
    [subtraction(100), subtraction(100, reversed_signature=True), mixed_kernels(100)],
    ids=["sub", "reversed", "mix"],
)
def test_outputs_are_those_of_the_interpreter(agent: Agent, model: bytes) -> None:
    """Inputs go in the model's order, whatever order a signature names them in."""
    numbers = np.random.default_rng(3)
    inputs = [numbers.uniform(0.5, 1, (1, 100)).astype(np.float32) for _ in range(2)]
    blob = agent.store(b"".join(value.tobytes() for value in inputs), "bin")
    answer = agent.outputs(agent.job("a", model), blob)
    assert isinstance(answer, tuple)
    for raw, expected in zip(answer, _expected(model, inputs), strict=True):
        np.testing.assert_allclose(np.frombuffer(raw, np.float32).reshape(expected.shape), expected, atol=1e-4)


def test_inputs_of_a_wrong_size_fail_with_both_sizes(agent: Agent) -> None:
    """Nothing is filled up or cut off."""
    answer = agent.outputs(agent.job("a", subtraction(10)), agent.store(b"x" * 79, "bin"))
    assert answer == protocol.Failed("the inputs have 79 bytes, the model takes 80")


def test_inputs_under_a_wrong_name_fail(agent: Agent) -> None:
    """A blob that changed on the device gives no outputs."""
    answer = agent.outputs(agent.job("a", subtraction(10)), agent.store(b"x" * 80, "bin", name="0" * 64))
    assert isinstance(answer, protocol.Failed)
    assert "hash" in answer.error


def test_outputs_too_long_for_a_line_fail(agent: Agent) -> None:
    """The host reads lines of one MiB at most."""
    count = 200_000
    answer = agent.outputs(agent.job("a", subtraction(count)), agent.store(bytes(8 * count), "bin"))
    assert isinstance(answer, protocol.Failed)
    assert "800000 bytes" in answer.error


def test_nodes_come_in_the_order_of_execution_with_their_kernels(agent: Agent) -> None:
    """XNNPACK's and the runtime's own, with the mean of all runs."""
    nodes = agent.nodes(agent.job("net", mixed_kernels(50_000)), runs=7)
    assert isinstance(nodes, tuple)
    assert [node.kind for node in nodes] == ["xnnpack", "builtin", "xnnpack"]
    assert "Add" in nodes[0].name
    assert nodes[1].name == "FLOOR_MOD"
    assert {node.runs for node in nodes} == {7}
    assert nodes[1].mean_ns > max(nodes[0].mean_ns, nodes[2].mean_ns) > 0


def test_nodes_of_a_file_that_is_no_model_fail(agent: Agent) -> None:
    """And the agent goes on."""
    assert isinstance(agent.nodes(agent.job("bad", b"no model"), runs=1), protocol.Failed)
    assert isinstance(agent.nodes(agent.job("good", subtraction(10)), runs=1), tuple)


# --- hostile input ----------------------------------------------------------------------------------------------------

_HOSTILE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"plan"',
    b'{"type":"plan"',
    b'{"type":"plan","type":"plan"}',
    b'{"type":"plan","protocol":3}',
    b'{"type":"plan","protocol":1,"settings":{},"sentinel":{},"jobs":0}',
    b'{"type":"files"}',
    b'{"type":"outputs","job":1,"sha256":"","inputs":"","threads":1}',
    b'{"type":"nodes","job":"a","sha256":"","runs":0,"threads":1}',
    b'{"type":"nodes","job":"a","sha256":"","runs":1e999,"threads":1}',
    b'{"type":"\\ud800"}',
    b'{"type":"\\u0000"}',
    b'{"type":"\\x"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"a":"' + b"\\" * 99_999,
    b"1" * 100_000,
    b"-",
    b"\x00\xff\xfe",
]


@pytest.mark.parametrize("line", _HOSTILE, ids=range(len(_HOSTILE)))
def test_a_line_that_is_no_request_ends_the_agent_with_a_reason(agent: Agent, line: bytes) -> None:
    """It neither crashes nor guesses."""
    agent.send(line)
    said = protocol.parse_greeting(agent.some_line())
    assert isinstance(said, protocol.Refusal)
    assert not said.busy
    assert agent.process.wait(_TIMEOUT_S) == 1


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_line_makes_it_touch_memory_that_is_not_its_own(
    data: st.DataObject, checked_program: Path, tmp_path: Path
) -> None:
    """Compiled with the address and undefined-behaviour checks, it ends in order whatever the host sends."""
    job = protocol.Job("a" * 60, "0" * 64)
    plan = [
        *protocol.plan_lines(protocol.MeasureSettings(cpu_mask=1), job, [job]),
        outputs_line(job, "0" * 64, 1, []),
        nodes_line(job, 1, 1),
    ]
    text = bytearray(b"\n".join(plan))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    argv = [str(checked_program), "serve", str(tmp_path / "work"), "me", "30", str(_LIBRARY)]
    transport = LocalTransport()
    process = transport.stream(argv)
    with contextlib.suppress(TransportError):  # it may have ended before all of that was written
        for line in bytes(text).split(b"\n"):
            process.write_line(line, _TIMEOUT_S)
    process.close_stdin()
    code = process.wait(_TIMEOUT_S)
    transport.close()
    assert code in (0, 1), process.stderr_tail()
    assert "Sanitizer" not in process.stderr_tail()
    assert "runtime error" not in process.stderr_tail()


@pytest.fixture(scope="module")
def checked_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent with the compiler's checks built in."""
    sources = sorted([*_NATIVE.glob("*.c"), *_NATIVE.glob("*.h")])
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover", "-g")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return build_program(sources, find_compiler(platform.machine()), "edgekd_agent", flags=flags)


def test_a_line_without_end_is_not_kept(agent: Agent) -> None:
    """More than one MiB without a newline is no host of ours, and ends it."""
    with contextlib.suppress(TransportError):  # it may have ended before all of that was written
        agent.send(b"x" * ((1 << 20) + (1 << 17)))
    assert agent.process.wait(_TIMEOUT_S) == 2
