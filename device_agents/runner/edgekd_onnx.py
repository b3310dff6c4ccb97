"""Let edgekd_runner.py measure .onnx files: onnxruntime behind the few calls that it makes of LiteRT's interpreter.

The runner loads this file where the host has pushed it beside. It needs Python 3.9 and the onnxruntime found there or
in DIR/site-onnxruntime. A free batch is taken as 1; any other free dimension is refused by its name, because nobody
could say what time it stands for. Read next: `edgekd_runner.py`, which measures.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENGINE = "onnxruntime"
SUFFIX = "onnx"
SITE = "site-onnxruntime"
HOW_TO_INSTALL = (
    "onnxruntime is missing for {python}; install its wheel there with: "
    "edgekd devices setup NAME --device-engine onnxruntime (on the host: pip install 'edgekd[onnx]')"
)
_ERRORS_ONLY = 3  # onnxruntime's severity: its warnings would fill the host's memory of stderr
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def load() -> tuple[str, str, Callable[..., Any]] | None:
    """Import onnxruntime: its name, its version and what makes an interpreter; None where it is missing."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    return "onnxruntime", str(onnxruntime.__version__), Interpreter


class Interpreter:
    """One model in a session of its own, with inputs and outputs that stay where they are between runs."""

    def __init__(self, model_content: bytes, num_threads: int) -> None:
        """Load and optimise a model. Raises ValueError for free dimensions, TypeError for odd tensors."""
        self.session = make_session(model_content, num_threads)
        batches = free_batches(self.session)
        if batches:
            self.session = make_session(model_content, num_threads, batches)
        self.inputs = [describe(at, tensor) for at, tensor in enumerate(self.session.get_inputs())]
        self.outputs: list[dict[str, Any]] = []
        self.values: list[Any] = []
        self.fed: dict[int, Any] = {}  # numpy's own memory, which a binding may only point to
        self.binding = self.session.io_binding()
        self.run = self.session.run_with_iobinding

    def allocate_tensors(self) -> None:
        """Give every output its place."""
        import onnxruntime

        found = self.session.get_outputs()
        shapes = [tensor.shape for tensor in found]
        if not all(isinstance(size, int) for shape in shapes for size in shape):
            shapes = self._learnt_shapes()
        for at, (tensor, shape) in enumerate(zip(found, shapes)):  # noqa: B905 — strict= came with Python 3.10
            output = describe(len(self.inputs) + at, tensor, shape)
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(output["shape"]), output["dtype"], "cpu")
            self.binding.bind_ortvalue_output(tensor.name, value)
            self.outputs.append(output)
            self.values.append(value)

    def get_input_details(self) -> list[dict[str, Any]]:
        """Describe the inputs as LiteRT does: index, name, shape and dtype."""
        return self.inputs

    def get_output_details(self) -> list[dict[str, Any]]:
        """Describe the outputs alike."""
        return self.outputs

    def set_tensor(self, index: int, values: Any) -> None:
        """Bind an input's values, which onnxruntime then reads in place."""
        import numpy as np
        import onnxruntime

        self.fed[index] = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), "cpu")
        self.binding.bind_ortvalue_input(self.inputs[index]["name"], self.fed[index])

    def invoke(self) -> None:
        """Run once. Whoever keeps this method keeps the inputs' values alive, too."""
        self.run(self.binding)

    def get_tensor(self, index: int) -> Any:
        """Give the values of an output."""
        return self.values[index - len(self.inputs)].numpy()

    def _learnt_shapes(self) -> list[tuple[int, ...]]:
        """Run once to see the shapes that the model does not tell; zeros are valid indices, too."""
        import numpy as np

        zeros = {tensor["name"]: np.zeros(tensor["shape"], tensor["dtype"]) for tensor in self.inputs}
        return [value.shape for value in self.session.run(None, zeros)]


def make_session(content: bytes, threads: int, batches: tuple[str, ...] = (), profile_prefix: str = "") -> Any:
    """Load a model for the CPU with all optimisations, its work in the calling thread where there is but one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    # Threads that wait in a loop would take the CPU from the models that are visited in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name in batches:
        options.add_free_dimension_override_by_name(name, 1)
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def free_batches(session: Any) -> tuple[str, ...]:
    """Name the dimensions that stand for a batch. Raises ValueError for another one that is free."""
    inputs = session.get_inputs()
    names = {tensor.shape[0] for tensor in inputs if tensor.shape and isinstance(tensor.shape[0], str)}
    for tensor in inputs:
        for at, size in enumerate(tensor.shape):
            is_batch = size in names or (at == 0 and size is None)
            if not is_batch and (not isinstance(size, int) or size < 1):
                raise ValueError(
                    f"input {tensor.name} leaves dimension {at} ({size}) free; only the batch may be: fix it with "
                    "python -m onnxruntime.tools.make_dynamic_shape_fixed"
                )
    return tuple(sorted(names))


def describe(index: int, tensor: Any, shape: Any = None) -> dict[str, Any]:
    """Describe a tensor as LiteRT does. Raises TypeError for what is no tensor of numbers."""
    import numpy as np

    if tensor.type not in _DTYPES:
        raise TypeError(f"{tensor.name} is a {tensor.type}; only tensors of numbers can be measured")
    known = tuple(size if isinstance(size, int) else 1 for size in (tensor.shape if shape is None else shape))
    return {"index": index, "name": tensor.name, "shape": known, "dtype": np.dtype(_DTYPES[tensor.type])}


def profile_nodes(content: bytes, runs: int, threads: int) -> list[dict[str, Any]]:
    """Measure each node of a network inside it, as onnxruntime's own profiler tells it, in execution order.

    Nodes are those that its optimiser has made: fused, or with reorderings added. Raises what onnxruntime raises.
    """
    import numpy as np

    batches = free_batches(make_session(content, threads))
    values = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="edgekd-profile-") as folder:
        session = make_session(content, threads, batches, f"{folder}/nodes")
        details = [describe(at, tensor) for at, tensor in enumerate(session.get_inputs())]
        feeds = {t["name"]: values.integers(0, 2, t["shape"]).astype(t["dtype"]) for t in details}
        for detail in details:
            if detail["dtype"].kind == "f":
                feeds[detail["name"]] = values.uniform(-1, 1, detail["shape"]).astype(detail["dtype"])
        for _ in range(runs + 1):  # the first one warms up and does not count
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    return nodes_of(events, runs)


def nodes_of(events: list[dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    """Sum up the profiler's events by node; its times are whole microseconds."""
    taken_us: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"][: -len("_kernel_time")]
            kinds[name] = event["args"]["op_name"]
            taken_us.setdefault(name, []).append(event["dur"])
    return [
        {
            "name": f"{kinds[name]} {name}",
            "kind": "builtin",
            "mean_ns": round(1e3 * statistics.mean(times[-runs:])),
            "runs": len(times[-runs:]),
        }
        for name, times in taken_us.items()
    ]
