"""Processor cores that a roofline can stand for, as data: one value a device, each figure with where it is published.

Peaks are of one core at its highest clock. Adding a device is adding a value here; simulate.py does the rest.

Sources, named in each value:
  A72, A76: Arm, Software Optimization Guides of the cores. A72 issues an FMLA of four floats and an SMLAL of eight
    bytes once a cycle; A76 an FMLA, and an SDOT of sixteen products, twice a cycle.
  as A72: taken as equal to A72, which published latencies of networks on these phones bear out (for A73 and A75, on
    which Kryo 280, 360 and 385 build, and for the first Kryo, Qualcomm's own).
  SDM821, SDM835, SDM845, SDM670, SDM855: Qualcomm's product briefs, for clocks and memory.
  BCM2711, BCM2712: Raspberry Pi's product briefs of the boards.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Processor:
    """The fastest core of a device and its memory."""

    device: str
    core: str
    clock_ghz: float
    float_macs: int  # multiply-accumulates a cycle
    int8_macs: int
    memory_gb_per_s: float  # peak of all channels; a gigabyte is 10⁹ bytes
    sources: tuple[str, ...]


_WITHOUT_DOT = {"float_macs": 4, "int8_macs": 8}
_WITH_DOT = {"float_macs": 8, "int8_macs": 32}

PROCESSORS: dict[str, Processor] = {
    processor.device: processor
    for processor in (
        Processor("pixel", "Kryo", 2.15, **_WITHOUT_DOT, memory_gb_per_s=29.8, sources=("SDM821", "as A72")),
        Processor("pixel2", "Kryo 280 Gold", 2.35, **_WITHOUT_DOT, memory_gb_per_s=29.8, sources=("SDM835", "as A72")),
        Processor("pixel3", "Kryo 385 Gold", 2.8, **_WITHOUT_DOT, memory_gb_per_s=29.8, sources=("SDM845", "as A72")),
        Processor("pixel3a", "Kryo 360 Gold", 2.0, **_WITHOUT_DOT, memory_gb_per_s=14.9, sources=("SDM670", "as A72")),
        Processor("pixel4", "Kryo 485 Gold", 2.84, **_WITH_DOT, memory_gb_per_s=34.1, sources=("SDM855", "A76")),
        Processor("rpi4", "Cortex-A72", 1.5, **_WITHOUT_DOT, memory_gb_per_s=12.8, sources=("BCM2711", "A72")),
        Processor("rpi5", "Cortex-A76", 2.4, **_WITH_DOT, memory_gb_per_s=17.1, sources=("BCM2712", "A76")),
    )
}
