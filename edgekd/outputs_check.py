"""Compares what a device computes with what this machine does: the same small model on the same input.

A wrong library, a broken build or a wrong file on the device shows here and nowhere in a latency.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from device_agents.device import Device
from device_agents.protocol import Job
from device_agents.questions import Layer
from device_agents.readiness import Check
from device_agents.session import Session
from device_agents.transport import Transport
from edgekd.errors import MissingExtra
from edgekd.graph.micro import random_model
from edgekd.graph.onnx_micro import onnx_micro_model
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named
from latency_tables.op_spec import OpSpec

TOLERANCE = 1e-4  # of float32 outputs of about unit size; kernels of two CPUs add in another order
_SPACE = "tiny-28"
_SEED = 7
_ONNX_OP = "onnx_conv;float32;in=1x16x14x14,c32x16x3x3,c32;out=1x32x14x14;@fused_1=hard_swish;@pads=1_1_1_1"

Case = tuple[bytes, tuple[int, ...], Callable[[bytes, np.ndarray], tuple[np.ndarray, Layer]]]


def outputs_check(device: Device, transport: Transport) -> Check:
    """Run a small float32 model there and here and compare the outputs. Raises DeviceError, MissingExtra."""
    model, shape, on_host = _onnx_case() if device.engine == "onnxruntime" else _tflite_case()
    values = np.random.default_rng(_SEED).uniform(-1, 1, shape).astype(np.float32)
    wanted, layer = on_host(model, values)
    got = _on_device(device, transport, model, values, layer)
    sizes = [len(output) for output in got]
    if sizes != [wanted.nbytes]:
        return _wrong(f"outputs of {sizes} bytes come out of a small network, [{wanted.nbytes}] here")
    found = np.frombuffer(got[0], np.float32)
    error = float(np.abs(found - wanted).max())
    text = f"a small network's outputs are within {error:.1e} of this machine's"
    if not error <= TOLERANCE:  # so that NaN fails too
        return _wrong(f"{text}, at most {TOLERANCE:g} is right")
    return Check("outputs", ok=True, found=text)


def _wrong(found: str) -> Check:
    return Check("outputs", ok=False, found=found, advice="install another build of the runtime there")


def _tflite_case() -> Case:
    space = space_named(_SPACE)
    return random_model(graph_of(space, space.reference())), space.input_shape, _by_litert


def _onnx_case() -> Case:
    op = OpSpec.parse(_ONNX_OP)
    return onnx_micro_model(op), op.inputs[0].shape, _by_onnxruntime


def _by_onnxruntime(model: bytes, values: np.ndarray) -> tuple[np.ndarray, Layer]:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    output = session.run(None, {entry.name: values})[0]
    return np.asarray(output).reshape(-1), Layer(str(entry.name), tuple(entry.shape))


def _by_litert(model: bytes, values: np.ndarray) -> tuple[np.ndarray, Layer]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(entry["index"], values)
    interpreter.invoke()
    layer = Layer(str(entry["name"]), tuple(int(size) for size in entry["shape"]))
    return interpreter.get_tensor(end["index"]).reshape(-1), layer


def _on_device(
    device: Device, transport: Transport, model: bytes, values: np.ndarray, layer: Layer
) -> tuple[bytes, ...]:
    digests = [hashlib.sha256(content).hexdigest() for content in (model, values.tobytes())]
    with tempfile.TemporaryDirectory(prefix="edgekd-check-") as folder, Session(device, transport) as session:
        paths = [Path(folder) / digest for digest in digests]
        for path, content in zip(paths, (model, values.tobytes()), strict=True):
            path.write_bytes(content)
        return session.outputs(Job("outputs", digests[0], "network"), paths[0], (digests[1], paths[1]), [layer])
