"""The adb server on this machine: where it is, what it lists, what its refusals mean, which way is chosen."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable

import pytest
from adb_fakes import Fake, Line, Script, fake  # noqa: F401 # `fake` is a fixture

from device_agents.adb.choice import AdbOptions, connector_for
from device_agents.adb.direct import DirectConnector
from device_agents.adb.server import (
    AdbEntry,
    ServerAddress,
    ServerConnector,
    list_adb_devices,
    server_version,
)
from device_agents.adb.transport import AdbTransport
from device_agents.addresses import Address
from device_agents.errors import (
    DeviceError,
    DeviceNotReady,
    DeviceOffline,
    InvalidRequest,
    LinkLost,
    NotAuthorised,
    ProtocolError,
)

pytestmark = pytest.mark.slow  # real processes, one after the other

Serve = Callable[[Script], ServerAddress]
LIST = """0123456789ABCDEF       device usb:1-1 product:flame model:Pixel_4 device:flame transport_id:1
10.0.0.7:5555          offline transport_id:12
emulator-5554          unauthorized transport_id:3
(no serial number)     no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-2
99071FFAZ00001         no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-3
adb-99071FFAZ-gVE._adb-tls-connect._tcp device product:flame model:Pixel_4 device:flame transport_id:4
"""


@pytest.fixture
def serve(fake: Callable[[Script], Fake]) -> Serve:  # noqa: F811 # a fixture's name
    """Start an adb server that plays a script for each connection."""
    return lambda script: ServerAddress(port=fake(script).port)


@pytest.fixture
def nobody() -> ServerAddress:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return ServerAddress(port=free.getsockname()[1])


@pytest.fixture(autouse=True)
def no_user_server(nobody: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own adb server out of these tests."""
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(nobody.port))


# Where it is


@pytest.mark.parametrize(
    ("socket_text", "port_text", "found"),
    [
        ("", "", ServerAddress("127.0.0.1", 5037)),
        ("", "6000", ServerAddress("127.0.0.1", 6000)),
        ("tcp:6001", "6000", ServerAddress("127.0.0.1", 6001)),
        ("tcp:box.lan:6001", "", ServerAddress("box.lan", 6001)),
        ("tcp:[::1]:6001", "", ServerAddress("::1", 6001)),
    ],
)
def test_the_environment_says_where_the_server_is(
    monkeypatch: pytest.MonkeyPatch, socket_text: str, port_text: str, found: ServerAddress
) -> None:
    """The same variables as for Google's client."""
    monkeypatch.setenv("ADB_SERVER_SOCKET", socket_text)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port_text)
    assert ServerAddress.of_environment() == found


@pytest.mark.parametrize("text", ["localabstract:adb", "tcp:", "tcp:0", "tcp:99999", "6001", "tcp:a b:6001"])
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A mistake there is said, not taken for no server."""
    monkeypatch.setenv("ADB_SERVER_SOCKET", text)
    with pytest.raises(InvalidRequest, match="tcp:host:port"):
        ServerAddress.of_environment()


def test_the_version_is_read(serve: Serve) -> None:
    """In hexadecimal digits."""
    assert server_version(serve(lambda line: [line.request(), line.okay("0029")])) == 41


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"OKAY-001", b"OKAY00041x1!"])
def test_something_else_on_the_port_is_a_protocol_error(serve: Serve, answer: bytes) -> None:
    """It is not taken for an adb server."""
    with pytest.raises(ProtocolError):
        server_version(serve(lambda line: [line.request(), line.say(answer)]))


# What it lists


def test_devices_are_listed_usable_or_not(serve: Serve) -> None:
    """A phone without a serial number cannot be named, so it is left out."""
    server = serve(lambda line: [line.request(), line.okay(LIST)])
    assert list_adb_devices(server) == (
        AdbEntry("0123456789ABCDEF", "device", "Pixel_4", "flame", "1"),
        AdbEntry("10.0.0.7:5555", "offline", transport_id="12"),
        AdbEntry("emulator-5554", "unauthorized", transport_id="3"),
        AdbEntry("99071FFAZ00001", "no permissions"),
        AdbEntry("adb-99071FFAZ-gVE._adb-tls-connect._tcp", "device", "Pixel_4", "flame", "4"),
    )


def test_no_server_lists_nothing(nobody: ServerAddress) -> None:
    """It is no error, and none is started: the port stays closed."""
    assert list_adb_devices(nobody) == ()
    assert list_adb_devices() == ()
    assert server_version(nobody) is None


# What its refusals mean


def refusing(reason: str) -> Script:
    """Refuse every device for this reason."""

    def script(line: Line) -> None:
        request = line.request()
        if request.startswith("host:devices"):
            line.okay("ABC  device\n")
        else:
            line.fail(reason)

    return script


@pytest.mark.parametrize(
    ("reason", "error", "says"),
    [
        ("device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", NotAuthorised, "accept the prompt"),
        ("device still authorizing", NotAuthorised, "accept the prompt"),
        ("device offline", DeviceOffline, "does not answer"),
        ("device still connecting", DeviceOffline, "does not answer"),
        ("device 'XYZ' not found", DeviceOffline, "the adb server knows: ABC"),
        ("insufficient permissions for device: user in plugdev group", NotAuthorised, "udev"),
        ("something new \x1b[31m", DeviceNotReady, "something new"),
    ],
)
def test_each_refusal_says_what_to_do(serve: Serve, reason: str, error: type[DeviceError], says: str) -> None:
    """The server's words become one of our errors, on one clean line."""
    with pytest.raises(error, match=says) as caught:
        AdbTransport(ServerConnector("XYZ", serve(refusing(reason)))).run(["true"], 20)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("listed", "error", "says"),
    [("XYZ  device\n", DeviceNotReady, r"sync:.*closed"), ("", DeviceOffline, r"went away \(closed\)")],
)
def test_a_refused_service_is_told_from_a_device_that_went_away(
    serve: Serve, listed: str, error: type[DeviceError], says: str
) -> None:
    """The server refuses both alike; only the second is worth another try."""

    def script(line: Line) -> None:
        if line.request().startswith("host:devices"):
            line.okay(listed)
        else:
            line.okay()
            line.request()
            line.fail("closed")

    with pytest.raises(DeviceError, match=says) as raised:
        ServerConnector("XYZ", serve(script)).open("sync:", 20)
    assert type(raised.value) is error


def test_a_server_that_is_gone_says_how_to_start_it(nobody: ServerAddress) -> None:
    """None is started for the user."""
    with pytest.raises(DeviceOffline, match="adb start-server"):
        ServerConnector("XYZ", nobody).open("sync:", 20)


def test_a_server_that_hangs_up_is_a_lost_link(serve: Serve) -> None:
    """In the middle of an answer too."""
    with pytest.raises(LinkLost):
        ServerConnector("XYZ", serve(lambda line: [line.request(), line.say(b"OK")])).open("sync:", 20)


def test_what_a_service_says_at_once_is_kept(serve: Serve) -> None:
    """Its first bytes may come in one piece with the server's OKAY."""
    server = serve(lambda line: [line.request(), line.okay(), line.request(), line.say(b"OKAYhello")])
    stream = ServerConnector("XYZ", server).open("sync:", 20)
    assert stream.wait(20, to_read=True, to_write=False)
    assert stream.read(2) == b"he"
    assert stream.wait(20, to_read=True, to_write=False)
    assert stream.read(100) == b"llo"
    stream.close()


# Devices on the network


class Network:
    """A server with a device on the network that is offline until the server connects to it anew."""

    def __init__(self, stale: bool) -> None:
        self.connected = stale
        self.works = False
        self.states = iter(["connecting", "authorizing", "device"])
        self.requests: list[str] = []

    def __call__(self, line: Line) -> None:
        request = line.request()
        self.requests.append(request)
        verb = request.split(":")[1]
        if verb == "version":
            line.okay("0029")
        elif verb == "devices-l":
            state = next(self.states) if self.works else "offline"
            line.okay(f"10.0.0.7:5555 {state} transport_id:2\n" if self.connected else "")
        elif verb == "connect":
            answer = f"{'already ' if self.connected else ''}connected to 10.0.0.7:5555"
            self.works = self.works or not self.connected
            self.connected = True  # before the answer: the next question comes on a connection of its own
            line.okay(answer)
        elif verb == "disconnect":
            self.connected = False
            line.okay("disconnected 10.0.0.7:5555")
        elif not self.works:
            line.fail("device offline" if self.connected else "device '10.0.0.7:5555' not found")
        else:
            line.okay()
            self.requests.append(line.request())
            line.okay()
            line.exactly(1)


@pytest.mark.parametrize("stale", [False, True])
def test_a_device_on_the_network_is_connected_to_when_it_has_to_be(serve: Serve, stale: bool) -> None:
    """One that the server lost is disconnected first, or it would stay offline; one that works is left alone."""
    network = Network(stale)
    connector = ServerConnector("10.0.0.7:5555", serve(network), network=True)
    connector.open("sync:", 20).close()
    assert [request for request in network.requests if "connect:" in request] == (
        ["host:connect:10.0.0.7:5555", "host:disconnect:10.0.0.7:5555", "host:connect:10.0.0.7:5555"]
        if stale
        else ["host:connect:10.0.0.7:5555"]
    )
    network.requests.clear()
    connector.open("sync:", 20).close()
    assert network.requests == ["host:transport:10.0.0.7:5555", "sync:"]


def test_a_device_that_another_has_connected_meanwhile_is_left_alone(serve: Serve) -> None:
    """Its streams must not be broken by ours."""
    network = Network(stale=True)

    def script(line: Line) -> None:
        network(line)
        network.works = True

    network.states = iter(["device"])
    ServerConnector("10.0.0.7:5555", serve(script), network=True).open("sync:", 20).close()
    assert not any("connect:" in request for request in network.requests)


def test_a_device_that_the_server_cannot_reach_is_offline(serve: Serve) -> None:
    """The server says OKAY to that, and why in its text."""

    def script(line: Line) -> None:
        request = line.request()
        if request.startswith("host:connect"):
            line.okay("failed to connect to '10.0.0.7:5555': Connection refused")
        elif request == "host:version":
            line.okay("0029")
        elif request == "host:devices-l":
            line.okay("")
        else:
            line.fail("device '10.0.0.7:5555' not found")

    with pytest.raises(DeviceOffline, match="Connection refused"):
        ServerConnector("10.0.0.7:5555", serve(script), network=True).open("sync:", 20)


# Which way is chosen


def test_a_server_that_answers_is_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """For phones on USB and on the network alike, unless the direct way is asked for."""
    server = serve(lambda line: [line.request(), line.okay("0029")])
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:{server}")
    for address in ("adb://ABC", "adb://10.0.0.7:5555"):
        assert isinstance(connector_for(Address.parse(address)), ServerConnector)
        assert isinstance(connector_for(Address.parse(address), AdbOptions(direct=True)), DirectConnector)


def test_without_a_server_the_way_is_direct() -> None:
    """Nothing is started for it, and nothing is opened yet."""
    for address in ("adb://ABC", "adb://10.0.0.7:5555"):
        connector = connector_for(Address.parse(address))
        assert isinstance(connector, DirectConnector)
        assert connector.name == address


def test_only_adb_addresses_are_taken() -> None:
    """Another kind of address is a mistake of the caller."""
    with pytest.raises(InvalidRequest):
        connector_for(Address.parse("local:"))


def test_a_whole_session_over_a_scripted_server(serve: Serve) -> None:
    """Features are asked for once, then each command has a connection of its own."""
    requests: list[str] = []
    groups = itertools.count(1000)

    def script(line: Line) -> None:
        requests.append(line.request())
        if requests[-1].endswith(":features"):
            line.okay("cmd,shell_v2")
            return
        line.okay()
        requests.append(line.request().split("\n")[0][:13])
        group = b"%d\n" % next(groups)
        line.say(b"OKAY" + b"\x01" + len(group).to_bytes(4, "little") + group)
        line.say(b"\x01\x02\0\0\0hi" + b"\x02\x03\0\0\0err" + b"\x03\x01\0\0\0\x07")

    transport = AdbTransport(ServerConnector("ABC", serve(script)))
    for _ in range(2):
        done = transport.run(["anything"], 20)
        assert (done.exit_code, done.stdout, done.stderr) == (7, b"hi", b"err")
    assert requests == ["host-serial:ABC:features", *["host:transport:ABC", "shell,v2,raw:"] * 2]
