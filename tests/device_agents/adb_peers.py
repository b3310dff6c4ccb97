"""Real peers of the ADB transport: Google's adbd in a network namespace of its own, and Google's adb server."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from requirements import require
from transports import Peer

from device_agents.adb.choice import AdbOptions, connector_for
from device_agents.adb.server import ServerAddress, ServerConnector, server_version
from device_agents.adb.transport import AdbTransport
from device_agents.addresses import Address

_TOOL = Path(__file__).parents[2] / "tools" / "virtual_devices"
_FOLDERS = (f"/data/local/tmp/edgekd-test-{number}" for number in itertools.count())


@dataclass(frozen=True)
class Adbd:
    """A running virtual device with adbd; its link can be cut and its daemon killed."""

    name: str
    host: str
    port: int
    root: Path  # the device's root directory
    pid: int  # of a process that sees its mounts

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address("adb", host=self.host, port=self.port)

    @property
    def serial(self) -> str:
        """Its name on an adb server."""
        return f"{self.host}:{self.port}"

    def direct(self, options: AdbOptions = AdbOptions(direct=True)) -> AdbTransport:  # noqa: B008 # it is immutable
        """Open a way straight to it."""
        return AdbTransport(connector_for(self.address, options))

    def through(self, server: ServerAddress) -> AdbTransport:
        """Open a way through an adb server."""
        return AdbTransport(ServerConnector(self.serial, server, network=True))

    def kill(self) -> None:
        """End the daemon and every connection to it."""
        tool("kill", self.name)

    def restart(self) -> None:
        """Start the daemon again and wait until it answers."""
        tool("restart", self.name)

    def cut(self) -> None:
        """Pull the network cable: neither side is told."""
        tool("cut", self.name)

    def mend(self) -> None:
        """Put the cable back in, and wait until packets pass."""
        tool("mend", self.name)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
        pytest.fail(f"{self.name} does not answer after its cable was put back in")

    def break_connections(self) -> None:
        """Break every connection to it; it can be reached again after."""
        self.kill()
        self.restart()

    def fresh_folder(self) -> str:
        """Make an empty folder there that anyone may write to."""
        folder = next(_FOLDERS)
        here = self.root / folder.lstrip("/")
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        here.chmod(0o777)
        return folder

    def small_disk(self) -> str:
        """Make a folder there on a file system of 1 MiB, which ends with the device."""
        folder = self.fresh_folder()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "edgekd-test", str(self.root / folder.lstrip("/"))]
        subprocess.run(["nsenter", f"--target={self.pid}", "--mount", *mount], check=True)  # noqa: S607 # a system tool
        return folder


def tool(*arguments: str) -> str:
    """Run tools/virtual_devices."""
    done = subprocess.run([str(_TOOL), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed() -> list[dict[str, Any]]:
    """List the virtual devices that run."""
    devices: list[dict[str, Any]] = json.loads(tool("list", "--format", "json"))["devices"]
    return devices


@pytest.fixture(scope="session")
def adbd() -> Iterator[Adbd]:
    """Google's adbd for this machine's processor; when nothing ran before, nothing runs after."""
    require(os.geteuid() == 0, "virtual devices need root")
    ran_before = bool(listed())
    tool("up", "--only", "virtual-adbd")
    entry = next(entry for entry in listed() if entry["name"] == "virtual-adbd")
    yield Adbd(entry["name"], entry["host"], entry["port"], Path(entry["root"]), entry["daemon_pids"][0])
    if not ran_before:
        tool("down")


@pytest.fixture(scope="session")
def adb_small_disk(adbd: Adbd) -> str:
    """A folder of the device on a file system of 1 MiB."""
    return adbd.small_disk()


@dataclass
class RealServer:
    """Google's adb server on a port of its own, with a home of its own."""

    folder: Path
    address: ServerAddress
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("adb")
        if program is None:
            pytest.fail("these tests need Google's adb; install the package adb")
        environment = os.environ | {"HOME": str(self.folder), "ADB_MDNS": "0"}
        argv = [program, "-P", str(self.address.port), "nodaemon", "server"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        while server_version(self.address) is None:
            assert self.process.poll() is None, (self.folder / "log").read_text()

    def stop(self) -> None:
        """End it and every connection through it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """One adb server for all tests."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = RealServer(tmp_path_factory.mktemp("adb_server"), ServerAddress(port=port))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def adb_direct_transport(adbd: Adbd, adb_small_disk: str) -> Peer:
    """A phone's daemon, spoken to directly."""
    return Peer(adbd.direct, adbd.fresh_folder(), adb_small_disk, adbd.break_connections)


@pytest.fixture
def adb_server_transport(adbd: Adbd, adb_small_disk: str, adb_server: RealServer) -> Peer:
    """A phone's daemon by way of the adb server."""
    return Peer(_through(adbd, adb_server), adbd.fresh_folder(), adb_small_disk, adbd.break_connections)


def _through(adbd: Adbd, server: RealServer) -> Callable[[], AdbTransport]:
    return lambda: adbd.through(server.address)
