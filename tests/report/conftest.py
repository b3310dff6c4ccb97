"""Fixtures that make run folders, as report_runs.py writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_runs import Shape, write_run

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder and returns its path; keywords are those of Shape."""

    def make(**shape: Any) -> Path:
        folder = tmp_path / "run"
        write_run(folder, Shape(**shape))
        return folder

    return make


@pytest.fixture(scope="session")
def make_small_run() -> Callable[[Path], None]:
    """Return a function that writes a run of three samples into a folder; for property tests, so of the session."""
    return lambda folder: write_run(folder, Shape(search=3, random=None))
