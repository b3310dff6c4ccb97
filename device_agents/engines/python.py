"""The engine for machines with Python: one pushed file and the runtime found there. The default on Linux boards.

It installs no runtime: `setup.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from device_agents.device import Device
from device_agents.engines.engine import Start
from device_agents.errors import DeviceNotReady
from device_agents.protocol import MeasureSettings
from device_agents.transport import RemoteProcess

_RUNNER = "edgekd_runner.py"
_NODES = "edgekd_nodes.py"


class PythonEngine:
    """Runs models with ai_edge_litert, else tflite_runtime, else tensorflow."""

    name = "python"
    suffix = "tflite"
    delegate = "xnnpack"  # what LiteRT applies by default on a CPU

    def files(self, device: Device) -> Mapping[str, Path]:
        """Name the runner and its part that reads a network's nodes."""
        if not device.python:
            raise DeviceNotReady(
                f"{device.name}: no Python was found there, which the python engine needs; "
                "choose another engine (--device-engine native or benchmark_model) or install python3"
            )
        folder = Path(str(files("device_agents.runner")))
        return {name: folder / name for name in (_RUNNER, _NODES)}

    def settings(self, settings: MeasureSettings) -> MeasureSettings:
        """Keep the settings: this engine can do what they say."""
        return settings

    def start(self, start: Start) -> RemoteProcess:
        """Start the runner; -B because it must leave no compiled files."""
        argv = [start.device.python, "-B", start.files[_RUNNER], *start.serve, start.files[_NODES]]
        return start.transport.stream(argv)
