"""Starting a device's processes, asking whether its daemon answers, and ending them.

A device is the process tree of an init (`init.py`) that lives in the device's namespaces; `network.processes` finds it
whatever became of the program that started it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from virtual.kinds import Kind
from virtual.network import Link, processes
from virtual.places import HERE, Places, VirtualDeviceError

_READY_SECONDS = 60.0  # emulated daemons on a busy machine
_END_SECONDS = 20.0
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 5.0
_ADB_HEADER = struct.Struct("<6I")  # command, two arguments, length and checksum of the data, command inverted
_CNXN = 0x4E584E43
_ADB_VERSION, _ADB_MAX_DATA = 0x01000001, 1 << 20
Started = subprocess.Popen[bytes]
_DAEMON_NAMES = (b"sshd", b"adbd")


def spec_path(places: Places, kind: Kind) -> Path:
    """Return the file that tells a device's init what to do."""
    return places.device(kind.name) / "init.json"


def pid_path(places: Places, kind: Kind) -> Path:
    """Return the file that a device's init writes once its daemon is started."""
    return places.device(kind.name) / "daemon.pid"


def start(places: Places, kind: Kind, link: Link) -> Started:
    """Start a device's init in its namespaces; it outlives this program."""
    folder = places.device(kind.name)
    enter = ["nsenter", f"--net={link.namespace_path}", "unshare", "--mount", "--propagation", "slave"]
    # its own uts namespace gives it a name of its own; with --kill-child everything ends with unshare
    enter += ["--uts", "--ipc", "--pid", "--fork", "--kill-child"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*enter, sys.executable, "-S", "-E", str(HERE / "init.py"), str(spec_path(places, kind))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )


def wait_ready(places: Places, kind: Kind, link: Link, started: Started | None = None) -> None:
    """Wait until a daemon answers in its protocol. Raises VirtualDeviceError with the end of its log."""
    until = time.monotonic() + _READY_SECONDS
    while not answers(kind, link):
        if time.monotonic() > until or _has_ended(places, kind, link, started):
            log = (places.device(kind.name) / "log").read_text(encoding="utf-8", errors="replace")[-600:].strip()
            raise VirtualDeviceError(f"{kind.name} does not answer at {link.address}:{kind.port}; its log: {log}")
        time.sleep(_POLL_SECONDS)  # a daemon tells nobody when it answers, or has ended


def _has_ended(places: Places, kind: Kind, link: Link, started: Started | None) -> bool:
    """Tell whether a device's daemon was started and is gone, or its init is."""
    if started is not None and started.poll() is not None:
        return True
    return pid_path(places, kind).exists() and not any(is_daemon(pid) for pid in processes(link))


def answers(kind: Kind, link: Link, timeout_s: float = _ANSWER_SECONDS) -> bool:
    """Greet a daemon and see whether it greets back: an SSH banner, or adb's CNXN."""
    greeting, expected = (_adb_greeting(), struct.pack("<I", _CNXN)) if kind.android else (b"", b"SSH-2.0-")
    try:
        # from the link's own end, so that no other network is asked where there is no link
        own = (link.host_address, 0)
        with socket.create_connection((link.address, kind.port), timeout_s, own) as connection:
            connection.sendall(greeting)
            answer = b""
            while len(answer) < len(expected):
                part = connection.recv(len(expected) - len(answer))
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    return answer == expected


def _adb_greeting() -> bytes:
    banner = b"host::features=shell_v2,cmd"
    header = (_CNXN, _ADB_VERSION, _ADB_MAX_DATA, len(banner), sum(banner), _CNXN ^ 0xFFFFFFFF)
    return _ADB_HEADER.pack(*header) + banner


def end(link: Link) -> None:
    """Kill everything in a device's namespace and wait until it is gone. Raises VirtualDeviceError."""
    _kill_until_gone(lambda: processes(link), link.namespace)


def kill_daemon(link: Link) -> None:
    """Kill a device's daemon and the sessions it serves at once; programs that those started live on.

    It is gone when init has buried it: a process that ends loses its name before its parent hears of it, and an init
    that takes its daemon for alive starts no other.
    """
    doomed: set[int] = set()

    def remaining() -> list[int]:
        doomed.update(pid for pid in processes(link) if is_daemon(pid))
        return [pid for pid in doomed if Path(f"/proc/{pid}").exists()]

    _kill_until_gone(remaining, f"the daemon of {link.namespace}")


def start_daemon(places: Places, kind: Kind, link: Link) -> None:
    """Let a device's init start its daemon where it has ended. Raises VirtualDeviceError where there is no init."""
    init = next((pid for pid in processes(link) if _inner_pid(pid) == 1), None)
    if init is None:
        raise VirtualDeviceError(f"{kind.name} has no first process; start it anew with down and up")
    pid_path(places, kind).unlink(missing_ok=True)
    os.kill(init, signal.SIGUSR1)


def is_daemon(pid: int) -> bool:
    """Tell whether a process is an sshd or adbd, emulated or not."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.partition(b":")[0].rpartition(b"/")[2].startswith(_DAEMON_NAMES) for word in words[:2])


def _inner_pid(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = [line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")]
    return int(found[0]) if found else 0


def _kill_until_gone(find: Callable[[], list[int]], what: str) -> None:
    until = time.monotonic() + _END_SECONDS
    while found := find():
        if time.monotonic() > until:
            raise VirtualDeviceError(f"{what}: processes {found} do not end")
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(_POLL_SECONDS)  # a daemon tells nobody when it answers, or has ended


def write_spec(path: Path, spec: dict[str, object]) -> None:
    """Write what a device's init is to do."""
    path.write_text(json.dumps(spec, indent=1), encoding="utf-8")
