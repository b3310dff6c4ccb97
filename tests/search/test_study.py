"""Studies: every sample is kept, a killed study ends as an undisturbed one, and the winner is under the target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import NARROW, random_archs, table_for, tiny_space

from edgekd.errors import UnknownName
from edgekd.search.latency import LatencyModel
from edgekd.search.reward import Reward
from edgekd.search.study import NoneUnderTarget, Sample, Study, StudySettings, winner
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.space import Space
from latency_tables.errors import FileDamaged, OtherSettings

SETTINGS = StudySettings("random", 12, 4, 7, 0.05, "int8", Reward("soft"))
IDENTITY = {"teacher": "abc", "table": "def"}
TINY = LatencyModel.of(tiny_space(), table_for(tiny_space()))


def accuracy_of(arch: Arch) -> float:
    """Give each architecture an accuracy of its own."""
    return int.from_bytes(hashlib.sha256(str(arch).encode()).digest()[:4], "big") / 2**32


class PulledPlug(Exception):
    """The process is gone."""


@dataclass
class FakeProxy:
    """Rates architectures by a formula, and dies when it is to rate one too many."""

    dies_after: int = 10**9
    rated: list[Arch] = field(default_factory=list)

    def evaluate(self, archs: Sequence[Arch]) -> Iterator[tuple[float, float]]:
        for arch in archs:
            if len(self.rated) == self.dies_after:
                raise PulledPlug
            self.rated.append(arch)
            yield accuracy_of(arch), 1.25


def study(path: Path, latency: LatencyModel = TINY, **changes: Any) -> Study:
    """Bind a study to a file."""
    return Study(replace(SETTINGS, **changes), latency, path, IDENTITY)


def edit_line(path: Path, number: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change one line of a journal."""
    lines = path.read_text().splitlines()
    entry = json.loads(lines[number - 1])
    edit(entry)
    lines[number - 1] = json.dumps(entry, separators=(",", ":"))
    path.write_text("\n".join(lines) + "\n")


def test_a_study_rates_as_many_distinct_architectures_as_its_budget(tmp_path: Path) -> None:
    """Samples hold what was predicted, rated and rewarded, in the order in which they are in the journal."""
    proxy, told = FakeProxy(), []
    samples = study(tmp_path / "search.jsonl").run(proxy.evaluate, told.append)
    assert [s.index for s in samples] == list(range(12))
    assert [s.arch for s in samples] == proxy.rated
    assert len(set(proxy.rated)) == 12
    assert told == samples
    for sample in samples:
        assert sample.proxy_accuracy == accuracy_of(sample.arch)
        assert sample.predicted_ms == TINY.predicted_ms(sample.arch)
        assert sample.reward == Reward("soft")(sample.proxy_accuracy, sample.predicted_ms["int8"], 0.05)
        assert sample.macs == graph_of(TINY.space, sample.arch).macs
    lines = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    assert lines[1:] == [sample.as_json() for sample in samples]
    assert lines[1]["arch_id"] == samples[0].arch.arch_id


def test_batches_are_as_large_as_asked_for_and_the_last_one_fits(tmp_path: Path) -> None:
    """A budget of 10 in batches of 4 is 4, 4 and 2."""
    sizes: list[int] = []

    def evaluate(archs: Sequence[Arch]) -> Iterator[tuple[float, float]]:
        sizes.append(len(archs))
        return FakeProxy().evaluate(archs)

    study(tmp_path / "search.jsonl", budget=10).run(evaluate)
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize("engine", ["random", pytest.param("akd", marks=pytest.mark.slow)])  # which trains its agent
def test_a_study_stopped_at_any_sample_ends_as_an_undisturbed_one(tmp_path: Path, engine: str) -> None:
    """The journal is the same byte for byte, and nothing that was rated is rated again."""
    whole = tmp_path / "whole.jsonl"
    budget = 12 if engine == "random" else 8
    samples = study(whole, engine=engine, budget=budget).run(FakeProxy().evaluate)
    for dies_after in range(12) if engine == "random" else (6,):
        path = tmp_path / f"{dies_after}.jsonl"
        first, second = FakeProxy(dies_after), FakeProxy()
        with pytest.raises(PulledPlug):
            study(path, engine=engine, budget=budget).run(first.evaluate)
        assert study(path, engine=engine, budget=budget).run(second.evaluate) == samples
        assert path.read_bytes() == whole.read_bytes()
        assert first.rated + second.rated == [sample.arch for sample in samples]


def test_a_study_cut_in_the_middle_of_a_line_goes_on(tmp_path: Path) -> None:
    """What a kill left of a line is dropped, and its sample alone is rated again."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    whole = path.read_bytes()
    for size in range(len(whole) - 200, len(whole), 37):
        path.write_bytes(whole[:size])
        proxy = FakeProxy()
        study(path).run(proxy.evaluate)
        assert path.read_bytes() == whole
        assert len(proxy.rated) == 12 - (whole[:size].count(b"\n") - 1)


def test_a_finished_study_is_read_without_rating_anything(tmp_path: Path) -> None:
    """Its samples are told again, for progress and report."""
    path, told = tmp_path / "search.jsonl", []
    samples = study(path).run(FakeProxy().evaluate)
    before = path.read_bytes()
    assert study(path).run(FakeProxy(dies_after=0).evaluate, told.append) == samples == told
    assert path.read_bytes() == before


CHANGES: dict[str, Any] = {
    "engine": "akd",
    "budget": 13,
    "batch": 3,
    "seed": 8,
    "target_ms": 0.06,
    "target_dtype": "float32",
    "reward": Reward("hard"),
}


@pytest.mark.parametrize(("name", "value"), CHANGES.items(), ids=CHANGES)
def test_other_settings_are_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    """A journal is continued under its own settings or not at all."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    with pytest.raises(OtherSettings, match=f"was begun with {name} "):
        study(path, **{name: value}).run(FakeProxy().evaluate)


def test_another_teacher_or_space_is_refused(tmp_path: Path) -> None:
    """What else the samples depend on is part of the header, as hashes and names."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    with pytest.raises(OtherSettings, match="begun with teacher 'abc', not 'xyz'"):
        replace(study(path), identity=IDENTITY | {"teacher": "xyz"}).run(FakeProxy().evaluate)
    other = replace(TINY, space=replace(TINY.space, name="tinier"))
    with pytest.raises(OtherSettings, match="begun with space 'tiny', not 'tinier'"):
        study(path, latency=other).run(FakeProxy().evaluate)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda e: e.update(proxy_accuracy=0.99), "it is not sample 3 of this study"),
        (lambda e: e.update(reward=0.99), "it is not sample 3"),
        (lambda e: e.update(arch=str(TINY.space.reference())), "it is not sample 3"),
        (lambda e: e.update(arch_id="0" * 12), "it is not sample 3"),
        (lambda e: e.update(index=4), "it is not sample 3"),
        (lambda e: e["predicted_ms"].update(int8=0.001), "it is not sample 3"),
        (lambda e: e.pop("macs"), "it is not sample 3"),
        (lambda e: e.update(extra=1), "it is not sample 3"),
        (lambda e: e.update(proxy_accuracy="0.5"), "'0.5' is no accuracy or time"),
        (lambda e: e.update(proxy_accuracy=True), "True is no accuracy"),
        (lambda e: e.update(proxy_accuracy=-0.5), "-0.5 is no accuracy"),
        (lambda e: e.update(proxy_accuracy=10**400), "is no accuracy"),
        (lambda e: e.update(seconds=None), "None is no accuracy or time"),
        (lambda e: e.pop("seconds"), "None is no accuracy or time"),
    ],
)
def test_a_changed_sample_is_refused_with_its_line(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    """What a sample says must be what its study would say; the file is left as it is."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    edit_line(path, 5, edit)
    before = path.read_bytes()
    with pytest.raises(FileDamaged, match=f"line 5: .*{reason}"):
        study(path).run(FakeProxy(dies_after=0).evaluate)
    assert path.read_bytes() == before


def test_swapped_and_surplus_samples_are_refused(tmp_path: Path) -> None:
    """The order is the engine's, and a journal ends where its study does."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(FileDamaged, match="line 2: it is not sample 0"):
        study(path).run(FakeProxy().evaluate)
    path.write_bytes(b"".join([*lines, lines[-1]]))
    with pytest.raises(FileDamaged, match="line 14: this study ends after 12 samples"):
        study(path).run(FakeProxy().evaluate)


def small(space: Space) -> LatencyModel:
    """Keep two choices of each block: 4 architectures in all."""
    blocks = tuple(
        replace(b, conv_ops=("mb3",), se_ratios=(0.0,), skip_ops=("pool",), layers=(1,)) for b in space.blocks
    )
    return replace(TINY, space=replace(space, name="smallest", blocks=blocks))


@pytest.mark.parametrize("engine", ["random", "akd"])
def test_an_exhausted_space_ends_the_study(tmp_path: Path, engine: str) -> None:
    """All four architectures are rated once, and a second run finds the study finished."""
    path, latency = tmp_path / "search.jsonl", small(TINY.space)
    samples = study(path, latency, engine=engine).run(FakeProxy().evaluate)
    assert len(samples) == len({s.arch for s in samples}) == latency.space.size == 4
    assert study(path, latency, engine=engine).run(FakeProxy(dies_after=0).evaluate) == samples


def test_an_unknown_engine_is_refused_before_a_file_is_begun(tmp_path: Path) -> None:
    """A typing error leaves nothing behind."""
    with pytest.raises(UnknownName, match="unknown search engine 'adk': did you mean 'akd'"):
        study(tmp_path / "search.jsonl", engine="adk").run(FakeProxy().evaluate)
    assert not list(tmp_path.iterdir())


ARCHS = random_archs(NARROW, 20, 3)
values = st.tuples(st.integers(1, 9), st.integers(0, 9))  # few values, so many ties


def sample(index: int, tenths_ms: int, tenths: int) -> Sample:
    """Make a sample from a predicted latency and an accuracy, both in tenths."""
    predicted = {"float32": 100.0, "int8": tenths_ms / 10}
    return Sample(index, ARCHS[index], predicted, tenths / 10, 0.0, 1.0, 1)


@given(pairs=st.lists(values, min_size=1, max_size=20), target=st.integers(1, 9))
def test_the_winner_is_the_most_accurate_under_the_target(pairs: list[tuple[int, int]], target: int) -> None:
    """Never one above it; of equals the faster, then the earlier; none is an error that names the nearest."""
    samples = [sample(i, *pair) for i, pair in enumerate(pairs)]
    settings = replace(SETTINGS, target_ms=target / 10, target_dtype="int8")
    feasible = [pair for pair in pairs if pair[0] <= target]
    if not feasible:
        with pytest.raises(NoneUnderTarget) as caught:
            winner(samples, settings)
        nearest = min(pairs)[0] / 10
        assert f"none of {len(pairs)} samples is predicted under {target / 10:.4g} ms (int8)" in str(caught.value)
        assert f"is at {nearest:.4g} ms; raise --target-ms or --budget" in str(caught.value)
        return
    won = winner(samples, settings)
    best = max(accuracy for _, accuracy in feasible)
    fastest = min(tenths_ms for tenths_ms, accuracy in feasible if accuracy == best)
    assert won.index == pairs.index((fastest, best))
    assert won.predicted_ms["int8"] <= settings.target_ms
