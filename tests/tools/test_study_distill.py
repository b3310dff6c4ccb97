"""tools/study_distill.py: which trainings it plans, what it repeats and what not, and how it compares them."""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import striped, write_grey

from edgekd.data.loading import load_data
from edgekd.files import make_folder

TOOLS = Path(__file__).resolve().parents[2] / "tools"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(TOOLS))  # the tool's modules find each other there
    tool = importlib.import_module("study_distill")
    plan = importlib.import_module("study_distill_plan")

pytestmark = pytest.mark.usefixtures("threads_restored")
trains = pytest.mark.slow  # a few students, each for a moment
IMAGES = 40


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """Ten classes of grey images: two rows of each image are bright, and which ones says the class."""
    return write_grey(tmp_path / "stripes.npz", (120, 20, 30), 28, striped, classes=10, seed=7)


@pytest.fixture
def study(data_path: Path, tmp_path: Path) -> Callable[..., int]:
    """Start the tool in a folder of its own: a tiny student, an own teacher, two seeds of two short methods."""
    amounts = ["--images", str(IMAGES), "--epochs", "1", "--seeds", "2", "--batch-size", "20", "--teacher-epochs", "1"]
    what = ["--data", str(data_path), "--student", "tiny-28", "--teachers", "resnet8", "--methods", "kd", "kd+at"]
    places = ["--out", str(tmp_path / "study"), "--json", str(tmp_path / "r.json")]
    return lambda *more: int(tool.main([*what, *amounts, *places, *more]))


def names(tmp_path: Path) -> list[str]:
    """Name the trainings that are kept."""
    kept = (tmp_path / "study").glob("*-seed*.json")
    return sorted(path.stem for path in kept)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trainings that the tool began, in their order."""
    found: list[str] = []
    original = tool.trained

    def listened(study: Any, training: Any) -> Any:
        found.append(training.name)
        return original(study, training)

    monkeypatch.setattr(tool, "trained", listened)
    return found


# --- whole studies ----------------------------------------------------------------------------------------------------


@trains
def test_every_teacher_method_and_seed_is_trained_and_none_beside_them(
    study: Callable[..., int], begun: list[str], tmp_path: Path
) -> None:
    """Seed by seed, so that a study that was stopped is balanced; checkpoints are gone when a training is finished."""
    assert study() == 0
    assert begun == [
        name for seed in (0, 1) for name in (f"none-seed{seed}", f"resnet8-kd-seed{seed}", f"resnet8-kd+at-seed{seed}")
    ]
    assert names(tmp_path) == sorted(begun)
    assert [path.name for path in (tmp_path / "study").glob("*.safetensors")] == ["teacher-resnet8.safetensors"]
    result = json.loads((tmp_path / "r.json").read_text())
    assert [(row["teacher"], row["method"], row["seeds"]) for row in result["comparison"]] == [
        ("none", "none", 2),
        ("resnet8", "kd", 2),
        ("resnet8", "kd+at", 2),
    ]
    assert result["settings"]["images"] == IMAGES
    assert [found["teacher"] for found in result["teachers"]] == ["resnet8"]


@trains
def test_a_teacher_is_judged_on_the_test_and_on_what_students_see(
    study: Callable[..., int], data_path: Path, tmp_path: Path
) -> None:
    """By its own answers: a teacher that knows its pupils' images by heart teaches little, and that is to be seen."""
    assert study("--seeds", "1", "--methods", "kd") == 0
    (found,) = json.loads((tmp_path / "r.json").read_text())["teachers"]
    data = load_data(str(data_path))
    path = tmp_path / "study" / "teacher-resnet8.safetensors"
    module = plan.teachers.load(str(path), data).module
    few = plan.few(data, IMAGES)
    for split, name in ((few.test, "test_accuracy"), (few.train, "train_accuracy")):
        assert found[name] == pytest.approx(tool.accuracy(module, tool.samples_of(few, split)))


@trains
def test_what_was_stopped_goes_on_to_the_same_result(
    study: Callable[..., int], tmp_path: Path, begun: list[str]
) -> None:
    """What is finished is not repeated, and nothing depends on where it was stopped."""
    assert study() == 0
    whole = json.loads((tmp_path / "r.json").read_text())
    for path in (tmp_path / "study").glob("*-seed1.json"):
        path.unlink()
    begun.clear()
    assert study() == 0
    assert begun == ["none-seed1", "resnet8-kd-seed1", "resnet8-kd+at-seed1"]
    assert json.loads((tmp_path / "r.json").read_text())["comparison"] == whole["comparison"]
    begun.clear()
    assert study() == 0
    assert begun == []


@trains
def test_a_training_that_was_stopped_goes_on_from_its_last_epoch(
    study: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint lies beside the results until it is finished."""
    more = ("--epochs", "3", "--seeds", "1", "--methods", "kd")
    assert study(*more) == 0
    whole = json.loads((tmp_path / "r.json").read_text())["comparison"]
    (tmp_path / "study" / "none-seed0.json").unlink()
    (tmp_path / "study" / "resnet8-kd-seed0.json").unlink()
    original, epochs = tool.train, list[int]()

    def mortal(network: Any, lesson: Any, recipe: Any, path: Any = None, on_epoch: Any = None) -> None:
        def told(result: Any) -> None:
            on_epoch(result)
            epochs.append(result.epoch)
            if path is not None and epochs == [1, 2]:
                raise KeyboardInterrupt

        original(network, lesson, recipe, path, told)

    monkeypatch.setattr(tool, "_student_seconds", lambda study: 1.0)
    monkeypatch.setattr(tool, "train", mortal)
    with pytest.raises(KeyboardInterrupt):
        study(*more)
    assert (tmp_path / "study" / "none-seed0.safetensors").exists()
    del epochs[:]
    epochs.append(0)
    assert study(*more) == 0
    assert epochs == [0, 2, 3, 1, 2, 3]  # the second was told and not yet kept
    assert json.loads((tmp_path / "r.json").read_text())["comparison"] == whole


@trains
def test_the_duration_is_told_beforehand_and_after_every_training(
    study: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """And the comparison stands at the end."""
    assert study() == 0
    said = capsys.readouterr().out
    assert "6 trainings of 1 epochs, 0 of them there\nabout " in said
    assert [line.split()[0] for line in said.splitlines() if " left" in line] == [f"{n}/6" for n in range(1, 7)]
    assert "gain over none, seed by seed" in said
    assert study() == 0
    assert "6 trainings of 1 epochs, 6 of them there" in capsys.readouterr().out


@trains
def test_a_folder_of_other_settings_is_not_gone_on_with(
    study: Callable[..., int], begun: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Trainings that do not compare never lie beside each other; more seeds and methods do."""
    assert study("--seeds", "1", "--methods", "kd") == 0
    begun.clear()
    for more in (("--epochs", "2"), ("--images", "50"), ("--batch-size", "10")):
        assert study(*more) == 2
        assert "holds other settings" in capsys.readouterr().err
    assert begun == []
    assert study("--seeds", "1", "--methods", "kd", "dist") == 0
    assert begun == ["resnet8-dist-seed0"]


@trains
def test_a_folder_of_another_teacher_is_not_gone_on_with(
    study: Callable[..., int], begun: list[str], data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the same label, in another folder or trained otherwise; one of another label lies beside the first."""
    data = load_data(str(data_path))
    for number, folder in enumerate(("a", "b"), 1):
        make_folder(tmp_path / folder)
        recipe = plan.sgd_recipe(1, 32, 0.1, seed=number)
        plan.train_teacher(data, "resnet8", recipe, tmp_path / folder / "t.safetensors")
    paths = [str(tmp_path / folder / "t.safetensors") for folder in ("a", "b")]
    short = ("--seeds", "1", "--methods", "kd", "--teachers")
    assert study(*short, paths[0]) == 0
    record = json.loads((tmp_path / "study" / "t-kd-seed0.json").read_text())
    begun.clear()
    assert study(*short, paths[1]) == 2
    assert "teacher t was another one there" in capsys.readouterr().err
    assert study(*short, paths[0], "--teacher-epochs", "3") == 2
    assert "holds other settings" in capsys.readouterr().err
    assert begun == []
    assert study(*short, paths[0], "resnet8") == 0
    assert begun == ["resnet8-kd-seed0"]
    teachers = json.loads((tmp_path / "study" / "settings.json").read_text())["teachers"]
    assert teachers.keys() == {"t", "resnet8"}
    assert teachers["t"] == record["teacher_sha256"]


@trains
def test_a_checkpoint_of_another_teacher_is_not_gone_on_with(
    study: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a training is about names the very teacher, nobody where there is none."""
    found, original = dict[str, str](), tool.train

    def listened(network: Any, lesson: Any, recipe: Any, *more: Any, **others: Any) -> None:
        if recipe.about:
            found[recipe.about.split()[0]] = recipe.about
        original(network, lesson, recipe, *more, **others)

    monkeypatch.setattr(tool, "train", listened)
    assert study("--seeds", "1", "--methods", "kd") == 0
    sha256 = json.loads((tmp_path / "study" / "settings.json").read_text())["teachers"]["resnet8"]
    assert {name: sha256 in about for name, about in found.items()} == {"none-seed0": False, "resnet8-kd-seed0": True}


@trains
@pytest.mark.parametrize("text", ["{", "{}", '{"teacher": "none", "method": "none", "seed": 0, "test_accuracy": 2.0}'])
def test_a_damaged_record_is_refused(
    study: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Nothing is compared with what cannot be known."""
    assert study("--seeds", "1", "--methods", "kd") == 0
    (tmp_path / "study" / "none-seed0.json").write_text(text)
    assert study("--seeds", "1", "--methods", "kd") == 2
    assert "none-seed0.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--methods", "kt"), "unknown distillation method 'kt'"),
        (("--student", "mnasnet-32"), "give --student a space for these"),
        (("--student", "mnasnet-33"), "unknown space 'mnasnet-33'"),
        (("--teachers", "a/t.safetensors", "b/t.toml"), "two teachers are called t"),
        (("--teachers", "none"), "two teachers are called none"),
    ],
)
def test_what_cannot_be_studied_is_one_line(
    study: Callable[..., int], begun: list[str], capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    """Before anything is trained."""
    assert study(*more) == 2
    assert said in capsys.readouterr().err
    assert begun == []


# --- comparing --------------------------------------------------------------------------------------------------------


def record(teacher: str, method: str, seed: int, share: float) -> dict[str, Any]:
    return {"teacher": teacher, "method": method, "seed": seed, "test_accuracy": share}


def test_gains_are_taken_seed_by_seed() -> None:
    """A seed that is good for all says nothing of a method."""
    records = [
        record("none", "none", 0, 0.5),
        record("t", "kd", 0, 0.6),
        record("none", "none", 1, 0.7),
        record("t", "kd", 1, 0.8),
        record("none", "none", 2, 0.6),
        record("t", "kd", 2, 0.55),
    ]
    alone, kd = tool.compared(records)
    assert (alone["test_accuracy_mean"], alone["test_accuracy_deviation"]) == pytest.approx((0.6, 0.1))
    assert "gain_mean" not in alone
    assert kd["gain_mean"] == pytest.approx(0.05)
    assert kd["gain_deviation"] == pytest.approx(statistics.stdev([0.1, 0.1, -0.05]))
    assert (kd["better"], kd["seeds"]) == (2, 3)
    rows = tool.table([alone, kd]).splitlines()
    assert rows[1].split() == ["none", "none", "60.00", "±", "10.00"]
    assert rows[2].split() == ["t", "kd", "65.00", "±", "13.23", "+5.00", "±", "8.66", "2", "of", "3"]


def test_one_seed_has_no_deviation() -> None:
    """Null, and no ± in the table."""
    alone, kd = tool.compared([record("none", "none", 0, 0.5), record("t", "kd", 0, 0.4)])
    assert alone["test_accuracy_deviation"] is kd["gain_deviation"] is None
    assert tool.table([alone, kd]).splitlines()[2].split() == ["t", "kd", "40.00", "-10.00", "0", "of", "1"]


@pytest.mark.whole  # many draws
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6), st.floats(-0.2, 0.2, allow_nan=False)
)
def test_what_all_of_a_seed_share_changes_no_gain(shares: list[tuple[float, float]], shift: float) -> None:
    """Mean and deviation of gains are those of differences."""
    records = [
        record(*kind, seed, share)
        for seed, pair in enumerate(shares)
        for kind, share in zip((("none", "none"), ("t", "kd")), pair, strict=True)
    ]
    moved = [{**one, "test_accuracy": one["test_accuracy"] + shift * one["seed"]} for one in records]
    for name in ("gain_mean", "gain_deviation"):
        assert tool.compared(moved)[1][name] == pytest.approx(tool.compared(records)[1][name], abs=1e-9)


@given(st.integers(10, 120))
def test_students_see_a_balanced_part_whose_hash_names_it(count: int) -> None:
    """Classes differ by one image at most, and a logit cache of another part cannot answer."""
    labels = np.repeat(np.arange(10), 12)
    split = plan.Split(np.zeros((120, 4, 4, 1), np.uint8), labels)
    data = plan.DataSet("made up", "abc", 10, (0.5,), (0.5,), split, split, split)
    few = plan.few(data, count)
    found = np.bincount(few.train.labels, minlength=10)
    assert len(few.train) == count
    assert found.max() - found.min() <= 1
    assert few.sha256 not in {data.sha256, plan.few(data, count - 1).sha256}
