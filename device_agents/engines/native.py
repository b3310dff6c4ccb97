"""The engine for machines without Python: a small C program that loads the LiteRT C library.

It compiles nothing here and fetches no library: `build_agent.py` builds the program for a device's ABI, and `setup.py`
finds the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from device_agents.build_agent import build_agent, is_for_android
from device_agents.device import Device
from device_agents.engines.engine import Start
from device_agents.errors import DeviceNotReady
from device_agents.protocol import MeasureSettings
from device_agents.transport import RemoteProcess

_AGENT = "edgekd_agent"
_LIBRARY = "libLiteRt.so"


class NativeEngine:
    """Runs models through libLiteRt.so, which `edgekd devices setup` names for a device."""

    name = "native"
    suffix = "tflite"
    delegate = "xnnpack"  # what LiteRT applies by default on a CPU

    def files(self, device: Device) -> Mapping[str, Path]:
        """Name the program, built on first use, and the library."""
        if not device.litert_library:
            raise DeviceNotReady(
                f"{device.name}: the native engine needs {_LIBRARY} for {device.abi}; give it with: "
                f"edgekd devices setup {device.name} --litert-library PATH"
            )
        library = Path(device.litert_library)
        return {_AGENT: build_agent(device.abi, android=is_for_android(library)), _LIBRARY: library}

    def settings(self, settings: MeasureSettings) -> MeasureSettings:
        """Keep the settings: this engine can do what they say."""
        return settings

    def start(self, start: Start) -> RemoteProcess:
        """Start the program with the library beside it."""
        version = _version_of(Path(start.device.litert_library))
        return start.transport.stream([start.files[_AGENT], *start.serve, start.files[_LIBRARY], *version])


def _version_of(library: Path) -> list[str]:
    """Find the version of a library that lies in an unpacked wheel; the library itself tells it only roughly."""
    found = sorted(library.parent.parent.glob("ai_edge_litert-*.dist-info"))
    return [path.name.removeprefix("ai_edge_litert-").removesuffix(".dist-info") for path in found[-1:]]
