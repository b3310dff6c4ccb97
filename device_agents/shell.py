"""Command lines for wires that carry one string to a shell on the device (sshd, adbd).

Every argument is quoted; the fixed scripts around them are this module's own. A command first says its process group,
so that it and all that it started can be ended later. Both daemons make a command the leader of a session of its own.
It sends nothing: `ssh.py` and `adb/transport.py` do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from device_agents.errors import ProtocolError, TransportError

# A program that is not there is said as such: an exit code of 127 may be the command's own.
_FIND = 'command -v "$1" >/dev/null 2>&1 || { printf "missing %s\\n" "$1"; exit 127; }; '
# exec keeps the process id, so that the shell's is the command's.
_PLAIN = _FIND + 'echo "$$"; exec "$@"'
# A command without input: its standard input stays open as long as the link does, and its end is the command's.
# The whole group dies with it, this shell included; `wait` gives the exit code where the command ends first.
# The watcher reads with a builtin: a `cat` would outlive it and hold the link, whose end adbd awaits.
# Of all ways to write it, `kill -9 -GROUP` is the one that dash, mksh, bash, busybox and toybox understand.
_WATCHED = (
    _FIND + 'echo "$$"; exec 3<&0; "$@" 3<&- </dev/null & '
    "pid=$!; (while read -r _ <&3; do :; done; kill -9 -$$) >/dev/null 2>&1 & "
    'watch=$!; exec 3<&-; wait "$pid"; code=$?; kill -9 "$watch" 2>/dev/null; exit "$code"'
)
# Plain words as every login shell leaves them: a leading = means a program to zsh, % a process to fish.
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:,@+-][A-Za-z0-9_./:,@+=-]*\Z", re.ASCII)
_MISSING = b"missing "
_GROUP = re.compile(rb"\d{1,10}\Z")


def command_line(argv: Sequence[str]) -> str:
    """Return the line that runs a command which reads its own input to the end; its group id is the first line out."""
    return _line(_PLAIN, argv)


def watched_line(argv: Sequence[str]) -> str:
    """Return the line that runs a command without input, which ends when the link does."""
    return _line(_WATCHED, argv)


def kill_line(group: int) -> str:
    """Return the line that ends a process group; harmless when it has ended."""
    return f"exec sh -c 'kill -9 -{group:d} 2>/dev/null; true'"


def group_of(line: bytes) -> int:
    """Read the process group id that a command said first.

    Raises TransportError when the program is not on the device, ProtocolError for anything else.
    """
    if line.startswith(_MISSING):
        name = line.removeprefix(_MISSING)[:200].decode("utf-8", "replace")
        raise TransportError(f"cannot start {name!r}: the device has no such program")
    if not _GROUP.match(line) or int(line) < 2:  # 0 and 1 would end our own group, or everything
        raise ProtocolError(
            f"expected a process id from the device's shell, got {line[:80]!r}; "
            "does a start-up file of that shell (.bashrc) print something without a terminal?"
        )
    return int(line)


def quoted(word: str) -> str:
    """Quote a word for whatever shell the user of the device logs in with: those of POSIX, zsh and fish.

    fish takes a backslash in single quotes for an escape, so that each stands in double quotes, as quotes do.
    """
    if _PLAIN_WORD.match(word):
        return word
    doubled = "".join({"'": "'\"'\"'", "\\": "'\"\\\\\"'"}.get(char, char) for char in word)
    return f"'{doubled}'"


def _line(script: str, argv: Sequence[str]) -> str:
    if any("\0" in argument for argument in argv):
        raise ProtocolError(f"an argument of {argv[0]!r} holds a NUL character, which no command can take")
    return f"exec sh -c {quoted(script)} sh {' '.join(map(quoted, argv))}"
