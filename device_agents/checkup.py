"""Every precondition of measuring on a device, looked at in turn, each with what to do where it fails.

What cannot be looked at because something before it failed is left out. A caller adds checks of its own, such as a
comparison of outputs, which need more than this package knows.
Read next: `readiness.py` for the state of the moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from device_agents.catalogue import limits_of
from device_agents.describe import Description, Target, examine
from device_agents.device import Device
from device_agents.errors import DeviceBusy, DeviceError, DeviceNotReady, HostKeyRefused, NotAuthorised
from device_agents.inventory import open_target
from device_agents.readiness import Check, checks_of, read_conditions
from device_agents.strict_json import clean_lines
from device_agents.transport import Transport
from device_agents.work_folder import WorkFolder

ExtraCheck = Callable[[Device, Transport], Check]
_TIMEOUT_S = 60.0
# What an engine's Python may lack, and how the command that installs it names the engine.
_MISSING = {"python": ("runtime", ""), "onnxruntime": ("onnxruntime", " --device-engine onnxruntime")}
# Takes the lock without waiting and gives it back; what is in the file only tells a person who holds it.
_LOCK = """
cd "$1" 2>/dev/null || exit 0
[ -f lock ] && [ ! -L lock ] && command -v flock >/dev/null || exit 0
if flock -n 9; then exit 0; fi 9<lock
head -c 400 lock; exit 3"""
_WRITE = 'cd "$1" && : > .edgekd-check && rm .edgekd-check'


def check_device(target: Target, extra_checks: Sequence[ExtraCheck] = ()) -> Iterator[Check]:
    """Yield every check of a device as it is done; the extra ones come last and only when a session could be opened."""
    try:
        transport = open_target(target)
    except DeviceError as error:
        yield _unreachable(target, error)
        return
    with closing(transport):
        try:
            description = examine(target, transport)
        except DeviceError as error:
            yield _unreachable(target, error)
            return
        device = description.device
        yield Check("reachable", ok=True, found=f"{device.model}, {device.os}, at {device.address}")
        yield from _on(description, transport, extra_checks)


def _on(description: Description, transport: Transport, extra_checks: Sequence[ExtraCheck]) -> Iterator[Check]:
    device = description.device
    usable = True
    for check in (_work_folder(device, transport), engine_check(description), lock_check(device, transport)):
        usable = usable and check.ok
        yield check
    try:
        yield from checks_of(read_conditions(device, transport), limits_of(device.system, device.model))
    except DeviceError as error:
        yield _failed("conditions", error, "see that its shell answers")
        usable = False
    for extra in extra_checks if usable else ():
        try:
            yield extra(device, transport)
        except DeviceError as error:
            yield _failed("measuring", error, "")
    if device.address.kind == "local":
        WorkFolder(transport, device.work_dir, _TIMEOUT_S).clean(0)


def engine_check(description: Description) -> Check:
    """See that the device's engine has all it needs: its files here, its runtime there."""
    from device_agents.engines import engine_named

    device = description.device
    try:
        engine_named(device.engine).files(device)
    except DeviceError as error:
        return _failed("engine", error, "")
    if device.engine in _MISSING:
        if description.python is not None and not description.runtimes:
            version = ".".join(map(str, description.python.version))
            missing, option = _MISSING[device.engine]
            found = f"{device.python} (Python {version}) has no {missing}"
            return Check("engine", ok=False, found=found, advice=f"edgekd devices setup {device.name}{option}")
        words = [f"{name} {version}" for name, version in description.runtimes.items()]
        return Check("engine", ok=True, found=f"{device.engine}: {', '.join(words) or device.python}")
    return Check("engine", ok=True, found=device.engine)


def _unreachable(target: Target, error: DeviceError) -> Check:
    if isinstance(error, HostKeyRefused):
        return _failed("host key", error, "--accept-new-host-key trusts unknown keys, never changed ones")
    if isinstance(error, NotAuthorised):
        return _failed("authorised", error, "")
    return _failed("reachable", error, f"see that {target.address} is switched on and in reach")


def _failed(name: str, error: DeviceError, advice: str) -> Check:
    return Check(name, ok=False, found=str(error), advice=advice)


def _work_folder(device: Device, transport: Transport) -> Check:
    advice = f"give {device.work_dir} to this user alone, with mode 0700, on a disk with free space"
    try:
        WorkFolder(transport, device.work_dir, _TIMEOUT_S).prepare()
        done = transport.run(["sh", "-c", _WRITE, "sh", device.work_dir], _TIMEOUT_S)
    except DeviceError as error:
        return _failed("work folder", error, advice)
    if done.exit_code != 0:
        said = clean_lines(done.stderr.decode("utf-8", "replace"))
        return Check("work folder", ok=False, found=said[-1] if said else "cannot be written", advice=advice)
    return Check("work folder", ok=True, found=f"{device.work_dir} is safe and can be written")


def lock_check(device: Device, transport: Transport) -> Check:
    """See that nobody measures on the device; the lock is taken and given back."""
    try:
        done = transport.run(["sh", "-c", _LOCK, "sh", device.work_dir], _TIMEOUT_S)
    except DeviceError as error:
        return _failed("lock", error, "")
    if done.exit_code != 3:
        return Check("lock", ok=True, found="nobody measures on it")
    said = done.stdout.decode("utf-8", "replace")
    owner, pid = re.search(r'"owner": ?"([\w@.:-]{1,100})', said), re.search(r'"pid": ?(\d{1,10})', said)
    found = f"{owner[1] if owner else 'somebody'} measures on it" + (f" (process {pid[1]} there)" if pid else "")
    return Check("lock", ok=False, found=found, advice="wait for its end")


def require_ready(name: str, checks: Sequence[Check]) -> None:
    """Raise DeviceNotReady, or DeviceBusy when only the lock is held, where a required check failed."""
    failed = [check for check in checks if check.stops]
    if failed:
        error = DeviceBusy if all(check.name == "lock" for check in failed) else DeviceNotReady
        names = ", ".join(check.name for check in failed)
        raise error(f"{name} is not ready: {len(failed)} of {len(checks)} checks failed: {names}")
