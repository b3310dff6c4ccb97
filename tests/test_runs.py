"""Run folders: begun once, resumed only with the same settings, and read with distrust."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from synthetic import NARROW

from edgekd.config import DistilSettings, SearchSettings, Settings
from edgekd.errors import ConfigError, DataError, UsageError
from edgekd.progress import Silent
from edgekd.runs import (
    Run,
    find_or_open_run,
    load_run,
    open_run,
    read_json_object,
    read_winner,
    set_former_student_aside,
    versions,
)

pytestmark = pytest.mark.whole  # whole commands

SETTINGS = Settings(seed=3, search=SearchSettings(budget=12))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that was begun."""
    return open_run(tmp_path / "run", SETTINGS)


def rewrite(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_keeps_its_settings_and_versions(run: Run) -> None:
    """run.json says what was asked for and with what it was made; loading gives the same run."""
    content = json.loads((run.folder / "run.json").read_text())
    assert (content["format"], content["version"]) == ("edgekd-run", 1)
    assert content["settings"] == SETTINGS.as_dict()
    assert content["versions"] == versions()
    assert load_run(run.folder) == run


def test_a_run_is_resumed_with_the_same_settings(run: Run) -> None:
    """Opening it again changes nothing, byte for byte, though a package was updated meanwhile."""
    rewrite(run.folder / "run.json", versions={"torch": "1.0"})
    before = (run.folder / "run.json").read_bytes()
    assert open_run(run.folder, SETTINGS) == run
    assert (run.folder / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (dataclasses.replace(SETTINGS, seed=4), "seed 3, not 4"),
        (dataclasses.replace(SETTINGS, device="pixel4"), "device 'host', not 'pixel4'"),
        (
            dataclasses.replace(SETTINGS, search=SearchSettings(budget=11)),
            "search.budget 12, which can be raised, not 11",
        ),
        (
            dataclasses.replace(SETTINGS, search=SearchSettings(budget=12, budget_epochs=9)),
            "search.budget_epochs 0, which can be raised, not 9",
        ),
        (
            dataclasses.replace(SETTINGS, search=SearchSettings(budget=12, measure="all")),
            "search.measure 'final', not 'all'",
        ),
        (
            dataclasses.replace(SETTINGS, search=SearchSettings(budget=12, gpus_per_worker=0.5)),
            "search.gpus_per_worker 0.0, not 1.0",
        ),
        (
            dataclasses.replace(SETTINGS, search=SearchSettings(budget=12, target_ms=(0.5, 0.4))),
            "search.target_ms 'auto', not [0.5, 0.4]",
        ),
        (dataclasses.replace(SETTINGS, distil=DistilSettings(method="dist")), "distil.method 'kd', not 'dist'"),
        (
            dataclasses.replace(SETTINGS, search=SearchSettings(budget=12, target_ms=0.5)),
            "search.target_ms 'auto', not 0.5",
        ),
    ],
)
def test_a_run_of_other_settings_is_not_resumed(run: Run, other: Settings, difference: str) -> None:
    """The message names the first difference, both values, and what to do; the run stays as it was."""
    before = (run.folder / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=re.escape(f"was begun with {difference}; choose another folder or the same")):
        open_run(run.folder, other)
    assert (run.folder / "run.json").read_bytes() == before


FREE = {
    "budget": 40,
    "workers": 7,
    "ray_address": "10.0.0.1:6379",
    "cpus_per_worker": 2.0,
    "measure": "top-k",
    "measure_top": 9,
    "tensorboard": True,
}


@pytest.mark.parametrize(("name", "value"), FREE.items(), ids=FREE)
def test_a_run_goes_on_with_what_changes_no_sample(run: Run, name: str, value: object) -> None:
    """Other workers, another way to measure what was found, or a larger budget; run.json says what it is now."""
    search = dataclasses.replace(SETTINGS.search, **{name: value})  # type: ignore[arg-type]  # a field's own type
    other = dataclasses.replace(SETTINGS, search=search)
    assert open_run(run.folder, other).settings == other
    assert load_run(run.folder).settings == other
    assert json.loads((run.folder / "run.json").read_text())["versions"] == versions()


def test_without_a_folder_another_budget_is_another_run(tmp_path: Path) -> None:
    """Only what no result depends on may differ; to go on with a larger budget the folder is named."""
    parent = tmp_path / "runs"
    first = find_or_open_run(None, SETTINGS, parent)
    quicker = dataclasses.replace(SETTINGS, search=dataclasses.replace(SETTINGS.search, workers=3))
    longer = dataclasses.replace(SETTINGS, search=dataclasses.replace(SETTINGS.search, budget=99))
    assert find_or_open_run(None, quicker, parent).folder == first.folder
    assert find_or_open_run(None, longer, parent).folder != first.folder


def test_a_former_winners_student_is_set_aside(run: Run) -> None:
    """A search that goes on may find a better one; what was made of the former is kept, each time anew."""
    reference, other = str(NARROW.reference()), str(NARROW.arch(NARROW.lightest))
    set_former_student_aside(run, reference, Silent())  # there was no winner yet
    for number, (before, after) in enumerate([(reference, other), (other, reference), (reference, other)]):
        run.write_json("winner.json", REFERENCE | {"arch": before})
        (run.folder / "student.safetensors").write_text(str(number))
        set_former_student_aside(run, before, Silent())
        assert (run.folder / "student.safetensors").read_text() == str(number)
        set_former_student_aside(run, after, Silent())
        assert not (run.folder / "student.safetensors").exists()
    kept = {path.parent.name: path.read_text() for path in run.folder.glob("former-*/student.safetensors")}
    first, second = (f"former-{arch.arch_id}" for arch in (NARROW.reference(), NARROW.arch(NARROW.lightest)))
    assert kept == {first: "0", second: "1", f"{first}-2": "2"}


def test_without_a_folder_a_run_of_the_same_settings_is_found(tmp_path: Path) -> None:
    """Each settings have one numbered folder, found again however many there are."""
    parent = tmp_path / "runs"
    first = find_or_open_run(None, SETTINGS, parent)
    second = find_or_open_run(None, dataclasses.replace(SETTINGS, seed=9), parent)
    assert [first.folder.name, second.folder.name] == ["1", "2"]
    assert find_or_open_run(None, SETTINGS, parent) == first
    assert find_or_open_run(tmp_path / "mine", SETTINGS, parent).folder == tmp_path / "mine"


def test_a_damaged_neighbour_is_no_obstacle(tmp_path: Path) -> None:
    """A run folder that cannot be read is neither used nor touched nor in the way."""
    parent = tmp_path / "runs"
    (parent / "1").mkdir(parents=True)
    (parent / "1" / "run.json").write_text("{")
    assert find_or_open_run(None, SETTINGS, parent).folder.name == "2"
    assert (parent / "1" / "run.json").read_text() == "{"


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"format": "other"}])
def test_a_run_of_another_version_is_refused(run: Run, change: dict[str, Any]) -> None:
    """A newer edgekd's folder is neither read nor overwritten; the message shows both versions."""
    rewrite(run.folder / "run.json", **change)
    before = (run.folder / "run.json").read_bytes()
    with pytest.raises(DataError, match=r"is of format .*, not edgekd-run 1"):
        load_run(run.folder)
    with pytest.raises(DataError, match=r"is of format .*, not edgekd-run 1"):
        open_run(run.folder, SETTINGS)
    assert (run.folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_a_damaged_file_is_refused(run: Run, damaged: bytes) -> None:
    """The message names the file and what to do."""
    path = run.folder / "run.json"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*(restore it|begin a new run)"):
        load_run(run.folder)


def test_settings_in_a_run_are_checked_like_a_config(run: Run) -> None:
    """A value out of range, or no settings at all."""
    rewrite(run.folder / "run.json", settings=SETTINGS.as_dict() | {"seed": -1})
    with pytest.raises(ConfigError, match="seed is -1"):
        load_run(run.folder)
    rewrite(run.folder / "run.json", settings=None)
    with pytest.raises(DataError, match="holds no settings"):
        load_run(run.folder)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """The message says which folder would do."""
    with pytest.raises(DataError, match=r"is no run folder: it has no run.json; give the folder of an edgekd search"):
        load_run(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_json_object(tmp_path / "none.json")


def test_a_missing_stage_is_named(run: Run) -> None:
    """Reading what a later stage writes says which command makes it."""
    with pytest.raises(DataError, match=r"has no winner.json yet; run edgekd search first"):
        read_winner(run)


def test_the_table_is_the_settings_or_the_runs_own(run: Run) -> None:
    """A table named by the settings is shared; without one it lies in the run folder."""
    assert run.table_path == run.folder / "table.jsonl"
    assert Run(run.folder, dataclasses.replace(SETTINGS, table="t.jsonl")).table_path == Path("t.jsonl")


REFERENCE = {"arch": str(NARROW.reference()), "target_ms": 0.2, "target_dtype": "int8"}


def test_the_winner_is_read_back(run: Run) -> None:
    """Architecture and target."""
    run.write_json("winner.json", REFERENCE)
    winner = read_winner(run)
    assert (winner.arch, winner.target_ms, winner.target_dtype) == (NARROW.reference(), 0.2, "int8")


@pytest.mark.parametrize(
    "change",
    [
        {"arch": None},
        {"arch": "mnasnet-28-narrow:"},
        {"arch": "mnasnet-224:mb6_k3_se0_identity_l1_f1"},
        {"arch": str(NARROW.reference()).replace("mb6_k3", "mb6_k9", 1)},
        {"target_ms": None},
        {"target_ms": "fast"},
        {"target_dtype": "float32"},
        {"target_dtype": None},
    ],
)
def test_a_damaged_winner_is_refused(run: Run, change: dict[str, Any]) -> None:
    """No architecture, one of another space, or a target that is none or another run's."""
    run.write_json("winner.json", REFERENCE | change)
    with pytest.raises(UsageError):
        read_winner(run)
