"""Following a study: what is best so far, how long it still takes, and scalars of every new sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import NARROW, random_archs

from edgekd.progress import Silent, Standing
from edgekd.search.reward import Reward
from edgekd.search.study_file import Sample, StudySettings
from edgekd.watching import ScalarBoard, StudyWatcher

ARCHS = random_archs(NARROW, 9, 3)
SETTINGS = StudySettings("random", 8, 4, 0, (0.5, 0.3), "int8", Reward("soft"))


class Kept(Silent):
    """Keeps every standing."""

    def __init__(self) -> None:
        self.standings: list[Standing] = []

    def standing(self, standing: Standing) -> None:
        self.standings.append(standing)


def sample(index: int, ms: float, accuracy: float, target: int = 0, failure: str = "") -> Sample:
    """Make a sample of one epoch."""
    arch, predicted = ARCHS[index], {"float32": 9.0, "int8": ms}
    reward = SETTINGS.reward(accuracy, ms, SETTINGS.targets_ms[max(0, target)])
    rest = (reward, 1.0, 1, 1, None, failure, "", target)
    return Sample(index, NARROW.choices(arch), str(arch), arch.arch_id, predicted, None, accuracy, *rest)


@pytest.fixture
def clock() -> Iterator[int]:
    """Tick a second a question."""
    return iter(range(1000))


def test_the_best_and_the_front_are_those_so_far(clock: Iterator[int]) -> None:
    """At the target that is searched for; what failed is counted and wins nothing; warm samples count for no budget."""
    kept = Kept()
    watcher = StudyWatcher(SETTINGS, kept, clock=lambda: float(next(clock)))
    watcher.recalled(sample(0, 0.45, 0.8, target=-1))
    watcher.sampled(sample(1, 0.6, 0.9))
    watcher.sampled(sample(2, 0.1, 0.0, failure="it diverged"))
    watcher.sampled(sample(3, 0.25, 0.6, target=1))
    first, second, third = kept.standings
    assert (first.done, first.total, first.failures, first.target_ms) == (1, 8, 0, 0.5)
    assert first.best_under_target is not None
    assert first.best_under_target.name == ARCHS[0].arch_id
    assert first.best_reward.name == ARCHS[1].arch_id
    assert [best.accuracy for best in first.front] == [0.8, 0.9]
    assert (second.failures, second.front) == (1, first.front)
    assert third.target_ms == 0.3
    assert third.best_under_target is not None
    assert third.best_under_target.name == ARCHS[3].arch_id
    assert [best.latency_ms for best in third.front] == [0.25, 0.45, 0.6]


def test_under_a_hard_reward_the_best_is_under_the_target() -> None:
    """As in the outcome: a candidate just above the target may have the higher reward, and does not win."""
    kept = Kept()
    watcher = StudyWatcher(replace(SETTINGS, reward=Reward("hard")), kept)
    watcher.sampled(sample(0, 0.51, 0.9))
    watcher.sampled(sample(1, 0.4, 0.6))
    above, under = (standing.best_reward for standing in kept.standings)
    assert (above.name, under.name) == (ARCHS[0].arch_id, ARCHS[1].arch_id)
    assert above.reward > under.reward


def test_the_time_left_is_told_from_new_samples_alone(clock: Iterator[int]) -> None:
    """What was in the file took no time."""
    kept = Kept()
    watcher = StudyWatcher(SETTINGS, kept, clock=lambda: float(next(clock)))
    for index in range(4):
        watcher.recalled(sample(index, 0.4, 0.5))
    watcher.sampled(sample(4, 0.4, 0.5))
    assert kept.standings[-1].seconds_left == 3.0


def test_scalars_are_written_for_tensorboard(tmp_path: Path) -> None:
    """And can be read by TensorBoard's own reader; a failure has no accuracy."""
    from tensorboard.backend.event_processing import event_file_loader as loader

    with ScalarBoard(tmp_path) as board:
        watcher = StudyWatcher(SETTINGS, Silent(), board.write)
        watcher.recalled(sample(0, 0.45, 0.8))
        watcher.sampled(sample(1, 0.4, 0.9))
        watcher.sampled(sample(2, 0.1, 0.0, failure="it diverged"))
    (file,) = tmp_path.iterdir()
    events = [event for event in loader.EventFileLoader(str(file)).Load() if event.summary.value]
    steps = {event.step: {v.tag: v.tensor.float_val[0] for v in event.summary.value} for event in events}
    assert steps.keys() == {2, 3}
    assert steps[2]["search/proxy_accuracy"] == pytest.approx(0.9)
    assert steps[2]["search/best_accuracy_under_target"] == pytest.approx(0.9)
    assert "search/proxy_accuracy" not in steps[3]
    assert steps[3]["search/failures"] == 1.0
