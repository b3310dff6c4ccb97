"""The house: which package may import which, what starts at once, what is documented, and what never ships."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from requirements import require

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("edgekd", "device_agents", "latency_tables")
MAY_IMPORT = {"edgekd": {"device_agents", "latency_tables"}, "device_agents": set(), "latency_tables": set()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
RUNNER = "device_agents.runner.edgekd_runner"  # one file that is pushed to devices and imported by nobody
ONNX_RUNNER = "device_agents.runner.edgekd_onnx"  # pushed beside it
TRAINS_OR_EXPORTS = ("edgekd.distill.", "edgekd.export.", "edgekd.spaces.network", "edgekd.teachers", "edgekd.search.")
HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "ai_edge_litert", "litert", "tensorflow", "tflite_runtime"}


@cache
def tree_of(name: str) -> ast.Module:
    """Parse a module."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports_of(nodes: Iterator[ast.AST]) -> set[str]:
    """Name all modules that import statements name, and `package.name` for each name taken from a package."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # what of a statement holds further statements


def statements_in(node: ast.AST) -> Iterator[ast.AST]:
    """Give the statements right below one; imports are statements, so there is no need to look into expressions."""
    for block in BLOCKS:
        yield from getattr(node, block, ())


def below(node: ast.AST) -> Iterator[ast.AST]:
    """Give all statements below one."""
    for child in statements_in(node):
        yield child
        yield from below(child)


@cache
def everywhere(name: str) -> set[str]:
    """Name what a module imports, inside functions and for type checkers too."""
    return imports_of(below(tree_of(name)))


def at_run_time(name: str, *, functions: bool) -> set[str]:
    """Name what a module imports when it runs; without functions, what importing it imports."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in statements_in(node):
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if not for_types and (functions or not isinstance(child, FUNCTIONS)):
                yield child
                yield from walk(child)

    return imports_of(walk(tree_of(name)))


def test_the_modules_are_all_here() -> None:
    """The tests below look at something."""
    assert {package for package in PACKAGES if package in MODULES} == set(PACKAGES)
    assert RUNNER in MODULES
    assert len(MODULES) > 50


@pytest.mark.whole  # reads every file
def test_imports_go_one_way() -> None:
    """The package edgekd knows both others; these know neither each other nor edgekd."""
    wrong = []
    for name in MODULES:
        package = name.partition(".")[0]
        used = packages_in(everywhere(name)) & set(PACKAGES)
        wrong += [f"{name} imports {other}" for other in used - {package} - MAY_IMPORT[package]]
    assert wrong == []


@pytest.mark.whole  # reads every file
def test_no_import_goes_round_in_a_circle() -> None:
    """Inside functions or not: modules can be read one after the other, each after those that it needs."""
    left = {name: (at_run_time(name, functions=True) & MODULES.keys()) - {name} for name in MODULES}
    while left:
        leaves = {name for name, needs in left.items() if not needs & left.keys()}
        assert leaves, f"a cycle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in leaves}


@pytest.mark.whole  # reads every file
def test_torch_is_imported_only_where_tensors_are_trained_or_exported() -> None:
    """Elsewhere not at the head of a module, and never in the two packages that know nothing of it."""
    untrained = [name for name in MODULES if not name.startswith(TRAINS_OR_EXPORTS)]
    assert [name for name in untrained if "torch" in packages_in(at_run_time(name, functions=False))] == []
    foreign = [name for name in MODULES if name.partition(".")[0] != "edgekd" and name not in (RUNNER, ONNX_RUNNER)]
    assert [name for name in foreign if HEAVY & packages_in(everywhere(name))] == []


def packages_in(imported: set[str]) -> set[str]:
    """Give the packages that modules are of."""
    return {name.partition(".")[0] for name in imported}


LIGHT = ("edgekd.profile", "edgekd.search.latency", "edgekd.search.study", "edgekd.report.html", "edgekd.config")


@pytest.mark.whole  # starts another Python
def test_profiling_and_predicting_do_without_torch() -> None:
    """What `edgekd profile`, `predict` and `report` need starts without seconds of waiting for torch."""
    code = f"import sys, {', '.join(LIGHT)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_loads_nothing_heavy() -> None:
    """`edgekd --help` imports neither torch nor a runtime nor numpy."""
    command = [sys.executable, "-X", "importtime", "-m", "edgekd", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert {"argparse", "edgekd"} <= loaded
    assert not loaded & (HEAVY | {"numpy"})
    assert "usage: edgekd" in done.stdout


def test_what_is_public_is_documented() -> None:
    """Every module and every public function, class and method has a docstring; a private module speaks for itself."""
    trees = {name: tree_of(name) for name in MODULES}
    assert [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []
    missing = [
        f"{name}: {node.name}"
        for name, tree in trees.items()
        for node in public_definitions(tree)
        if not ast.get_docstring(node) and not any("overload" in ast.dump(d) for d in node.decorator_list)
    ]
    assert missing == []


def public_definitions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Give public functions and classes of a module, and the public methods of public classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if node.name != "forward" or ast.get_docstring(node):  # torch's own name for what a module computes
                yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def test_a_module_says_shortly_what_it_is() -> None:
    """A docstring at the head is fifteen lines at most; the drawn error trees may be longer."""
    lines = {name: len((ast.get_docstring(tree_of(name)) or "").splitlines()) for name in MODULES}
    assert {name: count for name, count in lines.items() if count > 15 and not name.endswith(".errors")} == {}


def test_a_module_is_short_enough_to_be_read() -> None:
    """350 lines at most; the runner is one file because one file is pushed."""
    lines = {name: path.read_text(encoding="utf-8").count("\n") for name, path in MODULES.items() if name != RUNNER}
    assert {name: count for name, count in lines.items() if count > 350} == {}


def kept_files() -> list[Path]:
    """List the files that git keeps or would keep."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    require(done.returncode == 0, "this is no git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


SLEEP = re.compile(r"\btime\.sleep\(")


@pytest.mark.whole  # reads every file
def test_every_sleep_says_what_it_waits_for() -> None:
    """An event is better; where none is offered, a comment in the same line says so."""
    sources = [path for path in kept_files() if path.suffix == ".py"]
    lines = [(path, line) for path in sources for line in path.read_text(encoding="utf-8").splitlines()]
    slept = [(path, line) for path, line in lines if SLEEP.search(line) and path != Path(__file__).resolve()]
    assert len(slept) > 3
    assert [f"{path}: {line.strip()}" for path, line in slept if "  # " not in line] == []


HOME = re.compile(r"/(?:home|Users)/\w+|C:\\\\?Users")


def test_no_file_names_a_path_of_a_machine() -> None:
    """Neither this checkout's folder nor anybody's home is in a text file."""
    files = kept_files()
    assert Path(__file__).resolve() in files
    here = str(ROOT)
    found = []
    for path in files:
        content = path.read_bytes()
        if b"\0" in content or path == Path(__file__).resolve():
            continue
        text = content.decode()
        named = [
            part for part in (here, str(Path(sys.prefix).resolve())) if re.search(re.escape(part) + r"(?!\w)", text)
        ]
        found += [f"{path}: {part}" for part in [*named, *HOME.findall(text)]]
    assert found == []
