"""Wireless debugging: pairing with a phone and connecting to it, by Google's own adb, version 30 or later.

Pairing is an exchange of keys over TLS that only Google's client speaks; it starts the adb server when none runs.
The pairing code goes to its standard input, so that it stands in no list of processes and in no message.
Read next: `server.py`, which uses the device once it is connected.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agents.errors import InvalidRequest, NotAuthorised, SetupFailed, TransportTimeout
from device_agents.strict_json import clean_text

LEAST_VERSION = 30  # of the platform tools: the first with `adb pair`
_TIMEOUT_S = 60.0
_VERSION = re.compile(r"^Version (?P<major>\d{1,5})\.", re.MULTILINE)
_TARGET = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%]+\]):\d{1,5}")
_CODE = re.compile(r"[A-Za-z0-9]{4,64}")
_HOW = "install Google's platform-tools and name its adb with --adb or $ADB"


@dataclass(frozen=True, slots=True)
class AdbProgram:
    """An adb program on this machine that can pair."""

    path: Path
    version: int


def find_adb(given: str = "") -> AdbProgram:
    """Find an adb that can pair: the one given, else $ADB, else the one on the PATH.

    Raises SetupFailed when there is none, or it is older than version 30.
    """
    name = given or os.environ.get("ADB", "") or "adb"
    found = shutil.which(name)
    if found is None:
        raise SetupFailed(f"there is no program {name!r}; {_HOW}")
    path = Path(found)
    match = _VERSION.search(_run([str(path), "version"], ""))
    if match is None:
        raise SetupFailed(f"{path} does not say its version as adb does; {_HOW}")
    version = int(match["major"])
    if version < LEAST_VERSION:
        raise SetupFailed(f"{path} is version {version} and cannot pair, which needs {LEAST_VERSION}; {_HOW}")
    return AdbProgram(path, version)


def pair(adb: AdbProgram, target: str, code: str) -> None:
    """Pair with the phone that shows "host:port" and a code on its screen.

    Raises InvalidRequest, NotAuthorised when the phone refuses, SetupFailed, TransportTimeout.
    """
    _check_target(target)
    if not _CODE.fullmatch(code):
        raise InvalidRequest("the pairing code is not the six digits of the phone's screen")
    answer = _run([str(adb.path), "pair", target], f"{code}\n").replace(code, "······")
    if "Successfully paired" not in answer:
        raise NotAuthorised(f"{target} did not pair: {_last(answer)}; ask the phone for a new code and try again")


def connect(adb: AdbProgram, target: str) -> None:
    """Let the adb server connect to a paired phone. Raises as `pair` does."""
    _check_target(target)
    answer = _run([str(adb.path), "connect", target], "")
    if not re.search(r"^(already )?connected to ", answer, re.MULTILINE):
        raise NotAuthorised(f"{target} is not connected: {_last(answer)}; is that the port of the phone's first page?")


def _check_target(target: str) -> None:
    if not _TARGET.fullmatch(target) or not 1 <= int(target.rpartition(":")[2]) <= 65535:
        raise InvalidRequest(f"{target!r} is not host:port, as the phone shows it under wireless debugging")


def _run(argv: Sequence[str], stdin: str) -> str:
    """Return both outputs of a run of adb: it says its errors on either, and its exit code tells little."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TransportTimeout(f"`{argv[0]} {argv[1]}` did not end within {_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise SetupFailed(f"{argv[0]} cannot be run: {error.strerror}; {_HOW}") from error
    return done.stdout


def _last(answer: str) -> str:
    lines = [clean_text(line) for line in answer.splitlines() if line.strip()]
    return lines[-1] if lines else "adb said nothing"
