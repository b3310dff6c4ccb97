"""`edgekd search --calibrate-proxy`: its text, its JSON, its file, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_run import write_data, write_teacher

from edgekd import cli
from edgekd.cli_proxy import FILE
from edgekd.search import proxy

pytestmark = pytest.mark.whole  # whole commands

SMALL = ("--calibrate-archs", "4", "--calibrate-epochs", "2", "--calibrate-images", "60")
GRID = ("--calibrate-grid", "epochs=1", "images=20,0.4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Little data and an ignorant teacher."""
    made = tmp_path_factory.mktemp("inputs")
    write_teacher(made / "teacher.safetensors", write_data(made / "data.npz", train=100), epochs=0)
    return made


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and give torch's thread count back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")
    yield
    sys.modules["torch"].set_num_threads(1)


def command(folder: Path, *more: str) -> list[str]:
    """Word a calibration; no table is there, and none is needed."""
    files = ("--data", str(folder / "data.npz"), "--teacher", str(folder / "teacher.safetensors"))
    return ["search", "--calibrate-proxy", "--space", "tiny-28", "--out", "run", *files, *more]


def result_of(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> Any:
    """Run a command that succeeds; give its JSON."""
    assert cli.run([*arguments, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow  # trains twenty candidates
def test_a_calibration_is_printed_kept_and_not_repeated(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names every setting, the teacher's part and the choice; again, it trains nothing and says the same."""
    assert cli.run(command(folder, *SMALL, *GRID)) == 0
    captured = capsys.readouterr()
    assert "4 architectures; the truth is kd, 2 epochs, 60 images" in captured.out
    assert captured.out.count(" kd    ") == captured.out.count(" none  ") == 2
    assert "What the teacher adds to Kendall τ" in captured.out
    assert "calibrate: 20/20" in captured.err
    kept = (Path("run") / FILE).read_bytes()
    assert len(kept.splitlines()) == 1 + 20

    monkeypatch.setattr(proxy, "train", lambda *rest, **more: pytest.fail("it trained"))
    found = result_of(capsys, command(folder, *SMALL, *GRID))
    assert (Path("run") / FILE).read_bytes() == kept
    assert [(one["setting"]["method"], one["setting"]["images"]) for one in found["settings"]] == [
        ("kd", 20),
        ("none", 20),
        ("kd", 40),
        ("none", 40),
    ]
    assert found["truth"]["archs"] == 4
    assert len(found["teacher"]) == 2
    options = f"--proxy-method {found['chosen']['method']} --proxy-epochs 1 --proxy-images {found['chosen']['images']}"
    assert options in captured.out
    assert ("better than chance" in captured.out) == (not found["above_chance"])


@pytest.mark.slow  # trains candidates
def test_without_a_teacher_nothing_is_said_of_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Conventional search can be calibrated, too."""
    data = ("--data", str(folder / "data.npz"), "--no-teacher")
    arguments = ["search", "--calibrate-proxy", "--space", "tiny-28", "--out", "run", *data]
    found = result_of(capsys, [*arguments, *SMALL, "--calibrate-grid", "epochs=1", "images=20"])
    assert [one["setting"]["method"] for one in found["settings"]] == ["none"]
    assert found["teacher"] == []


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (("--calibrate-epochs", "0"), "calibrate-epochs is 0"),
        (("--calibrate-archs", "3"), "calibrate-archs is 3; it must be at least 4"),
        (("--calibrate-grid", "epoch=1"), "did you mean 'epochs'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_before_a_run_folder_is_begun(
    folder: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...], hint: str
) -> None:
    """With exit code 2 and one line."""
    assert cli.run(command(folder, *wrong)) == 2
    captured = capsys.readouterr()
    assert hint in captured.err
    assert captured.out == ""
    assert not Path("run").exists()
