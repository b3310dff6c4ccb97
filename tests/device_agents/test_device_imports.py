"""The package's place in the house, held by its imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import device_agents

ROOT = Path(next(iter(device_agents.__path__)))
RUNNER = ROOT / "runner" / "edgekd_runner.py"
NODES = ROOT / "runner" / "edgekd_nodes.py"
ONNX = ROOT / "runner" / "edgekd_onnx.py"
MODULES = sorted(path for path in ROOT.rglob("*.py") if path not in (RUNNER, ONNX))
OPTIONAL = {"ssh_*.py": {"asyncssh"}, "adb/auth.py": {"adb_shell"}, "adb/usb*.py": {"adb_shell", "usb1"}}


def imported(path: Path) -> set[str]:
    """Return the first names of all that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def optional_for(path: Path) -> set[str]:
    """Return the packages of the extra `devices` that a module may import, because it is where they are used."""
    return set().union(*(names for pattern, names in OPTIONAL.items() if path.relative_to(ROOT).match(pattern)))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_host_side_needs_the_standard_library_only(path: Path) -> None:
    """No module imports torch, numpy, edgekd or latency_tables; those of a wire may import what that wire needs."""
    assert imported(path) <= sys.stdlib_module_names | {"device_agents"} | optional_for(path)


@pytest.mark.whole  # starts another Python
def test_a_session_on_this_machine_needs_no_package_of_a_wire() -> None:
    """Who has not installed the extra `devices` can list devices and measure here."""
    script = (
        "import sys; sys.modules |= dict.fromkeys(('asyncssh', 'adb_shell', 'usb1'));"  # None: not to be imported
        "from device_agents import inventory, session;"
        "inventory.sightings(); device = inventory.find_device('host'); inventory.open_transport(device).close();"
        "print(device.address)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["local:"]


def test_the_runner_brings_nothing_but_numpy() -> None:
    """The pushed files import the standard library, and the runner what the runtime itself needs."""
    assert imported(RUNNER) - sys.stdlib_module_names == {"numpy"}
    assert imported(NODES) <= sys.stdlib_module_names
    assert imported(ONNX) - sys.stdlib_module_names == {"numpy", "onnxruntime"}


@pytest.mark.parametrize("path", [RUNNER, NODES, ONNX], ids=lambda path: path.name)
def test_the_runner_is_python_3_9(path: Path) -> None:
    """Old boards can read the pushed files, and have what these call: zip has had `strict` since Python 3.10."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [node.lineno for node in calls if any(keyword.arg == "strict" for keyword in node.keywords)]


def test_the_host_never_imports_the_runner() -> None:
    """What runs on the device is a file to push, not a module to share."""
    assert not any("edgekd_runner import" in path.read_text(encoding="utf-8") for path in MODULES)


@pytest.mark.whole  # reads every file
def test_modules_import_each_other_without_cycles() -> None:
    """The package can be read from its leaves to session.py."""
    graph = {path.stem: _siblings(path) for path in ROOT.glob("*.py") if path.stem != "__init__"}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def _siblings(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("device_agents"):
            found.add((node.module or "").partition(".")[2])
            found.update(alias.name for alias in node.names if node.module == "device_agents")
    return found - {""}
