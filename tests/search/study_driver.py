"""A whole study with two Ray workers, for tests that kill it.

Its arguments are the study's file and the workers' diary.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from rooms import SlowRoom
from studies import study

from edgekd.search.workers.opening import workers_in
from edgekd.search.workers.settings import WorkerSettings

if __name__ == "__main__":
    with workers_in(functools.partial(SlowRoom, Path(sys.argv[2])), WorkerSettings(2)) as workers:
        study(Path(sys.argv[1]), budget=24, batch=8).run(workers.evaluate)
