"""Straight to a device's adbd: proofs, versions, flow control, and daemons that break the rules."""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_fakes import GREETING, HEADER, VERSION, Fake, Line, Script, fake, packet  # noqa: F401 # `fake` is a fixture
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from device_agents.adb.auth import load_signer
from device_agents.adb.direct import DirectConnector
from device_agents.adb.handshake import Patience
from device_agents.adb.links import TcpLink
from device_agents.adb.packets import MAX_DATA_BYTES
from device_agents.adb.transport import AdbTransport
from device_agents.errors import (
    DeviceError,
    DeviceNotReady,
    DeviceOffline,
    LinkLost,
    NotAuthorised,
    ProtocolError,
    TransportError,
    TransportTimeout,
)

pytestmark = pytest.mark.slow  # real processes, one after the other

Connect = Callable[..., DirectConnector]
TOKEN = bytes(range(20))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A place for a key, where there is none yet."""
    return tmp_path / ".android" / "adbkey"


@pytest.fixture
def connect(fake: Callable[[Script], Fake], key: Path) -> Iterator[Connect]:  # noqa: F811 # a fixture's name
    """Make a way to a daemon that plays a script."""
    with contextlib.ExitStack() as closing:

        def make(script: Script, *, answer_s: float = 20.0, person_s: float = 20.0) -> DirectConnector:
            daemon = fake(script)
            patience = Patience(answer_s, person_s)
            connector = DirectConnector(
                "adb://fake", lambda seconds: TcpLink("127.0.0.1", daemon.port, seconds), key, patience
            )
            closing.callback(connector.close)
            return connector

        yield make


# Who we are


def test_a_known_key_is_proved_by_its_signature(connect: Connect, key: Path) -> None:
    """The daemon's token comes back signed by the key that lies in the user's home."""
    signatures = []

    def script(line: Line) -> None:
        line.hear()
        line.tell(b"AUTH", 1, 0, TOKEN)
        heard = line.hear()
        signatures.append((heard.command, heard.arg0, heard.data))
        line.tell(b"CNXN", VERSION, MAX_DATA_BYTES, GREETING)

    load_signer(key)
    assert "shell_v2" in connect(script).features(20)
    ((command, kind, signature),) = signatures
    assert (command, kind) == (b"AUTH", 2)
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    private.public_key().verify(signature, TOKEN, padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))  # noqa: S303 # adb's


def test_an_unknown_key_is_offered_to_the_person_at_the_phone(connect: Connect, key: Path) -> None:
    """The public key goes to the phone, in Android's form, and we wait until it is accepted."""
    offers = []

    def script(line: Line) -> None:
        line.hear()
        for _ in range(2):
            line.tell(b"AUTH", 1, 0, TOKEN)
            heard = line.hear()
        offers.append((heard.arg0, heard.data))
        line.tell(b"CNXN", VERSION, MAX_DATA_BYTES, GREETING)

    connect(script).features(20)
    assert offers == [(3, key.with_name("adbkey.pub").read_bytes() + b"\0")]


def refusing_again(line: Line) -> None:
    """Ask for a proof a third time."""
    line.hear()
    for _ in range(3):
        line.tell(b"AUTH", 1, 0, TOKEN)
        line.hear()


def refusing_silently(line: Line) -> None:
    """Wait for a person who does not come."""
    line.hear()
    for _ in range(2):
        line.tell(b"AUTH", 1, 0, TOKEN)
        line.hear()
    line.hear()


def refusing_by_hanging_up(line: Line) -> None:
    """Close the connection once the key is offered."""
    line.hear()
    for _ in range(2):
        line.tell(b"AUTH", 1, 0, TOKEN)
        line.hear()


@pytest.mark.parametrize("script", [refusing_again, refusing_silently, refusing_by_hanging_up])
def test_a_key_that_is_not_accepted_says_what_to_do(connect: Connect, script: Script) -> None:
    """However the phone refuses, the person is sent to its screen."""
    with pytest.raises(NotAuthorised, match="accept the prompt"):
        connect(script, person_s=0.2).features(20)


def test_a_key_is_made_for_its_user_alone(key: Path) -> None:
    """Nobody else can read it, and it stays the same."""
    first = load_signer(key).GetPublicKey()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in key.parent.iterdir()) == ["adbkey", "adbkey.pub"]
    assert load_signer(key).GetPublicKey() == first


def test_a_lost_public_key_is_made_again(key: Path) -> None:
    """It follows from the private one."""
    first = load_signer(key).GetPublicKey()
    key.with_name("adbkey.pub").unlink()
    assert load_signer(key).GetPublicKey().split()[0] == first.split()[0]


def test_a_broken_key_names_its_file(key: Path) -> None:
    """A key that cannot be read is neither replaced nor ignored."""
    key.parent.mkdir()
    key.write_text("no key")
    with pytest.raises(DeviceNotReady, match="adbkey"):
        load_signer(key)
    assert key.read_text() == "no key"


# What the device is


def test_a_device_without_shell_v2_is_too_old(connect: Connect) -> None:
    """It is said before any command is tried."""
    transport = AdbTransport(connect(lambda line: [line.greet(b"device::features=cmd"), line.hear()]))
    with pytest.raises(DeviceNotReady, match="Android 7"):
        transport.run(["true"], 20)


def test_a_device_in_recovery_is_not_ready(connect: Connect) -> None:
    """The state is named."""
    with pytest.raises(DeviceNotReady, match="recovery"):
        connect(lambda line: line.greet(b"recovery::features=shell_v2")).features(20)


def test_a_device_that_wants_tls_sends_the_person_to_pairing(connect: Connect) -> None:
    """Wireless debugging is spoken by Google's own client only."""
    with pytest.raises(DeviceNotReady, match="pair"):
        connect(lambda line: [line.hear(), line.tell(b"STLS", VERSION, 0)]).features(20)


def test_a_silent_peer_is_offline(connect: Connect) -> None:
    """What takes a connection and says nothing is no adbd."""
    with pytest.raises(DeviceOffline, match="said nothing"):
        connect(lambda line: [line.hear(), line.hear()], answer_s=0.1).features(20)


def test_a_closed_port_is_offline() -> None:
    """The address is named."""
    connector = DirectConnector("adb://127.0.0.1:1", lambda seconds: TcpLink("127.0.0.1", 1, seconds))
    with pytest.raises(DeviceOffline, match=r"127\.0\.0\.1:1"):
        connector.open("sync:", 5)


def test_a_refused_service_is_not_ready(connect: Connect) -> None:
    """The service is named."""

    def script(line: Line) -> None:
        line.greet()
        line.tell(b"CLSE", 0, line.hear().arg0)
        line.hear()

    with pytest.raises(DeviceNotReady, match="sync:"):
        connect(script).open("sync:", 20)


# Flow


@pytest.mark.parametrize("version", [0x01000000, VERSION])
def test_bytes_go_both_ways_in_packets_that_the_device_takes(connect: Connect, version: int) -> None:
    """No packet is above the device's own limit, none is sent before the last was taken, and none is lost."""
    sizes: list[int] = []
    got = bytearray()
    sent = bytes(index % 251 for index in range(50_000))

    def script(line: Line) -> None:
        line.greet(version=version, max_data=4096)
        stream = line.accept().arg0
        while len(got) < len(sent):
            heard = line.hear()
            assert heard.command == b"WRTE"
            sizes.append(len(heard.data))
            got.extend(heard.data)
            line.tell(b"OKAY", 77, stream)
        line.tell(b"WRTE", 77, stream, b"thanks")
        assert line.hear().command == b"OKAY"
        line.tell(b"CLSE", 77, stream)
        line.hear()

    stream = connect(script).open("echo:", 20)
    left = memoryview(sent)
    while left:
        count = stream.write(left)
        assert count or stream.wait(20, to_read=False, to_write=True)
        left = left[count:]
    assert stream.wait(20, to_read=True, to_write=False)
    assert stream.read(100) == b"thanks"
    while (end := stream.read(100)) is None:
        assert stream.wait(20, to_read=True, to_write=False)
    assert end == b""
    assert bytes(got) == sent
    assert max(sizes) == 4096


def test_a_device_may_not_send_on_without_being_asked(connect: Connect) -> None:
    """A device that ignores flow control is cut off before it fills our memory."""

    def script(line: Line) -> None:
        line.greet()
        stream = line.accept().arg0
        while True:
            line.tell(b"WRTE", 77, stream, bytes(1 << 20))

    stream = connect(script).open("flood:", 20)
    assert stream.wait(20, to_read=False, to_write=False)
    taken = 0
    with pytest.raises(ProtocolError, match="without waiting"):  # noqa: PT012 # whichever read it is
        while chunk := stream.read(1 << 18):
            taken += len(chunk)
    assert 0 < taken <= 4 << 20


def test_streams_do_not_wait_for_each_other(connect: Connect) -> None:
    """What one stream does not take is no obstacle to the next."""

    def script(line: Line) -> None:
        line.greet()
        first = line.accept(71).arg0
        line.tell(b"WRTE", 71, first, b"nobody reads this")
        second = line.accept(72).arg0
        line.tell(b"WRTE", 72, second, b"but this")
        line.hear()

    connector = connect(script)
    connector.open("first:", 20)
    stream = connector.open("second:", 20)
    assert stream.wait(20, to_read=True, to_write=False)
    assert stream.read(100) == b"but this"


# Daemons that break the rules


HOSTILE = {
    "noise": b"SSH-2.0-OpenSSH_9.2p1\r\n" + b"\0" * 24,
    "wrong magic": HEADER.pack(b"CNXN", VERSION, 1 << 20, 0, 0, 0),
    "unknown command": packet(b"EVIL", 0, 0),
    "endless data": HEADER.pack(
        b"CNXN", VERSION, 1 << 20, 0xFFFFFFFF, 0, int.from_bytes(b"CNXN", "little") ^ 0xFFFFFFFF
    ),
    "wrong checksum": packet(b"CNXN", VERSION, 1 << 20, GREETING)[:-1] + b"X",
    "not a greeting": packet(b"OKAY", 1, 1),
    "old version": packet(b"CNXN", 1, 1 << 20, GREETING),
    "tiny packets": packet(b"CNXN", VERSION, 1, GREETING),
    "short token": packet(b"AUTH", 1, 0, b"short"),
    "wrong proof": packet(b"AUTH", 9, 0, TOKEN),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_greeting_is_a_protocol_error(connect: Connect, name: str) -> None:
    """Nothing of it is used, and no memory is set aside for lengths that it claims."""
    with pytest.raises(ProtocolError):
        connect(lambda line: [line.hear(), line.say(HOSTILE[name]), line.hear()]).features(20)


@pytest.mark.parametrize(
    "wrong",
    [
        packet(b"WRTE", 78, 1, b"of another stream"),
        packet(b"OKAY", 0, 1),
        packet(b"SYNC", 77, 1),
        packet(b"WRTE", 77, 1, b"x")[:20] + b"\0\0\0\0",
    ],
)
def test_what_breaks_a_stream_breaks_the_connection(connect: Connect, wrong: bytes) -> None:
    """The next read says so, and the next opening connects anew."""
    connections = threading.Semaphore(0)

    def script(line: Line) -> None:
        connections.release()
        line.greet()
        line.accept()
        line.say(wrong)
        line.hear()

    connector = connect(script)
    stream = connector.open("shell:", 20)
    assert stream.wait(20, to_read=True, to_write=False)
    with pytest.raises(ProtocolError):
        stream.read(100)
    with contextlib.suppress(ProtocolError):
        connector.open("again:", 20)
    assert connections.acquire(timeout=20)
    assert connections.acquire(timeout=20)


def test_packets_for_streams_that_are_gone_are_passed_over(connect: Connect) -> None:
    """They were on their way when we closed."""

    def script(line: Line) -> None:
        line.greet()
        stream = line.accept().arg0
        for command in (b"OKAY", b"WRTE", b"CLSE"):
            line.tell(command, 5, 999)
        line.tell(b"OPEN", 5, 0, b"tcp:1\0")
        line.tell(b"WRTE", 77, stream, b"fine")
        line.hear()

    stream = connect(script).open("shell:", 20)
    assert stream.wait(20, to_read=True, to_write=False)
    assert stream.read(100) == b"fine"


def test_a_stream_that_opens_after_we_gave_up_is_closed(connect: Connect) -> None:
    """Else its command would run on the device for as long as the connection stands."""
    closed: list[tuple[bytes, int, int]] = []
    heard = threading.Event()

    def script(line: Line) -> None:
        line.greet()
        given_up = line.hear().arg0
        line.tell(b"OKAY", 77, line.hear().arg0)
        line.tell(b"OKAY", 76, given_up)
        answer = line.hear()
        closed.append((answer.command, answer.arg0, answer.arg1))
        heard.set()

    connector = connect(script)
    with pytest.raises(TransportTimeout):
        connector.open("shell:", 0.05)
    connector.open("shell:", 20)
    assert heard.wait(20)
    assert closed == [(b"CLSE", 1, 76)]


def test_a_device_that_hangs_up_is_a_lost_link_and_found_again(connect: Connect) -> None:
    """A read says so; the next opening makes a new connection."""

    def script(line: Line) -> None:
        line.greet()
        if line.accept().data == b"again:\0":
            line.hear()

    connector = connect(script)
    stream = connector.open("shell:", 20)
    assert stream.wait(20, to_read=True, to_write=False)
    with pytest.raises(LinkLost):
        stream.read(100)
    again = connector.open("again:", 20)
    assert again.read(100) is None


def test_closing_wakes_whoever_waits(connect: Connect) -> None:
    """A connection that is given up leaves nobody waiting, and no thread."""
    connector = connect(lambda line: [line.greet(), line.accept(), line.hear()])
    stream = connector.open("shell:", 20)
    closing = threading.Thread(target=connector.close)
    closing.start()
    assert stream.wait(20, to_read=True, to_write=False)
    closing.join(20)
    with pytest.raises(LinkLost):
        stream.read(1)
    assert not any(thread.name.startswith("adb reader") for thread in threading.enumerate())


def shell_that_says(data: bytes) -> Script:
    """Open a shell and say these bytes over it, then end it."""

    def script(line: Line) -> None:
        line.greet()
        stream = line.accept().arg0
        line.tell(b"WRTE", 77, stream, data)
        line.hear()
        line.tell(b"CLSE", 77, stream)
        line.hear()

    return script


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x07\x01\0\0\0x", ProtocolError),  # no such id
        (b"\0\x01\0\0\0x", ProtocolError),  # standard input, from the device
        (b"\x01\xff\xff\xff\xff", ProtocolError),  # four gigabytes of output
        (b"\x03\x02\0\0\0\0\0", ProtocolError),  # two exit codes
        (b"\x01\x03\0\0\0-1\n\x03\x01\0\0\0\0", ProtocolError),  # a process group that would be everything
        (b"\x01\x02\0\0\x001\n\x03\x01\0\0\0\0", ProtocolError),
        (b"\x01\x04\0\0\x00123\n", LinkLost),  # no exit code
        (b"", LinkLost),
    ],
)
def test_a_shell_that_breaks_the_rules(connect: Connect, data: bytes, error: type[DeviceError]) -> None:
    """Frames, exit codes and process groups are distrusted."""
    with pytest.raises(error):
        AdbTransport(connect(shell_that_says(data))).run(["true"], 20)


def sync_that_says(data: bytes) -> Script:
    """Open the file service, take a request, say these bytes, then end it."""

    def script(line: Line) -> None:
        line.greet()
        stream = line.accept().arg0
        line.hear()
        line.tell(b"OKAY", 77, stream)
        line.tell(b"WRTE", 77, stream, data)
        line.hear()
        line.tell(b"CLSE", 77, stream)
        line.hear()

    return script


FILE = b"STAT" + (0o100644).to_bytes(4, "little") + bytes(8)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"DENT" + bytes(16), ProtocolError),
        (FILE + b"DATA\xff\xff\xff\xff", ProtocolError),
        (FILE + b"DENT" + bytes(16), ProtocolError),
        (FILE + b"FAIL\xff\xff\xff\xff", ProtocolError),
        (FILE + b"FAIL\x05\0\0\0\x1b[31m", TransportError),
        (b"STAT" + bytes(12), TransportError),  # no such file
        (b"STAT" + (0o010644).to_bytes(4, "little") + bytes(8), TransportError),  # a pipe
        (FILE + b"DATA\x04\0\0\0half", LinkLost),
    ],
)
def test_a_file_service_that_breaks_the_rules(
    connect: Connect, tmp_path: Path, data: bytes, error: type[DeviceError]
) -> None:
    """A pull ends in an error without a trace here, and what the device wrote is cleaned before it is shown."""
    here = tmp_path / "here"
    here.mkdir()
    with pytest.raises(error) as caught:
        AdbTransport(connect(sync_that_says(data))).pull("/data/file", here / "file")
    assert list(here.iterdir()) == []
    assert "\x1b" not in str(caught.value)
