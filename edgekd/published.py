"""Networks whose latency on phones is published, as operators; and the figures, each with its source.

A simulation is judged by them. They are written down as the papers' tables say; no file is read or written here.
Sources of the networks: MobileNetV1, arXiv 1704.04861, table 1; MobileNetV2, arXiv 1801.04381, table 2; MobileNetV3,
arXiv 1905.02244, tables 1 and 2. All at 224x224 with 1,000 classes. Read next: `simulate.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from latency_tables.features import output_shapes
from latency_tables.op_spec import OpSpec, TensorSpec

_XNNPACK = "README of github.com/google/XNNPACK, single-threaded, measured on 27 March 2020"
_SLIM = "README of github.com/tensorflow/models, research/slim/nets/mobilenet, TFLite on one large core"


@dataclass(frozen=True, slots=True)
class Figure:
    """One published latency."""

    network: str
    dtype: str
    device: str
    ms: float
    source: str


def _figures(dtype: str, source: str, devices: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> list[Figure]:
    return [
        Figure(network, dtype, device, ms, source)
        for network, times in rows.items()
        for device, ms in zip(devices, times, strict=True)
    ]


FIGURES: tuple[Figure, ...] = (
    *_figures(
        "float32",
        _XNNPACK,
        ("pixel", "pixel2", "pixel3a"),
        {
            "mobilenet-v1": (82, 86, 88),
            "mobilenet-v2": (49, 53, 55),
            "mobilenet-v3-large": (39, 42, 44),
            "mobilenet-v3-small": (12, 14, 14),
        },
    ),
    *_figures(
        "int8",
        _SLIM,
        ("pixel", "pixel2", "pixel3"),
        {
            "mobilenet-v3-large": (44, 42.5, 32),
            "mobilenet-v3-small": (15.5, 15, 10.7),
            "mobilenet-v3-large-minimalistic": (37, 35, 27),
        },
    ),
)


def operators(network: str, dtype: str) -> list[OpSpec]:
    """List a published network's operators in a dtype."""
    chain = _Chain()
    _NETWORKS[network](chain)
    return [replace(op, dtype=dtype) for op in chain.ops]


@dataclass
class _Chain:
    """Operators one after the other; every one reads what the one before gives."""

    shape: tuple[int, ...] = (1, 224, 224, 3)
    ops: list[OpSpec] = field(default_factory=list)

    def add(self, op: OpSpec) -> None:
        self.ops.append(op)
        self.shape = output_shapes(op)[0]

    def conv(self, channels: int, kernel: int = 1, stride: int = 1, act: str = "none") -> None:
        tensor = TensorSpec(self.shape)
        self.add(self._activated("conv_2d", tensor, channels, kernel, stride, act))
        self._swish(act)

    def depthwise(self, kernel: int, stride: int, act: str) -> None:
        tensor = TensorSpec(self.shape)
        self.add(self._activated("depthwise_conv_2d", tensor, self.shape[3], kernel, stride, act))
        self._swish(act)

    def simple(self, kind: str, *others: TensorSpec, act: str = "none") -> None:
        self.add(OpSpec(kind, (TensorSpec(self.shape), *others), "float32", act=act))

    def classify(self) -> None:
        self.add(OpSpec("fully_connected", (TensorSpec(self.shape),), "float32", 1000))

    @staticmethod
    def _activated(kind: str, tensor: TensorSpec, channels: int, kernel: int, stride: int, act: str) -> OpSpec:
        fused = "none" if act == "hard_swish" else act
        return OpSpec(kind, (tensor,), "float32", channels, (kernel, kernel), (stride, stride), act=fused)

    def _swish(self, act: str) -> None:
        if act == "hard_swish":
            self.simple("hard_swish")


def _v1(chain: _Chain) -> None:
    chain.conv(32, 3, 2, "relu6")
    widths = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for channels, stride in widths:
        chain.depthwise(3, stride, "relu6")
        chain.conv(channels, act="relu6")
    chain.simple("mean")
    chain.classify()


def _v2(chain: _Chain) -> None:
    chain.conv(32, 3, 2, "relu6")
    # expansion, channels, repeats, first stride
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, channels, repeats, stride in stages:
        for repeat in range(repeats):
            _bottleneck(chain, expansion * chain.shape[3], channels, 3, stride if repeat == 0 else 1, "relu6")
    chain.conv(1280, act="relu6")
    chain.simple("mean")
    chain.classify()


# MobileNetV3: kernel, expanded channels, channels, squeeze and excitation, activation, stride
_Bottleneck = tuple[int, int, int, bool, str, int]
_RE, _HS = "relu", "hard_swish"
_LARGE: tuple[_Bottleneck, ...] = (
    (3, 16, 16, False, _RE, 1),
    (3, 64, 24, False, _RE, 2),
    (3, 72, 24, False, _RE, 1),
    (5, 72, 40, True, _RE, 2),
    (5, 120, 40, True, _RE, 1),
    (5, 120, 40, True, _RE, 1),
    (3, 240, 80, False, _HS, 2),
    (3, 200, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 480, 112, True, _HS, 1),
    (3, 672, 112, True, _HS, 1),
    (5, 672, 160, True, _HS, 2),
    (5, 960, 160, True, _HS, 1),
    (5, 960, 160, True, _HS, 1),
)
_SMALL: tuple[_Bottleneck, ...] = (
    (3, 16, 16, True, _RE, 2),
    (3, 72, 24, False, _RE, 2),
    (3, 88, 24, False, _RE, 1),
    (5, 96, 40, True, _HS, 2),
    (5, 240, 40, True, _HS, 1),
    (5, 240, 40, True, _HS, 1),
    (5, 120, 48, True, _HS, 1),
    (5, 144, 48, True, _HS, 1),
    (5, 288, 96, True, _HS, 2),
    (5, 576, 96, True, _HS, 1),
    (5, 576, 96, True, _HS, 1),
)
# Without squeeze and excitation, hard swish and 5x5 kernels, as the README above says of the minimalistic ones.
_MINIMALISTIC = tuple((3, wide, narrow, False, _RE, stride) for _, wide, narrow, _, _, stride in _LARGE)


def _v3(blocks: tuple[_Bottleneck, ...], act: str, head: int) -> Callable[[_Chain], None]:
    def build(chain: _Chain) -> None:
        chain.conv(16, 3, 2, act)
        for kernel, wide, narrow, squeeze, block_act, stride in blocks:
            _bottleneck(chain, wide, narrow, kernel, stride, block_act, squeeze)
        chain.conv(blocks[-1][1], act=act)
        chain.simple("mean")
        chain.conv(head, act=act)
        chain.classify()

    return build


def _bottleneck(
    chain: _Chain, wide: int, narrow: int, kernel: int, stride: int, act: str, squeeze: bool = False
) -> None:
    start = chain.shape
    if wide != start[3]:
        chain.conv(wide, act=act)
    chain.depthwise(kernel, stride, act)
    if squeeze:
        _squeeze_and_excite(chain)
    chain.conv(narrow)
    if chain.shape == start:
        chain.simple("add", TensorSpec(start))


def _squeeze_and_excite(chain: _Chain) -> None:
    """Add the gate: mean, two products, and a hard sigmoid out of ADD with RELU6 and MUL, as TFLite has it."""
    features = chain.shape
    chain.simple("mean")
    chain.conv(max(8, (features[3] // 4 + 4) // 8 * 8), act="relu")
    chain.conv(features[3])
    number = TensorSpec((), constant=True)
    chain.simple("add", number, act="relu6")
    chain.simple("mul", number)
    chain.simple("mul", TensorSpec(features))


_NETWORKS: dict[str, Callable[[_Chain], None]] = {
    "mobilenet-v1": _v1,
    "mobilenet-v2": _v2,
    "mobilenet-v3-large": _v3(_LARGE, _HS, 1280),
    "mobilenet-v3-small": _v3(_SMALL, _HS, 1024),
    "mobilenet-v3-large-minimalistic": _v3(_MINIMALISTIC, _RE, 1280),
}
