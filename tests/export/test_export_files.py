"""Finished files: true ranges, equal bytes, nothing of the machine, and logits that agree with torch."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from synthetic import NARROW, random_archs, random_network, tiny_space

from edgekd.data.dataset import DataSet, Split
from edgekd.data.loading import load_data
from edgekd.distill.train import predict
from edgekd.errors import DataError
from edgekd.export import bundle as bundle_module
from edgekd.export.bundle import build, judge
from edgekd.export.onnx import onnx_bytes
from edgekd.export.quantize import calibrate_ranges
from edgekd.export.runtimes import run_onnx, run_tflite, share_right
from edgekd.files import make_folder
from edgekd.graph.ir import INPUT, FloatArray
from edgekd.graph.tflite_writer import write_tflite
from edgekd.spaces.layers import graph_of
from edgekd.spaces.network import Network, folded_parameters

pytestmark = pytest.mark.whole  # loads torch

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def threads_restored() -> Iterator[None]:
    """Use one thread here, and give torch its own count back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> Network:
    """A tiny network of convolutions, squeezes, pools and sums, with random weights."""
    space = tiny_space()
    return random_network(graph_of(space, random_archs(space, 1, seed=4)[0]), seed=4)


@pytest.fixture(scope="module")
def images() -> FloatArray:
    """Images of the tiny space's form, (N, H, W, C); more than one calibration batch."""
    return np.random.default_rng(0).normal(size=(60, 15, 15, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def data(images: FloatArray) -> DataSet:
    """The same kind of images as a data set whose preprocessing is not trivial."""
    pixels = np.random.default_rng(1).integers(0, 256, images.shape, np.uint8)
    split = Split(pixels, np.arange(60) % 3)
    return DataSet("made up", "0" * 64, 3, (0.3,), (0.4,), split, split, split)


@pytest.fixture(scope="module")
def onnx_file(network: Network) -> bytes:
    """The tiny network's .onnx file."""
    return onnx_bytes(network)


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the .onnx file of a bundle empty: torch's exporter needs seconds."""
    monkeypatch.setattr(bundle_module, "onnx_bytes", lambda network: b"")


def torch_logits(network: Network, images: FloatArray) -> FloatArray:
    """Run torch's own network."""
    logits: FloatArray = predict(network, torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    return logits


def test_ranges_are_the_true_minima_and_maxima(network: Network, images: FloatArray) -> None:
    """Every tensor's range over all images, the last, incomplete batch included, is what torch sees at that node."""
    found = calibrate_ranges(write_tflite(network.graph, folded_parameters(network)), network.graph, images)
    seen: dict[str, torch.Tensor] = {}
    for node in network.graph.nodes:
        network.get_submodule(node.name).register_forward_hook(
            lambda module, inputs, output, name=node.name: seen.__setitem__(name, output)
        )
    predict(network, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert set(found) == {INPUT, *seen}
    assert found[INPUT] == (images.min(), images.max())
    for name, values in seen.items():
        assert found[name] == pytest.approx((float(values.min()), float(values.max())), rel=1e-4, abs=1e-5), name


def test_a_single_extreme_image_is_in_the_ranges(network: Network, images: FloatArray) -> None:
    """Nothing is averaged or cut off: one image of sixty that is ten times as bright decides the input's range."""
    extreme = images.copy()
    extreme[57] *= 10
    found = calibrate_ranges(write_tflite(network.graph, folded_parameters(network)), network.graph, extreme)
    assert found[INPUT] == (extreme[57].min(), extreme[57].max())


def test_quantisation_needs_images_and_finite_tensors(network: Network, images: FloatArray) -> None:
    """No image, or one that makes a tensor infinite, is refused and named."""
    float_file = write_tflite(network.graph, folded_parameters(network))
    with pytest.raises(DataError, match="at least one calibration image"):
        calibrate_ranges(float_file, network.graph, images[:0])
    spoilt = images.copy()
    spoilt[3, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="tensor input of the student is not finite"):
        calibrate_ranges(float_file, network.graph, spoilt)


@pytest.mark.slow
def test_the_onnx_file_says_nothing_of_the_machine(onnx_file: bytes) -> None:
    """No path in its bytes, no metadata and no documentation strings anywhere in it, inner graphs included."""
    for place in (REPOSITORY, Path(sys.prefix), Path(torch.__file__).parent, Path.home(), Path(tempfile.gettempdir())):
        assert str(place).encode() not in onnx_file
    for text in (b"site-packages", b".py", b"torch.onnx"):
        assert text not in onnx_file
    model = onnx.load_from_string(onnx_file)
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        assert not list(getattr(holder, "metadata_props", ()))
        assert not holder.doc_string
    assert not any("/" in node.name for node in model.graph.node)
    assert not model.functions


@pytest.mark.slow
def test_the_onnx_file_takes_images_channels_last_in_any_number(
    network: Network, onnx_file: bytes, images: FloatArray
) -> None:
    """Its input is image (batch, 15, 15, 1) and its output logits (batch, classes), and batches of 1, 7 and 60 run."""
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(float)", [15, 15, 1])
    assert (logits.name, logits.shape[1:]) == ("logits", [3])
    assert isinstance(image.shape[0], str)
    for count in (1, 7, 60):
        found = session.run(None, {"image": images[:count]})[0]
        assert np.abs(found - torch_logits(network, images[:count])).max() < 1e-4


@pytest.mark.slow
def test_exporting_changes_and_says_nothing(
    network: Network, onnx_file: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Twice, the file is equal byte for byte; weights, norms and mode are untouched; torch's exporter is silent."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert onnx_bytes(network) == onnx_file
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not network.training
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.slow
def test_every_file_of_a_bundle_gives_torchs_logits(network: Network, data: DataSet, tmp_path: Path) -> None:
    """float32 and onnx to 1e-4; int8 within the coarseness of eight bits, and its verdicts are nearly all the same."""
    bundle = build(network, data, calibration_images=60)
    make_folder(tmp_path / "artifacts")
    (tmp_path / "artifacts" / "student.onnx").write_bytes(bundle.contents["onnx"])
    judged = judge(bundle, tmp_path / "artifacts")
    reference = torch_logits(network, bundle.images)
    assert set(judged["parity"]) == {"float32", "int8", "onnx"}
    assert judged["parity"]["float32"] < 1e-4
    assert judged["parity"]["onnx"] < 1e-4
    assert 0 < judged["parity"]["int8"] < 0.2 * float(np.ptp(reference))
    assert judged["accuracy"]["float32"] == judged["accuracy"]["onnx"] == share_right(reference, bundle.labels)
    agree = run_tflite(bundle.contents["int8"], bundle.images).argmax(1) == reference.argmax(1)
    assert agree.mean() >= 0.9


@pytest.mark.usefixtures("no_onnx")
def test_the_tflite_files_take_and_give_float32(network: Network, data: DataSet) -> None:
    """Both take (1, H, W, C) float32 and give (1, classes) float32, so that they can be exchanged."""
    contents = build(network, data, calibration_images=20).contents
    for name in ("float32", "int8"):
        interpreter = Interpreter(model_content=contents[name], num_threads=1)
        interpreter.allocate_tensors()
        image, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        assert (image["dtype"], image["shape"].tolist()) == (np.float32, [1, 15, 15, 1])
        assert (logits["dtype"], logits["shape"].tolist()) == (np.float32, [1, 3])


@pytest.mark.usefixtures("no_onnx")
def test_a_bundle_is_the_same_whenever_it_is_made(network: Network, data: DataSet) -> None:
    """The .tflite files are equal byte for byte, and hold no path."""
    first, second = (build(network, data, calibration_images=20).contents for _ in range(2))
    assert first == second
    for content in first.values():
        assert str(REPOSITORY).encode() not in content
        assert str(Path.home()).encode() not in content


@pytest.mark.usefixtures("no_onnx")
def test_only_the_first_training_images_calibrate(network: Network, data: DataSet) -> None:
    """The ranges come from as many training images as are asked for, and from no test image."""
    train, other = data.train, Split(255 - data.test.images, data.test.labels)
    later = Split(np.concatenate([train.images[:20], other.images[20:]]), train.labels)
    same = dataclasses.replace(data, train=later, test=other, validation=other)
    assert build(network, same, 20).contents["int8"] == build(network, data, 20).contents["int8"]
    assert build(network, same, 40).contents["int8"] != build(network, data, 40).contents["int8"]


def test_accuracy_is_the_share_of_right_answers() -> None:
    """Counted from the logits alone."""
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
    assert share_right(logits, np.array([1, 0, 0, 0])) == 0.75


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_searched_networks_agree_in_every_runtime(number: int, tmp_path: Path) -> None:
    """Random architectures of the real space on real images: float32 and onnx to 1e-4 of their spread."""
    arch = random_archs(NARROW, 3, seed=8)[number]
    network = random_network(graph_of(NARROW, arch), seed=number)
    whole = load_data("embedded")
    few = dataclasses.replace(whole, test=Split(whole.test.images[:100], whole.test.labels[:100]))
    bundle = build(network, few, calibration_images=200)
    path = tmp_path / "student.onnx"
    path.write_bytes(bundle.contents["onnx"])
    reference = torch_logits(network, bundle.images)
    spread = float(np.ptp(reference))
    assert np.abs(run_tflite(bundle.contents["float32"], bundle.images) - reference).max() < 1e-4 * max(spread, 1)
    assert np.abs(run_onnx(path, bundle.images, batch_size=30) - reference).max() < 1e-4 * max(spread, 1)
