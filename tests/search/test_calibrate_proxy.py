"""Proxy calibration: what it trains, what it keeps, and which setting it takes."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.search.calibrate_proxy import (
    CalibrationPlan,
    OpenRater,
    ProxySetting,
    calibrate,
    judged,
    sampled_archs,
)
from edgekd.search.errors import InvalidSetting, SearchError
from edgekd.search.rated import Evaluate, Hopeless, Rated
from edgekd.spaces.arch import Arch
from latency_tables.errors import FileDamaged, OtherSettings

pytestmark = pytest.mark.whole  # trainings

SPACE = synthetic.tiny_space()
TRUTH = ProxySetting("kd", 9, 1000, 0, 64, 0.1, 1)
GUIDED = ProxySetting("kd", 1, 200, 0, 16, 0.03, 0)
ALONE = dataclasses.replace(GUIDED, method="none")
LONG = dataclasses.replace(GUIDED, epochs=3)
IDENTITY = {"space": "tiny", "data_sha256": "d"}
ARCHS = sampled_archs(SPACE, 24, seed=0)


def plan(archs: Sequence[Arch] = ARCHS, grid: tuple[ProxySetting, ...] = (GUIDED, ALONE, LONG)) -> CalibrationPlan:
    """Plan on the tiny space."""
    return CalibrationPlan(tuple(archs), TRUTH, grid)


def quality(arch: Arch) -> float:
    """Give every architecture a true accuracy of its own, from 0.2 to 0.8."""
    return 0.2 + 0.6 * random.Random(str(arch)).random()


NOISE = {TRUTH: 0.0, LONG: 0.01, GUIDED: 0.02, ALONE: 0.6}
SECONDS = {TRUTH: 90.0, LONG: 9.0, GUIDED: 3.0, ALONE: 2.0}


def imagined(setting: ProxySetting, arch: Arch) -> Rated:
    """Rate by the true quality, blurred by what the setting is said to be worth."""
    blur = NOISE[setting] * (random.Random(f"{arch} {setting}").random() - 0.5)
    return Rated(min(1.0, max(0.0, quality(arch) + blur)), SECONDS[setting], epochs=setting.epochs, host="here")


class School:
    """Opens raters, and writes down who was trained how."""

    def __init__(self, rate: Callable[[ProxySetting, Arch], Rated] = imagined, killed_after: int = 10**9) -> None:
        self.trained: list[tuple[ProxySetting, str]] = []
        self.opened: list[ProxySetting] = []
        self._rate = rate
        self._killed_after = killed_after

    @contextmanager
    def open(self, setting: ProxySetting) -> Iterator[Evaluate]:
        """Open one setting's workers."""
        self.opened.append(setting)

        def evaluate(archs: Sequence[Arch], hopeless: Hopeless | None) -> Iterator[Rated]:
            assert hopeless is None, "all of them are trained to the end"
            for arch in archs:
                if len(self.trained) == self._killed_after:
                    raise KeyboardInterrupt
                self.trained.append((setting, str(arch)))
                yield self._rate(setting, arch)

        yield evaluate


def no_school(setting: ProxySetting) -> object:
    """Fail where nothing is left to train."""
    raise AssertionError(f"{setting} was opened")


def test_the_cheapest_setting_that_is_not_significantly_worse_is_chosen(tmp_path: Path) -> None:
    """The cheapest of all ranks badly; the dearest is hardly better than the middle one."""
    found = calibrate(plan(), tmp_path / "journal", IDENTITY, School().open)
    by_setting = {result.setting: result for result in found.settings}
    assert [result.setting for result in found.settings] == [GUIDED, ALONE, LONG]
    assert found.chosen.setting == GUIDED
    assert by_setting[LONG].tau.value > 0.9
    assert by_setting[ALONE].behind_best.low > 0
    assert by_setting[GUIDED].behind_best.low <= 0
    assert (by_setting[GUIDED].seconds, found.truth_seconds, found.archs) == (3.0, 90.0, 24)
    for result in found.settings:
        assert result.tau.low <= result.tau.value <= result.tau.high


def test_the_best_setting_is_behind_itself_by_nothing(tmp_path: Path) -> None:
    """So there is always one to choose."""
    found = calibrate(plan(grid=(ALONE,)), tmp_path / "journal", IDENTITY, School().open)
    assert found.chosen.setting == ALONE
    assert (found.chosen.behind_best.value, found.chosen.behind_best.low, found.chosen.behind_best.high) == (0, 0, 0)


def test_what_the_teacher_adds_is_told_for_settings_that_differ_in_it_alone(tmp_path: Path) -> None:
    """The long setting was not tried alone."""
    found = calibrate(plan(), tmp_path / "journal", IDENTITY, School().open)
    assert [effect.guided for effect in found.teacher] == [GUIDED]
    taus = {result.setting: result.tau.value for result in found.settings}
    assert found.teacher[0].gain.value == pytest.approx(taus[GUIDED] - taus[ALONE])
    assert found.teacher[0].gain.low > 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=4, max_size=10))
def test_every_outcome_is_sane(rows: list[tuple[float, float, float]]) -> None:
    """Whatever the accuracies: a choice is made, none is ahead of the best, and the dearer is chosen only for cause."""
    small = plan(ARCHS[: len(rows)], (GUIDED, LONG))
    columns = zip(*rows, strict=True)
    results = {
        setting: [Rated(accuracy, SECONDS[setting]) for accuracy in column]
        for setting, column in zip((TRUTH, GUIDED, LONG), columns, strict=True)
    }
    found = judged(small, results)
    assert min(result.behind_best.value for result in found.settings) == 0
    for result in found.settings:
        assert -1 <= result.tau.low <= result.tau.high <= 1
        assert result.seconds >= found.chosen.seconds or result.behind_best.low > 0


def test_progress_counts_every_training(tmp_path: Path) -> None:
    """Those that are known already among them."""
    told: list[int] = []
    calibrate(plan(), tmp_path / "journal", IDENTITY, School().open, lambda known, setting, rated: told.append(known))
    assert told == list(range(1, plan().trainings + 1))
    calibrate(plan(), tmp_path / "journal", IDENTITY, no_school, lambda known, setting, rated: told.append(known))  # type: ignore[arg-type]
    assert told[96:] == told[:96]


@pytest.mark.parametrize("killed_after", [0, 1, 24, 30, 95])
def test_a_stopped_calibration_goes_on_where_it_was(tmp_path: Path, killed_after: int) -> None:
    """Nothing is trained twice, and the file and the outcome are those of an undisturbed one."""
    whole = calibrate(plan(), tmp_path / "whole", IDENTITY, School().open)
    first, second = School(killed_after=killed_after), School()
    with pytest.raises(KeyboardInterrupt):
        calibrate(plan(), tmp_path / "part", IDENTITY, first.open)
    assert calibrate(plan(), tmp_path / "part", IDENTITY, second.open) == whole
    assert len(first.trained) + len(second.trained) == 96
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_known_calibration_chooses_as_when_it_was_trained(tmp_path: Path) -> None:
    """A clock's seconds come back from the journal as they were read: of two settings alike the same one is cheaper."""

    def rate(setting: ProxySetting, arch: Arch) -> Rated:
        return Rated(quality(arch), 0.0501 if setting == GUIDED else 0.0500001, epochs=setting.epochs, host="here")

    trained = calibrate(plan(), tmp_path / "journal", IDENTITY, School(rate).open)
    assert trained.chosen.setting != GUIDED
    assert calibrate(plan(), tmp_path / "journal", IDENTITY, no_school) == trained  # type: ignore[arg-type]


def test_a_calibration_is_extended_by_architectures_and_settings(tmp_path: Path) -> None:
    """Only what is new is trained."""
    calibrate(plan(ARCHS[:20], (GUIDED,)), tmp_path / "journal", IDENTITY, School().open)
    school = School()
    found = calibrate(plan(ARCHS, (GUIDED, ALONE)), tmp_path / "journal", IDENTITY, school.open)
    assert school.opened == [TRUTH, GUIDED, ALONE]
    assert len(school.trained) == 4 + 4 + 24
    assert found.archs == 24
    one = calibrate(plan(ARCHS[:20], (GUIDED,)), tmp_path / "journal", IDENTITY, no_school)  # type: ignore[arg-type]
    assert one.archs == 20


def failing(which: ProxySetting, count: int) -> Callable[[ProxySetting, Arch], Rated]:
    """Fail the first `count` architectures under one setting."""

    def rate(setting: ProxySetting, arch: Arch) -> Rated:
        if setting == which and arch in ARCHS[:count]:
            return Rated(0.0, 1.0, "diverged in epoch 1")
        return imagined(setting, arch)

    return rate


def test_a_candidate_that_a_proxy_cannot_train_ranks_last(tmp_path: Path) -> None:
    """It is counted, and it costs the setting its place."""
    sound = calibrate(plan(), tmp_path / "sound", IDENTITY, School().open)
    found = calibrate(plan(), tmp_path / "ill", IDENTITY, School(failing(GUIDED, 6)).open)
    assert found.settings[0].failures == 6
    assert found.settings[0].tau.value < sound.settings[0].tau.value


def test_a_candidate_without_a_truth_is_left_out(tmp_path: Path) -> None:
    """It says nothing about any proxy."""
    found = calibrate(plan(), tmp_path / "journal", IDENTITY, School(failing(TRUTH, 6)).open)
    sound = calibrate(plan(ARCHS[6:]), tmp_path / "sound", IDENTITY, School().open)
    assert found.archs == 18
    assert [result.tau for result in found.settings] == [result.tau for result in sound.settings]


def test_without_enough_truth_there_is_no_answer(tmp_path: Path) -> None:
    """The reason of the failures is told."""
    with pytest.raises(SearchError, match=r"only 3 of 24 .* \(diverged in epoch 1\)"):
        calibrate(plan(), tmp_path / "journal", IDENTITY, School(failing(TRUTH, 21)).open)


def test_no_setting_to_try_is_refused() -> None:
    """Nothing could be chosen."""
    with pytest.raises(InvalidSetting, match="no proxy setting"):
        plan(grid=())


@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 5))
@settings(max_examples=20)
def test_sampled_architectures_are_distinct_and_the_first_of_more(few: int, more: int, seed: int) -> None:
    """So a calibration can be extended; the same seed gives the same ones."""
    few, more = sorted((few, more))
    found = sampled_archs(SPACE, more, seed)
    assert len(set(found)) == len(found) == more
    assert sampled_archs(SPACE, few, seed) == found[:few]


def test_a_small_space_is_sampled_whole() -> None:
    """Asked for more than there are, all are given, in a bounded time; too few are refused."""
    small = synthetic.tiny_space(blocks=1)
    assert set(sampled_archs(small, 10**6, 0)) == set(synthetic.every_arch(small))
    with pytest.raises(InvalidSetting, match="at least 4 architectures; it has 3"):
        sampled_archs(small, 3, 0)


def test_another_identity_is_refused(tmp_path: Path) -> None:
    """Accuracies on other data, or of another teacher's students, are no answer here."""
    calibrate(plan(), tmp_path / "journal", IDENTITY, School().open)
    with pytest.raises(OtherSettings, match="data_sha256"):
        calibrate(plan(), tmp_path / "journal", IDENTITY | {"data_sha256": "e"}, School().open)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_flipped_byte_is_found(tmp_path: Path, share: float) -> None:
    """Every line has a checksum."""
    path = tmp_path / "journal"
    calibrate(plan(), path, IDENTITY, School().open)
    content = path.read_bytes()
    place = int(len(content) * share)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(FileDamaged):
        calibrate(plan(), path, IDENTITY, School().open)


def test_a_line_that_a_kill_cut_is_trained_again(tmp_path: Path) -> None:
    """And nothing else."""
    path = tmp_path / "journal"
    whole = calibrate(plan(), path, IDENTITY, School().open)
    path.write_bytes(path.read_bytes()[:-5])
    school = School()
    assert calibrate(plan(), path, IDENTITY, school.open) == whole
    assert school.trained == [(LONG, str(ARCHS[-1]))]


ENTRY = {
    "setting": dataclasses.asdict(GUIDED),
    "arch": str(ARCHS[0]),
    "accuracy": 0.5,
    "seconds": 1.0,
    "epochs": 1,
    "failure": "",
    "host": "here",
}


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 1.5},
        {"accuracy": -0.5},
        {"accuracy": True},
        {"accuracy": "0.5"},
        {"seconds": 1e300},
        {"seconds": 10**400},
        {"epochs": 1.5},
        {"arch": 3},
        {"failure": "diverged"},
        {"more": 1},
        {"setting": {}},
        {"setting": 5},
        {"setting": ENTRY["setting"] | {"images": "many"}},  # type: ignore[operator]  # it is a dictionary
        {"setting": ENTRY["setting"] | {"epochs": -1}},  # type: ignore[operator]  # as above
    ],
    ids=str,
)
def test_a_line_that_no_calibration_writes_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """With its number, even where its checksum is right."""
    path = tmp_path / "journal"
    write(path, [ENTRY])
    sound = CalibrationPlan(ARCHS, TRUTH, (GUIDED,))
    calibrate(sound, path, IDENTITY, School().open)
    path.unlink()
    write(path, [ENTRY | change])
    with pytest.raises(FileDamaged, match="line 2"):
        calibrate(sound, path, IDENTITY, School().open)


def test_a_training_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Which of both counted, nobody could tell."""
    write(tmp_path / "journal", [ENTRY, ENTRY | {"accuracy": 0.6}])
    with pytest.raises(FileDamaged, match=r"line 3: .*trained in this way before"):
        calibrate(plan(), tmp_path / "journal", IDENTITY, School().open)


def write(path: Path, entries: Sequence[dict[str, object]]) -> None:
    """Write a journal with right checksums."""
    from latency_tables.journal import sealed_lines

    header = {"format": "edgekd-proxy-calibration", "version": 1, **IDENTITY}
    path.write_text("".join(sealed_lines(header, entries)), encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["format"] == header["format"]


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Its header says another version."""
    from latency_tables.journal import sealed_lines

    header = {"format": "edgekd-proxy-calibration", "version": 2, **IDENTITY}
    (tmp_path / "journal").write_text("".join(sealed_lines(header, [])), encoding="utf-8")
    with pytest.raises(OtherSettings, match="version"):
        calibrate(plan(), tmp_path / "journal", IDENTITY, School().open)


def test_raters_are_closed_when_a_training_breaks(tmp_path: Path) -> None:
    """Workers do not outlive the calibration."""
    closed: list[ProxySetting] = []

    @contextmanager
    def opened(setting: ProxySetting) -> Iterator[Evaluate]:
        try:
            yield School(killed_after=0).open(setting).__enter__()
        finally:
            closed.append(setting)

    rater: OpenRater = opened
    with pytest.raises(KeyboardInterrupt):
        calibrate(plan(), tmp_path / "journal", IDENTITY, rater)
    assert closed == [TRUTH]


def test_settings_that_only_guess_are_told(tmp_path: Path) -> None:
    """The cheapest is named all the same, but nobody should believe in it."""

    def guess(setting: ProxySetting, arch: Arch) -> Rated:
        return imagined(TRUTH, arch) if setting == TRUTH else Rated(0.1, SECONDS[setting])

    guessed = calibrate(plan(), tmp_path / "guessed", IDENTITY, School(guess).open)
    assert not guessed.is_above_chance
    assert guessed.chosen.setting == ALONE
    assert calibrate(plan(), tmp_path / "sound", IDENTITY, School().open).is_above_chance
