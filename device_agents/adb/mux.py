"""Many streams over one connection to a device, with ADB's flow control.

One thread reads packets. A side may send data on a stream again once the other has said OKAY to the last: we say it
when a stream's data was taken, which bounds what a stream holds.
It makes no connection. Read next: `direct.py`.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque

from device_agents.adb.packets import MAX_DATA_BYTES, Packet, PacketWire
from device_agents.errors import DeviceError, DeviceNotReady, LinkLost, ProtocolError, TransportTimeout

_OUTBOX_BYTES = MAX_DATA_BYTES  # the next packet, filled while the device still works on the last
# A daemon may send on without our OKAY where a command has just ended (Google's own does, once), never without end.
_INBOX_BYTES = 2 * MAX_DATA_BYTES
_INBOX_PACKETS = 16
_JOIN_S = 5.0


class Mux:
    """The streams of one connection; `max_data` is what the device takes in one packet."""

    def __init__(self, wire: PacketWire, max_data: int) -> None:
        self.name = wire.name
        self.max_data = max_data
        self.packet_bytes = wire.packet_bytes
        self.changed = threading.Condition()
        self._wire = wire
        self._streams: dict[int, MuxStream] = {}
        self._last_id = 0
        self._failure: DeviceError | None = None
        self._reader = threading.Thread(target=self._read, name=f"adb reader {wire.name}", daemon=True)
        self._reader.start()

    @property
    def is_broken(self) -> bool:
        """Tell whether a new connection is needed."""
        return self._failure is not None

    def open(self, service: str, timeout_s: float) -> MuxStream:
        """Open a service. Raises DeviceNotReady when the device refuses it, TransportTimeout, LinkLost."""
        with self.changed:
            self._last_id += 1
            stream = MuxStream(self, self._last_id)
            self._streams[stream.local_id] = stream
        try:
            self.send(Packet(b"OPEN", stream.local_id, 0, self._service(service)))
            stream.await_opening(service, timeout_s)
        except BaseException:
            stream.close()
            raise
        return stream

    def _service(self, service: str) -> bytes:
        data = service.encode() + b"\0"
        if self.packet_bytes > 1 and len(data) % self.packet_bytes == 0:
            data += b"\0"  # the device strips zeros
        if len(data) > self.max_data:
            raise DeviceNotReady(f"{self.name} takes {self.max_data} bytes at once, not a service of {len(data)}")
        return data

    def send(self, packet: Packet) -> None:
        """Send a packet. Raises LinkLost; a sending that was interrupted breaks the connection."""
        try:
            self._wire.send(packet)
        except BaseException as error:
            self._fail(error if isinstance(error, DeviceError) else LinkLost(f"{self.name}: sending was interrupted"))
            raise

    def check(self) -> None:
        """Raise what broke the connection, if it is broken."""
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))

    def forget(self, local_id: int) -> None:
        """Drop a stream; what still comes for it is passed over."""
        with self.changed:
            self._streams.pop(local_id, None)

    def close(self) -> None:
        """End the connection and all its streams."""
        self._fail(LinkLost(f"{self.name}: the connection was closed"))
        self._wire.interrupt()
        self._reader.join(_JOIN_S)
        self._wire.close()

    def _fail(self, error: DeviceError) -> None:
        with self.changed:
            self._failure = self._failure or error
            self.changed.notify_all()

    def _read(self) -> None:
        try:
            while True:
                self._take(self._wire.receive(None))
        except DeviceError as error:
            self._fail(error)
        finally:
            self._fail(LinkLost(f"{self.name}: nobody reads the connection any more"))

    def _take(self, packet: Packet) -> None:
        if packet.command in {b"CNXN", b"AUTH"}:
            raise LinkLost(f"{self.name} began a new connection; it was restarted")
        with self.changed:
            stream = self._streams.get(packet.arg1)
            if stream is not None:
                stream.take(packet)
                self.changed.notify_all()
        if stream is None:  # one that we closed while this was on its way, or one that we never asked for
            if packet.command == b"OKAY" and packet.arg0:  # one that we gave up on opened after all: nobody reads it
                self.send(Packet(b"CLSE", packet.arg1, packet.arg0))
        elif packet.command == b"OKAY":
            stream.flush()


class MuxStream:
    """One stream of a Mux, as a ByteStream."""

    def __init__(self, mux: Mux, local_id: int) -> None:
        self.local_id = local_id
        self._mux = mux
        self._remote_id = 0
        self._inbox: deque[bytes] = deque()  # each is owed an OKAY
        self._taken = 0  # of the first of them
        self._outbox = bytearray()
        self._may_send = False  # the device has said OKAY to all that was sent
        self._ended = False
        self._closed = False

    def take(self, packet: Packet) -> None:
        """Take a packet for this stream, with the Mux locked. Raises ProtocolError for what breaks the rules."""
        if packet.command == b"CLSE":
            self._ended = True
            return
        if packet.command not in {b"OKAY", b"WRTE"} or packet.arg0 == 0 or self._remote_id not in {0, packet.arg0}:
            raise ProtocolError(f"{self._mux.name} sent {packet.command!r} for a stream that is not so")
        if packet.command == b"OKAY":
            self._remote_id = packet.arg0
            self._may_send = True
            return
        self._inbox.append(packet.data)
        if len(self._inbox) > _INBOX_PACKETS or sum(map(len, self._inbox)) > _INBOX_BYTES or self._remote_id == 0:
            raise ProtocolError(f"{self._mux.name} sends data without waiting until the last was taken")

    def await_opening(self, service: str, timeout_s: float) -> None:
        """Wait for the device's answer to the opening."""
        with self._mux.changed:
            done = self._mux.changed.wait_for(
                lambda: self._remote_id or self._ended or self._mux.is_broken, max(0.0, timeout_s)
            )
            if self._remote_id:
                return
            self._mux.check()
        if done:
            raise DeviceNotReady(f"{self._mux.name} does not offer the service {service[:40]!r}")
        raise TransportTimeout(f"{self._mux.name} did not open {service[:40]!r} within {timeout_s:g} s")

    def read(self, limit: int) -> bytes | None:
        """Return what is there; once all of a packet is taken the device may send the next."""
        with self._mux.changed:
            if not self._inbox:
                if self._ended or self._closed:
                    return b""
                self._mux.check()
                return None
            chunk = self._inbox[0][self._taken : self._taken + limit]
            self._taken += len(chunk)
            if self._taken < len(self._inbox[0]):
                return chunk
            self._inbox.popleft()
            self._taken = 0
            says_okay = not self._ended
        if says_okay:
            with contextlib.suppress(LinkLost):  # what came is still good; the next read tells
                self._mux.send(Packet(b"OKAY", self.local_id, self._remote_id))
        return chunk or None

    def write(self, data: memoryview) -> int:
        """Take what fits behind that which waits to go out."""
        with self._mux.changed:
            self._mux.check()
            if self._ended or self._closed:
                raise LinkLost(f"{self._mux.name} closed the stream")
            count = min(len(data), _OUTBOX_BYTES - len(self._outbox))
            self._outbox += data[:count]
        self.flush()
        return count

    def flush(self) -> None:
        """Send the next packet if the device has taken the last."""
        with self._mux.changed:
            if not self._outbox or not self._may_send or self._ended or self._closed:
                return
            size = min(len(self._outbox), self._mux.max_data)
            if size % self._mux.packet_bytes == 0 and self._mux.packet_bytes > 1:
                size -= 1
            payload = bytes(self._outbox[:size])
            del self._outbox[:size]
            self._may_send = False
            self._mux.changed.notify_all()  # there is room again
        self._mux.send(Packet(b"WRTE", self.local_id, self._remote_id, payload))

    def wait(self, timeout_s: float, *, to_read: bool, to_write: bool) -> bool:
        """Wait until a read or a write would do something, or the connection broke."""

        def ready() -> bool:
            if self._ended or self._closed or self._mux.is_broken:
                return True
            return (to_read and bool(self._inbox)) or (to_write and len(self._outbox) < _OUTBOX_BYTES)

        with self._mux.changed:
            return self._mux.changed.wait_for(ready, max(0.0, timeout_s))

    def close(self) -> None:
        """Close the stream; what waits to go out is dropped."""
        with self._mux.changed:
            says_close = not (self._closed or self._ended or self._mux.is_broken) and self._remote_id != 0
            self._closed = True
            self._inbox.clear()
            self._outbox.clear()
        self._mux.forget(self.local_id)
        if says_close:
            with contextlib.suppress(LinkLost):
                self._mux.send(Packet(b"CLSE", self.local_id, self._remote_id))
