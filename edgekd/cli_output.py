"""Prints a command's result on stdout, as text or JSON. Everything else goes to stderr, elsewhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from edgekd.errors import EdgekdError


def print_result(result: Any, text: Sequence[str], form: str) -> None:
    """Print the lines of a text, or with form "json" the result. Raises EdgekdError when stdout takes no more."""
    content = json.dumps(result, indent=2, ensure_ascii=False) if form == "json" else "\n".join(text)
    try:
        print(content, flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - so that the exit's flush does not fail
        if not isinstance(error, BrokenPipeError):  # that is a reader that has seen enough, as `head`
            raise EdgekdError(f"cannot write the result to stdout: {error.strerror or error}") from error
