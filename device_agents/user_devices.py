"""devices.toml: the devices that a person has named, and edits of that file which keep everything else in it.

    [my-pi]
    address = "ssh://pi@192.168.1.20"      # the only key that must be there

Files are looked for in this order: $EDGEKD_DEVICES alone, or ./devices.toml and then the user's configuration folder.
A name in the first hides the same name in the second. Relative paths are relative to the file that holds them.
It connects to nothing. Read next: `inventory.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from device_agents.addresses import Address
from device_agents.errors import DeviceNotReady, InvalidRequest
from device_agents.facts import cpu_list
from device_agents.strict_json import clean_text

FILE_NAME = "devices.toml"
ENGINE_NAMES = ("python", "native", "benchmark_model", "onnxruntime")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_FILE_BYTES = 1 << 20
_PATHS = ("benchmark_model", "litert_library", "key", "known_hosts", "ssh_config")  # on this machine


@dataclass(frozen=True, slots=True)
class UserDevice:
    """One table of devices.toml; empty texts, no CPUs and 0 threads are not given.

    cpus are the CPUs to measure on. The two hashes are what `edgekd devices setup` found the files to be.
    """

    name: str
    address: Address
    engine: str = ""
    benchmark_model: str = ""
    benchmark_model_sha256: str = ""
    litert_library: str = ""
    litert_library_sha256: str = ""
    python: str = ""
    cpus: tuple[int, ...] = ()
    threads: int = 0
    key: str = ""
    known_hosts: str = ""
    ssh_config: str = ""
    source: Path = Path()


_KEYS = tuple(field.name for field in fields(UserDevice) if field.name not in ("name", "source"))


def files_read(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """List the files that are looked for, first the one that counts more."""
    if alone := environ.get("EDGEKD_DEVICES"):
        return (Path(alone),)
    return (Path(FILE_NAME), user_file(environ))


def user_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the user's own file, which may not exist."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(home) / "edgekd" / FILE_NAME


def file_to_write(user: bool, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file that a new device goes to: the project's, or with `user` the user's."""
    if environ.get("EDGEKD_DEVICES"):
        return Path(environ["EDGEKD_DEVICES"])
    return user_file(environ) if user else Path(FILE_NAME)


def load_all(environ: Mapping[str, str] = os.environ) -> dict[str, UserDevice]:
    """Read all files there are, by name. Raises InvalidRequest for the first thing in them that makes no sense."""
    found: dict[str, UserDevice] = {}
    if (alone := environ.get("EDGEKD_DEVICES")) and not Path(alone).exists():
        raise InvalidRequest(f"EDGEKD_DEVICES names {alone}, which does not exist; give an absolute path, or unset it")
    for path in files_read(environ):
        for name, device in load(path).items():
            if path == Path(FILE_NAME) and not alone:
                _check_harmless(device, path, user_file(environ))
            found.setdefault(name, device)
    return found


def _check_harmless(device: UserDevice, path: Path, own: Path) -> None:
    """Refuse what would let a folder that somebody else has made run programs on this machine."""
    if device.ssh_config or device.address.kind == "local":
        key = "ssh_config" if device.ssh_config else "a local address"
        raise InvalidRequest(f"{path}: {device.name} has {key}, which can run programs here; put it into {own} instead")


def load(path: Path) -> dict[str, UserDevice]:
    """Read one file; a missing one has no devices. Raises InvalidRequest."""
    return _parse(_text_of(path), path)


def named(name: str, keys: Mapping[str, str], path: Path) -> UserDevice:
    """Make a device for a file from its keys as texts. Raises InvalidRequest for what that file could not hold."""
    return _device(name, dict(keys), path)


def add(path: Path, device: UserDevice, *, replace_it: bool = False) -> None:
    """Append a device's table to a file, or put it in place of the one of that name when `replace_it` is set.

    All other lines stay as they are. Raises InvalidRequest when the name is taken, makes no sense, or the file cannot
    be read or written.
    """
    with _editing(path):
        text = _text_of(path)
        taken = device.name in _parse(text, path)
        if taken and not replace_it:
            raise InvalidRequest(f"{path} has a device {device.name!r} already; use --force to replace it")
        rest = _without(text, device.name) if taken else text
        gap = "" if not rest.strip() or rest.endswith("\n\n") else "\n" if rest.endswith("\n") else "\n\n"
        _write_checked(path, rest + gap + _table(device), {**_parse(rest, path), device.name: device})


def remove(path: Path, name: str) -> None:
    """Take a device's table out of a file. Raises InvalidRequest when it is not there."""
    with _editing(path):
        text = _text_of(path)
        devices = _parse(text, path)
        if name not in devices:
            raise InvalidRequest(f"{path} has no device {name!r}; it has: {', '.join(devices) or 'none'}")
        _write_checked(path, _without(text, name), {key: value for key, value in devices.items() if key != name})


def checked_files(device: UserDevice) -> UserDevice:
    """Return the device after comparing its binaries with the hashes recorded. Raises DeviceNotReady."""
    import hashlib

    for key in ("benchmark_model", "litert_library"):
        path, recorded = Path(getattr(device, key)), getattr(device, key + "_sha256")
        if not getattr(device, key) or not recorded:
            continue
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DeviceNotReady(f"{device.name}: {key} {path} cannot be read: {error.strerror}") from error
        if found != recorded:
            again = f"edgekd devices setup {device.name}"
            raise DeviceNotReady(f"{device.name}: {key} {path} is not the file that was set up; run {again} again")
    return device


# --- reading ----------------------------------------------------------------------------------------------------------


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InvalidRequest(f"{path} has more than {_MAX_FILE_BYTES} bytes; is it a devices.toml?")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is no UTF-8 text: byte {error.start}") from error


def _parse(text: str, path: Path) -> dict[str, UserDevice]:
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{path} is no TOML: {error or 'it is nested too deeply'}") from error
    return {name: _device(name, table, path) for name, table in content.items()}


def _device(name: str, table: object, path: Path) -> UserDevice:
    check_name(name, str(path))
    where = f"{path}, device {name!r}"
    if not isinstance(table, dict):
        raise InvalidRequest(f"{path}: {name!r} stands outside of any table; devices are tables like [{name}]")
    for key in table:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KEYS)}"
            raise InvalidRequest(f"{where}: unknown key {clean_text(key)!r}; {hint}")
    if "address" not in table:
        raise InvalidRequest(f"{where}: the key address is missing; for example ssh://pi@raspberrypi.local")
    values = {key: _value(key, value, where) for key, value in table.items()}
    for key in _PATHS:
        if values.get(key):
            values[key] = str(path.parent.absolute() / _expanded(values[key], f"{where}: {key}"))
    return UserDevice(name=name, source=path, **values)


def _expanded(text: str, where: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidRequest(f"{where} is {text!r}, and there is no home of that user") from error


def check_name(name: str, where: str) -> None:
    """See that a device may have that name. Raises InvalidRequest."""
    if not _NAME.fullmatch(name) or name in ("host", "local"):
        raise InvalidRequest(
            f"{where}: {clean_text(name)!r} cannot name a device; use 1 to 64 letters, digits, . _ and -, and not host"
        )


def _value(key: str, value: object, where: str) -> Any:
    """Check one value's type and range, and give it the type of its field."""
    if key == "threads":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
            raise InvalidRequest(f"{where}: threads is {value!r}, must be an integer from 1 to 1024")
        return value
    if key == "cpus":
        return _cpus(value, where)
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 4096:
        raise InvalidRequest(f"{where}: {key} must be a text of 1 to 4096 printable characters")
    if key == "engine" and value not in ENGINE_NAMES:
        near = get_close_matches(value, ENGINE_NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(ENGINE_NAMES)}"
        raise InvalidRequest(f"{where}: unknown engine {value!r}; {hint}")
    if key.endswith("_sha256") and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise InvalidRequest(f"{where}: {key} is {value[:80]!r}, must be a SHA-256 in lower-case hex")
    return _address(value, where) if key == "address" else value


def _address(text: str, where: str) -> Address:
    try:
        return Address.parse(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}") from error


def _cpus(value: object, where: str) -> tuple[int, ...]:
    if isinstance(value, str):
        cpus = cpu_list(value)
    elif isinstance(value, list) and all(type(cpu) is int and 0 <= cpu < 1024 for cpu in value):
        cpus = tuple(sorted(set(value)))
    else:
        cpus = ()
    if not cpus or cpus[-1] >= 1024:
        raise InvalidRequest(f"{where}: cpus is {value!r}, must be a list like [4, 5] or a text like '4-7'")
    return cpus


# --- writing ----------------------------------------------------------------------------------------------------------


def _table(device: UserDevice) -> str:
    lines = [f"[{_toml(device.name) if '.' in device.name else device.name}]"]
    for key in _KEYS:
        value = getattr(device, key)
        if value:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(str(cpu) for cpu in value) + "]"
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _without(text: str, name: str) -> str:
    """Leave out the lines of a table: from its header to the next one, but not what stands right above that one."""
    lines = text.splitlines(keepends=True)
    spelled = rf"(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')"
    header = re.compile(rf"\s*\[\s*{spelled}\s*\]\s*(?:#.*)?$")
    start = next((number for number, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        return text  # written in another way, as a dotted key: the check before writing will refuse
    end = next((n for n in range(start + 1, len(lines)) if re.match(r"\s*\[", lines[n])), len(lines))
    while end < len(lines) and end > start + 1 and re.match(r"\s*(?:#.*)?$", lines[end - 1]):
        end -= 1
    return "".join(lines[:start] + lines[end:])


def _write_checked(path: Path, text: str, wanted: Mapping[str, UserDevice]) -> None:
    """Write a text only if it reads as the devices wanted: an edit of lines may misjudge a strange file."""
    if {name: replace(d, source=path) for name, d in wanted.items()} != _parse(text, path):
        raise InvalidRequest(f"{path} is written in a way that cannot be edited safely; edit it by hand")
    target = path.resolve()  # a link stays a link
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}; it is as it was") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _editing(path: Path) -> Iterator[None]:
    """Keep other writers of the folder out from the reading to the writing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise InvalidRequest(f"folder {path.parent} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
