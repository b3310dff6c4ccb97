"""A graph as a trainable torch module, and its trained weights folded for export.

Every node is a submodule under its dotted name, so features can be tapped by module path with hooks. Tensors are
(B, C, H, W) inside torch; padding is TFLite's SAME, asymmetric where stride and size ask for it, so that what is
trained is what ships. Does not train (distill/) and does not know what an architecture is (layers.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.graph.ir import INPUT, Graph, LayerWeights, Node, Parameters

_NORM_EPSILON = 1e-3  # MnasNet's, larger than torch's default: the fold divides by the deviation
_NORM_MOMENTUM = 0.2  # statistics forget their start within 30 steps, which is all that a proxy training has


class Network(nn.Module):
    """Runs a graph node by node. `forward` takes (B, C, H, W) float32 and gives logits (B, classes)."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for node in graph.nodes:
            _attach(self, node.name, _MODULES[node.op.kind](node))
        self._last_use = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
        self._plan = [(node, self.get_submodule(node.name)) for node in graph.nodes]

    def forward(self, image: Tensor) -> Tensor:
        """Run the graph, dropping each value after its last use."""
        values = {INPUT: image}
        for i, (node, module) in enumerate(self._plan):
            values[node.name] = module(*(values[name] for name in node.inputs))
            for name in node.inputs:
                if self._last_use[name] == i:
                    values.pop(name, None)
        return values[self.graph.nodes[-1].name]


def folded_parameters(network: Network) -> Parameters:
    """Fold batch normalisation into the weights and give them in TFLite's layout."""
    modules = ((node.name, network.get_submodule(node.name)) for node in network.graph.nodes)
    return {name: module.folded() for name, module in modules if isinstance(module, _Conv | _Classifier)}


def folded_network(network: Network) -> Network:
    """Give an equal network in eval mode whose norms are folded into its weights."""
    graph = replace(network.graph, nodes=tuple(replace(node, norm=False) for node in network.graph.nodes))
    folded = Network(graph)
    for name, layer in folded_parameters(network).items():
        module = folded.get_submodule(name)
        assert isinstance(module, _Conv | _Classifier)  # noqa: S101 - the same graph has the same modules
        module.load_folded(layer)
    return folded.eval()


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, leaf = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(leaf, module)


class _Conv(nn.Module):
    """A convolution (or depthwise one) with SAME padding, optional batch norm, and its fused activation."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        op = node.op
        in_channels = op.inputs[0].shape[3]
        self.depthwise = op.kind == "depthwise_conv_2d"
        self.pads, symmetric = _same_padding(op.inputs[0].shape[1:3], op.kernel, op.stride)
        self.conv = nn.Conv2d(
            in_channels,
            op.out_channels,
            op.kernel,
            op.stride,
            padding=symmetric,
            groups=in_channels if self.depthwise else op.groups,
            bias=not node.norm,
        )
        self.norm = nn.BatchNorm2d(op.out_channels, _NORM_EPSILON, _NORM_MOMENTUM) if node.norm else None
        self.act = _ACTIVATIONS[op.act]
        _initialise(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        if self.pads:
            x = functional.pad(x, self.pads)
        x = self.conv(x)  # (B, C, H, W)
        if self.norm is not None:
            x = self.norm(x)
        return self.act(x)

    def folded(self) -> LayerWeights:
        weight, bias = self.conv.weight.detach(), self.conv.bias
        if isinstance(self.norm, nn.BatchNorm2d):
            gain, bias = _gain_and_shift(self.norm)
            weight = weight * gain.view(-1, 1, 1, 1)
        assert bias is not None  # noqa: S101 - a conv has a norm or a bias, see __init__
        layout = (1, 2, 3, 0) if self.depthwise else (0, 2, 3, 1)  # (out, in, h, w) → TFLite's
        return LayerWeights(weight.permute(layout).contiguous().numpy(), bias.detach().numpy())

    def load_folded(self, layer: LayerWeights) -> None:
        layout = (3, 0, 1, 2) if self.depthwise else (0, 3, 1, 2)
        weight = torch.from_numpy(layer.weight).permute(layout)
        self.conv.load_state_dict({"weight": weight, "bias": torch.from_numpy(layer.bias)})


class _Classifier(nn.Module):
    """A fully connected layer over the flattened input."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(node.op.inputs[0].shape[1:]), node.op.out_channels)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))  # (B, classes)
        return logits

    def folded(self) -> LayerWeights:
        return LayerWeights(self.linear.weight.detach().numpy(), self.linear.bias.detach().numpy())

    def load_folded(self, layer: LayerWeights) -> None:
        tensors = {"weight": torch.from_numpy(layer.weight), "bias": torch.from_numpy(layer.bias)}
        self.linear.load_state_dict(tensors)


class _AveragePool(nn.Module):
    """Average pooling with SAME padding; the padding does not count, as in TFLite."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        op = node.op
        self.kernel, self.stride = op.kernel, op.stride
        total = _same_total(op.inputs[0].shape[1:3], op.kernel, op.stride)
        if any(t % 2 and s == 1 for t, s in zip(total, op.stride, strict=True)):
            raise ValueError(
                f"average pooling of kernel {op.kernel} without a stride has no middle; take an odd kernel"
            )
        # where SAME pads one more behind than before, ceil_mode adds exactly the windows there; elsewhere it adds none,
        # and torch counts only real pixels
        self.padding, self.ceil_mode = (total[0] // 2, total[1] // 2), any(t % 2 for t in total)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(
            x, self.kernel, self.stride, self.padding, ceil_mode=self.ceil_mode, count_include_pad=False
        )


class _Plain(nn.Module):
    """An operator without parameters."""

    def __init__(self, node: Node) -> None:  # noqa: ARG002 - every module is made from its node
        super().__init__()


class _Mean(_Plain):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)


class _Add(nn.Module):
    """The sum of two tensors, and the activation fused into it."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.act = _ACTIVATIONS[node.op.act]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.act(x + y)


class _Mul(_Plain):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class _Logistic(_Plain):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


_MODULES: dict[str, Callable[[Node], nn.Module]] = {
    "conv_2d": _Conv,
    "depthwise_conv_2d": _Conv,
    "fully_connected": _Classifier,
    "average_pool_2d": _AveragePool,
    "mean": _Mean,
    "add": _Add,
    "mul": _Mul,
    "logistic": _Logistic,
}

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
}


def _gain_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Give batch normalisation in eval mode as x · gain + shift, each (C,)."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # noqa: S101 - they are tracked by default
    assert variance is not None  # noqa: S101
    gain = norm.weight.detach() / torch.sqrt(variance + norm.eps)
    return gain, norm.bias.detach() - mean * gain


def _same_padding(
    size: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int]
) -> tuple[tuple[int, int, int, int] | None, tuple[int, int]]:
    """Give TFLite's SAME padding as (left, right, top, bottom) for functional.pad, or where it is symmetric as
    conv's own cheaper padding (vertical, horizontal).
    """
    total = _same_total(size, kernel, stride)
    if all(t % 2 == 0 for t in total):
        return None, (total[0] // 2, total[1] // 2)
    before = [t // 2 for t in total]
    return (before[1], total[1] - before[1], before[0], total[0] - before[0]), (0, 0)


def _same_total(size: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int]) -> list[int]:
    """Give how many pixels SAME adds in height and width, before and behind together."""
    return [max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, stride, strict=True)]


def _initialise(conv: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
