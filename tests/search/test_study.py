"""Studies: every sample is kept, a killed study ends as an undisturbed one, and a budget is never exceeded."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import line_count, make_read_only, wait_until
from studies import IDENTITY, SETTINGS, TINY, FakeProxy, PulledPlug, Witness, accuracy_of, edit_line, plain_lines, study
from studies import write_lines as write_plain
from synthetic import small_disk

from edgekd.errors import UnknownName
from edgekd.search import study as study_module
from edgekd.search.engines import Choices, EngineSettings, Evaluated
from edgekd.search.errors import LowerBudget, OtherVersion
from edgekd.search.latency import LatencyModel
from edgekd.search.rated import Rated
from edgekd.search.reward import Reward
from edgekd.search.study_file import MEASURED
from edgekd.spaces.arch import Arch
from edgekd.spaces.layers import graph_of
from edgekd.spaces.space import Space
from latency_tables.errors import FileDamaged, FileNotWritable, OtherSettings
from latency_tables.journal import Journal

pytestmark = pytest.mark.whole  # whole searches


def test_a_study_rates_as_many_distinct_architectures_as_its_budget(tmp_path: Path) -> None:
    """Samples hold what was predicted, rated and rewarded, in the order in which they are in the file."""
    proxy, witness = FakeProxy(), Witness()
    samples = study(tmp_path / "search.jsonl").run(proxy.evaluate, witness).samples
    assert [s.index for s in samples] == list(range(12))
    assert [s.arch for s in samples] == [str(arch) for arch in proxy.rated]
    assert len(set(proxy.rated)) == 12
    assert tuple(witness.sampled_ones) == samples
    for sample in samples:
        arch = Arch.parse(sample.arch)
        assert (TINY.space.arch(sample.choices), sample.arch_id) == (arch, arch.arch_id)
        assert sample.proxy_accuracy == accuracy_of(arch)
        assert sample.predicted_ms == TINY.predicted_ms(arch)
        assert sample.reward == Reward("soft")(sample.proxy_accuracy, sample.predicted_ms["int8"], 0.05)
        assert sample.macs == graph_of(TINY.space, arch).macs
        assert (sample.target, sample.failure, sample.measured_ms) == (0, "", None)
    assert plain_lines(tmp_path / "search.jsonl")[1:] == [
        sample.as_json() | {"choices": list(sample.choices)} for sample in samples
    ]


def test_batches_are_as_large_as_asked_for_and_the_last_one_fits(tmp_path: Path) -> None:
    """A budget of 10 in batches of 4 is 4, 4 and 2; a budget of 1 is 1."""
    for budget, batches in ((10, [4, 4, 2]), (1, [1])):
        proxy = FakeProxy()
        study(tmp_path / f"{budget}.jsonl", budget=budget).run(proxy.evaluate)
        assert proxy.batches == batches


LEARNING = [pytest.param(name, marks=pytest.mark.slow) for name in ("akd", "reinforce", "nsga2", "tpe")]


@pytest.mark.parametrize("engine", ["random", "evolution", *LEARNING])
def test_a_study_stopped_at_any_sample_ends_as_an_undisturbed_one(tmp_path: Path, engine: str) -> None:
    """The file is the same byte for byte, and nothing that was rated is rated again."""
    whole = tmp_path / "whole.jsonl"
    budget = 12 if engine == "random" else 10
    samples = study(whole, engine=engine, budget=budget).run(FakeProxy().evaluate).samples
    for dies_after in range(12) if engine == "random" else (6,):
        path = tmp_path / f"{dies_after}.jsonl"
        first, second, witness = FakeProxy(dies_after), FakeProxy(), Witness()
        with pytest.raises(PulledPlug):
            study(path, engine=engine, budget=budget).run(first.evaluate)
        assert study(path, engine=engine, budget=budget).run(second.evaluate, witness).samples == samples
        assert path.read_bytes() == whole.read_bytes()
        assert [str(arch) for arch in first.rated + second.rated] == [sample.arch for sample in samples]
        assert len(witness.recalled_ones) == dies_after


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
    path, witness = tmp_path / "search.jsonl", Witness()
    samples = study(path).run(FakeProxy().evaluate).samples
    before = path.read_bytes()
    assert study(path).run(FakeProxy(dies_after=0).evaluate, witness).samples == samples
    assert tuple(witness.recalled_ones) == samples
    assert path.read_bytes() == before


def test_an_open_study_keeps_what_it_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines have become samples; the journal keeps those that were appended since, and no others."""
    path, journals = tmp_path / "search.jsonl", list[Journal]()
    samples = study(path, budget=5).run(FakeProxy().evaluate).samples

    def opened(*args: Any, **named: Any) -> Journal:
        journals.append(Journal(*args, **named))
        return journals[-1]

    monkeypatch.setattr(study_module, "Journal", opened)
    found = study(path, budget=8).run(FakeProxy().evaluate).samples
    assert found[:5] == samples
    assert [entry.get("index") for entry in journals[0].entries] == [None, 5, 6, 7]  # the extension first


CHANGES: dict[str, Any] = {
    "engine": "akd",
    "batch": 3,
    "seed": 8,
    "targets_ms": (0.06,),
    "target_dtype": "float32",
    "reward": Reward("hard"),
    "epochs_each": 2,
    "stop_share": 0.5,
    "latency": MEASURED,
}


@pytest.mark.parametrize(("name", "value"), CHANGES.items(), ids=CHANGES)
def test_other_settings_are_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    """A study is continued under its own settings or not at all."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    before = path.read_bytes()
    with pytest.raises(OtherSettings, match=f"was begun with {name} "):
        study(path, **{name: value}).run(FakeProxy().evaluate)
    assert path.read_bytes() == before


def test_another_teacher_or_space_is_refused(tmp_path: Path) -> None:
    """What else the samples depend on is part of the header, as hashes and names."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    with pytest.raises(OtherSettings, match="begun with teacher_sha256 'abc', not 'xyz'"):
        replace(study(path), identity=IDENTITY | {"teacher_sha256": "xyz"}).run(FakeProxy().evaluate)
    other = replace(TINY, space=replace(TINY.space, name="tinier"))
    with pytest.raises(OtherSettings, match="begun with space 'tiny', not 'tinier'"):
        study(path, other).run(FakeProxy().evaluate)
    edited = replace(TINY, space=replace(TINY.space, resolution=17))
    with pytest.raises(OtherSettings, match="begun with space_sha256"):
        study(path, edited).run(FakeProxy().evaluate)


def test_a_study_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """The message says which edgekd reads it."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    for version, whose in ((3, "a newer edgekd"), (1, "an older edgekd"), ("2", "an older edgekd")):
        edit_line(path, 1, lambda header, version=version: header.update(version=version))  # type: ignore[misc]
        before = path.read_bytes()
        with pytest.raises(OtherVersion, match=f"format version {version!r}, and this edgekd reads version 2.*{whose}"):
            study(path).run(FakeProxy(dies_after=0).evaluate)
        assert path.read_bytes() == before


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    """One changed digit, wherever it is, is refused with its line; the file is left as it is."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    whole = path.read_bytes()
    for place in range(20, len(whole) - 1, 211):
        if whole[place] == ord("\n"):
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FileDamaged, match=f"line {whole[:place].count(10) + 1}: |line 1: "):
            study(path).run(FakeProxy(dies_after=0).evaluate)
    assert len(path.read_bytes()) == len(whole)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (
            lambda e: e.update(arch=str(TINY.space.reference()), arch_id=TINY.space.reference().arch_id),
            "sample 3 is not",
        ),
        (lambda e: e.update(target=1), "target is 1"),
        (lambda e: e["predicted_ms"].update(float32=0.001), "predicted_ms of float32 is 0.001, but the table says"),
        (lambda e: e.update(proxy_accuracy=0.99), "reward is"),
    ],
)
def test_a_sample_of_another_study_is_refused_with_its_line(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    """What a sample says must be what its study would say, though its checksum is right."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    edit_line(path, 5, edit)
    before = path.read_bytes()
    with pytest.raises(FileDamaged, match=f"line 5: .*{reason}"):
        study(path).run(FakeProxy(dies_after=0).evaluate)
    assert path.read_bytes() == before


def test_swapped_and_surplus_samples_are_refused(tmp_path: Path) -> None:
    """The order is the engine's, and a file ends where its study does."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy().evaluate)
    lines = plain_lines(path)
    first, second = lines[1] | {"index": 1}, lines[2] | {"index": 0}
    write_plain(path, [lines[0], second, first, *lines[3:]])
    with pytest.raises(FileDamaged, match="line 2: sample 0 is not what engine random proposes"):
        study(path).run(FakeProxy().evaluate)
    unseen = next(
        a for a in map(TINY.space.arch, every_choices(TINY.space)) if str(a) not in {e.get("arch") for e in lines}
    )
    surplus = lines[-1] | {"index": 12, "arch": str(unseen), "arch_id": unseen.arch_id}
    surplus |= {"choices": list(TINY.space.choices(unseen)), "predicted_ms": TINY.predicted_ms(unseen)}
    surplus["reward"] = Reward("soft")(surplus["proxy_accuracy"], surplus["predicted_ms"]["int8"], 0.05)
    write_plain(path, [*lines, surplus])
    with pytest.raises(FileDamaged, match="line 14: this study ends after 12 samples"):
        study(path).run(FakeProxy().evaluate)


def every_choices(space: Space) -> list[Choices]:
    """Enumerate a small space."""
    found: list[Choices] = [()]
    for size in space.decision_sizes:
        found = [(*choices, option) for choices in found for option in range(size)]
    return found


def small(space: Space, kernels: tuple[int, ...] = (3,)) -> LatencyModel:
    """Keep two choices of each block: 4 architectures in all."""
    blocks = tuple(
        replace(b, conv_ops=("mb3",), se_ratios=(0.0,), skip_ops=("pool",), layers=(1,), kernels=kernels)
        for b in space.blocks
    )
    return replace(TINY, space=replace(space, name="smallest", blocks=blocks))


@pytest.mark.parametrize("engine", ["random", pytest.param("akd", marks=pytest.mark.slow)])
def test_an_exhausted_space_ends_the_study(tmp_path: Path, engine: str) -> None:
    """All four architectures are rated once, it is said, and a second run finds the study finished."""
    path, latency, witness = tmp_path / "search.jsonl", small(TINY.space), Witness()
    samples = study(path, latency, engine=engine).run(FakeProxy().evaluate, witness).samples
    assert len(samples) == len({s.arch for s in samples}) == latency.space.size == 4
    assert any("all 4 architectures of the space are evaluated" in note for note in witness.notes)
    assert study(path, latency, engine=engine).run(FakeProxy(dies_after=0).evaluate).samples == samples


def test_a_space_of_one_architecture_is_searched(tmp_path: Path) -> None:
    """Every decision has one option: one sample, whatever the budget."""
    latency = small(TINY.space)
    blocks = tuple(replace(block, filters=(1.0,)) for block in latency.space.blocks)
    latency = replace(latency, space=replace(latency.space, blocks=blocks))
    samples = study(tmp_path / "search.jsonl", latency).run(FakeProxy().evaluate).samples
    assert [s.arch for s in samples] == [str(latency.space.reference())]


def test_an_unknown_engine_is_refused_before_a_file_is_begun(tmp_path: Path) -> None:
    """A typing error leaves nothing behind."""
    with pytest.raises(UnknownName, match="unknown search engine 'adk': did you mean 'akd'"):
        study(tmp_path / "search.jsonl", engine="adk").run(FakeProxy().evaluate)
    assert not list(tmp_path.iterdir())


class Scripted:
    """An engine that proposes what it is given, and keeps what it was told."""

    def __init__(self, asks: Sequence[Sequence[Choices]]) -> None:
        self.asks = list(asks)
        self.told: list[list[Evaluated]] = []
        self.settings: list[EngineSettings] = []

    def ask(self, count: int) -> list[Choices]:
        return list(self.asks.pop(0)[:count]) if self.asks else []

    def tell(self, told: Sequence[Evaluated]) -> None:
        self.told.append(list(told))


def scripted(monkeypatch: pytest.MonkeyPatch, *engines: Scripted) -> None:
    """Let a study use these engines, one after the other, again for each run of it."""
    scripts = [list(engine.asks) for engine in engines]
    made: list[Scripted] = []

    def make(sizes: tuple[int, ...], settings: EngineSettings, seed: int) -> Scripted:
        engine = engines[len(made) % len(engines)]
        engine.asks, engine.told = list(scripts[len(made) % len(engines)]), []
        engine.settings.append(settings)
        made.append(engine)
        return engine

    monkeypatch.setattr(study_module, "engine_named", lambda name: make)


A, B, C, D, *_ = every_choices(TINY.space)


def test_repeated_proposals_are_answered_without_paying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is told what it proposed, as often and in the order as it did; each architecture is rated once."""
    engine = Scripted([[A, B, A, C], [B, B, D]])
    scripted(monkeypatch, engine)
    proxy = FakeProxy()
    path = tmp_path / "search.jsonl"
    record = study(path, budget=7).run(proxy.evaluate)
    assert [s.choices for s in record.samples] == [A, B, C, D]
    assert [[t.choices for t in told] for told in engine.told] == [[A, B, A, C], [B, B, D]]
    assert engine.told[0][0] == engine.told[0][2] == evaluated_of(record.samples[0])
    assert proxy.batches == [3, 1]
    assert study(path, budget=7).run(FakeProxy(0).evaluate) == record


def evaluated_of(sample: Any) -> Evaluated:
    """Say what an engine is told of a sample."""
    return Evaluated(
        sample.choices, sample.reward, sample.proxy_accuracy, sample.predicted_ms["int8"], bool(sample.failure)
    )


def test_an_engine_that_only_repeats_itself_does_not_go_on_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After twenty times the budget in proposals the study ends and says so."""
    engine = Scripted([[A] * 4] * 1000)
    scripted(monkeypatch, engine)
    witness = Witness()
    record = study(tmp_path / "search.jsonl").run(FakeProxy().evaluate, witness)
    assert [s.choices for s in record.samples] == [A]
    assert sum(map(len, engine.told)) == 20 * 12
    assert witness.notes == [
        "engine random only repeats itself: this phase ends with 11 evaluations of its budget left"
    ]


def test_each_target_has_an_engine_that_is_told_all_evaluations_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards are those at its own target, and what is known is not paid for again."""
    first, second = Scripted([[A, B, C]]), Scripted([[A, D]])
    scripted(monkeypatch, first, second)
    proxy, path = FakeProxy(), tmp_path / "search.jsonl"
    wanted = {"targets_ms": (0.05, 0.02), "budget": 5, "reward": Reward("hard")}
    record = study(path, **wanted).run(proxy.evaluate)
    assert [s.target for s in record.samples] == [0, 0, 0, 1]
    assert [e.settings[0] for e in (first, second)] == [EngineSettings(3, 4, 0.05), EngineSettings(2, 4, 0.02)]
    assert [[t.choices for t in told] for told in second.told] == [[A, B, C], [A, D]]
    for told in second.told:
        for item in told:
            assert item.reward == Reward("hard")(item.accuracy, item.latency_ms, 0.02)
    assert len(proxy.rated) == 4
    assert study(path, **wanted).run(FakeProxy(0).evaluate) == record


def test_a_budget_is_split_evenly_and_the_first_target_has_the_rest(tmp_path: Path) -> None:
    """Ten evaluations for three targets are four, three and three."""
    record = study(tmp_path / "search.jsonl", targets_ms=(0.05, 0.04, 0.03), budget=10).run(FakeProxy().evaluate)
    assert [s.target for s in record.samples] == [0] * 4 + [1] * 3 + [2] * 3


def test_fewer_evaluations_than_targets_leave_the_last_ones_out(tmp_path: Path) -> None:
    """A budget of 1 is the first target's."""
    record = study(tmp_path / "search.jsonl", targets_ms=(0.05, 0.04), budget=1).run(FakeProxy().evaluate)
    assert [s.target for s in record.samples] == [0]


@pytest.mark.parametrize("engine", ["random", "evolution", *LEARNING])
def test_an_extended_study_of_two_targets_is_read_as_it_was_run(tmp_path: Path, engine: str) -> None:
    """Whatever the engine: nothing is rated twice, and the same questions are asked again."""
    wanted, path = {"engine": engine, "targets_ms": (0.05, 0.03)}, tmp_path / "search.jsonl"
    study(path, **wanted, budget=13).run(FakeProxy().evaluate)
    proxy = FakeProxy()
    record = study(path, **wanted, budget=20).run(proxy.evaluate)
    assert (len(record.samples), len(proxy.rated)) == (20, 7)
    assert study(path, **wanted, budget=20).run(FakeProxy(0).evaluate) == record


@pytest.mark.parametrize("targets_ms", [(0.05,), (0.05, 0.03)])
def test_a_study_is_extended(tmp_path: Path, targets_ms: tuple[float, ...]) -> None:
    """What was there stays, byte for byte, the rest comes behind; the extended study can be stopped anywhere, too."""
    path = tmp_path / "search.jsonl"
    study(path, targets_ms=targets_ms, budget=6).run(FakeProxy().evaluate)
    before = path.read_bytes()
    proxy = FakeProxy()
    record = study(path, targets_ms=targets_ms, budget=11).run(proxy.evaluate)
    whole = path.read_bytes()
    assert whole.startswith(before)
    assert (len(record.samples), len(proxy.rated), record.budget) == (11, 5, 11)
    assert plain_lines(path)[7] == {"extended": {"budget": 11, "budget_epochs": 0}}
    for dies_after in range(5):
        path.write_bytes(before)
        with pytest.raises(PulledPlug):
            study(path, targets_ms=targets_ms, budget=11).run(FakeProxy(dies_after).evaluate)
        assert study(path, targets_ms=targets_ms, budget=11).run(FakeProxy().evaluate) == record
        assert path.read_bytes() == whole


def test_a_study_that_is_extended_before_its_end_goes_through_both_budgets(tmp_path: Path) -> None:
    """First what it was begun with, then the rest."""
    path = tmp_path / "search.jsonl"
    with pytest.raises(PulledPlug):
        study(path, targets_ms=(0.05, 0.03), budget=6).run(FakeProxy(2).evaluate)
    record = study(path, targets_ms=(0.05, 0.03), budget=10).run(FakeProxy().evaluate)
    assert [s.target for s in record.samples] == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert study(path, targets_ms=(0.05, 0.03), budget=10).run(FakeProxy(0).evaluate) == record


def test_a_budget_is_never_lowered(tmp_path: Path) -> None:
    """The message says both, and the file stays as it is."""
    path = tmp_path / "search.jsonl"
    study(path, budget=6).run(FakeProxy().evaluate)
    before = path.read_bytes()
    with pytest.raises(LowerBudget, match=r"a budget of 6 evaluations already, .* not lowered to 5 evaluations"):
        study(path, budget=5).run(FakeProxy().evaluate)
    with pytest.raises(LowerBudget, match="not lowered to 6 evaluations and 50 epochs"):
        study(path, budget=6, budget_epochs=50).run(FakeProxy().evaluate)
    assert path.read_bytes() == before


def test_a_budget_of_epochs_ends_the_study(tmp_path: Path) -> None:
    """No evaluation is begun once they are used up, and one that ends early leaves its rest to others."""

    def early(arch: Arch) -> Rated:
        return Rated(0.5, 1.0, epochs=1 if accuracy_of(arch) < 0.5 else 3)

    record = study(tmp_path / "search.jsonl", epochs_each=3, budget_epochs=13).run(FakeProxy(answer=early).evaluate)
    epochs = [sample.epochs for sample in record.samples]
    assert {1, 3} == set(epochs)
    assert 13 <= sum(epochs) < 13 + 3
    assert sum(epochs[:-1]) < 13


def test_the_rule_for_hopeless_candidates_is_of_earlier_batches_only(tmp_path: Path) -> None:
    """Also where a kill came in the middle of a batch: the rest of it is trained under the rule that it began with."""

    def answer(arch: Arch) -> Rated:
        return Rated(accuracy_of(arch), 1.0, epochs=3, early_accuracy=accuracy_of(arch) / 2)

    settings = {"stop_share": 0.5, "epochs_each": 3, "budget": 20}
    whole, path = FakeProxy(answer=answer), tmp_path / "killed.jsonl"
    study(tmp_path / "whole.jsonl", **settings).run(whole.evaluate)
    assert len(set(whole.rules)) == len(whole.rules) - 1 == 4  # with fewer than 8 known the floor is 0
    with pytest.raises(PulledPlug):
        study(path, **settings).run(FakeProxy(14, answer).evaluate)
    rest = FakeProxy(answer=answer)
    study(path, **settings).run(rest.evaluate)
    assert rest.rules == whole.rules[3:]
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("rated", "failure"),
    [
        (Rated(0.9, 1.0, "diverged in epoch 1"), "diverged in epoch 1"),
        (Rated(math.nan, 1.0), "its accuracy is nan"),
        (Rated(math.inf, 1.0), "its accuracy is inf"),
        (Rated(-0.1, 1.0), "its accuracy is -0.1"),
    ],
)
def test_a_candidate_that_failed_is_recorded_and_punished(tmp_path: Path, rated: Rated, failure: str) -> None:
    """It has accuracy 0 at its latency, and the study goes on."""
    path = tmp_path / "search.jsonl"
    wanted = {"reward": Reward("absolute")}
    proxy = FakeProxy(answer=lambda arch: rated if accuracy_of(arch) < 0.5 else Rated(0.5, 1.0))
    record = study(path, **wanted).run(proxy.evaluate)
    failed = [s for s in record.samples if s.failure]
    assert 0 < len(failed) < len(record.samples) == 12
    for sample in failed:
        assert (sample.failure, sample.proxy_accuracy) == (failure, 0.0)
        assert sample.reward == Reward("absolute")(0.0, sample.predicted_ms["int8"], 0.05)
    assert study(path, **wanted).run(FakeProxy(0).evaluate) == record


def test_a_measured_latency_is_what_is_rewarded(tmp_path: Path) -> None:
    """Where each candidate is measured; one that could not be measured has failed."""

    def answer(arch: Arch) -> Rated:
        found = accuracy_of(arch)
        return Rated(found, 1.0, measured_ms=math.nan if found < 0.3 else 0.01 + found)

    path = tmp_path / "search.jsonl"
    found = study(path, latency=MEASURED).run(FakeProxy(answer=answer).evaluate)
    failed = [s for s in found.samples if s.failure]
    assert failed
    assert {s.failure for s in failed} == {"it was measured at nan ms"}
    for sample in found.samples:
        if not sample.failure:
            assert sample.reward == Reward("soft")(sample.proxy_accuracy, sample.measured_ms or 0.0, 0.05)
    assert study(path, latency=MEASURED).run(FakeProxy(0).evaluate) == found


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """What was finished is in the file, and the study goes on from there once there is room."""
    whole = tmp_path / "whole.jsonl"
    study(whole).run(FakeProxy().evaluate)
    with small_disk(tmp_path / "disk", 8 << 10) as folder:
        (folder / "filler").write_bytes(bytes(4 << 10))
        with pytest.raises(FileNotWritable, match="No space left on device"):
            study(folder / "search.jsonl").run(FakeProxy().evaluate)
        kept = (folder / "search.jsonl").read_bytes()
        assert kept.endswith(b"\n")
        assert whole.read_bytes().startswith(kept)
        assert kept.count(b"\n") > 2
        make_read_only(folder)
        with pytest.raises(FileNotWritable, match="Read-only file system"):
            study(folder / "search.jsonl").run(FakeProxy().evaluate)
        (tmp_path / "search.jsonl").write_bytes(kept)
    study(tmp_path / "search.jsonl").run(FakeProxy().evaluate)
    assert (tmp_path / "search.jsonl").read_bytes() == whole.read_bytes()


PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r}); sys.path.insert(0, {search!r})
from studies import FakeProxy, study
study(Path({path!r}), budget=28).run(FakeProxy().evaluate)
"""


@pytest.mark.slow  # processes that import and are killed
def test_a_study_that_is_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """By SIGKILL, again and again, while it writes as fast as it can."""
    whole, path = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    study(whole, budget=28).run(FakeProxy().evaluate)
    tests = Path(__file__).resolve().parents[1]
    program = PROGRAM.format(tests=str(tests), search=str(tests / "search"), path=str(path))
    environment = os.environ | {"PYTHONPATH": str(tests.parent)}
    kills = 0
    for lines in (1, 2, 9, 17):
        process = subprocess.Popen([sys.executable, "-c", program], env=environment, text=True)
        wait_until(lambda lines=lines: line_count(path) >= lines, process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert whole.read_bytes().startswith(path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1])
    assert kills >= 1
    study(path, budget=28).run(FakeProxy().evaluate)
    assert path.read_bytes() == whole.read_bytes()


def test_the_settings_of_these_tests_are_what_they_say() -> None:
    """One target, and a budget that is no multiple of anything by chance."""
    assert (SETTINGS.budget, SETTINGS.batch, SETTINGS.targets_ms) == (12, 4, (0.05,))
