"""What a device is: found by name, read over its transport, the same whoever looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import DeviceNotReady, ProtocolError, TransportError, UnknownDevice
from device_agents.facts import cpu_list, read_facts
from device_agents.inventory import (
    Cluster,
    Device,
    KnownDevice,
    describe,
    find_device,
    find_runtimes,
    list_devices,
    open_transport,
)
from device_agents.local import LocalTransport
from device_agents.transport import Completed, Transport

BOARD = {
    "/proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd05\n\nprocessor\t: 1\nCPU part\t: 0xd0b\n",
    "/proc/self/status": "Name:\tgrep\nCpus_allowed_list:\t0-3\n",
    "/proc/sys/kernel/ostype": "Linux",
    "/proc/sys/kernel/osrelease": "6.6.31",
    "/proc/device-tree/model": "Some Board 5 Rev 1.0\0",
    "/etc/os-release": 'ID=some\nPRETTY_NAME="Some OS 12"',
    "/sys/devices/system/cpu/online": "0-2",
    "/sys/devices/system/cpu/cpu0/cpu_capacity": "400",
    "/sys/devices/system/cpu/cpu1/cpu_capacity": "1024",
    "/sys/devices/system/cpu/cpu2/cpu_capacity": "400",
}


@dataclass
class FakeBoard(LocalTransport):
    """Answers the reading of files from a table, and everything else with one text."""

    files: dict[str, str]
    other: bytes = b"aarch64\n"
    exit_code: int = 0

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Print the table as grep would."""
        if argv[0] != "sh":
            return Completed(self.exit_code, self.other, b"")
        text = "".join(f"{path}:{line}\n" for path, lines in self.files.items() for line in lines.split("\n"))
        return Completed(self.exit_code, text.encode(), b"")


def test_the_host_is_known_and_described() -> None:
    """The own machine is in the catalogue, and its facts are those of this process."""
    assert [entry.name for entry in list_devices()] == ["host"]
    host = find_device("host")
    assert host.cpus == tuple(sorted(os.sched_getaffinity(0)))
    assert host.cores == len(host.cpus)
    assert host.python == sys.executable
    assert host.abi == os.uname().machine
    assert sorted(cpu for cluster in host.clusters for cpu in cluster.cpus) == list(host.cpus)


def test_the_fingerprint_tells_builds_apart_and_holds_no_names() -> None:
    """It is stable, it changes with the kernel, and neither host name nor path is in it."""
    first = find_device("host").build_fingerprint
    assert first == find_device("host").build_fingerprint
    assert os.uname().nodename not in first
    assert "/" not in first
    entry = KnownDevice("board", "local", "")
    newer = {**BOARD, "/proc/sys/kernel/osrelease": "6.6.32"}
    prints = {describe(entry, FakeBoard(files)).build_fingerprint for files in (BOARD, BOARD, newer)}
    assert len(prints) == 2


@pytest.mark.parametrize(("name", "nearest"), [("hots", "host"), ("Host", "host"), ("zzzz", None)])
def test_an_unknown_name_gets_the_nearest_known_one(name: str, nearest: str | None) -> None:
    """A slip of the keyboard is answered with what was probably meant."""
    with pytest.raises(UnknownDevice, match="host") as raised:
        find_device(name)
    assert raised.value.nearest == nearest


def test_a_board_is_described_from_its_files() -> None:
    """Model, system, allowed and online CPUs, and clusters by capacity, slowest first."""
    board = describe(KnownDevice("board", "local", ""), FakeBoard(BOARD))
    assert (board.model, board.os, board.abi) == ("Some Board 5 Rev 1.0", "Some OS 12", "aarch64")
    assert board.soc == "Arm part 0xd05+0xd0b"
    assert board.cpus == (0, 1, 2)
    assert board.clusters == (Cluster((0, 2), 400), Cluster((1,), 1024))


def test_a_board_that_says_nothing_is_still_a_device() -> None:
    """Denied files leave gaps, never an error."""
    board = describe(KnownDevice("board", "local", ""), FakeBoard({}))
    assert (board.soc, board.os, board.cpus) == ("unknown", "unknown", (0,))


def test_a_reading_that_fails_is_a_transport_error() -> None:
    """A device without a shell is not taken for one without facts."""
    with pytest.raises(TransportError, match="127"):
        read_facts(FakeBoard(BOARD, exit_code=127), ["/proc/cpuinfo"])


def test_facts_are_read_from_real_files(transport: Transport, tmp_path: Path) -> None:
    """Patterns expand, several lines stay together, colons stay in the text, missing files are left out."""
    (tmp_path / "a1").write_text("one: 1\ntwo\t: 2\n")
    (tmp_path / "a2").write_bytes(b"zero\0ended\x1b")
    facts = read_facts(transport, [f"{tmp_path}/a?", f"{tmp_path}/missing"])
    assert facts == {f"{tmp_path}/a1": "one: 1\ntwo : 2", f"{tmp_path}/a2": "zeroended"}


@given(st.sets(st.integers(0, 1023), min_size=1))
def test_a_cpu_list_is_read_as_it_is_written(cpus: set[int]) -> None:
    """Single CPUs and ranges are inverse to what the kernel prints."""
    text, ordered = [], sorted(cpus)
    while ordered:
        run = 1
        while run < len(ordered) and ordered[run] == ordered[0] + run:
            run += 1
        text.append(f"{ordered[0]}-{ordered[run - 1]}" if run > 1 else str(ordered[0]))
        ordered = ordered[run:]
    assert cpu_list(",".join(text) + "\n") == tuple(sorted(cpus))


@pytest.mark.parametrize("text", ["", "a", "0-", "0,,1", "-1", "0-99999"])
def test_a_broken_cpu_list_is_empty(text: str) -> None:
    """Nothing is guessed from a text that is no list."""
    assert cpu_list(text) == ()


def test_installed_runtimes_are_found(host: Device, transport: Transport) -> None:
    """The device's Python is asked, and answers with versions."""
    assert find_runtimes(host, transport)["ai_edge_litert"][0].isdigit()


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"[]", b'{"runtimes": 3}'])
def test_a_wrong_probe_answer_is_a_protocol_error(host: Device, answer: bytes) -> None:
    """What is no JSON line of the probe is refused."""
    with pytest.raises(ProtocolError):
        find_runtimes(host, FakeBoard({}, answer))


def test_a_python_that_fails_is_not_ready(host: Device) -> None:
    """A missing interpreter is named."""
    with pytest.raises(DeviceNotReady, match=sys.executable):
        find_runtimes(host, FakeBoard({}, exit_code=127))


def test_an_unknown_kind_of_transport_is_refused(host: Device) -> None:
    """A device from a newer version says which transports this one has."""
    with pytest.raises(DeviceNotReady, match="known: local"):
        open_transport(replace(host, transport="pigeon"))
