"""Small text files of a device, read in one command over any transport.

What a Linux board says of itself lies in /proc, /sys and /etc. A round trip for each file would cost more than the
reading, so one fixed shell script prints them all as `path:line`. Nothing of ours is put into the script but the
paths, as its arguments. It interprets nothing but the few formats below.
Read next: `inventory.py` and `readiness.py`, which say what the files mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from device_agents.errors import TransportError
from device_agents.strict_json import clean_text
from device_agents.transport import Transport

# Patterns are expanded by the device's shell; -s passes over what is missing or denied, -a takes the NUL-ended
# device tree as text. /dev/null makes grep name the file even when one remains.
_SCRIPT = 'exec grep -asH "" /dev/null $*'
_READ_TIMEOUT_S = 20.0
_MAX_BYTES = 4 << 20  # a 1,024-CPU /proc/cpuinfo stays below 2 MB

Facts = Mapping[str, str]


def read_facts(transport: Transport, patterns: Sequence[str]) -> dict[str, str]:
    """Return the text of every readable file that matches a pattern of the shell, by path.

    Patterns are this package's own: they hold no blanks, and one with a colon holds no * and ?. Raises TransportError.
    """
    done = transport.run(["sh", "-c", _SCRIPT, "sh", *patterns], _READ_TIMEOUT_S)
    if done.exit_code > 2 or done.exit_code < 0:  # 1 and 2 tell of files without lines and unreadable ones
        raise TransportError(f"reading the device's state failed with exit code {done.exit_code}")
    texts: dict[str, list[str]] = {}
    with_colon = [pattern for pattern in patterns if ":" in pattern]
    for line in done.stdout[:_MAX_BYTES].decode("utf-8", "replace").split("\n"):
        named = next((path for path in with_colon if line.startswith(path + ":")), "")
        path, colon, text = (named, ":", line[len(named) + 1 :]) if named else line.partition(":")
        if colon:
            texts.setdefault(path, []).append(clean_text(text.replace("\t", " ")))
    return {path: "\n".join(lines) for path, lines in texts.items()}


def integer_in(facts: Facts, path: str) -> int | None:
    """Read a file that holds one integer; None when it is missing or holds something else."""
    text = facts.get(path, "").strip()
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def value_of(text: str, key: str) -> str | None:
    """Find a key in lines of `key: value` or `key=value` and return its first value without quotes."""
    match = re.search(rf"^{re.escape(key)}\s*[:=]\s*(.*)$", text, re.MULTILINE)
    return match.group(1).strip().strip('"') if match else None


def numbered(facts: Facts, pattern: str) -> dict[int, str]:
    """Return the texts of the paths that match a regular expression, by the number in its first group."""
    found = ((re.fullmatch(pattern, path), text) for path, text in facts.items())
    return {int(match.group(1)): text.strip() for match, text in found if match}


def cpu_list(text: str) -> tuple[int, ...]:
    """Read a kernel CPU list such as "0-3,6"; anything else is an empty list."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if not match:
            return ()
        cpus.extend(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return tuple(sorted(set(cpus)))
