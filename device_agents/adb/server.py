"""A client of the adb server that runs on this machine, found the way Google's own client finds it.

A request is four hex digits of length and a text; the answer is OKAY, or FAIL and why. A socket that was asked for a
device and then for a service becomes a stream to that service. It starts, restarts and ends no server.
Read next: `stream.py` for what uses the streams; `transport.py`.
Source: OVERVIEW.TXT and SERVICES.TXT of the Android Debug Bridge.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from device_agents.adb import sockets
from device_agents.adb.sockets import SocketStream
from device_agents.adb.stream import ByteStream, Duplex
from device_agents.errors import (
    DeviceError,
    DeviceNotReady,
    DeviceOffline,
    InvalidRequest,
    NotAuthorised,
    ProtocolError,
    TransportError,
    TransportTimeout,
)
from device_agents.strict_json import clean_text

_T = TypeVar("_T")

DEFAULT_PORT = 5037
_ANSWER_S = 5.0  # for what the server knows itself
_CONNECT_S = 30.0  # it tries a device on the network for 10 s before it gives up
_ATTEMPTS = 3
_CONNECTING = threading.Lock()  # two of our own connectors must not take each other's connections down
_POLL_S = 0.02
_MAX_REQUEST_BYTES = 0xFFFF
_ENTRY = re.compile(r"(?P<serial>[^\s(]\S*)\s+(?P<state>no permissions|[a-z]+)\b(?P<rest>.*)")
_SOCKET = re.compile(r"tcp:(?:(?P<host>[^:\s]+|\[[0-9A-Fa-f:.%]+\]):)?(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class AdbEntry:
    """A device that the server knows; state is "device" when it can be used, texts are empty when not said."""

    serial: str
    state: str
    model: str = ""
    product: str = ""
    transport_id: str = ""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the adb server listens."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    @staticmethod
    def of_environment() -> ServerAddress:
        """Read $ADB_SERVER_SOCKET, else $ANDROID_ADB_SERVER_PORT. Raises InvalidRequest for what is neither."""
        text = os.environ.get("ADB_SERVER_SOCKET", "")
        if not text:
            text = f"tcp:{os.environ.get('ANDROID_ADB_SERVER_PORT', '') or DEFAULT_PORT}"
        match = _SOCKET.fullmatch(text)
        if match is None or not 1 <= int(match["port"]) <= 65535:
            raise InvalidRequest(f"the adb server's address {text!r} is not of the form tcp:host:port")
        return ServerAddress((match["host"] or "127.0.0.1").strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Call:
    """One connection to the server, for requests one after the other."""

    def __init__(self, server: ServerAddress, timeout_s: float) -> None:
        self.deadline = time.monotonic() + timeout_s
        name = f"the adb server at {server}"
        try:
            connection = sockets.connect(server.host, server.port, timeout_s)
        except DeviceOffline as error:
            raise DeviceOffline(f"{name} does not answer; start it with `adb start-server`") from error
        self.stream = SocketStream(connection, name)
        self._duplex = Duplex(self.stream, name)

    def ask(self, request: str) -> None:
        """Send a request and read OKAY. Raises _Refused for FAIL."""
        data = request.encode()
        if len(data) > _MAX_REQUEST_BYTES:
            raise InvalidRequest(f"a request of {len(data)} bytes to the adb server is above {_MAX_REQUEST_BYTES}")
        self._duplex.queue(b"%04x%s" % (len(data), data))
        self.expect_okay()

    def expect_okay(self) -> None:
        """Read OKAY. Raises _Refused for FAIL."""
        answer = self._take(4)
        if answer == b"FAIL":
            raise _Refused(self.text())
        if answer != b"OKAY":
            raise ProtocolError(f"{self._duplex.name} answered {answer!r}; something else listens there")

    def text(self) -> str:
        """Read a text behind its four hex digits of length."""
        digits = self._take(4)
        if not re.fullmatch(rb"[0-9A-Fa-f]{4}", digits):
            raise ProtocolError(f"{self._duplex.name} gave {digits!r} for a length")
        return self._take(int(digits, 16)).decode("utf-8", "replace")

    def detach(self) -> ByteStream:
        """Return the stream, once the server has stepped aside; what the service has said already comes first."""
        self.stream.unread(bytes(self._duplex.incoming))
        return self.stream

    def close(self) -> None:
        """Close the connection."""
        self._duplex.close()

    def _take(self, size: int) -> bytes:
        try:
            return self._duplex.take(size, self.deadline)
        except TransportTimeout as error:
            raise TransportTimeout(f"{self._duplex.name} did not answer in time") from error


class _Refused(TransportError):
    """The server said FAIL; the text is its own."""


def ask_server(request: str, server: ServerAddress, timeout_s: float = _ANSWER_S) -> str:
    """Send one request whose answer is a text. Raises DeviceOffline when no server answers, TransportError for FAIL."""
    call = _Call(server, timeout_s)
    try:
        call.ask(request)
        return call.text()
    finally:
        call.close()


def server_version(server: ServerAddress) -> int | None:
    """Return the version of the server that answers, such as 41; None when nothing listens there."""
    try:
        answer = ask_server("host:version", server)
    except DeviceOffline:
        return None
    if not re.fullmatch(r"[0-9A-Fa-f]{1,8}", answer):
        raise ProtocolError(f"the adb server at {server} gave {clean_text(answer)!r} for its version")
    return int(answer, 16)


def list_adb_devices(server: ServerAddress | None = None) -> tuple[AdbEntry, ...]:
    """List what the adb server knows, usable or not; nothing when no server answers, and none is started."""
    try:
        answer = ask_server("host:devices-l", server or ServerAddress.of_environment())
    except DeviceOffline:
        return ()
    return tuple(entry for line in answer.splitlines() if (entry := _entry(line)) is not None)


def _entry(line: str) -> AdbEntry | None:
    """Read a line; one that names no device, such as a phone on USB without a serial number, is passed over."""
    match = _ENTRY.fullmatch(line.strip())
    if match is None:
        return None
    facts = dict(word.split(":", 1) for word in match["rest"].split() if ":" in word)
    named = {name: clean_text(facts.get(name, "")) for name in ("model", "product", "transport_id")}
    return AdbEntry(clean_text(match["serial"]), match["state"], **named)


class ServerConnector:
    """A way to one device through the adb server.

    With `network`, the serial is "host:port", and the server is told to connect to it when it does not know it yet or
    has lost it; a device that works is never disconnected.
    """

    def __init__(self, serial: str, server: ServerAddress, *, network: bool = False) -> None:
        self.name = f"adb://{serial}"
        self._serial = serial
        self._server = server
        self._network = network

    def open(self, service: str, timeout_s: float) -> ByteStream:
        """Open a service of the device; one on the network is connected to first when it has to be."""
        return self._connected(lambda: self._open(service, timeout_s))

    def features(self, timeout_s: float) -> frozenset[str]:
        """Return what the device says it can do."""
        return frozenset(self._connected(lambda: self._features(timeout_s)).split(","))

    def close(self) -> None:
        """Do nothing: each stream is a socket of its own, and the server keeps its connection for others."""

    def _open(self, service: str, timeout_s: float) -> ByteStream:
        call = _Call(self._server, timeout_s)
        try:
            self._ask(call, f"host:transport:{self._serial}")
            try:
                call.ask(service)
            except _Refused as error:
                raise self._refusal(service, clean_text(str(error))) from error
            return call.detach()
        except BaseException:
            call.close()
            raise

    def _features(self, timeout_s: float) -> str:
        call = _Call(self._server, timeout_s)
        try:
            self._ask(call, f"host-serial:{self._serial}:features")
            return call.text()
        finally:
            call.close()

    def _ask(self, call: _Call, request: str) -> None:
        try:
            call.ask(request)
        except _Refused as error:
            raise self._meaning(clean_text(str(error))) from error

    def _refusal(self, service: str, reason: str) -> DeviceError:
        """Tell a service that there is none from a device that has just gone away, which may come back."""
        if self._state() != "device":
            return DeviceOffline(f"{self.name} went away ({reason}); see that its cable or network is up")
        return DeviceNotReady(f"{self.name} does not offer the service {service[:40]!r}: {reason}")

    def _meaning(self, reason: str) -> DeviceError:
        """Say what the server's own words mean for a person."""
        if "unauthorized" in reason or "authorizing" in reason:
            return NotAuthorised(
                f"{self.name} does not trust this computer yet; unlock it and accept the prompt on the phone's screen"
            )
        if "not found" in reason:
            known = ", ".join(entry.serial for entry in list_adb_devices(self._server)) or "none"
            return DeviceOffline(f"{self.name} is not attached; devices that the adb server knows: {known}")
        if "offline" in reason or "connecting" in reason:
            return DeviceOffline(f"{self.name} is attached and does not answer; reconnect its cable or restart it")
        if "permissions" in reason:
            return NotAuthorised(f"{self.name}: this user may not open the USB device ({reason}); add a udev rule")
        return DeviceNotReady(f"{self.name}: {reason}")

    # --- devices on the network ---------------------------------------------------------------------------------

    def _connected(self, call: Callable[[], _T]) -> _T:
        """Make a call; where the server does not reach the device, let it connect first and make the call then."""
        try:
            return call()
        except DeviceOffline:
            if not self._network or server_version(self._server) is None:
                raise
        self._connect()
        return call()

    def _connect(self) -> None:
        """Let the server connect; its own attempts to reconnect may cross ours, so that one attempt can be in vain."""
        with _CONNECTING:
            for _ in range(_ATTEMPTS):
                if self._state() == "device":  # by somebody else's doing meanwhile, whose streams must not be broken
                    return
                self._connect_once()
                if self._await_handshake():
                    return

    def _connect_once(self) -> None:
        answer = self._command("connect")
        if answer.startswith("already connected") and self._state() == "offline":  # and it would stay so
            self._command("disconnect")
            answer = self._command("connect")
        if "authenticate" in answer:
            raise self._meaning("unauthorized")
        if not answer.startswith(("connected", "already connected")):
            advice = "after a restart a phone wants `adb tcpip 5555` over USB again"
            raise DeviceOffline(f"{self.name}: the adb server says: {clean_text(answer)}; {advice}")

    def _command(self, verb: str) -> str:
        try:
            return ask_server(f"host:{verb}:{self._serial}", self._server, _CONNECT_S)
        except _Refused as error:
            return str(error)

    def _state(self) -> str:
        """Return what the server knows of the device, "" for nothing."""
        known = {entry.serial: entry.state for entry in list_adb_devices(self._server)}
        return known.get(self._serial, "")

    def _await_handshake(self) -> bool:
        """Wait until the device is ready or says why not; False when the server has dropped it again."""
        until = time.monotonic() + _ANSWER_S
        while time.monotonic() < until:
            state = self._state()
            if state not in {"connecting", "authorizing", "offline"}:
                return state != ""
            time.sleep(_POLL_S)  # the server offers no event for a state that it keeps to itself
        return False
