"""Calibration: it finds the coefficients that made the data, and judges itself on networks it has not seen."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_tables import fitting
from latency_tables.calibrate import MIN_NETWORKS, Calibration, calibrate, own_ms, uncalibrated
from latency_tables.fetching import Work
from latency_tables.fitting import Observation

pytestmark = pytest.mark.whole  # fits many tables

CALL_MS = 0.0005  # the fixed cost of a call where it was measured


def observations(count: int, seed: int, coefficients: tuple[float, ...], noise: float = 0.0) -> list[Observation]:
    """Make networks that measure what three coefficients say, give or take a relative error, whatever their weights."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        rows_ms, operators, weight_mb = rng.uniform(0.2, 2.0), rng.randint(30, 90), rng.uniform(0.05, 20.0)
        exact = sum(c * x for c, x in zip(coefficients, (rows_ms, operators, 1.0), strict=True))
        works = (Work(rows_ms / operators, weight_mb / operators),) * operators
        made.append(Observation(works, exact * (1 + rng.uniform(-noise, noise))))
    return made


def error_of(fit: Calibration, one: Observation) -> float:
    """Give the relative error of what a fit says of a network."""
    return abs(timed(fit, one).measured_ms / one.measured_ms - 1)


@given(
    scale=st.floats(0.5, 2.0),
    per_op_ms=st.floats(-0.0005, 0.002),
    offset_ms=st.floats(0.0, 0.02),
    seed=st.integers(0, 1000),
)
def test_it_recovers_the_coefficients_that_made_the_data(
    scale: float, per_op_ms: float, offset_ms: float, seed: int
) -> None:
    """Without noise every network left out is predicted far better than one can be measured.

    The coefficients themselves are held back a little by what physics says.
    """
    fit = calibrate(observations(24, seed, (scale, per_op_ms, offset_ms)))
    assert fit.heldout_max_error < 0.01
    assert fit.scale == pytest.approx(scale, rel=0.05)
    assert fit.networks == 24


@pytest.mark.parametrize(("noise", "share"), [(0.0, (0.95, 1.0)), (0.005, (0.8, 1.1)), (0.05, (0.4, 0.8))])
def test_what_networks_agree_on_is_believed(noise: float, share: tuple[float, float]) -> None:
    """A price of every operator that physics does not expect is found where networks agree, and hardly where not."""
    per_op_ms = 0.0005
    networks = [observations(20, seed, (1.0, per_op_ms, CALL_MS), noise) for seed in range(10)]
    found = [calibrate(each, CALL_MS).per_op_ms for each in networks]
    assert share[0] <= np.mean(found) / per_op_ms <= share[1]


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.05])
def test_a_constant_that_scatter_hints_at_is_not_believed(noise: float) -> None:
    """Networks far smaller than those that calibrate have little else, and no use for 2 µs of chance."""
    fits = [calibrate(observations(20, seed, (1.0, 0.0, CALL_MS), noise), CALL_MS) for seed in range(10)]
    assert max(abs(fit.offset_ms - CALL_MS) for fit in fits) < 0.002


def test_tiny_networks_are_made_of_calls() -> None:
    """What an operator costs beside its row, and a network beside both, may be a share of the cost of a call."""
    data = [
        dataclasses.replace(one, works=tuple(Work(w.own_ms / 100, w.weight_mb) for w in one.works))
        for one in observations(24, 1, (1.0, 0.0, 0.0))
    ]
    data = [dataclasses.replace(one, measured_ms=0.9 * one.rows_ms + 0.0001 * len(one.works) + CALL_MS) for one in data]
    assert calibrate(data, CALL_MS).heldout_max_error < 0.01


def test_rows_that_hold_a_call_are_freed_of_it_by_the_fit() -> None:
    """Where the cost of a call was not measured the networks tell it."""
    data = observations(24, 2, (1.0, -0.0015, 0.0), noise=0.01)
    assert calibrate(data).per_op_ms == pytest.approx(-0.0015, rel=0.2)


@pytest.mark.parametrize("is_lost", [False, True])
def test_the_error_is_that_of_networks_left_out(is_lost: bool) -> None:
    """Leaving each network out by hand gives the mean and the maximum that are kept, wherever weights come from."""
    data = observations(16, 3, (0.9, 0.001, 0.01), noise=0.05)
    if is_lost:
        truth = dataclasses.replace(uncalibrated(0.0), fetch_gb_per_s=30.0, far_gb_per_s=5.0, kept_ms=1.5)
        data = [timed(truth, one) for one in fetching(16, 1e6, 4)]
    errors = []
    for number, one in enumerate(data):
        rest = calibrate(data[:number] + data[number + 1 :])
        errors.append(error_of(rest, one))
    fit = calibrate(data)
    assert fit.heldout_mean_error == pytest.approx(np.mean(errors))
    assert fit.heldout_max_error == pytest.approx(max(errors))
    assert fit.heldout_mean_error < fit.interval_error < fit.heldout_max_error
    assert (fit.far_gb_per_s > 0) == is_lost


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform"])
def test_nine_of_ten_intervals_hold(draw: str) -> None:
    """Over many tables, about 90 % of further networks are within the interval, whatever the errors are drawn from."""
    rng, inside = np.random.default_rng(5), []
    for seed in range(60):
        data = observations(40, seed, (0.9, 0.001, 0.01))
        noise = {"normal": rng.normal(0, 1, 40), "laplace": rng.laplace(0, 0.7, 40), "uniform": rng.uniform(-2, 2, 40)}
        data = [
            dataclasses.replace(one, measured_ms=one.measured_ms * (1 + 0.02 * off))
            for one, off in zip(data, noise[draw], strict=True)
        ]
        fit = calibrate(data[:20])
        inside += [error_of(fit, one) <= fit.interval_error for one in data[20:]]
    assert 0.86 <= np.mean(inside) <= 0.95


def test_another_session_is_off_by_what_calm_visits_scatter() -> None:
    """An interval holds that beside the errors of the networks left out, which are of one session."""
    data = observations(20, 5, (1.0, 0.001, 0.0), noise=0.01)
    one, scattering = calibrate(data), calibrate([dataclasses.replace(each, scatter=0.04) for each in data])
    assert scattering.interval_error == pytest.approx(np.hypot(one.interval_error, 1.645 * 0.5 * 0.04))
    assert dataclasses.replace(scattering, interval_error=one.interval_error) == one


def fetching(count: int, gb_per_s: float, seed: int, most_mb: float = 1.5) -> list[Observation]:
    """Make networks whose operators compute or wait for their weights, whichever takes longer.

    They have no more weights than a core's own cache keeps, unless `most_mb` says otherwise.
    """
    rng, made = random.Random(seed), []
    for _ in range(count):
        operators = rng.randint(20, 60)
        own = [rng.uniform(0.01, 0.1) for _ in range(operators)]
        weights = [rng.choice((0.01, 0.1, rng.uniform(0.5, most_mb))) for _ in range(operators)]
        longer = (max(ms, mb / gb_per_s) for ms, mb in zip(own, weights, strict=True))
        made.append(Observation(tuple(map(Work, own, weights)), sum(longer)))
    return made


@pytest.mark.parametrize("gb_per_s", [5.0, 20.0])
def test_weights_that_take_longer_to_come_than_to_be_used_are_seen(
    gb_per_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a limit is found about where it is, and predicts networks far better than sums without one."""
    data, others = fetching(20, gb_per_s, 1), fetching(40, gb_per_s, 2)
    fit = calibrate(data)
    monkeypatch.setattr(fitting, "_KINDS", (fitting._NO_LIMIT,))
    fits = (fit, calibrate(data))
    errors, without = ([error_of(one, o) for o in others] for one in fits)
    assert fit.fetch_gb_per_s == pytest.approx(gb_per_s, rel=0.3)
    assert np.mean(errors) < np.mean(without) / 2
    assert fit.heldout_mean_error < fits[1].heldout_mean_error / 2


@pytest.mark.parametrize(("far_gb_per_s", "kept_ms"), [(5.0, 1.0), (8.0, 2.0)])
def test_weights_that_only_long_networks_lose_are_seen(far_gb_per_s: float, kept_ms: float) -> None:
    """Where others on the machine drive out what a network does not soon come back to, it is found how soon."""
    truth = dataclasses.replace(uncalibrated(0.0), far_gb_per_s=far_gb_per_s, kept_ms=kept_ms)
    data, others = ([timed(truth, one) for one in fetching(count, 1e6, seed)] for count, seed in ((20, 1), (40, 2)))
    fit = calibrate(data)
    assert fit.far_gb_per_s == pytest.approx(far_gb_per_s, rel=0.3)
    assert fit.kept_ms == pytest.approx(kept_ms, rel=0.3)
    assert np.mean([error_of(fit, one) for one in others]) < 0.01


def test_weights_hide_behind_the_first_rows_alone() -> None:
    """Of operators that give many pixels more is seen of the same rate, and a fit knows it."""
    truth = dataclasses.replace(uncalibrated(0.0), fetch_gb_per_s=10.0, kept_mb=1.5, rows_at_once=12.0)
    rng = random.Random(8)

    def made(seed: int) -> list[Observation]:
        plain = fetching(20, 1e6, seed)
        rows = ([rng.choice((1, 9, 36, 144, 576)) for _ in one.works] for one in plain)
        works = (
            tuple(Work(w.own_ms, w.weight_mb, r) for w, r in zip(one.works, each, strict=True))
            for one, each in zip(plain, rows, strict=True)
        )
        return [timed(truth, Observation(each, 0.0)) for each in works]

    fit, others = calibrate(made(1)), made(2)
    blind = dataclasses.replace(fit, rows_at_once=0.0)
    assert fit.rows_at_once == 12.0
    assert fit.fetch_gb_per_s == pytest.approx(10.0, rel=0.1)
    errors, without = (np.mean([error_of(one, other) for other in others]) for one in (fit, blind))
    assert errors < 0.005
    assert without > 10 * errors


def test_what_large_operators_fetched_alone_is_not_fetched_twice() -> None:
    """A fit knows that their rows hold it, and finds the rate at which the others' weights come."""
    truth = dataclasses.replace(uncalibrated(0.0), fetch_gb_per_s=10.0, kept_mb=1.5, at_hand_mb=1.5)
    fit, others = (
        calibrate([timed(truth, one) for one in fetching(20, 1e6, 1, most_mb=6.0)]),
        [timed(truth, one) for one in fetching(20, 1e6, 2, most_mb=6.0)],
    )
    blind = dataclasses.replace(fit, at_hand_mb=0.0)
    assert fit.at_hand_mb == 1.5
    assert fit.fetch_gb_per_s == pytest.approx(10.0, rel=0.1)
    errors, without = (np.mean([error_of(one, other) for other in others]) for one in (fit, blind))
    assert errors < 0.005
    assert without > 10 * errors


@pytest.mark.parametrize(("far_gb_per_s", "kept_ms"), [(0.5, 8.0), (1.0, 5.0)])
def test_a_little_that_networks_lose_says_nothing_of_longer_ones(far_gb_per_s: float, kept_ms: float) -> None:
    """What the fit says of the far ones was seen by the longest network, which lost most of its weights."""
    truth = dataclasses.replace(uncalibrated(0.0), far_gb_per_s=far_gb_per_s, kept_ms=kept_ms)
    data = [timed(truth, one) for one in fetching(20, 1e6, 1)]
    fit = calibrate(data)
    assert 0 < fit.kept_ms <= max(one.rows_ms for one in data) < kept_ms
    assert max(error_of(fit, timed(truth, one)) for one in fetching(40, 1e6, 2)) < 0.15


def timed(fit: Calibration, one: Observation) -> Observation:
    """Give a network the time that a fit says."""
    sums = np.array(list(map(fit.terms, one.works))).sum(axis=0)
    return dataclasses.replace(one, measured_ms=float(fit.sum_ms(sums)))


@pytest.mark.parametrize("networks", [MIN_NETWORKS, 20])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.05])
def test_weights_of_which_nothing_is_seen_are_not_fetched(noise: float, networks: int) -> None:
    """Networks that take what their rows say get no such limit, however much they scatter and few they are."""
    rng, found = np.random.default_rng(3), 0
    for seed in range(15):
        data = observations(networks, seed, (1.0, 0.001, 0.0))
        data = [dataclasses.replace(one, measured_ms=one.measured_ms * (1 + noise * rng.normal())) for one in data]
        fit = calibrate(data)
        found += fit.fetch_gb_per_s > 0 or fit.far_gb_per_s > 0
    assert found <= 1


def light(fetch_gb_per_s: float, seed: int) -> tuple[list[Observation], list[Observation]]:
    """Make networks of few weights, 20 that scatter and 40 that do not."""
    rng = np.random.default_rng(seed)
    truth = dataclasses.replace(uncalibrated(0.0), fetch_gb_per_s=fetch_gb_per_s, kept_mb=1.0)
    made = [
        timed(truth, dataclasses.replace(one, works=tuple(Work(w.own_ms, w.weight_mb / 4) for w in one.works)))
        for one in fetching(60, 1e6, seed, most_mb=2.0)
    ]
    noisy = [dataclasses.replace(one, measured_ms=one.measured_ms * (1 + 0.02 * rng.normal())) for one in made[:20]]
    return noisy, made[20:]


@pytest.mark.parametrize("gb_per_s", [10.0, 15.0])
def test_a_rate_that_heavier_networks_showed_needs_no_evidence(gb_per_s: float) -> None:
    """Of few weights too little is seen to believe in a limit; where it is known to be there, it predicts better."""
    alone, informed = [], []
    for seed in range(8):
        data, others = light(gb_per_s, seed)
        for fit, errors in ((calibrate(data), alone), (calibrate(data, 0.0, gb_per_s), informed)):
            errors.append(np.mean([error_of(fit, one) for one in others]))
    assert np.mean(informed) < 0.9 * np.mean(alone)


@pytest.mark.parametrize("gb_per_s", [10.0, 20.0, 60.0])
def test_a_rate_is_like_that_which_heavier_networks_showed(gb_per_s: float) -> None:
    """One machine has one memory: whatever some networks seem to say, it is about as fast for them."""
    for seed in range(4):
        fit = calibrate(light(10.0, seed)[0], 0.0, gb_per_s)
        assert gb_per_s / 2.6 <= fit.fetch_gb_per_s <= 2.6 * gb_per_s


@pytest.mark.parametrize("told_gb_per_s", [1.0, 60.0])
def test_a_rate_that_is_wrong_for_the_others_costs_little(told_gb_per_s: float) -> None:
    """The heavier networks may themselves be mistaken, by as much as ten times."""
    alone, misled = [], []
    for seed in range(4):
        data, others = light(10.0, seed)
        for fit, errors in ((calibrate(data), alone), (calibrate(data, 0.0, told_gb_per_s), misled)):
            errors.append(np.mean([error_of(fit, one) for one in others]))
    assert np.mean(misled) < np.mean(alone) + 0.005


def test_networks_that_clearly_see_no_limit_overrule_heavier_ones() -> None:
    """A cache may keep all weights of some and not of others."""
    for seed in range(4):
        fit = calibrate(light(1e6, seed)[0], 0.0, 2.0)
        assert (fit.fetch_gb_per_s, fit.far_gb_per_s) == (0.0, 0.0)


@pytest.mark.parametrize("noise", [0.005, 0.01])
@pytest.mark.parametrize("kept_mb", [0.3, 1.0, 3.0])
def test_a_cache_of_another_size_is_not_taken_for_one_that_loses_weights(kept_mb: float, noise: float) -> None:
    """What a cache keeps is not fitted, and networks short and long that keep as much are not told apart for it."""
    rng, found = np.random.default_rng(7), 0
    truth = dataclasses.replace(uncalibrated(0.0), fetch_gb_per_s=10.0, kept_mb=kept_mb)
    for seed in range(12):
        data = [timed(truth, one) for one in fetching(20, 1e6, seed)]
        data = [dataclasses.replace(one, measured_ms=one.measured_ms * (1 + noise * rng.normal())) for one in data]
        found += calibrate(data).far_gb_per_s > 0
    assert found <= 1


def test_networks_of_folded_operators_alone_do_not_break_a_fit() -> None:
    """They hold nothing that takes time, and are as legal in a file as others."""
    empty = [Observation((), 0.001 * (1 + number)) for number in range(12)]
    assert np.isfinite(dataclasses.astuple(calibrate(empty))).all()


@given(own=st.floats(1e-4, 10.0), weight_mb=st.floats(0.0, 50.0), rate=st.floats(1.0, 100.0), rows=st.integers(1, 5000))
def test_an_operator_takes_no_less_than_computing_and_no_more_than_that_and_fetching(
    own: float, weight_mb: float, rate: float, rows: int
) -> None:
    """Fetching goes on beside computing, so the longer of both is the least and their sum the most."""
    fit = dataclasses.replace(uncalibrated(0.0), fetch_gb_per_s=rate, rows_at_once=12.0)
    work = Work(own, weight_mb, rows)
    longest, together = max(own, weight_mb / rate), own + weight_mb / rate
    assert longest * (1 - 1e-9) <= fit.terms(work)[:2].sum() <= together * (1 + 1e-9)
    assert uncalibrated(0.0).terms(work).tolist() == [own, 0.0, 0.0, weight_mb, own]


def test_the_fixed_cost_is_taken_from_a_row_but_never_all_of_it() -> None:
    """A row is left with its own time; one that is all fixed cost keeps a little, for nothing is free."""
    assert own_ms(0.010, 0.001) == pytest.approx(0.009)
    assert 0 < own_ms(0.001, 0.001) < 0.0001


def test_without_networks_a_fit_is_as_expected_and_the_interval_wide() -> None:
    """That is scale 1, a quarter of a call an operator, and one call; the interval says how little that is worth."""
    fit = uncalibrated(0.001)
    assert (fit.scale, fit.per_op_ms, fit.offset_ms, fit.fetch_gb_per_s) == (1.0, 0.00025, 0.001, 0.0)
    assert fit.networks == 0
    assert fit.interval_error >= 0.2


def test_one_network_that_fits_nothing_shows_in_the_maximum() -> None:
    """A network twice as slow as its rows say is off by about half its time when it is left out."""
    data = observations(24, 5, (1.0, 0.0, 0.0))
    data[7] = dataclasses.replace(data[7], measured_ms=2 * data[7].measured_ms)
    fit = calibrate(data)
    assert fit.heldout_max_error > 0.4
    assert fit.heldout_mean_error < fit.heldout_max_error / 4


def test_the_scale_of_the_rows_stays_positive() -> None:
    """Data in which slower rows mean faster networks is fitted with fewer terms, never with a negative scale."""
    data = observations(24, 1, (-0.5, 0.05, 3.0))
    fit = calibrate(data)
    assert fit.scale > 0
    assert fit.heldout_max_error > 0.01


def test_the_order_of_networks_is_irrelevant() -> None:
    """A resumed build, which measures in another order, gets the same fit."""
    data = observations(12, 2, (0.9, 0.001, 0.01), noise=0.02)
    forward, backward = calibrate(data), calibrate(data[::-1])
    assert dataclasses.astuple(forward) == pytest.approx(dataclasses.astuple(backward), rel=1e-6)


def test_too_few_networks_are_refused() -> None:
    """The message says how many there are and how many are needed."""
    data = observations(MIN_NETWORKS, 0, (1.0, 0.0, 0.0))
    assert calibrate(data).networks == MIN_NETWORKS
    with pytest.raises(ValueError, match=r"7 networks are too few .* at least 8"):
        calibrate(data[1:])
