"""Reading what Google's benchmark_model prints, of every generation since 2019.

    timing = parse_timing(text)     one invocation: warm-up, timed runs, initialisation, memory
    tables = parse_profile(text)    the tables of --enable_op_profiling, as text or as CSV

Values are found by their names, never by their places: p5, median and p95 came in 2024, a phase whose runs all took the
same time prints no average, averages above a million turn scientific, and builds differ in what stands before a line.
The text is a device's and distrusted: whatever it holds, nothing but ProtocolError comes of it.
It runs nothing. Read next: `engines/benchmark_model.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from device_agents.errors import ProtocolError
from device_agents.strict_json import clean_text

MAX_US = 1e12  # 11 days, as MAX_NS of protocol.py
MAX_COUNT = 10**9
MAX_MIB = 1e6
MAX_NODES = 100_000
_ROUNDING = 1e-4  # averages are printed with six digits
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?(?:[eE][+-]?\d{1,2})?\Z")
_COUNT_LINE = re.compile(r"(?:INFO: )?count=")
_KEY_VALUE = re.compile(r"(\w+)=([^\s=(]+)")
_TIMINGS = "Inference timings in us:"
_NAMED_TIMING = re.compile(r"([A-Z][A-Za-z ()]*): *([^\s,]+)")
_PEAK = re.compile(r"peak memory footprint \(MB\) via periodic monitoring: *(\S+)", re.IGNORECASE)
_DELTA = re.compile(r"memory footprint\b[^=:]*: init=\S+ overall=(\S+)", re.IGNORECASE)
_PROFILE_TITLE = re.compile(r"(?:INFO: )?(.*\bProfiling Info\b.*|Delegate internal): *\Z")
_TABLE_TITLE = re.compile(r"(?:INFO: )?=+ (.*?) =+\Z")


@dataclass(frozen=True, slots=True)
class Phase:
    """Runs of one phase, warm-up or timed: how many, their mean and the fastest, in µs."""

    count: int
    average_us: float
    fastest_us: float


@dataclass(frozen=True, slots=True)
class Timing:
    """One invocation; footprint_bytes is the highest memory it tells of, 0 when it tells nothing."""

    warmup: Phase
    runs: Phase
    init_us: float
    footprint_bytes: int


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of a profile: what computes it, its name, and its mean time in one run of the network."""

    type: str
    name: str
    mean_ns: int


@dataclass(frozen=True, slots=True)
class NodeTable:
    """The nodes of one profile in execution order, under its title; a delegate's own nodes have a table of theirs."""

    title: str
    nodes: tuple[NodeTime, ...]

    @property
    def is_delegate(self) -> bool:
        """Tell whether these are the nodes inside a delegate."""
        return self.title.startswith("Delegate internal")

    @property
    def is_initialization(self) -> bool:
        """Tell whether these are the steps before the first run."""
        return "Initialization" in self.title


def parse_timing(text: str) -> Timing:
    """Read the output of one invocation. Raises ProtocolError when it is not complete or makes no sense."""
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if _TIMINGS in line), None)
    if end is None:
        raise ProtocolError(f"benchmark_model gave no timings{_last_words(lines)}")
    # Below that line, a profile has lines of the same look.
    phases = [_phase(line) for line in lines[:end] if _COUNT_LINE.match(line)]
    if len(phases) != 2:
        raise ProtocolError(f"benchmark_model told of {len(phases)} phases, expected a warm-up and timed runs")
    named = dict(_NAMED_TIMING.findall(lines[end].partition(_TIMINGS)[2]))
    _expect_same(phases[1].average_us, _number(named.get("Inference (avg)", ""), "Inference (avg)", MAX_US))
    init_us = _number(named.get("Init", ""), "Init", MAX_US)
    return Timing(phases[0], phases[1], init_us, _footprint_bytes(lines[end:]))


def _phase(line: str) -> Phase:
    values = dict(_KEY_VALUE.findall(line))
    count = _number(values.get("count", ""), "count", MAX_COUNT)
    if count < 1 or count != int(count):
        raise ProtocolError(f"benchmark_model counted {count:g} runs in a phase")
    current = _number(values.get("curr", ""), "curr", MAX_US)
    if "avg" not in values:  # all runs took the same time
        return Phase(int(count), current, current)
    average, low, high = (_number(values.get(name, ""), name, MAX_US) for name in ("avg", "min", "max"))
    if not low * (1 - _ROUNDING) <= average <= high * (1 + _ROUNDING):
        raise ProtocolError(f"benchmark_model's average {average:g} µs is not between {low:g} and {high:g} µs")
    return Phase(int(count), average, low)


def _footprint_bytes(lines: Sequence[str]) -> int:
    """Prefer the monitored peak, which is the process's; the delta leaves out what the tool itself takes."""
    for pattern in (_PEAK, _DELTA):
        for line in lines:
            if match := pattern.search(line):
                return int(_number(match[1], "memory footprint", MAX_MIB) * (1 << 20))
    return 0


def parse_profile(text: str) -> tuple[NodeTable, ...]:
    """Read every profile's nodes in execution order, from text or CSV. Raises ProtocolError for a broken table."""
    tables, title, rows = [], "", None
    for line in text.splitlines():
        if match := _PROFILE_TITLE.match(line):
            title, rows = clean_text(match[1]), None
        elif match := _TABLE_TITLE.match(line):
            rows = _Rows() if match[1] == "Run Order" else None
            if rows is not None:
                tables.append((title, rows))
        elif rows is not None and line.strip():
            rows.take(line)
        else:
            rows = None
    return tuple(NodeTable(title, tuple(rows.nodes)) for title, rows in tables)


class _Rows:
    """The rows of one table, the first of which names the columns."""

    def __init__(self) -> None:
        self.nodes: list[NodeTime] = []
        self._columns: list[str] = []
        self._csv = False

    def take(self, line: str) -> None:
        if not self._columns:
            self._csv = "\t" not in line
            self._columns = [_column(cell) for cell in (line.split(",") if self._csv else line.split("\t")[1:])]
            return
        if len(self.nodes) >= MAX_NODES:
            raise ProtocolError(f"a profile of more than {MAX_NODES} nodes")
        cells = self._cells(line)
        if len(cells) != len(self._columns):
            raise ProtocolError(f"a profile's row has {len(cells)} cells, its head {len(self._columns)}")
        self.nodes.append(_node(dict(zip(self._columns, cells, strict=True))))

    def _cells(self, line: str) -> list[str]:
        if not self._csv:
            return line.split("\t")[1:]  # a row begins with a TAB
        # Commas of a name were written as TABs; those of a type were not, so that the cells are counted from the end.
        *others, name = line.rsplit(",", len(self._columns) - 1)
        return [*others, name.replace("\t", ",")]


def _column(cell: str) -> str:
    return cell.strip().strip("[]").replace("_", " ").lower()


def _node(row: dict[str, str]) -> NodeTime:
    if not {"node type", "avg ms", "name"} <= row.keys():
        raise ProtocolError("a profile's table has no columns for type, mean and name")
    mean_ms = _number(row["avg ms"], "avg ms", MAX_US / 1e3)
    calls = _number(row.get("times called", "1"), "times called", MAX_COUNT)
    total_ms = mean_ms * calls
    if total_ms > MAX_US / 1e3:
        raise ProtocolError(f"a node takes {total_ms:g} ms in one run")
    return NodeTime(clean_text(row["node type"].strip()), clean_text(row["name"].strip()), round(total_ms * 1e6))


def nodes_in_order(tables: Iterable[NodeTable]) -> Iterator[tuple[str, NodeTime]]:
    """Yield kind ("xnnpack", "builtin" or "other") and node in execution order, a delegate's nodes in its place.

    Raises ProtocolError when nothing was profiled, or when several delegate nodes leave the order open.
    """
    runs = [table for table in tables if not table.is_initialization]
    inside = [node for table in runs if table.is_delegate for node in table.nodes]
    graph = [node for table in runs if not table.is_delegate for node in table.nodes]
    if not graph:
        raise ProtocolError("this benchmark_model profiled no nodes")
    delegates = [node for node in graph if "delegate" in node.type.lower()]
    if inside and len(delegates) != 1:
        raise ProtocolError(f"{len(delegates)} delegate nodes leave the order of their {len(inside)} parts open")
    for node in graph:
        for part in inside if inside and node in delegates else [node]:
            yield _kind(part, delegated=node in delegates), part


def _kind(node: NodeTime, *, delegated: bool) -> str:
    # XNNPACK is the only delegate that we ask for, and its nodes are named so wherever they stand.
    if node.name.startswith("Delegate/"):
        return "xnnpack"
    return "other" if delegated else "builtin"


def _number(text: str, name: str, most: float) -> float:
    """Read a number that is neither negative nor absurd; nan, inf and signs are no numbers here."""
    if not _NUMBER.match(text.strip()) or not (value := float(text)) <= most:
        raise ProtocolError(f"benchmark_model's {name} is {clean_text(text)[:40]!r}, must be a number up to {most:g}")
    return value


def _expect_same(average_us: float, summary_us: float) -> None:
    if abs(average_us - summary_us) > _ROUNDING * max(average_us, summary_us):
        raise ProtocolError(f"benchmark_model contradicts itself: averages of {average_us:g} and {summary_us:g} µs")


def _last_words(lines: Sequence[str]) -> str:
    words = [text for line in lines[-20:] if (text := clean_text(line).strip())]
    return f": {words[-1]}" if words else ""
