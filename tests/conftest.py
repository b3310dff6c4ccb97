"""What all tests share: settings of hypothesis and of threads. Its folder is on the import path, for synthetic.py."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = ["virtual"]  # the fixture virtual_devices

# before torch is loaded: threads that spin while they wait starve each other on a busy machine, as in edgekd's own cli
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# a shared machine stalls now and then, so how long one example took says nothing about the code
# on a CI machine the examples are the same every time, so that a red run is the change's doing; elsewhere they are new
DERANDOMIZE = bool(os.environ.get("CI"))
EXAMPLES = 50 if DERANDOMIZE else 20  # new ones in every run, so that fewer in each will do
settings.register_profile("edgekd", deadline=None, print_blob=True, max_examples=EXAMPLES, derandomize=DERANDOMIZE)
settings.load_profile("edgekd")


@pytest.fixture
def threads_restored() -> Iterator[None]:
    """Give torch its own count of threads back."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(threads_restored: None) -> None:
    """Let torch work on one thread: its tests are too small for more, and others may have the rest of the machine."""
    import torch

    torch.set_num_threads(1)
