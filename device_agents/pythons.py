"""The Python of a device: which one to use, what runtimes it has, and which wheels fit it.

One script of the standard library, given to the interpreters there until one has a runtime; it imports none of them.
It installs nothing: that is `setup.py`. Read next: `describe.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from device_agents.errors import ProtocolError
from device_agents.strict_json import clean_text
from device_agents.transport import Transport

CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3.10", "python3.9", "python3")
RUNTIMES = {  # module → packages that bring it; the first found measures
    "ai_edge_litert": ("ai-edge-litert", "ai-edge-litert-nightly"),
    "tflite_runtime": ("tflite-runtime",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64"),
}
ONNX_RUNTIMES = {"onnxruntime": ("onnxruntime",)}
_ONNX_ENGINE = "onnxruntime"
_PROBE_TIMEOUT_S = 60.0  # six interpreters on an old board with a slow card
# The exit code tells the loop below whether to go on. Python 3.8 and older cannot run the runner. Only what most
# programs load is imported: on an old or emulated board, importlib.metadata alone takes seconds.
# Python puts the folder that the shell is in before its own: a checkout of TensorFlow in a home is no runtime.
_PROBE = """
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
import json, os
if sys.argv[1]:
    sys.path.insert(0, sys.argv[1])
found = {}
if sys.version_info >= (3, 9):
    import importlib.util
    for name, packages in json.loads(sys.argv[2]).items():
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        found[name] = "unknown"
        folder = os.path.dirname(os.path.dirname(spec.origin)) or "."
        for entry in sorted(os.listdir(folder)):
            package, _, version = entry.rpartition(".dist-info")[0].partition("-")
            if package.replace("_", "-").lower() in packages:
                found[name] = version
try:
    libc = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
except (AttributeError, ValueError, OSError):
    libc = []
print(json.dumps({"executable": sys.executable, "version": list(sys.version_info[:3]), "runtimes": found,
    "bits": 64 if sys.maxsize > 2**32 else 32, "libc": libc if len(libc) == 2 else ["", ""]}))
sys.exit(0 if found else 1)
"""
_SEARCH = """
probe=$1; site=$2; names=$3; shift 3
for name in "$@"; do
  case $name in "~/"*) name=$HOME/${name#??} ;; esac
  path=$(command -v "$name" 2>/dev/null) || continue
  "$path" -c "$probe" "$site" "$names" </dev/null && exit 0
done
exit 0"""


@dataclass(frozen=True, slots=True)
class PythonThere:
    """An interpreter on a device. runtimes map a module to its version; libc is like ("glibc", "2.36")."""

    executable: str
    version: tuple[int, int, int]
    bits: int = 64
    libc: tuple[str, str] = ("", "")
    runtimes: dict[str, str] = field(default_factory=dict)


def runtimes_of(engine: str) -> Mapping[str, Sequence[str]]:
    """Give the runtimes that serve an engine: modules with the packages that bring them."""
    return ONNX_RUNTIMES if engine == _ONNX_ENGINE else RUNTIMES


def site_of(engine: str) -> str:
    """Name the folder in the work folder where `edgekd devices setup` puts the engine's packages."""
    return "site-onnxruntime" if engine == _ONNX_ENGINE else "site"


def find_python(
    transport: Transport,
    site: str,
    candidates: Sequence[str] = CANDIDATES,
    runtimes: Mapping[str, Sequence[str]] = RUNTIMES,
) -> PythonThere | None:
    """Return the first interpreter that has one of the runtimes, else the first there is, else None.

    `site` is the folder where `edgekd devices setup` puts packages, or empty. Raises TransportError, ProtocolError.
    """
    names = json.dumps(runtimes)
    done = transport.run(["sh", "-c", _SEARCH, "sh", _PROBE, site, names, *candidates], _PROBE_TIMEOUT_S)
    lines = [line for line in done.stdout[: 1 << 16].splitlines() if line.startswith(b'{"executable"')]
    found = [_python(line, runtimes) for line in lines[: 2 * len(candidates)]]
    return next((python for python in found if python.runtimes), found[0] if found else None)


def _python(line: bytes, known: Mapping[str, Sequence[str]]) -> PythonThere:
    try:
        answer: dict[str, Any] = json.loads(line.decode("utf-8"))
        executable, libc = str(answer["executable"]), tuple(clean_text(str(part))[:20] for part in answer["libc"])
        major, minor, micro = (int(part) for part in answer["version"])
        bits, runtimes = int(answer["bits"]), {name: str(answer["runtimes"][name]) for name in answer["runtimes"]}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ProtocolError("the device's Python did not answer the probe with one JSON line") from error
    is_version = all(0 <= part < 1000 for part in (major, minor, micro))
    is_path = executable.startswith("/") and executable.isprintable() and len(executable) <= 400
    if not is_path or not is_version or len(libc) != 2 or not runtimes.keys() <= known.keys():
        raise ProtocolError(f"the device's Python answered the probe with nonsense: {clean_text(executable)[:80]!r}")
    ordered = {name: clean_text(runtimes[name])[:40] for name in known if name in runtimes}
    return PythonThere(executable, (major, minor, micro), bits, (libc[0], libc[1]), ordered)
