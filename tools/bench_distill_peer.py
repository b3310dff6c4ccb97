"""Training steps of torchdistill, for bench_distill.py: this file runs in the interpreter that `--peer-python` names.

It needs torch, numpy and torchdistill there, and of edgekd the files beside it that build the networks. The peer gets
what its own examples give it: a batch on the device, a frozen teacher in eval mode, its box's forward and post-forward
processes, and the loss read after each step. Batches lie ready in memory: nothing is read in the time that counts.

stdin has one JSON task, then a line a turn (`kd 3`); stdout has `ready VERSION`, then a line of seconds a turn.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parent.parent
_OUTPUT = {
    f"{who}_module_{what}": value for who in ("student", "teacher") for what, value in (("path", "."), ("io", "output"))
}
_CROSS_ENTROPY = {
    "criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}},
    "criterion_wrapper": {
        "key": "SimpleLossWrapper",
        "kwargs": {
            "input": {"is_from_teacher": False, "module_path": ".", "io": "output"},
            "target": {"uses_label": True},
        },
    },
    "weight": 1.0,
}
TERMS: dict[str, dict[str, Any]] = {  # edgekd's weights of the same methods
    "kd": {
        "kd": {"criterion": {"key": "KDLoss", "kwargs": {**_OUTPUT, "temperature": 4.0, "alpha": 0.1}}, "weight": 1}
    },
    "dist": {
        "ce": _CROSS_ENTROPY,
        "dist": {
            "criterion": {"key": "DISTLoss", "kwargs": {**_OUTPUT, "beta": 2.0, "gamma": 2.0, "tau": 4.0}},
            "weight": 1,
        },
    },
}


def main(stdin: TextIO, stdout: TextIO) -> int:
    """Answer turns until there are no more; give the exit code."""
    task: dict[str, Any] = json.loads(stdin.readline())
    steps = {name: _steps(name, task) for name in TERMS}
    print(f"ready {importlib.metadata.version('torchdistill')}", file=stdout, flush=True)
    for line in stdin:
        name, count = line.split()
        print(steps[name](int(count)), file=stdout, flush=True)
    return 0


def _steps(name: str, task: dict[str, Any]) -> Callable[[int], float]:
    """Set torchdistill's box up for a method; give what makes so many steps and times them."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(task["threads"])
    device, rng = torch.device(task["device"]), torch.Generator().manual_seed(5)
    box = _box(name, task, device)
    images = torch.randn(task["shape"], generator=rng).to(device)
    labels = (torch.arange(len(images)) % task["classes"]).to(device)
    box.pre_epoch_process(epoch=0)
    on_cpu = device.type == "cpu"
    clock = time.process_time if on_cpu and task["threads"] == 1 else time.perf_counter

    def run(count: int) -> float:
        began = clock()
        for _ in range(count):
            box.pre_forward_process()
            loss = box.forward_process(images, labels, {})
            box.post_forward_process(loss=loss)
            loss.item()  # as its examples' meters do
        if not on_cpu:
            torch.cuda.synchronize(device)
        return clock() - began

    return run


def _box(name: str, task: dict[str, Any], device: Any) -> Any:
    importlib.import_module("torchdistill.core")
    distillation = importlib.import_module("torchdistill.core.distillation")
    optimizer = {"lr": task["learning_rate"], "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    config = {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": optimizer},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": TERMS[name]}},
    }
    student, teacher = _networks(task)
    places = {"device": device, "device_ids": None, "distributed": False, "lr_factor": 1}
    return distillation.DistillationBox(teacher.eval(), student, {}, config, **places)


def _networks(task: dict[str, Any]) -> tuple[Any, Any]:
    """Make both networks by edgekd's own code: they must be the same."""
    sys.path.insert(0, str(ROOT))
    layers, mnasnet, network, arch = (
        importlib.import_module(f"edgekd.spaces.{name}") for name in ("layers", "mnasnet", "network", "arch")
    )
    chosen = arch.Arch.parse(task["student"])
    student = network.Network(layers.graph_of(mnasnet.space_named(chosen.space), chosen))
    teacher = _resnet().CifarResNet(task["teacher"], task["shape"][1], task["classes"])
    return student, teacher


def _resnet() -> Any:
    """Load one file: its package reads weights, and so imports more than an interpreter for the peer may have."""
    path = ROOT / "edgekd" / "teachers" / "resnet.py"
    spec = importlib.util.spec_from_file_location("edgekd_resnet", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main(sys.stdin, sys.stdout))
