"""An address has one text form, and what is not one is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.addresses import Address
from device_agents.errors import InvalidRequest

_FIRST = string.ascii_letters + string.digits
_REST = _FIRST + "._-"
NAMES = st.builds(str.__add__, st.sampled_from(_FIRST), st.text(_REST, max_size=20))
PORTS = st.integers(1, 65535)
IPV6 = st.ip_addresses(v=6).map(str) | st.ip_addresses(v=6, network="fe80::/10").map(lambda ip: f"{ip}%eth0")
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | IPV6
ADDRESSES = st.one_of(
    st.just(Address("local")),
    st.builds(Address, st.just("ssh"), st.just("") | NAMES, HOSTS, st.just(0) | PORTS),
    st.builds(Address, st.just("adb"), host=HOSTS, port=PORTS),
    st.builds(Address, st.just("adb"), serial=NAMES),
)


@given(ADDRESSES)
def test_text_form_and_address_are_inverse(address: Address) -> None:
    """What is written in devices.toml is read back as the same way to the same device."""
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("local:", Address("local")),
        ("ssh://pi@raspberrypi.local:2222", Address("ssh", "pi", "raspberrypi.local", 2222)),
        ("ssh://board", Address("ssh", host="board")),
        ("ssh://[fe80::1%wlan0]:22", Address("ssh", host="fe80::1%wlan0", port=22)),
        ("adb://10.0.0.7:5555", Address("adb", host="10.0.0.7", port=5555)),
        ("adb://[::1]:5555", Address("adb", host="::1", port=5555)),
        ("adb://emulator-5554", Address("adb", serial="emulator-5554")),
        ("adb://adb-9A25-Ab12._adb-tls-connect._tcp", Address("adb", serial="adb-9A25-Ab12._adb-tls-connect._tcp")),
        ("adb://00:11:22:aa:bb:cc", Address("adb", serial="00:11:22:aa:bb:cc")),
    ],
)
def test_each_known_form_is_read(text: str, address: Address) -> None:
    """The forms of the module's docstring, with names and numbers as real devices have them."""
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pixel4",
        "local",
        "local:x",
        "ssh://",
        "ssh://-oProxyCommand=touch",
        "ssh://-lroot@host",
        "ssh://user@-host",
        "ssh://a@b@c",
        "ssh://host/path",
        "ssh://host name",
        "ssh://host;reboot",
        "ssh://host\n",
        "ssh://host:",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:123456",
        "ssh://host:２２",
        "ssh://[host]",
        "ssh://[fe80::1",
        "ssh://fe80::1",
        "ssh://[::1%a b]",
        "ssh://user:secret@host",
        "SSH://host",
        "http://host",
        "adb://",
        "adb://-s",
        "adb://serial with space",
        "adb://$(reboot)",
        "adb://host:0",
        "adb://host:",
        "adb://host:99999",
        "adb://host:123456",
        "adb://user@host:5555",
        " adb://serial",
    ],
)
def test_a_hostile_or_mistyped_form_is_refused(text: str) -> None:
    """Options for other programs, shell words, impossible ports and unknown forms are refused, with the text shown."""
    with pytest.raises(InvalidRequest) as refused:
        Address.parse(text)
    assert repr(text) in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=30) | st.from_regex(r"(ssh|adb|local):/{0,2}[ -~]{0,30}", fullmatch=True))
def test_whatever_is_read_has_a_text_form(text: str) -> None:
    """Any text is refused or is an address whose text form is read as the same address again."""
    try:
        address = Address.parse(text)
    except InvalidRequest:
        return
    assert Address.parse(str(address)) == address
