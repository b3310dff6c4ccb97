"""The seam between a session and what runs models on a device.

It holds no engine; those are the files beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_agents.device import Device
from device_agents.protocol import MeasureSettings
from device_agents.transport import RemoteProcess, Transport


@dataclass(frozen=True, slots=True)
class Start:
    """What an engine is started with.

    files are the paths on the device of what `Engine.files` named. The process holds the lock of work_dir for its life,
    for which it waits at most wait_s; owner says in the lock for whom.
    """

    device: Device
    transport: Transport
    work_dir: str
    files: Mapping[str, str]
    owner: str
    wait_s: float

    @property
    def serve(self) -> list[str]:
        """Give the arguments that every server takes."""
        return ["serve", self.work_dir, self.owner, f"{self.wait_s:g}"]


class Engine(Protocol):
    """A way to run models on a device."""

    @property
    def name(self) -> str:
        """Name the engine as users and table keys do."""

    @property
    def suffix(self) -> str:
        """Name the format of its models as their files end: tflite or onnx."""

    @property
    def delegate(self) -> str:
        """Name what computes for the runtime on a CPU, as table keys do."""

    def files(self, device: Device) -> Mapping[str, Path]:
        """Name the files that must lie on the device, with where they lie here.

        Raises:
            DeviceNotReady: one is not given or not there; the message says how to give it.
            SetupFailed: one could not be built.

        """

    def settings(self, settings: MeasureSettings) -> MeasureSettings:
        """Adapt how a batch is measured to what this engine can do."""

    def start(self, start: Start) -> RemoteProcess:
        """Start a process that answers in the lines of `protocol.py`. Raises TransportError."""
