"""Where a device is: one text form for each way to it.

    local:                          this machine
    ssh://[user@]host[:port]        a board; host may be an alias of ~/.ssh/config
    adb://SERIAL                    a phone on USB or on the adb server
    adb://host:port                 a phone on the network

It opens nothing: `connect.py` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from device_agents.errors import InvalidRequest

# No leading "-": ssh and adb tools would take such a name for an option.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}"
_IPV6 = r"\[(?=[^\]]*:)[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,15})?\]"
_HOST = rf"{_NAME}|{_IPV6}"
_SSH = re.compile(
    rf"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{{0,63}})@)?(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?"
)
_ADB_TCP = re.compile(rf"adb://(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})")
# What looks like host:port with a wrong port is no serial.
_ADB_SERIAL = re.compile(r"adb://(?P<serial>(?![^:]*:[0-9]*\Z)[A-Za-z0-9][A-Za-z0-9._:-]{0,127})")
_FORMS = "local:, ssh://[user@]host[:port], adb://SERIAL or adb://host:port"


@dataclass(frozen=True, slots=True)
class Address:
    """The way to a device; port 0 and empty texts are not given."""

    kind: Literal["local", "ssh", "adb"]
    user: str = ""
    host: str = ""
    port: int = 0
    serial: str = ""

    @staticmethod
    def parse(text: str) -> Address:
        """Read a text form. Raises InvalidRequest naming the known forms."""
        if text == "local:":
            return Address("local")
        if match := _SSH.fullmatch(text):
            return Address("ssh", match["user"] or "", match["host"].strip("[]"), _port(text, match["port"]))
        if match := _ADB_TCP.fullmatch(text):
            return Address("adb", host=match["host"].strip("[]"), port=_port(text, match["port"]))
        if match := _ADB_SERIAL.fullmatch(text):
            return Address("adb", serial=match["serial"])
        raise InvalidRequest(f"address {text!r} is not of a known form; give {_FORMS}")

    def __str__(self) -> str:
        if self.kind == "local":
            return "local:"
        if self.serial:
            return f"adb://{self.serial}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"{self.kind}://{user}{host}{port}"


def _port(text: str, digits: str | None) -> int:
    if digits is None:
        return 0
    if not 1 <= int(digits) <= 65535:
        raise InvalidRequest(f"address {text!r}: port {digits} must be 1 to 65535")
    return int(digits)
