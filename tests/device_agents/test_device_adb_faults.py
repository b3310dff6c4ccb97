"""Google's own adbd and adb server, when cables are pulled, daemons die and hosts vanish."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_peers import Adbd, RealServer, adb_server, adbd  # noqa: F401 # the last two are fixtures
from transports import Peer, Witness

from device_agents.adb.choice import AdbOptions
from device_agents.adb.server import list_adb_devices
from device_agents.adb.transport import AdbTransport
from device_agents.errors import DeviceNotReady, DeviceOffline, LinkLost, TransportError, TransportTimeout

pytestmark = pytest.mark.devices
Open = Callable[[], AdbTransport]
FAMILY = "sleep 1000 & sleep 1000 & wait"  # processes that end only by being ended
_CLIENT = """
import sys
from device_agents.adb.choice import AdbOptions, connector_for
from device_agents.adb.server import ServerAddress, ServerConnector
from device_agents.adb.transport import AdbTransport
from device_agents.addresses import Address

host, port, server, way, *argv = sys.argv[1:]
if server == "0":
    connector = connector_for(Address("adb", host=host, port=int(port)), AdbOptions(direct=True))
else:
    connector = ServerConnector(f"{host}:{port}", ServerAddress(port=int(server)), network=True)
transport = AdbTransport(connector)
if way == "run":
    transport.run(argv, 1000)
else:
    transport.stream(argv).read_line(1000)
"""


@pytest.fixture(params=["direct", "server"])
def server_port(request: pytest.FixtureRequest, adb_server: RealServer) -> int:  # noqa: F811 # a fixture's name
    """The port of the adb server that the way under test goes through, 0 for the direct way."""
    return 0 if request.param == "direct" else adb_server.address.port


@pytest.fixture
def open_way(server_port: int, adbd: Adbd, adb_server: RealServer) -> Open:  # noqa: F811 # fixtures' names
    """Open the way under test."""
    return (lambda: adbd.through(adb_server.address)) if server_port else adbd.direct


@pytest.fixture
def transport(open_way: Open) -> Iterator[AdbTransport]:
    """The way under test."""
    with contextlib.closing(open_way()) as transport:
        yield transport


@pytest.fixture
def witness(adbd: Adbd) -> Iterator[Witness]:  # noqa: F811 # a fixture's name
    """Tells when what a test started has ended, over a way of its own."""
    with contextlib.closing(adbd.direct()) as transport:
        yield Witness(Peer(adbd.direct, adbd.fresh_folder(), ""), transport)


def says(transport: AdbTransport, word: str) -> bool:
    """Tell whether a command works."""
    return transport.run(["echo", word], 20).stdout == f"{word}\n".encode()


@contextlib.contextmanager
def cable_pulled(adbd: Adbd) -> Iterator[None]:  # noqa: F811 # a fixture's name
    """Pull the device's network cable, and put it back."""
    adbd.cut()
    try:
        yield
    finally:
        adbd.mend()


def test_a_cut_link_is_noticed(adbd: Adbd) -> None:  # noqa: F811 # a fixture's name
    """No packet says so: the kernel's probes do, and calls meanwhile say that the device is away."""
    with contextlib.closing(adbd.direct(AdbOptions(direct=True, dead_after_s=2))) as transport:
        process = transport.stream(["cat"])
        process.write_line(b"there?", 20)
        assert process.read_line(20) == b"there?"
        with cable_pulled(adbd):
            with pytest.raises(LinkLost):
                process.read_line(60)
            with pytest.raises(DeviceOffline):
                transport.run(["true"], 1)
        assert says(transport, "again")


def test_a_link_cut_behind_the_server_is_a_timeout(adbd: Adbd, adb_server: RealServer) -> None:  # noqa: F811
    """The server keeps silent about it, so that a line's own time limit applies; then all goes on as before."""
    with contextlib.closing(adbd.through(adb_server.address)) as transport:
        process = transport.stream(["cat"])
        process.write_line(b"one", 20)
        assert process.read_line(20) == b"one"
        with cable_pulled(adbd):
            process.write_line(b"two", 20)
            with pytest.raises(TransportTimeout):
                process.read_line(0.5)
        assert process.read_line(20) == b"two"


def test_a_daemon_that_dies_and_comes_back(adbd: Adbd, transport: AdbTransport) -> None:  # noqa: F811
    """What ran is lost, calls meanwhile say that the device is away, and after its return they work again."""
    process = transport.stream(["cat"])
    assert says(transport, "before")
    adbd.kill()
    try:
        with pytest.raises(LinkLost):
            process.read_line(20)
        with pytest.raises(DeviceOffline):
            transport.run(["true"], 5)
    finally:
        adbd.restart()
    assert says(transport, "after")


def test_a_server_that_dies_and_comes_back(adbd: Adbd, adb_server: RealServer) -> None:  # noqa: F811
    """It is not started for the user; once it runs, the device is connected to again."""
    with contextlib.closing(adbd.through(adb_server.address)) as transport:
        process = transport.stream(["cat"])
        assert says(transport, "before")
        adb_server.stop()
        try:
            with pytest.raises(LinkLost):
                process.read_line(20)
            with pytest.raises(DeviceOffline, match="start-server"):
                transport.run(["true"], 5)
            assert list_adb_devices(adb_server.address) == ()
        finally:
            adb_server.start()
        assert says(transport, "after")
        assert [entry.state for entry in list_adb_devices(adb_server.address)] == ["device"]


@pytest.mark.parametrize("way", ["run", "stream"])
def test_what_a_dead_host_started_ends(adbd: Adbd, server_port: int, witness: Witness, way: str) -> None:  # noqa: F811
    """When this side is killed outright, nothing goes on running on the device.

    A command without input ends with all that it started. A process that is spoken to ends by itself, as runners do,
    when its input ends.
    """
    script = FAMILY if way == "run" else "cat"
    argv = [adbd.host, str(adbd.port), str(server_port), way, *witness.seen(script)]
    client = subprocess.Popen([sys.executable, "-c", _CLIENT, *argv])
    try:
        assert witness.started()
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait(20)
    assert witness.ended()


def test_an_interrupted_push_leaves_nothing(adbd: Adbd, transport: AdbTransport, tmp_path: Path) -> None:  # noqa: F811
    """After a Ctrl-C in the middle of a file there is no part of it on the device, and the transport works."""
    folder = adbd.fresh_folder()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def feed() -> None:
        with fifo.open("wb", buffering=0) as source:
            source.write(bytes(300_000))
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.wait(20)

    interrupted = threading.Event()
    feeder = threading.Thread(target=feed)
    feeder.start()
    with pytest.raises(KeyboardInterrupt):
        transport.push(fifo, f"{folder}/file")
    interrupted.set()
    feeder.join(20)
    assert transport.run(["ls", "-A", folder], 20).stdout == b""
    assert says(transport, "fine")


def test_a_batch_with_a_bad_file_puts_none_of_it_in_place(
    adbd: Adbd,  # noqa: F811 # a fixture's name
    transport: AdbTransport,
    tmp_path: Path,
) -> None:
    """Files of one batch come together or not at all."""
    folder = adbd.fresh_folder()
    (tmp_path / "good").write_bytes(b"good")
    with pytest.raises(TransportError, match="missing"):
        transport.push_all({f"{folder}/a": tmp_path / "good", f"{folder}/b": tmp_path / "missing"})
    assert transport.run(["ls", "-A", folder], 20).stdout == b""


def test_a_thousand_files_with_long_names_are_pushed(
    adbd: Adbd,  # noqa: F811 # a fixture's name
    transport: AdbTransport,
    tmp_path: Path,
) -> None:
    """They need several command lines."""
    folder = adbd.fresh_folder()
    (tmp_path / "file").write_bytes(b"content")
    names = sorted(f"{number:04}' {'x' * 200}" for number in range(1000))
    transport.push_all({f"{folder}/{name}": tmp_path / "file" for name in names})
    assert transport.run(["ls", "-A", folder], 20).stdout.decode().splitlines() == names


def test_a_command_that_says_too_much_is_ended(transport: AdbTransport, witness: Witness) -> None:
    """Output of a command is gathered, so it has a limit."""
    with pytest.raises(TransportError, match="more than"):
        transport.run(witness.seen("cat /dev/zero"), 60)
    assert witness.started()
    assert witness.ended()


def test_threads_share_a_transport(transport: AdbTransport) -> None:
    """A second channel is open while the first waits, which is how a process is ended."""
    process = transport.stream(["sh", "-c", "read -r word; echo $word"])
    done = []
    threads = [threading.Thread(target=lambda: done.append(says(transport, "hello"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    process.write_line(b"still here", 20)
    assert process.read_line(20) == b"still here"
    assert done == [True] * 4


def test_a_device_that_nobody_can_reach_is_offline(adb_server: RealServer) -> None:  # noqa: F811 # a fixture's name
    """A serial number that the server does not know, named with those that it does."""
    from device_agents.adb.server import ServerConnector

    with pytest.raises(DeviceOffline, match="the adb server knows"):
        ServerConnector("NOSUCHSERIAL", adb_server.address).open("sync:", 20)


def test_a_service_that_does_not_exist_is_not_ready(transport: AdbTransport, open_way: Open) -> None:
    """By its name, whatever the way."""
    with contextlib.closing(open_way()._connector) as connector, pytest.raises(DeviceNotReady, match="nosuchservice"):
        connector.open("nosuchservice:", 20)
    assert says(transport, "fine")
