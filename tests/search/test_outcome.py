"""What a study found: best reward, best under the target, and the front, of which failures are never a part."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import NARROW, random_archs

from edgekd.search.errors import NoneUnderTarget
from edgekd.search.outcome import Outcome, outcome_at, outcomes, top_under
from edgekd.search.reward import Reward
from edgekd.search.study_file import Sample, StudyHeader, StudyRecord, StudySettings

ARCHS = random_archs(NARROW, 20, 3)
SOFT = Reward("soft")
values = st.tuples(st.integers(1, 9), st.integers(0, 9))  # few values, so many ties


def sample(index: int, tenths_ms: int, tenths: int, failure: str = "") -> Sample:
    """Make a sample from a predicted latency and an accuracy, both in tenths."""
    arch, predicted = ARCHS[index], {"float32": 100.0, "int8": tenths_ms / 10}
    rest = (0.0, 1.0, 1, 1, None, failure, "", 0)
    return Sample(index, NARROW.choices(arch), str(arch), arch.arch_id, predicted, None, tenths / 10, *rest)


def record(samples: list[Sample], *targets_ms: float, reward: Reward = SOFT) -> StudyRecord:
    """Make a study of them."""
    settings = StudySettings("random", 20, 4, 0, targets_ms, "int8", reward)
    header = StudyHeader(NARROW.name, NARROW.sha256, NARROW.decision_sizes, settings)
    return StudyRecord(header, tuple(samples))


@given(pairs=st.lists(values, min_size=1, max_size=20), target=st.integers(1, 9))
def test_the_winner_is_the_most_accurate_under_the_target(pairs: list[tuple[int, int]], target: int) -> None:
    """Never one above it; of equals the faster, then the earlier; none is an error that names the nearest."""
    samples = [sample(i, *pair) for i, pair in enumerate(pairs)]
    found = outcome_at(samples, target / 10, "int8", SOFT)
    feasible = [pair for pair in pairs if pair[0] <= target]
    if not feasible:
        assert found.best_under_target is None
        with pytest.raises(NoneUnderTarget) as caught:
            found.winner()
        nearest = min(pairs)[0] / 10
        assert f"none of {len(pairs)} samples is predicted under {target / 10:.4g} ms (int8)" in str(caught.value)
        assert f"is at {nearest:.4g} ms; raise --target-ms or --budget" in str(caught.value)
        return
    won = found.winner()
    best = max(accuracy for _, accuracy in feasible)
    fastest = min(tenths_ms for tenths_ms, accuracy in feasible if accuracy == best)
    assert won.index == pairs.index((fastest, best))
    assert won.predicted_ms["int8"] <= found.target_ms


@given(pairs=st.lists(values, min_size=1, max_size=20), target=st.integers(1, 9))
def test_the_best_reward_is_nobodys_second(pairs: list[tuple[int, int]], target: int) -> None:
    """At the target that is asked for, whatever target the sample was proposed for."""
    samples = [sample(i, *pair) for i, pair in enumerate(pairs)]
    found = outcome_at(samples, target / 10, "int8", SOFT)
    rewards = [SOFT(accuracy / 10, ms / 10, target / 10) for ms, accuracy in pairs]
    assert found.best_reward.reward == max(rewards) == rewards[found.best_reward.index]


@given(pairs=st.lists(values, min_size=1, max_size=20))
def test_nobody_beats_one_of_the_front(pairs: list[tuple[int, int]]) -> None:
    """And everybody else is beaten, or equal to one of them."""
    samples = [sample(i, *pair) for i, pair in enumerate(pairs)]
    front = outcome_at(samples, 0.5, "int8", SOFT).front
    for other in samples:
        assert any(
            member.predicted_ms["int8"] <= other.predicted_ms["int8"] and member.proxy_accuracy >= other.proxy_accuracy
            for member in front
        )
    places = [(member.predicted_ms["int8"], member.proxy_accuracy) for member in front]
    assert places == sorted(set(places))


def test_a_hard_reward_takes_what_is_under_the_target_first() -> None:
    """One just above it that is more accurate has the higher reward, and loses all the same."""
    samples = [sample(0, 5, 5), sample(1, 6, 9)]
    assert outcome_at(samples, 0.5, "int8", Reward("hard")).best_reward.index == 0
    assert outcome_at(samples, 0.5, "int8", Reward("soft")).best_reward.index == 1
    assert outcome_at(samples, 0.4, "int8", Reward("hard")).best_reward.index == 1


def test_a_failure_wins_nothing() -> None:
    """It is counted, and neither the fastest nor anything else."""
    samples = [sample(0, 1, 0, "it diverged"), sample(1, 3, 0)]
    found = outcome_at(samples, 0.5, "int8", SOFT)
    assert (found.best_reward.index, found.winner().index, [s.index for s in found.front]) == (1, 1, [1])
    assert (found.samples, found.failures) == (2, 1)


def test_where_all_failed_the_last_reason_is_named() -> None:
    """There is nothing to choose from."""
    with pytest.raises(NoneUnderTarget, match=r"none of 2 candidates could be rated, .*: out of memory; see that"):
        outcomes(record([sample(0, 1, 0, "it diverged"), sample(1, 3, 0, "out of memory")], 0.5))


def test_each_target_has_an_outcome_from_all_samples() -> None:
    """Also from those that were proposed for another target."""
    samples = [
        replace(sample(0, 5, 5), target=0),
        replace(sample(1, 2, 4), target=1),
        replace(sample(2, 8, 9), target=-1),
    ]
    found = outcomes(record(samples, 0.8, 0.3, 0.1))
    assert [o.best_under_target.index if o.best_under_target else None for o in found] == [2, 1, None]
    assert [o.target_ms for o in found] == [0.8, 0.3, 0.1]


def test_what_was_measured_overrules_what_was_predicted() -> None:
    """The winner by the table is above the target on the device."""
    samples = [sample(0, 5, 9), sample(1, 5, 8), sample(2, 4, 7)]
    whole = record(samples, 0.5)
    assert outcomes(whole)[0].winner().index == 0
    (found,) = outcomes(whole, {0: 0.6, 1: 0.5})
    assert found.winner().index == 1
    assert found.winner().measured_ms == 0.5
    (none,) = outcomes(whole, {0: 0.6, 1: 0.7, 2: 0.8})
    with pytest.raises(NoneUnderTarget, match=r"none of 3 samples is measured under 0\.5 ms"):
        none.winner()


def test_the_best_by_the_table_are_worth_measuring() -> None:
    """Under the target, most accurate first, without failures; as many as there are."""
    samples = [sample(0, 5, 7), sample(1, 4, 9, "lost"), sample(2, 4, 8), sample(3, 9, 9), sample(4, 3, 7)]
    whole = record(samples, 0.5)
    (found,) = outcomes(whole)
    assert [s.index for s in top_under(whole, found, 2)] == [2, 4]
    assert [s.index for s in top_under(whole, found, 9)] == [2, 4, 0]


def test_an_outcome_names_all_three_in_json() -> None:
    """Best reward, best under the target, and the front with its latencies."""
    content = outcome_at([sample(0, 5, 9), sample(1, 4, 8)], 0.45, "int8", SOFT).as_json()
    assert content["best_reward"]["index"] == 0
    assert content["best_under_target"]["index"] == 1
    assert [point["latency_ms"] for point in content["pareto_front"]] == [0.4, 0.5]
    assert isinstance(outcome_at([sample(0, 5, 9)], 0.4, "int8", SOFT), Outcome)
