"""What a test needs of the machine that it runs on: elsewhere the test is skipped without it, in CI it fails."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str) -> None:
    """Skip the test where the condition is false; a CI machine must have everything, so there the test fails."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"CI runs every test: {reason}")
    pytest.skip(reason)
