"""Compares what a device computes with what this machine does: the same small network on the same input.

A wrong library, a broken build or a wrong file on the device shows here and nowhere in a latency.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from device_agents.device import Device
from device_agents.protocol import Job
from device_agents.questions import Layer
from device_agents.readiness import Check
from device_agents.session import Session
from device_agents.transport import Transport
from edgekd.graph.micro import random_model
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import space_named

TOLERANCE = 1e-4  # of float32 outputs of about unit size; kernels of two CPUs add in another order
_SPACE = "tiny-28"
_SEED = 7


def outputs_check(device: Device, transport: Transport) -> Check:
    """Run a small float32 network there and here and compare the outputs. Raises DeviceError."""
    space = space_named(_SPACE)
    model = random_model(graph_of(space, space.reference()))
    values = np.random.default_rng(_SEED).uniform(-1, 1, space.input_shape).astype(np.float32)
    wanted, layer = _on_host(model, values)
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


def _on_host(model: bytes, values: np.ndarray) -> tuple[np.ndarray, Layer]:
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
