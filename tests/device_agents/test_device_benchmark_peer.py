"""The stand-in of benchmark_model says what the real one says, and its numbers are those of real runs."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest
from peers.build import build_benchmark_model
from small_models import mixed_kernels, subtraction

pytestmark = pytest.mark.slow  # compilers, shells and real programs

_LIBRARY = Path(ai_edge_litert.__file__).with_name("libLiteRt.so")
_GOLDEN = Path(__file__).with_name("golden")
_QUICK = ("--num_runs=20", "--min_secs=0", "--warmup_runs=3", "--warmup_min_secs=0")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for this machine."""
    folder = tmp_path_factory.mktemp("peer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return build_benchmark_model(platform.machine(), _LIBRARY, folder)


def _run(binary: Path, *flags: str, generation: int = 3) -> subprocess.CompletedProcess[str]:
    env = {"BENCHMARK_MODEL_GENERATION": str(generation)}
    return subprocess.run([binary, *flags], capture_output=True, text=True, env=env, check=False, timeout=60)


def _form(text: str) -> list[str]:
    """Leave the form of the lines that count: numbers become N."""
    numbers = re.compile(r"\d+(\.\d+)?(e[+-]\d+)?")
    wanted = ("count=", "Inference timings", "footprint", "Running benchmark")
    return [numbers.sub("N", line) for line in text.splitlines() if any(word in line for word in wanted)]


@pytest.mark.parametrize(("generation", "golden"), [(1, "first"), (2, "second"), (3, "third")])
def test_each_generation_writes_the_lines_of_its_time(
    generation: int, golden: str, binary: Path, tmp_path: Path
) -> None:
    """Their form is that of samples whose statistics TensorFlow's own code wrote."""
    (tmp_path / "m.tflite").write_bytes(mixed_kernels(20_000))
    peak = ["--report_peak_memory_footprint=true"] if golden == "second" else []
    done = _run(binary, f"--graph={tmp_path}/m.tflite", "--num_threads=1", *_QUICK, *peak, generation=generation)
    assert done.returncode == 0, done.stderr
    assert _form(done.stdout) == _form((_GOLDEN / f"{golden}.txt").read_text())
    assert "count=20 " in done.stdout


def test_outputs_are_those_of_the_given_inputs(binary: Path, tmp_path: Path) -> None:
    """Values go in and come out as raw bytes."""
    left, right = (np.random.default_rng(seed).uniform(-1, 1, 10).astype(np.float32) for seed in (1, 2))
    (tmp_path / "m.tflite").write_bytes(subtraction(10))
    left.tofile(tmp_path / "left")
    right.tofile(tmp_path / "right")
    files = f"--input_layer_value_files=i0:{tmp_path}/left,i1:{tmp_path}/right"
    layers = ("--input_layer=i0,i1", "--input_layer_shape=1,10:1,10", files)
    done = _run(binary, f"--graph={tmp_path}/m.tflite", *_QUICK, *layers, f"--output_filepath={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.fromfile(tmp_path / "out", np.float32), left - right, atol=1e-6)


def test_the_profile_has_a_line_for_each_node(binary: Path, tmp_path: Path) -> None:
    """In the columns of the real one, in the order of execution."""
    (tmp_path / "m.tflite").write_bytes(mixed_kernels(20_000))
    done = _run(binary, f"--graph={tmp_path}/m.tflite", *_QUICK, "--enable_op_profiling=true")
    golden = (_GOLDEN / "profile.txt").read_text()
    title, header = "Operator-wise Profiling Info for Regular Benchmark Runs:", "[node type]"
    run_order = done.stdout.split(title)[1].split("Top by")[0].splitlines()
    assert next(line for line in run_order if header in line) in golden
    names = [line.split("\t")[-1] for line in run_order if line.startswith("\t") and header not in line]
    assert names == ["Delegate/Add (ND):0", "[FLOOR_MOD]:1", "Delegate/Add (ND):2"]


@pytest.mark.parametrize("flag", ["--graph=/no/such/model", "--num_runs=many", "--unknown=1"])
def test_what_cannot_be_done_fails(flag: str, binary: Path) -> None:
    """With a code, and an error where the real one writes it."""
    done = _run(binary, flag)
    assert done.returncode == 1
    assert "ERROR: Benchmarking failed." in done.stderr
