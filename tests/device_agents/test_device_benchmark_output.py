"""The reader of benchmark_model's output: every generation is read, and nothing wrong is believed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.benchmark_output import NodeTable, NodeTime, nodes_in_order, parse_profile, parse_timing
from device_agents.errors import ProtocolError

GOLDEN = Path(__file__).parent / "golden"
TEXTS = {path.stem: path.read_text() for path in sorted(GOLDEN.glob("*.txt"))}
MIB = 1 << 20


# --- timings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "footprint_mib"),
    [("first", 138.809), ("second", 25.043), ("third", 73.4102), ("profile", 73.4102), ("profile_csv", 73.4102)],
)
def test_every_generation_tells_the_same(name: str, footprint_mib: float) -> None:
    """Prefixes, percentiles, memory lines and profiles differ; what is measured is read alike."""
    timing = parse_timing(TEXTS[name])
    assert (timing.warmup.count, timing.warmup.average_us, timing.warmup.fastest_us) == (3, 1179.33, 1044)
    assert (timing.runs.count, timing.runs.average_us, timing.runs.fastest_us) == (10, 1045.7, 1000)
    assert timing.init_us == 20283
    assert timing.footprint_bytes == int(footprint_mib * MIB)


def test_scientific_averages_and_single_runs_are_read() -> None:
    """Above a million µs an average is written as 1.24532e+06, and a single run has none."""
    timing = parse_timing(TEXTS["slow"])
    assert (timing.warmup.count, timing.warmup.average_us) == (1, 1_357_602)
    assert (timing.runs.count, timing.runs.average_us) == (4, 1_245_320)


@pytest.mark.parametrize("name", ["same", "same_percentiles"])
def test_runs_that_all_took_the_same_time_are_read(name: str) -> None:
    """Then there is neither an average nor a minimum, but a remark glued to the last value."""
    timing = parse_timing(TEXTS[name])
    assert (timing.runs.count, timing.runs.average_us, timing.runs.fastest_us) == (4, 7, 7)


def test_a_tool_that_tells_no_memory_is_read() -> None:
    """Where the system does not say, benchmark_model leaves the line out."""
    text = "\n".join(line for line in TEXTS["first"].splitlines() if "footprint (MB)" not in line)
    assert parse_timing(text).footprint_bytes == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("avg=1045.7", "avg=nan"),
        ("avg=1045.7", "avg=-1045.7"),
        ("avg=1045.7", "avg=inf"),
        ("avg=1045.7", "avg="),
        ("avg=1045.7", "avg=1e99"),
        ("avg=1045.7", "avg=0x415"),
        ("avg=1045.7", "avg=1_045"),
        ("avg=1045.7", "avg=2000"),  # above the slowest run
        ("avg=1045.7", "avg=1046.7"),  # not what the summary says
        ("min=1000", "min=1080"),
        ("count=10 ", "count=0 "),
        ("count=10 ", "count=1.5 "),
        ("count=10 ", "count=99999999999 "),
        ("count=10 ", "total=10 "),
        ("Init: 20283", "Init: -1"),
        ("Init: 20283", "Setup: 20283"),
        ("overall=73.4102", "overall=nan"),
        ("overall=73.4102", "overall=-1"),
        ("overall=73.4102", "overall=1e9"),
        ("Inference timings in us", "Inference timings in ns"),
        ("Inference timings in us", "count=3 curr=7\nInference timings in us"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(old: str, new: str) -> None:
    """A wrong number never becomes a row."""
    assert old in TEXTS["third"]
    with pytest.raises(ProtocolError):
        parse_timing(TEXTS["third"].replace(old, new))


def test_a_failure_is_told_with_its_last_words() -> None:
    """Output without timings says why there are none."""
    with pytest.raises(ProtocolError, match="no timings: ERROR: Failed to load model"):
        parse_timing("STARTING!\nERROR: Failed to load model\n\n")


# --- profiles ---------------------------------------------------------------------------------------------------------

NODES = (
    NodeTime("CONV_2D", "[stem/conv,relu6]:0", 1_204_000),
    NodeTime("DEPTHWISE_CONV_2D", "[block/depthwise]:1", 88_000),
    NodeTime("RESHAPE", "[flat]:2", 0),
    NodeTime("Fully Connected (NC, F32) GEMM", "Delegate/FC:3", 18_000),
)


@pytest.mark.parametrize("name", ["profile", "profile_csv"])
def test_profiles_are_read_in_execution_order(name: str) -> None:
    """As text and as CSV, where names have TABs for commas and types have commas."""
    begin, runs = parse_profile(TEXTS[name])
    assert begin.is_initialization
    assert begin.nodes[0] == NodeTime("ModifyGraphWithDelegate", "ModifyGraphWithDelegate/0", 1_356_000)
    assert runs.nodes == NODES
    kinds = ["builtin", "builtin", "builtin", "xnnpack"]
    assert list(nodes_in_order([begin, runs])) == list(zip(kinds, NODES, strict=True))


def test_nodes_inside_a_delegate_take_its_place() -> None:
    """XNNPACK's own nodes have a table of theirs, and one node of the graph stands for them."""
    graph = NodeTable("Operator-wise", (NODES[2], NodeTime("TfLiteXNNPackDelegate", "x:0", 9), NODES[2]))
    inside = NodeTable("Delegate internal", (NODES[3], NODES[3]))
    kinds = [kind for kind, _ in nodes_in_order([graph, inside])]
    assert kinds == ["builtin", "xnnpack", "xnnpack", "builtin"]
    assert [kind for kind, _ in nodes_in_order([graph])] == ["builtin", "other", "builtin"]


def test_an_order_that_is_open_is_not_guessed() -> None:
    """With two delegate nodes nobody knows which part is whose."""
    delegate = NodeTime("TfLiteXNNPackDelegate", "x:0", 9)
    tables = [NodeTable("Operator-wise", (delegate, delegate)), NodeTable("Delegate internal", NODES)]
    with pytest.raises(ProtocolError, match="2 delegate nodes"):
        list(nodes_in_order(tables))


def test_no_profile_is_no_nodes() -> None:
    """A binary built without the profiler prints none."""
    with pytest.raises(ProtocolError, match="no nodes"):
        list(nodes_in_order(parse_profile(TEXTS["third"])))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.204", "nan"),
        ("1.204", "-1"),
        ("[avg ms]", "[average]"),
        ("[times called]\t", ""),
        ("\t[stem", "[stem"),
        ("0.000\t", "\t"),
    ],
)
def test_a_broken_table_is_refused(old: str, new: str) -> None:
    """Rows that do not fit their head are not shifted into place."""
    with pytest.raises(ProtocolError):
        parse_profile(TEXTS["profile"].replace(old, new))


# --- whatever a device says -------------------------------------------------------------------------------------------

WORDS = sorted({word for text in TEXTS.values() for word in text.split(" ")})


def read_all(text: str) -> None:
    """Read a text in every way; only ProtocolError may come of it."""
    for read in (parse_timing, parse_profile, lambda text: list(nodes_in_order(parse_profile(text)))):
        with suppress(ProtocolError):
            read(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text raises anything else."""
    read_all(text)


@given(st.lists(st.sampled_from([*WORDS, "nan", "-1", "=", "\t", "\n", "1e309", "\x00", "\x1c", "9" * 400])))
def test_any_mixture_of_genuine_words_is_read_or_refused(words: list[str]) -> None:
    """Nor does what nearly is genuine."""
    read_all(" ".join(words))


@given(st.sampled_from(sorted(TEXTS)), st.data())
def test_genuine_text_with_damage_is_read_or_refused(name: str, data: st.DataObject) -> None:
    """Nor does genuine text with a piece cut out and another put in."""
    text = TEXTS[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    read_all(text[:start] + data.draw(st.text(max_size=10)) + text[end:])
