"""Which operators of an .onnx graph are one row of a latency table: those that onnxruntime may fuse.

A group is a first operator and what follows it: the activation after a convolution, x · sigmoid(x), a GELU or a layer
norm of single steps, the residual sum behind a convolution. What is computed inside is read inside alone, so that the
group can be measured by itself; whatever the runtime then fuses, or does not, is in the time.
It spells nothing. Read next: `onnx_reader.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from edgekd.graph.onnx_file import OnnxGraph, OnnxNode

_LONGEST = 10  # a layer norm of single steps has nine
_ACTIVATIONS = {"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "Mish"}
_STEPS = {"BatchNormalization", "Add", "Mul", "Sub", "Div", "Pow", "Sqrt", "Erf", "Softplus"}
_ELEMENTWISE = frozenset(_ACTIVATIONS | _STEPS)
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_AFTER_PAD = frozenset({"Conv", "MaxPool", "AveragePool"})
_FOLLOWERS = {  # what onnxruntime may fuse into each kind of first operator
    **dict.fromkeys(_WEIGHTED | _ELEMENTWISE, _ELEMENTWISE),
    "ReduceMean": _ELEMENTWISE | {"ReduceMean"},  # a layer norm of single steps
    "Pad": _AFTER_PAD | _ELEMENTWISE,
}
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class Group:
    """Operators that may be one row, in execution order; `lengths` are those at which it can be cut, longest first."""

    nodes: tuple[OnnxNode, ...]
    positions: tuple[int, ...]
    lengths: tuple[int, ...]


class Grouping:
    """Gives the groups of a graph one after the other; what a caller does not take of a group begins others."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._taken: set[int] = set()
        self._maker = {name: at for at, node in enumerate(graph.nodes) for name in node.outputs}
        self._readers: dict[str, list[int]] = defaultdict(list)
        for at, node in enumerate(graph.nodes):
            for name in dict.fromkeys(node.inputs):
                self._readers[name].append(at)

    def groups(self) -> Iterator[Group]:
        """Give each group that begins with an operator that no group before has; `take` says how much of it counts."""
        for at, node in enumerate(self._graph.nodes):
            if at not in self._taken and not self._is_part_of_readers(node):
                yield self._from(at)

    def take(self, group: Group, length: int) -> None:
        """Count the first operators of a group as done."""
        self._taken.update(group.positions[:length])

    def dequantized(self, name: str) -> OnnxNode | None:
        """Give the DequantizeLinear that makes an operand, which is part of whatever reads it."""
        if name in self._graph.dequantized:
            return self._graph.dequantized[name]
        at = self._maker.get(name)
        node = None if at is None else self._graph.nodes[at]
        return node if node is not None and self._is_part_of_readers(node) else None

    def _is_part_of_readers(self, node: OnnxNode) -> bool:
        """Tell whether an operator is measured with those that read it: onnxruntime gives each its own copy."""
        if node.op_type != _DEQUANTIZE or "block_size" in node.attributes or node.outputs[0] in self._graph.outputs:
            return False
        tensors = self._graph.tensors
        return all(tensors[name].constant for name in node.inputs[1:] if name)

    def _from(self, first: int) -> Group:
        positions, lengths = [first], [1]
        head = self._graph.nodes[first]
        while len(positions) < _LONGEST and len(head.outputs) == 1:
            following = self._next(positions)
            if following is None or not self._may_follow(following, positions):
                break
            positions.append(following)
            if self._is_closed(positions):
                lengths.append(len(positions))
            if self._graph.nodes[following].op_type == _QUANTIZE:
                break
        longest = lengths[-1]
        nodes = tuple(self._graph.nodes[at] for at in positions[:longest])
        return Group(nodes, tuple(positions[:longest]), tuple(reversed(lengths)))

    def _next(self, positions: list[int]) -> int | None:
        readers = [at for name in self._results(positions) for at in self._readers[name] if at not in positions]
        return min(readers, default=None)

    def _results(self, positions: list[int]) -> list[str]:
        return [name for at in positions for name in self._graph.nodes[at].outputs]

    def _is_closed(self, positions: list[int]) -> bool:
        """Tell whether only the last operator's result is read outside."""
        inner = self._results(positions[:-1])
        return all(set(self._readers[n]) <= set(positions) and n not in self._graph.outputs for n in inner)

    def _may_follow(self, at: int, positions: list[int]) -> bool:
        node, head = self._graph.nodes[at], self._graph.nodes[positions[0]]
        if at in self._taken or len(node.outputs) != 1:
            return False
        if node.op_type == _QUANTIZE:
            allowed = head.op_type not in (_QUANTIZE, _DEQUANTIZE)
        else:
            behind_pad = head.op_type == "Pad" and (node.op_type in _AFTER_PAD) == (len(positions) == 1)
            allowed = node.op_type in _FOLLOWERS.get(head.op_type, ()) and (head.op_type != "Pad" or behind_pad)
        return allowed and self._takes_nothing_new(node, positions)

    def _takes_nothing_new(self, node: OnnxNode, positions: list[int]) -> bool:
        """Tell whether an operator reads only constants and what the group has, or is a residual sum behind it."""
        graph, inside = self._graph, set(self._results(positions))
        if any(self.dequantized(name) for name in node.inputs):
            return False
        for at in positions:
            inside.update(graph.nodes[at].inputs)
        new = [n for n in node.inputs if n and n not in inside and not graph.tensors[n].constant]
        if not new:
            return True
        first = positions[0]
        early = self._maker.get(new[0], -1) < first
        behind = graph.nodes[first].op_type == "Conv" and node.op_type == "Add" and len(new) == 1
        return behind and early and graph.tensors[new[0]].shape == graph.tensors[node.outputs[0]].shape
