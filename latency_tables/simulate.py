"""Times of operators without a device: a roofline over published figures of a processor core.

    ms = call + max(multiply-accumulates / (peak · efficiency), bytes / bandwidth)

It tells what is large and what is small on a device that nobody has at hand, and no more: every row says that it is
simulated, and so does the device's name, so that none ever stands for a measurement. It measures nothing and knows no
networks. Read next: `processors.py`, the figures.
Source: Williams, Waterman, Patterson, Roofline, Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from latency_tables.features import Sizes, sizes_of
from latency_tables.op_spec import OpSpec
from latency_tables.processors import Processor
from latency_tables.schema import Measurement, TableKey

SIMULATED = "simulated"
MODEL_VERSION = "1"  # of formula, figures and efficiencies; rows of another are not comparable

# Shares of the peak, the same for all devices; set beforehand, but for the int8 one, fitted to published latencies of
# 8-bit networks. A depthwise convolution loads a weight and an input for every product.
_DENSE, _DEPTHWISE = 0.80, 0.30
INT8_SHARE = 0.4  # × those: products of bytes are widened and summed in pairs, and requantisation comes on top
_BANDWIDTH_SHARE = 0.30  # that one core draws of all channels
_CALL_CYCLES = 4000  # to start an operator
_TILE = 4  # channels in a register; odd widths cost as the next whole one


def simulate_rows(processor: Processor, ops: Iterable[OpSpec], int8_share: float = INT8_SHARE) -> dict[OpSpec, float]:
    """Give the simulated ms of every operator; those that are folded at loading have none.

    `int8_share`, above 0, is the fitted figure of the model; another one shows what a fit to other latencies says.
    """
    return {op: _op_ms(processor, op, int8_share) for op in ops if not op.is_folded}


def simulated_key(processor: Processor) -> TableKey:
    """Give the key of a simulated table, which differs from that of any device that can be attached."""
    return TableKey(
        device=f"{SIMULATED}-{processor.device}",
        build_fingerprint=processor.core,
        engine=SIMULATED,
        runtime=SIMULATED,
        runtime_version=MODEL_VERSION,
        delegate="none",
        threads=1,
        cpu_mask="any",
        clock="wall",
    )


def simulated_measurement(op: OpSpec, ms: float, made_at: str) -> Measurement:
    """Make the row of a simulated operator. `made_at` is RFC 3339, UTC."""
    sample = (max(1, round(ms * 1e6)),)
    return Measurement(
        subject=op.key,
        samples_ns=sample,
        wall_samples_ns=sample,
        inferences_per_sample=1,
        warmup_ns=0,
        init_ns=0,
        started_at=made_at,
        source=SIMULATED,
    )


def _op_ms(processor: Processor, op: OpSpec, int8_share: float) -> float:
    sizes = sizes_of(op)
    quantized = op.dtype in ("int8", "uint8", "dynamic_int8")
    macs = (processor.int8_macs if quantized else processor.float_macs) * processor.clock_ghz * 1e6  # a ms
    share = (_DEPTHWISE if sizes.group_channels == 1 else _DENSE) * (int8_share if quantized else 1.0)
    moved = (sizes.in_elements + sizes.out_elements) * sizes.element_bytes + sizes.weight_bytes
    bandwidth = processor.memory_gb_per_s * 1e6 * _BANDWIDTH_SHARE  # bytes a ms
    call = _CALL_CYCLES / (processor.clock_ghz * 1e6)
    return call + max(_padded_macs(sizes) / (macs * share), moved / bandwidth)


def _padded_macs(sizes: Sizes) -> int:
    channels = math.ceil(sizes.out_channels / _TILE) * _TILE
    return sizes.positions * channels * sizes.taps * sizes.group_channels
