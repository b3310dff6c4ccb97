"""What a whole run needs, small enough to end in seconds: images, a teacher, a latency table, and a way to start it.

The table's times come from synthetic.py's formula; only its key is the real one of this machine, so a run takes it for
its own and measures nothing but what is missing.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import NARROW, measurement, synthetic_ns

from edgekd.bench import Bench, DeviceChoice
from edgekd.data.loading import load_data
from edgekd.graph.ir import graph_in
from edgekd.profile import all_ops, calibration_archs
from edgekd.spaces.layers import graph_of
from latency_tables.builder import NetworkSpec, Plan, Subject, build
from latency_tables.op_spec import DTYPES, OpSpec
from latency_tables.schema import Measurement, TableKey
from latency_tables.store import TableFile


def write_data(path: Path, train: int = 600) -> Path:
    """Write the first images of the embedded splits, whose classes are mixed: some to train, 100 and 100 others."""
    whole = load_data("embedded")
    arrays: dict[str, Any] = {}
    for name, count in {"train": train, "validation": 100, "test": 100}.items():
        arrays[f"{name}_images"] = whole.split(name).images[:count]
        arrays[f"{name}_labels"] = whole.split(name).labels[:count]
    np.savez_compressed(path, **arrays)
    return path


def write_teacher(path: Path, data_path: Path, epochs: int) -> Path:
    """Train a resnet8 for a few epochs, none for an ignorant one, and write it as teachers.py reads it."""
    import torch
    from safetensors.torch import save_file

    from edgekd.distill.lesson import Lesson
    from edgekd.distill.methods import method_named
    from edgekd.distill.recipe import sgd_recipe
    from edgekd.distill.train import train
    from edgekd.distill.views import samples_of
    from edgekd.teachers import CifarResNet

    data = load_data(str(data_path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = CifarResNet("resnet8", 1, 10)
    if epochs:
        lesson = Lesson(samples_of(data, data.train), method_named("none"))
        train(network, lesson, sgd_recipe(epochs, batch_size=20, learning_rate=0.1))
    record = {"architecture": "resnet8", "classes": "10", "in_channels": "1", "input_shape": "[28, 28, 1]"}
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path, record)
    return path


@contextmanager
def own_device(folder: Path) -> Iterator[None]:
    """Let this process measure on the host though another process, outside the tests, holds it just now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


def host_key(folder: Path) -> TableKey:
    """Ask for the key under which this machine's tables are kept."""
    with own_device(folder), Bench(DeviceChoice().find(), lambda warning: None) as bench:
        return bench.key


def write_table(path: Path, key: TableKey) -> Path:
    """Write a complete, calibrated table of the narrow space."""
    networks = tuple(
        NetworkSpec(f"network:{dtype}:{arch}", dtype, tuple(graph_in(graph_of(NARROW, arch), dtype).ops))
        for arch in calibration_archs(NARROW)
        for dtype in DTYPES
    )
    build(TableFile(path, key), Plan(all_ops(NARROW), networks), _made_up, lambda done, total: None)
    return path


def _made_up(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Measurement]]:
    """Time operators by the formula, and a network as the sum of its operators. How fast the machine was is unknown."""
    for subject in subjects:
        if isinstance(subject, OpSpec):
            yield subject, measurement(subject.key, synthetic_ns(subject), sentinel_ns=0)
        else:
            total_ns = sum(map(synthetic_ns, subject.ops)) - 300 * len(subject.ops)
            yield subject, measurement(subject.name, total_ns, sentinel_ns=0)


def edgekd(*arguments: object, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """Start the command line in a folder, as the leader of its own process group; stdout and stderr are pipes.

    Its temporary files are there too, and with them the lock of the host as a device: see own_device.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "edgekd", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(folder)},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True} | options,
    )


def make_read_only(mounted: Path) -> None:
    """Mount a file system anew so that not even root can write to it."""
    command = ["mount", "-o", "remount,ro", str(mounted)]
    subprocess.run(command, check=True)


def names_in(folder: Path) -> list[str]:
    """List a folder, hidden files included, in order."""
    return sorted(path.name for path in folder.iterdir())


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a journal that may still grow; a file that is not there yet has none."""
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def line_count(path: Path) -> int:
    """Count the whole lines of a journal that may still grow, without the work of reading them."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Poll for something that a running process does to its files; fail when it ends before."""
    while not happened():
        if process.poll() is not None:
            raise AssertionError(f"it ended early, with code {process.returncode}: {process.communicate()[1]}")
        select.select([], [], [], 0.01)


def all_end(pids: Collection[int]) -> bool:
    """Wait until all processes have ended: True when they did in time, which is at once if the machine is not stuck."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], 20)[0]:
                return False
        finally:
            os.close(handle)
    return True


def descendants(pid: int) -> set[int]:
    """List the processes below a process."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = set(), [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found
