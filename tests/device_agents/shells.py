"""The shells that a device may have, as far as this machine has them: a Pi's, a phone's, a small board's."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from requirements import require

SHELLS = ("dash", "mksh with toybox", "busybox")
_PROGRAMS = {"dash": ("dash",), "mksh with toybox": ("mksh", "toybox"), "busybox": ("busybox",)}


@dataclass(slots=True)
class Shell:
    """A shell by its path, and the PATH on which its system's own commands come first."""

    program: str
    path: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of this process with the shell's PATH."""
        return {**os.environ, "PATH": self.path}

    def run(self, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script given as text, as the host does over a wire."""
        argv = [self.program, "-c", script.read_text(), script.stem, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, env=self.environment, timeout=60, check=False)


def make_shell(name: str, folder: Path) -> Shell:
    """Give a shell with its commands under their names in a folder, or leave the test out where it is not installed."""
    programs = [shutil.which(program) for program in _PROGRAMS[name]]
    found = [program for program in programs if program is not None]
    require(len(found) == len(programs), f"{name} is not installed")
    if name == "dash":
        return Shell(found[0], os.environ["PATH"])
    folder.mkdir()
    listed = subprocess.run(
        [found[-1], *(["--list"] if name == "busybox" else [])], capture_output=True, text=True, check=True
    )
    for command in listed.stdout.split():
        (folder / command).symlink_to(found[-1])
    if name != "busybox":
        (folder / "sh").symlink_to(found[0])
    # Debian's busybox has no flock, which the systems that ship busybox have.
    return Shell(str(folder / "sh"), f"{folder}:{os.environ['PATH']}")
