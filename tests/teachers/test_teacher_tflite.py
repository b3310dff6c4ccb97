"""Teachers in LiteRT's hands: float and quantised .tflite files answer as what they were made of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_onnx import Write, check_is_a_teacher
from torch import Tensor

from edgekd import teachers
from edgekd.data.dataset import DataSet
from edgekd.errors import DataError
from edgekd.spaces.network import Network
from edgekd.teachers.sources import tflite as source
from edgekd.teachers.sources.tflite import numbers_of, quantised

pytestmark = pytest.mark.whole  # writes whole networks and runs them


@pytest.mark.parametrize("prefix", ["", "tflite:"])
def test_a_float_tflite_file_teaches_as_its_network(
    written: Write, tflite: bytes, data: DataSet, network: Network, images: Tensor, prefix: str
) -> None:
    """By its path, with or without its kind before it."""
    teacher = teachers.load(f"{prefix}{written('net.tflite', tflite)}", data)
    with torch.no_grad():
        torch.testing.assert_close(check_is_a_teacher(teacher, images), network(images), rtol=1e-4, atol=1e-4)
    assert teacher.record["answers"] == "logits"


def test_an_int8_tflite_file_teaches_nearly_as_its_network(
    written: Write, int8: bytes, data: DataSet, network: Network, images: Tensor
) -> None:
    """Its logits are off by a small part of their range."""
    logits = check_is_a_teacher(teachers.load(written("net.tflite", int8), data), images)
    with torch.no_grad():
        expected = network(images)
    assert (logits - expected).abs().max() < 0.1 * (expected.max() - expected.min())


def stand_in(python: Path, line: str) -> str:
    """Write a script that is run in place of Python; give its path."""
    python.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    python.chmod(0o755)
    return str(python)


def test_a_file_that_ends_its_runtimes_process_ends_another(
    written: Write, tmp_path: Path, data: DataSet, tflite: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is run elsewhere first; the message names the signal."""
    path = written("net.tflite", tflite)
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path / "python", "kill -SEGV $$"))
    with pytest.raises(DataError, match=r"it ends the process that runs it \(signal 11\); export it anew"):
        teachers.load(path, data)


def test_a_file_that_never_ends_is_refused(
    written: Write, tmp_path: Path, data: DataSet, tflite: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is ended, and the message says how long it was waited for."""
    path = written("net.tflite", tflite)
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path / "python", "exec tail -f /dev/null"))
    monkeypatch.setattr(source, "_TRIAL_S", 0.05)
    with pytest.raises(DataError, match=r"LiteRT takes over 0\.05 s for an image"):
        teachers.load(path, data)


# --- quantised tensors ------------------------------------------------------------------------------------------------


def details(dtype: npt.DTypeLike, step: float | None, zero: int = 0) -> dict[str, Any]:
    """Describe a tensor as LiteRT does."""
    scales = [] if step is None else [step]
    parameters = {"scales": np.array(scales, np.float32), "zero_points": np.array([zero] * len(scales))}
    return {"dtype": dtype, "quantization_parameters": parameters}


@given(value=st.floats(-20, 20), step=st.floats(1e-3, 1.0), zero=st.integers(-128, 127), unsigned=st.booleans())
def test_quantising_is_undone_but_for_half_a_step(value: float, step: float, zero: int, unsigned: bool) -> None:
    """Within the range of the tensor; beyond it the nearest that it holds is taken."""
    zero += 128 if unsigned else 0
    tensor = details(np.uint8 if unsigned else np.int8, step, zero)
    exact = float(np.float32(step))
    low, high = ((limit - zero) * exact for limit in ((0, 255) if unsigned else (-128, 127)))
    stored = quantised(np.array([value], np.float32), tensor)
    assert stored.dtype == tensor["dtype"]
    nearest = min(max(value, low), high)
    assert numbers_of(stored, tensor)[0] == pytest.approx(nearest, abs=exact / 2 + 1e-4)


def test_float_tensors_stay_as_they_are() -> None:
    """In the tensor's own precision."""
    numbers = np.array([0.25, -3.0], np.float32)
    assert quantised(numbers, details(np.float32, None)).tolist() == [0.25, -3.0]
    assert numbers_of(numbers.astype(np.float16), details(np.float16, None)).dtype == np.float32


def test_whole_numbers_without_a_scale_are_refused() -> None:
    """Nobody knows which pixels they would be."""
    with pytest.raises(DataError, match="it takes uint8 images without a scale"):
        quantised(np.zeros(1, np.float32), details(np.uint8, None))
