"""What is known of one machine that can be measured, as a frozen value.

It reads nothing: `inventory.py` fills a Device in from what the machine says of itself, the catalogue and devices.toml.
Read next: `inventory.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from device_agents.addresses import Address
from device_agents.connect import ConnectOptions


@dataclass(frozen=True, slots=True)
class Cluster:
    """CPUs of one kind. `speed` orders clusters: the kernel's capacity, or the top frequency in kHz, or 0: unknown."""

    cpus: tuple[int, ...]
    speed: int


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that can be measured.

    system is "linux" or "android", abi the machine as `uname -m` names it. serial tells two of a kind apart.
    build_fingerprint is equal for equal system builds and CPUs, and holds neither host names nor paths.
    cpus are those a process may run on; clusters group them, slowest first. python and work_dir are paths there;
    python is empty where none was found. engine is the one to measure with unless the user asks for another.
    cpu_mask pins a measurement (bit n is CPU n); None leaves the choice to the kernel.
    benchmark_model and litert_library are files on this machine, empty when not given. connection is how to get there.
    """

    name: str
    address: Address
    serial: str
    system: str
    model: str
    soc: str
    os: str
    abi: str
    cores: int
    cpus: tuple[int, ...]
    clusters: tuple[Cluster, ...]
    build_fingerprint: str
    python: str
    work_dir: str
    engine: str
    cpu_mask: int | None = None
    threads: int = 1
    benchmark_model: str = ""
    litert_library: str = ""
    connection: ConnectOptions = field(default_factory=ConnectOptions, repr=False, compare=False)


def mask_of(cpus: Iterable[int]) -> int | None:
    """Return the mask with one bit for each CPU, or None for no CPU."""
    return sum(1 << cpu for cpu in set(cpus)) or None
