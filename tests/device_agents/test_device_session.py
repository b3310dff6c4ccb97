"""A session: rows come back once each, whatever models, runners, hosts and devices do."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from model_shelf import ModelShelf

from device_agents.device import Device
from device_agents.engines.python import PythonEngine
from device_agents.errors import (
    DeviceNotReady,
    InvalidRequest,
    RunnerFailed,
)
from device_agents.protocol import JobResult, MeasureSettings
from device_agents.session import Session, SessionLimits
from device_agents.transport import Transport
from device_agents.work_folder import WorkFolder

pytestmark = pytest.mark.slow  # real processes, one after the other


def by_id(results: Sequence[JobResult]) -> dict[str, JobResult]:
    """Return results by job, after checking that no job has two."""
    found = {result.job_id: result for result in results}
    assert len(found) == len(results)
    return found


# --- real models ------------------------------------------------------------------------------------------------------


def test_real_models_are_measured(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, add_model: Callable[[int], bytes]
) -> None:
    """A real runtime measures real operators: as many samples as asked, and more work takes longer."""
    settings = MeasureSettings(rounds=2, samples_per_round=3, min_sample_us=50, warmup_min_ms=0.2)
    jobs = [shelf.job("small", add_model(8)), shelf.job("large", add_model(200_000))]
    with Session(host, transport) as session:
        assert session.hello.runtime == "ai_edge_litert"
        assert session.hello.clock == "thread_cpu"
        rows = by_id(list(session.measure(jobs, shelf.models, settings)))
    small, large = rows["small"], rows["large"]
    assert small.ok
    assert large.ok
    assert len(small.samples_ns) == len(small.wall_samples_ns) == 6
    assert small.clock == "thread_cpu"
    assert small.warmup_runs >= settings.warmup_runs
    assert min(large.samples_ns) > 5 * min(small.samples_ns)
    assert small.loops > large.loops
    assert "denormal" not in small.flags
    assert small.sentinel_ns > 0


def test_a_garbage_model_is_a_failed_row_and_the_batch_goes_on(
    host: Device,
    transport: Transport,
    work_dir: str,
    shelf: ModelShelf,
    add_model: Callable[[int], bytes],
    quick: MeasureSettings,
) -> None:
    """A file that is no model fails alone, even as the first job, which would be the sentinel."""
    jobs = [shelf.job("garbage", b"this is no model"), shelf.job("good", add_model(8))]
    with Session(host, transport) as session:
        rows = by_id(list(session.measure(jobs, shelf.models, quick)))
    assert rows["garbage"].status == "failed"
    assert "ValueError" in rows["garbage"].error
    assert rows["good"].ok
    assert rows["good"].sentinel_ns > 0


@pytest.mark.usefixtures("fake_runtime")
def test_a_folder_that_another_session_takes_away_is_made_again(
    host: Device, transport: Transport, work_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine a session leaves nothing behind: one that ends while another begins takes the folder along."""
    plain, ends = WorkFolder.put, [True]

    def put(folder: WorkFolder, *arguments: Any) -> None:
        if ends and ends.pop():
            shutil.rmtree(folder.path)
        plain(folder, *arguments)

    monkeypatch.setattr(WorkFolder, "put", put)
    with Session(host, transport) as session:
        assert session.hello.engine == "python"
    assert not ends


def test_several_threads_are_read_on_the_wall(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, add_model: Callable[[int], bytes]
) -> None:
    """With two threads the thread clock would miss half of the work, so samples are the wall's."""
    settings = MeasureSettings(threads=2, rounds=1, samples_per_round=2, min_sample_us=10)
    with Session(host, transport) as session:
        (row,) = session.measure([shelf.job("add", add_model(64))], shelf.models, settings)
    assert row.clock == "wall"
    assert row.samples_ns == row.wall_samples_ns


@pytest.mark.usefixtures("fake_runtime")
def test_a_mask_pins_one_batch_and_not_the_next(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """The runner keeps to the CPUs it is given, and goes back to all of them without a mask."""
    jobs = [shelf.job("a", "burn 10")]
    with Session(host, transport) as session:
        list(session.measure(jobs, shelf.models, replace(quick, cpu_mask=1 << host.cpus[-1])))
        assert os.sched_getaffinity(session.hello.pid) == {host.cpus[-1]}
        list(session.measure(jobs, shelf.models, quick))
        assert os.sched_getaffinity(session.hello.pid) == set(host.cpus)


def test_a_cpu_that_is_not_there_is_refused(
    host: Device,
    transport: Transport,
    work_dir: str,
    shelf: ModelShelf,
    add_model: Callable[[int], bytes],
    quick: MeasureSettings,
) -> None:
    """A mask of CPUs that the device does not have says which it has."""
    settings = MeasureSettings(rounds=1, cpu_mask=1 << 1000)
    jobs = [shelf.job("add", add_model(8))]
    with Session(host, transport) as session:
        with pytest.raises(DeviceNotReady, match=r"cannot pin to CPUs \[1000\].*allowed are"):
            list(session.measure(jobs, shelf.models, settings))
        assert all(row.ok for row in session.measure(jobs, shelf.models, quick))


# --- what is pushed ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_runtime")
def test_a_model_that_is_not_its_hash_fails(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """The device hashes what it is about to run: a swapped file is no measurement."""
    job = shelf.job("swapped", "burn 10")
    shelf.models[job.model_sha256].write_text("burn 99")
    with Session(host, transport) as session:
        (row,) = session.measure([job], shelf.models, quick)
    assert row.status == "failed"
    assert "hash" in row.error


@pytest.mark.usefixtures("fake_runtime")
def test_a_stored_model_is_reused_only_when_its_hash_is_right(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """A model that stayed on the device is not pushed again; one changed there is, although its size is right."""
    jobs = [shelf.job("kept", "burn 10"), shelf.job("changed", "burn 11")]
    keep = SessionLimits(keep_bytes=1 << 20)
    with Session(host, transport, keep) as session:
        list(session.measure(jobs, shelf.models, quick))
    kept, changed = (Path(work_dir, "models", f"{job.model_sha256}.tflite") for job in jobs)
    inode = kept.stat().st_ino
    changed.write_text("burn 99")
    with Session(host, transport, keep) as session:
        rows = list(session.measure(jobs, shelf.models, quick))
    assert all(row.ok for row in rows)
    assert kept.stat().st_ino == inode
    assert changed.read_text() == "burn 11"


@pytest.mark.usefixtures("fake_runtime")
def test_the_work_folder_is_removed_from_this_machine(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """Nothing stays behind, and the folder was nobody else's meanwhile."""
    with Session(host, transport) as session:
        list(session.measure([shelf.job("one", "burn 10")], shelf.models, quick))
        assert Path(work_dir).stat().st_mode & 0o077 == 0
    assert not Path(work_dir).exists()


@pytest.mark.usefixtures("fake_runtime")
def test_the_oldest_models_go_when_the_folder_is_too_large(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """What may stay is bounded, the runner's own files included, and the newest stays."""
    programs = sum(path.stat().st_size for path in PythonEngine().files(host).values())
    jobs = [shelf.job(str(number), f"burn {number}" + " " * 1000) for number in range(10, 14)]
    with Session(host, transport, SessionLimits(keep_bytes=programs + 2100)) as session:
        for job, age in zip(jobs, range(40, 0, -10), strict=True):
            list(session.measure([job], shelf.models, quick))
            stored = Path(work_dir, "models", f"{job.model_sha256}.tflite")
            os.utime(stored, (stored.stat().st_mtime - age,) * 2)
    left = {path.stem for path in Path(work_dir, "models").iterdir()}
    assert left == {job.model_sha256 for job in jobs[2:]}


def test_a_work_folder_of_somebody_else_is_refused(host: Device, transport: Transport, work_dir: str) -> None:
    """A folder that others can write to could hold another runner than ours."""
    Path(work_dir).mkdir()
    Path(work_dir).chmod(0o777)
    with pytest.raises(DeviceNotReady, match="only this user can write"), Session(host, transport):
        pass
    assert list(Path(work_dir).iterdir()) == []


def test_a_work_folder_behind_a_link_is_refused(
    host: Device, transport: Transport, work_dir: str, tmp_path: Path
) -> None:
    """A link in a public folder could lead anywhere."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    Path(work_dir).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeviceNotReady, match="only this user can write"), Session(host, transport):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- models that kill -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "place"), [(signal.SIGKILL, 0), (signal.SIGSEGV, 1), (signal.SIGKILL, 2)])
@pytest.mark.usefixtures("fake_runtime")
def test_a_job_that_kills_the_runner_fails_alone(
    number: signal.Signals,
    place: int,
    host: Device,
    transport: Transport,
    work_dir: str,
    shelf: ModelShelf,
    quick: MeasureSettings,
) -> None:
    """Rows before it are kept, jobs after it are measured by a new runner, and none comes twice."""
    jobs = [shelf.job("a", "burn 10"), shelf.job("b", "burn 11")]
    jobs.insert(place, shelf.job("killer", f"kill {int(number)}"))
    with Session(host, transport) as session:
        rows = by_id(list(session.measure(jobs, shelf.models, quick)))
    assert rows["killer"].status == "failed"
    assert number.name in rows["killer"].error
    assert rows["a"].ok
    assert rows["b"].ok
    assert len(rows) == 3


@pytest.mark.usefixtures("fake_runtime")
def test_a_job_that_kills_the_runner_while_it_is_measured_fails_alone(
    host: Device, transport: Transport, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """What is not announced line by line is told by the process that watches over the runner."""
    jobs = [shelf.job("a", "burn 10"), shelf.job("killer", "after 6 kill 11"), shelf.job("b", "burn 11")]
    with Session(host, transport) as session:
        rows = by_id(list(session.measure(jobs, shelf.models, replace(quick, block_size=3))))
    assert rows["killer"].status == "failed"
    assert "SIGSEGV" in rows["killer"].error
    assert rows["a"].ok
    assert rows["b"].ok


@pytest.mark.usefixtures("fake_runtime")
def test_a_runner_killed_from_outside_is_replaced(
    host: Device,
    transport: Transport,
    work_dir: str,
    shelf: ModelShelf,
    gate: Path,
    meet: Callable[[Path], None],
    quick: MeasureSettings,
) -> None:
    """Whoever kills the runner costs nothing but time: no job is to blame for that."""
    jobs = [shelf.job("a", "burn 10"), shelf.job("stuck", f"once {gate}"), shelf.job("b", "burn 11")]
    with Session(host, transport) as session:
        rows = session.measure(jobs, shelf.models, quick)
        first = next(rows)
        meet(gate)
        os.kill(session.hello.pid, signal.SIGKILL)
        found = by_id([first, *rows])
    assert found.keys() == {"a", "stuck", "b"}
    assert all(row.ok for row in found.values())


@pytest.mark.parametrize(
    ("word", "grace_s", "reason"),
    [
        ("gate", 60.0, "the job passed its time limit"),
        ("deaf gate", 0.3, "no answer within its limit of 0.25 s"),
        ("after 6 gate", 60.0, "the job passed its time limit"),
        ("after 6 deaf gate", 0.3, "no answer within its limit of 0.25 s"),
    ],
)
@pytest.mark.usefixtures("fake_runtime")
def test_a_job_past_its_time_limit_is_ended(
    word: str,
    grace_s: float,
    reason: str,
    host: Device,
    transport: Transport,
    work_dir: str,
    shelf: ModelShelf,
) -> None:
    """A model that hangs is ended by the device, or by the host when the device does not."""
    settings = MeasureSettings(
        rounds=1, samples_per_round=4, min_sample_us=1, warmup_min_ms=0, time_limit_s=0.25, block_size=1
    )
    jobs = [shelf.job("a", "burn 10"), shelf.job("stuck", f"{word} /dev/null"), shelf.job("b", "burn 11")]
    with Session(host, transport, SessionLimits(grace_s=grace_s)) as session:
        found = by_id(list(session.measure(jobs, shelf.models, settings)))
    assert found["stuck"].status == "failed"
    assert reason in found["stuck"].error
    assert found["a"].ok
    assert found["b"].ok


@pytest.mark.usefixtures("fake_runtime")
def test_a_job_that_would_take_too_long_fails_before_it_is_measured(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf
) -> None:
    """The warm-up tells that the samples do not fit the limit; nobody has to be killed for that."""
    settings = MeasureSettings(
        rounds=10, patience=1, samples_per_round=100, min_sample_us=50_000, time_limit_s=10, warmup_min_ms=0.1
    )
    with Session(host, transport) as session:
        pid = session.hello.pid
        (row,) = session.measure([shelf.job("slow", "burn 100")], shelf.models, settings)
        assert session.hello.pid == pid
    assert row.status == "failed"
    assert "would take about" in row.error


@pytest.mark.usefixtures("fake_runtime")
def test_an_exit_inside_a_model_names_its_last_words(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """A runner that leaves without a signal is a failed job with what it said."""
    with Session(host, transport) as session:
        (row,) = session.measure([shelf.job("leaver", "exit now")], shelf.models, quick)
    assert row.status == "failed"
    assert "exited in invoke" in row.error


@pytest.mark.usefixtures("fake_runtime")
def test_restarts_are_bounded(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """A device on which everything dies is given up, and the rows so far have been handed out."""
    jobs = [shelf.job(str(number), f"kill {' ' * number}11") for number in range(5)]
    rows: list[JobResult] = []
    with Session(host, transport, SessionLimits(max_restarts=2)) as session:
        with pytest.raises(RunnerFailed, match=r"died 3 times.*2 jobs left"):
            rows.extend(session.measure(jobs, shelf.models, quick))
        left = session.measure(jobs[:1], shelf.models, quick)
        rows = [*left]
    assert [row.status for row in rows] == ["failed"]


@pytest.mark.usefixtures("fake_runtime")
def test_a_session_measures_several_batches(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf, quick: MeasureSettings
) -> None:
    """A batch that was left half read does not disturb the next, and two at once are refused."""
    jobs = [shelf.job(str(number), f"burn {number + 10}") for number in range(4)]
    with Session(host, transport) as session:
        half = session.measure(jobs, shelf.models, quick)
        next(half)
        with pytest.raises(InvalidRequest, match="still measuring"):
            next(session.measure(jobs, shelf.models, quick))
        half.close()  # type: ignore[attr-defined]  # it is a generator, which callers need not know
        assert len(by_id(list(session.measure(jobs, shelf.models, quick)))) == 4
        assert list(session.measure([], shelf.models, quick)) == []


@pytest.mark.usefixtures("fake_runtime")
def test_requests_that_make_no_sense_are_refused_at_once(
    host: Device, transport: Transport, work_dir: str, shelf: ModelShelf
) -> None:
    """Doubled ids, models without a file and unknown sentinels are found before anything is pushed."""
    job = shelf.job("a", "burn 10")
    with Session(host, transport) as session:
        with pytest.raises(InvalidRequest, match="different ids"):
            session.measure([job, job], shelf.models)
        with pytest.raises(InvalidRequest, match="no file"):
            session.measure([job], {})
        with pytest.raises(InvalidRequest, match="sentinel"):
            session.measure([job], shelf.models, MeasureSettings(sentinel_job_id="b"))


def test_hello_is_only_known_inside_a_session(host: Device, transport: Transport) -> None:
    """Asking too early is an error with a reason."""
    with pytest.raises(RunnerFailed, match="not been entered"):
        _ = Session(host, transport).hello
