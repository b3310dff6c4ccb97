"""What the virtual machine runs: every kind of call over real USB, alone, beside an adb server and through it.

It prints one line of JSON: what was seen at each step, and judges nothing. It needs root, adb, and `phone` beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from device_agents.adb.choice import DEFAULT_OPTIONS, AdbOptions, connector_for
from device_agents.adb.transport import AdbTransport
from device_agents.adb.usb_list import list_usb
from device_agents.addresses import Address
from device_agents.errors import DeviceError

_T = TypeVar("_T")

_SERIAL = Path("/sys/kernel/config/usb_gadget/g1/strings/0x409/serialnumber")
_WORK = "/data/local/tmp"
_FILE_SIZES = (0, 512, 16384, 4 << 20)
# around the sizes at which a transfer ends without a short packet, and more than one packet of adb
_SIZES = (0, 1, 59, 64, 507, 512, 1019, 1024, 16379, 16384, 65536, (1 << 20) + 512)
_LINES = 2000
_NOBODY = 65534
_CALL_S = 60.0
_SOON_S = 30.0


def main() -> None:
    """Check everything; or, with an address, only listen to that phone until killed."""
    if len(sys.argv) > 1:
        _listen(Address.parse(sys.argv[1]))
        return
    serial = _SERIAL.read_text(encoding="ascii").strip()
    steps: dict[str, Callable[[Address], object]] = {
        "listed": lambda _: _await(lambda: list_usb()[0]),
        "as_nobody": _as_nobody,
        "usb": _everything,
        "twice": _twice,
        "after_killed_host": _after_killed_host,
        "replugged": _replugged,
        "absent": lambda _: _refusal(Address.parse("adb://NOSUCH")),
        "held": _with_server,
        "after_server": _greet,
    }
    seen: dict[str, object] = {"serial": serial}
    for name, step in steps.items():
        began = time.monotonic()
        seen[name] = step(Address.parse(f"adb://{serial}"))
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(seen), flush=True)


# --- one connection ---------------------------------------------------------------------------------------------------


def _everything(address: Address) -> dict[str, object]:
    connector = connector_for(address)
    with closing(AdbTransport(connector)) as transport:
        return {
            "way": type(connector).__name__,
            "run": _run(transport),
            "lines": _lines(transport),
            "echo": _echo(transport),
            "outputs": _outputs(transport),
            "files": _files(transport),
            "kill": _kill(transport),
        }


def _open(address: Address, options: AdbOptions = DEFAULT_OPTIONS) -> AdbTransport:
    return AdbTransport(connector_for(address, options))


def _run(transport: AdbTransport) -> list[object]:
    done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 7"], _CALL_S)
    return [done.exit_code, done.stdout.decode(), done.stderr.decode()]


def _lines(transport: AdbTransport) -> bool:
    """Tell whether many lines come as they were written."""
    process = transport.stream(["seq", "1", str(_LINES)])
    lines = [process.read_line(_CALL_S) for _ in range(_LINES + 1)]
    return lines == [*(str(number).encode() for number in range(1, _LINES + 1)), None] and process.wait(_CALL_S) == 0


def _echo(transport: AdbTransport) -> list[object]:
    """Write lines and read each before the next."""
    process = transport.stream(["cat"])
    same = 0
    for number in range(20):
        line = b"%d " % number * 200
        process.write_line(line, _CALL_S)
        same += process.read_line(_CALL_S) == line
    process.close_stdin()
    return [same, process.wait(_CALL_S)]


def _outputs(transport: AdbTransport) -> list[tuple[int, int]]:
    """Return sizes that were asked for, and how much came."""
    return [(size, len(transport.run(["head", "-c", str(size), "/dev/zero"], _CALL_S).stdout)) for size in _SIZES]


def _files(transport: AdbTransport) -> dict[str, bool]:
    """Copy files there and back; tell which are the same on the device, and which after that."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sent = {f"{_WORK}/file_{size}": folder / str(size) for size in _FILE_SIZES}
        for local in sent.values():
            local.write_bytes(os.urandom(int(local.name)))
        transport.push_all(sent)
        there = transport.run(["sha256sum", *sent], _CALL_S).stdout.decode().split()[::2]
        for remote, local in sent.items():
            transport.pull(remote, local.with_suffix(".back"))
        back = [_hash(local.with_suffix(".back")) for local in sent.values()]
        expected = [_hash(local) for local in sent.values()]
    left = transport.run(["find", _WORK, "-name", "*.part"], _CALL_S).stdout
    return {"pushed": there == expected, "pulled": back == expected, "left": bool(left)}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kill(transport: AdbTransport) -> bool:
    """Tell whether a killed process has ended, and what it started."""
    process = transport.stream(["sh", "-c", "sleep 1000 & echo started; sleep 1000"])
    process.read_line(_CALL_S)
    process.kill()
    return _await(lambda: transport.run(["pidof", "sleep"], _CALL_S).stdout == b"")


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _greet(address: Address) -> str:
    with closing(_open(address)) as transport:
        return transport.run(["echo", "hello"], _CALL_S).stdout.decode()


def _refusal(address: Address, options: AdbOptions = DEFAULT_OPTIONS) -> str:
    with closing(_open(address, options)) as transport:
        return _error_of(lambda: transport.run(["true"], _CALL_S))


def _as_nobody(address: Address) -> dict[str, object]:
    """List and open as a user who may not."""
    os.seteuid(_NOBODY)
    try:
        return {"listed": list_usb(), "refusal": _refusal(address)}
    finally:
        os.seteuid(0)


def _twice(address: Address) -> dict[str, object]:
    """Open it while another connection of ours is open."""
    with closing(_open(address)) as first:
        first.run(["true"], _CALL_S)
        refusal = _refusal(address)
        return {"refusal": refusal, "first": first.run(["echo", "still"], _CALL_S).stdout.decode()}


def _after_killed_host(address: Address) -> dict[str, object]:
    """Kill another process that reads without end, and take the phone over, which has more to send to that."""
    with subprocess.Popen([sys.executable, __file__, str(address)], stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None  # noqa: S101 - it was asked for
        heard = listener.stdout.readline().decode()
        listener.kill()
    with closing(_open(address)) as transport:
        hello = transport.run(["echo", "hello"], _CALL_S).stdout.decode()
        ended = _await(lambda: transport.run(["pidof", "yes"], _CALL_S).stdout == b"")
    return {"heard": heard, "hello": hello, "ended": ended}


def _listen(address: Address) -> None:
    with closing(_open(address)) as transport:
        process = transport.stream(["yes"])
        print((process.read_line(_CALL_S) or b"").decode(), flush=True)
        while process.read_line(_CALL_S) is not None:
            pass


def _replugged(address: Address) -> dict[str, object]:
    """Pull the cable while a process is listened to, and put it back."""
    with closing(_open(address)) as transport:
        process = transport.stream(["cat"])
        with _detached():
            broken = _error_of(lambda: process.read_line(_SOON_S))
            absent = _error_of(lambda: transport.run(["true"], _CALL_S))
        listed = _await(lambda: list_usb()[0])
        again = transport.run(["echo", "again"], _CALL_S).stdout.decode()
    return {"broken": broken, "absent": absent, "listed": listed, "again": again}


@contextmanager
def _detached() -> Iterator[None]:
    subprocess.run(["/check/phone", "detach"], check=True)
    try:
        yield
    finally:
        subprocess.run(["/check/phone", "attach"], check=True)


def _error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except DeviceError as error:
        return f"{type(error).__name__}: {error}"
    return ""


# --- beside an adb server ---------------------------------------------------------------------------------------------


def _with_server(address: Address) -> dict[str, object]:
    """Ask for the phone past the server that holds it, and through that."""
    _adb("start-server")
    _adb("wait-for-device")
    refusal = _refusal(address, AdbOptions(direct=True))
    through = _everything(address)
    _adb("kill-server")
    return {"refusal": refusal, "through": through}


def _adb(command: str) -> None:
    subprocess.run(["adb", command], check=True, timeout=_CALL_S, stdout=sys.stderr)


def _await(call: Callable[[], _T]) -> _T:
    """Return the first answer that is not empty."""
    until = time.monotonic() + _SOON_S
    while not (answer := call()) and time.monotonic() < until:
        time.sleep(0.1)  # until the kernel has asked the phone what it is
    return answer


if __name__ == "__main__":
    main()
