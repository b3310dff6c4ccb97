"""Operators as the runtime's own profiler tells them inside whole networks, for `study_tables.py`.

Predicts nothing; the mixes that hold these times are study_tables.py's.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_agents.questions import Node
from edgekd.bench import Bench, Model
from latency_tables.op_spec import OpSpec

NODE_RUNS = 50  # times come in whole microseconds, which a mean over so many makes finer
_KERNELS = ("xnnpack", "builtin")  # the delegate's, and the runtime's own for what that does not take
LEAST_READ = 0.5  # share of the networks and operators that must be known in context for a mix to speak of it


def nodes_of(bench: Bench, model: Model) -> list[Node]:
    """Profile a network inside the runtime; what holds its nodes together, or is none of its file's, is left out."""
    return [node for node in bench.nodes(model, NODE_RUNS) if node.kind in _KERNELS and not _is_added(node)]


def _is_added(node: Node) -> bool:
    """Tell whether the delegate put a node there itself: before a fully connected operator, to flatten its input."""
    return node.name.startswith("Static Reshape")


@dataclass(frozen=True, slots=True)
class Context:
    """What the runtime's profiler told of operators inside the calibration networks.

    A network can be read where it tells as many nodes as there are operators, which then are the same in order.
    """

    op_ms: Mapping[str, float]  # by operator key
    networks_read: int
    networks: int
    operators: int  # distinct ones in all these networks
    seconds: float  # of device time

    @staticmethod
    def of(networks: Sequence[tuple[Sequence[OpSpec], Sequence[Node]]]) -> Context:
        """Read networks' operators and nodes."""
        found: dict[str, list[float]] = defaultdict(list)
        readable = [(ops, nodes) for ops, nodes in networks if len(ops) == len(nodes)]
        for ops, nodes in readable:
            for op, node in zip(ops, nodes, strict=True):
                found[op.key].append(node.mean_ns / 1e6)
        op_ms = {key: statistics.median(times) for key, times in found.items()}
        distinct = {op for ops, _ in networks for op in ops}
        total_ns = sum(NODE_RUNS * node.mean_ns for _, nodes in networks for node in nodes)
        return Context(op_ms, len(readable), len(networks), len(distinct), total_ns / 1e9)

    @property
    def is_enough(self) -> bool:
        """Tell whether a mix made of it says something about operators in context, and not about isolated rows."""
        pairs = ((self.networks_read, self.networks), (len(self.op_ms), self.operators))
        return all(read and read >= LEAST_READ * count for read, count in pairs)

    @property
    def counts(self) -> dict[str, int]:
        """Say how much was read, of how much."""
        names = ("networks_read", "networks", "operators_read", "operators")
        return dict(zip(names, (self.networks_read, self.networks, len(self.op_ms), self.operators), strict=True))

    def __str__(self) -> str:
        return f"{self.networks_read} of {self.networks} networks, {len(self.op_ms)} of {self.operators} operators"
