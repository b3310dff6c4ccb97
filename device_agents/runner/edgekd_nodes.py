"""Measure the nodes of a network inside the network, with the profiler of the LiteRT runtime that is installed here.

The runner loads this file on the device, next to an interpreter of the same package: Python 3.9 and the standard
library. Python's own interpreter has no profiler, so the package's libLiteRt.so is called through its C interface.
Times are the runtime's, in whole µs a run, and the profiler itself costs time: a sum of nodes is no network's latency.
It does not time networks: `edgekd_runner.py` does.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import random
import re
import struct
from array import array
from pathlib import Path
from typing import Any

PACKAGES = ("ai-edge-litert", "ai-edge-litert-nightly")
OLDEST = (2, 1, 6)  # before, a model was made without an environment
CPU = 1  # of the accelerators
WARMUP_RUNS = 3
MAX_EVENTS = 1 << 20
MAX_NAME = 200  # characters; a runtime's own names have 40
TYPE_BYTES = 512  # room for a tensor's type, which takes 72
ALIGNMENT = 64  # what the runtime asks of memory that it is lent
WRITE = 1  # a lock's mode
# Types of an event.
OPERATOR, DELEGATE_OPERATOR = 2, 8
# An event starts like this: its name, its type, when it began and how long it took, in µs. What follows differs between
# versions, so its size is measured: 104 bytes in 2.3.
EVENT_HEAD = struct.Struct("@PiQQ")
EVENT_BYTES = 256
UNTOUCHED = 0xA5
FLOAT32, FLOAT64 = 1, 11  # element types of a tensor; so are the others
ONE_BYTE = (3, 9)  # uint8 and int8

Node = dict[str, Any]


def profile_nodes(content: bytes, runs: int, threads: int) -> list[Node]:
    """Run a network so often and return each node's name, kind and mean time in execution order.

    A node is {"name", "kind", "mean_ns", "runs"}; kind is "xnnpack", "builtin" (the runtime's own kernels) or "other".
    Raises ValueError where there is no such library, for a model that the runtime refuses, and for a run that fails.
    """
    if runs < 1 or threads < 1:
        raise ValueError(f"runs and threads are {runs} and {threads}, must be 1 or more")
    with Network(Library(library_path()), content, threads) as network:
        for _ in range(WARMUP_RUNS):
            network.run()
        return mean_of([network.profiled_run() for _ in range(runs)])


def mean_of(found: list[list[tuple[str, str, int]]]) -> list[Node]:
    """Average runs of the same nodes. Raises ValueError when the runs differ in them."""
    nodes = [(name, kind) for name, kind, _ in found[0]]
    if not nodes or any([(name, kind) for name, kind, _ in run] != nodes for run in found):
        raise ValueError("the runtime's profiler did not tell the same nodes in every run")
    totals_us = [sum(run[index][2] for run in found) for index in range(len(nodes))]
    return [
        {"name": name, "kind": kind, "mean_ns": round(1000 * total_us / len(found)), "runs": len(found)}
        for (name, kind), total_us in zip(nodes, totals_us)  # noqa: B905 — zip has no `strict` in Python 3.9
    ]


def library_path() -> Path:
    """Find the library beside the package. Raises ValueError when it is missing or too old."""
    spec = importlib.util.find_spec("ai_edge_litert")
    path = Path(spec.origin).with_name("libLiteRt.so") if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ValueError("times of nodes need the package ai-edge-litert, whose libLiteRt.so was not found")
    version = installed_version()
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST:
        raise ValueError(f"times of nodes need ai-edge-litert {'.'.join(map(str, OLDEST))} or newer, not {version}")
    return path


def installed_version() -> str:
    """Return the version of the package that is installed, "0" when it does not say."""
    for package in PACKAGES:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "0"


class Library:
    """The runtime's C interface: each call is checked, and objects are pointers."""

    def __init__(self, path: Path) -> None:
        try:
            self.functions = ctypes.CDLL(str(path))
        except OSError as error:
            raise ValueError(f"cannot load {path}: {error}") from error

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns a status. Raises ValueError for any other than 0."""
        function = self.function(name)
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise ValueError(f"{name} of the runtime failed with status {status}")

    def new(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Call a function whose last argument takes the object that it gives."""
        found = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(found))
        return found

    def count(self, name: str, *arguments: Any) -> int:
        """Call a function whose last argument takes a size."""
        found = ctypes.c_size_t()
        self.call(name, *arguments, ctypes.byref(found))
        return found.value

    def destroy(self, name: str, found: ctypes.c_void_p) -> None:
        """Give an object back."""
        function = self.function(name)
        function.restype = None
        function(found)

    def function(self, name: str) -> Any:
        """Find a function. Raises ValueError when this version has none of that name."""
        try:
            return getattr(self.functions, name)
        except AttributeError as error:
            raise ValueError(f"the runtime's library has no function {name}; is its version supported?") from error


# Frees nothing: the payload of an option belongs to the Network.
KEEP = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _payload: None)


class Network:
    """A model that is ready to run on the CPU with random inputs; a context that gives back all that it holds."""

    def __init__(self, library: Library, content: bytes, threads: int) -> None:
        self.library = library
        self.content = content  # the model lives in it
        self.payloads: list[Any] = []
        self.owned: list[tuple[str, ctypes.c_void_p]] = []
        try:
            self.prepare(threads)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Network:
        """Give the network itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give everything back, the youngest first."""
        while self.owned:
            self.library.destroy(*self.owned.pop())

    def prepare(self, threads: int) -> None:
        """Make environment, model, options, the compiled model and its buffers."""
        library, content = self.library, self.content
        self.environment = self.own("Environment", library.new("LiteRtCreateEnvironment", ctypes.c_int(0), None))
        size = ctypes.c_size_t(len(content))
        model = self.own("Model", library.new("LiteRtCreateModelFromBuffer", self.environment, content, size))
        options = self.own("Options", library.new("LiteRtCreateOptions"))
        self.set_options(options, threads)
        compiled = library.new("LiteRtCreateCompiledModel", self.environment, model, options)
        self.compiled = self.own("CompiledModel", compiled)
        signature = library.new("LiteRtGetModelSignature", model, ctypes.c_size_t(0))
        self.inputs = self.buffers(signature, "Input")
        self.outputs = self.buffers(signature, "Output")
        self.profiler = library.new("LiteRtCompiledModelGetProfiler", compiled)

    def own(self, kind: str, found: ctypes.c_void_p) -> ctypes.c_void_p:
        """Remember what must be given back."""
        self.owned.append((f"LiteRtDestroy{kind}", found))
        return found

    def set_options(self, options: ctypes.c_void_p, threads: int) -> None:
        """Ask for XNNPACK on the CPU with so many threads, and for the profiler."""
        self.library.call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(CPU))
        texts = {b"runtime_options_string": b"enable_profiling = true\n", b"xnnpack": b"num_threads = %d\n" % threads}
        for name, text in texts.items():
            payload = ctypes.create_string_buffer(text)
            self.payloads.append(payload)
            option = self.library.new("LiteRtCreateOpaqueOptions", name, payload, KEEP)
            self.library.call("LiteRtAddOpaqueOptions", options, option)

    def buffers(self, signature: ctypes.c_void_p, side: str) -> Any:
        """Make the buffers of all inputs or outputs; those of inputs are filled."""
        found = []
        for index in range(self.library.count(f"LiteRtGetNumSignature{side}s", signature)):
            number, kind = ctypes.c_size_t(index), ctypes.create_string_buffer(TYPE_BYTES)
            tensor = self.library.new(f"LiteRtGetSignature{side}TensorByIndex", signature, number)
            self.library.call("LiteRtGetRankedTensorType", tensor, kind)
            requirements = f"LiteRtGetCompiledModel{side}BufferRequirements"
            wanted = self.library.new(requirements, self.compiled, ctypes.c_size_t(0), number)
            make = "LiteRtCreateManagedTensorBufferFromRequirements"
            found.append(self.own("TensorBuffer", self.library.new(make, self.environment, kind, wanted)))
            if side == "Input":
                (element,) = struct.unpack_from("@i", kind)
                self.fill(found[-1], element, index)
        return (ctypes.c_void_p * len(found))(*found)

    def fill(self, buffer: ctypes.c_void_p, element: int, seed: int) -> None:
        """Write values of a real range to a buffer."""
        size, memory = self.library.count("LiteRtGetTensorBufferPackedSize", buffer), ctypes.c_void_p()
        self.library.call("LiteRtLockTensorBuffer", buffer, ctypes.byref(memory), ctypes.c_int(WRITE))
        ctypes.memmove(memory, filling(element, size, seed), size)
        self.library.call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        """Run the model once. Raises ValueError when it fails."""
        inputs, outputs = ctypes.c_size_t(len(self.inputs)), ctypes.c_size_t(len(self.outputs))
        first = ctypes.c_size_t(0)  # the only signature
        self.library.call("LiteRtRunCompiledModel", self.compiled, first, inputs, self.inputs, outputs, self.outputs)

    def profiled_run(self) -> list[tuple[str, str, int]]:
        """Run the model once and return each node's name, kind and time in µs. Raises ValueError."""
        self.library.call("LiteRtResetProfiler", self.profiler)
        self.library.call("LiteRtStartProfiler", self.profiler)
        self.run()
        self.library.call("LiteRtStopProfiler", self.profiler)
        events = self.events()
        if not events or events[0][1] in (OPERATOR, DELEGATE_OPERATOR):
            # A run's first event is never a node's, unless the profiler's ring was too small (2,048 events in 2.1.6).
            raise ValueError("the runtime's profiler lost events of a run; has the network too many nodes for it?")
        return [(name, kind_of(name, kind), us) for name, kind, us in events if kind in (OPERATOR, DELEGATE_OPERATOR)]

    def events(self) -> list[tuple[str, int, int]]:
        """Read name, type and µs of all events since the profiler was reset."""
        number = ctypes.c_int()
        self.library.call("LiteRtGetNumProfilerEvents", self.profiler, ctypes.byref(number))
        count = number.value
        if not 0 < count <= MAX_EVENTS:
            return []
        memory = ctypes.create_string_buffer(bytes([UNTOUCHED]) * (count * EVENT_BYTES))
        self.library.call("LiteRtGetProfilerEvents", self.profiler, number, memory)
        size = event_bytes(memory.raw[:-1], count)
        heads = [EVENT_HEAD.unpack_from(memory, index * size) for index in range(count)]
        return [(name_at(name), kind, us) for name, kind, _, us in heads]


def event_bytes(written: bytes, count: int) -> int:
    """Tell an event's size from how far the memory for all of them was written to. Raises ValueError when it is odd."""
    end = len(written.rstrip(bytes([UNTOUCHED])))
    size = -(-end // (8 * count)) * 8  # the last one may end in unwritten padding to 8 bytes
    if not EVENT_HEAD.size <= size < EVENT_BYTES:
        raise ValueError(f"the runtime's profiler wrote {end} bytes for {count} events, which is no layout we know")
    return size


def name_at(address: int | None) -> str:
    """Read an event's name from the profiler's memory."""
    return ctypes.string_at(address).decode("utf-8", "replace")[:MAX_NAME] if address else ""


def kind_of(name: str, event: int) -> str:
    """Tell XNNPACK's nodes and the runtime's own operators, which are named like CONV_2D, from other delegates."""
    if event == DELEGATE_OPERATOR:
        return "xnnpack"
    return "builtin" if re.fullmatch(r"[A-Z][A-Z0-9_]*", name) else "other"


def filling(element: int, size: int, seed: int) -> bytes:
    """Draw so many bytes of values of a real range, or zeros where the type has none that is sure to be valid."""
    numbers = random.Random(seed)  # noqa: S311 — values to repeat, not a secret
    if element in ONE_BYTE:
        return numbers.getrandbits(8 * size).to_bytes(size, "little") if size else b""
    if element in (FLOAT32, FLOAT64):
        values = array("f" if element == FLOAT32 else "d")
        values.extend(numbers.uniform(-1, 1) for _ in range(size // values.itemsize))
        return values.tobytes()
    return bytes(size)
