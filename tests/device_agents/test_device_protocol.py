"""The lines between session and runner: what is written, what is read, what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import InvalidRequest, ProtocolError
from device_agents.protocol import (
    FLAGS,
    PROTOCOL_VERSION,
    End,
    Failed,
    Hello,
    Job,
    JobResult,
    MeasureSettings,
    Refusal,
    RowReader,
    Start,
    alive_line,
    parse_greeting,
    plan_lines,
)
from device_agents.questions import (
    MAX_NODES,
    MAX_OUTPUTS,
    Layer,
    Node,
    nodes_line,
    outputs_line,
    parse_nodes,
    parse_outputs,
)

SHA = "ab" * 32
SETTINGS = MeasureSettings(rounds=1, samples_per_round=3)
HELLO = {
    "type": "hello",
    "protocol": PROTOCOL_VERSION,
    "engine": "python",
    "runtime": "ai_edge_litert",
    "version": "2.3.0",
    "clock": "thread_cpu",
    "cpus": [0, 1],
    "pid": 42,
}
ROW = {
    "type": "row",
    "job": "one",
    "samples_ns": [10, 11, 12],
    "wall_samples_ns": [12, 13, 14],
    "clock": "thread_cpu",
    "loops": 5,
    "warmup_ns": 100,
    "warmup_runs": 3,
    "init_ns": 1000,
    "peak_rss_bytes": 4096,
    "started_at": "2026-01-31T12:00:00.123Z",
    "temperatures_c": [40.5, 41],
    "sentinel_ns": 9,
    "beside_ns": [10],
    "flags": ["contended", "throttled"],
}
OUTPUTS = {"type": "outputs", "job": "one", "outputs": ["AAAA", ""]}
NODE = {"name": "CONV_2D", "kind": "builtin", "mean_ns": 1500, "runs": 20}
NODES = {"type": "nodes", "job": "one", "nodes": [NODE, {**NODE, "name": "Add (ND)", "kind": "xnnpack", "mean_ns": 0}]}


def reader() -> RowReader:
    """Return a reader that awaits "one" and "two" and knows "done", the sentinel of an earlier run."""
    waiting = {name: Job(name, SHA) for name in ("one", "two")}
    return RowReader(SETTINGS, waiting, frozenset(waiting) | {"done"})


def line(fields: dict[str, Any], **changed: object) -> bytes:
    """Return a line with some fields changed."""
    return json.dumps({**fields, **changed}).encode()


def test_steps_without_end_are_refused() -> None:
    """A plan has so many steps and no more; a device that announces others would never be given up."""
    reading = reader()
    start = line({"type": "start", "job": "one", "phase": "measure"})
    for _ in range(reading.most_starts):
        reading.parse(start)
    with pytest.raises(ProtocolError, match="more steps than its plan has"):
        reading.parse(start)


def test_a_row_carries_every_field_over() -> None:
    """What the runner wrote is what the result holds, lists as tuples."""
    result = reader().parse(line(ROW))
    assert isinstance(result, JobResult)
    assert result.ok
    for name in ROW.keys() - {"type", "job"}:
        value = ROW[name]
        assert getattr(result, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("flags", [(), *((flag,) for flag in FLAGS), FLAGS], ids=repr)
def test_a_row_carries_its_flags(flags: tuple[str, ...]) -> None:
    """Each known flag alone, none and all of them come over."""
    result = reader().parse(line(ROW, flags=flags))
    assert isinstance(result, JobResult)
    assert result.flags == flags


def test_a_failed_row_carries_its_reason_without_control_characters() -> None:
    """The error text of a device is cleaned before anybody prints it."""
    result = reader().parse(line({"type": "failed", "job": "one", "error": "ValueError: \x1b[31mbad"}))
    assert result == JobResult("one", "failed", error="ValueError: [31mbad")


@pytest.mark.parametrize(
    "changed",
    [
        {"samples_ns": [10, 11]},
        {"samples_ns": [10, 11, 12, 13]},
        {"samples_ns": [10, 11, 0]},
        {"samples_ns": [10, 11, -12]},
        {"samples_ns": [10, 11, 12.5]},
        {"samples_ns": [10, 11, float("nan")]},
        {"samples_ns": [10, 11, 10**16]},
        {"samples_ns": [10, 11, True]},
        {"samples_ns": "10"},
        {"wall_samples_ns": [1, 2]},
        {"clock": "sundial"},
        {"loops": 0},
        {"loops": "5"},
        {"init_ns": -1},
        {"peak_rss_bytes": None},
        {"started_at": "today"},
        {"temperatures_c": [1e6]},
        {"temperatures_c": [0] * 300},
        {"sentinel_ns": -1},
        {"beside_ns": [10, 9]},
        {"beside_ns": [10, 9, 11]},
        {"beside_ns": [0]},
        {"beside_ns": None},
        {"flags": "contended"},
        {"flags": ["hot"]},
        {"flags": ["contended", "contended"]},
        {"flags": [["contended"]]},
        {"flags": {"contended": True}},
        {"job": "stranger"},
        {"job": 1},
        {"job": None},
        {"type": "tow"},
        {"extra": 1},
    ],
    ids=repr,
)
def test_a_row_with_one_wrong_field_is_refused(changed: dict[str, object]) -> None:
    """Each wrong type, range, length, name or stranger is a ProtocolError, and the job stays unanswered."""
    rows = reader()
    with pytest.raises(ProtocolError):
        rows.parse(line(ROW, **changed))
    assert isinstance(rows.parse(line(ROW)), JobResult)


@pytest.mark.parametrize("name", sorted(ROW))
def test_a_row_without_one_field_is_refused(name: str) -> None:
    """No field has a default on the wire."""
    with pytest.raises(ProtocolError):
        reader().parse(line({key: value for key, value in ROW.items() if key != name}))


def test_a_second_row_for_a_job_is_refused() -> None:
    """A job has one answer."""
    rows = reader()
    rows.parse(line(ROW))
    with pytest.raises(ProtocolError, match="second row"):
        rows.parse(line(ROW))


def test_an_end_before_all_rows_is_refused() -> None:
    """The runner may not leave jobs unanswered."""
    rows = reader()
    rows.parse(line(ROW))
    with pytest.raises(ProtocolError, match="1 jobs unanswered"):
        rows.parse(line({"type": "end"}))
    rows.parse(line(ROW, job="two"))
    assert rows.parse(line({"type": "end"})) == End()


def test_a_known_sentinel_may_start_and_have_no_row() -> None:
    """A sentinel that was answered by an earlier runner is announced again, and has no second row."""
    rows = reader()
    assert rows.parse(line({"type": "start", "job": "done", "phase": "sentinel"})) == Start("done", "sentinel")
    with pytest.raises(ProtocolError):
        rows.parse(line(ROW, job="done"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(ROW)), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.whole  # tries many
@given(st.dictionaries(st.sampled_from(sorted(ROW)), _JSON))
def test_no_combination_of_odd_fields_gets_through(changed: dict[str, object]) -> None:
    """A row is either refused or holds positive integers on both clocks."""
    try:
        result = reader().parse(line(ROW, **changed))
    except ProtocolError:
        return
    if isinstance(result, JobResult) and result.ok:
        assert all(type(value) is int and value > 0 for value in result.samples_ns + result.wall_samples_ns)


def test_a_greeting_is_read() -> None:
    """The first line says which runtime measures, and where."""
    expected = Hello("python", "ai_edge_litert", "2.3.0", "thread_cpu", (0, 1), 42)
    assert parse_greeting(line(HELLO)) == expected


@pytest.mark.parametrize("kind", ["busy", "fatal"])
def test_a_refusal_is_read(kind: str) -> None:
    """A runner that cannot serve says why."""
    assert parse_greeting(line({"type": kind, "reason": "why"})) == Refusal(kind == "busy", "why")


@pytest.mark.parametrize(
    "changed", [{"protocol": 1}, {"protocol": True}, {"pid": 0}, {"cpus": [-1]}, {"engine": None}, {"x": 1}], ids=repr
)
def test_a_wrong_greeting_is_refused(changed: dict[str, object]) -> None:
    """Another protocol and impossible facts are refused before any plan is sent."""
    with pytest.raises(ProtocolError):
        parse_greeting(line(HELLO, **changed))


@given(st.lists(st.binary(max_size=50), max_size=4))
def test_outputs_are_the_bytes_that_were_sent(outputs: list[bytes]) -> None:
    """Each output comes back byte for byte, in order."""
    texts = [base64.b64encode(data).decode() for data in outputs]
    assert parse_outputs(line(OUTPUTS, outputs=texts), "one") == tuple(outputs)


def test_nodes_come_in_order() -> None:
    """Every field of every node is carried over; a node faster than the profiler's clock takes 0 ns."""
    expected = (Node("CONV_2D", "builtin", 1500, 20), Node("Add (ND)", "xnnpack", 0, 20))
    assert parse_nodes(line(NODES), "one") == expected


@pytest.mark.parametrize("parse", [parse_outputs, parse_nodes])
def test_an_answer_about_one_job_may_start_fail_or_end(parse: Callable[[bytes, str], object]) -> None:
    """Both questions have the same ways to be answered otherwise."""
    assert parse(b'{"type": "start", "job": "one", "phase": "load"}', "one") == Start("one", "load")
    assert parse(b'{"type": "failed", "job": "one", "error": "no"}', "one") == Failed("no")
    assert parse(b'{"type": "failed", "job": "one", "error": ""}', "one") == Failed("no reason given")
    assert parse(b'{"type": "fatal", "reason": "why"}', "one") == Refusal(False, "why")
    assert parse(b'{"type": "end"}', "one") == End()


@pytest.mark.parametrize(
    "changed",
    [
        {"job": "two"},
        {"job": None},
        {"type": "nodes"},
        {"type": "row"},
        {"extra": 1},
        {"outputs": "AAAA"},
        {"outputs": [1]},
        {"outputs": ["A"]},
        {"outputs": ["AAA\n"]},
        {"outputs": ["ÄÄÄÄ"]},
        {"outputs": ["AAAA"] * (MAX_OUTPUTS + 1)},
    ],
    ids=lambda changed: repr(changed)[:60],
)
def test_wrong_outputs_are_refused(changed: dict[str, object]) -> None:
    """Another job, another answer, too many outputs and what is no base64 are refused."""
    with pytest.raises(ProtocolError):
        parse_outputs(line(OUTPUTS, **changed), "one")


@pytest.mark.parametrize(
    "changed",
    [{"name": 1}, {"kind": "gpu"}, {"mean_ns": -1}, {"mean_ns": 1.5}, {"mean_ns": 10**16}, {"runs": 0}, {"extra": 1}],
    ids=repr,
)
def test_a_wrong_node_is_refused(changed: dict[str, object]) -> None:
    """One wrong field in one node refuses the whole answer."""
    with pytest.raises(ProtocolError):
        parse_nodes(line(NODES, nodes=[NODE, {**NODE, **changed}]), "one")


@pytest.mark.parametrize("nodes", [None, {}, [1], [[]], [NODE] * (MAX_NODES + 1)], ids=lambda nodes: repr(nodes)[:40])
def test_nodes_are_a_bounded_list_of_objects(nodes: object) -> None:
    """Other values, and more nodes than any network has, are refused."""
    with pytest.raises(ProtocolError):
        parse_nodes(line(NODES, nodes=nodes), "one")


@given(st.dictionaries(st.sampled_from(["type", "job", "outputs", "nodes", "error", "phase"]), _JSON))
def test_no_odd_answer_about_one_job_gets_through(fields: dict[str, object]) -> None:
    """Whatever the fields are, the answer is one of those that are known or a ProtocolError."""
    for parse in (parse_outputs, parse_nodes):
        try:
            answer = parse(line(fields), "one")
        except ProtocolError:
            continue
        assert isinstance(answer, tuple | Start | Failed | End)


def test_questions_about_one_job_are_written() -> None:
    """A question is one line that names the job, its model, and what the engines need to know."""
    job = Job("one", SHA, "network")
    outputs = json.loads(outputs_line(job, "cd" * 32, 2, [Layer("x", (1, 28, 28, 1))]))
    assert outputs == {
        "type": "outputs",
        "job": "one",
        "sha256": SHA,
        "inputs": "cd" * 32,
        "threads": 2,
        "layers": [{"name": "x", "shape": [1, 28, 28, 1]}],
    }
    assert json.loads(nodes_line(job, 20, 1)) == {
        "type": "nodes",
        "job": "one",
        "sha256": SHA,
        "runs": 20,
        "threads": 1,
    }
    assert json.loads(alive_line()) == {"type": "alive"}


def test_a_plan_names_settings_sentinel_and_jobs() -> None:
    """The header counts the jobs that follow, and the host's own setting stays at home."""
    jobs = [Job("one", SHA), Job("two", SHA, "network")]
    header, *rest = [json.loads(text) for text in plan_lines(SETTINGS, jobs[1], jobs)]
    assert (header["type"], header["protocol"], header["jobs"]) == ("plan", PROTOCOL_VERSION, 2)
    assert header["sentinel"]["job"] == "two"
    assert header["settings"]["rounds"] == 1
    assert "sentinel_job_id" not in header["settings"]
    assert rest == [{"type": "job", "job": job.job_id, "sha256": SHA, "kind": job.kind} for job in jobs]


@pytest.mark.parametrize(
    "fields",
    [("", SHA), ("a\nb", SHA), ("x" * 501, SHA), ("a", "AB" * 32), ("a", SHA[:-1]), ("a", SHA, "sonnet")],
)
def test_a_job_that_the_wire_cannot_carry_is_refused(fields: tuple[str, ...]) -> None:
    """Ids are printable and bounded, hashes are hashes, kinds are known."""
    with pytest.raises(InvalidRequest):
        Job(*fields)


@pytest.mark.parametrize(
    "setting",
    [
        {"threads": 0},
        {"threads": 1.5},
        {"rounds": True},
        {"min_sample_us": float("nan")},
        {"time_limit_s": 0},
        {"block_size": -1},
        {"seed": "7"},
        {"cpu_mask": 0},
        {"rounds": 100, "samples_per_round": 101},
    ],
    ids=repr,
)
def test_a_setting_out_of_range_is_refused(setting: dict[str, Any]) -> None:
    """The message names the setting before anything is pushed."""
    with pytest.raises(InvalidRequest, match=next(iter(setting))):
        MeasureSettings(**setting)
