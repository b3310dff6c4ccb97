"""What is reckoned from samples, against slow and simple definitions."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import IDENTITY, SETTINGS, SIZES, make_sample

from edgekd.report import analysis
from edgekd.report.analysis import Point
from edgekd.report.data import Study, Target
from edgekd.search.reward import Reward
from edgekd.search.study_file import WARM, Sample, StudyHeader

pytestmark = pytest.mark.whole  # whole reports

TARGET = Target(10.0, "int8")


@st.composite
def point_lists(draw: st.DrawFn) -> list[Point]:
    """Draw samples whose latencies and accuracies often tie."""
    pairs = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10)), max_size=25))
    return [Point("search", make_sample(i, float(ms), accuracy / 10)) for i, (ms, accuracy) in enumerate(pairs)]


def study_of(samples: tuple[Sample, ...]) -> Study:
    """Make a study of these samples."""
    return Study(StudyHeader("seven-blocks", "0" * 64, SIZES, SETTINGS, 0, IDENTITY), 8, samples)


def value_of(point: Point) -> tuple[float, float]:
    """Return latency and accuracy."""
    return point.sample.predicted_ms["int8"], point.sample.proxy_accuracy


@given(point_lists())
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    """A value is on the front exactly if no other is as good in both and better in one."""
    values = {value_of(p) for p in points}
    unbeaten = {v for v in values if not any(w[0] <= v[0] and w[1] >= v[1] and w != v for w in values)}
    front = [value_of(p) for p in analysis.pareto_front(points, TARGET)]
    assert front == sorted(unbeaten)


@given(point_lists(), st.integers(0, 5))
def test_the_best_are_feasible_and_sorted(points: list[Point], count: int) -> None:
    """No sample under the target that was left out is better than one that was taken."""
    best = analysis.best_under(points, TARGET, count)
    accuracies = [p.sample.proxy_accuracy for p in best]
    feasible = sorted((p.sample.proxy_accuracy for p in points if TARGET.met_by(p.sample)), reverse=True)
    assert accuracies == feasible[:count]


def test_an_architecture_is_among_the_best_once() -> None:
    """A network that two searches found is listed with its better figure only."""
    first, second = make_sample(0, 5, 0.6), make_sample(0, 5, 0.7)
    assert analysis.best_under([Point("search", first), Point("baseline", second)], TARGET, 10) == (
        Point("baseline", second),
    )


@given(point_lists(), st.sets(st.integers(0, 24)))
def test_failed_samples_change_no_result(points: list[Point], failed: set[int]) -> None:
    """Front, best and running best are those of the other samples alone."""
    mixed = [fail(p) if p.sample.index in failed else p for p in points]
    rest = [p for p in points if p.sample.index not in failed]
    assert analysis.pareto_front(mixed, TARGET) == analysis.pareto_front(rest, TARGET)
    assert analysis.best_under(mixed, TARGET, 5) == analysis.best_under(rest, TARGET, 5)
    last = [analysis.running_best([p.sample for p in some], TARGET)[-1:] for some in (mixed, rest)]
    assert [best for _, best in last[0]] == [best for _, best in last[1]]


def fail(point: Point) -> Point:
    """Let a point's training fail; its accuracy must not count, whatever it is."""
    return replace(point, sample=replace(point.sample, failure="out of memory"))


@given(st.lists(st.floats(0, 100), max_size=80))
def test_the_running_median_is_that_of_the_window(values: list[float]) -> None:
    """Each place has the median of the last eighth, five at least."""
    window = max(5, len(values) // 8)
    slow = [statistics.median(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
    assert analysis.running_median(values) == pytest.approx(slow)


def test_the_running_best_begins_with_the_first_that_meets_the_target() -> None:
    """Samples above the target carry the best on and never set it."""
    samples = [make_sample(i, ms, a) for i, (ms, a) in enumerate([(11, 0.9), (10, 0.5), (12, 0.9), (9, 0.6)])]
    steps = analysis.running_best(samples, TARGET)
    assert [(s.index, best) for s, best in steps] == [(1, 0.5), (2, 0.5), (3, 0.6)]


def test_a_summary_compares_the_first_quarter_with_the_last() -> None:
    """Means are over a quarter of the rated samples each."""
    samples = tuple(replace(make_sample(i, 9 + i, 0.5 + i / 100), reward=float(i)) for i in range(8))
    summary = analysis.summarize(study_of(samples), TARGET)
    assert (summary.first_quarter_reward, summary.last_quarter_reward) == (0.5, 6.5)
    assert (summary.under_target, summary.seconds) == (2, 8.0)
    assert summary.best is samples[1]


def test_a_summary_counts_what_is_apart() -> None:
    """Failures by reason, trainings that were ended early, and samples of another study."""
    samples = (
        make_sample(0, 9, 0.5),
        replace(make_sample(1, 9, 0.0), failure="diverged"),
        replace(make_sample(2, 9, 0.0), failure="out of memory"),
        replace(make_sample(3, 9, 0.0), failure="diverged"),
        replace(make_sample(4, 9, 0.4), epochs=0),
        replace(make_sample(5, 9, 0.3), target=WARM),
    )
    summary = analysis.summarize(study_of(samples), TARGET)
    assert summary.failures == {"diverged": 2, "out of memory": 1}
    assert (summary.samples, summary.early, summary.taken_over) == (6, 1, 1)


def test_the_best_reward_need_not_be_the_best_under_the_target() -> None:
    """The soft reward buys accuracy with latency; a sample above the target can have the best."""
    samples = (make_sample(0, 10, 0.5), make_sample(1, 12, 0.9))
    summary = analysis.summarize(study_of(samples), TARGET)
    assert (summary.best, summary.best_reward) == samples


def test_a_summary_of_nothing_knows_nothing() -> None:
    """An empty study has no best and no means."""
    summary = analysis.summarize(study_of(()), TARGET)
    assert (summary.best, summary.first_quarter_reward, summary.last_quarter_reward) == (None, None, None)


def test_rank_correlation_sees_order_only() -> None:
    """It is 1 for any rising relation, -1 for a falling one, and nothing if a side is constant."""
    assert analysis.rank_correlation([1, 2, 3], [1, 10, 1000]) == pytest.approx(1)
    assert analysis.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert analysis.rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert analysis.rank_correlation([1, 1], [1, 2]) is None


def test_under_a_hard_reward_the_best_reward_meets_the_target() -> None:
    """As in the search's own outcome, though a network just above the target has the higher reward."""
    samples = (make_sample(0, 10.1, 0.9), make_sample(1, 9.0, 0.6))
    soft = study_of(samples)
    hard = replace(soft, header=replace(soft.header, settings=replace(SETTINGS, reward=Reward("hard"))))
    assert analysis.summarize(soft, TARGET).best_reward == samples[0]
    assert analysis.summarize(hard, TARGET).best_reward == samples[1]
