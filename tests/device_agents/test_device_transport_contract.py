"""What every transport promises, held against real devices: this machine, and it again by way of each wire's daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_peers import adb_direct_transport, adb_server, adb_server_transport, adb_small_disk, adbd  # noqa: F401 # as below
from transports import Peer, Witness, local, mount_small_disk, run_sshd, ssh_transport  # noqa: F401 # fixtures are found by name

from device_agents.errors import LinkLost, ProtocolError, TransportError, TransportTimeout
from device_agents.transport import MAX_LINE_BYTES, Completed, Transport, killing_signal

pytestmark = pytest.mark.slow  # real processes, one after the other

ECHO = ["sh", "-c", 'while IFS= read -r line; do printf "<%s>\\n" "$line"; done']
SLEEP = ["sleep", "1000"]
FAMILY = "sleep 1000 & sleep 1000 & wait"  # processes that end only by being ended
HOSTILE = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "$(id)",
    "`id`",
    "; id",
    "*",
    "~",
    "\\n",
    "a\nb",
    "-n",
    "%s",
    "é ✓ 語",
    "$HOME",
    "!x",
]


ADB = [pytest.param(name, marks=pytest.mark.devices) for name in ("adb_server_transport", "adb_direct_transport")]
LINKED = ["ssh_transport", *ADB]  # fixtures of devices behind a link that can break


@pytest.fixture(params=["local", *LINKED])
def peer(request: pytest.FixtureRequest) -> Peer:
    """Each kind of device in turn."""
    found: Peer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def transport(peer: Peer) -> Iterator[Transport]:
    """The way under test."""
    with contextlib.closing(peer.open()) as transport:
        yield transport


@pytest.fixture
def witness(peer: Peer) -> Iterator[Witness]:
    """Tells when what a test started has ended, over a way of its own."""
    with contextlib.closing(peer.open()) as transport:
        yield Witness(peer, transport)


def output(done: Completed) -> list[str]:
    """Return what a command that should succeed wrote, in lines."""
    assert done.exit_code == 0, done
    return done.stdout.decode().splitlines()


# Commands that run to their end


def test_a_command_returns_code_and_both_outputs(transport: Transport) -> None:
    """Exit code, stdout and stderr come apart, and nothing of what carried them shows."""
    done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 7"], 20)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_command_has_no_input(transport: Transport) -> None:
    """A command that reads finds the end at once and does not wait for us."""
    assert transport.run(["cat"], 20) == Completed(0, b"", b"")


def test_output_without_a_newline_is_whole(transport: Transport) -> None:
    """Bytes come back as they were, whatever they are."""
    assert transport.run(["printf", "\\000\\377x"], 20).stdout == b"\0\xffx"


def test_arguments_are_never_seen_by_a_shell(transport: Transport) -> None:
    """What would be a command, a pattern or nothing to a shell is only text."""
    done = transport.run(["sh", "-c", 'printf "%s\\0" "$@"', "sh", *HOSTILE], 20)
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE


def test_a_missing_program_is_a_transport_error(transport: Transport) -> None:
    """The message names the program, and an exit code of 127 is left to those who mean it."""
    with pytest.raises(TransportError, match="/no/such/program"):
        transport.run(["/no/such/program"], 20)
    assert transport.run(["sh", "-c", "exit 127"], 20).exit_code == 127


def test_a_missing_program_cannot_be_spoken_to(transport: Transport) -> None:
    """It is said when it is started, or with its first line."""
    with pytest.raises(TransportError, match="/no/such/program"):
        transport.stream(["/no/such/program"]).read_line(20)


def test_a_command_past_its_time_ends_with_all_that_it_started(transport: Transport, witness: Witness) -> None:
    """Past its time limit the whole group is ended on the device."""
    with pytest.raises(TransportTimeout, match=r"\b2 s"):
        transport.run(witness.seen(FAMILY), 2)
    assert witness.started()
    assert witness.ended()


def test_a_command_that_a_signal_ended_says_which(transport: Transport) -> None:
    """Whatever number stands for it, killing_signal understands it."""
    assert killing_signal(transport.run(["sh", "-c", "kill -11 $$"], 20).exit_code) == "SIGSEGV"


def test_a_keyboard_interrupt_ends_the_command_and_nothing_else(transport: Transport, witness: Witness) -> None:
    """After a Ctrl-C the command is gone, and the transport can be used and closed."""
    interrupted = threading.Thread(target=lambda: witness.started() and os.kill(os.getpid(), signal.SIGINT))
    interrupted.start()
    with pytest.raises(KeyboardInterrupt):
        transport.run(witness.seen(FAMILY), 60)
    interrupted.join()
    assert witness.ended()
    assert output(transport.run(["echo", "fine"], 20)) == ["fine"]


# Processes that are spoken to in lines


def test_lines_go_both_ways(transport: Transport) -> None:
    """A process answers line by line, and the end of its input is the end of its output."""
    process = transport.stream(ECHO)
    for word in (b"one", b"", "zwölf".encode()):
        process.write_line(word, 20)
        assert process.read_line(20) == b"<" + word + b">"
    process.close_stdin()
    assert process.read_line(20) is None
    assert process.wait(20) == 0


def test_lines_keep_their_order_when_many_are_under_way(transport: Transport) -> None:
    """Writing ahead of reading loses and swaps nothing."""
    process = transport.stream(["cat"])
    lines = [b"%d" % number for number in range(2000)]
    for line in lines:
        process.write_line(line, 20)
    process.close_stdin()
    assert [process.read_line(20) for _ in lines] == lines
    assert process.read_line(20) is None


def test_two_processes_are_spoken_to_at_once(transport: Transport) -> None:
    """Lines of one never reach the other."""
    one, two = transport.stream(["cat"]), transport.stream(["cat"])
    one.write_line(b"one", 20)
    two.write_line(b"two", 20)
    assert (two.read_line(20), one.read_line(20)) == (b"two", b"one")


def test_the_exit_code_of_a_process_is_known(transport: Transport) -> None:
    """It comes with the end, and asking again gives it again."""
    process = transport.stream(["sh", "-c", "exit 5"])
    assert process.read_line(20) is None
    assert (process.wait(20), process.wait(20)) == (5, 5)


def test_a_process_that_a_signal_ended_says_which(transport: Transport) -> None:
    """A runner that the kernel ended for want of memory is told from one that failed."""
    process = transport.stream(["sh", "-c", "kill -9 $$"])
    assert process.read_line(20) is None
    assert killing_signal(process.wait(20)) == "SIGKILL"


def test_more_than_a_pipe_holds_is_written_while_stderr_is_emptied(transport: Transport) -> None:
    """A process that fills stderr before it reads its input does not block us for ever."""
    script = "head -c 300000 /dev/zero | tr '\\0' e >&2; echo end >&2; wc -c"
    process = transport.stream(["sh", "-c", script])
    process.write_line(b"x" * 500_000, 20)
    process.close_stdin()
    assert int(process.read_line(20) or b"") == 500_001
    assert process.wait(20) == 0
    assert process.stderr_tail().endswith("end\n")
    assert len(process.stderr_tail()) < 10_000


def test_the_longest_line_is_read(transport: Transport) -> None:
    """The limit itself is allowed, twice in a row too."""
    script = f"for i in 1 2; do head -c {MAX_LINE_BYTES} /dev/zero | tr '\\0' x; echo; done"
    process = transport.stream(["sh", "-c", script])
    assert [len(process.read_line(20) or b"") for _ in range(2)] == [MAX_LINE_BYTES] * 2
    assert process.read_line(20) is None


@pytest.mark.parametrize(
    "script", [f"head -c {MAX_LINE_BYTES + 1} /dev/zero | tr '\\0' x; echo", "tr '\\0' x </dev/zero"]
)
def test_a_line_above_the_limit_is_refused(transport: Transport, script: str) -> None:
    """A line that is too long, or that never ends, is a protocol error, not memory."""
    process = transport.stream(["sh", "-c", script])
    with pytest.raises(ProtocolError, match=str(MAX_LINE_BYTES)):
        process.read_line(20)
    process.kill()


def test_a_device_that_writes_for_ever_has_to_wait(transport: Transport, witness: Witness) -> None:
    """What nobody reads stays on the device: it is never gathered here."""
    megabytes = 32  # far above what wires and pipes hold, and moved well within a second by whoever does not wait
    script = f"head -c {megabytes << 20} /dev/zero | tr '\\0' '\\n'; echo written >&9; cat"
    process = transport.stream(witness.seen(script))
    assert witness.started()
    with pytest.raises(TransportTimeout):
        witness.says(1)
    for _ in range(1000):
        assert process.read_line(20) == b""
    process.kill()
    assert witness.ended()


def test_a_process_that_does_not_read_is_a_timeout(transport: Transport) -> None:
    """Writing has an end in time and in memory, however much the wire itself takes first."""
    process = transport.stream(SLEEP)
    with pytest.raises(TransportTimeout, match="did not read"):  # noqa: PT012 # which of the writes it is does not matter
        for _ in range(16):
            process.write_line(b"x" * MAX_LINE_BYTES, 0.5)
    process.kill()


def test_a_silent_process_is_a_timeout(transport: Transport) -> None:
    """Waiting for a line has an end, and so has waiting for the process."""
    process = transport.stream(SLEEP)
    with pytest.raises(TransportTimeout):
        process.read_line(0.05)
    with pytest.raises(TransportTimeout):
        process.wait(0.05)
    process.kill()


def test_a_process_that_complains_without_end_is_a_timeout(transport: Transport) -> None:
    """What it writes to stderr is no line, and no reason to wait longer for one."""
    process = transport.stream(["sh", "-c", "while echo complaint >&2; do :; done"])
    with pytest.raises(TransportTimeout, match="no line"):
        process.read_line(0.2)
    assert "complaint" in process.stderr_tail()
    process.kill()


def test_writing_to_a_process_that_has_ended_is_a_transport_error(transport: Transport) -> None:
    """Nobody lives there: that is said, not ignored."""
    process = transport.stream(["true"])
    assert process.read_line(20) is None
    assert process.wait(20) == 0
    with pytest.raises(TransportError, match="has ended"):
        process.write_line(b"hello", 5)


def test_kill_ends_the_whole_group(transport: Transport, witness: Witness) -> None:
    """What a process started ends with it, and a second kill is harmless."""
    process = transport.stream(witness.seen(FAMILY))
    assert witness.started()
    process.kill()
    process.kill()
    assert witness.ended()


def test_killing_a_process_that_has_ended_is_harmless(transport: Transport) -> None:
    """Its exit code stays what it was."""
    process = transport.stream(["sh", "-c", "exit 3"])
    assert process.wait(20) == 3
    process.kill()
    assert process.wait(20) == 3


def test_closing_the_transport_ends_its_processes(transport: Transport, witness: Witness) -> None:
    """Nothing is left running when the way to the device is given up; closing twice is harmless."""
    transport.stream(witness.seen(FAMILY))
    assert witness.started()
    transport.close()
    transport.close()
    assert witness.ended()


# Files


def test_push_and_pull_replace_whole_files(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """A copy overwrites its target and leaves nothing beside it, here and there."""
    there, here = f"{peer.folder}/a file's name", tmp_path / "here"
    here.mkdir()
    content = os.urandom(300_000)
    for data in (b"old", content):
        (here / "source").write_bytes(data)
        transport.push(here / "source", there)
    (here / "back").write_bytes(b"old")
    transport.pull(there, here / "back")
    assert (here / "back").read_bytes() == content
    assert output(transport.run(["ls", "-A", peer.folder], 20)) == ["a file's name"]
    assert sorted(path.name for path in here.iterdir()) == ["back", "source"]


def test_an_empty_file_is_a_file(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """Nothing is copied as nothing, not left out."""
    (tmp_path / "empty").touch()
    transport.push(tmp_path / "empty", f"{peer.folder}/empty")
    transport.pull(f"{peer.folder}/empty", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_a_program_can_be_run_where_it_was_pushed(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """What can be executed here can be executed there."""
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "run with $1"\n')
    program.chmod(0o755)
    transport.push(program, f"{peer.folder}/program")
    assert output(transport.run([f"{peer.folder}/program", "care"], 20)) == ["run with care"]


def test_a_file_that_nobody_may_write_is_pushed_again_and_outlives_its_source(
    transport: Transport, peer: Peer, tmp_path: Path
) -> None:
    """Sessions push such models, whose folder here goes before the one there."""
    source, there = tmp_path / "source", f"{peer.folder}/there"
    for content in (b"old", b"new"):
        source.unlink(missing_ok=True)
        source.write_bytes(content)
        source.chmod(0o444)
        transport.push(source, there)
        transport.push(source, there)
    source.unlink()
    assert output(transport.run(["ls", "-A", peer.folder], 20)) == ["there"]
    assert transport.run(["cat", there], 20).stdout == b"new"


def test_many_files_are_pushed_at_once(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """Each of 300 files arrives with its own content, and nothing else does."""
    contents = {f"{number:03}": os.urandom(number * 10) for number in range(300)}
    (tmp_path / "many").mkdir()
    for name, content in contents.items():
        (tmp_path / "many" / name).write_bytes(content)
    transport.push_all({f"{peer.folder}/{name}": tmp_path / "many" / name for name in contents})
    assert output(transport.run(["ls", "-A", peer.folder], 20)) == sorted(contents)
    together = transport.run(["sh", "-c", 'cd "$0" && cat *', peer.folder], 20).stdout
    assert together == b"".join(contents.values())


def test_pushing_nothing_is_nothing(transport: Transport) -> None:
    """A session whose models lie there already pushes none."""
    transport.push_all({})


def test_a_failed_push_leaves_the_target_alone(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """A missing source changes nothing and says so."""
    (tmp_path / "old").write_bytes(b"old")
    transport.push(tmp_path / "old", f"{peer.folder}/target")
    with pytest.raises(TransportError, match="missing"):
        transport.push(tmp_path / "missing", f"{peer.folder}/target")
    assert output(transport.run(["cat", f"{peer.folder}/target"], 20)) == ["old"]
    assert output(transport.run(["ls", "-A", peer.folder], 20)) == ["target"]


def test_a_full_disk_is_said_and_left_as_it_was(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """No half of a file stays where there is no room for it."""
    (tmp_path / "large").write_bytes(os.urandom(4 << 20))
    with pytest.raises(TransportError, match=r"(?i)no space left"):
        transport.push(tmp_path / "large", f"{peer.small_disk}/large")
    assert output(transport.run(["ls", "-A", peer.small_disk], 20)) == []


def test_a_place_that_takes_no_files_is_a_transport_error(transport: Transport, tmp_path: Path) -> None:
    """Nothing can be made in /proc, not even by root."""
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(TransportError, match="/proc/edgekd"):
        transport.push(tmp_path / "file", "/proc/edgekd/file")


@pytest.mark.parametrize("missing", ["missing", "."])
def test_a_failed_pull_leaves_the_target_alone(transport: Transport, peer: Peer, tmp_path: Path, missing: str) -> None:
    """What is not there, or is a folder, is an error; the file that was here stays."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "back").write_bytes(b"old")
    with pytest.raises(TransportError):
        transport.pull(f"{peer.folder}/{missing}", here / "back")
    assert {path.name: path.read_bytes() for path in here.iterdir()} == {"back": b"old"}


# Links that break


def break_link(peer: Peer) -> None:
    """End every connection to the device."""
    assert peer.cut is not None
    peer.cut()


@pytest.mark.parametrize("peer", LINKED, indirect=True)
def test_a_process_on_a_broken_link_is_lost(transport: Transport, peer: Peer) -> None:
    """It is said as what it is; ending the process is harmless then."""
    process = transport.stream(["cat"])
    process.write_line(b"there?", 20)
    assert process.read_line(20) == b"there?"
    break_link(peer)
    with pytest.raises(LinkLost):
        process.read_line(20)
    with pytest.raises(LinkLost):
        process.wait(20)
    with pytest.raises(TransportError):
        process.write_line(b"there?", 20)
    process.kill()


@pytest.mark.parametrize("peer", LINKED, indirect=True)
def test_the_call_after_a_broken_link_connects_anew(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """Commands, processes and files work again, without anything being said to the transport."""
    (tmp_path / "file").write_bytes(b"content")
    process = transport.stream(SLEEP)
    transport.push(tmp_path / "file", f"{peer.folder}/before")
    break_link(peer)
    with pytest.raises(LinkLost):
        process.read_line(20)
    assert output(transport.run(["echo", "again"], 20)) == ["again"]
    transport.push(tmp_path / "file", f"{peer.folder}/after")
    again = transport.stream(["cat"])
    again.write_line(b"again", 20)
    assert again.read_line(20) == b"again"


@pytest.mark.parametrize("peer", LINKED, indirect=True)
def test_a_command_on_a_broken_link_is_lost_and_ends(transport: Transport, peer: Peer, tmp_path: Path) -> None:
    """The caller learns of it, and the device runs nothing for a caller that has gone."""
    pid_file = f"{peer.folder}/pid"
    started = threading.Thread(target=lambda: _await_file(peer, pid_file) and break_link(peer))
    started.start()
    with pytest.raises(LinkLost):
        transport.run(["sh", "-c", f'echo $$ >"$0.new"; mv "$0.new" "$0"; {FAMILY}', pid_file], 60)
    started.join()
    with contextlib.closing(peer.open()) as after:
        pid = output(after.run(["cat", pid_file], 20))[0]
        gone = 'while [ -d "/proc/$1" ] && ! grep -q "^State:.Z" "/proc/$1/status"; do sleep 0.02; done'
        assert after.run(["sh", "-c", gone, "sh", pid], 20).exit_code == 0


def _await_file(peer: Peer, path: str) -> bool:
    with contextlib.closing(peer.open()) as transport:
        return transport.run(["sh", "-c", 'until [ -e "$0" ]; do sleep 0.02; done', path], 20).exit_code == 0
