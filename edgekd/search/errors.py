"""The errors that edgekd.search raises on purpose.

    SearchError(EdgekdError)            a search cannot go on
    ├── InvalidChoices(ValueError)      a decision vector or its sizes do not fit the space
    ├── InvalidReward(ValueError)       a reward is NaN, infinite or absurdly large
    ├── InvalidSetting(UsageError)      a setting of an engine, reward or proxy is out of range
    ├── OtherVersion(DataError)         a study's file is of another version of its format
    ├── LowerBudget(UsageError)         a study is to go on with a smaller budget than it had
    ├── OtherStudy(UsageError)          a study cannot be warm-started from that other one
    └── NoneUnderTarget                 some architecture would meet the target, but no sample did

It does not hold InfeasibleTarget, which the command line reports by itself: see edgekd/errors.py.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import DataError, EdgekdError, UsageError


class SearchError(EdgekdError):
    """A search cannot go on; the root of this package's errors."""


class InvalidChoices(SearchError, ValueError):
    """A decision vector, or the sizes of the decisions, does not fit the space."""


class InvalidReward(SearchError, ValueError):
    """A reward is NaN, infinite or absurdly large."""


class InvalidSetting(SearchError, UsageError, ValueError):
    """A setting of a search engine, a reward or a proxy is out of its range."""


class OtherVersion(SearchError, DataError):
    """A study's file is of a version that this edgekd neither reads nor goes on with; it is left as it is."""

    def __init__(self, path: Path, found: object, read: int) -> None:
        newer = type(found) is int and found > read
        what = "a newer edgekd; use that one" if newer else "an older edgekd; use that one"
        super().__init__(
            f"{path} is a study of format version {found!r}, and this edgekd reads version {read}: it was written by "
            f"{what}, or begin anew with another folder"
        )


class LowerBudget(SearchError, UsageError):
    """A study's budget can be raised, not lowered: its samples are there already."""


class OtherStudy(SearchError, UsageError):
    """A study cannot be warm-started from another: their evaluations do not compare."""


class NoneUnderTarget(SearchError):
    """Some architecture would meet the target, but no sample did."""
