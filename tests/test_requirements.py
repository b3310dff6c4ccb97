"""A missing requirement skips a test, but never in CI, where it could hide a failure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from requirements import require

TESTS = Path(__file__).parent


def test_what_is_there_lets_the_test_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI and elsewhere."""
    for ci in ("", "true"):
        monkeypatch.setenv("CI", ci)
        require("/usr/bin/adb", "adb is not installed")


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_is_missing_skips_here_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """Both say what is missing."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="adb is not installed"):
        require(None, "adb is not installed")


def test_no_test_skips_in_another_way() -> None:
    """Whatever is left out must come past the rule above."""
    another = re.compile(r"pytest\.skip\(|mark\.skip|importorskip|mark\.xfail|pytest\.xfail")
    found = {path.name for path in TESTS.rglob("*.py") if another.search(path.read_text(encoding="utf-8"))}
    assert found <= {"requirements.py", Path(__file__).name}
