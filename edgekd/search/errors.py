"""The errors that edgekd.search raises on purpose.

    SearchError(EdgekdError)            a search cannot go on
    ├── InvalidChoices(ValueError)      a decision vector or its sizes do not fit the space
    ├── InvalidReward(ValueError)       a reward is NaN, infinite or absurdly large
    └── InvalidSetting(ValueError)      an engine's setting is out of range

It does not hold InfeasibleTarget, which the command line reports by itself: see edgekd/errors.py.
"""

from __future__ import annotations

from edgekd.errors import EdgekdError


class SearchError(EdgekdError):
    """A search cannot go on; the root of this package's errors."""


class InvalidChoices(SearchError, ValueError):
    """A decision vector, or the sizes of the decisions, does not fit the space."""


class InvalidReward(SearchError, ValueError):
    """A reward is NaN, infinite or absurdly large."""


class InvalidSetting(SearchError, ValueError):
    """A setting of a search engine is out of its range."""
