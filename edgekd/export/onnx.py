"""Writes the student as one .onnx file: same input as the .tflite files, image (N, H, W, C) float32, logits out.

Batch normalisation is folded first. What torch's exporter writes about the machine (paths of installed packages in
metadata) is stripped, so the file is the same wherever it is made.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import EdgekdError, MissingExtra
from edgekd.spaces.network import Network, folded_network

OPSET = 18  # what onnxruntime releases of the last years read


class _ChannelsLast(nn.Module):
    """Takes (N, H, W, C), as the data export and the .tflite files do."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.permute(0, 3, 1, 2))
        return logits


def onnx_bytes(network: Network) -> bytes:
    """Export a trained network; the batch is free.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.

    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise MissingExtra("onnx", "onnx") from error
    module = _ChannelsLast(folded_network(network)).eval()
    example = torch.zeros(2, *network.graph.input_shape[1:])  # not 1: the exporter would fix the batch to it
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # the exporter warns of its own dependencies' deprecations
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise EdgekdError(
            "torch's exporter gave no ONNX program; report this with your versions of torch and onnxscript"
        )
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _strip(model: Any) -> None:
    """Remove everything that describes the exporting machine: it may hold paths, and it is nobody's business."""
    for item in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.initializer,
        *model.graph.input,
        *model.graph.output,
        *model.functions,
    ):
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
        if hasattr(item, "doc_string"):
            item.doc_string = ""
