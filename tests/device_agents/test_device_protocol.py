"""The lines between session and runner: what is written, what is read, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import InvalidRequest, ProtocolError
from device_agents.protocol import (
    PROTOCOL_VERSION,
    End,
    Hello,
    Job,
    JobResult,
    MeasureSettings,
    Refusal,
    RowReader,
    Start,
    StoredFile,
    parse_file,
    parse_greeting,
    plan_lines,
)

SHA = "ab" * 32
SETTINGS = MeasureSettings(rounds=1, samples_per_round=3)
HELLO = {
    "type": "hello",
    "protocol": PROTOCOL_VERSION,
    "runtime": "ai_edge_litert",
    "version": "2.3.0",
    "python": "3.11.2",
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
    "contended": False,
    "denormal": False,
}


def reader() -> RowReader:
    """Return a reader that awaits "one" and "two" and knows "done", the sentinel of an earlier run."""
    waiting = {name: Job(name, SHA) for name in ("one", "two")}
    return RowReader(SETTINGS, waiting, frozenset(waiting) | {"done"})


def line(fields: dict[str, Any], **changed: object) -> bytes:
    """Return a line with some fields changed."""
    return json.dumps({**fields, **changed}).encode()


def test_a_row_carries_every_field_over() -> None:
    """What the runner wrote is what the result holds, lists as tuples."""
    result = reader().parse(line(ROW))
    assert isinstance(result, JobResult)
    assert result.ok
    for name in ROW.keys() - {"type", "job"}:
        value = ROW[name]
        assert getattr(result, name) == (tuple(value) if isinstance(value, list) else value)


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
        {"contended": 0},
        {"sentinel_ns": -1},
        {"denormal": "no"},
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
    expected = Hello("ai_edge_litert", "2.3.0", "3.11.2", "thread_cpu", (0, 1), 42)
    assert parse_greeting(line(HELLO)) == expected


@pytest.mark.parametrize("kind", ["busy", "fatal"])
def test_a_refusal_is_read(kind: str) -> None:
    """A runner that cannot serve says why."""
    assert parse_greeting(line({"type": kind, "reason": "why"})) == Refusal(kind == "busy", "why")


@pytest.mark.parametrize(
    "changed", [{"protocol": 2}, {"protocol": True}, {"pid": 0}, {"cpus": [-1]}, {"x": 1}], ids=repr
)
def test_a_wrong_greeting_is_refused(changed: dict[str, object]) -> None:
    """Another protocol and impossible facts are refused before any plan is sent."""
    with pytest.raises(ProtocolError):
        parse_greeting(line(HELLO, **changed))


def test_a_stored_file_needs_a_hash() -> None:
    """What is no SHA-256 is no stored model."""
    assert parse_file(line({"type": "file", "sha256": SHA, "size_bytes": 3})) == StoredFile(SHA, 3)
    assert parse_file(b'{"type": "end"}') == End()
    with pytest.raises(ProtocolError):
        parse_file(line({"type": "file", "sha256": "../../etc/passwd", "size_bytes": 3}))


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
