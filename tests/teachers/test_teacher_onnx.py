"""Teachers in onnxruntime's hands: .onnx files of any layout and batch answer as what they were made of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_onnx import CLASSES, SIDE, Made, Write, check_is_a_teacher, columns
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from edgekd import teachers
from edgekd.data.dataset import DataSet
from edgekd.errors import DataError, MissingExtra
from edgekd.export.onnx import onnx_bytes
from edgekd.spaces.network import Network

pytestmark = pytest.mark.whole  # loads torch


@pytest.mark.slow  # torch's exporter takes seconds
def test_an_onnx_file_teaches_as_its_network(written: Write, data: DataSet, network: Network, images: Tensor) -> None:
    """Of edgekd's own layout, (N, H, W, C), any number of images at once."""
    teacher = teachers.load(f"onnx:{written('net.onnx', onnx_bytes(network))}", data)
    with torch.no_grad():
        torch.testing.assert_close(check_is_a_teacher(teacher, images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "made",
    [
        Made(),
        Made(("batch", "channels", "height", SIDE)),
        Made((1, 1, SIDE, SIDE)),
        Made((4, 1, SIDE, SIDE)),
        Made(("batch", SIDE, SIDE, 1), channels_last=True),
    ],
    ids=["free batch", "all free", "one by one", "by fours", "channels last"],
)
def test_a_files_own_layout_and_batch_are_kept(written: Write, data: DataSet, images: Tensor, made: Made) -> None:
    """Whichever it is, images come as (B, C, H, W) and any number of them is answered."""
    teacher = teachers.load(written("made.onnx", made.content()), data)
    torch.testing.assert_close(check_is_a_teacher(teacher, images), columns(images), rtol=1e-4, atol=1e-4)


def test_probabilities_become_logits(written: Write, data: DataSet, images: Tensor) -> None:
    """A file that ends in a softmax teaches as the one without: softened, too, and in its own order."""
    teacher = teachers.load(written("made.onnx", Made(softmax=True).content()), data)
    assert teacher.record["answers"] == "probabilities"
    logits = check_is_a_teacher(teacher, images)
    for temperature in (1.0, 4.0):
        softened = (logits / temperature).softmax(1)
        torch.testing.assert_close(softened, (columns(images) / temperature).softmax(1), rtol=1e-3, atol=1e-5)


def test_positive_logits_are_no_probabilities(written: Write, data: DataSet, images: Tensor) -> None:
    """They do not sum to 1, and stay as they are."""
    teacher = teachers.load(written("made.onnx", Made(bias=50.0).content()), data)
    assert teacher.record["answers"] == "logits"
    torch.testing.assert_close(teacher.module(images), columns(images) + 50, rtol=1e-4, atol=1e-4)


def test_a_larger_file_sees_larger_images(written: Write, data: DataSet, images: Tensor) -> None:
    """Images are resized to what the file takes, and the record says so."""
    teacher = teachers.load(written("made.onnx", Made(("batch", 1, 56, SIDE)).content()), data)
    assert teacher.record["input_size"] == "[56, 28]"
    logits = teacher.module(torch.full_like(images, 0.25))
    torch.testing.assert_close(logits, columns(torch.full_like(images, 0.25)), rtol=1e-4, atol=1e-4)


def test_a_file_of_any_size_sees_the_size_that_is_asked_for(written: Write, data: DataSet) -> None:
    """The data's own, unless another is asked for."""
    path = written("made.onnx", Made(("batch", 1, "height", SIDE)).content())
    assert teachers.load(path, data).record["input_size"] == "[28, 28]"
    assert teachers.load(f"{path},size=40/28", data).record["input_size"] == "[40, 28]"
    wide = written("wide.onnx", Made(("batch", 1, "height", "width")).content())
    with pytest.raises(
        DataError, match=r"wide\.onnx: it fails on images \[28, 28, 1\] \(.*; where another size helps, `,size=N`"
    ):
        teachers.load(f"{wide},size=28/30", data)  # it has weights for 28 columns


def test_a_file_that_sees_other_pixels_is_another_teacher(written: Write, data: DataSet) -> None:
    """Its answers are others, and its hash must be."""
    path = written("made.onnx", Made(("batch", 1, "height", SIDE)).content())
    sources = [path, f"{path},size=40/28", f"{path},mean=0,std=1"]
    assert len({teachers.load(source, data).sha256 for source in sources}) == 3
    assert teachers.load(path, data).sha256 == teachers.load(f"onnx:{path}", data).sha256


def test_a_file_sees_the_normalisation_that_is_asked_for(written: Write, data: DataSet, images: Tensor) -> None:
    """Pixels of 0 to 1, for example."""
    teacher = teachers.load(f"{written('made.onnx', Made().content())},mean=0,std=1", data)
    pixels = images * data.std[0] + data.mean[0]
    torch.testing.assert_close(teacher.module(images), columns(pixels), rtol=1e-4, atol=1e-4)


def test_weights_beside_a_file_are_read_and_count(tmp_path: Path, data: DataSet, images: Tensor) -> None:
    """They are part of the teacher's hash; without them it is refused."""
    path, beside = tmp_path / "made.onnx", tmp_path / "made.onnx.data"
    onnx.save_model(Made().model(), path, save_as_external_data=True, location=beside.name, size_threshold=0)
    teacher = teachers.load(str(path), data)
    torch.testing.assert_close(teacher.module(images), columns(images), rtol=1e-4, atol=1e-4)
    numbers = bytearray(beside.read_bytes())
    numbers[-1] ^= 1  # the sign or a digit of one weight
    beside.write_bytes(numbers)
    assert teachers.load(str(path), data).sha256 != teacher.sha256
    beside.unlink()
    with pytest.raises(DataError, match="not a readable ONNX file"):
        teachers.load(str(path), data)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Made(classes=9), "it knows 9 classes, the data embedded has 10"),
        (Made(("batch", 3, SIDE, SIDE)), "it takes images of 3 channels, the data embedded has 1"),
        (Made(("batch", SIDE, SIDE, 3), channels_last=True), "it takes images of 3 channels, the data embedded has 1"),
        (Made(("batch", 1, 1, 1, SIDE)), r"it takes \[\?, 1, 1, 1, 28\]; a teacher takes images"),
        (Made(kind=TensorProto.INT64), r"it takes image: tensor\(int64\); a teacher takes one tensor\(float\)"),
        (Made(inputs=2), r"it takes image: tensor\(float\), other: tensor\(float\); a teacher takes one"),
        (Made(bias=float("nan")), "its logits of the first training images are not finite"),
    ],
)
def test_a_file_for_something_else_is_refused(written: Write, data: DataSet, made: Made, message: str) -> None:
    """In one line that names the file and what differs."""
    path = written("made.onnx", made.content())
    with pytest.raises(DataError, match=message) as caught:
        teachers.load(path, data)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_that_a_file_does_not_take_is_refused(written: Write, data: DataSet) -> None:
    """The message says which it takes."""
    path = written("made.onnx", Made().content())
    with pytest.raises(DataError, match=r"it takes images \[\?, 1, 28, 28\] alone, not of size \[40, 40\]"):
        teachers.load(f"{path},size=40", data)


def test_weights_of_a_constant_may_lie_beside_a_file(tmp_path: Path, data: DataSet, images: Tensor) -> None:
    """Not only those that the graph lists."""
    model = Made().model()
    for tensor in list(model.graph.initializer):
        constant = helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, constant)
    del model.graph.initializer[:]
    path, beside = tmp_path / "made.onnx", tmp_path / "made.onnx.data"
    onnx.save_model(
        model, path, save_as_external_data=True, location=beside.name, size_threshold=100, convert_attribute=True
    )
    assert beside.stat().st_size >= 4 * SIDE * CLASSES
    first = teachers.load(str(path), data)
    torch.testing.assert_close(first.module(images), columns(images), rtol=1e-4, atol=1e-4)
    beside.write_bytes(bytes(len(beside.read_bytes())))
    assert teachers.load(str(path), data).sha256 != first.sha256


def test_a_file_works_with_the_threads_of_torch(
    written: Write, data: DataSet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many as there are when it is asked, on the processor alone, and opened anew only if that is another."""
    opened: list[tuple[int, list[str]]] = []
    real = onnxruntime.InferenceSession

    def session(content: bytes, options: onnxruntime.SessionOptions, **others: Any) -> Any:
        opened.append((options.intra_op_num_threads, others["providers"]))
        return real(content, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    teacher = teachers.load(written("made.onnx", Made().content()), data)
    for threads in (2, 1, 1):
        torch.set_num_threads(threads)
        teacher.module(images)
    assert opened == [(2, ["CPUExecutionProvider"]), (1, ["CPUExecutionProvider"])]


def changed(made: Made, *nodes: onnx.NodeProto, output: onnx.ValueInfoProto) -> bytes:
    """Add nodes behind a made file's logits."""
    model = made.model()
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(output)
    return bytes(model.SerializeToString())


def test_what_no_size_mends_is_told_otherwise(written: Write, data: DataSet) -> None:
    """A sequence instead of logits, and a batch that is fixed inside; neither is told to resize."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    sequence = helper.make_node("SequenceConstruct", ["logits"], ["several"])
    content = changed(Made(), sequence, output=helper.make_value_info("several", kind))
    with pytest.raises(DataError, match=r"several\.onnx: its first output is a list; a teacher gives a tensor"):
        teachers.load(written("several.onnx", content), data)

    shape = helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.array([1, CLASSES]), "one"))
    reshape = helper.make_node("Reshape", ["logits", "one"], ["row"])
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, None)
    content = changed(Made(), shape, reshape, output=row)
    with pytest.raises(DataError, match=r"single\.onnx: .*; it takes one image at a time, and not 4: make or export"):
        teachers.load(written("single.onnx", content), data)


@pytest.mark.parametrize("missing", ["onnxruntime", "onnx"])
def test_without_the_runtime_the_extra_is_named(
    written: Write, data: DataSet, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """And how to install it."""
    path = written("made.onnx", Made().content())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=rf"{missing} is not installed; .*edgekd\[onnx\]"):
        teachers.load(path, data)
