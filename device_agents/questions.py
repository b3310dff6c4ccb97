"""What else a session may ask of what serves on a device: a model's outputs, and the times of a network's nodes.

The lines are part of the protocol of `protocol.py`, which has plans and rows. Answers are distrusted as those are.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from device_agents.errors import ProtocolError
from device_agents.protocol import (
    MAX_NS,
    NO_REASON,
    End,
    Failed,
    Job,
    Refusal,
    Start,
    line_of,
    refusal_of,
    start_of,
)
from device_agents.strict_json import Fields, excerpt

NODE_KINDS = ("xnnpack", "builtin", "other")
MAX_NODES = 5_000  # of a network; as lines they stay below half of the longest one
MAX_OUTPUTS = 256


@dataclass(frozen=True, slots=True)
class Layer:
    """A model's input as the model names it, for an engine that must be told."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a network and its mean time inside that network, over `runs` runs."""

    name: str
    kind: str
    mean_ns: int
    runs: int


def outputs_line(job: Job, inputs_sha256: str, threads: int, layers: Sequence[Layer]) -> bytes:
    """Write the request to run a model once on the inputs of a blob that lies beside the models."""
    named = [{"name": layer.name, "shape": list(layer.shape)} for layer in layers]
    fields = {"job": job.job_id, "sha256": job.model_sha256, "inputs": inputs_sha256, "threads": threads}
    return line_of(type="outputs", **fields, layers=named)


def nodes_line(job: Job, runs: int, threads: int) -> bytes:
    """Write the request for the times of each node of a network."""
    return line_of(type="nodes", job=job.job_id, sha256=job.model_sha256, runs=runs, threads=threads)


def parse_outputs(line: bytes, job_id: str) -> tuple[bytes, ...] | Start | Failed | End | Refusal:
    """Read one line of the answer to `outputs`: the raw bytes of each output. Raises ProtocolError."""
    fields = _of_job(line, job_id, "outputs")
    if isinstance(fields, Fields):
        fields.expect("type", "job", "outputs")
        return tuple(_bytes_of(text, line) for text in fields.texts("outputs", MAX_OUTPUTS))
    return fields


def parse_nodes(line: bytes, job_id: str) -> tuple[Node, ...] | Start | Failed | End | Refusal:
    """Read one line of the answer to `nodes`. Raises ProtocolError."""
    fields = _of_job(line, job_id, "nodes")
    if isinstance(fields, Fields):
        fields.expect("type", "job", "nodes")
        return tuple(map(_node, fields.objects("nodes", MAX_NODES)))
    return fields


def _of_job(line: bytes, job_id: str, wanted: str) -> Fields | Start | Failed | End | Refusal:
    """Read what may be said in the answer about one job, and give the answer itself as fields to read on."""
    fields = Fields.of(line, f"{wanted} of job {job_id!r}")
    if fields.type == "end":
        fields.expect("type")
        return End()
    if fields.type == "fatal":
        return refusal_of(fields)
    if fields.raw("job") != job_id or fields.type not in ("start", "failed", wanted):
        raise ProtocolError(f"expected {fields.what}, got {excerpt(line)}")
    if fields.type == "start":
        return start_of(fields, job_id)
    if fields.type == "failed":
        fields.expect("type", "job", "error")
        return Failed(fields.text("error") or NO_REASON)
    return fields


def _node(fields: Fields) -> Node:
    fields.expect("name", "kind", "mean_ns", "runs")
    kind, mean_ns = fields.choice("kind", NODE_KINDS), fields.integer("mean_ns", 0, MAX_NS)
    return Node(fields.text("name"), kind, mean_ns, fields.integer("runs", 1, 10**9))


def _bytes_of(text: str, line: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # of binascii, and of a text that is not ASCII
        raise ProtocolError(f"an output is no base64: {excerpt(line)}") from error
