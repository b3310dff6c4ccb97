"""tools/bench_distill.py: who takes turns, what a ratio is, when a bar is missed, what the peer is told."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.distill.augment import Augmentation
from edgekd.distill.loop import Training
from edgekd.distill.methods import LOGIT_METHODS, METHODS
from edgekd.spaces.mnasnet import space_named

pytestmark = pytest.mark.whole  # whole benchmarks

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))  # the tool's modules find each other there
    bench = importlib.import_module("bench_distill")
    steps = importlib.import_module("bench_distill_steps")
    feed = importlib.import_module("bench_distill_data")
    peer = importlib.import_module("bench_distill_peer")

TASK = steps.Task(str(space_named("tiny-28").reference()), "resnet8", batch=4, samples=12)
FAKE_PEER = """#!{python}
import json, sys
print("about", json.loads(sys.stdin.readline())["student"], flush=True)
for line in sys.stdin:
    name, count = line.split()
    print(0.5 * int(count), flush=True)
"""


# --- turns and ratios -------------------------------------------------------------------------------------------------


def test_pairs_take_turns_right_after_each_other_and_the_first_does_not_count() -> None:
    """Every round each pair makes its steps once, both orders occur; a time is a step's, not a turn's."""
    turns: list[tuple[str, int]] = []

    def fake(name: str, seconds: float) -> Any:
        def run(count: int) -> float:
            turns.append((name, count))
            return seconds * count

        return run

    pairs = [("a", "bare"), ("b", "bare"), ("c", "bare")]
    seconds = {"a": 2.0, "b": 3.0, "c": 4.0, "bare": 1.0}
    found = steps.measured({name: fake(name, each) for name, each in seconds.items()}, pairs, rounds=4, turn=5)
    assert found.rounds == {pair: [(seconds[pair[0]], 1.0)] * 4 for pair in pairs}
    assert {count for _, count in turns} == {5}
    taken = [(turns[i][0], turns[i + 1][0]) for i in range(0, len(turns), 2)]
    assert all("bare" in pair and pair != ("bare", "bare") for pair in taken)
    assert {pair.index("bare") for pair in taken} == {0, 1}
    others = ["".join(pair).replace("bare", "") for pair in taken]
    rounds = [tuple(others[i : i + 3]) for i in range(0, len(others), 3)]
    assert len(rounds) == 5
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_a_pair_that_is_named_twice_has_two_turns_a_round() -> None:
    """What is near its bar is measured more often than the rest."""
    both = [("a", "bare"), ("b", "bare"), ("a", "bare")]
    found = steps.measured({name: lambda count: 1.0 * count for name in ("a", "b", "bare")}, both, rounds=3, turn=1)
    assert {pair[0]: len(times) for pair, times in found.rounds.items()} == {"a": 6, "b": 3}


def test_a_ratio_is_the_median_of_rounds_not_of_times() -> None:
    """A round in which the machine was slow is slow for both; who was not compared has no ratio."""
    times = steps.Times({("one", "other"): [(1.0, 2.0), (30.0, 20.0), (1.0, 1.0)]})
    assert times.ratio("one", "other") == 1.0
    assert times.ratio("other", "one") is None
    assert times.ratio("one", "none") is None
    assert (times.median("one"), times.median("other")) == (1.0, 2.0)


def test_a_median_is_of_all_that_one_did() -> None:
    """The bare step stands in many pairs, on either side."""
    times = steps.Times({("a", "bare"): [(9.0, 1.0), (9.0, 2.0)], ("bare", "b"): [(6.0, 9.0)]})
    assert times.median("bare") == 2.0
    assert times.names() == ["a", "bare", "b"]


def test_step_ratios_have_both_ways_of_each_method() -> None:
    """What cannot be done by cached logits has none."""
    pairs = steps.pairs_of(["bare", "kd live", "kd cached", "at live", "peer kd"])
    assert pairs == [("kd live", "bare"), ("kd cached", "bare"), ("at live", "bare"), ("kd live", "peer kd")]
    seconds = ((3.0, 2.0), (2.1, 2.0), (4.0, 2.0), (3.0, 6.0))
    times = steps.Times({pair: [both] for pair, both in zip(pairs, seconds, strict=True)})
    assert times.step_ratios() == {"kd": {"live": 1.5, "cached": 1.05}, "at": {"live": 2.0, "cached": None}}
    assert times.ratio("kd live", "peer kd") == 0.5


# --- contestants ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What contestants are open in."""
    with ExitStack() as opened:
        yield opened


@pytest.mark.slow  # trains with every method
def test_every_method_is_there_live_and_those_of_logits_cached(tmp_path: Path, stack: ExitStack) -> None:
    """The bare step is beside them, and each makes its steps."""
    found = steps.contestants(TASK, list(METHODS), tmp_path, stack)
    live = {name.removesuffix(" live") for name in found if name.endswith(" live")}
    cached = {name.removesuffix(" cached") for name in found if name.endswith(" cached")}
    assert live == set(METHODS)
    assert cached == (set(LOGIT_METHODS) - {"none"}) | {"rco", "cooperative"}
    assert len(found) == 1 + len(live) + len(cached)
    assert all(run(1) > 0 for run in found.values())


def test_a_turn_is_so_many_steps_of_the_loop_itself(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of a copy; epoch after epoch, as long as anybody asks."""
    made: list[tuple[int, int]] = []
    original = Training.step

    def counted(self: Training, batch: Any, epoch: int, step: int) -> torch.Tensor:
        made.append((epoch, step))
        return original(self, batch, epoch, step)

    monkeypatch.setattr(Training, "step", counted)
    found = steps.contestants(TASK, ["kd"], tmp_path, stack)
    found["kd cached"](4)
    assert made == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_live_teachers_run_and_cached_ones_do_not(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is what the two columns compare."""
    asked: list[int] = []
    made = steps.Task.mentor

    def listened(self: Any) -> torch.nn.Module:
        module: torch.nn.Module = made(self)
        module.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
        return module

    monkeypatch.setattr(steps.Task, "mentor", listened)
    found = steps.contestants(TASK, ["dist"], tmp_path, stack)
    asked.clear()
    found["dist cached"](2)
    found["bare"](2)
    assert asked == []
    found["dist live"](2)
    assert asked == [4, 4]


def test_all_students_begin_alike(tmp_path: Path) -> None:
    """And teachers and pictures are the same at every start."""
    first, second = TASK.network().state_dict(), TASK.network().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(TASK.pictures().images, TASK.pictures().images)
    images = TASK.pictures().images
    assert torch.equal(TASK.mentor()(images), TASK.mentor()(images))


# --- the peer ---------------------------------------------------------------------------------------------------------


def interpreter(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "python"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_peer_is_told_the_task_and_asked_turn_by_turn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It answers with a turn's seconds, and ends with the block."""
    python = interpreter(tmp_path, FAKE_PEER.format(python=sys.executable))
    with bench.peers(python, TASK) as found:
        assert list(found) == ["peer kd", "peer dist"]
        assert found["peer kd"](3) == 1.5
        assert found["peer dist"](1) == 0.5
    assert TASK.student in capfd.readouterr().out


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\nread task\necho ready 1\nread turn\n"])
def test_a_peer_that_ends_early_is_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At its start or later."""
    with pytest.raises(bench.PeerFailed, match="peer"), bench.peers(interpreter(tmp_path, text), TASK) as found:
        found["peer kd"](1)


def test_a_peer_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """And names what was given."""
    with pytest.raises(bench.PeerFailed, match="nowhere cannot be started"), bench.peers(tmp_path / "nowhere", TASK):
        pass


class FakeBox:
    """Stands for torchdistill's box."""

    made: list[FakeBox] = []  # noqa: RUF012 - cleared by the fixture

    def __init__(self, teacher: Any, student: Any, sets: Any, config: dict[str, Any], **places: Any) -> None:
        self.teacher, self.student, self.config, self.places = teacher, student, config, places
        self.calls: list[str] = []
        FakeBox.made.append(self)

    def pre_epoch_process(self, epoch: int) -> None:
        self.calls.append("epoch")

    def pre_forward_process(self) -> None:
        self.calls.append("before")

    def forward_process(self, images: torch.Tensor, labels: torch.Tensor, more: Any) -> torch.Tensor:
        self.calls.append("forward")
        assert self.student(images).shape == self.teacher(images).shape == (len(labels), 10)
        return torch.zeros(())

    def post_forward_process(self, loss: torch.Tensor) -> None:
        self.calls.append("after")


@pytest.fixture
def torchdistill(monkeypatch: pytest.MonkeyPatch) -> type[FakeBox]:
    """A peer that need not be installed."""
    module: Any = ModuleType("torchdistill.core.distillation")
    module.DistillationBox = FakeBox
    for name in ("torchdistill", "torchdistill.core"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchdistill.core.distillation", module)
    monkeypatch.setattr(peer.importlib.metadata, "version", lambda name: "1.2.3")
    monkeypatch.setattr(peer.sys, "path", list(sys.path))
    FakeBox.made = []
    return FakeBox


def test_the_peers_script_makes_boxes_of_both_methods(torchdistill: type[FakeBox]) -> None:
    """The same networks, edgekd's weights, a frozen teacher in eval mode; a turn is so many steps of its own."""
    about = {
        "student": TASK.student,
        "teacher": TASK.teacher,
        "shape": TASK.shape,
        "classes": 10,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "learning_rate": 0.01,
    }
    answers = io.StringIO()
    assert peer.main(io.StringIO(f"{json.dumps(about)}\nkd 2\ndist 1\n"), answers) == 0
    lines = answers.getvalue().splitlines()
    assert lines[0] == "ready 1.2.3"
    assert [float(line) > 0 for line in lines[1:]] == [True, True]
    kd, dist = torchdistill.made
    assert kd.calls == ["epoch", *["before", "forward", "after"] * 2]
    assert dist.calls == ["epoch", "before", "forward", "after"]
    ours = TASK.network().state_dict()
    for box, method in ((kd, "kd"), (dist, "dist")):
        assert box.student.state_dict().keys() == ours.keys()
        assert not box.teacher.training
        assert box.config["teacher"]["requires_grad"] is False
        assert box.config["criterion"]["kwargs"]["sub_terms"] == peer.TERMS[method]
    assert kd.config["optimizer"]["kwargs"]["lr"] == 0.01


def test_the_peers_losses_are_weighed_as_edgekds() -> None:
    """0.1 cross entropy + 0.9 KD at 4, and cross entropy + 2 + 2 at 4."""
    kd, dist = METHODS["kd"](), METHODS["dist"]()
    theirs = peer.TERMS["kd"]["kd"]["criterion"]["kwargs"]
    assert (theirs["alpha"], theirs["temperature"]) == (getattr(kd, "hard_weight"), getattr(kd, "temperature"))  # noqa: B009
    theirs = peer.TERMS["dist"]["dist"]["criterion"]["kwargs"]
    assert [theirs[name] for name in ("beta", "gamma", "tau")] == [getattr(dist, n) for n in ("beta", "gamma", "tau")]


# --- reading and the cache --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(crop_padding=2, operators=1)])
def test_a_read_rate_counts_the_images_that_were_read(
    tmp_path: Path, augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many batches, those alone: the first makes ready."""
    clock = iter((10.0, 14.0))
    monkeypatch.setattr(feed.time, "process_time", lambda: next(clock))
    assert feed.read_rate(feed.Reading(8, 4, 3, augmentation), tmp_path) == 3 * 4 / 4.0


@pytest.mark.slow  # a teacher looks at 20,000 pictures
def test_a_large_cache_is_one_byte_a_logit_and_mapped(tmp_path: Path) -> None:
    """Two views of 100 classes, and eight bytes more a row."""
    facts = feed.cache_facts(tmp_path, samples=20_000)
    assert facts["mb"] == pytest.approx(20_000 * 2 * 108 / 1e6, abs=1e-3)
    assert facts["mapped"] is True
    assert facts["open_all_ms"] > 0
    assert facts["open_500_ms"] > 0


def test_a_small_cache_is_exact(tmp_path: Path) -> None:
    """So `mapped` can be false: it speaks of the large one's codes."""
    facts = feed.cache_facts(tmp_path, samples=200)
    assert facts["mb"] == pytest.approx(200 * 2 * 100 * 4 / 1e6, abs=1e-3)
    assert facts["mapped"] is False


# --- bars and the whole ----------------------------------------------------------------------------------------------


def result(**changes: Any) -> dict[str, Any]:
    at_the_bars = {
        "step_ratio": {"kd": {"live": 9.0, "cached": 1.05}, "dist": {"live": 9.0, "cached": 1.05}},
        "peer_ratio": {"kd": 1.0, "dist": 1.0},
        "loader": {"mirrored": 100.0},
        "loader_needs": 100.0,
        "cache_mb": 12.0,
        "cache": {"mapped": True},
    }
    return at_the_bars | changes


def test_a_bar_that_is_just_reached_holds() -> None:
    """And without a peer there is none to miss."""
    assert bench.missed_bars(result()) == []
    assert bench.missed_bars(result(peer_ratio=None)) == []
    assert bench.missed_bars(result(step_ratio={"at": {"live": 9.0, "cached": None}})) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step_ratio": {"kd": {"live": 1.0, "cached": 1.06}}}, "step_ratio.kd.cached is 1.060"),
        ({"step_ratio": {"dist": {"live": 1.0, "cached": 1.06}}}, "step_ratio.dist.cached is 1.060"),
        ({"peer_ratio": {"kd": 1.01, "dist": 0.5}}, "peer_ratio.kd is 1.010"),
        ({"loader": {"mirrored": 99.0}}, "loader.mirrored is 99 images/s"),
        ({"cache_mb": 12.1}, "cache_mb is 12.1"),
        ({"cache": {"mapped": False}}, "not mapped"),
        ({"gpu": {"step_ratio": {"kd": {"live": 1.0, "cached": 1.2}}}}, "gpu step_ratio.kd.cached is 1.200"),
    ],
)
def test_each_missed_bar_is_named_with_its_value(changes: dict[str, Any], named: str) -> None:
    """A result below one bar says which and by how much."""
    (missed,) = bench.missed_bars(result(**changes))
    assert named in missed


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tool measure little, and no GPU."""
    monkeypatch.setattr(bench, "STUDENT", TASK.student)
    monkeypatch.setattr(bench, "TEACHER", TASK.teacher)
    monkeypatch.setattr(bench, "QUICK", bench.Amount(4, 8, 1, 1, ("none", "kd", "dist", "sp")))
    monkeypatch.setattr(bench, "cache_facts", lambda folder: feed.cache_facts(folder, samples=200))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.slow  # trains
def test_the_json_file_has_its_keys(small: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """step_ratio by method and way, peer_ratio by method, cache_mb; torch has its threads back."""
    before = torch.get_num_threads()
    path = tmp_path / "result.json"
    python = interpreter(tmp_path, FAKE_PEER.format(python=sys.executable))
    assert bench.main(["--quick", "--json", str(path), "--peer-python", str(python)]) == 1  # an exact cache, above
    found = json.loads(path.read_text())
    assert set(found["step_ratio"]) == {"none", "kd", "dist", "sp"}
    assert all(ways["live"] > 0 for ways in found["step_ratio"].values())
    assert [name for name, ways in found["step_ratio"].items() if ways["cached"] is not None] == ["kd", "dist"]
    assert set(found["peer_ratio"]) == {"kd", "dist"}
    assert 0 < found["peer_ratio"]["kd"] < 1  # of half a second
    assert found["cache_mb"] == found["cache"]["mb"]
    assert "the cache is not mapped" in found["missed_bars"]
    assert torch.get_num_threads() == before
    assert "kd live over torchdistill's kd" in capfd.readouterr().out


@pytest.mark.slow  # trains, and cuts windows out of pictures
def test_a_gpu_is_measured_as_the_cpu_is(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here on a CPU that stands for one: steps of all methods, and what its loader gives and takes at 224x224."""
    for name in ("GPU_STUDENT", "GPU_STUDENT_224"):
        monkeypatch.setattr(bench, name, TASK.student)
    monkeypatch.setattr(bench, "GPU_TEACHER", TASK.teacher)
    monkeypatch.setattr(bench, "GPU", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "a GPU")
    found = bench.on_gpu(bench.QUICK, None)
    assert set(found["step_ratio"]) == {"none", "kd", "dist", "sp"}
    assert found["peer_ratio"] is None
    assert found["loader"]["windows"] > 0
    assert found["loader_needs"] > 0
    assert not bench.missed_bars(result(gpu=found | {"loader": {"windows": 1e9}, "step_ratio": {}}))


@pytest.mark.slow  # trains
def test_without_a_peer_there_is_no_ratio_to_it(small: None, tmp_path: Path) -> None:
    """Null, not nothing."""
    path = tmp_path / "result.json"
    bench.main(["--quick", "--json", str(path)])
    assert json.loads(path.read_text())["peer_ratio"] is None


def test_a_peer_that_cannot_be_used_ends_the_bench(
    small: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With one line that says what it needs."""
    assert bench.main(["--quick", "--peer-python", str(interpreter(tmp_path, "#!/bin/sh\nexit 3\n"))]) == 2
    assert "--peer-python must be able to import torchdistill" in capfd.readouterr().err


def test_the_students_and_teachers_are_there() -> None:
    """Those that are measured, on a CPU and on a GPU."""
    for text, teacher in ((bench.STUDENT, bench.TEACHER), (bench.GPU_STUDENT, bench.GPU_TEACHER)):
        task = steps.Task(text, teacher, 2, 2)
        images = torch.zeros(task.shape)
        assert task.network().eval()(images).shape == task.mentor()(images).shape == (2, 10)
    assert steps.Task(bench.GPU_STUDENT_224, bench.GPU_TEACHER, 2, 2).shape == (2, 3, 224, 224)
    assert np.prod(steps.Task(bench.STUDENT, bench.TEACHER, 64, 64).shape) == 64 * 3 * 32 * 32
