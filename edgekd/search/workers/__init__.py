"""Who rates a study's candidates: this process, or actors on Ray, here or on a cluster.

All of them answer in the order of the proposals and with the same accuracies; only the time differs. What rating is
they do not know: they open a room (proxy.py's Classroom) and ask it. Read next: `inline.py`, then `ray_pool.py`.
"""

from __future__ import annotations

from edgekd.search.workers.opening import open_workers
from edgekd.search.workers.room import Room, Workers
from edgekd.search.workers.settings import WorkerSettings

__all__ = ["Room", "WorkerSettings", "Workers", "open_workers"]
