"""The engine for .onnx files: the python engine's runner with onnxruntime in LiteRT's place, on any device with Python.

It installs no runtime: `setup.py` does. Read next: `runner/edgekd_onnx.py`, which runs there.
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
_ONNX = "edgekd_onnx.py"


class OnnxruntimeEngine:
    """Runs .onnx models with onnxruntime's CPU provider, all graph optimisations on."""

    name = "onnxruntime"
    suffix = "onnx"
    delegate = "cpu"

    def files(self, device: Device) -> Mapping[str, Path]:
        """Name the runner and what puts onnxruntime into it."""
        if not device.python:
            raise DeviceNotReady(
                f"{device.name}: no Python was found there, which the engine onnxruntime needs; install python3 "
                "and onnxruntime's wheel there, or measure .tflite files with another engine"
            )
        folder = Path(str(files("device_agents.runner")))
        return {name: folder / name for name in (_RUNNER, _ONNX)}

    def settings(self, settings: MeasureSettings) -> MeasureSettings:
        """Keep the settings: this engine can do what they say."""
        return settings

    def start(self, start: Start) -> RemoteProcess:
        """Start the runner; the one file both tells a network's nodes and stands for the runtime."""
        onnx = start.files[_ONNX]
        return start.transport.stream([start.device.python, "-B", start.files[_RUNNER], *start.serve, onnx, onnx])
