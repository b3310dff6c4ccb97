"""What is measured among the others to tell the machine's speed."""

from __future__ import annotations

import hashlib

import pytest

from edgekd.graph.model_file import format_of
from edgekd.graph.tflite_reader import network_dtype, read_ops
from edgekd.sentinels import known_to, micro_content, network_content, network_name
from latency_tables.speed import Speed


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float32", "float32"), ("float16", "float32"), ("int8", "int8"), ("uint8", "int8")]
)
def test_a_dtype_has_a_network_of_its_kind(dtype: str, kind: str) -> None:
    """Tables keep its name, so no other network may ever bear it."""
    name = network_name(dtype)
    assert name == f"mnasnet-96 {kind}"
    assert network_dtype(read_ops(network_content(name))) == kind


@pytest.mark.parametrize(("dtype", "digest"), [("float32", "d23a5646c9732cea"), ("int8", "5aee8d4fb9f32ff8")])
def test_a_network_is_always_the_same(dtype: str, digest: str) -> None:
    """What it takes is compared over years; of other operators it needs another name."""
    keys = [op.key for op in read_ops(network_content(network_name(dtype)))]
    assert hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16] == digest


def test_a_table_that_knows_the_network_tells_by_it() -> None:
    """One of before it was there tells by the micro-model."""
    assert known_to(Speed(5, {"mnasnet-96 int8": 7}), "int8") == "mnasnet-96 int8"
    assert known_to(Speed(5, {"mnasnet-96 int8": 7}), "float32") == ""
    assert known_to(Speed(5), "int8") == ""


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_every_format_has_a_micro_model(suffix: str) -> None:
    """Of some kilobytes."""
    content = micro_content(suffix)
    assert format_of(content) == suffix
    assert len(content) < 100_000
