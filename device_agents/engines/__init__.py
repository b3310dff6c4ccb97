"""What can run models on a device; each engine is one file here and one entry below.

An engine says which files it needs there and starts the process that answers in the lines of `protocol.py`. It neither
pushes nor measures: `session.py` does the one and what it starts the other.
"""

from __future__ import annotations

from device_agents.engines.benchmark_model import BenchmarkModelEngine
from device_agents.engines.engine import Engine
from device_agents.engines.native import NativeEngine
from device_agents.engines.onnxruntime import OnnxruntimeEngine
from device_agents.engines.python import PythonEngine
from device_agents.errors import InvalidRequest

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (PythonEngine(), NativeEngine(), BenchmarkModelEngine(), OnnxruntimeEngine())
}


def engine_named(name: str) -> Engine:
    """Find an engine. Raises InvalidRequest with the known names."""
    if name not in ENGINES:
        raise InvalidRequest(f"unknown engine {name!r}; known engines: {', '.join(ENGINES)}")
    return ENGINES[name]
