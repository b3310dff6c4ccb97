"""Workers without Ray: one rates in this process, settings are checked, and what is missing is said at once."""

from __future__ import annotations

import builtins
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rooms import FormulaRoom, MisledRoom, SlowRoom, accuracy_of, no_room
from synthetic import random_archs, tiny_space

from edgekd.errors import DataError, InfeasibleTarget, MissingExtra
from edgekd.search.rated import Hopeless
from edgekd.search.workers import WorkerSettings
from edgekd.search.workers.cluster import reason_of
from edgekd.search.workers.errors import BadWorkers, NoCluster
from edgekd.search.workers.opening import workers_in
from edgekd.search.workers.room import Rater, Refusal

ARCHS = random_archs(tiny_space(), 5, 3)


@pytest.mark.whole  # candidates that take their time
def test_one_worker_rates_in_this_process_in_order_and_lazily(tmp_path: Path) -> None:
    """A candidate is rated only when its rating is wanted, so that a study's journal has each before the next."""
    diary = tmp_path / "diary"
    with workers_in(lambda: SlowRoom(diary), WorkerSettings()) as workers:
        ratings = workers.evaluate(ARCHS)
        assert next(ratings).accuracy == accuracy_of(ARCHS[0])
        assert diary.read_text().count("began") == 1
        assert [rated.accuracy for rated in ratings] == [accuracy_of(arch) for arch in ARCHS[1:]]


def test_what_is_hopeless_is_passed_on() -> None:
    """The room ends a candidate early, not the worker."""
    floor = sorted(map(accuracy_of, ARCHS))[2]
    with workers_in(FormulaRoom, WorkerSettings()) as workers:
        epochs = [rated.epochs for rated in workers.evaluate(ARCHS, Hopeless(3, floor))]
    assert epochs == [3 if accuracy_of(arch) < floor else 9 for arch in ARCHS]


def test_a_room_that_cannot_be_opened_says_why_when_it_is_entered() -> None:
    """Nothing has been rated by then."""
    with pytest.raises(DataError, match=r"data y\.npz"), workers_in(no_room, WorkerSettings()):
        pytest.fail("the room is open")


def test_outside_its_block_a_worker_does_not_rate() -> None:
    """The images are let go at the end of the block."""
    workers = workers_in(FormulaRoom, WorkerSettings())
    with workers:
        pass
    with pytest.raises(RuntimeError, match="outside"):
        list(workers.evaluate(ARCHS))


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"workers": 10_001},
        {"cpus_per_worker": -1.0},
        {"cpus_per_worker": float("nan")},
        {"gpus_per_worker": float("inf")},
        {"gpus_per_worker": 1.5},
        {"wait_s": -1.0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    """The message names the setting and its value."""
    name, value = next(iter(wrong.items()))
    with pytest.raises(BadWorkers, match=f"{name} is {value!r}"):
        WorkerSettings(**wrong)


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one worker needs it; the message says what to install."""
    real = builtins.__import__

    def without_ray(name: str, *rest: Any) -> Any:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(MissingExtra, match=r"edgekd\[ray\]"), workers_in(FormulaRoom, WorkerSettings(2)):
        pytest.fail("it has started")


@pytest.mark.whole  # starts another Python
def test_settings_and_inline_workers_load_neither_torch_nor_ray() -> None:
    """A command that only reads them starts at once."""
    code = "import sys, edgekd.search.workers; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port at which nobody listens, kept from others."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.mark.parametrize(
    "address", ["somewhere", "host:", ":6379", "host:0", "host:99999", "http://host:80", "ray://h:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """Before anything is asked."""
    with pytest.raises(NoCluster, match="neither HOST:PORT"), workers_in(FormulaRoom, WorkerSettings(2, address)):
        pytest.fail("it has joined")


def test_where_nobody_listens_is_no_cluster(closed_port: int) -> None:
    """The message says how a cluster is started."""
    settings = WorkerSettings(1, f"127.0.0.1:{closed_port}")
    with pytest.raises(NoCluster, match=r"refused.*ray start --head"), workers_in(FormulaRoom, settings):
        pytest.fail("it has joined")


@pytest.mark.whole  # waits a second
def test_a_listener_that_is_not_ray_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing."""
    monkeypatch.setattr("edgekd.search.workers.cluster._ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = WorkerSettings(1, f"127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(NoCluster, match="does not answer as Ray"), workers_in(FormulaRoom, settings):
            pytest.fail("it has joined")


def test_errors_travel_as_text_with_their_exit_codes() -> None:
    """Also those that a pickle cannot bring back."""
    error = InfeasibleTarget(1.0, "int8", "tiny:…", 2.0)
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, and that it cannot be read is the point
    refusal = pickle.loads(pickle.dumps(Refusal.of(error)))  # noqa: S301 - our own
    assert str(refusal.as_error()) == str(error)
    assert refusal.as_error().exit_code == 1


def test_a_rater_answers_with_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request cannot have is no crash of the worker; relative paths are meant from the study's folder."""
    monkeypatch.chdir(tmp_path.parent)
    rater = Rater(MisledRoom, str(tmp_path))
    assert rater.open() is None
    assert Path.cwd() == tmp_path
    assert rater.rate(ARCHS[0], None) == Refusal("data x.npz: no such file; give another", 2)
    assert Rater(no_room, "/no/such/folder").open() == Refusal("data y.npz: no such file; give another", 2)


def test_an_open_room_is_not_opened_again() -> None:
    """To open is also the sign of life that a worker is asked for."""
    rooms = iter([FormulaRoom()])
    rater = Rater(lambda: next(rooms), ".")
    assert rater.open() is rater.open() is None


def test_a_rater_without_a_room_is_a_defect() -> None:
    """It is said as one."""
    with pytest.raises(RuntimeError, match="report this"):
        Rater(FormulaRoom, ".").rate(ARCHS[0], None)


def test_reasons_are_one_line() -> None:
    """Of a trace its last line, of the rest all but the ids, and never colours."""
    assert reason_of(RuntimeError("\x1b[36mTraceback\x1b[0m\n  File x\nKeyError: 'a'")) == "KeyError: 'a'"
    assert (
        reason_of(RuntimeError("The actor died.\n\tactor_id: 12\nIt was killed.")) == "The actor died. It was killed."
    )


@given(st.text())
def test_no_reason_breaks_a_line_or_is_long(text: str) -> None:
    """Whatever Ray says goes into one line of a journal."""
    reason = reason_of(RuntimeError(text))
    assert len(reason.splitlines()) <= 1
    assert len(reason) <= 301
