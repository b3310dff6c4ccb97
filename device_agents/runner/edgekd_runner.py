"""Measure .tflite models on the machine that runs this file, spoken to in JSON lines.

    edgekd_runner.py serve DIR OWNER LOCK_WAIT_S [NODES [RUNTIME]]   hold DIR's lock, answer until the input closes
    edgekd_runner.py probe DIR           print one JSON line: Python, CPUs, clock, installed runtimes

It runs on old boards: Python 3.9, the standard library, and the runtime found there or in DIR/site (which brings numpy
along). NODES is the file edgekd_nodes.py, which is loaded when a network's nodes are asked for; RUNTIME is the file
edgekd_onnx.py, with which .onnx models are measured by onnxruntime instead.
It imports nothing of the host's packages and decides nothing about what a row is worth.
The wire is described in `protocol.py` on the host's side; `Batch` below is how a row comes to be.
"""

from __future__ import annotations

import base64
import fcntl
import gc
import hashlib
import importlib
import importlib.util
import json
import math
import mmap
import os
import platform
import queue
import random
import resource
import select
import signal
import stat
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

PROTOCOL_VERSION = 3
# A link that was cut without a word must not keep the lock for the hours that TCP waits: the host says every ten
# seconds that it is there.
HOST_SILENT_S = 60.0
HOST_SILENT_EXIT = 75
STEP_BYTES = 8192  # a job's id has at most 500 characters, each at most 12 bytes in JSON
# In order of preference: the first one found measures.
RUNTIMES = (
    ("ai_edge_litert", "ai_edge_litert.interpreter", ("ai-edge-litert", "ai-edge-litert-nightly")),
    ("tflite_runtime", "tflite_runtime.interpreter", ("tflite-runtime",)),
    ("tensorflow", "tensorflow.lite", ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64")),
)
# So large at most are models alive together in one block, with their inputs and outputs, and no larger than one in so
# many parts of the memory that is free: the runtime packs their weights once more.
BLOCK_BYTES = 512 << 20
BLOCK_SHARE = 8
UNKNOWN_BYTES = 1 << 30  # what a small board has, where the kernel does not say what is free
# A block closes once it takes longer on a calm machine. Its jobs need some seconds to meet the machine at its best, but
# no row of a shorter block comes home before it is complete.
BLOCK_NS = 8_000_000_000
# It closes as well once loading it took so long, as on a slow board: no row of it is safe before it is measured.
BLOCK_LOAD_S = 15.0
SENTINEL_SAMPLES = 2  # a reading, of which the faster counts: the first one warms the caches up; a network's is a visit
SENTINEL_START_NS = 50_000_000  # a block begins with so long a look for its best, most often undisturbed once
# A reading of the sentinel is undisturbed within this factor of its best; who shares caches or execution units slows it
# down by a tenth and more, and a clock's short boost makes it a little faster than it is otherwise. Of its best in the
# block before a clock may lack so much, as a whole package warms up.
UNDISTURBED = 1.07
USUAL = 1.1
# It is read before rounds, and between visits so often, but for slow devices: so many times as rare as it is long.
LOOK_EVERY_NS = 10_000_000
LOOK_LENGTHS = 30
# Where a network is the sentinel every visit is compared with its last reading, which must not be of another moment.
PAIRED_LOOK_LENGTHS = 3
# A reading that takes longer, as of a network on a slow board, serves short rounds together, by the same measure.
LONG_READING_NS = 200_000_000
# Beside a network a visit counts where its reading is within this factor of the block's best: on a calm machine they
# scatter by less, and where others slow it down, they slow each operator by a factor of its own.
CALM = 1.15
# A network's error is whole, an operator's one of some fifty: a network needs so many times as many visits that count,
# and an operator has at most such a part of the rounds. Twelve told networks as well as forty did, and six told them
# worse; three told an operator as well as six.
NETWORK_VISITS = 4
OP_PART = 4
# By the share of disturbed readings so many visits are wanted that all of them are disturbed with this chance only, if
# visits were so as often as readings and each for itself; longer ones are more often, which `patience` stands for.
DOUBT = 0.005
# On a disturbed machine a block may take minutes: what is done comes home so often. A line sent wakes the other end,
# which looks at the device and writes its table: the next round waits for that.
HOME_S = 10.0
HOME_PAUSE_S = 0.3
# A thread's clock leaves out what a hypervisor says that it took the CPU away for, and now and then that is too much:
# one sample in 100,000 seemed up to twice as fast as any other. Where the wall shows so many times as much as such a
# clock, beside what it mostly shows, a sample of the sentinel counts by the wall. What it mostly shows is followed in
# steps, up after a sample that shows more, down after one that shows less: who shares a CPU for good is usual soon.
STOLEN = 1.05
STRETCH_STEP = 1.01
CONTENDED = 1.3  # wall over CPU time: a quiet machine stays below 1.01
TINY_FLOAT = 1.1754944e-38  # the smallest normal float32
# Of all outputs of a run: in base64 they stay below the longest line that the host reads, 1 MiB.
MAX_OUTPUT_BYTES = 768_000
SYS = Path("/sys")
PROC = Path("/proc")
# A median loop count aims 10 % above the shortest sample, because the estimate comes from the warm-up's fastest run.
LOOP_MARGIN = 1.1
# After other models have had the caches, a model's weights beyond the second level come back over ten runs and more.
# Before each visit a model is run once, and once more for each megabyte, so often and so long at most; the rest of the
# way shows in its samples, of which the fastest count.
SETTLE_RUNS = 4
SETTLE_SHIFT = 20  # a run for each 2²⁰ bytes
SETTLE_NS = 20_000_000
# A network that is read beside others drives out of the caches what they had there. After one of 5 MB int8 networks
# took 8 to 42 % longer in their first run, 1 to 14 % in their third, and what they take for good from the sixth to the
# eighth on; after one of 17 MB those of float32 28 to 85 %, 13 to 45 %, and from the tenth to the twentieth. Whoever
# runs a network again and again sees the last. So each of their megabytes stands for more runs; the network itself is
# only compared with itself, and has to be read soon.
PAIRED_SETTLE_RUNS = 16
PAIRED_SETTLE_SHIFT = 17  # a run for each 2¹⁷ bytes
PAIRED_SETTLE_NS = 160_000_000
SENTINEL_SETTLE_RUNS = 2
# Of runs that take so long few are undisturbed from end to end on a busy machine, and a network's speaks for all
# operators in it: where a visit is not compared with a network's it takes so many times as many samples of either.
LONG_RUN_NS = 1_000_000
LONG_VISIT = 4
AGREEING_VISITS = 3  # one fast visit may be luck, and two of them chance
ALLOWED_CPUS = sorted(os.sched_getaffinity(0))  # before any plan pins us, to go back to

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode  # made once: json.dumps makes one a line

Invoke = Callable[[], None]


class Runtime(NamedTuple):
    """What runs models: its name and version, what makes an interpreter, and how its model files end."""

    name: str
    version: str
    make: Callable[..., Any]
    engine: str = "python"
    suffix: str = "tflite"


class Wire:
    """Lines in and out. A thread reads the input, and the end of input ends this process whatever it is doing.

    `step` is memory shared with the process that watches over this one: see `watch_over`.
    """

    def __init__(self, step: mmap.mmap) -> None:
        self._step = step
        self._out = os.dup(1)
        self._in = os.dup(0)
        os.dup2(2, 1)  # whatever a library prints goes to stderr and not between our lines
        self._requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def next_request(self) -> dict[str, Any]:
        """Wait for a line of the host."""
        return self._requests.get()

    def send(self, **fields: object) -> None:
        """Write one line at once."""
        data = memoryview(_encode(fields).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError:
            os._exit(0)  # the host is gone, and so is the reason to go on

    def note(self, **fields: object) -> None:
        """Remember a line that is to be sent only if this process dies before `forget`.

        A line sent wakes the other end, and on this machine whatever carries it: 16 times a job, beside the samples.
        """
        line = _encode(fields).encode() + b"\n"
        self._step[1 : 1 + len(line) + 1] = line + b"\0"
        self._step[0] = 1  # last: a line that is only half there must not be sent

    def forget(self) -> None:
        """Drop the remembered line."""
        self._step[0] = 0

    def _read(self) -> None:
        pending = b""
        try:
            while select.select([self._in], [], [], HOST_SILENT_S)[0]:
                chunk = os.read(self._in, 1 << 16)
                if not chunk:
                    os._exit(0)  # the host has closed its end
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._take(dict(json.loads(line)))
        except (ValueError, TypeError, OSError):
            os._exit(2)  # a request that is no JSON: host and runner are no pair
        os._exit(HOST_SILENT_EXIT)

    def _take(self, request: dict[str, Any]) -> None:
        if request.get("type") != "alive":
            self._requests.put(request)


# --- serve ------------------------------------------------------------------------------------------------------------


def watch_over(worker: int, step: mmap.mmap) -> NoReturn:
    """Wait for the worker's end, send the line that it was in the middle of, and end as it has ended."""
    _, status = os.waitpid(worker, 0)
    code = os.WEXITSTATUS(status)
    if step[0] and (os.WIFSIGNALED(status) or code not in (0, HOST_SILENT_EXIT)):
        os.write(1, step[1 : step.find(b"\0", 1)])
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(code)


def serve(folder: str, owner: str, lock_wait_s: float, nodes_file: str, runtime_file: str) -> NoReturn:
    """Hold the folder's lock and answer requests until the input ends."""
    step = mmap.mmap(-1, STEP_BYTES)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it is not told how a child has ended
    worker = os.fork()  # before anything is loaded, so that the watcher stays small
    if worker:
        watch_over(worker, step)
    wire = Wire(step)
    try:
        lock = take_lock(folder, owner, lock_wait_s)
    except OSError as error:
        refuse(wire, "fatal", f"cannot use work folder {folder}: {error.strerror or error}")
    if lock is None:
        refuse(wire, "busy", lock_owner(folder))
    try:
        runtime = load_runtime(folder, runtime_file)
    except ImportError as error:
        refuse(wire, "fatal", str(error))
    facts = {"engine": runtime.engine, "runtime": runtime.name, "version": runtime.version}
    facts["clock"] = single_thread_clock()
    wire.send(type="hello", protocol=PROTOCOL_VERSION, cpus=ALLOWED_CPUS, pid=os.getpid(), **facts)
    gc.disable()  # a collection inside a sample would be measured; between blocks it is asked for
    server = Server(wire, folder, runtime, nodes_file)
    while True:
        server.answer(wire.next_request())


class Server:
    """Answers one request after the other."""

    def __init__(self, wire: Wire, folder: str, runtime: Runtime, nodes_file: str) -> None:
        self.wire = wire
        self.folder = folder
        self.runtime = runtime
        self.nodes_file = nodes_file

    def answer(self, request: dict[str, Any]) -> None:
        """Answer a plan with rows, and a question about one model with its answer or why there is none."""
        kind = request.get("type")
        if kind == "plan" and request.get("protocol") == PROTOCOL_VERSION:
            jobs = [self.wire.next_request() for _ in range(request["jobs"])]
            batch = Batch(self.wire, self.folder, self.runtime.make, request["settings"], self.runtime.suffix)
            batch.run(request["sentinel"], jobs)
        elif kind in ("outputs", "nodes"):
            self.about_one(kind, request)
        else:
            refuse(self.wire, "fatal", f"a request that protocol {PROTOCOL_VERSION} does not know")
        self.wire.send(type="end")

    def about_one(self, kind: str, request: dict[str, Any]) -> None:
        """Answer a question about one model."""
        self.wire.send(type="start", job=request["job"], phase="load")
        find = self.outputs if kind == "outputs" else self.nodes
        try:
            self.wire.send(**{"type": kind, "job": request["job"], kind: find(request)})
        except Exception as error:  # noqa: BLE001 — a model can fail in any way, and this one's answer says how
            self.wire.send(type="failed", job=request["job"], error=f"{type(error).__name__}: {error}")

    def outputs(self, request: dict[str, Any]) -> list[str]:
        """Run a model once on the inputs of a blob and return its outputs in base64."""
        content = read_stored(self.folder, request["sha256"], self.runtime.suffix)
        interpreter = self.runtime.make(model_content=content, num_threads=request["threads"])
        interpreter.allocate_tensors()
        set_inputs(interpreter, read_stored(self.folder, request["inputs"], "bin"))
        interpreter.invoke()
        found = [interpreter.get_tensor(tensor["index"]).tobytes() for tensor in interpreter.get_output_details()]
        size = sum(map(len, found))
        if size > MAX_OUTPUT_BYTES:
            raise ValueError(f"the outputs have {size} bytes, an answer holds {MAX_OUTPUT_BYTES}")
        return [base64.b64encode(data).decode() for data in found]

    def nodes(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Measure a network's nodes inside the network, with the module that was pushed for it."""
        if not self.nodes_file:
            raise ValueError("this runner was started without edgekd_nodes.py")
        content = read_stored(self.folder, request["sha256"], self.runtime.suffix)
        module = load_module(self.nodes_file)
        found: list[dict[str, Any]] = module.profile_nodes(content, request["runs"], request["threads"])
        return found


def load_module(path: str) -> ModuleType:
    """Import a file that the host has pushed, whatever it is called here. Raises ImportError."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def set_inputs(interpreter: Any, blob: bytes) -> None:
    """Set every input from one blob of raw bytes. Raises ValueError for a blob of another size."""
    import numpy as np  # as in `filling`

    details = interpreter.get_input_details()
    if len(blob) != sum(map(tensor_bytes, details)):
        raise ValueError(f"the inputs have {len(blob)} bytes, the model takes {sum(map(tensor_bytes, details))}")
    at = 0
    for tensor in details:
        size = tensor_bytes(tensor)
        values = np.frombuffer(blob[at : at + size], dtype=tensor["dtype"]).reshape(tuple(tensor["shape"]))
        interpreter.set_tensor(tensor["index"], values)
        at += size


def refuse(wire: Wire, kind: str, reason: str) -> NoReturn:
    """Say why this runner cannot serve, and end it."""
    wire.send(type=kind, reason=reason)
    os._exit(1)


def load_runtime(folder: str, runtime_file: str) -> Runtime:
    """Import the runtime that a pushed file stands for, or without one the first found. Raises ImportError."""
    other = load_module(runtime_file) if runtime_file else None
    use_site(folder, other.SITE if other else "site")
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # numpy only fills inputs here; its idle threads would disturb
    if other:
        found = other.load()
        if found is None:
            raise ImportError(other.HOW_TO_INSTALL.format(python=sys.executable))
        name, version, make = found
        return Runtime(name, version, make, other.ENGINE, other.SUFFIX)
    for name, module, packages in RUNTIMES:
        if importlib.util.find_spec(name) is not None:
            return Runtime(name, package_version(packages), importlib.import_module(module).Interpreter)
    names = ", ".join(name for name, _, _ in RUNTIMES)
    raise ImportError(f"no runtime found in {sys.executable}; install one of {names}")


def use_site(folder: str, name: str = "site") -> None:
    """Let Python find what was installed for us in the work folder, after what the device has of its own."""
    sys.path.append(str(Path(folder) / name))


def package_version(packages: tuple[str, ...]) -> str:
    """Return the version of the first package that is installed."""
    import importlib.metadata  # takes longer to import than all the rest, and `clean` needs none of it

    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def single_thread_clock() -> str:
    """Name the clock for one thread: its own CPU time where that is fine enough, else the wall."""
    try:
        fine = time.get_clock_info("thread_time").resolution <= 1e-6
    except ValueError:
        fine = False
    return "thread_cpu" if fine else "wall"


# --- one batch --------------------------------------------------------------------------------------------------------


class Candidate:
    """A job with its live interpreter, warm, and what was seen while it was loaded."""

    def __init__(self, job: dict[str, Any], invoke: Invoke, size_bytes: int) -> None:
        self.job_id: str = job["job"]
        self.takes_patience: bool = job["kind"] == "network"
        self.invoke = invoke
        self.size_bytes = size_bytes
        self.run_ns = 1  # the fastest estimate of one run, which sets `loops`
        self.loops = 1
        self.stretch = 1.0  # wall over CPU time, mostly: clocks may be slow to read, and others may share the CPU
        self.visit_samples = 1
        self.denormal = False
        self.done = False  # measured, but maybe not answered yet
        self.facts: dict[str, Any] = {}


class Block:
    """Jobs that are visited together in every round, and what was seen on the way."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.size_bytes = 0
        self.expected_ns = 0
        # Of the sentinel, in ns of one run: the fastest of its readings, and of all samples of it.
        self.sentinel_ns = self.best_ns = math.inf
        self.readings = self.undisturbed = 0
        self.last_ns = 0.0  # of the latest reading
        self.counted_ns = math.inf  # its best when those that are undisturbed began to be counted
        self.reading_ns = 0  # how long the latest took
        self.look_at_ns = 0  # when it is to be read again
        self.most_bytes = block_bytes()
        self.samples: dict[str, list[tuple[int, int]]] = {}
        self.beside_ns: dict[str, list[int]] = {}  # what the sentinel took last before each visit
        self.started_at: dict[str, str] = {}
        self.switches: dict[str, int] = {}
        self.spent_s: dict[str, float] = {}
        self.throttled = False
        self.began_s = time.monotonic()

    def add(self, candidate: Candidate, expected_ns: int) -> None:
        """Take a job in that will cost so much time."""
        self.candidates.append(candidate)
        self.size_bytes += candidate.size_bytes
        self.expected_ns += expected_ns

    def take_reading(self, sentinel_ns: float, earlier_best_ns: float) -> None:
        """Count a reading of the sentinel, whose best in the block before is known."""
        self.last_ns = sentinel_ns
        self.best_ns = min(self.best_ns, sentinel_ns)
        if self.best_ns * UNDISTURBED < self.counted_ns:
            self.undisturbed, self.counted_ns = 0, self.best_ns  # now it shows that those before were slow
        self.readings += 1
        self.undisturbed += sentinel_ns <= min(UNDISTURBED * self.best_ns, USUAL * earlier_best_ns)
        self.sentinel_ns = min(self.sentinel_ns, sentinel_ns)

    def wants_reading(self) -> bool:
        """Tell whether a round begins with a reading."""
        return self.reading_ns <= LONG_READING_NS or time.perf_counter_ns() >= self.look_at_ns

    def visits_wanted(self) -> float:
        """Say how many visits are wanted, see DOUBT. The share is Laplace's, who knows little of few readings."""
        disturbed = (self.readings - self.undisturbed + 1) / (self.readings + 2)
        return math.log(DOUBT) / math.log(disturbed)


class Batch:
    """Load jobs block by block; visit each block's jobs in rounds of shuffled order, and the sentinel among them."""

    def __init__(
        self, wire: Wire, folder: str, make: Callable[..., Any], settings: dict[str, Any], suffix: str = "tflite"
    ) -> None:
        self.wire = wire
        self.folder = folder
        self.make = make
        self.settings = settings
        self.suffix = suffix
        # Only one thread's work can be read on that thread's own clock.
        self.clock = single_thread_clock() if settings["threads"] == 1 else "wall"
        self.order = random.Random(settings["seed"])  # noqa: S311 — an order to repeat, not a secret
        self.sentinel: Candidate | None = None
        self.is_paired = False  # it is a network, and jobs are compared with it
        # The sentinel's in the block before: the plan's would expect for ever what a clock has dropped from for good.
        self.earlier_best_ns = math.inf
        self.pin()
        self.usual_khz = top_khz()

    def pin(self) -> None:
        """Keep to the CPUs of the plan's mask, or go back to all that are allowed."""
        mask = self.settings["cpu_mask"]
        wanted = ALLOWED_CPUS if mask is None else [cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1]
        try:
            os.sched_setaffinity(0, wanted)
        except OSError as error:
            reason = f"cannot pin to CPUs {wanted}: {error.strerror}; allowed are {ALLOWED_CPUS}"
            refuse(self.wire, "fatal", reason)

    def run(self, sentinel: dict[str, Any], jobs: list[dict[str, Any]]) -> None:
        """Answer every job with one row, block by block."""
        self.choose_sentinel([sentinel, *jobs])
        block = Block()
        for job in jobs:
            candidate = self.load_or_fail(job)
            if candidate is not None:
                block.add(candidate, self.expected_ns(candidate))
            if self.is_full(block):
                self.measure_block(block)
                block = Block()
        self.measure_block(block)

    def choose_sentinel(self, jobs: list[dict[str, Any]]) -> None:
        """Take the first model that loads; with none there is nothing to measure either."""
        for job in jobs:
            self.is_paired = job["kind"] == "network"
            try:
                self.sentinel = self.load(job, "sentinel")
            except Exception:  # noqa: BLE001, S112 — a model can fail in any way; its own row will say how
                continue
            return
        self.is_paired = False

    def load_or_fail(self, job: dict[str, Any]) -> Candidate | None:
        """Load a job, or answer it with the reason why it cannot be."""
        try:
            return self.load(job, "load")
        except Exception as error:  # noqa: BLE001 — whatever one model raises, the batch goes on
            self.wire.send(type="failed", job=job["job"], error=f"{type(error).__name__}: {error}")
            return None

    def load(self, job: dict[str, Any], phase: str) -> Candidate:
        """Make an interpreter, fill its inputs and warm it up. Raises whatever the runtime raises."""
        content = read_stored(self.folder, job["sha256"], self.suffix)
        with self.limited(job["job"], phase, {}, self.wire.send):
            began = time.perf_counter_ns()
            interpreter = self.make(model_content=content, num_threads=self.settings["threads"])
            interpreter.allocate_tensors()
            init_ns = time.perf_counter_ns() - began
            fill_inputs(interpreter, self.settings["seed"])
            candidate = Candidate(job, interpreter.invoke, len(content) + io_bytes(interpreter))
            candidate.facts = dict(self.warm_up(candidate), init_ns=init_ns)
            candidate.denormal = has_denormals(interpreter)
        candidate.facts["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        expected_s = self.expected_ns(candidate) / 1e9
        if expected_s > self.settings["time_limit_s"]:
            limit_s = self.settings["time_limit_s"]
            raise TimeoutError(f"would take about {expected_s:.1f} s, the time limit is {limit_s:g} s")
        return candidate

    def warm_up(self, candidate: Candidate) -> dict[str, int]:
        """Run by count and by time; the fastest chunk tells how long one run takes."""
        goal_ns = self.settings["warmup_min_ms"] * 1e6
        runs = total_ns = 0
        chunk, run_ns = 1, math.inf
        while runs < self.settings["warmup_runs"] or total_ns < goal_ns:
            cpu_ns, wall_ns = sample(candidate.invoke, chunk)
            runs, total_ns = runs + chunk, total_ns + wall_ns
            run_ns = max(1.0, min(run_ns, wall_ns / chunk))
            candidate.stretch = max(1, wall_ns) / max(1, cpu_ns)
            chunk = max(1, min(2 * chunk, math.ceil((goal_ns - total_ns) / run_ns)))
        candidate.run_ns = int(run_ns)
        candidate.loops = max(1, math.ceil(LOOP_MARGIN * self.settings["min_sample_us"] * 1e3 / run_ns))
        candidate.takes_patience = candidate.takes_patience or run_ns >= LONG_RUN_NS
        times = LONG_VISIT if candidate.takes_patience and not self.is_paired else 1
        candidate.visit_samples = self.settings["samples_per_round"] * times
        return {"warmup_ns": total_ns, "warmup_runs": runs}

    def expected_ns(self, candidate: Candidate) -> int:
        """Estimate how long a job will take at least."""
        rounds = min(self.settings["rounds"], self.settings["least_rounds"])
        runs = settling_runs(candidate, is_paired=self.is_paired) + candidate.visit_samples * candidate.loops
        return int(rounds * runs * candidate.run_ns)

    def is_full(self, block: Block) -> bool:
        """Tell whether a block has enough jobs, bytes or work, or took long enough to load."""
        return (
            len(block.candidates) >= self.settings["block_size"]
            or block.size_bytes >= block.most_bytes
            or block.expected_ns >= BLOCK_NS
            or time.monotonic() - block.began_s >= BLOCK_LOAD_S
        )

    def measure_block(self, block: Block) -> None:
        """Visit every job of a block in each round, after a reading of the sentinel, and answer those that are done."""
        if not block.candidates:
            return
        began, sent_s = throttle_signs(self.usual_khz), time.monotonic()
        while block.candidates:
            self.go_round(block)
            done = [candidate for candidate in block.candidates if candidate.done]
            is_over = len(done) == len(block.candidates)
            if is_over or (done and time.monotonic() - sent_s >= HOME_S):
                self.read_sentinel(block, self.wire.send)
                block.throttled = block.throttled or is_throttled(began, throttle_signs(self.usual_khz))
                self.send_rows(done, block)
                if not is_over:
                    time.sleep(HOME_PAUSE_S)  # the host works on them, and no line tells when it has; a 30th of HOME_S
                sent_s = time.monotonic()
        self.earlier_best_ns = block.best_ns
        gc.collect()

    def go_round(self, block: Block) -> None:
        """Visit the jobs that are not done, and find out which are now."""
        visits = [candidate for candidate in block.candidates if not candidate.done]
        if not self.is_paired or block.wants_reading():
            self.read_sentinel(block, self.wire.send)
        self.order.shuffle(visits)
        for candidate in list(visits):
            if time.perf_counter_ns() >= block.look_at_ns:
                is_long = block.reading_ns > LONG_READING_NS  # then no round may tell the host that we are alive
                self.read_sentinel(block, self.wire.send if is_long else self.wire.note)
            try:
                self.visit(candidate, block)
            except Exception as error:  # noqa: BLE001 — whatever one model raises, the batch goes on
                self.wire.send(type="failed", job=candidate.job_id, error=f"{type(error).__name__}: {error}")
                block.candidates.remove(candidate)
                visits.remove(candidate)
        for candidate in visits:
            candidate.done = self.had_enough(candidate, block)

    def send_rows(self, done: list[Candidate], block: Block) -> None:
        """Answer jobs of a block and take them out of it."""
        temperatures_c = read_temperatures_c()
        for candidate in done:
            self.wire.send(**self.row(candidate, block), temperatures_c=temperatures_c)
            block.candidates.remove(candidate)

    def visit(self, candidate: Candidate, block: Block) -> None:
        """Take the samples of one job in one round."""
        invoke, loops = candidate.invoke, candidate.loops
        with self.limited(candidate.job_id, "measure", block.spent_s, self.wire.note):
            if candidate.job_id not in block.started_at:
                block.started_at[candidate.job_id] = utc_now()
            sample(invoke, settling_runs(candidate, is_paired=self.is_paired))
            switches = self.switches()
            taken = [sample(invoke, loops) for _ in range(candidate.visit_samples)]
            switches = self.switches() - switches
        block.samples.setdefault(candidate.job_id, []).extend(taken)
        block.beside_ns.setdefault(candidate.job_id, []).append(max(1, round(block.last_ns)) if block.readings else 0)
        block.switches[candidate.job_id] = block.switches.get(candidate.job_id, 0) + switches

    def had_enough(self, candidate: Candidate, block: Block) -> bool:
        """Tell whether a job's visits say enough, or it has had its time."""
        taken, size = block.samples[candidate.job_id], candidate.visit_samples
        rounds, least = int(self.settings["rounds"]), int(self.settings["least_rounds"])
        if len(taken) // size < min(rounds, least):
            return False
        if block.spent_s[candidate.job_id] >= min(self.settings["enough_s"], self.settings["time_limit_s"] / 2):
            return True
        if self.is_paired:
            return self.is_told(candidate, block)
        times = [self.on_clock(cpu, wall) for cpu, wall in taken]
        visits = [min(times[first : first + size]) for first in range(0, len(times), size)]
        return self.agrees(candidate, visits, block)

    def agrees(self, candidate: Candidate, visits: list[float], block: Block) -> bool:
        """Tell whether a job's best visits agree, after as many as the machine calls for.

        While others disturb the machine visits agree on what those leave it, and a long run needs many of them to be
        undisturbed from end to end.
        """
        rounds = int(self.settings["rounds"])
        patience = int(self.settings["patience"]) if candidate.takes_patience else 1
        if len(visits) < min(block.visits_wanted() * patience, rounds):
            return False
        best = sorted(visits)[:AGREEING_VISITS]
        agree = len(best) == AGREEING_VISITS and best[-1] <= best[0] * (1 + self.settings["agreement"])
        return agree or len(visits) >= rounds

    def is_told(self, candidate: Candidate, block: Block) -> bool:
        """Tell whether enough visits were on a calm machine, by the readings before them, or no more are due."""
        rounds, least = int(self.settings["rounds"]), int(self.settings["least_rounds"])
        readings_ns = block.beside_ns[candidate.job_id]
        calm = sum(ns <= CALM * block.best_ns for ns in readings_ns)
        wanted, most = (NETWORK_VISITS * least, rounds) if candidate.takes_patience else (least, rounds // OP_PART)
        return calm >= wanted or len(readings_ns) >= min(max(most, wanted), rounds)

    def switches(self) -> int:
        """Count the involuntary switches so far, where the clock cannot tell of them: `is_contended` asks only then."""
        return involuntary_switches() if self.clock == "wall" else 0

    def read_sentinel(self, block: Block, tell: Callable[..., None]) -> None:
        """Take a short reading of the sentinel, if there is one; before a block's first one look for its best."""
        sentinel = self.sentinel
        if sentinel is None:
            return
        with self.limited(sentinel.job_id, "sentinel", {}, tell):
            if not block.readings:
                block.best_ns = self.best_for_a_while(sentinel)
            began_ns = time.perf_counter_ns()
            if self.is_paired:
                sample(sentinel.invoke, SENTINEL_SETTLE_RUNS)
            samples = sentinel.visit_samples if self.is_paired else SENTINEL_SAMPLES
            ns = min(self.sample_sentinel(sentinel) for _ in range(samples))
            now_ns = time.perf_counter_ns()
        block.take_reading(ns, self.earlier_best_ns)
        lengths = PAIRED_LOOK_LENGTHS if self.is_paired else LOOK_LENGTHS
        block.reading_ns = now_ns - began_ns
        block.look_at_ns = now_ns + max(LOOK_EVERY_NS, lengths * block.reading_ns)

    def best_for_a_while(self, sentinel: Candidate) -> float:
        """Give the fastest of many samples such as a reading takes, in ns of one run."""
        look_ns = min(SENTINEL_START_NS, int(self.settings["time_limit_s"] * 1e9 / 4))  # it has a limit
        best_ns, until = math.inf, time.perf_counter_ns() + look_ns
        while best_ns == math.inf or time.perf_counter_ns() < until:
            best_ns = min(best_ns, self.sample_sentinel(sentinel))
        return best_ns

    def sample_sentinel(self, sentinel: Candidate) -> float:
        """Take a sample: ns of one run, which a clock that loses time makes no less; see STOLEN."""
        cpu_ns, wall_ns = sample(sentinel.invoke, sentinel.loops)
        usual_ns = cpu_ns * sentinel.stretch
        ns = wall_ns / sentinel.stretch if wall_ns > STOLEN * usual_ns else cpu_ns
        sentinel.stretch *= STRETCH_STEP if wall_ns > usual_ns else 1 / STRETCH_STEP
        return self.on_clock(ns, wall_ns) / sentinel.loops

    @contextmanager
    def limited(self, job_id: str, phase: str, spent_s: dict[str, float], tell: Callable[..., None]) -> Iterator[None]:
        """Announce a risky step and let the kernel end this process when the job's time is up.

        What is sent wakes the host, and tells it that we are alive: the sentinel before rounds, and loading.
        SIGALRM keeps its default action, so that the limit holds inside native code that never returns to Python.
        """
        tell(type="start", job=job_id, phase=phase)
        began = time.monotonic()
        before_s = spent_s.get(job_id, 0.0)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, self.settings["time_limit_s"] - before_s))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            spent_s[job_id] = before_s + time.monotonic() - began
            self.wire.forget()

    def on_clock(self, cpu_ns: float, wall_ns: float) -> float:
        """Choose the reading of the clock that this batch is measured on."""
        return cpu_ns if self.clock == "thread_cpu" else wall_ns

    def row(self, candidate: Candidate, block: Block) -> dict[str, Any]:
        """Put together what is answered for a job."""
        taken, loops = block.samples[candidate.job_id], candidate.loops
        beside_ns = block.beside_ns[candidate.job_id]  # without a reading before the first visit there was no sentinel
        return {
            "type": "row",
            "job": candidate.job_id,
            "samples_ns": [max(1, round(self.on_clock(cpu, wall) / loops)) for cpu, wall in taken],
            "wall_samples_ns": [max(1, round(wall / loops)) for _, wall in taken],
            "clock": self.clock,
            "loops": loops,
            "started_at": block.started_at[candidate.job_id],
            "sentinel_ns": max(1, round(block.sentinel_ns)) if block.readings else 0,
            "beside_ns": beside_ns if beside_ns[0] else [],
            "flags": self.flags(candidate, block),
            **candidate.facts,
        }

    def flags(self, candidate: Candidate, block: Block) -> list[str]:
        """Name what speaks against a row."""
        contended = self.is_contended(block.samples[candidate.job_id], block.switches[candidate.job_id])
        signs = {"contended": contended, "denormal": candidate.denormal, "throttled": block.throttled}
        return [name for name, seen in signs.items() if seen]

    def is_contended(self, taken: list[tuple[int, int]], switches: int) -> bool:
        """Tell whether others took the CPU while a job was measured."""
        if self.clock == "thread_cpu":
            return statistics.median(wall / max(1, cpu) for cpu, wall in taken) > CONTENDED
        return switches > len(taken)  # the wall alone cannot tell: count how often others pushed us off a CPU


def settling_runs(candidate: Candidate, *, is_paired: bool) -> int:
    """Say how often a model is run before a visit, for the job before it left the caches to itself."""
    paired = PAIRED_SETTLE_RUNS, PAIRED_SETTLE_SHIFT, PAIRED_SETTLE_NS
    runs, shift, most_ns = paired if is_paired else (SETTLE_RUNS, SETTLE_SHIFT, SETTLE_NS)
    large = min(runs, candidate.size_bytes >> shift, most_ns // candidate.run_ns)
    return max(candidate.loops // 4, 1 + large)


def sample(invoke: Invoke, loops: int) -> tuple[int, int]:
    """Time `loops` runs back to back; returns thread CPU ns and wall ns of them together."""
    wall = time.perf_counter_ns()
    cpu = time.thread_time_ns()
    for _ in repeat(None, loops):
        invoke()
    return time.thread_time_ns() - cpu, time.perf_counter_ns() - wall


def read_stored(folder: str, sha256: str, suffix: str) -> bytes:
    """Read a model or a blob and check that it is the one it is named after."""
    content = (Path(folder) / "models" / f"{sha256}.{suffix}").read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("the file does not have the hash it is named after")
    return content


def fill_inputs(interpreter: Any, seed: int) -> None:
    """Fill every input once with values of a real range: zeros would let kernels take short cuts."""
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], filling(tensor, seed))


def filling(tensor: dict[str, Any], seed: int) -> Any:
    """Draw values of a real range in a tensor's type and shape. Raises TypeError for a type that has none."""
    import numpy as np  # comes with the runtime; probe and clean must work without either

    shape, dtype = tuple(tensor["shape"]), np.dtype(tensor["dtype"])
    values = np.random.default_rng([seed, tensor["index"]])
    if dtype.kind == "f":
        return values.uniform(-1.0, 1.0, shape).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return values.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
    if dtype.kind in "iub":
        # Wide integers are mostly indices: keep them valid.
        return values.integers(0, 1, shape, endpoint=True).astype(dtype)
    raise TypeError(f"cannot fill an input of type {dtype}")


def io_bytes(interpreter: Any) -> int:
    """Count the bytes of all inputs and outputs, which live as long as the interpreter."""
    return sum(map(tensor_bytes, [*interpreter.get_input_details(), *interpreter.get_output_details()]))


def tensor_bytes(tensor: dict[str, Any]) -> int:
    """Count the bytes of a tensor from its description."""
    import numpy as np  # as in `filling`

    return math.prod(map(int, tensor["shape"])) * int(np.dtype(tensor["dtype"]).itemsize)


def has_denormals(interpreter: Any) -> bool:
    """Tell whether an output holds denormal numbers."""
    for tensor in interpreter.get_output_details():
        values = interpreter.get_tensor(tensor["index"])
        if values.dtype.kind == "f" and ((values != 0) & (abs(values) < TINY_FLOAT)).any():
            return True
    return False


def involuntary_switches() -> int:
    """Count how often the kernel has taken the CPU from this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def read_temperatures_c() -> list[float]:
    """Read every thermal zone that answers."""
    found = []
    for path in sorted((SYS / "class/thermal").glob("thermal_zone*/temp")):
        try:
            value = int(path.read_text()) / 1000
        except (OSError, ValueError):
            continue  # many zones are denied or asleep
        if -100 < value < 200:
            found.append(value)
    return found[:256]


def throttle_signs(usual_khz: int) -> tuple[bool, int]:
    """Read whether the clock of our CPUs is held down now, and how often it has been since boot.

    A cap is a sign only where it is below the usual one, that of the plan's start: many devices are always capped.
    """
    # A Raspberry Pi's own word: bits 0 to 3 tell of now.
    held = bool(read_integer(SYS / "devices/platform/soc/soc:firmware/get_throttled", 16) & 0b1111)
    counts = [read_integer(cpu / "thermal_throttle/core_throttle_count") for cpu in our_cpus()]
    return held or top_khz() < usual_khz, sum(counts)


def top_khz() -> int:
    """Sum up the top frequencies that our CPUs are allowed to have now."""
    return sum(read_integer(cpu / "cpufreq/scaling_max_freq") for cpu in our_cpus())


def our_cpus() -> list[Path]:
    """List the folders of the CPUs that this process may run on."""
    return [SYS / f"devices/system/cpu/cpu{number}" for number in os.sched_getaffinity(0)]


def is_throttled(before: tuple[bool, int], after: tuple[bool, int]) -> bool:
    """Tell from two readings whether the clock was held down between them."""
    return before[0] or after[0] or after[1] > before[1]


def block_bytes() -> int:
    """Say how large the models of a block may be together, in bytes."""
    limits = [read_integer(SYS / "fs/cgroup" / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    known = [available_bytes() or UNKNOWN_BYTES, *filter(None, limits)]
    return min([BLOCK_BYTES, *(size // BLOCK_SHARE for size in known)])


def available_bytes() -> int:
    """Read how much memory is free for the asking; 0 where the kernel does not say."""
    try:
        fields = dict(line.split(":", 1) for line in (PROC / "meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def read_integer(path: Path, base: int = 10) -> int:
    """Read a file of one integer; 0 when it is missing or holds something else."""
    try:
        return int(path.read_text(), base)
    except (OSError, ValueError):
        return 0


def utc_now() -> str:
    """Write the time as RFC 3339 does, in UTC with milliseconds."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1_000_000:03d}Z"


# --- the work folder --------------------------------------------------------------------------------------------------


def make_private(folder: Path) -> None:
    """Make the work folder, or refuse one that others can write to, because they could swap our files."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError("others can write to it")
    (folder / "models").mkdir(mode=0o700, exist_ok=True)


def take_lock(folder: str, owner: str, wait_s: float) -> int | None:
    """Lock the folder for the life of this process; returns None when another live process holds it.

    The lock is the kernel's, on the open file: it dies with its owner, so a stale one cannot be. What is written in
    the file only tells a person who owns it.
    """
    path = Path(folder) / "lock"
    deadline = time.monotonic() + wait_s
    while True:
        make_private(Path(folder))  # in each turn: a cleaner may have removed it while we waited
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not flock_within(fd, deadline - time.monotonic()):
            os.close(fd)
            return None
        if is_file_at(fd, path):
            os.ftruncate(fd, 0)
            os.write(fd, json.dumps({"pid": os.getpid(), "since": int(time.time()), "owner": owner}).encode())
            return fd
        os.close(fd)  # a cleaner removed the file while we waited for it: lock the one that is there now


def flock_within(fd: int, wait_s: float) -> bool:
    """Lock an open file, waiting at most so long; False when it stays locked."""

    def give_up(*_: object) -> None:
        raise BlockingIOError

    signal.signal(signal.SIGALRM, give_up)
    try:
        if wait_s > 0:
            signal.setitimer(signal.ITIMER_REAL, wait_s)
            fcntl.flock(fd, fcntl.LOCK_EX)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except BlockingIOError:
        return False
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default that `limited` relies on
    return True


def is_file_at(fd: int, path: Path) -> bool:
    """Tell whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def lock_owner(folder: str) -> str:
    """Say for a person who holds the lock."""
    try:
        owner = json.loads((Path(folder) / "lock").read_text())
        age_s = time.time() - owner["since"]
        held = f"for {age_s:.0f} s" if age_s >= 0 else "since a time that the device's clock has not reached"
        return f"{owner['owner']} has been measuring {held} (process {owner['pid']} on the device)"
    except (OSError, ValueError, KeyError, TypeError):
        return "another session is measuring"


def probe(folder: str) -> int:
    """Print what this machine has, importing none of it."""
    use_site(folder)
    found = {name: package_version(packages) for name, _, packages in RUNTIMES if importlib.util.find_spec(name)}
    facts = {
        "python": platform.python_version(),
        "cpus": ALLOWED_CPUS,
        "clock": single_thread_clock(),
        "runtimes": found,
    }
    os.write(1, json.dumps(facts).encode() + b"\n")
    return 0


def main(arguments: list[str]) -> int:
    """Run one mode and return the exit code."""
    mode, rest = (arguments[0] if arguments else ""), arguments[1:]
    if mode == "serve" and 3 <= len(rest) <= 5:
        nodes_file, runtime_file = [*rest[3:], "", ""][:2]
        serve(rest[0], rest[1], float(rest[2]), nodes_file, runtime_file)
    if mode == "probe" and len(rest) == 1:
        return probe(rest[0])
    os.write(2, (__doc__ or "").encode())
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
