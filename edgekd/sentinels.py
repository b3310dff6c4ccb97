"""The fixed models that a runner visits again and again among those it measures: their time tells the machine's speed.

What others do to a machine slows networks of one kind alike, whatever their size: where the fastest samples of two
sessions are 15 % apart, how many times another network's time they take is 2 % apart (tools/study_sessions.py). So what
goes into a table is measured beside a network of its kind. A model that is measured for itself has a micro-model beside
it, which costs nothing and tells a clock that is held down. How times are read beside either is latency_tables'.
"""

from __future__ import annotations

import functools

from edgekd.graph.ir import graph_in
from edgekd.graph.micro import micro_model, random_model
from edgekd.graph.onnx_micro import onnx_micro_model
from edgekd.spaces.layers import graph_of
from edgekd.spaces.mnasnet import SPACES
from latency_tables.op_spec import OpSpec, TensorSpec
from latency_tables.speed import Speed

_SPACE = "mnasnet-96"
_QUANTIZED = ("int8", "uint8")  # what runs on whole numbers
_ONNX_OP = "onnx_conv;float32;in=1x32x14x14,c32x32x3x3,c32;out=1x32x14x14;@pads=1_1_1_1"


def network_name(dtype: str) -> str:
    """Give the name of the network beside which operators and networks of a dtype are measured.

    Tables keep it: another network would need another name.
    """
    return f"{_SPACE} {'int8' if dtype in _QUANTIZED else 'float32'}"


def known_to(speed: Speed, dtype: str) -> str:
    """Give the network beside which a network is compared with a table, by the table's speed: none for older tables."""
    name = network_name(dtype)
    return name if name in speed.beside_ns else ""


@functools.cache
def network_content(name: str) -> bytes:
    """Write the .tflite file of a `network_name`."""
    space = SPACES[_SPACE]
    return random_model(graph_in(graph_of(space, space.reference()), name.rpartition(" ")[2]))


def micro_content(suffix: str) -> bytes:
    """Write the micro-model of a format, .tflite or .onnx; about 50 µs on a desktop core."""
    if suffix == "onnx":
        return onnx_micro_model(OpSpec.parse(_ONNX_OP))
    return micro_model(OpSpec("conv_2d", (TensorSpec((1, 14, 14, 32)),), "float32", 32, (3, 3)))
