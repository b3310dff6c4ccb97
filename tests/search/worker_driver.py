"""A study's process for tests that kill it: it opens two workers that compute for ever.

Its arguments are the folder in which the workers say who they are, and a Ray address or nothing.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from rooms import StuckRoom
from synthetic import random_archs, tiny_space

from edgekd.search.workers.opening import workers_in
from edgekd.search.workers.settings import WorkerSettings

if __name__ == "__main__":
    folder, address = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    try:
        with workers_in(functools.partial(StuckRoom, folder), WorkerSettings(2, address)) as workers:
            list(workers.evaluate(random_archs(tiny_space(), 2, 1)))
    except KeyboardInterrupt:
        sys.exit(130)
