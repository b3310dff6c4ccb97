"""The first words with a device's own adbd: versions, the proof of who we are, what the device is and can do.

It makes no link. Read next: `direct.py`.
Source: PROTOCOL.TXT of the Android Debug Bridge, CONNECT and AUTH.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_agents.adb.auth import Signer
from device_agents.adb.packets import MAX_DATA_BYTES, VERSION, VERSION_WITH_CHECKSUMS, Packet, PacketWire
from device_agents.errors import DeviceNotReady, DeviceOffline, LinkLost, NotAuthorised, ProtocolError, TransportTimeout
from device_agents.strict_json import clean_text

_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3
_TOKEN_BYTES = 20
_LEAST_DATA_BYTES = 4096  # of the oldest protocol
_STALE_PACKETS = 64  # for another host, that lie in a USB device when we take it over
_GREETING = b"host::features=shell_v2"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a device said of itself: the most bytes it takes in one packet, and what it can do."""

    max_data: int
    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for the device's answer, and for a person to accept our key on its screen."""

    answer_s: float = 10.0
    person_s: float = 30.0


DEFAULT_PATIENCE = Patience()


def shake_hands(wire: PacketWire, signer: Callable[[], Signer], patience: Patience) -> Greeting:
    """Introduce ourselves; `signer` is asked only when the device wants a proof.

    Raises NotAuthorised when it does not let us in, DeviceOffline when it says nothing, DeviceNotReady when it is not
    in a state to be used or wants TLS, ProtocolError, LinkLost.
    """
    wire.send(Packet(b"CNXN", VERSION, MAX_DATA_BYTES, _GREETING))
    answer = _answer(wire, patience.answer_s)
    if answer.command == b"AUTH":
        proof = signer()
        wire.send(Packet(b"AUTH", _SIGNATURE, 0, proof.Sign(_token(wire, answer))))
        answer = _answer(wire, patience.answer_s)
        if answer.command == b"AUTH":  # it does not know our key: offer it, and a prompt appears on its screen
            _token(wire, answer)
            wire.send(Packet(b"AUTH", _PUBLIC_KEY, 0, proof.GetPublicKey().rstrip(b"\0\n") + b"\0"))
            answer = _accepted(wire, patience.person_s)
    if answer.command == b"STLS":
        raise DeviceNotReady(
            f"{wire.name} wants an encrypted connection (wireless debugging); pair with it and connect through adb 30+"
        )
    if answer.command != b"CNXN":
        raise ProtocolError(f"{wire.name} answered {answer.command!r} to our greeting")
    return _greeting(wire, answer)


def _answer(wire: PacketWire, timeout_s: float) -> Packet:
    try:
        for _ in range(_STALE_PACKETS):
            answer = wire.receive(timeout_s)
            if wire.packet_bytes == 1 or answer.command not in {b"OKAY", b"WRTE", b"CLSE"}:
                return answer
    except TransportTimeout as error:
        raise DeviceOffline(f"{wire.name} took the connection and said nothing; is it an adbd?") from error
    raise ProtocolError(f"{wire.name} goes on with an older connection and does not answer")


def _accepted(wire: PacketWire, timeout_s: float) -> Packet:
    refusal = f"{wire.name} does not trust this computer yet; unlock it and accept the prompt on the phone's screen"
    try:
        answer = wire.receive(timeout_s)
    except (TransportTimeout, LinkLost) as error:
        raise NotAuthorised(refusal) from error
    if answer.command == b"AUTH":
        raise NotAuthorised(refusal)
    return answer


def _token(wire: PacketWire, packet: Packet) -> bytes:
    if packet.arg0 != _TOKEN or len(packet.data) != _TOKEN_BYTES:
        raise ProtocolError(f"{wire.name} asked for a proof of kind {packet.arg0} over {len(packet.data)} bytes")
    return packet.data


def _greeting(wire: PacketWire, packet: Packet) -> Greeting:
    if packet.arg0 < VERSION_WITH_CHECKSUMS or packet.arg1 < _LEAST_DATA_BYTES:
        raise ProtocolError(f"{wire.name} speaks version {packet.arg0:#x} with packets of {packet.arg1} bytes")
    wire.use_version(packet.arg0)
    state, _, rest = packet.data.rstrip(b"\0").decode("utf-8", "replace").partition("::")
    if state != "device":
        raise DeviceNotReady(f"{wire.name} is in state {clean_text(state[:40])!r}; start it normally")
    facts = dict(part.split("=", 1) for part in rest.split(";") if "=" in part)
    return Greeting(min(packet.arg1, MAX_DATA_BYTES), frozenset(facts.get("features", "").split(",")))
