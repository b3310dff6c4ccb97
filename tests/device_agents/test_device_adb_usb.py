"""Phones over USB: found by serial number, held by somebody else, transfers cut into pieces."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import closing

import pytest
import usb1
from adb_shell.exceptions import UsbReadFailedError, UsbWriteFailedError
from adb_shell.transport.usb_transport import UsbTransport

from device_agents.adb import usb
from device_agents.adb.handshake import Patience, shake_hands
from device_agents.adb.mux import Mux
from device_agents.adb.packets import Packet, PacketWire
from device_agents.adb.usb import UsbBus, UsbLink, open_usb
from device_agents.errors import DeviceNotReady, DeviceOffline, LinkLost, NotAuthorised, TransportTimeout

pytestmark = pytest.mark.whole  # loads libusb


class Port:
    """A phone's USB interface: gives transfers as they were queued, and keeps what it was given."""

    def __init__(self, serial: str, transfers: Iterable[bytes | usb1.USBError] = (), problem: Exception | None = None):
        self._serial = serial
        self.transfers = list(transfers)
        self.problem = problem
        self.written: list[bytes] = []
        self.claimed = False

    @property
    def serial_number(self) -> str:
        if isinstance(self.problem, usb1.USBErrorAccess):
            raise self.problem
        return self._serial

    def connect(self, transport_timeout_s: float | None = None) -> None:
        if self.problem is not None:
            raise self.problem
        self.claimed = True

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None = None) -> bytes:
        if not self.transfers:
            raise UsbReadFailedError("nothing", usb1.USBErrorTimeout())
        transfer = self.transfers.pop(0)
        if isinstance(transfer, usb1.USBError):
            raise UsbReadFailedError("failed", transfer)
        if len(transfer) > numbytes:
            raise UsbReadFailedError("failed", usb1.USBErrorOverflow())
        return transfer

    def bulk_write(self, data: bytes, transport_timeout_s: float | None = None) -> int:
        if self.problem is not None:
            raise self.problem
        self.written.append(bytes(data[:10_000]))  # a controller may take less than it was offered
        return len(self.written[-1])

    def close(self) -> None:
        self.claimed = False


class Phone(Port):
    """A phone that says OKAY to every packet with data, for streams that it all calls 77."""

    def __init__(self, serial: str) -> None:
        super().__init__(serial)
        self._changed = threading.Condition()

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None = None) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self.transfers, transport_timeout_s)
        return super().bulk_read(numbytes, transport_timeout_s)

    def bulk_write(self, data: bytes, transport_timeout_s: float | None = None) -> int:
        with self._changed:
            count = super().bulk_write(data, transport_timeout_s)
            if len(self.written) % 2 == 0:
                self.transfers += packets(Packet(b"OKAY", 77, 1))
            self._changed.notify_all()
        return count

    def took(self, transfers: int) -> bool:
        """Wait until the host has written so many transfers."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.written) == transfers, 20)


def attach(monkeypatch: pytest.MonkeyPatch, *ports: Port) -> None:
    """Let these be the phones on USB."""
    monkeypatch.setattr(UsbTransport, "find_all_adb_devices", lambda: iter(ports))


def test_a_phone_is_found_by_its_serial_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are left alone, even those that may not be opened."""
    denied, other, wanted = Port("A", problem=usb1.USBErrorAccess()), Port("B"), Port("C")
    attach(monkeypatch, denied, other, wanted)
    link = open_usb("C")
    assert (other.claimed, wanted.claimed) == (False, True)
    link.close()
    assert not wanted.claimed


def test_what_lies_ready_in_a_phone_is_taken_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would break the connection that the next greeting begins, ours or an adb server's."""
    port = Port("C", [b"for a host", b"that was killed"])
    attach(monkeypatch, port)
    link = open_usb("C")
    assert port.transfers == []
    port.transfers = [b"for a stream that is closed"]
    link.close()
    assert port.transfers == []


def test_a_phone_that_never_falls_silent_is_opened_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it goes on to send is for the greeting to judge."""
    monkeypatch.setattr(usb, "_DRAIN_S", 0.01)
    port = Port("C")
    monkeypatch.setattr(port, "bulk_read", lambda size, timeout_s: b"x")
    attach(monkeypatch, port)
    assert open_usb("C").read(3, 20) == b"xxx"


def test_each_search_looks_at_the_bus_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phone that came after adb-shell was loaded is found where no udev daemon tells libusb of it."""
    contexts: list[object] = []

    def find(finder: type[UsbTransport]) -> Iterable[Port]:
        contexts.append(finder.USB1_CTX)
        return []

    monkeypatch.setattr(UsbTransport, "find_all_adb_devices", classmethod(find))
    for _ in range(2):
        with closing(UsbBus()) as bus:
            bus.ports()
    assert len({UsbTransport.USB1_CTX, *contexts}) == 3


def test_a_phone_that_is_not_there_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong serial number is seen at once."""
    attach(monkeypatch, Port("A"), Port("B"))
    with pytest.raises(DeviceOffline, match="A, B"):
        open_usb("C")


@pytest.mark.parametrize(
    ("problem", "error", "says"),
    [
        (usb1.USBErrorBusy(), DeviceNotReady, "adb server holds"),
        (usb1.USBErrorAccess(), NotAuthorised, "udev"),
        (usb1.USBErrorNoDevice(), DeviceOffline, "cable"),
    ],
)
def test_what_keeps_a_phone_from_being_opened(
    monkeypatch: pytest.MonkeyPatch, problem: Exception, error: type[Exception], says: str
) -> None:
    """Each says what to do."""
    attach(monkeypatch, Port("C", problem=problem))
    with pytest.raises(error, match=says):
        open_usb("C")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """All else works without libusb until a phone on USB is asked for."""
    monkeypatch.setitem(sys.modules, "usb1", None)
    with pytest.raises(DeviceNotReady, match=r"edgekd\[devices\]"):
        open_usb("C")


WITHOUT_LIBUSB = """
import usb1._libusb1

def fail(*arguments, **options):
    raise OSError("libusb-1.0.so.0: cannot open shared object file")

usb1._libusb1.CDLL = fail
"""
CLOSED_BUS = """
import usb1

def fail(context):
    raise usb1.USBErrorOther

usb1.USBContext.open = fail
"""


@pytest.mark.parametrize(
    ("before", "listed", "reason"),
    [
        (WITHOUT_LIBUSB, ([], False), "DeviceNotReady: a phone over USB needs libusb-1.0; install it"),
        (CLOSED_BUS, ([], True), "DeviceOffline: adb://C: USB failed"),
    ],
    ids=["without libusb", "closed bus"],
)
def test_where_libusb_cannot_work_this_is_told(before: str, listed: tuple[list[str], bool], reason: str) -> None:
    """It is missing, or may not look at the bus: no phone is listed, and one asked for says why."""
    program = f"""{before}
from device_agents.adb.usb import open_usb
from device_agents.adb.usb_list import list_usb
from device_agents.errors import DeviceError

print(list_usb())
try:
    open_usb("C")
except DeviceError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == str(listed)
    assert second.startswith(reason)


def test_transfers_are_put_together() -> None:
    """A transfer may be shorter than asked for, empty, or end with a time-out that has brought some bytes."""
    late = usb1.USBErrorTimeout()
    late.received = b"cd"
    link = UsbLink(Port("C", [b"ab", b"", late, b"ef"]), "adb://C")
    assert link.read(6, 20) == b"abcdef"


def test_writing_goes_on_where_the_last_transfer_ended() -> None:
    """No byte is lost or doubled."""
    port = Port("C")
    data = bytes(index % 251 for index in range(100_000))
    UsbLink(port, "adb://C").write(data)
    assert b"".join(port.written) == data


def test_a_pulled_cable_is_a_lost_link() -> None:
    """In both directions."""
    with pytest.raises(LinkLost):
        UsbLink(Port("C", [usb1.USBErrorNoDevice()]), "adb://C").read(1, 20)
    with pytest.raises(LinkLost):
        UsbLink(Port("C", problem=UsbWriteFailedError("gone", usb1.USBErrorIO())), "adb://C").write(b"x")


def test_silence_has_an_end() -> None:
    """A phone that says nothing is a timeout; a link that is given back is not waited for."""
    link = UsbLink(Port("C"), "adb://C")
    with pytest.raises(TransportTimeout):
        link.read(1, 0)
    link.interrupt()
    with pytest.raises(LinkLost):
        link.read(1, None)


def packets(*several: Packet) -> list[bytes]:
    """Return the transfers of packets, header and data apart, as a phone sends them."""
    port = Port("C")
    wire = PacketWire(UsbLink(port, "adb://C"))
    for one in several:
        wire.send(one)
    return port.written


GREETING = Packet(b"CNXN", 0x01000001, 1 << 20, b"device::features=shell_v2")


def test_what_another_host_left_in_the_phone_is_passed_over() -> None:
    """A phone that was taken from an adb server may still send for that."""
    port = Port("C", packets(Packet(b"WRTE", 9, 9, b"old"), Packet(b"CLSE", 9, 9), GREETING))
    greeting = shake_hands(PacketWire(UsbLink(port, "adb://C")), lambda: pytest.fail("no proof is asked"), Patience())
    assert "shell_v2" in greeting.features


def test_no_data_fills_a_whole_usb_packet() -> None:
    """A phone would wait for more after a full one; so the last byte goes in a packet of its own."""
    port = Phone("C")
    mux = Mux(PacketWire(UsbLink(port, "adb://C")), 1 << 20)
    stream = mux.open("s" * 63, 20)  # with its end a full packet
    data = bytes(512)
    assert stream.write(memoryview(data)) == 512
    assert port.took(6)
    mux.close()
    sizes = [len(transfer) for transfer in port.written]
    assert sizes == [24, 65, 24, 511, 24, 1]
