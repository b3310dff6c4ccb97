"""The errors that edgekd.search.workers raises on purpose.

    WorkersError(SearchError)           candidates cannot be rated; every finished sample is kept
    ├── BadWorkers(UsageError)          a number of workers or a share of a processor that cannot be
    ├── NoCluster(UsageError)           the Ray address is wrong, or nothing answers there
    ├── TooFewResources                 the machine or cluster has not what the workers ask for
    ├── WorkersGone                     every worker is lost and none comes back, or none can start
    └── Refused                         a worker met an error of the request, and this is its text

A candidate whose worker was lost is no error but an answer: rated.py.
"""

from __future__ import annotations

from edgekd.errors import UsageError
from edgekd.search.errors import SearchError


class WorkersError(SearchError):
    """Candidates cannot be rated."""


class BadWorkers(WorkersError, UsageError):
    """A setting of the workers is out of range."""


class NoCluster(WorkersError, UsageError):
    """There is no Ray cluster at the address, or it cannot be joined from here."""


class TooFewResources(WorkersError):
    """The machine or cluster has not the processors that the workers ask for, or not free."""


class WorkersGone(WorkersError):
    """No worker is left, and none came in its place in the time allowed."""


class Refused(WorkersError):
    """A worker met an error of the request, such as data that is not on its machine."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code
