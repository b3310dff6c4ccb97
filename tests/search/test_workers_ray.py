"""Workers on a real Ray cluster of this machine: in order, whoever is lost, and with clear errors. Nothing is faked."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray_clusters import cluster_of, wait_until
from rooms import (
    BrokenRoom,
    DeadlyRoom,
    FormulaRoom,
    GpuRoom,
    MisledRoom,
    SlowRoom,
    accuracy_of,
    no_room,
    room_behind_a_door,
)
from synthetic import every_arch, tiny_space

from edgekd.distill.recipe import sgd_recipe
from edgekd.profile import calibration_archs
from edgekd.search.proxy import ProxyTask
from edgekd.search.rated import Hopeless
from edgekd.search.workers import WorkerSettings, open_workers, ray_pool
from edgekd.search.workers.errors import Refused, TooFewResources, WorkersGone
from edgekd.search.workers.opening import workers_in
from edgekd.spaces.mnasnet import space_named

pytestmark = pytest.mark.slow
ARCHS = list(every_arch(tiny_space()))[::40][:10]
TRUTH = [accuracy_of(arch) for arch in ARCHS]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start one cluster for all tests here, with two processors, and join it as a study's process."""
    with cluster_of(2) as started:
        ray.init(address=started.address, log_to_driver=False, configure_logging=False)
        yield started
        ray.shutdown()


@pytest.fixture
def two(cluster: Any) -> WorkerSettings:
    """Ask for two workers of that cluster."""
    return WorkerSettings(2, cluster.address, wait_s=240.0)


def test_ratings_come_in_the_order_of_the_proposals(two: WorkerSettings, tmp_path: Path) -> None:
    """However long each takes; two processes share the work, and each candidate is rated once."""
    diary = tmp_path / "diary"
    with workers_in(functools.partial(SlowRoom, diary), two) as workers:
        assert [rated.accuracy for rated in workers.evaluate(ARCHS)] == TRUTH
        assert [rated.accuracy for rated in workers.evaluate(ARCHS[:1])] == TRUTH[:1]
    began = [line.split() for line in diary.read_text().splitlines() if line.startswith("began")]
    assert len({pid for _, pid, _ in began}) == 2
    assert sorted(arch_id for _, _, arch_id in began[:-1]) == sorted(arch.arch_id for arch in ARCHS)


def test_ratings_equal_those_of_this_process(two: WorkerSettings) -> None:
    """The number of workers changes nothing, what is hopeless included."""
    hopeless = Hopeless(3, 0.5)
    with workers_in(FormulaRoom, WorkerSettings()) as one, workers_in(FormulaRoom, two) as many:
        assert list(many.evaluate(ARCHS, hopeless)) == list(one.evaluate(ARCHS, hopeless))


def test_the_proxy_task_is_rated_alike_by_whoever_rates_it(two: WorkerSettings, one_thread: None) -> None:
    """Real trainings on the embedded images: the accuracies of two workers equal those of this process, bit for bit."""
    space = space_named("mnasnet-28-narrow")
    recipe = sgd_recipe(epochs=1, batch_size=8, learning_rate=0.03)
    task = ProxyTask(space, "embedded", None, "none", 400, recipe)
    archs = calibration_archs(space, 3)
    with open_workers(task, WorkerSettings()) as one, open_workers(task, two) as many:
        inline, remote = list(one.evaluate(archs)), list(many.evaluate(archs))
    assert [(r.accuracy, r.epochs, r.failure) for r in remote] == [(r.accuracy, r.epochs, "") for r in inline]
    assert len({r.accuracy for r in inline}) > 1


def test_a_worker_that_is_killed_costs_only_time(two: WorkerSettings, tmp_path: Path) -> None:
    """SIGKILL in the midst of candidates, twice each: others rate them in the end."""
    deadly = tuple(ARCHS[place].arch_id for place in (0, 4, 9))
    with workers_in(functools.partial(DeadlyRoom, tmp_path, deadly, 2), two) as workers:
        assert [rated.accuracy for rated in workers.evaluate(ARCHS)] == TRUTH
    assert len(list(tmp_path.iterdir())) == 6


def test_a_candidate_that_kills_three_workers_has_failed(two: WorkerSettings, tmp_path: Path) -> None:
    """It is answered as a failure in one line, and the others are rated as ever."""
    with workers_in(functools.partial(DeadlyRoom, tmp_path, (ARCHS[3].arch_id,), 9), two) as workers:
        found = list(workers.evaluate(ARCHS))
    assert len(list(tmp_path.iterdir())) == 3
    assert found[3].failure.startswith("worker lost 3 times: The actor died")
    assert "\n" not in found[3].failure
    assert found[3].accuracy == 0
    assert [rated.accuracy for rated in found if not rated.failure] == TRUTH[:3] + TRUTH[4:]


def test_workers_that_die_while_they_are_free_make_no_candidate_a_failure(cluster: Any, tmp_path: Path) -> None:
    """A candidate is not handed from one dead worker to the next until it has lost three: after one, all are asked."""
    diary = tmp_path / "diary"
    four = WorkerSettings(4, cluster.address, cpus_per_worker=0.5, wait_s=240.0)
    with workers_in(functools.partial(SlowRoom, diary), four) as workers:
        list(workers.evaluate(ARCHS))
        for pid in {int(line.split()[1]) for line in diary.read_text().splitlines()}:
            os.kill(pid, signal.SIGKILL)
        assert [rated.accuracy for rated in workers.evaluate(ARCHS[:1])] == TRUTH[:1]


def test_a_node_that_is_removed_costs_only_time(cluster: Any, tmp_path: Path) -> None:
    """Its workers are lost in the midst of candidates; those that are left finish the batch."""
    node = cluster.add_node(num_cpus=2)
    diary = tmp_path / "diary"
    settings = WorkerSettings(4, cluster.address, wait_s=240.0)
    with workers_in(functools.partial(SlowRoom, diary), settings) as workers:
        ratings = workers.evaluate(ARCHS * 4)
        found = [next(ratings) for _ in range(4)]
        cluster.remove_node(node, allow_graceful=False)
        found += ratings
    assert [rated.accuracy for rated in found] == TRUTH * 4
    assert [rated.failure for rated in found] == [""] * 40
    assert len({line.split()[1] for line in diary.read_text().splitlines()}) == 4


def test_without_any_worker_left_it_ends_with_an_error(cluster: Any, tmp_path: Path) -> None:
    """Within the time allowed, and says what is asked for and what there is."""
    settings = WorkerSettings(1, cluster.address, cpus_per_worker=2.0, wait_s=5.0)
    with workers_in(functools.partial(SlowRoom, tmp_path / "diary"), settings) as workers:
        ratings = workers.evaluate(ARCHS)
        next(ratings)
        blocker = ray.remote(num_cpus=2)(FormulaRoom).remote()  # waits for the place, and has it when it is free
        pid = int((tmp_path / "diary").read_text().split()[1])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkersGone, match="none came back within 5 s"):
            list(ratings)
        ray.kill(blocker)


def test_what_the_cluster_has_not_is_said_within_the_time_allowed(cluster: Any) -> None:
    """The message names what each asks for and what there is."""
    settings = WorkerSettings(3, cluster.address, cpus_per_worker=1.0, gpus_per_worker=0.5, wait_s=3.0)
    with pytest.raises(TooFewResources, match=r"3 of 3 .* 0\.5 GPU, .* 0 GPU"), workers_in(FormulaRoom, settings):
        pytest.fail("it has started")


class Clock:
    """Hours go by while a room is being opened, which it is for a few looks at the clock."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._looks = folder, 0

    def monotonic(self) -> float:
        if not (self._folder / "opening").exists():
            return time.monotonic()
        if self._looks < 6:
            self._looks += 1
        else:
            (self._folder / "go").touch()
        return time.monotonic() + 7200 * self._looks


def test_a_room_may_take_its_time_to_open(two: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time allowed is for Ray to find a place; data that a machine has never read take as long as they take."""
    monkeypatch.setattr(ray_pool, "time", Clock(tmp_path))
    with workers_in(functools.partial(room_behind_a_door, tmp_path), replace(two, workers=1)) as workers:
        assert [rated.accuracy for rated in workers.evaluate(ARCHS[:2])] == TRUTH[:2]
    assert (tmp_path / "go").exists()


def test_workers_share_a_gpu_as_they_are_told(cluster: Any) -> None:
    """Two halves fit one, and see it alone; a third worker has no place; Ray counts a GPU that is only said to be."""
    node = cluster.add_node(num_cpus=0, num_gpus=1)
    halves = WorkerSettings(2, cluster.address, cpus_per_worker=0.0, gpus_per_worker=0.5, wait_s=240.0)
    with workers_in(GpuRoom, halves) as workers:
        assert {rated.host for rated in workers.evaluate(ARCHS)} == {"0"}
    thirds = replace(halves, workers=3, wait_s=30.0)
    with pytest.raises(TooFewResources, match=r"1 of 3 .* 1 GPU \(0 free\)"), workers_in(GpuRoom, thirds):
        pytest.fail("it has started")
    cluster.remove_node(node)


def test_a_request_that_cannot_be_served_ends_with_the_workers_error(two: WorkerSettings) -> None:
    """When the room is opened or later: the text and the exit code are the error's own."""
    with pytest.raises(Refused, match=r"data y\.npz") as refused, workers_in(no_room, two):
        pytest.fail("it has started")
    assert refused.value.exit_code == 2
    with workers_in(MisledRoom, two) as workers, pytest.raises(Refused, match=r"data x\.npz"):
        list(workers.evaluate(ARCHS))


def test_a_defect_of_the_room_shows_its_trace(two: WorkerSettings) -> None:
    """It is not taken for a lost worker."""
    with workers_in(BrokenRoom, two) as workers, pytest.raises(ZeroDivisionError, match=r"rooms\.py"):
        list(workers.evaluate(ARCHS))


def test_a_batch_that_nobody_wants_any_more_holds_no_worker(two: WorkerSettings, tmp_path: Path) -> None:
    """The workers that were in the midst of it are ended, and others rate the next batch."""
    with workers_in(functools.partial(SlowRoom, tmp_path / "diary"), two) as workers:
        ratings = workers.evaluate(ARCHS)
        next(ratings)
        ratings.close()  # type: ignore[attr-defined]  # it is a generator
        assert [rated.accuracy for rated in workers.evaluate(ARCHS[5:])] == TRUTH[5:]


def test_at_the_end_of_the_block_the_cluster_is_free_again(cluster: Any, two: WorkerSettings) -> None:
    """Nobody else's place is held."""
    with workers_in(FormulaRoom, two) as workers:
        list(workers.evaluate(ARCHS))
    wait_until(lambda: ray.available_resources().get("CPU", 0) == ray.cluster_resources()["CPU"], "to free all CPUs")
