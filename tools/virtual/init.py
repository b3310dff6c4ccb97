"""A device's first process: mounts what the device sees, starts its daemon, and buries orphans.

Runs alone, by the host's Python, as process 1 of new mount and process namespaces: everything ends with it, and its
mounts are seen by nobody else. SIGUSR1 starts the daemon anew when it has ended. The JSON file that is its only
argument holds {"name", "mounts", "root", "program", "argv", "environment", "directory", "uid", "gid", "groups",
"pid_file"}.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_SIGNALS = {signal.SIGCHLD, signal.SIGUSR1}


def main() -> None:
    """Serve until killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    socket.sethostname(spec["name"])
    for arguments in spec["mounts"]:
        subprocess.run(["mount", *arguments], check=True)
    daemon = _start(spec)
    while True:
        received = signal.sigwait(_SIGNALS)
        ended = _bury()
        if daemon in ended:
            daemon = 0
        if received == signal.SIGUSR1 and not daemon:
            daemon = _start(spec)


def _start(spec: dict[str, Any]) -> int:
    def enter() -> None:
        os.chroot(spec["root"])
        os.chdir(spec["directory"])
        os.setgroups(spec["groups"])
        os.setgid(spec["gid"])
        os.setuid(spec["uid"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    # this process has no threads, so running Python between fork and exec is safe
    process = subprocess.Popen(
        spec["argv"],
        executable=spec["program"],
        env=spec["environment"],
        preexec_fn=enter,  # noqa: PLW1509 # as said above
        start_new_session=True,
    )
    pid_file = Path(spec["pid_file"])
    beside = pid_file.with_suffix(".new")
    beside.write_text(str(process.pid), encoding="ascii")
    beside.replace(pid_file)
    process.returncode = 0  # `_bury` waits for it
    return process.pid


def _bury() -> set[int]:
    ended: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.add(pid)


if __name__ == "__main__":
    main()
