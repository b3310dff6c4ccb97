"""Small .onnx files for tests, made node by node, and what every teacher in a runtime's hands must be."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from edgekd import teachers

CLASSES, SIDE = 10, 28  # of the embedded images

Write = Callable[[str, bytes], str]  # writes a file of a name; gives its path


@dataclasses.dataclass(frozen=True)
class Made:
    """An .onnx file to make: the mean of every column of pixels, times random weights."""

    shape: tuple[object, ...] = ("batch", 1, SIDE, SIDE)
    channels_last: bool = False
    classes: int = CLASSES
    softmax: bool = False
    bias: float = 0.0
    kind: int = TensorProto.FLOAT
    inputs: int = 1

    def model(self) -> onnx.ModelProto:
        axes = (1, 3) if self.channels_last else (1, 2)
        weights = np.random.default_rng(7).normal(size=(SIDE, self.classes)).astype(np.float32)
        constants = {"axes": np.array(axes), "weights": weights, "bias": np.full(self.classes, self.bias, np.float32)}
        nodes = [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels", "axes"], ["columns"], keepdims=0),
            helper.make_node("MatMul", ["columns", "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
            *([helper.make_node("Softmax", ["logits"], ["shares"], axis=1)] if self.softmax else []),
        ]
        names = ["image", "other"][: self.inputs]
        graph = helper.make_graph(
            nodes,
            "made",
            [helper.make_tensor_value_info(name, self.kind, self.shape) for name in names],
            [helper.make_tensor_value_info("shares" if self.softmax else "logits", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def content(self) -> bytes:
        return bytes(self.model().SerializeToString())


def columns(images: Tensor) -> Tensor:
    """Compute what a made file does, as far as the weights."""
    weights = torch.from_numpy(np.random.default_rng(7).normal(size=(SIDE, CLASSES)).astype(np.float32))
    return images.mean((1, 2)) @ weights


def check_is_a_teacher(teacher: teachers.Teacher, images: Tensor) -> Tensor:
    """See that it is frozen and gives logits alone, the same for single images, and from a copy; give its logits."""
    assert teacher.gives == teachers.LOGITS
    assert not any(module.training for module in teacher.module.modules())
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    logits: Tensor = teacher.module(images)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    singly = torch.cat([teacher.module(image[None]) for image in images])
    torch.testing.assert_close(singly, logits, rtol=1e-5, atol=1e-5)
    copy = pickle.loads(pickle.dumps(teacher.module))  # noqa: S301 - what this test has written itself
    assert torch.equal(copy(images), logits)
    return logits
