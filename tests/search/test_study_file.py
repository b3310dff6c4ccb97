"""A study's file: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import itertools
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import IDENTITY, TINY, FakeProxy, edit_line, plain_lines, study, write_lines
from synthetic import NARROW

from edgekd.search import study_file
from edgekd.search.errors import OtherVersion
from edgekd.search.rated import Rated
from edgekd.search.reward import Reward
from edgekd.search.study_file import (
    MEASURED,
    Extension,
    Sample,
    StudyHeader,
    StudyRecord,
    StudySettings,
    arch_id_of,
    load_study,
    record_of,
)
from latency_tables.errors import FileDamaged
from latency_tables.journal import read_object, sealed_lines, to_line

PATH = Path("search.jsonl")


@pytest.fixture(scope="module")
def finished_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a study of two targets that was extended has written."""
    path = tmp_path_factory.mktemp("study") / "search.jsonl"
    study(path, targets_ms=(0.05, 0.03), budget=5).run(FakeProxy().evaluate)
    study(path, targets_ms=(0.05, 0.03), budget=8).run(FakeProxy().evaluate)
    return path.read_bytes()


@pytest.fixture
def finished(tmp_path: Path, finished_bytes: bytes) -> Path:
    """A file of that study."""
    path = tmp_path / "search.jsonl"
    path.write_bytes(finished_bytes)
    return path


@pytest.fixture(params=[1000, 2], ids=["one_block", "blocks_of_two"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are checked all at once, or two at a time: 2 and 3, 4 and 5, and so on."""
    monkeypatch.setattr(study_file, "_BLOCK", request.param)


def test_a_study_is_read_as_it_was_run(finished: Path) -> None:
    """Header, samples and extensions, without opening the file for writing."""
    finished.chmod(0o400)
    before = finished.read_bytes()
    record = load_study(finished)
    assert record == study(finished, targets_ms=(0.05, 0.03), budget=8).run(FakeProxy(0).evaluate)
    assert record.header.settings.targets_ms == (0.05, 0.03)
    assert (record.header.settings.budget, record.extensions, record.budget) == (5, (Extension(8, 0),), 8)
    assert record.header.identity == IDENTITY
    assert [record.line_of(index) for index in (4, 5)] == [6, 8]  # the extension is on line 7
    assert finished.read_bytes() == before


def test_a_line_that_a_kill_cut_is_left_out(finished: Path) -> None:
    """Reading does not need what is being written."""
    whole = load_study(finished)
    finished.write_bytes(finished.read_bytes()[:-9])
    assert load_study(finished).samples == whole.samples[:-1]


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    """A folder, nothing, another format, one without checksums."""
    with pytest.raises(FileDamaged, match="cannot be read"):
        load_study(tmp_path / "none.jsonl")
    path = tmp_path / "other.jsonl"
    path.write_text('{"format":"edgekd-table","version":2}\n')
    with pytest.raises(FileDamaged, match="the format is 'edgekd-table', not 'edgekd-study'"):
        load_study(path)
    path.write_text('{"format":"edgekd-study","version":2}\n')
    with pytest.raises(FileDamaged, match="the header has no checksum"):
        load_study(path)
    path.write_text('{"format":"edgekd-study","version":1}\n')
    with pytest.raises(OtherVersion, match="format version 1"):
        load_study(path)


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda e: e.update(index=4), "index is 4"),
        (lambda e: e.update(index=1), "index is 1"),  # its place among the lines 4 and 5
        (lambda e: e.update(index=3.0), "index is 3.0"),
        (lambda e: e.update(choices=e["choices"][:-1]), "choices is"),
        (lambda e: e["choices"].__setitem__(0, 99), "choices is"),
        (lambda e: e["choices"].__setitem__(0, -1), "choices is"),
        (lambda e: e["choices"].__setitem__(0, 10**400), "choices is"),
        (lambda e: e["choices"].__setitem__(0, True), "choices is"),
        (lambda e: e["choices"].__setitem__(0, 1.0), "choices is"),
        (lambda e: e["choices"].__setitem__(0, "0"), "choices is"),
        (lambda e: e.update(choices="00"), "choices is '00'"),
        (lambda e: e.update(arch_id="0" * 12), "arch_id is"),
        (lambda e: e.update(arch=""), "arch is ''"),
        (lambda e: e.update(arch="a\u202eb"), "arch is"),
        (lambda e: e.update(arch=7), "arch is 7"),
        (lambda e: e["predicted_ms"].update(int8=0), "predicted_ms is"),
        (lambda e: e["predicted_ms"].pop("int8"), "predicted_ms is"),
        (lambda e: e["predicted_ms"].update(int4=1.0), "predicted_ms is"),
        (lambda e: e["predicted_ms"].update(int8=10**400), "predicted_ms is"),
        (lambda e: e.update(measured_ms=0.5), "reward is"),
        (lambda e: e.update(measured_ms=-0.5), "measured_ms is -0.5"),
        (lambda e: e.update(proxy_accuracy=1.5), "proxy_accuracy is 1.5"),
        (lambda e: e.update(proxy_accuracy=True), "proxy_accuracy is True"),
        (lambda e: e.update(proxy_accuracy="0.5"), "proxy_accuracy is '0.5'"),
        (lambda e: e.update(proxy_accuracy=10**400), "proxy_accuracy is 1000"),
        (lambda e: e.update(reward=e["reward"] + 0.001), "reward is"),
        (lambda e: e.update(reward=10**400), "reward is"),
        (lambda e: e.update(seconds=None), "seconds is None"),
        (lambda e: e.update(seconds=-1), "seconds is -1"),
        (lambda e: e.update(macs=-1), "macs is -1"),
        (lambda e: e.update(macs=10**400), "macs is"),
        (lambda e: e.update(epochs=1.5), "epochs is 1.5"),
        (lambda e: e.update(early_accuracy=2), "early_accuracy is 2"),
        (lambda e: e.update(failure=None), "failure is None"),
        (lambda e: e.update(failure="diverged"), "reward is"),
        (lambda e: e.update(host=["a"]), "host is"),
        (lambda e: e.update(target=2), "target is 2"),
        (lambda e: e.update(target=-1), "target is -1"),
        (lambda e: e.pop("macs"), "fields is"),
        (lambda e: e.update(extra=1), "fields is"),
        (lambda e: e.update(extra=e.pop("macs")), "fields is"),
    ],
)
@pytest.mark.usefixtures("blocks")
def test_a_wrong_value_is_refused_with_its_line(finished: Path, edit: Edit, reason: str) -> None:
    """Though the checksum is right: every field has a type, a range, and a sense beside the others."""
    edit_line(finished, 5, edit)
    with pytest.raises(FileDamaged, match=f"line 5: {reason}"):
        load_study(finished)


@pytest.mark.usefixtures("blocks")
def test_every_line_is_refused_by_its_own_number(finished: Path) -> None:
    """Wherever it stands among the others, before or after the extension on line 7."""
    whole = finished.read_bytes()
    for number in (2, 3, 4, 5, 6, 8, 9, 10):
        edit_line(finished, number, lambda e: e.update(index=99))
        with pytest.raises(FileDamaged, match=f"line {number}: index is 99"):
            load_study(finished)
        finished.write_bytes(whole)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda e: e.update(budget=0), "budget is 0"),
        (lambda e: e.update(budget="5"), "budget is '5'"),
        (lambda e: e.update(seed=-1), "seed is -1"),
        (lambda e: e.update(targets_ms=[]), "targets_ms is"),
        (lambda e: e.update(targets_ms=[0.05, -1]), "targets_ms is"),
        (lambda e: e.update(targets_ms=0.05), "no study's"),
        (lambda e: e.update(decision_sizes=[0]), "decision_sizes is"),
        (lambda e: e.update(decision_sizes=["a"]), "decision_sizes is"),
        (lambda e: e.update(target_dtype="int4"), "target_dtype is"),
        (lambda e: e.update(reward={"form": "sofft"}), "did you mean 'soft'"),
        (lambda e: e.update(reward={"formm": "soft"}), "no study's"),
        (lambda e: e.update(reward="soft"), "no study's"),
        (lambda e: e.update(latency="guessed"), "latency is"),
        (lambda e: e.update(stop_share=1), "stop_share is"),
        (lambda e: e.update(space=3), "space is 3"),
        (lambda e: e.pop("engine"), "no study's"),
        (lambda e: e.update(warm_samples=-1), "warm_samples is"),
    ],
)
def test_a_wrong_header_is_refused(finished: Path, edit: Edit, reason: str) -> None:
    """Nothing of a file is believed whose first line is wrong."""
    edit_line(finished, 1, edit)
    with pytest.raises(FileDamaged, match=f"line 1: .*{reason}"):
        load_study(finished)


@pytest.mark.parametrize(
    "wrong",
    [
        {"extended": 5},
        {"extended": {"budget": 0, "budget_epochs": 0}},
        {"extended": {"budget": 9, "budget_epochs": -1}},
        {"extended": {"budget": 9}},
        {"extended": {"budget": 9, "budget_epochs": 0}, "index": 5},
    ],
)
@pytest.mark.usefixtures("blocks")
def test_a_wrong_extension_is_refused(finished: Path, wrong: dict[str, Any]) -> None:
    """With its line."""
    lines = plain_lines(finished)
    write_lines(finished, [*lines[:6], wrong, *lines[7:]])
    with pytest.raises(FileDamaged, match="line 7: "):
        load_study(finished)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("again", [3, 4, 5, 6])
def test_an_architecture_that_is_there_twice_is_refused(finished: Path, again: int) -> None:
    """Samples are distinct, however far apart their lines are."""
    lines = plain_lines(finished)
    write_lines(finished, [*lines[: again - 1], lines[1] | {"index": again - 2}])
    with pytest.raises(FileDamaged, match=f"line {again}: choices is"):
        load_study(finished)


numbers = st.floats(0, 1)


@pytest.mark.whole  # writes long studies
@given(data=st.data())
def test_what_is_written_is_read(data: st.DataObject) -> None:
    """Any study that the settings allow comes back as it was."""
    settings = StudySettings(
        engine=data.draw(st.text(max_size=9)),
        budget=data.draw(st.integers(1, 10**9)),
        batch=data.draw(st.integers(1, 99)),
        seed=data.draw(st.integers(0, 2**62)),
        targets_ms=tuple(data.draw(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=3))),
        target_dtype=data.draw(st.sampled_from(["int8", "float32"])),
        reward=Reward(data.draw(st.sampled_from(["soft", "hard", "absolute"]))),
        latency=MEASURED,
    )
    header = StudyHeader("tiny", "00", (3, 4), settings, 0, {"proxy": {"epochs": data.draw(st.integers(1, 9))}})
    vectors = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), unique=True, max_size=12))
    samples = tuple(_sample(index, vector, settings, data) for index, vector in enumerate(vectors))
    lines = [read_object(to_line(sample.as_json())) for sample in samples]
    assert record_of(PATH, read_object(to_line(header.as_json())), lines) == StudyRecord(header, samples)


def _sample(index: int, choices: tuple[int, ...], settings: StudySettings, data: st.DataObject) -> Sample:
    failed = data.draw(st.booleans())
    target = data.draw(st.integers(0, len(settings.targets_ms) - 1))
    accuracy, arch = 0.0 if failed else data.draw(numbers), f"tiny:{choices}"
    predicted = {"float32": data.draw(st.floats(0.01, 9)), "int8": data.draw(st.floats(0.01, 9))}
    measured = data.draw(st.none() | st.floats(0.01, 9))
    latency = predicted[settings.target_dtype] if measured is None else measured
    reward = settings.reward(accuracy, latency, settings.targets_ms[target])
    early, failure = data.draw(st.none() | numbers), "it diverged" if failed else ""
    rest = (accuracy, reward, 1.5, 10, 3, early, failure, "here", target)
    return Sample(index, choices, arch, arch_id_of(arch), predicted, measured, *rest)


def many(count: int) -> StudyRecord:
    """Make a study of many samples in a large space, as files of long searches hold."""
    sizes = NARROW.decision_sizes
    settings = StudySettings("random", count, 10, 0, (0.1,), "int8", Reward("absolute"))
    header = StudyHeader(NARROW.name, NARROW.sha256, sizes, settings, 0, IDENTITY)
    samples: list[Sample] = []
    for index in range(count):
        rest, digits = index * 7919, []
        for size in sizes:
            rest, digit = divmod(rest, size)
            digits.append(digit)
        arch = f"{NARROW.name}:" + "/".join(f"mb6_k3_se0.25_identity_l{digit}_f1.25" for digit in digits[:7])
        ms = 0.05 + index % 100 / 1000
        reward = settings.reward(0.5, ms, 0.1)
        place = (index, tuple(digits), arch, arch_id_of(arch), {"float32": 2 * ms, "int8": ms}, None)
        samples.append(Sample(*place, 0.5, reward, 1.0, 10**6, 1, None, "", "host", 0))
    return StudyRecord(header, tuple(samples))


@pytest.mark.parametrize("at_once", [1, 2, 3, 1000])
def test_extensions_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """At the start, inside or at the end of the lines that are checked at once, or as all of them."""
    monkeypatch.setattr(study_file, "_BLOCK", at_once)
    record = many(5)
    larger = (Extension(6, 0), Extension(7, 0), Extension(8, 9))
    for after in itertools.combinations_with_replacement(range(6), 3):
        lines = [sample.as_json() for sample in record.samples]
        for place, extension in reversed(list(zip(after, larger, strict=True))):
            lines.insert(place, extension.as_json())
        entries = [read_object(to_line(line)) for line in lines]
        header = read_object(to_line(record.header.as_json()))
        assert record_of(PATH, header, entries) == replace(record, extensions=larger, extended_after=after)


@pytest.mark.whole  # writes long studies
def test_reading_takes_time_in_proportion(tmp_path: Path) -> None:
    """Eight times the samples take far less than sixty-four times as long."""
    seconds = []
    for count in (500, 4000):
        path, record = tmp_path / f"{count}.jsonl", many(count)
        path.write_text("".join(sealed_lines(record.header.as_json(), (s.as_json() for s in record.samples))))
        began = time.process_time()
        assert load_study(path) == record
        seconds.append(time.process_time() - began)
    assert seconds[1] < 32 * seconds[0]


def test_a_failure_is_written_in_one_line(tmp_path: Path) -> None:
    """Whatever a library said."""
    path = tmp_path / "search.jsonl"
    study(path).run(FakeProxy(answer=lambda arch: Rated(0.0, 1.0, "a\nb")).evaluate)
    assert path.read_text().count("\n") == 13
    assert load_study(path).samples[0].failure == "a\nb"


def test_a_measured_study_may_lack_a_measurement_of_a_failure(tmp_path: Path) -> None:
    """It is punished at its predicted latency."""
    path = tmp_path / "search.jsonl"
    found = study(path, latency=MEASURED).run(FakeProxy(answer=lambda arch: Rated(0.5, 1.0, "lost")).evaluate)
    assert load_study(path) == found
    assert {sample.measured_ms for sample in found.samples} == {None}


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    """What is told again after a kill is bit for bit what was told before it."""
    path = tmp_path / "search.jsonl"
    accuracy = math.nextafter(0.3, 1)
    study(path).run(FakeProxy(answer=lambda arch: Rated(accuracy, 1.0)).evaluate)
    assert {sample.proxy_accuracy for sample in load_study(path).samples} == {accuracy}
    assert json.loads(path.read_text().splitlines()[1])["proxy_accuracy"] == accuracy


def test_a_warm_sample_is_recognised(tmp_path: Path) -> None:
    """A file that lacks some of those it was begun with is refused when it is gone on with."""
    source, path = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    study(source, budget=5).run(FakeProxy().evaluate)
    study(path, TINY, source, budget=2).run(FakeProxy().evaluate)
    assert [s.target for s in load_study(path).samples] == [-1] * 5 + [0] * 2
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    with pytest.raises(FileDamaged, match="5 samples were taken over, 3 are here"):
        study(path, TINY, source, budget=2).run(FakeProxy().evaluate)
    assert replace(load_study(path), samples=()).budget == 2


def test_a_name_that_is_there_twice_is_found_among_many_lines(finished: Path) -> None:
    """Lines are read many at once, and what is wrong with one, its checksum being right, is found one by one."""
    header, *lines = finished.read_text(encoding="utf-8").splitlines()
    body = lines[3][: lines[3].rindex('"crc":"')] + '"epochs":1,'
    lines[3] = f'{body}"crc":"{zlib.crc32(body.encode(), zlib.crc32(header.encode())):08x}"}}'
    finished.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    with pytest.raises(FileDamaged, match=r"line 5.*a field is there twice"):
        load_study(finished)
