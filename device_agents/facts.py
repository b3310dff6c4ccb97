"""Small text files of a device and the output of a few commands, read in one round trip over any transport.

What a Linux board says of itself lies in /proc, /sys and /etc; Android has commands for the rest. A round trip for each
would cost more than the reading, so one shell script prints them all: the commands under headings, then the files as
`path:line`. The script is made of this package's own texts alone; what varies comes as arguments.
It interprets nothing but the few formats below. Read next: `describe.py` and `readiness.py`, which say what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_agents.errors import TransportError
from device_agents.strict_json import clean_text
from device_agents.transport import Transport

# Patterns are expanded by the device's shell; -s passes over what is missing or denied, -a (where grep has it) takes
# the NUL-ended device tree as text. /dev/null makes grep name the file even when one remains.
_GREP = """
a=; if echo x | grep -aq x 2>/dev/null; then a=-a; fi
exec grep $a -sH "" /dev/null $*"""
_HEADING = "@edgekd "  # no honest line begins so; another could only spoil what its own device says
_READ_TIMEOUT_S = 60.0  # a second at most, but for emulated devices on a busy machine
_MAX_BYTES = 4 << 20  # a 1,024-CPU /proc/cpuinfo stays below 2 MB

Facts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a device said: the lines of each command by its heading, and the text of each file by its path."""

    said: Mapping[str, tuple[str, ...]]
    files: Facts

    def first(self, heading: str) -> str:
        """Return the first line of a command's output, or nothing."""
        return next(iter(self.said.get(heading, ())), "").strip()


def read_facts(transport: Transport, patterns: Sequence[str]) -> dict[str, str]:
    """Return the text of every readable file that matches a pattern of the shell, by path.

    Patterns are this package's own: they hold no blanks, and one with a colon holds no * and ?. Raises TransportError.
    """
    return dict(read(transport, {}, patterns).files)


def read(transport: Transport, commands: Mapping[str, str], patterns: Sequence[str], argument: str = "") -> Reading:
    """Run commands, each a piece of shell script under its heading, and read files, all in one round trip.

    The pieces are this package's own and find `argument` in "$argument"; one that fails has said what it said.
    Raises TransportError when the device has no shell or does not answer.
    """
    parts = [f"echo '{_HEADING}{name}'; {{ {piece}\n}} </dev/null 2>/dev/null" for name, piece in commands.items()]
    script = "\n".join(["argument=$1; shift", *parts, f"echo '{_HEADING}'", _GREP])
    done = transport.run(["sh", "-c", script, "sh", argument, *patterns], _READ_TIMEOUT_S)
    if done.exit_code > 2 or done.exit_code < 0:  # 1 and 2 tell of files without lines and unreadable ones
        raise TransportError(f"reading the device's state failed with exit code {done.exit_code}")
    said: dict[str, list[str]] = {}
    heading = ""
    for line in done.stdout[:_MAX_BYTES].decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if line.startswith(_HEADING):
            heading = line.removeprefix(_HEADING)
        else:
            said.setdefault(heading, []).append(clean_text(line.replace("\t", " ")))
    return Reading({name: tuple(lines) for name, lines in said.items() if name}, _files(said.get("", []), patterns))


def _files(lines: Sequence[str], patterns: Sequence[str]) -> Facts:
    texts: dict[str, list[str]] = {}
    with_colon = [pattern for pattern in patterns if ":" in pattern]
    for line in lines:
        named = next((path for path in with_colon if line.startswith(path + ":")), "")
        path, colon, text = (named, ":", line[len(named) + 1 :]) if named else line.partition(":")
        if colon:
            texts.setdefault(path, []).append(text)
    return {path: "\n".join(lines) for path, lines in texts.items()}


def integer_in(facts: Facts, path: str) -> int | None:
    """Read a file that holds one integer; None when it is missing or holds something else."""
    text = facts.get(path, "").strip()
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def value_of(text: str, key: str) -> str | None:
    """Find a key in lines of `key: value` or `key=value` and return its first value without quotes."""
    match = re.search(rf"^{re.escape(key)} *[:=] *(.*)$", text, re.MULTILINE)
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
