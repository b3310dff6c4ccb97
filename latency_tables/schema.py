"""The nouns of a latency table: OpSpec, TableKey, Measurement, Prediction. All are frozen values.

Times are integers in ns in files and in Measurement, floats in ms in everything derived. This module does not read or
write files (store.py) and does not predict (predictor.py).
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from dataclasses import dataclass
from typing import Any

from latency_tables.errors import OpSyntaxError

DTYPES = ("float32", "int8")
_ACTIVATIONS = ("none", "relu", "relu6")
_PADDINGS = ("same", "valid")
_MAX_DIMENSION = 1 << 24  # far above any real tensor; stops a damaged key from asking for terabytes


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An operator's input: its shape (batch first, channels last) and whether its value is part of the model."""

    shape: tuple[int, ...]
    constant: bool = False

    def __str__(self) -> str:
        return ("c" if self.constant else "") + "x".join(map(str, self.shape))


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One operator as the runtime sees it, fused activation included; weights and biases are implied by the kind.

    `key` and `parse` are inverse. Fields that a kind does not use keep their defaults and do not show in the key.
    """

    kind: str  # the TFLite builtin's name in lower case: conv_2d, depthwise_conv_2d, mean ...
    inputs: tuple[TensorSpec, ...]
    dtype: str
    out_channels: int = 0
    kernel: tuple[int, int] = (1, 1)  # height, width
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "same"
    groups: int = 1
    act: str = "none"

    @property
    def key(self) -> str:
        """Spell the operator as `kind;dtype;in=…;name=value…`, in a fixed order, without the defaults."""
        parts = [self.kind, self.dtype, "in=" + ",".join(map(str, self.inputs))]
        for name, value, default in _optional_fields(self):
            if value != default:
                parts.append(f"{name}={_spell(value)}")
        return ";".join(parts)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Give the weights' shape in TFLite's layout; an operator without weights has the shape (0,)."""
        in_channels = self.inputs[0].shape[-1]
        if self.kind == "conv_2d":
            return (self.out_channels, *self.kernel, in_channels // self.groups)
        if self.kind == "depthwise_conv_2d":
            return (1, *self.kernel, self.out_channels)
        if self.kind == "fully_connected":
            return (self.out_channels, math.prod(self.inputs[0].shape[1:]))
        return (0,)

    @property
    def weight_bytes(self) -> int:
        """Give the size of the weights in this dtype."""
        return math.prod(self.weight_shape) * (4 if self.dtype == "float32" else 1)

    @staticmethod
    def parse(key: str) -> OpSpec:
        """Read what `key` wrote.

        Raises:
            OpSyntaxError: the text is not a key in its one canonical form.

        """
        parts = key.split(";")
        if len(parts) < 3 or not re.fullmatch(r"[a-z][a-z0-9_]*", parts[0]) or not parts[2].startswith("in="):
            raise OpSyntaxError(key, "expected kind;dtype;in=shape[,shape];name=value…")
        fields = dict(_split_field(key, part) for part in parts[3:])
        inputs = tuple(_parse_tensor(key, text) for text in parts[2][3:].split(","))
        spec = OpSpec(kind=parts[0], inputs=inputs, dtype=parts[1], **_parse_fields(key, fields))
        if spec.dtype not in DTYPES:
            raise OpSyntaxError(key, f"dtype {spec.dtype!r} is not one of {', '.join(DTYPES)}")
        if spec.key != key:
            raise OpSyntaxError(key, f"not in canonical form, which would be {spec.key!r}")
        return spec


def _optional_fields(op: OpSpec) -> list[tuple[str, object, object]]:
    return [
        (field.name, getattr(op, field.name), field.default)
        for field in dataclasses.fields(op)
        if field.default is not dataclasses.MISSING
    ]


def _spell(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _split_field(key: str, part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals or not value:
        raise OpSyntaxError(key, f"{part!r} is not name=value")
    return name, value


def _parse_dims(key: str, text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]{0,7}(x[1-9][0-9]{0,7})*", text):
        raise OpSyntaxError(key, f"{text!r} is not a shape such as 1x28x28x8")
    dims = tuple(int(part) for part in text.split("x"))
    if max(dims) > _MAX_DIMENSION:
        raise OpSyntaxError(key, f"a dimension of {text!r} is above {_MAX_DIMENSION}")
    return dims


def _parse_tensor(key: str, text: str) -> TensorSpec:
    constant = text.startswith("c")
    return TensorSpec(_parse_dims(key, text[constant:]), constant)


def _parse_pair(key: str, text: str) -> tuple[int, int]:
    dims = _parse_dims(key, text)
    if len(dims) != 2:
        raise OpSyntaxError(key, f"{text!r} is not a pair such as 3x3")
    return dims[0], dims[1]


def _parse_fields(key: str, fields: dict[str, str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for name, text in fields.items():
        if name in ("kernel", "stride", "dilation"):
            parsed[name] = _parse_pair(key, text)
        elif name in ("out_channels", "groups"):
            parsed[name] = _parse_dims(key, text)[0]
        elif (name == "padding" and text in _PADDINGS) or (name == "act" and text in _ACTIVATIONS):
            parsed[name] = text
        else:
            raise OpSyntaxError(key, f"unknown field {name}={text}")
    return parsed


THROTTLED, CONTENDED = "throttled", "contended"  # flags of a measurement


@dataclass(frozen=True, slots=True)
class TableKey:
    """Everything that must be equal for two measurements to be comparable."""

    device: str
    build_fingerprint: str
    engine: str  # what ran the models there: "python", "native" or "benchmark_model"
    runtime: str
    runtime_version: str
    delegate: str
    threads: int
    cpu_mask: str  # hexadecimal, or "any"
    clock: str  # "thread_cpu" or "wall"

    def differences(self, other: TableKey) -> list[str]:
        """List the fields that differ, each as `name: mine / theirs`."""
        pairs = (
            (field.name, getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)
        )
        return [f"{name}: {mine!r} / {theirs!r}" for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one subject, an operator or a whole network. Each sample is the time of one inference in ns.

    A subject that was measured while the machine was slow is measured again; `attempt` counts from 1.
    """

    subject: str  # an OpSpec key, or "network:" + name
    samples_ns: tuple[int, ...]  # on the table's clock
    wall_samples_ns: tuple[int, ...]
    inferences_per_sample: int
    warmup_ns: int
    init_ns: int
    started_at: str  # RFC 3339, UTC
    temperatures_c: tuple[float, ...] = ()
    peak_rss_bytes: int = 0
    sentinel_ns: int = 0  # fastest run of a fixed model beside it: how fast the machine was; 0 is unknown
    attempt: int = 1
    source: str = "measured"  # measured | simulated | imported:<citation>
    flags: tuple[str, ...] = ()  # "contended": others took the CPU; "throttled": its clock was held down; "denormal"

    @property
    def disturbances(self) -> frozenset[str]:
        """Give the flags that speak against the samples; those may differ from what the subject takes by itself.

        Others who took the CPU are in times on the wall alone: a thread's own clock stands still meanwhile.
        """
        on_wall = self.samples_ns == self.wall_samples_ns
        return frozenset(self.flags) & ({THROTTLED, CONTENDED} if on_wall else {THROTTLED})

    @property
    def quiet_ms(self) -> float:
        """Give the fastest sample in ms: the time on an undisturbed machine, which tables and predictions speak of.

        What others do to shared caches, sibling threads and clocks only ever adds to a CPU time, and on a busy machine
        it adds to most samples, so their median says more about the neighbours than about the model. Every sample is
        itself a mean over several inferences, so a single lucky reading of the clock cannot decide.
        """
        return min(self.samples_ns) / 1e6

    @property
    def median_ms(self) -> float:
        """Give the median of one inference on the table's clock, in ms."""
        return statistics.median(self.samples_ns) / 1e6

    @property
    def wall_median_ms(self) -> float:
        """Give the median of one inference on the wall clock, in ms."""
        return statistics.median(self.wall_samples_ns) / 1e6


def merged(earlier: Measurement, later: Measurement) -> Measurement:
    """Join two attempts at one subject: all samples are kept, and the better sentinel counts.

    Samples of a disturbed attempt are dropped once there is one that was less so.

    Raises:
        ValueError: they are not successive attempts at the same subject.

    """
    if earlier.subject != later.subject or later.attempt != earlier.attempt + 1:
        raise ValueError(
            f"attempt {later.attempt} at {later.subject} does not follow attempt {earlier.attempt} at {earlier.subject}"
        )
    if later.disturbances < earlier.disturbances:
        return later
    if earlier.disturbances < later.disturbances:
        return dataclasses.replace(earlier, attempt=later.attempt)
    known = [m.sentinel_ns for m in (earlier, later) if m.sentinel_ns]
    return dataclasses.replace(
        later,
        samples_ns=earlier.samples_ns + later.samples_ns,
        wall_samples_ns=earlier.wall_samples_ns + later.wall_samples_ns,
        sentinel_ns=min(known, default=0),
        flags=tuple(sorted({*earlier.flags, *later.flags})),
    )


@dataclass(frozen=True, slots=True)
class Network:
    """A whole network that calibrates a table: its operators in execution order and what it measured."""

    name: str
    dtype: str
    op_keys: tuple[str, ...]
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class Part:
    """One operator's share of a prediction."""

    op: OpSpec
    ms: float
    how: str  # "table"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted latency with its 90 % interval and its parts."""

    total_ms: float
    low_ms: float
    high_ms: float
    parts: tuple[Part, ...]
