"""What is measured among the others to tell the machine's speed."""

from __future__ import annotations

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


def test_a_network_is_always_the_same() -> None:
    """What it takes is compared over years."""
    name = network_name("int8")
    first = network_content(name)
    network_content.cache_clear()
    assert network_content(name) == first


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
