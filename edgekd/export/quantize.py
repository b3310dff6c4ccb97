"""Post-training quantisation: the range of every tensor from true minima and maxima over calibration images.

The float32 .tflite file itself is run on the host, every tensor kept, so what is calibrated is what ships. The int8
file is then written by graph/tflite_writer.py. Moving averages are not used: they cut off what is rare.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekd.errors import DataError
from edgekd.graph.ir import INPUT, FloatArray, Graph
from edgekd.graph.quantization import Ranges

_BATCH = 50  # images at once; every intermediate tensor of a batch is in memory


def calibrate_ranges(float_model: bytes, graph: Graph, images: FloatArray) -> Ranges:
    """Find the smallest and largest value of every tensor of a float32 model over images (N, H, W, C).

    Raises:
        DataError: there are no images, or a tensor is not finite.

    """
    if not len(images):
        raise DataError("quantisation needs at least one calibration image")
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for start in range(0, len(images), _BATCH):
        for name, values in _all_tensors(float_model, graph, images[start : start + _BATCH]).items():
            # numpy's, because Python's own min and max drop a NaN
            low[name] = float(np.minimum(low.get(name, np.inf), values.min()))
            high[name] = float(np.maximum(high.get(name, -np.inf), values.max()))
    ranges = {name: (low[name], high[name]) for name in low}
    for name, bounds in ranges.items():
        if not np.isfinite(bounds).all():
            raise DataError(f"tensor {name} of the student is not finite on the calibration images; train it anew")
    return ranges


def _all_tensors(model: bytes, graph: Graph, images: FloatArray) -> dict[str, FloatArray]:
    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        # a delegate would keep its inner tensors to itself
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    image = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(image, list(images.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(image, images)
    interpreter.invoke()
    wanted = {node.name for node in graph.nodes}
    tensors = {d["name"]: d["index"] for d in interpreter.get_tensor_details() if d["name"] in wanted}
    return {INPUT: images, **{name: interpreter.get_tensor(index) for name, index in tensors.items()}}
