"""SSH as its users have it: known hosts, keys, agents, configuration, hosts on the way, links that fall silent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transports import Sshd, find_program, run_sshd, ssh_tool, start_sshd, stop_sshd, write_key  # noqa: F401 # run_sshd is a fixture

from device_agents import ssh_files
from device_agents.addresses import Address
from device_agents.errors import (
    DeviceNotReady,
    DeviceOffline,
    HostKeyRefused,
    LinkLost,
    NotAuthorised,
    ProtocolError,
    TransportError,
    TransportTimeout,
)
from device_agents.ssh import SshTransport
from device_agents.ssh_link import SshOptions

pytestmark = pytest.mark.slow  # real processes, one after the other


def talk(address: Address, options: SshOptions) -> None:
    """Connect, run one command and close."""
    with contextlib.closing(SshTransport(address, options)) as transport:
        assert transport.run(["echo", "fine"], 20).stdout == b"fine\n"


@pytest.fixture
def options(sshd: Sshd, tmp_path: Path) -> SshOptions:
    """What lets one in."""
    return sshd.options(tmp_path)


@pytest.fixture
def known_hosts(options: SshOptions) -> Path:
    """The known host keys of one test."""
    assert options.known_hosts is not None
    return options.known_hosts


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[str], Sshd]]:
    """Start servers with settings of their own."""
    started: list[Sshd] = []

    def start(settings: str) -> Sshd:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(start_sshd(folder, settings))
        return started[-1]

    yield start
    for one in started:
        stop_sshd(one)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of this test, with a place for SSH in it."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


def fingerprint(server: Sshd) -> str:
    """Return what OpenSSH calls the server's key."""
    return ssh_tool("ssh-keygen", "-l", "-f", str(server.folder / "host_key.pub")).split()[1]


# Host keys


def test_an_unknown_key_is_refused_with_a_way_out(sshd: Sshd, options: SshOptions, known_hosts: Path) -> None:
    """The message tells the host, the fingerprint to compare and what to do; nothing is remembered."""
    known_hosts.unlink()
    with pytest.raises(HostKeyRefused, match="is unknown") as refused:
        talk(sshd.address, options)
    assert sshd.known_as in str(refused.value)
    assert fingerprint(sshd) in str(refused.value)
    assert "once with ssh" in str(refused.value)
    assert not known_hosts.exists()


def test_an_accepted_new_key_is_remembered_as_openssh_does(sshd: Sshd, options: SshOptions, tmp_path: Path) -> None:
    """The file is made for its owner alone, OpenSSH finds the host in it, and from then on it is known."""
    file = tmp_path / "new" / "known_hosts"
    talk(sshd.address, replace(options, known_hosts=file, accept_new_host_key=True))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "found: line 1" in ssh_tool("ssh-keygen", "-F", sshd.known_as, "-f", str(file))
    talk(sshd.address, replace(options, known_hosts=file))


def test_a_line_is_added_to_a_file_that_lacks_its_last_newline(
    sshd: Sshd, options: SshOptions, known_hosts: Path
) -> None:
    """What was there stays readable."""
    before = f"elsewhere {(sshd.folder / 'client_key.pub').read_text().strip()}"
    known_hosts.write_text(before)
    talk(sshd.address, replace(options, accept_new_host_key=True))
    assert [line.split()[0] for line in known_hosts.read_text().splitlines()] == ["elsewhere", sshd.known_as]
    assert known_hosts.read_text().startswith(before + "\n")


def test_a_person_is_asked_once_with_host_and_fingerprint(sshd: Sshd, options: SshOptions, known_hosts: Path) -> None:
    """The question is one line with what must be compared; a yes is remembered."""
    known_hosts.unlink()
    questions: list[str] = []

    def ask(question: str) -> bool:
        questions.append(question)
        return True

    asking = replace(options, ask=ask)
    talk(sshd.address, asking)
    talk(sshd.address, asking)
    [question] = questions
    assert sshd.known_as in question
    assert fingerprint(sshd) in question
    assert str(known_hosts) in question
    assert "\n" not in question


def test_a_person_who_says_no_is_obeyed(sshd: Sshd, options: SshOptions, known_hosts: Path) -> None:
    """Nothing is connected to, nothing is remembered."""
    known_hosts.unlink()
    with pytest.raises(HostKeyRefused, match="not accepted"):
        talk(sshd.address, replace(options, ask=lambda question: False))
    assert not known_hosts.exists()


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
@pytest.mark.parametrize("hashed", [False, True])
def test_a_changed_key_is_never_accepted(
    sshd: Sshd, options: SshOptions, known_hosts: Path, tmp_path: Path, kind: str, hashed: bool
) -> None:
    """Neither flag nor person can accept it; the message says that it changed, and where the old one is written."""
    write_key(tmp_path / "old", kind)
    known_hosts.write_text(f"# a comment\n\n{sshd.known_as} {(tmp_path / 'old.pub').read_text()}")
    if hashed:
        ssh_tool("ssh-keygen", "-H", "-f", str(known_hosts))
    before = known_hosts.read_text()
    asked: list[str] = []
    with pytest.raises(HostKeyRefused, match="has changed") as refused:
        talk(sshd.address, replace(options, accept_new_host_key=True, ask=lambda question: not asked.append(question)))
    assert f"{known_hosts} line 3" in str(refused.value)
    assert asked == []
    assert known_hosts.read_text() == before


def test_the_key_of_another_port_is_trusted_but_not_demanded(
    sshd: Sshd, options: SshOptions, known_hosts: Path, tmp_path: Path
) -> None:
    """As with OpenSSH: the same key on a second port is fine, another one is new there, not changed."""
    known_hosts.write_text(sshd.host_line.replace(sshd.known_as, "127.0.0.1"))
    talk(sshd.address, options)
    write_key(tmp_path / "other")
    known_hosts.write_text(f"127.0.0.1 {(tmp_path / 'other.pub').read_text()}")
    with pytest.raises(HostKeyRefused, match="is unknown"):
        talk(sshd.address, options)


def test_lines_that_nobody_can_read_are_passed_over(sshd: Sshd, options: SshOptions, known_hosts: Path) -> None:
    """One damaged line does not lock out every device."""
    known_hosts.write_text(f"damaged\n|1|x|y ssh-ed25519 z\n@odd {sshd.host_line}\xff\n{sshd.host_line}")
    talk(sshd.address, options)


def test_a_revoked_key_is_refused(sshd: Sshd, options: SshOptions, known_hosts: Path) -> None:
    """It is not offered for acceptance either."""
    known_hosts.write_text(f"@revoked {sshd.host_line}")
    with pytest.raises(HostKeyRefused, match="revoked"):
        talk(sshd.address, replace(options, accept_new_host_key=True))


def test_a_server_is_asked_for_the_key_that_is_known(server: Callable[[str], Sshd], tmp_path: Path) -> None:
    """Of a server with several keys the one in known_hosts decides, though it would rather show another."""
    write_key(tmp_path / "second", "ecdsa-sha2-nistp256")
    both = server(f"HostKey {tmp_path}/second")
    options = both.options(tmp_path)
    (tmp_path / "known_hosts").write_text(f"{both.known_as} {(tmp_path / 'second.pub').read_text()}")
    talk(both.address, options)


def test_a_certificate_of_a_known_authority_is_trusted(server: Callable[[str], Sshd], tmp_path: Path) -> None:
    """Whose hosts are certified needs no line for each of them."""
    write_key(tmp_path / "authority")
    write_key(tmp_path / "host")
    signing = ["-s", str(tmp_path / "authority"), "-I", "board", "-h", "-n", "127.0.0.1"]
    ssh_tool("ssh-keygen", *signing, str(tmp_path / "host.pub"))
    certified = server(f"HostKey {tmp_path}/host\nHostCertificate {tmp_path}/host-cert.pub")
    options = certified.options(tmp_path)
    (tmp_path / "known_hosts").write_text(f"@cert-authority * {(tmp_path / 'authority.pub').read_text()}")
    talk(certified.address, options)


# Keys, agents, configuration


def test_an_alias_of_the_users_configuration_is_a_host(sshd: Sshd, home: Path) -> None:
    """Name, port, user, key and known hosts all come from ~/.ssh/config; a key that is missing is passed over."""
    (home / ".ssh" / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.address.user}\n"
        f" IdentityFile ~/.ssh/missing\n IdentityFile {sshd.folder}/client_key\n"
        f" UserKnownHostsFile {home}/.ssh/boards\n"
    )
    (home / ".ssh" / "boards").write_text(sshd.host_line)
    talk(Address.parse("ssh://board"), SshOptions())


def test_keys_and_known_hosts_lie_where_ssh_has_them(sshd: Sshd, home: Path) -> None:
    """Without any configuration a user's own key opens a host that is known."""
    (home / ".ssh" / "id_ed25519").write_text((sshd.folder / "client_key").read_text())
    (home / ".ssh" / "known_hosts").write_text(sshd.host_line)
    talk(sshd.address, SshOptions())


def test_keys_of_an_agent_are_used(
    sshd: Sshd, options: SshOptions, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a passphrase is in the agent, and needs no file here."""
    with ssh_agent(home / "agent") as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        ssh_tool("ssh-add", str(sshd.folder / "client_key"))
        talk(sshd.address, replace(options, key=None))


@contextlib.contextmanager
def ssh_agent(path: Path) -> Iterator[str]:
    """Run an agent without keys."""
    program = find_program("ssh-agent", "openssh-client")
    process = subprocess.Popen([program, "-D", "-a", str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it says where it listens once it does
    yield str(path)
    process.kill()
    process.communicate()


def test_a_key_that_the_host_does_not_know_is_not_authorised(sshd: Sshd, options: SshOptions, tmp_path: Path) -> None:
    """The message says who was refused and what to do."""
    write_key(tmp_path / "stranger")
    with pytest.raises(NotAuthorised, match="ssh-copy-id") as refused:
        talk(sshd.address, replace(options, key=tmp_path / "stranger"))
    assert f"{sshd.address.user}@{sshd.known_as}" in str(refused.value)


def test_a_key_that_cannot_be_read_is_named(sshd: Sshd, options: SshOptions, tmp_path: Path) -> None:
    """Missing, not a key, or locked by a passphrase."""
    locked = tmp_path / "locked"
    ssh_tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", str(locked))
    (tmp_path / "text").write_text("not a key")
    for name, advice in (("missing", "No such file"), ("text", "cannot use"), ("locked", "ssh-agent")):
        with pytest.raises(NotAuthorised, match=rf"{name}.*{advice}|{advice}.*{name}"):
            talk(sshd.address, replace(options, key=tmp_path / name))


def test_a_configuration_that_cannot_be_read_is_named(sshd: Sshd, options: SshOptions, tmp_path: Path) -> None:
    """Its file and line, as far as they are known."""
    (tmp_path / "ssh_config").write_text("Host *\n Port many\n")
    with pytest.raises(DeviceNotReady, match="ssh_config line 2"):
        talk(replace(sshd.address, port=0), options)
    with pytest.raises(DeviceNotReady, match="No such file"):
        talk(sshd.address, replace(options, config=tmp_path / "missing"))


def test_a_host_behind_another_is_reached_and_both_keys_are_judged(
    sshd: Sshd, server: Callable[[str], Sshd], options: SshOptions, tmp_path: Path
) -> None:
    """ProxyJump is followed, for its own host not again; the key of the host on the way is asked for as well."""
    behind = server("")
    with (behind.folder / "authorized_keys").open("a") as keys:
        keys.write((sshd.folder / "client_key.pub").read_text())
    (tmp_path / "ssh_config").write_text(
        f"Host jump\n HostName 127.0.0.1\n Port {sshd.port}\nHost behind\n HostName 127.0.0.1\n Port {behind.port}\n"
        "Host *\n ProxyJump jump\n"
    )
    file = tmp_path / "new_hosts"
    questions: list[str] = []
    asking = replace(options, known_hosts=file, ask=lambda question: questions.append(question) is None)
    with contextlib.closing(SshTransport(Address.parse("ssh://behind"), asking)) as transport:
        assert transport.run(["sh", "-c", "echo $SSH_CONNECTION"], 20).stdout.split()[3] == b"%d" % behind.port
    assert [sshd.known_as in questions[0], behind.known_as in questions[1], len(questions)] == [True, True, 2]


RELAY = """
import os, socket, sys, threading
wire = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def send():
    while data := os.read(0, 65536): wire.sendall(data)
threading.Thread(target=send, daemon=True).start()
while data := wire.recv(65536): os.write(1, data)
"""


def test_a_proxy_command_is_the_wire(
    sshd: Sshd, options: SshOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever program reaches a host can be used, and its end makes no noise."""
    (tmp_path / "relay.py").write_text(RELAY)
    command = f"ProxyCommand {sys.executable} {tmp_path}/relay.py {sshd.port}"
    (tmp_path / "ssh_config").write_text(f"Host board\n {command}\n HostKeyAlias {sshd.known_as}\n")
    talk(Address("ssh", sshd.address.user, "board"), options)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_jumps_in_a_circle_are_an_error(options: SshOptions, tmp_path: Path) -> None:
    """Two hosts that are each behind the other are never reached."""
    (tmp_path / "ssh_config").write_text("Host one\n ProxyJump two\nHost two\n ProxyJump one\n")
    with pytest.raises(DeviceNotReady, match="circle"):
        talk(Address.parse("ssh://one"), options)


# Hosts that do not answer


def test_a_closed_port_is_offline(options: SshOptions) -> None:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DeviceOffline, match=rf"{port}.*refused"):
        talk(Address("ssh", "", "127.0.0.1", port), options)


def test_a_name_that_nobody_has_is_offline(options: SshOptions) -> None:
    """The message has the name in it."""
    with pytest.raises(DeviceOffline, match=r"board\.invalid"):
        talk(Address.parse("ssh://board.invalid"), options)


def test_a_host_that_says_nothing_is_offline(options: SshOptions) -> None:
    """Whoever takes the connection and then is silent is waited for as long as the options say."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DeviceOffline, match=r"did not answer within 0\.2 s"),
    ):
        talk(Address("ssh", "", *silent.getsockname()), replace(options, timeout_s=0.2))


def test_what_is_no_ssh_server_is_said(options: SshOptions) -> None:
    """Another service on that port is not taken for a device."""
    with socket.create_server(("127.0.0.1", 0)) as web:
        threading.Thread(target=_answer_as_web, args=(web,), daemon=True).start()
        with pytest.raises(DeviceNotReady, match=str(web.getsockname()[1])):
            talk(Address("ssh", "", *web.getsockname()), options)


def _answer_as_web(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)


# Links


def test_a_link_that_falls_silent_is_lost(sshd: Sshd, options: SshOptions) -> None:
    """A board whose cable was pulled says no goodbye: that it answers nothing any more is noticed."""
    impatient = replace(options, keepalive_s=0.1, keepalive_count=2)
    with contextlib.closing(SshTransport(sshd.address, impatient)) as transport:
        process = transport.stream(["sleep", "1000"])
        with sshd.silent(), pytest.raises(LinkLost):
            process.read_line(20)


def test_a_copy_over_a_link_that_falls_silent_is_lost(sshd: Sshd, options: SshOptions, tmp_path: Path) -> None:
    """A copy that moves has no time limit: it goes on as long as the link does, and no longer."""
    (tmp_path / "file").write_bytes(b"content")
    impatient = replace(options, keepalive_s=0.1, keepalive_count=2)
    with contextlib.closing(SshTransport(sshd.address, impatient)) as transport:
        transport.push(tmp_path / "file", str(tmp_path / "first"))
        with sshd.silent(), pytest.raises(LinkLost):
            transport.push(tmp_path / "file", str(tmp_path / "second"))
        transport.push(tmp_path / "file", str(tmp_path / "third"))
    assert not (tmp_path / "second").exists()
    assert (tmp_path / "third").exists()


def test_a_silent_device_is_not_a_lost_link(sshd: Sshd, options: SshOptions) -> None:
    """A model may run for longer than a keepalive: whoever measures says nothing meanwhile."""
    impatient = replace(options, keepalive_s=0.1, keepalive_count=1)
    with contextlib.closing(SshTransport(sshd.address, impatient)) as transport:
        assert transport.run(["sleep", "0.5"], 20).exit_code == 0


def test_more_processes_than_the_server_allows_are_an_error_and_no_end(
    server: Callable[[str], Sshd], tmp_path: Path
) -> None:
    """The message asks the right question, the link goes on, and what runs can still be ended."""
    small = server("MaxSessions 2")
    with contextlib.closing(SshTransport(small.address, small.options(tmp_path))) as transport:
        running = [transport.stream(["cat"]) for _ in range(2)]
        with pytest.raises(TransportError, match="too many"):
            transport.stream(["cat"])
        running[0].write_line(b"here", 20)
        assert running[0].read_line(20) == b"here"
        running[1].kill()
        assert running[1].wait(20) in {0, -signal.SIGKILL}  # by the end of its input, or where allowed by the server


def test_a_server_without_files_is_said(server: Callable[[str], Sshd], tmp_path: Path) -> None:
    """Small boards lack the SFTP server: what to install is in the message, and commands still run."""
    bare = server("Subsystem sftp /no/such/sftp-server")
    with contextlib.closing(SshTransport(bare.address, bare.options(tmp_path))) as transport:
        with pytest.raises(TransportError, match="install openssh-sftp-server"):
            transport.pull("/etc/hostname", tmp_path / "back")
        assert transport.run(["true"], 20).exit_code == 0


def test_a_server_of_files_that_hangs_is_a_timeout(
    server: Callable[[str], Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link stands and commands run, so that nothing else would end the wait."""
    monkeypatch.setattr(ssh_files, "_START_S", 0.3)
    stuck = server("Subsystem sftp /bin/sleep 1000")
    with contextlib.closing(SshTransport(stuck.address, stuck.options(tmp_path))) as transport:
        with pytest.raises(TransportTimeout, match="did not start"):
            transport.push(Path(__file__), str(tmp_path / "there"))
        assert transport.run(["true"], 20).exit_code == 0


def test_a_disk_that_takes_nothing_more_is_a_timeout(
    sshd: Sshd, options: SshOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy into a pipe that nobody reads moves no block, as one onto a card that is stuck."""
    monkeypatch.setattr(ssh_files, "_STALL_S", 0.3)
    monkeypatch.setattr(ssh_files, "_REMOVE_S", 0.3)
    monkeypatch.setattr(ssh_files, "part_name", lambda name: name)
    os.mkfifo(tmp_path / "there")
    with contextlib.closing(SshTransport(sshd.address, options)) as transport:
        with pytest.raises(TransportTimeout, match="took nothing"):
            transport.push(Path(__file__), str(tmp_path / "there"))
        assert transport.run(["true"], 20).exit_code == 0


def test_output_without_end_is_a_protocol_error(sshd: Sshd, options: SshOptions) -> None:
    """A command that should say a few lines and never stops is ended."""
    with (
        contextlib.closing(SshTransport(sshd.address, options)) as transport,
        pytest.raises(ProtocolError, match="wrote more than"),
    ):
        transport.run(["cat", "/dev/zero"], 60)


def test_a_closed_transport_says_so_and_leaves_no_thread(sshd: Sshd, options: SshOptions) -> None:
    """Hundreds of sessions in one process cost nothing that stays."""
    before = set(threading.enumerate())
    transport = SshTransport(sshd.address, options)
    transport.connect()
    transport.close()
    with pytest.raises(TransportError, match="closed"):
        transport.run(["true"], 20)
    for thread in set(threading.enumerate()) - before:
        thread.join(20)  # one that waited for a name to be found ends on its own
        assert not thread.is_alive()


def test_a_missing_package_is_named() -> None:
    """Who has no board needs no SSH library; who has one is told what to install."""
    script = (
        "import sys; sys.modules['asyncssh'] = None\n"
        "from device_agents.addresses import Address; from device_agents.connect import open_transport\n"
        "open_transport(Address.parse('ssh://board'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert re.search(r"DeviceNotReady: .*pip install 'edgekd\[devices\]'", done.stderr), done.stderr
