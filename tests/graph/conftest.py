"""Running .tflite files in tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Run = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def run_file() -> Run:
    """Give a function that runs a file on one batch: `reference` picks the kernels that define the format."""

    def run(content: bytes, values: np.ndarray, *, reference: bool = False) -> np.ndarray:
        resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=resolver)
        first = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(first, list(values.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(first, values)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))

    return run
